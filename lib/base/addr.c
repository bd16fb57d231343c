#include "vb/addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/un.h>

#define V4_BEGIN 96 /* bits before the IPv4 address in ::ffff:a.b.c.d */

/* ---- one form for both families ---- */
static struct vb_ip map_v4(const struct in_addr *v4)
{
    struct vb_ip ip = {.bytes = {[10] = 0xff, [11] = 0xff}};
    memcpy(&ip.bytes[V4_BEGIN / 8], v4, sizeof(*v4));
    return ip;
}

static bool is_v4(const struct vb_ip *ip)
{
    static const uint8_t prefix[V4_BEGIN / 8] = {[10] = 0xff, [11] = 0xff};
    return memcmp(ip->bytes, prefix, sizeof(prefix)) == 0;
}

bool vb_ip_is_none(const struct vb_ip *ip)
{
    static const struct vb_ip none;
    return memcmp(ip, &none, sizeof(none)) == 0;
}

struct vb_ip vb_ip_of(const struct sockaddr *address)
{
    struct vb_ip ip = {.bytes = {0}};
    if (address->sa_family == AF_INET)
        ip = map_v4(&((const struct sockaddr_in *)address)->sin_addr);
    else if (address->sa_family == AF_INET6)
        memcpy(ip.bytes, &((const struct sockaddr_in6 *)address)->sin6_addr, sizeof(ip.bytes));
    return ip;
}

int vb_ip_parse(struct vb_str text, struct vb_ip *ret_ip)
{
    char copy[INET6_ADDRSTRLEN];
    struct in_addr v4;
    struct vb_ip ip;
    if (text.n == 0 || text.n >= sizeof(copy) || memchr(text.p, '\0', text.n) != NULL)
        return -EINVAL;
    memcpy(copy, text.p, text.n);
    copy[text.n] = '\0';
    if (inet_pton(AF_INET, copy, &v4) == 1)
        ip = map_v4(&v4);
    else if (inet_pton(AF_INET6, copy, ip.bytes) != 1)
        return -EINVAL;
    *ret_ip = ip;
    return 0;
}

/* inet_ntop has a printf inside, which would be a sixth of what a new connection costs us. Where `text` ends now. */
static char *print_v4(char text[INET_ADDRSTRLEN], const uint8_t bytes[4])
{
    char *p = text;
    for (unsigned i = 0; i < 4; i++) {
        unsigned value = bytes[i];
        if (value >= 100)
            *p++ = (char)('0' + value / 100);
        if (value >= 10)
            *p++ = (char)('0' + value / 10 % 10);
        *p++ = (char)('0' + value % 10);
        *p++ = i < 3 ? '.' : '\0';
    }
    return p;
}

static char *format_ip(char *to, size_t size, const struct vb_ip *ip)
{
    char v4[INET_ADDRSTRLEN];
    size_t length = is_v4(ip) ? (size_t)(print_v4(v4, &ip->bytes[V4_BEGIN / 8]) - v4) : 0;
    if (length > 0 && length <= size)
        memcpy(to, v4, length);
    else if (length > 0 || inet_ntop(AF_INET6, ip->bytes, to, (socklen_t)size) == NULL)
        vb_copy(to, size, "?");
    return to;
}

/* ---- socket addresses ---- */
char *vb_addr_format_ip(char *to, size_t size, const struct sockaddr *address)
{
    if (address->sa_family != AF_INET && address->sa_family != AF_INET6) {
        vb_copy(to, size, address->sa_family == AF_UNIX ? "unix" : "?");
        return to;
    }
    struct vb_ip ip = vb_ip_of(address);
    return format_ip(to, size, &ip);
}

char *vb_addr_format(char *to, size_t size, const struct sockaddr *address)
{
    char ip[VB_ADDR_TEXT_MAX];
    vb_addr_format_ip(ip, sizeof(ip), address);
    if (address->sa_family != AF_INET && address->sa_family != AF_INET6) {
        vb_copy(to, size, ip);
        return to;
    }
    /* The port is at the same place in both forms. */
    unsigned port = ntohs(((const struct sockaddr_in *)address)->sin_port);
    snprintf(to, size, strchr(ip, ':') != NULL ? "[%s]:%u" : "%s:%u", ip, port);
    return to;
}

/* ---- networks ---- */
/* `address` or `address/bits` */
static int parse_cidr(struct vb_str text, struct vb_ip *ret_ip, unsigned *ret_bits)
{
    const char *slash = text.n > 0 ? memchr(text.p, '/', text.n) : NULL;
    struct vb_str address = {text.p, slash != NULL ? (size_t)(slash - text.p) : text.n};
    struct vb_ip ip;
    if (vb_ip_parse(address, &ip) < 0)
        return -EINVAL;
    unsigned width = memchr(address.p, ':', address.n) == NULL ? 128 - V4_BEGIN : 128;
    uint64_t prefix = width;
    if (slash != NULL && vb_parse_u64((struct vb_str){slash + 1, text.n - address.n - 1}, width, &prefix) < 0)
        return -EINVAL;
    *ret_ip = ip;
    *ret_bits = 128 - width + (unsigned)prefix;
    return 0;
}

static struct vb_ip keep_bits(struct vb_ip ip, unsigned bits)
{
    for (unsigned i = 0; i < sizeof(ip.bytes); i++) {
        unsigned kept = bits > i * 8 ? VB_MIN(bits - i * 8, 8) : 0;
        ip.bytes[i] &= (uint8_t)(0xff00 >> kept);
    }
    return ip;
}

int vb_cidr_around(struct vb_str text, struct vb_cidr *ret_cidr)
{
    struct vb_ip ip;
    unsigned bits;
    int r = parse_cidr(text, &ip, &bits);
    if (r == 0)
        *ret_cidr = (struct vb_cidr){keep_bits(ip, bits), bits};
    return r;
}

int vb_cidr_parse(struct vb_str text, struct vb_cidr *ret_cidr)
{
    struct vb_ip ip, network;
    unsigned bits;
    int r = parse_cidr(text, &ip, &bits);
    if (r < 0)
        return r;
    network = keep_bits(ip, bits);
    if (memcmp(&network, &ip, sizeof(ip)) != 0)
        return -ERANGE;
    *ret_cidr = (struct vb_cidr){network, bits};
    return 0;
}

char *vb_cidr_format(char *to, size_t size, const struct vb_cidr *cidr)
{
    char ip[VB_ADDR_TEXT_MAX];
    snprintf(to, size, "%s/%u", format_ip(ip, sizeof(ip), &cidr->network),
             is_v4(&cidr->network) ? cidr->bits - V4_BEGIN : cidr->bits);
    return to;
}

bool vb_cidr_has(const struct vb_cidr *cidr, const struct vb_ip *ip)
{
    if (vb_ip_is_none(ip) || (is_v4(ip) && cidr->bits < V4_BEGIN))
        return false;
    size_t whole = cidr->bits / 8;
    unsigned rest = cidr->bits % 8;
    if (memcmp(cidr->network.bytes, ip->bytes, whole) != 0)
        return false;
    return rest == 0 || (cidr->network.bytes[whole] ^ ip->bytes[whole]) >> (8 - rest) == 0;
}

bool vb_addr_collide(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
    if (a->ss_family != b->ss_family)
        return false;
    if (a->ss_family == AF_UNIX)
        return strcmp(((const struct sockaddr_un *)a)->sun_path, ((const struct sockaddr_un *)b)->sun_path) == 0;
    if (a->ss_family == AF_INET) {
        const struct sockaddr_in *x = (const struct sockaddr_in *)a, *y = (const struct sockaddr_in *)b;
        in_addr_t p = x->sin_addr.s_addr, q = y->sin_addr.s_addr;
        return x->sin_port == y->sin_port && (p == q || p == htonl(INADDR_ANY) || q == htonl(INADDR_ANY));
    }
    const struct sockaddr_in6 *x = (const struct sockaddr_in6 *)a, *y = (const struct sockaddr_in6 *)b;
    return x->sin6_port == y->sin6_port &&
           (IN6_ARE_ADDR_EQUAL(&x->sin6_addr, &y->sin6_addr) || IN6_IS_ADDR_UNSPECIFIED(&x->sin6_addr) ||
            IN6_IS_ADDR_UNSPECIFIED(&y->sin6_addr));
}
