/* Which segment is meant. */
#ifndef VBCTL_FIND_H
#define VBCTL_FIND_H

#include "vb/shm.h"

#define FIND_DEFAULT_NAME "vibebalancer"

/*
 * The path of the segment to read: `segment`, else that of `name`, else that of the only instance there is (both may be
 * NULL). Negative errno and a sentence when no instance, or none in particular, is meant.
 */
int find_segment(const char *name, const char *segment, char *ret_path, size_t size, struct vb_error *err);

#endif
