/* What the files of lib/net share. */
#ifndef VB_NET_PRIV_H
#define VB_NET_PRIV_H

#include <sys/socket.h>

#include "vb/err.h"
#include "vb/loop.h"

#define VB_LINGER_MS 2000
/* How long a stream goes on reading from a peer whose upload is answered and does not end. */
#define VB_FINISH_MAX_MS 30000
#define VB_REST_MS       100  /* before one who found no descriptor or memory tries again */
#define LISTEN_BACKLOG   4096 /* the kernel lowers it to net.core.somaxconn */

TAILQ_HEAD(loop_watches, loop_watch);

/*
 * A descriptor that the loop watches. Embedded as the first member of its owner, whose memory the loop frees at the end
 * of the turn in which it is closed: the kernel may have told of it already.
 */
struct loop_watch {
    /* `events` as of epoll(7); 0: asked for by loop_watch_again. NULL: closed. */
    void (*ready)(struct loop_watch *watch, uint32_t events);
    TAILQ_ENTRY(loop_watch) link; /* in `queue`, or among the closed */
    struct loop_watches *queue;   /* `again` or `patient` of the loop, or NULL */
    uint32_t events;              /* of which it will be told */
    bool is_patient;              /* see struct vb_loop */
};

struct vb_loop {
    int epoll;            /* has uv's descriptor too */
    bool stopped;         /* see vb_loop_stop */
    uv_loop_t uv;         /* for all that is neither a stream nor a listener */
    uv_prepare_t watches; /* keeps `uv` alive while anything is watched */
    unsigned n_watches;
    struct loop_watches again;   /* to be called in the next turn in any case */
    struct loop_watches patient; /* whose events wait here, see loop_turn */
    struct loop_watches closed;  /* to be freed */
    uint64_t now_ms;             /* see vb_loop_now_ms */
    uint64_t wake_ms;            /* no timer is due earlier */
    LIST_HEAD(, vb_timer_list) lists;
    uint64_t finish_max_ms;
    struct vb_timer_list linger; /* streams that wait for their peer's FIN */
    struct vb_timer_list rest;   /* listeners that found no descriptor */
    char read_buffer[VB_READ_MAX];
};

/* One turn: waits until there is something to do, and does it. */
void loop_turn(struct vb_loop *loop);

/* Watches fd from now on, until it is closed. Negative errno. `watch` is all zero, but perhaps is_patient. */
int loop_watch_open(struct vb_loop *loop, struct loop_watch *watch, int fd, uint32_t events,
                    void (*ready)(struct loop_watch *watch, uint32_t events));

/* Other events from now on; what is there already is told again. Negative errno. */
int loop_watch_change(struct vb_loop *loop, struct loop_watch *watch, int fd, uint32_t events);

/* Calls `ready` in the next turn. */
void loop_watch_again(struct vb_loop *loop, struct loop_watch *watch);

/* Frees the memory that begins with `watch`, at the end of the turn; `fd` stays open. */
void loop_watch_close(struct vb_loop *loop, struct loop_watch *watch, int fd);

/* vb_listen_open for unix sockets. */
int listen_unix_open(int *ret_fds, unsigned n, int joins, const struct sockaddr *address, socklen_t length,
                     const char *text, struct vb_error *err);

#endif
