/*
 * Waiting for a turn at a backend.
 *
 * Each worker has a line for each pool, strictly in order of arrival; over workers the line whose first has waited
 * longest is served first (lb/line.c), and who comes anew stands behind all of them. Happy path:
 *
 *   1. all backends are full, or others wait already   vb_queue_join
 *   2. a request leaves a backend, in some worker      vb_queue_place_free: it looks at its own line in the next turn
 *                                                      of its loop if that is first, else wakes the worker whose is
 *   3. the first of the line picks, and goes           serve, vb_exchange_have_turn
 *
 * A worker whose line is not first any more, when there is still room, wakes the one whose is.
 *
 * Two kinds of requests let others pass when a place is none for them: who is stuck to a full backend by his cookie
 * stands aside (`stuck`), and is served by age like the others when that one has room; and who has tried the backend
 * that is free already.
 *
 * What has no event is found by a tick: the places of a worker that was killed; those for lines of older generations,
 * to which there is no inbox; a wake-up that an inbox did not take; a backend that came up, got a higher limit, or has
 * gone (then all who wait are told so). When a place was there at HANG_TICKS ticks in a row although the first has not
 * changed, the worker whose turn it is hangs: then others go before him. One that is only short of CPU takes it sooner.
 */
#include "queue.h"

#include <errno.h>

#include "exchange_priv.h"
#include "vb/clock.h"
#include "vb/inbox.h"

#define HANG_TICKS 5

static void on_tick(struct vb_timer *timer);

static bool is_empty(const struct vb_queue *q)
{
    return TAILQ_EMPTY(&q->line) && TAILQ_EMPTY(&q->stuck);
}

/* ---- the line ---------------------------------------------------------------------------------------------------- */

/* Tells the other workers who is first here. */
static void note(struct vb_proxy_pool *pool)
{
    struct vb_queue *q = &pool->queue;
    const struct vb_exchange *first = TAILQ_FIRST(&q->line), *stuck = TAILQ_FIRST(&q->stuck);
    struct vb_line line = {0};
    if (first != NULL)
        line.since_us = first->waits_since_us;
    if (stuck != NULL) {
        line.stuck_since_us = stuck->waits_since_us;
        line.stuck_to = (unsigned)stuck->stuck_to;
    }
    vb_line_note(q->proxy->shm, q->proxy->slot, pool->index, &line);
}

static struct vb_exchange_line *line_of(const struct vb_exchange *x)
{
    return x->waits_aside ? &x->pool->queue.stuck : &x->pool->queue.line;
}

static bool is_stuck(const struct vb_exchange *x, uint64_t now_us)
{
    const struct vb_ask ask = vb_exchange_ask(x);
    return vb_lb_is_stuck(x->pool->lb, &ask, now_us);
}

/* By age: nearly always at the end. */
static void stand(struct vb_exchange *x, bool aside)
{
    x->waits_aside = aside;
    struct vb_exchange_line *line = line_of(x);
    struct vb_exchange *before = TAILQ_LAST(line, vb_exchange_line);
    while (before != NULL && before->waits_since_us > x->waits_since_us)
        before = TAILQ_PREV(before, vb_exchange_line, waiting);
    if (before != NULL)
        TAILQ_INSERT_AFTER(line, before, x, waiting);
    else
        TAILQ_INSERT_HEAD(line, x, waiting);
}

/* Its backend has gone, or come back: who was stuck is not any more, or is again. */
static void stand_anew(struct vb_exchange *x, bool aside)
{
    TAILQ_REMOVE(line_of(x), x, waiting);
    stand(x, aside);
    note(x->pool);
}

/* Its place among those that are pending stays. */
static void step_out(struct vb_exchange *x)
{
    TAILQ_REMOVE(line_of(x), x, waiting);
    x->waits_since_us = 0;
    vb_timer_stop(&x->turn);
    note(x->pool);
    if (is_empty(&x->pool->queue))
        vb_timer_stop(&x->pool->queue.tick);
}

/* ---- whose turn it is -------------------------------------------------------------------------------------------- */

/* One of an older generation, or that has no inbox: it will see by itself. */
static void wake(const struct vb_proxy_pool *pool, unsigned slot)
{
    const struct vb_proxy *proxy = pool->queue.proxy;
    const struct vb_shm_worker *worker = vb_shm_worker(proxy->shm, slot);
    unsigned index = atomic_load_explicit(&worker->index, memory_order_relaxed);
    if (index < proxy->n_inboxes && atomic_load_explicit(&worker->generation, memory_order_relaxed) ==
                                        atomic_load_explicit(&proxy->stats->generation, memory_order_relaxed))
        vb_inbox_put(proxy->first_inbox + (int)index, -1, (unsigned)(pool - proxy->pools));
}

/*
 * The slot of the worker with the one who waits longest for this backend, or negative for any. One that only those who
 * are stuck to it can go to, because it is drained, or a backup that is not needed, is nothing that others wait for.
 */
static int find_first(const struct vb_proxy_pool *pool, int backend, uint64_t *ret_since_us)
{
    const struct vb_shm *shm = pool->queue.proxy->shm;
    if (backend >= 0 && !vb_lb_is_candidate(pool->lb, (unsigned)backend))
        return vb_line_first_stuck(shm, pool->index, (unsigned)backend, ret_since_us);
    return vb_line_first(shm, pool->index, backend, ret_since_us);
}

/* Has nobody waited longer who could go there too? */
static bool is_first(const struct vb_exchange *x)
{
    uint64_t since_us;
    int slot = find_first(x->pool, x->waits_aside ? x->stuck_to : -1, &since_us);
    return slot < 0 || (unsigned)slot == x->proxy->slot || x->waits_since_us <= since_us;
}

/* There is room, and nobody left here who may have it: because others come first, or wait for one backend only. */
static void pass_on(const struct vb_proxy_pool *pool)
{
    uint64_t since_us;
    int slot = vb_line_first(pool->queue.proxy->shm, pool->index, -1, &since_us);
    if (slot >= 0 && (unsigned)slot != pool->queue.proxy->slot)
        wake(pool, (unsigned)slot);
}

/* False: there is no place for it, and it goes on waiting. Else it may have ended. */
static bool give_turn(struct vb_exchange *x, uint64_t now_us)
{
    int backend = vb_exchange_pick(x, now_us);
    if (backend == -EAGAIN) {
        bool aside = is_stuck(x, now_us);
        if (aside != x->waits_aside)
            stand_anew(x, aside);
        return false;
    }
    step_out(x);
    vb_exchange_have_turn(x, backend, now_us);
    return true;
}

/*
 * Those who wait get what there is, in order of age. `always`: also before those of other workers who have waited
 * longer. Exchanges may end meanwhile and others join, but the next one in line stays: only its own client can end it.
 */
static void serve(struct vb_proxy_pool *pool, bool always)
{
    struct vb_queue *q = &pool->queue;
    struct vb_exchange *stuck = TAILQ_FIRST(&q->stuck), *next = TAILQ_FIRST(&q->line), *x;
    uint64_t now = vb_clock_us();
    while (stuck != NULL || next != NULL) {
        bool aside = next == NULL || (stuck != NULL && stuck->waits_since_us < next->waits_since_us);
        x = aside ? stuck : next;
        if (aside)
            stuck = TAILQ_NEXT(stuck, waiting);
        else
            next = TAILQ_NEXT(next, waiting);
        bool may_go = always || is_first(x);
        if (!may_go && !aside)
            next = NULL;
        else if (may_go && !give_turn(x, now) && x->retry.tried.n == 0 && !x->waits_aside)
            next = NULL; /* all are full */
    }
    if (!vb_lb_is_full(pool->lb, now))
        pass_on(pool);
}

static void on_soon(struct vb_timer *timer)
{
    serve(vb_container_of(timer, struct vb_proxy_pool, queue.soon), false);
}

/* In the next turn of the loop: another exchange is at work in this one. */
static void serve_soon(struct vb_proxy_pool *pool)
{
    struct vb_proxy *proxy = pool->queue.proxy;
    if (pool->queue.soon.list == NULL)
        vb_timer_start_at(&pool->queue.soon, &proxy->soon, vb_loop_now_ms(proxy->loop), on_soon);
}

static void start_tick(struct vb_proxy_pool *pool)
{
    if (!is_empty(&pool->queue) && pool->queue.tick.list == NULL)
        vb_timer_start(&pool->queue.tick, &pool->queue.proxy->queue_tick, on_tick);
}

static bool first_hangs(struct vb_proxy_pool *pool)
{
    struct vb_queue *q = &pool->queue;
    uint64_t since_us;
    vb_line_first(q->proxy->shm, pool->index, -1, &since_us);
    if (since_us != q->first_us || vb_lb_is_full(pool->lb, vb_clock_us()))
        q->left_places = 0;
    else
        q->left_places++;
    q->first_us = since_us;
    return q->left_places >= HANG_TICKS;
}

static void on_tick(struct vb_timer *timer)
{
    struct vb_proxy_pool *pool = vb_container_of(timer, struct vb_proxy_pool, queue.tick);
    serve(pool, first_hangs(pool));
    start_tick(pool);
}

void vb_queue_place_free(struct vb_proxy_pool *pool, unsigned backend)
{
    uint64_t since_us;
    int slot = find_first(pool, (int)backend, &since_us);
    bool is_ours = slot >= 0 && (unsigned)slot == pool->queue.proxy->slot;
    if (slot >= 0 && !is_ours)
        wake(pool, (unsigned)slot);
    if (is_ours || !TAILQ_EMPTY(&pool->queue.stuck)) /* of those only the first is known to others */
        serve_soon(pool);
}

void vb_queue_woken(struct vb_proxy *proxy, unsigned number)
{
    if (number < proxy->conf->n_pools)
        serve_soon(&proxy->pools[number]);
}

/* ---- coming and going -------------------------------------------------------------------------------------------- */

static void on_timeout(struct vb_timer *timer)
{
    vb_exchange_give_up(vb_container_of(timer, struct vb_exchange, turn), VB_FAIL_QUEUE_TIMEOUT, NULL);
}

bool vb_queue_is_behind(const struct vb_exchange *x, uint64_t now_us)
{
    uint64_t since_us;
    int backend = is_stuck(x, now_us) ? x->stuck_to : -1;
    return x->pool->conf->queue.enabled && find_first(x->pool, backend, &since_us) >= 0;
}

int vb_queue_join(struct vb_exchange *x, uint64_t now_us)
{
    struct vb_proxy_pool *pool = x->pool;
    struct vb_proxy *proxy = x->proxy;
    if (!pool->conf->queue.enabled)
        return -EAGAIN;
    if (!vb_shm_enter(proxy->shm, proxy->slot, pool->index, VB_PLACE_PENDING, pool->conf->circuit_breaker.max_pending))
        return -EBUSY;
    x->is_pending = true;
    x->waits_since_us = now_us;
    stand(x, is_stuck(x, now_us));
    note(pool);
    vb_timer_start(&x->turn, &pool->turn, on_timeout);
    vb_count(proxy->stats, queued);
    start_tick(pool);
    serve_soon(pool); /* a place that came free before we were noted has woken nobody */
    return -EINPROGRESS;
}

void vb_queue_leave(struct vb_exchange *x)
{
    if (x->waits_since_us != 0)
        step_out(x);
    if (x->is_pending)
        vb_shm_exit(x->proxy->shm, x->proxy->slot, x->pool->index, VB_PLACE_PENDING);
    x->is_pending = false;
}

void vb_queue_open(struct vb_proxy *proxy, struct vb_proxy_pool *pool)
{
    pool->queue.proxy = proxy;
    TAILQ_INIT(&pool->queue.line);
    TAILQ_INIT(&pool->queue.stuck);
    vb_timer_list_open(&pool->turn, proxy->loop, pool->conf->queue.timeout_ms);
}

void vb_queue_close(struct vb_proxy_pool *pool)
{
    assert(is_empty(&pool->queue));
    vb_timer_stop(&pool->queue.soon);
    vb_timer_list_close(&pool->turn);
}
