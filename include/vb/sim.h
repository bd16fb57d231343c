/*
 * The simulator: plays a pool of backends, its health checks and its clients against the policies of vb/lb.h, the same
 * code that workers run, in simulated time. Nothing here sleeps, looks at a clock or opens a socket, and the same
 * configuration gives the same result.
 */
#ifndef VB_SIM_H
#define VB_SIM_H

#include "vb/conf.h"
#include "vb/shm.h"

#define VB_SIM_SLICES 100

/* A hundredth of the time, of the requests that arrived in it. */
struct vb_sim_slice {
    uint64_t answered; /* well; the latencies are of these */
    double p50_ms, p99_ms;
};

struct vb_sim_backend {
    char name[VB_SHM_NAME_MAX];
    unsigned of;          /* which of the pool's backends it is (a copy of) */
    uint64_t requests;    /* that it was given, further tries too */
    unsigned most_queued; /* requests that waited there to be served, at the worst moment */
};

struct vb_sim_result {
    enum vb_balance policy;
    uint64_t requests;      /* of clients; each of them ended once: answered or as an error */
    uint64_t answered;      /* well */
    uint64_t errors;        /* answered 5xx, by a backend or for want of one */
    uint64_t tries, waited; /* requests given to backends; requests that waited for one to have room */
    uint64_t picks[VB_PICK_REASONS];
    double mean_ms, p50_ms, p99_ms, p999_ms, max_ms; /* of those answered well, from arrival to answer */
    unsigned most_queued;                            /* at any backend */
    unsigned spread; /* of backends that are alike: the greatest difference of requests in flight at any moment */
    struct vb_sim_slice slices[VB_SIM_SLICES];
    struct vb_sim_backend *backends;
    unsigned n_backends;
};

/* What conf->simulate plays, once for each policy: how many there are, and which. */
unsigned vb_sim_policies(const struct vb_conf *conf, enum vb_balance ret_policies[VB_BALANCES]);

/* The pool that it plays. */
const struct vb_conf_pool *vb_sim_pool(const struct vb_conf *conf);

/* Workers that it plays with. */
unsigned vb_sim_workers(const struct vb_conf *conf);

/* A result that the caller frees. -ENOMEM. */
int vb_sim_run(const struct vb_conf *conf, enum vb_balance policy, struct vb_sim_result **ret_result);

/* Frees and sets NULL; *result may be NULL. */
void vb_sim_free(struct vb_sim_result **result);

#endif
