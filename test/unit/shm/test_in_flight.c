/* Requests in flight: a row for each worker and a count that all share agree, whoever dies wherever. */
#include "fixture.h"

#include <errno.h>
#include <sched.h>
#include <sys/mman.h>

enum { WORKERS = 4, BACKENDS = 40, LIMIT = 5, ROUNDS = 300, HAMMERS = 20000 };

#define STEP (UINT64_C(1) << 32) /* of the sequence in a row's word; odd: in the middle of counting */

static struct vb_shm *master;

/* What the workers of a test share. */
struct shared {
    _Atomic unsigned inside, too_many, refused;
    _Atomic bool stop;
};
static struct shared *shared;

static int setup_master(void **state)
{
    setup(state);
    master =
        create(((struct fixture *)*state)->path, (struct vb_shm_capacity){.workers = WORKERS, .backends = BACKENDS});
    for (unsigned slot = 0; slot < WORKERS; slot++)
        assert_int_equal(vb_shm_claim_worker(master, slot, 1, false), slot);
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

static vb_u64 *row_word(unsigned slot, unsigned backend)
{
    return &vb_shm_in_flight(master, slot)[backend];
}

static vb_u32 *shared_word(unsigned backend)
{
    return &vb_shm_loads(master)[backend];
}

static void expect_both(unsigned backend, unsigned n)
{
    assert_int_equal(vb_shm_load(master, backend), n);
    assert_int_equal(vb_shm_sum_in_flight(master, backend), n);
}

static pid_t in_child(void (*run)(unsigned), unsigned slot)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid > 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    run(slot);
    _exit(0);
}

static void both_counts_go_together(void **state)
{
    for (unsigned i = 0; i < BACKENDS; i++)
        for (unsigned n = 0; n <= i; n++)
            assert_true(vb_shm_begin(master, n % WORKERS, i, 0));
    for (unsigned i = 0; i < BACKENDS; i++)
        expect_both(i, i + 1);
    for (unsigned i = 0; i < BACKENDS; i++)
        vb_shm_end(master, 0, i);
    for (unsigned i = 0; i < BACKENDS; i++)
        expect_both(i, i);
}

static void expect_tally(unsigned line, unsigned least, unsigned ties)
{
    struct vb_shm_tally tally = vb_shm_read_tally(&vb_shm_tallies(master)[line]);
    assert_int_equal(tally.least, least);
    assert_int_equal(tally.ties, ties);
}

static void a_tally_is_kept_from_when_it_is_asked_for(void **state)
{
    assert_true(vb_shm_begin(master, 1, 3, 0));
    vb_shm_keep_tally(master, 0);
    expect_tally(0, 0, VB_SHM_LINE - 1);
    vb_shm_keep_tally(master, 1);
    for (unsigned i = 0; i < VB_SHM_LINE; i++)
        assert_true(vb_shm_begin(master, i % WORKERS, i, 0));
    expect_tally(0, 1, VB_SHM_LINE - 1);
    expect_tally(1, 0, VB_SHM_LINE); /* another line */
    vb_shm_end(master, 0, 4);
    expect_tally(0, 0, 1);
    vb_shm_release_worker(master, 1, true); /* had 1, 3, 5, 9 and 13 */
    expect_tally(0, 0, 5);
}

static void come_and_go(unsigned slot);

/* Whoever was faster has seen those whose try failed. */
static void a_tally_is_right_after_a_race(void **state)
{
    pid_t children[WORKERS];
    vb_shm_keep_tally(master, 0);
    for (unsigned i = 3; i < VB_SHM_LINE; i++) /* so that the least is among those that change */
        for (unsigned n = 0; n < 10; n++)
            assert_true(vb_shm_begin(master, 0, i, 0));
    for (unsigned round = 0; round < 20; round++) {
        uint32_t least = UINT32_MAX;
        shared->stop = false;
        for (unsigned slot = 0; slot < WORKERS; slot++)
            children[slot] = in_child(come_and_go, slot);
        usleep(5000); /* so that they race for a while; nothing depends on it */
        shared->stop = true;
        for (unsigned slot = 0; slot < WORKERS; slot++)
            waitpid(children[slot], NULL, 0);
        for (unsigned i = 0; i < 3; i++)
            least = VB_MIN(least, vb_shm_load(master, i));
        assert_int_equal(vb_shm_read_tally(&vb_shm_tallies(master)[0]).least, VB_MIN(least, 10u));
    }
}

static void a_limit_is_for_all_workers_together(void **state)
{
    for (unsigned slot = 0; slot < 3; slot++)
        assert_true(vb_shm_begin(master, slot, 7, 3));
    for (unsigned slot = 0; slot < WORKERS; slot++)
        assert_false(vb_shm_begin(master, slot, 7, 3));
    expect_both(7, 3); /* who was refused holds nothing */
    assert_true(vb_shm_begin(master, 3, 7, 4));
    vb_shm_end(master, 0, 7);
    assert_false(vb_shm_begin(master, 0, 7, 2)); /* lowered under what is there */
    assert_true(vb_shm_begin(master, 0, 7, 0));
}

/* Each holds a place for some moments; nobody ever sees more than the limit. */
static void hammer(unsigned slot)
{
    for (unsigned n = 0; n < HAMMERS; n++) {
        if (!vb_shm_begin(master, slot, 3, LIMIT)) {
            shared->refused++;
            continue;
        }
        shared->too_many += ++shared->inside > LIMIT;
        if (n % 8 == 0)
            sched_yield();
        shared->inside--;
        vb_shm_end(master, slot, 3);
    }
}

static void a_limit_holds_when_many_race(void **state)
{
    pid_t children[WORKERS];
    for (unsigned n = 0; n < LIMIT - 1; n++) /* so that one place is left */
        assert_true(vb_shm_begin(master, 0, 3, 0));
    shared->inside = LIMIT - 1;
    for (unsigned slot = 0; slot < WORKERS; slot++)
        children[slot] = in_child(hammer, slot);
    for (unsigned slot = 0; slot < WORKERS; slot++) {
        int status;
        assert_int_equal(waitpid(children[slot], &status, 0), children[slot]);
        assert_int_equal(status, 0);
    }
    assert_int_equal(shared->too_many, 0);
    assert_true(shared->refused > 0);
    expect_both(3, LIMIT - 1);
}

static void what_a_dead_worker_had_is_given_back(void **state)
{
    for (unsigned n = 0; n < 6; n++)
        assert_true(vb_shm_begin(master, n % 2, 20, 0));
    vb_shm_release_worker(master, 1, true);
    expect_both(20, 3);
    vb_shm_release_worker(master, 0, true);
    expect_both(20, 0);
}

/* It died before or after it changed the shared count, at a beginning or at an end: nobody can say which. */
static void one_that_died_while_counting_leaves_no_trace(void **state)
{
    for (int beginning = 0; beginning < 2; beginning++) {
        for (int changed = 0; changed < 2; changed++) {
            assert_true(vb_shm_begin(master, 0, 20, 0));
            assert_true(vb_shm_begin(master, 1, 20, 0));
            *row_word(1, 20) += beginning ? STEP + 1 : STEP - 1;
            if (changed)
                *shared_word(20) += beginning ? 1 : -1;
            vb_shm_release_worker(master, 1, true);
            assert_int_equal(vb_shm_claim_worker(master, 1, 1, false), 1);
            expect_both(20, 1);
            vb_shm_end(master, 0, 20);
            expect_both(20, 0);
        }
    }
}

/* Then nobody can tell the one's change from the other's, until the second has finished. */
static void it_is_settled_later_where_another_is_in_the_middle(void **state)
{
    assert_true(vb_shm_begin(master, 0, 20, 0));
    *row_word(2, 20) += STEP + 1; /* stopped before it could count */
    *row_word(1, 20) += STEP + 1; /* died before, too */
    vb_shm_release_worker(master, 1, true);
    vb_shm_settle(master);
    assert_int_not_equal(vb_shm_backend(master, 20)->unsettled, 0);
    *shared_word(20) += 1; /* it goes on */
    *row_word(2, 20) += STEP;
    vb_shm_settle(master);
    assert_int_equal(vb_shm_backend(master, 20)->unsettled, 0);
    expect_both(20, 2);
}

static void come_and_go(unsigned slot)
{
    for (unsigned n = 0; !shared->stop; n++) {
        unsigned backend = n % 3;
        if ((uint32_t)*row_word(slot, backend) > 2)
            vb_shm_end(master, slot, backend);
        else
            assert(vb_shm_begin(master, slot, backend, n % 2 == 0 ? 0 : 1000));
    }
}

/* Where they die is chance: many of these deaths are between the two counts. */
static void nothing_is_lost_or_left_by_any_death(void **state)
{
    pid_t children[WORKERS];
    for (unsigned slot = 0; slot < WORKERS; slot++)
        children[slot] = in_child(come_and_go, slot);
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned slot = round % WORKERS;
        usleep(500); /* so that it counts for a while; nothing depends on it */
        kill(children[slot], SIGKILL);
        assert_int_equal(waitpid(children[slot], NULL, 0), children[slot]);
        vb_shm_release_worker(master, slot, true);
        assert_int_equal(vb_shm_claim_worker(master, slot, 1, false), slot);
        children[slot] = in_child(come_and_go, slot);
    }
    shared->stop = true;
    for (unsigned slot = 0; slot < WORKERS; slot++)
        waitpid(children[slot], NULL, 0);
    vb_shm_settle(master);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(vb_shm_load(master, i), vb_shm_sum_in_flight(master, i));
    for (unsigned slot = 0; slot < WORKERS; slot++)
        vb_shm_release_worker(master, slot, false);
    for (unsigned i = 0; i < 3; i++)
        expect_both(i, 0);
}

static void a_private_segment_counts_too(void **state)
{
    struct vb_shm *own = NULL;
    assert_int_equal(vb_shm_create_private(&own, (struct vb_shm_capacity){.workers = 64, .backends = 1000}), 0);
    assert_int_equal(vb_shm_claim_worker(own, 63, 1, false), 0);
    assert_true(vb_shm_begin(own, 0, 999, 1));
    assert_false(vb_shm_begin(own, 0, 999, 1));
    assert_int_equal(vb_shm_load(own, 999), 1);
    vb_shm_close(&own);
    assert_int_equal(vb_shm_create_private(&own, (struct vb_shm_capacity){.workers = 0, .backends = 1}), -EINVAL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup_master, teardown_master)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(both_counts_go_together),
        TEST(a_tally_is_kept_from_when_it_is_asked_for),
        TEST(a_tally_is_right_after_a_race),
        TEST(a_limit_is_for_all_workers_together),
        TEST(a_limit_holds_when_many_race),
        TEST(what_a_dead_worker_had_is_given_back),
        TEST(one_that_died_while_counting_leaves_no_trace),
        TEST(it_is_settled_later_where_another_is_in_the_middle),
        TEST(nothing_is_lost_or_left_by_any_death),
        TEST(a_private_segment_counts_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
