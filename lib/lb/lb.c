/* The worker's picture of a pool, and picking through the pool's policy. */
#include "vb/lb.h"

#include <errno.h>
#include <string.h>

#include "policy.h"

static const struct vb_policy *const policies[] = {&vb_policy_round_robin, &vb_policy_least_conn};

static const struct vb_policy *find_policy(const char *name)
{
    for (unsigned i = 0; i < VB_ARRAY_SIZE(policies); i++)
        if (strcmp(policies[i]->name, name) == 0)
            return policies[i];
    return NULL;
}

int vb_lb_open(struct vb_lb **ret_lb, struct vb_shm *shm, unsigned pool, unsigned slot)
{
    const struct vb_policy *policy = find_policy(vb_shm_pool(shm, pool)->balance);
    if (policy == NULL)
        return -ENOTSUP;
    struct vb_lb *lb = calloc(1, sizeof(*lb));
    if (lb == NULL)
        return -ENOMEM;
    lb->shm = shm;
    lb->policy = policy;
    lb->pool = vb_shm_pool(shm, pool);
    lb->pool_index = pool;
    lb->in_flight = vb_shm_in_flight(shm, slot);
    lb->epoch = atomic_load(&lb->pool->epoch) - 1; /* so that the first pick looks */
    *ret_lb = lb;
    return 0;
}

void vb_lb_close(struct vb_lb **lb_ptr)
{
    struct vb_lb *lb = *lb_ptr;
    if (lb == NULL)
        return;
    free(lb->candidates);
    free(lb->schedule);
    free(lb);
    *lb_ptr = NULL;
}

static unsigned collect(struct vb_lb *lb, struct vb_candidate *candidates, uint64_t now_us)
{
    unsigned n = 0;
    for (unsigned i = 0; i < vb_shm_capacity(lb->shm).backends; i++) {
        const struct vb_shm_backend *backend = vb_shm_backend(lb->shm, i);
        if (!vb_shm_backend_usable(backend, now_us) || atomic_load(&backend->pool) != lb->pool_index)
            continue;
        candidates[n++] = (struct vb_candidate){i, VB_MAX(atomic_load(&backend->weight), 1u)};
    }
    return n;
}

/* On failure nobody can be picked, and the next pick tries again. */
static int refresh(struct vb_lb *lb, uint32_t epoch, uint64_t now_us)
{
    unsigned capacity = vb_shm_capacity(lb->shm).backends;
    if (lb->candidates == NULL)
        lb->candidates = malloc(capacity * sizeof(*lb->candidates));
    if (lb->candidates == NULL)
        return -ENOMEM;
    lb->n_candidates = collect(lb, lb->candidates, now_us);
    if (lb->n_candidates > 0 && lb->policy->prepare != NULL) {
        int r = lb->policy->prepare(lb);
        if (r < 0) {
            lb->n_candidates = 0;
            return r;
        }
    }
    lb->epoch = epoch;
    return 0;
}

int vb_lb_pick(struct vb_lb *lb, const struct vb_tried *tried, uint64_t now_us)
{
    uint32_t epoch = atomic_load_explicit(&lb->pool->epoch, memory_order_acquire);
    if (VB_UNLIKELY(epoch != lb->epoch)) {
        int r = refresh(lb, epoch, now_us);
        if (r < 0)
            return r;
    }
    if (lb->n_candidates == 0)
        return -ENOENT;
    uint64_t ticket = atomic_fetch_add_explicit(&lb->pool->cursor, 1, memory_order_relaxed);
    unsigned backend = lb->candidates[lb->policy->pick(lb, ticket)].backend;
    vb_add32(&lb->in_flight[backend], 1);
    return (int)backend;
}

void vb_lb_done(struct vb_lb *lb, unsigned backend)
{
    vb_sub32(&lb->in_flight[backend], 1);
}
