/* least_load: what backends report, how long that counts, and what is in flight beside it. */
#include "simulation.h"
#include "stamped.h"

static const unsigned ones[SERVERS_MAX] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

static void report(struct fixture *f, unsigned backend, uint32_t load_milli, uint64_t now_us)
{
    vb_lb_report_load(f->shm, backend, load_milli, now_us);
}

/* How many of so many picks it gets; nothing stays in flight. */
static unsigned count(struct fixture *f, unsigned backend, unsigned n, uint64_t now_us)
{
    unsigned picked = 0;
    for (unsigned i = 0; i < n; i++) {
        unsigned worker = i % WORKERS;
        int got = pick_at(f, worker, now_us);
        picked += got == (int)backend;
        vb_lb_done(f->workers[worker], (unsigned)got);
    }
    return picked;
}

static void the_least_loaded_of_two_wins(void **state)
{
    struct fixture *f = *state;
    open_pool(f, "least_load", ones, 3);
    report(f, 0, 900, NOW);
    report(f, 1, 200, NOW);
    report(f, 2, 400, NOW);
    assert_int_equal(count(f, 0, 300, NOW), 0);
    assert_in_range(count(f, 1, 3000, NOW), 1800, 2200); /* drawn in two of three pairs, and best of each */
}

/* What is a little better does not get all until the next report. */
static void loads_that_are_alike_share(void **state)
{
    struct fixture *f = *state;
    open_pool(f, "least_load", ones, 2);
    report(f, 0, 300, NOW);
    report(f, 1, 340, NOW);
    assert_in_range(count(f, 0, 1000, NOW), 400, 600);
    report(f, 0, 0, NOW);
    report(f, 1, 10, NOW); /* of two that are idle neither is busy */
    assert_in_range(count(f, 0, 1000, NOW + SECOND), 400, 600);
}

static void what_is_in_flight_counts_too(void **state)
{
    struct fixture *f = *state;
    open_pool(f, "least_load", ones, 2);
    report(f, 0, 100, NOW);
    report(f, 1, 700, NOW);
    unsigned n = 0;
    for (unsigned i = 0; i < 60; i++)
        n += pick(f, i % WORKERS) == 1;
    assert_in_range(n, 8, 12); /* (100 + 50) : (700 + 50) */
}

static void the_weights_count(void **state)
{
    struct fixture *f = *state;
    open_pool(f, "least_load", (unsigned[]){3, 1}, 2);
    report(f, 0, 500, NOW);
    report(f, 1, 500, NOW);
    assert_in_range(count(f, 0, 4000, NOW), 2800, 3200);
    unsigned n = 0;
    for (unsigned i = 0; i < 400; i++)
        n += pick(f, i % WORKERS) == 0;
    assert_in_range(n, 290, 310);
}

static void where_nobody_reports_the_less_busy_wins(void **state)
{
    struct fixture *f = *state;
    enum vb_pick_reason reason;
    open_pool(f, "least_load", ones, 4);
    occupy(f, 3, 2, 5);
    assert_int_equal(count(f, 2, 1000, NOW), 0);
    vb_lb_pick(f->workers[0], &(struct vb_ask){.tried = &none_tried, .stuck_to = -1}, NOW, &reason);
    assert_int_equal(reason, VB_PICK_POLICY); /* nothing to explore */
}

static void old_reports_fade(void **state)
{
    struct fixture *f = *state;
    open_pool(f, "least_load", ones, 2);
    report(f, 0, 1000, NOW);
    report(f, 1, 0, NOW);
    assert_int_equal(count(f, 0, 100, NOW + 2 * SECOND), 0);
    /* So many can be in flight at the other one before this one is better: ever fewer. */
    unsigned before = UINT_MAX;
    for (unsigned s = 5; s <= 25; s += 5) {
        unsigned n = 0;
        while (pick_at(f, n % WORKERS, NOW + s * SECOND) == 1)
            n++;
        vb_lb_done(f->workers[n % WORKERS], 0);
        for (unsigned i = 0; i < n; i++)
            vb_lb_done(f->workers[i % WORKERS], 1);
        assert_true(n < before || n == 1);
        before = n;
    }
    assert_in_range(before, 1, 4);
    assert_in_range(count(f, 0, 1000, NOW + 31 * SECOND), 400, 600);
    report(f, 1, 900, NOW + 40 * SECOND); /* alone it says nothing about the other one */
    assert_in_range(count(f, 0, 1000, NOW + 40 * SECOND), 400, 600);
}

/* Of a newcomer nothing is known: it is like the mean of the others, so that it is neither flooded nor forgotten. */
static void who_has_not_reported_is_like_the_others(void **state)
{
    struct fixture *f = *state;
    enum vb_pick_reason reason;
    open_pool(f, "least_load", ones, 3);
    report(f, 0, 100, NOW);
    report(f, 1, 900, NOW);
    assert_in_range(count(f, 2, 3000, NOW), 850, 1150); /* better than one, and worse than the other */
    assert_int_equal(count(f, 1, 100, NOW), 0);
    set_health(f, 0, VB_HEALTH_DOWN);
    set_health(f, 1, VB_HEALTH_DOWN);
    add_backend(f, 0, 1);
    set_health(f, 1, VB_HEALTH_UP);
    do
        assert_true(vb_lb_pick(f->workers[0], &(struct vb_ask){.tried = &none_tried, .stuck_to = -1}, NOW, &reason) >=
                    0);
    while (reason == VB_PICK_POLICY); /* that of backend 1 */
    assert_int_equal(reason, VB_PICK_EXPLORE);
}

/* The mean is that of who can be picked now. */
static void a_mean_is_of_the_candidates(void **state)
{
    struct fixture *f = *state;
    open_pool(f, "least_load", ones, 3);
    report(f, 0, 0, NOW);
    report(f, 1, 900, NOW);
    assert_int_equal(count(f, 1, 300, NOW), 0); /* the mean is 450: 1 loses to 2, of which nothing is known */
    set_health(f, 0, VB_HEALTH_DOWN);
    assert_in_range(count(f, 1, 1000, NOW), 400, 600); /* it is 900, at once */
}

static void the_last_report_counts(void **state)
{
    struct fixture *f = *state;
    open_pool(f, "least_load", ones, 2);
    report(f, 0, 100, NOW);
    report(f, 1, 1000, NOW);
    assert_int_equal(count(f, 0, 100, NOW), 100);
    report(f, 0, UINT32_MAX, NOW + SECOND); /* however much it is */
    assert_int_equal(count(f, 0, 100, NOW + SECOND), 0);
    assert_true(lb_stamped_value(atomic_load(&vb_shm_backend(f->shm, 0)->reported_load)) <= UINT32_MAX / 2 + 1);
}

static void one_alone_gets_all(void **state)
{
    struct fixture *f = *state;
    open_pool(f, "least_load", ones, 1);
    report(f, 0, 5000, NOW);
    assert_int_equal(count(f, 0, 100, NOW), 100);
}

static void those_tried_and_full_are_left_out(void **state)
{
    struct fixture *f = *state;
    open_pool(f, "least_load", ones, 4);
    for (unsigned i = 0; i < 4; i++)
        report(f, i, i * 300, NOW);
    const struct vb_tried tried = {.n = 1, .backends = {0}};
    set_word(f, &vb_shm_backend(f->shm, 1)->max_connections, 1);
    occupy(f, 3, 1, 1);
    const unsigned first = pick_untried(f, 0, &tried);
    assert_int_equal(first, 2);
    const struct vb_tried more = {.n = 2, .backends = {0, 2}};
    assert_int_equal(pick_untried(f, 0, &more), 3);
}

/* ---- backends that report with each response --------------------------------------------------------------------- */

static unsigned at_work[SERVERS_MAX]; /* before, by somebody else, in 1/1000 */
static unsigned capacity = 1000 / 10; /* requests a second that are a whole load */

/* As a backend sees itself: what it has had to do in the last second. */
static void answer_with_load(struct fixture *f, unsigned backend, uint64_t now_us)
{
    static uint64_t second[SERVERS_MAX];
    static unsigned requests[SERVERS_MAX], load[SERVERS_MAX];
    requests[backend]++;
    if (now_us / SECOND != second[backend]) {
        load[backend] = requests[backend] * 1000 / capacity;
        requests[backend] = 0;
        second[backend] = now_us / SECOND;
    }
    report(f, backend, at_work[backend] + load[backend], now_us);
}

/* 150 requests a second for 4 backends, one of which has other work to do: a load of 800. */
static void the_one_with_other_work_gets_less(void **state)
{
    struct fixture *f = *state;
    open_pool(f, "least_load", ones, 4);
    struct simulation *s = begin_simulation(f);
    for (unsigned i = 0; i < 4; i++) {
        s->servers[i].latency_us = 5 * MS;
        s->servers[i].answered = answer_with_load;
        at_work[i] = i == 3 ? 800 : 100;
    }
    run(s, 150, 10 * SECOND);
    clear_counts(s);
    run(s, 150, 60 * SECOND);
    assert_true(share(s, 3) < 12);
    for (unsigned i = 0; i < 3; i++)
        assert_true(share(s, i) > 20 && share(s, i) < 45);
    at_work[3] = 100; /* it is free again, and found when its last report has faded */
    run(s, 150, 30 * SECOND);
    clear_counts(s);
    run(s, 150, 60 * SECOND);
    for (unsigned i = 0; i < 4; i++)
        assert_true(share(s, i) > 15 && share(s, i) < 35);
    free(s);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_least_loaded_of_two_wins),
        TEST(loads_that_are_alike_share),
        TEST(what_is_in_flight_counts_too),
        TEST(the_weights_count),
        TEST(where_nobody_reports_the_less_busy_wins),
        TEST(old_reports_fade),
        TEST(who_has_not_reported_is_like_the_others),
        TEST(a_mean_is_of_the_candidates),
        TEST(the_last_report_counts),
        TEST(one_alone_gets_all),
        TEST(those_tried_and_full_are_left_out),
        TEST(the_one_with_other_work_gets_less),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
