/* xoshiro256** (Blackman and Vigna): small state, no division, good enough for everything but secrets. */
#include "vb/rand.h"

#include <sys/random.h>

#include "vb/clock.h"

void vb_rand_init(struct vb_rand *rand)
{
    if (getrandom(rand->s, sizeof(rand->s), 0) != (ssize_t)sizeof(rand->s))
        for (unsigned i = 0; i < VB_ARRAY_SIZE(rand->s); i++)
            rand->s[i] = vb_clock_wall_us() * (2 * i + 0x9e3779b97f4a7c15);
    rand->s[0] |= 1; /* the one state that never moves is all zero */
}

/* splitmix64 (Steele, Lea and Flood), as the authors of xoshiro advise: seeds that are near give states that are not. */
void vb_rand_seed(struct vb_rand *rand, uint64_t seed)
{
    for (unsigned i = 0; i < VB_ARRAY_SIZE(rand->s); i++) {
        uint64_t z = seed += 0x9e3779b97f4a7c15;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
        z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
        rand->s[i] = z ^ (z >> 31);
    }
}

static inline uint64_t rotl(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

uint64_t vb_rand_u64(struct vb_rand *rand)
{
    uint64_t *s = rand->s;
    uint64_t result = rotl(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

uint64_t vb_rand_below(struct vb_rand *rand, uint64_t below)
{
    return (uint64_t)(((unsigned __int128)vb_rand_u64(rand) * below) >> 64);
}
