/*
 * least_conn: the fewest requests in flight for its weight, counted over all workers at the moment of the pick. Those
 * that tie take turns by the ticket that all workers share, so that they neither choose alike nor favour a neighbour.
 */
#include "policy.h"

static uint64_t load_of(const struct vb_lb *lb, unsigned i)
{
    return vb_shm_sum_in_flight(lb->shm, lb->candidates[i].backend);
}

static unsigned pick(const struct vb_lb *lb, uint64_t ticket)
{
    unsigned n = lb->n_candidates, best = 0, ties = 1;
    uint64_t best_load = load_of(lb, 0);
    for (unsigned i = 1; i < n; i++) {
        /* load / weight, compared without division */
        uint64_t load = load_of(lb, i), here = load * lb->candidates[best].weight;
        uint64_t there = best_load * lb->candidates[i].weight;
        if (here < there) {
            best = i;
            best_load = load;
            ties = 1;
        } else if (here == there) {
            ties++;
        }
    }
    unsigned chosen = best, skip = (unsigned)(ticket % ties);
    for (unsigned i = best + 1; i < n && skip > 0; i++) {
        if (load_of(lb, i) * lb->candidates[best].weight == best_load * lb->candidates[i].weight) {
            chosen = i;
            skip--;
        }
    }
    return chosen;
}

const struct vb_policy vb_policy_least_conn = {.name = "least_conn", .pick = pick};
