/* A queue of bytes: appended at the end, consumed at the front. It owns memory only while it holds something. */
#ifndef VB_BUF_H
#define VB_BUF_H

#include "vb/base.h"

struct vb_buf {
    char *memory;
    size_t start, end, size;
};

static inline size_t vb_buf_len(const struct vb_buf *buf)
{
    return buf->end - buf->start;
}

/* First byte; NULL when empty. Valid until the next append or consume. */
static inline char *vb_buf_data(const struct vb_buf *buf)
{
    return buf->memory == NULL ? NULL : buf->memory + buf->start;
}

/* Appends a copy. -ENOMEM: nothing was appended. */
int vb_buf_append(struct vb_buf *buf, const void *bytes, size_t n);

/* Drops the first n bytes; n is at most the length. */
void vb_buf_consume(struct vb_buf *buf, size_t n);

/* Drops everything and frees the memory. */
void vb_buf_clear(struct vb_buf *buf);

#endif
