/* The commands that change something: they ask the master. */
#ifndef VBCTL_CONTROL_H
#define VBCTL_CONTROL_H

#include "commands.h"

/* Prints what the master says; a refusal, which a JSON document has too, ends with 1 and the master's words. */
int control_run(const struct vbctl *ctl, struct vb_error *err);

/* The same, when the reload has ended. */
int control_reload(const struct vbctl *ctl, struct vb_error *err);

/* The same, when the master has ended. */
int control_stop(const struct vbctl *ctl, struct vb_error *err);

#endif
