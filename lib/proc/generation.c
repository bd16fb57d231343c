#include "generation.h"

#include <errno.h>
#include <unistd.h>

#include "inherit.h"
#include "listeners.h"
#include "master.h"
#include "vb/log.h"

/* Workers cut their connections at the end of the grace; whoever hangs is killed after this. */
#define KILL_EXTRA_MS 1000

static void on_patience_over(uv_timer_t *timer)
{
    struct vb_generation *generation = timer->data;
    vb_log_warn("a worker of generation %u does not end: killing it", generation->number);
    vb_generation_kill(generation);
}

/* ---- made and gone ----------------------------------------------------------------------------------------------- */

int vb_generation_open(struct vb_generation **ret_generation, struct vb_master *master, struct vb_config *config,
                       unsigned n_workers, struct vb_error *err)
{
    struct vb_generation *generation = calloc(1, sizeof(*generation));
    if (generation == NULL) {
        vb_config_free(config);
        return vb_fail(err, -ENOMEM, "out of memory");
    }
    generation->master = master;
    generation->config = *config;
    generation->n_workers = n_workers;
    *config = (struct vb_config){.conf = NULL};
    int r = generation->config_fd = vb_config_seal(&generation->config, err);
    if (r >= 0) {
        r = vb_children_open(generation);
        if (r < 0)
            vb_fail(err, r, "cannot make room for %u workers: %s", n_workers, vb_strerror(r));
    }
    if (r < 0) {
        vb_generation_free(&generation);
        return r;
    }
    uv_timer_init(&master->loop, &generation->patience);
    generation->patience.data = generation;
    for (unsigned i = 0; i < n_workers; i++)
        uv_timer_init(&master->loop, &generation->children[i].respawn);
    *ret_generation = generation;
    return 0;
}

void vb_generation_free(struct vb_generation **generation_ptr)
{
    struct vb_generation *generation = *generation_ptr;
    if (generation == NULL)
        return;
    *generation_ptr = NULL;
    vb_children_close(generation);
    if (generation->config_fd >= 0)
        close(generation->config_fd);
    vb_config_free(&generation->config);
    free(generation);
}

static void on_closed(uv_handle_t *handle)
{
    struct vb_generation *generation = handle->data;
    if (--generation->handles == 0)
        vb_generation_free(&generation);
}

static void on_respawn_closed(uv_handle_t *handle)
{
    struct vb_child *child = handle->data;
    child->respawn.data = child->generation;
    on_closed(handle);
}

void vb_generation_close(struct vb_generation **generation_ptr)
{
    struct vb_generation *generation = *generation_ptr;
    *generation_ptr = NULL;
    generation->handles = 1 + generation->n_workers;
    uv_close((uv_handle_t *)&generation->patience, on_closed);
    for (unsigned i = 0; i < generation->n_workers; i++)
        uv_close((uv_handle_t *)&generation->children[i].respawn, on_respawn_closed);
}

/* ---- serving ----------------------------------------------------------------------------------------------------- */

bool vb_generation_all(const struct vb_generation *generation, enum vb_child_state state)
{
    for (unsigned i = 0; i < generation->n_workers; i++)
        if (generation->children[i].state < state)
            return false;
    return true;
}

bool vb_generation_is_gone(const struct vb_generation *generation)
{
    for (unsigned i = 0; i < generation->n_workers; i++)
        if (generation->children[i].state != VB_CHILD_NONE)
            return false;
    return true;
}

void vb_generation_start(struct vb_generation *generation)
{
    for (unsigned i = 0; i < generation->n_workers; i++)
        vb_child_spawn(&generation->children[i]);
}

void vb_generation_serve(struct vb_generation *generation)
{
    generation->state = VB_GENERATION_SERVING;
    for (unsigned i = 0; i < generation->n_workers; i++)
        if (generation->children[i].state == VB_CHILD_READY)
            vb_child_serve(&generation->children[i]);
}

void vb_generation_child_ready(struct vb_child *child)
{
    struct vb_generation *generation = child->generation;
    if (generation->state == VB_GENERATION_SERVING)
        vb_child_serve(child);
    else if (generation->state == VB_GENERATION_BUILDING && vb_generation_all(generation, VB_CHILD_READY))
        vb_master_generation_ready(generation);
}

/* ---- leaving ----------------------------------------------------------------------------------------------------- */

static bool has_process(const struct vb_child *child)
{
    return child->slot >= 0;
}

static void tell_all(struct vb_generation *generation, char message)
{
    for (unsigned i = 0; i < generation->n_workers; i++)
        if (has_process(&generation->children[i]))
            vb_child_tell(&generation->children[i], &message, 1);
}

/* Or may do so yet. */
static bool accepts(const struct vb_child *child)
{
    return child->state == VB_CHILD_STARTING || child->state == VB_CHILD_READY || child->state == VB_CHILD_SERVING;
}

/* The addresses that are served no more. */
static void tell_closed(struct vb_generation *generation, const struct vb_conf *next)
{
    const struct vb_conf *conf = generation->config.conf;
    for (unsigned l = 0; l < conf->n_listeners; l++) {
        const char message[] = {VB_CONTROL_CLOSE, (char)l};
        if (vb_listeners_named(next, conf->listeners[l].text))
            continue;
        for (unsigned i = 0; i < generation->n_workers; i++)
            if (has_process(&generation->children[i]))
                vb_child_tell(&generation->children[i], message, sizeof(message));
    }
}

/*
 * Once nobody accepts any more, or gives away what he has accepted, nothing will come to an inbox that is not there by
 * then; only now may a worker leave for want of connections.
 */
static void see_whether_quiet(struct vb_generation *generation)
{
    if (generation->state != VB_GENERATION_LEAVING || generation->quiet)
        return;
    for (unsigned i = 0; i < generation->n_workers; i++)
        if (accepts(&generation->children[i]))
            return;
    generation->quiet = true;
    tell_all(generation, VB_CONTROL_FINISH);
    vb_master_generation_quiet(generation);
}

void vb_generation_child_quiet(struct vb_child *child)
{
    see_whether_quiet(child->generation);
}

void vb_generation_retire(struct vb_generation *generation, const struct vb_conf *next)
{
    struct vb_master *master = generation->master;
    generation->state = VB_GENERATION_LEAVING;
    uint64_t grace_ms = generation->config.conf->shutdown_grace_ms;
    uv_timer_start(&generation->patience, on_patience_over, grace_ms + KILL_EXTRA_MS, 0);
    /* All of them first: nobody shall put a connection into the inbox of one that is leaving. */
    for (unsigned i = 0; i < generation->n_workers; i++) {
        uv_timer_stop(&generation->children[i].respawn);
        if (has_process(&generation->children[i]))
            atomic_store(&vb_shm_worker(master->shm, (unsigned)generation->children[i].slot)->state,
                         VB_WORKER_DRAINING);
    }
    if (next != NULL)
        tell_closed(generation, next);
    tell_all(generation, next != NULL ? VB_CONTROL_RETIRE : VB_CONTROL_DRAIN);
    see_whether_quiet(generation);
    if (vb_generation_is_gone(generation)) /* nobody was there */
        vb_master_generation_gone(generation);
}

void vb_generation_cut(struct vb_generation *generation)
{
    if (generation->cut)
        return;
    generation->cut = true;
    tell_all(generation, VB_CONTROL_CUT);
    uv_timer_start(&generation->patience, on_patience_over, KILL_EXTRA_MS, 0);
}

void vb_generation_abandon(struct vb_generation *generation)
{
    generation->state = VB_GENERATION_LEAVING;
    generation->cut = true;
    vb_generation_kill(generation);
    if (vb_generation_is_gone(generation))
        vb_master_generation_gone(generation);
}

void vb_generation_kill(struct vb_generation *generation)
{
    for (unsigned i = 0; i < generation->n_workers; i++)
        if (has_process(&generation->children[i]))
            vb_child_kill(&generation->children[i]);
}

void vb_generation_child_gone(struct vb_child *child)
{
    struct vb_generation *generation = child->generation;
    if (generation->state == VB_GENERATION_BUILDING) {
        vb_master_generation_broken(generation, child);
        return;
    }
    see_whether_quiet(generation);
    if (generation->state == VB_GENERATION_LEAVING && vb_generation_is_gone(generation))
        vb_master_generation_gone(generation);
}
