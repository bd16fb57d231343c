/* random and p2c: chance by weight, whoever was tried, and the less loaded of two. */
#include "fixture.h"

enum { N = 60000, BACKENDS = 16 };

/* Counts what n picks give; nothing stays in flight. */
static void count(struct fixture *f, const struct vb_tried *tried, unsigned n, unsigned counts[BACKENDS])
{
    memset(counts, 0, BACKENDS * sizeof(*counts));
    for (unsigned i = 0; i < n; i++) {
        unsigned worker = i % WORKERS, backend = pick_untried(f, worker, tried);
        counts[backend]++;
        vb_lb_done(f->workers[worker], backend);
    }
}

/* Within five standard deviations, which chance alone leaves once in a million; squared, because that needs no root. */
static void assert_share(unsigned got, unsigned of, double share)
{
    double off = got - of * share, variance = of * share * (1 - share);
    if (off * off > 25 * variance)
        fail_msg("%u of %u where %.0f were to be expected", got, of, of * share);
}

static void shares_are_as_the_weights(void **state)
{
    struct fixture *f = *state;
    unsigned counts[BACKENDS];
    open_pool(f, "random", (unsigned[]){1, 256, 10, 33}, 4);
    count(f, &none_tried, N, counts);
    for (unsigned i = 0; i < 4; i++)
        assert_share(counts[i], N, (double[]){1, 256, 10, 33}[i] / 300);
}

static void the_turns_of_those_tried_go_to_the_others_by_weight(void **state)
{
    struct fixture *f = *state;
    unsigned counts[BACKENDS];
    open_pool(f, "random", (unsigned[]){5, 100, 3, 2}, 4);
    count(f, &(struct vb_tried){.n = 1, .backends = {1}}, N, counts);
    assert_int_equal(counts[1], 0);
    assert_share(counts[0], N, 0.5);
    assert_share(counts[2], N, 0.3);
    count(f, &(struct vb_tried){.n = 3, .backends = {1, 0, 3}}, 100, counts);
    assert_int_equal(counts[2], 100);
}

static void it_follows_weights_and_membership(void **state)
{
    struct fixture *f = *state;
    unsigned counts[BACKENDS];
    open_pool(f, "random", (unsigned[]){1, 1}, 2);
    count(f, &none_tried, N, counts);
    vb_shm_set_weight(f->shm, 0, 3);
    count(f, &none_tried, N, counts);
    assert_share(counts[0], N, 0.75);
    unsigned added = add_backend(f, 0, 4);
    count(f, &none_tried, N, counts);
    assert_share(counts[added], N, 0.5);
    vb_shm_remove_backend(f->shm, added);
    count(f, &none_tried, N, counts);
    assert_int_equal(counts[added], 0);
    assert_share(counts[0], N, 0.75);
}

static void one_alone_gets_all(void **state)
{
    struct fixture *f = *state;
    unsigned counts[BACKENDS];
    open_pool(f, "p2c", (unsigned[]){7}, 1);
    count(f, &none_tried, 1000, counts);
    assert_int_equal(counts[0], 1000);
}

/* One that is busier than all others is the less loaded of no two. */
static void the_busiest_gets_nothing(void **state)
{
    struct fixture *f = *state;
    unsigned counts[BACKENDS];
    open_pool(f, "p2c", (unsigned[]){1, 1, 1, 1}, 4);
    occupy(f, 3, 2, 5); /* of another worker */
    count(f, &none_tried, N, counts);
    assert_int_equal(counts[2], 0);
    for (unsigned i = 0; i < 4; i++)
        if (i != 2)
            assert_share(counts[i], N, 1.0 / 3);
    count(f, &(struct vb_tried){.n = 3, .backends = {0, 1, 3}}, 100, counts);
    assert_int_equal(counts[2], 100); /* it is the only one left */
}

/* Load counts by weight: 3 of weight 4 are less than 1 of weight 1. */
static void load_is_compared_by_weight(void **state)
{
    struct fixture *f = *state;
    unsigned counts[BACKENDS];
    open_pool(f, "p2c", (unsigned[]){4, 1}, 2);
    occupy(f, 3, 0, 3);
    occupy(f, 3, 1, 1);
    count(f, &none_tried, 1000, counts);
    assert_int_equal(counts[0], 1000);
    occupy(f, 3, 0, 2);
    count(f, &none_tried, 1000, counts);
    assert_int_equal(counts[1], 1000);
}

static uint64_t most(const struct fixture *f, unsigned n)
{
    uint64_t most = 0;
    for (unsigned i = 0; i < n; i++)
        most = VB_MAX(most, vb_shm_sum_in_flight(f->shm, i));
    return most;
}

/* 100 requests for each of 16: by chance the busiest has some 126, of two it has some 102. */
static void two_choices_are_far_more_even_than_one(void **state)
{
    struct fixture *f = *state;
    unsigned ones[BACKENDS];
    for (unsigned i = 0; i < BACKENDS; i++)
        ones[i] = 1;
    open_pool(f, "p2c", ones, BACKENDS);
    for (unsigned i = 0; i < 100 * BACKENDS; i++)
        pick(f, i % WORKERS);
    assert_true(most(f, BACKENDS) <= 105);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(shares_are_as_the_weights, setup, teardown),
        cmocka_unit_test_setup_teardown(the_turns_of_those_tried_go_to_the_others_by_weight, setup, teardown),
        cmocka_unit_test_setup_teardown(it_follows_weights_and_membership, setup, teardown),
        cmocka_unit_test_setup_teardown(one_alone_gets_all, setup, teardown),
        cmocka_unit_test_setup_teardown(the_busiest_gets_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(load_is_compared_by_weight, setup, teardown),
        cmocka_unit_test_setup_teardown(two_choices_are_far_more_even_than_one, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
