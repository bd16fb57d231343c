#include "vb/addr.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>

#include "vb/str.h"

char *vb_addr_format_ip(char *to, size_t size, const struct sockaddr *address)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;
    const void *bytes = NULL;
    int family = address->sa_family;
    if (family == AF_INET) {
        bytes = &v4->sin_addr;
    } else if (family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr)) {
        family = AF_INET;
        bytes = &v6->sin6_addr.s6_addr[12];
    } else if (family == AF_INET6) {
        bytes = &v6->sin6_addr;
    }
    if (bytes == NULL || inet_ntop(family, bytes, to, (socklen_t)size) == NULL)
        vb_copy(to, size, "?");
    return to;
}

char *vb_addr_format(char *to, size_t size, const struct sockaddr *address)
{
    char ip[VB_ADDR_TEXT_MAX];
    vb_addr_format_ip(ip, sizeof(ip), address);
    /* The port is at the same place in both forms. */
    unsigned port = ntohs(((const struct sockaddr_in *)address)->sin_port);
    if (address->sa_family != AF_INET && address->sa_family != AF_INET6)
        vb_copy(to, size, "?");
    else
        snprintf(to, size, address->sa_family == AF_INET6 ? "[%s]:%u" : "%s:%u", ip, port);
    return to;
}
