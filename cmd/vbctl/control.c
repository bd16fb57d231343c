#include "control.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "documents.h"
#include "vb/ctl.h"
#include "vb/str.h"

#define LOOK_AGAIN_NS 50000000L

/* The backend that POOL/BACKEND means; -ENOENT. */
static int find_backend(const struct vb_shm *shm, const char *text)
{
    char pool[VB_SHM_NAME_MAX];
    const char *slash = strchr(text, '/');
    if (slash == NULL || slash - text >= (ptrdiff_t)sizeof(pool))
        return -ENOENT;
    snprintf(pool, sizeof(pool), "%.*s", (int)(slash - text), text);
    int r = vb_shm_find_pool(shm, pool);
    return r < 0 ? r : vb_shm_find_backend(shm, (unsigned)r, slash + 1);
}

static bool takes_requests(const struct vb_shm_backend *backend)
{
    return atomic_load(&backend->used) != 0 && atomic_load(&backend->admin) == VB_ADMIN_READY;
}

/*
 * Until nothing is in flight there. A slot goes to another backend only after that, so a slot with another name is
 * that of one that was empty.
 */
static int wait_until_empty(const struct vb_shm *shm, unsigned slot, const char *who, struct vb_error *err)
{
    const struct vb_shm_backend *backend = vb_shm_backend(shm, slot);
    const char *name = strchr(who, '/') + 1;
    while (vb_shm_sum_in_flight(shm, slot) > 0 && strncmp(backend->name, name, sizeof(backend->name)) == 0) {
        if (takes_requests(backend))
            return vb_fail(err, -ECANCELED, "%s takes requests again: somebody else has changed it meanwhile", who);
        if (!vb_shm_alive(shm))
            return vb_fail(err, -ESRCH, "the master has ended before %s was empty", who);
        nanosleep(&(struct timespec){.tv_nsec = LOOK_AGAIN_NS}, NULL);
    }
    return 0;
}

static int show(const struct vbctl *ctl, bool ok, const char *message)
{
    if (ctl->json)
        return document_answer(ok, message);
    if (ok)
        printf("%s\n", message);
    return 0;
}

/* 1, when it is refused, which is said here: the reason may be longer than a vb_error, and have lines that programs
 * read. */
static int ask(const struct vbctl *ctl, unsigned n_args, const char *const *args, unsigned timeout_ms,
               struct vb_ctl_answer *ret_answer, struct vb_error *err)
{
    const struct vb_shm_header *header = vb_shm_header(ctl->shm);
    char path[sizeof(header->control_path)];
    snprintf(path, sizeof(path), "%.*s", (int)sizeof(path) - 1, header->control_path);
    if (!ctl->alive)
        return vb_fail(err, -ESRCH, "this vibebalancer (pid %d) is not running any more; nothing was changed",
                       header->master_pid);
    if (path[0] == '\0')
        return vb_fail(err, -ENOTSUP,
                       "this vibebalancer has no control socket: `admin.socket` turns it off, or its "
                       "log says why");
    int r = vb_ctl_call(path, n_args, args, timeout_ms, ret_answer, err);
    if (r < 0 || ret_answer->done)
        return r;
    show(ctl, false, ret_answer->text);
    fprintf(stderr, strchr(ret_answer->text, '\n') != NULL ? "vbctl: refused:\n%s\n" : "vbctl: %s\n", ret_answer->text);
    return 1;
}

/* What is done, before the end of it is waited for. */
static void show_beginning(const struct vbctl *ctl, const char *message)
{
    if (ctl->json)
        return; /* one document, at the end */
    printf("%s\n", message);
    fflush(stdout);
}

int control_run(const struct vbctl *ctl, struct vb_error *err)
{
    struct vb_ctl_answer answer = {.done = false};
    char empty[VB_CTL_TEXT_MAX];
    int slot = ctl->wait ? find_backend(ctl->shm, ctl->args[1]) : -ENOENT; /* before it is removed */
    int r = ask(ctl, ctl->n_args, ctl->args, VB_CTL_ANSWER_MS, &answer, err);
    if (r != 0)
        return r;
    if (!ctl->wait)
        return show(ctl, true, answer.text);
    if (slot < 0)
        return vb_fail(err, slot, "%s; whether it is empty is not known, because it was added just now", answer.text);
    show_beginning(ctl, answer.text);
    r = wait_until_empty(ctl->shm, (unsigned)slot, ctl->args[1], err);
    if (r < 0) {
        show(ctl, false, err->text);
        return r;
    }
    snprintf(empty, sizeof(empty), "%s is empty", ctl->args[1]);
    return show(ctl, true, empty);
}

int control_reload(const struct vbctl *ctl, struct vb_error *err)
{
    struct vb_ctl_answer answer = {.done = false};
    int r = ask(ctl, ctl->n_args, ctl->args, VB_CTL_RELOAD_MS, &answer, err);
    return r != 0 ? r : show(ctl, true, answer.text);
}

/* The end of the master is that of its lock on the segment. */
int control_stop(const struct vbctl *ctl, struct vb_error *err)
{
    static const char *const args[] = {"stop", "now"};
    const struct vb_shm_header *header = vb_shm_header(ctl->shm);
    struct vb_ctl_answer answer = {.done = false};
    char name[VB_SHM_NAME_MAX], stopped[VB_SHM_NAME_MAX + 16];
    int r = ask(ctl, ctl->now ? 2 : 1, args, VB_CTL_ANSWER_MS, &answer, err);
    if (r != 0)
        return r;
    show_beginning(ctl, answer.text);
    while (vb_shm_alive(ctl->shm))
        nanosleep(&(struct timespec){.tv_nsec = LOOK_AGAIN_NS}, NULL);
    vb_shm_text(name, sizeof(name), header->name, sizeof(header->name));
    snprintf(stopped, sizeof(stopped), "%s has stopped", name);
    return show(ctl, true, stopped);
}
