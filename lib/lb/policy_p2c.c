/*
 * p2c: of two that were drawn by their weights, the one with fewer requests in flight for its weight, over all workers.
 * Nearly as even as least_conn, at a cost that does not grow with the number of backends, and workers that know the
 * same cannot all run to the same one.
 */
#include "policy.h"

static unsigned pick(const struct vb_lb *lb, struct lb_turn *turn)
{
    unsigned a = lb_draw(lb, turn->ask, lb->n_candidates), b = lb_draw(lb, turn->ask, a);
    if (b == lb->n_candidates)
        return a; /* it is the only one left */
    const struct vb_candidate *one = &lb->candidates[a], *other = &lb->candidates[b];
    /* load / weight, compared without division; who was drawn first wins a tie */
    uint64_t here = (uint64_t)vb_shm_load(lb->shm, one->backend) * other->weight;
    uint64_t there = (uint64_t)vb_shm_load(lb->shm, other->backend) * one->weight;
    return there < here ? b : a;
}

const struct vb_policy vb_policy_p2c = {.name = "p2c", .prepare = lb_sum_weights, .pick = pick};
