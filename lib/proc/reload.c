#include "reload.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "control.h"
#include "json.h"
#include "master.h"
#include "membership.h"
#include "vb/clock.h"
#include "vb/ctl.h"
#include "vb/log.h"
#include "vb/str.h"

#define LOOK_MS  1000  /* for the first look at new backends, as at the start */
#define START_MS 30000 /* for workers to get ready */

static const char lasting[] = "`%s` has changed: that takes effect only when vibebalancer is stopped and started";

static void on_timer(uv_timer_t *timer);

/* ---- its end ----------------------------------------------------------------------------------------------------- */

static void log_lines(enum vb_log_level level, const char *text)
{
    while (*text != '\0') {
        size_t n = strcspn(text, "\n");
        vb_log(level, "%.*s", (int)n, text);
        text += n + (text[n] == '\n');
    }
}

/* The first line of what is wrong; the log and whoever asked get all of it. */
static void note_reason(struct vb_shm_header *header, const char *why)
{
    size_t n = strcspn(why, "\n");
    const char *more = why[n] != '\0' && why[n + 1] != '\0' ? " (and more: see the log)" : "";
    snprintf(header->reload_text, sizeof(header->reload_text), "%.*s%s", (int)VB_MIN(n, (size_t)400), why, more);
}

/* Says how it went to all who want to know. */
static void report(struct vb_master *master, uint64_t number, const struct vb_ctl_answer *answer)
{
    struct vb_shm_header *header = vb_shm_header(master->shm);
    atomic_fetch_add(answer->done ? &header->reloads : &header->reloads_failed, 1);
    atomic_store(&header->reload_wall_us, vb_clock_wall_us());
    note_reason(header, answer->done ? "" : answer->text);
    atomic_store(&header->reload_failed, !answer->done);
    if (atomic_load(&header->state) == VB_INSTANCE_RUNNING)
        vb_notify(&master->notify, answer->done ? "READY=1\nSTATUS=Serving requests"
                                                : "READY=1\nSTATUS=Serving requests; the last reload failed");
    vb_control_reloaded(master->control, number, answer);
}

static uint64_t request(struct vb_master *master, bool upgrade);

static void begin_again(struct vb_master *master)
{
    struct vb_reload *reload = &master->reload;
    bool again = reload->again, upgrade = reload->upgrade_again;
    reload->phase = VB_RELOAD_NONE;
    reload->again = reload->upgrade_again = false;
    if (again && !master->stopping)
        request(master, upgrade);
}

/* Everything is as it was before. The next generation's workers, if there are some, end by themselves. */
static void undo(struct vb_master *master)
{
    struct vb_reload *reload = &master->reload;
    struct vb_generation *next = reload->next;
    uv_timer_stop(&reload->timer);
    vb_membership_undo(&reload->membership);
    vb_listeners_undo(&master->listeners);
    reload->next = NULL;
    if (next != NULL) {
        vb_master_let_go(master, next);
        vb_generation_abandon(next);
    }
    vb_watchdog_follow(master);
}

static void log_failure(const struct vb_reload *reload)
{
    if (!reload->upgrade)
        vb_log_error("the reload failed, the configuration stays as it was");
    else if (!reload->taken_over)
        vb_log_error("the upgrade failed, everything stays as it was");
    else
        vb_log_error("vibebalancer " VB_VERSION
                     " has taken over, but its reload failed: configuration and workers stay "
                     "as they were");
}

static void fail(struct vb_master *master, const char *why)
{
    struct vb_reload *reload = &master->reload;
    char *prefixed = NULL; /* without memory the reason alone will do */
    struct vb_ctl_answer answer;
    log_failure(reload);
    log_lines(VB_LOG_ERROR, why);
    undo(master);
    if (reload->taken_over &&
        asprintf(&prefixed, "version %s has taken over, but its reload failed: %s", VB_VERSION, why) < 0)
        prefixed = NULL;
    vb_ctl_refuse_lines(&answer, prefixed != NULL ? prefixed : why);
    free(prefixed);
    reload->phase = VB_RELOAD_SETTLING;
    report(master, reload->number, &answer);
    vb_reload_settled(master);
}

void vb_reload_cancel(struct vb_master *master)
{
    struct vb_reload *reload = &master->reload;
    struct vb_ctl_answer answer;
    bool waits = reload->phase != VB_RELOAD_NONE && reload->phase != VB_RELOAD_SETTLING;
    vb_upgrade_cancel(master);
    if (waits)
        undo(master);
    if (!waits && !reload->again)
        return;
    reload->number += reload->again;
    reload->phase = VB_RELOAD_NONE;
    vb_ctl_refuse(&answer, "this vibebalancer is stopping; nothing was changed");
    vb_control_reloaded(master->control, reload->number, &answer);
}

/* ---- its steps --------------------------------------------------------------------------------------------------- */

/* What cannot change while we live: *next is made *now, and the file's wish is only spoken of. -ENOMEM. */
static int keep_text(char **next, const char *now, const char *key)
{
    if (vb_same_text(*next, now))
        return 0;
    vb_log_warn(lasting, key);
    free(*next);
    *next = now == NULL ? NULL : strdup(now);
    return now != NULL && *next == NULL ? -ENOMEM : 0;
}

static int keep_lasting(const struct vb_master *master, struct vb_conf *next)
{
    const struct vb_conf *now = master->current->config.conf;
    if (master->options->name == NULL && strcmp(next->name, now->name) != 0)
        vb_log_warn(lasting, "name");
    if (next->segment.backends != now->segment.backends)
        vb_log_warn(lasting, "segment.backends");
    vb_copy(next->name, sizeof(next->name), now->name);
    next->segment.backends = now->segment.backends;
    int r = keep_text(&next->admin.socket, now->admin.socket, "admin.socket");
    if (r == 0 && master->options->segment == NULL)
        r = keep_text(&next->segment.path, now->segment.path, "segment.path");
    return r;
}

/* Reads the file; what it says about it is the caller's to free, and NULL without memory. */
static int load(struct vb_master *master, struct vb_config *config, char **ret_said)
{
    size_t size = 0;
    struct stat st;
    FILE *said = open_memstream(ret_said, &size);
    if (said == NULL)
        return -ENOMEM;
    int r = -EINVAL;
    if (stat(master->config_file, &st) == 0 && !S_ISREG(st.st_mode)) /* whoever reads a FIFO waits, and all with him */
        fprintf(said, "cannot read %s: it is not a regular file\n", master->config_file);
    else
        r = vb_config_load(config, master->config_file, said);
    if (fclose(said) != 0 && r == 0)
        r = -ENOMEM;
    return r;
}

/* All that can fail before workers are started. */
static int prepare(struct vb_master *master, struct vb_config *config, struct vb_error *err)
{
    struct vb_reload *reload = &master->reload;
    const struct vb_conf *conf = config->conf;
    unsigned workers = vb_master_workers(master, conf);
    int r = vb_listeners_prepare(&master->listeners, conf, workers, err);
    if (r == 0)
        r = vb_generation_open(&reload->next, master, config, workers, err);
    if (r == 0)
        r = vb_membership_prepare(&reload->membership, master->shm, master->health, conf, master->current->config.conf,
                                  err);
    return r;
}

static void begin(struct vb_master *master)
{
    struct vb_reload *reload = &master->reload;
    struct vb_config config = {.conf = NULL};
    struct vb_error err;
    char *said = NULL;
    vb_log_info("reloading %s", master->config_file);
    int r = load(master, &config, &said);
    if (r < 0) {
        fail(master, said != NULL ? said : "out of memory");
    } else {
        log_lines(VB_LOG_WARN, said);
        vb_config_warn(&config);
        r = keep_lasting(master, config.conf);
        if (r == 0)
            r = prepare(master, &config, &err);
        else
            vb_fail(&err, r, "out of memory");
        if (r < 0)
            fail(master, err.text);
    }
    free(said);
    vb_config_free(&config);
    if (r < 0)
        return;
    reload->next->number = master->current->number + 1;
    reload->phase = VB_RELOAD_LOOKING;
    uv_timer_start(&reload->timer, on_timer, LOOK_MS, 0);
    vb_health_update(master->health); /* which has it looked at, and vb_reload_looked called */
}

static void start_workers(struct vb_master *master)
{
    master->reload.phase = VB_RELOAD_STARTING;
    uv_timer_start(&master->reload.timer, on_timer, START_MS, 0);
    vb_generation_start(master->reload.next);
    vb_watchdog_follow(master);
}

static void commit(struct vb_master *master)
{
    struct vb_reload *reload = &master->reload;
    struct vb_generation *next = reload->next;
    const struct vb_conf *conf = next->config.conf;
    struct vb_ctl_answer answer;
    uint64_t number = reload->number;
    reload->next = NULL;
    reload->phase = VB_RELOAD_SETTLING;
    uv_timer_stop(&reload->timer);
    vb_membership_commit(&reload->membership);
    vb_listeners_commit(&master->listeners, conf);
    vb_ctl_done(&answer, "%s generation %u, %u worker%s, %u pool%s",
                reload->upgrade ? "upgraded: version " VB_VERSION "," : "reloaded:", next->number, next->n_workers,
                next->n_workers == 1 ? "" : "s", conf->n_pools, conf->n_pools == 1 ? "" : "s");
    vb_log_info("%s", answer.text);
    vb_master_replace(master, next);
    report(master, number, &answer);
}

static void try_out(struct vb_master *master)
{
    struct vb_error err;
    vb_log_info("upgrading: trying %s out", master->options->argv[0]);
    master->reload.phase = VB_RELOAD_TRYING;
    if (vb_upgrade_try(master, &err) < 0)
        fail(master, err.text);
}

static void on_timer(uv_timer_t *timer)
{
    struct vb_master *master = timer->data;
    const struct vb_reload *reload = &master->reload;
    uint64_t wait_ms = vb_master_reload_wait(master);
    if (reload->phase == VB_RELOAD_DUE && wait_ms > 0)
        uv_timer_start(timer, on_timer, wait_ms, 0);
    else if (reload->phase == VB_RELOAD_DUE && reload->upgrade && !reload->taken_over)
        try_out(master);
    else if (reload->phase == VB_RELOAD_DUE)
        begin(master);
    else if (master->reload.phase == VB_RELOAD_LOOKING)
        start_workers(master);
    else if (master->reload.phase == VB_RELOAD_STARTING)
        fail(master, "not all of the new workers were ready in time");
}

/* ---- what is waited for ------------------------------------------------------------------------------------------ */

bool vb_reload_is_building(const struct vb_master *master)
{
    return master->reload.phase == VB_RELOAD_LOOKING || master->reload.phase == VB_RELOAD_STARTING;
}

void vb_reload_looked(struct vb_master *master)
{
    if (master->reload.phase == VB_RELOAD_LOOKING)
        start_workers(master);
}

void vb_reload_ready(struct vb_master *master)
{
    if (master->reload.phase == VB_RELOAD_STARTING)
        commit(master);
}

void vb_reload_broken(struct vb_master *master, const struct vb_child *child)
{
    struct vb_error why = child->generation->why; /* the generation may be gone after this */
    if (why.text[0] == '\0')
        vb_fail(&why, -ECHILD, "worker %u ended before it was ready; see the log", child->index);
    if (master->reload.phase == VB_RELOAD_STARTING)
        fail(master, why.text);
}

void vb_reload_settled(struct vb_master *master)
{
    const struct vb_generation *generation;
    TAILQ_FOREACH (generation, &master->old, link)
        if (!generation->quiet)
            return;
    if (master->reload.phase == VB_RELOAD_SETTLING)
        begin_again(master);
}

bool vb_reload_is_trying(const struct vb_master *master)
{
    return master->reload.phase == VB_RELOAD_TRYING;
}

/* Not from inside the loop: what it has been told by then, a signal perhaps, would be lost. */
void vb_reload_tried(struct vb_master *master, const char *why)
{
    if (!vb_reload_is_trying(master))
        return;
    if (why == NULL)
        uv_stop(&master->loop);
    else
        fail(master, why);
}

/* ---- handed over ------------------------------------------------------------------------------------------------- */

json_t *vb_reload_pack(const struct vb_reload *reload)
{
    return json_pack("{s:I, s:b, s:b}", "number", (json_int_t)reload->number, "again", reload->again, "upgrade_again",
                     reload->upgrade_again);
}

int vb_reload_adopt(struct vb_reload *reload, const json_t *packed, struct vb_error *err)
{
    int again, upgrade_again;
    json_int_t number;
    json_error_t error;
    if (json_unpack_ex((json_t *)packed, &error, 0, "{s:I, s:b, s:b}", "number", &number, "again", &again,
                       "upgrade_again", &upgrade_again) != 0)
        return vb_json_wrong(&error, err);
    reload->number = (uint64_t)number;
    reload->again = again != 0;
    reload->upgrade_again = upgrade_again != 0;
    reload->phase = VB_RELOAD_TRYING;
    reload->upgrade = true;
    return 0;
}

void vb_reload_resume(struct vb_master *master, const char *why)
{
    struct vb_reload *reload = &master->reload;
    if (why != NULL) {
        vb_reload_tried(master, why);
        return;
    }
    if (!vb_reload_is_trying(master))
        return; /* the master stops */
    reload->phase = VB_RELOAD_DUE;
    reload->taken_over = true;
    uv_timer_start(&reload->timer, on_timer, 0, 0);
}

/* ---- asking for it ----------------------------------------------------------------------------------------------- */

void vb_reload_open(struct vb_master *master)
{
    uv_timer_init(&master->loop, &master->reload.timer);
    master->reload.timer.data = master;
}

/* It begins with the next turn of the loop, when whoever asks has been told its number; and not before there are
 * workers that it could replace. */
static uint64_t request(struct vb_master *master, bool upgrade)
{
    struct vb_reload *reload = &master->reload;
    if (reload->phase == VB_RELOAD_NONE) {
        reload->phase = VB_RELOAD_DUE;
        reload->number++;
        reload->upgrade = reload->taken_over = false;
        vb_notify_reloading(&master->notify);
    } else if (reload->phase != VB_RELOAD_DUE || (upgrade && reload->taken_over)) {
        reload->again = true;
        reload->upgrade_again |= upgrade;
        return reload->number + 1;
    }
    reload->upgrade |= upgrade;
    if (master->started)
        uv_timer_start(&reload->timer, on_timer, 0, 0);
    return reload->number;
}

uint64_t vb_reload_request(struct vb_master *master)
{
    return request(master, false);
}

uint64_t vb_reload_request_upgrade(struct vb_master *master)
{
    return request(master, true);
}
