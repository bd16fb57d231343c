/*
 * What the kernel remembers of an instance for as long as its processes live, whatever becomes of them: locks on bytes
 * of the segment's file. They cost the request path nothing, and say nothing of what the bytes hold.
 *
 *   MASTER       write lock of the master's own open file description: who holds it is master. It is not lost when some
 *                other part of the process opens and closes the file, and no worker inherits it.
 *   INSTANCE     read lock of the description that workers inherit: some process of this instance lives, also one that
 *                has only just been made.
 *   WORKERS + i  lock of the worker process in slot i, a write lock while it has listening sockets, then a read lock.
 *                One of this kind belongs to a process, and the kernel names it: with that pid nobody can be meant who
 *                took it over, and to ask takes no rights over that process.
 *
 * Whoever may only read the file can take read locks, and so at the worst let a start wait for nobody.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "shm_priv.h"

enum { MASTER, INSTANCE, WORKERS };

static struct flock lock_of(short type, unsigned byte)
{
    return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
}

int shm_lock_master(int fd)
{
    struct flock lock = lock_of(F_WRLCK, MASTER);
    if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
        return 0;
    return errno == EACCES ? -EAGAIN : -errno;
}

void shm_unlock_master(int fd)
{
    struct flock lock = lock_of(F_UNLCK, MASTER);
    fcntl(fd, F_OFD_SETLK, &lock);
}

int shm_lock_instance(int fd)
{
    struct flock lock = lock_of(F_RDLCK, INSTANCE);
    return fcntl(fd, F_OFD_SETLK, &lock) == 0 ? 0 : -errno;
}

static bool is_locked(int fd, unsigned byte)
{
    struct flock lock = lock_of(F_WRLCK, byte);
    return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

bool vb_shm_alive(const struct vb_shm *shm)
{
    return shm->lock_fd >= 0 || is_locked(shm->fd, MASTER); /* one's own lock is never in one's way */
}

void vb_shm_worker_listens(const struct vb_shm *shm, unsigned slot, bool listens)
{
    struct flock lock = lock_of(listens ? F_WRLCK : F_RDLCK, WORKERS + slot);
    fcntl(shm->fd, F_SETLK, &lock);
}

/* ---- what a master that was killed has left ---------------------------------------------------------------------- */

pid_t vb_shm_last_master(const struct vb_shm *shm)
{
    return shm->last_fd < 0 ? 0 : shm_master_of(shm->last_fd);
}

bool vb_shm_has_orphans(const struct vb_shm *shm)
{
    return shm->last_fd >= 0 && is_locked(shm->last_fd, INSTANCE);
}

pid_t vb_shm_orphan(const struct vb_shm *shm, unsigned slot, bool *ret_listens)
{
    struct flock lock = lock_of(F_WRLCK, WORKERS + slot);
    if (shm->last_fd < 0 || fcntl(shm->last_fd, F_GETLK, &lock) != 0 || lock.l_type == F_UNLCK || lock.l_pid <= 0)
        return 0;
    *ret_listens = lock.l_type == F_WRLCK;
    return lock.l_pid;
}

void vb_shm_forget_last(struct vb_shm *shm)
{
    if (shm->last_fd >= 0)
        close(shm->last_fd);
    shm->last_fd = -1;
}
