/*
 * A tunnel.
 *
 * Happy path: bytes of one side are written to the other; what that one does not take is queued by its stream, and the
 * side it came from is read no further until the queue has left. A FIN passes on as a FIN, and the other direction goes
 * on (a half-closed connection) until its FIN too.
 *
 * When it goes wrong: a side that breaks breaks the other, also while it is not read. Without a byte either way for
 * timeouts.tunnel it ends as if both had finished, or broken where something was still on the way. A side that takes
 * what is queued for it, however slowly, is no silence.
 */
#include "tunnel.h"

#include "exchange.h"

#define TUNNEL_END_MAGIC 0x54554e45

struct tunnel_end {
    uint32_t magic;
    bool done;     /* it has sent its FIN */
    bool paused;   /* the other side does not take what it sends */
    size_t unsent; /* bytes that it had not taken when the other one was paused, or at the last look */
    struct vb_tunnel *tunnel;
    struct tunnel_end *other;
    struct vb_stream *stream;
};

struct vb_tunnel {
    struct vb_proxy *proxy;
    struct vb_exchange *exchange;
    struct tunnel_end client, backend;
    struct vb_timer timer, watch;
};

static struct tunnel_end *end_of(void *owner)
{
    return vb_cast(struct tunnel_end, TUNNEL_END_MAGIC, owner);
}

static void over(struct vb_tunnel *tunnel, enum vb_tunnel_ending how)
{
    vb_exchange_tunnel_over(tunnel->exchange, how); /* ends in vb_tunnel_close */
}

static void moved(struct vb_tunnel *tunnel);

/* Has it taken some of what is queued for it since the last look? */
static bool takes_queue(struct tunnel_end *end)
{
    size_t before = end->unsent;
    if (!vb_stream_queued(end->stream))
        return false;
    end->unsent = vb_stream_unsent(end->stream);
    return end->unsent < before;
}

static void on_timeout(struct vb_timer *timer)
{
    struct vb_tunnel *tunnel = vb_container_of(timer, struct vb_tunnel, timer);
    bool cut = vb_stream_queued(tunnel->client.stream) || vb_stream_queued(tunnel->backend.stream);
    bool client_reads = takes_queue(&tunnel->client), backend_reads = takes_queue(&tunnel->backend);
    if (client_reads || backend_reads)
        moved(tunnel);
    else
        over(tunnel, cut ? VB_TUNNEL_BROKEN : VB_TUNNEL_DONE);
}

static void moved(struct vb_tunnel *tunnel)
{
    vb_timer_start(&tunnel->timer, &tunnel->proxy->tunnel, on_timeout);
}

/* Who is not read is not heard either when he breaks the connection. */
static void on_watch(struct vb_timer *timer)
{
    struct vb_tunnel *tunnel = vb_container_of(timer, struct vb_tunnel, watch);
    const struct tunnel_end *ends[] = {&tunnel->client, &tunnel->backend};
    for (unsigned i = 0; i < VB_ARRAY_SIZE(ends); i++) {
        if (!ends[i]->paused)
            continue;
        if (vb_stream_broken(ends[i]->stream)) {
            over(tunnel, VB_TUNNEL_BROKEN);
            return;
        }
        vb_timer_start(&tunnel->watch, &tunnel->proxy->watch, on_watch);
    }
}

static void set_paused(struct tunnel_end *end, bool on)
{
    struct vb_tunnel *tunnel = end->tunnel;
    end->paused = on;
    if (!on) {
        vb_stream_resume(end->stream);
        return;
    }
    vb_stream_pause(end->stream);
    end->other->unsent = vb_stream_unsent(end->other->stream);
    if (tunnel->watch.list == NULL)
        vb_timer_start(&tunnel->watch, &tunnel->proxy->watch, on_watch);
}

/* False: the tunnel is gone. */
static bool pass_on(struct tunnel_end *from, const char *bytes, size_t n)
{
    struct vb_tunnel *tunnel = from->tunnel;
    struct iovec iov = {(void *)bytes, n};
    vb_exchange_tunnel_moved(tunnel->exchange, from == &tunnel->client, n);
    int r = vb_stream_write(from->other->stream, &iov, 1);
    if (r < 0) {
        over(tunnel, VB_TUNNEL_BROKEN);
        return false;
    }
    if (r == 1)
        set_paused(from, true);
    return true;
}

static void on_data(void *owner, const char *bytes, size_t n)
{
    struct tunnel_end *end = end_of(owner);
    moved(end->tunnel);
    pass_on(end, bytes, n);
}

static void on_end(void *owner)
{
    struct tunnel_end *end = end_of(owner);
    end->done = true;
    if (end->other->done) {
        over(end->tunnel, VB_TUNNEL_DONE);
        return;
    }
    moved(end->tunnel);
    vb_stream_end(end->other->stream);
}

static void on_drained(void *owner)
{
    struct tunnel_end *end = end_of(owner);
    moved(end->tunnel);
    set_paused(end->other, false);
}

static void on_failed(void *owner, int code)
{
    over(end_of(owner)->tunnel, VB_TUNNEL_BROKEN);
}

static const struct vb_stream_events events = {
    .data = on_data,
    .end = on_end,
    .drained = on_drained,
    .failed = on_failed,
};

static void end_open(struct tunnel_end *end, struct vb_tunnel *tunnel, struct tunnel_end *other,
                     struct vb_stream *stream)
{
    *end = (struct tunnel_end){.magic = TUNNEL_END_MAGIC, .tunnel = tunnel, .other = other, .stream = stream};
    vb_stream_rebind(stream, &events, end);
}

int vb_tunnel_open(struct vb_tunnel **ret_tunnel, struct vb_proxy *proxy, struct vb_exchange *exchange,
                   struct vb_stream *client, struct vb_stream **backend)
{
    struct vb_tunnel *tunnel = calloc(1, sizeof(*tunnel));
    if (tunnel == NULL) {
        vb_stream_reset(backend);
        return -ENOMEM;
    }
    tunnel->proxy = proxy;
    tunnel->exchange = exchange;
    end_open(&tunnel->client, tunnel, &tunnel->backend, client);
    end_open(&tunnel->backend, tunnel, &tunnel->client, *backend);
    *backend = NULL;
    vb_add64(&proxy->stats->tunnels, 1);
    *ret_tunnel = tunnel;
    return 0;
}

void vb_tunnel_begin(struct vb_tunnel *tunnel, struct vb_str from_client, bool client_done)
{
    moved(tunnel);
    /* The one has perhaps been paused while its bytes waited, the other because the 101 has not left yet. */
    set_paused(&tunnel->client, false);
    set_paused(&tunnel->backend, vb_stream_queued(tunnel->client.stream));
    if (from_client.n > 0 && !pass_on(&tunnel->client, from_client.p, from_client.n))
        return;
    if (client_done)
        on_end(&tunnel->client);
}

void vb_tunnel_close(struct vb_tunnel **tunnel_ptr, enum vb_tunnel_ending how)
{
    struct vb_tunnel *tunnel = *tunnel_ptr;
    if (tunnel == NULL)
        return;
    *tunnel_ptr = NULL;
    vb_timer_stop(&tunnel->timer);
    vb_timer_stop(&tunnel->watch);
    vb_sub64(&tunnel->proxy->stats->tunnels, 1);
    if (how == VB_TUNNEL_DONE)
        vb_stream_finish(&tunnel->backend.stream);
    else
        vb_stream_reset(&tunnel->backend.stream);
    free(tunnel);
}
