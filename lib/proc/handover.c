#include "handover.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "control.h"
#include "json.h"
#include "master.h"
#include "vb/str.h"

/* ---- packing ----------------------------------------------------------------------------------------------------- */

struct generations {
    json_t *list, **fds;
};

static void pack_generation(struct vb_generation *generation, void *arg)
{
    struct generations *generations = arg;
    vb_json_add(&generations->list, vb_generation_pack(generation, generations->fds));
}

/* The oldest first. */
static json_t *pack_generations(struct vb_master *master, json_t **fds)
{
    struct generations generations = {.list = json_array(), .fds = fds};
    vb_master_each_generation(master, pack_generation, &generations);
    return generations.list;
}

static json_t *pack_segment(const struct vb_master *master, json_t **fds)
{
    struct vb_shm_files files = vb_shm_files(master->shm);
    return json_pack("{s:s, s:o, s:o}", "path", files.path, "lock", vb_json_fd(fds, files.lock_fd), "file",
                     vb_json_fd(fds, files.fd));
}

static json_t *pack_log(const struct vb_master *master, json_t **fds)
{
    const int *pipe = vb_logger_pipe(master->logger);
    return json_pack("[o, o]", vb_json_fd(fds, pipe[0]), vb_json_fd(fds, pipe[1]));
}

json_t *vb_handover_pack(struct vb_master *master)
{
    json_t *fds = json_array();
    json_t *state = json_pack("{s:i, s:s, s:b, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "format", VB_HANDOVER_FORMAT,
                              "configuration", master->config_file, "ever_served", master->ever_served, "executable",
                              vb_json_fd(&fds, master->upgrade.executable), "segment", pack_segment(master, &fds),
                              "log", pack_log(master, &fds), "control", vb_control_pack(master->control, &fds),
                              "listeners", vb_listeners_pack(&master->listeners, &fds), "generations",
                              pack_generations(master, &fds), "reload", vb_reload_pack(&master->reload));
    if (state == NULL)
        json_decref(fds);
    else if (json_object_set_new(state, "fds", fds) == 0)
        return state;
    json_decref(state);
    return NULL;
}

int vb_handover_seal(const json_t *state, struct vb_error *err)
{
    int fd = memfd_create("vibebalancer-state", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return vb_fail(err, -errno, "cannot make a memory file: %s", vb_strerror(-errno));
    if (json_dumpfd(state, fd, JSON_COMPACT) == 0 &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) == 0)
        return fd;
    close(fd);
    return vb_fail(err, -ENOMEM, "cannot write down the state to be handed over");
}

/* ---- descriptors ------------------------------------------------------------------------------------------------- */

static int keep(int fd, bool across_exec)
{
    return fcntl(fd, F_SETFD, across_exec ? 0 : FD_CLOEXEC) == 0 ? 0 : -errno;
}

int vb_handover_keep(const json_t *state, int fd, bool across_exec)
{
    const json_t *fds = json_object_get(state, "fds");
    int r = keep(fd, across_exec);
    for (size_t i = 0; r == 0 && i < json_array_size(fds); i++)
        r = keep((int)json_integer_value(json_array_get(fds, i)), across_exec);
    return r;
}

int vb_handover_executable(const json_t *state)
{
    return (int)json_integer_value(json_object_get(state, "executable"));
}

/* ---- finding ----------------------------------------------------------------------------------------------------- */

/* A descriptor's number; -1: the variable is not there, or holds none. */
static int take_number(const char *variable)
{
    const char *text = getenv(variable);
    uint64_t fd;
    int r = text == NULL ? -1 : vb_parse_u64(vb_str(text), INT32_MAX, &fd);
    unsetenv(variable);
    return r < 0 ? -1 : (int)fd;
}

static int read_state(int fd, json_t **ret_state, struct vb_error *err)
{
    json_error_t error;
    int format = 0;
    lseek(fd, 0, SEEK_SET);
    json_t *state = json_loadfd(fd, 0, &error);
    if (state == NULL)
        return vb_json_wrong(&error, err);
    if (json_unpack_ex(state, &error, 0, "{s:i}", "format", &format) != 0 || format != VB_HANDOVER_FORMAT) {
        json_decref(state);
        return vb_fail(err, -EPROTO,
                       "what is handed over has format %d, and this version (" VB_VERSION ") takes format %d; "
                       "stop and start instead",
                       format, VB_HANDOVER_FORMAT);
    }
    *ret_state = state;
    return 0;
}

int vb_handover_find(struct vb_handover *handover, struct vb_error *err)
{
    *handover = (struct vb_handover){.fd = take_number(VB_HANDOVER_STATE), .trial = take_number(VB_HANDOVER_TRIAL)};
    handover->failed = getenv(VB_HANDOVER_FAILED); /* its text stays where it is */
    unsetenv(VB_HANDOVER_FAILED);
    if (handover->fd < 0)
        return 0;
    int r = read_state(handover->fd, &handover->state, err);
    if (r == 0 && handover->trial < 0)
        r = vb_handover_keep(handover->state, handover->fd, false);
    return r == -EBADF ? vb_fail(err, r, "not all descriptors were handed over") : r;
}

/* ---- taking ------------------------------------------------------------------------------------------------------ */

static int take_segment(struct vb_master *master, const json_t *state, struct vb_error *err)
{
    struct vb_shm_files files;
    json_error_t error;
    if (json_unpack_ex((json_t *)state, &error, 0, "{s:{s:s, s:i, s:i}}", "segment", "path", &files.path, "lock",
                       &files.lock_fd, "file", &files.fd) != 0)
        return vb_json_wrong(&error, err);
    return vb_shm_adopt(&master->shm, &files, err);
}

/* The last one is the current one. */
static int take_generations(struct vb_master *master, const json_t *state, bool rehearsal, struct vb_error *err)
{
    const json_t *list = json_object_get(state, "generations");
    size_t n = json_array_size(list);
    int r = n > 0 ? 0 : vb_fail(err, -EPROTO, "the state that was handed over has no generation");
    for (size_t i = 0; r == 0 && i < n; i++) {
        struct vb_generation *generation = NULL;
        r = vb_generation_adopt(&generation, master, json_array_get(list, i), rehearsal, err);
        if (r == 0 && i + 1 == n)
            master->current = generation;
        else if (r == 0)
            vb_master_let_go(master, generation);
    }
    return r;
}

/* What a pool is checked by; the newest generation that knows it says so. */
static const struct vb_conf_health *find_rules(const struct vb_master *master, const char *name)
{
    const struct vb_conf_pool *pool = vb_conf_find_pool(master->current->config.conf, name);
    const struct vb_generation *generation;
    TAILQ_FOREACH_REVERSE (generation, &master->old, vb_generations, link)
        if (pool == NULL)
            pool = vb_conf_find_pool(generation->config.conf, name);
    return pool == NULL ? NULL : &pool->health;
}

static int take_health(struct vb_master *master, struct vb_error *err)
{
    int r = vb_master_open_health(master, err);
    for (unsigned slot = 0; r == 0 && slot < vb_shm_capacity(master->shm).backends; slot++) {
        const struct vb_shm_pool *pool = vb_shm_pool(master->shm, slot);
        if (atomic_load(&pool->used) == VB_POOL_FREE)
            continue;
        const struct vb_conf_health *rules = find_rules(master, pool->name);
        if (rules == NULL)
            r = vb_fail(err, -EPROTO, "no generation that was handed over knows pool %s", pool->name);
        else if (vb_health_set_rules(master->health, slot, rules) < 0)
            r = vb_fail(err, -ENOMEM, "out of memory");
    }
    return r;
}

static int take_log(struct vb_master *master, const json_t *state, bool rehearsal, struct vb_error *err)
{
    int pipe[2];
    json_error_t error;
    if (json_unpack_ex((json_t *)state, &error, 0, "{s:[i, i]}", "log", &pipe[0], &pipe[1]) != 0)
        return vb_json_wrong(&error, err);
    if (rehearsal)
        return 0;
    int r = vb_logger_adopt(&master->logger, pipe, &vb_shm_header(master->shm)->log_lost);
    return r < 0 ? vb_fail(err, r, "cannot start the log thread: %s", vb_strerror(r)) : 0;
}

int vb_handover_take(struct vb_master *master, const json_t *state, bool rehearsal, struct vb_error *err)
{
    json_error_t error;
    int ever_served, executable;
    if (json_unpack_ex((json_t *)state, &error, 0, "{s:s, s:b, s:i}", "configuration", &master->config_file,
                       "ever_served", &ever_served, "executable", &executable) != 0)
        return vb_json_wrong(&error, err);
    master->ever_served = ever_served != 0;
    int r = take_segment(master, state, err);
    if (r == 0)
        r = take_generations(master, state, rehearsal, err);
    if (r == 0)
        r = take_health(master, err);
    if (r == 0)
        r = vb_listeners_adopt(&master->listeners, json_object_get(state, "listeners"), master->current->config.conf,
                               err);
    if (r == 0)
        r = vb_control_adopt(&master->control, master, json_object_get(state, "control"), rehearsal, err);
    if (r == 0)
        r = vb_reload_adopt(&master->reload, json_object_get(state, "reload"), err);
    if (r == 0)
        r = take_log(master, state, rehearsal, err);
    return r;
}
