/* Where the rows are. Small enough to be inlined across files by the linker. */
#include <sys/stat.h>

#include "shm_priv.h"

struct vb_shm_capacity vb_shm_capacity(const struct vb_shm *shm)
{
    return shm->cap;
}

uint64_t vb_shm_memory(const struct vb_shm *shm)
{
    struct stat st;
    return fstat(shm->fd, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

struct vb_shm_header *vb_shm_header(const struct vb_shm *shm)
{
    return (struct vb_shm_header *)shm->base;
}

/* In the order of admission.c. In a segment that is not trusted it may be any number. */
unsigned vb_shm_slots(const struct vb_shm *shm)
{
    uint32_t slots = atomic_load(&vb_shm_header(shm)->slots);
    return VB_MIN(slots, shm->cap.workers);
}

struct vb_shm_pool *vb_shm_pool(const struct vb_shm *shm, unsigned pool)
{
    assert(pool < shm->cap.backends);
    return (struct vb_shm_pool *)(shm->base + shm->at.pools_at) + pool;
}

struct vb_shm_backend *vb_shm_backend(const struct vb_shm *shm, unsigned backend)
{
    assert(backend < shm->cap.backends);
    return (struct vb_shm_backend *)(shm->base + shm->at.backends_at) + backend;
}

struct vb_shm_worker *vb_shm_worker(const struct vb_shm *shm, unsigned slot)
{
    assert(slot < shm->cap.workers);
    return (struct vb_shm_worker *)(shm->base + shm->at.workers_at) + slot;
}

struct vb_shm_traffic *vb_shm_traffic(const struct vb_shm *shm, unsigned slot, unsigned backend)
{
    assert(slot < shm->cap.workers && backend < shm->cap.backends);
    size_t row = (size_t)slot * shm->cap.backends + backend;
    return (struct vb_shm_traffic *)(shm->base + shm->at.traffic_at) + row;
}

vb_u32 *vb_shm_loads(const struct vb_shm *shm)
{
    return (vb_u32 *)(shm->base + shm->at.loads_at);
}

vb_u64 *vb_shm_tallies(const struct vb_shm *shm)
{
    return (vb_u64 *)(shm->base + shm->at.tallies_at);
}

vb_u64 *vb_shm_in_flight(const struct vb_shm *shm, unsigned slot)
{
    assert(slot < shm->cap.workers);
    return (vb_u64 *)(shm->base + shm->at.in_flight_at + slot * shm_in_flight_stride(shm->cap));
}

struct vb_shm_places *vb_shm_places(const struct vb_shm *shm, unsigned slot, unsigned pool)
{
    assert(slot < shm->cap.workers && pool < shm->cap.backends);
    return (struct vb_shm_places *)(shm->base + shm->at.places_at + slot * shm_places_stride(shm->cap)) + pool;
}

struct vb_shm_ips *vb_shm_ips(const struct vb_shm *shm, unsigned slot)
{
    assert(slot < shm->cap.workers);
    return (struct vb_shm_ips *)(shm->base + shm->at.ips_at) + slot;
}
