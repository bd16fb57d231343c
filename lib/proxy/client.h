/*
 * A client's connection, HTTP/1 on the wire. It reads requests one after the other, hands each to an exchange, and
 * writes what the exchange answers; pipelined requests wait in its buffer. The exchange sees no HTTP/1 bytes.
 */
#ifndef VB_PROXY_CLIENT_H
#define VB_PROXY_CLIENT_H

#include "proxy_priv.h"

struct vb_tunnel;

/* Takes over a descriptor that `listener` accepted; the client lives until its connection ends. */
void vb_client_open(struct vb_proxy *proxy, const struct vb_conf_listener *listener, int fd,
                    const struct sockaddr *peer);

/* Draining has begun: a client without a request leaves soon. */
void vb_client_drain(struct vb_client *client);

/* The next one in the proxy's list. */
struct vb_client *vb_client_next(struct vb_client *client);

/* Ends it now, with its exchange if there is one. */
void vb_client_cut(struct vb_client *client);

/* ---- for the exchange ---------------------------------------------------------------------------------------------*/

/* Its address as text, `unix` where it came through a unix socket and so has none. */
struct vb_str vb_client_ip(const struct vb_client *client);
bool vb_client_has_ip(const struct vb_client *client);

/* It is one of trusted_proxies: what its fields say about the client is true. */
bool vb_client_is_trusted(const struct vb_client *client);

/* The connection must end with the response in hand. */
void vb_client_close_after(struct vb_client *client);

/* Will it? Asked when the response's head is made, because the answer stands in it: a yes is final. */
bool vb_client_decide_close(struct vb_client *client);

/*
 * A response in pieces. Nothing is written before vb_client_flush, so that pieces which came together leave together;
 * slices in `part` must live until then. `framing` is what the head announced.
 */
void vb_client_send_head(struct vb_client *client, const struct vb_head *head, const struct vb_forward_response *how);
void vb_client_send_body(struct vb_client *client, enum vb_framing framing, const struct vb_body_part *part);

/* 0: written. 1: part of it is queued; the exchange hears vb_exchange_client_drained. Negative errno: the client is
 * gone. */
int vb_client_flush(struct vb_client *client);

/* The same for the last piece. 2: it leaves together with what others write in this turn. */
int vb_client_flush_last(struct vb_client *client);

/* A response of our own, whole. */
struct vb_answer {
    unsigned status;
    struct vb_str id;       /* of the request; may be empty */
    const char *text;       /* its body says it, in plain text; NULL: no content */
    bool no_body;           /* to HEAD */
    unsigned retry_after_s; /* of a 429 or 503, when to come again; 0: 1 */
};
void vb_client_answer(struct vb_client *client, const struct vb_answer *answer);

/* The response is complete: on to the next request, or the end of the connection. The exchange is gone after this. */
void vb_client_exchange_done(struct vb_client *client);

/* Only the end of the connection will complete the response in hand; or it has been completed. */
void vb_client_guard(struct vb_client *client, bool on);

/* The response cannot be completed: the client must not take what it got for a whole one. */
void vb_client_exchange_broken(struct vb_client *client, bool reset);

/* The backend takes request body again. */
void vb_client_resume(struct vb_client *client);

/* An upgrade: the stream's events go to the tunnel from now on, and what has been read ahead. May end the client. */
struct vb_stream *vb_client_stream(struct vb_client *client);
void vb_client_begin_tunnel(struct vb_client *client, struct vb_tunnel *tunnel);

/* The tunnel has ended: so does the client. The exchange is gone after this. */
void vb_client_tunnel_over(struct vb_client *client, bool broken);

#endif
