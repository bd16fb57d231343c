/*
 * The layout of a segment, frozen: whatever changes a size or an offset here needs a new VB_SHM_VERSION, and the
 * asserts say so at compile time. The rows that are expanded from stats.def may grow; their sizes are in the header.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "vb/clock.h"
#include "vb/str.h"

#include "shm_priv.h"

enum { ALIGN = 128 }; /* two cache lines: adjacent-line prefetch makes neighbours share otherwise */

_Static_assert(ATOMIC_INT_LOCK_FREE == 2 && ATOMIC_LLONG_LOCK_FREE == 2, "words are shared between processes");
_Static_assert(sizeof(vb_u32) == 4 && sizeof(vb_u64) == 8, "atomics have no room for a lock");

#define FROZEN(type, field, at) _Static_assert(offsetof(struct type, field) == (at), #field " has moved")
FROZEN(vb_shm_header, magic, 0);
FROZEN(vb_shm_header, version, 8);
FROZEN(vb_shm_header, ready, 12);
FROZEN(vb_shm_header, header_size, 16);
FROZEN(vb_shm_header, cap, 36);
FROZEN(vb_shm_header, slots, 44);
FROZEN(vb_shm_header, pools_at, 48);
FROZEN(vb_shm_header, total_size, 120);
FROZEN(vb_shm_header, ip_key, 128);
FROZEN(vb_shm_header, sticky_key, 144);
FROZEN(vb_shm_header, boot_id, 160);
FROZEN(vb_shm_header, name, 200);
FROZEN(vb_shm_header, program_version, 264);
FROZEN(vb_shm_header, config_file, 296);
FROZEN(vb_shm_header, control_path, 552);
FROZEN(vb_shm_header, start_wall_us, 664);
FROZEN(vb_shm_header, master_pid, 672);
FROZEN(vb_shm_header, workers_wanted, 684);
FROZEN(vb_shm_header, log_lost, 688);
FROZEN(vb_shm_header, reloads, 696);
FROZEN(vb_shm_header, reload_failed, 720);
FROZEN(vb_shm_header, reload_text, 724);
_Static_assert(sizeof(struct vb_shm_header) == 1240, "header has grown");

FROZEN(vb_shm_pool, name, 4);
FROZEN(vb_shm_pool, epoch, 128);
FROZEN(vb_shm_pool, request_marks, 136);
FROZEN(vb_shm_pool, cursor, 320);
FROZEN(vb_shm_pool, stuck, 328);
FROZEN(vb_shm_pool, retry_credit, 344);
_Static_assert(sizeof(struct vb_shm_pool) == 384, "pool has grown");

FROZEN(vb_health_record, last_latency_us, 40);
FROZEN(vb_health_record, reason, 48);
FROZEN(vb_health_record, address_len, 152);
FROZEN(vb_health_record, incarnation, 156);
FROZEN(vb_health_record, address, 160);
_Static_assert(sizeof(struct vb_health_record) == 288, "health record has grown");

FROZEN(vb_shm_backend, max_connections, 28);
FROZEN(vb_shm_backend, name, 40);
FROZEN(vb_shm_backend, address, 104);
FROZEN(vb_shm_backend, record_seq, 384);
FROZEN(vb_shm_backend, record, 392);
FROZEN(vb_shm_backend, failures, 704);
FROZEN(vb_shm_backend, ejections, 736);
FROZEN(vb_shm_backend, latency, 752);
_Static_assert(sizeof(struct vb_shm_backend) == 768, "backend has grown");

FROZEN(vb_shm_worker, requests_before, 32);
FROZEN(vb_shm_worker, admission, 40);
FROZEN(vb_shm_worker, counts_ips, 48);
FROZEN(vb_shm_worker, inbound, 52);
FROZEN(vb_shm_worker, heartbeat_us, 128);
FROZEN(vb_shm_worker, request, 144);
FROZEN(vb_shm_worker, stats_begin, 256);
FROZEN(vb_shm_traffic, stats_begin, 0);
_Static_assert(sizeof(struct vb_shm_ips) == 128 << 10, "table of IP addresses has grown");
_Static_assert(sizeof(struct vb_shm_worker) % ALIGN == 0, "workers share a cache line");
_Static_assert(sizeof(struct vb_shm_traffic) % ALIGN == 0, "workers share a cache line");

static uint64_t round_up(uint64_t n)
{
    return (n + ALIGN - 1) / ALIGN * ALIGN;
}

bool shm_capacity_valid(struct vb_shm_capacity cap)
{
    return cap.workers >= 1 && cap.workers <= VB_SHM_WORKERS_MAX && cap.backends >= 1 &&
           cap.backends <= VB_SHM_BACKENDS_MAX;
}

uint64_t shm_in_flight_stride(struct vb_shm_capacity cap)
{
    return round_up((uint64_t)cap.backends * sizeof(vb_u64));
}

/* Whole ones: the last may have words that belong to no backend. */
static uint64_t count_lines(struct vb_shm_capacity cap)
{
    return ((uint64_t)cap.backends + VB_SHM_LINE - 1) / VB_SHM_LINE;
}

uint64_t shm_places_stride(struct vb_shm_capacity cap)
{
    return round_up((uint64_t)cap.backends * sizeof(struct vb_shm_places));
}

/* Nothing overflows: the capacities are within their maxima. */
struct shm_layout shm_layout(struct vb_shm_capacity cap)
{
    struct shm_layout at;
    at.pools_at = round_up(sizeof(struct vb_shm_header));
    at.backends_at = round_up(at.pools_at + (uint64_t)cap.backends * sizeof(struct vb_shm_pool));
    at.loads_at = round_up(at.backends_at + (uint64_t)cap.backends * sizeof(struct vb_shm_backend));
    at.tallies_at = round_up(at.loads_at + count_lines(cap) * VB_SHM_LINE * sizeof(vb_u32));
    at.workers_at = round_up(at.tallies_at + count_lines(cap) * sizeof(vb_u64));
    at.in_flight_at = round_up(at.workers_at + (uint64_t)cap.workers * sizeof(struct vb_shm_worker));
    at.places_at = round_up(at.in_flight_at + cap.workers * shm_in_flight_stride(cap));
    at.traffic_at = round_up(at.places_at + cap.workers * shm_places_stride(cap));
    at.ips_at = at.traffic_at + (uint64_t)cap.workers * cap.backends * sizeof(struct vb_shm_traffic);
    at.total_size = at.ips_at + (uint64_t)cap.workers * sizeof(struct vb_shm_ips);
    return at;
}

uint64_t vb_shm_size(struct vb_shm_capacity cap)
{
    return shm_layout(cap).total_size;
}

/* Tells a segment of this boot from one that a disk kept. Empty where the kernel does not say. */
static void read_boot_id(char *to, size_t size)
{
    to[0] = '\0';
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t n = read(fd, to, size - 1);
    to[n > 0 ? n : 0] = '\0';
    to[strcspn(to, "\n")] = '\0';
    close(fd);
}

int shm_header_fill(struct vb_shm_header *header, const char *name, struct vb_shm_capacity cap)
{
    struct shm_layout at = shm_layout(cap);
    /* So few bytes come whole or not at all. */
    if (getrandom(header->ip_key, sizeof(header->ip_key), 0) != (ssize_t)sizeof(header->ip_key) ||
        getrandom(header->sticky_key, sizeof(header->sticky_key), 0) != (ssize_t)sizeof(header->sticky_key))
        return -errno;
    header->magic = VB_SHM_MAGIC;
    header->version = VB_SHM_VERSION;
    header->header_size = sizeof(struct vb_shm_header);
    header->pool_size = sizeof(struct vb_shm_pool);
    header->backend_size = sizeof(struct vb_shm_backend);
    header->worker_size = sizeof(struct vb_shm_worker);
    header->traffic_size = sizeof(struct vb_shm_traffic);
    header->cap = cap;
    header->pools_at = at.pools_at;
    header->backends_at = at.backends_at;
    header->loads_at = at.loads_at;
    header->tallies_at = at.tallies_at;
    header->workers_at = at.workers_at;
    header->in_flight_at = at.in_flight_at;
    header->places_at = at.places_at;
    header->traffic_at = at.traffic_at;
    header->ips_at = at.ips_at;
    header->total_size = at.total_size;
    read_boot_id(header->boot_id, sizeof(header->boot_id));
    vb_copy(header->name, sizeof(header->name), name);
    vb_copy(header->program_version, sizeof(header->program_version), VB_VERSION);
    header->start_wall_us = vb_clock_wall_us();
    header->master_pid = getpid();
    atomic_store(&header->state, VB_INSTANCE_STARTING);
    atomic_store(&header->generation, 1);
    return 0;
}

static bool row_sizes_ours(const struct vb_shm_header *h)
{
    return h->header_size == sizeof(struct vb_shm_header) && h->pool_size == sizeof(struct vb_shm_pool) &&
           h->backend_size == sizeof(struct vb_shm_backend) && h->worker_size == sizeof(struct vb_shm_worker) &&
           h->traffic_size == sizeof(struct vb_shm_traffic);
}

static bool offsets_ours(const struct vb_shm_header *h, const struct shm_layout *at)
{
    return h->pools_at == at->pools_at && h->backends_at == at->backends_at && h->loads_at == at->loads_at &&
           h->tallies_at == at->tallies_at && h->workers_at == at->workers_at && h->in_flight_at == at->in_flight_at &&
           h->places_at == at->places_at && h->traffic_at == at->traffic_at && h->ips_at == at->ips_at &&
           h->total_size == at->total_size;
}

static int say_other_layout(const struct vb_shm_header *header, const char *what, bool for_worker, struct vb_error *err)
{
    return vb_fail(err, -EPROTO, "%s has layout version %" PRIu32 "%s, this %s reads version %u: %s", what,
                   header->version, header->version == VB_SHM_VERSION ? " with other rows" : "",
                   for_worker ? "vibebalancer" : "vbctl", VB_SHM_VERSION,
                   for_worker ? "the program was replaced under a running master"
                              : "use the vbctl of the running vibebalancer");
}

int shm_header_check(const struct vb_shm_header *header, uint64_t file_size, const char *what, bool for_worker,
                     struct vb_error *err)
{
    if (header->magic != VB_SHM_MAGIC)
        return vb_fail(err, -EPROTO, "%s is not a segment of vibebalancer", what);
    if (header->version != VB_SHM_VERSION || !row_sizes_ours(header))
        return say_other_layout(header, what, for_worker, err);
    if (!shm_capacity_valid(header->cap))
        return vb_fail(err, -EPROTO, "%s is damaged: it claims room for %" PRIu32 " workers and %" PRIu32 " backends",
                       what, header->cap.workers, header->cap.backends);
    struct shm_layout at = shm_layout(header->cap);
    if (!offsets_ours(header, &at))
        return vb_fail(err, -EPROTO, "%s is damaged: its sections are not where they should be", what);
    if (file_size < at.total_size)
        return vb_fail(err, -EPROTO, "%s is damaged: it has %" PRIu64 " bytes where %" PRIu64 " are needed", what,
                       file_size, at.total_size);
    return 0;
}

int shm_map(struct vb_shm *shm, int fd, int protection)
{
    void *base = mmap(NULL, shm->at.total_size, protection, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        return -errno;
    shm->base = base;
    return 0;
}
