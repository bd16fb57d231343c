/*
 * The master's side of the worker processes.
 *
 * A child goes NONE -> STARTING -> SERVING -> (DRAINING ->) NONE. When its process ends without having been told to,
 * what it counted as in flight is given back and it is spawned again: at once the first time, because its listening
 * socket goes on receiving its share of the connections; with growing waits when it keeps dying young.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "master.h"
#include "privileges.h"
#include "vb/inbox.h"
#include "vb/log.h"

#define YOUNG_MS        10000 /* a death before this age is a quick one */
#define BACKOFF_MS      100   /* before the third spawn; doubles */
#define BACKOFF_MAX_MS  5000
#define HOPELESS_DEATHS 5 /* quick deaths of a worker before any has ever served: something is wrong for good */

static void spawn(struct vb_child *child);

static void send_message(struct vb_child *child, char message)
{
    uv_buf_t buf = uv_buf_init(&message, 1);
    uv_try_write((uv_stream_t *)&child->control, &buf, 1); /* a full pipe or a dead worker: its end will be seen */
}

/* ---- the end of a process ---------------------------------------------------------------------------------------- */

static void on_respawn(uv_timer_t *timer)
{
    spawn(timer->data);
}

static void respawn_later(struct vb_child *child)
{
    struct vb_master *master = child->master;
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

static void log_exit(const struct vb_child *child, int64_t status, int signal)
{
    int pid = child->process.pid;
    if (signal != 0)
        vb_log_error("worker %u (pid %d) was killed by signal %d (%s)", child->index, pid, signal, strsignal(signal));
    else if (status != 0 || !child->master->stopping)
        vb_log_error("worker %u (pid %d) ended with status %d", child->index, pid, (int)status);
    else
        vb_log_info("worker %u (pid %d) has finished", child->index, pid);
}

/* Its process and its control channel are closed: the child is free for another process. */
static void on_control_closed(uv_handle_t *handle)
{
    struct vb_child *child = handle->data;
    child->state = VB_CHILD_NONE;
    if (!child->master->stopping)
        respawn_later(child);
    else
        vb_master_child_stopped(child->master);
}

static void on_process_closed(uv_handle_t *handle)
{
    struct vb_child *child = handle->data;
    uv_close((uv_handle_t *)&child->control, on_control_closed);
}

static void on_process_exit(uv_process_t *process, int64_t status, int signal)
{
    struct vb_child *child = process->data;
    log_exit(child, status, signal);
    vb_shm_release_worker(child->master->shm, (unsigned)child->slot, !child->master->stopping);
    child->slot = -1;
    vb_master_reap_orphans(child->master);
    uv_close((uv_handle_t *)process, on_process_closed);
}

/* ---- its messages ------------------------------------------------------------------------------------------------ */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    static char bytes[64];
    *buf = uv_buf_init(bytes, sizeof(bytes));
}

static void on_message(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct vb_child *child = stream->data;
    struct vb_master *master = child->master;
    if (n < 0)
        uv_read_stop(stream); /* on_process_exit follows */
    for (ssize_t i = 0; i < n && child->slot >= 0; i++) {
        vb_u32 *state = &vb_shm_worker(master->shm, (unsigned)child->slot)->state;
        if (buf->base[i] == VB_CONTROL_READY && child->state == VB_CHILD_STARTING) {
            child->state = VB_CHILD_SERVING;
            atomic_store(state, VB_WORKER_READY);
            vb_master_child_serves(master, child);
        } else if (buf->base[i] == VB_CONTROL_DRAINING) {
            child->state = VB_CHILD_DRAINING;
            atomic_store(state, VB_WORKER_DRAINING);
            vb_master_child_stopped(master);
        }
    }
}

/* ---- spawning ---------------------------------------------------------------------------------------------------- */

static int spawn_process(struct vb_child *child)
{
    struct vb_master *master = child->master;
    unsigned n_listeners = master->conf->n_listeners, inbox = VB_FD_LISTEN + n_listeners;
    unsigned count = inbox + 1 + master->n_workers;
    char index[16], slot[16], workers[16];
    uv_stdio_container_t *stdio = calloc(count, sizeof(*stdio));
    if (stdio == NULL)
        return -ENOMEM;
    stdio[0].flags = UV_IGNORE;
    for (unsigned fd = 1; fd < count; fd++)
        stdio[fd].flags = UV_INHERIT_FD;
    stdio[1].data.fd = 1;
    stdio[2].data.fd = 2;
    stdio[VB_FD_CONTROL].flags = UV_CREATE_PIPE | UV_READABLE_PIPE | UV_WRITABLE_PIPE;
    stdio[VB_FD_CONTROL].data.stream = (uv_stream_t *)&child->control;
    stdio[VB_FD_SEGMENT].data.fd = vb_shm_fd_for_workers(master->shm);
    stdio[VB_FD_CONFIG].data.fd = master->config_fd;
    stdio[VB_FD_LOG].data.fd = vb_logger_fd(master->logger);
    for (unsigned i = 0; i < n_listeners; i++)
        stdio[VB_FD_LISTEN + i].data.fd = master->listen_fds[child->index * n_listeners + i];
    stdio[inbox].data.fd = child->inbox[0];
    for (unsigned i = 0; i < master->n_workers; i++)
        stdio[inbox + 1 + i].data.fd = master->children[i].inbox[1];
    snprintf(index, sizeof(index), "%u", child->index);
    snprintf(workers, sizeof(workers), "%u", master->n_workers);
    snprintf(slot, sizeof(slot), "%d", child->slot);
    char *args[] = {"vibebalancer",
                    VB_WORKER_WORD,
                    index,
                    slot,
                    workers,
                    (char *)vb_log_level_name(master->options->log_level),
                    (char *)(master->identity != NULL ? master->identity : VB_IDENTITY_KEPT),
                    (char *)master->config_file,
                    NULL};
    /* The link in /proc names the very binary that this master runs, also after the file was replaced. */
    uv_process_options_t options = {
        .file = "/proc/self/exe", .args = args, .exit_cb = on_process_exit, .stdio = stdio, .stdio_count = (int)count};
    int r = uv_spawn(&master->loop, &child->process, &options);
    free(stdio);
    return r;
}

static void spawn(struct vb_child *child)
{
    struct vb_master *master = child->master;
    child->slot = vb_shm_claim_worker(master->shm, child->index, atomic_load(&vb_shm_header(master->shm)->generation));
    assert(child->slot != -ENOSPC); /* capacity is for more workers than there are children */
    child->started_ms = uv_now(&master->loop);
    child->condemned = false;
    if (child->slot < 0) {
        vb_log_error("cannot spawn worker %u: no room for its part of the segment", child->index);
        respawn_later(child);
        return;
    }
    child->state = VB_CHILD_STARTING;
    child->process.data = child->control.data = child;
    uv_pipe_init(&master->loop, &child->control, 0);
    int r = spawn_process(child);
    if (r < 0) {
        vb_log_error("cannot spawn worker %u: %s", child->index, vb_strerror(r));
        vb_shm_release_worker(master->shm, (unsigned)child->slot, true);
        child->slot = -1;
        uv_close((uv_handle_t *)&child->process, on_process_closed);
        return;
    }
    vb_shm_worker_started(master->shm, (unsigned)child->slot, child->process.pid);
    uv_read_start((uv_stream_t *)&child->control, on_alloc, on_message);
}

int vb_children_open(struct vb_master *master)
{
    master->children = calloc(master->n_workers, sizeof(*master->children));
    if (master->children == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < master->n_workers; i++) {
        struct vb_child *child = &master->children[i];
        child->master = master;
        child->index = i;
        child->slot = child->inbox[0] = child->inbox[1] = -1;
        uv_timer_init(&master->loop, &child->respawn);
        child->respawn.data = child;
    }
    for (unsigned i = 0; i < master->n_workers; i++) {
        int r = vb_inbox_pair(master->children[i].inbox);
        if (r < 0)
            return r;
    }
    return 0;
}

void vb_children_close(struct vb_master *master)
{
    for (unsigned i = 0; master->children != NULL && i < master->n_workers; i++)
        for (unsigned end = 0; end < 2; end++)
            if (master->children[i].inbox[end] >= 0)
                close(master->children[i].inbox[end]);
    free(master->children);
}

void vb_children_start(struct vb_master *master)
{
    for (unsigned i = 0; i < master->n_workers; i++)
        spawn(&master->children[i]);
}

void vb_children_drain(struct vb_master *master)
{
    /* All of them first: nobody shall put a connection into the inbox of one that is leaving. */
    for (unsigned i = 0; i < master->n_workers; i++)
        if (master->children[i].slot >= 0)
            atomic_store(&vb_shm_worker(master->shm, (unsigned)master->children[i].slot)->state, VB_WORKER_DRAINING);
    for (unsigned i = 0; i < master->n_workers; i++) {
        struct vb_child *child = &master->children[i];
        uv_timer_stop(&child->respawn);
        if (child->slot >= 0)
            send_message(child, VB_CONTROL_DRAIN);
    }
}

void vb_child_kill(struct vb_child *child)
{
    uv_process_kill(&child->process, SIGKILL);
}

void vb_children_kill(struct vb_master *master)
{
    for (unsigned i = 0; i < master->n_workers; i++)
        if (master->children[i].slot >= 0)
            vb_child_kill(&master->children[i]);
}

bool vb_children_all_gone(const struct vb_master *master)
{
    for (unsigned i = 0; i < master->n_workers; i++)
        if (master->children[i].state != VB_CHILD_NONE)
            return false;
    return true;
}
