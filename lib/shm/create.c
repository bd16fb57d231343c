/*
 * Making a segment, and being master.
 *
 * Who is master is decided by a lock that dies with the master (locks.c).
 *
 *   1. Open or create PATH and lock it. Locked by another: a living master is there, -EBUSY.
 *   2. Is PATH still this file? A master that stopped, or another starter, may have changed it: again from 1.
 *   3. Make the segment under a temporary name, lock it, reserve its pages, fill the header, rename it over PATH.
 *   4. Unlock the old file. Orphaned workers of a dead master keep their own mapping of it, which nobody resets; it is
 *      kept open to ask who of them lives, until vb_shm_forget_last.
 *
 * Between 1 and 4 PATH always names a locked file, so two starters can never both win.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vb/str.h"

#include "shm_priv.h"

static bool path_names(const char *path, int fd)
{
    struct stat by_path, by_fd;
    return stat(path, &by_path) == 0 && fstat(fd, &by_fd) == 0 && by_path.st_dev == by_fd.st_dev &&
           by_path.st_ino == by_fd.st_ino;
}

pid_t shm_master_of(int fd)
{
    struct vb_shm_header header;
    bool ours = pread(fd, &header, sizeof(header), 0) == (ssize_t)sizeof(header) && header.magic == VB_SHM_MAGIC &&
                header.version == VB_SHM_VERSION;
    return ours ? header.master_pid : 0;
}

static int say_busy(int fd, const char *path, const char *name, struct vb_error *err)
{
    pid_t master = shm_master_of(fd);
    char usual[256], who[32] = "";
    if (master > 0)
        snprintf(who, sizeof(who), " (pid %d)", (int)master);
    if (vb_shm_default_path(usual, sizeof(usual), name) == 0 && strcmp(usual, path) == 0)
        return vb_fail(err, -EBUSY, "another instance named '%s' is running%s; stop it or choose another --name", name,
                       who);
    return vb_fail(err, -EBUSY, "another instance that is running%s has %s; stop it or choose another --segment", who,
                   path);
}

/* Is it one that we may replace: our own regular file, empty or a segment? */
static int check_replaceable(int fd, const char *path, struct vb_error *err)
{
    struct stat st;
    uint64_t magic = 0;
    if (fstat(fd, &st) < 0)
        return vb_fail(err, -errno, "cannot use %s for the segment: %s", path, vb_strerror(-errno));
    if (!S_ISREG(st.st_mode))
        return vb_fail(err, -EINVAL, "cannot use %s for the segment: it is not a regular file", path);
    if (st.st_uid != geteuid())
        return vb_fail(err, -EPERM, "cannot use %s for the segment: it belongs to another user (uid %u)", path,
                       (unsigned)st.st_uid);
    if (st.st_size == 0)
        return 0;
    if (pread(fd, &magic, sizeof(magic), 0) != (ssize_t)sizeof(magic) || magic != VB_SHM_MAGIC)
        return vb_fail(err, -EEXIST, "cannot use %s for the segment: it holds something else; remove it yourself",
                       path);
    return 0;
}

static int say_cannot_open(int r, const char *path, struct vb_error *err)
{
    if (r == -ENOENT)
        return vb_fail(err, r, "cannot make the segment %s: its directory does not exist", path);
    if (r == -ELOOP)
        return vb_fail(err, r, "cannot use %s for the segment: it is a symbolic link", path);
    return vb_fail(err, r, "cannot make the segment %s: %s", path, vb_strerror(r));
}

/* Steps 1 and 2: a locked descriptor of the file that PATH names. */
static int lock_path(const char *path, const char *name, struct vb_error *err)
{
    for (int tries = 0; tries < 20; tries++) {
        int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0644);
        if (fd < 0)
            return say_cannot_open(-errno, path, err);
        int r = check_replaceable(fd, path, err);
        if (r < 0)
            goto fail;
        r = shm_lock_master(fd);
        if (r == -EAGAIN) {
            r = say_busy(fd, path, name, err);
            goto fail;
        }
        if (r < 0) {
            vb_fail(err, r, "cannot lock the segment %s: %s", path, vb_strerror(r));
            goto fail;
        }
        if (path_names(path, fd))
            return fd;
        close(fd);
        continue;
    fail:
        close(fd);
        return r;
    }
    return vb_fail(err, -EBUSY, "%s keeps changing: another vibebalancer is starting or stopping there", path);
}

static int say_no_room(int r, const char *path, uint64_t size, struct vb_error *err)
{
    const char *slash = strrchr(path, '/');
    int n = slash == NULL ? 1 : (int)VB_MAX(slash - path, 1);
    return vb_fail(err, r == -ENOMEM ? -ENOSPC : r,
                   "the segment needs %.1f MiB in %.*s, where there is no room: free some, lower segment.backends, "
                   "or put it elsewhere with --segment",
                   (double)size / (1 << 20), n, slash == NULL ? "." : path);
}

/* Everything but the rows of worker slots, whose pages come with the workers. */
static int reserve(int fd, const char *path, const struct shm_layout *at, struct vb_error *err)
{
    uint64_t size = at->workers_at;
    int r = ftruncate(fd, (off_t)at->total_size) == 0 ? shm_reserve(fd, 0, size) : -errno;
    if (r == -ENOSPC || r == -ENOMEM || r == -EDQUOT || r == -EFBIG)
        return say_no_room(r, path, size, err);
    if (r < 0)
        return vb_fail(err, r, "cannot reserve the segment %s: %s", path, vb_strerror(r));
    return 0;
}

/* A second open file description of the same file: what workers inherit must not carry the lock. */
static int reopen(int fd)
{
    char link[40];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    int again = open(link, O_RDWR | O_CLOEXEC);
    return again < 0 ? -errno : again;
}

/* Step 3, under the name `temporary`. The caller closes what is left in *shm when this fails. */
static int make_file(struct vb_shm *shm, const char *temporary, const char *name, struct vb_error *err)
{
    unlink(temporary); /* left by a starter that was killed; we hold the lock, so nobody is at work on it */
    shm->lock_fd = open(temporary, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (shm->lock_fd < 0)
        return say_cannot_open(-errno, temporary, err);
    int r = shm_lock_master(shm->lock_fd);
    if (r < 0)
        goto fail;
    r = reserve(shm->lock_fd, shm->path, &shm->at, err);
    if (r < 0)
        goto remove;
    r = reopen(shm->lock_fd);
    if (r < 0)
        goto fail;
    shm->fd = r;
    r = shm_lock_instance(shm->fd);
    if (r < 0)
        goto fail;
    r = shm_map(shm, shm->lock_fd, PROT_READ | PROT_WRITE);
    if (r < 0)
        goto fail;
    r = shm_header_fill(vb_shm_header(shm), name, shm->cap);
    if (r < 0)
        goto fail;
    if (rename(temporary, shm->path) == 0)
        return 0;
    r = -errno;
fail:
    vb_fail(err, r, "cannot make the segment %s: %s", shm->path, vb_strerror(r));
remove:
    unlink(temporary);
    return r;
}

static void remove_if_empty(const char *path, int fd)
{
    struct stat st;
    if (fstat(fd, &st) == 0 && st.st_size == 0)
        unlink(path);
}

int vb_shm_create(struct vb_shm **ret_shm, const char *path, const char *name, struct vb_shm_capacity cap,
                  struct vb_error *err)
{
    if (!shm_capacity_valid(cap))
        return vb_fail(err, -EINVAL, "a segment holds 1 to %d workers and 1 to %d backends, not %u and %u",
                       VB_SHM_WORKERS_MAX, VB_SHM_BACKENDS_MAX, cap.workers, cap.backends);
    if (strlen(name) >= VB_SHM_NAME_MAX)
        return vb_fail(err, -EINVAL, "the name '%s' is longer than %d bytes", name, VB_SHM_NAME_MAX - 1);
    char *temporary = NULL;
    struct vb_shm *shm = shm_new();
    if (shm == NULL)
        return vb_fail(err, -ENOMEM, "no memory for the segment");
    shm->cap = cap;
    shm->at = shm_layout(cap);
    int r = -ENOMEM, old = -1;
    shm->path = strdup(path);
    if (shm->path == NULL || asprintf(&temporary, "%s.%d", path, (int)getpid()) < 0) {
        temporary = NULL; /* asprintf leaves it undefined */
        vb_fail(err, r, "no memory for the segment");
        goto out;
    }
    r = old = lock_path(path, name, err);
    if (r < 0)
        goto out;
    r = make_file(shm, temporary, name, err);
    if (r < 0)
        remove_if_empty(path, old); /* lock_path may have made it */
    shm_unlock_master(old);
    shm->last_fd = old;
out:
    free(temporary);
    if (r < 0)
        vb_shm_close(&shm);
    else
        *ret_shm = shm;
    return r;
}

int vb_shm_create_private(struct vb_shm **ret_shm, struct vb_shm_capacity cap)
{
    if (!shm_capacity_valid(cap))
        return -EINVAL;
    struct vb_shm *shm = shm_new();
    if (shm == NULL)
        return -ENOMEM;
    shm->cap = cap;
    shm->at = shm_layout(cap);
    void *base =
        mmap(NULL, shm->at.total_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    int r = base == MAP_FAILED ? -errno : 0;
    if (r == 0) {
        shm->base = base;
        r = shm_header_fill(vb_shm_header(shm), "", cap);
    }
    if (r < 0)
        vb_shm_close(&shm);
    else
        *ret_shm = shm;
    return r;
}

void vb_shm_publish(struct vb_shm *shm)
{
    atomic_store_explicit(&vb_shm_header(shm)->ready, 1, memory_order_release);
}

int vb_shm_fd_for_workers(const struct vb_shm *shm)
{
    return shm->fd;
}

struct vb_shm_files vb_shm_files(const struct vb_shm *shm)
{
    return (struct vb_shm_files){shm->path, shm->lock_fd, shm->fd};
}

void vb_shm_unlink(struct vb_shm *shm)
{
    if (shm->lock_fd >= 0 && path_names(shm->path, shm->lock_fd))
        unlink(shm->path);
}
