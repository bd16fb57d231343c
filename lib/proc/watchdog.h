/* The master kills workers that hang, so that they are replaced. On the main thread. */
#ifndef VB_PROC_WATCHDOG_H
#define VB_PROC_WATCHDOG_H

#include <uv.h>

struct vb_master;

struct vb_watchdog {
    uv_timer_t timer;
    uint64_t looked_us; /* last; monotonic clock, as the next */
    uint64_t since_us;  /* silence before this counts for nothing */
};

/* Begins to look at the workers, unless the configuration has it off. The timer ends with the master's other handles.
 */
void vb_watchdog_start(struct vb_master *master);

#endif
