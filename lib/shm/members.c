/*
 * Pools and backends as slots. The master's main thread is the only writer; a slot is filled first and marked `used`
 * with release order last, so whoever sees `used` sees the rest.
 */
#include <errno.h>
#include <string.h>

#include "vb/str.h"

#include "shm_priv.h"

static bool is_used(vb_u32 *used)
{
    return atomic_load_explicit(used, memory_order_acquire) != 0;
}

int vb_shm_add_pool(struct vb_shm *shm, const char *name, const char *balance)
{
    int slot = -ENOSPC;
    if (strlen(name) >= VB_SHM_NAME_MAX || strlen(balance) >= sizeof(((struct vb_shm_pool *)NULL)->balance))
        return -EINVAL;
    for (unsigned i = 0; i < shm->cap.backends; i++) {
        struct vb_shm_pool *pool = vb_shm_pool(shm, i);
        if (!is_used(&pool->used))
            slot = slot < 0 ? (int)i : slot;
        else if (strcmp(pool->name, name) == 0)
            return -EEXIST;
    }
    if (slot < 0)
        return slot;
    struct vb_shm_pool *pool = vb_shm_pool(shm, (unsigned)slot);
    vb_copy(pool->name, sizeof(pool->name), name);
    vb_copy(pool->balance, sizeof(pool->balance), balance);
    atomic_store_explicit(&pool->used, 1, memory_order_release);
    return slot;
}

/* A free slot, unless the pool has a backend of this name already. */
static int find_slot(const struct vb_shm *shm, unsigned pool, const char *name)
{
    int slot = -ENOSPC;
    for (unsigned i = 0; i < shm->cap.backends; i++) {
        struct vb_shm_backend *backend = vb_shm_backend(shm, i);
        if (!is_used(&backend->used))
            slot = slot < 0 ? (int)i : slot;
        else if (atomic_load_explicit(&backend->pool, memory_order_relaxed) == pool && strcmp(backend->name, name) == 0)
            return -EEXIST;
    }
    return slot;
}

int vb_shm_add_backend(struct vb_shm *shm, unsigned pool, const struct vb_backend_spec *spec)
{
    if (strlen(spec->name) >= VB_SHM_NAME_MAX || strlen(spec->address) >= VB_SHM_ADDRESS_MAX)
        return -EINVAL;
    int slot = find_slot(shm, pool, spec->name);
    if (slot < 0)
        return slot;
    struct vb_shm_backend *backend = vb_shm_backend(shm, (unsigned)slot);
    uint64_t rows = shm->cap.workers * sizeof(struct vb_shm_traffic);
    if (shm_reserve(shm->lock_fd, shm->at.traffic_at + (unsigned)slot * rows, rows) < 0)
        return -ENOMEM;
    atomic_fetch_add_explicit(&backend->incarnation, 1, memory_order_relaxed);
    atomic_store_explicit(&backend->pool, pool, memory_order_relaxed);
    atomic_store_explicit(&backend->admin, VB_ADMIN_READY, memory_order_relaxed);
    atomic_store_explicit(&backend->weight, spec->weight, memory_order_relaxed);
    atomic_store_explicit(&backend->health, spec->checked ? VB_HEALTH_UNKNOWN : VB_HEALTH_UNCHECKED,
                          memory_order_relaxed);
    vb_copy(backend->name, sizeof(backend->name), spec->name);
    vb_copy(backend->address, sizeof(backend->address), spec->address);
    shm_record_write(backend, &(struct vb_health_record){0});
    atomic_store_explicit(&backend->used, 1, memory_order_release);
    atomic_fetch_add_explicit(&vb_shm_pool(shm, pool)->epoch, 1, memory_order_release);
    return slot;
}

bool vb_shm_backend_usable(const struct vb_shm_backend *backend)
{
    return atomic_load_explicit(&backend->used, memory_order_acquire) != 0 &&
           atomic_load_explicit(&backend->admin, memory_order_relaxed) == VB_ADMIN_READY &&
           atomic_load_explicit(&backend->health, memory_order_relaxed) != VB_HEALTH_DOWN;
}
