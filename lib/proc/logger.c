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
    vb_u64 *lost;
};

static void count_lost(struct vb_logger *logger, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        vb_add64(logger->lost, bytes[i] == '\n');
}

static void write_all(struct vb_logger *logger, const char *bytes, size_t n)
{
    while (n > 0) {
        ssize_t written = write(STDERR_FILENO, bytes, n);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0) { /* full disk or closed reader: these lines are lost, the next may find room */
            count_lost(logger, bytes, n);
            return;
        }
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
            write_all(logger, bytes, (size_t)n);
        else if (errno != EINTR)
            break;
    }
    return NULL;
}

int vb_logger_start(struct vb_logger **ret_logger, vb_u64 *lost)
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
    logger->lost = lost;
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

bool vb_logger_stop(struct vb_logger **logger_ptr)
{
    struct vb_logger *logger = *logger_ptr;
    struct timespec until;
    if (logger == NULL)
        return true;
    *logger_ptr = NULL;
    close(logger->write_fd);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += STOP_SECONDS;
    if (pthread_timedjoin_np(logger->thread, NULL, &until) != 0)
        return false;
    close(logger->read_fd);
    free(logger);
    return true;
}
