/*
 * The queue: requests of a pool whose backends all have max_connections wait here for their turn. Embedded in
 * vb_proxy_pool; it keeps the exchanges in order, tries.c gives them their backend.
 */
#ifndef VB_PROXY_QUEUE_H
#define VB_PROXY_QUEUE_H

#include "proxy_priv.h"

void vb_queue_open(struct vb_proxy *proxy, struct vb_proxy_pool *pool);
void vb_queue_close(struct vb_proxy_pool *pool);

/* Does anybody wait, in any worker, whom this request must not overtake? Only asked where backends have limits. */
bool vb_queue_is_behind(const struct vb_exchange *exchange, uint64_t now_us);

/*
 * The request joins the line. -EINPROGRESS: it waits, and vb_exchange_have_turn follows, or it is given up when
 * queue.timeout is over. -EBUSY: circuit_breaker.max_pending is reached. -EAGAIN: nobody waits here, the queue is off.
 */
int vb_queue_join(struct vb_exchange *exchange, uint64_t now_us);

/* It waits no more, and its place among those that are pending is given back. It need not have waited. */
void vb_queue_leave(struct vb_exchange *exchange);

/* A request has left this backend of a pool with limits: somebody's turn has come. */
void vb_queue_place_free(struct vb_proxy_pool *pool, unsigned backend);

/* Another worker says that our line is the first of the pool of this number, and that there is a place. */
void vb_queue_woken(struct vb_proxy *proxy, unsigned number);

#endif
