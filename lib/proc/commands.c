/*
 * Changes at run time. They live in the segment only: all workers follow with their next pick, a worker that dies loses
 * none, and the next start or reload takes the state of the file again. The master's main thread is the one writer of
 * membership, so what was looked up here stays true until the command has ended.
 */
#include "commands.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "reload.h"
#include "vb/clock.h"
#include "vb/log.h"
#include "vb/str.h"

/* What was written, fit for a sentence: bounded, and printable. */
struct word {
    char text[96];
};

static struct word word_of(const char *text)
{
    struct word word;
    vb_shm_text(word.text, sizeof(word.text), text, strlen(text));
    return word;
}

/* Names for a sentence, ", " between them; where there is no room for all, "..." ends them. */
struct names {
    char text[512];
    size_t n;
    bool cut;
};

static void add_name(struct names *names, const char *name)
{
    size_t room = sizeof(names->text) - names->n - sizeof(", ...");
    if (names->cut)
        return;
    names->cut = strlen(name) + 2 > room;
    int n = snprintf(names->text + names->n, sizeof(names->text) - names->n, "%s%s", names->n > 0 ? ", " : "",
                     names->cut ? "..." : name);
    names->n += (size_t)n;
}

/* ---- who is meant ------------------------------------------------------------------------------------------------ */

struct target {
    unsigned pool, backend; /* slots */
    const char *pool_name, *name;
};

static const struct vb_conf *conf_of(const struct vb_master *master)
{
    return master->current->config.conf;
}

static int find_pool(const struct vb_master *master, const char *name, struct target *target,
                     struct vb_ctl_answer *answer)
{
    int pool = vb_shm_find_pool(master->shm, name);
    if (pool >= 0) {
        target->pool = (unsigned)pool;
        target->pool_name = vb_shm_pool(master->shm, target->pool)->name;
        return 0;
    }
    struct names names = {.n = 0};
    for (unsigned i = 0; i < conf_of(master)->n_pools; i++)
        add_name(&names, conf_of(master)->pools[i].name);
    vb_ctl_refuse(answer, "there is no pool '%s'; the pools are: %s", word_of(name).text, names.text);
    return -ENOENT;
}

static bool is_member(const struct vb_shm_backend *backend, unsigned pool, bool used)
{
    return (atomic_load(&backend->used) != 0) == used && backend->name[0] != '\0' &&
           atomic_load(&backend->pool) == pool;
}

static int refuse_backend(const struct vb_master *master, const struct target *target, const char *name,
                          struct vb_ctl_answer *answer)
{
    struct names names = {.n = 0};
    for (unsigned i = 0; i < vb_shm_capacity(master->shm).backends; i++)
        if (is_member(vb_shm_backend(master->shm, i), target->pool, true))
            add_name(&names, vb_shm_backend(master->shm, i)->name);
    if (names.n == 0)
        vb_ctl_refuse(answer, "pool %s has no backend '%s'; it has none at all", target->pool_name, word_of(name).text);
    else
        vb_ctl_refuse(answer, "pool %s has no backend '%s'; its backends are: %s", target->pool_name,
                      word_of(name).text, names.text);
    return -ENOENT;
}

/* POOL/BACKEND; a backend's name may have slashes, a pool's has none. */
static int find_target(const struct vb_master *master, const char *text, struct target *target,
                       struct vb_ctl_answer *answer)
{
    char pool[VB_SHM_NAME_MAX + 1]; /* longer than any there is */
    const char *slash = strchr(text, '/');
    if (slash == NULL || slash == text || slash[1] == '\0') {
        vb_ctl_refuse(answer, "'%s' is not POOL/BACKEND, such as web/127.0.0.1:9001", word_of(text).text);
        return -EINVAL;
    }
    snprintf(pool, sizeof(pool), "%.*s", (int)VB_MIN(slash - text, (ptrdiff_t)VB_SHM_NAME_MAX), text);
    int r = find_pool(master, pool, target, answer);
    if (r < 0)
        return r;
    r = vb_shm_find_backend(master->shm, target->pool, slash + 1);
    if (r < 0)
        return refuse_backend(master, target, slash + 1, answer);
    target->backend = (unsigned)r;
    target->name = vb_shm_backend(master->shm, target->backend)->name;
    return 0;
}

static int parse_weight(const char *text, unsigned *ret_weight, struct vb_ctl_answer *answer)
{
    uint64_t weight;
    if (vb_parse_u64(vb_str(text), VB_WEIGHT_MAX, &weight) < 0 || weight == 0) {
        vb_ctl_refuse(answer, "'%s' is no weight: a weight is a number from 1 to %d; to send nothing to it use drain",
                      word_of(text).text, VB_WEIGHT_MAX);
        return -EINVAL;
    }
    *ret_weight = (unsigned)weight;
    return 0;
}

/* ---- what is said about it --------------------------------------------------------------------------------------- */

static bool has_usable_backend(const struct vb_master *master, unsigned pool)
{
    uint64_t now_us = vb_clock_us();
    for (unsigned i = 0; i < vb_shm_capacity(master->shm).backends; i++) {
        const struct vb_shm_backend *backend = vb_shm_backend(master->shm, i);
        if (is_member(backend, pool, true) && vb_shm_backend_usable(backend, now_us))
            return true;
    }
    return false;
}

/* "WHO VERB; 3 requests in flight REST", or where there are none "WHO VERB EMPTY". */
static void say_left(const struct vb_master *master, const struct target *target, const char *verb, const char *rest,
                     const char *empty, struct vb_ctl_answer *answer)
{
    const char *warning = "";
    char pool_warning[VB_SHM_NAME_MAX + 48];
    uint64_t n = vb_shm_sum_in_flight(master->shm, target->backend);
    if (!has_usable_backend(master, target->pool)) {
        snprintf(pool_warning, sizeof(pool_warning), "; no backend of %s is usable now", target->pool_name);
        warning = pool_warning;
    }
    if (n > 0)
        vb_ctl_done(answer, "%s/%s %s; %" PRIu64 " request%s in flight%s%s", target->pool_name, target->name, verb, n,
                    n > 1 ? "s" : "", rest, warning);
    else
        vb_ctl_done(answer, "%s/%s %s%s%s", target->pool_name, target->name, verb, empty, warning);
}

static void log_change(const struct target *target, const char *what)
{
    vb_log_info("vbctl: %s/%s %s", target->pool_name, target->name, what);
}

/* ---- commands ---------------------------------------------------------------------------------------------------- */

static void set_admin(struct vb_master *master, const char *text, enum vb_admin_state admin, const char *verb,
                      struct target *target, struct vb_ctl_answer *answer)
{
    answer->done = find_target(master, text, target, answer) == 0;
    if (!answer->done || atomic_load(&vb_shm_backend(master->shm, target->backend)->admin) == admin)
        return;
    vb_shm_set_admin(master->shm, target->backend, admin);
    vb_health_update(master->health);
    log_change(target, verb);
}

static void run_drain(struct vb_master *master, const char *const *args, struct vb_ctl_answer *answer)
{
    struct target target = {.name = NULL};
    set_admin(master, args[1], VB_ADMIN_DRAIN, "drains", &target, answer);
    if (answer->done)
        say_left(master, &target, "drains", "", " and is empty", answer);
}

static void run_maint(struct vb_master *master, const char *const *args, struct vb_ctl_answer *answer)
{
    struct target target = {.name = NULL};
    set_admin(master, args[1], VB_ADMIN_MAINT, "is in maintenance", &target, answer);
    if (answer->done)
        say_left(master, &target, "is in maintenance", "", " and is empty", answer);
}

static void run_ready(struct vb_master *master, const char *const *args, struct vb_ctl_answer *answer)
{
    struct target target = {.name = NULL};
    set_admin(master, args[1], VB_ADMIN_READY, "is ready", &target, answer);
    if (answer->done)
        vb_ctl_done(answer, "%s/%s is ready", target.pool_name, target.name);
}

static void run_weight(struct vb_master *master, const char *const *args, struct vb_ctl_answer *answer)
{
    struct target target = {.name = NULL};
    unsigned weight;
    if (find_target(master, args[1], &target, answer) < 0 || parse_weight(args[2], &weight, answer) < 0)
        return;
    const struct vb_shm_backend *backend = vb_shm_backend(master->shm, target.backend);
    unsigned configured = atomic_load(&backend->configured_weight);
    char what[64];
    if (configured == 0 || configured == weight)
        snprintf(what, sizeof(what), "has weight %u%s", weight, configured == weight ? ", as the file says" : "");
    else
        snprintf(what, sizeof(what), "has weight %u (the file says %u)", weight, configured);
    if (atomic_load(&backend->weight) != weight) {
        vb_shm_set_weight(master->shm, target.backend, weight);
        log_change(&target, what);
    }
    vb_ctl_done(answer, "%s/%s %s", target.pool_name, target.name, what);
}

static void run_remove(struct vb_master *master, const char *const *args, struct vb_ctl_answer *answer)
{
    struct target target = {.name = NULL};
    if (find_target(master, args[1], &target, answer) < 0)
        return;
    vb_shm_remove_backend(master->shm, target.backend);
    vb_health_update(master->health);
    log_change(&target, "removed");
    uint64_t n = vb_shm_sum_in_flight(master->shm, target.backend);
    say_left(master, &target, "removed", n > 1 ? " finish" : " finishes", "", answer);
}

/* ---- adding ------------------------------------------------------------------------------------------------------ */

/* One that the file names and that was removed, by its name or by its address; NULL: it is another. */
static const struct vb_shm_backend *find_removed(const struct vb_master *master, unsigned pool, const char *text)
{
    const struct vb_shm_backend *found = NULL;
    for (unsigned i = 0; i < vb_shm_capacity(master->shm).backends; i++) {
        const struct vb_shm_backend *backend = vb_shm_backend(master->shm, i);
        if (!is_member(backend, pool, false) || atomic_load(&backend->configured_weight) == 0)
            continue;
        if (strcmp(backend->name, text) == 0)
            return backend;
        if (found == NULL && strcmp(backend->address, text) == 0)
            found = backend;
    }
    return found;
}

/* What the file would refuse too. */
static int check_address(const struct vb_master *master, const char *pool_name, const char *text, char *address,
                         size_t size, struct vb_ctl_answer *answer)
{
    const struct vb_conf_pool *pool = vb_conf_find_pool(conf_of(master), pool_name);
    struct vb_conf_endpoint endpoint;
    struct vb_error err;
    int r = vb_conf_parse_endpoint(text, &endpoint, &err);
    unsigned port = pool != NULL ? pool->health.port : 0;
    if (r < 0) {
        vb_ctl_refuse(answer, "%s", err.text);
        return r;
    }
    vb_conf_format_endpoint(address, size, &endpoint);
    if (strlen(address) >= VB_SHM_NAME_MAX) {
        vb_ctl_refuse(answer,
                      "the address is longer than the %d bytes that a name may have; add it to the file, with "
                      "a `name`",
                      VB_SHM_NAME_MAX - 1);
        return -ENAMETOOLONG;
    }
    if (endpoint.unix_path[0] != '\0' && port != 0) {
        vb_ctl_refuse(answer, "this pool checks health on port %u, which means nothing for a unix socket", port);
        return -EINVAL;
    }
    return 0;
}

static void refuse_to_add(const struct vb_master *master, const struct target *target, int code,
                          struct vb_ctl_answer *answer)
{
    char reason[64];
    if (code == -EEXIST)
        vb_ctl_refuse(answer, "there is a backend %s/%s already", target->pool_name, target->name);
    else if (code == -ENOSPC)
        vb_ctl_refuse(answer,
                      "the segment is full (%u backends, and those removed that the file names or that still "
                      "have requests in flight); raise `segment.backends` and start anew",
                      vb_shm_capacity(master->shm).backends);
    else if (code == -ENOMEM)
        vb_ctl_refuse(answer, "there is no room for the figures of another backend where the segment is");
    else
        vb_ctl_refuse(answer, "%s/%s cannot be added: %s", target->pool_name, target->name,
                      vb_describe(reason, sizeof(reason), code));
}

/* It gets requests once the health thread has found it well. */
static void run_add(struct vb_master *master, const char *const *args, struct vb_ctl_answer *answer)
{
    struct target target = {.name = NULL};
    char address[VB_SHM_ADDRESS_MAX], name[VB_SHM_NAME_MAX];
    struct vb_backend_spec spec = {.name = name, .address = address, .weight = 1, .health = VB_HEALTH_DOWN};
    if (find_pool(master, args[1], &target, answer) < 0)
        return;
    const struct vb_shm_backend *removed = find_removed(master, target.pool, args[2]);
    if (removed == NULL) {
        if (check_address(master, target.pool_name, args[2], address, sizeof(address), answer) < 0)
            return;
        removed = find_removed(master, target.pool, address);
        vb_copy(name, sizeof(name), address);
    }
    if (removed != NULL) {
        vb_copy(name, sizeof(name), removed->name);
        vb_copy(address, sizeof(address), removed->address);
        spec.weight = atomic_load(&removed->configured_weight);
        spec.max_connections = atomic_load(&removed->max_connections);
        spec.backup = atomic_load(&removed->backup) != 0;
    }
    target.name = name;
    if (args[3] != NULL && parse_weight(args[3], &spec.weight, answer) < 0)
        return;
    int r = vb_shm_add_backend(master->shm, target.pool, &spec);
    if (r < 0) {
        refuse_to_add(master, &target, r, answer);
        return;
    }
    vb_health_update(master->health);
    log_change(&target, "added");
    vb_ctl_done(answer, "%s/%s added", target.pool_name, target.name);
}

/* ---- the instance ------------------------------------------------------------------------------------------------ */

/* Signals do it, because the answer leaves before they are handled. */
static void send_signals(unsigned n)
{
    for (; n > 0; n--)
        kill(getpid(), SIGTERM);
}

/* What one SIGTERM does, with `now` what two do. Two who ask for the first are no second one. */
static void run_stop(struct vb_master *master, const char *const *args, struct vb_ctl_answer *answer)
{
    bool now = args[1] != NULL, asked = master->stop_asked || master->stopping;
    if (now && strcmp(args[1], "now") != 0) {
        vb_ctl_refuse(answer, "stop knows `now` and not '%s'", word_of(args[1]).text);
        return;
    }
    vb_log_info("vbctl: stop%s", now ? " now" : "");
    master->stop_asked = true;
    send_signals((asked ? 0 : 1) + now);
    if (now)
        vb_ctl_done(answer, "%s stops now", conf_of(master)->name);
    else
        vb_ctl_done(answer, "%s finishes requests and stops, within %.1f s", conf_of(master)->name,
                    (double)conf_of(master)->shutdown_grace_ms / 1000);
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

static const struct command {
    const char *word, *arguments;
    unsigned least, most; /* arguments */
    bool any_time;        /* also while the master stops */
    void (*run)(struct vb_master *master, const char *const *args, struct vb_ctl_answer *answer);
    uint64_t (*begin)(struct vb_master *master); /* instead: the reload that it returns is waited for */
} commands[] = {
    {"drain", "POOL/BACKEND", 1, 1, .run = run_drain},
    {"ready", "POOL/BACKEND", 1, 1, .run = run_ready},
    {"maint", "POOL/BACKEND", 1, 1, .run = run_maint},
    {"weight", "POOL/BACKEND N", 2, 2, .run = run_weight},
    {"add", "POOL ADDRESS [WEIGHT]", 2, 3, .run = run_add},
    {"remove", "POOL/BACKEND", 1, 1, .run = run_remove},
    {"reload", "no argument", 0, 0, .begin = vb_reload_request},
    {"upgrade", "no argument", 0, 0, .begin = vb_reload_request_upgrade},
    {"stop", "`now` or no argument", 0, 1, .any_time = true, .run = run_stop},
};

static enum vb_command_state run(struct vb_master *master, const struct command *command, unsigned n_args,
                                 const char *const *args, struct vb_ctl_answer *answer, uint64_t *ret_reload)
{
    const char *all[VB_CTL_ARGS_MAX + 1] = {NULL}; /* NULL where one was left out */
    if (n_args < command->least + 1 || n_args > command->most + 1) {
        vb_ctl_refuse(answer, "%s needs %s", command->word, command->arguments);
        return VB_COMMAND_DONE;
    }
    if (master->stopping && !command->any_time) {
        vb_ctl_refuse(answer, "this vibebalancer is stopping; nothing was changed");
        return VB_COMMAND_DONE;
    }
    if (command->begin != NULL) {
        *ret_reload = command->begin(master);
        return VB_COMMAND_RELOADS;
    }
    if (!command->any_time && vb_reload_is_building(master)) {
        *ret_reload = master->reload.number;
        return VB_COMMAND_WAITS;
    }
    memcpy(all, args, n_args * sizeof(*all));
    command->run(master, all, answer);
    return VB_COMMAND_DONE;
}

enum vb_command_state vb_command_run(struct vb_master *master, unsigned n_args, const char *const *args,
                                     struct vb_ctl_answer *answer, uint64_t *ret_reload)
{
    *answer = (struct vb_ctl_answer){.done = false};
    for (unsigned i = 0; i < VB_ARRAY_SIZE(commands); i++)
        if (strcmp(commands[i].word, args[0]) == 0)
            return run(master, &commands[i], n_args, args, answer, ret_reload);
    vb_ctl_refuse(answer, "this vibebalancer knows no command '%s'; is vbctl of another version?",
                  word_of(args[0]).text);
    return VB_COMMAND_DONE;
}
