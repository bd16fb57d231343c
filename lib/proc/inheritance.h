/* The descriptors that a child process is given, by the numbers that they have there; others are not given. */
#ifndef VB_PROC_INHERITANCE_H
#define VB_PROC_INHERITANCE_H

#include <stdbool.h>
#include <uv.h>

/* All zero: none yet. */
struct vb_inheritance {
    uv_stdio_container_t *stdio;
    unsigned n;
    bool failed; /* for want of memory, some time: then it must not be used */
};

void vb_inherit(struct vb_inheritance *inheritance, unsigned number, int fd);

/* A new socket pair: the child's end, and ours in `pipe`, which is initialised. */
void vb_inherit_channel(struct vb_inheritance *inheritance, unsigned number, uv_pipe_t *pipe);

void vb_inheritance_free(struct vb_inheritance *inheritance);

#endif
