/*
 * The proxy: where client bytes meet backend bytes. One in each worker, on the worker's loop.
 *
 * It reads membership and health from the segment, and writes its slot's rows there. Read lib/proxy/exchange.c first.
 */
#ifndef VB_PROXY_H
#define VB_PROXY_H

#include "vb/conf.h"
#include "vb/loop.h"
#include "vb/shm.h"

struct vb_proxy;

/*
 * Everything handed in must outlive the proxy. The pools are those of the segment that have the configuration's names;
 * -ENOENT: one is not there, and the log says which. Others: negative errno.
 */
int vb_proxy_open(struct vb_proxy **ret_proxy, struct vb_loop *loop, struct vb_shm *shm, unsigned slot,
                  const struct vb_conf *conf);

/* Prepares to accept from a socket, which stays the caller's, of the configured listener `number`, which may have
 * several. */
int vb_proxy_listen(struct vb_proxy *proxy, unsigned number, int fd);

/*
 * Shares connections with other workers: takes those that come to `own_inbox`, and gives to the worker of index i what
 * it puts into the descriptor first_inbox + i, for i < n. All stay the caller's. See vb/inbox.h.
 */
int vb_proxy_share(struct vb_proxy *proxy, int own_inbox, int first_inbox, unsigned n);

/* Accepts from now on, from all of these sockets. */
void vb_proxy_start(struct vb_proxy *proxy);

/* Once a second: for what cannot wait for the next request, such as a backend that was declared down. */
void vb_proxy_tick(struct vb_proxy *proxy);

/*
 * Accepts no more from the sockets of a listener; they may be closed after this. What waits there is taken first, or is
 * left to whoever shares them.
 */
void vb_proxy_unlisten(struct vb_proxy *proxy, unsigned number, bool take);

/*
 * The beginning of the end: lets requests finish, closes connections that have none, and gives none away any more. Who
 * is accepted from now on, or comes through the inbox, may still have one request. `patient`: so may who has not had
 * one yet, in the time that there is for a first head. Again, without: now they may not.
 */
void vb_proxy_drain(struct vb_proxy *proxy, bool patient);

/*
 * The rest of it, once nobody puts anything into the inbox any more: takes what is there. `drained` is called once,
 * when the last client is gone; perhaps at once.
 */
void vb_proxy_finish(struct vb_proxy *proxy, void (*drained)(void *owner), void *owner);

/* Cuts whatever is left, frees, sets NULL. The loop must run once more before it is closed. */
void vb_proxy_close(struct vb_proxy **proxy);

#endif
