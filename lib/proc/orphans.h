/*
 * Orphans: workers whose master was killed. They stop accepting as soon as they notice, and finish what they have
 * within shutdown.grace; the next master leaves them to that. But until they have noticed they keep the addresses that
 * it wants, and one that hangs never does.
 */
#ifndef VB_PROC_ORPHANS_H
#define VB_PROC_ORPHANS_H

#include "vb/shm.h"

struct vb_orphans {
    struct vb_shm *shm; /* the new master's; it knows who is left of the last one */
    unsigned steps;     /* waited so far */
    bool live;          /* some did before the last attempt to take an address */
};

/* Says what the last master has left, if it was killed. `shm` must stay until vb_orphans_close. */
void vb_orphans_open(struct vb_orphans *orphans, struct vb_shm *shm);

/*
 * An address is in use. False: not by orphans, or to no avail. True: try again; it has waited a moment, and when that
 * has not helped for 2 s in all, those that still listen have been killed. False also before open and after close.
 */
bool vb_orphans_wait(struct vb_orphans *orphans);

/* The master has its addresses. */
void vb_orphans_close(struct vb_orphans *orphans);

#endif
