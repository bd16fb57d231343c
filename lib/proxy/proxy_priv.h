/* What all files of lib/proxy share: the worker-wide state. Each struct below is owned by the vb_proxy. */
#ifndef VB_PROXY_PRIV_H
#define VB_PROXY_PRIV_H

#include <sys/queue.h>

#include "keepalive.h"
#include "reclaim.h"
#include "vb/conf.h"
#include "vb/http.h"
#include "vb/lb.h"
#include "vb/listen.h"
#include "vb/loop.h"
#include "vb/proxy.h"
#include "vb/rand.h"
#include "vb/shm.h"
#include "vb/stream.h"

struct vb_client;
struct vb_inbox;
struct vb_sticky;
struct vb_upstream;
struct vb_exchange;

TAILQ_HEAD(vb_exchange_line, vb_exchange);

/* Requests of a pool in this worker that wait for their turn at a backend; see queue.c. */
struct vb_queue {
    struct vb_proxy *proxy;
    struct vb_exchange_line line, stuck; /* by age: who can go to any backend; who is stuck to one that is full */
    uint64_t first_us;                   /* since when the first of all has waited, at the last tick; 0: nobody had */
    unsigned left_places;                /* ticks in a row at which there was a place all the same */
    struct vb_timer soon, tick;
};

struct vb_proxy_pool {
    const struct vb_conf_pool *conf;
    unsigned index; /* in the segment, which may have pools of other generations too */
    struct vb_lb *lb;
    struct vb_sticky *sticky; /* NULL: off */
    struct vb_outlier_rules outlier;
    /* time-outs towards backends; `total` of all tries together, for requests that are tried again */
    struct vb_timer_list connect, response, idle, keepalive, total;
    struct vb_timer_list turn; /* how long a request waits in the queue */
    struct vb_queue queue;
};

TAILQ_HEAD(vb_upstream_list, vb_upstream);
TAILQ_HEAD(vb_client_list, vb_client);
SLIST_HEAD(vb_exchange_list, vb_exchange);

/* This worker's connections to one backend. */
struct vb_backend_upstreams {
    struct vb_upstream_list idle; /* wait for a request: the latest used first, so that few stay warm */
    unsigned n_idle;
    struct vb_upstream_list waiting; /* for the first byte of a response, or to be connected */
    struct vb_idle_closes closes;
};

/*
 * What is about to be written to a client: a head that was made here, and slices of what was just read. It is filled
 * and written within one event, so a worker has one and not each connection. Small responses may leave together at the
 * end of the loop's batch, and stand here until then.
 */
#define VB_DATE_LEN    29 /* of an IMF-fixdate (RFC 9110 5.6.7) */
#define VB_OUT_SLICES  (VB_BODY_SPANS + VB_TRAILER_SPANS + 8)
#define VB_OUT_WAITING (16 * 1024) /* bytes of responses that wait to leave */
struct vb_out {
    const struct vb_client *owner; /* whom it is for */
    struct iovec iov[VB_OUT_SLICES];
    unsigned n, batch;      /* see vb_loop_batch */
    char *memory, *scratch; /* the latter, of `size`, is a part of the former */
    size_t used, size;
};

/* A socket that is listened to; a configured listener may have several. */
struct vb_proxy_listener {
    struct vb_proxy *proxy;
    unsigned number; /* in the configuration */
    struct vb_listener *listener;
    SLIST_ENTRY(vb_proxy_listener) link;
};

struct vb_proxy {
    struct vb_loop *loop;
    struct vb_shm *shm;
    const struct vb_conf *conf;
    unsigned slot;
    struct vb_shm_worker *stats;

    struct vb_proxy_pool *pools;
    struct vb_backend_upstreams *upstreams; /* by backend slot */
    struct vb_timer_list soon;              /* the next turn of the loop: for what must not happen inside an event */
    struct vb_timer_list queue_tick;        /* how often who waits for a turn looks for one that nobody told of */
    struct vb_timer doubts;                 /* backends have been taken away: see vb_exchange_upstream_doubted */

    SLIST_HEAD(, vb_proxy_listener) listeners;
    struct vb_inbox *inbox;
    int first_inbox; /* those of the other workers, by index; see vb_proxy_share */
    unsigned n_inboxes;
    struct vb_client_list clients;
    /* time-outs towards clients; `drain` is how long a connection without a request may stay when draining */
    struct vb_timer_list header, body, keepalive, drain;
    struct vb_timer_list excess; /* how long a connection over a limit may take to send a request */
    struct vb_timer_list tunnel; /* without a byte either way */
    struct vb_timer_list watch;  /* how often a tunnel looks whether a side that it does not read is still there */
    bool draining, patient;      /* see vb_proxy_drain */
    void (*drained)(void *owner);
    void *drained_owner;

    struct vb_exchange_list free_exchanges;
    unsigned n_exchanges, most_exchanges; /* in use now; at once since the last tick */
    struct vb_reclaim client_memory, exchange_memory;
    struct vb_head_limits limits;
    struct vb_rand rand;
    struct vb_str via, id_field;
    uint64_t date_turn_ms; /* loop time when `date` was last looked at */
    uint64_t date_second;  /* since 1970, of `date` */
    char date[VB_DATE_LEN + 1];
    struct vb_out to_client;
    char *path;               /* the normal form of the path that is being routed */
    char *key_path;           /* ... of the one that is a key; the other may be in use as a target by then */
    struct vb_body_part part; /* decoded by whoever is reading */
    struct vb_head head;      /* parsed by whoever is reading; large, hence last */
};

/* The set of backends has changed: see to those that wait for one that was taken away, but not inside this event. */
void vb_proxy_doubt_soon(struct vb_proxy *proxy);

/* A connection that came through the listener of this number: true where another worker has got it. The descriptor
 * stays the caller's. */
bool vb_steer_away(struct vb_proxy *proxy, unsigned number, int fd);

/* The Date of a response that is made now. */
struct vb_str vb_proxy_date(struct vb_proxy *proxy);

#define vb_count(stats, field)      vb_add64(&(stats)->field, 1)
#define vb_count_n(stats, field, n) vb_add64(&(stats)->field, (n))

#endif
