/* Passive detection: failures eject, over all workers, within the cap, for longer each time; and how it ends. */
#include "fixture.h"

#include <pthread.h>
#include <sched.h>

#define SECOND_US UINT64_C(1000000)
#define T0        (1000 * SECOND_US)

static const struct vb_outlier_rules rules = {
    .consecutive = 5, .eject_us = 10 * SECOND_US, .eject_max_us = 80 * SECOND_US};

static struct vb_shm_backend *row(const struct fixture *f, unsigned backend)
{
    return vb_shm_backend(f->shm, backend);
}

static uint32_t epoch(const struct fixture *f)
{
    return vb_shm_pool(f->shm, 0)->epoch;
}

static void open_equal(struct fixture *f, unsigned n)
{
    open_pool(f, "round_robin", (unsigned[]){1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, n);
}

static void set_cap(struct fixture *f, unsigned per_cent)
{
    set_word(f, &vb_shm_pool(f->shm, 0)->max_ejected, per_cent);
}

static uint64_t fail_once(struct fixture *f, unsigned backend, const struct vb_outlier_rules *by, uint64_t now_us)
{
    return vb_outlier_failed(f->shm, random_below(WORKERS), backend, by, VB_BACKEND_RESET, now_us);
}

/* Fails until it is ejected, at most so many times; returns for how long, in seconds. */
static uint64_t fail_times(struct fixture *f, unsigned backend, unsigned times, uint64_t now_us)
{
    for (unsigned i = 1; i <= times; i++) {
        uint64_t ejected_us = fail_once(f, backend, &rules, now_us);
        if (ejected_us > 0) {
            assert_int_equal(i, times);
            return ejected_us / SECOND_US;
        }
    }
    return 0;
}

static bool is_picked(struct fixture *f, unsigned worker, unsigned backend, uint64_t now_us)
{
    bool found = false;
    for (unsigned i = 0; i < 20; i++)
        found |= pick_at(f, worker, now_us) == (int)backend;
    return found;
}

/* Nobody picks it before `until`, everybody does from then on. */
static void expect_back_at(struct fixture *f, unsigned backend, uint64_t until_us)
{
    for (unsigned w = 0; w < WORKERS; w++)
        assert_false(is_picked(f, w, backend, until_us - 1));
    for (unsigned w = 0; w < WORKERS; w++)
        assert_true(is_picked(f, w, backend, until_us));
}

/* ---- beginning and end ------------------------------------------------------------------------------------------- */

static void so_many_in_a_row_eject(void **state)
{
    struct fixture *f = *state;
    open_equal(f, 3);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(vb_outlier_failed(f->shm, i % WORKERS, 1, &rules, VB_BACKEND_REFUSED, T0), 0);
        assert_true(is_picked(f, 0, 1, T0));
    }
    uint32_t before = epoch(f);
    assert_int_equal(vb_outlier_failed(f->shm, 3, 1, &rules, VB_BACKEND_STATUS, T0), 10 * SECOND_US);
    assert_int_equal(epoch(f), before + 1);
    assert_int_equal(row(f, 1)->ejections, 1);
    assert_int_equal(row(f, 1)->ejections_in_row, 1);
    assert_int_equal(row(f, 1)->last_failure, VB_BACKEND_STATUS);
    assert_int_equal(row(f, 1)->ejected_until_us, T0 + 10 * SECOND_US);
    assert_int_equal(vb_shm_pool(f->shm, 0)->ejecting, 0);
    assert_int_equal(row(f, 0)->failures, 0);
    expect_back_at(f, 1, T0 + 10 * SECOND_US);
    assert_int_equal(epoch(f), before + 1); /* by the clock alone */
}

static void one_failure_is_enough_where_one_is_asked_for(void **state)
{
    struct fixture *f = *state;
    struct vb_outlier_rules one = rules;
    one.consecutive = 1;
    open_equal(f, 3);
    vb_outlier_passed(f->shm, 2, T0);
    assert_int_equal(fail_once(f, 2, &one, T0), 10 * SECOND_US);
    vb_outlier_passed(f->shm, 2, T0 + 10 * SECOND_US);
    assert_int_equal(fail_once(f, 2, &one, T0 + 10 * SECOND_US), 20 * SECOND_US);
}

static void a_success_begins_the_count_anew(void **state)
{
    struct fixture *f = *state;
    open_equal(f, 2);
    for (unsigned i = 0; i < 20; i++) {
        assert_int_equal(fail_times(f, 0, 4, T0), 0);
        vb_outlier_passed(f->shm, 0, T0);
        vb_outlier_passed(f->shm, 0, T0);
    }
    vb_outlier_passed(f->shm, 1, T0); /* another's */
    assert_int_equal(fail_times(f, 0, 5, T0), 10);
}

static void without_a_number_none_is_ejected(void **state)
{
    struct fixture *f = *state;
    struct vb_outlier_rules never = rules;
    never.consecutive = 0;
    open_equal(f, 2);
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(vb_outlier_failed(f->shm, 0, 0, &never, VB_BACKEND_CLOSED, T0), 0);
    assert_int_equal(row(f, 0)->last_failure, VB_BACKEND_CLOSED);
    assert_int_equal(row(f, 0)->failures, 0);
    assert_true(is_picked(f, 0, 0, T0));
}

static void several_ends_are_each_seen_in_time(void **state)
{
    struct fixture *f = *state;
    open_equal(f, 6);
    fail_times(f, 3, 5, T0 + 4 * SECOND_US);
    fail_times(f, 0, 5, T0);
    fail_times(f, 5, 5, T0 + 2 * SECOND_US);
    expect_back_at(f, 0, T0 + 10 * SECOND_US);
    expect_back_at(f, 5, T0 + 12 * SECOND_US);
    expect_back_at(f, 3, T0 + 14 * SECOND_US);
}

/* All that can be picked is ejected: the first whose time is over is picked, without anybody's doing. */
static void a_pool_that_is_all_ejected_comes_back_by_itself(void **state)
{
    struct fixture *f = *state;
    struct vb_outlier_rules all = rules;
    all.consecutive = 1;
    open_equal(f, 2);
    set_cap(f, 100);
    fail_once(f, 0, &all, T0);
    fail_once(f, 1, &all, T0 + 1);
    assert_int_equal(pick_at(f, 0, T0 + 2), -ENOENT);
    assert_int_equal(pick_at(f, 0, T0 + 10 * SECOND_US - 1), -ENOENT);
    assert_int_equal(pick_at(f, 0, T0 + 10 * SECOND_US), 0);
    assert_true(is_picked(f, 0, 1, T0 + 10 * SECOND_US + 1));
}

static void panic_gives_requests_to_the_ejected_until_enough_are_back(void **state)
{
    struct fixture *f = *state;
    struct vb_outlier_rules all = rules;
    all.consecutive = 1;
    open_equal(f, 3);
    set_cap(f, 100);
    set_word(f, &vb_shm_pool(f->shm, 0)->panic, 50);
    fail_once(f, 0, &all, T0);
    assert_false(is_picked(f, 0, 0, T0));
    fail_once(f, 1, &all, T0 + SECOND_US);
    for (unsigned b = 0; b < 3; b++)
        assert_true(is_picked(f, 0, b, T0 + SECOND_US));
    assert_true(vb_lb_in_panic(f->workers[0]));
    vb_outlier_passed(f->shm, 0, T0 + 2 * SECOND_US);
    assert_int_equal(fail_once(f, 0, &all, T0 + 2 * SECOND_US), 0); /* an ejection is not made longer */
    assert_true(vb_lb_look(f->workers[0], T0 + 10 * SECOND_US));
    assert_false(vb_lb_in_panic(f->workers[0]));
    assert_false(is_picked(f, 0, 1, T0 + 10 * SECOND_US));
}

/* ---- trial and back-off ------------------------------------------------------------------------------------------ */

/* Requests that were in flight when it was ejected end: that tells nothing of how it is when it comes back. */
static void what_ends_late_does_not_count(void **state)
{
    struct fixture *f = *state;
    open_equal(f, 3);
    fail_times(f, 0, 5, T0);
    uint64_t end = T0 + 10 * SECOND_US;
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(fail_once(f, 0, &rules, end - 1), 0);
    assert_int_equal(row(f, 0)->ejections, 1);
    assert_int_equal(row(f, 0)->ejected_until_us, end);
    assert_int_equal(row(f, 0)->failures, 4);
    vb_outlier_passed(f->shm, 0, end - 1);
    assert_int_equal(fail_times(f, 0, 1, end), 20); /* on trial all the same */
}

static void one_success_ends_the_trial(void **state)
{
    struct fixture *f = *state;
    open_equal(f, 3);
    fail_times(f, 0, 5, T0);
    uint64_t end = T0 + 10 * SECOND_US;
    vb_outlier_passed(f->shm, 0, end);
    assert_int_equal(fail_times(f, 0, 4, end), 0);
    assert_int_equal(fail_times(f, 0, 1, end), 20);
}

static void each_time_in_a_row_is_twice_as_long(void **state)
{
    static const unsigned seconds[] = {10, 20, 40, 80, 80, 80};
    struct fixture *f = *state;
    uint64_t now_us = T0;
    open_equal(f, 3);
    fail_times(f, 2, 4, now_us);
    for (unsigned i = 0; i < VB_ARRAY_SIZE(seconds); i++) {
        assert_int_equal(fail_times(f, 2, 1, now_us), seconds[i]);
        assert_int_equal(row(f, 2)->ejections, i + 1);
        now_us += seconds[i] * SECOND_US;
    }
    for (unsigned i = 0; i < 200; i++) { /* far more doublings than a word has bits */
        assert_int_equal(fail_times(f, 2, 1, now_us), 80);
        now_us += 80 * SECOND_US;
    }
}

/* Good for as long as the ejection lasted: what was before is forgotten. */
static void good_conduct_is_rewarded(void **state)
{
    struct fixture *f = *state;
    open_equal(f, 3);
    fail_times(f, 0, 5, T0);
    uint64_t now_us = T0 + 10 * SECOND_US;
    assert_int_equal(fail_times(f, 0, 1, now_us), 20);
    now_us += 20 * SECOND_US;
    assert_int_equal(fail_times(f, 0, 1, now_us + 20 * SECOND_US), 40); /* just not long enough */
    now_us += 20 * SECOND_US + 40 * SECOND_US;
    vb_outlier_passed(f->shm, 0, now_us);
    assert_int_equal(fail_times(f, 0, 5, now_us + 40 * SECOND_US + 1), 10);
    assert_int_equal(row(f, 0)->ejections, 4);
    assert_int_equal(row(f, 0)->ejections_in_row, 1);
}

static void no_duration_overflows(void **state)
{
    struct fixture *f = *state;
    struct vb_outlier_rules huge = {.consecutive = 1, .eject_us = 3, .eject_max_us = UINT64_MAX / 4};
    uint64_t now_us = 1, last = 0;
    open_equal(f, 2);
    for (unsigned i = 0; i < 100 && last < huge.eject_max_us; i++) {
        uint64_t ejected_us = fail_once(f, 0, &huge, now_us);
        assert_true(ejected_us == VB_MIN(UINT64_C(3) << i, huge.eject_max_us));
        now_us += ejected_us;
        last = ejected_us;
    }
    assert_true(last == huge.eject_max_us);
}

/* ---- cap --------------------------------------------------------------------------------------------------------- */

static void no_more_than_the_cap_at_a_time(void **state)
{
    static const struct {
        unsigned n, max_ejected, expected;
    } cases[] = {{1, 50, 0}, {1, 99, 0}, {1, 100, 1}, {2, 49, 0}, {2, 50, 1},  {2, 100, 2}, {3, 50, 1},    {3, 33, 0},
                 {3, 34, 1}, {3, 67, 2}, {10, 50, 5}, {10, 9, 0}, {10, 10, 1}, {10, 59, 5}, {10, 100, 10}, {10, 0, 0}};
    for (unsigned i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        unsigned ejected = 0;
        setup(state);
        struct fixture *f = *state;
        open_equal(f, cases[i].n);
        set_cap(f, cases[i].max_ejected);
        for (unsigned k = 0; k < 20; k++)
            for (unsigned b = 0; b < cases[i].n; b++)
                ejected += fail_once(f, b, &rules, T0) > 0;
        assert_int_equal(ejected, cases[i].expected);
        assert_int_equal(vb_shm_pool(f->shm, 0)->ejecting, 0);
        assert_int_equal(teardown(state), 0);
    }
}

static void who_has_no_place_goes_when_there_is_one(void **state)
{
    struct fixture *f = *state;
    open_equal(f, 3);
    assert_int_equal(fail_times(f, 0, 5, T0), 10);
    assert_int_equal(fail_times(f, 1, 9, T0 + SECOND_US), 0);
    assert_true(is_picked(f, 0, 1, T0 + SECOND_US));
    assert_int_equal(fail_times(f, 1, 1, T0 + 10 * SECOND_US), 10);
    assert_int_equal(fail_times(f, 0, 1, T0 + 10 * SECOND_US), 0); /* and its own trial must wait */
}

static void only_members_count(void **state)
{
    struct fixture *f = *state;
    open_equal(f, 4);
    assert_int_equal(vb_shm_add_pool(f->shm, &(struct vb_pool_spec){"api", "round_robin", 0, 50}), 1);
    for (unsigned i = 0; i < 4; i++)
        add_backend(f, 1, 1);
    vb_shm_set_admin(f->shm, 2, VB_ADMIN_DRAIN);
    vb_shm_remove_backend(f->shm, 3);
    assert_int_equal(fail_times(f, 4, 5, T0), 10); /* another pool's, whose cap is its own */
    assert_int_equal(fail_times(f, 2, 9, T0), 0);  /* which gets no requests anyway */
    assert_int_equal(fail_times(f, 3, 9, T0), 0);
    assert_int_equal(fail_times(f, 0, 5, T0), 10);
    assert_int_equal(fail_times(f, 1, 9, T0), 0); /* it would be two of two */
    vb_shm_set_admin(f->shm, 0, VB_ADMIN_MAINT);
    vb_shm_set_admin(f->shm, 2, VB_ADMIN_READY);
    assert_int_equal(fail_times(f, 1, 1, T0), 10); /* one of two: the one in maintenance is no member */
}

/* ---- forgiving --------------------------------------------------------------------------------------------------- */

/* 50% of those that checks leave: with two down, none of the other two. */
static void the_cap_holds_when_others_go_down(void **state)
{
    struct fixture *f = *state;
    open_equal(f, 4);
    assert_int_equal(fail_times(f, 0, 5, T0), 10);
    assert_int_equal(fail_times(f, 1, 5, T0 + SECOND_US), 10);
    set_health(f, 3, VB_HEALTH_DOWN); /* one of three may be ejected now: the first returns */
    assert_true(is_picked(f, 0, 0, T0 + 2 * SECOND_US));
    assert_false(is_picked(f, 0, 1, T0 + 2 * SECOND_US));
    set_health(f, 2, VB_HEALTH_DOWN);
    assert_true(is_picked(f, 0, 0, T0 + 3 * SECOND_US));
    assert_false(is_picked(f, 0, 1, T0 + 3 * SECOND_US)); /* one of two */
    set_health(f, 0, VB_HEALTH_DOWN);
    assert_true(is_picked(f, 0, 1, T0 + 4 * SECOND_US)); /* the last one there is */
    set_health(f, 0, VB_HEALTH_UP);
    set_health(f, 2, VB_HEALTH_UP);
    set_health(f, 3, VB_HEALTH_UP);
    assert_false(is_picked(f, 0, 0, T0 + 5 * SECOND_US));
    assert_false(is_picked(f, 0, 1, T0 + 5 * SECOND_US));
    expect_back_at(f, 0, T0 + 10 * SECOND_US);
    assert_int_equal(fail_times(f, 2, 9, T0 + 5 * SECOND_US), 0);
}

/* A further try may go to one that is ejected, when there is no other; a first one may not. */
static void the_last_resort_of_a_further_try(void **state)
{
    struct fixture *f = *state;
    struct vb_tried tried = {.n = 1, .backends = {1}};
    open_equal(f, 3);
    assert_int_equal(fail_times(f, 0, 5, T0), 10);
    assert_int_equal(try_to_pick(f->workers[0], &tried, T0), 2);
    tried = (struct vb_tried){.n = 2, .backends = {1, 2}};
    uint64_t picks = vb_shm_pool(f->shm, 0)->cursor, retries = vb_shm_pool(f->shm, 0)->retries;
    assert_int_equal(try_to_pick(f->workers[0], &tried, T0), 0);
    assert_int_equal(vb_shm_pool(f->shm, 0)->cursor, picks + 1);
    assert_int_equal(vb_shm_pool(f->shm, 0)->retries, retries + 1);
    assert_int_equal(vb_shm_sum_in_flight(f->shm, 0), 1);
    tried = (struct vb_tried){.n = 3, .backends = {1, 2, 0}};
    assert_int_equal(try_to_pick(f->workers[0], &tried, T0), -ENOENT);
    tried = (struct vb_tried){.n = 2, .backends = {1, 2}};
    set_health(f, 0, VB_HEALTH_DOWN);
    assert_int_equal(try_to_pick(f->workers[0], &tried, T0), -ENOENT);
}

/* A check has connected to it. That says nothing about what it answers. */
static void want_of_a_connection_is_refuted_by_one(void **state)
{
    struct fixture *f = *state;
    open_equal(f, 4);
    assert_int_equal(fail_times(f, 0, 5, T0), 10);
    vb_outlier_refute(f->shm, 0, T0 + SECOND_US);
    assert_false(is_picked(f, 0, 0, T0 + SECOND_US)); /* it was reset */
    row(f, 0)->last_failure = VB_BACKEND_REFUSED;
    vb_outlier_refute(f->shm, 0, T0 + SECOND_US);
    assert_true(is_picked(f, 0, 0, T0 + SECOND_US));
    assert_int_equal(fail_times(f, 0, 1, T0 + SECOND_US), 20); /* on trial, and the second time in a row */
    uint32_t epoch = vb_shm_pool(f->shm, 0)->epoch;
    vb_outlier_refute(f->shm, 1, T0 + SECOND_US); /* which is not ejected */
    assert_int_equal(vb_shm_pool(f->shm, 0)->epoch, epoch);
}

static void who_is_forgiven_is_back_at_once(void **state)
{
    struct fixture *f = *state;
    open_equal(f, 3);
    fail_times(f, 0, 5, T0);
    fail_times(f, 0, 1, T0 + 10 * SECOND_US);
    uint64_t now_us = T0 + 11 * SECOND_US;
    for (unsigned w = 0; w < WORKERS; w++)
        assert_false(is_picked(f, w, 0, now_us));
    vb_outlier_forgive(f->shm, 0);
    for (unsigned w = 0; w < WORKERS; w++)
        assert_true(is_picked(f, w, 0, now_us));
    assert_int_equal(fail_times(f, 0, 5, now_us), 10); /* without a trial, and not in a row */
    assert_int_equal(row(f, 0)->ejections, 3);
}

static void who_was_not_ejected_needs_no_forgiving(void **state)
{
    struct fixture *f = *state;
    open_equal(f, 3);
    fail_times(f, 0, 4, T0);
    uint32_t before = epoch(f);
    vb_outlier_forgive(f->shm, 0);
    assert_int_equal(epoch(f), before);
    assert_int_equal(fail_times(f, 0, 4, T0), 0);
}

/* ---- several workers --------------------------------------------------------------------------------------------- */

static void a_lock_of_the_dead_is_cleared_by_the_master(void **state)
{
    struct fixture *f = *state;
    open_equal(f, 3);
    vb_shm_pool(f->shm, 0)->ejecting = 1 + 2;
    for (unsigned i = 0; i < 50; i++) /* it is stopped, or has died: nobody waits, and nobody is ejected */
        assert_int_equal(vb_outlier_failed(f->shm, i % 2, 0, &rules, VB_BACKEND_RESET, T0), 0);
    vb_shm_release_worker(f->shm, 1, true); /* another one */
    assert_int_equal(fail_times(f, 0, 1, T0), 0);
    vb_shm_release_worker(f->shm, 2, true);
    assert_int_equal(fail_times(f, 0, 1, T0), 10);
}

/* It was killed when it had noted the end, and had not moved the epoch yet. */
static void an_ejection_that_a_dead_worker_has_told_nobody_of(void **state)
{
    struct fixture *f = *state;
    open_equal(f, 3);
    assert_true(is_picked(f, 0, 1, T0));
    vb_shm_pool(f->shm, 0)->ejecting = 1 + 2;
    row(f, 1)->ejected_until_us = T0 + 10 * SECOND_US;
    vb_shm_release_worker(f->shm, 2, true);
    expect_back_at(f, 1, T0 + 10 * SECOND_US);
}

enum { ROUNDS = 2000 };

struct racer {
    struct fixture *f;
    unsigned slot;
    vb_u32 *arrived;
    vb_u32 *ejected; /* of the round */
    bool apart;      /* each its own backend */
    bool wrong;
};

static void meet(vb_u32 *arrived, unsigned times)
{
    atomic_fetch_add(arrived, 1);
    while (*arrived < times * WORKERS)
        sched_yield();
}

/* All workers see failures at the same moment. */
static void *fail_together(void *arg)
{
    struct racer *racer = arg;
    struct vb_outlier_rules one = {.consecutive = 2, .eject_us = 10, .eject_max_us = 10};
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t now_us = T0 + round * 10;
        meet(racer->arrived, 2 * round + 1);
        for (unsigned i = 0; i < 4; i++)
            if (vb_outlier_failed(racer->f->shm, racer->slot, racer->apart ? racer->slot : 0, &one, VB_BACKEND_RESET,
                                  now_us) > 0)
                atomic_fetch_add(racer->ejected, 1);
        meet(racer->arrived, 2 * round + 2);
        if (racer->slot == 0) {
            racer->wrong |= *racer->ejected != 1;
            atomic_store(racer->ejected, 0);
        }
    }
    return NULL;
}

static void race(struct fixture *f, bool apart)
{
    vb_u32 arrived = 0, ejected = 0;
    struct racer racers[WORKERS];
    pthread_t threads[WORKERS];
    uint64_t sum = 0;
    open_equal(f, 4);
    set_cap(f, apart ? 25 : 100); /* one of them; or all */
    for (unsigned i = 0; i < WORKERS; i++) {
        racers[i] = (struct racer){f, i, &arrived, &ejected, apart, false};
        assert_int_equal(pthread_create(&threads[i], NULL, fail_together, &racers[i]), 0);
    }
    for (unsigned i = 0; i < WORKERS; i++)
        pthread_join(threads[i], NULL);
    assert_false(racers[0].wrong);
    for (unsigned i = 0; i < 4; i++)
        sum += row(f, i)->ejections;
    assert_int_equal(sum, ROUNDS);
    assert_int_equal(vb_shm_pool(f->shm, 0)->ejecting, 0);
}

static void workers_that_see_the_same_eject_once(void **state)
{
    race(*state, false);
}

static void workers_that_eject_together_keep_the_cap(void **state)
{
    race(*state, true);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(so_many_in_a_row_eject),
        TEST(one_failure_is_enough_where_one_is_asked_for),
        TEST(a_success_begins_the_count_anew),
        TEST(without_a_number_none_is_ejected),
        TEST(several_ends_are_each_seen_in_time),
        TEST(a_pool_that_is_all_ejected_comes_back_by_itself),
        TEST(panic_gives_requests_to_the_ejected_until_enough_are_back),
        TEST(what_ends_late_does_not_count),
        TEST(one_success_ends_the_trial),
        TEST(each_time_in_a_row_is_twice_as_long),
        TEST(good_conduct_is_rewarded),
        TEST(no_duration_overflows),
        cmocka_unit_test(no_more_than_the_cap_at_a_time),
        TEST(who_has_no_place_goes_when_there_is_one),
        TEST(only_members_count),
        TEST(the_cap_holds_when_others_go_down),
        TEST(the_last_resort_of_a_further_try),
        TEST(want_of_a_connection_is_refuted_by_one),
        TEST(who_is_forgiven_is_back_at_once),
        TEST(who_was_not_ejected_needs_no_forgiving),
        TEST(a_lock_of_the_dead_is_cleared_by_the_master),
        TEST(an_ejection_that_a_dead_worker_has_told_nobody_of),
        TEST(workers_that_see_the_same_eject_once),
        TEST(workers_that_eject_together_keep_the_cap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
