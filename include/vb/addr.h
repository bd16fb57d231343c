/* Socket addresses as text. */
#ifndef VB_ADDR_H
#define VB_ADDR_H

#include <sys/socket.h>

#include "vb/base.h"

#define VB_ADDR_TEXT_MAX 64 /* `[v6%scope]:port` and its NUL */

/* `127.0.0.1:80`, `[::1]:80`; "?" for a family that has no such form. Returns `to`. */
char *vb_addr_format(char *to, size_t size, const struct sockaddr *address);

/* `127.0.0.1`, `::1`, without port and brackets; an IPv4 address that came mapped into IPv6 is shown as IPv4. */
char *vb_addr_format_ip(char *to, size_t size, const struct sockaddr *address);

#endif
