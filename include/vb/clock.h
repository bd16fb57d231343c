/* Time. Decisions get it handed in as an argument; these are for the edges that must ask. */
#ifndef VB_CLOCK_H
#define VB_CLOCK_H

#include "vb/base.h"

/* Monotonic, microseconds; the same clock in all processes of this machine. Costs no system call (vDSO). */
uint64_t vb_clock_us(void);

/* Wall clock, microseconds since 1970. */
uint64_t vb_clock_wall_us(void);

/* `2026-11-21T02:37:28.123Z` of a wall time. `to` has at least 32 bytes. Returns `to`. */
char *vb_clock_format(char *to, size_t size, uint64_t wall_us);

/* `Sun, 06 Nov 1994 08:49:37 GMT`, as HTTP has dates (RFC 9110 5.6.7). `to` has at least 32 bytes. Returns `to`. */
char *vb_clock_format_http(char *to, size_t size, uint64_t wall_us);

#endif
