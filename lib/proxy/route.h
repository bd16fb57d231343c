/* Which pool takes a request. */
#ifndef VB_PROXY_ROUTE_H
#define VB_PROXY_ROUTE_H

#include "proxy_priv.h"

/*
 * The pool of the first route whose conditions are all true; without routes the first pool. -ENOENT: no route matches.
 * A route with strip_prefix changes head->target, into proxy->path: valid until the next request is routed.
 */
int vb_route(struct vb_proxy *proxy, struct vb_head *head);

#endif
