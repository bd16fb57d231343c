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
 *   no route matches, no backend to be had     404, 503; the same when a limit of circuit_breaker is reached
 *   all backends have max_connections          it waits in line (queue.c); 503 when that takes too long
 *   a kept connection turns out to be dead     the request goes once more to the same backend, on a fresh connection:
 *                                              that is no failure
 *   the backend fails before it answers        another one is tried; else 502, or 504 when it was too slow
 *   it is declared down while we wait          another one is tried; else we go on waiting
 *   ... in the middle of the response          the client's connection ends so that it can tell
 *   the client goes away                       the backend's connection is closed, so that it can stop working
 *
 * What may be tried again, and when, is in retry.h; tries.c does it.
 *
 * When the backend agrees to an upgrade (101) the exchange goes on as the owner of a tunnel, until that ends.
 *
 * Whatever the end, the request is taken out of the in-flight count exactly once: before the last byte of the response
 * leaves, so that the client's next request sees it gone in every worker, or else in vb_exchange_free.
 */
#include "exchange_priv.h"

#include <errno.h>

#include "client.h"
#include "forward.h"
#include "queue.h"
#include "sticky.h"
#include "upstream.h"
#include "vb/clock.h"
#include "vb/log.h"

#define HELD_MAX (64 << 10) /* of a body, and one read more, while its request waits for its turn */

/* ---- beginning and end ------------------------------------------------------------------------------------------- */

static struct vb_exchange *exchange_new(struct vb_proxy *proxy, struct vb_client *client)
{
    struct vb_exchange *x = SLIST_FIRST(&proxy->free_exchanges);
    if (x != NULL) {
        SLIST_REMOVE_HEAD(&proxy->free_exchanges, link);
    } else {
        x = malloc(sizeof(*x));
        if (x == NULL)
            return NULL;
    }
    proxy->n_exchanges++;
    proxy->most_exchanges = VB_MAX(proxy->most_exchanges, proxy->n_exchanges);
    memset(x, 0, offsetof(struct vb_exchange, id));
    x->proxy = proxy;
    x->client = client;
    x->backend = x->stuck_to = -1;
    x->start_us = vb_clock_us();
    return x;
}

void vb_exchange_free(struct vb_exchange *x, bool keep_upstream)
{
    struct vb_proxy *proxy = x->proxy;
    vb_upstream_release(&x->upstream, keep_upstream);
    vb_tunnel_close(&x->tunnel, VB_TUNNEL_BROKEN);
    vb_queue_leave(x);
    vb_exchange_not_in_flight(x);
    vb_timer_stop(&x->total);
    vb_retry_free(&x->retry);
    free(x->request_memory);
    proxy->n_exchanges--;
    SLIST_INSERT_HEAD(&proxy->free_exchanges, x, link); /* until a burst is over: see reclaim.h */
}

void vb_exchange_free_all(struct vb_proxy *proxy)
{
    struct vb_exchange *x;
    while ((x = SLIST_FIRST(&proxy->free_exchanges)) != NULL) {
        SLIST_REMOVE_HEAD(&proxy->free_exchanges, link);
        free(x);
    }
}

void vb_exchange_answer(struct vb_exchange *x, unsigned status, const char *text, unsigned retry_after_s)
{
    vb_client_answer(x->client, &(struct vb_answer){.status = status,
                                                    .id = vb_exchange_id(x),
                                                    .text = text,
                                                    .no_body = x->is_head,
                                                    .retry_after_s = retry_after_s});
}

/* ---- the request ------------------------------------------------------------------------------------------------- */

/* What a request without Host gets for one. Who waits for his turn has no backend yet, and gets that of the first. */
static struct vb_str address_for_host(const struct vb_exchange *x)
{
    const char *address = x->backend >= 0 ? vb_shm_backend(x->proxy->shm, (unsigned)x->backend)->address
                                          : x->pool->conf->backends[0].address;
    return strncmp(address, "unix:", 5) == 0 ? VB_STR("localhost") : vb_str(address);
}

/* Makes the head that the backend gets. -ENOMEM. */
static int make_request(struct vb_exchange *x, const struct vb_head *head, struct vb_str max_forwards)
{
    struct vb_forward_request how;
    vb_forward_prepare(x->proxy, x->client, &x->id, &how);
    if (head->host.n == 0)
        how.fallback_host = address_for_host(x);
    how.upgrade = x->upgrade;
    how.max_forwards = max_forwards;
    size_t room = vb_h1_request_room(head, &how);
    char *to = x->inline_request;
    if (room > sizeof(x->inline_request)) {
        to = x->request_memory = malloc(room);
        if (to == NULL)
            return -ENOMEM;
    }
    x->request = (struct vb_str){to, vb_h1_write_request(to, head, &how)};
    assert(x->request.n <= room);
    return 0;
}

/* Takes from the head what is needed when it is gone. */
static void note_request(struct vb_exchange *x, const struct vb_head *head)
{
    x->is_head = vb_str_eq(head->method, VB_STR("HEAD"));
    x->retry.idempotent = vb_method_is_idempotent(head->method);
    x->client_is_1_1 = head->minor == 1;
    x->request_framing = head->framing;
    x->request_done = !vb_head_has_content(head);
    x->request = head->raw; /* for the log, until the backend's own head is made */
    x->client_ip = vb_forward_client_ip(x->proxy, x->client, head, x->client_ip_text, sizeof(x->client_ip_text));
    vb_forward_take_id(x->proxy, head, &x->id);
    vb_shm_worker_takes(x->proxy->stats, x->start_us, head->method, head->target);
}

void vb_exchange_start(struct vb_exchange **ret_exchange, struct vb_proxy *proxy, struct vb_client *client,
                       struct vb_head *head)
{
    char memory[VB_MAX_FORWARDS_LEN];
    struct vb_str max_forwards;
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
    if (!vb_forward_is_for_others(head, memory, &max_forwards)) {
        vb_exchange_answer(x, 200, NULL, 0);
        vb_exchange_free(x, false);
        vb_client_exchange_done(client);
        return;
    }
    if (vb_exchange_choose(x, head) < 0)
        return;
    if (make_request(x, head, max_forwards) < 0)
        vb_exchange_give_up(x, VB_FAIL_INTERNAL, "out of memory");
    else if (vb_exchange_connect(x) && x->request_done) {
        x->head_sent = true; /* else it leaves with the first part of the body */
        vb_exchange_send(x);
    }
}

bool vb_exchange_is_waiting(const struct vb_exchange *x)
{
    return x->waits_since_us != 0;
}

/*
 * It waits for its turn, and so does what has come of its body. There is more of it to be read until that is much: only
 * who is read is heard when he leaves.
 */
static int hold_body(struct vb_exchange *x, const struct iovec *iov, unsigned n, bool complete)
{
    if (vb_retry_hold(&x->retry, iov, n) < 0) {
        vb_exchange_give_up(x, VB_FAIL_INTERNAL, "out of memory");
        return 0;
    }
    x->request_done = complete;
    return !complete && vb_buf_len(&x->retry.body) >= HELD_MAX;
}

int vb_exchange_request_body(struct vb_exchange *x, const struct vb_body_part *part)
{
    struct iovec iov[VB_BODY_SPANS + VB_TRAILER_SPANS + 5];
    char line[VB_CHUNK_LINE_MAX];
    unsigned n = 0;
    bool chunked = x->request_framing == VB_FRAMING_CHUNKED, waits = vb_exchange_is_waiting(x);
    bool with_head = !x->head_sent && !waits;
    if (with_head)
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
    if (waits)
        return hold_body(x, iov, n, part->complete);
    int r = n > 0 ? vb_upstream_write(x->upstream, iov, n) : 0;
    vb_retry_keep(&x->retry, iov + with_head, n - with_head, vb_exchange_has_sent(x));
    if (part->complete) {
        x->request_done = true;
        x->asked_us = vb_clock_us();
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
        vb_exchange_free(x, false);
        vb_client_exchange_broken(client, true);
        return;
    }
    vb_exchange_answer(x, status, why, 0);
    vb_exchange_free(x, false); /* the backend's connection is closed: it has half a request */
    vb_client_exchange_done(client);
}

void vb_exchange_upstream_drained(struct vb_exchange *x)
{
    vb_retry_keep(&x->retry, NULL, 0, vb_exchange_has_sent(x));
    if (!x->request_done)
        vb_client_resume(x->client);
}

void vb_exchange_abort(struct vb_exchange *x)
{
    vb_count(x->proxy->stats, client_aborts);
    vb_exchange_note_abort(x);
    vb_exchange_free(x, false);
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

/* The cookie that this response sets, if it must: it is made in `to`. */
static struct vb_str cookie_to_set(const struct vb_exchange *x, char to[VB_STICKY_MAX])
{
    const struct vb_sticky *sticky = x->pool->sticky;
    if (sticky == NULL || (x->stuck_to == x->backend && !x->cookie_is_old) ||
        !vb_sticky_binds(sticky, (unsigned)x->backend))
        return VB_STR("");
    return vb_sticky_write(sticky, (unsigned)x->backend, vb_clock_wall_us(), to);
}

void vb_exchange_upgraded(struct vb_exchange *x, const struct vb_head *head, struct vb_str rest)
{
    struct vb_client *client = x->client;
    char cookie[VB_STICKY_MAX];
    struct vb_forward_response how = {.via = x->proxy->via,
                                      .upgrade = x->upgrade,
                                      .id_field = x->proxy->id_field,
                                      .id = vb_exchange_id(x),
                                      .set_cookie = cookie_to_set(x, cookie)};
    struct vb_body_part part = {.spans = {{(void *)rest.p, rest.n}}, .n_spans = 1, .bytes = rest.n};
    vb_exchange_note_answer(x, head);
    vb_client_send_head(client, head, &how);
    vb_client_send_body(client, VB_FRAMING_NONE, &part);
    vb_timer_stop(&x->total);
    vb_count(x->traffic, upgrades);
    vb_exchange_note_success(x);       /* to the switch; how long the tunnel lives is no latency */
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
        vb_count_n(x->traffic, bytes_out, bytes);
    else
        vb_count_n(x->traffic, bytes_in, bytes);
}

void vb_exchange_tunnel_over(struct vb_exchange *x, enum vb_tunnel_ending how)
{
    struct vb_client *client = x->client;
    vb_tunnel_close(&x->tunnel, how);
    vb_exchange_free(x, false);
    vb_client_tunnel_over(client, how == VB_TUNNEL_BROKEN);
}

void vb_exchange_interim(struct vb_exchange *x, const struct vb_head *head)
{
    struct vb_forward_response how = {.via = x->proxy->via, .framing = VB_FRAMING_NONE};
    if (!x->client_is_1_1)
        return; /* RFC 9110 15.2: HTTP/1.0 clients do not know them */
    vb_retry_answered(&x->retry);
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
    vb_exchange_note_answer(x, head);
    if (vb_retry_is_failure(x->pool->conf, head->status) && vb_exchange_ask_another(x, head->status))
        return;
    vb_timer_stop(&x->total);
    x->response_started = true;
    vb_retry_answered(&x->retry);
    x->status = head->status;
    x->response_framing = framing_for_client(x, head->framing);
    if (x->response_framing == VB_FRAMING_CLOSE) {
        vb_client_close_after(x->client);
        vb_client_guard(x->client, true);
    }
    bool closes = vb_client_decide_close(x->client);
    bool has_date = vb_head_find(head, VB_FIELD_DATE) != NULL;
    char cookie[VB_STICKY_MAX];
    struct vb_forward_response how = {
        .via = x->proxy->via,
        .upgrade = head->status == 426 ? vb_forward_offer(x->pool->conf, head) : VB_STR(""),
        .date = has_date ? VB_STR("") : vb_proxy_date(x->proxy),
        .id_field = x->proxy->id_field,
        .id = vb_exchange_id(x),
        .set_cookie = cookie_to_set(x, cookie),
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
    vb_exchange_note_success(x);
    vb_exchange_not_in_flight(x);
    if (vb_client_flush_last(client) < 0) {
        vb_client_cut(client);
        return;
    }
    if (x->response_framing == VB_FRAMING_CLOSE)
        vb_client_guard(client, false);
    /* A response that came before the request was complete: the rest of it has no place to go. */
    vb_exchange_free(x, keep_upstream && x->request_done);
    vb_client_exchange_done(client);
}

void vb_exchange_client_drained(struct vb_exchange *x)
{
    if (x->upstream != NULL)
        vb_upstream_resume(x->upstream);
}
