/*
 * The thread: when each backend is probed, and what a result means.
 *
 * Every backend has its own schedule with 10% jitter, so that a thousand of them spread out by themselves. The interval
 * counts from the end of a probe; while a backend is between two states it is the shorter fast_interval.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

#include "probe.h"
#include "vb/clock.h"
#include "vb/health.h"
#include "vb/lb.h"
#include "vb/log.h"
#include "vb/rand.h"

/* Where checks are off, a name that resolved is looked up again this often; one that did not, at the interval. */
#define LOOK_UP_AGAIN_MS 30000
#define RESOLVER_THREADS "16"

/* A backend and its schedule. */
struct check {
    struct vb_probe probe; /* first: a probe is its check */
    struct vb_health *health;
    unsigned slot;
    struct vb_health_fsm fsm;
    struct vb_health_record record;
    uv_timer_t timer;
    bool has_result;
    bool unjudged; /* the last probe could not be made */
};

struct vb_health {
    struct vb_shm *shm;
    const struct vb_conf *conf;
    struct vb_loop *loop;
    uv_thread_t thread;
    uv_async_t stop;
    struct vb_rand rand;
    struct vb_timer_list *timeouts; /* by pool */
    struct check *checks;
    unsigned n_checks, waiting_for_first;
    void (*first_round)(void *arg);
    void *arg;
    bool clean; /* nothing was left with the resolver */
    struct vb_head head;
};

static void on_due(uv_timer_t *timer);

static void schedule(struct check *check)
{
    struct vb_health *health = check->health;
    const struct vb_conf_health *rules = &check->probe.pool->health;
    uint64_t interval = vb_health_fsm_in_transition(&check->fsm) ? rules->fast_interval_ms : rules->interval_ms;
    if (!rules->enabled && check->fsm.state == VB_HEALTH_UP)
        interval = LOOK_UP_AGAIN_MS;
    uint64_t tenth = interval / 10;
    uint64_t wait = interval - tenth + vb_rand_below(&health->rand, 2 * tenth + 1);
    uv_timer_start(&check->timer, on_due, VB_MAX(wait, 1u), 0);
}

/* How many of its pool may be picked. */
static void count_usable(const struct vb_shm *shm, unsigned pool, unsigned *ret_usable, unsigned *ret_all)
{
    *ret_usable = *ret_all = 0;
    for (unsigned i = 0; i < vb_shm_capacity(shm).backends; i++) {
        const struct vb_shm_backend *backend = vb_shm_backend(shm, i);
        if (!atomic_load(&backend->used) || atomic_load(&backend->pool) != pool)
            continue;
        ++*ret_all;
        *ret_usable += vb_shm_backend_usable(backend, vb_clock_us());
    }
}

static void log_transition(const struct check *check, bool passed, uint64_t before_wall_us)
{
    const struct vb_shm *shm = check->health->shm;
    const struct vb_shm_backend *backend = vb_shm_backend(shm, check->slot);
    unsigned usable, all;
    char since[48] = "";
    count_usable(shm, atomic_load(&backend->pool), &usable, &all);
    if (before_wall_us != 0)
        snprintf(since, sizeof(since), " after %.1f s", (double)(check->record.changed_wall_us - before_wall_us) / 1e6);
    if (passed)
        vb_log_info("backend %s/%s (%s) is UP%s; %u of %u usable", check->probe.pool->name, backend->name,
                    backend->address, since, usable, all);
    else
        vb_log_warn("backend %s/%s (%s) is DOWN%s: %s; %u of %u usable", check->probe.pool->name, backend->name,
                    backend->address, since, check->record.reason, usable, all);
}

static void note_first_result(struct check *check)
{
    struct vb_health *health = check->health;
    if (check->has_result)
        return;
    check->has_result = true;
    if (--health->waiting_for_first == 0)
        health->first_round(health->arg);
}

static void take_address(struct check *check)
{
    const struct vb_probe *probe = &check->probe;
    struct vb_health_record *record = &check->record;
    if (probe->n_addresses == 0)
        return;
    const struct vb_probe_address *now = &probe->addresses[probe->current];
    bool moved = record->address_len != 0 &&
                 (record->address_len != now->length || memcmp(&record->address, &now->address, now->length) != 0);
    record->address = now->address;
    record->address_len = now->length;
    if (moved) /* connections to the old address wait in the workers; none may be used again */
        atomic_fetch_add(&vb_shm_backend(check->health->shm, check->slot)->incarnation, 1);
}

/* A verdict goes into the record and the state. */
static void judge(struct check *check, const struct vb_probe_result *result)
{
    const struct vb_probe *probe = &check->probe;
    struct vb_health_record *record = &check->record;
    struct vb_health_rules rules = {probe->pool->health.rise, probe->pool->health.fall};
    uint64_t before = record->changed_wall_us;
    record->checks++;
    record->history = record->history << 1 | result->passed;
    record->last_wall_us = vb_clock_wall_us();
    record->last_latency_us = (uint32_t)VB_MIN(vb_clock_us() - probe->begun_us, UINT32_MAX);
    take_address(check);
    if (!result->passed) {
        record->failures++;
        vb_copy(record->reason, sizeof(record->reason), result->reason);
    }
    bool changed = vb_health_fsm_feed(&check->fsm, &rules, result->passed);
    if (changed) {
        record->changed_wall_us = record->last_wall_us;
        record->transitions++;
    }
    enum vb_health_state state = check->fsm.state;
    if (!probe->pool->health.enabled && state == VB_HEALTH_UP)
        state = VB_HEALTH_UNCHECKED; /* only its name was looked up */
    vb_shm_write_health(check->health->shm, check->slot, state, record);
    if (changed && (probe->pool->health.enabled || before != 0 || !result->passed))
        log_transition(check, result->passed, before);
}

static void on_probe_done(struct vb_probe *probe, const struct vb_probe_result *result)
{
    struct check *check = vb_container_of(probe, struct check, probe);
    if (!result->no_verdict)
        judge(check, result);
    else if (!check->unjudged)
        vb_log_warn("backend %s/%s cannot be checked: %s; it stays as it is", probe->pool->name,
                    vb_shm_backend(check->health->shm, check->slot)->name, result->reason);
    check->unjudged = result->no_verdict;
    note_first_result(check);
    schedule(check);
}

static void on_due(uv_timer_t *timer)
{
    struct check *check = timer->data;
    bool doubted = check->fsm.state == VB_HEALTH_DOWN || vb_health_fsm_in_transition(&check->fsm);
    if (check->probe.pool->health.enabled)
        vb_probe_begin(&check->probe, doubted);
    else if (!check->probe.literal || !check->has_result)
        vb_probe_resolve(&check->probe);
}

/* ---- the thread -------------------------------------------------------------------------------------------------- */

static void on_stop(uv_async_t *async)
{
    struct vb_health *health = async->data;
    health->clean = true;
    for (unsigned i = 0; i < health->n_checks; i++) {
        uv_close((uv_handle_t *)&health->checks[i].timer, NULL);
        health->clean &= vb_probe_stop(&health->checks[i].probe);
    }
    uv_close((uv_handle_t *)&health->stop, NULL);
    if (!health->clean)
        vb_loop_stop(health->loop);
}

static void thread_main(void *arg)
{
    struct vb_health *health = arg;
    for (unsigned i = 0; i < health->n_checks; i++)
        uv_timer_start(&health->checks[i].timer, on_due, 0, 0);
    vb_loop_run(health->loop);
}

/* What can be said before the first result: an address is there, or its name must be resolved first. */
static void publish_first(struct check *check)
{
    struct vb_shm *shm = check->health->shm;
    bool literal = check->probe.literal;
    take_address(check);
    if (!literal)
        vb_copy(check->record.reason, sizeof(check->record.reason), "its name has not been resolved yet");
    unsigned now = atomic_load(&vb_shm_backend(shm, check->slot)->health);
    vb_shm_write_health(shm, check->slot, literal ? now : VB_HEALTH_DOWN, &check->record);
}

static int open_checks(struct vb_health *health)
{
    unsigned capacity = vb_shm_capacity(health->shm).backends;
    health->checks = calloc(capacity, sizeof(*health->checks));
    if (health->checks == NULL)
        return -ENOMEM;
    for (unsigned slot = 0; slot < capacity; slot++) {
        const struct vb_shm_backend *backend = vb_shm_backend(health->shm, slot);
        if (!atomic_load(&backend->used))
            continue;
        struct check *check = &health->checks[health->n_checks];
        unsigned pool = atomic_load(&backend->pool);
        check->health = health;
        check->slot = slot;
        check->probe.loop = health->loop;
        check->probe.pool = &health->conf->pools[pool];
        check->probe.timeouts = &health->timeouts[pool];
        check->probe.head = &health->head;
        check->probe.done = on_probe_done;
        int r = vb_probe_init(&check->probe, backend->address);
        if (r < 0)
            return r;
        uv_timer_init(vb_loop_uv(health->loop), &check->timer);
        check->timer.data = check;
        publish_first(check);
        health->n_checks++;
    }
    health->waiting_for_first = health->n_checks;
    return 0;
}

static void free_health(struct vb_health *health)
{
    if (health->timeouts != NULL)
        for (unsigned i = 0; i < health->conf->n_pools; i++)
            vb_timer_list_close(&health->timeouts[i]);
    vb_loop_close(&health->loop);
    free(health->timeouts);
    free(health->checks);
    free(health);
}

int vb_health_start(struct vb_health **ret_health, struct vb_shm *shm, const struct vb_conf *conf,
                    void (*first_round)(void *arg), void *arg)
{
    struct vb_health *health = calloc(1, sizeof(*health));
    if (health == NULL)
        return -ENOMEM;
    /* libuv lets half of its threads resolve names: of the usual 4 two dead names would keep all others waiting. */
    setenv("UV_THREADPOOL_SIZE", RESOLVER_THREADS, 0);
    health->shm = shm;
    health->conf = conf;
    health->first_round = first_round;
    health->arg = arg;
    vb_rand_init(&health->rand);
    int r = vb_loop_open(&health->loop);
    if (r < 0)
        goto fail;
    r = -ENOMEM;
    health->timeouts = calloc(conf->n_pools, sizeof(*health->timeouts));
    if (health->timeouts == NULL)
        goto fail;
    for (unsigned i = 0; i < conf->n_pools; i++)
        vb_timer_list_open(&health->timeouts[i], health->loop, conf->pools[i].health.timeout_ms);
    health->stop.data = health;
    r = uv_async_init(vb_loop_uv(health->loop), &health->stop, on_stop);
    if (r < 0)
        goto fail;
    r = open_checks(health);
    if (r == 0)
        r = uv_thread_create(&health->thread, thread_main, health);
    if (r < 0)
        goto fail_handles;
    *ret_health = health;
    return 0;

fail_handles:
    on_stop(&health->stop);
fail:
    free_health(health);
    return r;
}

bool vb_health_stop(struct vb_health **health_ptr)
{
    struct vb_health *health = *health_ptr;
    if (health == NULL)
        return true;
    *health_ptr = NULL;
    uv_async_send(&health->stop);
    uv_thread_join(&health->thread);
    bool clean = health->clean;
    if (clean)
        free_health(health);
    return clean;
}
