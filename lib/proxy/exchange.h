/*
 * One request and its response: picks the backend, binds the two connections, decides what a failure means. It knows
 * messages, not the bytes they travel in. It owns its upstream while it has one; the client owns the exchange.
 */
#ifndef VB_PROXY_EXCHANGE_H
#define VB_PROXY_EXCHANGE_H

#include "errors.h"
#include "proxy_priv.h"
#include "tunnel.h"

/* ---- from the client ----------------------------------------------------------------------------------------------*/

/*
 * A request head has been read; `head` is valid during the call only, and routing may change its target. *ret_exchange
 * is set before the exchange can end; when it ends inside this call (a response of our own), vb_client_exchange_done
 * has been called.
 */
void vb_exchange_start(struct vb_exchange **ret_exchange, struct vb_proxy *proxy, struct vb_client *client,
                       struct vb_head *head);

/* Does the request wait for its turn at a backend? Then none has seen anything of it. */
bool vb_exchange_is_waiting(const struct vb_exchange *exchange);

/* The next part of the request's body, perhaps empty. 1: read no more until vb_client_resume. */
int vb_exchange_request_body(struct vb_exchange *exchange, const struct vb_body_part *part);

/* The client will not complete the request, or broke its framing: answers with that status if it still can. */
void vb_exchange_request_failed(struct vb_exchange *exchange, unsigned status, const char *why);

/* All that was queued for the client has left. */
void vb_exchange_client_drained(struct vb_exchange *exchange);

/* The client is gone. Frees the exchange. */
void vb_exchange_abort(struct vb_exchange *exchange);

/* ---- from the upstream --------------------------------------------------------------------------------------------*/

/* What the response parser must know of the request. */
bool vb_exchange_is_head(const struct vb_exchange *exchange);

/* It has waited for its turn and counts as pending already: true once, and the connection has that place from now on.
 */
bool vb_exchange_hand_over_place(struct vb_exchange *exchange);

/* The protocol that the client may switch to; empty: none. */
struct vb_str vb_exchange_upgrade(const struct vb_exchange *exchange);

/* The backend has switched to it; `rest` came behind the head. The upstream is gone after this. */
void vb_exchange_upgraded(struct vb_exchange *exchange, const struct vb_head *head, struct vb_str rest);

/* An interim response (1xx other than 101). */
void vb_exchange_interim(struct vb_exchange *exchange, const struct vb_head *head);

/*
 * The response head; then parts of the body, the last with `complete` (a response without body has none). A head
 * that says that the backend failed may be answered with another try elsewhere: then the upstream is gone.
 */
void vb_exchange_response_head(struct vb_exchange *exchange, const struct vb_head *head);
void vb_exchange_response_body(struct vb_exchange *exchange, const struct vb_body_part *part);

/* All input at hand has been handed over: what was collected for the client goes out now. */
void vb_exchange_response_flush(struct vb_exchange *exchange);

/* The response is complete. The upstream has been told whether it may be kept. Frees the exchange. */
void vb_exchange_response_done(struct vb_exchange *exchange, bool keep_upstream);

/* The backend takes bytes again. */
void vb_exchange_upstream_drained(struct vb_exchange *exchange);

/* The backend was declared down, or ejected, and nothing has come from it yet: another one may be asked instead. */
void vb_exchange_upstream_doubted(struct vb_exchange *exchange);

/* The backend failed us. `detail` says more for the log. May free the exchange. */
void vb_exchange_upstream_failed(struct vb_exchange *exchange, enum vb_failure failure, const char *detail);

/* ---- from the tunnel ----------------------------------------------------------------------------------------------*/

void vb_exchange_tunnel_moved(struct vb_exchange *exchange, bool from_client, size_t bytes);

/* Frees the exchange and the tunnel, and ends the client. */
void vb_exchange_tunnel_over(struct vb_exchange *exchange, enum vb_tunnel_ending how);

/* ---- both ---------------------------------------------------------------------------------------------------------*/

/* The free list of the worker; at its end. */
void vb_exchange_free_all(struct vb_proxy *proxy);

#endif
