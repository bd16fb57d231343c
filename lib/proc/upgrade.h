/*
 * Upgrading: the executable that is found now where this one was started from takes this master's place, in the same
 * process, and the listening sockets, the segment and the workers go on with it. Asked for and reported as a reload,
 * which it ends with (reload.h):
 *
 *   trial    a child executes the new file, which rehearses the taking over and says whether it can; TRIAL_MS at most
 *   execute  the threads rest, and this process executes the file; where that cannot be, they go on
 *   take     the new executable makes its own what was handed over (handover.h), and reloads. When it cannot after
 *            all, it executes the old one, which goes on
 *
 * Whatever goes wrong leaves the workers as they are, and is the reason of a failed reload; only a crash of what was
 * executed, after a trial that went well, is the end of the master, and its workers finish. On the main thread.
 */
#ifndef VB_PROC_UPGRADE_H
#define VB_PROC_UPGRADE_H

#include <sys/stat.h>
#include <uv.h>

#include "handover.h"

struct vb_upgrade {
    int executable;    /* this one, also when its file is gone */
    struct stat tried; /* the file that the trial executes */
    uv_process_t trial;
    uv_timer_t limit;
    bool has_trial; /* a process, or its handle */
    bool too_slow;
    int said; /* the read end of what the trial says */
    int64_t status;
    int signal;
    int spawn_error;
};

/* Negative errno. */
int vb_upgrade_open(struct vb_master *master);
void vb_upgrade_close(struct vb_master *master);

/* Begins the trial; vb_reload_tried tells how it ended. Negative errno, with a sentence: it has not begun. */
int vb_upgrade_try(struct vb_master *master, struct vb_error *err);

/* Kills the trial, if there is one. */
void vb_upgrade_cancel(struct vb_master *master);

bool vb_upgrade_is_trial(const struct vb_master *master, pid_t pid);

/* Where the loop has stopped for it, and signals wait. Returns only when it could not be done; vb_reload_tried knows.
 */
void vb_upgrade_execute(struct vb_master *master);

/* ---- the new executable ------------------------------------------------------------------------------------------ */

/* Is the trial: the master has its loop. `r` and `err`: whether the handover was found. */
_Noreturn void vb_upgrade_rehearse(struct vb_master *master, const struct vb_handover *handover, int r,
                                   struct vb_error *err);

/* It cannot take over: the old executable shall go on. Where that has tried already, all ends. */
_Noreturn void vb_upgrade_give_back(const struct vb_master *master, const struct vb_handover *handover,
                                    const char *why);

#endif
