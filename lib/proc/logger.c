#include "logger.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include "vb/log.h"

#define PIPE_BYTES (1024 * 1024) /* what the kernel grants to everybody (fs.pipe-max-size); less is fine too */
#define PATIENCE_S 1

struct vb_logger {
    int pipe[2]; /* read end, write end */
    pthread_t thread;
    pthread_mutex_t turn;     /* whoever wants the other one waits here, so that the thread does not take it again */
    pthread_mutex_t carrying; /* held by the thread while it has lines in its hands */
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

/* What is there, which is waited for. False: nobody has the pipe's write end any more, and it is empty. */
static bool carry(struct vb_logger *logger)
{
    char bytes[64 * 1024];
    struct pollfd readable = {.fd = logger->pipe[0], .events = POLLIN};
    if (poll(&readable, 1, -1) < 0)
        return errno == EINTR;
    pthread_mutex_lock(&logger->turn);
    pthread_mutex_unlock(&logger->turn);
    pthread_mutex_lock(&logger->carrying);
    ssize_t n = read(logger->pipe[0], bytes, sizeof(bytes));
    if (n > 0)
        write_all(logger, bytes, (size_t)n);
    pthread_mutex_unlock(&logger->carrying);
    return n != 0;
}

static void *thread_main(void *arg)
{
    while (carry(arg))
        continue;
    return NULL;
}

int vb_logger_adopt(struct vb_logger **ret_logger, const int pipe[2], vb_u64 *lost)
{
    struct vb_logger *logger = calloc(1, sizeof(*logger));
    if (logger == NULL)
        return -ENOMEM;
    logger->lost = lost;
    logger->pipe[0] = pipe[0];
    logger->pipe[1] = pipe[1];
    pthread_mutex_init(&logger->turn, NULL);
    pthread_mutex_init(&logger->carrying, NULL);
    int r = -pthread_create(&logger->thread, NULL, thread_main, logger);
    if (r < 0)
        free(logger);
    else
        *ret_logger = logger;
    return r;
}

int vb_logger_start(struct vb_logger **ret_logger, vb_u64 *lost)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0)
        return -errno;
    fcntl(fds[1], F_SETPIPE_SZ, PIPE_BYTES);
    int r = fcntl(fds[1], F_SETFL, O_NONBLOCK) == 0 ? 0 : -errno;
    if (r == 0)
        r = vb_logger_adopt(ret_logger, fds, lost);
    if (r < 0) {
        close(fds[0]);
        close(fds[1]);
    }
    return r;
}

int vb_logger_fd(const struct vb_logger *logger)
{
    return logger->pipe[1];
}

const int *vb_logger_pipe(const struct vb_logger *logger)
{
    return logger->pipe;
}

static struct timespec end_of_patience(void)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE_S;
    return until;
}

bool vb_logger_pause(struct vb_logger *logger)
{
    struct timespec until = end_of_patience();
    pthread_mutex_lock(&logger->turn);
    int r = pthread_mutex_timedlock(&logger->carrying, &until);
    pthread_mutex_unlock(&logger->turn);
    return r == 0;
}

void vb_logger_resume(struct vb_logger *logger)
{
    pthread_mutex_unlock(&logger->carrying);
}

bool vb_logger_stop(struct vb_logger **logger_ptr)
{
    struct vb_logger *logger = *logger_ptr;
    struct timespec until = end_of_patience();
    if (logger == NULL)
        return true;
    *logger_ptr = NULL;
    close(logger->pipe[1]);
    if (pthread_timedjoin_np(logger->thread, NULL, &until) != 0)
        return false;
    close(logger->pipe[0]);
    pthread_mutex_destroy(&logger->carrying);
    free(logger);
    return true;
}
