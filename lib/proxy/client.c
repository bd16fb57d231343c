/*
 * A client's connection.
 *
 *   QUIET     no request has begun (before the first one, or between two)
 *   HEAD      part of a request head has arrived
 *   EXCHANGE  a request is being served; what the client pipelines behind it waits in `input`
 *
 * After the last response the stream is told to finish, and the client is gone while the stream still sends.
 *
 * Time-outs: QUIET `timeouts.keepalive` (`timeouts.header` before the first request); HEAD `timeouts.header` for the
 * whole head, however it trickles in; EXCHANGE `timeouts.body` between bytes of the request's body, and between bytes
 * that a slow reader takes.
 *
 * The client may end inside any call that goes down to an exchange or a stream. Events therefore hold the memory with
 * `in_event` until they return.
 */
#include "client.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "exchange.h"
#include "vb/addr.h"
#include "vb/buf.h"
#include "vb/log.h"

#define CLIENT_MAGIC   0x434c4e54
#define PIPELINE_PAUSE VB_READ_MAX /* of waiting bytes, from which the client is read no further */

enum client_state { QUIET, HEAD, EXCHANGE };

struct vb_client {
    uint32_t magic;
    enum client_state state;
    bool close_after; /* the connection ends with the response in hand */
    bool peer_done;   /* the client has sent its FIN: no request will follow, but it may still be reading */
    bool body_open;   /* the request in hand has more body to come */
    bool speaks_1_0;  /* the request in hand is HTTP/1.0 */
    bool read_paused, write_blocked;
    bool in_event, dead;
    unsigned requests;
    struct vb_proxy *proxy;
    struct vb_stream *stream;
    struct vb_exchange *exchange;
    struct vb_timer timer;
    size_t unsent; /* bytes that it had not taken when the timer was last started */
    struct vb_buf input;
    struct vb_body_reader reader; /* of the request in hand */
    TAILQ_ENTRY(vb_client) link;
    char ip[VB_ADDR_TEXT_MAX];
};

static struct vb_client *client_of(void *owner)
{
    return vb_cast(struct vb_client, CLIENT_MAGIC, owner);
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */

enum ending { END_FINISH, END_CLOSE, END_RESET };

static void end_client(struct vb_client *c, enum ending how)
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
    if (how == END_FINISH)
        vb_stream_finish(&c->stream);
    else if (how == END_RESET)
        vb_stream_reset(&c->stream);
    else
        vb_stream_close(&c->stream);
    TAILQ_REMOVE(&proxy->clients, c, link);
    vb_sub64(&proxy->stats->connections, 1);
    if (!c->in_event)
        free(c);
    if (proxy->draining && TAILQ_EMPTY(&proxy->clients) && proxy->drained != NULL) {
        void (*drained)(void *) = proxy->drained;
        proxy->drained = NULL;
        drained(proxy->drained_owner);
    }
}

void vb_client_cut(struct vb_client *c)
{
    end_client(c, c->exchange != NULL ? END_RESET : END_CLOSE); /* half a response must not look like a whole one */
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
        free(c);
}

/* ---- time-outs --------------------------------------------------------------------------------------------------- */

static void on_quiet_timeout(struct vb_timer *timer)
{
    end_client(vb_container_of(timer, struct vb_client, timer), END_FINISH);
}

static void refuse(struct vb_client *c, unsigned status, const char *why);

static void on_head_timeout(struct vb_timer *timer)
{
    refuse(vb_container_of(timer, struct vb_client, timer), 408, "the request head did not arrive in time");
}

static void arm(struct vb_client *c);

static void on_body_timeout(struct vb_timer *timer)
{
    struct vb_client *c = vb_container_of(timer, struct vb_client, timer);
    if (!c->write_blocked) {
        vb_exchange_request_failed(c->exchange, 408, "the request body did not arrive in time");
    } else if (vb_stream_unsent(c->stream) < c->unsent) {
        arm(c); /* slow, but it reads */
    } else {
        vb_log_info("%s: stopped reading its response", c->ip);
        end_client(c, END_RESET);
    }
}

static void arm(struct vb_client *c)
{
    struct vb_proxy *proxy = c->proxy;
    if (c->write_blocked)
        c->unsent = vb_stream_unsent(c->stream);
    if (c->write_blocked || (c->state == EXCHANGE && c->body_open && !c->read_paused))
        vb_timer_start(&c->timer, &proxy->body, on_body_timeout);
    else if (c->state == QUIET && proxy->draining)
        vb_timer_start(&c->timer, &proxy->drain, on_quiet_timeout);
    else if (c->state == QUIET)
        vb_timer_start(&c->timer, c->requests == 0 ? &proxy->header : &proxy->keepalive, on_quiet_timeout);
    else if (c->state == HEAD && c->timer.list != &proxy->header)
        vb_timer_start(&c->timer, &proxy->header, on_head_timeout);
    else if (c->state == HEAD)
        c->timer.fire = on_head_timeout; /* it runs since the connection was opened, and goes on */
    else
        vb_timer_stop(&c->timer);
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

/* A request that broke a rule: nobody but us will see it. */
static void refuse(struct vb_client *c, unsigned status, const char *why)
{
    vb_log_info("%s: %u: %s", c->ip, status, why);
    vb_count(c->proxy->stats, refused);
    c->close_after = true;
    vb_client_send_error(c, status, (struct vb_str){NULL, 0}, why, false);
    end_client(c, END_FINISH);
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

/* Decodes body bytes and hands them to the exchange; how many were used. */
static size_t take_body(struct vb_client *c, const char *bytes, size_t n)
{
    struct vb_body_part *part = &c->proxy->part;
    size_t done = 0;
    do { /* once at least: a head may wait for the first part to leave with */
        if (vb_body_read(&c->reader, bytes + done, n - done, part) < 0) {
            c->close_after = true;
            vb_exchange_request_failed(c->exchange, 400, "the framing of the request body is broken");
            return done;
        }
        done += part->consumed;
        c->body_open = !part->complete;
        if (vb_exchange_request_body(c->exchange, part) == 1)
            set_reading(c, false); /* what has been read already is still handed on: it is bounded by one read */
    } while (c->exchange != NULL && c->body_open && done < n);
    if (!c->dead && !c->body_open)
        set_reading(c, true); /* no more goes to the backend, and only reading can tell that the client has gone */
    return done;
}

/* A whole head: the exchange begins. */
static void start_exchange(struct vb_client *c, const struct vb_head *head)
{
    struct vb_proxy *proxy = c->proxy;
    unsigned limit = proxy->conf->limits.requests_per_connection;
    if (vb_body_begin(&c->reader, VB_REQUEST, head) < 0) {
        refuse(c, 400, "the request head can be read in two ways");
        return;
    }
    c->requests++;
    c->state = EXCHANGE;
    c->body_open = !c->reader.complete;
    c->speaks_1_0 = head->minor == 0;
    c->close_after = !head->keep_alive || (limit != 0 && c->requests >= limit);
    vb_count(proxy->stats, requests);
    vb_exchange_start(&c->exchange, proxy, c, head);
}

/* A head at the start of `bytes`; how many bytes were used, 0: it is not whole yet, or the client is done for. */
static size_t take_head(struct vb_client *c, const char *bytes, size_t n)
{
    struct vb_proxy *proxy = c->proxy;
    struct vb_refusal refusal;
    ssize_t r = vb_h1_parse_request(bytes, n, &proxy->limits, &proxy->head, &refusal);
    if (r < 0) {
        refuse(c, refusal.status, refusal.why);
        return 0;
    }
    if (r == 0) {
        c->state = HEAD;
        return 0;
    }
    size_t used = (size_t)r;
    start_exchange(c, &proxy->head);
    if (c->exchange != NULL && c->body_open)
        used += take_body(c, bytes + used, n - used); /* also when nothing has arrived of it: the head must leave */
    return used;
}

/* Uses up what can be used now; what is left waits for the end of the exchange, or for more bytes. */
static size_t consume(struct vb_client *c, const char *bytes, size_t n)
{
    size_t done = 0, used = 1;
    while (!c->dead && done < n && used > 0) {
        if (c->state == EXCHANGE)
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
    if (c->state != HEAD && vb_buf_len(&c->input) >= PIPELINE_PAUSE)
        set_reading(c, false);
    arm(c);
}

/* Between two requests: is there another one that has been read already? */
static void next_request(struct vb_client *c)
{
    set_reading(c, true);
    if (vb_buf_len(&c->input) > 0)
        consume_input(c);
    if (!c->dead && c->state != EXCHANGE && c->peer_done && !c->write_blocked)
        end_client(c, END_FINISH);
    after_input(c);
}

/* ---- events ------------------------------------------------------------------------------------------------------ */

static void on_data(void *owner, const char *bytes, size_t n)
{
    struct vb_client *c = client_of(owner);
    enter(c);
    if (vb_buf_len(&c->input) > 0) {
        bool line_end = c->state != HEAD || memchr(bytes, '\n', n) != NULL;
        if (vb_buf_append(&c->input, bytes, n) < 0)
            end_client(c, END_RESET);
        /* a head is looked at again when a further line is complete, or when it is too long to be one */
        else if (line_end || vb_buf_len(&c->input) >= c->proxy->limits.bytes)
            consume_input(c);
    } else {
        size_t done = consume(c, bytes, n);
        if (!c->dead && done < n && vb_buf_append(&c->input, bytes + done, n - done) < 0)
            end_client(c, END_RESET);
    }
    after_input(c);
    leave(c);
}

static void on_end(void *owner)
{
    struct vb_client *c = client_of(owner);
    enter(c);
    c->peer_done = true;
    if ((c->state == QUIET && vb_buf_len(&c->input) == 0) || c->state == HEAD)
        end_client(c, END_FINISH);
    else if (c->state == EXCHANGE && c->body_open)
        vb_exchange_request_failed(c->exchange, 400, "the client closed before its request body was complete");
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
        arm(c);
    leave(c);
}

static void on_failed(void *owner, int code)
{
    end_client(client_of(owner), END_CLOSE);
}

static const struct vb_stream_events events = {
    .data = on_data,
    .end = on_end,
    .drained = on_drained,
    .failed = on_failed,
};

void vb_client_open(struct vb_proxy *proxy, int fd, const struct sockaddr *peer)
{
    struct vb_client *c = calloc(1, sizeof(*c));
    if (c == NULL) {
        close(fd);
        return;
    }
    c->magic = CLIENT_MAGIC;
    c->proxy = proxy;
    if (vb_stream_open(&c->stream, proxy->loop, fd, &events, c) < 0) {
        free(c);
        return;
    }
    vb_addr_format_ip(c->ip, sizeof(c->ip), peer);
    TAILQ_INSERT_TAIL(&proxy->clients, c, link);
    vb_add64(&proxy->stats->connections, 1);
    vb_count(proxy->stats, connections_total);
    arm(c);
}

struct vb_client *vb_client_next(struct vb_client *c)
{
    return TAILQ_NEXT(c, link);
}

void vb_client_drain(struct vb_client *c)
{
    if (c->state == QUIET)
        arm(c);
}

/* ---- for the exchange -------------------------------------------------------------------------------------------- */

struct vb_str vb_client_ip(const struct vb_client *c)
{
    return vb_str(c->ip);
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

static void out_add(struct vb_out *out, const void *bytes, size_t n)
{
    assert(out->n < VB_OUT_SLICES);
    if (n > 0)
        out->iov[out->n++] = (struct iovec){(void *)bytes, n};
}

/* Space for small things that are made here; the caller then says how much it used. */
static char *out_scratch(struct vb_out *out, size_t *ret_room)
{
    *ret_room = out->size - out->used;
    return out->scratch + out->used;
}

void vb_client_send_head(struct vb_client *c, const struct vb_head *head, const struct vb_forward_response *how)
{
    struct vb_out *out = &c->proxy->to_client;
    size_t room;
    char *to = out_scratch(out, &room);
    ssize_t n = vb_h1_write_response(to, room, head, how);
    assert(out->n == 0 && n > 0); /* the scratch space holds the largest head that is accepted, and what we add */
    out->owner = c;
    out->used += (size_t)n;
    out_add(out, to, (size_t)n);
}

void vb_client_send_body(struct vb_client *c, enum vb_framing framing, const struct vb_body_part *part)
{
    struct vb_out *out = &c->proxy->to_client;
    size_t room;
    out->owner = c;
    if (framing == VB_FRAMING_CHUNKED && part->bytes > 0) {
        char *line = out_scratch(out, &room);
        size_t n = vb_h1_write_chunk_line(line, part->bytes);
        out->used += n;
        out_add(out, line, n);
    }
    for (unsigned i = 0; i < part->n_spans; i++)
        out_add(out, part->spans[i].iov_base, part->spans[i].iov_len);
    if (framing == VB_FRAMING_CHUNKED && part->complete)
        out_add(out, part->bytes > 0 ? "\r\n0\r\n\r\n" : "0\r\n\r\n", part->bytes > 0 ? 7 : 5);
    else if (framing == VB_FRAMING_CHUNKED && part->bytes > 0)
        out_add(out, "\r\n", 2);
}

int vb_client_flush(struct vb_client *c)
{
    struct vb_out *out = &c->proxy->to_client;
    int r = out->n == 0 ? 0 : vb_stream_write(c->stream, out->iov, out->n);
    out->n = 0;
    out->used = 0;
    if (r == 1) { /* also when it is blocked already: what counts as progress is measured from the longer queue */
        c->write_blocked = true;
        arm(c);
    }
    return r;
}

void vb_client_send_error(struct vb_client *c, unsigned status, struct vb_str id, const char *text, bool no_body)
{
    if (c->speaks_1_0)
        c->close_after = true; /* it takes a connection for closed unless it is told otherwise */
    struct vb_str id_field = id.n > 0 ? c->proxy->id_field : VB_STR("");
    const char *reason = vb_status_reason(status);
    char body[512], head[512];
    int body_n = snprintf(body, sizeof(body), "%u %s\n%s\n", status, reason, text);
    int head_n = snprintf(head, sizeof(head),
                          "HTTP/1.1 %u %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n"
                          "Cache-Control: no-store\r\n%s%.*s%s%.*s%s%s\r\n",
                          status, reason, body_n, status == 503 ? "Retry-After: 1\r\n" : "", VB_STR_ARGS(id_field),
                          id.n > 0 ? ": " : "", VB_STR_ARGS(id), id.n > 0 ? "\r\n" : "",
                          vb_client_decide_close(c) ? "Connection: close\r\n" : "");
    struct iovec iov[] = {{head, (size_t)head_n}, {body, no_body ? 0 : (size_t)body_n}};
    if (vb_stream_write(c->stream, iov, 2) == 1)
        c->write_blocked = true;
}

void vb_client_exchange_done(struct vb_client *c)
{
    c->exchange = NULL;
    /* Only what the response has announced, or what cannot be otherwise: a client that has been told nothing may have
     * sent its next request already, and when we are draining that one will be told. */
    if (c->close_after || c->body_open) {
        end_client(c, END_FINISH);
        return;
    }
    c->state = QUIET;
    if (c->in_event) /* the loop in consume() goes on by itself */
        return;
    enter(c);
    next_request(c);
    leave(c);
}

void vb_client_exchange_broken(struct vb_client *c, bool close_delimited)
{
    c->exchange = NULL;
    c->body_open = false;
    c->close_after = true;
    if (close_delimited) /* a FIN would look like the end of the response */
        end_client(c, END_RESET);
    else
        end_client(c, END_FINISH);
}

void vb_client_resume(struct vb_client *c)
{
    set_reading(c, true);
    arm(c);
}
