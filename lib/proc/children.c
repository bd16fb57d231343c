/*
 * The master's side of the worker processes.
 *
 * A child goes NONE -> STARTING -> READY -> SERVING -> (LEAVING ->) NONE. When its process ends while its generation
 * serves, what it counted as in flight is given back and it is spawned again: at once the first time, because its
 * listening sockets go on receiving their share of the connections; with growing waits when it keeps dying young.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "inherit.h"
#include "inheritance.h"
#include "json.h"
#include "listeners.h"
#include "master.h"
#include "privileges.h"
#include "vb/inbox.h"
#include "vb/log.h"

#define YOUNG_MS        10000 /* a death before this age is a quick one */
#define BACKOFF_MS      100   /* before the third spawn; doubles */
#define BACKOFF_MAX_MS  5000
#define HOPELESS_DEATHS 5 /* quick deaths of a worker before any has ever served: something is wrong for good */

void vb_child_tell(struct vb_child *child, const char *message, size_t n)
{
    uv_buf_t buf = uv_buf_init((char *)message, (unsigned)n);
    uv_try_write((uv_stream_t *)&child->control, &buf, 1); /* a full pipe or a dead worker: its end will be seen */
}

void vb_child_kill(struct vb_child *child)
{
    child->killed = true;
    kill(child->pid, SIGKILL);
}

/* ---- the end of a process ---------------------------------------------------------------------------------------- */

static void on_respawn(uv_timer_t *timer)
{
    vb_child_spawn(timer->data);
}

static void respawn_later(struct vb_child *child)
{
    struct vb_master *master = child->generation->master;
    bool young = uv_now(&master->loop) - child->started_ms < YOUNG_MS;
    child->quick_deaths = young ? child->quick_deaths + 1 : 1;
    if (!master->ever_served && child->quick_deaths >= HOPELESS_DEATHS) {
        vb_master_give_up(master);
        return;
    }
    uint64_t wait = 0;
    if (child->quick_deaths > 1)
        wait = VB_MIN((uint64_t)BACKOFF_MS << VB_MIN(child->quick_deaths - 2, 10u), (uint64_t)BACKOFF_MAX_MS);
    if (wait > 0)
        vb_log_warn("worker %u: next try in %u ms", child->index, (unsigned)wait);
    uv_timer_start(&child->respawn, on_respawn, wait, 0);
}

static bool is_expected(const struct vb_child *child)
{
    return child->generation->state == VB_GENERATION_LEAVING;
}

static void log_exit(const struct vb_child *child, int64_t status, int signal)
{
    int pid = child->pid;
    if (signal != 0)
        vb_log(child->killed ? VB_LOG_INFO : VB_LOG_ERROR, "worker %u (pid %d) was killed by signal %d (%s)",
               child->index, pid, signal, strsignal(signal));
    else if (status != 0 || !is_expected(child))
        vb_log_error("worker %u (pid %d) ended with status %d", child->index, pid, (int)status);
    else
        vb_log_info("worker %u (pid %d) has finished", child->index, pid);
}

/* There is no process. */
static void be_gone(struct vb_child *child)
{
    child->state = VB_CHILD_NONE;
    if (child->generation->state == VB_GENERATION_SERVING)
        respawn_later(child);
    else
        vb_generation_child_gone(child);
}

/* Its process and its control channel are closed: the child is free for another process. */
static void on_control_closed(uv_handle_t *handle)
{
    be_gone(handle->data);
}

static void on_process_closed(uv_handle_t *handle)
{
    struct vb_child *child = handle->data;
    uv_close((uv_handle_t *)&child->control, on_control_closed);
}

static void give_slot_back(struct vb_child *child, bool died)
{
    vb_shm_release_worker(child->generation->master->shm, (unsigned)child->slot, died);
    child->slot = -1;
    child->state = VB_CHILD_ENDED;
}

static void end(struct vb_child *child, int64_t status, int signal)
{
    log_exit(child, status, signal);
    give_slot_back(child, child->generation->state == VB_GENERATION_SERVING);
}

static void on_process_exit(uv_process_t *process, int64_t status, int signal)
{
    struct vb_child *child = process->data;
    end(child, status, signal);
    vb_master_reap_orphans(child->generation->master);
    uv_close((uv_handle_t *)process, on_process_closed);
}

void vb_child_reaped(struct vb_child *child, int status)
{
    end(child, WIFEXITED(status) ? WEXITSTATUS(status) : 0, WIFSIGNALED(status) ? WTERMSIG(status) : 0);
    uv_close((uv_handle_t *)&child->control, on_control_closed);
}

/* ---- its messages ------------------------------------------------------------------------------------------------ */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    static char bytes[64];
    *buf = uv_buf_init(bytes, sizeof(bytes));
}

static void take_message(struct vb_child *child, char message)
{
    struct vb_shm *shm = child->generation->master->shm;
    if (message == VB_CONTROL_READY && child->state == VB_CHILD_STARTING) {
        child->state = VB_CHILD_READY;
        vb_generation_child_ready(child);
    } else if (message == VB_CONTROL_ACCEPTS_NO_MORE) {
        child->state = VB_CHILD_LEAVING;
        atomic_store(&vb_shm_worker(shm, (unsigned)child->slot)->state, VB_WORKER_DRAINING);
        vb_generation_child_quiet(child);
    }
}

static void on_message(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct vb_child *child = stream->data;
    if (n < 0)
        uv_read_stop(stream); /* on_process_exit follows */
    for (ssize_t i = 0; i < n && child->slot >= 0; i++)
        take_message(child, buf->base[i]);
}

void vb_child_serve(struct vb_child *child)
{
    struct vb_master *master = child->generation->master;
    const char message = VB_CONTROL_GO;
    vb_child_tell(child, &message, 1);
    child->state = VB_CHILD_SERVING;
    atomic_store(&vb_shm_worker(master->shm, (unsigned)child->slot)->state, VB_WORKER_READY);
    vb_log_info("worker %u (pid %d) serves", child->index, child->pid);
    vb_master_child_serves(master);
}

/* ---- spawning ---------------------------------------------------------------------------------------------------- */

/* Which listener each socket is of, as inherit.h has it: `0,1,1`. The caller's. NULL: no memory. */
static char *name_sockets(const struct vb_worker_socket *sockets, unsigned n)
{
    char *names = NULL;
    size_t size = 0;
    FILE *text = open_memstream(&names, &size);
    if (text == NULL)
        return NULL;
    for (unsigned i = 0; i < n; i++)
        fprintf(text, "%s%u", i > 0 ? "," : "", sockets[i].listener);
    if (fclose(text) == 0)
        return names;
    free(names);
    return NULL;
}

/* What it inherits, as inherit.h numbers it. */
static void collect(struct vb_inheritance *inheritance, struct vb_child *child, const struct vb_worker_socket *sockets,
                    unsigned n_sockets)
{
    const struct vb_generation *generation = child->generation;
    const struct vb_master *master = generation->master;
    unsigned number = VB_FD_LISTEN;
    vb_inherit(inheritance, 1, 1);
    vb_inherit(inheritance, 2, 2);
    vb_inherit_channel(inheritance, VB_FD_CONTROL, &child->control);
    vb_inherit(inheritance, VB_FD_SEGMENT, vb_shm_fd_for_workers(master->shm));
    vb_inherit(inheritance, VB_FD_CONFIG, generation->config_fd);
    vb_inherit(inheritance, VB_FD_LOG, vb_logger_fd(master->logger));
    for (unsigned i = 0; i < n_sockets; i++)
        vb_inherit(inheritance, number++, sockets[i].fd);
    vb_inherit(inheritance, number++, child->inbox[0]);
    for (unsigned i = 0; i < generation->n_workers; i++)
        vb_inherit(inheritance, number++, generation->children[i].inbox[1]);
}

static int execute(struct vb_child *child, char *sockets, const struct vb_inheritance *inheritance)
{
    const struct vb_generation *generation = child->generation;
    struct vb_master *master = generation->master;
    const char *identity = generation->config.identity;
    char index[16], slot[16], workers[16];
    snprintf(index, sizeof(index), "%u", child->index);
    snprintf(workers, sizeof(workers), "%u", generation->n_workers);
    snprintf(slot, sizeof(slot), "%d", child->slot);
    char *args[] = {"vibebalancer",
                    VB_WORKER_WORD,
                    index,
                    slot,
                    workers,
                    sockets,
                    (char *)vb_log_level_name(master->options->log_level),
                    (char *)(identity != NULL ? identity : VB_IDENTITY_KEPT),
                    (char *)master->config_file,
                    NULL};
    /* The link in /proc names the very binary that this master runs, also after the file was replaced. */
    uv_process_options_t options = {.file = "/proc/self/exe",
                                    .args = args,
                                    .exit_cb = on_process_exit,
                                    .stdio = inheritance->stdio,
                                    .stdio_count = (int)inheritance->n};
    return uv_spawn(&master->loop, &child->process, &options);
}

/* Sets *ret_begun when libuv has the process's handle, which must be closed then. */
static int spawn_process(struct vb_child *child, bool *ret_begun)
{
    const struct vb_generation *generation = child->generation;
    struct vb_worker_socket *sockets = NULL;
    struct vb_inheritance inheritance = {.n = 0};
    int n = vb_listeners_of_worker(&generation->master->listeners, generation->config.conf, child->index,
                                   generation->n_workers, generation->state == VB_GENERATION_BUILDING, &sockets);
    if (n < 0)
        return n;
    char *names = name_sockets(sockets, (unsigned)n);
    collect(&inheritance, child, sockets, (unsigned)n);
    *ret_begun = names != NULL && !inheritance.failed;
    int r = *ret_begun ? execute(child, names, &inheritance) : -ENOMEM;
    vb_inheritance_free(&inheritance);
    free(names);
    free(sockets);
    return r;
}

static void explain(const struct vb_child *child, int code)
{
    struct vb_error *why = &child->generation->why;
    if (child->slot == -ENOMEM)
        vb_fail(why, code,
                "cannot spawn worker %u: there is no room for its part of the segment; free some memory, lower "
                "segment.backends, or put it elsewhere with --segment",
                child->index);
    else if (child->slot < 0)
        vb_fail(why, code, "cannot spawn worker %u: too many workers are still leaving", child->index);
    else
        vb_fail(why, code, "cannot spawn worker %u: %s", child->index, vb_strerror(code));
    vb_log_error("%s", why->text);
}

/* On failure the child is gone as one whose process has ended, a little later. */
void vb_child_spawn(struct vb_child *child)
{
    struct vb_generation *generation = child->generation;
    struct vb_master *master = generation->master;
    bool count_ips = generation->config.conf->limits.connections_per_ip > 0, begun = false;
    child->state = VB_CHILD_STARTING;
    child->started_ms = uv_now(&master->loop);
    child->killed = child->adopted = false;
    child->process.data = child->control.data = child;
    uv_pipe_init(&master->loop, &child->control, 0);
    child->slot = vb_shm_claim_worker(master->shm, child->index, generation->number, count_ips);
    int r = child->slot < 0 ? child->slot : spawn_process(child, &begun);
    if (r == 0) {
        child->pid = child->process.pid;
        vb_shm_worker_started(master->shm, (unsigned)child->slot, child->pid);
        uv_read_start((uv_stream_t *)&child->control, on_alloc, on_message);
        return;
    }
    explain(child, r);
    if (child->slot >= 0)
        give_slot_back(child, true);
    child->slot = -1;
    child->state = VB_CHILD_ENDED;
    if (begun)
        uv_close((uv_handle_t *)&child->process, on_process_closed);
    else
        uv_close((uv_handle_t *)&child->control, on_control_closed);
}

/* ---- all of a generation ----------------------------------------------------------------------------------------- */

static int allocate(struct vb_generation *generation)
{
    generation->children = calloc(generation->n_workers, sizeof(*generation->children));
    if (generation->children == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < generation->n_workers; i++) {
        struct vb_child *child = &generation->children[i];
        child->generation = generation;
        child->index = i;
        child->slot = child->inbox[0] = child->inbox[1] = -1;
        child->respawn.data = child;
    }
    return 0;
}

int vb_children_open(struct vb_generation *generation)
{
    int r = allocate(generation);
    for (unsigned i = 0; r == 0 && i < generation->n_workers; i++)
        r = vb_inbox_pair(generation->children[i].inbox);
    return r;
}

/* ---- handed over ------------------------------------------------------------------------------------------------- */

static json_t *pack_child(const struct vb_child *child, json_t **fds)
{
    bool has_process = child->slot >= 0;
    uv_os_fd_t control = -1;
    if (has_process)
        uv_fileno((const uv_handle_t *)&child->control, &control);
    return json_pack(
        "{s:i, s:i, s:i, s:b, s:i, s:I, s:o, s:[o, o]}", "state", has_process ? (int)child->state : VB_CHILD_NONE,
        "slot", child->slot, "pid", has_process ? (int)child->pid : 0, "killed", child->killed, "quick_deaths",
        (int)child->quick_deaths, "age_ms", (json_int_t)(uv_now(&child->generation->master->loop) - child->started_ms),
        "control", vb_json_fd(fds, control), "inbox", vb_json_fd(fds, child->inbox[0]),
        vb_json_fd(fds, child->inbox[1]));
}

json_t *vb_children_pack(const struct vb_generation *generation, json_t **fds)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < generation->n_workers; i++)
        vb_json_add(&list, pack_child(&generation->children[i], fds));
    return list;
}

static int unpack_child(struct vb_child *child, const json_t *packed, int *ret_control, struct vb_error *err)
{
    const struct vb_master *master = child->generation->master;
    int state, killed;
    json_int_t age;
    json_error_t error;
    if (json_unpack_ex((json_t *)packed, &error, 0, "{s:i, s:i, s:i, s:b, s:i, s:I, s:i, s:[i, i]}", "state", &state,
                       "slot", &child->slot, "pid", &child->pid, "killed", &killed, "quick_deaths",
                       &child->quick_deaths, "age_ms", &age, "control", ret_control, "inbox", &child->inbox[0],
                       &child->inbox[1]) != 0)
        return vb_json_wrong(&error, err);
    if (state < VB_CHILD_NONE || state > VB_CHILD_LEAVING || (child->slot >= 0) != (state > VB_CHILD_ENDED) ||
        child->slot >= (int)vb_shm_slots(master->shm) || (child->slot >= 0 && child->pid <= 0))
        return vb_fail(err, -EPROTO, "worker %u was handed over in state %d with slot %d and pid %d", child->index,
                       state, child->slot, (int)child->pid);
    child->state = (enum vb_child_state)state;
    child->killed = killed != 0;
    child->started_ms = uv_now(&master->loop) - (uint64_t)age;
    child->adopted = child->slot >= 0;
    return 0;
}

static int connect_child(struct vb_child *child, int control, struct vb_error *err)
{
    uv_pipe_init(&child->generation->master->loop, &child->control, 0);
    child->control.data = child;
    int r = uv_pipe_open(&child->control, control);
    if (r == 0)
        r = uv_read_start((uv_stream_t *)&child->control, on_alloc, on_message);
    return r < 0 ? vb_fail(err, r, "cannot go on with worker %u: %s", child->index, vb_strerror(r)) : 0;
}

int vb_children_adopt(struct vb_generation *generation, const json_t *packed, bool rehearsal, struct vb_error *err)
{
    size_t n = json_array_size(packed);
    if (n == 0 || n > VB_WORKERS_MAX)
        return vb_fail(err, -EPROTO, "a generation of %zu workers was handed over", n);
    generation->n_workers = (unsigned)n;
    int r = allocate(generation);
    if (r < 0)
        return vb_fail(err, r, "out of memory");
    for (unsigned i = 0; r == 0 && i < n; i++) {
        struct vb_child *child = &generation->children[i];
        int control;
        r = unpack_child(child, json_array_get(packed, i), &control, err);
        if (r == 0 && child->adopted && !rehearsal)
            r = connect_child(child, control, err);
    }
    return r;
}

/* It may have ended already, and what was executed in between, a script perhaps, may have reaped it. */
void vb_child_resume(struct vb_child *child)
{
    siginfo_t info;
    if (child->state == VB_CHILD_NONE && child->generation->state == VB_GENERATION_SERVING)
        uv_timer_start(&child->respawn, on_respawn, 0, 0); /* its death is counted; another executable may do better */
    else if (child->state != VB_CHILD_NONE && waitid(P_PID, (id_t)child->pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0)
        vb_child_reaped(child, 0);
}

/* ---- their end --------------------------------------------------------------------------------------------------- */

void vb_children_close(struct vb_generation *generation)
{
    for (unsigned i = 0; generation->children != NULL && i < generation->n_workers; i++)
        for (unsigned end = 0; end < 2; end++)
            if (generation->children[i].inbox[end] >= 0)
                close(generation->children[i].inbox[end]);
    free(generation->children);
}
