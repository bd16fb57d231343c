/*
 * A generation: one version of the configuration, and the workers that serve it. A reload builds the next one beside
 * the one that serves, and takes its place when all its workers are ready; the old one finishes what it has. All of it
 * belongs to the master's main thread.
 *
 *   generation.c   a generation as a whole: made, serving, leaving, gone
 *   children.c     its worker processes
 */
#ifndef VB_PROC_GENERATION_H
#define VB_PROC_GENERATION_H

#include <jansson.h>
#include <sys/queue.h>
#include <uv.h>

#include "config.h"

struct vb_master;

enum vb_child_state {
    VB_CHILD_NONE,  /* no process; perhaps one will be spawned soon */
    VB_CHILD_ENDED, /* its process has, and libuv has still to let go of it */
    VB_CHILD_STARTING,
    VB_CHILD_READY, /* waits for the word to serve */
    VB_CHILD_SERVING,
    VB_CHILD_LEAVING, /* accepts no more */
};

/* One worker as its master sees it. */
struct vb_child {
    struct vb_generation *generation;
    unsigned index;
    enum vb_child_state state;
    int slot; /* in the segment; -1: there is no process */
    pid_t pid;
    bool adopted;          /* spawned by the executable before this one: `process` is not its, and we reap it */
    int inbox[2];          /* of its index; see vb/inbox.h */
    uint64_t started_ms;   /* loop time */
    unsigned quick_deaths; /* in a row: the wait before the next spawn grows with them */
    bool killed;           /* by us: SIGKILL is on its way */
    uv_process_t process;
    uv_pipe_t control;
    uv_timer_t respawn;
};

enum vb_generation_state {
    VB_GENERATION_BUILDING, /* its workers start, and accept nothing yet; one that dies is not replaced */
    VB_GENERATION_SERVING,
    VB_GENERATION_LEAVING, /* nobody is replaced any more */
};

struct vb_generation {
    struct vb_master *master;
    TAILQ_ENTRY(vb_generation) link; /* in the master's list of old ones, the oldest first */
    unsigned number;
    enum vb_generation_state state;
    struct vb_config config;
    int config_fd; /* the configuration's text, sealed */
    unsigned n_workers;
    struct vb_child *children;
    struct vb_error why; /* a worker could not be spawned; empty: all could */
    bool quiet;          /* leaving, and nobody accepts any more */
    bool cut;
    uint64_t left_ms;    /* loop time at which it began to leave */
    uv_timer_t patience; /* how long it may go on leaving */
    unsigned handles;    /* of libuv, that are not closed yet */
};

/*
 * Takes over `config`, also on failure, and makes what its workers share; nothing is spawned. Negative errno, with a
 * sentence.
 */
int vb_generation_open(struct vb_generation **ret_generation, struct vb_master *master, struct vb_config *config,
                       unsigned n_workers, struct vb_error *err);

/*
 * The same of one that the executable before this one has made, with its processes; `packed` is what it says of it
 * (handover.h). vb_generation_resume lets it go on.
 */
int vb_generation_adopt(struct vb_generation **ret_generation, struct vb_master *master, const json_t *packed,
                        bool rehearsal, struct vb_error *err);
json_t *vb_generation_pack(const struct vb_generation *generation, json_t **fds);
void vb_generation_resume(struct vb_generation *generation);

/* Closes what is left, once no process is; it is freed when libuv has let go of it. Sets NULL. */
void vb_generation_close(struct vb_generation **generation);

/* After the loop has ended, which closed all handles. */
void vb_generation_free(struct vb_generation **generation);

/* Spawns all workers. */
void vb_generation_start(struct vb_generation *generation);

/* They serve, each as soon as it is ready; who dies is replaced. */
void vb_generation_serve(struct vb_generation *generation);

/*
 * They accept no more and finish what they have, within shutdown.grace; then they are killed. For good: nobody will
 * accept, so what waits is taken first and newcomers are refused. Otherwise `next` serves the same sockets, and only
 * those of addresses that it does not have are treated so. NULL: for good.
 */
void vb_generation_retire(struct vb_generation *generation, const struct vb_conf *next);

/* Everything stops: those that leave already lose no time with clients that have not asked for anything. */
void vb_generation_hurry(struct vb_generation *generation);

/* They cut what is left, and are killed if even that takes long. */
void vb_generation_cut(struct vb_generation *generation);

/* Kills one that has served nobody yet. */
void vb_generation_abandon(struct vb_generation *generation);

void vb_generation_kill(struct vb_generation *generation);

bool vb_generation_is_gone(const struct vb_generation *generation);

/* Are all workers in this state, or further? */
bool vb_generation_all(const struct vb_generation *generation, enum vb_child_state state);

/* ---- children.c --------------------------------------------------------------------------------------------------*/

int vb_children_open(struct vb_generation *generation);
int vb_children_adopt(struct vb_generation *generation, const json_t *packed, bool rehearsal, struct vb_error *err);
json_t *vb_children_pack(const struct vb_generation *generation, json_t **fds);
void vb_children_close(struct vb_generation *generation); /* their inboxes and memory */
void vb_child_spawn(struct vb_child *child);
void vb_child_tell(struct vb_child *child, const char *message, size_t n);
void vb_child_serve(struct vb_child *child);
void vb_child_kill(struct vb_child *child);
void vb_child_reaped(struct vb_child *child, int status); /* an adopted one, with its status of waitpid(2) */
void vb_child_resume(struct vb_child *child);

/* generation.c, called by children.c: it is ready; accepts no more; its process has ended and is closed. */
void vb_generation_child_ready(struct vb_child *child);
void vb_generation_child_quiet(struct vb_child *child);
void vb_generation_child_gone(struct vb_child *child);

#endif
