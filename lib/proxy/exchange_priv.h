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
    int backend;                    /* slot; negative: none picked */
    struct vb_shm_traffic *traffic; /* this worker's, of that backend */
    enum vb_pick_reason reason;     /* why that one */
    uint64_t key;                   /* what the request is known by, if it has a key: see key.h */
    bool has_key;
    int stuck_to;                 /* the backend that its cookie names; negative: none */
    bool cookie_is_old;           /* it is time for a new one */
    bool in_flight;               /* counted as such, at the backend */
    bool has_place;               /* ... in the pool */
    struct vb_upstream *upstream; /* NULL: not yet, or no more */
    struct vb_tunnel *tunnel;     /* NULL unless the connection was upgraded */
    struct vb_retry retry;
    bool is_pending;         /* counted among those that wait for a connection, because it waits for its turn first */
    bool waits_aside;        /* ... and lets others pass, because it is stuck to one backend */
    uint64_t waits_since_us; /* for its turn at a backend; 0: it does not */
    struct vb_timer turn;    /* runs while it waits */
    TAILQ_ENTRY(vb_exchange) waiting;
    struct vb_timer total;     /* runs from the second try to the response */
    uint64_t start_us, try_us; /* of the request, and of the try in hand */
    uint64_t asked_us;         /* the request's body was complete; 0: it has none, or is not */
    bool is_head, client_is_1_1;
    bool holds;  /* what is sent can be sent again, whatever happens to it */
    bool resent; /* on a fresh connection, in this try */
    bool head_sent, request_done, response_started;
    enum vb_framing request_framing, response_framing; /* as we write them */
    unsigned status;
    struct vb_str upgrade;   /* the protocol that was asked for, and may be switched to; the configuration's text */
    struct vb_str client_ip; /* for messages */
    struct vb_str request;   /* the head as the backend gets it; kept for sending it again, and for the log */
    char *request_memory;    /* NULL: it is in `inline_request` */
    SLIST_ENTRY(vb_exchange) link;
    struct vb_request_id id; /* from here on not cleared for a new exchange */
    char client_ip_text[VB_ADDR_TEXT_MAX];
    char inline_request[VB_HEAD_INLINE];
};

static inline struct vb_str vb_exchange_id(const struct vb_exchange *x)
{
    return (struct vb_str){x->id.text, x->id.length};
}

/* What a pick has to know of it. */
static inline struct vb_ask vb_exchange_ask(const struct vb_exchange *x)
{
    return (struct vb_ask){.tried = &x->retry.tried, .key = x->key, .has_key = x->has_key, .stuck_to = x->stuck_to};
}

/* ---- exchange.c ---------------------------------------------------------------------------------------------------*/

void vb_exchange_free(struct vb_exchange *x, bool keep_upstream);

/* A response of our own, without the end of the exchange. `retry_after_s`: see struct vb_answer. */
void vb_exchange_answer(struct vb_exchange *x, unsigned status, const char *text, unsigned retry_after_s);

/* ---- tries.c ------------------------------------------------------------------------------------------------------*/

/* Picks a pool and the first backend, unless it has to wait for one. On failure the exchange has ended. */
int vb_exchange_choose(struct vb_exchange *x, struct vb_head *head);

/* Connects to the backend that was picked, or to others. False: the exchange has ended, or waits for its turn. */
bool vb_exchange_connect(struct vb_exchange *x);

/* Picks a backend that the request has not been given to; negative: see vb_lb_pick. */
int vb_exchange_pick(struct vb_exchange *x, uint64_t now_us);

/* It has waited for this: its backend was picked; negative: there is none any more. The exchange may end. */
void vb_exchange_have_turn(struct vb_exchange *x, int backend, uint64_t now_us);

/* Sends all there is of the request; to a further backend, what has been sent before. */
void vb_exchange_send(struct vb_exchange *x);

/* May bytes of the request have reached the backend in hand? */
bool vb_exchange_has_sent(const struct vb_exchange *x);

/* A response of this status says that the backend failed: is another one asked? Then this one's is never seen. */
bool vb_exchange_ask_another(struct vb_exchange *x, unsigned status);

/* The try in hand has its answer, good or bad: what that says about the backend goes to the policy. */
void vb_exchange_note_answer(struct vb_exchange *x, const struct vb_head *head);

/* The client has gone: if it waited for the backend, that goes to the policy. */
void vb_exchange_note_abort(struct vb_exchange *x);

/* The try in hand went well, as far as the backend is concerned: it is counted. */
void vb_exchange_note_success(struct vb_exchange *x);

/* The request ends here: the client gets a response of our own, or learns that the one it is getting has no end. */
void vb_exchange_give_up(struct vb_exchange *x, enum vb_failure failure, const char *detail);

/* Takes it out of all counts of what is in flight; once. */
void vb_exchange_not_in_flight(struct vb_exchange *x);

#endif
