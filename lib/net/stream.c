/*
 * Streams over TCP and unix sockets. To libuv these are two kinds of handle, which differ only while they are opened.
 *
 * Happy path: open or connect; libuv says that there is something to read, it is received into the loop's shared
 * buffer, and the owner gets `data`; a write is one system call straight from the owner's slices and nothing is kept.
 * Neither is left to libuv: its read(2), write(2) and writev(2) take a longer way through the kernel than what is made
 * for sockets.
 *
 * Back-pressure: what the kernel does not take is copied to `sending` and handed to libuv; what is written meanwhile
 * waits in `waiting`, so that libuv never has more than one request and slices join. Both exist only while needed. What
 * is written while the stream connects waits there too, and leaves as soon as it is connected.
 *
 * Failure: a read error or a failed connect gives `failed`, once. A write error is the return value of the write that
 * meets it; when a queued write fails, the next one says so, and the read side finds out by itself.
 *
 * Closing: `owner` NULL means that the owner has let go. The memory is freed in libuv's close callback, nowhere else.
 * A stream that finishes with a queue sends it however slowly the peer reads, as long as it moves; when it has to be
 * cut the peer gets an RST (a unix socket has none), so that it does not take the part for the whole.
 */
#include "vb/stream.h"

#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/un.h>
#include <unistd.h>

#include "net_priv.h"
#include "vb/buf.h"

#define STREAM_MAGIC 0x5354524d
#define FLUSH_STALLS 30 /* times VB_LINGER_MS without progress before a finishing stream's queue is given up */

struct write_queue {
    uv_write_t request;
    struct vb_buf sending, waiting;
};

struct vb_stream {
    uint32_t magic;
    bool reading;
    bool connecting;
    bool unreadable; /* not connected yet, or the peer's FIN or an error has been read */
    bool ending;     /* a FIN belongs behind the queue, and nothing more may be written */
    bool finishing, fin_sent;
    uint8_t stalls; /* while finishing: how often in a row the queue had not moved */
    int fd;         /* libuv's; -1: closed, or a connect that has failed before there was one */
    size_t unsent;  /* while finishing: as of the last look */
    uint64_t finish_until_ms;
    int write_error;
    struct vb_loop *loop;
    const struct vb_stream_events *events;
    void *owner;
    struct write_queue *queue; /* NULL: nothing is queued */
    struct vb_timer linger;
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } uv;
};

static struct vb_stream *stream_of(void *data)
{
    return vb_cast(struct vb_stream, STREAM_MAGIC, data);
}

static void queue_free(struct vb_stream *stream)
{
    if (stream->queue == NULL)
        return;
    vb_buf_clear(&stream->queue->sending);
    vb_buf_clear(&stream->queue->waiting);
    free(stream->queue);
    stream->queue = NULL;
}

static void on_closed(uv_handle_t *handle)
{
    struct vb_stream *stream = stream_of(handle->data);
    queue_free(stream); /* libuv has cancelled its request before this */
    stream->magic = 0;
    free(stream);
}

static void close_handle(struct vb_stream *stream)
{
    vb_timer_stop(&stream->linger);
    stream->owner = NULL;
    stream->finishing = false;
    stream->fd = -1; /* the number may be another connection's before the loop's next turn */
    if (!uv_is_closing(&stream->uv.handle))
        uv_close(&stream->uv.handle, on_closed);
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

/* No buffer for libuv, which then says UV_ENOBUFS and leaves the reading to us: recv(2) is the shorter way. */
static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    *buf = (uv_buf_t){0};
}

static ssize_t receive(struct vb_stream *stream)
{
    ssize_t n;
    do
        n = recv(stream->fd, stream->loop->read_buffer, sizeof(stream->loop->read_buffer), 0);
    while (n < 0 && errno == EINTR);
    return n > 0 ? n : n == 0 ? UV_EOF : -errno;
}

/*
 * What ends with an RST is not complete. But it is read as an end when a write that met it has taken the error off the
 * socket. EPIPE is what the kernel says when the peer's FIN came before its RST.
 */
static ssize_t true_end(struct vb_stream *stream)
{
    int error = 0;
    socklen_t length = sizeof(error);
    if (stream->write_error < 0)
        error = -stream->write_error;
    else if (stream->queue != NULL && stream->queue->request.error < 0)
        error = -stream->queue->request.error; /* libuv tells it a turn later than the end */
    else
        getsockopt(stream->fd, SOL_SOCKET, SO_ERROR, &error, &length);
    return error == 0 || error == EPIPE ? UV_EOF : -error;
}

static void linger(struct vb_stream *stream);

static void on_readable(uv_stream_t *handle, ssize_t no_buffer, const uv_buf_t *ignored)
{
    struct vb_stream *stream = stream_of(handle->data);
    ssize_t n = receive(stream);
    if (n == -EAGAIN)
        return;
    if (stream->finishing) { /* whatever still comes is dropped; the peer's FIN or an error ends it */
        if (n == UV_EOF && stream->queue != NULL) { /* it still reads; on_written closes */
            uv_read_stop(handle);
            stream->reading = false;
            stream->unreadable = true;
        } else if (n < 0) {
            close_handle(stream);
        } else if (n > 0 && stream->fin_sent && vb_loop_now_ms(stream->loop) < stream->finish_until_ms) {
            linger(stream);
        }
        return;
    }
    if (n > 0) {
        stream->events->data(stream->owner, stream->loop->read_buffer, (size_t)n);
    } else if (n < 0) {
        uv_read_stop(handle);
        stream->reading = false;
        stream->unreadable = true;
        if (n == UV_EOF)
            n = true_end(stream);
        if (n == UV_EOF)
            stream->events->end(stream->owner);
        else
            stream->events->failed(stream->owner, (int)n);
    }
}

static int start_reading(struct vb_stream *stream)
{
    int r = uv_read_start(&stream->uv.stream, on_alloc, on_readable);
    stream->reading = r == 0;
    return r;
}

void vb_stream_pause(struct vb_stream *stream)
{
    if (!stream->reading)
        return;
    uv_read_stop(&stream->uv.stream);
    stream->reading = false;
}

void vb_stream_resume(struct vb_stream *stream)
{
    if (!stream->reading && !stream->unreadable)
        start_reading(stream);
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static void send_fin(struct vb_stream *stream)
{
    if (stream->fin_sent)
        return;
    stream->fin_sent = true;
    shutdown(stream->fd, SHUT_WR);
}

/* What the kernel takes now, which may be nothing; or a negative errno. */
static ssize_t send_now(const struct vb_stream *stream, const struct iovec *iov, unsigned n)
{
    const struct msghdr message = {.msg_iov = (struct iovec *)iov, .msg_iovlen = n};
    ssize_t r;
    do
        r = n == 1 ? send(stream->fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL)
                   : sendmsg(stream->fd, &message, MSG_NOSIGNAL);
    while (r < 0 && errno == EINTR);
    if (r >= 0)
        return r;
    return errno == EAGAIN || errno == ENOBUFS ? 0 : -errno;
}

/* The queue has left, or never will. */
static void queue_over(struct vb_stream *stream, int status)
{
    queue_free(stream);
    if (stream->write_error == 0) /* or bytes have been left out already, because memory ran out */
        stream->write_error = status;
    if (stream->ending && stream->write_error == 0)
        send_fin(stream);
    if (stream->finishing) {
        if (status < 0 || stream->unreadable) {
            close_handle(stream);
        } else {
            send_fin(stream);
            linger(stream);
        }
    } else if (stream->owner != NULL) {
        stream->events->drained(stream->owner); /* after an error too: the owner's next write will learn of it */
    }
}

static void send_waiting(struct vb_stream *stream);

static void on_written(uv_write_t *request, int status)
{
    struct vb_stream *stream = stream_of(request->data);
    if (uv_is_closing(&stream->uv.handle)) /* on_closed frees the queue, whether it has left or not */
        return;
    struct write_queue *queue = stream->queue;
    vb_buf_clear(&queue->sending);
    if (status == 0 && vb_buf_len(&queue->waiting) > 0)
        send_waiting(stream);
    else
        queue_over(stream, status);
}

/* Gives what waits to libuv, which sends it as the kernel has room. */
static int send_later(struct vb_stream *stream)
{
    struct write_queue *queue = stream->queue;
    queue->sending = queue->waiting;
    queue->waiting = (struct vb_buf){0};
    uv_buf_t buf = uv_buf_init(vb_buf_data(&queue->sending), (unsigned)vb_buf_len(&queue->sending));
    queue->request.data = stream;
    return uv_write(&queue->request, &stream->uv.stream, &buf, 1, on_written);
}

static void send_waiting(struct vb_stream *stream)
{
    struct vb_buf *waiting = &stream->queue->waiting;
    struct iovec iov = {vb_buf_data(waiting), vb_buf_len(waiting)};
    ssize_t r = send_now(stream, &iov, 1);
    if (r >= 0 && (size_t)r < iov.iov_len) {
        vb_buf_consume(waiting, (size_t)r);
        r = send_later(stream);
        if (r == 0)
            return;
    }
    queue_over(stream, r < 0 ? (int)r : 0);
}

/* Appends the slices without their first `skip` bytes. */
static int append_slices(struct vb_buf *buf, const struct iovec *iov, unsigned n, size_t skip)
{
    for (unsigned i = 0; i < n; i++) {
        size_t skipped = VB_MIN(skip, iov[i].iov_len);
        skip -= skipped;
        int r = vb_buf_append(buf, (char *)iov[i].iov_base + skipped, iov[i].iov_len - skipped);
        if (r < 0)
            return r;
    }
    return 0;
}

static int queue_rest(struct vb_stream *stream, const struct iovec *iov, unsigned n, size_t skip)
{
    struct write_queue *queue = calloc(1, sizeof(*queue));
    if (queue == NULL)
        return -ENOMEM;
    stream->queue = queue;
    int r = append_slices(&queue->waiting, iov, n, skip);
    if (r == 0 && !stream->connecting)
        r = send_later(stream);
    if (r < 0)
        queue_free(stream);
    return r < 0 ? r : 1;
}

int vb_stream_write(struct vb_stream *stream, const struct iovec *iov, unsigned n)
{
    size_t total = 0;
    int r;
    assert(!stream->ending);
    if (stream->write_error < 0)
        return stream->write_error;
    if (stream->queue != NULL) {
        r = append_slices(&stream->queue->waiting, iov, n, 0);
        stream->write_error = r;
        return r < 0 ? r : 1;
    }
    for (unsigned i = 0; i < n; i++)
        total += iov[i].iov_len;
    /* While it connects a write would take the error off the socket that libuv is to find there. */
    ssize_t sent = stream->connecting ? 0 : send_now(stream, iov, n);
    if (VB_LIKELY(sent >= 0 && (size_t)sent == total && !stream->connecting))
        return 0;
    r = sent < 0 ? (int)sent : queue_rest(stream, iov, n, (size_t)sent);
    if (r < 0)
        stream->write_error = r;
    return r;
}

void vb_stream_end(struct vb_stream *stream)
{
    stream->ending = true;
    if (stream->queue == NULL && stream->write_error == 0)
        send_fin(stream);
}

bool vb_stream_queued(const struct vb_stream *stream)
{
    return stream->queue != NULL;
}

size_t vb_stream_unsent(const struct vb_stream *stream)
{
    int in_kernel = 0;
    size_t unsent = 0;
    if (stream->queue != NULL)
        unsent = uv_stream_get_write_queue_size(&stream->uv.stream) + vb_buf_len(&stream->queue->waiting);
    if (!stream->connecting && ioctl(stream->fd, SIOCOUTQ, &in_kernel) == 0)
        unsent += (size_t)in_kernel;
    return unsent;
}

void vb_stream_guard(struct vb_stream *stream, bool on)
{
    struct linger linger = {.l_onoff = on};
    setsockopt(stream->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

bool vb_stream_has_unread(const struct vb_stream *stream)
{
    int unread = 0;
    return ioctl(stream->fd, SIOCINQ, &unread) == 0 && unread > 0;
}

bool vb_stream_is_silent(const struct vb_stream *stream)
{
    struct pollfd poll_fd = {.fd = stream->fd, .events = POLLIN};
    return stream->fd >= 0 && poll(&poll_fd, 1, 0) == 0;
}

bool vb_stream_broken(const struct vb_stream *stream)
{
    struct pollfd poll_fd = {.fd = stream->fd};
    if (stream->fd < 0)
        return true;
    /* POLLHUP is no sign of it: it also comes when both sides have finished and bytes are still to be read. */
    return poll(&poll_fd, 1, 0) > 0 && (poll_fd.revents & POLLERR) != 0;
}

/* ---- opening and closing ----------------------------------------------------------------------------------------- */

static struct vb_stream *stream_new(struct vb_loop *loop, int family, const struct vb_stream_events *events,
                                    void *owner)
{
    struct vb_stream *stream = malloc(sizeof(*stream)); /* calloc(3) passes by the thread's cache of freed memory */
    if (stream == NULL)
        return NULL;
    *stream = (struct vb_stream){.magic = STREAM_MAGIC, .loop = loop, .events = events, .owner = owner, .fd = -1};
    /* Neither makes a socket yet, nor can it fail. */
    if (family == AF_UNIX)
        uv_pipe_init(&loop->uv, &stream->uv.pipe, 0);
    else
        uv_tcp_init(&loop->uv, &stream->uv.tcp);
    stream->uv.handle.data = stream;
    return stream;
}

int vb_stream_open(struct vb_stream **ret_stream, struct vb_loop *loop, int fd, int family,
                   const struct vb_stream_events *events, void *owner)
{
    struct vb_stream *stream = stream_new(loop, family, events, owner);
    int r = -ENOMEM;
    if (stream == NULL)
        goto fail;
    r = family == AF_UNIX ? uv_pipe_open(&stream->uv.pipe, fd) : uv_tcp_open(&stream->uv.tcp, fd);
    if (r < 0)
        goto fail_handle;
    stream->fd = fd;
    r = start_reading(stream);
    if (r < 0) {
        close_handle(stream); /* the handle owns the descriptor by now */
        return r;
    }
    *ret_stream = stream;
    return 0;

fail_handle:
    close_handle(stream);
fail:
    close(fd);
    return r;
}

void vb_stream_rebind(struct vb_stream *stream, const struct vb_stream_events *events, void *owner)
{
    stream->events = events;
    stream->owner = owner;
}

struct connect_request {
    uv_connect_t uv;
    struct vb_stream *stream;
};

static void on_connected(uv_connect_t *request, int status)
{
    struct connect_request *connect = vb_container_of(request, struct connect_request, uv);
    struct vb_stream *stream = stream_of(connect->stream);
    free(connect);
    if (status == UV_ECANCELED) /* closed */
        return;
    stream->connecting = stream->unreadable = false;
    if (status == 0)
        status = start_reading(stream);
    if (stream->finishing && status < 0)
        close_handle(stream);
    else if (status < 0)
        stream->events->failed(stream->owner, status);
    else if (stream->owner != NULL)
        stream->events->connected(stream->owner);
    if (status == 0 && stream->queue != NULL && !uv_is_closing(&stream->uv.handle))
        send_waiting(stream);
}

int vb_stream_connect(struct vb_stream **ret_stream, struct vb_loop *loop, const struct sockaddr *address,
                      const struct vb_stream_events *events, void *owner)
{
    struct connect_request *connect = malloc(sizeof(*connect));
    if (connect == NULL)
        return -ENOMEM;
    struct vb_stream *stream = stream_new(loop, address->sa_family, events, owner);
    int r = -ENOMEM;
    if (stream == NULL)
        goto fail;
    connect->stream = stream;
    stream->connecting = stream->unreadable = true;
    if (address->sa_family == AF_UNIX) { /* whatever fails is told in the callback */
        const char *path = ((const struct sockaddr_un *)address)->sun_path;
        uv_pipe_connect(&connect->uv, &stream->uv.pipe, path, on_connected);
    } else {
        r = uv_tcp_connect(&connect->uv, &stream->uv.tcp, address, on_connected);
        if (r < 0) {
            close_handle(stream);
            goto fail;
        }
        uv_tcp_nodelay(&stream->uv.tcp, 1);
    }
    uv_fileno(&stream->uv.handle, &stream->fd);
    *ret_stream = stream;
    return 0;

fail:
    free(connect);
    return r;
}

void vb_stream_close(struct vb_stream **stream_ptr)
{
    struct vb_stream *stream = *stream_ptr;
    *stream_ptr = NULL;
    if (stream != NULL)
        close_handle(stream);
}

/* When it is closed, the peer gets an RST; of a unix socket it gets an end. */
static void arm_reset(struct vb_stream *stream)
{
    struct linger hard = {.l_onoff = 1, .l_linger = 0};
    setsockopt(stream->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
}

void vb_stream_reset(struct vb_stream **stream_ptr)
{
    if (*stream_ptr != NULL)
        arm_reset(*stream_ptr);
    vb_stream_close(stream_ptr);
}

static void on_lingered(struct vb_timer *timer)
{
    struct vb_stream *stream = vb_container_of(timer, struct vb_stream, linger);
    if (stream->queue != NULL) {
        size_t unsent = vb_stream_unsent(stream);
        stream->stalls = unsent < stream->unsent ? 0 : stream->stalls + 1;
        stream->unsent = unsent;
        if (stream->stalls < FLUSH_STALLS) {
            linger(stream);
            return;
        }
        arm_reset(stream);
    }
    close_handle(stream);
}

static void linger(struct vb_stream *stream)
{
    vb_timer_start(&stream->linger, &stream->loop->linger, on_lingered);
}

void vb_stream_finish(struct vb_stream **stream_ptr)
{
    struct vb_stream *stream = *stream_ptr;
    *stream_ptr = NULL;
    if (stream == NULL)
        return;
    if (stream->write_error < 0 || (stream->unreadable && stream->queue == NULL)) {
        close_handle(stream);
        return;
    }
    stream->owner = NULL;
    stream->finishing = true;
    linger(stream);
    if (stream->queue == NULL)
        send_fin(stream);
    else
        stream->unsent = vb_stream_unsent(stream);
    vb_stream_resume(stream);
}

void vb_stream_finish_upload(struct vb_stream **stream_ptr)
{
    struct vb_stream *stream = *stream_ptr;
    if (stream != NULL)
        stream->finish_until_ms = vb_loop_now_ms(stream->loop) + stream->loop->finish_max_ms;
    vb_stream_finish(stream_ptr);
}
