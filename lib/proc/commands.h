/*
 * What the control socket's clients may ask for, on the master's main thread: changes of the segment, and what concerns
 * the instance as a whole.
 */
#ifndef VB_PROC_COMMANDS_H
#define VB_PROC_COMMANDS_H

#include "master.h"
#include "vb/ctl.h"

/*
 * Does it, or refuses it with what to do instead. n_args > 0. Each change is one line in the log. Returns 0, or the
 * number of the reload whose outcome is to be the answer (control.h).
 */
uint64_t vb_command_run(struct vb_master *master, unsigned n_args, const char *const *args,
                        struct vb_ctl_answer *answer);

#endif
