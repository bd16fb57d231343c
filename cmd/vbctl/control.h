/* The commands that change something: they ask the master. */
#ifndef VBCTL_CONTROL_H
#define VBCTL_CONTROL_H

#include "commands.h"

/* Prints what the master says; a refusal is -EPERM and the master's sentence, which a JSON document has too. */
int control_run(const struct vbctl *ctl, struct vb_error *err);

#endif
