#include "reload.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "control.h"
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

static void begin_again(struct vb_master *master)
{
    struct vb_reload *reload = &master->reload;
    reload->phase = VB_RELOAD_NONE;
    if (!reload->again || master->stopping)
        return;
    reload->again = false;
    vb_reload_request(master);
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

static void fail(struct vb_master *master, const char *why)
{
    struct vb_ctl_answer answer;
    vb_log_error("the reload failed, the configuration stays as it was");
    log_lines(VB_LOG_ERROR, why);
    undo(master);
    master->reload.phase = VB_RELOAD_SETTLING;
    vb_ctl_refuse_lines(&answer, why);
    report(master, master->reload.number, &answer);
    vb_reload_settled(master);
}

static void fail_for(struct vb_master *master, const char *format, unsigned number)
{
    char why[96];
    snprintf(why, sizeof(why), format, number);
    fail(master, why);
}

void vb_reload_cancel(struct vb_master *master)
{
    struct vb_reload *reload = &master->reload;
    struct vb_ctl_answer answer;
    bool waits = reload->phase != VB_RELOAD_NONE && reload->phase != VB_RELOAD_SETTLING;
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
    FILE *said = open_memstream(ret_said, &size);
    if (said == NULL)
        return -ENOMEM;
    int r = vb_config_load(config, master->config_file, said);
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
    vb_ctl_done(&answer, "reloaded: generation %u, %u worker%s, %u pool%s", next->number, next->n_workers,
                next->n_workers == 1 ? "" : "s", conf->n_pools, conf->n_pools == 1 ? "" : "s");
    vb_log_info("%s", answer.text);
    vb_master_replace(master, next);
    report(master, number, &answer);
}

static void on_timer(uv_timer_t *timer)
{
    struct vb_master *master = timer->data;
    if (master->reload.phase == VB_RELOAD_DUE)
        begin(master);
    else if (master->reload.phase == VB_RELOAD_LOOKING)
        start_workers(master);
    else if (master->reload.phase == VB_RELOAD_STARTING)
        fail_for(master, "not all of its workers were ready after %u s", START_MS / 1000);
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
    if (master->reload.phase == VB_RELOAD_STARTING)
        fail_for(master, "its worker %u ended before it was ready; see the log", child->index);
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

/* ---- asking for it ----------------------------------------------------------------------------------------------- */

void vb_reload_open(struct vb_master *master)
{
    uv_timer_init(&master->loop, &master->reload.timer);
    master->reload.timer.data = master;
}

/* It begins with the next turn of the loop, when whoever asks has been told its number; and not before there are
 * workers that it could replace. */
uint64_t vb_reload_request(struct vb_master *master)
{
    struct vb_reload *reload = &master->reload;
    if (reload->phase == VB_RELOAD_NONE) {
        reload->phase = VB_RELOAD_DUE;
        reload->number++;
        vb_notify_reloading(&master->notify);
    } else if (reload->phase != VB_RELOAD_DUE) {
        reload->again = true;
        return reload->number + 1;
    }
    if (master->started)
        uv_timer_start(&reload->timer, on_timer, 0, 0);
    return reload->number;
}
