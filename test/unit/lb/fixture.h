/* A segment of its own for each test, with pools, and several workers' pictures of them. */
#ifndef VB_TEST_LB_FIXTURE_H
#define VB_TEST_LB_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "vb/lb.h"
#include "vb/rand.h"

enum { WORKERS = 4 };

struct fixture {
    char dir[32], path[64];
    struct vb_shm *shm;
    struct vb_lb *workers[WORKERS]; /* opened by open_pool */
    struct vb_rand rand;            /* the same numbers in each run */
};

static inline int setup_sized(void **state, unsigned backends)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct vb_error err = {{0}};
    assert_non_null(f);
    snprintf(f->dir, sizeof(f->dir), "/tmp/vb-lb-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->path, sizeof(f->path), "%s/segment", f->dir);
    if (vb_shm_create(&f->shm, f->path, "test", (struct vb_shm_capacity){.workers = WORKERS, .backends = backends},
                      &err) != 0)
        fail_msg("create: %s", err.text);
    f->rand = (struct vb_rand){{1, 2, 3, 4}};
    for (unsigned i = 0; i < WORKERS; i++)
        assert_int_equal(vb_shm_claim_worker(f->shm, i, 1, false), i);
    *state = f;
    return 0;
}

static inline int setup(void **state)
{
    return setup_sized(state, 16);
}

static inline int teardown(void **state)
{
    struct fixture *f = *state;
    for (unsigned i = 0; i < WORKERS; i++)
        vb_lb_close(&f->workers[i]);
    vb_shm_unlink(f->shm);
    vb_shm_close(&f->shm);
    int r = rmdir(f->dir);
    free(f);
    return r;
}

/* Its slot. */
static inline unsigned add_backend(struct fixture *f, unsigned pool, unsigned weight)
{
    static unsigned count;
    char name[16];
    snprintf(name, sizeof(name), "b%u", count++);
    int slot = vb_shm_add_backend(f->shm, pool,
                                  &(struct vb_backend_spec){name, "127.0.0.1:1", weight, true, VB_HEALTH_UNKNOWN,
                                                            VB_ADMIN_READY, false, 0, false});
    assert_true(slot >= 0);
    return (unsigned)slot;
}

#define NOW 1000000 /* when nothing depends on the time */

static inline void open_worker(struct fixture *f, unsigned worker, const struct vb_lb_rules *rules)
{
    assert_int_equal(vb_lb_open(&f->workers[worker], f->shm, 0, worker, rules, &f->rand), 0);
}

/* Pool 0, with these weights in slots 0, 1, ...; seen by all workers. */
static inline void open_pool(struct fixture *f, const char *balance, const unsigned *weights, unsigned n)
{
    assert_int_equal(vb_shm_add_pool(f->shm, &(struct vb_pool_spec){"web", balance, 0, 50}), 0);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(add_backend(f, 0, weights[i]), i);
    for (unsigned i = 0; i < WORKERS; i++)
        open_worker(f, i, &(struct vb_lb_rules){.balance = balance});
}

static inline void set_health(struct fixture *f, unsigned backend, enum vb_health_state health)
{
    vb_shm_write_health(f->shm, backend, health, &(struct vb_health_record){.checks = 1});
}

/* As the master does it: the word, then the epoch. */
static inline void set_word(struct fixture *f, vb_u32 *word, uint32_t value)
{
    atomic_store(word, value);
    atomic_fetch_add(&vb_shm_pool(f->shm, 0)->epoch, 1);
}

/* The worker in `slot` has so many requests more in flight there. */
static inline void occupy(struct fixture *f, unsigned slot, unsigned backend, unsigned n)
{
    for (; n > 0; n--)
        assert_true(vb_shm_begin(f->shm, slot, backend, 0));
}

static const struct vb_tried none_tried;

/* For a request that nothing is known of. */
static inline int try_to_pick(struct vb_lb *lb, const struct vb_tried *tried, uint64_t now_us)
{
    enum vb_pick_reason reason;
    return vb_lb_pick(lb, &(struct vb_ask){.tried = tried, .stuck_to = -1}, now_us, &reason);
}

static inline int pick_at(struct fixture *f, unsigned worker, uint64_t now_us)
{
    return try_to_pick(f->workers[worker], &none_tried, now_us);
}

/* Picks, and says which backend; the request stays in flight. */
static inline unsigned pick_untried(struct fixture *f, unsigned worker, const struct vb_tried *tried)
{
    int backend = try_to_pick(f->workers[worker], tried, NOW);
    if (backend < 0)
        fail_msg("worker %u: %d", worker, backend);
    return (unsigned)backend;
}

static inline unsigned pick(struct fixture *f, unsigned worker)
{
    return pick_untried(f, worker, &none_tried);
}

/* The same sequence in each run. */
static inline unsigned random_below(unsigned below)
{
    static struct vb_rand rand = {{1, 2, 3, 4}};
    return (unsigned)vb_rand_below(&rand, below);
}

#endif
