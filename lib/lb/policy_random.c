/* random: each backend by its weight, whatever has been before. Nothing is shared, so nothing has to be agreed on. */
#include <errno.h>
#include <stdlib.h>

#include "policy.h"

int lb_sum_weights(struct vb_lb *lb)
{
    uint32_t *sums = realloc(lb->sums, lb->n_candidates * sizeof(*sums)), sum = 0;
    if (sums == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < lb->n_candidates; i++)
        sums[i] = sum += lb->candidates[i].weight;
    lb->sums = sums;
    return 0;
}

/* The first whose sum is greater: each has as many numbers as it weighs. */
static unsigned find(const struct vb_lb *lb, uint32_t number)
{
    unsigned low = 0, high = lb->n_candidates - 1;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (lb->sums[middle] > number)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static bool may_be_drawn(const struct vb_lb *lb, unsigned i, const struct vb_ask *ask, unsigned but)
{
    return i != but && lb_may_pick(lb, ask, i);
}

static unsigned draw_from_rest(const struct vb_lb *lb, const struct vb_ask *ask, unsigned but)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < lb->n_candidates; i++)
        sum += may_be_drawn(lb, i, ask, but) ? lb->candidates[i].weight : 0;
    if (sum == 0)
        return lb->n_candidates;
    uint64_t number = vb_rand_below(lb->rand, sum);
    for (unsigned i = 0;; i++) {
        uint64_t weight = may_be_drawn(lb, i, ask, but) ? lb->candidates[i].weight : 0;
        if (number < weight)
            return i;
        number -= weight;
    }
}

/* One that may not be drawn is drawn now and then, and its share goes to all the others by their weights. */
unsigned lb_draw(const struct vb_lb *lb, const struct vb_ask *ask, unsigned but)
{
    unsigned i = find(lb, (uint32_t)vb_rand_below(lb->rand, lb->sums[lb->n_candidates - 1]));
    return VB_LIKELY(may_be_drawn(lb, i, ask, but)) ? i : draw_from_rest(lb, ask, but);
}

static unsigned pick(const struct vb_lb *lb, struct lb_turn *turn)
{
    return lb_draw(lb, turn->ask, lb->n_candidates);
}

const struct vb_policy vb_policy_random = {.name = "random", .prepare = lb_sum_weights, .pick = pick};
