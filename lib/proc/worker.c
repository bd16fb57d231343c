/*
 * The life of a worker: take over what was inherited, give up what it needs no more, serve, drain, exit.
 *
 * It drains when the master says so, or when the master is gone (its end of the control channel closes). Not on
 * SIGTERM: its listening sockets would go on receiving their share of the connections, with nobody there to take them.
 * Draining ends when the last client is gone, at the latest after shutdown.grace, when the rest is cut.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "inherit.h"
#include "privileges.h"
#include "vb/clock.h"
#include "vb/conf.h"
#include "vb/log.h"
#include "vb/proc.h"
#include "vb/proxy.h"
#include "vb/str.h"

#define TICK_MS 1000

struct worker {
    unsigned index, slot, workers;
    struct vb_shm *shm;
    struct vb_conf *conf;
    struct vb_loop *loop;
    struct vb_proxy *proxy;
    uv_pipe_t control;
    uv_timer_t grace;
    uv_timer_t tick; /* once a second: what is done outside the request path */
    uv_timer_t heartbeat;
    bool draining;
};

/* ---- draining ---------------------------------------------------------------------------------------------------- */

static void close_handle(uv_handle_t *handle)
{
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

static void close_handles(struct worker *worker)
{
    close_handle((uv_handle_t *)&worker->control);
    close_handle((uv_handle_t *)&worker->tick);
    close_handle((uv_handle_t *)&worker->grace);
    close_handle((uv_handle_t *)&worker->heartbeat);
}

/* The loop ends by itself when the last streams have flushed and closed, or at the end of the grace. */
static void on_drained(void *arg)
{
    struct worker *worker = arg;
    close_handle((uv_handle_t *)&worker->control);
    close_handle((uv_handle_t *)&worker->tick);
    uv_unref((uv_handle_t *)&worker->grace);
}

static void on_grace_over(uv_timer_t *timer)
{
    struct worker *worker = timer->data;
    unsigned connections = (unsigned)atomic_load(&vb_shm_worker(worker->shm, worker->slot)->connections);
    vb_log_warn("shutdown.grace is over: cutting %u connections", connections);
    vb_loop_stop(worker->loop);
}

static void send_message(struct worker *worker, char message)
{
    uv_buf_t buf = uv_buf_init(&message, 1);
    uv_try_write((uv_stream_t *)&worker->control, &buf, 1); /* when it fails the master is gone */
}

static void drain(struct worker *worker)
{
    if (worker->draining)
        return;
    worker->draining = true;
    uv_timer_start(&worker->grace, on_grace_over, worker->conf->shutdown_grace_ms, 0);
    /* What waits at a unix socket can still be accepted when newcomers are refused already. */
    for (unsigned i = 0; i < worker->conf->n_listeners; i++)
        if (worker->conf->listeners[i].address.ss_family == AF_UNIX)
            shutdown(VB_FD_LISTEN + (int)i, SHUT_RD);
    vb_proxy_drain(worker->proxy, on_drained, worker);
    /* All workers stop together, so nobody else is shut out. What waited has been accepted. Shut down, the socket
     * refuses newcomers now, though the master has it open too. */
    for (unsigned i = 0; i < worker->conf->n_listeners; i++) {
        shutdown(VB_FD_LISTEN + (int)i, SHUT_RD);
        close(VB_FD_LISTEN + (int)i);
    }
    send_message(worker, VB_CONTROL_DRAINING);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    static char bytes[64];
    *buf = uv_buf_init(bytes, sizeof(bytes));
}

static void on_message(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct worker *worker = stream->data;
    if (n < 0) {
        uv_read_stop(stream);
        if (!worker->draining)
            vb_log_warn("the master is gone: finishing");
        drain(worker);
    }
    for (ssize_t i = 0; i < n; i++)
        if (buf->base[i] == VB_CONTROL_DRAIN)
            drain(worker);
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static void on_tick(uv_timer_t *timer)
{
    struct worker *worker = timer->data;
    atomic_store_explicit(&vb_shm_worker(worker->shm, worker->slot)->log_dropped, vb_log_dropped(),
                          memory_order_relaxed);
    vb_proxy_tick(worker->proxy);
}

/* For the watchdog. 0: no more will follow. */
static void give_sign(struct worker *worker, uint64_t now_us)
{
    atomic_store_explicit(&vb_shm_worker(worker->shm, worker->slot)->heartbeat_us, now_us, memory_order_relaxed);
}

static void on_heartbeat(uv_timer_t *timer)
{
    give_sign(timer->data, vb_clock_us());
}

/* Several fall into the time that the watchdog gives. It beats to the end of the loop, but does not keep that going. */
static void start_heartbeat(struct worker *worker)
{
    uint64_t limit = worker->conf->watchdog_ms, every = limit == 0 ? TICK_MS : VB_MIN(limit / 4, (uint64_t)TICK_MS);
    uv_timer_start(&worker->heartbeat, on_heartbeat, every, every);
    uv_unref((uv_handle_t *)&worker->heartbeat);
}

/* The configuration as the master handed it over: it has been validated, and the master has printed its warnings. */
static int read_config(struct worker *worker, const char *file)
{
    struct stat st;
    FILE *nowhere = fopen("/dev/null", "we");
    if (nowhere == NULL)
        return -errno;
    size_t n = fstat(VB_FD_CONFIG, &st) == 0 ? (size_t)st.st_size : 0;
    char *text = malloc(n + 1);
    int r = text == NULL ? -ENOMEM : -EIO;
    if (text != NULL && n > 0 && pread(VB_FD_CONFIG, text, n, 0) == (ssize_t)n)
        r = vb_conf_parse(file, text, n, nowhere, &worker->conf);
    free(text);
    fclose(nowhere);
    if (r == 0) /* --name wins over the file; the segment has the name that counts */
        vb_copy(worker->conf->name, sizeof(worker->conf->name), vb_shm_header(worker->shm)->name);
    return r;
}

static int open_handles(struct worker *worker)
{
    uv_loop_t *uv = vb_loop_uv(worker->loop);
    worker->control.data = worker->grace.data = worker->tick.data = worker->heartbeat.data = worker;
    uv_pipe_init(uv, &worker->control, 0);
    uv_timer_init(uv, &worker->grace);
    uv_timer_init(uv, &worker->tick);
    uv_timer_init(uv, &worker->heartbeat);
    uv_timer_start(&worker->tick, on_tick, TICK_MS, TICK_MS);
    start_heartbeat(worker);
    int r = uv_pipe_open(&worker->control, VB_FD_CONTROL);
    if (r == 0)
        r = uv_read_start((uv_stream_t *)&worker->control, on_alloc, on_message);
    if (r < 0)
        close_handles(worker);
    return r;
}

/*
 * Everything is inherited and open by now: what follows is other people's bytes. Sanitizers write reports into files,
 * and read some for that.
 */
static int give_up_rights(const char *identity)
{
    int r = strcmp(identity, VB_IDENTITY_KEPT) == 0 ? 0 : vb_identity_take(identity);
    if (r < 0)
        vb_log_error("cannot become another user (%s): %s", identity, vb_strerror(r));
    if (r == 0)
        r = vb_forbid_new_privileges();
#ifndef VB_SANITIZED
    if (r == 0)
        vb_forbid_files();
#endif
    return r;
}

static int serve(struct worker *worker, const char *identity)
{
    int r = give_up_rights(identity);
    if (r == 0)
        r = vb_proxy_open(&worker->proxy, worker->loop, worker->shm, worker->slot, worker->conf);
    for (unsigned i = 0; r == 0 && i < worker->conf->n_listeners; i++)
        r = vb_proxy_listen(worker->proxy, VB_FD_LISTEN + (int)i);
    int inbox = VB_FD_LISTEN + (int)worker->conf->n_listeners;
    if (r == 0)
        r = vb_proxy_share(worker->proxy, inbox, inbox + 1, worker->workers);
    if (r == 0) {
        give_sign(worker, vb_clock_us());
        send_message(worker, VB_CONTROL_READY);
        vb_loop_run(worker->loop);
        give_sign(worker, 0);
    }
    vb_proxy_close(&worker->proxy);
    close_handles(worker);
    return r;
}

static int run(struct worker *worker, const char *identity, const char *config_file)
{
    struct vb_error err;
    int r = vb_shm_attach_fd(&worker->shm, VB_FD_SEGMENT, &err);
    if (r < 0) {
        vb_log_error("%s", err.text);
        return r;
    }
    if (worker->slot >= vb_shm_capacity(worker->shm).workers)
        return -EINVAL;
    r = read_config(worker, config_file);
    if (r < 0)
        return r;
    r = vb_loop_open(&worker->loop);
    if (r < 0)
        return r;
    r = open_handles(worker);
    if (r == 0)
        r = serve(worker, identity);
    vb_loop_close(&worker->loop);
    return r;
}

int vb_worker_run(int argc, char **argv)
{
    struct worker worker = {0};
    uint64_t index, slot, workers;
    enum vb_log_level level;
    char name[32];
    if (argc != VB_ARG_COUNT || vb_parse_u64(vb_str(argv[VB_ARG_INDEX]), VB_SHM_WORKERS_MAX, &index) < 0 ||
        vb_parse_u64(vb_str(argv[VB_ARG_SLOT]), VB_SHM_WORKERS_MAX, &slot) < 0 ||
        vb_parse_u64(vb_str(argv[VB_ARG_WORKERS]), VB_SHM_WORKERS_MAX, &workers) < 0 ||
        vb_log_level_parse(argv[VB_ARG_LOG_LEVEL], &level) < 0) {
        fprintf(stderr, "vibebalancer: `worker` is for the master's own use; see vibebalancer --help\n");
        return VB_EXIT_USAGE;
    }
    worker.index = (unsigned)index;
    worker.slot = (unsigned)slot;
    worker.workers = (unsigned)workers;
    snprintf(name, sizeof(name), "worker %u", worker.index);
    prctl(PR_SET_NAME, "vibebalancer"); /* it would be `exe`, after the link in /proc that was executed */
    vb_log_open(VB_FD_LOG, name, level);
    /*
     * A terminal's Ctrl-C goes to the whole process group, systemd's SIGTERM to the whole control group; it is the
     * master who decides what it means.
     */
    const int ignored[] = {SIGPIPE, SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2};
    for (unsigned i = 0; i < VB_ARRAY_SIZE(ignored); i++)
        signal(ignored[i], SIG_IGN);
    int r = run(&worker, argv[VB_ARG_IDENTITY], argv[VB_ARG_CONFIG_FILE]);
    if (r < 0)
        vb_log_error("cannot serve: %s", vb_strerror(r));
    vb_conf_free(&worker.conf);
    vb_shm_close(&worker.shm);
    return r < 0 ? VB_EXIT_FAILED : VB_EXIT_DONE;
}
