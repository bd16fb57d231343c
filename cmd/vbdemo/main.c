/*
 * vbdemo, a backend to try the balancer on: it answers, works, delays, fails and hangs as it is told.
 *
 * SIGTERM and SIGINT stop it at once. They come through a descriptor, so that a blocking delay can wait for them too.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "arguments.h"
#include "server.h"
#include "vb/addr.h"
#include "vb/listen.h"
#include "vb/log.h"

#define EXIT_USAGE 2

/* As many connections as the system lets us have; fewer is no reason not to start. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

/* A descriptor that becomes readable when the process is to stop; -errno. */
static int open_signals(void)
{
    sigset_t stop;
    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    sigaddset(&stop, SIGINT);
    signal(SIGPIPE, SIG_IGN);
    sigprocmask(SIG_BLOCK, &stop, NULL);
    int fd = signalfd(-1, &stop, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

static void on_signal(uv_poll_t *poll, int status, int events)
{
    vb_loop_stop(poll->data);
}

/* Opens the socket; sets the port where it was chosen by the system. */
static int open_socket(int *ret_fd, struct arguments *arguments, struct vb_error *err)
{
    char text[VB_ADDR_TEXT_MAX];
    union address *listen = &arguments->listen;
    socklen_t length = listen->any.sa_family == AF_INET6 ? sizeof(listen->v6) : sizeof(listen->v4);
    vb_addr_format(text, sizeof(text), &listen->any);
    int r = vb_listen_open(ret_fd, 1, -1, &listen->any, length, text, err);
    if (r == 0)
        getsockname(*ret_fd, &listen->any, &length);
    return r;
}

/* Serves until a signal comes. */
static int serve(int listen_fd, const struct server_options *options, const char *announcement)
{
    struct vb_loop *loop = NULL;
    struct server *server = NULL;
    uv_poll_t signals;
    int r = vb_loop_open(&loop);
    if (r < 0)
        return r;
    r = uv_poll_init(vb_loop_uv(loop), &signals, options->stop_fd);
    if (r < 0)
        goto close_loop;
    signals.data = loop;
    uv_poll_start(&signals, UV_READABLE, on_signal);
    r = server_open(&server, loop, listen_fd, options);
    if (r == 0) {
        puts(announcement);
        fflush(stdout);
        vb_loop_run(loop);
    }
    server_close(&server);
    uv_close((uv_handle_t *)&signals, NULL);

close_loop:
    vb_loop_close(&loop);
    return r;
}

static int run(struct arguments *arguments, struct vb_error *err)
{
    char address[VB_ADDR_TEXT_MAX], announcement[256];
    int listen_fd = -1;
    int r = open_signals();
    if (r < 0)
        return vb_fail(err, r, "cannot watch for signals: %s", vb_strerror(r));
    arguments->server.stop_fd = r;
    r = open_socket(&listen_fd, arguments, err);
    if (r < 0)
        goto close_signals;
    arguments_name(arguments);
    snprintf(announcement, sizeof(announcement), "vbdemo %s listens on %s", arguments->server.name,
             vb_addr_format(address, sizeof(address), &arguments->listen.any));
    r = serve(listen_fd, &arguments->server, announcement);
    if (r < 0)
        vb_fail(err, r, "cannot start: %s", vb_strerror(r));
    close(listen_fd);

close_signals:
    close(arguments->server.stop_fd);
    return r;
}

int main(int argc, char **argv)
{
    struct arguments arguments;
    struct vb_error err;
    int r = arguments_parse(argc, argv, &arguments, &err);
    if (r == 0)
        return EXIT_SUCCESS;
    if (r < 0) {
        fprintf(stderr, "vbdemo: %s\n", err.text);
        return EXIT_USAGE;
    }
    vb_log_open(STDERR_FILENO, "vbdemo", VB_LOG_INFO);
    raise_descriptor_limit();
    r = run(&arguments, &err);
    if (r < 0)
        fprintf(stderr, "vbdemo: %s\n", err.text);
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
