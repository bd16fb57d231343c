/*
 * Streams over TCP and unix sockets, which differ only while they are opened.
 *
 * Happy path: open or connect; the loop says that there is something to read, it is received into the loop's shared
 * buffer, and the owner gets `data`, behind those that have read together with it (batch.c); a write is one system call
 * straight from the owner's slices, at once or behind what the batch has to tell, and nothing is kept.
 *
 * The kernel tells of a change only once (EPOLLET), so `readable` remembers that there may be more: until a read brings
 * less than there is room for; or nothing, once the kernel has told of what makes a read short. (A unix socket's read
 * is short at a descriptor, too: HTTP has none, and who sends one waits for his own next byte.)
 *
 * Back-pressure: what the kernel does not take is copied to `queue` and sent as there is room. What is written while
 * the stream connects waits there too, and leaves as soon as it is connected.
 *
 * Failure: a read error or a failed connect gives `failed`, once. A write error is the return value of the write that
 * meets it, or told by `written`; when a queued write fails, the next one says so, and the read side finds out by
 * itself.
 *
 * Closing: `owner` NULL means that the owner has let go. The descriptor is closed at once, the memory goes at the end
 * of the loop's turn. A stream that finishes with a queue sends it however slowly the peer reads, as long as it moves;
 * when it has to be cut the peer gets an RST (a unix socket has none), so that it does not take the part for the whole.
 */
#include "vb/stream.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/un.h>
#include <unistd.h>

#include "net_priv.h"
#include "vb/buf.h"

#define STREAM_MAGIC 0x5354524d
#define FLUSH_STALLS 30 /* times VB_LINGER_MS without progress before a finishing stream's queue is given up */

/* What every stream hears of; and what it hears of from when it is to be told of room, or that it is connected. */
#define EVENTS_IN  (EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLET)
#define EVENTS_ALL (EVENTS_IN | EPOLLOUT)

struct vb_stream {
    struct loop_watch watch; /* first: the memory goes with it */
    uint32_t magic;
    int fd; /* -1: closed */
    bool connecting;
    bool unreadable; /* not connected yet, or the peer's FIN or an error has been read */
    bool readable;   /* there may be something to read */
    bool reads_on;   /* an end, an error or an urgent byte, at which a read stops, may lie behind it */
    bool in_hand;    /* what has been read stands in the loop's batch */
    bool paused;
    uint8_t soon;       /* what stands there to be sent: its number, or 0 */
    bool hears_of_room; /* EVENTS_ALL */
    bool ending;        /* a FIN belongs behind the queue, and nothing more may be written */
    bool finishing, fin_sent;
    uint8_t stalls;    /* while finishing: how often in a row the queue had not moved */
    int connect_error; /* known already, to be told in an event */
    int write_error;
    size_t unsent; /* while finishing: as of the last look */
    uint64_t finish_until_ms;
    struct vb_loop *loop;
    const struct vb_stream_events *events;
    void *owner;
    struct vb_buf queue;
    struct vb_timer linger;
};

static struct vb_stream *stream_of(struct loop_watch *watch)
{
    return vb_cast(struct vb_stream, STREAM_MAGIC, watch);
}

static struct batch_write *soon_of(const struct vb_stream *stream)
{
    return &stream->loop->batch.writes[stream->soon - 1];
}

static void close_stream(struct vb_stream *stream)
{
    vb_timer_stop(&stream->linger);
    vb_buf_clear(&stream->queue);
    if (stream->soon != 0)
        soon_of(stream)->stream = NULL;
    stream->owner = NULL;
    stream->finishing = false;
    loop_watch_close(stream->loop, &stream->watch, stream->fd);
    close(stream->fd);
    stream->fd = -1;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

/*
 * What ends with an RST is not complete. But it is read as an end when a write that met it has taken the error off the
 * socket. EPIPE is what the kernel says when the peer's FIN came before its RST.
 */
static int true_end(const struct vb_stream *stream)
{
    int error = 0;
    socklen_t length = sizeof(error);
    if (stream->write_error < 0)
        error = -stream->write_error;
    else
        getsockopt(stream->fd, SOL_SOCKET, SO_ERROR, &error, &length);
    return error == EPIPE ? 0 : -error;
}

static void linger(struct vb_stream *stream);

/* Whatever still comes is dropped; the peer's FIN or an error ends it. */
static void drop(struct vb_stream *stream, ssize_t n)
{
    if (n == 0 && vb_buf_len(&stream->queue) > 0) /* it still reads; the end of the queue closes */
        stream->unreadable = true;
    else if (n <= 0)
        close_stream(stream);
    else if (stream->fin_sent && vb_loop_now_ms(stream->loop) < stream->finish_until_ms)
        linger(stream);
}

static void read_once(struct vb_stream *stream)
{
    ssize_t n;
    do
        n = recv(stream->fd, batch_room(stream->loop), VB_READ_MAX, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    stream->readable = n == VB_READ_MAX || (n > 0 && stream->reads_on);
    if (n < 0 && errno == EAGAIN)
        return;
    stream->in_hand = true;
    batch_read(stream->loop, stream, n >= 0 ? n : -errno);
}

/* No further byte comes. */
static void ended(struct vb_stream *stream, int error)
{
    stream->unreadable = true;
    if (error == 0)
        error = true_end(stream);
    if (error == 0)
        stream->events->end(stream->owner);
    else
        stream->events->failed(stream->owner, error);
}

void stream_hand_over(struct vb_stream *stream, const char *bytes, ssize_t n)
{
    stream->in_hand = false;
    if (stream->fd < 0)
        return;
    if (stream->finishing)
        drop(stream, n);
    else if (n > 0)
        stream->events->data(stream->owner, bytes, (size_t)n);
    else
        ended(stream, (int)n);
    if (stream->fd >= 0 && stream->readable && !stream->paused) /* others first */
        loop_watch_again(stream->loop, &stream->watch);
}

bool vb_stream_has_news(const struct vb_stream *stream)
{
    return stream->in_hand;
}

void vb_stream_pause(struct vb_stream *stream)
{
    stream->paused = true;
}

void vb_stream_resume(struct vb_stream *stream)
{
    if (stream->paused && stream->readable)
        loop_watch_again(stream->loop, &stream->watch);
    stream->paused = false;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static void send_fin(struct vb_stream *stream)
{
    if (stream->fin_sent)
        return;
    stream->fin_sent = true;
    shutdown(stream->fd, SHUT_WR);
}

/* What came of a system call: what the kernel has taken, which may be nothing; or a negative errno. */
static ssize_t taken(struct vb_stream *stream, ssize_t r)
{
    if (r >= 0)
        return r;
    if (errno == ENOBUFS) /* the kernel's want of memory: nothing tells when it is over */
        loop_watch_again(stream->loop, &stream->watch);
    return errno == EAGAIN || errno == ENOBUFS ? 0 : -errno;
}

static ssize_t send_bytes(struct vb_stream *stream, const char *bytes, size_t n)
{
    ssize_t r;
    do
        r = send(stream->fd, bytes, n, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (r < 0 && errno == EINTR);
    return taken(stream, r);
}

static ssize_t send_slices(struct vb_stream *stream, const struct iovec *iov, unsigned n)
{
    if (n == 1)
        return send_bytes(stream, iov->iov_base, iov->iov_len);
    const struct msghdr message = {.msg_iov = (struct iovec *)iov, .msg_iovlen = n};
    ssize_t r;
    do
        r = sendmsg(stream->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (r < 0 && errno == EINTR);
    return taken(stream, r);
}

/* The queue has left, or never will. */
static void queue_over(struct vb_stream *stream, int status)
{
    vb_buf_clear(&stream->queue);
    if (stream->write_error == 0) /* or bytes have been left out already, because memory ran out */
        stream->write_error = status;
    if (stream->ending && stream->write_error == 0)
        send_fin(stream);
    if (stream->finishing) {
        if (status < 0 || stream->unreadable) {
            close_stream(stream);
        } else {
            send_fin(stream);
            linger(stream);
        }
    } else if (stream->owner != NULL) {
        stream->events->drained(stream->owner); /* after an error too: the owner's next write will learn of it */
    }
}

/* Sees to it that the loop says when there is room. */
static int hear_of_room(struct vb_stream *stream)
{
    if (stream->hears_of_room)
        return 0;
    int r = loop_watch_change(stream->loop, &stream->watch, stream->fd, EVENTS_ALL);
    stream->hears_of_room = r == 0;
    return r;
}

static void send_queue(struct vb_stream *stream)
{
    size_t n = vb_buf_len(&stream->queue);
    ssize_t r = send_bytes(stream, vb_buf_data(&stream->queue), n);
    if (r >= 0 && (size_t)r < n) {
        vb_buf_consume(&stream->queue, (size_t)r);
        r = hear_of_room(stream);
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
    int r = append_slices(&stream->queue, iov, n, skip);
    if (r == 0 && !stream->connecting)
        r = hear_of_room(stream);
    if (r < 0)
        vb_buf_clear(&stream->queue);
    return r < 0 ? r : 1;
}

/* What is left when the kernel has taken so much, or said that it takes nothing; the result of a write. */
static int after_write(struct vb_stream *stream, const struct iovec *iov, unsigned n, ssize_t sent)
{
    int r = sent < 0 ? (int)sent : queue_rest(stream, iov, n, (size_t)sent);
    if (r < 0)
        stream->write_error = r;
    return r;
}

/* What waits in the batch leaves before anything else is done with the stream. */
static int send_soon(struct vb_stream *stream)
{
    struct batch_write *write = soon_of(stream);
    ssize_t sent = send_bytes(stream, write->bytes, write->n);
    write->stream = NULL;
    stream->soon = 0;
    if (VB_LIKELY(sent == (ssize_t)write->n))
        return 0;
    return after_write(stream, &(struct iovec){(char *)write->bytes, write->n}, 1, sent);
}

void stream_write_late(struct vb_stream *stream)
{
    stream->events->written(stream->owner, send_soon(stream));
}

int vb_stream_write(struct vb_stream *stream, const struct iovec *iov, unsigned n)
{
    size_t total = 0;
    assert(!stream->ending);
    if (stream->soon != 0)
        send_soon(stream);
    if (stream->write_error < 0)
        return stream->write_error;
    if (vb_buf_len(&stream->queue) > 0) {
        int r = append_slices(&stream->queue, iov, n, 0);
        stream->write_error = r;
        return r < 0 ? r : 1;
    }
    for (unsigned i = 0; i < n; i++)
        total += iov[i].iov_len;
    /* While it connects a write would take the error off the socket that is to be found there. */
    ssize_t sent = stream->connecting ? 0 : send_slices(stream, iov, n);
    return VB_LIKELY(sent >= 0 && (size_t)sent == total) ? 0 : after_write(stream, iov, n, sent);
}

int vb_stream_write_soon(struct vb_stream *stream, const char *bytes, size_t n)
{
    bool is_first = stream->soon == 0 && vb_buf_len(&stream->queue) == 0;
    assert(!stream->ending);
    if (is_first && !stream->connecting && stream->write_error == 0)
        stream->soon = (uint8_t)batch_write(stream->loop, stream, bytes, n);
    return is_first && stream->soon != 0 ? 2 : vb_stream_write(stream, &(struct iovec){(char *)bytes, n}, 1);
}

void vb_stream_end(struct vb_stream *stream)
{
    if (stream->soon != 0)
        send_soon(stream);
    stream->ending = true;
    if (vb_buf_len(&stream->queue) == 0 && stream->write_error == 0)
        send_fin(stream);
}

bool vb_stream_queued(const struct vb_stream *stream)
{
    return vb_buf_len(&stream->queue) > 0 || stream->soon != 0;
}

size_t vb_stream_unsent(const struct vb_stream *stream)
{
    int in_kernel = 0;
    size_t unsent = vb_buf_len(&stream->queue) + (stream->soon != 0 ? soon_of(stream)->n : 0);
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
    return stream->in_hand || (ioctl(stream->fd, SIOCINQ, &unread) == 0 && unread > 0);
}

bool vb_stream_is_silent(const struct vb_stream *stream)
{
    struct pollfd poll_fd = {.fd = stream->fd, .events = POLLIN};
    return !stream->in_hand && poll(&poll_fd, 1, 0) == 0;
}

bool vb_stream_broken(const struct vb_stream *stream)
{
    struct pollfd poll_fd = {.fd = stream->fd};
    /* POLLHUP is no sign of it: it also comes when both sides have finished and bytes are still to be read. */
    return poll(&poll_fd, 1, 0) > 0 && (poll_fd.revents & POLLERR) != 0;
}

/* ---- events ------------------------------------------------------------------------------------------------------ */

static int connect_result(const struct vb_stream *stream)
{
    int error = 0;
    socklen_t length = sizeof(error);
    if (stream->connect_error < 0)
        return stream->connect_error;
    getsockopt(stream->fd, SOL_SOCKET, SO_ERROR, &error, &length);
    return -error;
}

static void on_connect_result(struct vb_stream *stream)
{
    int error = connect_result(stream);
    stream->connecting = false;
    stream->unreadable = error < 0;
    if (error < 0)
        vb_buf_clear(&stream->queue);
    if (error < 0 && stream->finishing)
        close_stream(stream);
    else if (error < 0)
        stream->events->failed(stream->owner, error);
    else if (stream->owner != NULL)
        stream->events->connected(stream->owner);
}

static void on_ready(struct loop_watch *watch, uint32_t events)
{
    struct vb_stream *stream = stream_of(watch);
    if (stream->connecting)
        on_connect_result(stream);
    if ((events & ~(uint32_t)EPOLLOUT) != 0)
        stream->readable = true;
    if ((events & (EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0)
        stream->reads_on = true;
    if (stream->fd >= 0 && stream->readable && !stream->paused && !stream->unreadable)
        read_once(stream);
    if (stream->fd >= 0 && vb_buf_len(&stream->queue) > 0)
        send_queue(stream);
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

/* Takes `fd`, also when it fails. */
static int stream_new(struct vb_stream **ret_stream, struct vb_loop *loop, int fd, bool connecting, uint32_t watched,
                      const struct vb_stream_events *events, void *owner)
{
    int r = -ENOMEM;
    struct vb_stream *stream = malloc(sizeof(*stream)); /* calloc(3) passes by the thread's cache of freed memory */
    if (stream == NULL)
        goto fail;
    *stream = (struct vb_stream){.watch.is_patient = !connecting,
                                 .magic = STREAM_MAGIC,
                                 .fd = fd,
                                 .connecting = connecting,
                                 .unreadable = connecting,
                                 .hears_of_room = watched == EVENTS_ALL,
                                 .loop = loop,
                                 .events = events,
                                 .owner = owner};
    r = loop_watch_open(loop, &stream->watch, fd, watched, on_ready);
    if (r < 0)
        goto fail;
    *ret_stream = stream;
    return 0;

fail:
    free(stream);
    close(fd);
    return r;
}

int vb_stream_open(struct vb_stream **ret_stream, struct vb_loop *loop, int fd, const struct vb_stream_events *events,
                   void *owner)
{
    return stream_new(ret_stream, loop, fd, false, EVENTS_IN, events, owner);
}

void vb_stream_rebind(struct vb_stream *stream, const struct vb_stream_events *events, void *owner)
{
    assert(stream->soon == 0);
    stream->events = events;
    stream->owner = owner;
}

/* A socket that begins to connect; what the kernel says to that: 0, or a negative errno. Or -1, and the latter. */
static int begin_to_connect(const struct sockaddr *address, int *ret_said)
{
    const int on = 1;
    socklen_t length = address->sa_family == AF_UNIX    ? sizeof(struct sockaddr_un)
                       : address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                                        : sizeof(struct sockaddr_in);
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        *ret_said = -errno;
        return -1;
    }
    if (address->sa_family != AF_UNIX)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    *ret_said = connect(fd, address, length) == 0 || errno == EINPROGRESS ? 0 : -errno;
    return fd;
}

int vb_stream_connect(struct vb_stream **ret_stream, struct vb_loop *loop, const struct sockaddr *address,
                      const struct vb_stream_events *events, void *owner)
{
    int said, fd = begin_to_connect(address, &said);
    if (fd < 0)
        return said;
    /* What the other side says is told in an event, however soon; what this machine lacks, at once. */
    bool is_unix = address->sa_family == AF_UNIX;
    if (said < 0 && said != -ECONNREFUSED && !is_unix) {
        close(fd);
        return said;
    }
    /* A unix socket is connected at once, or never; later it would be told of room whenever the peer reads. */
    bool is_known = said < 0 || is_unix;
    int r = stream_new(ret_stream, loop, fd, true, is_known ? EVENTS_IN : EVENTS_ALL, events, owner);
    if (r < 0 || !is_known)
        return r;
    (*ret_stream)->connect_error = said;
    loop_watch_again(loop, &(*ret_stream)->watch);
    return 0;
}

/* ---- closing ----------------------------------------------------------------------------------------------------- */

void vb_stream_close(struct vb_stream **stream_ptr)
{
    struct vb_stream *stream = *stream_ptr;
    *stream_ptr = NULL;
    if (stream != NULL)
        close_stream(stream);
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
    if (vb_buf_len(&stream->queue) > 0) {
        size_t unsent = vb_stream_unsent(stream);
        stream->stalls = unsent < stream->unsent ? 0 : stream->stalls + 1;
        stream->unsent = unsent;
        if (stream->stalls < FLUSH_STALLS) {
            linger(stream);
            return;
        }
        arm_reset(stream);
    }
    close_stream(stream);
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
    if (stream->soon != 0 && send_soon(stream) < 0)
        arm_reset(stream); /* a part may have left */
    if (stream->write_error < 0 || (stream->unreadable && vb_buf_len(&stream->queue) == 0)) {
        close_stream(stream);
        return;
    }
    stream->owner = NULL;
    stream->finishing = true;
    linger(stream);
    if (vb_buf_len(&stream->queue) == 0)
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
