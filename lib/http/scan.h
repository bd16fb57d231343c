/* Which bytes may stand where (RFC 9110 5.5, 5.6.2; RFC 9112 3). Private to lib/http. */
#ifndef VB_HTTP_SCAN_H
#define VB_HTTP_SCAN_H

#include <string.h>

#include "vb/base.h"

extern const bool vb_is_token_byte[256], vb_is_host_byte[256];

/* Length of the token at the start. */
static inline size_t vb_scan_token(const char *p, size_t n)
{
    size_t i = 0;
    while (i < n && vb_is_token_byte[(unsigned char)p[i]])
        i++;
    return i;
}

#define VB_ALL_BYTES(b) (0x0101010101010101ull * (b))

/* High bit of each byte set where the byte is below 0x20 or is 0x7f. */
static inline uint64_t vb_control_bytes(uint64_t word)
{
    uint64_t below = (word - VB_ALL_BYTES(0x20)) & ~word;
    uint64_t x = word ^ VB_ALL_BYTES(0x7f);
    uint64_t del = (x - VB_ALL_BYTES(0x01)) & ~x;
    return (below | del) & VB_ALL_BYTES(0x80);
}

/* Is every byte one that a field value may hold: visible ASCII, space, tab, obs-text? Eight at a time. */
static inline bool vb_scan_is_value(const char *p, size_t n)
{
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        uint64_t word;
        memcpy(&word, p + i, 8);
        if (VB_UNLIKELY(vb_control_bytes(word) != 0))
            break; /* a control byte or a tab, or a false alarm by a borrow: look closer below */
    }
    for (; i < n; i++) {
        unsigned char c = (unsigned char)p[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return false;
    }
    return true;
}

/* Is every byte visible ASCII, as a request target must be? No `#`: a fragment is never sent (RFC 9112 3.2). */
static inline bool vb_scan_is_target(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];
        if (c <= 0x20 || c >= 0x7f || c == '#')
            return false;
    }
    return true;
}

#endif
