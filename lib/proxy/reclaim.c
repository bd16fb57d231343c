#include "reclaim.h"

bool vb_reclaim_is_due(struct vb_reclaim *reclaim, unsigned most)
{
    reclaim->peak = VB_MAX(reclaim->peak, most);
    bool is_calm = most <= reclaim->peak / 2 && reclaim->peak - most >= VB_RECLAIM_MIN;
    reclaim->calm = is_calm ? reclaim->calm + 1 : 0;
    return reclaim->calm >= VB_RECLAIM_CALM;
}

void vb_reclaim_done(struct vb_reclaim *reclaim, unsigned most)
{
    *reclaim = (struct vb_reclaim){.peak = most};
}
