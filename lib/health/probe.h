/*
 * One probe of one backend: resolve its name when that is due, connect, and for HTTP checks ask and judge the status.
 * Private to lib/health. A probe object serves one backend slot, one probe after the other.
 */
#ifndef VB_HEALTH_PROBE_H
#define VB_HEALTH_PROBE_H

#include "rules.h"
#include "vb/buf.h"
#include "vb/conf.h"
#include "vb/http.h"
#include "vb/loop.h"
#include "vb/shm.h"
#include "vb/stream.h"

#define VB_PROBE_ADDRESSES 8

struct vb_probe_result {
    bool passed;
    bool no_verdict;   /* it could not be made: we lack descriptors or memory, which says nothing about the backend */
    bool reports_load; /* the answer says how loaded the backend is */
    uint32_t load_milli;
    char reason[sizeof(((struct vb_health_record *)0)->reason)]; /* why not */
};

struct vb_probe {
    uint32_t magic;
    struct vb_loop *loop;
    struct vb_rules *rules; /* of the pool */
    struct vb_head *head;   /* scratch, shared by all probes */
    void (*done)(struct vb_probe *probe, const struct vb_probe_result *result);
    void (*let_go)(struct vb_probe *probe); /* stopped, and the resolver has let go of it only now */
    struct vb_conf_endpoint endpoint;
    char authority[VB_SHM_ADDRESS_MAX]; /* host:port, for the Host field */

    struct vb_probe_address {
        struct sockaddr_storage address;
        socklen_t length;
    } addresses[VB_PROBE_ADDRESSES]; /* of the backend, as resolved last */
    unsigned n_addresses;            /* 0: never resolved */
    unsigned current;                /* the one in use: the first that took a connection */
    unsigned tried;                  /* connects in this probe */
    uint64_t resolved_ms;
    bool literal; /* an IP address or a unix socket: nothing to resolve */
    bool active;  /* between begin and done */
    bool connected;
    bool resolving; /* `resolver` is libuv's */
    bool unqueued;  /* ... but only until the next turn of the loop */
    bool abandoned; /* stopped */
    uv_getaddrinfo_t resolver;

    struct vb_stream *stream;
    struct vb_timer timer;
    struct vb_buf input;
    uint64_t begun_us;
};

/* `address` is `host:port` or `unix:/path`, as in the segment. -EINVAL. */
int vb_probe_init(struct vb_probe *probe, const char *address);

/* Its name was resolved to this before: good for a first probe, while it is looked up again. */
void vb_probe_assume(struct vb_probe *probe, const struct sockaddr *address, socklen_t length);

/* Begins one probe; `done` is called once, perhaps before this returns. `resolve_again`: do not trust the old address.
 */
void vb_probe_begin(struct vb_probe *probe, bool resolve_again);

/* Only finds the address out; `done` tells whether there is one. */
void vb_probe_resolve(struct vb_probe *probe);

/* Ends the probe that is under way, if one is, without a result. A look-up goes on for the next one. */
void vb_probe_cancel(struct vb_probe *probe);

/*
 * Ends it for good; may be called again. While `resolving` the object must stay where it is, until `let_go`. False: the
 * system's resolver has hold of it, and nobody knows for how long; true: it is free with the next turn of the loop.
 */
bool vb_probe_stop(struct vb_probe *probe);

#endif
