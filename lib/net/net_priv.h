/* What the files of lib/net share. */
#ifndef VB_NET_PRIV_H
#define VB_NET_PRIV_H

#include <sys/socket.h>

#include "vb/err.h"
#include "vb/loop.h"
#include "vb/stream.h"

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

struct batch_read {
    struct vb_stream *stream;
    char *bytes;
    ssize_t n; /* 0: the peer's end; or a negative errno */
};

struct batch_write {
    struct vb_stream *stream; /* NULL: closed, or sent already */
    const char *bytes;
    size_t n;
};

#define BATCH_STREAMS    32
#define BATCH_READ_BYTES (16 * 1024) /* from which no further read is begun */

/*
 * Streams that have read stand here until there are some, or the kernel has no more to tell of. Then their owners are
 * told one after the other, and what these write meanwhile (vb_stream_write_soon) is sent behind that. Code that runs
 * for several in a row is in the processor's caches from the second on, from where a system call in between drives it
 * out: that was a quarter of all time outside of the kernel.
 */
struct loop_batch {
    bool takes_writes;
    unsigned n_reads, n_writes;
    unsigned number; /* see vb_loop_batch */
    size_t read_bytes;
    struct batch_read reads[BATCH_STREAMS];
    struct batch_write writes[BATCH_STREAMS];
    char in[BATCH_READ_BYTES + VB_READ_MAX];
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
    struct loop_batch batch;
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

/* Where the next read goes: there is room for VB_READ_MAX. */
static inline char *batch_room(struct vb_loop *loop)
{
    return loop->batch.in + loop->batch.read_bytes;
}

/* This stream has read so much into that room. May run the batch. */
void batch_read(struct vb_loop *loop, struct vb_stream *stream, ssize_t n);

/* Notes what stream_write_late will be called for: its number, from 1 on, in `writes`. 0: write now. */
unsigned batch_write(struct vb_loop *loop, struct vb_stream *stream, const char *bytes, size_t n);

/* Hands over what has been read, and sends what was written to that. */
void batch_run(struct vb_loop *loop);

/* For the batch: what this stream has read goes to its owner; what its owner has written goes to the kernel. */
void stream_hand_over(struct vb_stream *stream, const char *bytes, ssize_t n);
void stream_write_late(struct vb_stream *stream);

/* vb_listen_open for unix sockets. */
int listen_unix_open(int *ret_fds, unsigned n, int joins, const struct sockaddr *address, socklen_t length,
                     const char *text, struct vb_error *err);

#endif
