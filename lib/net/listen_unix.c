/*
 * Listening on a unix socket. What makes it other than TCP is that the socket's name is a file, and stays when its
 * process is gone: to tell a living one from such a left-over, one must connect to it.
 *
 * Between that look and the removal of the left-over, and between bind and listen (when a new socket looks just like a
 * left-over), another starter may do the same; so all of it happens under a lock. Not on the file, which is what comes
 * and goes, but on its directory, which leaves nothing behind. It is held for a moment only: from then on the socket
 * itself says that somebody listens.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "net_priv.h"
#include "vb/listen.h"

enum { LOCK_TRIES = 200, LOCK_STEP_MS = 10 };

/* The file's directory, locked; closing it is unlocking it. */
static int lock_directory(const char *path)
{
    const char *slash = strrchr(path, '/');
    char directory[sizeof(((struct sockaddr_un *)NULL)->sun_path) + 1];
    int n = slash == NULL ? 0 : (int)(slash - path);
    snprintf(directory, sizeof(directory), "%.*s%s", n, path, slash == NULL ? "." : "/");
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int r = -EWOULDBLOCK;
    for (int tries = 0; r == -EWOULDBLOCK && tries < LOCK_TRIES; tries++) {
        if (tries > 0)
            nanosleep(&(struct timespec){.tv_nsec = LOCK_STEP_MS * 1000000L}, NULL);
        r = flock(fd, LOCK_EX | LOCK_NB) == 0 ? 0 : -errno;
    }
    if (r == 0)
        return fd;
    close(fd);
    return r;
}

/* 0: somebody listens there. -ECONNREFUSED: nobody does. */
static int knock(const struct sockaddr_un *address, socklen_t length)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    int r = connect(fd, (const struct sockaddr *)address, length) == 0 ? 0 : -errno;
    close(fd);
    return r == -EAGAIN || r == -EPROTOTYPE ? 0 : r; /* its queue is full; it is of another kind, for datagrams */
}

/* Makes room where bind has found something. -ENOTSOCK: what is there is no socket. */
static int remove_left_over(const struct sockaddr_un *address, socklen_t length)
{
    struct stat st;
    if (lstat(address->sun_path, &st) != 0)
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISSOCK(st.st_mode))
        return -ENOTSOCK;
    int r = knock(address, length);
    if (r == 0)
        return -EADDRINUSE;
    if (r == -ECONNREFUSED)
        r = unlink(address->sun_path) == 0 ? 0 : -errno;
    return r == -ENOENT ? 0 : r;
}

/* Whoever reaches the file may connect, or its owner only: mode 0666 or 0600, from its first moment on. */
enum { FOR_ALL = 0666, PRIVATE = 0600 };

static int bind_with_mode(int fd, const struct sockaddr_un *address, socklen_t length, mode_t mode)
{
    mode_t before = umask(0777 & ~mode); /* of the whole process: the master's other threads make no files */
    int r = bind(fd, (const struct sockaddr *)address, length) == 0 ? 0 : -errno;
    umask(before);
    return r;
}

static int bind_and_listen(int fd, const struct sockaddr_un *address, socklen_t length, mode_t mode)
{
    int r = bind_with_mode(fd, address, length, mode);
    if (r == -EADDRINUSE) {
        r = remove_left_over(address, length);
        if (r == 0)
            r = bind_with_mode(fd, address, length, mode);
    }
    if (r == 0 && listen(fd, LISTEN_BACKLOG) != 0) {
        r = -errno;
        unlink(address->sun_path);
    }
    return r;
}

/* -EADDRINUSE: somebody listens there already. */
static int take_name(int fd, const struct sockaddr_un *address, socklen_t length, mode_t mode)
{
    int directory = lock_directory(address->sun_path);
    if (directory < 0)
        return directory;
    int r = bind_and_listen(fd, address, length, mode);
    close(directory);
    return r;
}

/* All or none. */
static int duplicate(int *ret_fds, unsigned n, int fd)
{
    for (unsigned made = 0; made < n; made++) {
        ret_fds[made] = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        if (ret_fds[made] >= 0)
            continue;
        int r = -errno;
        while (made > 0)
            close(ret_fds[--made]);
        return r;
    }
    return 0;
}

/* All descriptors are there before the file is: whatever fails, no file is left behind. */
static int open_all(int *ret_fds, unsigned n, const struct sockaddr_un *address, socklen_t length, mode_t mode)
{
    ret_fds[0] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (ret_fds[0] < 0)
        return -errno;
    int r = duplicate(ret_fds + 1, n - 1, ret_fds[0]);
    unsigned opened = r == 0 ? n : 1;
    if (r == 0)
        r = take_name(ret_fds[0], address, length, mode);
    while (r < 0 && opened > 0)
        close(ret_fds[--opened]);
    return r;
}

static int explain(struct vb_error *err, int code, const char *text)
{
    if (code == -EADDRINUSE)
        return vb_fail(err, code, "cannot listen on %s: another process listens there", text);
    if (code == -ENOTSOCK)
        return vb_fail(err, code, "cannot listen on %s: something that is no socket has that name; remove it yourself",
                       text);
    if (code == -ENOENT)
        return vb_fail(err, code, "cannot listen on %s: its directory does not exist", text);
    if (code == -EACCES || code == -EPERM)
        return vb_fail(err, code,
                       "cannot listen on %s: no permission to read its directory, to make a file there, or to remove "
                       "the socket of another user",
                       text);
    if (code == -EWOULDBLOCK)
        return vb_fail(err, code, "cannot listen on %s: another process keeps its directory locked", text);
    return vb_fail(err, code, "cannot listen on %s: %s", text, vb_strerror(code));
}

int listen_unix_open(int *ret_fds, unsigned n, int joins, const struct sockaddr *address, socklen_t length,
                     const char *text, struct vb_error *err)
{
    int r = joins >= 0 ? duplicate(ret_fds, n, joins)
                       : open_all(ret_fds, n, (const struct sockaddr_un *)address, length, FOR_ALL);
    return r < 0 ? explain(err, r, text) : 0;
}

int vb_listen_open_private(int *ret_fd, const struct sockaddr_un *address, struct vb_error *err)
{
    int r = open_all(ret_fd, 1, address, sizeof(*address), PRIVATE);
    return r < 0 ? explain(err, r, address->sun_path) : 0;
}

/* Once ours has stopped, a socket of this name at which somebody answers is another's. */
void vb_listen_unlink(int fd, const struct sockaddr *address)
{
    const struct sockaddr_un *un = (const struct sockaddr_un *)address;
    if (address->sa_family != AF_UNIX)
        return;
    shutdown(fd, SHUT_RDWR);
    int directory = lock_directory(un->sun_path);
    if (directory < 0)
        return; /* then it is a left-over, for the next start to remove */
    remove_left_over(un, sizeof(*un));
    close(directory);
}
