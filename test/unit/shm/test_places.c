/* Limits of a pool's requests: exact over workers, and given back when one dies. */
#include "fixture.h"

#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>

enum { WORKERS = 4, POOLS = 3, ROUNDS = 1000, LIMIT = 7, TRIES = 4, HAMMERS = 20000 };

static struct vb_shm *master;

/* What the workers of a test share. */
struct shared {
    vb_u32 arrived, entered, wrong, full_rounds, inside[2];
    vb_u64 times;
};
static struct shared *shared;

static int setup_master(void **state)
{
    setup(state);
    master = create(((struct fixture *)*state)->path, (struct vb_shm_capacity){.workers = WORKERS, .backends = POOLS});
    claim_all(master, false);
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(shared != MAP_FAILED);
    return 0;
}

static int teardown_master(void **state)
{
    munmap(shared, sizeof(*shared));
    vb_shm_close(&master);
    return teardown(state);
}

static bool enter(unsigned slot, unsigned pool, enum vb_place place, unsigned limit)
{
    return vb_shm_enter(master, slot, pool, place, limit);
}

static uint64_t held(unsigned pool, enum vb_place place)
{
    return vb_shm_sum_places(master, pool, place);
}

static void limits_hold_over_workers(void **state)
{
    assert_true(enter(0, 1, VB_PLACE_REQUEST, 3));
    assert_true(enter(3, 1, VB_PLACE_REQUEST, 3));
    assert_true(enter(0, 1, VB_PLACE_REQUEST, 3));
    for (unsigned slot = 0; slot < WORKERS; slot++)
        assert_false(enter(slot, 1, VB_PLACE_REQUEST, 3));
    assert_int_equal(held(1, VB_PLACE_REQUEST), 3); /* who was refused holds nothing */
    assert_true(enter(2, 1, VB_PLACE_REQUEST, 4));
    vb_shm_exit(master, 0, 1, VB_PLACE_REQUEST);
    assert_false(enter(1, 1, VB_PLACE_REQUEST, 3)); /* lowered under what is there */
    vb_shm_exit(master, 3, 1, VB_PLACE_REQUEST);
    assert_true(enter(1, 1, VB_PLACE_REQUEST, 3));
}

static void pools_and_kinds_are_apart(void **state)
{
    for (unsigned pool = 0; pool < POOLS; pool++) {
        assert_true(enter(1, pool, VB_PLACE_REQUEST, 1));
        assert_true(enter(2, pool, VB_PLACE_PENDING, 1));
    }
    for (unsigned pool = 0; pool < POOLS; pool++) {
        assert_false(enter(2, pool, VB_PLACE_REQUEST, 1));
        assert_false(enter(1, pool, VB_PLACE_PENDING, 1));
        assert_int_equal(held(pool, VB_PLACE_REQUEST), 1);
        assert_int_equal(held(pool, VB_PLACE_PENDING), 1);
    }
    vb_shm_exit(master, 1, 2, VB_PLACE_REQUEST);
    assert_true(enter(3, 2, VB_PLACE_REQUEST, 1));
    assert_false(enter(3, 0, VB_PLACE_REQUEST, 1));
    assert_false(enter(3, 2, VB_PLACE_PENDING, 1));
}

static void without_a_limit_they_count_all_the_same(void **state)
{
    for (unsigned i = 0; i < 100; i++)
        assert_true(enter(i % WORKERS, 0, VB_PLACE_PENDING, 0));
    assert_int_equal(held(0, VB_PLACE_PENDING), 100);
    assert_false(enter(0, 0, VB_PLACE_PENDING, 100));
    assert_true(enter(0, 0, VB_PLACE_PENDING, 101));
}

static void what_the_dead_held_comes_back(void **state)
{
    for (unsigned i = 0; i < 3; i++) {
        assert_true(enter(1, 0, VB_PLACE_REQUEST, 4));
        assert_true(enter(1, 2, VB_PLACE_PENDING, 4));
    }
    assert_true(enter(0, 0, VB_PLACE_REQUEST, 4));
    assert_false(enter(0, 0, VB_PLACE_REQUEST, 4));
    vb_shm_places(master, 1, 0)->requests |= 1; /* in the middle of deciding */
    vb_shm_release_worker(master, 1, true);
    assert_int_equal(held(0, VB_PLACE_REQUEST), 1); /* the living one's */
    assert_int_equal(held(2, VB_PLACE_PENDING), 0);
    for (unsigned i = 0; i < 3; i++)
        assert_true(enter(2, 0, VB_PLACE_REQUEST, 4));
    assert_false(enter(2, 0, VB_PLACE_REQUEST, 4));
}

/* ---- several workers --------------------------------------------------------------------------------------------- */

static void in_threads(void *(*run)(void *slot))
{
    pthread_t threads[WORKERS];
    for (unsigned slot = 0; slot < WORKERS; slot++)
        assert_int_equal(pthread_create(&threads[slot], NULL, run, (void *)(uintptr_t)slot), 0);
    for (unsigned slot = 0; slot < WORKERS; slot++)
        pthread_join(threads[slot], NULL);
}

/* Lets them all go at the same moment. */
static void meet(unsigned times)
{
    shared->arrived++;
    while (shared->arrived < times * WORKERS)
        sched_yield();
}

/* All try at once and nobody leaves. */
static void *enter_at_once(void *arg)
{
    unsigned slot = (unsigned)(uintptr_t)arg;
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned mine = 0;
        meet(2 * round + 1);
        for (unsigned i = 0; i < TRIES; i++)
            mine += enter(slot, 1, VB_PLACE_REQUEST, LIMIT);
        shared->entered += mine;
        meet(2 * round + 2);
        if (slot == 0) {
            shared->wrong += shared->entered > LIMIT;
            shared->full_rounds += shared->entered == LIMIT;
            shared->entered = 0;
        }
        for (; mine > 0; mine--)
            vb_shm_exit(master, slot, 1, VB_PLACE_REQUEST);
    }
    return NULL;
}

static void as_many_as_places_when_all_come_at_once(void **state)
{
    in_threads(enter_at_once);
    assert_int_equal(shared->wrong, 0);
    assert_true(shared->full_rounds > ROUNDS * 9 / 10); /* who lost his CPU in the middle may cost others a place */
    assert_int_equal(held(1, VB_PLACE_REQUEST), 0);
}

/* Comes and goes: those inside, counted on their own, are never more than may be. */
static void hammer(unsigned slot)
{
    for (unsigned i = 0; i < HAMMERS; i++) {
        enum vb_place place = (slot + i / 3) % 2 ? VB_PLACE_REQUEST : VB_PLACE_PENDING;
        unsigned limit = place == VB_PLACE_REQUEST ? 3 : 2;
        if (!enter(slot, 1, place, limit))
            continue;
        shared->wrong += ++shared->inside[place] > limit;
        shared->times++;
        shared->inside[place]--;
        vb_shm_exit(master, slot, 1, place);
    }
}

static void *hammer_in_thread(void *slot)
{
    hammer((unsigned)(uintptr_t)slot);
    return NULL;
}

static void never_too_many(void **state)
{
    in_threads(hammer_in_thread);
    assert_int_equal(shared->wrong, 0);
    assert_true(shared->times > 1000);
    assert_int_equal(held(1, VB_PLACE_REQUEST) + held(1, VB_PLACE_PENDING), 0);
}

/* Wherever a worker is killed, nothing of it stays. */
static void killed_at_any_moment(void **state)
{
    for (unsigned round = 0; round < 30; round++) {
        pid_t pid = fork_child();
        if (pid == 0)
            for (;;)
                hammer(1);
        uint64_t before = shared->times;
        while (shared->times < before + 10 * round + 1)
            sched_yield();
        kill(pid, SIGKILL);
        assert_int_equal(status_of(pid), -1);
        vb_shm_release_worker(master, 1, true);
        assert_int_equal(vb_shm_places(master, 1, 1)->requests + vb_shm_places(master, 1, 1)->pending, 0);
        shared->inside[0] = shared->inside[1] = 0;
        assert_int_equal(vb_shm_claim_worker(master, 1, round, false), 1);
    }
    assert_int_equal(shared->wrong, 0);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup_master, teardown_master)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(limits_hold_over_workers),
        TEST(pools_and_kinds_are_apart),
        TEST(without_a_limit_they_count_all_the_same),
        TEST(what_the_dead_held_comes_back),
        TEST(as_many_as_places_when_all_come_at_once),
        TEST(never_too_many),
        TEST(killed_at_any_moment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
