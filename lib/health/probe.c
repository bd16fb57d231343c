/*
 * One probe.
 *
 * A name may have several addresses (localhost has 127.0.0.1 and ::1): IPv4 first, the next one when a connect fails;
 * the one that works is the backend's address until it fails or its name says otherwise.
 *
 * Once an address is known, looking the name up again goes on beside the probes: a resolver that is slow or down takes
 * no backend away. Only the first look-up is waited for.
 *
 * Happy path: (first time: resolve) -> connect -> TCP check: passed. HTTP check: -> GET -> response head -> status
 * expected: passed. Failure: the name does not resolve; connect refused or unreachable; closed or garbage instead of an
 * answer; another status; or the whole takes longer than health.timeout. Each gives one sentence, which vbctl and the
 * log show.
 */
#include "probe.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/un.h>

#include "vb/clock.h"

#define PROBE_MAGIC      0x50524f42
#define RESOLVE_AGAIN_MS 30000 /* a name is looked up again when its address is this old */

static struct vb_probe *probe_of(void *owner)
{
    return vb_cast(struct vb_probe, PROBE_MAGIC, owner);
}

static void finish_with(struct vb_probe *probe, const struct vb_probe_result *result)
{
    vb_probe_cancel(probe);
    probe->done(probe, result);
}

static void finish(struct vb_probe *probe, bool passed, const char *reason)
{
    struct vb_probe_result result = {.passed = passed};
    vb_copy(result.reason, sizeof(result.reason), reason);
    finish_with(probe, &result);
}

static void fail_code(struct vb_probe *probe, int code)
{
    struct vb_probe_result result = {
        .no_verdict = vb_is_lack(code),
    };
    vb_describe(result.reason, sizeof(result.reason), code);
    finish_with(probe, &result);
}

static void on_timeout(struct vb_timer *timer)
{
    struct vb_probe *probe = vb_container_of(timer, struct vb_probe, timer);
    uint64_t ms = probe->rules->now->timeout_ms;
    char reason[64];
    if (probe->tried == 0)
        vb_copy(reason, sizeof(reason), "its name has not been resolved yet");
    else if (ms % 1000 == 0)
        snprintf(reason, sizeof(reason), "timeout after %us", (unsigned)(ms / 1000));
    else
        snprintf(reason, sizeof(reason), "timeout after %ums", (unsigned)ms);
    finish(probe, false, reason);
}

/* ---- HTTP -------------------------------------------------------------------------------------------------------- */

static void send_request(struct vb_probe *probe)
{
    const struct vb_conf_health *health = probe->rules->now;
    char request[2048];
    int n = snprintf(request, sizeof(request),
                     "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: vibebalancer-health/" VB_VERSION
                     "\r\nAccept: */*\r\nConnection: close\r\n\r\n",
                     health->path, health->host[0] != '\0' ? health->host : probe->authority);
    struct iovec iov = {request, (size_t)n};
    if ((size_t)n >= sizeof(request))
        finish(probe, false, "health.path and health.host are too long");
    else
        vb_stream_write(probe->stream, &iov, 1);
}

/* "200-399, 404" */
static void print_expected(const struct vb_conf_health *health, char *to, size_t size)
{
    size_t n = 0;
    for (unsigned i = 0; i < health->n_expect && n < size; i++) {
        const struct vb_conf_status_range *range = &health->expect[i];
        n += (size_t)snprintf(to + n, size - n, range->first == range->last ? "%s%u" : "%s%u-%u", i > 0 ? ", " : "",
                              range->first, range->last);
    }
}

static bool is_expected(const struct vb_conf_health *health, unsigned status)
{
    for (unsigned i = 0; i < health->n_expect; i++)
        if (status >= health->expect[i].first && status <= health->expect[i].last)
            return true;
    return false;
}

static void judge(struct vb_probe *probe)
{
    const struct vb_conf_health *health = probe->rules->now;
    struct vb_probe_result result = {.passed = is_expected(health, probe->head->status)};
    char expected[64];
    result.reports_load = vb_head_load_report(probe->head, &result.load_milli);
    if (!result.passed) {
        print_expected(health, expected, sizeof(expected));
        snprintf(result.reason, sizeof(result.reason), "status %u, expected %s", probe->head->status, expected);
    }
    finish_with(probe, &result);
}

static void fail_invalid(struct vb_probe *probe, const char *why)
{
    char reason[128];
    snprintf(reason, sizeof(reason), "no valid response: %s", why);
    finish(probe, false, reason);
}

static void on_data(void *owner, const char *bytes, size_t n)
{
    static const struct vb_head_limits limits = {16 * 1024, 200};
    struct vb_probe *probe = probe_of(owner);
    struct vb_refusal refusal;
    if (probe->rules->now->path == NULL)
        return; /* a TCP check of a server that speaks first */
    if (vb_buf_append(&probe->input, bytes, n) < 0) {
        fail_code(probe, -ENOMEM);
        return;
    }
    for (;;) {
        ssize_t used = vb_h1_parse_response(vb_buf_data(&probe->input), vb_buf_len(&probe->input), &limits, false,
                                            probe->head, &refusal);
        if (used == 0)
            return;
        if (used < 0)
            fail_invalid(probe, refusal.why);
        else if (probe->head->status >= 200)
            judge(probe);
        else { /* 1xx: the answer is still to come */
            vb_buf_consume(&probe->input, (size_t)used);
            if (vb_buf_len(&probe->input) > 0)
                continue;
        }
        return;
    }
}

static void on_end(void *owner)
{
    finish(probe_of(owner), false, "closed the connection without an answer");
}

static void on_connected(void *owner)
{
    struct vb_probe *probe = probe_of(owner);
    probe->connected = true;
    if (probe->rules->now->path == NULL)
        finish(probe, true, "");
    else
        send_request(probe);
}

static void on_drained(void *owner)
{
}

/* ---- address ----------------------------------------------------------------------------------------------------- */

static void start_connect(struct vb_probe *probe);

static void on_failed(void *owner, int code)
{
    struct vb_probe *probe = probe_of(owner);
    if (probe->connected || probe->tried >= probe->n_addresses) {
        fail_code(probe, code);
        return;
    }
    vb_stream_close(&probe->stream);
    probe->current = (probe->current + 1) % probe->n_addresses;
    start_connect(probe);
}

static void set_port(struct sockaddr_storage *address, uint16_t port)
{
    if (address->ss_family == AF_INET6)
        ((struct sockaddr_in6 *)address)->sin6_port = htons(port);
    else if (address->ss_family == AF_INET)
        ((struct sockaddr_in *)address)->sin_port = htons(port);
}

static void start_connect(struct vb_probe *probe)
{
    static const struct vb_stream_events events = {
        .connected = on_connected,
        .data = on_data,
        .end = on_end,
        .drained = on_drained,
        .failed = on_failed,
    };
    struct sockaddr_storage address = probe->addresses[probe->current].address;
    if (probe->rules->now->port != 0)
        set_port(&address, (uint16_t)probe->rules->now->port);
    probe->tried++;
    int r = vb_stream_connect(&probe->stream, probe->loop, (struct sockaddr *)&address, &events, probe);
    if (r < 0)
        on_failed(probe, r);
}

static void add_address(struct vb_probe *probe, const struct sockaddr *address, socklen_t length)
{
    if (probe->n_addresses == VB_PROBE_ADDRESSES)
        return;
    struct vb_probe_address *added = &probe->addresses[probe->n_addresses++];
    memcpy(&added->address, address, length);
    added->length = length;
    set_port(&added->address, probe->endpoint.port);
}

static bool same_host(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
    if (a->ss_family != b->ss_family)
        return false;
    if (a->ss_family == AF_INET6)
        return memcmp(&((const struct sockaddr_in6 *)a)->sin6_addr, &((const struct sockaddr_in6 *)b)->sin6_addr,
                      sizeof(struct in6_addr)) == 0;
    return ((const struct sockaddr_in *)a)->sin_addr.s_addr == ((const struct sockaddr_in *)b)->sin_addr.s_addr;
}

/* The address in use stays that if the name still has it. False: it does not. */
static bool use_addresses(struct vb_probe *probe, const struct addrinfo *found)
{
    bool had = probe->n_addresses > 0;
    struct sockaddr_storage before = probe->addresses[probe->current].address;
    probe->n_addresses = probe->current = 0;
    probe->resolved_ms = vb_loop_now_ms(probe->loop);
    for (const struct addrinfo *one = found; one != NULL; one = one->ai_next)
        if (one->ai_family == AF_INET)
            add_address(probe, one->ai_addr, one->ai_addrlen);
    for (const struct addrinfo *one = found; one != NULL; one = one->ai_next)
        if (one->ai_family == AF_INET6)
            add_address(probe, one->ai_addr, one->ai_addrlen);
    for (unsigned i = 0; had && i < probe->n_addresses; i++) {
        if (same_host(&probe->addresses[i].address, &before)) {
            probe->current = i;
            return true;
        }
    }
    return false;
}

/* Nothing to go on with: neither a known address nor a new one. */
static void fail_unresolved(struct vb_probe *probe, int code)
{
    char reason[128];
    snprintf(reason, sizeof(reason), "the name does not resolve: %s", uv_strerror(code));
    finish(probe, false, reason);
}

static void on_resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *found)
{
    struct vb_probe *probe = vb_container_of(request, struct vb_probe, resolver);
    bool kept = true;
    probe->resolving = false;
    if (status == 0 && !probe->abandoned)
        kept = use_addresses(probe, found);
    uv_freeaddrinfo(found);
    if (probe->abandoned) {
        probe->let_go(probe);
        return;
    }
    if (!probe->active)
        return; /* the probe has ended meanwhile; the next one finds the result */
    if (probe->n_addresses == 0) {
        fail_unresolved(probe, status < 0 ? status : UV_EAI_NODATA);
    } else if (!probe->rules->now->enabled) {
        finish(probe, true, "");
    } else if (probe->tried == 0 || !kept) { /* it has waited for this, or is talking to an address of the past */
        vb_stream_close(&probe->stream);
        vb_buf_clear(&probe->input);
        probe->connected = false;
        probe->tried = 0;
        start_connect(probe);
    }
}

static int resolve(struct vb_probe *probe)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_family = AF_UNSPEC};
    int r = uv_getaddrinfo(vb_loop_uv(probe->loop), &probe->resolver, on_resolved, probe->endpoint.host, NULL, &hints);
    probe->resolving = r == 0;
    return r;
}

static bool resolve_is_due(const struct vb_probe *probe, bool resolve_again)
{
    if (probe->literal)
        return false;
    return resolve_again || probe->n_addresses == 0 ||
           vb_loop_now_ms(probe->loop) - probe->resolved_ms >= RESOLVE_AGAIN_MS;
}

void vb_probe_begin(struct vb_probe *probe, bool resolve_again)
{
    probe->begun_us = vb_clock_us();
    probe->active = true;
    probe->connected = false;
    probe->tried = 0;
    vb_timer_start(&probe->timer, &probe->rules->timeouts, on_timeout);
    int r = 0;
    if (!probe->resolving && resolve_is_due(probe, resolve_again))
        r = resolve(probe);
    if (probe->n_addresses > 0)
        start_connect(probe);
    else if (r < 0)
        fail_unresolved(probe, r);
}

void vb_probe_resolve(struct vb_probe *probe)
{
    probe->begun_us = vb_clock_us();
    probe->active = true;
    if (probe->literal) {
        finish(probe, true, "");
        return;
    }
    int r = probe->resolving ? 0 : resolve(probe); /* one that was cancelled may have left its look-up behind */
    if (r < 0 && probe->n_addresses == 0)
        fail_unresolved(probe, r);
    else if (r < 0)
        finish(probe, true, "");
}

int vb_probe_init(struct vb_probe *probe, const char *address)
{
    const struct vb_conf_endpoint *endpoint = &probe->endpoint;
    struct vb_error err;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    probe->magic = PROBE_MAGIC;
    int r = vb_conf_parse_endpoint(address, &probe->endpoint, &err);
    if (r < 0)
        return r;
    bool is_unix = endpoint->unix_path[0] != '\0';
    vb_copy(probe->authority, sizeof(probe->authority), is_unix ? "localhost" : address);
    if (is_unix) {
        vb_copy(un.sun_path, sizeof(un.sun_path), endpoint->unix_path);
        add_address(probe, (struct sockaddr *)&un, sizeof(un));
    } else if (uv_ip4_addr(endpoint->host, endpoint->port, &v4) == 0) {
        add_address(probe, (struct sockaddr *)&v4, sizeof(v4));
    } else if (uv_ip6_addr(endpoint->host, endpoint->port, &v6) == 0) {
        add_address(probe, (struct sockaddr *)&v6, sizeof(v6));
    }
    probe->literal = probe->n_addresses > 0;
    return 0;
}

void vb_probe_assume(struct vb_probe *probe, const struct sockaddr *address, socklen_t length)
{
    if (!probe->literal)
        add_address(probe, address, length);
}

void vb_probe_cancel(struct vb_probe *probe)
{
    vb_timer_stop(&probe->timer);
    vb_stream_close(&probe->stream);
    vb_buf_clear(&probe->input);
    probe->active = false;
}

bool vb_probe_stop(struct vb_probe *probe)
{
    vb_probe_cancel(probe);
    probe->abandoned = true;
    if (probe->resolving && !probe->unqueued)
        probe->unqueued = uv_cancel((uv_req_t *)&probe->resolver) == 0;
    return !probe->resolving || probe->unqueued;
}
