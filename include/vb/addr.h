/* Socket addresses and IP addresses: as text, and as members of networks. */
#ifndef VB_ADDR_H
#define VB_ADDR_H

#include <sys/socket.h>

#include "vb/base.h"
#include "vb/str.h"

#define VB_ADDR_TEXT_MAX 64 /* `[v6%scope]:port` and its NUL */

/* `127.0.0.1:80`, `[::1]:80`, `unix`; "?" for a family that has no such form. Returns `to`. */
char *vb_addr_format(char *to, size_t size, const struct sockaddr *address);

/* `127.0.0.1`, `::1`, `unix` for a unix socket, without port and brackets; an IPv4 address that came mapped into IPv6
 * is shown as IPv4. */
char *vb_addr_format_ip(char *to, size_t size, const struct sockaddr *address);

/*
 * Would bind() refuse the second of two listeners? One path, or one port and one address or a wildcard. IPv4 and IPv6
 * never meet: our IPv6 sockets are made with IPV6_V6ONLY, so [::]:80 and 0.0.0.0:80 live side by side.
 */
bool vb_addr_collide(const struct sockaddr_storage *a, const struct sockaddr_storage *b);

/* An IP address in one form: IPv4 as ::ffff:a.b.c.d. All zero: none (a unix socket's peer has none). */
struct vb_ip {
    uint8_t bytes[16];
};

bool vb_ip_is_none(const struct vb_ip *ip);
struct vb_ip vb_ip_of(const struct sockaddr *address);

/* `127.0.0.1` or `::1`, nothing around it. -EINVAL. */
int vb_ip_parse(struct vb_str text, struct vb_ip *ret_ip);

/* `10.0.0.0/8`, `2001:db8::/32`, or one address. */
struct vb_cidr {
    struct vb_ip network;
    unsigned bits; /* of the 128 that count: an IPv4 prefix length and 96 */
};

/* -EINVAL: not a network; -ERANGE: bits are set behind the prefix (`10.0.0.1/8`). */
int vb_cidr_parse(struct vb_str text, struct vb_cidr *ret_cidr);

/* The same without the second rule: the network that holds the address, `10.0.0.0/8`. */
int vb_cidr_around(struct vb_str text, struct vb_cidr *ret_cidr);

/* `10.0.0.0/8`, `2001:db8::/32`; VB_ADDR_TEXT_MAX bytes hold every one. Returns `to`. */
char *vb_cidr_format(char *to, size_t size, const struct vb_cidr *cidr);

/* An IPv6 network has no IPv4 addresses, not even `::/0`; nobody has an address that is none. */
bool vb_cidr_has(const struct vb_cidr *cidr, const struct vb_ip *ip);

#endif
