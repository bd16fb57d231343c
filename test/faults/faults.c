/*
 * Faults at will, for the program `vibebalancer-faults`: vibebalancer with these functions in the place of the C
 * library's (ld --wrap), where only calls of our own code come; libuv, in its own shared library, keeps its memory.
 *
 * VB_FAIL_EVERY=N: in workers, from the moment they serve, each Nth allocation fails. 0 or nothing: none does.
 * VB_FAIL_TAKE_OVER=1: the health thread cannot be started, the last step of a start or an upgrade that can fail.
 * VB_STOP_AT_START=FILE: while the file is there, a new worker stops itself (SIGSTOP) before it does anything.
 */
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vb/health.h"
#include "vb/loop.h"
#include "vb/proc.h"
#include "vb/str.h"

/* A worker has one thread. */
static uint64_t fail_every, count;
static bool is_worker;

void *__real_malloc(size_t n);
void *__real_calloc(size_t count_of, size_t n);
void *__real_realloc(void *memory, size_t n);
char *__real_strdup(const char *text);
void __real_vb_loop_run(struct vb_loop *loop);
int __real_vb_health_start(struct vb_health *health);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t count_of, size_t n);
void *__wrap_realloc(void *memory, size_t n);
char *__wrap_strdup(const char *text);
void __wrap_vb_loop_run(struct vb_loop *loop);
int __wrap_vb_health_start(struct vb_health *health);

static bool fails(void)
{
    if (fail_every == 0 || ++count % fail_every != 0)
        return false;
    errno = ENOMEM;
    return true;
}

void *__wrap_malloc(size_t n)
{
    return fails() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t count_of, size_t n)
{
    return fails() ? NULL : __real_calloc(count_of, n);
}

void *__wrap_realloc(void *memory, size_t n)
{
    return fails() ? NULL : __real_realloc(memory, n);
}

char *__wrap_strdup(const char *text)
{
    return fails() ? NULL : __real_strdup(text);
}

int __wrap_vb_health_start(struct vb_health *health)
{
    return getenv("VB_FAIL_TAKE_OVER") != NULL ? -EAGAIN : __real_vb_health_start(health);
}

/* The second argument of a worker is a word that no other of our processes has there. glibc passes main's arguments. */
__attribute__((constructor)) static void look_at_arguments(int argc, char **argv)
{
    const char *stop = getenv("VB_STOP_AT_START");
    is_worker = argc > 1 && strcmp(argv[1], VB_WORKER_WORD) == 0;
    if (is_worker && stop != NULL && access(stop, F_OK) == 0)
        raise(SIGSTOP);
}

/* When a worker runs its loop it has said that it is ready. The master's threads have loops too. */
void __wrap_vb_loop_run(struct vb_loop *loop)
{
    const char *every = getenv("VB_FAIL_EVERY");
    uint64_t n;
    if (every != NULL && is_worker && vb_parse_u64(vb_str(every), UINT32_MAX, &n) == 0)
        fail_every = n;
    __real_vb_loop_run(loop);
    fail_every = 0;
}
