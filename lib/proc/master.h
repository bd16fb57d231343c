/* The master's state, for the files that make up the master. All of it belongs to the main thread. */
#ifndef VB_PROC_MASTER_H
#define VB_PROC_MASTER_H

#include <uv.h>

#include "findings.h"
#include "inherit.h"
#include "logger.h"
#include "notify.h"
#include "vb/conf.h"
#include "vb/health.h"
#include "vb/proc.h"
#include "vb/shm.h"
#include "watchdog.h"

struct vb_control;
struct vb_master;

enum vb_child_state {
    VB_CHILD_NONE, /* no process; perhaps one will be spawned soon */
    VB_CHILD_STARTING,
    VB_CHILD_SERVING,
    VB_CHILD_DRAINING, /* told to stop, and has stopped accepting */
};

/* One worker as its master sees it. */
struct vb_child {
    struct vb_master *master;
    unsigned index;
    enum vb_child_state state;
    int slot;              /* in the segment, while there is a process */
    int inbox[2];          /* of its index, for life; see vb/inbox.h */
    uint64_t started_ms;   /* loop time */
    unsigned quick_deaths; /* in a row: the wait before the next spawn grows with them */
    bool condemned;        /* by the watchdog: SIGKILL is on its way */
    uv_process_t process;
    uv_pipe_t control;
    uv_timer_t respawn;
};

struct vb_master {
    const struct vb_options *options;
    const char *config_file;
    char *config_text; /* what the workers get */
    size_t config_length;
    int config_fd; /* the same, sealed */
    struct vb_conf *conf;
    char *identity;       /* that workers take; NULL: they are whoever the master is */
    bool user_is_another; /* than the master, who cannot become it */
    struct vb_notify notify;
    struct vb_shm *shm;
    struct vb_logger *logger;
    struct vb_health *health;
    struct vb_findings *findings;
    struct vb_watchdog watchdog;
    struct vb_control *control; /* NULL: there is no control socket */
    int *listen_fds;            /* by worker, then by listener */
    unsigned n_workers;
    struct vb_child *children;

    uv_loop_t loop;
    uv_signal_t signals[7];
    uv_async_t first_round; /* the health thread has a first opinion on every backend */
    uv_timer_t start_timer; /* ... or takes too long for that */
    uv_timer_t grace_timer;
    uv_timer_t tick; /* once a second */
    bool started, stopping, ever_served;
    unsigned terms; /* SIGTERM and the like so far */
    int status;     /* exit status */
};

/* ---- children.c: spawning and reaping -----------------------------------------------------------------------------*/

/* Prepares n_workers children; nothing is spawned. */
int vb_children_open(struct vb_master *master);

/* When all are gone; also what vb_children_open has left half done. */
void vb_children_close(struct vb_master *master);

/* Spawns every child. */
void vb_children_start(struct vb_master *master);

/* Tells all to drain; from now on nobody is respawned. */
void vb_children_drain(struct vb_master *master);

/* Kills what is left. */
void vb_children_kill(struct vb_master *master);

/* Kills one that has a process. */
void vb_child_kill(struct vb_child *child);

bool vb_children_all_gone(const struct vb_master *master);

/* ---- master.c, called by children.c -------------------------------------------------------------------------------*/

void vb_master_child_serves(struct vb_master *master, struct vb_child *child);

/* A child accepts no more, or its process is gone. */
void vb_master_child_stopped(struct vb_master *master);

/* As PID 1: reaps what is not ours, up to the first of ours that libuv has still to reap. */
void vb_master_reap_orphans(struct vb_master *master);

/* No worker can be brought to life. */
void vb_master_give_up(struct vb_master *master);

#endif
