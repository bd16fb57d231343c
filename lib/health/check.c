/*
 * A backend's check: when it is probed, and what a result means.
 *
 * Every backend has its own schedule with 10% jitter, so that a thousand of them spread out by themselves. The interval
 * counts from the end of a probe; while a backend is between two states it is the shorter fast_interval.
 *
 * A check belongs to one incarnation of its slot, has copies of what it needs of the row, and writes nothing once the
 * slot is another's: between the master's change and the update this thread may still be in the middle of a probe.
 */
#include <errno.h>
#include <stdio.h>

#include "checker.h"
#include "vb/clock.h"
#include "vb/log.h"

/* Where checks are off, a name that resolved is looked up again this often; one that did not, at the interval. */
#define LOOK_UP_AGAIN_MS 30000

static void on_due(uv_timer_t *timer);

static void schedule(struct vb_check *check)
{
    struct vb_health *health = check->health;
    const struct vb_conf_health *rules = check->probe.rules->now;
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

static void log_transition(const struct vb_check *check, bool passed, uint64_t before_wall_us)
{
    const struct vb_shm *shm = check->health->shm;
    const char *pool = check->pool_name;
    unsigned usable, all;
    char since[48] = "";
    count_usable(shm, check->pool, &usable, &all);
    if (before_wall_us != 0)
        snprintf(since, sizeof(since), " after %.1f s", (double)(check->record.changed_wall_us - before_wall_us) / 1e6);
    if (passed)
        vb_log_info("backend %s/%s (%s) is UP%s; %u of %u usable", pool, check->name, check->address, since, usable,
                    all);
    else
        vb_log_warn("backend %s/%s (%s) is DOWN%s: %s; %u of %u usable", pool, check->name, check->address, since,
                    check->record.reason, usable, all);
}

void vb_check_note_first_result(struct vb_check *check)
{
    if (!check->awaited)
        return;
    check->awaited = false;
    vb_health_count_look(check->health);
}

/* False: the slot is free or another's by now, and an update is on its way. */
static bool has_slot(const struct vb_check *check)
{
    const struct vb_shm_backend *row = vb_shm_backend(check->health->shm, check->slot);
    return atomic_load(&row->used) && atomic_load(&row->incarnation) == check->incarnation;
}

static void take_address(struct vb_check *check)
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
static void publish(struct vb_check *check, enum vb_health_state state, const char *reason)
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
static void forgive(const struct vb_check *check)
{
    struct vb_shm_backend *row = vb_shm_backend(check->health->shm, check->slot);
    vb_outlier_forgive(check->health->shm, check->slot);
    atomic_store_explicit(&row->announced_idle_ms, 0, memory_order_relaxed);
    atomic_store_explicit(&row->learned_idle_ms, 0, memory_order_relaxed);
}

/* A verdict goes into the record and the state. */
static void judge(struct vb_check *check, const struct vb_probe_result *result)
{
    const struct vb_conf_health *rules = check->probe.rules->now;
    struct vb_health_record *record = &check->record;
    struct vb_health_rules turns = {rules->rise, rules->fall};
    uint64_t before = record->changed_wall_us;
    record->checks++;
    record->history = record->history << 1 | result->passed;
    record->last_wall_us = vb_clock_wall_us();
    record->last_latency_us = (uint32_t)VB_MIN(vb_clock_us() - check->probe.begun_us, UINT32_MAX);
    take_address(check);
    if (!result->passed) {
        record->failures++;
        vb_copy(record->reason, sizeof(record->reason), result->reason);
    }
    bool changed = vb_health_fsm_feed(&check->fsm, &turns, result->passed);
    if (changed) {
        record->changed_wall_us = record->last_wall_us;
        record->transitions++;
    }
    if (changed && result->passed &&
        atomic_load(&vb_shm_backend(check->health->shm, check->slot)->health) == VB_HEALTH_DOWN)
        forgive(check); /* before it can be picked */
    if (result->passed && rules->enabled && rules->port == 0)
        vb_outlier_refute(check->health->shm, check->slot, vb_clock_us());
    enum vb_health_state state = check->fsm.state;
    if (!rules->enabled && state == VB_HEALTH_UP)
        state = VB_HEALTH_UNCHECKED; /* only its name was looked up */
    publish(check, state, record->reason);
    if (changed && (rules->enabled || before != 0 || !result->passed))
        log_transition(check, result->passed, before);
}

static void take_load(const struct vb_check *check, const struct vb_probe_result *result)
{
    if (result->reports_load)
        vb_lb_report_load(check->health->shm, check->slot, result->load_milli, vb_clock_us());
}

static void on_probe_done(struct vb_probe *probe, const struct vb_probe_result *result)
{
    struct vb_check *check = vb_container_of(probe, struct vb_check, probe);
    if (!has_slot(check))
        return;
    take_load(check, result);
    if (!result->no_verdict)
        judge(check, result);
    else if (!check->unjudged)
        vb_log_warn("backend %s/%s cannot be checked: %s; it stays as it is", check->pool_name, check->name,
                    result->reason);
    check->unjudged = result->no_verdict;
    vb_check_note_first_result(check);
    schedule(check);
}

static void on_due(uv_timer_t *timer)
{
    struct vb_check *check = vb_container_of(timer, struct vb_check, timer);
    bool doubted = check->fsm.state == VB_HEALTH_DOWN || vb_health_fsm_in_transition(&check->fsm);
    if (check->probe.rules->now->enabled)
        vb_probe_begin(&check->probe, doubted);
    else if (!check->probe.literal || check->fsm.state == VB_HEALTH_UNKNOWN)
        vb_probe_resolve(&check->probe);
}

/* ---- a check comes and goes -------------------------------------------------------------------------------------- */

/* What can be said before the first result: who was not taken for down is served, once it is known where it is. */
static void publish_first(struct vb_check *check)
{
    bool known = check->probe.n_addresses > 0;
    take_address(check);
    if (known && !check->probe.rules->now->enabled)
        publish(check, VB_HEALTH_UNCHECKED, check->record.reason);
    else if (known && atomic_load(&vb_shm_backend(check->health->shm, check->slot)->health) != VB_HEALTH_DOWN)
        publish(check, VB_HEALTH_UNKNOWN, check->record.reason);
    else
        publish(check, VB_HEALTH_DOWN, known ? "not checked yet" : "its name has not been resolved yet");
}

/* Its next result is its first one, which alone decides. */
static void begin_anew(struct vb_check *check)
{
    check->fsm = (struct vb_health_fsm){.state = VB_HEALTH_UNKNOWN};
    check->health->awaited += !check->awaited;
    check->awaited = true;
    publish_first(check);
    uv_timer_start(&check->timer, on_due, 0, 0);
}

/* Results in a row that speak against this state, as far as history goes. */
static unsigned streak_against(const struct vb_health_record *record, enum vb_health_state state)
{
    uint64_t known = VB_MIN(record->checks, 64u), against = state == VB_HEALTH_DOWN;
    unsigned n = 0;
    while (n < known && (record->history >> n & 1) == against)
        n++;
    return n;
}

/* What a health thread before this one knew of it: false when that is nothing to go on with. */
static bool go_on(struct vb_check *check)
{
    const struct vb_health *health = check->health;
    struct vb_health_record record;
    enum vb_health_state state = atomic_load(&vb_shm_backend(health->shm, check->slot)->health);
    if (!vb_shm_read_health(health->shm, check->slot, &record) || record.incarnation != check->incarnation ||
        record.checks == 0)
        return false;
    if (state == VB_HEALTH_UNCHECKED && !check->probe.rules->now->enabled)
        state = VB_HEALTH_UP; /* as judge has it */
    if (state != VB_HEALTH_UP && state != VB_HEALTH_DOWN)
        return false;
    check->record = record;
    check->fsm = (struct vb_health_fsm){.state = state, .streak = streak_against(&record, state)};
    if (record.address_len > 0)
        vb_probe_assume(&check->probe, (struct sockaddr *)&check->record.address, record.address_len);
    uv_timer_start(&check->timer, on_due, 0, 0);
    return true;
}

static void free_when_let_go(struct vb_check *check)
{
    if (!check->closed || check->probe.resolving)
        return;
    LIST_REMOVE(check, link);
    free(check);
}

static void on_probe_let_go(struct vb_probe *probe)
{
    free_when_let_go(vb_container_of(probe, struct vb_check, probe));
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct vb_check *check = vb_container_of((uv_timer_t *)handle, struct vb_check, timer);
    check->closed = true;
    free_when_let_go(check);
}

void vb_check_end(struct vb_check *check)
{
    struct vb_health *health = check->health;
    health->checks[check->slot] = NULL;
    LIST_REMOVE(check, link);
    LIST_INSERT_HEAD(&health->gone, check, link);
    vb_probe_stop(&check->probe);
    uv_close((uv_handle_t *)&check->timer, on_timer_closed);
}

int vb_check_begin(struct vb_health *health, unsigned slot, uint32_t incarnation, unsigned pool)
{
    const struct vb_shm_backend *row = vb_shm_backend(health->shm, slot);
    struct vb_check *check = calloc(1, sizeof(*check));
    assert(health->pools[pool].rules.now != NULL); /* they are set before a pool's first backend is added */
    if (check == NULL)
        return -ENOMEM;
    check->health = health;
    check->slot = slot;
    check->pool = pool;
    check->incarnation = incarnation;
    vb_copy(check->pool_name, sizeof(check->pool_name), vb_shm_pool(health->shm, pool)->name);
    vb_copy(check->name, sizeof(check->name), row->name);
    vb_copy(check->address, sizeof(check->address), row->address);
    check->probe.loop = health->loop;
    check->probe.rules = &health->pools[pool].rules;
    check->probe.head = &health->head;
    check->probe.done = on_probe_done;
    check->probe.let_go = on_probe_let_go;
    int r = vb_probe_init(&check->probe, check->address);
    if (r < 0) {
        free(check);
        return r;
    }
    uv_timer_init(vb_loop_uv(health->loop), &check->timer);
    health->checks[slot] = check;
    LIST_INSERT_HEAD(&health->pools[pool].checks, check, link);
    if (!go_on(check))
        begin_anew(check);
    return 0;
}

/* In maintenance nothing is probed, and what was known before it is worth nothing after it. */
void vb_check_follow_admin(struct vb_check *check)
{
    const struct vb_shm_backend *row = vb_shm_backend(check->health->shm, check->slot);
    bool resting = atomic_load(&row->admin) == VB_ADMIN_MAINT;
    if (check->resting == resting)
        return;
    check->resting = resting;
    if (!resting) {
        begin_anew(check);
        return;
    }
    vb_probe_cancel(&check->probe);
    uv_timer_stop(&check->timer);
    if (atomic_load(&row->health) != VB_HEALTH_DOWN)
        check->record.changed_wall_us = vb_clock_wall_us();
    publish(check, VB_HEALTH_DOWN, "in maintenance");
    vb_check_note_first_result(check);
}

void vb_check_follow_rules(struct vb_check *check, bool switched)
{
    if (!has_slot(check))
        return;
    if (switched)
        check->record =
            (struct vb_health_record){.address = check->record.address, .address_len = check->record.address_len};
    if (check->resting)
        return;
    if (switched)
        begin_anew(check);
    else
        uv_timer_start(&check->timer, on_due, 0, 0);
}
