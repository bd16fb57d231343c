/*
 * By which rules the backends of one pool are checked. The main thread hands copies over; the health thread takes them
 * when it looks at the pool next. Private to lib/health.
 */
#ifndef VB_HEALTH_RULES_H
#define VB_HEALTH_RULES_H

#include "vb/conf.h"
#include "vb/loop.h"

/* All zero: a pool that has none yet. */
struct vb_rules {
    struct vb_conf_health *_Atomic handed; /* not taken yet; NULL: nothing new */
    /* These are the health thread's. */
    struct vb_conf_health *now;    /* NULL: none yet */
    struct vb_timer_list timeouts; /* for a whole probe by these rules */
};

/* Copies `conf`, in the place of what was handed over before and has not been taken. -ENOMEM. */
int vb_rules_hand_over(struct vb_rules *rules, const struct vb_conf_health *conf);

/* What was handed over, for vb_rules_replace; NULL: nothing, or nothing other than what holds now. */
struct vb_conf_health *vb_rules_take(struct vb_rules *rules);

/* `next`, which it owns from here on, holds now. No probe may be under way. */
void vb_rules_replace(struct vb_rules *rules, struct vb_loop *loop, struct vb_conf_health *next);

/* When neither thread uses it any more, and before the loop is closed. */
void vb_rules_close(struct vb_rules *rules);

#endif
