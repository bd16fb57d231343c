/* Slices, and numbers as people write them. */
#include "vb/str.h"

#include <errno.h>
#include <strings.h>

bool vb_bytes_eq_nocase(const char *a, const char *b, size_t n)
{
    return strncasecmp(a, b, n) == 0;
}

bool vb_same_text(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

bool vb_copy(char *to, size_t size, const char *from)
{
    size_t n = strlen(from);
    size_t kept = VB_MIN(n, size - 1);
    memcpy(to, from, kept);
    to[kept] = '\0';
    return kept == n;
}

/* Leading digits of *text as a number, which are taken off; at least one must be there. */
static int take_number(struct vb_str *text, uint64_t *ret_value)
{
    enum { SAFE = 19 }; /* digits that a uint64_t can always hold */
    const char *p = text->p, *end = p + text->n, *safe = p + VB_MIN(text->n, SAFE);
    uint64_t value = 0;
    unsigned digit;
    for (; p < safe && (digit = (unsigned)(*p - '0')) <= 9; p++)
        value = value * 10 + digit;
    for (; p < end && (digit = (unsigned)(*p - '0')) <= 9; p++) {
        if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, digit, &value))
            return -ERANGE;
    }
    if (p == text->p)
        return -EINVAL;
    *text = (struct vb_str){p, (size_t)(end - p)};
    *ret_value = value;
    return 0;
}

int vb_parse_u64(struct vb_str text, uint64_t max, uint64_t *ret_value)
{
    uint64_t value;
    int r = take_number(&text, &value);
    if (r < 0)
        return r;
    if (text.n != 0)
        return -EINVAL;
    if (value > max)
        return -ERANGE;
    *ret_value = value;
    return 0;
}

struct unit {
    const char *name;
    uint64_t factor;
};

static int parse_with_unit(struct vb_str text, const struct unit *units, size_t n_units, uint64_t *ret_value)
{
    uint64_t value;
    int r = take_number(&text, &value);
    if (r < 0)
        return r;
    for (size_t i = 0; i < n_units; i++) {
        if (!vb_str_eq(text, vb_str(units[i].name)))
            continue;
        if (__builtin_mul_overflow(value, units[i].factor, ret_value) || *ret_value > INT64_MAX)
            return -ERANGE;
        return 0;
    }
    return -EINVAL;
}

int vb_parse_duration(struct vb_str text, uint64_t *ret_ms)
{
    static const struct unit units[] = {{"ms", 1}, {"s", 1000}, {"m", 60 * 1000}, {"h", 3600 * 1000}};
    uint64_t ms;
    if (vb_str_eq(text, VB_STR("0"))) {
        *ret_ms = 0;
        return 0;
    }
    int r = parse_with_unit(text, units, VB_ARRAY_SIZE(units), &ms);
    if (r == 0)
        *ret_ms = ms;
    return r;
}

int vb_parse_size(struct vb_str text, uint64_t *ret_bytes)
{
    static const struct unit units[] = {{"", 1}, {"B", 1}, {"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}};
    uint64_t bytes;
    int r = parse_with_unit(text, units, VB_ARRAY_SIZE(units), &bytes);
    if (r == 0)
        *ret_bytes = bytes;
    return r;
}

unsigned vb_edit_distance(const char *a, const char *b)
{
    enum { MAX = 64 };
    size_t na = strlen(a), nb = strlen(b);
    unsigned row[MAX];
    if (na >= MAX || nb >= MAX)
        return MAX;
    for (size_t j = 0; j <= nb; j++)
        row[j] = (unsigned)j;
    for (size_t i = 1; i <= na; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= nb; j++) {
            unsigned substituted = diagonal + (a[i - 1] != b[j - 1]);
            unsigned moved = 1 + VB_MIN(row[j], row[j - 1]);
            diagonal = row[j];
            row[j] = VB_MIN(substituted, moved);
        }
    }
    return row[nb];
}
