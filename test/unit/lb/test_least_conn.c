/* least_conn: the fewest in flight for its weight, over all workers, as of the moment of the pick. */
#include "fixture.h"

#define BACKENDS_MAX 8

static uint64_t in_flight(const struct fixture *f, unsigned backend)
{
    return vb_shm_sum_in_flight(f->shm, backend);
}

static uint64_t most(const struct fixture *f, unsigned n)
{
    uint64_t most = 0;
    for (unsigned i = 0; i < n; i++)
        most = VB_MAX(most, in_flight(f, i));
    return most;
}

static uint64_t least(const struct fixture *f, unsigned n)
{
    uint64_t least = UINT64_MAX;
    for (unsigned i = 0; i < n; i++)
        least = VB_MIN(least, in_flight(f, i));
    return least;
}

static void nobody_has_two_more_than_another(void **state)
{
    struct fixture *f = *state;
    open_pool(f, "least_conn", (unsigned[]){1, 1, 1, 1, 1}, 5);
    for (unsigned i = 1; i <= 500; i++) {
        pick(f, random_below(WORKERS));
        assert_true(most(f, 5) - least(f, 5) <= 1);
    }
    assert_int_equal(least(f, 5), 100);
}

/* Requests come and go in all workers: each new one goes where there are the fewest. */
static void a_pick_is_among_the_least(void **state)
{
    struct fixture *f = *state;
    unsigned owner[200], backend[200], n = 0;
    open_pool(f, "least_conn", (unsigned[]){2, 2, 2}, 3);
    for (unsigned i = 0; i < 20000; i++) {
        if (n == VB_ARRAY_SIZE(owner) || (n > 0 && random_below(2) == 0)) {
            unsigned k = random_below(n--);
            vb_lb_done(f->workers[owner[k]], backend[k]);
            owner[k] = owner[n];
            backend[k] = backend[n];
            continue;
        }
        uint64_t fewest = least(f, 3);
        owner[n] = random_below(WORKERS);
        backend[n] = pick(f, owner[n]);
        assert_int_equal(in_flight(f, backend[n]), fewest + 1);
        n++;
    }
}

static void load_follows_the_weights(void **state)
{
    static const unsigned weights[] = {5, 3, 1, 1};
    struct fixture *f = *state;
    open_pool(f, "least_conn", weights, 4);
    for (unsigned i = 1; i <= 1000; i++) {
        pick(f, random_below(WORKERS));
        for (unsigned a = 0; a < 4; a++)
            for (unsigned b = 0; b < 4; b++) /* one more for b would not have been less load for its weight */
                assert_true((in_flight(f, a) > 0 ? in_flight(f, a) - 1 : 0) * weights[b] <=
                            (in_flight(f, b) + 1) * weights[a]);
    }
    for (unsigned a = 0; a < 4; a++)
        assert_in_range(in_flight(f, a), 100 * weights[a] - 2, 100 * weights[a] + 2);
}

static void what_other_workers_have_in_flight_counts(void **state)
{
    struct fixture *f = *state;
    open_pool(f, "least_conn", (unsigned[]){1, 1, 1}, 3);
    set_health(f, 0, VB_HEALTH_DOWN);
    set_health(f, 2, VB_HEALTH_DOWN);
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(pick(f, 3), 1);
    set_health(f, 0, VB_HEALTH_UP);
    set_health(f, 2, VB_HEALTH_UP);
    for (unsigned i = 0; i < 20; i++)
        assert_int_not_equal(pick(f, 0), 1);
    assert_int_equal(in_flight(f, 0), 10);
    assert_int_equal(in_flight(f, 2), 10);
}

static void where_one_ended_the_next_begins(void **state)
{
    struct fixture *f = *state;
    open_pool(f, "least_conn", (unsigned[]){1, 1, 1, 1}, 4);
    for (unsigned i = 0; i < 40; i++)
        pick(f, 0);
    for (unsigned i = 0; i < 20; i++) {
        unsigned backend = random_below(4);
        vb_lb_done(f->workers[0], backend);
        assert_int_equal(pick(f, 1 + i % 3), backend);
        vb_lb_done(f->workers[1 + i % 3], backend);
        assert_int_equal(pick(f, 0), backend);
    }
}

/* With nothing in flight all are alike: they take turns, also when each pick is another worker's. */
static void ties_rotate(void **state)
{
    struct fixture *f = *state;
    unsigned counts[4] = {0};
    open_pool(f, "least_conn", (unsigned[]){1, 1, 1, 1}, 4);
    for (unsigned i = 0; i < 400; i++) {
        unsigned worker = random_below(WORKERS), backend = pick(f, worker);
        counts[backend]++;
        vb_lb_done(f->workers[worker], backend);
    }
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(counts[i], 100);
}

/* An idle backend has no load, whatever its weight: none is left out. */
static void idle_backends_take_turns_whatever_they_weigh(void **state)
{
    struct fixture *f = *state;
    unsigned counts[3] = {0};
    open_pool(f, "least_conn", (unsigned[]){2, 1, 1}, 3);
    for (unsigned i = 0; i < 300; i++) {
        unsigned worker = random_below(WORKERS), backend = pick(f, worker);
        counts[backend]++;
        vb_lb_done(f->workers[worker], backend);
    }
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(counts[i], 100);
}

/* Two of four have nothing in flight and stand side by side: they take turns too. */
static void ties_of_some_are_even(void **state)
{
    struct fixture *f = *state;
    unsigned counts[4] = {0};
    open_pool(f, "least_conn", (unsigned[]){1, 1, 1, 1}, 4);
    unsigned busy[2] = {pick(f, 0), pick(f, 1)}; /* these stay */
    for (unsigned i = 0; i < 400; i++) {
        unsigned worker = random_below(WORKERS), backend = pick(f, worker);
        counts[backend]++;
        vb_lb_done(f->workers[worker], backend);
    }
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(counts[i], i == busy[0] || i == busy[1] ? 0 : 200);
}

/* Workers that look at the same moment, before any of them has counted, would all see the same tie. */
static void workers_do_not_herd(void **state)
{
    struct fixture *f = *state;
    open_pool(f, "least_conn", (unsigned[]){1, 1, 1, 1}, 4);
    bool taken[4] = {false};
    for (unsigned worker = 0; worker < WORKERS; worker++) {
        unsigned backend = pick(f, worker);
        assert_false(taken[backend]);
        taken[backend] = true;
        vb_lb_done(f->workers[worker], backend); /* the next worker sees the tie again */
    }
}

static void what_a_dead_worker_had_in_flight_is_forgotten(void **state)
{
    struct fixture *f = *state;
    open_pool(f, "least_conn", (unsigned[]){1, 1}, 2);
    set_health(f, 1, VB_HEALTH_DOWN);
    for (unsigned i = 0; i < 5; i++)
        pick(f, 2);
    set_health(f, 1, VB_HEALTH_UP);
    assert_int_equal(in_flight(f, 0), 5);
    vb_shm_release_worker(f->shm, 2, true);
    assert_int_equal(in_flight(f, 0), 0);
    for (unsigned i = 0; i < 10; i++)
        pick(f, 0);
    assert_int_equal(in_flight(f, 0), 5);
    assert_int_equal(in_flight(f, 1), 5);
}

static void a_change_is_followed_by_the_next_pick(void **state)
{
    struct fixture *f = *state;
    open_pool(f, "least_conn", (unsigned[]){1, 1}, 2);
    set_health(f, 0, VB_HEALTH_DOWN);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(pick(f, i % WORKERS), 1);
    unsigned added = add_backend(f, 0, 1);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(pick(f, i % WORKERS), added);
    set_word(f, &vb_shm_backend(f->shm, 1)->admin, VB_ADMIN_DRAIN);
    set_health(f, added, VB_HEALTH_DOWN);
    assert_int_equal(pick_at(f, 0, NOW), -ENOENT);
    set_health(f, 0, VB_HEALTH_UP);
    assert_int_equal(pick(f, 0), 0);
}

/* The segment may have that of the next configuration already. */
static void a_worker_goes_by_the_policy_of_its_own_configuration(void **state)
{
    struct fixture *f = *state;
    struct vb_lb *lb = NULL;
    open_pool(f, "round_robin", (unsigned[]){1, 1}, 2);
    occupy(f, WORKERS - 1, 0, 5);
    assert_int_equal(vb_lb_open(&lb, f->shm, 0, 0, &(struct vb_lb_rules){.balance = "least_conn"}, &f->rand), 0);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(try_to_pick(lb, &none_tried, NOW), 1);
    vb_lb_close(&lb);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(nobody_has_two_more_than_another),
        TEST(a_pick_is_among_the_least),
        TEST(load_follows_the_weights),
        TEST(what_other_workers_have_in_flight_counts),
        TEST(where_one_ended_the_next_begins),
        TEST(ties_rotate),
        TEST(idle_backends_take_turns_whatever_they_weigh),
        TEST(ties_of_some_are_even),
        TEST(workers_do_not_herd),
        TEST(what_a_dead_worker_had_in_flight_is_forgotten),
        TEST(a_change_is_followed_by_the_next_pick),
        TEST(a_worker_goes_by_the_policy_of_its_own_configuration),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
