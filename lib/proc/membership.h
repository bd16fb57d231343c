/*
 * What the segment knows of pools and backends is made what a configuration says, in two steps: what is new comes first
 * and can be taken back, and gets no requests while it is looked at; then everything changes at once.
 */
#ifndef VB_PROC_MEMBERSHIP_H
#define VB_PROC_MEMBERSHIP_H

#include "vb/conf.h"
#include "vb/health.h"
#include "vb/shm.h"

struct vb_membership;

/*
 * Adds the pools and backends of `conf` that are not there, drained, and has the health thread look at them, which is
 * told by vb_health_update. `before` is the configuration that counts until then; NULL: there is none. On failure
 * nothing has changed. All that is handed in must outlive it.
 */
int vb_membership_prepare(struct vb_membership **ret_membership, struct vb_shm *shm, struct vb_health *health,
                          const struct vb_conf *conf, const struct vb_conf *before, struct vb_error *err);

/*
 * The configuration counts: its backends are ready and have its settings, whatever was changed at run time, others go,
 * and pools that it does not have are leaving, for workers that still know them. Frees it and sets NULL.
 */
void vb_membership_commit(struct vb_membership **membership);

/* Takes away what was added. Frees it and sets NULL; *membership may be NULL. */
void vb_membership_undo(struct vb_membership **membership);

/* Frees the leaving pools that `is_known` does not know, by their name: no worker has them any more. */
void vb_membership_free_pools(struct vb_shm *shm, bool (*is_known)(const void *arg, const char *pool), const void *arg);

#endif
