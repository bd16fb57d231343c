/*
 * Tries: from the pick of a backend to its answer or its failure, and to the next one.
 *
 * A try that fails says something about its backend (counted, and perhaps ejected for it: vb/lb.h), and the request
 * moves to another one if retry.h allows it, retry.total is not over, the pool's budget has room, and there is another.
 * The moves of one request are bounded by retry.attempts, and each goes to a backend that has not been tried. Any try
 * may have to wait until a backend has room for it (queue.c).
 */
#include <errno.h>
#include <stdio.h>

#include "client.h"
#include "exchange_priv.h"
#include "key.h"
#include "queue.h"
#include "route.h"
#include "sticky.h"
#include "upstream.h"
#include "vb/clock.h"
#include "vb/log.h"

_Static_assert(VB_TRIES_MAX > VB_RETRY_ATTEMPTS_MAX, "every try is remembered");

/* ---- figures and log --------------------------------------------------------------------------------------------- */

static void count_latency(struct vb_shm_traffic *traffic, uint64_t from_us, uint64_t to_us)
{
    vb_add64(&traffic->latency[vb_hist_index(to_us - from_us)], 1);
}

static void count_status(struct vb_shm_traffic *traffic, unsigned status)
{
    switch (status / 100) {
    case 2:
        vb_count(traffic, responses_2xx);
        break;
    case 3:
        vb_count(traffic, responses_3xx);
        break;
    case 4:
        vb_count(traffic, responses_4xx);
        break;
    default:
        vb_count(traffic, responses_5xx);
        break;
    }
}

void vb_exchange_note_success(struct vb_exchange *x)
{
    uint64_t now = vb_clock_us();
    if (x->status != 0) /* else the protocol was switched */
        count_status(x->traffic, x->status);
    count_latency(x->traffic, x->try_us, now);
    if (!vb_retry_is_failure(x->pool->conf, x->status))
        vb_outlier_passed(x->proxy->shm, (unsigned)x->backend, now);
}

/* What it took so far; how long the client took to send the request says nothing about the backend. */
static uint64_t latency(const struct vb_exchange *x, uint64_t now_us)
{
    return now_us - VB_MAX(x->try_us, x->asked_us);
}

void vb_exchange_note_answer(struct vb_exchange *x, const struct vb_head *head)
{
    uint64_t now;
    uint32_t load;
    switch (x->pool->conf->balance) {
    case VB_BALANCE_FASTEST:
        now = vb_clock_us();
        vb_lb_learn(x->pool->lb, (unsigned)x->backend, latency(x, now),
                    head->status >= 500 ? VB_TRY_FAILED : VB_TRY_ANSWERED, now);
        break;
    case VB_BALANCE_LEAST_LOAD:
        if (vb_head_load_report(head, &load))
            vb_lb_report_load(x->proxy->shm, (unsigned)x->backend, load, vb_clock_us());
        break;
    default:
        break;
    }
}

void vb_exchange_note_abort(struct vb_exchange *x)
{
    uint64_t now = vb_clock_us();
    if (x->in_flight && x->request_done && !x->response_started && x->tunnel == NULL)
        vb_lb_learn(x->pool->lb, (unsigned)x->backend, latency(x, now), VB_TRY_ABANDONED, now);
}

/* " backend web/b2 (127.0.0.1:9002)" */
static void print_backend(const struct vb_exchange *x, char *to, size_t size)
{
    to[0] = '\0';
    if (x->backend < 0)
        return;
    const struct vb_shm_backend *backend = vb_shm_backend(x->proxy->shm, (unsigned)x->backend);
    snprintf(to, size, " backend %s/%s (%s)", x->pool->conf->name, backend->name, backend->address);
}

#define WHERE_MAX (VB_SHM_NAME_MAX * 2 + VB_SHM_ADDRESS_MAX + 16)

/* `then` is what the client gets, or what we do instead. */
static void log_failure(struct vb_exchange *x, enum vb_log_level level, const char *then,
                        const struct vb_failure_info *info, const char *detail)
{
    struct vb_str line = x->request; /* "GET /path HTTP/1.1\r\n..." */
    const char *cr = memchr(line.p, '\r', line.n);
    line.n = cr == NULL ? 0 : VB_MIN((size_t)(cr - line.p), 256u);
    char where[WHERE_MAX];
    print_backend(x, where, sizeof(where));
    vb_log(level, "%.*s: %s \"%.*s\":%s%s %s%s%s%s%.*s", VB_STR_ARGS(x->client_ip), then, VB_STR_ARGS(line), where,
           where[0] != '\0' ? ":" : "", info->to_log, detail != NULL ? ": " : "", detail != NULL ? detail : "",
           x->id.length > 0 ? " id=" : "", VB_STR_ARGS(vb_exchange_id(x)));
}

static void log_ejection(struct vb_exchange *x, uint64_t for_us, const struct vb_failure_info *info, const char *detail)
{
    char where[WHERE_MAX];
    print_backend(x, where, sizeof(where));
    vb_log_warn("%s is EJECTED for %.1f s after %u failures in a row; the last: %s%s%s", where + 1,
                (double)for_us / 1e6, x->pool->outlier.consecutive, info->to_log, detail != NULL ? ": " : "",
                detail != NULL ? detail : "");
}

/* What a failed try says about its backend. `stale`: nothing. */
static void note_failure(struct vb_exchange *x, enum vb_failure failure, const char *detail, bool stale)
{
    const struct vb_failure_info *info = vb_failure_info(failure);
    if (x->backend < 0 || failure == VB_FAIL_INTERNAL || failure == VB_FAIL_NO_PORT || failure == VB_FAIL_OVERLOAD)
        return;
    uint64_t now = vb_clock_us();
    if (failure != VB_FAIL_STATUS) { /* which is counted as a response */
        vb_count(x->traffic, errors);
        if (info->timeout)
            vb_count(x->traffic, timeouts);
        count_latency(x->traffic, x->try_us, now);
    }
    if (stale || info->is == VB_BACKEND_NEVER_FAILED)
        return;
    if (failure != VB_FAIL_STATUS) /* which has been learnt from as an answer */
        vb_lb_learn(x->pool->lb, (unsigned)x->backend, latency(x, now), VB_TRY_FAILED, now);
    uint64_t for_us =
        vb_outlier_failed(x->proxy->shm, x->proxy->slot, (unsigned)x->backend, &x->pool->outlier, info->is, now);
    if (for_us > 0)
        log_ejection(x, for_us, info, detail);
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */

/* Takes it out of its backend's in-flight count; once. */
static void leave_backend(struct vb_exchange *x)
{
    if (!x->in_flight)
        return;
    x->in_flight = false;
    vb_lb_done(x->pool->lb, (unsigned)x->backend);
    if (VB_UNLIKELY(vb_lb_is_limited(x->pool->lb, vb_loop_now_ms(x->proxy->loop) * 1000)))
        vb_queue_place_free(x->pool, (unsigned)x->backend);
}

void vb_exchange_not_in_flight(struct vb_exchange *x)
{
    leave_backend(x);
    if (x->has_place)
        vb_shm_exit(x->proxy->shm, x->proxy->slot, x->pool->index, VB_PLACE_REQUEST);
    x->has_place = false;
}

/* Each failure is counted in one figure of the worker. */
static void count_failure(struct vb_shm_worker *stats, enum vb_failure failure)
{
    switch (failure) {
    case VB_FAIL_NO_ROUTE: /* the client's mistake */
        vb_count(stats, unrouted);
        break;
    case VB_FAIL_NO_BACKEND:
        vb_count(stats, unavailable);
        break;
    case VB_FAIL_OVERLOAD:
    case VB_FAIL_FULL:
        vb_count(stats, overloaded);
        break;
    case VB_FAIL_QUEUE_TIMEOUT:
        vb_count(stats, queue_timeouts);
        break;
    default:
        vb_count(stats, failed);
        break;
    }
}

/* When a client may come again: who did not get a turn in queue.timeout will hardly get one earlier. */
static unsigned retry_after_s(const struct vb_exchange *x, enum vb_failure failure)
{
    return failure == VB_FAIL_QUEUE_TIMEOUT ? (unsigned)((x->pool->conf->queue.timeout_ms + 999) / 1000) : 0;
}

void vb_exchange_give_up(struct vb_exchange *x, enum vb_failure failure, const char *detail)
{
    const struct vb_failure_info *info = vb_failure_info(failure);
    struct vb_client *client = x->client;
    char then[16];
    if (x->response_started) /* the client has another status already */
        vb_copy(then, sizeof(then), "cut");
    else
        snprintf(then, sizeof(then), "%u", info->status);
    log_failure(x, failure == VB_FAIL_NO_ROUTE ? VB_LOG_INFO : VB_LOG_WARN, then, info, detail);
    count_failure(x->proxy->stats, failure);
    if (x->response_started) {
        bool fin_would_end_it = x->response_framing == VB_FRAMING_CLOSE;
        vb_client_flush(client);
        vb_exchange_free(x, false);
        vb_client_exchange_broken(client, fin_would_end_it);
    } else {
        vb_exchange_answer(x, info->status, info->to_client, retry_after_s(x, failure));
        vb_exchange_free(x, false);
        vb_client_exchange_done(client);
    }
}

/* ---- tries ------------------------------------------------------------------------------------------------------- */

bool vb_exchange_has_sent(const struct vb_exchange *x)
{
    return x->upstream != NULL && vb_upstream_has_sent(x->upstream);
}

int vb_exchange_pick(struct vb_exchange *x, uint64_t now_us)
{
    struct vb_lb *lb = x->pool->lb;
    struct vb_ask ask = vb_exchange_ask(x);
    int backend = vb_lb_pick(lb, &ask, now_us, &x->reason);
    if (vb_lb_look(lb, now_us))
        vb_proxy_doubt_soon(x->proxy);
    return backend;
}

/* ... without overtaking those who wait. -EINPROGRESS: it waits now. Others: see vb_queue_join. */
static int pick_or_wait(struct vb_exchange *x, uint64_t now_us)
{
    bool is_behind = VB_UNLIKELY(vb_lb_is_limited(x->pool->lb, now_us)) && vb_queue_is_behind(x, now_us);
    int backend = is_behind ? -EAGAIN : vb_exchange_pick(x, now_us);
    return backend == -EAGAIN ? vb_queue_join(x, now_us) : backend;
}

/* The request goes to this backend from now on. */
static void take_backend(struct vb_exchange *x, unsigned backend, uint64_t now_us)
{
    x->try_us = now_us;
    struct vb_tried *tried = &x->retry.tried;
    assert(tried->n < VB_TRIES_MAX);
    tried->backends[tried->n++] = (uint16_t)backend;
    x->backend = (int)backend;
    x->traffic = vb_shm_traffic(x->proxy->shm, x->proxy->slot, backend);
    x->in_flight = true;
    x->resent = false;
    x->status = 0;
    if (vb_lb_in_panic(x->pool->lb))
        vb_count(x->proxy->stats, panicked);
    vb_count(x->traffic, requests);
    vb_count(x->traffic, picks[x->reason]);
}

/* A kept connection, or a new one. */
static int connect_backend(struct vb_exchange *x, bool fresh, enum vb_failure *ret_failure)
{
    enum vb_upstream_choice choice = fresh ? VB_UPSTREAM_FRESH : x->holds ? VB_UPSTREAM_ANY : VB_UPSTREAM_SURE;
    int r = vb_upstream_get(&x->upstream, x->proxy, x->pool, (unsigned)x->backend, x, choice);
    vb_queue_leave(x);
    if (r == -EBUSY)
        *ret_failure = VB_FAIL_OVERLOAD;
    else if (r == -EADDRNOTAVAIL)
        *ret_failure = VB_FAIL_NO_PORT;
    else if (vb_is_lack(r))
        *ret_failure = VB_FAIL_INTERNAL;
    else
        *ret_failure = VB_FAIL_CONNECT;
    return r;
}

/* The head, and what is held of the body. */
static int send_held(struct vb_exchange *x)
{
    struct vb_buf *body = &x->retry.body;
    struct iovec iov[] = {{(void *)x->request.p, x->request.n}, {vb_buf_data(body), vb_buf_len(body)}};
    return vb_upstream_write(x->upstream, iov, vb_buf_len(body) > 0 ? 2 : 1);
}

void vb_exchange_send(struct vb_exchange *x)
{
    if (!x->head_sent && !x->request_done)
        return; /* it leaves with the first part of the body */
    x->head_sent = true;
    if (x->request_done && x->holds && vb_buf_len(&x->retry.body) == 0) {
        vb_upstream_write_soon(x->upstream, x->request);
        return;
    }
    int r = send_held(x);
    if (x->request_done)
        vb_upstream_request_sent(x->upstream);
    else if (r != 1)
        vb_client_resume(x->client);
}

static void on_total_over(struct vb_timer *timer)
{
    struct vb_exchange *x = vb_container_of(timer, struct vb_exchange, total);
    bool is_clients_turn = !x->request_done && !vb_exchange_is_waiting(x);
    if (is_clients_turn) { /* he takes his time, and his own time-outs see to that */
        vb_timer_start(&x->total, &x->pool->total, on_total_over);
        return;
    }
    note_failure(x, VB_FAIL_TOTAL_TIMEOUT, NULL, false);
    vb_exchange_give_up(x, VB_FAIL_TOTAL_TIMEOUT, NULL);
}

/* Is the backend in hand ejected, or down? */
static bool is_out(const struct vb_exchange *x, uint64_t now_us)
{
    const struct vb_shm_backend *backend = vb_shm_backend(x->proxy->shm, (unsigned)x->backend);
    return vb_shm_backend_ejected(backend, now_us) || atomic_load(&backend->health) == VB_HEALTH_DOWN;
}

/* What is only said of a try that is left; while the backend's figures are still its own (see vb_lb_done). */
static void count_left(struct vb_exchange *x, enum vb_failure failure, uint64_t now_us)
{
    struct vb_shm_traffic *traffic = x->traffic;
    vb_count(traffic, retries);
    if (failure == VB_FAIL_DOWN)
        vb_count(traffic, errors);
    if (failure != VB_FAIL_STATUS)
        return;
    count_status(traffic, x->status);
    count_latency(traffic, x->try_us, now_us);
}

/*
 * Moves the request to another backend, if that may be, or into the line for one: then the old one's part is over.
 * False: nothing has changed.
 */
static bool move(struct vb_exchange *x, enum vb_failure failure, const char *detail)
{
    struct vb_shm_pool *pool = vb_shm_pool(x->proxy->shm, x->pool->index);
    bool sent = vb_exchange_has_sent(x);
    uint64_t now = vb_clock_us(), spent_ms = (now - x->start_us) / 1000, total_ms = x->pool->conf->retry.total_ms;
    if (!vb_retry_allows(&x->retry, failure, sent) || spent_ms >= total_ms)
        return false;
    /*
     * The budget bounds what a bad backend costs the others as long as it gets requests. It costs them no more than
     * what would have come to them anyway if it has never seen the request, or when it is out. Before the pick: one
     * that comes to nothing would cost the other backend its turn.
     */
    bool costs = sent && !is_out(x, now);
    if (!vb_lb_has_other(x->pool->lb, &x->retry.tried, now) ||
        (costs && !vb_retry_budget_take(pool, x->pool->conf->retry.budget, now)))
        return false;
    int other = pick_or_wait(x, now);
    if (other < 0 && other != -EINPROGRESS)
        return false;
    if (x->total.list == NULL)
        vb_timer_start_at(&x->total, &x->pool->total, vb_loop_now_ms(x->proxy->loop) + total_ms - spent_ms,
                          on_total_over);
    log_failure(x, VB_LOG_DEBUG, "trying elsewhere", vb_failure_info(failure), detail);
    count_left(x, failure, now);
    vb_upstream_release(&x->upstream, false);
    leave_backend(x);
    x->backend = -1;
    if (other >= 0)
        take_backend(x, (unsigned)other, now);
    return true;
}

/* False: the exchange has ended, or waits for its turn. */
static bool connect_some(struct vb_exchange *x, bool fresh)
{
    enum vb_failure failure;
    char detail[64];
    int r;
    while (!vb_exchange_is_waiting(x)) { /* as often as there are tries */
        r = connect_backend(x, fresh, &failure);
        if (r >= 0)
            return true;
        vb_describe(detail, sizeof(detail), r);
        note_failure(x, failure, detail, false);
        if (!move(x, failure, detail)) {
            vb_exchange_give_up(x, failure, failure == VB_FAIL_OVERLOAD ? NULL : detail);
            return false;
        }
        fresh = false;
    }
    return false;
}

bool vb_exchange_connect(struct vb_exchange *x)
{
    return connect_some(x, false);
}

/* What its pool wants to know of the request before the first pick. */
static void identify(struct vb_exchange *x, const struct vb_head *head, struct vb_str target)
{
    const struct vb_proxy_pool *pool = x->pool;
    if (pool->conf->balance == VB_BALANCE_HASH)
        x->has_key = vb_key_find(pool->conf, head, target, x->client_ip, x->proxy->key_path, &x->key);
    if (pool->sticky != NULL)
        x->stuck_to = vb_sticky_read(pool->sticky, head, vb_clock_wall_us(), &x->cookie_is_old);
}

bool vb_exchange_hand_over_place(struct vb_exchange *x)
{
    bool had = x->is_pending;
    x->is_pending = false;
    return had;
}

/* Why there is no backend for it, by what the pick or the queue has said. */
static void give_up_unpicked(struct vb_exchange *x, int why)
{
    if (why == -EBUSY)
        vb_exchange_give_up(x, VB_FAIL_OVERLOAD, "max_pending");
    else if (why == -EAGAIN)
        vb_exchange_give_up(x, VB_FAIL_FULL, NULL);
    else
        vb_exchange_give_up(x, why == -ENOENT ? VB_FAIL_NO_BACKEND : VB_FAIL_INTERNAL, NULL);
}

void vb_exchange_have_turn(struct vb_exchange *x, int backend, uint64_t now_us)
{
    if (backend < 0) {
        give_up_unpicked(x, backend);
        return;
    }
    take_backend(x, (unsigned)backend, now_us);
    if (connect_some(x, false))
        vb_exchange_send(x);
}

int vb_exchange_choose(struct vb_exchange *x, struct vb_head *head)
{
    struct vb_proxy *proxy = x->proxy;
    struct vb_str target = head->target; /* a route may change it */
    int pool = vb_route(proxy, head);
    if (pool < 0) {
        vb_exchange_give_up(x, VB_FAIL_NO_ROUTE, NULL);
        return pool;
    }
    x->pool = &proxy->pools[pool];
    x->retry.conf = x->pool->conf;
    x->has_place = vb_shm_enter(proxy->shm, proxy->slot, x->pool->index, VB_PLACE_REQUEST,
                                x->pool->conf->circuit_breaker.max_requests);
    if (!x->has_place) {
        vb_exchange_give_up(x, VB_FAIL_OVERLOAD, "max_requests");
        return -EBUSY;
    }
    identify(x, head, target);
    int backend = pick_or_wait(x, x->start_us);
    if (backend >= 0) {
        take_backend(x, (unsigned)backend, x->start_us);
    } else if (backend != -EINPROGRESS) {
        give_up_unpicked(x, backend);
        return backend;
    }
    x->holds = x->retry.idempotent && vb_retry_holds(&x->retry, head);
    x->upgrade = vb_forward_upgrade(x->pool->conf, head);
    return 0;
}

/* ---- failures of backends ---------------------------------------------------------------------------------------- */

bool vb_exchange_ask_another(struct vb_exchange *x, unsigned status)
{
    char detail[32];
    snprintf(detail, sizeof(detail), "status %u", status);
    x->status = status;
    /* 429 is about this client: no failure of the backend. */
    if (status != 429)
        note_failure(x, VB_FAIL_STATUS, detail, false);
    if (!move(x, VB_FAIL_STATUS, detail))
        return false;
    if (connect_some(x, false))
        vb_exchange_send(x);
    return true;
}

/*
 * A kept connection that its backend had closed before it saw the request: that may look like any other failure. It
 * goes once more to the same backend, on a connection of its own, before that is blamed.
 */
static bool send_to_same_again(struct vb_exchange *x)
{
    if (x->resent || !vb_retry_is_safe(&x->retry, vb_exchange_has_sent(x)))
        return false;
    x->resent = true;
    vb_count(x->traffic, retries);
    vb_count(x->traffic, stale);
    vb_upstream_release(&x->upstream, false);
    if (connect_some(x, true))
        vb_exchange_send(x);
    return true;
}

void vb_exchange_upstream_failed(struct vb_exchange *x, enum vb_failure failure, const char *detail)
{
    bool stale = (failure == VB_FAIL_CLOSED || failure == VB_FAIL_RESET) && vb_upstream_may_be_stale(x->upstream);
    if (stale && send_to_same_again(x))
        return;
    note_failure(x, failure, detail, stale);
    if (!move(x, failure, detail))
        vb_exchange_give_up(x, failure, detail);
    else if (connect_some(x, false))
        vb_exchange_send(x);
}

void vb_exchange_upstream_doubted(struct vb_exchange *x)
{
    if (!move(x, VB_FAIL_DOWN, NULL))
        return; /* better late than never */
    if (connect_some(x, false))
        vb_exchange_send(x);
}
