/* Listening sockets: made by the master, served by workers. */
#ifndef VB_LISTEN_H
#define VB_LISTEN_H

#include <sys/socket.h>
#include <sys/un.h>

#include "vb/err.h"
#include "vb/loop.h"

/*
 * Opens n SO_REUSEPORT sockets that listen on one address (for the master; n > 0), or n descriptors of one unix socket.
 * Refused when somebody listens there already, also when that one uses SO_REUSEPORT: two instances must not share an
 * address in silence. A unix socket that nobody listens on any more is replaced; everybody may connect to the new one,
 * its directory decides who gets there. On failure nothing is left open, and the sentence names the address. It changes
 * the process's umask for a moment: no other thread may make files meanwhile.
 *
 * `joins`: -1, or a socket that was opened so by this process, at the same address or at one that overlaps (the same
 * port, and one of the two without an IP address). Then the new ones stand beside it. They do not listen before
 * vb_listen_start, so that nobody waits there before they are served; but those of a unix socket, which are that same
 * one. Any other process that listens there still means a refusal, unless it is of the same user and has SO_REUSEPORT.
 */
int vb_listen_open(int *ret_fds, unsigned n, int joins, const struct sockaddr *address, socklen_t length,
                   const char *text, struct vb_error *err);

/* Nothing happens to one that listens already. Negative errno. */
int vb_listen_start(int fd);

/* The same for one unix socket that only its owner may connect to: its mode is 0600 from its first moment on. */
int vb_listen_open_private(int *ret_fd, const struct sockaddr_un *address, struct vb_error *err);

/*
 * Stops a unix socket that was opened so, in all processes that share it, and removes its file, unless the file is by
 * now that of a socket somebody else listens on. Nothing for other addresses. For the master, before it closes `fd`.
 */
void vb_listen_unlink(int fd, const struct sockaddr *address);

struct vb_listener;

struct vb_listener_events {
    /* A connection (descriptor: close-on-exec, non-blocking, now the owner's) and its peer; AF_UNIX: no address. */
    void (*accepted)(void *owner, int fd, const struct sockaddr *peer);
    /* accept failed for want of descriptors or memory; the listener rests for 100 ms and then tries again. */
    void (*exhausted)(void *owner, int code);
};

/* Prepares to accept. `fd` is inherited and stays the caller's; it must outlive the listener. */
int vb_listener_open(struct vb_listener **ret_listener, struct vb_loop *loop, int fd,
                     const struct vb_listener_events *events, void *owner);

/* Accepts from now on. */
void vb_listener_start(struct vb_listener *listener);

/*
 * Stops accepting. `take`: what already waits is accepted first; else it is left to whoever shares the socket, which
 * stays open. Sets NULL; *listener may be NULL.
 */
void vb_listener_close(struct vb_listener **listener, bool take);

#endif
