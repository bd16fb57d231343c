/*
 * What a worker does with a request: picks, tries elsewhere, waits in line, gives up. As lib/proxy does it (see tries.c
 * there), with the same functions of lib/lb and lib/shm. All requests may be sent twice.
 *
 * Over all workers the one that has waited longest for a backend to have room is the first to get it, so one line says
 * it all.
 */
#include <errno.h>

#include "sim_priv.h"

/* ---- the end ---- */
static void finish(struct sim *sim, struct sim_request *request, bool answered_well)
{
    uint64_t slice = (request->arrived_us - SIM_BEGIN_US) * VB_SIM_SLICES / sim->length_us;
    if (request->has_place)
        vb_shm_exit(sim->shm, request->worker, sim->pool, VB_PLACE_REQUEST);
    if (answered_well)
        sim_figures_answered(&sim->figures, (unsigned)slice, sim->now_us - request->arrived_us);
    else
        sim->figures.result->errors++;
    sim->unfinished--;
    sim_arena_give_back(&sim->requests, request);
    sim_client_answered(sim);
}

/* ---- at a backend ---- */
static struct sim_backend *backend_of(struct sim *sim, const struct sim_request *request)
{
    return &sim->backends[request->backend];
}

static void count_in_flight(struct sim *sim, struct sim_backend *backend, int change)
{
    unsigned before = backend->in_flight;
    backend->in_flight += (unsigned)change;
    if (backend->is_alike && sim_us(sim) < sim->length_us &&
        sim_figures_moved(&sim->figures, before, backend->in_flight) < 0)
        sim->failed = -ENOMEM;
}

static void leave_backend(struct sim *sim, struct sim_request *request)
{
    struct sim_backend *backend = backend_of(sim, request);
    sim_backend_leave(sim, request);
    vb_lb_done(sim->workers[request->worker], backend->slot);
    count_in_flight(sim, backend, -1);
    TAILQ_REMOVE(&sim->tries, request, link);
    request->backend = -1;
    sim->has_room = true;
}

static void take_backend(struct sim *sim, struct sim_request *request, unsigned slot)
{
    struct sim_backend *backend = &sim->backends[slot];
    assert(request->tried.n < VB_TRIES_MAX);
    request->tried.backends[request->tried.n++] = (uint16_t)slot;
    request->backend = (int)slot;
    request->try_us = sim->now_us;
    count_in_flight(sim, backend, 1);
    TAILQ_INSERT_TAIL(&sim->tries, request, link);
    if (!sim->tries_timed) {
        sim_at(sim, sim->now_us + sim->pool_conf->timeouts.response_ms * 1000, SIM_TRY_TIMEOUT, NULL);
        sim->tries_timed = true;
    }
    sim_backend_take(sim, backend, request);
}

/* ---- picking and waiting ---- */
static int pick(struct sim *sim, const struct sim_request *request)
{
    struct vb_lb *lb = sim->workers[request->worker];
    struct vb_ask ask = {.tried = &request->tried, .key = request->key, .has_key = true, .stuck_to = -1};
    enum vb_pick_reason reason;
    int backend = vb_lb_pick(lb, &ask, sim->now_us, &reason);
    if (vb_lb_look(lb, sim->now_us))
        sim->doubts[request->worker] = true;
    if (backend >= 0)
        sim->figures.result->picks[reason]++;
    if (backend == -ENOMEM)
        sim->failed = backend;
    return backend;
}

static void wait_in_line(struct sim *sim, struct sim_request *request)
{
    if (!sim->pool_conf->queue.enabled || !vb_shm_enter(sim->shm, request->worker, sim->pool, VB_PLACE_PENDING,
                                                        sim->pool_conf->circuit_breaker.max_pending)) {
        finish(sim, request, false);
        return;
    }
    request->waits_since_us = sim->now_us;
    TAILQ_INSERT_TAIL(&sim->line, request, link);
    sim->figures.result->waited++;
    if (!sim->line_timed) {
        sim_at(sim, sim->now_us + sim->pool_conf->queue.timeout_ms * 1000, SIM_LINE_TIMEOUT, NULL);
        sim->line_timed = true;
    }
}

static void leave_line(struct sim *sim, struct sim_request *request)
{
    TAILQ_REMOVE(&sim->line, request, link);
    vb_shm_exit(sim->shm, request->worker, sim->pool, VB_PLACE_PENDING);
}

/* With what vb_lb_pick has said. */
static void go(struct sim *sim, struct sim_request *request, int picked)
{
    if (picked >= 0)
        take_backend(sim, request, (unsigned)picked);
    else if (picked == -EAGAIN)
        wait_in_line(sim, request);
    else
        finish(sim, request, false);
}

void sim_request_begin(struct sim *sim, struct sim_request *request)
{
    sim->figures.result->requests++;
    sim->unfinished++;
    request->has_place = vb_shm_enter(sim->shm, request->worker, sim->pool, VB_PLACE_REQUEST,
                                      sim->pool_conf->circuit_breaker.max_requests);
    if (!request->has_place) {
        finish(sim, request, false);
    } else if (TAILQ_EMPTY(&sim->line)) {
        go(sim, request, pick(sim, request));
    } else { /* nobody overtakes those who wait; but the clock alone may have made room, when an ejection was over */
        wait_in_line(sim, request);
        sim->has_room = true;
    }
}

void sim_serve_line(struct sim *sim)
{
    struct sim_request *request;
    sim->has_room = false;
    while ((request = TAILQ_FIRST(&sim->line)) != NULL && sim->failed == 0) {
        int picked = pick(sim, request);
        if (picked == -EAGAIN)
            return;
        leave_line(sim, request);
        go(sim, request, picked);
    }
}

void sim_time_out_line(struct sim *sim)
{
    uint64_t timeout_us = sim->pool_conf->queue.timeout_ms * 1000;
    struct sim_request *request;
    while ((request = TAILQ_FIRST(&sim->line)) != NULL && request->waits_since_us + timeout_us <= sim->now_us) {
        leave_line(sim, request);
        finish(sim, request, false);
    }
    sim->line_timed = request != NULL;
    if (sim->line_timed)
        sim_at(sim, request->waits_since_us + timeout_us, SIM_LINE_TIMEOUT, NULL);
}

/* ---- tries that fail ---- */
/* What `retry.on` calls it; 0: it has no name there. */
static unsigned retry_name(enum vb_backend_failure why)
{
    switch (why) {
    case VB_BACKEND_REFUSED:
        return VB_RETRY_CONNECT;
    case VB_BACKEND_RESET:
        return VB_RETRY_RESET;
    case VB_BACKEND_RESPONSE_TIMEOUT:
        return VB_RETRY_TIMEOUT;
    default:
        return 0;
    }
}

static bool may_move(struct sim *sim, const struct sim_request *request, unsigned kind)
{
    const struct vb_conf_pool *conf = sim->pool_conf;
    struct vb_lb *lb = sim->workers[request->worker];
    const struct vb_shm_backend *row = vb_shm_backend(sim->shm, (unsigned)request->backend);
    bool allowed = conf->retry.enabled && (conf->retry.on & kind) != 0 && request->tried.n <= conf->retry.attempts &&
                   sim->now_us - request->arrived_us < conf->retry.total_ms * 1000;
    if (!allowed || !vb_lb_has_other(lb, &request->tried, sim->now_us))
        return false;
    bool is_out = atomic_load(&row->health) == VB_HEALTH_DOWN || vb_shm_backend_ejected(row, sim->now_us);
    bool costs = kind != VB_RETRY_CONNECT && !is_out;
    return !costs || vb_retry_budget_take(vb_shm_pool(sim->shm, sim->pool), conf->retry.budget, sim->now_us);
}

/* To another backend, or to the line. False: it stays where it is, or where it was. */
static bool move(struct sim *sim, struct sim_request *request, unsigned kind)
{
    if (!may_move(sim, request, kind))
        return false;
    int other = pick(sim, request);
    if (other < 0 && other != -EAGAIN)
        return false;
    leave_backend(sim, request);
    go(sim, request, other);
    return true;
}

static void note_failure(struct sim *sim, const struct sim_request *request, enum vb_backend_failure why)
{
    if (vb_outlier_failed(sim->shm, request->worker, (unsigned)request->backend, &sim->outlier, why, sim->now_us) > 0)
        sim->has_room = true; /* its share goes to others */
}

static void give_up(struct sim *sim, struct sim_request *request)
{
    leave_backend(sim, request);
    finish(sim, request, false);
}

void sim_request_failed(struct sim *sim, struct sim_request *request, enum vb_backend_failure why)
{
    vb_lb_learn(sim->workers[request->worker], (unsigned)request->backend, sim->now_us - request->try_us, VB_TRY_FAILED,
                sim->now_us);
    note_failure(sim, request, why);
    if (!move(sim, request, retry_name(why)))
        give_up(sim, request);
}

/* One event is on its way as long as there are tries, for the oldest of them when it was added. */
void sim_time_out_tries(struct sim *sim)
{
    uint64_t timeout_us = sim->pool_conf->timeouts.response_ms * 1000;
    struct sim_request *request;
    while ((request = TAILQ_FIRST(&sim->tries)) != NULL && request->try_us + timeout_us <= sim->now_us &&
           sim->failed == 0)
        sim_request_failed(sim, request, VB_BACKEND_RESPONSE_TIMEOUT);
    sim->tries_timed = request != NULL;
    if (sim->tries_timed)
        sim_at(sim, request->try_us + timeout_us, SIM_TRY_TIMEOUT, NULL);
}

/* ---- answers ---- */
static unsigned status_name(unsigned status)
{
    return status == 502 ? VB_RETRY_502 : status == 503 ? VB_RETRY_503 : status == 504 ? VB_RETRY_504 : 0;
}

static void report_load(struct sim *sim, const struct sim_backend *backend)
{
    uint64_t load = UINT64_C(1000) * backend->n_busy / backend->model.concurrency;
    if (sim->policy == VB_BALANCE_LEAST_LOAD)
        vb_lb_report_load(sim->shm, backend->slot, (uint32_t)load, sim->now_us);
}

void sim_request_answered(struct sim *sim, struct sim_request *request, unsigned status)
{
    const struct sim_backend *backend = backend_of(sim, request);
    unsigned name = status_name(status);
    bool is_failure = sim->pool_conf->retry.enabled && (sim->pool_conf->retry.on & name) != 0;
    vb_lb_learn(sim->workers[request->worker], backend->slot, sim->now_us - request->try_us,
                status >= 500 ? VB_TRY_FAILED : VB_TRY_ANSWERED, sim->now_us);
    report_load(sim, backend);
    if (is_failure) {
        note_failure(sim, request, VB_BACKEND_STATUS);
        if (move(sim, request, name))
            return;
    } else {
        vb_outlier_passed(sim->shm, backend->slot, sim->now_us);
    }
    leave_backend(sim, request);
    finish(sim, request, status < 500);
}

/* ---- requests at backends that are ill ---- */
void sim_look(struct sim *sim)
{
    for (unsigned i = 0; i < sim->n_workers; i++)
        sim->doubts[i] |= vb_lb_look(sim->workers[i], sim->now_us);
}

static void move_all(struct sim *sim, struct sim_jobs *jobs, unsigned worker)
{
    for (struct sim_job *job = TAILQ_FIRST(jobs), *next; job != NULL; job = next) {
        next = TAILQ_NEXT(job, link);
        if (job->request != NULL && job->request->worker == worker)
            move(sim, job->request, VB_RETRY_TIMEOUT);
    }
}

static void see_doubts_of(struct sim *sim, unsigned worker)
{
    for (unsigned i = 0; i < sim->n_backends; i++) {
        struct sim_backend *backend = &sim->backends[i];
        const struct vb_shm_backend *row = vb_shm_backend(sim->shm, i);
        bool is_ill = atomic_load(&row->health) == VB_HEALTH_DOWN || vb_shm_backend_ejected(row, sim->now_us);
        if (!is_ill || backend->in_flight == 0 || vb_lb_is_candidate(sim->workers[worker], i))
            continue;
        move_all(sim, &backend->busy, worker);
        move_all(sim, &backend->waiting, worker);
    }
}

void sim_see_doubts(struct sim *sim)
{
    for (unsigned i = 0; i < sim->n_workers; i++) {
        if (!sim->doubts[i])
            continue;
        sim->doubts[i] = false;
        see_doubts_of(sim, i);
    }
}
