/* What a backend gets to see of a request besides what the client wrote: identity, origin, and what is for one hop. */
#ifndef VB_PROXY_FORWARD_H
#define VB_PROXY_FORWARD_H

#include "proxy_priv.h"

#define VB_REQUEST_ID_LEN   32  /* of one that is made here */
#define VB_REQUEST_ID_MAX   128 /* longest id of a client's own that we go on with */
#define VB_MAX_FORWARDS_LEN 24

struct vb_request_id {
    bool is_new; /* made here, so it must be added to the request */
    unsigned length;
    char text[VB_REQUEST_ID_MAX];
};

/* The client's own request id if it is of visible ASCII characters, or a new one; empty where none is wanted. */
void vb_forward_take_id(struct vb_proxy *proxy, const struct vb_head *head, struct vb_request_id *id);

/*
 * The client's address for messages: behind trusted proxies the last one in X-Forwarded-For that is none of them. Text
 * of the client's, or in `text`.
 */
struct vb_str vb_forward_client_ip(const struct vb_proxy *proxy, const struct vb_client *client,
                                   const struct vb_head *head, char *text, size_t size);

/*
 * False: an OPTIONS request that must go no further (Max-Forwards: 0, RFC 9110 7.6.2). The next value is made
 * in `memory` (VB_MAX_FORWARDS_LEN bytes); empty where nothing is to be changed.
 */
bool vb_forward_is_for_others(const struct vb_head *head, char *memory, struct vb_str *ret_max_forwards);

/* The protocol that the request asks for, if the pool allows it: text of the configuration; empty: none. */
struct vb_str vb_forward_upgrade(const struct vb_conf_pool *pool, const struct vb_head *head);

/* The protocol that a 426 asks for, if the pool allows it. */
struct vb_str vb_forward_offer(const struct vb_conf_pool *pool, const struct vb_head *head);

/* Fills in all that does not depend on the request itself. */
void vb_forward_prepare(const struct vb_proxy *proxy, const struct vb_client *client, const struct vb_request_id *id,
                        struct vb_forward_request *ret_how);

#endif
