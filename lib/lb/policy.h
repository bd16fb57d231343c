/* What a balancing policy is. Private to lib/lb; each policy is one file, listed in lb.c. */
#ifndef VB_LB_POLICY_H
#define VB_LB_POLICY_H

#include "vb/lb.h"

struct vb_candidate {
    unsigned backend; /* slot in the segment */
    unsigned weight;  /* >= 1 */
};

struct vb_lb {
    struct vb_shm *shm;
    struct vb_shm_pool *pool;
    unsigned pool_index;
    vb_u32 *in_flight; /* this worker's own row */
    const struct vb_policy *policy;
    uint32_t epoch; /* of the pool, when the rest was made */
    struct vb_candidate *candidates;
    unsigned n_candidates;
    uint16_t *schedule; /* made by policies that prepare one: indexes of candidates */
    unsigned n_schedule;
};

struct vb_policy {
    const char *name; /* as the configuration has it */
    /* The candidates have changed. May be NULL. 0 or -ENOMEM. */
    int (*prepare)(struct vb_lb *lb);
    /* Index of a candidate; there is at least one. `ticket` counts the picks of all workers together. */
    unsigned (*pick)(const struct vb_lb *lb, uint64_t ticket);
};

extern const struct vb_policy vb_policy_round_robin, vb_policy_least_conn;

#endif
