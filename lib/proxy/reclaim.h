/*
 * When is a burst over, so that what it has left behind is given back to the system?
 *
 * An allocator keeps what was freed, unless it is by chance the very end of its heap: one client that stays can keep
 * the memory of thousands that have gone. To give it back costs time, and again when it is needed after all, hence only
 * when there has been much less to do for some seconds; then again only after the next burst.
 */
#ifndef VB_PROXY_RECLAIM_H
#define VB_PROXY_RECLAIM_H

#include "vb/base.h"

#define VB_RECLAIM_CALM 3  /* looks in a row that must see at most half of the peak */
#define VB_RECLAIM_MIN  16 /* what fewer have left behind is not worth it */

/* Of one kind of thing that takes memory. Starts as all zero. */
struct vb_reclaim {
    unsigned peak; /* most at once since memory was last given back */
    unsigned calm; /* looks in a row that have seen at most half of that */
};

/* `most`: at once since the last look. Is there something to be given back? Then call vb_reclaim_done. */
bool vb_reclaim_is_due(struct vb_reclaim *reclaim, unsigned most);

/* It has been given back while there were so many. */
void vb_reclaim_done(struct vb_reclaim *reclaim, unsigned most);

#endif
