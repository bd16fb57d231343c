/* Rise and fall: how many results in a row change our mind about a backend. */
#include "vb/lb.h"

bool vb_health_fsm_feed(struct vb_health_fsm *fsm, const struct vb_health_rules *rules, bool passed)
{
    enum vb_health_state said = passed ? VB_HEALTH_UP : VB_HEALTH_DOWN;
    unsigned needed = passed ? rules->rise : rules->fall;
    if (fsm->state == said) {
        fsm->streak = 0;
        return false;
    }
    if (fsm->state != VB_HEALTH_UNKNOWN && ++fsm->streak < needed)
        return false;
    fsm->state = said;
    fsm->streak = 0;
    return true;
}

bool vb_health_fsm_in_transition(const struct vb_health_fsm *fsm)
{
    return fsm->streak > 0;
}
