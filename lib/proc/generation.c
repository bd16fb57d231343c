#include "generation.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "inherit.h"
#include "json.h"
#include "listeners.h"
#include "master.h"
#include "vb/log.h"
#include "vb/str.h"

/* Workers cut their connections at the end of the grace; whoever hangs is killed after this. */
#define KILL_EXTRA_MS 1000

static void on_patience_over(uv_timer_t *timer)
{
    struct vb_generation *generation = timer->data;
    vb_log_warn("a worker of generation %u does not end: killing it", generation->number);
    vb_generation_kill(generation);
}

/* ---- made and gone ----------------------------------------------------------------------------------------------- */

static void init_timers(struct vb_generation *generation)
{
    uv_loop_t *loop = &generation->master->loop;
    uv_timer_init(loop, &generation->patience);
    generation->patience.data = generation;
    for (unsigned i = 0; i < generation->n_workers; i++)
        uv_timer_init(loop, &generation->children[i].respawn);
}

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
    init_timers(generation);
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

/* ---- handed over ------------------------------------------------------------------------------------------------- */

/* 0: the timer does not run. */
static json_int_t patience_left_ms(const struct vb_generation *generation)
{
    if (!uv_is_active((const uv_handle_t *)&generation->patience))
        return 0;
    return (json_int_t)VB_MAX(uv_timer_get_due_in(&generation->patience), 1u);
}

json_t *vb_generation_pack(const struct vb_generation *generation, json_t **fds)
{
    const struct vb_conf *conf = generation->config.conf;
    return json_pack("{s:i, s:i, s:b, s:b, s:I, s:I, s:s*, s:s*, s:s*, s:o, s:o}", "number", (int)generation->number,
                     "state", (int)generation->state, "quiet", generation->quiet, "cut", generation->cut, "patience_ms",
                     patience_left_ms(generation), "left_ms_ago",
                     (json_int_t)(uv_now(&generation->master->loop) - generation->left_ms), "identity",
                     generation->config.identity, "segment_path", conf->segment.path, "admin_socket",
                     conf->admin.socket, "configuration", vb_json_fd(fds, generation->config_fd), "workers",
                     vb_children_pack(generation, fds));
}

static int unpack(struct vb_generation *generation, const json_t *packed, uint64_t *ret_patience_ms,
                  struct vb_error *err)
{
    int state, quiet, cut;
    json_int_t patience, left;
    json_error_t error;
    if (json_unpack_ex((json_t *)packed, &error, 0, "{s:i, s:i, s:b, s:b, s:I, s:I, s:i}", "number",
                       &generation->number, "state", &state, "quiet", &quiet, "cut", &cut, "patience_ms", &patience,
                       "left_ms_ago", &left, "configuration", &generation->config_fd) != 0)
        return vb_json_wrong(&error, err);
    if (state != VB_GENERATION_SERVING && state != VB_GENERATION_LEAVING)
        return vb_fail(err, -EPROTO, "a generation was handed over in state %d", state);
    generation->state = (enum vb_generation_state)state;
    generation->quiet = quiet != 0;
    generation->cut = cut != 0;
    generation->left_ms = uv_now(&generation->master->loop) - (uint64_t)left;
    *ret_patience_ms = (uint64_t)patience;
    return 0;
}

/* NULL where `packed` does not have it. -ENOMEM. */
static int take_text(char **text, const json_t *packed, const char *key)
{
    const char *now = json_string_value(json_object_get(packed, key));
    free(*text);
    *text = now == NULL ? NULL : strdup(now);
    return now != NULL && *text == NULL ? -ENOMEM : 0;
}

/* The text may wish for what cannot change while the instance lives. */
static int take_lasting(struct vb_generation *generation, const json_t *packed)
{
    const struct vb_shm *shm = generation->master->shm;
    struct vb_conf *conf = generation->config.conf;
    vb_copy(conf->name, sizeof(conf->name), vb_shm_header(shm)->name);
    conf->segment.backends = vb_shm_capacity(shm).backends;
    int r = take_text(&conf->segment.path, packed, "segment_path");
    if (r == 0)
        r = take_text(&conf->admin.socket, packed, "admin_socket");
    return r == 0 ? take_text(&generation->config.identity, packed, "identity") : r;
}

static int read_config(struct vb_generation *generation, const json_t *packed, struct vb_error *err)
{
    int r = vb_config_unseal(generation->config_fd, generation->master->config_file, &generation->config.conf);
    if (r < 0)
        return vb_fail(err, r,
                       "version " VB_VERSION " does not take the configuration that is served now; reload with one "
                       "that both versions take, or stop and start");
    r = take_lasting(generation, packed);
    return r < 0 ? vb_fail(err, r, "out of memory") : 0;
}

int vb_generation_adopt(struct vb_generation **ret_generation, struct vb_master *master, const json_t *packed,
                        bool rehearsal, struct vb_error *err)
{
    uint64_t patience_ms;
    struct vb_generation *generation = calloc(1, sizeof(*generation));
    if (generation == NULL)
        return vb_fail(err, -ENOMEM, "out of memory");
    generation->master = master;
    int r = unpack(generation, packed, &patience_ms, err);
    if (r == 0)
        r = read_config(generation, packed, err);
    if (r == 0)
        r = vb_children_adopt(generation, json_object_get(packed, "workers"), rehearsal, err);
    if (r < 0)
        return r;
    init_timers(generation);
    if (patience_ms > 0)
        uv_timer_start(&generation->patience, on_patience_over, patience_ms, 0);
    *ret_generation = generation;
    return 0;
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

/* What was about to happen when the loop of the executable before this one ended. */
void vb_generation_resume(struct vb_generation *generation)
{
    for (unsigned i = 0; i < generation->n_workers; i++)
        vb_child_resume(&generation->children[i]);
    see_whether_quiet(generation);
    if (generation->state == VB_GENERATION_LEAVING && vb_generation_is_gone(generation))
        vb_master_generation_gone(generation);
}

void vb_generation_retire(struct vb_generation *generation, const struct vb_conf *next)
{
    struct vb_master *master = generation->master;
    generation->state = VB_GENERATION_LEAVING;
    generation->left_ms = uv_now(&master->loop);
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

void vb_generation_hurry(struct vb_generation *generation)
{
    if (!generation->cut)
        tell_all(generation, VB_CONTROL_DRAIN);
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
