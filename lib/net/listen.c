/*
 * Listening sockets.
 *
 * The master opens as many sockets as there are workers on each address and keeps them for as long as the configuration
 * has the address: connections that wait in the queue of a socket are reset when its last descriptor closes, so a
 * worker's end must not close it. A unix socket is only one, which all workers accept from: whoever comes too late for
 * a connection gets EAGAIN.
 *
 * When a worker has no more descriptors it rests: what waits stays in the queue.
 */
#include "vb/listen.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "net_priv.h"

#define LISTENER_MAGIC 0x4c495354
#define ACCEPT_BATCH   64 /* for one turn of the loop, so that a burst does not starve open connections */

/* ---- master ------------------------------------------------------------------------------------------------------ */

static int set_option(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof(value)) == 0 ? 0 : -errno;
}

/* Accepted sockets inherit the options of the last two, which saves the system calls for each connection. */
static int open_socket(const struct sockaddr *address, socklen_t length, bool reuseport)
{
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    int r = set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (r == 0 && reuseport)
        r = set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (r == 0 && address->sa_family == AF_INET6)
        r = set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    if (r == 0)
        r = set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (r == 0)
        r = set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    if (r == 0 && bind(fd, address, length) != 0)
        r = -errno;
    if (r < 0) {
        close(fd);
        return r;
    }
    return fd;
}

int vb_listen_start(int fd)
{
    return listen(fd, LISTEN_BACKLOG) == 0 ? 0 : -errno;
}

static int explain(struct vb_error *err, int code, const char *text)
{
    if (code == -EADDRINUSE)
        return vb_fail(err, code, "cannot listen on %s: another process listens there", text);
    if (code == -EACCES)
        return vb_fail(err, code, "cannot listen on %s: ports below 1024 need root or CAP_NET_BIND_SERVICE", text);
    if (code == -EADDRNOTAVAIL)
        return vb_fail(err, code, "cannot listen on %s: this machine does not have that address", text);
    return vb_fail(err, code, "cannot listen on %s: %s", text, vb_strerror(code));
}

/*
 * The first one decides whose address it is: without SO_REUSEPORT bind fails where anybody listens, whatever options
 * that one has, and of two who start at the same time listen lets only one through (bind alone would let both). Then it
 * opens the group for the others.
 */
static int open_first(const struct sockaddr *address, socklen_t length)
{
    int fd = open_socket(address, length, false);
    if (fd < 0)
        return fd;
    int r = vb_listen_start(fd);
    if (r == 0)
        r = set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (r == 0)
        return fd;
    close(fd);
    return r;
}

static int open_another(const struct sockaddr *address, socklen_t length, bool listens)
{
    int fd = open_socket(address, length, true);
    if (fd < 0 || !listens)
        return fd;
    int r = vb_listen_start(fd);
    if (r == 0)
        return fd;
    close(fd);
    return r;
}

static int open_tcp(int *ret_fds, unsigned n, int joins, const struct sockaddr *address, socklen_t length,
                    const char *text, struct vb_error *err)
{
    for (unsigned opened = 0; opened < n; opened++) {
        bool is_first = opened == 0 && joins < 0;
        int r = is_first ? open_first(address, length) : open_another(address, length, joins < 0);
        if (r < 0) {
            while (opened > 0)
                close(ret_fds[--opened]);
            return explain(err, r, text);
        }
        ret_fds[opened] = r;
    }
    return 0;
}

int vb_listen_open(int *ret_fds, unsigned n, int joins, const struct sockaddr *address, socklen_t length,
                   const char *text, struct vb_error *err)
{
    return (address->sa_family == AF_UNIX ? listen_unix_open : open_tcp)(ret_fds, n, joins, address, length, text, err);
}

/* ---- worker ------------------------------------------------------------------------------------------------------ */

struct vb_listener {
    struct loop_watch watch; /* first: the memory goes with it */
    uint32_t magic;
    int fd; /* the caller's */
    bool accepts;
    struct vb_loop *loop;
    const struct vb_listener_events *events;
    void *owner;
    struct vb_timer rest;
};

static void on_rested(struct vb_timer *timer)
{
    vb_listener_start(vb_container_of(timer, struct vb_listener, rest));
}

/* A socket that does not listen is hung up, which the kernel tells in any case: but only once. */
static void stop(struct vb_listener *listener)
{
    listener->accepts = false;
    loop_watch_change(listener->loop, &listener->watch, listener->fd, EPOLLET);
}

static bool is_exhaustion(int code)
{
    return code == -EMFILE || code == -ENFILE || code == -ENOBUFS || code == -ENOMEM;
}

/* Accepts up to `most`; false when no more wait. */
static bool accept_some(struct vb_listener *listener, unsigned most)
{
    for (unsigned i = 0; i < most && listener->watch.ready != NULL; i++) { /* `accepted` may close it */
        struct sockaddr_storage peer;
        socklen_t length = sizeof(peer);
        int fd = accept4(listener->fd, (struct sockaddr *)&peer, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            listener->events->accepted(listener->owner, fd, (struct sockaddr *)&peer);
            continue;
        }
        int code = -errno;
        if (is_exhaustion(code)) {
            stop(listener);
            vb_timer_start(&listener->rest, &listener->loop->rest, on_rested);
            listener->events->exhausted(listener->owner, code);
            return false;
        }
        if (code == -EAGAIN || code == -EINVAL) /* the latter: it was shut down */
            return false;
        /* ECONNABORTED and the errors of a connection that died in the queue (accept(2)): the next one may be fine */
    }
    return true;
}

static void on_ready(struct loop_watch *watch, uint32_t events)
{
    struct vb_listener *listener = vb_cast(struct vb_listener, LISTENER_MAGIC, watch);
    if (!listener->accepts)
        return;
    bool more = accept_some(listener, ACCEPT_BATCH);
    /* The master, or another worker, has shut the socket down, and it would be readable for ever. */
    if (!more && listener->accepts && (events & (EPOLLRDHUP | EPOLLHUP)) != 0)
        stop(listener);
}

int vb_listener_open(struct vb_listener **ret_listener, struct vb_loop *loop, int fd,
                     const struct vb_listener_events *events, void *owner)
{
    struct vb_listener *listener = calloc(1, sizeof(*listener));
    if (listener == NULL)
        return -ENOMEM;
    listener->magic = LISTENER_MAGIC;
    listener->fd = fd;
    listener->loop = loop;
    listener->events = events;
    listener->owner = owner;
    int r = loop_watch_open(loop, &listener->watch, fd, EPOLLET, on_ready);
    if (r < 0) {
        free(listener);
        return r;
    }
    *ret_listener = listener;
    return 0;
}

void vb_listener_start(struct vb_listener *listener)
{
    listener->accepts = true;
    loop_watch_change(listener->loop, &listener->watch, listener->fd, EPOLLIN | EPOLLRDHUP);
}

void vb_listener_close(struct vb_listener **listener_ptr, bool take)
{
    struct vb_listener *listener = *listener_ptr;
    if (listener == NULL)
        return;
    *listener_ptr = NULL;
    if (take)
        accept_some(listener, LISTEN_BACKLOG);
    vb_timer_stop(&listener->rest);
    loop_watch_close(listener->loop, &listener->watch, listener->fd);
}
