/*
 * Pools and backends as slots. The master's main thread is the only writer; a slot is filled first and marked `used`
 * with release order last, so whoever sees `used` sees the rest.
 *
 * Taking a backend away is exact: a worker counts a request in flight first and looks at the pool's epoch after that,
 * the master moves the epoch first and looks at the requests in flight after that, all in one order (seq_cst). Either
 * the worker sees the new epoch, and takes back what it counted, or the master sees the request.
 */
#include <errno.h>
#include <string.h>

#include "vb/clock.h"
#include "vb/str.h"

#include "shm_priv.h"

static bool is_used(const vb_u32 *used)
{
    return atomic_load_explicit(used, memory_order_acquire) != 0;
}

/* Workers look again. */
static void pool_changed(struct vb_shm *shm, const struct vb_shm_backend *backend)
{
    unsigned pool = atomic_load_explicit(&backend->pool, memory_order_relaxed);
    atomic_fetch_add(&vb_shm_pool(shm, pool)->epoch, 1);
}

static uint32_t pool_use(const struct vb_shm *shm, unsigned pool)
{
    return atomic_load_explicit(&vb_shm_pool(shm, pool)->used, memory_order_acquire);
}

static int find_free_pool(const struct vb_shm *shm, const char *name)
{
    int slot = -ENOSPC;
    for (unsigned i = 0; i < shm->cap.backends; i++) {
        if (pool_use(shm, i) == VB_POOL_FREE)
            slot = slot < 0 ? (int)i : slot;
        else if (strcmp(vb_shm_pool(shm, i)->name, name) == 0)
            return -EEXIST;
    }
    return slot;
}

int vb_shm_add_pool(struct vb_shm *shm, const struct vb_pool_spec *spec)
{
    if (strlen(spec->name) >= VB_SHM_NAME_MAX || strlen(spec->balance) >= sizeof(((struct vb_shm_pool *)NULL)->balance))
        return -EINVAL;
    int slot = find_free_pool(shm, spec->name);
    if (slot < 0)
        return slot;
    struct vb_shm_pool *pool = vb_shm_pool(shm, (unsigned)slot);
    vb_copy(pool->name, sizeof(pool->name), spec->name);
    vb_shm_set_pool(shm, (unsigned)slot, spec);
    atomic_store_explicit(&pool->used, VB_POOL_USED, memory_order_release);
    return slot;
}

void vb_shm_set_pool(struct vb_shm *shm, unsigned pool, const struct vb_pool_spec *spec)
{
    struct vb_shm_pool *row = vb_shm_pool(shm, pool);
    vb_copy(row->balance, sizeof(row->balance), spec->balance);
    atomic_store_explicit(&row->panic, spec->panic, memory_order_relaxed);
    atomic_store_explicit(&row->max_ejected, spec->max_ejected, memory_order_relaxed);
    atomic_fetch_add(&row->epoch, 1);
}

int vb_shm_recall_pool(struct vb_shm *shm, const char *name)
{
    for (unsigned i = 0; i < shm->cap.backends; i++) {
        struct vb_shm_pool *pool = vb_shm_pool(shm, i);
        if (pool_use(shm, i) != VB_POOL_LEAVING || strcmp(pool->name, name) != 0)
            continue;
        atomic_store_explicit(&pool->used, VB_POOL_USED, memory_order_release);
        return (int)i;
    }
    return -ENOENT;
}

void vb_shm_retire_pool(struct vb_shm *shm, unsigned pool)
{
    atomic_store_explicit(&vb_shm_pool(shm, pool)->used, VB_POOL_LEAVING, memory_order_release);
}

/* All but the epoch, which must not come to a number again by which somebody knows other backends. */
static void clear_pool(struct vb_shm *shm, unsigned pool)
{
    struct vb_shm_pool *row = vb_shm_pool(shm, pool);
    vb_u64 *const words[] = {&row->cursor, &row->stuck, &row->retries, &row->retry_credit};
    for (unsigned i = 0; i < VB_ARRAY_SIZE(words); i++)
        atomic_store_explicit(words[i], 0, memory_order_relaxed);
    for (unsigned i = 0; i < VB_SHM_MARKS; i++)
        atomic_store_explicit(&row->request_marks[i], 0, memory_order_relaxed);
    for (unsigned slot = 0; slot < vb_shm_slots(shm); slot++)
        memset(vb_shm_places(shm, slot, pool), 0, sizeof(struct vb_shm_places));
    atomic_store_explicit(&row->ejecting, 0, memory_order_relaxed);
}

void vb_shm_free_pool(struct vb_shm *shm, unsigned pool)
{
    for (unsigned i = 0; i < shm->cap.backends; i++)
        if (atomic_load_explicit(&vb_shm_backend(shm, i)->pool, memory_order_relaxed) == pool)
            vb_shm_forget_backend(shm, i);
    clear_pool(shm, pool);
    atomic_store_explicit(&vb_shm_pool(shm, pool)->used, VB_POOL_FREE, memory_order_release);
}

/* Is it the slot of this backend, whether that is there now or was removed? */
static bool is_named(const struct vb_shm_backend *backend, unsigned pool, const char *name)
{
    return atomic_load_explicit(&backend->pool, memory_order_relaxed) == pool && strcmp(backend->name, name) == 0;
}

static bool is_configured(const struct vb_shm_backend *backend)
{
    return atomic_load_explicit(&backend->configured_weight, memory_order_relaxed) != 0;
}

/*
 * Was it this backend's, and is kept for it? For one that the file names; and for one that has requests in flight from
 * before it went: in another slot nobody would see them, who wants to know whether it is empty.
 */
static bool is_own(const struct vb_shm *shm, unsigned slot, unsigned pool, const struct vb_backend_spec *spec)
{
    const struct vb_shm_backend *backend = vb_shm_backend(shm, slot);
    return is_named(backend, pool, spec->name) &&
           (is_configured(backend) ||
            (strcmp(backend->address, spec->address) == 0 && vb_shm_sum_in_flight(shm, slot) > 0));
}

/* Its own slot, else a free one; -EEXIST: it is there. */
static int find_slot(const struct vb_shm *shm, unsigned pool, const struct vb_backend_spec *spec)
{
    int own = -ENOENT, other = -ENOSPC;
    for (unsigned i = 0; i < shm->cap.backends; i++) {
        const struct vb_shm_backend *backend = vb_shm_backend(shm, i);
        if (is_used(&backend->used)) {
            if (!spec->beside && is_named(backend, pool, spec->name))
                return -EEXIST;
        } else if (is_own(shm, i, pool, spec)) {
            own = (int)i;
        } else if (other < 0 && !is_configured(backend) && vb_shm_sum_in_flight(shm, i) == 0) {
            other = (int)i;
        }
    }
    return own >= 0 ? own : other;
}

/* The figures of the slot's last backend. Nobody writes them: no request is in flight there. */
static void clear_figures(struct vb_shm *shm, unsigned backend)
{
    for (unsigned slot = 0; slot < vb_shm_slots(shm); slot++)
        memset(vb_shm_traffic(shm, slot, backend), 0, sizeof(struct vb_shm_traffic));
    atomic_store_explicit(&vb_shm_backend(shm, backend)->ejections, 0, memory_order_relaxed);
}

static void clear_findings(struct vb_shm_backend *backend)
{
    vb_u32 *const words[] = {&backend->failures, &backend->ejections_in_row, &backend->last_failure,
                             &backend->announced_idle_ms, &backend->learned_idle_ms};
    for (unsigned i = 0; i < VB_ARRAY_SIZE(words); i++)
        atomic_store_explicit(words[i], 0, memory_order_relaxed);
    vb_u64 *const large[] = {&backend->ejected_until_us, &backend->latency, &backend->reported_load};
    for (unsigned i = 0; i < VB_ARRAY_SIZE(large); i++)
        atomic_store_explicit(large[i], 0, memory_order_relaxed);
}

/* Before it can be picked: its slow start begins, or is yet to begin. */
static void set_ready_since(struct vb_shm_backend *backend, bool is_ready)
{
    atomic_store_explicit(&backend->ready_since_us, is_ready ? vb_clock_us() : 0, memory_order_relaxed);
}

static void set_limits(struct vb_shm_backend *backend, unsigned max_connections, bool backup)
{
    atomic_store_explicit(&backend->max_connections, max_connections, memory_order_relaxed);
    atomic_store_explicit(&backend->backup, backup, memory_order_relaxed);
}

int vb_shm_add_backend(struct vb_shm *shm, unsigned pool, const struct vb_backend_spec *spec)
{
    if (strlen(spec->name) >= VB_SHM_NAME_MAX || strlen(spec->address) >= VB_SHM_ADDRESS_MAX)
        return -EINVAL;
    int slot = find_slot(shm, pool, spec);
    if (slot < 0)
        return slot;
    struct vb_shm_backend *backend = vb_shm_backend(shm, (unsigned)slot);
    if (!shm_backend_has_rows(shm, (unsigned)slot)) {
        if (shm_reserve_backend(shm, (unsigned)slot) < 0)
            return -ENOMEM;
    } else if (!is_own(shm, (unsigned)slot, pool, spec)) { /* else it comes back, and its figures go on */
        clear_figures(shm, (unsigned)slot);
    }
    clear_findings(backend);
    atomic_fetch_add_explicit(&backend->incarnation, 1, memory_order_relaxed);
    atomic_store_explicit(&backend->pool, pool, memory_order_relaxed);
    atomic_store_explicit(&backend->admin, spec->admin, memory_order_relaxed);
    atomic_store_explicit(&backend->weight, spec->weight, memory_order_relaxed);
    set_limits(backend, spec->max_connections, spec->backup);
    set_ready_since(backend, spec->admin == VB_ADMIN_READY);
    if (spec->configured)
        atomic_store_explicit(&backend->configured_weight, spec->weight, memory_order_relaxed);
    atomic_store_explicit(&backend->health, spec->health, memory_order_relaxed);
    vb_copy(backend->name, sizeof(backend->name), spec->name);
    vb_copy(backend->address, sizeof(backend->address), spec->address);
    shm_record_write(backend, &(struct vb_health_record){0});
    atomic_store_explicit(&backend->used, 1, memory_order_release);
    pool_changed(shm, backend);
    return slot;
}

void vb_shm_remove_backend(struct vb_shm *shm, unsigned backend)
{
    struct vb_shm_backend *row = vb_shm_backend(shm, backend);
    atomic_store(&row->used, 0);
    pool_changed(shm, row);
}

void vb_shm_forget_backend(struct vb_shm *shm, unsigned backend)
{
    atomic_store_explicit(&vb_shm_backend(shm, backend)->configured_weight, 0, memory_order_relaxed);
    vb_shm_remove_backend(shm, backend);
}

void vb_shm_configure_backend(struct vb_shm *shm, unsigned backend, const struct vb_backend_settings *settings)
{
    struct vb_shm_backend *row = vb_shm_backend(shm, backend);
    atomic_store_explicit(&row->configured_weight, settings->weight, memory_order_relaxed);
    atomic_store_explicit(&row->weight, settings->weight, memory_order_relaxed);
    set_limits(row, settings->max_connections, settings->backup);
    vb_shm_set_admin(shm, backend, VB_ADMIN_READY);
}

void vb_shm_set_admin(struct vb_shm *shm, unsigned backend, enum vb_admin_state admin)
{
    struct vb_shm_backend *row = vb_shm_backend(shm, backend);
    if (admin == VB_ADMIN_READY && atomic_load_explicit(&row->admin, memory_order_relaxed) != VB_ADMIN_READY)
        set_ready_since(row, true);
    atomic_store(&row->admin, admin);
    pool_changed(shm, row);
}

void vb_shm_set_weight(struct vb_shm *shm, unsigned backend, unsigned weight)
{
    struct vb_shm_backend *row = vb_shm_backend(shm, backend);
    atomic_store(&row->weight, weight);
    pool_changed(shm, row);
}

int vb_shm_find_pool(const struct vb_shm *shm, const char *name)
{
    for (unsigned i = 0; i < shm->cap.backends; i++) {
        const struct vb_shm_pool *pool = vb_shm_pool(shm, i);
        if (pool_use(shm, i) == VB_POOL_USED && strncmp(pool->name, name, sizeof(pool->name)) == 0)
            return (int)i;
    }
    return -ENOENT;
}

int vb_shm_find_backend(const struct vb_shm *shm, unsigned pool, const char *name)
{
    for (unsigned i = 0; i < shm->cap.backends; i++) {
        const struct vb_shm_backend *backend = vb_shm_backend(shm, i);
        if (is_used(&backend->used) && atomic_load_explicit(&backend->pool, memory_order_relaxed) == pool &&
            strncmp(backend->name, name, sizeof(backend->name)) == 0)
            return (int)i;
    }
    return -ENOENT;
}

bool vb_shm_backend_ejected(const struct vb_shm_backend *backend, uint64_t now_us)
{
    return atomic_load_explicit(&backend->ejected_until_us, memory_order_relaxed) > now_us;
}

bool vb_shm_backend_usable(const struct vb_shm_backend *backend, uint64_t now_us)
{
    return is_used(&backend->used) && atomic_load_explicit(&backend->admin, memory_order_relaxed) == VB_ADMIN_READY &&
           atomic_load_explicit(&backend->health, memory_order_relaxed) != VB_HEALTH_DOWN &&
           !vb_shm_backend_ejected(backend, now_us);
}
