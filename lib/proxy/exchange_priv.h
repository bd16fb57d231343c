/*
 * The inside of an exchange, for the files that make it up: exchange.c passes messages; tries.c sees to it that a
 * backend gets the request, and knows what it means when one fails.
 */
#ifndef VB_PROXY_EXCHANGE_PRIV_H
#define VB_PROXY_EXCHANGE_PRIV_H

#include "exchange.h"
#include "forward.h"
#include "retry.h"

#define VB_HEAD_INLINE 1024 /* most request heads fit */

struct vb_exchange {
    struct vb_proxy *proxy;
    struct vb_client *client;
    struct vb_proxy_pool *pool;
    int backend;                  /* slot; negative: none picked */
    bool in_flight;               /* counted as such, at the backend */
    bool has_place;               /* ... in the pool */
    struct vb_upstream *upstream; /* NULL: not yet, or no more */
    struct vb_tunnel *tunnel;     /* NULL unless the connection was upgraded */
    struct vb_retry retry;
    struct vb_timer total;     /* runs from the second try to the response */
    uint64_t start_us, try_us; /* of the request, and of the try in hand */
    bool is_head, client_is_1_1;
    bool holds;  /* what is sent can be sent again, whatever happens to it */
    bool resent; /* on a fresh connection, in this try */
    bool head_sent, request_done, response_started;
    enum vb_framing request_framing, response_framing; /* as we write them */
    unsigned status;
    struct vb_str upgrade; /* the protocol that was asked for, and may be switched to; the configuration's text */
    struct vb_request_id id;
    struct vb_str client_ip; /* for messages */
    struct vb_str request;   /* the head as the backend gets it; kept for sending it again, and for the log */
    char *request_memory;    /* NULL: it is in `inline_request` */
    SLIST_ENTRY(vb_exchange) link;
    char client_ip_text[VB_ADDR_TEXT_MAX]; /* from here on not cleared for a new exchange */
    char inline_request[VB_HEAD_INLINE];
};

static inline struct vb_str vb_exchange_id(const struct vb_exchange *x)
{
    return (struct vb_str){x->id.text, x->id.length};
}

static inline struct vb_shm_traffic *vb_exchange_traffic(const struct vb_exchange *x)
{
    return vb_proxy_traffic(x->proxy, (unsigned)x->backend);
}

/* ---- exchange.c ---------------------------------------------------------------------------------------------------*/

void vb_exchange_free(struct vb_exchange *x, bool keep_upstream);

/* A response of our own, without the end of the exchange. */
void vb_exchange_answer(struct vb_exchange *x, unsigned status, const char *text);

/* ---- tries.c ------------------------------------------------------------------------------------------------------*/

/* Picks a pool and the first backend. On failure the exchange has ended. */
int vb_exchange_choose(struct vb_exchange *x, struct vb_head *head);

/* Connects to the backend that was picked, or to others. False: the exchange has ended. */
bool vb_exchange_connect(struct vb_exchange *x);

/* Sends all there is of the request; to a further backend, what has been sent before. */
void vb_exchange_send(struct vb_exchange *x);

/* May bytes of the request have reached the backend in hand? */
bool vb_exchange_has_sent(const struct vb_exchange *x);

/* A response of this status says that the backend failed: is another one asked? Then this one's is never seen. */
bool vb_exchange_ask_another(struct vb_exchange *x, unsigned status);

/* The try in hand went well, as far as the backend is concerned: it is counted. */
void vb_exchange_note_success(struct vb_exchange *x);

/* The request ends here: the client gets a response of our own, or learns that the one it is getting has no end. */
void vb_exchange_give_up(struct vb_exchange *x, enum vb_failure failure, const char *detail);

/* Takes it out of all counts of what is in flight; once. */
void vb_exchange_not_in_flight(struct vb_exchange *x);

#endif
