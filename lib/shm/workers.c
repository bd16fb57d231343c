/*
 * Worker slots: taken before the process is spawned, given back after it was reaped; only the master calls these. And
 * the signs of life that a worker gives.
 */
#include <errno.h>
#include <string.h>

#include "vb/clock.h"

#include "shm_priv.h"

/*
 * The free slot that this index had last, so that a respawned worker goes on in its row; else any that is free; else
 * one that nobody has had, which takes memory for its rows.
 */
static int find_slot(const struct vb_shm *shm, unsigned index)
{
    unsigned slots = vb_shm_slots(shm);
    int any = -ENOSPC;
    for (unsigned i = 0; i < slots; i++) {
        struct vb_shm_worker *worker = vb_shm_worker(shm, i);
        if (atomic_load_explicit(&worker->state, memory_order_relaxed) != VB_WORKER_FREE)
            continue;
        if (atomic_load_explicit(&worker->index, memory_order_relaxed) == index)
            return (int)i;
        any = any < 0 ? (int)i : any;
    }
    return any < 0 && slots < shm->cap.workers ? (int)slots : any;
}

int vb_shm_claim_worker(struct vb_shm *shm, unsigned index, unsigned generation, bool count_ips)
{
    int slot = find_slot(shm, index);
    if (slot < 0)
        return slot;
    if (shm_reserve_slot(shm, (unsigned)slot, count_ips) < 0)
        return -ENOMEM;
    struct vb_shm_worker *worker = vb_shm_worker(shm, (unsigned)slot);
    uint64_t requests = atomic_load_explicit(&worker->requests, memory_order_relaxed);
    atomic_store_explicit(&worker->index, index, memory_order_relaxed);
    atomic_store_explicit(&worker->generation, generation, memory_order_relaxed);
    atomic_store_explicit(&worker->start_wall_us, vb_clock_wall_us(), memory_order_relaxed);
    atomic_store_explicit(&worker->requests_before, requests, memory_order_relaxed);
    atomic_store_explicit(&worker->heartbeat_us, 0, memory_order_relaxed);
    atomic_store_explicit(&worker->request_us, 0, memory_order_relaxed);
    atomic_store_explicit(&worker->inbound, 0, memory_order_relaxed);
    worker->request[0] = '\0';
    atomic_store_explicit(&worker->state, VB_WORKER_STARTING, memory_order_release);
    /* From now on its rows are read. */
    atomic_store(&worker->counts_ips, count_ips);
    atomic_store(&vb_shm_header(shm)->slots, VB_MAX(vb_shm_slots(shm), (unsigned)slot + 1));
    return slot;
}

void vb_shm_worker_started(struct vb_shm *shm, unsigned slot, pid_t pid)
{
    /* Not the state: the worker may have said by now that it is ready. */
    atomic_store_explicit(&vb_shm_worker(shm, slot)->pid, pid, memory_order_relaxed);
}

static void zero_gauges(struct vb_shm_worker *worker)
{
#define VB_WORKER_STAT(field, kind, help)                                                                              \
    if (VB_STAT_##kind == VB_STAT_GAUGE)                                                                               \
        atomic_store_explicit(&worker->field, 0, memory_order_relaxed);
#include "vb/stats.def"
}

static void zero_traffic_gauges(struct vb_shm_traffic *traffic)
{
#define VB_BACKEND_STAT(field, kind, help)                                                                             \
    if (VB_STAT_##kind == VB_STAT_GAUGE)                                                                               \
        atomic_store_explicit(&traffic->field, 0, memory_order_relaxed);
#include "vb/stats.def"
}

void vb_shm_release_worker(struct vb_shm *shm, unsigned slot, bool died)
{
    struct vb_shm_worker *worker = vb_shm_worker(shm, slot);
    zero_gauges(worker);
    for (unsigned i = 0; i < shm->cap.backends; i++)
        if (shm_backend_has_rows(shm, i))
            zero_traffic_gauges(vb_shm_traffic(shm, slot, i));
    shm_give_back_in_flight(shm, slot);
    for (unsigned i = 0; i < shm->cap.backends; i++) {
        struct vb_shm_pool *pool = vb_shm_pool(shm, i);
        uint32_t deciding = slot + 1;
        if (atomic_compare_exchange_strong(&pool->ejecting, &deciding, 0))
            atomic_fetch_add(&pool->epoch, 1); /* it may have ejected one and died before it could say so */
    }
    shm_give_back_admissions(shm, slot);
    if (died)
        vb_add64(&worker->restarts, 1);
    atomic_store_explicit(&worker->pid, 0, memory_order_relaxed);
    atomic_store_explicit(&worker->state, VB_WORKER_FREE, memory_order_release);
}

/* ---- signs of life ----------------------------------------------------------------------------------------------- */

static size_t append(char *to, size_t at, struct vb_str text)
{
    size_t n = VB_MIN(text.n, VB_SHM_REQUEST_MAX - 1 - at);
    memcpy(to + at, text.p, n);
    return at + n;
}

void vb_shm_worker_takes(struct vb_shm_worker *worker, uint64_t now_us, struct vb_str method, struct vb_str target)
{
    target.n = VB_MIN(target.n, (size_t)VB_SHM_REQUEST_MAX);
    const char *query = memchr(target.p, '?', target.n);
    if (query != NULL)
        target.n = (size_t)(query - target.p);
    size_t n = append(worker->request, 0, method);
    n = append(worker->request, n, VB_STR(" "));
    n = append(worker->request, n, target);
    worker->request[n] = '\0';
    atomic_store_explicit(&worker->request_us, now_us, memory_order_relaxed);
}

uint64_t vb_shm_worker_moved_us(const struct vb_shm_worker *worker)
{
    uint64_t heartbeat = atomic_load_explicit(&worker->heartbeat_us, memory_order_relaxed);
    uint64_t request = atomic_load_explicit(&worker->request_us, memory_order_relaxed);
    return heartbeat == 0 ? 0 : VB_MAX(heartbeat, request);
}
