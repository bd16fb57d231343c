/* What a balancing policy is, and what it picks from. Private to lib/lb; each policy is one file, listed in lb.c. */
#ifndef VB_LB_POLICY_H
#define VB_LB_POLICY_H

#include "vb/lb.h"

struct vb_candidate {
    unsigned backend; /* slot in the segment */
    unsigned weight;  /* >= 1; while some start slowly, in LB_RAMP_STEPS of what the others have */
    unsigned nominal; /* >= 1; as the operator has it */
    bool is_full;     /* it has its max_connections, seen at the beginning of the pick in hand */
};

enum { LB_RAMP_STEPS = 20 };

struct vb_lb {
    struct vb_shm *shm;
    struct vb_shm_pool *pool;
    unsigned pool_index, slot;
    const struct vb_policy *policy;
    struct vb_lb_rules rules;
    struct vb_rand *rand;
    uint32_t epoch;         /* of the pool, when the rest was made */
    uint64_t look_again_us; /* the earliest end of an ejection, or step of a slow start; UINT64_MAX: there is none */
    bool remade;            /* since the last vb_lb_look */
    bool in_panic, on_backups;
    bool is_limited;  /* some member has max_connections */
    bool is_weighted; /* candidates differ in weight */
    struct vb_candidate *candidates;
    unsigned n_candidates;
    /* What policies prepare from the candidates; each belongs to one policy (or family), and is freed with free(). */
    uint16_t *schedule; /* round_robin: indexes of candidates */
    unsigned n_schedule;
    uint32_t *sums;           /* those that draw: of the weights up to each candidate */
    struct lb_groups *groups; /* least_conn */
    struct lb_points *points; /* hash */
    struct lb_mean *mean;     /* least_load */
};

/* One pick: what a policy may look at, and what it says. */
struct lb_turn {
    const struct vb_ask *ask;
    uint64_t ticket; /* counts the policy's picks of all workers together */
    uint64_t now_us;
    enum vb_pick_reason reason; /* VB_PICK_POLICY, unless the policy knows better */
};

struct vb_policy {
    const char *name; /* as the configuration has it */
    /* The candidates have changed. May be NULL. 0 or -ENOMEM. */
    int (*prepare)(struct vb_lb *lb);
    /*
     * Index of a candidate that lb_may_pick; there is at least one. The turns of one that may not be picked go to all
     * the others: whoever stood next to it would get them twice.
     */
    unsigned (*pick)(const struct vb_lb *lb, struct lb_turn *turn);
    /* See vb_lb_learn. May be NULL. */
    void (*learn)(struct vb_shm_backend *backend, uint64_t latency_us, enum vb_try_end how, uint64_t now_us);
};

/* Without tries before, which is nearly always, this is one comparison. */
static inline bool lb_is_tried(const struct vb_tried *tried, unsigned backend)
{
    for (unsigned i = 0; i < tried->n; i++)
        if (tried->backends[i] == backend)
            return true;
    return false;
}

/* Candidate `i` for this request. The answer does not change during a pick. */
static inline bool lb_may_pick(const struct vb_lb *lb, const struct vb_ask *ask, unsigned i)
{
    return !lb->candidates[i].is_full && !lb_is_tried(ask->tried, lb->candidates[i].backend);
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

/* Index of a candidate by chance, by the weights of all that may be picked and are not `but`; n_candidates: there is
 * none. */
unsigned lb_draw(const struct vb_lb *lb, const struct vb_ask *ask, unsigned but);

/* Scatters a number: those that follow each other do not stay in step with anything. */
static inline uint64_t lb_scatter(uint64_t number)
{
    return (number * UINT64_C(0x9e3779b97f4a7c15)) >> 32;
}

extern const struct vb_policy vb_policy_round_robin, vb_policy_least_conn, vb_policy_p2c, vb_policy_random,
    vb_policy_fastest, vb_policy_least_load, vb_policy_hash;

#endif
