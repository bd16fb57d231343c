/*
 * What a worker may do: the identity that it takes where the master is root, and what it gives up in any case. The
 * master looks users up, once, because that reads files and may ask a server; a worker only gets numbers.
 */
#ifndef VB_PROC_PRIVILEGES_H
#define VB_PROC_PRIVILEGES_H

#include <sys/types.h>

#include "vb/conf.h"

/* The identity that is no other one, as a worker's argument. */
#define VB_IDENTITY_KEPT "-"

/*
 * Who `user` is on this machine: its uid, and `UID:GID[,GID...]`, all its groups with its own first, which the caller
 * frees. -ENOENT: there is no such user; -errno of the lookup; with a sentence.
 */
int vb_identity_find(const struct vb_conf_user *user, uid_t *ret_uid, char **ret_identity, struct vb_error *err);

/*
 * Becomes who vb_identity_find has found, for good. For a process of one thread, which is of no use any more after a
 * failure: -EINVAL for a text that is no identity, -EPERM, -ENOMEM.
 */
int vb_identity_take(const char *identity);

/* From now on executing a file gives this process no more rights than it has. */
int vb_forbid_new_privileges(void);

/*
 * From now on this process opens no file and changes none; descriptors that it has stay as they are, and sockets are no
 * files. Needs vb_forbid_new_privileges; where the kernel cannot do it nothing happens.
 */
void vb_forbid_files(void);

#endif
