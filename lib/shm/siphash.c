/*
 * SipHash-2-4 (Aumasson and Bernstein), for messages of 16 bytes: a hash under a secret key, so that nobody who does
 * not know the key can make inputs that collide.
 */
#include <endian.h>
#include <string.h>

#include "shm_priv.h"

static inline uint64_t rotl(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

static inline void rounds(uint64_t v[4], unsigned n)
{
    for (; n > 0; n--) {
        v[0] += v[1];
        v[2] += v[3];
        v[1] = rotl(v[1], 13) ^ v[0];
        v[3] = rotl(v[3], 16) ^ v[2];
        v[0] = rotl(v[0], 32);
        v[2] += v[1];
        v[0] += v[3];
        v[1] = rotl(v[1], 17) ^ v[2];
        v[3] = rotl(v[3], 21) ^ v[0];
        v[2] = rotl(v[2], 32);
    }
}

uint64_t shm_siphash(const uint64_t key[2], const uint8_t bytes[16])
{
    uint64_t words[2];
    uint64_t v[4] = {key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d, key[0] ^ 0x6c7967656e657261,
                     key[1] ^ 0x7465646279746573};
    memcpy(words, bytes, sizeof(words));
    const uint64_t message[3] = {le64toh(words[0]), le64toh(words[1]), (uint64_t)sizeof(words) << 56};
    for (unsigned i = 0; i < VB_ARRAY_SIZE(message); i++) {
        v[3] ^= message[i];
        rounds(v, 2);
        v[0] ^= message[i];
    }
    v[2] ^= 0xff;
    rounds(v, 4);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}
