/*
 * What the master tells the service manager that started it, as sd_notify(3) describes: datagrams to the socket that
 * NOTIFY_SOCKET names. Without one nothing is told.
 */
#ifndef VB_PROC_NOTIFY_H
#define VB_PROC_NOTIFY_H

#include <sys/socket.h>
#include <sys/un.h>

#include "vb/base.h"

struct vb_notify {
    struct sockaddr_un address;
    socklen_t length; /* 0: nobody wants to know */
};

/* Takes NOTIFY_SOCKET out of the environment: it is meant for this process and not for its children. */
void vb_notify_open(struct vb_notify *notify);

/* NOTIFY_SOCKET=..., as it was in the environment; false: it was not there, or of no use. */
bool vb_notify_variable(const struct vb_notify *notify, char *to, size_t size);

/* `READY=1`, `STATUS=...` and the like, a line each. Nobody has to listen; waits for room no longer than a second. */
void vb_notify(const struct vb_notify *notify, const char *lines);

/* A reload begins; READY=1 ends it, whether it has failed or not. */
void vb_notify_reloading(const struct vb_notify *notify);

#endif
