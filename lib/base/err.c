/* Error sentences. */
#include "vb/err.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "vb/str.h"

int vb_fail(struct vb_error *err, int code, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(err->text, sizeof(err->text), fmt, args);
    va_end(args);
    return code;
}

bool vb_is_lack(int code)
{
    return code == -EMFILE || code == -ENFILE || code == -ENOMEM || code == -ENOBUFS || code == -EADDRNOTAVAIL ||
           code == -ENOSPC; /* of epoll_ctl(2): the user's watches are used up */
}

const char *vb_strerror(int code)
{
    const char *text = strerrordesc_np(-code);
    return text != NULL ? text : "Unknown error";
}

char *vb_describe(char *to, size_t size, int code)
{
    vb_copy(to, size, vb_strerror(code));
    to[0] = (char)tolower((unsigned char)to[0]);
    return to;
}
