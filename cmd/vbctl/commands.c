#include "commands.h"

#include <errno.h>
#include <string.h>

#include "vb/str.h"

#include "control.h"
#include "documents.h"
#include "figures.h"
#include "print.h"
#include "simulate.h"

static int run_status(const struct vbctl *ctl, struct vb_error *err)
{
    struct status status;
    figures_status(ctl->shm, ctl->alive, &status);
    if (ctl->json)
        return document_status(ctl->shm, &status, ctl->path);
    return print_status(ctl->shm, &status, ctl->path);
}

static int run_stats(const struct vbctl *ctl, struct vb_error *err)
{
    return ctl->json ? document_stats(ctl->shm) : print_stats(ctl->shm);
}

/* Is there a pool of this name? If not, the sentence names those that are. */
static int check_pool(const struct vb_shm *shm, const char *wanted, struct vb_error *err)
{
    char names[512] = "", name[VB_SHM_NAME_MAX];
    size_t used = 0;
    for (unsigned i = 0; i < vb_shm_capacity(shm).backends; i++) {
        if (!figures_pool_name(shm, i, name))
            continue;
        if (strcmp(name, wanted) == 0)
            return 0;
        int more = snprintf(names + used, sizeof(names) - used, "%s%s", used > 0 ? ", " : "", name);
        used = VB_MIN(used + (size_t)VB_MAX(more, 0), sizeof(names) - 1);
    }
    return vb_fail(err, -ENOENT, "there is no pool '%s'; the pools are: %s", wanted, used > 0 ? names : "none");
}

static int run_backends(const struct vbctl *ctl, struct vb_error *err)
{
    const char *pool = ctl->n_args > 1 ? ctl->args[1] : NULL;
    int r = pool != NULL ? check_pool(ctl->shm, pool, err) : 0;
    if (r < 0)
        return r;
    return ctl->json ? document_backends(ctl->shm, pool) : print_backends(ctl->shm, pool);
}

static int run_workers(const struct vbctl *ctl, struct vb_error *err)
{
    struct worker_row *rows;
    int n = figures_workers(ctl->shm, ctl->alive, &rows);
    if (n < 0)
        return vb_fail(err, n, "no memory");
    int r = ctl->json ? document_workers(rows, (unsigned)n) : print_workers(rows, (unsigned)n);
    free(rows);
    return r;
}

#define BACKEND "POOL/BACKEND"

static const struct vbctl_command commands[] = {
    {"status", "", 0, 0, false, false, false, "what runs, since when, and how it is", run_status},
    {"stats", "", 0, 0, false, false, false, "all counters, in total and for each pool", run_stats},
    {"backends", "[POOL]", 0, 1, false, false, false, "each backend with its health, traffic and latency",
     run_backends},
    {"workers", "", 0, 0, false, false, false,
     "each worker process; REQUESTS are its own, its other counters go on over restarts", run_workers},
    {"drain", BACKEND, 1, 1, true, false, false,
     "no new requests to it but those of clients stuck to it; what is in flight finishes", control_run},
    {"maint", BACKEND, 1, 1, true, false, false, "no new requests to it at all, and no health checks either",
     control_run},
    {"ready", BACKEND, 1, 1, false, false, false, "it takes requests again, after maintenance when a check has passed",
     control_run},
    {"weight", BACKEND " N", 2, 2, false, false, false, "its share from now on, 1 to 256", control_run},
    {"add", "POOL ADDRESS [WEIGHT]", 2, 3, false, false, false,
     "a backend more, once a check has passed; or one removed comes back", control_run},
    {"remove", BACKEND, 1, 1, true, false, false, "it leaves the pool; what is in flight finishes", control_run},
    {"reload", "", 0, 0, false, false, false, "its file is read anew, and served if there is nothing wrong with it",
     control_reload},
    {"upgrade", "", 0, 0, false, false, false, "the executable that is there now takes over, and reads its file anew",
     control_reload},
    {"stop", "[--now]", 0, 0, false, true, false, "it finishes requests and ends", control_stop},
    {"simulate", "FILE", 1, 1, false, false, true,
     "plays the file's pool, as its section `simulate` says, by each policy", simulate_run},
};

const struct vbctl_command *command_find(const char *word)
{
    for (unsigned i = 0; i < VB_ARRAY_SIZE(commands); i++)
        if (strcmp(commands[i].word, word) == 0)
            return &commands[i];
    return NULL;
}

const char *command_nearest(const char *word)
{
    const char *nearest = NULL;
    unsigned least = 3; /* further away than two edits is another word */
    for (unsigned i = 0; i < VB_ARRAY_SIZE(commands); i++) {
        unsigned distance = vb_edit_distance(word, commands[i].word);
        if (distance < least) {
            least = distance;
            nearest = commands[i].word;
        }
    }
    return nearest;
}

void command_help(FILE *to)
{
    fprintf(to, "usage: vbctl [--name NAME | --segment PATH] [--json] COMMAND\n\ncommands:\n");
    for (unsigned i = 0; i < VB_ARRAY_SIZE(commands); i++) {
        char words[32];
        snprintf(words, sizeof(words), "%s %s", commands[i].word, commands[i].arguments);
        fprintf(to, "  %-25s %s\n", words, commands[i].help);
    }
    fprintf(to, "  %-25s %s\n", "help", "this text");
    fprintf(
        to,
        "\nWhat is changed holds until a reload, an upgrade or the next start, which take the file's state again.\n");
    fprintf(to,
            "\noptions:\n"
            "  --name NAME        the instance with this name; without it, `vibebalancer` or the only one there is\n"
            "  --segment PATH     the instance with its segment there\n"
            "  --json             one JSON document for programs\n"
            "  --wait             with drain, maint and remove: until no request is in flight there\n"
            "  --now              with stop: it finishes no requests\n"
            "  --svg OUT          with simulate: a plot of it goes to that file\n"
            "  --version          the version of vbctl\n"
            "\nexit status: 0 done; 1 nothing runs there, or it was refused or failed; 2 the command line is wrong, or "
            "the\n"
            "file to simulate is\n");
}
