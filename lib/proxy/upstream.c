/*
 * A connection to a backend.
 *
 * Happy path: taken from the idle list, or connecting -> the request is written -> response head -> body -> complete,
 * back to the idle list.
 *
 * What can go wrong, and who is told: connect fails or takes too long; no response, or no more of it, in time; FIN or
 * RST before the response is complete; bytes that are no valid response. Each ends the connection and is reported once
 * to the exchange (vb_exchange_upstream_failed), which decides what it means. While idle: FIN, RST, or any byte at all
 * (an answer that nobody asked for must not become the answer to the next request) just end it.
 */
#include "upstream.h"

#include <errno.h>

#include "exchange.h"
#include "vb/buf.h"

#define UPSTREAM_MAGIC 0x55505354
#define INTERIM_MAX    256 /* 1xx responses before a final one; a backend that sends more will never send that */

enum upstream_state { CONNECTING, BUSY, IDLE };

struct vb_upstream {
    uint32_t magic;
    enum upstream_state state;
    bool more;   /* the read in hand filled the buffer: further bytes may lie behind it already */
    bool reused; /* kept from an earlier exchange */
    bool heard;  /* bytes have arrived for this exchange */
    bool sent;   /* bytes of the request may have left */
    bool lacks;  /* a part of the request found no memory */
    bool request_sent, in_body, peer_keeps, paused;
    bool waits;    /* in the list of those that wait */
    bool in_event; /* on the stack: the memory must stay until the event returns */
    bool dead;     /* closed; freed at the end of the event */
    struct vb_proxy *proxy;
    struct vb_proxy_pool *pool;
    unsigned backend;
    struct vb_backend_upstreams *siblings; /* connections to the same backend */
    struct vb_shm_traffic *traffic;        /* this worker's, of the backend */
    uint32_t incarnation;                  /* of the backend's slot when it was connected */
    unsigned interims;                     /* 1xx responses in this exchange */
    uint32_t turn;                /* grows when an exchange lets go: tells an event that its exchange is over */
    struct vb_exchange *exchange; /* NULL: idle */
    struct vb_stream *stream;
    struct vb_timer timer;
    uint64_t idle_ms;    /* loop time since when it is idle */
    size_t unsent;       /* bytes that it had not taken when the timer was last started */
    struct vb_buf input; /* part of a head that has not arrived whole */
    struct vb_body_reader reader;
    TAILQ_ENTRY(vb_upstream) link; /* among those that are idle, or that wait */
};

static struct vb_upstream *upstream_of(void *owner)
{
    return vb_cast(struct vb_upstream, UPSTREAM_MAGIC, owner);
}

static void destroy(struct vb_upstream *u)
{
    u->magic = 0;
    free(u);
}

static void leave_idle(struct vb_upstream *u)
{
    TAILQ_REMOVE(&u->siblings->idle, u, link);
    u->siblings->n_idle--;
}

static void wait_no_more(struct vb_upstream *u)
{
    if (u->waits)
        TAILQ_REMOVE(&u->siblings->waiting, u, link);
    u->waits = false;
}

/* Connected, or given up. */
static void connect_no_more(struct vb_upstream *u)
{
    if (u->state == CONNECTING)
        vb_shm_exit(u->proxy->shm, u->proxy->slot, u->pool->index, VB_PLACE_PENDING);
    u->state = BUSY;
}

static void close_upstream(struct vb_upstream *u)
{
    if (u->state == IDLE)
        leave_idle(u);
    wait_no_more(u);
    connect_no_more(u);
    vb_timer_stop(&u->timer);
    vb_stream_close(&u->stream);
    vb_buf_clear(&u->input);
    u->exchange = NULL;
    u->dead = true;
    if (!u->in_event)
        destroy(u);
}

static void fail(struct vb_upstream *u, enum vb_failure failure, const char *detail)
{
    vb_timer_stop(&u->timer);
    vb_exchange_upstream_failed(u->exchange, failure, detail);
}

/* ---- time-outs --------------------------------------------------------------------------------------------------- */

static void on_connect_timeout(struct vb_timer *timer)
{
    fail(vb_container_of(timer, struct vb_upstream, timer), VB_FAIL_CONNECT_TIMEOUT, NULL);
}

static void on_response_timeout(struct vb_timer *timer)
{
    fail(vb_container_of(timer, struct vb_upstream, timer), VB_FAIL_RESPONSE_TIMEOUT, NULL);
}

static void arm(struct vb_upstream *u);

static void on_idle_timeout(struct vb_timer *timer)
{
    struct vb_upstream *u = vb_container_of(timer, struct vb_upstream, timer);
    if (vb_stream_unsent(u->stream) < u->unsent)
        arm(u); /* slow, but it takes the request */
    else
        fail(u, VB_FAIL_IDLE_TIMEOUT, NULL);
}

/* What was to be written found no memory: the backend will not answer what it never gets. */
static void on_lack(struct vb_timer *timer)
{
    fail(vb_container_of(timer, struct vb_upstream, timer), VB_FAIL_INTERNAL, "out of memory");
}

static uint64_t idle_age_ms(const struct vb_upstream *u)
{
    return vb_loop_now_ms(u->proxy->loop) - u->idle_ms;
}

/* The backend has closed it while it was idle: that is its right, and tells how long it keeps them. */
static void closed_while_idle(struct vb_upstream *u)
{
    struct vb_shm_backend *backend = vb_shm_backend(u->proxy->shm, u->backend);
    if (u->incarnation == atomic_load(&backend->incarnation))
        vb_keepalive_closed(backend, &u->siblings->closes, idle_age_ms(u), vb_loop_now_ms(u->proxy->loop));
    close_upstream(u);
}

static void on_keepalive_timeout(struct vb_timer *timer)
{
    close_upstream(vb_container_of(timer, struct vb_upstream, timer));
}

/* Sets the timer for what is being waited for now. */
static void arm(struct vb_upstream *u)
{
    bool queued = vb_stream_queued(u->stream);
    u->unsent = queued ? vb_stream_unsent(u->stream) : 0;
    if (u->lacks) /* at once, but not while its exchange is at work */
        vb_timer_start_at(&u->timer, &u->pool->connect, vb_loop_now_ms(u->proxy->loop), on_lack);
    else if (u->state == CONNECTING)
        vb_timer_start(&u->timer, &u->pool->connect, on_connect_timeout);
    else if (u->paused)
        vb_timer_stop(&u->timer); /* the client is slow, not the backend */
    else if (u->in_body || queued || vb_buf_len(&u->input) > 0)
        vb_timer_start(&u->timer, &u->pool->idle, on_idle_timeout);
    else if (u->request_sent)
        vb_timer_start(&u->timer, &u->pool->response, on_response_timeout); /* anew after each interim response */
    else
        vb_timer_stop(&u->timer); /* the client's turn */
}

/* ---- reading the response ---------------------------------------------------------------------------------------- */

/* May the next exchange use this connection? `extra`: bytes came behind the response. */
static void complete(struct vb_upstream *u, bool extra)
{
    bool keep = u->peer_keeps && !extra && !u->more && !vb_stream_queued(u->stream);
    vb_exchange_response_done(u->exchange, keep);
}

/* 101: the connection speaks another protocol behind this head, if it was asked to (RFC 9110 15.2.2). */
static void switch_protocol(struct vb_upstream *u, const struct vb_head *head, struct vb_str rest)
{
    const struct vb_field *to = vb_head_find(head, VB_FIELD_UPGRADE);
    struct vb_str asked = vb_exchange_upgrade(u->exchange);
    if (asked.n == 0)
        fail(u, VB_FAIL_BAD_RESPONSE, "101 although no upgrade was asked for");
    else if (to == NULL || !head->wants_upgrade || !vb_str_eq_nocase(to->value, asked))
        fail(u, VB_FAIL_BAD_RESPONSE, "101 to another protocol than was asked for");
    else
        vb_exchange_upgraded(u->exchange, head, rest);
}

/* A parsed head: interim, or the beginning of the response; `rest` came behind it. -EPROTO: read no further. */
static int accept_head(struct vb_upstream *u, const struct vb_head *head, struct vb_str rest)
{
    if (vb_body_begin(&u->reader, VB_RESPONSE, head, &u->proxy->limits) < 0) {
        fail(u, VB_FAIL_BAD_RESPONSE, "two readings of its head differ");
        return -EPROTO;
    }
    if (head->status == 101) {
        switch_protocol(u, head, rest);
        return -EPROTO;
    }
    if (head->status < 200 && ++u->interims > INTERIM_MAX) {
        fail(u, VB_FAIL_BAD_RESPONSE, "too many interim responses");
        return -EPROTO;
    }
    if (head->status < 200) {
        vb_exchange_interim(u->exchange, head);
        return 0;
    }
    u->in_body = true;
    u->peer_keeps = head->keep_alive && head->framing != VB_FRAMING_CLOSE;
    vb_keepalive_heard(vb_shm_backend(u->proxy->shm, u->backend), head);
    vb_exchange_response_head(u->exchange, head);
    return u->dead ? -EPROTO : 0;
}

/* Bytes used up; 0 when more are needed or when the exchange is over. */
static size_t read_head(struct vb_upstream *u, const char *bytes, size_t n)
{
    struct vb_proxy *proxy = u->proxy;
    struct vb_refusal refusal;
    ssize_t used =
        vb_h1_parse_response(bytes, n, &proxy->limits, vb_exchange_is_head(u->exchange), &proxy->head, &refusal);
    if (used < 0) {
        fail(u, VB_FAIL_BAD_RESPONSE, refusal.why);
        return 0;
    }
    if (used == 0)
        return 0;
    if (accept_head(u, &proxy->head, (struct vb_str){bytes + used, n - (size_t)used}) < 0)
        return 0;
    if (u->in_body && u->reader.complete) {
        complete(u, (size_t)used < n);
        return 0;
    }
    return (size_t)used;
}

static size_t read_body(struct vb_upstream *u, const char *bytes, size_t n)
{
    struct vb_body_part *part = &u->proxy->part;
    if (vb_body_read(&u->reader, bytes, n, part) < 0) {
        fail(u, VB_FAIL_BAD_RESPONSE, "broken framing of its body");
        return 0;
    }
    vb_exchange_response_body(u->exchange, part);
    size_t used = part->consumed;
    if (part->complete) {
        complete(u, used < n);
        return 0;
    }
    vb_exchange_response_flush(u->exchange); /* may end the exchange when the client is gone */
    return used;
}

/* Is the exchange that an event began with still bound? */
static bool still(const struct vb_upstream *u, uint32_t turn)
{
    return !u->dead && u->turn == turn;
}

/* Hands over what can be; what is left of a head that has not arrived whole stays for the caller to keep. */
static size_t consume(struct vb_upstream *u, const char *bytes, size_t n)
{
    const uint32_t turn = u->turn;
    size_t done = 0;
    while (done < n && still(u, turn)) {
        bool was_head = !u->in_body;
        size_t used = was_head ? read_head(u, bytes + done, n - done) : read_body(u, bytes + done, n - done);
        if (used == 0)
            break;
        done += used;
        if (done == n && was_head && still(u, turn))
            vb_exchange_response_flush(u->exchange);
    }
    return done;
}

/* Joined with what is left of earlier input, or as it came. */
static void take_input(struct vb_upstream *u, const char *bytes, size_t n)
{
    const uint32_t turn = u->turn;
    bool joined = vb_buf_len(&u->input) > 0;
    if (joined && vb_buf_append(&u->input, bytes, n) < 0) {
        fail(u, VB_FAIL_INTERNAL, "out of memory");
        return;
    }
    size_t done = joined ? consume(u, vb_buf_data(&u->input), vb_buf_len(&u->input)) : consume(u, bytes, n);
    if (!still(u, turn))
        vb_buf_clear(&u->input); /* bytes behind the response: complete() has seen to it that nobody uses u again */
    else if (joined)
        vb_buf_consume(&u->input, done);
    else if (done < n && vb_buf_append(&u->input, bytes + done, n - done) < 0)
        fail(u, VB_FAIL_INTERNAL, "out of memory");
    if (still(u, turn))
        arm(u);
}

static void on_data(void *owner, const char *bytes, size_t n)
{
    struct vb_upstream *u = upstream_of(owner);
    if (u->state == IDLE) {
        close_upstream(u);
        return;
    }
    vb_count_n(u->traffic, bytes_in, n);
    u->heard = true;
    wait_no_more(u);
    u->more = n == VB_READ_MAX;
    u->in_event = true;
    take_input(u, bytes, n);
    u->in_event = false;
    if (u->dead)
        destroy(u);
}

static void on_end(void *owner)
{
    struct vb_upstream *u = upstream_of(owner);
    if (u->state == IDLE) {
        closed_while_idle(u);
    } else if (u->in_body && vb_body_eof(&u->reader) == 0) {
        struct vb_body_part *part = &u->proxy->part;
        *part = (struct vb_body_part){.complete = true};
        vb_exchange_response_body(u->exchange, part);
        complete(u, false);
    } else {
        fail(u, VB_FAIL_CLOSED, NULL);
    }
}

static void on_failed(void *owner, int code)
{
    struct vb_upstream *u = upstream_of(owner);
    char detail[64];
    if (u->state == IDLE)
        closed_while_idle(u);
    else
        fail(u,
             vb_is_lack(code)         ? VB_FAIL_INTERNAL
             : u->state == CONNECTING ? VB_FAIL_CONNECT
                                      : VB_FAIL_RESET,
             vb_describe(detail, sizeof(detail), code));
}

/* ---- writing the request ----------------------------------------------------------------------------------------- */

static void on_connected(void *owner)
{
    struct vb_upstream *u = upstream_of(owner);
    connect_no_more(u);
    u->sent = vb_stream_queued(u->stream);
    arm(u);
}

static void on_drained(void *owner)
{
    struct vb_upstream *u = upstream_of(owner);
    if (u->exchange == NULL)
        return;
    arm(u);
    vb_exchange_upstream_drained(u->exchange);
}

static void note_written(struct vb_upstream *u, int r)
{
    /* A connection that the backend has broken already takes nothing. */
    if (u->state != CONNECTING && r != -EPIPE && r != -ECONNRESET)
        u->sent = true;
    u->lacks = vb_is_lack(r);
}

int vb_upstream_write(struct vb_upstream *u, const struct iovec *iov, unsigned n)
{
    size_t bytes = 0;
    for (unsigned i = 0; i < n; i++)
        bytes += iov[i].iov_len;
    vb_count_n(u->traffic, bytes_out, bytes);
    int r = vb_stream_write(u->stream, iov, n);
    note_written(u, r);
    if (r == 1 || u->lacks)
        arm(u);
    return r;
}

static void on_written(void *owner, int r)
{
    struct vb_upstream *u = upstream_of(owner);
    note_written(u, r);
    arm(u);
}

void vb_upstream_write_soon(struct vb_upstream *u, struct vb_str request)
{
    vb_count_n(u->traffic, bytes_out, request.n);
    u->request_sent = true;
    int r = vb_stream_write_soon(u->stream, request.p, request.n);
    if (r != 2)
        on_written(u, r);
}

void vb_upstream_request_sent(struct vb_upstream *u)
{
    u->request_sent = true;
    arm(u);
}

void vb_upstream_pause(struct vb_upstream *u)
{
    u->paused = true;
    vb_stream_pause(u->stream);
    arm(u);
}

void vb_upstream_resume(struct vb_upstream *u)
{
    u->paused = false;
    vb_stream_resume(u->stream);
    arm(u);
}

/* ---- from and to the idle list ----------------------------------------------------------------------------------- */

static const struct vb_stream_events events = {
    .connected = on_connected,
    .data = on_data,
    .end = on_end,
    .drained = on_drained,
    .written = on_written,
    .failed = on_failed,
};

/* The one used last, unless the backend may be closing it just now; then so are all others, which are older. */
static struct vb_upstream *take_idle(struct vb_proxy *proxy, unsigned backend, bool sure)
{
    const struct vb_shm_backend *row = vb_shm_backend(proxy->shm, backend);
    uint32_t incarnation = atomic_load(&row->incarnation);
    struct vb_upstream *u;
    while ((u = TAILQ_FIRST(&proxy->upstreams[backend].idle)) != NULL) {
        if (u->incarnation != incarnation) { /* it leads to another backend or address by now */
            close_upstream(u);
            continue;
        }
        if (idle_age_ms(u) >= vb_keepalive_limit_ms(row))
            return NULL; /* left for the backend to close, which shows how long it keeps them */
        if (vb_stream_has_news(u->stream) || (sure && !vb_stream_is_silent(u->stream))) {
            closed_while_idle(u);
            continue;
        }
        leave_idle(u);
        vb_timer_stop(&u->timer);
        u->state = BUSY;
        u->reused = true;
        return u;
    }
    return NULL;
}

static int connect_new(struct vb_upstream **ret_upstream, struct vb_proxy *proxy, struct vb_proxy_pool *pool,
                       unsigned backend, struct vb_exchange *exchange)
{
    struct vb_health_record record;
    /* Before the address: one that is newer than what we call it is only not kept; an older one would be used on. */
    uint32_t incarnation = atomic_load(&vb_shm_backend(proxy->shm, backend)->incarnation);
    if (!vb_shm_read_health(proxy->shm, backend, &record) || record.address_len == 0 ||
        (int32_t)(incarnation - record.incarnation) > 0)
        return -EHOSTUNREACH; /* its name has not been resolved; or this is the address of one that is gone */
    if (!vb_exchange_hand_over_place(exchange) &&
        !vb_shm_enter(proxy->shm, proxy->slot, pool->index, VB_PLACE_PENDING, pool->conf->circuit_breaker.max_pending))
        return -EBUSY;
    int r = -ENOMEM;
    struct vb_upstream *u = calloc(1, sizeof(*u));
    if (u == NULL)
        goto fail;
    u->magic = UPSTREAM_MAGIC;
    u->state = CONNECTING;
    u->proxy = proxy;
    u->pool = pool;
    u->backend = backend;
    u->siblings = &proxy->upstreams[backend];
    u->traffic = vb_shm_traffic(proxy->shm, proxy->slot, backend);
    u->incarnation = incarnation;
    r = vb_stream_connect(&u->stream, proxy->loop, (struct sockaddr *)&record.address, &events, u);
    if (r < 0)
        goto fail;
    vb_timer_start(&u->timer, &pool->connect, on_connect_timeout);
    *ret_upstream = u;
    return 0;

fail:
    if (u != NULL)
        destroy(u);
    vb_shm_exit(proxy->shm, proxy->slot, pool->index, VB_PLACE_PENDING);
    return r;
}

int vb_upstream_get(struct vb_upstream **ret_upstream, struct vb_proxy *proxy, struct vb_proxy_pool *pool,
                    unsigned backend, struct vb_exchange *exchange, enum vb_upstream_choice choice)
{
    struct vb_upstream *u = NULL;
    if (choice != VB_UPSTREAM_FRESH)
        u = take_idle(proxy, backend, choice == VB_UPSTREAM_SURE);
    if (u != NULL) {
        vb_count(u->traffic, reuses);
    } else {
        int r = connect_new(&u, proxy, pool, backend, exchange);
        if (r < 0)
            return r;
        vb_count(u->traffic, connects);
    }
    u->exchange = exchange;
    u->interims = 0;
    u->heard = u->sent = u->request_sent = u->in_body = u->paused = u->peer_keeps = false;
    u->waits = true;
    TAILQ_INSERT_TAIL(&u->siblings->waiting, u, link);
    *ret_upstream = u;
    return 0;
}

bool vb_upstream_may_be_stale(const struct vb_upstream *u)
{
    return u->reused && !u->heard;
}

bool vb_upstream_has_sent(const struct vb_upstream *u)
{
    return u->sent;
}

void vb_upstream_doubt(struct vb_proxy *proxy, unsigned backend)
{
    struct vb_upstream_list *waiting = &proxy->upstreams[backend].waiting;
    uint32_t incarnation = atomic_load(&vb_shm_backend(proxy->shm, backend)->incarnation);
    struct vb_upstream *u;
    unsigned n = 0;
    TAILQ_FOREACH (u, waiting, link)
        n++;
    for (; n > 0 && (u = TAILQ_FIRST(waiting)) != NULL; n--) { /* each goes to the end first: it may be closed */
        TAILQ_REMOVE(waiting, u, link);
        TAILQ_INSERT_TAIL(waiting, u, link);
        if (u->incarnation == incarnation) /* else what is known of the slot now is not about this connection */
            vb_exchange_upstream_doubted(u->exchange);
    }
}

void vb_upstream_release(struct vb_upstream **upstream, bool keep)
{
    struct vb_upstream *u = *upstream;
    if (u == NULL)
        return;
    *upstream = NULL;
    unsigned most = u->pool->conf->keepalive.idle;
    const struct vb_shm_backend *backend = vb_shm_backend(u->proxy->shm, u->backend);
    bool serves = atomic_load(&backend->used) && atomic_load(&backend->admin) == VB_ADMIN_READY;
    if (!keep || !serves || u->proxy->draining || most == 0) {
        close_upstream(u);
        return;
    }
    if (u->siblings->n_idle >= most) /* the one that has waited longest is the first that the backend will close */
        close_upstream(TAILQ_LAST(&u->siblings->idle, vb_upstream_list));
    vb_buf_clear(&u->input); /* used up, though its reader may still be on the stack */
    wait_no_more(u);
    u->exchange = NULL;
    u->turn++;
    u->state = IDLE;
    u->idle_ms = vb_loop_now_ms(u->proxy->loop);
    TAILQ_INSERT_HEAD(&u->siblings->idle, u, link);
    u->siblings->n_idle++;
    vb_timer_start(&u->timer, &u->pool->keepalive, on_keepalive_timeout);
    vb_stream_resume(u->stream); /* it may have been paused for the client that has just been served */
}

struct vb_stream *vb_upstream_detach(struct vb_upstream **upstream)
{
    struct vb_upstream *u = *upstream;
    struct vb_stream *stream = u->stream;
    *upstream = NULL;
    u->stream = NULL;
    close_upstream(u);
    return stream;
}

void vb_upstream_close_idle(struct vb_proxy *proxy, unsigned backend)
{
    struct vb_upstream *u;
    while ((u = TAILQ_FIRST(&proxy->upstreams[backend].idle)) != NULL)
        close_upstream(u);
}
