/* Random numbers for ids and jitter: fast, seeded by the kernel, not for secrets. */
#ifndef VB_RAND_H
#define VB_RAND_H

#include "vb/base.h"

struct vb_rand {
    uint64_t s[4];
};

/* Seeds from the kernel's random source. */
void vb_rand_init(struct vb_rand *rand);

/* The same seed gives the same numbers, everywhere; other seeds others. */
void vb_rand_seed(struct vb_rand *rand, uint64_t seed);

uint64_t vb_rand_u64(struct vb_rand *rand);

/* Uniform in [0, below); below > 0. */
uint64_t vb_rand_below(struct vb_rand *rand, uint64_t below);

#endif
