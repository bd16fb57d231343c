/*
 * May a request be tried again, and with what? Embedded in its exchange; it decides, the exchange acts.
 *
 * What was never sent may be sent elsewhere whatever its method; what may have been read by a backend only if doing it
 * twice does no harm (RFC 9110 9.2.2), and nothing is ever tried again once the client has seen a byte of a response.
 */
#ifndef VB_PROXY_RETRY_H
#define VB_PROXY_RETRY_H

#include <sys/uio.h>

#include "errors.h"
#include "vb/buf.h"
#include "vb/conf.h"
#include "vb/http.h"
#include "vb/lb.h"

struct vb_retry {
    const struct vb_conf_pool *conf; /* of the pool; NULL: not routed yet */
    struct vb_tried tried;
    bool idempotent;
    bool over; /* bytes of the body were sent that are not in `body`, or the client has seen some of a response */
    struct vb_buf body; /* as it was sent, without the head; owned */
};

/* Could a body like this be sent again, all of it? `head` is the request's. */
bool vb_retry_holds(const struct vb_retry *retry, const struct vb_head *head);

/*
 * Part of the body has been handed to a connection (without the head, `n` slices): keeps a copy as long as it may be
 * needed. `sent`: bytes of this request may have left for a backend.
 */
void vb_retry_keep(struct vb_retry *retry, const struct iovec *iov, unsigned n, bool sent);

/*
 * The same while the request waits for its turn, before any connection: all of it is kept, whatever the configuration's
 * limit, because this is the only copy. The caller sees to it that it does not become much. -ENOMEM.
 */
int vb_retry_hold(struct vb_retry *retry, const struct iovec *iov, unsigned n);

/* The client gets something of a response: nothing is tried again, and nothing is kept for it. */
void vb_retry_answered(struct vb_retry *retry);

/* May the request be sent a second time at all? */
bool vb_retry_is_safe(const struct vb_retry *retry, bool sent);

/* ... and to another backend after this failure, says the configuration? The budget is not asked. */
bool vb_retry_allows(const struct vb_retry *retry, enum vb_failure failure, bool sent);

/* Does the configuration count a response of this status as a failure? */
bool vb_retry_is_failure(const struct vb_conf_pool *conf, unsigned status);

void vb_retry_free(struct vb_retry *retry);

#endif
