/*
 * Finding a segment that a master has made. A tool may be handed any file at all, so the header is read with pread,
 * checked as a copy, and only then is anything mapped: from there on the view's own capacities bound every access.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "shm_priv.h"

enum { READY_TRIES = 11, READY_STEP_MS = 10 };

int vb_shm_default_path(char *to, size_t size, const char *name)
{
    int n = snprintf(to, size, "/dev/shm/vibebalancer-%s", name);
    return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

struct vb_shm *shm_new(void)
{
    struct vb_shm *shm = calloc(1, sizeof(*shm));
    if (shm == NULL)
        return NULL;
    shm->lock_fd = -1;
    shm->fd = -1;
    shm->last_fd = -1;
    return shm;
}

/* Checks what `fd` is and maps it. -EAGAIN when it is a segment that is not ready yet. `fd` stays the caller's. */
static int view_of(struct vb_shm **ret_shm, int fd, bool for_writing, const char *what, struct vb_error *err)
{
    struct stat st;
    struct vb_shm_header header;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return vb_fail(err, -EPROTO, "%s is not a regular file", what);
    if (st.st_size == 0)
        return -EAGAIN;
    if (st.st_size < (off_t)sizeof(header) || pread(fd, &header, sizeof(header), 0) != (ssize_t)sizeof(header))
        return vb_fail(err, -EPROTO, "%s is not a segment of vibebalancer: it is too short", what);
    int r = shm_header_check(&header, (uint64_t)st.st_size, what, for_writing, err);
    if (r < 0)
        return r;
    if (!for_writing && header.ready != 1)
        return -EAGAIN;
    struct vb_shm *shm = shm_new();
    if (shm == NULL)
        return vb_fail(err, -ENOMEM, "no memory for the segment");
    shm->cap = header.cap;
    shm->at = shm_layout(header.cap);
    r = shm_map(shm, fd, for_writing ? PROT_READ | PROT_WRITE : PROT_READ);
    if (r == 0 && (shm->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0)) < 0)
        r = -errno;
    if (r < 0) {
        vb_shm_close(&shm);
        return vb_fail(err, r, "cannot map %s: %s", what, vb_strerror(r));
    }
    /* `ready` was read with a system call; this pairs with the release in vb_shm_publish. */
    (void)atomic_load_explicit(&vb_shm_header(shm)->ready, memory_order_acquire);
    *ret_shm = shm;
    return 0;
}

int vb_shm_attach_fd(struct vb_shm **ret_shm, int fd, struct vb_error *err)
{
    int r = view_of(ret_shm, fd, true, "the inherited segment", err);
    if (r == -EAGAIN)
        return vb_fail(err, -EPROTO, "the inherited segment is empty");
    return r;
}

int vb_shm_adopt(struct vb_shm **ret_shm, const struct vb_shm_files *files, struct vb_error *err)
{
    struct vb_shm *shm = NULL;
    char *path = strdup(files->path);
    if (path == NULL)
        return vb_fail(err, -ENOMEM, "no memory for the segment");
    int r = view_of(&shm, files->fd, true, files->path, err);
    if (r < 0) {
        free(path);
        return r == -EAGAIN ? vb_fail(err, -EPROTO, "%s is empty", files->path) : r;
    }
    close(shm->fd); /* a copy */
    shm->fd = files->fd;
    shm->lock_fd = files->lock_fd;
    shm->path = path;
    *ret_shm = shm;
    return 0;
}

static int attach_once(struct vb_shm **ret_shm, const char *path, struct vb_error *err)
{
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        int r = -errno;
        return vb_fail(err, r, "cannot open %s: %s", path, vb_strerror(r));
    }
    int r = view_of(ret_shm, fd, false, path, err);
    close(fd);
    return r;
}

int vb_shm_attach(struct vb_shm **ret_shm, const char *path, struct vb_error *err)
{
    for (int tries = 0; tries < READY_TRIES; tries++) {
        if (tries > 0)
            nanosleep(&(struct timespec){.tv_nsec = READY_STEP_MS * 1000000L}, NULL);
        /* Opened anew each time: the file that is being made takes the place of another. */
        int r = attach_once(ret_shm, path, err);
        if (r != -EAGAIN)
            return r;
    }
    return vb_fail(err, -EPROTO, "%s is still being made, or its vibebalancer died while it started", path);
}

void vb_shm_close(struct vb_shm **shm)
{
    struct vb_shm *s = *shm;
    if (s == NULL)
        return;
    if (s->base != NULL)
        munmap(s->base, s->at.total_size);
    if (s->fd >= 0)
        close(s->fd);
    if (s->lock_fd >= 0)
        close(s->lock_fd);
    vb_shm_forget_last(s);
    free(s->path);
    free(s);
    *shm = NULL;
}
