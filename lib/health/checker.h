/* The health thread's state, for the files that make it up. All of it is the thread's, but where it says otherwise. */
#ifndef VB_HEALTH_CHECKER_H
#define VB_HEALTH_CHECKER_H

#include <sys/queue.h>
#include <uv.h>

#include "probe.h"
#include "rules.h"
#include "vb/health.h"
#include "vb/lb.h"
#include "vb/rand.h"
#include "vb/shm.h"

/* A backend and its schedule. */
struct vb_check {
    struct vb_probe probe;
    struct vb_health *health;
    LIST_ENTRY(vb_check) link; /* in its pool, then in `gone` */
    unsigned slot, pool;
    uint32_t incarnation; /* of the slot: this backend's */
    char pool_name[VB_SHM_NAME_MAX], name[VB_SHM_NAME_MAX], address[VB_SHM_ADDRESS_MAX];
    struct vb_health_fsm fsm;
    struct vb_health_record record;
    uv_timer_t timer;
    bool awaited;  /* its first result is still to come */
    bool resting;  /* in maintenance: nothing is probed */
    bool unjudged; /* the last probe could not be made */
    bool moved;    /* to another address, which is not published yet */
    bool closed;   /* the timer is */
};

LIST_HEAD(vb_checks, vb_check);

struct vb_health_pool {
    struct vb_rules rules;
    struct vb_checks checks;
};

struct vb_health {
    struct vb_shm *shm;
    struct vb_loop *loop;
    uv_thread_t thread;
    bool running;    /* the thread; the main thread's */
    uv_async_t wake; /* something has changed, `stopping`, `pausing` */
    atomic_bool stopping, pausing;
    uv_sem_t paused, resumed;
    uv_timer_t again; /* runs while a backend has no check for want of memory */
    struct vb_rand rand;
    struct vb_health_pool *pools; /* by slot */
    struct vb_check **checks;     /* by slot; NULL: it has none */
    struct vb_checks gone;        /* what libuv still holds of those that ended */
    unsigned awaited;             /* checks, and the thread itself while it follows an update */
    vb_u32 asked;                 /* updates so far, by the main thread; the start is the first */
    uint32_t followed;            /* ... of these */
    vb_u32 looked_at;             /* ... up to this one: nobody is awaited */
    void (*looked)(void *arg);
    void *arg;
    bool clean; /* nothing was left with the resolver */
    struct vb_head head;
};

/* ---- check.c: one backend ---------------------------------------------------------------------------------------- */

/* For the backend that had this incarnation of the slot, in this pool. Negative errno. */
int vb_check_begin(struct vb_health *health, unsigned slot, uint32_t incarnation, unsigned pool);

/* Nothing of it happens any more; it is freed when libuv has let go of it. */
void vb_check_end(struct vb_check *check);

/* It has its first result, or will have none. */
void vb_check_note_first_result(struct vb_check *check);

void vb_check_follow_admin(struct vb_check *check);

/* Its pool has other rules. `switched`: checks are now on, or off, and what was found out is of another kind. */
void vb_check_follow_rules(struct vb_check *check, bool switched);

/* ---- checker.c: all of them -------------------------------------------------------------------------------------- */

/* One that was awaited is so no more. */
void vb_health_count_look(struct vb_health *health);

#endif
