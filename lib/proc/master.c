/*
 * The master: makes what the workers share, watches over them, and is the one whom signals address. It never touches a
 * client's bytes.
 *
 *   start   configuration -> lock and segment -> control socket -> listening sockets -> log thread -> health thread ->
 *           (its first look at all backends, START_WAIT_MS at most) -> workers. Addresses that workers of a killed
 *           master still have are waited for: see orphans.h
 *   stop    SIGTERM, SIGINT, SIGQUIT: workers drain; when none accepts any more the listening sockets are closed; when
 *           all are gone the rest is taken down. A second signal, or the end of the grace, kills what is left.
 *   reload  SIGHUP: see reload.h
 *   upgrade SIGUSR2: see upgrade.h. The new executable does not start, it takes over (handover.h)
 */
#include "master.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control.h"
#include "cpus.h"
#include "membership.h"
#include "vb/log.h"
#include "vb/str.h"

#define START_WAIT_MS 1000 /* for the first probes: better a moment's wait than a 502 as the first answer */
#define TICK_MS       1000
#define LINGERING     2    /* old generations that may finish at the same time */
#define LINGER_MS     1000 /* that they have for it at least, however fast reloads follow one another */

_Static_assert(VB_SHM_WORKERS_MAX >= (LINGERING + 2) * VB_WORKERS_MAX, "old, present and next generations have slots");

static const int handled_signals[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGCHLD};

/* ---- configuration ----------------------------------------------------------------------------------------------- */

static int load_config(struct vb_master *master, struct vb_config *config)
{
    struct vb_error err;
    master->config_file = vb_config_find(master->options, &err);
    if (master->config_file != NULL)
        return vb_config_load(config, master->config_file, stderr);
    fprintf(stderr, "vibebalancer: %s\n", err.text);
    return -ENOENT;
}

int vb_check_run(const struct vb_options *options)
{
    struct vb_master master = {.options = options};
    struct vb_config config = {.conf = NULL};
    int r = load_config(&master, &config);
    if (r == 0)
        printf("%s: configuration is valid\n", master.config_file);
    vb_config_free(&config);
    return r < 0 ? VB_EXIT_USAGE : VB_EXIT_DONE;
}

unsigned vb_master_workers(const struct vb_master *master, const struct vb_conf *conf)
{
    unsigned wanted = master->options->workers >= 0 ? (unsigned)master->options->workers : conf->workers;
    return wanted > 0 ? wanted : VB_MIN(vb_cpus_usable(), (unsigned)VB_WORKERS_MAX);
}

/* ---- what is shared ---------------------------------------------------------------------------------------------- */

/* On the health thread. */
static void tell_looked(void *arg)
{
    struct vb_master *master = arg;
    uv_async_send(&master->looked);
}

int vb_master_open_health(struct vb_master *master, struct vb_error *err)
{
    int r = vb_health_open(&master->health, master->shm, tell_looked, master);
    return r < 0 ? vb_fail(err, r, "cannot prepare the health thread: %s", vb_strerror(r)) : 0;
}

/* There is nothing before it that could be disturbed, so what is prepared counts at once. */
static int fill_segment(struct vb_master *master, const struct vb_conf *conf, struct vb_error *err)
{
    struct vb_membership *membership = NULL;
    int r = vb_master_open_health(master, err);
    if (r == 0)
        r = vb_membership_prepare(&membership, master->shm, master->health, conf, NULL, err);
    if (r == 0)
        vb_membership_commit(&membership);
    return r;
}

static int make_segment(struct vb_master *master, const struct vb_conf *conf, struct vb_error *err)
{
    const char *path = master->options->segment;
    char usual[256];
    /* Slots that are never used cost nothing. */
    struct vb_shm_capacity cap = {.workers = VB_SHM_WORKERS_MAX, .backends = conf->segment.backends};
    if (path == NULL)
        path = conf->segment.path;
    if (path == NULL && vb_shm_default_path(usual, sizeof(usual), conf->name) == 0)
        path = usual;
    int r = vb_shm_create(&master->shm, path, conf->name, cap, err);
    if (r < 0)
        return r;
    vb_orphans_open(&master->orphans, master->shm);
    struct vb_shm_header *header = vb_shm_header(master->shm);
    vb_copy(header->program_version, sizeof(header->program_version), VB_VERSION);
    vb_copy(header->config_file, sizeof(header->config_file), master->config_file);
    atomic_store(&header->state, VB_INSTANCE_STARTING);
    r = fill_segment(master, conf, err);
    if (r < 0)
        return r;
    master->control = vb_control_open(master, conf->admin.socket, path);
    vb_shm_publish(master->shm);
    return 0;
}

static int open_listeners(struct vb_master *master, const struct vb_conf *conf, struct vb_error *err)
{
    int r = vb_listeners_prepare(&master->listeners, conf, vb_master_workers(master, conf), err);
    if (r < 0)
        return r;
    vb_listeners_commit(&master->listeners, conf);
    vb_orphans_close(&master->orphans);
    return 0;
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

static bool all_gone(struct vb_master *master)
{
    return vb_generation_is_gone(master->current) && TAILQ_EMPTY(&master->old);
}

static void end_if_all_gone(struct vb_master *master)
{
    if (!master->stopping || !all_gone(master))
        return;
    block_signals(SIG_BLOCK);
    uv_walk(&master->loop, close_handle, NULL); /* then nothing keeps the loop alive */
}

static void kill_generation(struct vb_generation *generation, void *arg)
{
    vb_generation_kill(generation);
}

static void stop(struct vb_master *master)
{
    struct vb_generation *generation;
    master->stopping = true;
    vb_notify(&master->notify, "STOPPING=1\nSTATUS=Finishing requests");
    atomic_store(&vb_shm_header(master->shm)->state, VB_INSTANCE_STOPPING);
    uv_timer_stop(&master->start_timer);
    vb_reload_cancel(master);
    TAILQ_FOREACH (generation, &master->old, link)
        vb_generation_hurry(generation);
    vb_generation_retire(master->current, NULL);
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
                    (double)master->current->config.conf->shutdown_grace_ms / 1000);
        if (!master->stopping)
            stop(master);
    } else {
        vb_log_warn("%s again: stopping now", strsignal(number));
        vb_master_each_generation(master, kill_generation, NULL);
    }
}

struct search {
    pid_t pid;
    struct vb_child *found; /* NULL: it is no worker */
};

static void find_pid(struct vb_generation *generation, void *arg)
{
    struct search *search = arg;
    for (unsigned i = 0; i < generation->n_workers; i++)
        if (generation->children[i].slot >= 0 && generation->children[i].pid == search->pid)
            search->found = &generation->children[i];
}

/* As PID 1 the master inherits orphans, and after an upgrade workers; libuv reaps only what it has spawned itself. */
void vb_master_reap_orphans(struct vb_master *master)
{
    siginfo_t info = {0};
    while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0) {
        struct search search = {.pid = info.si_pid};
        int status = 0;
        vb_master_each_generation(master, find_pid, &search);
        if (search.found != NULL ? !search.found->adopted : vb_upgrade_is_trial(master, info.si_pid))
            return; /* libuv's turn; who is told of it comes back here */
        waitpid(info.si_pid, &status, WNOHANG);
        if (search.found != NULL)
            vb_child_reaped(search.found, status);
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
        if (!master->stopping)
            vb_reload_request(master);
        break;
    case SIGUSR1:
        break; /* nothing to do yet, but it must not end the process */
    case SIGUSR2:
        if (!master->stopping)
            vb_reload_request_upgrade(master);
        break;
    default:
        on_stop_signal(master, number);
        break;
    }
}

/* ---- generations ------------------------------------------------------------------------------------------------- */

void vb_master_each_generation(struct vb_master *master, void (*see)(struct vb_generation *generation, void *arg),
                               void *arg)
{
    struct vb_generation *generation;
    TAILQ_FOREACH (generation, &master->old, link)
        see(generation, arg);
    if (master->current != NULL)
        see(master->current, arg);
    if (master->reload.next != NULL)
        see(master->reload.next, arg);
}

void vb_master_let_go(struct vb_master *master, struct vb_generation *generation)
{
    TAILQ_INSERT_TAIL(&master->old, generation, link);
}

/* The next to be cut: the oldest of those that still finish, when they are so many; else NULL. */
static struct vb_generation *find_left_behind(struct vb_master *master, unsigned so_many)
{
    struct vb_generation *generation, *oldest = NULL;
    unsigned lingering = 0;
    TAILQ_FOREACH_REVERSE (generation, &master->old, vb_generations, link) {
        lingering += !generation->cut;
        oldest = generation->cut ? oldest : generation;
    }
    return lingering >= so_many ? oldest : NULL;
}

uint64_t vb_master_reload_wait(struct vb_master *master)
{
    const struct vb_generation *generation = find_left_behind(master, LINGERING);
    uint64_t now = uv_now(&master->loop);
    return generation == NULL || generation->left_ms + LINGER_MS <= now ? 0 : generation->left_ms + LINGER_MS - now;
}

static void cut_oldest(struct vb_master *master)
{
    struct vb_generation *generation = find_left_behind(master, LINGERING + 1);
    if (generation == NULL)
        return;
    vb_log_warn("generation %u has been left behind by %u others: cutting it", generation->number, LINGERING);
    vb_generation_cut(generation);
}

void vb_master_replace(struct vb_master *master, struct vb_generation *next)
{
    struct vb_generation *before = master->current;
    struct vb_shm_header *header = vb_shm_header(master->shm);
    master->current = next;
    atomic_store(&header->generation, next->number);
    atomic_store(&header->workers_wanted, next->n_workers);
    vb_generation_serve(next);
    vb_master_let_go(master, before);
    vb_watchdog_follow(master);
    vb_generation_retire(before, next->config.conf);
    cut_oldest(master);
}

static bool has_pool(const struct vb_generation *generation, const char *name)
{
    return generation != NULL && vb_conf_find_pool(generation->config.conf, name) != NULL;
}

static bool is_known(const void *arg, const char *pool)
{
    const struct vb_master *master = arg;
    const struct vb_generation *generation;
    TAILQ_FOREACH (generation, &master->old, link)
        if (has_pool(generation, pool))
            return true;
    return has_pool(master->current, pool) || has_pool(master->reload.next, pool);
}

void vb_master_generation_gone(struct vb_generation *generation)
{
    struct vb_master *master = generation->master;
    if (generation != master->current) {
        TAILQ_REMOVE(&master->old, generation, link);
        vb_generation_close(&generation);
        vb_membership_free_pools(master->shm, is_known, master);
        vb_health_update(master->health);
        vb_watchdog_follow(master);
    }
    end_if_all_gone(master);
}

void vb_master_generation_quiet(struct vb_generation *generation)
{
    struct vb_master *master = generation->master;
    /* Who comes now must be refused at once and not wait in a queue that nobody serves. */
    if (generation == master->current)
        vb_listeners_close(&master->listeners);
    else
        vb_reload_settled(master);
}

void vb_master_generation_ready(struct vb_generation *generation)
{
    vb_reload_ready(generation->master);
}

void vb_master_generation_broken(struct vb_generation *generation, const struct vb_child *child)
{
    vb_reload_broken(generation->master, child);
}

void vb_master_child_serves(struct vb_master *master)
{
    master->ever_served = true;
    if (vb_generation_all(master->current, VB_CHILD_SERVING) && !master->stopping &&
        atomic_exchange(&vb_shm_header(master->shm)->state, VB_INSTANCE_RUNNING) == VB_INSTANCE_STARTING)
        vb_notify(&master->notify, "READY=1\nSTATUS=Serving requests");
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

static void start_workers(struct vb_master *master)
{
    if (master->started || master->stopping)
        return;
    master->started = true;
    uv_timer_stop(&master->start_timer);
    vb_generation_start(master->current);
    if (master->reload.phase == VB_RELOAD_DUE) /* asked for meanwhile */
        vb_reload_request(master);
}

static void on_looked(uv_async_t *async)
{
    struct vb_master *master = async->data;
    if (!vb_health_has_looked(master->health))
        return;
    start_workers(master);
    vb_reload_looked(master);
}

static void on_start_timer(uv_timer_t *timer)
{
    start_workers(timer->data);
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
    uv_timer_init(&master->loop, &master->start_timer);
    uv_timer_init(&master->loop, &master->tick);
    master->start_timer.data = master->tick.data = master;
    uv_timer_start(&master->tick, on_tick, TICK_MS, TICK_MS);
    vb_reload_open(master);
    vb_watchdog_open(master);
    int r = vb_upgrade_open(master);
    for (unsigned i = 0; r == 0 && i < VB_ARRAY_SIZE(handled_signals); i++) {
        uv_signal_init(&master->loop, &master->signals[i]);
        master->signals[i].data = master;
        r = uv_signal_start(&master->signals[i], on_signal, handled_signals[i]);
    }
    return r;
}

static void log_start(const struct vb_master *master)
{
    const struct vb_conf *conf = master->current->config.conf;
    vb_log_info("vibebalancer %s, configuration %s, %u workers", VB_VERSION, master->config_file,
                master->current->n_workers);
    for (unsigned i = 0; i < conf->n_listeners; i++)
        vb_log_info("listening on %s", conf->listeners[i].text);
    for (unsigned i = 0; i < conf->n_pools; i++)
        vb_log_info("pool %s: %u backends, %s", conf->pools[i].name, conf->pools[i].n_backends,
                    vb_balance_name(conf->pools[i].balance));
    vb_config_warn(&master->current->config);
}

/* The loop, and the one handle that other threads know. */
static int open_loop(struct vb_master *master, struct vb_error *err)
{
    int r = uv_loop_init(&master->loop);
    if (r < 0)
        return vb_fail(err, r, "cannot make an event loop: %s", vb_strerror(r));
    master->has_loop = true;
    master->looked.data = master;
    r = uv_async_init(&master->loop, &master->looked, on_looked);
    return r < 0 ? vb_fail(err, r, "cannot make an event loop: %s", vb_strerror(r)) : 0;
}

/* What runs. */
static int open_all(struct vb_master *master, struct vb_error *err)
{
    int r = open_handles(master);
    if (r == 0)
        r = vb_findings_open(&master->findings, master->shm);
    if (r == 0 && master->control != NULL)
        r = vb_control_start(master->control);
    if (r == 0)
        r = vb_health_start(master->health);
    return r < 0 ? vb_fail(err, r, "cannot start: %s", vb_strerror(r)) : 0;
}

/*
 * To the end, and with stops for upgrades. Only while signals are kept waiting can it be known that the loop has seen
 * all that came before.
 */
static void run_loop(struct vb_master *master)
{
    block_signals(SIG_UNBLOCK); /* the threads that exist by now keep them blocked: they all come here */
    while (uv_run(&master->loop, UV_RUN_DEFAULT) != 0) {
        block_signals(SIG_BLOCK);
        uv_run(&master->loop, UV_RUN_NOWAIT);
        vb_upgrade_execute(master);
        if (!master->stopping || !all_gone(master))
            block_signals(SIG_UNBLOCK);
    }
}

/* Makes all anew. */
static int make_all(struct vb_master *master, struct vb_config *config, struct vb_error *err)
{
    unsigned workers = vb_master_workers(master, config->conf);
    int r = open_loop(master, err);
    if (r == 0)
        r = make_segment(master, config->conf, err);
    if (r == 0)
        r = open_listeners(master, config->conf, err);
    if (r == 0)
        r = vb_generation_open(&master->current, master, config, workers, err);
    if (r < 0)
        return r;
    master->current->number = 1;
    master->current->state = VB_GENERATION_SERVING;
    atomic_store(&vb_shm_header(master->shm)->generation, 1);
    atomic_store(&vb_shm_header(master->shm)->workers_wanted, workers);
    r = vb_logger_start(&master->logger, &vb_shm_header(master->shm)->log_lost);
    if (r < 0)
        return vb_fail(err, r, "cannot start the log thread: %s", vb_strerror(r));
    vb_log_open(vb_logger_fd(master->logger), "master", master->options->log_level);
    log_start(master);
    return 0;
}

/* What was handed over goes on. */
static void take_office(struct vb_master *master, const struct vb_handover *handover)
{
    struct vb_shm_header *header = vb_shm_header(master->shm);
    struct vb_generation *generation, *next;
    close(vb_handover_executable(handover->state));
    close(handover->fd);
    if (handover->failed == NULL)
        vb_log_info("vibebalancer %s has taken over from version %s", VB_VERSION, header->program_version);
    vb_copy(header->program_version, sizeof(header->program_version), VB_VERSION);
    master->started = true;
    for (generation = TAILQ_FIRST(&master->old); generation != NULL; generation = next) {
        next = TAILQ_NEXT(generation, link); /* it may end just now */
        vb_generation_resume(generation);
    }
    vb_generation_resume(master->current);
    vb_reload_resume(master, handover->failed);
    vb_master_reap_orphans(master);
}

static void close_loop(struct vb_master *master)
{
    if (!master->has_loop)
        return;
    uv_walk(&master->loop, close_handle, NULL); /* those of a start that failed; else there are none */
    uv_run(&master->loop, UV_RUN_DEFAULT);
    uv_loop_close(&master->loop);
}

/* In the reverse order of start. False: a thread cannot be joined, see vb_health_stop. */
static bool take_down(struct vb_master *master)
{
    bool clean = vb_health_stop(&master->health);
    if (clean)
        close_loop(master);
    vb_log_open(STDERR_FILENO, "master", master->options->log_level);
    clean &= vb_logger_stop(&master->logger);
    vb_upgrade_close(master);
    vb_listeners_close(&master->listeners);
    vb_control_close(&master->control);
    if (master->shm != NULL)
        vb_shm_unlink(master->shm);
    vb_findings_close(&master->findings);
    if (clean)
        vb_shm_close(&master->shm);
    vb_generation_free(&master->current);
    return clean;
}

/* A new instance. Says what is wrong itself; the exit status is in the master then. */
static int start(struct vb_master *master)
{
    struct vb_config config = {.conf = NULL};
    struct vb_error err;
    int r = load_config(master, &config);
    if (r < 0) {
        vb_config_free(&config);
        master->status = VB_EXIT_USAGE;
        return r;
    }
    if (master->options->name != NULL)
        vb_copy(config.conf->name, sizeof(config.conf->name), master->options->name);
    raise_open_files();
    r = make_all(master, &config, &err);
    vb_config_free(&config);
    if (r == 0)
        r = open_all(master, &err);
    if (r == 0) {
        uv_timer_start(&master->start_timer, on_start_timer, START_WAIT_MS, 0);
        return 0;
    }
    fprintf(stderr, "vibebalancer: %s\n", err.text);
    master->status = VB_EXIT_FAILED;
    return r;
}

/* The instance of the executable before this one; `r` and `err`: whether the state was found. */
static void succeed(struct vb_master *master, const struct vb_handover *handover, int r, struct vb_error *err)
{
    if (r == 0)
        r = open_loop(master, err);
    if (handover->trial >= 0)
        vb_upgrade_rehearse(master, handover, r, err);
    if (r == 0)
        r = vb_handover_take(master, handover->state, false, err);
    if (r == 0) {
        vb_log_open(vb_logger_fd(master->logger), "master", master->options->log_level);
        r = open_all(master, err);
    }
    if (r < 0)
        vb_upgrade_give_back(master, handover, err->text);
    take_office(master, handover);
}

int vb_master_run(const struct vb_options *options)
{
    struct vb_master master = {.options = options, .upgrade = {.executable = -1, .said = -1}};
    struct vb_handover handover;
    struct vb_error err;
    signal(SIGPIPE, SIG_IGN);
    block_signals(SIG_BLOCK);
    TAILQ_INIT(&master.old);
    master.listeners.orphans = &master.orphans;
    vb_notify_open(&master.notify);
    int r = vb_handover_find(&handover, &err);
    if (handover.fd >= 0 || handover.trial >= 0)
        succeed(&master, &handover, r, &err);
    else
        r = start(&master);
    if (r == 0)
        run_loop(&master);
    bool clean = take_down(&master);
    json_decref(handover.state);
    if (!clean)
        _exit(master.status);
    return master.status;
}
