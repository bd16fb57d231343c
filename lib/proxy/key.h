/* What a request is known by to the policy `hash`. */
#ifndef VB_PROXY_KEY_H
#define VB_PROXY_KEY_H

#include "vb/conf.h"
#include "vb/http.h"

/*
 * The request's key, by what the pool goes by, as a number. False: it has none. `target` is the request's as it came,
 * which a route may have changed in the head, and `client_ip` as vb_forward_client_ip says it. `room`: as many bytes as
 * the target.
 */
bool vb_key_find(const struct vb_conf_pool *pool, const struct vb_head *head, struct vb_str target,
                 struct vb_str client_ip, char *room, uint64_t *ret_key);

#endif
