/*
 * One event loop with what all its streams share: the read buffer and the coarse timers. A worker has one, the health
 * thread has one; nothing in it may be touched from another thread.
 */
#ifndef VB_LOOP_H
#define VB_LOOP_H

#include <sys/queue.h>
#include <uv.h>

#include "vb/base.h"

#define VB_READ_MAX (64 * 1024) /* most that one read brings */

struct vb_loop;

int vb_loop_open(struct vb_loop **ret_loop);

/* Runs until vb_loop_stop, or until there is no stream, no listener and no libuv handle that keeps it. */
void vb_loop_run(struct vb_loop *loop);
void vb_loop_stop(struct vb_loop *loop);

/* Ends what is left (every handle must have been closed by its owner; their callbacks still run), frees, sets NULL. */
void vb_loop_close(struct vb_loop **loop);

/* For handles that only one layer knows (signals, processes). */
uv_loop_t *vb_loop_uv(struct vb_loop *loop);

/* Milliseconds, monotonic, as of the beginning of this turn of the loop. */
uint64_t vb_loop_now_ms(const struct vb_loop *loop);

/* Grows when all has been written that vb_stream_write_soon has put off. */
unsigned vb_loop_batch(const struct vb_loop *loop);

/*
 * Timers. Each time-out has one duration for all its users, so its timers stand in a list in the order of their
 * deadlines: starting, restarting and stopping is O(1), and the loop waits no longer than for the earliest of all.
 */
struct vb_timer {
    TAILQ_ENTRY(vb_timer) link;
    struct vb_timer_list *list; /* NULL: not running */
    uint64_t deadline_ms;
    void (*fire)(struct vb_timer *timer); /* it is not running any more when this is called */
};

struct vb_timer_list {
    struct vb_loop *loop;
    uint64_t duration_ms; /* 0: timers in this list never fire */
    TAILQ_HEAD(vb_timers, vb_timer) timers;
    LIST_ENTRY(vb_timer_list) link;
};

/* Both are embedded in their owners. A list must be empty when it is closed. */
void vb_timer_list_open(struct vb_timer_list *list, struct vb_loop *loop, uint64_t duration_ms);
void vb_timer_list_close(struct vb_timer_list *list);

/* Starts, or starts again, also when it runs in another list. */
void vb_timer_start(struct vb_timer *timer, struct vb_timer_list *list, void (*fire)(struct vb_timer *timer));

/* The same, for a deadline of its own: for the few timers of a list in which durations differ. */
void vb_timer_start_at(struct vb_timer *timer, struct vb_timer_list *list, uint64_t deadline_ms,
                       void (*fire)(struct vb_timer *timer));

/* May be called when it is not running. */
void vb_timer_stop(struct vb_timer *timer);

#endif
