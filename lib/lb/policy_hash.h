/* What the policy hash prepares. Private to policy_hash.c and its test. */
#ifndef VB_LB_POLICY_HASH_H
#define VB_LB_POLICY_HASH_H

#include <stdint.h>

#define LB_HASH_POINTS 64u /* of each candidate */
#define LB_HASH_PROBES 8u  /* for each key */

/* The ring, in one block of memory. A point is its position (48 bits) | the index of its candidate (16 bits). */
struct lb_points {
    unsigned n, shift;   /* `shift`: a position >> shift is its bucket */
    uint64_t weight_sum; /* of the candidates */
    double *lengths;     /* of each candidate: how much longer a way to it is than to the heaviest */
    uint32_t *first;     /* the first point in each bucket or behind it; `n`: there is none */
    uint64_t points[];   /* in order */
};

#endif
