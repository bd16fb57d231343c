/*
 * What is known of a backend and grows old: one word of the segment that all workers write, a value (32 bit) and when
 * it was known (32 bit: milliseconds of the monotonic clock, which go round in 49 days). 0: never. Private to lib/lb.
 */
#ifndef VB_LB_STAMPED_H
#define VB_LB_STAMPED_H

#include "policy.h"

/* A writer's time may be a little later than the reader's: each goes by when its loop turned. */
#define LB_STAMP_AHEAD_MS 60000u

static inline uint64_t lb_stamped(uint32_t value, uint64_t now_us)
{
    return (uint64_t)value << 32 | (uint32_t)(now_us / 1000);
}

static inline uint32_t lb_stamped_value(uint64_t word)
{
    return (uint32_t)(word >> 32);
}

/* What is older than 49 days looks younger: it is one answer until it is known again. */
static inline uint32_t lb_stamped_age_ms(uint64_t word, uint64_t now_us)
{
    uint32_t age_ms = (uint32_t)(now_us / 1000) - (uint32_t)word;
    return age_ms > UINT32_MAX - LB_STAMP_AHEAD_MS ? 0 : age_ms;
}

/* One of two that are compared. */
struct lb_side {
    double cost;  /* of a request there */
    double crowd; /* how much more that is for what is in flight there */
};

/*
 * By the weights of the two, and 1 for an idle one of whatever weight: drawing has given the heavier one its share
 * already.
 */
static inline double lb_crowd(const struct vb_lb *lb, unsigned index, unsigned other)
{
    const struct vb_candidate *one = &lb->candidates[index];
    double lighter = VB_MIN(one->weight, lb->candidates[other].weight);
    return 1 + vb_shm_load(lb->shm, one->backend) * lighter / one->weight;
}

/* What differs by no more than this factor is alike: the one that is a little better would else get all. */
static inline bool lb_is_alike(double a, double b, double factor)
{
    return a <= b * factor && b <= a * factor;
}

static inline bool lb_is_better(const struct lb_side *a, const struct lb_side *b, double alike)
{
    if (lb_is_alike(a->cost, b->cost, alike))
        return a->crowd < b->crowd;
    return a->cost * a->crowd < b->cost * b->crowd;
}

#endif
