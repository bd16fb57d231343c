/* What the control socket's clients may ask for: changes of the segment, made on the master's main thread. */
#ifndef VB_PROC_COMMANDS_H
#define VB_PROC_COMMANDS_H

#include "master.h"
#include "vb/ctl.h"

/* Does it, or refuses it with what to do instead. n_args > 0. Each change is one line in the log. */
void vb_command_run(struct vb_master *master, unsigned n_args, const char *const *args, struct vb_ctl_answer *answer);

#endif
