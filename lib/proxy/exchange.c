/*
 * One request and its response. Read this file first.
 *
 * Happy path:
 *   1. the client has a request head           vb_exchange_start: pick a backend, get a connection, pass the head on
 *   2. and perhaps a body                      vb_exchange_request_body, until it is complete
 *   3. the backend answers                     vb_exchange_response_head, _body, _flush
 *   4. the response is complete                vb_exchange_response_done: connection kept, figures counted, the client
 *                                              goes on to its next request
 *
 * When it goes wrong:
 *   no route matches, no backend can be picked 404, 503
 *   a kept connection turns out to be dead     the request goes once more, on a fresh connection, if it is idempotent
 *                                              and has no body: nothing can have happened twice (RFC 9110 9.2.2)
 *   the backend fails before it answered       502, or 504 when it was too slow
 *   ... in the middle of the response          the client's connection ends so that it can tell
 *   the client goes away                       the backend's connection is closed, so that it can stop working
 *
 * When the backend agrees to an upgrade (101) the exchange goes on as the owner of a tunnel, until that ends.
 *
 * Whatever the end, the request is taken out of the in-flight count exactly once: before the last byte of the response
 * leaves, so that the client's next request sees it gone in every worker, or else in exchange_free.
 */
#include "exchange.h"

#include <errno.h>
#include <stdio.h>

#include "client.h"
#include "forward.h"
#include "route.h"
#include "upstream.h"
#include "vb/clock.h"
#include "vb/log.h"

#define HEAD_INLINE        1024 /* most request heads fit */
#define FREE_EXCHANGES_MAX 256

struct vb_exchange {
    struct vb_proxy *proxy;
    struct vb_client *client;
    struct vb_proxy_pool *pool;
    int backend;                  /* slot; negative: none picked */
    bool in_flight;               /* counted as such */
    struct vb_upstream *upstream; /* NULL: not yet, or no more */
    struct vb_tunnel *tunnel;     /* NULL unless the connection was upgraded */
    uint64_t start_us;
    bool is_head, idempotent; /* of the method */
    bool client_is_1_1;
    bool head_sent, request_done, response_started, retried;
    enum vb_framing request_framing, response_framing; /* as we write them */
    unsigned status;
    struct vb_str upgrade; /* the protocol that was asked for, and may be switched to; the configuration's text */
    struct vb_request_id id;
    struct vb_str client_ip; /* for messages */
    struct vb_str request;   /* the head as the backend gets it; kept for sending it again, and for the log */
    char *request_memory;    /* NULL: it is in `inline_request` */
    SLIST_ENTRY(vb_exchange) link;
    char client_ip_text[VB_ADDR_TEXT_MAX]; /* from here on not cleared for a new exchange */
    char inline_request[HEAD_INLINE];
};

/* ---- beginning and end ------------------------------------------------------------------------------------------- */

static struct vb_exchange *exchange_new(struct vb_proxy *proxy, struct vb_client *client)
{
    struct vb_exchange *x = SLIST_FIRST(&proxy->free_exchanges);
    if (x != NULL) {
        SLIST_REMOVE_HEAD(&proxy->free_exchanges, link);
        proxy->n_free_exchanges--;
    } else {
        x = malloc(sizeof(*x));
        if (x == NULL)
            return NULL;
    }
    memset(x, 0, offsetof(struct vb_exchange, client_ip_text));
    x->proxy = proxy;
    x->client = client;
    x->backend = -1;
    x->start_us = vb_clock_us();
    return x;
}

/* Takes it out of the in-flight count; once. */
static void not_in_flight(struct vb_exchange *x)
{
    if (x->in_flight)
        vb_lb_done(x->pool->lb, (unsigned)x->backend);
    x->in_flight = false;
}

static void exchange_free(struct vb_exchange *x, bool keep_upstream)
{
    struct vb_proxy *proxy = x->proxy;
    vb_upstream_release(&x->upstream, keep_upstream);
    vb_tunnel_close(&x->tunnel, VB_TUNNEL_BROKEN);
    not_in_flight(x);
    free(x->request_memory);
    if (proxy->n_free_exchanges >= FREE_EXCHANGES_MAX) {
        free(x);
        return;
    }
    SLIST_INSERT_HEAD(&proxy->free_exchanges, x, link);
    proxy->n_free_exchanges++;
}

void vb_exchange_free_all(struct vb_proxy *proxy)
{
    struct vb_exchange *x;
    while ((x = SLIST_FIRST(&proxy->free_exchanges)) != NULL) {
        SLIST_REMOVE_HEAD(&proxy->free_exchanges, link);
        free(x);
    }
    proxy->n_free_exchanges = 0;
}

static struct vb_str id_of(const struct vb_exchange *x)
{
    return (struct vb_str){x->id.text, x->id.length};
}

/* ---- figures and log --------------------------------------------------------------------------------------------- */

static struct vb_shm_traffic *traffic_of(struct vb_exchange *x)
{
    return vb_proxy_traffic(x->proxy, (unsigned)x->backend);
}

static void count_latency(struct vb_exchange *x)
{
    vb_add64(&traffic_of(x)->latency[vb_hist_index(vb_clock_us() - x->start_us)], 1);
}

static void count_response(struct vb_exchange *x)
{
    struct vb_shm_traffic *traffic = traffic_of(x);
    count_latency(x);
    switch (x->status / 100) {
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

static void log_failure(struct vb_exchange *x, const struct vb_failure_info *info, const char *detail)
{
    struct vb_str line = x->request; /* "GET /path HTTP/1.1\r\n..." */
    const char *cr = memchr(line.p, '\r', line.n);
    line.n = cr == NULL ? 0 : VB_MIN((size_t)(cr - line.p), 256u);
    char where[VB_SHM_NAME_MAX * 2 + VB_SHM_ADDRESS_MAX + 16] = "";
    if (x->backend >= 0) {
        const struct vb_shm_backend *backend = vb_shm_backend(x->proxy->shm, (unsigned)x->backend);
        snprintf(where, sizeof(where), " backend %s/%s (%s):", x->pool->conf->name, backend->name, backend->address);
    }
    enum vb_log_level level = info->status == 404 ? VB_LOG_INFO : VB_LOG_WARN; /* 404: the client's mistake */
    vb_log(level, "%.*s: %u \"%.*s\":%s %s%s%s%s%.*s", VB_STR_ARGS(x->client_ip), info->status, VB_STR_ARGS(line),
           where, info->to_log, detail != NULL ? ": " : "", detail != NULL ? detail : "",
           x->id.length > 0 ? " id=" : "", VB_STR_ARGS(id_of(x)));
}

static void answer(struct vb_exchange *x, unsigned status, const char *text)
{
    vb_client_answer(x->client,
                     &(struct vb_answer){.status = status, .id = id_of(x), .text = text, .no_body = x->is_head});
}

/* The request ends here: the client gets a response of our own, or learns that the one it is getting has no end. */
static void fail(struct vb_exchange *x, enum vb_failure failure, const char *detail)
{
    const struct vb_failure_info *info = vb_failure_info(failure);
    struct vb_client *client = x->client;
    log_failure(x, info, detail);
    if (failure == VB_FAIL_NO_ROUTE) {
        vb_count(x->proxy->stats, unrouted);
    } else if (failure == VB_FAIL_NO_BACKEND) {
        vb_count(x->proxy->stats, unavailable);
    } else if (x->backend >= 0) {
        vb_count(traffic_of(x), errors);
        if (info->timeout)
            vb_count(traffic_of(x), timeouts);
        count_latency(x);
    }
    if (x->response_started) {
        bool fin_would_end_it = x->response_framing == VB_FRAMING_CLOSE;
        vb_client_flush(client);
        exchange_free(x, false);
        vb_client_exchange_broken(client, fin_would_end_it);
    } else {
        answer(x, info->status, info->to_client);
        exchange_free(x, false);
        vb_client_exchange_done(client);
    }
}

/* ---- the request ------------------------------------------------------------------------------------------------- */

static void send_head_alone(struct vb_exchange *x)
{
    struct iovec iov = {(void *)x->request.p, x->request.n};
    x->head_sent = true;
    vb_upstream_write(x->upstream, &iov, 1);
    vb_upstream_request_sent(x->upstream);
}

/* A kept connection, or a new one. On failure the exchange has ended. */
static int connect_backend(struct vb_exchange *x, bool fresh)
{
    char detail[64];
    int r = vb_upstream_get(&x->upstream, x->proxy, x->pool, (unsigned)x->backend, x, fresh);
    if (r == -EMFILE || r == -ENFILE || r == -ENOMEM || r == -ENOBUFS) /* our fault, not the backend's */
        fail(x, VB_FAIL_INTERNAL, vb_describe(detail, sizeof(detail), r));
    else if (r < 0)
        fail(x, VB_FAIL_CONNECT, vb_describe(detail, sizeof(detail), r));
    return r;
}

static bool has_body(const struct vb_head *head)
{
    return head->framing == VB_FRAMING_CHUNKED || (head->framing == VB_FRAMING_LENGTH && head->length > 0);
}

/* Makes the head that the backend gets. -ENOMEM. */
static int make_request(struct vb_exchange *x, const struct vb_head *head, struct vb_str max_forwards)
{
    struct vb_forward_request how;
    vb_forward_prepare(x->proxy, x->client, &x->id, (unsigned)x->backend, &how);
    how.upgrade = x->upgrade;
    how.max_forwards = max_forwards;
    size_t room = vb_forward_room(head, &how);
    char *to = x->inline_request;
    if (room > sizeof(x->inline_request)) {
        to = x->request_memory = malloc(room);
        if (to == NULL)
            return -ENOMEM;
    }
    ssize_t n = vb_h1_write_request(to, room, head, &how);
    assert(n > 0);
    x->request = (struct vb_str){to, (size_t)n};
    return 0;
}

/* Takes from the head what is needed when it is gone. */
static void note_request(struct vb_exchange *x, const struct vb_head *head)
{
    x->is_head = vb_str_eq(head->method, VB_STR("HEAD"));
    x->idempotent = vb_method_is_idempotent(head->method);
    x->client_is_1_1 = head->minor == 1;
    x->request_framing = head->framing;
    x->request_done = !has_body(head);
    x->request = head->raw; /* for the log, until the backend's own head is made */
    x->client_ip = vb_forward_client_ip(x->proxy, x->client, head, x->client_ip_text, sizeof(x->client_ip_text));
    vb_forward_take_id(x->proxy, head, &x->id);
}

/* Picks a pool and a backend. On failure the exchange has ended. */
static int choose(struct vb_exchange *x, struct vb_head *head)
{
    int pool = vb_route(x->proxy, head);
    if (pool < 0) {
        fail(x, VB_FAIL_NO_ROUTE, NULL);
        return pool;
    }
    x->pool = &x->proxy->pools[pool];
    x->backend = vb_lb_pick(x->pool->lb, &(struct vb_tried){0}, x->start_us);
    if (x->backend < 0) {
        fail(x, VB_FAIL_NO_BACKEND, NULL);
        return x->backend;
    }
    x->in_flight = true;
    x->upgrade = vb_forward_upgrade(x->pool->conf, head);
    vb_count(traffic_of(x), requests);
    return 0;
}

void vb_exchange_start(struct vb_exchange **ret_exchange, struct vb_proxy *proxy, struct vb_client *client,
                       struct vb_head *head)
{
    char max_forwards[VB_MAX_FORWARDS_LEN];
    struct vb_exchange *x = exchange_new(proxy, client);
    if (x == NULL) {
        vb_client_close_after(client);
        vb_client_answer(client,
                         &(struct vb_answer){.status = 500, .text = vb_failure_info(VB_FAIL_INTERNAL)->to_client});
        vb_client_exchange_done(client);
        return;
    }
    *ret_exchange = x;
    note_request(x, head);
    if (!vb_forward_is_for_others(head, max_forwards)) {
        answer(x, 200, NULL);
        exchange_free(x, false);
        vb_client_exchange_done(client);
        return;
    }
    if (choose(x, head) < 0)
        return;
    if (make_request(x, head, vb_str(max_forwards)) < 0)
        fail(x, VB_FAIL_INTERNAL, "out of memory");
    else if (connect_backend(x, false) == 0 && x->request_done)
        send_head_alone(x);
}

int vb_exchange_request_body(struct vb_exchange *x, const struct vb_body_part *part)
{
    struct iovec iov[VB_BODY_SPANS + VB_TRAILER_SPANS + 5];
    char line[VB_CHUNK_LINE_MAX];
    unsigned n = 0;
    bool chunked = x->request_framing == VB_FRAMING_CHUNKED;
    if (!x->head_sent)
        iov[n++] = (struct iovec){(void *)x->request.p, x->request.n};
    x->head_sent = true;
    if (chunked && part->bytes > 0)
        iov[n++] = (struct iovec){line, vb_h1_write_chunk_line(line, part->bytes)};
    for (unsigned i = 0; i < part->n_spans; i++)
        iov[n++] = part->spans[i];
    if (chunked && part->bytes > 0)
        iov[n++] = (struct iovec){(void *)"\r\n", 2};
    if (chunked && part->complete) {
        iov[n++] = (struct iovec){(void *)"0\r\n", 3};
        for (unsigned i = 0; i < part->n_trailers; i++)
            iov[n++] = (struct iovec){(void *)part->trailers[i].p, part->trailers[i].n};
        iov[n++] = (struct iovec){(void *)"\r\n", 2};
    }
    int r = n > 0 ? vb_upstream_write(x->upstream, iov, n) : 0;
    if (part->complete) {
        x->request_done = true;
        vb_upstream_request_sent(x->upstream);
    }
    return r == 1;
}

void vb_exchange_request_failed(struct vb_exchange *x, unsigned status, const char *why)
{
    struct vb_client *client = x->client;
    vb_log_info("%.*s: %u: %s", VB_STR_ARGS(x->client_ip), status, why);
    vb_count(x->proxy->stats, refused);
    vb_client_close_after(client);
    if (x->response_started) {
        exchange_free(x, false);
        vb_client_exchange_broken(client, true);
        return;
    }
    answer(x, status, why);
    exchange_free(x, false); /* the backend's connection is closed: it has half a request */
    vb_client_exchange_done(client);
}

void vb_exchange_upstream_drained(struct vb_exchange *x)
{
    if (!x->request_done)
        vb_client_resume(x->client);
}

void vb_exchange_abort(struct vb_exchange *x)
{
    vb_count(x->proxy->stats, client_aborts);
    exchange_free(x, false);
}

/* ---- the response ------------------------------------------------------------------------------------------------ */

bool vb_exchange_is_head(const struct vb_exchange *x)
{
    return x->is_head;
}

struct vb_str vb_exchange_upgrade(const struct vb_exchange *x)
{
    return x->upgrade;
}

void vb_exchange_upgraded(struct vb_exchange *x, const struct vb_head *head, struct vb_str rest)
{
    struct vb_client *client = x->client;
    struct vb_forward_response how = {
        .via = x->proxy->via, .upgrade = x->upgrade, .id_field = x->proxy->id_field, .id = id_of(x)};
    struct vb_body_part part = {.spans = {{(void *)rest.p, rest.n}}, .n_spans = 1, .bytes = rest.n};
    vb_client_send_head(client, head, &how);
    vb_client_send_body(client, VB_FRAMING_NONE, &part);
    vb_count(traffic_of(x), upgrades);
    count_latency(x);                  /* to the switch; how long the tunnel lives is no latency */
    if (vb_client_flush(client) < 0) { /* before the upstream goes, which owns `rest` */
        vb_client_cut(client);
        return;
    }
    struct vb_stream *backend = vb_upstream_detach(&x->upstream);
    if (vb_tunnel_open(&x->tunnel, x->proxy, x, vb_client_stream(client), &backend) < 0) {
        vb_client_cut(client);
        return;
    }
    vb_client_begin_tunnel(client, x->tunnel);
}

void vb_exchange_tunnel_moved(struct vb_exchange *x, bool from_client, size_t bytes)
{
    if (from_client)
        vb_count_n(traffic_of(x), bytes_out, bytes);
    else
        vb_count_n(traffic_of(x), bytes_in, bytes);
}

void vb_exchange_tunnel_over(struct vb_exchange *x, enum vb_tunnel_ending how)
{
    struct vb_client *client = x->client;
    vb_tunnel_close(&x->tunnel, how);
    exchange_free(x, false);
    vb_client_tunnel_over(client, how == VB_TUNNEL_BROKEN);
}

void vb_exchange_interim(struct vb_exchange *x, const struct vb_head *head)
{
    struct vb_forward_response how = {.via = x->proxy->via, .framing = VB_FRAMING_NONE};
    if (!x->client_is_1_1)
        return; /* RFC 9110 15.2: HTTP/1.0 clients do not know them */
    vb_client_send_head(x->client, head, &how);
    vb_exchange_response_flush(x);
}

static enum vb_framing framing_for_client(const struct vb_exchange *x, enum vb_framing framing)
{
    if (framing == VB_FRAMING_CHUNKED || framing == VB_FRAMING_CLOSE)
        return x->client_is_1_1 ? VB_FRAMING_CHUNKED : VB_FRAMING_CLOSE;
    return framing;
}

void vb_exchange_response_head(struct vb_exchange *x, const struct vb_head *head)
{
    x->response_started = true;
    x->status = head->status;
    x->response_framing = framing_for_client(x, head->framing);
    if (x->response_framing == VB_FRAMING_CLOSE)
        vb_client_close_after(x->client);
    bool closes = vb_client_decide_close(x->client);
    bool has_date = vb_head_find(head, VB_FIELD_DATE) != NULL;
    struct vb_forward_response how = {
        .via = x->proxy->via,
        .upgrade = head->status == 426 ? vb_forward_offer(x->pool->conf, head) : VB_STR(""),
        .date = has_date ? VB_STR("") : vb_proxy_date(x->proxy),
        .id_field = x->proxy->id_field,
        .id = id_of(x),
        .framing = x->response_framing,
        .announce_close = closes,
        .announce_keep_alive = !closes && !x->client_is_1_1,
    };
    vb_client_send_head(x->client, head, &how);
}

void vb_exchange_response_body(struct vb_exchange *x, const struct vb_body_part *part)
{
    vb_client_send_body(x->client, x->response_framing, part);
}

void vb_exchange_response_flush(struct vb_exchange *x)
{
    int r = vb_client_flush(x->client);
    if (r == 1)
        vb_upstream_pause(x->upstream);
    else if (r < 0)
        vb_client_cut(x->client); /* ends in vb_exchange_abort */
}

void vb_exchange_response_done(struct vb_exchange *x, bool keep_upstream)
{
    struct vb_client *client = x->client;
    count_response(x);
    not_in_flight(x);
    if (vb_client_flush(client) < 0) {
        vb_client_cut(client);
        return;
    }
    /* A response that came before the request was complete: the rest of it has no place to go. */
    exchange_free(x, keep_upstream && x->request_done);
    vb_client_exchange_done(client);
}

void vb_exchange_client_drained(struct vb_exchange *x)
{
    if (x->upstream != NULL)
        vb_upstream_resume(x->upstream);
}

/* Nothing of the request can have taken effect twice: see the head of this file. */
static bool may_send_again(const struct vb_exchange *x, enum vb_failure failure)
{
    return (failure == VB_FAIL_CLOSED || failure == VB_FAIL_RESET) && !x->retried && !x->response_started &&
           x->idempotent && x->request_framing == VB_FRAMING_NONE && vb_upstream_may_be_stale(x->upstream);
}

void vb_exchange_upstream_failed(struct vb_exchange *x, enum vb_failure failure, const char *detail)
{
    if (!may_send_again(x, failure)) {
        fail(x, failure, detail);
        return;
    }
    x->retried = true;
    vb_count(traffic_of(x), retries);
    vb_upstream_release(&x->upstream, false);
    if (connect_backend(x, true) == 0)
        send_head_alone(x);
}
