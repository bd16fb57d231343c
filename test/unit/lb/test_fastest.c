/* fastest: who answers sooner, what failures and time do to that, and who finds out. */
#include <pthread.h>

#include "simulation.h"
#include "stamped.h"

enum { EACH_US = 5000 };

static const unsigned ones[SERVERS_MAX] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

/* All alike. */
static struct simulation *simulate(struct fixture *f, const unsigned *weights, unsigned n)
{
    open_pool(f, "fastest", weights, n);
    struct simulation *s = begin_simulation(f);
    for (unsigned i = 0; i < n; i++)
        s->servers[i].latency_us = EACH_US;
    return s;
}

static vb_u64 *word_of(struct fixture *f, unsigned backend)
{
    return &vb_shm_backend(f->shm, backend)->latency;
}

/* In microseconds. */
static uint32_t known(struct fixture *f, unsigned backend)
{
    return lb_stamped_value(atomic_load(word_of(f, backend))) & INT32_MAX;
}

static void learn(struct fixture *f, unsigned backend, uint64_t latency_us, bool failed, uint64_t now_us)
{
    vb_lb_learn(f->workers[0], backend, latency_us, failed ? VB_TRY_FAILED : VB_TRY_ANSWERED, now_us);
}

static enum vb_pick_reason reason_of_pick(struct fixture *f, unsigned worker, uint64_t now_us, int *ret_backend)
{
    enum vb_pick_reason reason;
    *ret_backend =
        vb_lb_pick(f->workers[worker], &(struct vb_ask){.tried = &none_tried, .stuck_to = -1}, now_us, &reason);
    return reason;
}

/* ---- shares ------------------------------------------------------------------------------------------------------ */

static void those_that_are_alike_share_evenly(void **state)
{
    static const double rates[] = {1, 20, 500, 3000};
    struct simulation *s = simulate(*state, ones, 4);
    for (unsigned k = 0; k < VB_ARRAY_SIZE(rates); k++) {
        run(s, rates[k], 20 * SECOND);
        clear_counts(s);
        run(s, rates[k], (uint64_t)(4000 / rates[k] + 4) * SECOND);
        for (unsigned i = 0; i < 4; i++)
            if (share(s, i) < 17 || share(s, i) > 33)
                fail_msg("at %.0f requests a second backend %u gets %.1f%%", rates[k], i, share(s, i));
    }
    free(s);
}

/* Nearly idle, where no request waits for another: who is drawn first, by weight. */
static void the_weights_count(void **state)
{
    struct simulation *s = simulate(*state, (unsigned[]){3, 1}, 2);
    run(s, 10, 20 * SECOND);
    clear_counts(s);
    run(s, 10, 400 * SECOND);
    assert_true(share(s, 0) > 65 && share(s, 0) < 85);
    free(s);
}

/* 3 of weight 4 crowd it less than 1 of weight 1 does. */
static void what_is_in_flight_counts_by_weight(void **state)
{
    struct fixture *f = *state;
    open_pool(f, "fastest", (unsigned[]){4, 1}, 2);
    learn(f, 0, 1000, false, NOW);
    learn(f, 1, 1000, false, NOW);
    occupy(f, 3, 0, 3);
    occupy(f, 3, 1, 1);
    assert_int_equal(pick(f, 0), 0); /* and has 4 now: a tie */
    occupy(f, 3, 0, 1);
    assert_int_equal(pick(f, 0), 1);
}

static void one_that_is_slower_gets_little_but_is_explored(void **state)
{
    static const double rates[] = {1, 10, 100, 1000};
    struct simulation *s = simulate(*state, ones, 3);
    s->servers[2].latency_us = 10 * EACH_US;
    run(s, 100, 20 * SECOND);
    for (unsigned k = 0; k < VB_ARRAY_SIZE(rates); k++) {
        clear_counts(s);
        run(s, rates[k], 400 * SECOND);
        if (share(s, 2) > 5 || s->servers[2].requests < 8)
            fail_msg("at %.0f requests a second the slow one gets %.1f%%, %u", rates[k], share(s, 2),
                     s->servers[2].requests);
        assert_true(share(s, 0) > 35 && share(s, 1) > 35);
    }
    free(s);
}

/* More than the fast ones can take: what is in flight makes them slow too. */
static void the_slower_one_helps_when_the_others_are_crowded(void **state)
{
    struct fixture *f = *state;
    open_pool(f, "fastest", ones, 2);
    uint64_t now_us = vb_clock_us();
    learn(f, 0, EACH_US, false, now_us);
    learn(f, 1, 10 * EACH_US, false, now_us);
    for (unsigned i = 0; i < 9; i++)
        assert_int_equal(pick_at(f, i % WORKERS, now_us), 0);
    unsigned n = 0;
    for (unsigned i = 0; i < 110; i++)
        n += pick_at(f, i % WORKERS, now_us) == 1;
    assert_in_range(n, 9, 11);
}

static void which_of_many_is_slow_is_found(void **state)
{
    struct simulation *s = simulate(*state, ones, SERVERS_MAX);
    s->servers[7].latency_us = 100 * EACH_US;
    run(s, 1000, 5 * SECOND);
    clear_counts(s);
    run(s, 1000, 60 * SECOND);
    assert_true(share(s, 7) < 0.5);
    for (unsigned i = 0; i < SERVERS_MAX; i++)
        if (i != 7)
            assert_true(share(s, i) > 5);
    free(s);
}

/* ---- failures and outliers --------------------------------------------------------------------------------------- */

static void failing_fast_is_not_fast(void **state)
{
    static const double rates[] = {1, 10, 1000};
    struct simulation *s = simulate(*state, ones, 3);
    s->servers[2].latency_us = 100;
    s->servers[2].fails = true;
    for (unsigned k = 0; k < VB_ARRAY_SIZE(rates); k++) {
        clear_counts(s);
        run(s, rates[k], 1000 * SECOND);
        if (share(s, 2) > 5 || s->servers[2].requests < 8 || s->servers[2].requests > 40)
            fail_msg("at %.0f requests a second %u fail, %.1f%%", rates[k], s->servers[2].requests, share(s, 2));
    }
    free(s);
}

static void one_that_has_recovered_is_found(void **state)
{
    struct simulation *s = simulate(*state, ones, 3);
    run(s, 1000, 10 * SECOND);
    s->servers[2].fails = true;
    run(s, 1000, 1 * SECOND);
    s->servers[2].fails = false;
    assert_true(run_until(s, 1000, 2, 2) < 50 * SECOND); /* a failure or two, among others that take 5 ms */
    clear_counts(s);
    run(s, 1000, 10 * SECOND);
    assert_true(share(s, 2) > 25); /* its next response has made it like the others */
    s->servers[2].fails = true;
    run(s, 1000, 600 * SECOND);
    s->servers[2].fails = false;
    assert_true(run_until(s, 1000, 2, 2) < 100 * SECOND); /* even after the worst */
    run(s, 1000, 10 * SECOND);
    s->servers[2].latency_us = 20 * EACH_US; /* the same for one that was slow */
    run(s, 1000, 60 * SECOND);
    s->servers[2].latency_us = EACH_US;
    assert_true(run_until(s, 1000, 2, 1000) < 40 * SECOND);
    free(s);
}

/* With few requests it is not they that pay for finding out. */
static void few_requests_explore(void **state)
{
    struct simulation *s = simulate(*state, ones, 2);
    s->servers[1].fails = true;
    run(s, 1.0 / 60, 600 * SECOND);
    clear_counts(s);
    run(s, 1.0 / 60, 60000 * SECOND);
    assert_true(share(s, 1) < 15);
    assert_true(s->servers[1].requests > 20);
    free(s);
}

static void one_slow_response_is_an_outlier(void **state)
{
    struct simulation *s = simulate(*state, ones, 3);
    run(s, 20, 60 * SECOND);
    learn(s->f, 2, 200 * EACH_US, false, s->now_us);
    assert_true(known(s->f, 2) <= 2 * 2 * EACH_US);
    run(s, 20, 15 * SECOND);
    clear_counts(s);
    run(s, 20, 30 * SECOND);
    assert_true(share(s, 2) > 20);
    free(s);
}

static void some_slow_responses_are_a_slow_backend(void **state)
{
    struct simulation *s = simulate(*state, ones, 3);
    run(s, 100, 10 * SECOND);
    for (unsigned i = 0; i < 8; i++)
        learn(s->f, 2, 200 * EACH_US, false, s->now_us);
    assert_int_equal(known(s->f, 2), 200 * EACH_US);
    free(s);
}

/* Nothing comes back from it: it must not be given one request after the other to find that out. */
static void one_that_hangs_gets_little(void **state)
{
    struct simulation *s = simulate(*state, ones, 3);
    run(s, 1000, 10 * SECOND);
    s->servers[2].latency_us = NEVER_ANSWERS;
    clear_counts(s);
    run(s, 1000, 300 * SECOND);
    assert_in_range(s->servers[2].requests, 1, 100);
    free(s);
}

/* ---- what is known, and for how long ----------------------------------------------------------------------------- */

static void abandon(struct fixture *f, unsigned backend, uint64_t after_us, uint64_t now_us)
{
    vb_lb_learn(f->workers[0], backend, after_us, VB_TRY_ABANDONED, now_us);
}

/* As much as a slow response would: twice what is known at most. */
static void a_client_that_gives_up_shows_that_it_takes_longer(void **state)
{
    struct fixture *f = *state;
    open_pool(f, "fastest", ones, 2);
    learn(f, 0, 1000, false, NOW);
    abandon(f, 0, SECOND, NOW);
    assert_int_equal(known(f, 0), 2000);
    abandon(f, 0, 3000, NOW);
    assert_int_equal(known(f, 0), 3000);
}

static void one_that_gives_up_early_shows_nothing(void **state)
{
    struct fixture *f = *state;
    open_pool(f, "fastest", ones, 2);
    abandon(f, 1, SECOND / 2, NOW);
    assert_int_equal(*word_of(f, 1), 0);
    abandon(f, 1, 3 * SECOND, NOW);
    assert_int_equal(known(f, 1), 3 * SECOND);
    learn(f, 0, 1000, false, NOW);
    uint64_t word = *word_of(f, 0);
    abandon(f, 0, 999, NOW + SECOND);
    assert_int_equal(*word_of(f, 0), word); /* not its age either */
}

static void the_first_sample_counts_at_once(void **state)
{
    struct fixture *f = *state;
    open_pool(f, "fastest", ones, 2);
    learn(f, 0, 1234, false, NOW);
    assert_int_equal(known(f, 0), 1234);
    learn(f, 0, 2000, false, NOW);
    assert_int_equal(known(f, 0), 2000);
    learn(f, 0, 10, true, NOW); /* failed fast */
    assert_int_equal(known(f, 0), 1000000);
    learn(f, 0, 10, true, NOW);
    assert_int_equal(known(f, 0), 4000000);
    for (unsigned i = 0; i < 5; i++)
        learn(f, 0, UINT64_MAX, true, NOW);
    assert_int_equal(known(f, 0), 60000000);
    learn(f, 1, 0, false, NOW); /* 0 would say that nothing is known */
    assert_int_equal(known(f, 1), 1);
}

/* By half in five seconds, in whatever steps the samples come; a thousand a second are too small to show by themselves.
 */
static void what_is_less_pulls_it_down_with_time(void **state)
{
    static const unsigned every_ms[] = {1, 10, 100, 1000};
    struct fixture *f = *state;
    open_pool(f, "fastest", ones, 4);
    for (unsigned i = 0; i < VB_ARRAY_SIZE(every_ms); i++) {
        uint64_t now_us = NOW, end_us = NOW + 5 * SECOND;
        learn(f, i, 300, false, now_us);
        while (now_us < end_us) {
            now_us += every_ms[i] * MS;
            learn(f, i, 100, false, now_us);
        }
        if (known(f, i) < 190 || known(f, i) > 210)
            fail_msg("with a sample each %u ms it is %u after 5 s", every_ms[i], known(f, i));
    }
    for (uint64_t now_us = NOW + 5 * SECOND; now_us < NOW + 120 * SECOND; now_us += MS)
        learn(f, 0, 100, false, now_us);
    assert_int_equal(known(f, 0), 100);
}

/* One that answers the same each time: that is known now, not since it first did. */
static void a_sample_that_changes_nothing_keeps_it_fresh(void **state)
{
    struct fixture *f = *state;
    open_pool(f, "fastest", ones, 1);
    uint64_t now_us = NOW;
    for (; now_us < NOW + 60 * SECOND; now_us += MS)
        learn(f, 0, 100, false, now_us);
    assert_true(lb_stamped_age_ms(atomic_load(word_of(f, 0)), now_us) <= 1001);
}

static void the_clock_of_stamps_goes_round(void **state)
{
    struct simulation *s = simulate(*state, ones, 3);
    uint64_t round_us = (uint64_t)UINT32_MAX * MS + MS;
    s->now_us = (s->now_us / round_us + 1) * round_us - 10 * SECOND;
    s->servers[2].latency_us = 10 * EACH_US;
    for (unsigned i = 0; i < 4; i++) { /* before, across, and after it */
        run(s, 1000, 5 * SECOND);
        if (i > 0)
            assert_true(share(s, 2) < 3);
        clear_counts(s);
    }
    free(s);
}

static void ages_are_never_negative(void **state)
{
    uint64_t word = lb_stamped(7, 100 * SECOND);
    assert_int_equal(lb_stamped_value(word), 7);
    assert_int_equal(lb_stamped_age_ms(word, 100 * SECOND), 0);
    assert_int_equal(lb_stamped_age_ms(word, 103 * SECOND), 3000);
    assert_int_equal(lb_stamped_age_ms(word, 98 * SECOND), 0); /* the writer's loop has turned later */
    assert_int_equal(lb_stamped_age_ms(word, 100 * SECOND + 40 * 24 * 3600 * SECOND), 40u * 24 * 3600 * 1000);
    assert_int_equal(lb_stamped_age_ms(lb_stamped(1, (uint64_t)UINT32_MAX * MS), (uint64_t)UINT32_MAX * MS + 5 * MS),
                     5);
}

/* ---- who explores ------------------------------------------------------------------------------------------------ */

/* Nothing is known of any: each is explored once, and then it is what is in flight that counts. */
static void at_first_it_is_least_connections(void **state)
{
    struct fixture *f = *state;
    unsigned counts[4] = {0}, explored = 0;
    open_pool(f, "fastest", ones, 4);
    uint64_t now_us = vb_clock_us();
    for (unsigned i = 0; i < 400; i++) {
        int backend;
        explored += reason_of_pick(f, i % WORKERS, now_us, &backend) == VB_PICK_EXPLORE;
        counts[backend]++;
    }
    assert_int_equal(explored, 4);
    for (unsigned i = 0; i < 4; i++)
        assert_in_range(counts[i], 90, 110);
}

static void a_newcomer_gets_one_request_until_it_has_answered(void **state)
{
    struct simulation *s = simulate(*state, ones, 3);
    run(s, 1000, 10 * SECOND);
    unsigned added = add_backend(s->f, 0, 1);
    s->now_us = VB_MAX(s->now_us, vb_clock_us());
    s->servers[added].latency_us = 400 * MS;
    clear_counts(s);
    run(s, 1000, 150 * MS);
    assert_int_equal(s->servers[added].requests, 1);
    assert_int_equal(s->servers[added].explored, 1);
    free(s);
}

/* What was known was of the time before it went down. */
static void one_that_comes_up_again_is_explored_at_once(void **state)
{
    struct simulation *s = simulate(*state, ones, 3);
    s->servers[2].fails = true;
    run(s, 1000, 300 * SECOND);
    s->servers[2].fails = false;
    atomic_store(&vb_shm_backend(s->f->shm, 2)->ready_since_us, s->now_us);
    assert_true(run_until(s, 1000, 2, 100) < 2 * SECOND);
    free(s);
}

/* All see at the same time that it is worth exploring: one does it. */
static void workers_do_not_explore_together(void **state)
{
    struct fixture *f = *state;
    open_pool(f, "fastest", ones, 2);
    uint64_t now_us = vb_clock_us();
    learn(f, 0, 1000, false, now_us);
    learn(f, 1, 1, true, now_us);
    now_us += 100 * SECOND;
    learn(f, 0, 1000, false, now_us);
    unsigned explored = 0;
    for (unsigned i = 0; i < 1000; i++) {
        int backend;
        bool explores = reason_of_pick(f, i % WORKERS, now_us, &backend) == VB_PICK_EXPLORE;
        assert_int_equal(backend, explores);
        explored += explores;
        vb_lb_done(f->workers[i % WORKERS], (unsigned)backend);
    }
    assert_int_equal(explored, 1);
}

/* All see the same picture, and none has counted yet: they do not run to the same one. */
static void workers_do_not_herd(void **state)
{
    struct fixture *f = *state;
    unsigned counts[8] = {0};
    open_pool(f, "fastest", ones, 8);
    uint64_t now_us = vb_clock_us();
    for (unsigned i = 0; i < 8; i++)
        learn(f, i, 1000 + i * 20, false, now_us);
    for (unsigned i = 0; i < 8000; i++) {
        unsigned worker = i % WORKERS;
        int backend = pick_at(f, worker, now_us);
        counts[backend]++;
        vb_lb_done(f->workers[worker], (unsigned)backend);
    }
    for (unsigned i = 0; i < 8; i++)
        assert_in_range(counts[i], 800, 1200);
}

/* ---- who may be picked ------------------------------------------------------------------------------------------- */

static void one_alone_gets_all(void **state)
{
    struct simulation *s = simulate(*state, ones, 1);
    s->servers[0].fails = true;
    run(s, 1000, 2 * SECOND);
    assert_int_equal(s->servers[0].requests, 2000);
    free(s);
}

static void those_tried_and_full_are_left_out(void **state)
{
    struct fixture *f = *state;
    open_pool(f, "fastest", ones, 4);
    learn(f, 0, 10, false, NOW);
    learn(f, 1, 20, false, NOW);
    learn(f, 2, 5000, false, NOW);
    learn(f, 3, 9000000, false, NOW);
    const struct vb_tried tried = {.n = 1, .backends = {0}};
    set_word(f, &vb_shm_backend(f->shm, 1)->max_connections, 1);
    occupy(f, 3, 1, 1);
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(pick_untried(f, i % WORKERS, &tried), 2);
    const struct vb_tried more = {.n = 2, .backends = {0, 2}};
    assert_int_equal(pick_untried(f, 0, &more), 3);
}

/* ---- all at once ------------------------------------------------------------------------------------------------- */

#define SAMPLES 100000

static void *learn_many(void *argument)
{
    struct vb_lb *lb = argument;
    for (unsigned i = 0; i < SAMPLES; i++)
        vb_lb_learn(lb, 0, 100 + i % 100, VB_TRY_ANSWERED, NOW + i * MS / 10);
    return NULL;
}

/* A word is always of one sample, or between two: never the value of one and the stamp of another. */
static void workers_learn_at_the_same_time(void **state)
{
    struct fixture *f = *state;
    pthread_t threads[WORKERS];
    open_pool(f, "fastest", ones, 1);
    learn(f, 0, 199, false, NOW);
    for (unsigned i = 0; i < WORKERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, learn_many, f->workers[i]), 0);
    for (unsigned i = 0; i < 10000; i++)
        assert_in_range(known(f, 0), 100, 199);
    for (unsigned i = 0; i < WORKERS; i++)
        pthread_join(threads[i], NULL);
    assert_in_range(known(f, 0), 100, 199);
    assert_in_range(atomic_load(word_of(f, 0)) & UINT32_MAX, NOW / MS + SAMPLES / 10 - 1100, NOW / MS + SAMPLES / 10);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(those_that_are_alike_share_evenly),
        TEST(the_weights_count),
        TEST(what_is_in_flight_counts_by_weight),
        TEST(one_that_is_slower_gets_little_but_is_explored),
        TEST(the_slower_one_helps_when_the_others_are_crowded),
        TEST(which_of_many_is_slow_is_found),
        TEST(failing_fast_is_not_fast),
        TEST(one_that_has_recovered_is_found),
        TEST(few_requests_explore),
        TEST(one_slow_response_is_an_outlier),
        TEST(some_slow_responses_are_a_slow_backend),
        TEST(one_that_hangs_gets_little),
        TEST(a_client_that_gives_up_shows_that_it_takes_longer),
        TEST(one_that_gives_up_early_shows_nothing),
        TEST(the_first_sample_counts_at_once),
        TEST(what_is_less_pulls_it_down_with_time),
        TEST(a_sample_that_changes_nothing_keeps_it_fresh),
        TEST(the_clock_of_stamps_goes_round),
        TEST(ages_are_never_negative),
        TEST(at_first_it_is_least_connections),
        TEST(a_newcomer_gets_one_request_until_it_has_answered),
        TEST(one_that_comes_up_again_is_explored_at_once),
        TEST(workers_do_not_explore_together),
        TEST(workers_do_not_herd),
        TEST(one_alone_gets_all),
        TEST(those_tried_and_full_are_left_out),
        TEST(workers_learn_at_the_same_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
