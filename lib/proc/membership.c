#include "membership.h"

#include <errno.h>
#include <string.h>

#include "vb/log.h"
#include "vb/str.h"

struct vb_membership {
    struct vb_shm *shm;
    struct vb_health *health;
    const struct vb_conf *conf, *before;
    unsigned *pools; /* slots, by the configuration's order */
    /* That backends will have, by slot; weight 0: the configuration does not name it. */
    struct vb_backend_settings *settings;
    bool *added_pools;  /* by slot */
    bool *added;        /* likewise, of backends */
    bool *pool_is_mine; /* by slot: the configuration has it */
};

static struct vb_pool_spec spec_of(const struct vb_conf_pool *pool)
{
    return (struct vb_pool_spec){pool->name, vb_balance_name(pool->balance), pool->panic, pool->outlier.max_ejected};
}

static struct vb_backend_settings settings_of(const struct vb_conf_backend *backend)
{
    return (struct vb_backend_settings){backend->weight, backend->max_connections, backend->backup};
}

/* ---- what is new ------------------------------------------------------------------------------------------------- */

static int explain(const struct vb_membership *m, int code, const struct vb_conf_pool *pool, const char *name,
                   struct vb_error *err)
{
    if (code == -ENOMEM)
        return vb_fail(err, code,
                       "there is no room for the figures of backend %s/%s: free some memory, or put the segment "
                       "elsewhere with --segment",
                       pool->name, name);
    if (code == -ENOSPC)
        return vb_fail(err, code,
                       "backend %s/%s does not fit into the segment, which is made for %u backends; raise "
                       "`segment.backends` and start anew",
                       pool->name, name, vb_shm_capacity(m->shm).backends);
    return vb_fail(err, code, "backend %s/%s does not fit into the segment: %s", pool->name, name, vb_strerror(code));
}

static int prepare_backend(struct vb_membership *m, unsigned slot, const struct vb_conf_pool *pool,
                           const struct vb_conf_backend *backend, struct vb_error *err)
{
    int found = vb_shm_find_backend(m->shm, slot, backend->name);
    bool other_address = found >= 0 && strcmp(vb_shm_backend(m->shm, (unsigned)found)->address, backend->address) != 0;
    if (found < 0 || other_address) {
        struct vb_backend_spec spec = {.name = backend->name,
                                       .address = backend->address,
                                       .weight = backend->weight,
                                       .max_connections = backend->max_connections,
                                       .backup = backend->backup,
                                       .configured = true,
                                       .admin = VB_ADMIN_DRAIN,
                                       .beside = other_address,
                                       .health = pool->health.enabled ? VB_HEALTH_UNKNOWN : VB_HEALTH_UNCHECKED};
        found = vb_shm_add_backend(m->shm, slot, &spec);
        if (found < 0)
            return explain(m, found, pool, backend->name, err);
        m->added[found] = true;
    }
    m->settings[found] = settings_of(backend);
    return 0;
}

/* One that is leaving comes back as it is: what the file says of it counts with the commit, as for one that is there.
 */
static int find_or_add_pool(struct vb_membership *m, const struct vb_conf_pool *pool, struct vb_error *err)
{
    struct vb_pool_spec spec = spec_of(pool);
    int slot = vb_shm_find_pool(m->shm, pool->name);
    if (slot >= 0)
        return slot;
    slot = vb_shm_recall_pool(m->shm, pool->name);
    if (slot < 0) {
        slot = vb_shm_add_pool(m->shm, &spec);
        if (slot < 0)
            return vb_fail(err, slot, "pool %s does not fit into the segment: %s", pool->name, vb_strerror(slot));
        if (vb_health_set_rules(m->health, (unsigned)slot, &pool->health) < 0) {
            vb_shm_free_pool(m->shm, (unsigned)slot);
            return vb_fail(err, -ENOMEM, "out of memory");
        }
    }
    m->added_pools[slot] = true;
    return slot;
}

static int prepare_pool(struct vb_membership *m, unsigned p, struct vb_error *err)
{
    const struct vb_conf_pool *pool = &m->conf->pools[p];
    int slot = find_or_add_pool(m, pool, err), r = 0;
    if (slot < 0)
        return slot;
    m->pools[p] = (unsigned)slot;
    m->pool_is_mine[slot] = true;
    for (unsigned b = 0; r == 0 && b < pool->n_backends; b++)
        r = prepare_backend(m, (unsigned)slot, pool, &pool->backends[b], err);
    return r;
}

static struct vb_membership *new_membership(struct vb_shm *shm, const struct vb_conf *conf)
{
    unsigned slots = vb_shm_capacity(shm).backends;
    struct vb_membership *m = calloc(1, sizeof(*m));
    if (m == NULL)
        return NULL;
    m->pools = calloc(VB_MAX(conf->n_pools, 1u), sizeof(*m->pools));
    m->settings = calloc(slots, sizeof(*m->settings));
    m->added = calloc(slots, sizeof(*m->added));
    m->added_pools = calloc(slots, sizeof(*m->added_pools));
    m->pool_is_mine = calloc(slots, sizeof(*m->pool_is_mine));
    return m;
}

static void free_membership(struct vb_membership **membership)
{
    struct vb_membership *m = *membership;
    free(m->pools);
    free(m->settings);
    free(m->added);
    free(m->added_pools);
    free(m->pool_is_mine);
    free(m);
    *membership = NULL;
}

int vb_membership_prepare(struct vb_membership **ret_membership, struct vb_shm *shm, struct vb_health *health,
                          const struct vb_conf *conf, const struct vb_conf *before, struct vb_error *err)
{
    struct vb_membership *m = new_membership(shm, conf);
    if (m == NULL)
        return vb_fail(err, -ENOMEM, "out of memory");
    m->shm = shm;
    m->health = health;
    m->conf = conf;
    m->before = before;
    int r = 0;
    if (m->pools == NULL || m->settings == NULL || m->added == NULL || m->added_pools == NULL ||
        m->pool_is_mine == NULL)
        r = vb_fail(err, -ENOMEM, "out of memory");
    for (unsigned p = 0; r == 0 && p < conf->n_pools; p++)
        r = prepare_pool(m, p, err);
    if (r < 0)
        vb_membership_undo(&m);
    else
        *ret_membership = m;
    return r;
}

/* ---- taking it back ---------------------------------------------------------------------------------------------- */

/* What counts still says of the backend in this slot; NULL: nothing, or it has another address there. */
static const struct vb_conf_backend *find_named(const struct vb_membership *m, const struct vb_shm_backend *row)
{
    const char *name = vb_shm_pool(m->shm, atomic_load(&row->pool))->name;
    const struct vb_conf_pool *pool = m->before == NULL ? NULL : vb_conf_find_pool(m->before, name);
    for (unsigned b = 0; pool != NULL && b < pool->n_backends; b++)
        if (strcmp(pool->backends[b].name, row->name) == 0)
            return strcmp(pool->backends[b].address, row->address) == 0 ? &pool->backends[b] : NULL;
    return NULL;
}

/* One that the file before names too was only removed at run time: its slot is kept for it. */
static void take_away(const struct vb_membership *m, unsigned slot)
{
    const struct vb_conf_backend *named = find_named(m, vb_shm_backend(m->shm, slot));
    vb_shm_forget_backend(m->shm, slot);
    if (named == NULL)
        return;
    struct vb_backend_settings settings = settings_of(named);
    vb_shm_configure_backend(m->shm, slot, &settings);
}

void vb_membership_undo(struct vb_membership **membership)
{
    struct vb_membership *m = *membership;
    if (m == NULL)
        return;
    for (unsigned slot = 0; slot < vb_shm_capacity(m->shm).backends; slot++) {
        if (m->added != NULL && m->added[slot])
            take_away(m, slot);
        if (m->added_pools != NULL && m->added_pools[slot])
            vb_shm_retire_pool(m->shm, slot);
    }
    vb_health_update(m->health);
    free_membership(membership);
}

/* ---- everything at once ------------------------------------------------------------------------------------------ */

static void commit_backend(const struct vb_membership *m, unsigned slot)
{
    const struct vb_shm_backend *row = vb_shm_backend(m->shm, slot);
    const char *pool = vb_shm_pool(m->shm, atomic_load(&row->pool))->name;
    bool used = atomic_load(&row->used) != 0;
    if (m->settings[slot].weight != 0) {
        if (m->added[slot] && m->before != NULL)
            vb_log_info("backend %s/%s (%s) is new", pool, row->name, row->address);
        vb_shm_configure_backend(m->shm, slot, &m->settings[slot]);
    } else if (used || atomic_load(&row->configured_weight) != 0) {
        if (used)
            vb_log_info("backend %s/%s (%s) goes", pool, row->name, row->address);
        vb_shm_forget_backend(m->shm, slot);
    }
}

/* First those that come: a pool is never without. */
static void commit_backends(const struct vb_membership *m, bool those_that_go)
{
    for (unsigned slot = 0; slot < vb_shm_capacity(m->shm).backends; slot++)
        if (m->pool_is_mine[atomic_load(&vb_shm_backend(m->shm, slot)->pool)] &&
            (m->settings[slot].weight == 0) == those_that_go)
            commit_backend(m, slot);
}

static void commit_pools(const struct vb_membership *m)
{
    for (unsigned p = 0; p < m->conf->n_pools; p++) {
        struct vb_pool_spec spec = spec_of(&m->conf->pools[p]);
        vb_shm_set_pool(m->shm, m->pools[p], &spec);
        if (vb_health_set_rules(m->health, m->pools[p], &m->conf->pools[p].health) < 0)
            vb_log_error("pool %s is checked by its old rules: out of memory", spec.name);
    }
    for (unsigned slot = 0; slot < vb_shm_capacity(m->shm).backends; slot++) {
        const struct vb_shm_pool *pool = vb_shm_pool(m->shm, slot);
        if (atomic_load(&pool->used) == VB_POOL_USED && !m->pool_is_mine[slot]) {
            vb_log_info("pool %s goes", pool->name);
            vb_shm_retire_pool(m->shm, slot);
        }
    }
}

void vb_membership_commit(struct vb_membership **membership)
{
    const struct vb_membership *m = *membership;
    commit_pools(m);
    commit_backends(m, false);
    commit_backends(m, true);
    vb_health_update(m->health);
    free_membership(membership);
}

void vb_membership_free_pools(struct vb_shm *shm, bool (*is_known)(const void *arg, const char *pool), const void *arg)
{
    for (unsigned slot = 0; slot < vb_shm_capacity(shm).backends; slot++) {
        const struct vb_shm_pool *pool = vb_shm_pool(shm, slot);
        if (atomic_load(&pool->used) == VB_POOL_LEAVING && !is_known(arg, pool->name))
            vb_shm_free_pool(shm, slot);
    }
}
