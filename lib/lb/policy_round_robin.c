/*
 * round_robin: smooth weighted round robin, exact over all workers.
 *
 * All workers take tickets from one counter in the segment and look them up in the same schedule, which each makes for
 * itself from the candidates: one period of smooth weighted round robin. Weights 5:1:1 give `a a b a c a a`: any 7
 * tickets in a row go 5:1:1, whoever took them, and a pick is one atomic addition and one look-up.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy.h"

/* Making a schedule costs its length times the candidates; past this, weights are halved until it fits. */
#define STEPS_MAX (4u << 20)

static unsigned gcd(unsigned a, unsigned b)
{
    while (b != 0) {
        unsigned rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static uint64_t reduce(unsigned *weights, unsigned n, unsigned divisor)
{
    uint64_t total = 0;
    for (unsigned i = 0; i < n; i++) {
        weights[i] = VB_MAX(weights[i] / divisor, 1u);
        total += weights[i];
    }
    return total;
}

/* Every candidate gains its weight; the richest serves and pays the total. The order is even, and ends where it began.
 */
static void fill(uint16_t *schedule, unsigned length, const unsigned *weights, int64_t *credit, unsigned n)
{
    for (unsigned t = 0; t < length; t++) {
        unsigned best = 0;
        for (unsigned i = 0; i < n; i++) {
            credit[i] += weights[i];
            if (credit[i] > credit[best])
                best = i;
        }
        credit[best] -= length;
        schedule[t] = (uint16_t)best;
    }
}

static int prepare(struct vb_lb *lb)
{
    unsigned n = lb->n_candidates, divisor = 0;
    int r = -ENOMEM;
    uint16_t *schedule = NULL;
    unsigned *weights = malloc(n * sizeof(*weights));
    int64_t *credit = calloc(n, sizeof(*credit));
    if (weights == NULL || credit == NULL)
        goto out;
    for (unsigned i = 0; i < n; i++) {
        weights[i] = lb->candidates[i].weight;
        divisor = gcd(weights[i], divisor);
    }
    uint64_t total = reduce(weights, n, divisor);
    while (total > n && total * n > STEPS_MAX)
        total = reduce(weights, n, 2);
    schedule = malloc(total * sizeof(*schedule));
    if (schedule == NULL)
        goto out;
    if (total == n)
        for (unsigned i = 0; i < n; i++)
            schedule[i] = (uint16_t)i;
    else
        fill(schedule, (unsigned)total, weights, credit, n);
    free(lb->schedule);
    lb->schedule = schedule;
    lb->n_schedule = (unsigned)total;
    r = 0;

out:
    free(weights);
    free(credit);
    return r;
}

/*
 * The turns of those that may not be picked are shared out among the turns of the others, round by round: by their
 * weights, and exactly. The schedule is as long as the sum of the weights, some thousand at most of those that a file
 * may give.
 */
static unsigned pick_another(const struct vb_lb *lb, uint64_t turn, const struct vb_ask *ask)
{
    unsigned others = 0, t = 0;
    for (unsigned i = 0; i < lb->n_schedule; i++)
        others += lb_may_pick(lb, ask, lb->schedule[i]);
    for (unsigned skip = (unsigned)(turn % others);; t++)
        if (lb_may_pick(lb, ask, lb->schedule[t]) && skip-- == 0)
            return lb->schedule[t];
}

static unsigned pick(const struct vb_lb *lb, struct lb_turn *turn)
{
    unsigned at = (unsigned)(turn->ticket % lb->n_schedule), chosen = lb->schedule[at];
    if (VB_LIKELY(lb_may_pick(lb, turn->ask, chosen)))
        return chosen;
    return pick_another(lb, turn->ticket / lb->n_schedule + at, turn->ask);
}

const struct vb_policy vb_policy_round_robin = {.name = "round_robin", .prepare = prepare, .pick = pick};
