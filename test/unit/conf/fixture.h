/* One configuration text in, its messages and values out. */
#ifndef VB_TEST_CONF_FIXTURE_H
#define VB_TEST_CONF_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "vb/conf.h"

/* A text that is wrong, and all that is said about it: lines as printed, for a file named `f`. */
struct wrong {
    const char *text, *lines;
};

struct parsed {
    int r;
    char *lines; /* what was printed; freed by drop() */
    struct vb_conf *conf;
};

static inline struct parsed parse_bytes(const char *text, size_t n)
{
    struct parsed parsed = {.conf = NULL};
    size_t size;
    char *exact = malloc(n > 0 ? n : 1); /* so that ASan sees a read behind the text */
    FILE *to = open_memstream(&parsed.lines, &size);
    assert_non_null(exact);
    assert_non_null(to);
    memcpy(exact, text, n);
    parsed.r = vb_conf_parse("f", exact, n, to, &parsed.conf);
    fclose(to);
    free(exact);
    if ((parsed.r == 0) != (parsed.conf != NULL) || (parsed.r != 0 && parsed.r != -EINVAL))
        fail_msg("%d and conf %p for:\n%s", parsed.r, (void *)parsed.conf, text);
    return parsed;
}

static inline struct parsed parse(const char *text)
{
    return parse_bytes(text, strlen(text));
}

static inline void drop(struct parsed *parsed)
{
    vb_conf_free(&parsed->conf);
    assert_null(parsed->conf);
    free(parsed->lines);
}

/* Valid, and not a word about it. */
static inline struct vb_conf *parse_good(const char *text)
{
    struct parsed parsed = parse(text);
    if (parsed.r != 0 || parsed.lines[0] != '\0')
        fail_msg("%d for:\n%s\n%s", parsed.r, text, parsed.lines);
    free(parsed.lines);
    return parsed.conf;
}

static inline void check_wrong(const struct wrong *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct parsed parsed = parse(cases[i].text);
        if (parsed.r != -EINVAL || strcmp(parsed.lines, cases[i].lines) != 0)
            fail_msg("%d for:\n%s\nsaid:\n%swanted:\n%s", parsed.r, cases[i].text, parsed.lines, cases[i].lines);
        drop(&parsed);
    }
}

/* The rest of a valid file, where a test is about other keys. It is one line. */
#define REST "{listen: 80, pools: {web: {backends: [a:1]}}, "
/* The same for keys of a pool, and of its health. */
#define POOL   "{listen: 80, pools: {web: {backends: [a:1],\n"
#define HEALTH "{listen: 80, pools: {web: {backends: [a:1], health: {path: /,\n"

#endif
