#include "upgrade.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "inheritance.h"
#include "master.h"
#include "vb/ctl.h"
#include "vb/log.h"
#include "vb/str.h"

#define TRIAL_MS  10000
#define TRIAL_YES "ok" /* what a trial says that can take over; else it says why not */

/* ---- the environment --------------------------------------------------------------------------------------------- */

/* This process's, with more variables (NULL: none); only the list is the caller's. */
static char **environment_with(char *const more[], unsigned n_more)
{
    unsigned n = 0, used = 0;
    while (environ[n] != NULL)
        n++;
    char **all = calloc(n + n_more + 1, sizeof(*all));
    if (all == NULL)
        return NULL;
    memcpy(all, environ, n * sizeof(*all));
    for (unsigned i = 0; i < n_more; i++)
        if (more[i] != NULL)
            all[n + used++] = more[i];
    return all;
}

/* Executes a file in this process, by its name or by its descriptor. Returns when that fails. */
static int execute(const struct vb_master *master, const json_t *state, int state_fd, int executable,
                   const char *failed, struct vb_error *err)
{
    char handover[64], notify[sizeof(master->notify.address.sun_path) + 32], why[1200];
    char *argv0 = master->options->argv[0];
    bool has_notify = vb_notify_variable(&master->notify, notify, sizeof(notify));
    snprintf(handover, sizeof(handover), VB_HANDOVER_STATE "=%d", state_fd);
    snprintf(why, sizeof(why), VB_HANDOVER_FAILED "=%s", failed != NULL ? failed : "");
    char *more[] = {handover, has_notify ? notify : NULL, failed != NULL ? why : NULL};
    char **environment = environment_with(more, VB_ARRAY_SIZE(more));
    if (environment == NULL)
        return vb_fail(err, -ENOMEM, "out of memory");
    int r = vb_handover_keep(state, state_fd, true);
    if (r == 0 && executable >= 0)
        fexecve(executable, master->options->argv, environment);
    else if (r == 0)
        execvpe(argv0, master->options->argv, environment);
    r = r < 0 ? r : -errno;
    vb_handover_keep(state, state_fd, false);
    free(environment);
    return vb_fail(err, r, "cannot execute %s: %s", argv0, vb_strerror(r));
}

/* In the folders of PATH, as execvp(3) looks for it. */
static int open_in_path(const char *name)
{
    char path[PATH_MAX];
    int fd = -1;
    for (const char *at = getenv("PATH"); fd < 0 && at != NULL;) {
        size_t n = strcspn(at, ":");
        snprintf(path, sizeof(path), "%.*s%s%s", (int)n, at, n > 0 ? "/" : "", name);
        if (access(path, X_OK) == 0)
            fd = open(path, O_PATH | O_CLOEXEC);
        at = at[n] != '\0' ? at + n + 1 : NULL;
    }
    return fd;
}

/* The file that would be executed by this name. Negative errno; *ret_st is empty then. */
static int open_program(const char *name, struct stat *ret_st)
{
    int fd = strchr(name, '/') != NULL ? open(name, O_PATH | O_CLOEXEC) : open_in_path(name);
    *ret_st = (struct stat){0};
    if (fd < 0)
        return errno != 0 ? -errno : -ENOENT;
    fstat(fd, ret_st);
    return fd;
}

static bool is_same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* ---- the trial: how it ends -------------------------------------------------------------------------------------- */

/* What it said, without what may follow a NUL. It has ended, so all is there. */
static void take_said(struct vb_upgrade *upgrade, char *to, size_t size)
{
    ssize_t n = read(upgrade->said, to, size - 1);
    to[VB_MAX(n, 0)] = '\0';
    close(upgrade->said);
    upgrade->said = -1;
}

/* NULL: it can take over. Only its own word counts: many a program ends with 0. */
static const char *judge(struct vb_upgrade *upgrade, const char *program, char *text, size_t size)
{
    take_said(upgrade, text, size);
    bool yes = strcmp(text, TRIAL_YES) == 0;
    if (yes && upgrade->status == 0 && upgrade->signal == 0)
        return NULL;
    if (upgrade->spawn_error < 0)
        snprintf(text, size, "cannot execute %s: %s", program, vb_strerror(upgrade->spawn_error));
    else if (upgrade->too_slow)
        snprintf(text, size, "%s has not said within %d s whether it can take over", program, TRIAL_MS / 1000);
    else if (upgrade->signal != 0)
        snprintf(text, size, "%s, on trial, was killed by signal %d (%s)", program, upgrade->signal,
                 strsignal(upgrade->signal));
    else if (text[0] == '\0' || yes)
        snprintf(text, size, "%s ended with status %d without saying that it can take over", program,
                 (int)upgrade->status);
    return text;
}

static void on_trial_closed(uv_handle_t *handle)
{
    struct vb_master *master = handle->data;
    char text[VB_CTL_TEXT_MAX];
    master->upgrade.has_trial = false;
    vb_reload_tried(master, judge(&master->upgrade, master->options->argv[0], text, sizeof(text)));
}

static void end_trial(struct vb_master *master)
{
    uv_timer_stop(&master->upgrade.limit);
    uv_close((uv_handle_t *)&master->upgrade.trial, on_trial_closed);
}

static void on_trial_exit(uv_process_t *process, int64_t status, int signal)
{
    struct vb_master *master = process->data;
    master->upgrade.status = status;
    master->upgrade.signal = signal;
    vb_master_reap_orphans(master);
    end_trial(master);
}

void vb_upgrade_cancel(struct vb_master *master)
{
    if (vb_upgrade_is_trial(master, master->upgrade.trial.pid))
        uv_process_kill(&master->upgrade.trial, SIGKILL);
}

static void on_limit(uv_timer_t *timer)
{
    struct vb_master *master = timer->data;
    master->upgrade.too_slow = true;
    vb_upgrade_cancel(master);
}

bool vb_upgrade_is_trial(const struct vb_master *master, pid_t pid)
{
    const struct vb_upgrade *upgrade = &master->upgrade;
    return upgrade->has_trial && uv_is_active((const uv_handle_t *)&upgrade->trial) && upgrade->trial.pid == pid;
}

/* ---- the trial: how it begins ------------------------------------------------------------------------------------ */

/* At the number that it has here. */
static void inherit(struct vb_inheritance *inheritance, int fd)
{
    vb_inherit(inheritance, (unsigned)fd, fd);
}

static void inherit_config(struct vb_generation *generation, void *arg)
{
    inherit(arg, generation->config_fd);
}

/*
 * Not the lock, nor a listening socket: a program that is none of ours may hang with them, and should this master be
 * killed meanwhile, nobody could take its place.
 */
static void collect(struct vb_inheritance *inheritance, struct vb_master *master, int state, int to_say)
{
    const int fds[] = {1, 2, vb_shm_fd_for_workers(master->shm), state, to_say};
    for (unsigned i = 0; i < VB_ARRAY_SIZE(fds); i++)
        inherit(inheritance, fds[i]);
    vb_master_each_generation(master, inherit_config, inheritance);
}

static int spawn(struct vb_master *master, int state, int to_say)
{
    struct vb_upgrade *upgrade = &master->upgrade;
    struct vb_inheritance inheritance = {.n = 0};
    char handover[64], trial[64];
    char *const more[] = {handover, trial};
    snprintf(handover, sizeof(handover), VB_HANDOVER_STATE "=%d", state);
    snprintf(trial, sizeof(trial), VB_HANDOVER_TRIAL "=%d", to_say);
    char **environment = environment_with(more, VB_ARRAY_SIZE(more));
    collect(&inheritance, master, state, to_say);
    int r = environment == NULL || inheritance.failed ? -ENOMEM : 0;
    if (r == 0) {
        uv_process_options_t options = {.file = master->options->argv[0],
                                        .args = master->options->argv,
                                        .env = environment,
                                        .exit_cb = on_trial_exit,
                                        .stdio = inheritance.stdio,
                                        .stdio_count = (int)inheritance.n};
        upgrade->has_trial = true;
        upgrade->spawn_error = uv_spawn(&master->loop, &upgrade->trial, &options);
        upgrade->trial.data = master;
    }
    free(environment);
    vb_inheritance_free(&inheritance);
    return r;
}

/* With the state as it is now: what changes until the end of the trial is of no importance for it. */
static int seal_state(struct vb_master *master, json_t **ret_state, struct vb_error *err)
{
    json_t *state = vb_handover_pack(master);
    if (state == NULL)
        return vb_fail(err, -ENOMEM, "cannot write down what is to be handed over: no memory, or a path is not UTF-8");
    int fd = vb_handover_seal(state, err);
    if (fd < 0)
        json_decref(state);
    else
        *ret_state = state;
    return fd;
}

int vb_upgrade_try(struct vb_master *master, struct vb_error *err)
{
    struct vb_upgrade *upgrade = &master->upgrade;
    json_t *state = NULL;
    int ends[2], program = open_program(master->options->argv[0], &upgrade->tried);
    if (program >= 0)
        close(program); /* else the trial says what is wrong */
    int fd = seal_state(master, &state, err);
    if (fd < 0)
        return fd;
    json_decref(state);
    int r = pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0 ? 0 : -errno;
    if (r == 0) {
        r = spawn(master, fd, ends[1]);
        close(ends[1]);
        if (r < 0)
            close(ends[0]);
    }
    close(fd);
    if (r < 0)
        return vb_fail(err, r, "cannot try %s out: %s", master->options->argv[0], vb_strerror(r));
    upgrade->said = ends[0];
    upgrade->too_slow = false;
    upgrade->status = upgrade->signal = 0;
    if (upgrade->spawn_error < 0)
        end_trial(master);
    else
        uv_timer_start(&upgrade->limit, on_limit, TRIAL_MS, 0);
    return 0;
}

/* ---- executing it ------------------------------------------------------------------------------------------------ */

static int execute_new(struct vb_master *master, struct vb_error *err)
{
    json_t *state = NULL;
    struct stat now;
    int program = open_program(master->options->argv[0], &now);
    if (program < 0)
        return vb_fail(err, program, "cannot execute %s: %s", master->options->argv[0], vb_strerror(program));
    if (!is_same_file(&now, &master->upgrade.tried)) {
        close(program);
        return vb_fail(err, -EAGAIN, "%s was replaced while it was on trial; upgrade again", master->options->argv[0]);
    }
    int fd = seal_state(master, &state, err);
    if (fd < 0) {
        close(program);
        return fd;
    }
    vb_log_info("executing %s", master->options->argv[0]);
    int r = execute(master, state, fd, program, NULL, err);
    if (r == -ENOENT) /* a script, which its interpreter opens by name */
        r = execute(master, state, fd, -1, NULL, err);
    close(program);
    close(fd);
    json_decref(state);
    return r;
}

/* Nothing has happened yet that could not go on: the threads rest between two things that they do. */
void vb_upgrade_execute(struct vb_master *master)
{
    struct vb_error err;
    if (!vb_reload_is_trying(master))
        return; /* the master stops */
    if (vb_logger_pause(master->logger)) {
        vb_health_pause(master->health);
        execute_new(master, &err);
        vb_health_resume(master->health);
        vb_logger_resume(master->logger);
    } else {
        vb_fail(&err, -EAGAIN, "nobody reads standard error, or too slowly, and lines that wait there would be lost");
    }
    vb_reload_tried(master, err.text);
}

int vb_upgrade_open(struct vb_master *master)
{
    struct vb_upgrade *upgrade = &master->upgrade;
    uv_timer_init(&master->loop, &upgrade->limit);
    upgrade->limit.data = master;
    upgrade->said = -1;
    upgrade->executable = open("/proc/self/exe", O_PATH | O_CLOEXEC);
    return upgrade->executable < 0 ? -errno : 0;
}

void vb_upgrade_close(struct vb_master *master)
{
    if (master->upgrade.executable >= 0)
        close(master->upgrade.executable);
    if (master->upgrade.said >= 0)
        close(master->upgrade.said);
}

/* ---- the new executable ------------------------------------------------------------------------------------------ */

/* What is wrong with the file goes to `text`. */
static int check_config(const struct vb_master *master, char *text, size_t size)
{
    struct vb_config config = {.conf = NULL};
    FILE *said = fmemopen(text, size, "w");
    if (said == NULL)
        return -ENOMEM;
    int r = vb_config_load(&config, master->config_file, said);
    fclose(said);
    return r;
}

/* Nothing is freed: numbers that are no descriptors here would be closed. */
void vb_upgrade_rehearse(struct vb_master *master, const struct vb_handover *handover, int r, struct vb_error *err)
{
    char text[VB_CTL_TEXT_MAX] = "out of memory";
    if (r == 0)
        r = vb_handover_take(master, handover->state, true, err);
    if (r < 0)
        vb_copy(text, sizeof(text), err->text);
    else
        r = check_config(master, text, sizeof(text));
    const char *said = r == 0 ? TRIAL_YES : text;
    ssize_t written = write(handover->trial, said, strlen(said));
    _exit(r == 0 && written > 0 ? VB_EXIT_DONE : VB_EXIT_FAILED);
}

void vb_upgrade_give_back(const struct vb_master *master, const struct vb_handover *handover, const char *why)
{
    struct vb_error err = {"it was given back before"};
    fprintf(stderr, "vibebalancer: cannot take over: %s\n", why);
    if (master->logger != NULL)
        vb_logger_pause(master->logger);
    if (master->health != NULL)
        vb_health_pause(master->health);
    if (handover->state != NULL && handover->failed == NULL)
        execute(master, handover->state, handover->fd, vb_handover_executable(handover->state), why, &err);
    fprintf(stderr, "vibebalancer: the old executable cannot go on either: %s\n", err.text);
    _exit(VB_EXIT_FAILED);
}
