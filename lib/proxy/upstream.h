/*
 * A connection to a backend, HTTP/1 on the wire. It carries one exchange at a time; between two it waits in the idle
 * list of its backend. A connection on which anything irregular happened is never used again.
 */
#ifndef VB_PROXY_UPSTREAM_H
#define VB_PROXY_UPSTREAM_H

#include "proxy_priv.h"

enum vb_upstream_choice {
    VB_UPSTREAM_ANY,  /* a kept connection where there is one */
    VB_UPSTREAM_SURE, /* the same, but look first whether the backend has closed it: the request cannot be sent again */
    VB_UPSTREAM_FRESH /* a new one */
};

/*
 * A connection to the backend, bound to the exchange. Writing may begin at once. -EBUSY: too many requests of the pool
 * wait for a connection. Other negative errno: no connection can even be tried.
 */
int vb_upstream_get(struct vb_upstream **ret_upstream, struct vb_proxy *proxy, struct vb_proxy_pool *pool,
                    unsigned backend, struct vb_exchange *exchange, enum vb_upstream_choice choice);

/* It was kept from an earlier exchange, and no byte has come since: its end may be older than our request. */
bool vb_upstream_may_be_stale(const struct vb_upstream *upstream);

/* Bytes of the request may have reached the backend. */
bool vb_upstream_has_sent(const struct vb_upstream *upstream);

/* Tells the exchanges that wait for this backend that it was taken away: vb_exchange_upstream_doubted. */
void vb_upstream_doubt(struct vb_proxy *proxy, unsigned backend);

/* As vb_stream_write. A negative result needs no answer: the read side will report what the backend still had to say.
 */
int vb_upstream_write(struct vb_upstream *upstream, const struct iovec *iov, unsigned n);

/*
 * A whole request, in bytes that live as long as the upstream is bound: it may leave together with what others write in
 * this turn. Not for one that must not meet a connection which the backend has just closed.
 */
void vb_upstream_write_soon(struct vb_upstream *upstream, struct vb_str request);

/* The whole request has been written; the time to the first byte of the response begins. */
void vb_upstream_request_sent(struct vb_upstream *upstream);

/* Back-pressure from the client. */
void vb_upstream_pause(struct vb_upstream *upstream);
void vb_upstream_resume(struct vb_upstream *upstream);

/* Unbinds it from its exchange and sets NULL: kept for another one, or closed. *upstream may be NULL. */
void vb_upstream_release(struct vb_upstream **upstream, bool keep);

/* An upgrade: the stream goes on without the upstream, which is gone after this, with all that it has read. */
struct vb_stream *vb_upstream_detach(struct vb_upstream **upstream);

/* Closes this worker's idle connections to the backend. The others end with their exchanges. */
void vb_upstream_close_idle(struct vb_proxy *proxy, unsigned backend);

#endif
