#include "inheritance.h"

#include <stdlib.h>
#include <string.h>

/* NULL: no memory. */
static uv_stdio_container_t *entry_of(struct vb_inheritance *inheritance, unsigned number)
{
    if (number < inheritance->n)
        return &inheritance->stdio[number];
    uv_stdio_container_t *more = realloc(inheritance->stdio, (number + 1) * sizeof(*more));
    if (more == NULL) {
        inheritance->failed = true;
        return NULL;
    }
    memset(more + inheritance->n, 0, (number + 1 - inheritance->n) * sizeof(*more)); /* UV_IGNORE */
    inheritance->stdio = more;
    inheritance->n = number + 1;
    return &more[number];
}

void vb_inherit(struct vb_inheritance *inheritance, unsigned number, int fd)
{
    uv_stdio_container_t *entry = entry_of(inheritance, number);
    if (entry == NULL)
        return;
    entry->flags = UV_INHERIT_FD;
    entry->data.fd = fd;
}

void vb_inherit_channel(struct vb_inheritance *inheritance, unsigned number, uv_pipe_t *pipe)
{
    uv_stdio_container_t *entry = entry_of(inheritance, number);
    if (entry == NULL)
        return;
    entry->flags = UV_CREATE_PIPE | UV_READABLE_PIPE | UV_WRITABLE_PIPE;
    entry->data.stream = (uv_stream_t *)pipe;
}

void vb_inheritance_free(struct vb_inheritance *inheritance)
{
    free(inheritance->stdio);
}
