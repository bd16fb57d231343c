/*
 * One run. sim.c sets it up and turns the wheel of events; requests.c is what a worker does with a request (as
 * lib/proxy does it), backends.c what backends do, checks.c what the health thread does (as lib/health does it),
 * clients.c when requests come and with which keys.
 */
#ifndef VB_SIM_PRIV_H
#define VB_SIM_PRIV_H

#include <sys/queue.h>

#include "vb/lb.h"
#include "vb/sim.h"

#include "arena.h"
#include "figures.h"
#include "heap.h"
#include "model.h"

/* Simulated time begins late enough that whatever the policies remember of time 0 is long ago. */
#define SIM_BEGIN_US (UINT64_C(86400) * 1000000)

struct sim_job;

struct sim_request {
    uint64_t arrived_us, try_us;
    uint64_t waits_since_us; /* in line */
    unsigned worker;
    struct sim_weight weight;
    uint64_t key;
    struct vb_tried tried;
    int backend; /* where it is in flight; negative: nowhere */
    bool has_place;
    struct sim_job *job;           /* what it is for its backend; NULL: nothing (any more) */
    TAILQ_ENTRY(sim_request) link; /* in the tries, or in the line */
};

/* A request at a backend. It is served to its end there also when nobody waits for the answer any more. */
struct sim_job {
    struct sim_request *request; /* NULL: it has gone */
    struct sim_backend *backend;
    unsigned status;
    bool in_service; /* else it waits for that */
    bool is_timed;   /* an event has it */
    bool is_lost;    /* its backend went down under it; the event has yet to come */
    TAILQ_ENTRY(sim_job) link;
};

TAILQ_HEAD(sim_jobs, sim_job);
TAILQ_HEAD(sim_requests, sim_request);

struct sim_backend {
    unsigned slot, in_flight;
    bool is_alike; /* one of those whose spread is measured */
    struct sim_model model;
    struct sim_jobs busy, waiting;
    unsigned n_busy, n_waiting;
    struct vb_health_fsm fsm;
    struct vb_health_record record;
    bool passed; /* the probe under way will */
    struct vb_sim_backend *figures;
};

struct sim {
    const struct vb_conf_simulate *conf;
    const struct vb_conf_pool *pool_conf;
    enum vb_balance policy;
    uint64_t now_us, length_us;
    struct sim_heap heap;
    struct sim_arena requests, jobs;
    struct vb_shm *shm;
    unsigned pool, n_workers, n_backends;
    struct vb_lb *workers[VB_WORKERS_MAX];
    struct vb_rand chances[VB_WORKERS_MAX]; /* of the policies */
    bool doubts[VB_WORKERS_MAX];            /* its picture has changed: requests may have to move */
    struct sim_backend *backends;           /* by slot; owned */
    struct vb_outlier_rules outlier;
    struct vb_rand arrivals, probes;
    double next_us;            /* of the next arrival, exactly */
    double *sums;              /* zipf: of the keys' shares, up to each; owned */
    unsigned arriving;         /* events of arrivals that are still to come */
    uint64_t unfinished;       /* requests */
    struct sim_requests tries; /* that are in flight, the oldest first */
    struct sim_requests line;  /* that wait for a backend to have room, likewise */
    bool tries_timed, line_timed;
    bool has_room; /* a backend may have room that had none */
    struct sim_figures figures;
    int failed; /* -ENOMEM: the run ends */
};

/* Since the beginning. */
static inline uint64_t sim_us(const struct sim *sim)
{
    return sim->now_us - SIM_BEGIN_US;
}

/* ---- sim.c ---- */
void sim_at(struct sim *sim, uint64_t at_us, enum sim_event_kind kind, void *what);

/* ---- clients.c ---- */
int sim_clients_begin(struct sim *sim);
void sim_client_arrives(struct sim *sim);
void sim_client_answered(struct sim *sim);

/* ---- requests.c ---- */
void sim_request_begin(struct sim *sim, struct sim_request *request);
void sim_request_answered(struct sim *sim, struct sim_request *request, unsigned status);
void sim_request_failed(struct sim *sim, struct sim_request *request, enum vb_backend_failure why);
void sim_time_out_tries(struct sim *sim);
void sim_time_out_line(struct sim *sim);
/* Who waits in line goes where there is room now. */
void sim_serve_line(struct sim *sim);
/* Does any worker's picture differ from what it last saw? */
void sim_look(struct sim *sim);
/* Requests leave backends that their workers have found ill. */
void sim_see_doubts(struct sim *sim);

/* ---- backends.c ---- */
void sim_backend_take(struct sim *sim, struct sim_backend *backend, struct sim_request *request);
/* The request waits for it no longer. */
void sim_backend_leave(struct sim *sim, struct sim_request *request);
void sim_backend_served(struct sim *sim, struct sim_job *job);
void sim_backend_goes_down(struct sim *sim, struct sim_backend *backend);

/* ---- checks.c ---- */
void sim_checks_begin(struct sim *sim);
void sim_probe(struct sim *sim, struct sim_backend *backend);
void sim_probed(struct sim *sim, struct sim_backend *backend);

#endif
