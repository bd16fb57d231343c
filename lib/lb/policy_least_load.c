/*
 * least_load: of two that were drawn by their weights, the one that has less to do, as the backends themselves report
 * it: its load times how crowded it is, because reports are always a little late and what we have sent meanwhile is
 * known.
 *
 * A report counts in full for two seconds, and then less and less; after thirty nothing is known. Of whom nothing is
 * known the mean of all the others is assumed. Where nobody reports all are alike, and what is in flight decides. Loads
 * within a quarter of each other are alike too: else the one with the lowest report would get all until the next one.
 *
 * The word (stamped.h): 1 + the load in 1/1000. The last report stays; none is waited for.
 */
#include <errno.h>
#include <stdlib.h>

#include "stamped.h"

#define FULL_MS      2000u
#define FORGOTTEN_MS 30000u
#define MEAN_FOR_US  100000u /* so long the mean is good: many picks share one walk over all candidates */
#define LOAD_MAX     (UINT32_MAX / 2)
#define ALIKE        1.25
#define IDLE_LOAD    50.0 /* added to each: between two that are idle it is in flight that counts, not 0 of 0 */

struct lb_mean {
    uint64_t until_us;
    bool is_known; /* somebody has reported */
    double load;
};

void vb_lb_report_load(struct vb_shm *shm, unsigned backend, uint32_t load_milli, uint64_t now_us)
{
    uint64_t word = lb_stamped(VB_MIN(load_milli, LOAD_MAX) + 1, now_us);
    atomic_store_explicit(&vb_shm_backend(shm, backend)->reported_load, word, memory_order_relaxed);
}

struct report {
    double counts; /* from 1 to 0: nothing is known */
    double load;
};

static struct report read_report(const struct vb_lb *lb, unsigned index, uint64_t now_us)
{
    const struct vb_shm_backend *backend = vb_shm_backend(lb->shm, lb->candidates[index].backend);
    uint64_t word = atomic_load_explicit(&backend->reported_load, memory_order_relaxed);
    uint32_t age_ms = word == 0 ? FORGOTTEN_MS : lb_stamped_age_ms(word, now_us);
    if (age_ms >= FORGOTTEN_MS)
        return (struct report){0, 0};
    double left = (double)(FORGOTTEN_MS - age_ms) / (FORGOTTEN_MS - FULL_MS);
    return (struct report){VB_MIN(left, 1.0), lb_stamped_value(word) - 1};
}

static const struct lb_mean *find_mean(const struct vb_lb *lb, uint64_t now_us)
{
    struct lb_mean *mean = lb->mean;
    if (now_us < mean->until_us)
        return mean;
    double sum = 0, counts = 0;
    for (unsigned i = 0; i < lb->n_candidates; i++) {
        struct report report = read_report(lb, i, now_us);
        sum += report.counts * report.load;
        counts += report.counts;
    }
    *mean = (struct lb_mean){now_us + MEAN_FOR_US, counts > 0, counts > 0 ? sum / counts : 0};
    return mean;
}

static int prepare(struct vb_lb *lb)
{
    if (lb->mean == NULL)
        lb->mean = malloc(sizeof(*lb->mean));
    if (lb->mean == NULL)
        return -ENOMEM;
    lb->mean->until_us = 0; /* it was that of other candidates */
    return lb_sum_weights(lb);
}

static double load_by(const struct report *report, const struct lb_mean *mean)
{
    return IDLE_LOAD + mean->load + (report->load - mean->load) * report->counts;
}

static unsigned pick(const struct vb_lb *lb, struct lb_turn *turn)
{
    unsigned a = lb_draw(lb, turn->ask, lb->n_candidates), b = lb_draw(lb, turn->ask, a);
    if (b == lb->n_candidates)
        return a; /* it is the only one left */
    const struct lb_mean *mean = find_mean(lb, turn->now_us);
    struct report of_a = read_report(lb, a, turn->now_us), of_b = read_report(lb, b, turn->now_us);
    const struct lb_side one = {load_by(&of_a, mean), lb_crowd(lb, a, b)};
    const struct lb_side other = {load_by(&of_b, mean), lb_crowd(lb, b, a)};
    bool b_wins = lb_is_better(&other, &one, ALIKE); /* who was drawn first wins a tie */
    if (mean->is_known && (b_wins ? of_b : of_a).counts == 0)
        turn->reason = VB_PICK_EXPLORE;
    return b_wins ? b : a;
}

const struct vb_policy vb_policy_least_load = {.name = "least_load", .prepare = prepare, .pick = pick};
