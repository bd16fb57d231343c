/* round_robin: smooth, weighted, and exact over all workers together. */
#include "fixture.h"

#include <time.h>

#define WEIGHTS_MAX 8
#define PICKS_MAX   4096

struct weights {
    unsigned n, weights[WEIGHTS_MAX];
    unsigned window; /* picks in which each has its exact share: the sum of the weights, in lowest terms */
};

static const struct weights sets[] = {
    {1, {1}, 1},
    {1, {7}, 1},
    {3, {1, 1, 1}, 3},
    {3, {5, 1, 1}, 7},
    {2, {2, 1}, 3},
    {2, {4, 2}, 3},
    {3, {10, 20, 30}, 6},
    {4, {7, 5, 3, 2}, 17},
    {2, {256, 255}, 511},
    {3, {1, 256, 1}, 258},
    {8, {1, 2, 3, 4, 5, 6, 7, 8}, 36},
};

static void expect_exact_windows(const unsigned *picks, unsigned n_picks, const struct weights *set)
{
    unsigned sum = 0;
    for (unsigned i = 0; i < set->n; i++)
        sum += set->weights[i];
    for (unsigned at = 0; at + set->window <= n_picks; at++) {
        unsigned counts[WEIGHTS_MAX] = {0};
        for (unsigned k = 0; k < set->window; k++)
            counts[picks[at + k]]++;
        for (unsigned i = 0; i < set->n; i++)
            assert_int_equal(counts[i] * sum, set->weights[i] * set->window);
    }
}

/* Each set of weights with a pool of its own, because a segment's slots are for life. */
static void for_each_set(void (*check)(struct fixture *f, const struct weights *set))
{
    for (size_t i = 0; i < VB_ARRAY_SIZE(sets); i++) {
        void *state;
        setup(&state);
        open_pool(state, "round_robin", sets[i].weights, sets[i].n);
        check(state, &sets[i]);
        assert_int_equal(teardown(&state), 0);
    }
}

static void check_one_worker(struct fixture *f, const struct weights *set)
{
    unsigned picks[PICKS_MAX], n = VB_MIN(5 * set->window, PICKS_MAX);
    for (unsigned i = 0; i < n; i++)
        picks[i] = pick(f, 0);
    expect_exact_windows(picks, n, set);
}

static void any_window_has_the_exact_weights(void **state)
{
    for_each_set(check_one_worker);
}

static void check_all_workers(struct fixture *f, const struct weights *set)
{
    unsigned picks[PICKS_MAX], n = VB_MIN(5 * set->window + 50, PICKS_MAX);
    for (unsigned i = 0; i < n; i++)
        picks[i] = pick(f, random_below(WORKERS));
    expect_exact_windows(picks, n, set);
}

static void it_is_exact_however_many_workers_pick(void **state)
{
    for_each_set(check_all_workers);
}

static void the_heavy_one_is_not_served_in_a_burst(void **state)
{
    struct fixture *f = *state;
    open_pool(f, "round_robin", (unsigned[]){5, 1, 1}, 3);
    unsigned run = 0;
    for (unsigned i = 0; i < 70; i++) {
        run = pick(f, random_below(WORKERS)) == 0 ? run + 1 : 0;
        assert_true(run <= 4);
    }
}

/* With n backends of one weight nobody waits longer than n picks. */
static void equal_weights_take_turns(void **state)
{
    struct fixture *f = *state;
    open_pool(f, "round_robin", (unsigned[]){3, 3, 3, 3, 3}, 5);
    unsigned first = pick(f, 0);
    for (unsigned i = 1; i < 50; i++)
        assert_int_equal(pick(f, i % WORKERS), (first + i) % 5);
}

static void every_pick_is_counted_and_given_back(void **state)
{
    struct fixture *f = *state;
    open_pool(f, "round_robin", (unsigned[]){1, 1}, 2);
    for (unsigned i = 0; i < 10; i++)
        pick(f, 1);
    assert_int_equal((uint32_t)vb_shm_in_flight(f->shm, 1)[0], 5);
    assert_int_equal((uint32_t)vb_shm_in_flight(f->shm, 1)[1], 5);
    assert_int_equal((uint32_t)vb_shm_in_flight(f->shm, 0)[0], 0);
    vb_lb_done(f->workers[1], 0);
    assert_int_equal(vb_shm_sum_in_flight(f->shm, 0), 4);
    assert_int_equal(vb_shm_sum_in_flight(f->shm, 1), 5);
}

/* How often each of the backends is picked by a worker chosen at random. */
static void count_picks(struct fixture *f, unsigned picks, unsigned counts[WEIGHTS_MAX])
{
    memset(counts, 0, WEIGHTS_MAX * sizeof(*counts));
    for (unsigned i = 0; i < picks; i++)
        counts[pick(f, random_below(WORKERS))]++;
}

static void expect_counts(struct fixture *f, unsigned a, unsigned b, unsigned c, unsigned d)
{
    unsigned counts[WEIGHTS_MAX];
    count_picks(f, a + b + c + d, counts);
    assert_int_equal(counts[0], a);
    assert_int_equal(counts[1], b);
    assert_int_equal(counts[2], c);
    assert_int_equal(counts[3], d);
}

/* Not a single pick in the old ways, by any worker: the very next window is exact. */
static void a_change_is_followed_by_the_next_pick(void **state)
{
    struct fixture *f = *state;
    open_pool(f, "round_robin", (unsigned[]){1, 1, 1}, 3);
    expect_counts(f, 4, 4, 4, 0);
    set_health(f, 1, VB_HEALTH_DOWN);
    expect_counts(f, 6, 0, 6, 0);
    set_health(f, 1, VB_HEALTH_UP);
    expect_counts(f, 4, 4, 4, 0);
    add_backend(f, 0, 2);
    expect_counts(f, 3, 3, 3, 6);
    set_word(f, &vb_shm_backend(f->shm, 0)->weight, 4);
    expect_counts(f, 8, 2, 2, 4);
    set_word(f, &vb_shm_backend(f->shm, 0)->admin, VB_ADMIN_DRAIN);
    expect_counts(f, 0, 3, 3, 6);
    set_word(f, &vb_shm_backend(f->shm, 3)->admin, VB_ADMIN_MAINT);
    expect_counts(f, 0, 6, 6, 0);
    set_word(f, &vb_shm_backend(f->shm, 0)->admin, VB_ADMIN_READY);
    expect_counts(f, 8, 2, 2, 0);
}

static void nobody_usable_is_said_and_ends_by_itself(void **state)
{
    struct fixture *f = *state;
    open_pool(f, "round_robin", NULL, 0);
    assert_int_equal(pick_at(f, 0, NOW), -ENOENT);
    add_backend(f, 0, 1);
    assert_int_equal(pick(f, 0), 0);
    set_health(f, 0, VB_HEALTH_DOWN);
    for (unsigned i = 0; i < WORKERS; i++)
        assert_int_equal(pick_at(f, i, NOW), -ENOENT);
    assert_int_equal(vb_shm_sum_in_flight(f->shm, 0), 1); /* a pick that was none is not in flight */
    set_health(f, 0, VB_HEALTH_UP);
    assert_int_equal(pick(f, 3), 0);
}

/* A request that is in flight when its backend is taken out of the pool is given back all the same. */
static void done_after_the_backend_went_down(void **state)
{
    struct fixture *f = *state;
    open_pool(f, "round_robin", (unsigned[]){1, 1}, 2);
    unsigned backend = pick(f, 0);
    set_health(f, backend, VB_HEALTH_DOWN);
    pick(f, 0);
    vb_lb_done(f->workers[0], backend);
    assert_int_equal(vb_shm_sum_in_flight(f->shm, backend), 0);
}

static void pools_do_not_see_each_others_backends(void **state)
{
    struct fixture *f = *state;
    struct vb_lb *api = NULL;
    open_pool(f, "round_robin", (unsigned[]){1, 1}, 2);
    assert_int_equal(vb_shm_add_pool(f->shm, &(struct vb_pool_spec){"api", "round_robin", 0, 50}), 1);
    unsigned own[] = {add_backend(f, 1, 1), add_backend(f, 1, 1)};
    assert_int_equal(vb_lb_open(&api, f->shm, 1, 0, &(struct vb_lb_rules){.balance = "round_robin"}, &f->rand), 0);
    for (unsigned i = 0; i < 10; i++) {
        int backend = try_to_pick(api, &none_tried, NOW);
        assert_true(backend == (int)own[0] || backend == (int)own[1]);
        assert_true(pick(f, 0) < 2);
    }
    expect_counts(f, 3, 3, 0, 0); /* and their tickets are their own */
    vb_lb_close(&api);
}

static void unknown_policies_are_refused(void **state)
{
    struct fixture *f = *state;
    struct vb_lb *lb = NULL;
    vb_shm_add_pool(f->shm, &(struct vb_pool_spec){"web", "round_robin", 0, 50});
    assert_int_equal(vb_lb_open(&lb, f->shm, 0, 0, &(struct vb_lb_rules){.balance = "magic"}, &f->rand), -ENOTSUP);
    assert_null(lb);
    vb_lb_close(&lb);
}

/* ---- extremes ---------------------------------------------------------------------------------------------------- */

static double cpu_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Time for the first pick, which prepares them all. Far more than it takes; without a bound it would be minutes. */
#define SECONDS_MAX 5

static void enormous_weights_are_bounded_in_time(void **state)
{
    struct fixture *f = *state;
    open_pool(f, "round_robin", (unsigned[]){UINT32_MAX, 0, UINT32_MAX - 2}, 3);
    double begin = cpu_seconds();
    unsigned counts[WEIGHTS_MAX];
    count_picks(f, 10000, counts);
    assert_true(cpu_seconds() - begin < SECONDS_MAX);
    assert_true(counts[0] >= 4990 && counts[2] >= 4990); /* the light one is there too, once in a long while */
}

static int setup_full(void **state)
{
    return setup_sized(state, VB_SHM_BACKENDS_MAX);
}

/* All that a segment holds, with all weights that a file may give. */
static void a_full_segment_is_bounded_in_time(void **state)
{
    struct fixture *f = *state;
    static unsigned counts[VB_SHM_BACKENDS_MAX];
    assert_int_equal(vb_shm_add_pool(f->shm, &(struct vb_pool_spec){"web", "round_robin", 0, 50}), 0);
    for (unsigned i = 0; i < VB_SHM_BACKENDS_MAX; i++) { /* vb_shm_add_backend compares all names each time */
        struct vb_shm_backend *backend = vb_shm_backend(f->shm, i);
        backend->weight = 1 + i % 256;
        backend->used = 1;
    }
    assert_int_equal(
        vb_lb_open(&f->workers[0], f->shm, 0, 0, &(struct vb_lb_rules){.balance = "round_robin"}, &f->rand), 0);
    double begin = cpu_seconds();
    pick(f, 0);
    assert_true(cpu_seconds() - begin < SECONDS_MAX);
    for (unsigned i = 0; i < 256 * VB_SHM_BACKENDS_MAX; i++)
        counts[pick(f, 0)]++;
    for (unsigned i = 0; i < VB_SHM_BACKENDS_MAX; i++)
        assert_true(counts[i] > 0);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_window_has_the_exact_weights),
        cmocka_unit_test(it_is_exact_however_many_workers_pick),
        TEST(the_heavy_one_is_not_served_in_a_burst),
        TEST(equal_weights_take_turns),
        TEST(every_pick_is_counted_and_given_back),
        TEST(a_change_is_followed_by_the_next_pick),
        TEST(nobody_usable_is_said_and_ends_by_itself),
        TEST(done_after_the_backend_went_down),
        TEST(pools_do_not_see_each_others_backends),
        TEST(unknown_policies_are_refused),
        TEST(enormous_weights_are_bounded_in_time),
        cmocka_unit_test_setup_teardown(a_full_segment_is_bounded_in_time, setup_full, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
