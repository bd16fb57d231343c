/* `vbctl simulate FILE`: plays a pool of a configuration by each policy, and shows how they compare. */
#ifndef VBCTL_SIMULATE_H
#define VBCTL_SIMULATE_H

#include "commands.h"

int simulate_run(const struct vbctl *ctl, struct vb_error *err);

#endif
