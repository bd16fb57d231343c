/* Raw bytes in, a head or a refusal out. */
#ifndef VB_TEST_HTTP_FIXTURE_H
#define VB_TEST_HTTP_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "vb/http.h"

/* Initialises a struct vb_str from a literal, which may hold NUL. */
#define BYTES(literal)                                                                                                 \
    {                                                                                                                  \
        (literal), sizeof(literal) - 1                                                                                 \
    }

enum kind { REQUEST, RESPONSE, RESPONSE_TO_HEAD };

static const struct vb_head_limits usual = {.bytes = 16384, .fields = 100};

/* What parsing came to; `head` lives until the next one. */
struct parsed {
    char *bytes; /* what was parsed, in memory of exactly that size, so that ASan sees a read behind it */
    ssize_t r;
    struct vb_refusal refusal;
    struct vb_head *head;
};

static inline char *exact_copy(const char *p, size_t n)
{
    char *copy = malloc(n > 0 ? n : 1);
    assert_non_null(copy);
    if (n > 0)
        memcpy(copy, p, n);
    return copy;
}

static inline struct parsed parse(enum kind kind, struct vb_str bytes, const struct vb_head_limits *limits)
{
    static struct vb_head head;
    struct parsed parsed = {.bytes = exact_copy(bytes.p, bytes.n), .head = &head};
    if (kind == REQUEST)
        parsed.r = vb_h1_parse_request(parsed.bytes, bytes.n, limits, &head, &parsed.refusal);
    else
        parsed.r =
            vb_h1_parse_response(parsed.bytes, bytes.n, limits, kind == RESPONSE_TO_HEAD, &head, &parsed.refusal);
    return parsed;
}

static inline void drop(struct parsed *parsed)
{
    free(parsed->bytes);
    parsed->bytes = NULL;
}

/* The bytes as a C programmer would write them; long ones are cut. */
static inline const char *shown(struct vb_str bytes)
{
    static char text[2048];
    size_t n = 0;
    for (size_t i = 0; i < bytes.n && n < sizeof(text) - 8; i++) {
        unsigned char c = (unsigned char)bytes.p[i];
        if (c == '\r' || c == '\n')
            n += (size_t)snprintf(text + n, sizeof(text) - n, c == '\r' ? "\\r" : "\\n");
        else if (c < 0x20 || c >= 0x7f)
            n += (size_t)snprintf(text + n, sizeof(text) - n, "\\x%02x", c);
        else
            text[n++] = (char)c;
    }
    text[n] = '\0';
    return text;
}

/* A head that must be fine. */
static inline struct parsed parse_good(enum kind kind, struct vb_str bytes)
{
    struct parsed parsed = parse(kind, bytes, &usual);
    if (parsed.r <= 0)
        fail_msg("%zd, %s, for: %s", parsed.r, parsed.r < 0 ? parsed.refusal.why : "not whole", shown(bytes));
    return parsed;
}

#endif
