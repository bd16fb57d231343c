/* What vbctl can do: one table. */
#ifndef VBCTL_COMMANDS_H
#define VBCTL_COMMANDS_H

#include <stdio.h>

#include "vb/shm.h"

/* What a command works on. */
struct vbctl {
    const struct vb_shm *shm; /* NULL for a command that plays */
    const char *path;         /* of the segment */
    bool alive;               /* false: its master is gone, the figures are its last */
    bool json, wait, now;
    const char *svg; /* where a plot goes; NULL: none */
    unsigned n_args; /* the command's word and what stands behind it */
    const char *const *args;
};

struct vbctl_command {
    const char *word;
    const char *arguments; /* as the help has them */
    unsigned least, most;  /* how many it takes */
    bool waits, stops;     /* it knows --wait, --now */
    bool plays;            /* it needs no instance, and knows --svg */
    const char *help;
    /* Prints to stdout. Negative errno and a sentence when it could not; > 0: it has said so itself, and that is the
     * exit status. */
    int (*run)(const struct vbctl *ctl, struct vb_error *err);
};

/* NULL when there is no such word. */
const struct vbctl_command *command_find(const char *word);

/* The known word nearest to this one; NULL when none is near. */
const char *command_nearest(const char *word);

void command_help(FILE *to);

#endif
