/*
 * Memory for rows. The file has room for all of them and pages only for those that are in use: rows of a worker's slot
 * come with its first worker, traffic rows of a backend with the backend.
 *
 * A traffic row is there when its slot was claimed and its backend has rows, whichever came last: claiming reserves
 * those of all backends that have rows before `slots` grows, adding those of all slots before the backend is marked.
 */
#include <errno.h>
#include <fcntl.h>

#include "shm_priv.h"

int shm_reserve(int fd, uint64_t at, uint64_t size)
{
    int r;
    do
        r = -posix_fallocate(fd, (off_t)at, (off_t)size);
    while (r == -EINTR);
    return r;
}

/* A private segment is no file: the kernel gives its pages as they are touched. */
static int reserve_rows(const struct vb_shm *shm, const void *rows, uint64_t size)
{
    return size == 0 || shm->lock_fd < 0 ? 0
                                         : shm_reserve(shm->lock_fd, (uint64_t)((const char *)rows - shm->base), size);
}

int shm_reserve_slot(const struct vb_shm *shm, unsigned slot, bool ips)
{
    unsigned backends = shm->cap.backends, with_rows = backends;
    while (with_rows > 0 && !shm_backend_has_rows(shm, with_rows - 1))
        with_rows--;
    const struct {
        const void *rows;
        uint64_t size;
    } parts[] = {
        {vb_shm_worker(shm, slot), sizeof(struct vb_shm_worker)},
        {vb_shm_in_flight(shm, slot), backends * sizeof(vb_u64)},
        {vb_shm_places(shm, slot, 0), backends * sizeof(struct vb_shm_places)},
        {vb_shm_traffic(shm, slot, 0), with_rows * sizeof(struct vb_shm_traffic)},
        {vb_shm_ips(shm, slot), ips ? sizeof(struct vb_shm_ips) : 0},
    };
    int r = 0;
    for (unsigned i = 0; i < VB_ARRAY_SIZE(parts) && r == 0; i++)
        r = reserve_rows(shm, parts[i].rows, parts[i].size);
    return r;
}

int shm_reserve_backend(const struct vb_shm *shm, unsigned backend)
{
    int r = 0;
    for (unsigned slot = 0; slot < vb_shm_slots(shm) && r == 0; slot++)
        r = reserve_rows(shm, vb_shm_traffic(shm, slot, backend), sizeof(struct vb_shm_traffic));
    return r;
}
