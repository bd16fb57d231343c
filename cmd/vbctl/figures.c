#include "figures.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "vb/clock.h"
#include "vb/str.h"

#define TEXT(to, field) vb_shm_text((to), sizeof(to), (field), sizeof(field))

static uint32_t load32(const vb_u32 *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

static uint64_t load64(const vb_u64 *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

/* A time in the future is a clock that was set back: no age rather than a huge one. */
static struct age age_of(uint64_t wall_us)
{
    uint64_t now = vb_clock_wall_us();
    return (struct age){.known = wall_us != 0, .us = now > wall_us && wall_us != 0 ? now - wall_us : 0};
}

/* The same of the monotonic clock. */
static struct age monotonic_age_of(uint64_t us)
{
    uint64_t now = vb_clock_us();
    return (struct age){.known = us != 0, .us = now > us && us != 0 ? now - us : 0};
}

static struct percentiles percentiles_of(const struct vb_traffic_sum *sum)
{
    static const double shares[PERCENTILES] = {0.5, 0.9, 0.99, 0.999};
    struct percentiles p = {.known = false};
    for (unsigned i = 0; i < VB_HIST_BUCKETS; i++)
        p.known |= sum->latency[i] != 0;
    for (unsigned i = 0; i < PERCENTILES; i++)
        p.ms[i] = vb_hist_quantile(sum->latency, shares[i]) / 1000;
    return p;
}

static void count_backend(const struct vb_shm_backend *backend, struct backend_counts *counts)
{
    unsigned health = load32(&backend->health), admin = load32(&backend->admin);
    bool ejected = health != VB_HEALTH_DOWN && vb_shm_backend_ejected(backend, vb_clock_us());
    counts->total++;
    counts->up += (health == VB_HEALTH_UP || health == VB_HEALTH_UNCHECKED) && !ejected;
    counts->down += health == VB_HEALTH_DOWN;
    counts->ejected += ejected;
    counts->unknown += health == VB_HEALTH_UNKNOWN && !ejected;
    counts->drain += admin == VB_ADMIN_DRAIN;
    counts->maint += admin == VB_ADMIN_MAINT;
}

/* One that is leaving is of the past: only connections from before a reload still use it. */
static bool is_shown(const struct vb_shm *shm, unsigned pool)
{
    return pool < vb_shm_capacity(shm).backends &&
           atomic_load_explicit(&vb_shm_pool(shm, pool)->used, memory_order_acquire) == VB_POOL_USED;
}

void figures_totals(const struct vb_shm *shm, struct totals *ret_totals)
{
    memset(ret_totals, 0, sizeof(*ret_totals));
    vb_shm_add_workers(shm, &ret_totals->workers);
    for (unsigned i = 0; i < vb_shm_capacity(shm).backends; i++) {
        const struct vb_shm_backend *backend = vb_shm_backend(shm, i);
        /* Slots that are free now count as well: totals must not shrink. */
        vb_shm_add_traffic(shm, i, &ret_totals->traffic);
        if (load32(&backend->used) && is_shown(shm, load32(&backend->pool)))
            count_backend(backend, &ret_totals->backends);
    }
    ret_totals->latency = percentiles_of(&ret_totals->traffic);
}

static void read_reloads(const struct vb_shm_header *header, struct status *status)
{
    status->reloads = load64(&header->reloads);
    status->reloads_failed = load64(&header->reloads_failed);
    status->last_reload = age_of(load64(&header->reload_wall_us));
    status->reload_failed = load32(&header->reload_failed) != 0;
    if (status->reload_failed)
        TEXT(status->reload_text, header->reload_text);
}

void figures_status(const struct vb_shm *shm, bool alive, struct status *ret_status)
{
    const struct vb_shm_header *header = vb_shm_header(shm);
    memset(ret_status, 0, sizeof(*ret_status));
    TEXT(ret_status->name, header->name);
    TEXT(ret_status->version, header->program_version);
    TEXT(ret_status->config_file, header->config_file);
    ret_status->state = alive ? vb_instance_state_name(load32(&header->state)) : "dead";
    ret_status->pid = header->master_pid;
    if (alive)
        ret_status->uptime = age_of(header->start_wall_us);
    ret_status->generation = load32(&header->generation);
    ret_status->workers_wanted = load32(&header->workers_wanted);
    ret_status->segment_bytes = vb_shm_memory(shm);
    ret_status->log_lost = load64(&header->log_lost);
    for (unsigned i = 0; i < vb_shm_slots(shm); i++) {
        const struct vb_shm_worker *worker = vb_shm_worker(shm, i);
        ret_status->workers_ready +=
            load32(&worker->state) == VB_WORKER_READY && load32(&worker->generation) == ret_status->generation;
    }
    read_reloads(header, ret_status);
    figures_totals(shm, &ret_status->totals);
}

static bool belongs_to(const struct vb_shm_backend *backend, unsigned pool)
{
    return atomic_load_explicit(&backend->used, memory_order_acquire) && load32(&backend->pool) == pool;
}

bool figures_pool_name(const struct vb_shm *shm, unsigned pool, char ret_name[VB_SHM_NAME_MAX])
{
    const struct vb_shm_pool *from = vb_shm_pool(shm, pool);
    if (!is_shown(shm, pool))
        return false;
    vb_shm_text(ret_name, VB_SHM_NAME_MAX, from->name, sizeof(from->name));
    return true;
}

bool figures_pool(const struct vb_shm *shm, unsigned pool, struct pool_row *ret_row)
{
    const struct vb_shm_pool *from = vb_shm_pool(shm, pool);
    memset(ret_row, 0, sizeof(*ret_row));
    if (!figures_pool_name(shm, pool, ret_row->name))
        return false;
    TEXT(ret_row->balance, from->balance);
    for (unsigned i = 0; i < vb_shm_capacity(shm).backends; i++) {
        const struct vb_shm_backend *backend = vb_shm_backend(shm, i);
        if (!belongs_to(backend, pool))
            continue;
        count_backend(backend, &ret_row->backends);
        vb_shm_add_traffic(shm, i, &ret_row->traffic);
    }
    ret_row->requests_now = vb_shm_sum_places(shm, pool, VB_PLACE_REQUEST);
    ret_row->pending_now = vb_shm_sum_places(shm, pool, VB_PLACE_PENDING);
    ret_row->latency = percentiles_of(&ret_row->traffic);
    return true;
}

/* `a.b.c.d:port` or `[v6]:port`; empty where the record holds no such address. */
static void format_address(char *to, size_t size, const struct vb_health_record *record)
{
    char host[INET6_ADDRSTRLEN] = "";
    to[0] = '\0';
    if (record->address_len == 0 || record->address_len > sizeof(record->address))
        return;
    if (record->address.ss_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, &record->address, sizeof(in));
        inet_ntop(AF_INET, &in.sin_addr, host, sizeof(host));
        snprintf(to, size, "%s:%u", host, ntohs(in.sin_port));
    } else if (record->address.ss_family == AF_INET6) {
        struct sockaddr_in6 in;
        memcpy(&in, &record->address, sizeof(in));
        inet_ntop(AF_INET6, &in.sin6_addr, host, sizeof(host));
        snprintf(to, size, "[%s]:%u", host, ntohs(in.sin6_port));
    }
}

static void read_checks(const struct vb_shm *shm, unsigned backend, struct backend_row *row)
{
    struct vb_health_record record;
    if (!vb_shm_read_health(shm, backend, &record))
        return;
    format_address(row->resolved, sizeof(row->resolved), &record);
    row->checks_known = load32(&vb_shm_backend(shm, backend)->health) != VB_HEALTH_UNCHECKED;
    row->checks = record.checks;
    row->check_failures = record.failures;
    row->history = record.history;
    row->n_history = row->checks_known ? (unsigned)VB_MIN(record.checks, 64u) : 0;
    row->last_check = age_of(record.last_wall_us);
    row->health_since = age_of(record.changed_wall_us);
    TEXT(row->last_failure, record.reason);
}

static void read_findings(const struct vb_shm_backend *from, struct backend_row *row)
{
    uint64_t until = load64(&from->ejected_until_us), now = vb_clock_us();
    unsigned failure = load32(&from->last_failure);
    row->ejected = until > now;
    row->ejected_for_us = until > now ? until - now : 0;
    row->ejections = load64(&from->ejections);
    row->failures_in_a_row = load32(&from->failures);
    row->last_request_failure = failure != VB_BACKEND_NEVER_FAILED ? vb_backend_failure_name(failure) : NULL;
    row->announced_idle_ms = load32(&from->announced_idle_ms);
    row->learned_idle_ms = load32(&from->learned_idle_ms);
}

static void read_backend(const struct vb_shm *shm, unsigned pool, unsigned backend, struct backend_row *row)
{
    const struct vb_shm_backend *from = vb_shm_backend(shm, backend);
    memset(row, 0, sizeof(*row));
    TEXT(row->pool, vb_shm_pool(shm, pool)->name);
    TEXT(row->name, from->name);
    TEXT(row->address, from->address);
    row->state = vb_admin_name(load32(&from->admin));
    row->health = vb_health_name(load32(&from->health));
    row->down = load32(&from->health) == VB_HEALTH_DOWN;
    row->draining = load32(&from->admin) == VB_ADMIN_DRAIN;
    row->weight = load32(&from->weight);
    row->configured_weight = load32(&from->configured_weight);
    row->max_connections = load32(&from->max_connections);
    row->backup = load32(&from->backup) != 0;
    read_findings(from, row);
    vb_shm_add_traffic(shm, backend, &row->traffic);
    row->latency = percentiles_of(&row->traffic);
    read_checks(shm, backend, row);
}

bool figures_next_backend(const struct vb_shm *shm, const char *pool, struct backend_walk *walk,
                          struct backend_row *ret_row)
{
    unsigned rows = vb_shm_capacity(shm).backends;
    for (; walk->pool < rows; walk->pool++, walk->backend = 0) {
        char name[VB_SHM_NAME_MAX];
        if (!figures_pool_name(shm, walk->pool, name) || (pool != NULL && strcmp(pool, name) != 0))
            continue;
        while (walk->backend < rows) {
            unsigned i = walk->backend++;
            if (!belongs_to(vb_shm_backend(shm, i), walk->pool))
                continue;
            read_backend(shm, walk->pool, i, ret_row);
            return true;
        }
    }
    return false;
}

/* False: it is as the file says. */
static bool read_change(const struct vb_shm_backend *from, struct change *change)
{
    bool used = atomic_load_explicit(&from->used, memory_order_acquire);
    unsigned admin = load32(&from->admin);
    memset(change, 0, sizeof(*change));
    TEXT(change->name, from->name);
    change->weight = load32(&from->weight);
    change->configured_weight = load32(&from->configured_weight);
    if (!used) {
        change->removed = change->configured_weight != 0;
        return change->removed;
    }
    change->added = change->configured_weight == 0;
    change->weight_differs = !change->added && change->weight != change->configured_weight;
    change->admin = admin != VB_ADMIN_READY ? vb_admin_name(admin) : NULL;
    return change->added || change->weight_differs || change->admin != NULL;
}

bool figures_next_change(const struct vb_shm *shm, unsigned *slot, struct change *ret_change)
{
    unsigned rows = vb_shm_capacity(shm).backends;
    while (*slot < rows) {
        const struct vb_shm_backend *backend = vb_shm_backend(shm, (*slot)++);
        unsigned pool = load32(&backend->pool);
        if (read_change(backend, ret_change) && pool < rows && figures_pool_name(shm, pool, ret_change->pool))
            return true;
    }
    return false;
}

static void read_worker(const struct vb_shm *shm, unsigned slot, bool alive, struct worker_row *row)
{
    const struct vb_shm_worker *from = vb_shm_worker(shm, slot);
    unsigned state = load32(&from->state);
    memset(row, 0, sizeof(*row));
    row->slot = slot;
    row->index = load32(&from->index);
    row->generation = load32(&from->generation);
    if (row->generation < load32(&vb_shm_header(shm)->generation))
        state = VB_WORKER_DRAINING;
    row->state = vb_worker_state_name(state);
    row->pid = atomic_load_explicit(&from->pid, memory_order_relaxed);
    row->restarts = load64(&from->restarts);
    TEXT(row->last_request, from->request);
    if (alive) {
        row->uptime = age_of(load64(&from->start_wall_us));
        row->heartbeat = monotonic_age_of(load64(&from->heartbeat_us));
        row->last_request_age = monotonic_age_of(load64(&from->request_us));
    }
    for (unsigned i = 0; i < vb_shm_capacity(shm).backends; i++)
        row->in_flight += (uint32_t)load64(&vb_shm_in_flight(shm, slot)[i]);
#define VB_WORKER_STAT(field, kind, help) row->stats.field = load64(&from->field);
#include "vb/stats.def"
    row->stats.requests -= VB_MIN(load64(&from->requests_before), row->stats.requests);
}

static int by_generation(const void *a, const void *b)
{
    const struct worker_row *x = a, *y = b;
    if (x->generation != y->generation)
        return x->generation > y->generation ? -1 : 1;
    if (x->index != y->index)
        return x->index < y->index ? -1 : 1;
    return x->slot < y->slot ? -1 : 1;
}

int figures_workers(const struct vb_shm *shm, bool alive, struct worker_row **ret_rows)
{
    unsigned n = 0, slots = vb_shm_slots(shm);
    struct worker_row *rows = calloc(VB_MAX(slots, 1u), sizeof(*rows));
    if (rows == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < slots; i++)
        if (atomic_load_explicit(&vb_shm_worker(shm, i)->state, memory_order_acquire) != VB_WORKER_FREE)
            read_worker(shm, i, alive, &rows[n++]);
    qsort(rows, n, sizeof(*rows), by_generation);
    *ret_rows = rows;
    return (int)n;
}
