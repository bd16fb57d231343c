#include "vb/buf.h"

#include <errno.h>
#include <string.h>

int vb_buf_append(struct vb_buf *buf, const void *bytes, size_t n)
{
    size_t length = vb_buf_len(buf);
    if (buf->size - buf->end < n && buf->start > 0) {
        memmove(buf->memory, buf->memory + buf->start, length);
        buf->start = 0;
        buf->end = length;
    }
    if (buf->size - buf->end < n) {
        size_t size = VB_MAX(buf->size * 2, length + n);
        char *memory = realloc(buf->memory, size);
        if (memory == NULL)
            return -ENOMEM;
        buf->memory = memory;
        buf->size = size;
    }
    if (n > 0)
        memcpy(buf->memory + buf->end, bytes, n);
    buf->end += n;
    return 0;
}

void vb_buf_consume(struct vb_buf *buf, size_t n)
{
    assert(n <= vb_buf_len(buf));
    buf->start += n;
    if (buf->start == buf->end)
        vb_buf_clear(buf);
}

void vb_buf_clear(struct vb_buf *buf)
{
    if (buf->memory == NULL) /* mostly: not worth a call */
        return;
    free(buf->memory);
    *buf = (struct vb_buf){0};
}
