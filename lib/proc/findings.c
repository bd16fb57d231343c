#include "findings.h"

#include <errno.h>

#include "vb/clock.h"
#include "vb/lb.h"
#include "vb/log.h"

struct vb_findings {
    struct vb_shm *shm;
    bool ejected[]; /* by backend slot, at the last tick */
};

int vb_findings_open(struct vb_findings **ret_findings, struct vb_shm *shm)
{
    struct vb_findings *findings = calloc(1, sizeof(*findings) + vb_shm_capacity(shm).backends * sizeof(bool));
    if (findings == NULL)
        return -ENOMEM;
    findings->shm = shm;
    *ret_findings = findings;
    return 0;
}

void vb_findings_close(struct vb_findings **findings)
{
    free(*findings);
    *findings = NULL;
}

static void see_backend(struct vb_findings *findings, unsigned i, uint64_t now)
{
    const struct vb_shm_backend *backend = vb_shm_backend(findings->shm, i);
    bool used = atomic_load(&backend->used), ejected = used && vb_shm_backend_ejected(backend, now);
    if (findings->ejected[i] && used && !ejected)
        vb_log_info("backend %s/%s (%s): its ejection is over",
                    vb_shm_pool(findings->shm, atomic_load(&backend->pool))->name, backend->name, backend->address);
    findings->ejected[i] = ejected;
}

void vb_findings_tick(struct vb_findings *findings)
{
    uint64_t now = vb_clock_us();
    for (unsigned i = 0; i < vb_shm_capacity(findings->shm).backends; i++) {
        struct vb_shm_pool *pool = vb_shm_pool(findings->shm, i);
        if (atomic_load(&pool->used) != VB_POOL_FREE)
            vb_retry_budget_mark(pool, now);
        see_backend(findings, i, now);
    }
    vb_shm_settle(findings->shm);
}
