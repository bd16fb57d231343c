/*
 * The thread: a check for every slot in use, by the rules of its pool.
 *
 * Backends come and go while it runs, and rules change (vb_health_update). A check's memory is the thread's.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "checker.h"
#include "vb/log.h"

#define RESOLVER_THREADS "16"
#define TRY_AGAIN_MS     5000 /* to make a check for which there was no memory */

void vb_health_count_look(struct vb_health *health)
{
    if (--health->awaited > 0)
        return;
    atomic_store(&health->looked_at, health->followed);
    health->looked(health->arg);
}

static void follow_rules(struct vb_health *health, struct vb_health_pool *pool)
{
    struct vb_conf_health *next = vb_rules_take(&pool->rules);
    struct vb_check *check;
    if (next == NULL)
        return;
    bool switched = pool->rules.now != NULL && pool->rules.now->enabled != next->enabled;
    LIST_FOREACH (check, &pool->checks, link)
        vb_probe_cancel(&check->probe);
    vb_rules_replace(&pool->rules, health->loop, next);
    LIST_FOREACH (check, &pool->checks, link)
        vb_check_follow_rules(check, switched);
}

/* Makes the check what the slot is. Negative errno: there is a backend, but its check could not be made. */
static int follow_slot(struct vb_health *health, unsigned slot)
{
    const struct vb_shm_backend *row = vb_shm_backend(health->shm, slot);
    struct vb_check *check = health->checks[slot];
    /* In this order: a slot becomes `used` last, so what is read below is of this incarnation or of a later one, and
     * then the update that comes with that one finds the difference. */
    uint32_t incarnation = atomic_load(&row->incarnation);
    bool used = atomic_load(&row->used);
    if (check != NULL && (!used || check->incarnation != incarnation)) {
        vb_check_end(check);
        vb_check_note_first_result(check);
        check = NULL;
    }
    if (!used)
        return 0;
    unsigned pool = atomic_load(&row->pool);
    follow_rules(health, &health->pools[pool]);
    int r = check == NULL ? vb_check_begin(health, slot, incarnation, pool) : 0;
    if (r == 0)
        vb_check_follow_admin(health->checks[slot]);
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
                     vb_shm_pool(health->shm, atomic_load(&row->pool))->name, row->name, why);
}

static void on_again(uv_timer_t *timer);

static void follow_slots(struct vb_health *health, bool first_time)
{
    bool all = true;
    for (unsigned slot = 0; slot < vb_shm_capacity(health->shm).backends; slot++) {
        int r = follow_slot(health, slot);
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
    struct vb_check *check;
    for (unsigned slot = 0; slot < vb_shm_capacity(health->shm).backends; slot++)
        if (health->checks[slot] != NULL)
            vb_check_end(health->checks[slot]);
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
    if (atomic_load(&health->stopping)) {
        close_all(health);
        return;
    }
    if (atomic_exchange(&health->pausing, false)) {
        uv_sem_post(&health->paused);
        uv_sem_wait(&health->resumed);
    }
    health->followed = atomic_load(&health->asked);
    health->awaited++;
    follow_slots(health, true);
    vb_health_count_look(health);
}

static void thread_main(void *arg)
{
    struct vb_health *health = arg;
    vb_health_count_look(health);
    vb_loop_run(health->loop);
}

static void free_health(struct vb_health *health)
{
    for (unsigned i = 0; health->pools != NULL && i < vb_shm_capacity(health->shm).backends; i++)
        vb_rules_close(&health->pools[i].rules);
    vb_loop_close(&health->loop);
    assert(LIST_EMPTY(&health->gone)); /* libuv has let go of all that it held */
    uv_sem_destroy(&health->paused);
    uv_sem_destroy(&health->resumed);
    free(health->pools);
    free(health->checks);
    free(health);
}

int vb_health_open(struct vb_health **ret_health, struct vb_shm *shm, void (*looked)(void *arg), void *arg)
{
    unsigned capacity = vb_shm_capacity(shm).backends;
    struct vb_health *health = calloc(1, sizeof(*health));
    if (health == NULL)
        return -ENOMEM;
    uv_sem_init(&health->paused, 0);
    uv_sem_init(&health->resumed, 0);
    health->shm = shm;
    health->looked = looked;
    health->arg = arg;
    health->followed = health->asked = 1;
    LIST_INIT(&health->gone);
    vb_rand_init(&health->rand);
    int r = -ENOMEM;
    health->checks = calloc(capacity, sizeof(*health->checks));
    health->pools = calloc(capacity, sizeof(*health->pools));
    if (health->checks == NULL || health->pools == NULL)
        goto fail;
    r = vb_loop_open(&health->loop);
    if (r < 0)
        goto fail;
    r = uv_async_init(vb_loop_uv(health->loop), &health->wake, on_wake);
    if (r < 0)
        goto fail;
    uv_timer_init(vb_loop_uv(health->loop), &health->again);
    *ret_health = health;
    return 0;

fail:
    free_health(health);
    return r;
}

int vb_health_set_rules(struct vb_health *health, unsigned pool, const struct vb_conf_health *rules)
{
    return vb_rules_hand_over(&health->pools[pool].rules, rules);
}

int vb_health_start(struct vb_health *health)
{
    /* libuv lets half of its threads resolve names: of the usual 4 two dead names would keep all others waiting. */
    setenv("UV_THREADPOOL_SIZE", RESOLVER_THREADS, 0);
    int r = 0;
    health->awaited = 1;
    for (unsigned slot = 0; slot < vb_shm_capacity(health->shm).backends && r == 0; slot++)
        r = follow_slot(health, slot);
    if (r == 0)
        r = uv_thread_create(&health->thread, thread_main, health);
    health->running = r == 0;
    return r;
}

void vb_health_update(struct vb_health *health)
{
    atomic_fetch_add(&health->asked, 1);
    uv_async_send(&health->wake);
}

bool vb_health_has_looked(const struct vb_health *health)
{
    return atomic_load(&health->looked_at) == atomic_load(&health->asked);
}

void vb_health_pause(struct vb_health *health)
{
    if (!health->running)
        return;
    atomic_store(&health->pausing, true);
    uv_async_send(&health->wake);
    uv_sem_wait(&health->paused);
}

void vb_health_resume(struct vb_health *health)
{
    uv_sem_post(&health->resumed);
}

bool vb_health_stop(struct vb_health **health_ptr)
{
    struct vb_health *health = *health_ptr;
    if (health == NULL)
        return true;
    *health_ptr = NULL;
    if (health->running) {
        atomic_store(&health->stopping, true);
        uv_async_send(&health->wake);
        uv_thread_join(&health->thread);
    } else {
        close_all(health);
    }
    bool clean = health->clean;
    if (clean)
        free_health(health);
    return clean;
}
