/* Slices of bytes that somebody else owns, and the numbers that people write in configurations and messages. */
#ifndef VB_STR_H
#define VB_STR_H

#include <string.h>

#include "vb/base.h"

/* Not terminated by NUL; lives as long as the buffer that it points into. */
struct vb_str {
    const char *p;
    size_t n;
};

#define VB_STR(literal) ((struct vb_str){(literal), sizeof(literal) - 1})
/* For printf("%.*s", VB_STR_ARGS(s)) */
#define VB_STR_ARGS(s) ((int)(s).n), ((s).p)

static inline struct vb_str vb_str(const char *text)
{
    return (struct vb_str){text, strlen(text)};
}

static inline bool vb_str_eq(struct vb_str a, struct vb_str b)
{
    return a.n == b.n && memcmp(a.p, b.p, a.n) == 0;
}

/* ASCII only, as protocol tokens are. */
bool vb_bytes_eq_nocase(const char *a, const char *b, size_t n);

static inline bool vb_str_eq_nocase(struct vb_str a, struct vb_str b)
{
    if (a.n != b.n || (a.n > 0 && ((a.p[0] ^ b.p[0]) & ~0x20) != 0)) /* mostly told by that */
        return false;
    return vb_bytes_eq_nocase(a.p, b.p, a.n);
}

/* Either may be NULL, which is other than "". */
bool vb_same_text(const char *a, const char *b);

/* Copies what fits and always terminates; returns false when something was cut. size > 0. */
bool vb_copy(char *to, size_t size, const char *from);

/* Of a hexadecimal digit; -1: it is none. Asks no locale. */
static inline int vb_hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* All digits, nothing else, within [0, max]: 0; otherwise -EINVAL or -ERANGE. */
int vb_parse_u64(struct vb_str text, uint64_t max, uint64_t *ret_value);

/* `500ms 5s 1m 1h`, digits and a unit: milliseconds. `0` needs no unit. -EINVAL, -ERANGE. */
int vb_parse_duration(struct vb_str text, uint64_t *ret_ms);

/* `512 16KiB 64MiB 1GiB`: bytes. -EINVAL, -ERANGE. */
int vb_parse_size(struct vb_str text, uint64_t *ret_bytes);

/* How many single-character edits turn a into b: for "did you mean". Both at most 63 characters, else a large number.
 */
unsigned vb_edit_distance(const char *a, const char *b);

#endif
