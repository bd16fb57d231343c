/* The master kills workers that hang, so that they are replaced. On the main thread. */
#ifndef VB_PROC_WATCHDOG_H
#define VB_PROC_WATCHDOG_H

#include <uv.h>

struct vb_master;

struct vb_watchdog {
    uv_timer_t timer;
    uint64_t limit_ms;  /* the least of all generations; 0: there is none */
    uint64_t looked_us; /* last; monotonic clock, as the next */
    uint64_t since_us;  /* silence before this counts for nothing */
};

/* Makes the timer, which ends with the master's other handles. */
void vb_watchdog_open(struct vb_master *master);

/* Looks as often as the generations that there are now demand; not at all where none does. */
void vb_watchdog_follow(struct vb_master *master);

#endif
