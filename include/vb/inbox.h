/*
 * Inboxes: how a worker gives an accepted connection to another one, or wakes it. The master makes one for each worker
 * index and keeps both ends open, so what lies in the inbox of a worker that died waits for its successor.
 */
#ifndef VB_INBOX_H
#define VB_INBOX_H

#include "vb/loop.h"

/* ret_ends[0] is read by the inbox's worker, ret_ends[1] is written by the others; both close-on-exec. Negative errno.
 */
int vb_inbox_pair(int ret_ends[2]);

struct vb_inbox;

/*
 * Starts to take what comes to `fd`, which is inherited and stays the caller's. `arrived` gets each descriptor (now the
 * owner's; close-on-exec; negative: a number came alone) and the number that was sent with it.
 */
int vb_inbox_open(struct vb_inbox **ret_inbox, struct vb_loop *loop, int fd,
                  void (*arrived)(void *owner, int fd, unsigned number), void *owner);

/* Takes what waits, then stops. Sets NULL; *inbox may be NULL. */
void vb_inbox_close(struct vb_inbox **inbox);

/*
 * Puts a descriptor into another worker's inbox (negative: only the number); the caller closes its own. -EAGAIN: a
 * handful that was put there before has not been taken yet, so that worker is busy, or stuck, and must not be waited
 * for.
 */
int vb_inbox_put(int fd, int descriptor, unsigned number);

#endif
