/*
 * What a connection becomes when both sides have agreed on another protocol (101, RFC 9110 7.8): two byte streams that
 * are copied into each other.
 */
#ifndef VB_PROXY_TUNNEL_H
#define VB_PROXY_TUNNEL_H

#include "proxy_priv.h"

struct vb_tunnel;

enum vb_tunnel_ending {
    VB_TUNNEL_DONE, /* both sides have finished, or nothing has moved for timeouts.tunnel: what is queued still goes */
    VB_TUNNEL_BROKEN, /* one side broke: so shall the other */
};

/*
 * Owns `backend` from now on, not `client`: its events come here, but it stays the client's. `exchange` hears
 * vb_exchange_tunnel_over, once. -ENOMEM: `backend` is closed.
 */
int vb_tunnel_open(struct vb_tunnel **ret_tunnel, struct vb_proxy *proxy, struct vb_exchange *exchange,
                   struct vb_stream *client, struct vb_stream **backend);

/* What the client had sent already, and whether its FIN had come. */
void vb_tunnel_begin(struct vb_tunnel *tunnel, struct vb_str from_client, bool client_done);

/* Frees, closes the backend's side, and sets NULL; *tunnel may be NULL. */
void vb_tunnel_close(struct vb_tunnel **tunnel, enum vb_tunnel_ending how);

#endif
