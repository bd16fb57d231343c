/* The same figures as documents.h, for people, on stdout. `-` is what is not there yet. 0 or -ENOMEM. */
#ifndef VBCTL_PRINT_H
#define VBCTL_PRINT_H

#include "figures.h"

int print_status(const struct vb_shm *shm, const struct status *status, const char *path);
int print_stats(const struct vb_shm *shm);
/* `pool` NULL: of all pools. */
int print_backends(const struct vb_shm *shm, const char *pool);
int print_workers(const struct worker_row *rows, unsigned n);

#endif
