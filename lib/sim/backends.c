/* Backends: each serves some requests at a time, and others wait there in order of arrival. */
#include <errno.h>

#include "sim_priv.h"

static void start(struct sim *sim, struct sim_job *job)
{
    struct sim_backend *backend = job->backend;
    uint64_t end_us = sim_serve(&backend->model, job->request->weight, sim_us(sim), &job->status);
    TAILQ_INSERT_TAIL(&backend->busy, job, link);
    backend->n_busy++;
    job->in_service = true;
    job->is_timed = end_us != SIM_NEVER;
    if (job->is_timed)
        sim_at(sim, SIM_BEGIN_US + end_us, SIM_SERVED, job);
}

void sim_backend_take(struct sim *sim, struct sim_backend *backend, struct sim_request *request)
{
    const struct vb_conf_phase *phase = sim_phase(&backend->model, sim_us(sim));
    backend->figures->requests++;
    if (phase != NULL && phase->is == VB_PHASE_DOWN) {
        sim_request_failed(sim, request, VB_BACKEND_REFUSED);
        return;
    }
    struct sim_job *job = sim_arena_take(&sim->jobs);
    if (job == NULL) {
        sim->failed = -ENOMEM;
        return;
    }
    job->request = request;
    job->backend = backend;
    request->job = job;
    if (backend->n_busy < backend->model.concurrency) {
        start(sim, job);
        return;
    }
    TAILQ_INSERT_TAIL(&backend->waiting, job, link);
    backend->n_waiting++;
    backend->figures->most_queued = VB_MAX(backend->figures->most_queued, backend->n_waiting);
}

/* It is in none of its backend's lists any more. An event that has it frees it later. */
static void drop(struct sim *sim, struct sim_job *job)
{
    job->is_lost = true;
    if (!job->is_timed)
        sim_arena_give_back(&sim->jobs, job);
}

static void stop_waiting(struct sim_job *job)
{
    TAILQ_REMOVE(&job->backend->waiting, job, link);
    job->backend->n_waiting--;
}

static void stop_serving(struct sim_job *job)
{
    TAILQ_REMOVE(&job->backend->busy, job, link);
    job->backend->n_busy--;
}

void sim_backend_leave(struct sim *sim, struct sim_request *request)
{
    struct sim_job *job = request->job;
    request->job = NULL;
    if (job == NULL)
        return;
    job->request = NULL;
    if (job->in_service)
        return;
    stop_waiting(job);
    drop(sim, job);
}

void sim_backend_served(struct sim *sim, struct sim_job *job)
{
    struct sim_backend *backend = job->backend;
    struct sim_request *request = job->request;
    unsigned status = job->status;
    if (!job->is_lost) {
        stop_serving(job);
        struct sim_job *next = TAILQ_FIRST(&backend->waiting);
        if (next != NULL) {
            stop_waiting(next);
            start(sim, next);
        }
    }
    sim_arena_give_back(&sim->jobs, job);
    if (request == NULL)
        return;
    request->job = NULL;
    sim_request_answered(sim, request, status);
}

void sim_backend_goes_down(struct sim *sim, struct sim_backend *backend)
{
    struct sim_job *job;
    while ((job = TAILQ_FIRST(&backend->busy)) != NULL || (job = TAILQ_FIRST(&backend->waiting)) != NULL) {
        struct sim_request *request = job->request;
        if (job->in_service)
            stop_serving(job);
        else
            stop_waiting(job);
        job->request = NULL;
        drop(sim, job);
        if (request == NULL)
            continue;
        request->job = NULL;
        sim_request_failed(sim, request, VB_BACKEND_RESET);
    }
}
