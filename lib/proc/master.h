/* The master's state, for the files that make up the master. All of it belongs to the main thread. */
#ifndef VB_PROC_MASTER_H
#define VB_PROC_MASTER_H

#include <uv.h>

#include "findings.h"
#include "generation.h"
#include "listeners.h"
#include "logger.h"
#include "notify.h"
#include "orphans.h"
#include "reload.h"
#include "upgrade.h"
#include "vb/health.h"
#include "vb/proc.h"
#include "vb/shm.h"
#include "watchdog.h"

struct vb_control;

TAILQ_HEAD(vb_generations, vb_generation);

struct vb_master {
    const struct vb_options *options;
    const char *config_file;
    struct vb_generation *current; /* the one that serves */
    struct vb_generations old;     /* that finish what they have, the oldest first */
    struct vb_reload reload;
    struct vb_upgrade upgrade;
    struct vb_listeners listeners;
    struct vb_orphans orphans; /* only while it starts */
    struct vb_notify notify;
    struct vb_shm *shm;
    struct vb_logger *logger;
    struct vb_health *health;
    struct vb_findings *findings;
    struct vb_watchdog watchdog;
    struct vb_control *control; /* NULL: there is no control socket */

    uv_loop_t loop;
    bool has_loop;
    uv_signal_t signals[7];
    uv_async_t looked;      /* the health thread has an opinion on every backend */
    uv_timer_t start_timer; /* ... or takes too long for that */
    uv_timer_t tick;        /* once a second */
    bool started, stopping, ever_served;
    bool stop_asked; /* by vbctl: SIGTERM is on its way to us */
    unsigned terms;  /* SIGTERM and the like so far */
    int status;      /* exit status */
};

/* Makes the health thread, without rules; it does not run yet. */
int vb_master_open_health(struct vb_master *master, struct vb_error *err);

/* How many workers a configuration asks for here. */
unsigned vb_master_workers(const struct vb_master *master, const struct vb_conf *conf);

/* Calls it for each generation that has workers: old ones, the one that serves, the one that is built. */
void vb_master_each_generation(struct vb_master *master, void (*see)(struct vb_generation *generation, void *arg),
                               void *arg);

/* How long the next reload has to wait, so that it leaves the oldest generation some time to finish. Milliseconds. */
uint64_t vb_master_reload_wait(struct vb_master *master);

/* The generation's place among the others is taken by `next`, which is ready. */
void vb_master_replace(struct vb_master *master, struct vb_generation *next);

/* It leaves, or is to be killed: the master frees it when its last worker is gone. */
void vb_master_let_go(struct vb_master *master, struct vb_generation *generation);

/* ---- called by generation.c and children.c ------------------------------------------------------------------------*/

void vb_master_child_serves(struct vb_master *master);

/* All of its workers are ready; one of them died before that; none accepts any more; all are gone. */
void vb_master_generation_ready(struct vb_generation *generation);
void vb_master_generation_broken(struct vb_generation *generation, const struct vb_child *child);
void vb_master_generation_quiet(struct vb_generation *generation);
void vb_master_generation_gone(struct vb_generation *generation);

/* Reaps adopted workers and, as PID 1, what is not ours, up to the first process that libuv has still to reap. */
void vb_master_reap_orphans(struct vb_master *master);

/* No worker can be brought to life. */
void vb_master_give_up(struct vb_master *master);

#endif
