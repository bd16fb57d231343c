/* What the master does with the findings of the workers: once a second, on its main thread. */
#ifndef VB_PROC_FINDINGS_H
#define VB_PROC_FINDINGS_H

#include "vb/shm.h"

struct vb_findings;

/* `shm` must outlive it. -ENOMEM. */
int vb_findings_open(struct vb_findings **ret_findings, struct vb_shm *shm);
void vb_findings_close(struct vb_findings **findings); /* may point to NULL */

/* Marks the retry budgets, and says which ejections are over: they end by themselves, so nobody else would. */
void vb_findings_tick(struct vb_findings *findings);

#endif
