/*
 * Passive detection: what requests show takes a backend out of its pool before a probe does.
 *
 * All workers count a backend's failures in a row in one word of the segment, so that `consecutive` is meant over all
 * of them; any success sets it to 0. Who brings it to `consecutive` ejects the backend: it notes until when, and moves
 * the pool's epoch, so that every worker looks again at its next pick. The end needs nobody: each picture of a pool
 * knows when the next ejection in it is over (lb.c).
 *
 * Trial: an ejection leaves the count one below `consecutive`. When the backend returns, one failure ejects it again;
 * one success sets the count to 0, and it is a backend like all others.
 *
 * For how long: `eject_us`, and twice as long each time in a row, up to `eject_max_us`. It is not in a row any more
 * when the last ejection ended longer ago than it lasted. That is computed from the end, the number in a row and the
 * rules, so a reload that changes the rules changes it too, a little.
 *
 * What a check knows better: one that was ejected for want of a connection returns when a check has connected to it,
 * and one that was down is forgiven when it comes up.
 *
 * Cap: with this one, no more than `max_ejected` per cent of the pool's members that are not down are ejected at a
 * time. A small pool may so have none ejected. Who is not ejected for that stays on the brink: its next failure asks
 * again. When others go down later, lb.c keeps to the cap.
 *
 * Lock: the cap holds only when one worker at a time counts and ejects, so that takes `ejecting` of the pool. Nobody
 * waits for it: who finds it taken lets go, and the backend's next failure tries again. When its holder dies the
 * master clears it, with all that the worker had (shm/workers.c). While its holder is stopped nobody in this pool is
 * ejected; probes and further tries go on without it.
 *
 * All words are atomics for themselves. What slips between two of them is one success or failure that counts for the
 * time before an ejection or after it.
 */
#include "policy.h"

void vb_outlier_passed(struct vb_shm *shm, unsigned backend, uint64_t now_us)
{
    struct vb_shm_backend *row = vb_shm_backend(shm, backend);
    if (VB_LIKELY(atomic_load_explicit(&row->failures, memory_order_relaxed) == 0))
        return;
    if (!vb_shm_backend_ejected(row, now_us)) /* else the request was begun before, and says nothing of the trial */
        atomic_store_explicit(&row->failures, 0, memory_order_relaxed);
}

static uint64_t duration(const struct vb_outlier_rules *rules, uint64_t in_row)
{
    unsigned doublings = in_row == 0 ? 0 : (unsigned)VB_MIN(in_row - 1, 63u);
    bool over = rules->eject_us > rules->eject_max_us >> doublings;
    return over ? rules->eject_max_us : rules->eject_us << doublings;
}

/* Would one more be within the cap? Only of use under the lock. */
static bool may_eject(const struct vb_shm *shm, const struct vb_shm_backend *row, uint64_t now_us)
{
    unsigned pool = atomic_load_explicit(&row->pool, memory_order_relaxed);
    uint64_t most = atomic_load_explicit(&vb_shm_pool(shm, pool)->max_ejected, memory_order_relaxed);
    uint64_t healthy = 0, ejected = 0;
    for (unsigned i = 0; i < vb_shm_capacity(shm).backends; i++) {
        const struct vb_shm_backend *other = vb_shm_backend(shm, i);
        if (!lb_is_member(other, pool) || !lb_is_healthy(other))
            continue;
        healthy++;
        ejected += vb_shm_backend_ejected(other, now_us);
    }
    return lb_is_member(row, pool) && (ejected + 1) * 100 <= most * healthy;
}

/* Before the end is noted the backend is not ejected, so its failures still count: the count is set last. */
static uint64_t eject(struct vb_shm_backend *row, const struct vb_outlier_rules *rules, uint64_t now_us)
{
    uint64_t ended_us = atomic_load_explicit(&row->ejected_until_us, memory_order_relaxed);
    uint32_t in_row = atomic_load_explicit(&row->ejections_in_row, memory_order_relaxed);
    bool long_ago = ended_us == 0 || now_us - ended_us > duration(rules, in_row);
    in_row = long_ago ? 1 : in_row + 1;
    uint64_t lasts_us = duration(rules, in_row);
    atomic_store_explicit(&row->ejections_in_row, in_row, memory_order_relaxed);
    atomic_store_explicit(&row->ejected_until_us, now_us + lasts_us, memory_order_release);
    atomic_store_explicit(&row->failures, rules->consecutive - 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&row->ejections, 1, memory_order_relaxed);
    return lasts_us;
}

static uint64_t try_to_eject(struct vb_shm *shm, unsigned slot, struct vb_shm_backend *row,
                             const struct vb_outlier_rules *rules, uint64_t now_us)
{
    struct vb_shm_pool *pool = vb_shm_pool(shm, atomic_load_explicit(&row->pool, memory_order_relaxed));
    uint32_t nobody = 0;
    uint64_t lasts_us = 0;
    if (!atomic_compare_exchange_strong_explicit(&pool->ejecting, &nobody, slot + 1, memory_order_acquire,
                                                 memory_order_relaxed))
        return 0;
    /* Once more, now that nobody else decides: another may have ejected it, or a success have come. */
    if (atomic_load_explicit(&row->failures, memory_order_relaxed) >= rules->consecutive &&
        !vb_shm_backend_ejected(row, now_us) && may_eject(shm, row, now_us)) {
        lasts_us = eject(row, rules, now_us);
        atomic_fetch_add(&pool->epoch, 1);
    }
    atomic_store_explicit(&pool->ejecting, 0, memory_order_release);
    return lasts_us;
}

uint64_t vb_outlier_failed(struct vb_shm *shm, unsigned slot, unsigned backend, const struct vb_outlier_rules *rules,
                           enum vb_backend_failure why, uint64_t now_us)
{
    struct vb_shm_backend *row = vb_shm_backend(shm, backend);
    atomic_store_explicit(&row->last_failure, why, memory_order_relaxed);
    if (rules->consecutive == 0 || vb_shm_backend_ejected(row, now_us))
        return 0;
    if (atomic_fetch_add_explicit(&row->failures, 1, memory_order_relaxed) + 1 < rules->consecutive)
        return 0;
    return try_to_eject(shm, slot, row, rules, now_us);
}

/* The end stays there, so that the next ejection is one in a row. */
void vb_outlier_refute(struct vb_shm *shm, unsigned backend, uint64_t now_us)
{
    struct vb_shm_backend *row = vb_shm_backend(shm, backend);
    unsigned why = atomic_load_explicit(&row->last_failure, memory_order_relaxed);
    if (!vb_shm_backend_ejected(row, now_us) || (why != VB_BACKEND_REFUSED && why != VB_BACKEND_CONNECT_TIMEOUT))
        return;
    atomic_store_explicit(&row->ejected_until_us, now_us, memory_order_release);
    atomic_fetch_add(&vb_shm_pool(shm, atomic_load_explicit(&row->pool, memory_order_relaxed))->epoch, 1);
}

void vb_outlier_forgive(struct vb_shm *shm, unsigned backend)
{
    struct vb_shm_backend *row = vb_shm_backend(shm, backend);
    unsigned pool = atomic_load_explicit(&row->pool, memory_order_relaxed);
    atomic_store_explicit(&row->failures, 0, memory_order_relaxed);
    atomic_store_explicit(&row->ejections_in_row, 0, memory_order_relaxed);
    if (atomic_exchange_explicit(&row->ejected_until_us, 0, memory_order_release) != 0)
        atomic_fetch_add(&vb_shm_pool(shm, pool)->epoch, 1);
}
