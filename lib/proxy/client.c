/*
 * A client's connection: its states, its time-outs, and its requests one after the other.
 *
 * It begins as PREFACE where a PROXY header is due; then it is QUIET, or EXCESS when it is one too many. HEAD and
 * EXCHANGE follow with each request. After the last response the stream is told to finish, and the client is gone while
 * the stream still sends. After an upgrade the stream's events go to a tunnel; the client stays in EXCHANGE until the
 * tunnel ends.
 *
 * Time-outs: QUIET `timeouts.keepalive` (`timeouts.header` before the first request); PREFACE and HEAD together
 * `timeouts.header` for the whole head, however it trickles in; EXCHANGE `timeouts.body` between bytes of the request's
 * body, and between bytes that a slow reader takes.
 *
 * The client may end inside any call that goes down to an exchange or a stream. Events therefore hold the memory with
 * `in_event` until they return.
 */
#include "client_priv.h"

#include <errno.h>
#include <unistd.h>

#include "exchange.h"
#include "tunnel.h"
#include "vb/log.h"

#define CLIENT_MAGIC   0x434c4e54
#define PIPELINE_PAUSE VB_READ_MAX /* of waiting bytes, from which the client is read no further */

static struct vb_client *client_of(void *owner)
{
    return vb_cast(struct vb_client, CLIENT_MAGIC, owner);
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */

static void destroy(struct vb_client *c)
{
    free(c->reader);
    free(c);
}

void vb_client_end(struct vb_client *c, enum vb_client_ending how)
{
    struct vb_proxy *proxy = c->proxy;
    if (c->dead)
        return;
    c->dead = true;
    if (c->exchange != NULL)
        vb_exchange_abort(c->exchange);
    c->exchange = NULL;
    if (proxy->to_client.owner == c)
        proxy->to_client.n = proxy->to_client.used = 0;
    vb_timer_stop(&c->timer);
    vb_buf_clear(&c->input);
    if (how == VB_CLIENT_FINISH && c->body_open)
        vb_stream_finish_upload(&c->stream);
    else if (how == VB_CLIENT_FINISH)
        vb_stream_finish(&c->stream);
    else if (how == VB_CLIENT_RESET)
        vb_stream_reset(&c->stream);
    else
        vb_stream_close(&c->stream);
    TAILQ_REMOVE(&proxy->clients, c, link);
    vb_client_depart(c);
    vb_sub64(&proxy->stats->connections, 1);
    if (!c->in_event)
        destroy(c);
    if (TAILQ_EMPTY(&proxy->clients) && proxy->drained != NULL) {
        void (*drained)(void *) = proxy->drained;
        proxy->drained = NULL;
        drained(proxy->drained_owner);
    }
}

void vb_client_cut(struct vb_client *c)
{
    vb_client_end(c, c->exchange != NULL ? VB_CLIENT_RESET
                                         : VB_CLIENT_CLOSE); /* half a response must not look like a whole one */
}

/* Events begin and end with these; after leave() the client may be gone. */
static void enter(struct vb_client *c)
{
    assert(!c->in_event);
    c->in_event = true;
}

static void leave(struct vb_client *c)
{
    c->in_event = false;
    if (c->dead)
        destroy(c);
}

/* ---- time-outs --------------------------------------------------------------------------------------------------- */

static void on_quiet_timeout(struct vb_timer *timer)
{
    vb_client_end(vb_container_of(timer, struct vb_client, timer), VB_CLIENT_FINISH);
}

static void on_head_timeout(struct vb_timer *timer)
{
    vb_client_refuse(vb_container_of(timer, struct vb_client, timer), 408, "the request head did not arrive in time");
}

static void on_body_timeout(struct vb_timer *timer)
{
    struct vb_client *c = vb_container_of(timer, struct vb_client, timer);
    if (!c->write_blocked) {
        vb_exchange_request_failed(c->exchange, 408, "the request body did not arrive in time");
    } else if (vb_stream_unsent(c->stream) < c->unsent) {
        vb_client_arm(c); /* slow, but it reads */
    } else {
        vb_log_info("%s: stopped reading its response", c->ip);
        vb_client_end(c, VB_CLIENT_RESET);
    }
}

/* We are leaving, and it has no request. Many programs ask anew only where a connection has served them before. */
static bool may_be_sent_away(const struct vb_client *c)
{
    bool has_none = c->state == VB_CLIENT_QUIET || c->state == VB_CLIENT_PREFACE;
    return c->proxy->draining && has_none && (c->requests > 0 || !c->proxy->patient);
}

void vb_client_arm(struct vb_client *c)
{
    struct vb_proxy *proxy = c->proxy;
    if (c->write_blocked)
        c->unsent = vb_stream_unsent(c->stream);
    if (c->write_blocked || (c->state == VB_CLIENT_EXCHANGE && c->body_open && !c->read_paused))
        vb_timer_start(&c->timer, &proxy->body, on_body_timeout);
    else if (c->state == VB_CLIENT_EXCESS)
        vb_timer_start(&c->timer, &proxy->excess, on_quiet_timeout);
    else if (may_be_sent_away(c))
        vb_timer_start(&c->timer, &proxy->drain, on_quiet_timeout);
    else if (c->state == VB_CLIENT_PREFACE && c->timer.list == NULL)
        vb_timer_start(&c->timer, &proxy->header, on_quiet_timeout);
    else if (c->state == VB_CLIENT_PREFACE)
        return; /* it goes on to run */
    else if (c->state == VB_CLIENT_QUIET && c->requests == 0 && c->timer.list == &proxy->header)
        return; /* behind a PROXY header: that was part of the time for the first head */
    else if (c->state == VB_CLIENT_QUIET)
        vb_timer_start(&c->timer, c->requests == 0 ? &proxy->header : &proxy->keepalive, on_quiet_timeout);
    else if (c->state == VB_CLIENT_HEAD && c->timer.list != &proxy->header)
        vb_timer_start(&c->timer, &proxy->header, on_head_timeout);
    else if (c->state == VB_CLIENT_HEAD)
        c->timer.fire = on_head_timeout; /* it runs since the connection was opened, and goes on */
    else
        vb_timer_stop(&c->timer);
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

void vb_client_refuse(struct vb_client *c, unsigned status, const char *why)
{
    vb_log_info("%s: %u: %s", c->ip, status, why);
    vb_count(c->proxy->stats, refused);
    c->close_after = true;
    vb_client_answer(c, &(struct vb_answer){.status = status, .text = why, .no_body = c->is_head});
    vb_client_end(c, VB_CLIENT_FINISH);
}

static void set_reading(struct vb_client *c, bool on)
{
    if (c->read_paused != on)
        return;
    c->read_paused = !on;
    if (on)
        vb_stream_resume(c->stream);
    else
        vb_stream_pause(c->stream);
}

static const char cut_short[] = "the client closed before its request body was complete";
static const char too_large[] = "the request body is larger than this server takes";

/* Decodes body bytes and hands them to the exchange; how many were used. */
static size_t take_body(struct vb_client *c, const char *bytes, size_t n)
{
    struct vb_body_part *part = &c->proxy->part;
    uint64_t limit = c->proxy->conf->limits.body;
    size_t done = 0;
    bool waiting;
    do { /* once at least: a head may wait for the first part to leave with */
        if (vb_body_read(c->reader, bytes + done, n - done, part) < 0) {
            vb_exchange_request_failed(c->exchange, 400, "the framing of the request body is broken");
            return done;
        }
        if (limit != 0 && c->reader->body_bytes > limit) {
            vb_exchange_request_failed(c->exchange, 413, too_large);
            return done;
        }
        done += part->consumed;
        waiting = part->waiting;
        c->body_open = !part->complete;
        if (vb_exchange_request_body(c->exchange, part) == 1)
            set_reading(c, false); /* what has been read already is still handed on: it is bounded by one read */
    } while (c->exchange != NULL && c->body_open && !waiting && done < n);
    if (!c->dead && !c->body_open)
        set_reading(c, true); /* no more goes to the backend, and only reading can tell that the client has gone */
    return done;
}

/* The head as llhttp sees it. Of a request without content nothing is left to be read then. */
static int begin_reading(struct vb_client *c, const struct vb_head *head)
{
    struct vb_body_reader none, *reader = &none;
    c->body_open = vb_head_has_content(head);
    if (c->body_open && c->reader == NULL)
        c->reader = malloc(sizeof(*c->reader));
    if (c->body_open)
        reader = c->reader;
    return reader == NULL ? -ENOMEM : vb_body_begin(reader, VB_REQUEST, head, &c->proxy->limits);
}

/* A whole head: the exchange begins. */
static void start_exchange(struct vb_client *c, struct vb_head *head)
{
    struct vb_proxy *proxy = c->proxy;
    unsigned limit = proxy->conf->limits.requests_per_connection;
    uint64_t body_limit = proxy->conf->limits.body;
    int r = begin_reading(c, head);
    if (r < 0) {
        vb_client_refuse(c, r == -ENOMEM ? 500 : 400,
                         r == -ENOMEM ? "out of memory" : "the request head can be read in two ways");
        return;
    }
    if (body_limit != 0 && head->framing == VB_FRAMING_LENGTH && head->length > body_limit) {
        vb_client_refuse(c, 413, too_large);
        return;
    }
    c->requests++;
    c->state = VB_CLIENT_EXCHANGE;
    c->speaks_1_0 = head->minor == 0;
    c->close_after = !head->keep_alive || (limit != 0 && c->requests >= limit);
    c->says_last = !head->keep_alive && !c->body_open;
    vb_count(proxy->stats, requests);
    vb_exchange_start(&c->exchange, proxy, c, head);
}

/* A head at the start of `bytes`; how many bytes were used, 0: it is not whole yet, or the client is done for. */
static size_t take_head(struct vb_client *c, const char *bytes, size_t n)
{
    struct vb_proxy *proxy = c->proxy;
    struct vb_refusal refusal;
    ssize_t r = vb_h1_parse_request(bytes, n, &proxy->limits, &proxy->head, &refusal);
    c->is_head = vb_str_eq(proxy->head.method, VB_STR("HEAD"));
    if (r < 0) {
        vb_client_refuse(c, refusal.status, refusal.why);
        return 0;
    }
    if (r == 0) {
        c->state = VB_CLIENT_HEAD;
        return 0;
    }
    size_t used = (size_t)r;
    start_exchange(c, &proxy->head);
    if (c->exchange != NULL && c->body_open)
        used += take_body(c, bytes + used, n - used); /* also when nothing has arrived of it: the head must leave */
    return used;
}

/* It has begun to send a request, so that it will read the answer. */
static size_t refuse_excess(struct vb_client *c, const char *bytes, size_t n)
{
    static const char head[] = "HEAD ";
    c->is_head = n >= sizeof(head) - 1 && memcmp(bytes, head, sizeof(head) - 1) == 0;
    vb_client_refuse(c, c->excess_status,
                     c->excess_status == 429 ? "too many connections from this address" : "too many connections");
    return 0;
}

/* Uses up what can be used now; what is left waits for the end of the exchange, or for more bytes. */
static size_t consume(struct vb_client *c, const char *bytes, size_t n)
{
    size_t done = 0, used = 1;
    while (!c->dead && done < n && used > 0) {
        if (c->state == VB_CLIENT_PREFACE)
            used = vb_client_take_preface(c, bytes + done, n - done);
        else if (c->state == VB_CLIENT_EXCESS)
            used = refuse_excess(c, bytes + done, n - done);
        else if (c->state == VB_CLIENT_EXCHANGE)
            used = c->body_open ? take_body(c, bytes + done, n - done) : 0;
        else /* a client that does not read its responses gets no further ones */
            used = c->write_blocked ? 0 : take_head(c, bytes + done, n - done);
        done += used;
    }
    return done;
}

/* Consumes `input`, as far as possible. */
static void consume_input(struct vb_client *c)
{
    size_t done = consume(c, vb_buf_data(&c->input), vb_buf_len(&c->input));
    if (!c->dead)
        vb_buf_consume(&c->input, done);
}

static void after_input(struct vb_client *c)
{
    if (c->dead)
        return;
    bool is_next = c->state == VB_CLIENT_QUIET || (c->state == VB_CLIENT_EXCHANGE && !c->body_open);
    if (is_next && vb_buf_len(&c->input) >= PIPELINE_PAUSE)
        set_reading(c, false);
    vb_client_arm(c);
}

/* Between two requests: is there another one that has been read already? */
static void next_request(struct vb_client *c)
{
    set_reading(c, true);
    if (vb_buf_len(&c->input) > 0)
        consume_input(c);
    if (!c->dead && c->state != VB_CLIENT_EXCHANGE && c->peer_done && !c->write_blocked)
        vb_client_end(c, VB_CLIENT_FINISH);
    else if (!c->dead && c->peer_done && c->body_open)
        vb_exchange_request_failed(c->exchange, 400, cut_short);
    after_input(c);
}

/* ---- events ------------------------------------------------------------------------------------------------------ */

static void on_data(void *owner, const char *bytes, size_t n)
{
    struct vb_client *c = client_of(owner);
    enter(c);
    if (vb_buf_len(&c->input) > 0) {
        bool line_end = c->state != VB_CLIENT_HEAD || memchr(bytes, '\n', n) != NULL;
        if (vb_buf_append(&c->input, bytes, n) < 0)
            vb_client_end(c, VB_CLIENT_RESET);
        /* a head is looked at again when a further line is complete, or when it is too long to be one */
        else if (line_end || vb_buf_len(&c->input) >= c->proxy->limits.bytes)
            consume_input(c);
    } else {
        size_t done = consume(c, bytes, n);
        if (!c->dead && done < n && vb_buf_append(&c->input, bytes + done, n - done) < 0)
            vb_client_end(c, VB_CLIENT_RESET);
    }
    after_input(c);
    leave(c);
}

static void on_end(void *owner)
{
    struct vb_client *c = client_of(owner);
    enter(c);
    c->peer_done = true;
    if (c->state < VB_CLIENT_QUIET || (c->state == VB_CLIENT_QUIET && vb_buf_len(&c->input) == 0) ||
        c->state == VB_CLIENT_HEAD)
        vb_client_end(c, VB_CLIENT_FINISH);
    else if (c->state == VB_CLIENT_EXCHANGE && c->body_open)
        vb_exchange_request_failed(c->exchange, 400, cut_short);
    else if (c->exchange != NULL && vb_exchange_is_waiting(c->exchange))
        vb_client_end(c, VB_CLIENT_CLOSE); /* hardly anybody who still reads: a turn is not wasted on it */
    leave(c);
}

static void on_drained(void *owner)
{
    struct vb_client *c = client_of(owner);
    enter(c);
    c->write_blocked = false;
    if (c->exchange != NULL)
        vb_exchange_client_drained(c->exchange);
    else
        next_request(c);
    if (!c->dead)
        vb_client_arm(c);
    leave(c);
}

void vb_client_blocked(struct vb_client *c)
{
    c->write_blocked = true; /* also when it is already: what counts as progress is measured from the longer queue */
    vb_client_arm(c);
}

static void on_written(void *owner, int result)
{
    struct vb_client *c = client_of(owner);
    if (result == 1)
        vb_client_blocked(c);
    else if (result < 0) /* a part may have left */
        vb_client_end(c, VB_CLIENT_RESET);
}

static void on_failed(void *owner, int code)
{
    vb_client_end(client_of(owner), VB_CLIENT_CLOSE);
}

static const struct vb_stream_events events = {
    .data = on_data,
    .end = on_end,
    .drained = on_drained,
    .written = on_written,
    .failed = on_failed,
};

void vb_client_open(struct vb_proxy *proxy, const struct vb_conf_listener *listener, int fd,
                    const struct sockaddr *peer)
{
    struct vb_client *c = malloc(sizeof(*c)); /* calloc(3) passes by the thread's cache of memory that was freed */
    if (c == NULL) {
        close(fd);
        return;
    }
    *c = (struct vb_client){.magic = CLIENT_MAGIC, .proxy = proxy};
    if (vb_stream_open(&c->stream, proxy->loop, fd, &events, c) < 0) {
        free(c);
        return;
    }
    TAILQ_INSERT_TAIL(&proxy->clients, c, link);
    vb_add64(&proxy->stats->connections, 1);
    vb_count(proxy->stats, connections_total);
    vb_client_arrive(c, listener, peer);
    vb_client_arm(c);
}

struct vb_client *vb_client_next(struct vb_client *c)
{
    return TAILQ_NEXT(c, link);
}

void vb_client_drain(struct vb_client *c)
{
    if (c->state == VB_CLIENT_QUIET || c->state == VB_CLIENT_PREFACE)
        vb_client_arm(c);
}

/* ---- for the exchange -------------------------------------------------------------------------------------------- */

struct vb_str vb_client_ip(const struct vb_client *c)
{
    return (struct vb_str){c->ip, c->ip_n};
}

bool vb_client_has_ip(const struct vb_client *c)
{
    return c->has_ip;
}

bool vb_client_is_trusted(const struct vb_client *c)
{
    return c->is_trusted;
}

bool vb_client_decide_close(struct vb_client *c)
{
    if (c->body_open || c->proxy->draining || (c->peer_done && vb_buf_len(&c->input) == 0))
        c->close_after = true;
    return c->close_after;
}

void vb_client_close_after(struct vb_client *c)
{
    c->close_after = true;
}

/*
 * The response is whole, and with it the connection. Who has said that he sends nothing more, and has not, needs no
 * time to hear of it: unread bytes would make an RST of the close, which could cost him the response (RFC 9112 9.6).
 * Behind content there may be more all the same, such as a line end that some programs add.
 */
static enum vb_client_ending how_to_end(const struct vb_client *c)
{
    /* Inside of an event not all that has been read is in `input` yet. */
    bool may_close = c->says_last && !c->in_event && vb_buf_len(&c->input) == 0 && !vb_stream_queued(c->stream);
    return may_close && !vb_stream_has_unread(c->stream) ? VB_CLIENT_CLOSE : VB_CLIENT_FINISH;
}

void vb_client_exchange_done(struct vb_client *c)
{
    c->exchange = NULL;
    /* Only what the response has announced, or what cannot be otherwise: a client that has been told nothing may have
     * sent its next request already, and when we are draining that one will be told. */
    if (c->close_after || c->body_open) {
        vb_client_end(c, how_to_end(c));
        return;
    }
    c->state = VB_CLIENT_QUIET;
    if (c->in_event) /* the loop in consume() goes on by itself */
        return;
    enter(c);
    next_request(c);
    leave(c);
}

void vb_client_guard(struct vb_client *c, bool on)
{
    vb_stream_guard(c->stream, on);
}

void vb_client_exchange_broken(struct vb_client *c, bool reset)
{
    c->exchange = NULL;
    c->body_open = false;
    c->close_after = true;
    if (reset)
        vb_client_end(c, VB_CLIENT_RESET);
    else
        vb_client_end(c, VB_CLIENT_FINISH);
}

void vb_client_resume(struct vb_client *c)
{
    set_reading(c, true);
    vb_client_arm(c);
}

struct vb_stream *vb_client_stream(struct vb_client *c)
{
    return c->stream;
}

void vb_client_begin_tunnel(struct vb_client *c, struct vb_tunnel *tunnel)
{
    struct vb_buf input = c->input;
    c->input = (struct vb_buf){0};
    vb_timer_stop(&c->timer);
    c->write_blocked = c->read_paused = false; /* from now on the tunnel sees to that */
    vb_tunnel_begin(tunnel, (struct vb_str){vb_buf_data(&input), vb_buf_len(&input)}, c->peer_done);
    vb_buf_clear(&input);
}

void vb_client_tunnel_over(struct vb_client *c, bool broken)
{
    c->exchange = NULL;
    vb_client_end(c, broken ? VB_CLIENT_RESET : VB_CLIENT_FINISH);
}
