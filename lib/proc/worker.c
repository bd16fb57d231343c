/*
 * The life of a worker: take over what was inherited, give up what it needs no more, wait for GO, serve, drain, exit.
 *
 * What can fail has been done before it says that it is ready. It drains when the master says so, or when the master is
 * gone (its end of the control channel closes). Not on SIGTERM: its listening sockets would go on receiving their share
 * of the connections, with nobody there to take them. Draining ends when the last client is gone, at the latest after
 * shutdown.grace, when the rest is cut. The messages are explained in inherit.h.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "config.h"
#include "inherit.h"
#include "privileges.h"
#include "vb/clock.h"
#include "vb/conf.h"
#include "vb/log.h"
#include "vb/proc.h"
#include "vb/proxy.h"
#include "vb/str.h"

#define TICK_MS 1000

enum phase { WAITING, SERVING, DRAINING, FINISHING };

struct worker {
    unsigned index, slot, workers;
    enum phase phase;
    bool number_follows; /* the last byte was CLOSE */
    int *sockets;        /* from VB_FD_LISTEN on: which listener each is of; CLOSED */
    unsigned n_sockets;
    struct vb_shm *shm;
    struct vb_conf *conf;
    struct vb_loop *loop;
    struct vb_proxy *proxy;
    uv_pipe_t control;
    uv_timer_t grace;
    uv_timer_t tick; /* once a second: what is done outside the request path */
    uv_timer_t heartbeat;
};

enum { CLOSED = -1 };

/* ---- listening sockets ------------------------------------------------------------------------------------------- */

static bool is_of(const struct worker *worker, unsigned socket, unsigned listener)
{
    return worker->sockets[socket] == (int)listener;
}

static void shut_down(struct worker *worker, unsigned listener)
{
    for (unsigned i = 0; i < worker->n_sockets; i++)
        if (is_of(worker, i, listener))
            shutdown(VB_FD_LISTEN + (int)i, SHUT_RD);
}

/* Whoever else has them open goes on; as long as anybody has, the address is taken. */
static void leave_listener(struct worker *worker, unsigned listener)
{
    vb_proxy_unlisten(worker->proxy, listener, false);
    for (unsigned i = 0; i < worker->n_sockets; i++) {
        if (!is_of(worker, i, listener))
            continue;
        close(VB_FD_LISTEN + (int)i);
        worker->sockets[i] = CLOSED;
    }
}

/*
 * What waits is taken, and newcomers are refused at once, though the master has the sockets open too. Of a unix socket
 * what waits can still be accepted when newcomers are refused already.
 */
static void close_listener(struct worker *worker, unsigned listener)
{
    bool is_unix = worker->conf->listeners[listener].address.ss_family == AF_UNIX;
    if (is_unix)
        shut_down(worker, listener);
    vb_proxy_unlisten(worker->proxy, listener, true);
    if (!is_unix)
        shut_down(worker, listener);
    leave_listener(worker, listener);
}

/* ---- leaving ----------------------------------------------------------------------------------------------------- */

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

static void cut(struct worker *worker, const char *why)
{
    unsigned connections = (unsigned)atomic_load(&vb_shm_worker(worker->shm, worker->slot)->connections);
    if (connections > 0)
        vb_log_warn("%s: cutting %u connections", why, connections);
    vb_loop_stop(worker->loop);
}

static void on_grace_over(uv_timer_t *timer)
{
    cut(timer->data, "shutdown.grace is over");
}

static void send_message(struct worker *worker, char message)
{
    uv_buf_t buf = uv_buf_init(&message, 1);
    uv_try_write((uv_stream_t *)&worker->control, &buf, 1); /* when it fails the master is gone */
}

static void finish(struct worker *worker)
{
    if (worker->phase != DRAINING)
        return;
    worker->phase = FINISHING;
    vb_proxy_finish(worker->proxy, on_drained, worker);
}

/* `handle`: what becomes of each listener. `patient`: see vb_proxy_drain. */
static void drain(struct worker *worker, bool patient, void (*handle)(struct worker *worker, unsigned listener))
{
    bool has_served = worker->phase == SERVING;
    if (worker->phase >= DRAINING) {
        vb_proxy_drain(worker->proxy, patient);
        return;
    }
    worker->phase = DRAINING;
    uv_timer_start(&worker->grace, on_grace_over, worker->conf->shutdown_grace_ms, 0);
    vb_proxy_drain(worker->proxy, patient);
    for (unsigned i = 0; i < worker->conf->n_listeners; i++)
        handle(worker, i);
    vb_shm_worker_listens(worker->shm, worker->slot, false);
    send_message(worker, VB_CONTROL_ACCEPTS_NO_MORE);
    if (!has_served) /* then nobody gives it anything */
        finish(worker);
}

/* ---- messages ---------------------------------------------------------------------------------------------------- */

static void go(struct worker *worker)
{
    if (worker->phase != WAITING)
        return;
    worker->phase = SERVING;
    vb_proxy_start(worker->proxy);
}

static void obey(struct worker *worker, char message)
{
    switch (message) {
    case VB_CONTROL_GO:
        go(worker);
        break;
    case VB_CONTROL_DRAIN:
        drain(worker, false, close_listener);
        break;
    case VB_CONTROL_RETIRE:
        drain(worker, true, leave_listener);
        break;
    case VB_CONTROL_CLOSE:
        worker->number_follows = true;
        break;
    case VB_CONTROL_FINISH:
        finish(worker);
        break;
    case VB_CONTROL_CUT:
        cut(worker, "other workers have taken over twice since");
        break;
    default:
        break;
    }
}

static void on_byte(struct worker *worker, char byte)
{
    if (!worker->number_follows) {
        obey(worker, byte);
        return;
    }
    worker->number_follows = false;
    if ((unsigned char)byte < worker->conf->n_listeners)
        close_listener(worker, (unsigned char)byte);
}

static void on_master_gone(struct worker *worker)
{
    if (worker->phase < DRAINING)
        vb_log_warn("the master is gone: finishing");
    drain(worker, false, close_listener);
    finish(worker);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    static char bytes[64];
    *buf = uv_buf_init(bytes, sizeof(bytes));
}

static void on_message(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct worker *worker = stream->data;
    for (ssize_t i = 0; i < n; i++)
        on_byte(worker, buf->base[i]);
    if (n < 0) {
        uv_read_stop(stream);
        on_master_gone(worker);
    }
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

/* The configuration as the master handed it over: it has been validated. */
static int read_config(struct worker *worker, const char *file)
{
    int r = vb_config_unseal(VB_FD_CONFIG, file, &worker->conf);
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

/* Everything that serving takes. */
static int open_proxy(struct worker *worker)
{
    int inbox = VB_FD_LISTEN + (int)worker->n_sockets;
    int r = vb_proxy_open(&worker->proxy, worker->loop, worker->shm, worker->slot, worker->conf);
    for (unsigned i = 0; r == 0 && i < worker->n_sockets; i++)
        r = vb_proxy_listen(worker->proxy, (unsigned)worker->sockets[i], VB_FD_LISTEN + (int)i);
    return r == 0 ? vb_proxy_share(worker->proxy, inbox, inbox + 1, worker->workers) : r;
}

static int serve(struct worker *worker, const char *identity)
{
    int r = give_up_rights(identity);
    if (r == 0)
        r = open_proxy(worker);
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

static bool sockets_are_configured(const struct worker *worker)
{
    for (unsigned i = 0; i < worker->n_sockets; i++)
        if ((unsigned)worker->sockets[i] >= worker->conf->n_listeners)
            return false;
    return true;
}

static int run(struct worker *worker, const char *identity, const char *config_file)
{
    struct vb_error err;
    int r = vb_shm_attach_fd(&worker->shm, VB_FD_SEGMENT, &err);
    if (r < 0) {
        vb_log_error("%s", err.text);
        return r;
    }
    if (worker->slot >= vb_shm_slots(worker->shm))
        return -EINVAL;
    vb_shm_worker_listens(worker->shm, worker->slot, true);
    r = read_config(worker, config_file);
    if (r < 0)
        return r;
    if (!sockets_are_configured(worker))
        return -EINVAL;
    r = vb_loop_open(&worker->loop);
    if (r < 0)
        return r;
    r = open_handles(worker);
    if (r == 0)
        r = serve(worker, identity);
    vb_loop_close(&worker->loop);
    return r;
}

/* `0,1,0`; there is at least one. */
static int parse_sockets(struct worker *worker, const char *text)
{
    worker->sockets = calloc(strlen(text) / 2 + 1, sizeof(*worker->sockets));
    if (worker->sockets == NULL)
        return -ENOMEM;
    for (const char *comma;; text = comma + 1) {
        uint64_t listener;
        comma = strchrnul(text, ',');
        if (vb_parse_u64((struct vb_str){text, (size_t)(comma - text)}, VB_LISTENERS_MAX - 1, &listener) < 0)
            return -EINVAL;
        worker->sockets[worker->n_sockets++] = (int)listener;
        if (*comma == '\0')
            return 0;
    }
}

static int parse_number(const char *text, unsigned *ret_number)
{
    uint64_t number;
    int r = vb_parse_u64(vb_str(text), VB_SHM_WORKERS_MAX, &number);
    if (r == 0)
        *ret_number = (unsigned)number;
    return r;
}

static bool parse_arguments(struct worker *worker, int argc, char **argv, enum vb_log_level *ret_level)
{
    return argc == VB_ARG_COUNT && parse_number(argv[VB_ARG_INDEX], &worker->index) == 0 &&
           parse_number(argv[VB_ARG_SLOT], &worker->slot) == 0 &&
           parse_number(argv[VB_ARG_WORKERS], &worker->workers) == 0 &&
           parse_sockets(worker, argv[VB_ARG_SOCKETS]) == 0 &&
           vb_log_level_parse(argv[VB_ARG_LOG_LEVEL], ret_level) == 0;
}

int vb_worker_run(int argc, char **argv)
{
    struct worker worker = {0};
    enum vb_log_level level;
    char name[32];
    if (!parse_arguments(&worker, argc, argv, &level)) {
        fprintf(stderr, "vibebalancer: `worker` is for the master's own use; see vibebalancer --help\n");
        free(worker.sockets);
        return VB_EXIT_USAGE;
    }
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
    free(worker.sockets);
    return r < 0 ? VB_EXIT_FAILED : VB_EXIT_DONE;
}
