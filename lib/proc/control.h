/*
 * The control socket: its server, on the master's main loop. What is asked for is done by commands.c, at once and
 * without waiting; here nothing waits for a client either. Only a reload takes time: its clients are answered when it
 * has ended.
 */
#ifndef VB_PROC_CONTROL_H
#define VB_PROC_CONTROL_H

#include "master.h"
#include "vb/ctl.h"

struct vb_control;

/*
 * Opens the socket, which is where `admin.socket` has it, `configured`, or beside the file `segment`; its path goes
 * into the segment's header. NULL: there is none, because it is off, or for a reason that was logged; the instance goes
 * on without.
 */
struct vb_control *vb_control_open(struct vb_master *master, const char *configured, const char *segment);

/*
 * The one of the executable before this one, with its connections that wait for a reload or have said nothing yet; see
 * handover.h. *ret_control is NULL where there was none.
 */
int vb_control_adopt(struct vb_control **ret_control, struct vb_master *master, const json_t *packed, bool rehearsal,
                     struct vb_error *err);
json_t *vb_control_pack(const struct vb_control *control, json_t **fds);

/* Serves on the master's loop, which must outlive it; whoever walks that loop may close its handles. */
int vb_control_start(struct vb_control *control);

/*
 * Reload `number`, and all before it, have ended, and none is being built: answers the clients that wait for them.
 * `control` may be NULL.
 */
void vb_control_reloaded(struct vb_control *control, uint64_t number, const struct vb_ctl_answer *answer);

/* After the loop has ended: removes the socket, frees, sets NULL; *control may be NULL. */
void vb_control_close(struct vb_control **control);

#endif
