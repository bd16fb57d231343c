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

/* Everything handed in must outlive the proxy. Negative errno. */
int vb_proxy_open(struct vb_proxy **ret_proxy, struct vb_loop *loop, struct vb_shm *shm, unsigned slot,
                  const struct vb_conf *conf);

/* Serves a listening socket, which stays the caller's. */
int vb_proxy_listen(struct vb_proxy *proxy, int fd);

/*
 * Shares connections with other workers: takes those that come to `own_inbox`, and gives to the worker of index i what
 * it puts into the descriptor first_inbox + i, for i < n. All stay the caller's. See vb/inbox.h.
 */
int vb_proxy_share(struct vb_proxy *proxy, int own_inbox, int first_inbox, unsigned n);

/* Once a second: for what cannot wait for the next request, such as a backend that was declared down. */
void vb_proxy_tick(struct vb_proxy *proxy);

/*
 * Stops accepting (what waits in the accept queues is still taken), lets requests finish, closes connections that have
 * none. `drained` is called once, when the last client is gone; perhaps at once.
 */
void vb_proxy_drain(struct vb_proxy *proxy, void (*drained)(void *owner), void *owner);

/* Cuts whatever is left, frees, sets NULL. The loop must run once more before it is closed. */
void vb_proxy_close(struct vb_proxy **proxy);

#endif
