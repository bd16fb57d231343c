/*
 * Latency histogram, log-linear: below 16 us one bucket for each microsecond, above that 16 buckets for each doubling,
 * so a bucket is never wider than 1/16 of its value (a percentile read from the middle is within about 3%). The last
 * bucket takes all from 134 s up. Recording is one index computation and one increment; merging is addition.
 */
#ifndef VB_HIST_H
#define VB_HIST_H

#include "vb/base.h"

#define VB_HIST_SUB     16
#define VB_HIST_OCTAVES 23
#define VB_HIST_BUCKETS (VB_HIST_SUB + VB_HIST_OCTAVES * VB_HIST_SUB)

static inline unsigned vb_hist_index(uint64_t us)
{
    if (us < VB_HIST_SUB)
        return (unsigned)us;
    unsigned octave = 59 - (unsigned)__builtin_clzll(us); /* 0 for 16..31 */
    if (octave >= VB_HIST_OCTAVES)
        return VB_HIST_BUCKETS - 1;
    return VB_HIST_SUB + octave * VB_HIST_SUB + (unsigned)((us >> octave) & (VB_HIST_SUB - 1));
}

/* Smallest value of bucket i, in microseconds; of i == VB_HIST_BUCKETS, the end of the scale. */
uint64_t vb_hist_floor(unsigned i);

/* The value, in microseconds, below which `share` (0..1) of the recorded ones lie; 0 when nothing was recorded. */
double vb_hist_quantile(const uint64_t buckets[VB_HIST_BUCKETS], double share);

#endif
