/*
 * least_conn: the fewest requests in flight for its weight, counted over all workers at the moment of the pick. Looking
 * begins at a place that the shared ticket moves on, so that workers which see a tie do not all choose alike.
 */
#include "policy.h"

static unsigned pick(const struct vb_lb *lb, uint64_t ticket)
{
    unsigned n = lb->n_candidates, start = (unsigned)(ticket % n), best = start;
    uint64_t best_load = 0;
    for (unsigned k = 0; k < n; k++) {
        unsigned i = start + k < n ? start + k : start + k - n;
        const struct vb_candidate *candidate = &lb->candidates[i];
        uint64_t load = vb_shm_sum_in_flight(lb->shm, candidate->backend) + 1; /* as it would be with this request */
        if (k == 0 || load * lb->candidates[best].weight < best_load * candidate->weight) {
            best = i;
            best_load = load;
        }
    }
    return best;
}

const struct vb_policy vb_policy_least_conn = {.name = "least_conn", .pick = pick};
