/* Which pool takes a request. */
#ifndef VB_PROXY_ROUTE_H
#define VB_PROXY_ROUTE_H

#include "proxy_priv.h"

/*
 * The pool of the first route whose conditions are all true; without routes the first pool. -ENOENT: no route matches.
 * A route with strip_prefix changes head->target, into proxy->path: valid until the next request is routed.
 */
int vb_route(struct vb_proxy *proxy, struct vb_head *head);

/*
 * The path of a target in its normal form, in `to`, which has room for all of the target; empty for the target `*`.
 * `slash_before`: see vb_head.
 */
struct vb_str vb_route_path(char *to, struct vb_str target, bool slash_before, struct vb_str *ret_query);

#endif
