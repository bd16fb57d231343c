/* Which bytes may stand where (RFC 9110 5.5, 5.6.2; RFC 9112 3). Private to lib/http. */
#ifndef VB_HTTP_SCAN_H
#define VB_HTTP_SCAN_H

#include <endian.h>
#include <string.h>

#include "vb/base.h"

extern const bool vb_is_token_byte[256], vb_is_host_byte[256];

typedef uint8_t vb_bytes16 __attribute__((vector_size(16)));
typedef uint64_t vb_words2 __attribute__((vector_size(16)));

/* Of a comparison of sixteen bytes: the first for which it is true, or 16. */
static inline unsigned vb_first_true(vb_bytes16 is_true)
{
    vb_words2 words = (vb_words2)is_true;
    if (words[0] != 0)
        return (unsigned)__builtin_ctzll(le64toh(words[0])) / 8;
    return words[1] != 0 ? 8 + (unsigned)__builtin_ctzll(le64toh(words[1])) / 8 : 16;
}

/* Behind the token at `p`. Letters and `-` are looked at sixteen at a time. */
static inline const char *vb_scan_token(const char *p, const char *end)
{
    while (end - p >= 16) {
        vb_bytes16 bytes;
        memcpy(&bytes, p, sizeof(bytes));
        unsigned n = vb_first_true(((bytes | 0x20) - 'a' >= 26) & (bytes != '-'));
        p += n;
        if (n < 16)
            break;
    }
    while (p < end && vb_is_token_byte[(unsigned char)*p])
        p++;
    return p;
}

/* Behind the letters, digits, `-` and `.` at `p`, of which most hosts are; or before, if `end` is near. */
static inline const char *vb_scan_host(const char *p, const char *end)
{
    unsigned n = 16;
    for (; end - p >= 16 && n == 16; p += n) {
        vb_bytes16 bytes;
        memcpy(&bytes, p, sizeof(bytes));
        n = vb_first_true(((bytes | 0x20) - 'a' >= 26) & (bytes - '0' >= 10) & (bytes - '-' >= 2));
    }
    return p;
}

/* May a field value hold it: visible ASCII, space, tab, obs-text? */
static inline bool vb_is_value_byte(char c)
{
    return ((unsigned char)c >= 0x20 && c != 0x7f) || c == '\t';
}

/* The first byte that no value may hold, or `end`. Sixteen at a time. */
static inline const char *vb_scan_value(const char *p, const char *end)
{
    while (end - p >= 16) {
        vb_bytes16 bytes;
        memcpy(&bytes, p, sizeof(bytes));
        unsigned n = vb_first_true(((bytes < 0x20) & (bytes != '\t')) | (bytes == 0x7f));
        p += n;
        if (n < 16)
            return p;
    }
    while (p < end && vb_is_value_byte(*p))
        p++;
    return p;
}

static inline bool vb_is_target_byte(char c)
{
    return (unsigned char)c > 0x20 && (unsigned char)c < 0x7f && c != '#';
}

/*
 * The first byte that is not visible ASCII, of which a request target is, or `end`. `#` is not either: a fragment is
 * never sent (RFC 9112 3.2).
 */
static inline const char *vb_scan_target(const char *p, const char *end)
{
    while (end - p >= 16) {
        vb_bytes16 bytes;
        memcpy(&bytes, p, sizeof(bytes));
        unsigned n = vb_first_true((bytes <= 0x20) | (bytes >= 0x7f) | (bytes == '#'));
        p += n;
        if (n < 16)
            return p;
    }
    while (p < end && vb_is_target_byte(*p))
        p++;
    return p;
}

#endif
