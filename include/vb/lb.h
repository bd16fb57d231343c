/*
 * Balancing: which backend gets the next request. Pure decisions on the segment's numbers: no I/O, no libuv, no clock.
 *
 * A `vb_lb` is one worker's picture of one pool: the backends that may be picked and what the policy prepared from
 * them. It is made anew when the pool's epoch in the segment has moved, so all workers follow within one pick.
 */
#ifndef VB_LB_H
#define VB_LB_H

#include "vb/base.h"
#include "vb/shm.h"

struct vb_lb;

/* For the worker in `slot`. `shm` must outlive it. -ENOTSUP: the pool names no policy that exists. -ENOMEM. */
int vb_lb_open(struct vb_lb **ret_lb, struct vb_shm *shm, unsigned pool, unsigned slot);
void vb_lb_close(struct vb_lb **lb);

/*
 * Picks a backend and counts the request in its in-flight figure, before any connection is made: other workers see it
 * at once. >= 0: the backend's slot; vb_lb_done takes it back. -ENOENT: none is usable. -ENOMEM.
 */
int vb_lb_pick(struct vb_lb *lb);
void vb_lb_done(struct vb_lb *lb, unsigned backend);

/* ---- health decisions ---------------------------------------------------------------------------------------------*/

struct vb_health_rules {
    unsigned rise, fall; /* results in a row that it takes */
};

struct vb_health_fsm {
    enum vb_health_state state;
    unsigned streak; /* results in a row that speak against `state` */
};

/* Takes the next probe result; true when `state` changed. The very first result decides alone. */
bool vb_health_fsm_feed(struct vb_health_fsm *fsm, const struct vb_health_rules *rules, bool passed);

/* Is it between two states? Then probes come faster. */
bool vb_health_fsm_in_transition(const struct vb_health_fsm *fsm);

#endif
