/* The client: one blocking question with a deadline. Owns its socket for the length of the call. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "ctl_priv.h"
#include "vb/clock.h"

/* Until the socket can do `events`. -ETIMEDOUT. */
static int wait_for(int fd, short events, uint64_t deadline_us)
{
    struct pollfd poller = {.fd = fd, .events = events};
    for (;;) {
        uint64_t now = vb_clock_us();
        if (now >= deadline_us)
            return -ETIMEDOUT;
        int n = poll(&poller, 1, (int)((deadline_us - now + 999) / 1000));
        if (n > 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return -errno;
    }
}

/* A master whose queue is full is asked again until the deadline. */
static int reach(int fd, const struct sockaddr_un *address, uint64_t deadline_us)
{
    for (;;) {
        if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0)
            return 0;
        if (errno != EAGAIN && errno != EINTR)
            return -errno;
        if (vb_clock_us() >= deadline_us)
            return -ETIMEDOUT;
        poll(NULL, 0, 20);
    }
}

static int send_all(int fd, const char *bytes, size_t n, uint64_t deadline_us)
{
    while (n > 0) {
        ssize_t sent = send(fd, bytes, n, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN && errno != EINTR)
            return -errno;
        if (sent > 0) {
            bytes += sent;
            n -= (size_t)sent;
            continue;
        }
        int r = wait_for(fd, POLLOUT, deadline_us);
        if (r < 0)
            return r;
    }
    return shutdown(fd, SHUT_WR) == 0 ? 0 : -errno;
}

/* Everything until the other side ends; returns how much it is. */
static int receive_all(int fd, char *to, size_t size, uint64_t deadline_us)
{
    size_t n = 0;
    while (n < size) {
        ssize_t got = recv(fd, to + n, size - n, 0);
        if (got == 0)
            return (int)n;
        if (got > 0)
            n += (size_t)got;
        else if (errno != EAGAIN && errno != EINTR)
            return -errno;
        int r = got > 0 ? 0 : wait_for(fd, POLLIN, deadline_us);
        if (r < 0)
            return r;
    }
    return -EBADMSG; /* longer than any answer */
}

static int ask(int fd, const struct sockaddr_un *address, const char *request, size_t n, uint64_t deadline_us,
               struct vb_ctl_answer *ret_answer)
{
    char bytes[VB_CTL_TEXT_MAX + 1];
    int r = reach(fd, address, deadline_us);
    if (r == 0)
        r = send_all(fd, request, n, deadline_us);
    if (r == 0)
        r = receive_all(fd, bytes, sizeof(bytes), deadline_us);
    return r < 0 ? r : ctl_unpack_answer(bytes, (size_t)r, ret_answer);
}

static int explain(struct vb_error *err, int code, const char *path)
{
    if (code == -ENOENT)
        return vb_fail(err, code, "there is no control socket at %s", path);
    if (code == -ECONNREFUSED)
        return vb_fail(err, code, "nobody listens at %s: the master is gone", path);
    if (code == -EACCES || code == -EPERM)
        return vb_fail(err, code, "no permission to use %s; run vbctl as the user of the master or as root", path);
    if (code == -ETIMEDOUT)
        return vb_fail(err, code, "the master at %s does not answer; whether it will do this is not known", path);
    if (code == -EBADMSG || code == -ECONNRESET || code == -EPIPE)
        return vb_fail(err, code, "the master at %s broke off without an answer; look whether it has done this", path);
    return vb_fail(err, code, "cannot talk to the master at %s: %s", path, vb_strerror(code));
}

int vb_ctl_call(const char *path, unsigned n_args, const char *const *args, unsigned timeout_ms,
                struct vb_ctl_answer *ret_answer, struct vb_error *err)
{
    uint64_t deadline_us = vb_clock_us() + (uint64_t)timeout_ms * 1000;
    char request[VB_CTL_REQUEST_MAX];
    struct sockaddr_un address;
    size_t n;
    if (ctl_pack_request(request, sizeof(request), n_args, args, &n) < 0)
        return vb_fail(err, -E2BIG, "these arguments are too long");
    if (vb_ctl_address(path, &address) < 0)
        return vb_fail(err, -ENAMETOOLONG, "the path of the control socket is too long: %s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return vb_fail(err, -errno, "cannot make a socket: %s", vb_strerror(-errno));
    int r = ask(fd, &address, request, n, deadline_us, ret_answer);
    close(fd);
    return r < 0 ? explain(err, r, path) : 0;
}
