/*
 * What vbctl shows, copied out of the segment: tables and JSON documents are made from the same copies. Texts are
 * bounded and printable, times are ages; nothing here trusts the segment.
 */
#ifndef VBCTL_FIGURES_H
#define VBCTL_FIGURES_H

#include "vb/shm.h"

/* The percentiles that are shown, everywhere in this order. */
enum { P50, P90, P99, P999, PERCENTILES };
struct percentiles {
    bool known; /* false: nothing was recorded yet */
    double ms[PERCENTILES];
};

struct age {
    bool known;
    uint64_t us;
};

/*
 * `up` counts those whose health is not checked, too; `ejected` those that would be up or unknown, were it not for what
 * requests have shown; `drain` and `maint` are counted whatever their health.
 */
struct backend_counts {
    unsigned total, up, down, ejected, unknown, drain, maint;
};

struct totals {
    struct vb_worker_sum workers;
    struct vb_traffic_sum traffic;
    struct percentiles latency;
    struct backend_counts backends;
};

struct status {
    char name[VB_SHM_NAME_MAX], version[32], config_file[256];
    const char *state; /* an instance state, or "dead" */
    int pid;
    struct age uptime; /* not known of a dead one */
    unsigned generation, workers_wanted, workers_ready;
    uint64_t segment_bytes, log_lost;
    uint64_t reloads, reloads_failed;
    struct age last_reload; /* not known: there was none */
    bool reload_failed;     /* the last one */
    char reload_text[512];  /* why */
    struct totals totals;
};

struct pool_row {
    char name[VB_SHM_NAME_MAX], balance[24];
    struct backend_counts backends;
    uint64_t requests_now, pending_now; /* in the pool, and of these those that wait for a connection */
    struct vb_traffic_sum traffic;
    struct percentiles latency;
};

struct backend_row {
    char pool[VB_SHM_NAME_MAX], name[VB_SHM_NAME_MAX], address[VB_SHM_ADDRESS_MAX];
    const char *state, *health;
    bool down, draining;
    unsigned weight, configured_weight; /* 0: the file does not name it */
    unsigned max_connections;           /* 0: no limit */
    bool backup;
    struct vb_traffic_sum traffic;
    struct percentiles latency;
    bool checks_known; /* false: the record could not be read, or health checks are off */
    uint64_t checks, check_failures;
    uint64_t history; /* of the checks, the newest in bit 0, 1 = passed */
    unsigned n_history;
    struct age last_check, health_since;
    char last_failure[104], resolved[64]; /* empty: none */
    /* What requests have shown. */
    bool ejected;
    uint64_t ejected_for_us, ejections;
    unsigned failures_in_a_row;
    const char *last_request_failure;            /* NULL: none yet */
    unsigned announced_idle_ms, learned_idle_ms; /* 0: not known */
};

/* How a backend differs from what the file says of it. */
struct change {
    char pool[VB_SHM_NAME_MAX], name[VB_SHM_NAME_MAX];
    bool added, removed, weight_differs;
    const char *admin; /* "drain", "maint"; NULL: it is ready */
    unsigned weight, configured_weight;
};

struct worker_row {
    unsigned slot, index, generation;
    const char *state; /* one of an old generation drains, or will in a moment */
    int pid;
    uint64_t restarts, in_flight;
    struct age uptime;
    struct age heartbeat, last_request_age; /* not known of a dead instance, and where there was none */
    char last_request[VB_SHM_REQUEST_MAX];  /* empty: none yet */
    struct vb_worker_sum stats;             /* `requests` are those of this process, the others those of its slot */
};

void figures_status(const struct vb_shm *shm, bool alive, struct status *ret_status);
void figures_totals(const struct vb_shm *shm, struct totals *ret_totals);

/* These two: false when the slot is not in use. */
bool figures_pool(const struct vb_shm *shm, unsigned pool, struct pool_row *ret_row);
bool figures_pool_name(const struct vb_shm *shm, unsigned pool, char ret_name[VB_SHM_NAME_MAX]);

/* Where a walk over the backends is; starts as {0}. */
struct backend_walk {
    unsigned pool, backend;
};

/* The next backend of the pool named `pool` (NULL: of all, pool by pool); false at the end. */
bool figures_next_backend(const struct vb_shm *shm, const char *pool, struct backend_walk *walk,
                          struct backend_row *ret_row);

/* The next change at or behind *slot, which starts as 0; false at the end. */
bool figures_next_change(const struct vb_shm *shm, unsigned *slot, struct change *ret_change);

/* All workers, the newest generation first, by index; the caller frees *ret_rows. Returns how many, or -ENOMEM. */
int figures_workers(const struct vb_shm *shm, bool alive, struct worker_row **ret_rows);

#endif
