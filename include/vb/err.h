/*
 * Errors. Functions that can fail return int: 0 or more is success, a negative errno (as libuv has them) is failure;
 * `ret_*` parameters are untouched on failure. Where a human will read the reason (configuration, start-up, command
 * line) the function also fills a `struct vb_error` with one whole sentence.
 */
#ifndef VB_ERR_H
#define VB_ERR_H

#include "vb/base.h"

struct vb_error {
    char text[1024];
};

/* Sets the sentence and returns `code`, so that a failing path is one line: `return vb_fail(err, -EINVAL, "..."). */
int vb_fail(struct vb_error *err, int code, const char *fmt, ...) VB_PRINTF(3, 4);

/* Does it say that this process lacks descriptors, ports or memory? Then it tells nothing about the other side. */
bool vb_is_lack(int code);

/* The system's words for a negative errno, without the number: a sentence of its own. */
const char *vb_strerror(int code);

/* The same as part of a sentence, beginning in lower case. At least 64 bytes hold every one. Returns `to`. */
char *vb_describe(char *to, size_t size, int code);

#endif
