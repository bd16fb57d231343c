/*
 * The PROXY protocol, versions 1 and 2: what a proxy in front of us says about the client, before the client's first
 * byte. Bytes in, an address out. (haproxy.org/download/2.9/doc/proxy-protocol.txt)
 */
#ifndef VB_PROXYPROTO_H
#define VB_PROXYPROTO_H

#include <sys/socket.h>
#include <sys/types.h>

#include "vb/base.h"

/* The longest header that there is: version 2, with all its TLVs. */
#define VB_PROXYPROTO_MAX (16 + 65535)

/*
 * Reads the header from the first n bytes of a connection. > 0: its length; *ret_source is the client, or of the family
 * AF_UNSPEC where the header names none that we know (LOCAL, UNKNOWN, unix sockets): then the connection's own peer
 * counts. 0: more bytes are needed. -EPROTO: that is no PROXY header, *ret_why is a literal.
 */
ssize_t vb_proxyproto_parse(const char *bytes, size_t n, struct sockaddr_storage *ret_source, const char **ret_why);

#endif
