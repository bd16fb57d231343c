/*
 * Reloading: the next generation is built while the present one serves, and takes its place when all of it is ready.
 *
 *   prepare   the file is read; what it adds (sockets, pools, backends) is made, and can be taken back
 *   look      its new backends are looked at, LOOK_MS at most
 *   start     its workers get ready
 *   commit    from here on nothing can fail: segment, sockets and workers become what the file says, and the generation
 *             before retires
 *   settle    until that one accepts no more; then the next reload may begin
 *
 * One that is an upgrade begins with other steps, at whose end another executable is the master: see upgrade.h.
 *
 * Whatever goes wrong before the commit leaves everything as it was, and is said in the log, in the segment and to
 * whoever asked. On the master's main thread.
 */
#ifndef VB_PROC_RELOAD_H
#define VB_PROC_RELOAD_H

#include <jansson.h>
#include <uv.h>

#include "generation.h"

struct vb_membership;

struct vb_reload {
    enum {
        VB_RELOAD_NONE,
        VB_RELOAD_DUE,
        VB_RELOAD_TRYING, /* the new executable */
        VB_RELOAD_LOOKING,
        VB_RELOAD_STARTING,
        VB_RELOAD_SETTLING
    } phase;
    bool upgrade;               /* it is one */
    bool taken_over;            /* ... and this is the new executable */
    uint64_t number;            /* of the one under way, or of the last one */
    bool again, upgrade_again;  /* one more was asked for meanwhile, and as an upgrade */
    struct vb_generation *next; /* what is built */
    struct vb_membership *membership;
    uv_timer_t timer; /* it begins; it has waited for long enough */
};

void vb_reload_open(struct vb_master *master);

/*
 * Asks for a reload, by SIGHUP or vbctl; several that are asked for while one is under way become one. Returns the
 * number of the one that reads the file after this call. vb_control_reloaded tells when it has ended.
 */
uint64_t vb_reload_request(struct vb_master *master);

/* The same for an upgrade, by SIGUSR2 or vbctl; it takes in a reload that has not begun. */
uint64_t vb_reload_request_upgrade(struct vb_master *master);

/* The upgrade goes on with the execution of the new file, or has failed for this reason (NULL: the former). */
bool vb_reload_is_trying(const struct vb_master *master);
void vb_reload_tried(struct vb_master *master, const char *why);

/*
 * In the new executable, which is to reload now; or in the old one, which got everything back for a reason (NULL: it is
 * the new one). See handover.h.
 */
int vb_reload_adopt(struct vb_reload *reload, const json_t *packed, struct vb_error *err);
json_t *vb_reload_pack(const struct vb_reload *reload);
void vb_reload_resume(struct vb_master *master, const char *why);

/* Has it read the file, and not come to its end? Then the segment has what may be taken back. */
bool vb_reload_is_building(const struct vb_master *master);

/* What a reload waits for: all backends were looked at, the next generation is ready, those before accept no more. */
void vb_reload_looked(struct vb_master *master);
void vb_reload_ready(struct vb_master *master);
void vb_reload_settled(struct vb_master *master);

/* A worker of the next generation has died. */
void vb_reload_broken(struct vb_master *master, const struct vb_child *child);

/* Gives up what is under way, because the master stops. */
void vb_reload_cancel(struct vb_master *master);

#endif
