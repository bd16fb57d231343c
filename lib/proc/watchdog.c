/*
 * A worker gives a sign of life several times within the limit, whatever its load, and with each request. One that has
 * given none for longer than the limit hangs: it is named with the last request it took, and killed.
 *
 * Silence counts only while the master itself has been running: after it was stopped, or the machine was frozen, all
 * workers get a fresh limit. It looks several times within the limit too, so that no such pause goes unnoticed which
 * could be taken for a worker's silence: a sign each quarter and a pause of a half leave a quarter.
 */
#include "watchdog.h"

#include "master.h"
#include "vb/clock.h"
#include "vb/log.h"

#define LOOK_MS     1000 /* at the longest */
#define PAUSE_US    2000000
#define STARTING_US 30000000 /* until a new process is ready, at the least */

static void condemn(struct vb_child *child, uint64_t silent_us)
{
    double seconds = (double)silent_us / 1e6;
    int pid = child->pid;
    char request[VB_SHM_REQUEST_MAX];
    const struct vb_shm *shm = child->generation->master->shm;
    const struct vb_shm_worker *worker = vb_shm_worker(shm, (unsigned)child->slot);
    vb_shm_text(request, sizeof(request), worker->request, sizeof(worker->request));
    if (child->state == VB_CHILD_STARTING)
        vb_log_error("worker %u (pid %d) is still not ready after %.1f s: killing it", child->index, pid, seconds);
    else if (request[0] == '\0')
        vb_log_error("worker %u (pid %d) has not moved for %.1f s; it has taken no request: killing it", child->index,
                     pid, seconds);
    else
        vb_log_error("worker %u (pid %d) has not moved for %.1f s; the last request it took: \"%s\": killing it",
                     child->index, pid, seconds, request);
    vb_child_kill(child);
}

static void see_child(struct vb_child *child, uint64_t now)
{
    struct vb_master *master = child->generation->master;
    uint64_t limit = child->generation->config.conf->watchdog_ms * 1000, silent;
    if (child->slot < 0 || child->killed || limit == 0)
        return;
    if (child->state == VB_CHILD_STARTING) {
        limit = VB_MAX(limit, (uint64_t)STARTING_US);
        silent = (uv_now(&master->loop) - child->started_ms) * 1000;
    } else {
        uint64_t moved = vb_shm_worker_moved_us(vb_shm_worker(master->shm, (unsigned)child->slot));
        if (moved == 0)
            return; /* on its way out, for which shutdown.grace is the limit */
        silent = now - VB_MIN(moved, now);
    }
    if (VB_MIN(silent, now - master->watchdog.since_us) > limit)
        condemn(child, silent);
}

static void see_generation(struct vb_generation *generation, void *arg)
{
    const uint64_t *now = arg;
    for (unsigned i = 0; i < generation->n_workers; i++)
        see_child(&generation->children[i], *now);
}

static void find_least(struct vb_generation *generation, void *arg)
{
    uint64_t *least = arg, limit = generation->config.conf->watchdog_ms;
    if (limit != 0)
        *least = VB_MIN(*least, limit);
}

static void on_look(uv_timer_t *timer)
{
    struct vb_master *master = timer->data;
    struct vb_watchdog *watchdog = &master->watchdog;
    uint64_t now = vb_clock_us();
    if (now - watchdog->looked_us > VB_MIN(watchdog->limit_ms * 1000 / 2, (uint64_t)PAUSE_US))
        watchdog->since_us = now;
    watchdog->looked_us = now;
    vb_master_each_generation(master, see_generation, &now);
}

void vb_watchdog_open(struct vb_master *master)
{
    struct vb_watchdog *watchdog = &master->watchdog;
    uv_timer_init(&master->loop, &watchdog->timer);
    watchdog->timer.data = master;
    vb_watchdog_follow(master);
}

void vb_watchdog_follow(struct vb_master *master)
{
    struct vb_watchdog *watchdog = &master->watchdog;
    uint64_t limit = UINT64_MAX, now = vb_clock_us();
    vb_master_each_generation(master, find_least, &limit);
    if (limit == UINT64_MAX)
        limit = 0;
    if (limit == watchdog->limit_ms)
        return;
    if (watchdog->limit_ms == 0)
        watchdog->looked_us = watchdog->since_us = now;
    watchdog->limit_ms = limit;
    if (limit == 0)
        uv_timer_stop(&watchdog->timer);
    else
        uv_timer_start(&watchdog->timer, on_look, VB_MIN(limit / 4, (uint64_t)LOOK_MS),
                       VB_MIN(limit / 4, (uint64_t)LOOK_MS));
}
