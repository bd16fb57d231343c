/* The worker-wide state: opening, accepting, draining. */
#include "vb/proxy.h"

#include <errno.h>
#include <malloc.h>
#include <unistd.h>

#include "client.h"
#include "exchange.h"
#include "forward.h"
#include "proxy_priv.h"
#include "queue.h"
#include "sticky.h"
#include "upstream.h"
#include "vb/clock.h"
#include "vb/inbox.h"
#include "vb/log.h"

/* A connection without a request leaves this long after draining began: a request that is on its way is still served.
 */
#define DRAIN_QUIET_MS 300
#define EXCESS_MS      1000
#define WATCH_MS       5000
#define QUEUE_TICK_MS  10
/* What a response head may grow by when it passes (see vb_h1_response_room), and a chunk line behind it. */
#define SCRATCH_ROOM                                                                                                   \
    (VB_HEAD_ROOM + 3 * VB_NAME_MAX + VB_DATE_LEN + VB_REQUEST_ID_MAX + VB_STICKY_MAX + VB_CHUNK_LINE_MAX)

static int open_pools(struct vb_proxy *proxy)
{
    for (unsigned i = 0; i < proxy->conf->n_pools; i++) {
        struct vb_proxy_pool *pool = &proxy->pools[i];
        pool->conf = &proxy->conf->pools[i];
        vb_timer_list_open(&pool->connect, proxy->loop, pool->conf->timeouts.connect_ms);
        vb_timer_list_open(&pool->response, proxy->loop, pool->conf->timeouts.response_ms);
        vb_timer_list_open(&pool->idle, proxy->loop, pool->conf->timeouts.idle_ms);
        vb_timer_list_open(&pool->keepalive, proxy->loop, pool->conf->keepalive.timeout_ms);
        vb_timer_list_open(&pool->total, proxy->loop, pool->conf->retry.total_ms);
        vb_queue_open(proxy, pool);
        pool->outlier = (struct vb_outlier_rules){
            .consecutive = pool->conf->outlier.enabled ? pool->conf->outlier.consecutive : 0,
            .eject_us = pool->conf->outlier.eject_ms * 1000,
            .eject_max_us = pool->conf->outlier.eject_max_ms * 1000,
        };
        int r = vb_shm_find_pool(proxy->shm, pool->conf->name);
        if (r < 0) {
            vb_log_error("the segment has no pool %s", pool->conf->name);
            return r;
        }
        pool->index = (unsigned)r;
        const struct vb_lb_rules rules = {
            .balance = vb_balance_name(pool->conf->balance),
            .hash_bound = pool->conf->hash.bounded,
            .slow_start_us = pool->conf->slow_start_ms * 1000,
        };
        r = vb_lb_open(&pool->lb, proxy->shm, pool->index, proxy->slot, &rules, &proxy->rand);
        if (r == 0 && pool->conf->sticky.enabled)
            r = vb_sticky_open(&pool->sticky, proxy->shm, pool->index, pool->conf);
        if (r < 0)
            return r;
    }
    return 0;
}

static void close_pools(struct vb_proxy *proxy)
{
    for (unsigned i = 0; i < proxy->conf->n_pools; i++) {
        struct vb_proxy_pool *pool = &proxy->pools[i];
        if (pool->conf == NULL)
            break; /* opening stopped here */
        vb_lb_close(&pool->lb);
        vb_sticky_close(&pool->sticky);
        vb_timer_list_close(&pool->connect);
        vb_timer_list_close(&pool->response);
        vb_timer_list_close(&pool->idle);
        vb_timer_list_close(&pool->keepalive);
        vb_timer_list_close(&pool->total);
        vb_queue_close(pool);
    }
}

int vb_proxy_open(struct vb_proxy **ret_proxy, struct vb_loop *loop, struct vb_shm *shm, unsigned slot,
                  const struct vb_conf *conf)
{
    struct vb_proxy *proxy = calloc(1, sizeof(*proxy));
    if (proxy == NULL)
        return -ENOMEM;
    unsigned backends = vb_shm_capacity(shm).backends;
    proxy->loop = loop;
    proxy->shm = shm;
    proxy->slot = slot;
    proxy->conf = conf;
    proxy->stats = vb_shm_worker(shm, slot);
    proxy->limits = (struct vb_head_limits){conf->limits.header_bytes, VB_MIN(conf->limits.headers, VB_FIELDS_MAX)};
    proxy->via = vb_str(conf->headers.via ? conf->name : "");
    proxy->id_field = vb_str(conf->headers.request_id);
    SLIST_INIT(&proxy->listeners);
    TAILQ_INIT(&proxy->clients);
    SLIST_INIT(&proxy->free_exchanges);
    vb_rand_init(&proxy->rand);
    vb_timer_list_open(&proxy->header, loop, conf->timeouts.header_ms);
    vb_timer_list_open(&proxy->body, loop, conf->timeouts.body_ms);
    vb_timer_list_open(&proxy->keepalive, loop, conf->timeouts.keepalive_ms);
    vb_timer_list_open(&proxy->drain, loop, DRAIN_QUIET_MS);
    vb_timer_list_open(&proxy->excess, loop, EXCESS_MS);
    vb_timer_list_open(&proxy->tunnel, loop, conf->timeouts.tunnel_ms);
    vb_timer_list_open(&proxy->watch, loop, WATCH_MS);
    vb_timer_list_open(&proxy->soon, loop, 1);
    vb_timer_list_open(&proxy->queue_tick, loop, QUEUE_TICK_MS);
    proxy->to_client.size = conf->limits.header_bytes + SCRATCH_ROOM;
    proxy->to_client.scratch = proxy->to_client.memory = malloc(VB_OUT_WAITING + proxy->to_client.size);
    proxy->pools = calloc(conf->n_pools, sizeof(*proxy->pools));
    proxy->upstreams = calloc(backends, sizeof(*proxy->upstreams));
    proxy->path = malloc(conf->limits.header_bytes);
    proxy->key_path = malloc(conf->limits.header_bytes);
    int r = -ENOMEM;
    if (proxy->to_client.memory == NULL || proxy->pools == NULL || proxy->upstreams == NULL || proxy->path == NULL ||
        proxy->key_path == NULL)
        goto fail;
    for (unsigned i = 0; i < backends; i++) {
        TAILQ_INIT(&proxy->upstreams[i].idle);
        TAILQ_INIT(&proxy->upstreams[i].waiting);
    }
    r = open_pools(proxy);
    if (r < 0)
        goto fail;
    *ret_proxy = proxy;
    return 0;

fail:
    vb_proxy_close(&proxy);
    return r;
}

struct vb_str vb_proxy_date(struct vb_proxy *proxy)
{
    uint64_t turn_ms = vb_loop_now_ms(proxy->loop);
    if (turn_ms != proxy->date_turn_ms) {
        proxy->date_turn_ms = turn_ms;
        uint64_t now = vb_clock_wall_us();
        if (now / 1000000 != proxy->date_second) {
            proxy->date_second = now / 1000000;
            vb_clock_format_http(proxy->date, sizeof(proxy->date), now);
        }
    }
    return (struct vb_str){proxy->date, VB_DATE_LEN};
}

/* ---- backends that are taken away -------------------------------------------------------------------------------- */

/* In panic, and where too many are ejected, requests go to some that are ill: there they stay. */
static bool is_candidate(const struct vb_proxy *proxy, unsigned backend)
{
    unsigned pool = atomic_load(&vb_shm_backend(proxy->shm, backend)->pool);
    for (unsigned i = 0; i < proxy->conf->n_pools; i++)
        if (proxy->pools[i].index == pool)
            return vb_lb_is_candidate(proxy->pools[i].lb, backend);
    return false;
}

/* Kept connections to one that is not wanted now are closed, so that it can stop; who waits for one that is ill hears
 * of it. In maintenance it is called down because nobody looks: what is in flight there finishes. */
static void see_doubts(struct vb_proxy *proxy)
{
    uint64_t now = vb_clock_us();
    for (unsigned i = 0; i < vb_shm_capacity(proxy->shm).backends; i++) {
        const struct vb_shm_backend *backend = vb_shm_backend(proxy->shm, i);
        bool down = atomic_load(&backend->health) == VB_HEALTH_DOWN;
        unsigned admin = atomic_load(&backend->admin);
        if (!atomic_load(&backend->used) || admin != VB_ADMIN_READY || down)
            vb_upstream_close_idle(proxy, i);
        bool ill = (down && admin != VB_ADMIN_MAINT) || vb_shm_backend_ejected(backend, now);
        if (ill && !TAILQ_EMPTY(&proxy->upstreams[i].waiting) && !is_candidate(proxy, i))
            vb_upstream_doubt(proxy, i);
    }
}

static void on_doubts(struct vb_timer *timer)
{
    see_doubts(vb_container_of(timer, struct vb_proxy, doubts));
}

void vb_proxy_doubt_soon(struct vb_proxy *proxy)
{
    if (proxy->doubts.list == NULL)
        vb_timer_start(&proxy->doubts, &proxy->soon, on_doubts);
}

/* ---- memory that a burst has left behind ------------------------------------------------------------------------- */

/* Takes about a tenth of a millisecond for each MiB that is given back. Other libraries than glibc do it unasked. */
static void give_memory_back(struct vb_proxy *proxy)
{
    uint64_t begin = vb_clock_us();
    vb_exchange_free_all(proxy);
#ifdef __GLIBC__
    malloc_trim(0);
#endif
    vb_log_debug("memory of earlier clients and requests given back, in %.1f ms",
                 (double)(vb_clock_us() - begin) / 1000);
}

/* Clients that come and go within a second are not seen; without a request they take hardly anything. */
static void see_memory(struct vb_proxy *proxy)
{
    unsigned clients = (unsigned)atomic_load(&proxy->stats->connections), exchanges = proxy->most_exchanges;
    bool is_due = vb_reclaim_is_due(&proxy->client_memory, clients);
    is_due |= vb_reclaim_is_due(&proxy->exchange_memory, exchanges);
    proxy->most_exchanges = proxy->n_exchanges;
    if (!is_due)
        return;
    give_memory_back(proxy);
    vb_reclaim_done(&proxy->client_memory, clients);
    vb_reclaim_done(&proxy->exchange_memory, exchanges);
}

void vb_proxy_tick(struct vb_proxy *proxy)
{
    bool changed = false;
    for (unsigned i = 0; i < proxy->conf->n_pools; i++)
        changed |= vb_lb_look(proxy->pools[i].lb, vb_clock_us());
    if (changed)
        see_doubts(proxy);
    see_memory(proxy);
}

/* ---- listening and draining -------------------------------------------------------------------------------------- */

static void on_accepted(void *owner, int fd, const struct sockaddr *peer)
{
    struct vb_proxy_listener *listener = owner;
    struct vb_proxy *proxy = listener->proxy;
    if (vb_steer_away(proxy, listener->number, fd))
        close(fd);
    else
        vb_client_open(proxy, &proxy->conf->listeners[listener->number], fd, peer);
}

static void on_exhausted(void *owner, int code)
{
    vb_log_error("cannot accept connections: %s; they wait in the queue (raise the limit of open files?)",
                 vb_strerror(code));
}

int vb_proxy_listen(struct vb_proxy *proxy, unsigned number, int fd)
{
    static const struct vb_listener_events events = {.accepted = on_accepted, .exhausted = on_exhausted};
    assert(number < proxy->conf->n_listeners);
    struct vb_proxy_listener *listener = calloc(1, sizeof(*listener));
    if (listener == NULL)
        return -ENOMEM;
    listener->proxy = proxy;
    listener->number = number;
    int r = vb_listener_open(&listener->listener, proxy->loop, fd, &events, listener);
    if (r < 0) {
        free(listener);
        return r;
    }
    SLIST_INSERT_HEAD(&proxy->listeners, listener, link);
    return 0;
}

void vb_proxy_start(struct vb_proxy *proxy)
{
    struct vb_proxy_listener *listener;
    SLIST_FOREACH (listener, &proxy->listeners, link)
        vb_listener_start(listener->listener);
}

static void stop_listening(struct vb_proxy *proxy, struct vb_proxy_listener *listener, bool take)
{
    SLIST_REMOVE(&proxy->listeners, listener, vb_proxy_listener, link);
    vb_listener_close(&listener->listener, take);
    free(listener);
}

void vb_proxy_unlisten(struct vb_proxy *proxy, unsigned number, bool take)
{
    struct vb_proxy_listener *listener, *next;
    for (listener = SLIST_FIRST(&proxy->listeners); listener != NULL; listener = next) {
        next = SLIST_NEXT(listener, link);
        if (listener->number == number)
            stop_listening(proxy, listener, take);
    }
}

static void close_idle(struct vb_proxy *proxy)
{
    for (unsigned i = 0; i < vb_shm_capacity(proxy->shm).backends; i++)
        vb_upstream_close_idle(proxy, i);
}

void vb_proxy_drain(struct vb_proxy *proxy, bool patient)
{
    struct vb_client *client, *next;
    proxy->draining = true;
    proxy->patient = patient;
    close_idle(proxy);
    for (client = TAILQ_FIRST(&proxy->clients); client != NULL; client = next) {
        next = vb_client_next(client);
        vb_client_drain(client);
    }
}

void vb_proxy_finish(struct vb_proxy *proxy, void (*drained)(void *owner), void *owner)
{
    assert(proxy->draining);
    vb_inbox_close(&proxy->inbox);
    if (TAILQ_EMPTY(&proxy->clients)) {
        drained(owner);
        return;
    }
    proxy->drained = drained;
    proxy->drained_owner = owner;
}

void vb_proxy_close(struct vb_proxy **proxy_ptr)
{
    struct vb_proxy *proxy = *proxy_ptr;
    struct vb_client *client;
    if (proxy == NULL)
        return;
    *proxy_ptr = NULL;
    proxy->drained = NULL;
    while (!SLIST_EMPTY(&proxy->listeners))
        stop_listening(proxy, SLIST_FIRST(&proxy->listeners), false);
    vb_inbox_close(&proxy->inbox);
    while ((client = TAILQ_FIRST(&proxy->clients)) != NULL)
        vb_client_cut(client);
    if (proxy->upstreams != NULL)
        close_idle(proxy);
    vb_exchange_free_all(proxy);
    if (proxy->pools != NULL)
        close_pools(proxy);
    vb_timer_list_close(&proxy->header);
    vb_timer_list_close(&proxy->body);
    vb_timer_list_close(&proxy->keepalive);
    vb_timer_list_close(&proxy->drain);
    vb_timer_list_close(&proxy->excess);
    vb_timer_list_close(&proxy->tunnel);
    vb_timer_list_close(&proxy->watch);
    vb_timer_stop(&proxy->doubts);
    vb_timer_list_close(&proxy->soon);
    vb_timer_list_close(&proxy->queue_tick);
    free(proxy->to_client.memory);
    free(proxy->path);
    free(proxy->key_path);
    free(proxy->pools);
    free(proxy->upstreams);
    free(proxy);
}
