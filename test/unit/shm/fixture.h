/* A directory of its own for each test, and children whose findings count. */
#ifndef FIXTURE_H
#define FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vb/shm.h"

#define NAME "test"

struct fixture {
    char dir[32], path[64];
};

static const struct vb_shm_capacity small = {.workers = 3, .backends = 5};

static inline int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    snprintf(f->dir, sizeof(f->dir), "/tmp/vb-shm-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->path, sizeof(f->path), "%s/segment", f->dir);
    *state = f;
    return 0;
}

static inline int teardown(void **state)
{
    struct fixture *f = *state;
    unlink(f->path);
    int r = rmdir(f->dir); /* fails when a test left a file behind */
    free(f);
    return r;
}

static inline struct vb_shm *create(const char *path, struct vb_shm_capacity cap)
{
    struct vb_error err = {{0}};
    struct vb_shm *shm = NULL;
    int r = vb_shm_create(&shm, path, NAME, cap, &err);
    if (r != 0)
        fail_msg("create: %d, %s", r, err.text);
    return shm;
}

/* Workers in all of its slots. */
static inline void claim_all(struct vb_shm *shm, bool count_ips)
{
    for (unsigned i = 0; i < vb_shm_capacity(shm).workers; i++)
        assert_int_equal(vb_shm_claim_worker(shm, i, 1, count_ips), i);
}

static inline struct vb_shm *attach(const char *path)
{
    struct vb_error err = {{0}};
    struct vb_shm *shm = NULL;
    int r = vb_shm_attach(&shm, path, &err);
    if (r != 0)
        fail_msg("attach: %d, %s", r, err.text);
    return shm;
}

/* A child that does not outlive the test, whatever becomes of it. */
static inline pid_t fork_child(void)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    return pid;
}

/* Waits for a child; its exit status, or -1 when a signal ended it. */
static inline int status_of(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#endif
