#include "orphans.h"

#include <signal.h>
#include <time.h>

#include "vb/log.h"

#define STEP_MS 10

/* Steps and not a time: after a pause of the machine nobody has hung yet. For those who have to notice; and to die. */
#define PATIENCE_STEPS 200
#define DEATH_STEPS    200

static unsigned count(const struct vb_orphans *orphans)
{
    unsigned n = 0;
    bool listens;
    for (unsigned slot = 0; slot < VB_SHM_WORKERS_MAX; slot++)
        n += vb_shm_orphan(orphans->shm, slot, &listens) > 0;
    return n;
}

/* False: there are none. */
static bool kill_those_that_listen(const struct vb_orphans *orphans)
{
    bool any = false, listens;
    for (unsigned slot = 0; slot < VB_SHM_WORKERS_MAX; slot++) {
        pid_t pid = vb_shm_orphan(orphans->shm, slot, &listens);
        if (pid == 0 || !listens)
            continue;
        vb_log_warn("worker (pid %d) of the last master hangs and still listens: killing it", (int)pid);
        kill(pid, SIGKILL);
        any = true;
    }
    return any;
}

void vb_orphans_open(struct vb_orphans *orphans, struct vb_shm *shm)
{
    *orphans = (struct vb_orphans){.shm = shm, .live = vb_shm_has_orphans(shm)};
    pid_t master = vb_shm_last_master(shm);
    if (master > 0)
        vb_log_warn("the last master (pid %d) was killed; %u of its workers finish", (int)master, count(orphans));
}

bool vb_orphans_wait(struct vb_orphans *orphans)
{
    if (!orphans->live || orphans->steps >= PATIENCE_STEPS + DEATH_STEPS)
        return false;
    if (++orphans->steps == PATIENCE_STEPS && !kill_those_that_listen(orphans))
        return false;
    orphans->live = vb_shm_has_orphans(orphans->shm);
    nanosleep(&(struct timespec){.tv_nsec = STEP_MS * 1000000L}, NULL);
    return true;
}

void vb_orphans_close(struct vb_orphans *orphans)
{
    orphans->live = false;
    vb_shm_forget_last(orphans->shm);
}
