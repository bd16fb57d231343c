/*
 * The thread: when each backend is probed, and what a result means.
 *
 * Every backend has its own schedule with 10% jitter, so that a thousand of them spread out by themselves. The interval
 * counts from the end of a probe; while a backend is between two states it is the shorter fast_interval.
 *
 * Backends come and go while it runs (vb_health_update): every slot in use has a check, whose memory is the thread's.
 * A check belongs to one incarnation of its slot, has copies of what it needs of the row, and writes nothing once the
 * slot is another's: between the master's change and the update this thread may still be in the middle of a probe.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>
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
#define TRY_AGAIN_MS     5000 /* to make a check for which there was no memory */

/* A backend and its schedule. */
struct check {
    struct vb_probe probe;
    struct vb_health *health;
    LIST_ENTRY(check) link; /* in `gone` */
    unsigned slot;
    uint32_t incarnation; /* of the slot: this backend's */
    char name[VB_SHM_NAME_MAX], address[VB_SHM_ADDRESS_MAX];
    struct vb_health_fsm fsm;
    struct vb_health_record record;
    uv_timer_t timer;
    bool awaited;  /* the first round is not over without it */
    bool resting;  /* in maintenance: nothing is probed */
    bool unjudged; /* the last probe could not be made */
    bool moved;    /* to another address, which is not published yet */
    bool closed;   /* the timer is */
};

struct vb_health {
    struct vb_shm *shm;
    const struct vb_conf *conf;
    struct vb_loop *loop;
    uv_thread_t thread;
    uv_async_t wake; /* something has changed, or `stopping` */
    atomic_bool stopping;
    uv_timer_t again; /* runs while a backend has no check for want of memory */
    struct vb_rand rand;
    struct vb_timer_list *timeouts; /* by pool */
    struct check **checks;          /* by slot; NULL: it has none */
    LIST_HEAD(, check) gone;        /* what libuv still holds of those that ended */
    unsigned waiting_for_first;     /* checks, and the thread itself, before it runs */
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
    uint64_t now_us = vb_clock_us();
    *ret_usable = *ret_all = 0;
    for (unsigned i = 0; i < vb_shm_capacity(shm).backends; i++) {
        const struct vb_shm_backend *backend = vb_shm_backend(shm, i);
        if (!atomic_load(&backend->used) || atomic_load(&backend->pool) != pool)
            continue;
        ++*ret_all;
        *ret_usable += vb_shm_backend_usable(backend, now_us);
    }
}

static void log_transition(const struct check *check, bool passed, uint64_t before_wall_us)
{
    const struct vb_shm *shm = check->health->shm;
    const char *pool = check->probe.pool->name;
    unsigned usable, all;
    char since[48] = "";
    count_usable(shm, atomic_load(&vb_shm_backend(shm, check->slot)->pool), &usable, &all);
    if (before_wall_us != 0)
        snprintf(since, sizeof(since), " after %.1f s", (double)(check->record.changed_wall_us - before_wall_us) / 1e6);
    if (passed)
        vb_log_info("backend %s/%s (%s) is UP%s; %u of %u usable", pool, check->name, check->address, since, usable,
                    all);
    else
        vb_log_warn("backend %s/%s (%s) is DOWN%s: %s; %u of %u usable", pool, check->name, check->address, since,
                    check->record.reason, usable, all);
}

static void count_first(struct vb_health *health)
{
    if (--health->waiting_for_first == 0)
        health->first_round(health->arg);
}

/* It has its first result, or will have none in this round. */
static void note_first_result(struct check *check)
{
    if (!check->awaited)
        return;
    check->awaited = false;
    count_first(check->health);
}

/* False: the slot is free or another's by now, and an update is on its way. */
static bool has_slot(const struct check *check)
{
    const struct vb_shm_backend *row = vb_shm_backend(check->health->shm, check->slot);
    return atomic_load(&row->used) && atomic_load(&row->incarnation) == check->incarnation;
}

static void take_address(struct check *check)
{
    const struct vb_probe *probe = &check->probe;
    struct vb_health_record *record = &check->record;
    if (probe->n_addresses == 0)
        return;
    const struct vb_probe_address *now = &probe->addresses[probe->current];
    check->moved |= record->address_len != 0 &&
                    (record->address_len != now->length || memcmp(&record->address, &now->address, now->length) != 0);
    record->address = now->address;
    record->address_len = now->length;
}

/* The record as it is but for the reason: "not checked yet" is no failure, and forgotten with the first result. */
static void publish(struct check *check, enum vb_health_state state, const char *reason)
{
    struct vb_health_record shown = check->record;
    vb_copy(shown.reason, sizeof(shown.reason), reason);
    shown.incarnation = check->incarnation + check->moved;
    vb_shm_write_health(check->health->shm, check->slot, state, &shown);
    if (!check->moved)
        return;
    /* Connections to the old address wait in the workers; none may be used again. After the address: who finds the new
     * number has found the new address too. */
    check->moved = false;
    atomic_fetch_add(&vb_shm_backend(check->health->shm, check->slot)->incarnation, 1);
    check->incarnation++; /* not stored: where the slot became another's just now, that shows as before */
}

/* It was down and is up: what requests have shown was perhaps of a process that is no more. */
static void forgive(const struct check *check)
{
    struct vb_shm_backend *row = vb_shm_backend(check->health->shm, check->slot);
    vb_outlier_forgive(check->health->shm, check->slot);
    atomic_store_explicit(&row->announced_idle_ms, 0, memory_order_relaxed);
    atomic_store_explicit(&row->learned_idle_ms, 0, memory_order_relaxed);
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
    if (changed && result->passed &&
        atomic_load(&vb_shm_backend(check->health->shm, check->slot)->health) == VB_HEALTH_DOWN)
        forgive(check); /* before it can be picked */
    if (result->passed && probe->pool->health.enabled && probe->pool->health.port == 0)
        vb_outlier_refute(check->health->shm, check->slot, vb_clock_us());
    enum vb_health_state state = check->fsm.state;
    if (!probe->pool->health.enabled && state == VB_HEALTH_UP)
        state = VB_HEALTH_UNCHECKED; /* only its name was looked up */
    publish(check, state, record->reason);
    if (changed && (probe->pool->health.enabled || before != 0 || !result->passed))
        log_transition(check, result->passed, before);
}

static void on_probe_done(struct vb_probe *probe, const struct vb_probe_result *result)
{
    struct check *check = vb_container_of(probe, struct check, probe);
    if (!has_slot(check))
        return;
    if (!result->no_verdict)
        judge(check, result);
    else if (!check->unjudged)
        vb_log_warn("backend %s/%s cannot be checked: %s; it stays as it is", probe->pool->name, check->name,
                    result->reason);
    check->unjudged = result->no_verdict;
    note_first_result(check);
    schedule(check);
}

static void on_due(uv_timer_t *timer)
{
    struct check *check = vb_container_of(timer, struct check, timer);
    bool doubted = check->fsm.state == VB_HEALTH_DOWN || vb_health_fsm_in_transition(&check->fsm);
    if (check->probe.pool->health.enabled)
        vb_probe_begin(&check->probe, doubted);
    else if (!check->probe.literal || check->fsm.state == VB_HEALTH_UNKNOWN)
        vb_probe_resolve(&check->probe);
}

/* ---- a check comes and goes -------------------------------------------------------------------------------------- */

/*
 * What can be said before the first result. At the start a backend whose address is known stays what it was taken for;
 * later it must show first that it is well, because the others serve meanwhile.
 */
static void publish_first(struct check *check, bool at_start)
{
    bool known = check->probe.n_addresses > 0;
    take_address(check);
    if (known && !check->probe.pool->health.enabled)
        publish(check, VB_HEALTH_UNCHECKED, check->record.reason);
    else if (known && at_start)
        publish(check, atomic_load(&vb_shm_backend(check->health->shm, check->slot)->health), "");
    else
        publish(check, VB_HEALTH_DOWN, known ? "not checked yet" : "its name has not been resolved yet");
}

static void free_when_let_go(struct check *check)
{
    if (!check->closed || check->probe.resolving)
        return;
    LIST_REMOVE(check, link);
    free(check);
}

static void on_probe_let_go(struct vb_probe *probe)
{
    free_when_let_go(vb_container_of(probe, struct check, probe));
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct check *check = vb_container_of((uv_timer_t *)handle, struct check, timer);
    check->closed = true;
    free_when_let_go(check);
}

/* Nothing of it happens any more; it is freed when libuv has let go of it. */
static void end_check(struct check *check)
{
    struct vb_health *health = check->health;
    health->checks[check->slot] = NULL;
    LIST_INSERT_HEAD(&health->gone, check, link);
    vb_probe_stop(&check->probe);
    uv_close((uv_handle_t *)&check->timer, on_timer_closed);
}

/* For the backend that had this incarnation of the slot. Negative errno. */
static int begin_check(struct vb_health *health, unsigned slot, uint32_t incarnation, bool at_start)
{
    const struct vb_shm_backend *row = vb_shm_backend(health->shm, slot);
    unsigned pool = atomic_load(&row->pool);
    struct check *check = calloc(1, sizeof(*check));
    if (check == NULL)
        return -ENOMEM;
    check->health = health;
    check->slot = slot;
    check->incarnation = incarnation;
    vb_copy(check->name, sizeof(check->name), row->name);
    vb_copy(check->address, sizeof(check->address), row->address);
    check->probe.loop = health->loop;
    check->probe.pool = &health->conf->pools[pool];
    check->probe.timeouts = &health->timeouts[pool];
    check->probe.head = &health->head;
    check->probe.done = on_probe_done;
    check->probe.let_go = on_probe_let_go;
    int r = vb_probe_init(&check->probe, check->address);
    if (r < 0) {
        free(check);
        return r;
    }
    uv_timer_init(vb_loop_uv(health->loop), &check->timer);
    uv_timer_start(&check->timer, on_due, 0, 0);
    check->awaited = at_start;
    health->waiting_for_first += at_start;
    health->checks[slot] = check;
    publish_first(check, at_start);
    return 0;
}

/* In maintenance nothing is probed, and what was known before it is worth nothing after it. */
static void follow_admin(struct check *check)
{
    const struct vb_shm_backend *row = vb_shm_backend(check->health->shm, check->slot);
    bool resting = atomic_load(&row->admin) == VB_ADMIN_MAINT;
    if (check->resting == resting)
        return;
    check->resting = resting;
    if (!resting) {
        publish_first(check, false);
        uv_timer_start(&check->timer, on_due, 0, 0);
        return;
    }
    vb_probe_cancel(&check->probe);
    uv_timer_stop(&check->timer);
    check->fsm = (struct vb_health_fsm){.state = VB_HEALTH_UNKNOWN};
    if (atomic_load(&row->health) != VB_HEALTH_DOWN)
        check->record.changed_wall_us = vb_clock_wall_us();
    publish(check, VB_HEALTH_DOWN, "in maintenance");
    note_first_result(check);
}

/* Makes the check what the slot is. Negative errno: there is a backend, but its check could not be made. */
static int follow_slot(struct vb_health *health, unsigned slot, bool at_start)
{
    const struct vb_shm_backend *row = vb_shm_backend(health->shm, slot);
    struct check *check = health->checks[slot];
    /* In this order: a slot becomes `used` last, so what is read below is of this incarnation or of a later one, and
     * then the update that comes with that one finds the difference. */
    uint32_t incarnation = atomic_load(&row->incarnation);
    bool used = atomic_load(&row->used);
    if (check != NULL && (!used || check->incarnation != incarnation)) {
        end_check(check);
        note_first_result(check);
        check = NULL;
    }
    int r = 0;
    if (check == NULL && used)
        r = begin_check(health, slot, incarnation, at_start);
    if (health->checks[slot] != NULL)
        follow_admin(health->checks[slot]);
    return r;
}

/* Nobody may take it for checked and well. */
static void publish_uncheckable(struct vb_health *health, unsigned slot, int code, bool first_time)
{
    const struct vb_shm_backend *row = vb_shm_backend(health->shm, slot);
    struct vb_health_record record = {0};
    char why[64];
    snprintf(record.reason, sizeof(record.reason), "it cannot be checked: %s", vb_describe(why, sizeof(why), code));
    vb_shm_write_health(health->shm, slot, VB_HEALTH_DOWN, &record);
    if (first_time)
        vb_log_error("backend %s/%s cannot be checked: %s; it stays down",
                     health->conf->pools[atomic_load(&row->pool)].name, row->name, why);
}

static void on_again(uv_timer_t *timer);

static void follow_slots(struct vb_health *health, bool first_time)
{
    bool all = true;
    for (unsigned slot = 0; slot < vb_shm_capacity(health->shm).backends; slot++) {
        int r = follow_slot(health, slot, false);
        if (r < 0)
            publish_uncheckable(health, slot, r, first_time);
        all &= r == 0;
    }
    if (!all)
        uv_timer_start(&health->again, on_again, TRY_AGAIN_MS, 0);
}

static void on_again(uv_timer_t *timer)
{
    follow_slots(vb_container_of(timer, struct vb_health, again), false);
}

/* ---- the thread -------------------------------------------------------------------------------------------------- */

static void close_all(struct vb_health *health)
{
    struct check *check;
    for (unsigned slot = 0; slot < vb_shm_capacity(health->shm).backends; slot++)
        if (health->checks[slot] != NULL)
            end_check(health->checks[slot]);
    uv_close((uv_handle_t *)&health->wake, NULL);
    uv_close((uv_handle_t *)&health->again, NULL);
    health->clean = true;
    LIST_FOREACH (check, &health->gone, link)
        health->clean &= vb_probe_stop(&check->probe);
    if (!health->clean)
        vb_loop_stop(health->loop);
}

static void on_wake(uv_async_t *async)
{
    struct vb_health *health = vb_container_of(async, struct vb_health, wake);
    if (atomic_load(&health->stopping))
        close_all(health);
    else
        follow_slots(health, true);
}

static void thread_main(void *arg)
{
    struct vb_health *health = arg;
    count_first(health);
    vb_loop_run(health->loop);
}

static void free_health(struct vb_health *health)
{
    if (health->timeouts != NULL)
        for (unsigned i = 0; i < health->conf->n_pools; i++)
            vb_timer_list_close(&health->timeouts[i]);
    vb_loop_close(&health->loop);
    assert(LIST_EMPTY(&health->gone)); /* libuv has let go of all that it held */
    free(health->timeouts);
    free(health->checks);
    free(health);
}

/* What is there before the handles. */
static int open_loop(struct vb_health *health)
{
    const struct vb_conf *conf = health->conf;
    int r = vb_loop_open(&health->loop);
    if (r < 0)
        return r;
    health->checks = calloc(vb_shm_capacity(health->shm).backends, sizeof(struct check *));
    health->timeouts = calloc(conf->n_pools, sizeof(*health->timeouts));
    if (health->checks == NULL || health->timeouts == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < conf->n_pools; i++)
        vb_timer_list_open(&health->timeouts[i], health->loop, conf->pools[i].health.timeout_ms);
    return uv_async_init(vb_loop_uv(health->loop), &health->wake, on_wake);
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
    health->waiting_for_first = 1;
    LIST_INIT(&health->gone);
    vb_rand_init(&health->rand);
    int r = open_loop(health);
    if (r < 0)
        goto fail;
    uv_timer_init(vb_loop_uv(health->loop), &health->again);
    for (unsigned slot = 0; slot < vb_shm_capacity(shm).backends && r == 0; slot++)
        r = follow_slot(health, slot, true);
    if (r == 0)
        r = uv_thread_create(&health->thread, thread_main, health);
    if (r < 0)
        goto fail_handles;
    *ret_health = health;
    return 0;

fail_handles:
    close_all(health);
fail:
    free_health(health);
    return r;
}

void vb_health_update(struct vb_health *health)
{
    uv_async_send(&health->wake);
}

bool vb_health_stop(struct vb_health **health_ptr)
{
    struct vb_health *health = *health_ptr;
    if (health == NULL)
        return true;
    *health_ptr = NULL;
    atomic_store(&health->stopping, true);
    uv_async_send(&health->wake);
    uv_thread_join(&health->thread);
    bool clean = health->clean;
    if (clean)
        free_health(health);
    return clean;
}
