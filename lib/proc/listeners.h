/*
 * The listening sockets, which belong to the instance and not to a generation: they live for as long as a configuration
 * names their address, and so do the connections that wait in their queues. There are at least as many for each address
 * as there are workers; when workers became fewer, each of them serves several.
 */
#ifndef VB_PROC_LISTENERS_H
#define VB_PROC_LISTENERS_H

#include <jansson.h>

#include "orphans.h"
#include "vb/conf.h"

struct vb_address; /* one, with its sockets */

struct vb_listeners {
    struct vb_address **addresses;
    unsigned n;
    struct vb_orphans *orphans; /* of whom an address that is in use may be */
};

/*
 * Makes what is missing so that each address of `conf` has a socket for each of `workers`. What is new does not listen
 * yet where others of its address do. On failure nothing has changed; the sentence names the address.
 */
int vb_listeners_prepare(struct vb_listeners *listeners, const struct vb_conf *conf, unsigned workers,
                         struct vb_error *err);

/* Takes that back. */
void vb_listeners_undo(struct vb_listeners *listeners);

/* Those of the executable before this one, all of which `conf` names; see handover.h. None is prepared only. */
int vb_listeners_adopt(struct vb_listeners *listeners, const json_t *packed, const struct vb_conf *conf,
                       struct vb_error *err);
json_t *vb_listeners_pack(const struct vb_listeners *listeners, json_t **fds);

/* From now on all sockets listen. Those of addresses that `conf` does not name are closed here; workers have theirs. */
void vb_listeners_commit(struct vb_listeners *listeners, const struct vb_conf *conf);

/* Closes all; unix sockets lose their files. */
void vb_listeners_close(struct vb_listeners *listeners);

/* Does `conf` name this address, a listener's normalised text? */
bool vb_listeners_named(const struct vb_conf *conf, const char *text);

/* A socket that a worker serves, and the number of its listener in the worker's configuration. */
struct vb_worker_socket {
    int fd;
    unsigned listener;
};

/*
 * What worker `index` of `workers` serves: its own socket of each address, and its share of those that no worker has;
 * `prepared`: also of those that do not listen yet. Returns how many; the caller frees *ret_sockets. -ENOMEM.
 */
int vb_listeners_of_worker(const struct vb_listeners *listeners, const struct vb_conf *conf, unsigned index,
                           unsigned workers, bool prepared, struct vb_worker_socket **ret_sockets);

#endif
