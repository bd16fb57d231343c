/*
 * The JSON documents: one object on stdout. Keys are a contract: snake_case, the unit in the name, stable once
 * published; what is not known is null. A row in stats.def is a key of the same name. 0 or -ENOMEM.
 */
#ifndef VBCTL_DOCUMENTS_H
#define VBCTL_DOCUMENTS_H

#include "figures.h"

int document_status(const struct vb_shm *shm, const struct status *status, const char *path);
int document_stats(const struct vb_shm *shm);
/* `pool` NULL: of all pools. */
int document_backends(const struct vb_shm *shm, const char *pool);
/* What the master has answered. */
int document_answer(bool ok, const char *message);
int document_workers(const struct worker_row *rows, unsigned n);

#endif
