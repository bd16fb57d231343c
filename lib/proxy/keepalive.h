/*
 * How long a backend keeps an idle connection. We must not use one that it is about to close: it may say so
 * (`Keep-Alive: timeout=5`), or it can be seen from when it closes them. What is known stands in the segment, for all
 * workers and for vbctl.
 */
#ifndef VB_PROXY_KEEPALIVE_H
#define VB_PROXY_KEEPALIVE_H

#include "vb/http.h"
#include "vb/shm.h"

/* What a worker has seen of one backend. Starts as all zero. */
struct vb_idle_closes {
    uint32_t incarnation; /* of the backend's slot */
    uint32_t age_ms;      /* of a connection when it was closed, the smallest of those that agree */
    unsigned agreeing;    /* closes in a row at about that age */
    uint64_t last_ms;     /* when the last one was counted */
};

/* A response head of the backend: notes what it says. */
void vb_keepalive_heard(struct vb_shm_backend *backend, const struct vb_head *head);

/* The backend has closed a connection that had been idle for `age_ms`. `now_ms` is of any monotonic clock. */
void vb_keepalive_closed(struct vb_shm_backend *backend, struct vb_idle_closes *closes, uint64_t age_ms,
                         uint64_t now_ms);

/* For how long an idle connection may be used: UINT64_MAX where nothing is known. */
uint64_t vb_keepalive_limit_ms(const struct vb_shm_backend *backend);

#endif
