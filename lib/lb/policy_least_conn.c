/*
 * least_conn: the fewest requests in flight for its weight, counted over all workers at the moment of the pick. Those
 * that tie take turns by the ticket that all workers share, so that they neither choose alike nor favour a neighbour.
 */
#include "policy.h"

static uint64_t load_of(const struct vb_lb *lb, unsigned i)
{
    return vb_shm_sum_in_flight(lb->shm, lb->candidates[i].backend);
}

/* Whose turn it is among those of the least load that have not been tried. */
static unsigned least(const struct vb_lb *lb, uint64_t turn, const struct vb_tried *tried)
{
    unsigned n = lb->n_candidates, best = n, ties = 0;
    uint64_t best_load = 0;
    for (unsigned i = 0; i < n; i++) {
        if (lb_is_tried(tried, lb->candidates[i].backend))
            continue;
        /* load / weight, compared without division */
        uint64_t load = load_of(lb, i), here = best == n ? 0 : load * lb->candidates[best].weight;
        uint64_t there = best_load * lb->candidates[i].weight;
        if (best == n || here < there) {
            best = i;
            best_load = load;
            ties = 1;
        } else if (here == there) {
            ties++;
        }
    }
    unsigned chosen = best, skip = (unsigned)(turn % ties);
    for (unsigned i = best + 1; i < n && skip > 0; i++) {
        if (!lb_is_tried(tried, lb->candidates[i].backend) &&
            load_of(lb, i) * lb->candidates[best].weight == best_load * lb->candidates[i].weight) {
            chosen = i;
            skip--;
        }
    }
    return chosen;
}

/*
 * Those tried have their turns too, and pass them on: without that, a dead backend and the request's next try would
 * take tickets in step with each other, and some of the others would never have a turn. Passed on by a scattered
 * ticket, for the same reason.
 */
static unsigned pick(const struct vb_lb *lb, uint64_t ticket, const struct vb_tried *tried)
{
    static const struct vb_tried none;
    unsigned chosen = least(lb, ticket, &none);
    if (VB_LIKELY(!lb_is_tried(tried, lb->candidates[chosen].backend)))
        return chosen;
    return least(lb, (ticket * UINT64_C(0x9e3779b97f4a7c15)) >> 32, tried);
}

const struct vb_policy vb_policy_least_conn = {.name = "least_conn", .pick = pick};
