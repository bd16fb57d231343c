/*
 * The health thread of the master: probes every backend of the segment, resolves their names, writes what it finds into
 * their health records, and logs one line for each transition. It shares nothing with the request path but the segment.
 */
#ifndef VB_HEALTH_H
#define VB_HEALTH_H

#include "vb/conf.h"
#include "vb/shm.h"

struct vb_health;

/*
 * Makes it; vb_health_start begins. `looked` is called on its thread after the start, and after each update: as soon as
 * every backend that is there then has been looked at (vb_health_has_looked). `shm` must outlive it. Negative errno.
 */
int vb_health_open(struct vb_health **ret_health, struct vb_shm *shm, void (*looked)(void *arg), void *arg);

/*
 * The rules for a pool's slot, of which it makes a copy; before the slot's first backend is added, and again at any
 * time. They hold from the next update on. The same rules change nothing. With others, what is known of a backend goes
 * on and its next probe is made at once, unless checks are now off or on: then all begins anew, and it is served until
 * a first result says otherwise. From the main thread. -ENOMEM: those of before go on.
 */
int vb_health_set_rules(struct vb_health *health, unsigned pool, const struct vb_conf_health *rules);

/*
 * Starts the thread. What the segment knows of a backend already, by a health thread before this one, goes on; its next
 * probe is made at once. Negative errno; then only vb_health_stop may follow.
 */
int vb_health_start(struct vb_health *health);

/*
 * Backends came, went or changed their admin state, or rules were set: the thread follows. One that comes and that its
 * row takes for down stays so until its first result, which alone decides; any other is trusted until then, once its
 * address is known. One that comes back from maintenance, in which nothing is probed, is down until its first result.
 * From the main thread.
 */
void vb_health_update(struct vb_health *health);

/*
 * Has every backend that was there at the last update (or at the start) had its first result, or will it have none: in
 * maintenance, gone, or it cannot be checked? A `looked` that is on its way may still speak of the time before that
 * update. From the main thread.
 */
bool vb_health_has_looked(const struct vb_health *health);

/*
 * The thread, if it was started, does nothing until it is told to go on, and it writes nothing into the segment
 * meanwhile. Waits until that is so: a moment. From the main thread.
 */
void vb_health_pause(struct vb_health *health);
void vb_health_resume(struct vb_health *health);

/*
 * Ends the thread, if it was started, and sets NULL; *health may be NULL. False: the system's resolver holds a thread
 * that nothing can interrupt; then the process must leave with _exit, or it would wait for it.
 */
bool vb_health_stop(struct vb_health **health);

#endif
