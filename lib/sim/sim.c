#include "vb/sim.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "sim_priv.h"

enum { WORKERS = 4, SECOND_US = 1000000 };

/* ---- what is played ---- */
const struct vb_conf_pool *vb_sim_pool(const struct vb_conf *conf)
{
    const char *name = conf->simulate.pool;
    return name[0] != '\0' ? vb_conf_find_pool(conf, name) : &conf->pools[0];
}

unsigned vb_sim_workers(const struct vb_conf *conf)
{
    if (conf->simulate.workers != 0)
        return conf->simulate.workers;
    return conf->workers != 0 ? conf->workers : WORKERS;
}

unsigned vb_sim_policies(const struct vb_conf *conf, enum vb_balance ret_policies[VB_BALANCES])
{
    const struct vb_conf_simulate *simulate = &conf->simulate;
    memcpy(ret_policies, simulate->policies, sizeof(simulate->policies));
    if (simulate->n_policies > 0)
        return simulate->n_policies;
    ret_policies[0] = vb_sim_pool(conf)->balance;
    return 1;
}

/* ---- setting up ---- */
void sim_at(struct sim *sim, uint64_t at_us, enum sim_event_kind kind, void *what)
{
    if (sim_heap_add(&sim->heap, at_us, kind, what) < 0)
        sim->failed = -ENOMEM;
}

static int add_backend(struct sim *sim, unsigned of, unsigned copy)
{
    const struct vb_conf_backend *conf = &sim->pool_conf->backends[of];
    struct sim_backend *backend = &sim->backends[sim->n_backends];
    struct vb_sim_backend *figures = &sim->figures.result->backends[sim->n_backends];
    figures->of = of;
    vb_copy(figures->name, sizeof(figures->name), conf->name);
    if (copy > 0)
        snprintf(figures->name, sizeof(figures->name), "%.50s#%u", conf->name, copy + 1);
    bool checked = sim->pool_conf->health.enabled;
    int slot = vb_shm_add_backend(sim->shm, sim->pool,
                                  &(struct vb_backend_spec){.name = figures->name,
                                                            .address = conf->address,
                                                            .weight = conf->weight,
                                                            .configured = true,
                                                            .health = checked ? VB_HEALTH_UP : VB_HEALTH_UNCHECKED,
                                                            .admin = VB_ADMIN_READY,
                                                            .max_connections = conf->max_connections,
                                                            .backup = conf->backup});
    if (slot < 0)
        return slot;
    assert((unsigned)slot == sim->n_backends);
    sim->n_backends++;
    atomic_store(&vb_shm_backend(sim->shm, (unsigned)slot)->ready_since_us, 0); /* since ever, by this clock */
    backend->slot = (unsigned)slot;
    backend->figures = figures;
    sim_model_init(&backend->model, sim->conf, conf->name);
    TAILQ_INIT(&backend->busy);
    TAILQ_INIT(&backend->waiting);
    for (unsigned i = 0; i < backend->model.n_phases; i++)
        if (backend->model.phases[i].is == VB_PHASE_DOWN)
            sim_at(sim, SIM_BEGIN_US + backend->model.phases[i].from_ms * 1000, SIM_GOES_DOWN, backend);
    return 0;
}

/* Two that a fair policy gives the same, as long as they are both there. */
static bool are_alike(const struct sim *sim, unsigned i, unsigned j)
{
    const struct sim_backend *a = &sim->backends[i], *b = &sim->backends[j];
    const struct vb_conf_backend *one = &sim->pool_conf->backends[a->figures->of];
    const struct vb_conf_backend *other = &sim->pool_conf->backends[b->figures->of];
    return a->model.n_phases == 0 && b->model.n_phases == 0 && a->model.distribution == b->model.distribution &&
           a->model.service_us == b->model.service_us && a->model.concurrency == b->model.concurrency &&
           one->weight == other->weight && one->backup == other->backup &&
           one->max_connections == other->max_connections;
}

static unsigned count_alike(const struct sim *sim, unsigned i)
{
    unsigned n = 0;
    for (unsigned j = 0; j < sim->n_backends; j++)
        n += are_alike(sim, i, j);
    return n;
}

/* The most numerous ones; returns how many. */
static unsigned find_alike(struct sim *sim)
{
    unsigned best = 0, most = 0;
    for (unsigned i = 0; i < sim->n_backends; i++) {
        unsigned n = count_alike(sim, i);
        if (n > most) {
            best = i;
            most = n;
        }
    }
    for (unsigned i = 0; i < sim->n_backends && most > 0; i++)
        sim->backends[i].is_alike = are_alike(sim, best, i);
    return most;
}

static int add_backends(struct sim *sim)
{
    for (unsigned copy = 0; copy < sim->conf->copies; copy++) {
        for (unsigned i = 0; i < sim->pool_conf->n_backends; i++) {
            int r = add_backend(sim, i, copy);
            if (r < 0)
                return r;
        }
    }
    return sim_figures_init(&sim->figures, find_alike(sim));
}

static int add_workers(struct sim *sim)
{
    struct vb_lb_rules rules = {.balance = vb_balance_name(sim->policy),
                                .hash_bound = sim->pool_conf->hash.bounded,
                                .slow_start_us = sim->pool_conf->slow_start_ms * 1000};
    for (unsigned i = 0; i < sim->n_workers; i++) {
        int slot = vb_shm_claim_worker(sim->shm, i, 1, false);
        if (slot < 0)
            return slot;
        assert((unsigned)slot == i);
        vb_rand_seed(&sim->chances[i], sim->conf->seed + 1000 + i);
        int r = vb_lb_open(&sim->workers[i], sim->shm, sim->pool, i, &rules, &sim->chances[i]);
        if (r < 0)
            return r;
    }
    return 0;
}

static int set_up(struct sim *sim)
{
    unsigned n = sim->pool_conf->n_backends * sim->conf->copies;
    struct vb_shm_capacity cap = {.workers = sim->n_workers, .backends = n};
    struct vb_sim_result *result = sim->figures.result;
    result->policy = sim->policy;
    result->n_backends = n;
    result->backends = calloc(n, sizeof(*result->backends));
    sim->backends = calloc(n, sizeof(*sim->backends));
    if (result->backends == NULL || sim->backends == NULL)
        return -ENOMEM;
    int r = vb_shm_create_private(&sim->shm, cap);
    if (r < 0)
        return r;
    r = vb_shm_add_pool(sim->shm, &(struct vb_pool_spec){.name = sim->pool_conf->name,
                                                         .balance = vb_balance_name(sim->policy),
                                                         .panic = sim->pool_conf->panic,
                                                         .max_ejected = sim->pool_conf->outlier.max_ejected});
    if (r < 0)
        return r;
    sim->pool = (unsigned)r;
    r = add_backends(sim);
    if (r == 0)
        r = add_workers(sim);
    if (r == 0)
        r = sim_clients_begin(sim);
    sim_checks_begin(sim);
    sim_at(sim, sim->now_us, SIM_SECOND, NULL);
    return r;
}

static void take_down(struct sim *sim)
{
    for (unsigned i = 0; i < sim->n_workers; i++)
        vb_lb_close(&sim->workers[i]);
    vb_shm_close(&sim->shm);
    sim_heap_free(&sim->heap);
    sim_arena_free(&sim->requests);
    sim_arena_free(&sim->jobs);
    sim_figures_free(&sim->figures);
    free(sim->backends);
    free(sim->sums);
    free(sim);
}

/* ---- running ---- */
/* What the master and each worker do once a second. */
static void on_second(struct sim *sim)
{
    vb_retry_budget_mark(vb_shm_pool(sim->shm, sim->pool), sim->now_us);
    sim_look(sim);
    sim->has_room = true; /* an ejection may be over */
    sim_at(sim, sim->now_us + SECOND_US, SIM_SECOND, NULL);
}

static void play(struct sim *sim, const struct sim_event *event)
{
    switch (event->kind) {
    case SIM_ARRIVAL:
        sim_client_arrives(sim);
        break;
    case SIM_SERVED:
        sim_backend_served(sim, event->what);
        break;
    case SIM_GOES_DOWN:
        sim_backend_goes_down(sim, event->what);
        break;
    case SIM_PROBE:
        sim_probe(sim, event->what);
        break;
    case SIM_PROBED:
        sim_probed(sim, event->what);
        break;
    case SIM_TRY_TIMEOUT:
        sim_time_out_tries(sim);
        break;
    case SIM_LINE_TIMEOUT:
        sim_time_out_line(sim);
        break;
    case SIM_SECOND:
        on_second(sim);
        break;
    }
}

/* All that was counted has been taken back. */
static bool is_quiet(const struct sim *sim)
{
    const struct vb_sim_result *result = sim->figures.result;
    for (unsigned i = 0; i < sim->n_backends; i++)
        if (sim->backends[i].in_flight != 0 || vb_shm_load(sim->shm, i) != 0)
            return false;
    return result->answered + result->errors == result->requests && TAILQ_EMPTY(&sim->line) &&
           vb_shm_sum_places(sim->shm, sim->pool, VB_PLACE_REQUEST) == 0 &&
           vb_shm_sum_places(sim->shm, sim->pool, VB_PLACE_PENDING) == 0;
}

/* Until all that have come are answered, or have been refused. */
static int run(struct sim *sim)
{
    struct sim_event event;
    while ((sim->arriving > 0 || sim->unfinished > 0) && sim->failed == 0 && sim_heap_take(&sim->heap, &event)) {
        sim->now_us = event.at_us;
        play(sim, &event);
        sim_see_doubts(sim);
        if (sim->has_room)
            sim_serve_line(sim);
    }
    assert(sim->failed != 0 || is_quiet(sim));
    return sim->failed;
}

int vb_sim_run(const struct vb_conf *conf, enum vb_balance policy, struct vb_sim_result **ret_result)
{
    struct sim *sim = calloc(1, sizeof(*sim));
    struct vb_sim_result *result = calloc(1, sizeof(*result));
    int r = -ENOMEM;
    if (sim == NULL || result == NULL)
        goto out;
    sim->conf = &conf->simulate;
    sim->pool_conf = vb_sim_pool(conf);
    sim->policy = policy;
    sim->now_us = SIM_BEGIN_US;
    sim->length_us = sim->conf->duration_ms * 1000;
    sim->n_workers = vb_sim_workers(conf);
    sim->requests.size = sizeof(struct sim_request);
    sim->jobs.size = sizeof(struct sim_job);
    sim->figures.result = result;
    sim->outlier = (struct vb_outlier_rules){
        .consecutive = sim->pool_conf->outlier.enabled ? sim->pool_conf->outlier.consecutive : 0,
        .eject_us = sim->pool_conf->outlier.eject_ms * 1000,
        .eject_max_us = sim->pool_conf->outlier.eject_max_ms * 1000};
    TAILQ_INIT(&sim->tries);
    TAILQ_INIT(&sim->line);
    vb_rand_seed(&sim->arrivals, sim->conf->seed);
    vb_rand_seed(&sim->probes, sim->conf->seed + 1);
    r = set_up(sim);
    if (r == 0)
        r = run(sim);
    if (r == 0) {
        sim_figures_end(&sim->figures);
        *ret_result = result;
        result = NULL;
    }
out:
    if (sim != NULL)
        take_down(sim);
    vb_sim_free(&result);
    return r;
}

void vb_sim_free(struct vb_sim_result **result)
{
    if (*result == NULL)
        return;
    free((*result)->backends);
    free(*result);
    *result = NULL;
}
