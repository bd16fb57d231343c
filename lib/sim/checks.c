/*
 * Health checks, as lib/health makes them: each backend at its interval with 10 % jitter, faster between two states.
 * One that has a path asks for a page that is as quick or slow as the backend usually is, and that waits for nobody;
 * without one a connection is enough.
 */
#include "sim_priv.h"

static void schedule(struct sim *sim, struct sim_backend *backend)
{
    const struct vb_conf_health *rules = &sim->pool_conf->health;
    uint64_t interval_us =
        1000 * (vb_health_fsm_in_transition(&backend->fsm) ? rules->fast_interval_ms : rules->interval_ms);
    uint64_t tenth = interval_us / 10;
    sim_at(sim, sim->now_us + interval_us - tenth + vb_rand_below(&sim->probes, 2 * tenth + 1), SIM_PROBE, backend);
}

void sim_checks_begin(struct sim *sim)
{
    for (unsigned i = 0; i < sim->n_backends && sim->pool_conf->health.enabled; i++) {
        struct sim_backend *backend = &sim->backends[i];
        backend->fsm.state = VB_HEALTH_UP;
        sim_at(sim, sim->now_us + vb_rand_below(&sim->probes, sim->pool_conf->health.interval_ms * 1000), SIM_PROBE,
               backend);
    }
}

static bool is_expected(const struct vb_conf_health *rules, unsigned status)
{
    for (unsigned i = 0; i < rules->n_expect; i++)
        if (rules->expect[i].first <= status && status <= rules->expect[i].last)
            return true;
    return false;
}

/* Does a check that begins now pass? How long it takes, if no longer than it may. */
static bool look(const struct sim *sim, const struct sim_backend *backend, uint64_t *ret_takes_us)
{
    const struct vb_conf_health *rules = &sim->pool_conf->health;
    const struct vb_conf_phase *phase = sim_phase(&backend->model, sim_us(sim));
    unsigned status = 200;
    *ret_takes_us = 0;
    if (phase != NULL && phase->is == VB_PHASE_DOWN)
        return false;
    if (rules->path == NULL)
        return true;
    *ret_takes_us = (uint64_t)(backend->model.service_us * sim_phase_factor(phase, sim_us(sim)));
    if (phase != NULL && phase->is == VB_PHASE_STALLING)
        *ret_takes_us += sim_phase_end(phase) == SIM_NEVER ? SIM_NEVER / 2 : sim_phase_end(phase) - sim_us(sim);
    if (phase != NULL && phase->is == VB_PHASE_FAILING) {
        *ret_takes_us = phase->after_ms * 1000;
        status = phase->status;
    }
    return *ret_takes_us <= rules->timeout_ms * 1000 && is_expected(rules, status);
}

void sim_probe(struct sim *sim, struct sim_backend *backend)
{
    uint64_t takes_us;
    backend->passed = look(sim, backend, &takes_us);
    sim_at(sim, sim->now_us + VB_MIN(takes_us, sim->pool_conf->health.timeout_ms * 1000), SIM_PROBED, backend);
}

void sim_probed(struct sim *sim, struct sim_backend *backend)
{
    const struct vb_conf_health *rules = &sim->pool_conf->health;
    struct vb_health_rules turns = {rules->rise, rules->fall};
    bool changed = vb_health_fsm_feed(&backend->fsm, &turns, backend->passed);
    backend->record.checks++;
    if (changed && backend->passed)
        vb_outlier_forgive(sim->shm, backend->slot);
    if (backend->passed && rules->port == 0)
        vb_outlier_refute(sim->shm, backend->slot, sim->now_us);
    vb_shm_write_health(sim->shm, backend->slot, backend->fsm.state, &backend->record);
    if (changed && backend->passed) /* by this clock */
        atomic_store(&vb_shm_backend(sim->shm, backend->slot)->ready_since_us, sim->now_us);
    sim->has_room |= changed;
    schedule(sim, backend);
}
