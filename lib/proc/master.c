/*
 * The master: makes what the workers share, watches over them, and is the one whom signals address. It never touches a
 * client's bytes.
 *
 *   start   configuration -> lock and segment -> control socket -> listening sockets -> log thread -> health thread ->
 *           (its first round, START_WAIT_MS at most) -> workers
 *   stop    SIGTERM, SIGINT, SIGQUIT: workers drain; when none accepts any more the listening sockets are closed; when
 *           all are gone the rest is taken down. A second signal, or the end of the grace, kills what is left.
 */
#include "master.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control.h"
#include "cpus.h"
#include "privileges.h"
#include "vb/listen.h"
#include "vb/log.h"
#include "vb/str.h"

#define START_WAIT_MS 1000 /* for the first probes: better a moment's wait than a 502 as the first answer */
#define TICK_MS       1000
#define KILL_EXTRA_MS                                                                                                  \
    1000 /* workers cut their connections at the end of the grace; whoever hangs is killed after this */

static const int handled_signals[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGCHLD};

/* ---- configuration ----------------------------------------------------------------------------------------------- */

static const char *find_config(const struct vb_options *options)
{
    static const char *const usual[] = {"./vibebalancer.yaml", "/etc/vibebalancer/vibebalancer.yaml"};
    if (options->config_file != NULL)
        return options->config_file;
    for (unsigned i = 0; i < VB_ARRAY_SIZE(usual); i++)
        if (access(usual[i], F_OK) == 0)
            return usual[i];
    fprintf(stderr, "vibebalancer: there is neither %s nor %s; name a file with -c\n", usual[0], usual[1]);
    return NULL;
}

/* Not part of reading it, which workers do too: they need not, and later could not, look users up. */
static int find_user(struct vb_master *master)
{
    const struct vb_conf_user *user = &master->conf->user;
    struct vb_error err;
    uid_t uid;
    if (user->name[0] == '\0')
        return 0;
    int r = vb_identity_find(user, &uid, &master->identity, &err);
    if (r < 0) {
        fprintf(stderr, "%s:%u:%u: %s\n", master->config_file, user->line, user->column, err.text);
        return r;
    }
    if (geteuid() == 0 && uid != 0)
        return 0;
    master->user_is_another = uid != geteuid();
    free(master->identity);
    master->identity = NULL;
    return 0;
}

static int load_config(struct vb_master *master)
{
    struct vb_error err;
    master->config_file = find_config(master->options);
    if (master->config_file == NULL)
        return -ENOENT;
    int r = vb_conf_read(master->config_file, &master->config_text, &master->config_length, &err);
    if (r < 0) {
        fprintf(stderr, "vibebalancer: %s\n", err.text);
        return r;
    }
    r = vb_conf_parse(master->config_file, master->config_text, master->config_length, stderr, &master->conf);
    if (r == -ENOMEM)
        fprintf(stderr, "vibebalancer: out of memory\n");
    return r < 0 ? r : find_user(master);
}

int vb_check_run(const struct vb_options *options)
{
    struct vb_master master = {.options = options};
    int r = load_config(&master);
    if (r == 0)
        printf("%s: configuration is valid\n", master.config_file);
    free(master.config_text);
    free(master.identity);
    vb_conf_free(&master.conf);
    return r < 0 ? VB_EXIT_USAGE : VB_EXIT_DONE;
}

/* The text in a descriptor that nobody can change any more: a worker never sees another version than its master. */
static int seal_config(struct vb_master *master, struct vb_error *err)
{
    int fd = memfd_create("vibebalancer-config", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return vb_fail(err, -errno, "cannot make a memory file: %s", vb_strerror(-errno));
    master->config_fd = fd;
    if (write(fd, master->config_text, master->config_length) != (ssize_t)master->config_length ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) != 0)
        return vb_fail(err, -EIO, "cannot seal the configuration: %s", vb_strerror(-errno));
    return 0;
}

/* ---- what is shared ---------------------------------------------------------------------------------------------- */

static int fill_segment(struct vb_master *master, struct vb_error *err)
{
    const struct vb_conf *conf = master->conf;
    for (unsigned p = 0; p < conf->n_pools; p++) {
        const struct vb_conf_pool *pool = &conf->pools[p];
        int index = vb_shm_add_pool(master->shm, &(struct vb_pool_spec){pool->name, vb_balance_name(pool->balance),
                                                                        pool->panic, pool->outlier.max_ejected});
        if (index != (int)p)
            return vb_fail(err, index, "pool %s does not fit into the segment", pool->name);
        for (unsigned b = 0; b < pool->n_backends; b++) {
            struct vb_backend_spec spec = {.name = pool->backends[b].name,
                                           .address = pool->backends[b].address,
                                           .weight = pool->backends[b].weight,
                                           .configured = true,
                                           .health = pool->health.enabled ? VB_HEALTH_UNKNOWN : VB_HEALTH_UNCHECKED};
            int slot = vb_shm_add_backend(master->shm, p, &spec);
            if (slot == -ENOMEM)
                return vb_fail(err, slot,
                               "there is no room for the figures of %u workers and backend %s/%s: free some "
                               "memory, or put the segment elsewhere with --segment",
                               master->n_workers, pool->name, spec.name);
            if (slot < 0)
                return vb_fail(err, slot, "backend %s/%s does not fit into the segment: %s", pool->name, spec.name,
                               vb_strerror(slot));
        }
    }
    return 0;
}

static int make_segment(struct vb_master *master, struct vb_error *err)
{
    const char *name = master->conf->name, *path = master->options->segment;
    char usual[256];
    /* Three generations of workers may live at the same time, and the number of workers may grow. */
    struct vb_shm_capacity cap = {.workers = VB_MAX(3 * master->n_workers + 2, 8u),
                                  .backends = master->conf->segment.backends,
                                  .count_ips = master->conf->limits.connections_per_ip > 0};
    if (path == NULL)
        path = master->conf->segment.path;
    if (path == NULL && vb_shm_default_path(usual, sizeof(usual), name) == 0)
        path = usual;
    int r = vb_shm_create(&master->shm, path, name, cap, err);
    if (r < 0)
        return r;
    struct vb_shm_header *header = vb_shm_header(master->shm);
    vb_copy(header->program_version, sizeof(header->program_version), VB_VERSION);
    vb_copy(header->config_file, sizeof(header->config_file), master->config_file);
    atomic_store(&header->generation, 1);
    atomic_store(&header->workers_wanted, master->n_workers);
    atomic_store(&header->state, VB_INSTANCE_STARTING);
    r = fill_segment(master, err);
    if (r < 0)
        return r;
    master->control = vb_control_open(master, path);
    vb_shm_publish(master->shm);
    return 0;
}

/* One socket for each worker and address, kept for life; see vb/listen.h. */
static int open_listeners(struct vb_master *master, struct vb_error *err)
{
    const struct vb_conf *conf = master->conf;
    unsigned n = master->n_workers;
    int *fds = malloc(n * sizeof(*fds));
    master->listen_fds = malloc(n * conf->n_listeners * sizeof(*master->listen_fds));
    if (fds == NULL || master->listen_fds == NULL) {
        free(fds);
        return vb_fail(err, -ENOMEM, "out of memory");
    }
    for (unsigned i = 0; i < n * conf->n_listeners; i++)
        master->listen_fds[i] = -1;
    int r = 0;
    for (unsigned i = 0; r == 0 && i < conf->n_listeners; i++) {
        const struct vb_conf_listener *listener = &conf->listeners[i];
        r = vb_listen_open(fds, n, (const struct sockaddr *)&listener->address, listener->address_len, listener->text,
                           err);
        for (unsigned w = 0; r == 0 && w < n; w++)
            master->listen_fds[w * conf->n_listeners + i] = fds[w];
    }
    free(fds);
    return r;
}

static void close_listeners(struct vb_master *master)
{
    const struct vb_conf *conf = master->conf;
    for (unsigned i = 0; master->listen_fds != NULL && i < master->n_workers * conf->n_listeners; i++) {
        if (master->listen_fds[i] < 0)
            continue;
        if (i < conf->n_listeners) /* one for all workers */
            vb_listen_unlink(master->listen_fds[i], (const struct sockaddr *)&conf->listeners[i].address);
        close(master->listen_fds[i]);
    }
    free(master->listen_fds);
    master->listen_fds = NULL;
}

/* A balancer needs two descriptors for each request; the soft limit is made for other programs. */
static void raise_open_files(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

/*
 * The signals that the loop answers, kept waiting while there is no loop: before it runs they would end the process (as
 * PID 1 they would be lost), and after it they would end it before the segment is removed. The end takes a second or
 * so.
 */
static void block_signals(int how)
{
    sigset_t set;
    sigemptyset(&set);
    for (unsigned i = 0; i < VB_ARRAY_SIZE(handled_signals); i++)
        if (handled_signals[i] != SIGCHLD)
            sigaddset(&set, handled_signals[i]);
    pthread_sigmask(how, &set, NULL);
}

/* ---- stopping ---------------------------------------------------------------------------------------------------- */

static void close_handle(uv_handle_t *handle, void *arg)
{
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

static bool someone_accepts(const struct vb_master *master)
{
    for (unsigned i = 0; i < master->n_workers; i++)
        if (master->children[i].state == VB_CHILD_STARTING || master->children[i].state == VB_CHILD_SERVING)
            return true;
    return false;
}

void vb_master_child_stopped(struct vb_master *master)
{
    if (!master->stopping)
        return;
    /* Who comes now must be refused at once and not wait in a queue that nobody serves. */
    if (!someone_accepts(master))
        close_listeners(master);
    if (vb_children_all_gone(master)) {
        block_signals(SIG_BLOCK);
        uv_walk(&master->loop, close_handle, NULL); /* then nothing keeps the loop alive */
    }
}

static void on_grace_over(uv_timer_t *timer)
{
    struct vb_master *master = timer->data;
    vb_log_warn("a worker does not end: killing it");
    vb_children_kill(master);
}

static void stop(struct vb_master *master)
{
    master->stopping = true;
    vb_notify(&master->notify, "STOPPING=1\nSTATUS=Finishing requests");
    atomic_store(&vb_shm_header(master->shm)->state, VB_INSTANCE_STOPPING);
    uv_timer_stop(&master->start_timer);
    uv_timer_start(&master->grace_timer, on_grace_over, master->conf->shutdown_grace_ms + KILL_EXTRA_MS, 0);
    vb_children_drain(master);
    vb_master_child_stopped(master);
}

void vb_master_give_up(struct vb_master *master)
{
    vb_log_error("no worker can be started: giving up");
    master->status = VB_EXIT_FAILED;
    stop(master);
}

static void on_stop_signal(struct vb_master *master, int number)
{
    master->terms++;
    if (master->terms == 1) {
        vb_log_info("%s: finishing requests, for at most %.1f s", strsignal(number),
                    (double)master->conf->shutdown_grace_ms / 1000);
        stop(master);
    } else {
        vb_log_warn("%s again: stopping now", strsignal(number));
        vb_children_kill(master);
    }
}

/* As PID 1 the master inherits orphans; libuv reaps only what it has spawned itself. */
void vb_master_reap_orphans(struct vb_master *master)
{
    siginfo_t info = {0};
    while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0) {
        for (unsigned i = 0; i < master->n_workers; i++)
            if (master->children[i].slot >= 0 && master->children[i].process.pid == info.si_pid)
                return; /* libuv's turn; on_process_exit comes back here */
        waitpid(info.si_pid, NULL, WNOHANG);
        info.si_pid = 0;
    }
}

static void on_signal(uv_signal_t *signal, int number)
{
    struct vb_master *master = signal->data;
    switch (number) {
    case SIGCHLD:
        vb_master_reap_orphans(master);
        break;
    case SIGHUP:
        vb_log_warn("SIGHUP: reload is not supported yet; the configuration stays as it is");
        break;
    case SIGUSR1:
    case SIGUSR2:
        break; /* nothing to do yet, but they must not end the process */
    default:
        on_stop_signal(master, number);
        break;
    }
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

void vb_master_child_serves(struct vb_master *master, struct vb_child *child)
{
    master->ever_served = true;
    vb_log_info("worker %u (pid %d) serves", child->index, child->process.pid);
    for (unsigned i = 0; i < master->n_workers; i++)
        if (master->children[i].state != VB_CHILD_SERVING)
            return;
    if (!master->stopping &&
        atomic_exchange(&vb_shm_header(master->shm)->state, VB_INSTANCE_RUNNING) == VB_INSTANCE_STARTING)
        vb_notify(&master->notify, "READY=1\nSTATUS=Serving requests");
}

static void start_workers(struct vb_master *master)
{
    if (master->started || master->stopping)
        return;
    master->started = true;
    uv_timer_stop(&master->start_timer);
    vb_children_start(master);
}

static void on_first_round(uv_async_t *async)
{
    start_workers(async->data);
}

static void on_start_timer(uv_timer_t *timer)
{
    start_workers(timer->data);
}

/* On the health thread. */
static void tell_first_round(void *arg)
{
    struct vb_master *master = arg;
    uv_async_send(&master->first_round);
}

static void on_tick(uv_timer_t *timer)
{
    struct vb_master *master = timer->data;
    vb_findings_tick(master->findings);
}

static int open_handles(struct vb_master *master)
{
    _Static_assert(VB_ARRAY_SIZE(handled_signals) == VB_ARRAY_SIZE(((struct vb_master *)0)->signals),
                   "one handle for each");
    int r = uv_async_init(&master->loop, &master->first_round, on_first_round);
    uv_timer_init(&master->loop, &master->start_timer);
    uv_timer_init(&master->loop, &master->grace_timer);
    uv_timer_init(&master->loop, &master->tick);
    master->first_round.data = master->start_timer.data = master->grace_timer.data = master->tick.data = master;
    uv_timer_start(&master->tick, on_tick, TICK_MS, TICK_MS);
    for (unsigned i = 0; r == 0 && i < VB_ARRAY_SIZE(handled_signals); i++) {
        uv_signal_init(&master->loop, &master->signals[i]);
        master->signals[i].data = master;
        r = uv_signal_start(&master->signals[i], on_signal, handled_signals[i]);
    }
    return r;
}

static void log_start(const struct vb_master *master)
{
    const struct vb_conf *conf = master->conf;
    vb_log_info("vibebalancer %s, configuration %s, %u workers", VB_VERSION, master->config_file, master->n_workers);
    for (unsigned i = 0; i < conf->n_listeners; i++)
        vb_log_info("listening on %s", conf->listeners[i].text);
    for (unsigned i = 0; i < conf->n_pools; i++)
        vb_log_info("pool %s: %u backends, %s", conf->pools[i].name, conf->pools[i].n_backends,
                    vb_balance_name(conf->pools[i].balance));
    if (master->user_is_another)
        vb_log_warn("`user: %s` has no effect: only root can become another user", conf->user.name);
}

static int run_loop(struct vb_master *master, struct vb_error *err)
{
    int r = uv_loop_init(&master->loop);
    if (r < 0)
        return vb_fail(err, r, "cannot make an event loop: %s", vb_strerror(r));
    r = open_handles(master);
    if (r == 0)
        r = vb_findings_open(&master->findings, master->shm);
    if (r == 0)
        r = vb_children_open(master);
    if (r == 0)
        vb_watchdog_start(master);
    if (r == 0)
        r = vb_health_start(&master->health, master->shm, master->conf, tell_first_round, master);
    if (r == 0 && master->control != NULL)
        r = vb_control_start(master->control);
    if (r == 0)
        uv_timer_start(&master->start_timer, on_start_timer, START_WAIT_MS, 0);
    else
        uv_walk(&master->loop, close_handle, NULL);
    block_signals(SIG_UNBLOCK); /* the threads that exist by now keep them blocked: they all come here */
    uv_run(&master->loop, UV_RUN_DEFAULT);
    return r < 0 ? vb_fail(err, r, "cannot start: %s", vb_strerror(r)) : 0;
}

static int start(struct vb_master *master, struct vb_error *err)
{
    int r = make_segment(master, err);
    if (r == 0)
        r = open_listeners(master, err);
    if (r == 0)
        r = seal_config(master, err);
    if (r < 0)
        return r;
    r = vb_logger_start(&master->logger, &vb_shm_header(master->shm)->log_lost);
    if (r < 0)
        return vb_fail(err, r, "cannot start the log thread: %s", vb_strerror(r));
    vb_log_open(vb_logger_fd(master->logger), "master", master->options->log_level);
    log_start(master);
    return 0;
}

/* In the reverse order of start. False: a thread cannot be joined, see vb_health_stop. */
static bool take_down(struct vb_master *master)
{
    bool clean = vb_health_stop(&master->health);
    if (master->children != NULL && clean)
        uv_loop_close(&master->loop);
    vb_log_open(STDERR_FILENO, "master", master->options->log_level);
    clean &= vb_logger_stop(&master->logger);
    close_listeners(master);
    if (master->config_fd >= 0)
        close(master->config_fd);
    vb_control_close(&master->control);
    if (master->shm != NULL)
        vb_shm_unlink(master->shm);
    vb_findings_close(&master->findings);
    if (clean)
        vb_shm_close(&master->shm);
    vb_children_close(master);
    return clean;
}

int vb_master_run(const struct vb_options *options)
{
    struct vb_master master = {.options = options, .config_fd = -1};
    struct vb_error err;
    signal(SIGPIPE, SIG_IGN);
    block_signals(SIG_BLOCK);
    vb_notify_open(&master.notify);
    int r = load_config(&master);
    if (r < 0) {
        master.status = VB_EXIT_USAGE;
        goto out;
    }
    if (options->name != NULL)
        vb_copy(master.conf->name, sizeof(master.conf->name), options->name);
    unsigned wanted = options->workers >= 0 ? (unsigned)options->workers : master.conf->workers;
    master.n_workers = wanted > 0 ? wanted : VB_MIN(vb_cpus_usable(), (unsigned)VB_WORKERS_MAX);
    raise_open_files();
    r = start(&master, &err);
    if (r == 0)
        r = run_loop(&master, &err);
    if (r < 0) {
        fprintf(stderr, "vibebalancer: %s\n", err.text);
        master.status = VB_EXIT_FAILED;
    }
    if (!take_down(&master))
        _exit(master.status);

out:
    free(master.config_text);
    free(master.identity);
    vb_conf_free(&master.conf);
    return master.status;
}
