/* The wire's bytes, both ways; nothing here waits. */
#include "vb/ctl.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "ctl_priv.h"
#include "vb/str.h"

#define DONE    '0'
#define REFUSED '1'

void vb_ctl_done(struct vb_ctl_answer *answer, const char *fmt, ...)
{
    va_list args;
    answer->done = true;
    va_start(args, fmt);
    vsnprintf(answer->text, sizeof(answer->text), fmt, args);
    va_end(args);
}

void vb_ctl_refuse(struct vb_ctl_answer *answer, const char *fmt, ...)
{
    va_list args;
    answer->done = false;
    va_start(args, fmt);
    vsnprintf(answer->text, sizeof(answer->text), fmt, args);
    va_end(args);
}

void vb_ctl_refuse_lines(struct vb_ctl_answer *answer, const char *lines)
{
    size_t size = sizeof(answer->text), n = strlen(lines), kept = size - sizeof("and 4294967295 more lines");
    unsigned more = 1;
    while (n > 0 && lines[n - 1] == '\n')
        n--;
    while (n >= size && kept > 0 && lines[kept - 1] != '\n')
        kept--;
    answer->done = false;
    vb_copy(answer->text, VB_MIN(n + 1, size), lines);
    if (n < size || kept == 0) /* all of it, or the beginning of a single line that is too long */
        return;
    for (size_t i = kept; i < n; i++)
        more += lines[i] == '\n';
    snprintf(answer->text + kept, size - kept, "and %u more line%s", more, more > 1 ? "s" : "");
}

size_t vb_ctl_pack_answer(char *to, const struct vb_ctl_answer *answer)
{
    size_t n = strnlen(answer->text, sizeof(answer->text) - 1);
    to[0] = answer->done ? DONE : REFUSED;
    memcpy(to + 1, answer->text, n);
    return n + 1;
}

int ctl_unpack_answer(const char *bytes, size_t n, struct vb_ctl_answer *ret_answer)
{
    if (n < 1 || n > sizeof(ret_answer->text) || (bytes[0] != DONE && bytes[0] != REFUSED))
        return -EBADMSG;
    ret_answer->done = bytes[0] == DONE;
    for (size_t i = 1; i < n; i++)
        ret_answer->text[i - 1] = (bytes[i] >= 0x20 && bytes[i] < 0x7f) || bytes[i] == '\n' ? bytes[i] : '?';
    ret_answer->text[n - 1] = '\0';
    return 0;
}

int ctl_pack_request(char *to, size_t size, unsigned n_args, const char *const *args, size_t *ret_n)
{
    size_t n = 0;
    if (n_args == 0 || n_args > VB_CTL_ARGS_MAX)
        return -E2BIG;
    for (unsigned i = 0; i < n_args; i++) {
        size_t length = strlen(args[i]) + 1;
        if (length > size - n)
            return -E2BIG;
        memcpy(to + n, args[i], length);
        n += length;
    }
    *ret_n = n;
    return 0;
}

int vb_ctl_unpack_request(const char *bytes, size_t n, const char *ret_args[VB_CTL_ARGS_MAX])
{
    const char *args[VB_CTL_ARGS_MAX];
    int n_args = 0;
    if (n == 0 || n > VB_CTL_REQUEST_MAX || bytes[n - 1] != '\0')
        return -EBADMSG;
    for (size_t at = 0; at < n; at += strlen(bytes + at) + 1) {
        if (n_args == VB_CTL_ARGS_MAX)
            return -EBADMSG;
        args[n_args++] = bytes + at;
    }
    memcpy(ret_args, args, (size_t)n_args * sizeof(*args));
    return n_args;
}

int vb_ctl_address(const char *path, struct sockaddr_un *ret_address)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!vb_copy(address.sun_path, sizeof(address.sun_path), path))
        return -ENAMETOOLONG;
    *ret_address = address;
    return 0;
}
