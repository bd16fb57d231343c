#include "logger.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include "vb/log.h"

#define PIPE_BYTES   (1024 * 1024) /* what the kernel grants to everybody (fs.pipe-max-size); less is fine too */
#define STOP_SECONDS 1

struct vb_logger {
    int read_fd, write_fd;
    pthread_t thread;
};

static void write_all(const char *bytes, size_t n)
{
    while (n > 0) {
        ssize_t written = write(STDERR_FILENO, bytes, n);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return; /* full disk or closed reader: these lines are lost, the next may find room */
        bytes += written;
        n -= (size_t)written;
    }
}

static void *thread_main(void *arg)
{
    struct vb_logger *logger = arg;
    char bytes[64 * 1024];
    ssize_t n;
    while ((n = read(logger->read_fd, bytes, sizeof(bytes))) != 0) {
        if (n > 0)
            write_all(bytes, (size_t)n);
        else if (errno != EINTR)
            break;
    }
    return NULL;
}

int vb_logger_start(struct vb_logger **ret_logger)
{
    int fds[2];
    struct vb_logger *logger = calloc(1, sizeof(*logger));
    if (logger == NULL)
        return -ENOMEM;
    int r = -ENOMEM;
    if (pipe2(fds, O_CLOEXEC) != 0) {
        r = -errno;
        goto fail;
    }
    logger->read_fd = fds[0];
    logger->write_fd = fds[1];
    fcntl(fds[1], F_SETPIPE_SZ, PIPE_BYTES);
    if (fcntl(fds[1], F_SETFL, O_NONBLOCK) != 0) {
        r = -errno;
        goto fail_pipe;
    }
    r = -pthread_create(&logger->thread, NULL, thread_main, logger);
    if (r < 0)
        goto fail_pipe;
    *ret_logger = logger;
    return 0;

fail_pipe:
    close(fds[0]);
    close(fds[1]);
fail:
    free(logger);
    return r;
}

int vb_logger_fd(const struct vb_logger *logger)
{
    return logger->write_fd;
}

void vb_logger_stop(struct vb_logger **logger_ptr)
{
    struct vb_logger *logger = *logger_ptr;
    struct timespec until;
    if (logger == NULL)
        return;
    *logger_ptr = NULL;
    close(logger->write_fd);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += STOP_SECONDS;
    if (pthread_timedjoin_np(logger->thread, NULL, &until) != 0)
        return; /* it is still writing; its memory stays until the process is gone, which is now */
    close(logger->read_fd);
    free(logger);
}
