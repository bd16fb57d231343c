/* What a balancing policy is, and what it picks from. Private to lib/lb; each policy is one file, listed in lb.c. */
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
    uint32_t epoch;         /* of the pool, when the rest was made */
    uint64_t look_again_us; /* the earliest end of an ejection then; UINT64_MAX: nobody is ejected */
    bool remade;            /* since the last vb_lb_look */
    bool in_panic;
    struct vb_candidate *candidates;
    unsigned n_candidates;
    uint16_t *schedule; /* made by policies that prepare one: indexes of candidates */
    unsigned n_schedule;
    uint32_t *sums; /* likewise: of the weights up to each candidate */
    struct vb_rand *rand;
};

struct vb_policy {
    const char *name; /* as the configuration has it */
    /* The candidates have changed. May be NULL. 0 or -ENOMEM. */
    int (*prepare)(struct vb_lb *lb);
    /*
     * Index of a candidate that has not been tried; there is at least one. `ticket` counts the picks of all workers
     * together. The turns of one that was tried go to all the others: whoever stood next to it would get them twice.
     */
    unsigned (*pick)(const struct vb_lb *lb, uint64_t ticket, const struct vb_tried *tried);
};

/* Without tries before, which is nearly always, this is one comparison. */
static inline bool lb_is_tried(const struct vb_tried *tried, unsigned backend)
{
    for (unsigned i = 0; i < tried->n; i++)
        if (tried->backends[i] == backend)
            return true;
    return false;
}

/* One that may get this pool's requests, as far as the operator is concerned. */
static inline bool lb_is_member(const struct vb_shm_backend *backend, unsigned pool)
{
    return atomic_load_explicit(&backend->used, memory_order_acquire) != 0 &&
           atomic_load_explicit(&backend->pool, memory_order_relaxed) == pool &&
           atomic_load_explicit(&backend->admin, memory_order_relaxed) == VB_ADMIN_READY;
}

/* As far as checks are concerned. */
static inline bool lb_is_healthy(const struct vb_shm_backend *backend)
{
    return atomic_load_explicit(&backend->health, memory_order_relaxed) != VB_HEALTH_DOWN;
}

/* policy_random.c, for `prepare`: makes the sums that drawing needs. */
int lb_sum_weights(struct vb_lb *lb);

/* Index of a candidate by chance, by the weights of all that have not been tried and are not `but`; n_candidates: there
 * is none. */
unsigned lb_draw(const struct vb_lb *lb, const struct vb_tried *tried, unsigned but);

extern const struct vb_policy vb_policy_round_robin, vb_policy_least_conn, vb_policy_p2c, vb_policy_random;

#endif
