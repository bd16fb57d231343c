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
 * Starts the thread. `first_round` is called once, on that thread, when every backend has had its first result (at once
 * when there is nothing to check). `shm` and `conf` must outlive it. Negative errno.
 */
int vb_health_start(struct vb_health **ret_health, struct vb_shm *shm, const struct vb_conf *conf,
                    void (*first_round)(void *arg), void *arg);

/*
 * Backends came, went or changed their admin state: the thread follows. One that comes is taken for down until its
 * first result, which alone decides; so is one that comes back from maintenance, in which nothing is probed. From any
 * thread.
 */
void vb_health_update(struct vb_health *health);

/*
 * Ends the thread and sets NULL; *health may be NULL. False: the system's resolver holds a thread that nothing can
 * interrupt; then the process must leave with _exit, or it would wait for it.
 */
bool vb_health_stop(struct vb_health **health);

#endif
