/*
 * What the control socket's clients may ask for, on the master's main thread: changes of the segment, and what concerns
 * the instance as a whole.
 */
#ifndef VB_PROC_COMMANDS_H
#define VB_PROC_COMMANDS_H

#include "master.h"
#include "vb/ctl.h"

enum vb_command_state {
    VB_COMMAND_DONE,    /* or refused: there is the answer */
    VB_COMMAND_RELOADS, /* the outcome of a reload will be the answer (control.h) */
    VB_COMMAND_WAITS,   /* nothing has happened yet: ask again when a reload has ended */
};

/*
 * Does it, or refuses it with what to do instead. n_args > 0. Each change is one line in the log. What would change
 * backends while a reload is being built waits for its end: it is newer than the file that was read. *ret_reload is the
 * number of the reload.
 */
enum vb_command_state vb_command_run(struct vb_master *master, unsigned n_args, const char *const *args,
                                     struct vb_ctl_answer *answer, uint64_t *ret_reload);

#endif
