/*
 * The control socket: its server, on the master's main loop. What is asked for is done by commands.c, at once and
 * without waiting; here nothing waits for a client either.
 */
#ifndef VB_PROC_CONTROL_H
#define VB_PROC_CONTROL_H

#include "master.h"

struct vb_control;

/*
 * Opens the socket, whose path goes into the segment's header, which is `segment`'s. NULL: there is none, because it is
 * off, or for a reason that was logged; the instance goes on without. To be called before there are other threads.
 */
struct vb_control *vb_control_open(struct vb_master *master, const char *segment);

/* Serves on the master's loop, which must outlive it; whoever walks that loop may close its handles. */
int vb_control_start(struct vb_control *control);

/* After the loop has ended: removes the socket, frees, sets NULL; *control may be NULL. */
void vb_control_close(struct vb_control **control);

#endif
