/*
 * Connections, and HTTP on the wire.
 *
 * A request goes through phases: its head is read and an answer decided on at once, because the head is valid only
 * then; the body is read to its end; the delay passes; the answer is sent; the next request begins. An echo differs: it
 * delays first and then sends what it reads.
 *
 * Bounded memory: what arrives while a request is being served is kept, and at IN_MAX reading stops. What the kernel
 * does not take is queued, and until `drained` nothing more is produced, read for an echo, or begun.
 *
 * Failures: a request that is no HTTP is answered and the connection closed. A body that breaks off while it is echoed
 * resets the connection, so that nobody takes the answer for a whole one.
 */
#include "server.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "reply.h"
#include "vb/buf.h"
#include "vb/clock.h"
#include "vb/listen.h"
#include "vb/log.h"
#include "vb/stream.h"

#define SERVER_MAGIC 0x53525652
#define CONN_MAGIC   0x434f4e4e
#define IN_MAX       (16ul * 1024)
#define BURST        16 /* blocks that one connection sends before the others have their turn */

static const struct vb_head_limits head_limits = {.bytes = IN_MAX, .fields = 100};

struct server {
    uint32_t magic;
    int stop_fd;
    bool stopping; /* nothing new is begun */
    struct vb_loop *loop;
    struct vb_listener *listener;
    struct vb_head head; /* one for all: it is used up before the next is read */
    struct demo demo;
    LIST_HEAD(, conn) conns;
    unsigned handles; /* connections that still have memory, and one for the owner */
};

enum phase {
    PHASE_HEAD,  /* waits for a request or the rest of its head */
    PHASE_BODY,  /* reads the body, which is only counted */
    PHASE_DELAY, /* waits for the timer; then the answer begins */
    PHASE_SEND,  /* produces the answer's bytes */
    PHASE_ECHO,  /* sends what it reads */
    PHASE_FLUSH, /* the answer is complete; waits until the kernel has it */
    PHASE_HANG,  /* never answers */
};

struct conn {
    uint32_t magic;
    enum phase phase;
    bool ended;  /* the client sends no more */
    bool active; /* a request is being served */
    bool body_complete;
    enum vb_framing framing; /* of the request */
    uint64_t length;
    uint64_t requests;
    struct server *server;
    struct vb_stream *stream; /* NULL: the connection is over; the memory goes with its handles */
    struct vb_buf in;         /* what arrived and could not be used yet */
    struct vb_body_reader body;
    struct reply reply;
    uv_timer_t timer;
    uv_idle_t turn;   /* the next turn of the loop, to go on after a burst */
    unsigned handles; /* of libuv, not closed yet */
    LIST_ENTRY(conn) link;
};

/* ---- the end of a connection ------------------------------------------------------------------------------------- */

static void server_release(struct server *server)
{
    if (--server->handles == 0)
        free(server);
}

static void on_conn_closed(uv_handle_t *handle)
{
    struct conn *conn = vb_cast(struct conn, CONN_MAGIC, handle->data);
    if (--conn->handles > 0)
        return;
    server_release(conn->server);
    vb_buf_clear(&conn->in);
    text_clear(&conn->reply.answer.text);
    free(conn);
}

static void set_active(struct conn *conn, bool active)
{
    struct demo *demo = &conn->server->demo;
    if (active && !conn->active)
        demo->active_requests++;
    else if (!active && conn->active)
        demo->active_requests--;
    conn->active = active;
}

/* `how` is one of the stream's closing functions. */
static void conn_end(struct conn *conn, void (*how)(struct vb_stream **stream))
{
    how(&conn->stream);
    set_active(conn, false);
    conn->server->demo.active_connections--;
    LIST_REMOVE(conn, link);
    uv_close((uv_handle_t *)&conn->timer, on_conn_closed);
    uv_close((uv_handle_t *)&conn->turn, on_conn_closed);
}

/* The answer is complete. */
static void conn_done(struct conn *conn)
{
    text_clear(&conn->reply.answer.text);
    set_active(conn, false);
    if (!conn->reply.keep_alive)
        conn_end(conn, vb_stream_finish);
    else
        conn->phase = vb_stream_queued(conn->stream) ? PHASE_FLUSH : PHASE_HEAD;
}

/* ---- answering --------------------------------------------------------------------------------------------------- */

static void on_timer(uv_timer_t *timer);
static void on_turn(uv_idle_t *turn);

/* As vb_stream_write; but where nothing more can be written, the connection is over. */
static int conn_write(struct conn *conn, const struct iovec *iov, unsigned n)
{
    int r = vb_stream_write(conn->stream, iov, n);
    if (r < 0)
        conn_end(conn, vb_stream_close);
    return r;
}

/* Sends blocks of a large body, behind the slices in `first`, until the kernel is full. */
static void produce(struct conn *conn, struct iovec first)
{
    for (unsigned i = 0; i < BURST; i++) {
        char line[VB_CHUNK_LINE_MAX];
        struct iovec iov[1 + REPLY_BLOCK_IOV] = {first};
        unsigned skip = first.iov_len == 0 ? 1 : 0, n = 1 + reply_block(&conn->reply, line, iov + 1);
        int r = conn_write(conn, iov + skip, n - skip);
        if (r < 0)
            return;
        if (conn->reply.answer.bytes == 0) {
            conn_done(conn);
            return;
        }
        if (r > 0)
            return; /* on_drained goes on */
        first.iov_len = 0;
    }
    uv_idle_start(&conn->turn, on_turn);
}

static void send_answer(struct conn *conn)
{
    struct reply *reply = &conn->reply;
    struct text *text = &reply->answer.text;
    char head[REPLY_HEAD_MAX];
    if (reply->answer.kind == ANSWER_SINK)
        answer_received(&reply->answer, conn->body.body_bytes);
    if (reply->answer.kind == ANSWER_RESET || text->failed) {
        conn_end(conn, vb_stream_reset);
        return;
    }
    reply_frame(reply, conn->framing, conn->length);
    struct iovec iov[2] = {{head, reply_head(reply, conn->server->demo.name, head)}};
    if (reply->answer.kind == ANSWER_BYTES && !reply->head_only) {
        conn->phase = PHASE_SEND;
        produce(conn, iov[0]);
        return;
    }
    bool has_text = reply->framing != VB_FRAMING_NONE && !reply->head_only && vb_buf_len(&text->buf) > 0;
    iov[1] = (struct iovec){vb_buf_data(&text->buf), vb_buf_len(&text->buf)};
    if (conn_write(conn, iov, has_text ? 2 : 1) < 0)
        return;
    if (reply->answer.kind == ANSWER_ECHO && !conn->body_complete)
        conn->phase = PHASE_ECHO;
    else
        conn_done(conn);
}

/* Stops the whole process; false when it is to end meanwhile. */
static bool block(struct server *server, uint64_t ms)
{
    struct pollfd stop = {.fd = server->stop_fd, .events = POLLIN};
    if (poll(&stop, 1, (int)VB_MIN(ms, (uint64_t)INT32_MAX)) > 0)
        server->stopping = true;
    return !server->stopping;
}

static void delay_answer(struct conn *conn)
{
    uint64_t ms = conn->reply.answer.delay_ms;
    if (ms > 0 && !conn->server->demo.blocking) {
        conn->phase = PHASE_DELAY;
        uv_update_time(vb_loop_uv(conn->server->loop));
        uv_timer_start(&conn->timer, on_timer, ms + 1, 0); /* the loop's clock is up to 1 ms behind */
    } else if (ms == 0 || block(conn->server, ms)) {
        send_answer(conn);
    } else {
        conn_end(conn, vb_stream_close);
    }
}

static void refuse(struct conn *conn, const struct vb_refusal *refusal)
{
    text_clear(&conn->reply.answer.text);
    conn->reply = (struct reply){.minor = 1, .head_only = conn->active && conn->reply.head_only};
    demo_refuse(&conn->server->demo, refusal, &conn->reply.answer);
    send_answer(conn);
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static bool wants_continue(const struct conn *conn, const struct vb_head *head)
{
    const struct vb_field *expect = vb_head_find(head, VB_FIELD_EXPECT);
    return expect != NULL && head->minor == 1 && !conn->body_complete &&
           vb_str_eq_nocase(expect->value, VB_STR("100-continue"));
}

static void begin_exchange(struct conn *conn, const struct vb_head *head)
{
    struct reply *reply = &conn->reply;
    set_active(conn, true);
    conn->framing = head->framing;
    conn->length = head->length;
    conn->body_complete = head->framing == VB_FRAMING_NONE || (head->framing == VB_FRAMING_LENGTH && head->length == 0);
    *reply = (struct reply){.minor = head->minor, .keep_alive = head->keep_alive};
    reply->head_only = vb_str_eq(head->method, VB_STR("HEAD"));
    demo_answer(&conn->server->demo, head, ++conn->requests, &reply->answer);
    if (reply->answer.kind == ANSWER_HANG) {
        conn->phase = PHASE_HANG;
        return;
    }
    static char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    if (wants_continue(conn, head) && conn_write(conn, &(struct iovec){go_on, sizeof(go_on) - 1}, 1) < 0)
        return;
    if (reply->answer.kind == ANSWER_ECHO || conn->body_complete)
        delay_answer(conn);
    else
        conn->phase = PHASE_BODY;
}

/* Reads a head and begins to serve it; how many bytes were used, 0 when it is not whole. */
static size_t take_head(struct conn *conn, const char *bytes, size_t n)
{
    struct vb_head *head = &conn->server->head;
    struct vb_refusal refusal = {400, "the head can be read in two ways"};
    if (conn->server->stopping)
        return 0;
    ssize_t r = vb_h1_parse_request(bytes, n, &head_limits, head, &refusal);
    if (r == 0)
        return 0;
    if (r < 0 || vb_body_begin(&conn->body, VB_REQUEST, head, &head_limits) < 0) {
        refuse(conn, &refusal);
        return n;
    }
    begin_exchange(conn, head);
    return (size_t)r;
}

/* Sends a part of the body back, framed as the answer is. */
static int echo_part(struct conn *conn, struct vb_body_part *part)
{
    static char crlf[] = "\r\n", last[] = "0\r\n\r\n";
    struct iovec iov[VB_BODY_SPANS + 3];
    char line[VB_CHUNK_LINE_MAX];
    bool chunked = conn->reply.framing == VB_FRAMING_CHUNKED;
    unsigned n = 0;
    if (chunked && part->bytes > 0)
        iov[n++] = (struct iovec){line, vb_h1_write_chunk_line(line, part->bytes)};
    memcpy(iov + n, part->spans, part->n_spans * sizeof(iov[0]));
    n += part->n_spans;
    if (chunked && part->bytes > 0)
        iov[n++] = (struct iovec){crlf, sizeof(crlf) - 1};
    if (chunked && part->complete)
        iov[n++] = (struct iovec){last, sizeof(last) - 1};
    return n == 0 ? 0 : conn_write(conn, iov, n);
}

/* Reads a piece of the body; how many bytes were used. */
static size_t take_body(struct conn *conn, const char *bytes, size_t n)
{
    struct vb_refusal refusal = {400, "the body is not what its head announced"};
    struct vb_body_part part;
    int r = vb_body_read(&conn->body, bytes, n, &part);
    if (r < 0 && conn->phase == PHASE_ECHO)
        conn_end(conn, vb_stream_reset);
    else if (r < 0)
        refuse(conn, &refusal);
    if (r < 0)
        return n;
    if (conn->phase == PHASE_ECHO && echo_part(conn, &part) < 0)
        return n;
    conn->body_complete = part.complete;
    if (part.complete && conn->phase == PHASE_ECHO)
        conn_done(conn);
    else if (part.complete)
        delay_answer(conn);
    return part.consumed;
}

/* Uses what it can of the bytes; how many. */
static size_t consume(struct conn *conn, const char *bytes, size_t n)
{
    size_t used = 0, step = 1;
    while (conn->stream != NULL && used < n && step > 0) {
        switch (conn->phase) {
        case PHASE_HEAD:
            step = take_head(conn, bytes + used, n - used);
            break;
        case PHASE_BODY:
        case PHASE_ECHO:
            step = take_body(conn, bytes + used, n - used);
            break;
        case PHASE_HANG:
            step = n - used;
            break;
        case PHASE_DELAY:
        case PHASE_SEND:
        case PHASE_FLUSH:
            step = 0;
            break;
        }
        used += step;
    }
    return used;
}

static void consume_kept(struct conn *conn)
{
    if (conn->stream == NULL || vb_buf_len(&conn->in) == 0)
        return;
    size_t used = consume(conn, vb_buf_data(&conn->in), vb_buf_len(&conn->in));
    vb_buf_consume(&conn->in, used);
}

/* After each event: ends what cannot go on any more, and reads as long as there is room. */
static void settle(struct conn *conn)
{
    enum phase phase = conn->phase;
    if (conn->stream == NULL)
        return;
    if (conn->ended && phase == PHASE_HEAD)
        conn_end(conn, vb_stream_finish);
    else if (conn->ended && (phase == PHASE_BODY || phase == PHASE_ECHO || phase == PHASE_HANG))
        conn_end(conn, vb_stream_reset);
    else if (vb_buf_len(&conn->in) >= IN_MAX || (phase == PHASE_ECHO && vb_stream_queued(conn->stream)))
        vb_stream_pause(conn->stream);
    else
        vb_stream_resume(conn->stream);
}

/* ---- events ------------------------------------------------------------------------------------------------------ */

static struct conn *conn_of(void *owner)
{
    return vb_cast(struct conn, CONN_MAGIC, owner);
}

static void on_data(void *owner, const char *bytes, size_t n)
{
    struct conn *conn = conn_of(owner);
    bool kept = vb_buf_len(&conn->in) > 0;
    size_t used = kept ? 0 : consume(conn, bytes, n);
    if (conn->stream != NULL && used < n && vb_buf_append(&conn->in, bytes + used, n - used) < 0) {
        conn_end(conn, vb_stream_close);
        return;
    }
    /* An unfinished head is looked at again when a further line has ended. */
    if (kept && (memchr(bytes, '\n', n) != NULL || vb_buf_len(&conn->in) >= head_limits.bytes))
        consume_kept(conn);
    settle(conn);
}

static void on_end(void *owner)
{
    struct conn *conn = conn_of(owner);
    conn->ended = true;
    settle(conn);
}

static void on_drained(void *owner)
{
    struct conn *conn = conn_of(owner);
    if (conn->phase == PHASE_FLUSH)
        conn->phase = PHASE_HEAD;
    else if (conn->phase == PHASE_SEND)
        produce(conn, (struct iovec){NULL, 0});
    consume_kept(conn);
    settle(conn);
}

static void on_timer(uv_timer_t *timer)
{
    struct conn *conn = conn_of(timer->data);
    send_answer(conn);
    consume_kept(conn);
    settle(conn);
}

static void on_turn(uv_idle_t *turn)
{
    struct conn *conn = conn_of(turn->data);
    uv_idle_stop(turn);
    produce(conn, (struct iovec){NULL, 0});
    consume_kept(conn);
    settle(conn);
}

static void on_failed(void *owner, int code)
{
    conn_end(conn_of(owner), vb_stream_close);
}

static const struct vb_stream_events stream_events = {
    .data = on_data,
    .end = on_end,
    .drained = on_drained,
    .failed = on_failed,
};

static int conn_open(struct server *server, int fd)
{
    struct conn *conn = calloc(1, sizeof(*conn));
    if (conn == NULL) {
        close(fd);
        return -ENOMEM;
    }
    conn->magic = CONN_MAGIC;
    conn->server = server;
    int r = vb_stream_open(&conn->stream, server->loop, fd, &stream_events, conn);
    if (r < 0) {
        free(conn);
        return r;
    }
    uv_timer_init(vb_loop_uv(server->loop), &conn->timer);
    uv_idle_init(vb_loop_uv(server->loop), &conn->turn);
    conn->timer.data = conn->turn.data = conn;
    conn->handles = 2;
    server->handles++;
    server->demo.active_connections++;
    LIST_INSERT_HEAD(&server->conns, conn, link);
    return 0;
}

static void on_accepted(void *owner, int fd, const struct sockaddr *peer)
{
    struct server *server = vb_cast(struct server, SERVER_MAGIC, owner);
    if (server->stopping) {
        close(fd);
        return;
    }
    int r = conn_open(server, fd);
    if (r < 0)
        vb_log_warn("a connection could not be served: %s", vb_strerror(r));
}

static void on_exhausted(void *owner, int code)
{
    vb_log_warn("no connection can be accepted for a moment: %s", vb_strerror(code));
}

static const struct vb_listener_events listener_events = {
    .accepted = on_accepted,
    .exhausted = on_exhausted,
};

int server_open(struct server **ret_server, struct vb_loop *loop, int listen_fd, const struct server_options *options)
{
    struct server *server = calloc(1, sizeof(*server));
    if (server == NULL)
        return -ENOMEM;
    server->magic = SERVER_MAGIC;
    server->loop = loop;
    server->stop_fd = options->stop_fd;
    server->handles = 1;
    vb_copy(server->demo.name, sizeof(server->demo.name), options->name);
    server->demo.blocking = options->blocking;
    server->demo.started_us = vb_clock_us();
    server->demo.settings.usual_delay_ms = server->demo.settings.delay_ms = options->delay_ms;
    LIST_INIT(&server->conns);
    int r = vb_listener_open(&server->listener, loop, listen_fd, &listener_events, server);
    if (r < 0) {
        free(server);
        return r;
    }
    vb_listener_start(server->listener);
    *ret_server = server;
    return 0;
}

void server_close(struct server **server_ptr)
{
    struct server *server = *server_ptr;
    if (server == NULL)
        return;
    *server_ptr = NULL;
    server->stopping = true;
    vb_listener_close(&server->listener, true);
    while (!LIST_EMPTY(&server->conns))
        conn_end(LIST_FIRST(&server->conns), vb_stream_close);
    server_release(server);
}
