/*
 * The state that a master hands over to the executable that takes its place in the same process: what cannot be found
 * in the segment, as JSON in a sealed memory file, and descriptors, which keep their numbers. Each part is packed and
 * taken by the file that it belongs to; this one puts them together.
 *
 * Taking it changes nothing: whoever has taken it can leave it to somebody else. In a rehearsal only the descriptors of
 * the segment and of the configurations are there, and others are no more than numbers.
 */
#ifndef VB_PROC_HANDOVER_H
#define VB_PROC_HANDOVER_H

#include <jansson.h>

#include "vb/err.h"

struct vb_master;

/* Changes with what is in the state, and with the messages between a master and its workers (inherit.h). */
#define VB_HANDOVER_FORMAT 1

/* In the environment of the one that takes over, numbers of descriptors: the state; in a trial, where to say how it
 * went; and, as text, why the new executable gives the state back. */
#define VB_HANDOVER_STATE  "VIBEBALANCER_HANDOVER"
#define VB_HANDOVER_TRIAL  "VIBEBALANCER_TRIAL"
#define VB_HANDOVER_FAILED "VIBEBALANCER_HANDOVER_FAILED"

struct vb_handover {
    json_t *state; /* NULL: this process takes over from nobody */
    int fd;        /* that it was read from */
    int trial;     /* -1: it is none */
    const char *failed;
};

/* Takes it out of the environment. Negative errno with a sentence; `trial` is set also then. */
int vb_handover_find(struct vb_handover *handover, struct vb_error *err);

/* Of this master, while no next generation is built. NULL: no memory, or a path that is not UTF-8. The caller's. */
json_t *vb_handover_pack(struct vb_master *master);

/* The descriptor of a memory file that holds it. Negative errno, with a sentence. */
int vb_handover_seal(const json_t *state, struct vb_error *err);

/* May its descriptors, and that of the state itself, outlive the execution of a file? -EBADF: one is not open. */
int vb_handover_keep(const json_t *state, int fd, bool across_exec);

/*
 * Makes all of `master` that the state describes; its loop is there, nothing runs. `state` must outlive the master.
 * Negative errno with a sentence; what is made by then is not freed, because its descriptors must stay open.
 */
int vb_handover_take(struct vb_master *master, const json_t *state, bool rehearsal, struct vb_error *err);

/* The old executable, of the state. */
int vb_handover_executable(const json_t *state);

#endif
