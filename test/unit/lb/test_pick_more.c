/* What all policies share, further: slow start, backups, cookies, limits of connections, and the reason of a pick. */
#include "fixture.h"

#include <pthread.h>

#define SECOND UINT64_C(1000000)
#define LATER  (1000 * SECOND) /* when all that is not said to be new has been there for long */

static struct vb_shm_backend *row(struct fixture *f, unsigned backend)
{
    return vb_shm_backend(f->shm, backend);
}

/* Pool 0 with n backends of weight 1, which have been there from the beginning. */
static void open_old(struct fixture *f, const struct vb_lb_rules *rules, unsigned n)
{
    assert_int_equal(vb_shm_add_pool(f->shm, &(struct vb_pool_spec){"web", rules->balance, 0, 50}), 0);
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(add_backend(f, 0, 1), i);
        row(f, i)->ready_since_us = 1;
    }
    for (unsigned i = 0; i < WORKERS; i++)
        open_worker(f, i, rules);
}

static void open_three(struct fixture *f)
{
    open_old(f, &(struct vb_lb_rules){.balance = "round_robin"}, 3);
}

static int ask_stuck(struct fixture *f, int stuck_to, const struct vb_tried *tried, enum vb_pick_reason *ret_reason)
{
    return vb_lb_pick(f->workers[0], &(struct vb_ask){.tried = tried, .stuck_to = stuck_to}, LATER, ret_reason);
}

static void expect_pick(struct fixture *f, int stuck_to, int backend, enum vb_pick_reason wanted)
{
    enum vb_pick_reason reason = VB_PICK_REASONS;
    assert_int_equal(ask_stuck(f, stuck_to, &none_tried, &reason), backend);
    assert_int_equal(reason, wanted);
}

/* Of n picks at this time, how many the backend gets; nothing stays in flight. */
static unsigned count_at(struct fixture *f, unsigned backend, unsigned n, uint64_t now_us)
{
    unsigned count = 0;
    for (unsigned i = 0; i < n; i++) {
        int got = pick_at(f, i % WORKERS, now_us);
        assert_true(got >= 0);
        vb_lb_done(f->workers[i % WORKERS], (unsigned)got);
        count += (unsigned)got == backend;
    }
    return count;
}

/* ---- slow start -------------------------------------------------------------------------------------------------- */

static void a_newcomer_gets_its_share_in_twenty_steps(void **state)
{
    struct fixture *f = *state;
    open_old(f, &(struct vb_lb_rules){"round_robin", 0, 20 * SECOND}, 2);
    row(f, 1)->ready_since_us = LATER;
    for (unsigned step = 1; step <= 20; step++) {
        uint64_t begins = LATER + (step - 1) * SECOND;
        assert_int_equal(count_at(f, 1, 20 + step, begins), step);
        assert_int_equal(count_at(f, 1, 20 + step, begins + SECOND - 1), step);
    }
    assert_int_equal(count_at(f, 1, 100, LATER + 20 * SECOND), 50);
    assert_false(count_at(f, 1, 100, LATER + 500 * SECOND) != 50);
}

/* No step may be missed where the time does not divide by them. */
static void steps_come_without_a_change_of_the_pool(void **state)
{
    struct fixture *f = *state;
    open_old(f, &(struct vb_lb_rules){"round_robin", 0, 7}, 2);
    row(f, 1)->ready_since_us = LATER;
    for (unsigned age = 0; age < 7; age++) {
        unsigned step = age * 20 / 7 + 1;
        assert_int_equal(count_at(f, 1, 20 + step, LATER + age), step);
    }
    assert_int_equal(count_at(f, 1, 20, LATER + 7), 10);
}

static void all_that_are_new_are_alike(void **state)
{
    struct fixture *f = *state;
    open_old(f, &(struct vb_lb_rules){"round_robin", 0, 20 * SECOND}, 2);
    row(f, 0)->ready_since_us = row(f, 1)->ready_since_us = LATER;
    assert_int_equal(count_at(f, 1, 100, LATER), 50);
    assert_int_equal(count_at(f, 1, 100, LATER + 10 * SECOND), 50);
}

/* Making a picture of many costs milliseconds: they go up together, whenever each has come. */
static void however_many_are_new_the_picture_is_made_at_each_step(void **state)
{
    struct fixture *f = *state;
    unsigned made = 0;
    open_old(f, &(struct vb_lb_rules){"round_robin", 0, 20 * SECOND}, 16);
    for (unsigned i = 0; i < 16; i++)
        row(f, i)->ready_since_us = LATER + i * SECOND / 16;
    for (uint64_t us = 0; us < 22 * SECOND; us += SECOND / 100)
        made += vb_lb_look(f->workers[0], LATER + us);
    assert_in_range(made, 20, 22);
    assert_int_equal(count_at(f, 15, 160, LATER + 22 * SECOND), 10);
}

static void without_slow_start_it_has_its_share_at_once(void **state)
{
    struct fixture *f = *state;
    open_old(f, &(struct vb_lb_rules){"round_robin", 0, 0}, 2);
    row(f, 1)->ready_since_us = LATER;
    assert_int_equal(count_at(f, 1, 100, LATER), 50);
}

static void nothing(struct fixture *f)
{
}

static void go_down_and_up(struct fixture *f)
{
    set_health(f, 1, VB_HEALTH_DOWN);
    set_health(f, 1, VB_HEALTH_UP);
}

static void rest_and_return(struct fixture *f)
{
    vb_shm_set_admin(f->shm, 1, VB_ADMIN_MAINT);
    vb_shm_set_admin(f->shm, 1, VB_ADMIN_READY);
}

static void be_ready_again(struct fixture *f)
{
    vb_shm_set_admin(f->shm, 1, VB_ADMIN_READY);
}

static void pass_a_check(struct fixture *f)
{
    set_health(f, 1, VB_HEALTH_UP);
}

static void it_starts_slowly_whenever_it_comes_back(void **state)
{
    static const struct {
        void (*change)(struct fixture *f);
        bool is_slow;
    } cases[] = {{nothing, false},
                 {go_down_and_up, true},
                 {rest_and_return, true},
                 {be_ready_again, false},
                 {pass_a_check, false}};
    for (unsigned i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        setup(state);
        struct fixture *f = *state;
        open_old(f, &(struct vb_lb_rules){"round_robin", 0, 20}, 2);
        cases[i].change(f);
        uint64_t since_us = row(f, 1)->ready_since_us;
        assert_int_equal(since_us > 1, cases[i].is_slow);
        assert_int_equal(count_at(f, 1, 42, VB_MAX(since_us, UINT64_C(21))), cases[i].is_slow ? 2 : 21);
        assert_int_equal(teardown(state), 0);
    }
}

static void it_starts_slowly_after_an_ejection(void **state)
{
    struct fixture *f = *state;
    open_old(f, &(struct vb_lb_rules){"round_robin", 0, 20 * SECOND}, 2);
    row(f, 1)->ejected_until_us = LATER;
    assert_int_equal(count_at(f, 1, 42, LATER - 1), 0);
    assert_int_equal(count_at(f, 1, 42, LATER), 2);
    assert_int_equal(count_at(f, 1, 60, LATER + 9 * SECOND), 20);
    assert_int_equal(count_at(f, 1, 42, LATER + 20 * SECOND), 21);
}

/* ---- backups ----------------------------------------------------------------------------------------------------- */

static void make_backup(struct fixture *f, unsigned backend)
{
    set_word(f, &row(f, backend)->backup, 1);
}

static void backups_serve_when_no_other_is_usable(void **state)
{
    struct fixture *f = *state;
    open_old(f, &(struct vb_lb_rules){.balance = "round_robin"}, 4);
    make_backup(f, 2);
    make_backup(f, 3);
    assert_int_equal(count_at(f, 0, 100, LATER), 50);
    assert_int_equal(count_at(f, 1, 100, LATER), 50);
    set_health(f, 0, VB_HEALTH_DOWN);
    expect_pick(f, -1, 1, VB_PICK_ONLY);
    vb_shm_set_admin(f->shm, 1, VB_ADMIN_DRAIN);
    assert_int_equal(count_at(f, 2, 100, LATER), 50);
    assert_int_equal(count_at(f, 3, 100, LATER), 50);
    set_health(f, 3, VB_HEALTH_DOWN);
    expect_pick(f, -1, 2, VB_PICK_BACKUP);
    set_health(f, 0, VB_HEALTH_UP);
    expect_pick(f, -1, 0, VB_PICK_ONLY);
}

static void a_backup_serves_for_those_ejected(void **state)
{
    struct fixture *f = *state;
    open_three(f);
    make_backup(f, 2);
    set_word(f, &vb_shm_pool(f->shm, 0)->max_ejected, 100);
    row(f, 0)->ejected_until_us = row(f, 1)->ejected_until_us = LATER + SECOND;
    expect_pick(f, -1, 2, VB_PICK_BACKUP);
    assert_int_equal(count_at(f, 2, 10, LATER + SECOND), 0); /* by the clock alone */
}

static void backups_are_better_than_panic(void **state)
{
    struct fixture *f = *state;
    open_three(f);
    make_backup(f, 2);
    set_word(f, &vb_shm_pool(f->shm, 0)->panic, 50);
    set_health(f, 0, VB_HEALTH_DOWN);
    expect_pick(f, -1, 1, VB_PICK_ONLY); /* one of two: backups do not count */
    set_health(f, 1, VB_HEALTH_DOWN);
    expect_pick(f, -1, 2, VB_PICK_BACKUP);
    assert_false(vb_lb_in_panic(f->workers[0]));
    set_health(f, 2, VB_HEALTH_DOWN);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(count_at(f, i, 3, LATER), 1);
    assert_true(vb_lb_in_panic(f->workers[0]));
}

static void a_further_try_may_go_to_a_backup(void **state)
{
    struct fixture *f = *state;
    struct vb_tried tried = {.n = 2, .backends = {0, 1}};
    enum vb_pick_reason reason;
    open_three(f);
    make_backup(f, 2);
    assert_true(vb_lb_has_other(f->workers[0], &tried, LATER));
    assert_int_equal(ask_stuck(f, -1, &tried, &reason), 2);
    assert_int_equal(reason, VB_PICK_RETRY);
    tried.backends[tried.n++] = 2;
    assert_false(vb_lb_has_other(f->workers[0], &tried, LATER));
    assert_int_equal(ask_stuck(f, -1, &tried, &reason), -ENOENT);
}

/* ---- cookies ----------------------------------------------------------------------------------------------------- */

static void a_cookie_is_followed_to_whoever_serves_yet(void **state)
{
    struct fixture *f = *state;
    open_three(f);
    for (unsigned i = 0; i < 10; i++)
        expect_pick(f, 1, 1, VB_PICK_STICKY);
    vb_shm_set_admin(f->shm, 1, VB_ADMIN_DRAIN);
    expect_pick(f, 1, 1, VB_PICK_STICKY);
    assert_int_equal(vb_shm_pool(f->shm, 0)->stuck, 11);
    assert_int_equal(vb_shm_pool(f->shm, 0)->cursor, 0);
    assert_int_equal(count_at(f, 1, 20, LATER), 0); /* of those without a cookie */
}

static void leave_by_maint(struct fixture *f)
{
    vb_shm_set_admin(f->shm, 1, VB_ADMIN_MAINT);
}

static void leave_by_removal(struct fixture *f)
{
    vb_shm_remove_backend(f->shm, 1);
}

static void leave_by_health(struct fixture *f)
{
    set_health(f, 1, VB_HEALTH_DOWN);
}

static void leave_by_ejection(struct fixture *f)
{
    row(f, 1)->ejected_until_us = LATER + SECOND;
}

static void leave_drained(struct fixture *f)
{
    vb_shm_set_admin(f->shm, 1, VB_ADMIN_DRAIN);
    set_health(f, 1, VB_HEALTH_DOWN);
}

static void a_cookie_to_one_that_does_not_serve_is_as_none(void **state)
{
    static void (*const ways[])(struct fixture * f) = {leave_by_maint, leave_by_removal, leave_by_health,
                                                       leave_by_ejection, leave_drained};
    for (unsigned i = 0; i < VB_ARRAY_SIZE(ways); i++) {
        enum vb_pick_reason reason;
        setup(state);
        struct fixture *f = *state;
        open_three(f);
        ways[i](f);
        for (unsigned k = 0; k < 6; k++) {
            int got = ask_stuck(f, 1, &none_tried, &reason);
            assert_true(got == 0 || got == 2);
            assert_int_equal(reason, VB_PICK_POLICY);
        }
        assert_int_equal(vb_shm_pool(f->shm, 0)->stuck, 0);
        assert_int_equal(teardown(state), 0);
    }
}

/* A reload adds them drained, and makes them ready when all of it is: until then nobody has been bound to them. */
static void a_cookie_is_not_followed_to_one_that_has_yet_to_be_ready(void **state)
{
    struct fixture *f = *state;
    enum vb_pick_reason reason;
    open_three(f);
    struct vb_backend_spec spec = {"new", "127.0.0.1:1", 1, true, VB_HEALTH_UNKNOWN, VB_ADMIN_DRAIN, false, 0, false};
    assert_int_equal(vb_shm_add_backend(f->shm, 0, &spec), 3);
    assert_int_not_equal(ask_stuck(f, 3, &none_tried, &reason), 3);
    set_health(f, 3, VB_HEALTH_DOWN);
    set_health(f, 3, VB_HEALTH_UP);
    assert_int_not_equal(ask_stuck(f, 3, &none_tried, &reason), 3);
    vb_shm_set_admin(f->shm, 3, VB_ADMIN_READY);
    expect_pick(f, 3, 3, VB_PICK_STICKY);
    vb_shm_set_admin(f->shm, 3, VB_ADMIN_DRAIN);
    expect_pick(f, 3, 3, VB_PICK_STICKY);
}

static void a_cookie_is_not_followed_into_another_pool(void **state)
{
    struct fixture *f = *state;
    enum vb_pick_reason reason;
    open_three(f);
    assert_int_equal(vb_shm_add_pool(f->shm, &(struct vb_pool_spec){"api", "round_robin", 0, 50}), 1);
    unsigned theirs = add_backend(f, 1, 1);
    assert_int_not_equal(ask_stuck(f, (int)theirs, &none_tried, &reason), theirs);
    assert_int_equal(reason, VB_PICK_POLICY);
}

static void a_cookie_to_one_that_was_tried_is_as_none(void **state)
{
    struct fixture *f = *state;
    enum vb_pick_reason reason;
    open_three(f);
    for (unsigned i = 0; i < 6; i++) {
        assert_int_not_equal(ask_stuck(f, 1, &(struct vb_tried){.n = 1, .backends = {1}}, &reason), 1);
        assert_int_equal(reason, VB_PICK_RETRY);
    }
}

/* Others are free, but it waits for its own, also while that is drained: somebody has to know that it may wait. */
static void check_waits_for_its_own(struct fixture *f, enum vb_admin_state admin)
{
    enum vb_pick_reason reason;
    open_three(f);
    row(f, 1)->max_connections = 2;
    vb_shm_set_admin(f->shm, 1, admin);
    expect_pick(f, 1, 1, VB_PICK_STICKY);
    expect_pick(f, 1, 1, VB_PICK_STICKY);
    assert_int_equal(ask_stuck(f, 1, &none_tried, &reason), -EAGAIN);
    assert_true(vb_lb_is_limited(f->workers[0], LATER));
    vb_lb_done(f->workers[0], 1);
    expect_pick(f, 1, 1, VB_PICK_STICKY);
    assert_int_equal(vb_shm_load(f->shm, 1), 2);
}

static void whoever_is_stuck_to_a_full_one_waits_for_it(void **state)
{
    static const enum vb_admin_state admins[] = {VB_ADMIN_READY, VB_ADMIN_DRAIN};
    for (unsigned i = 0; i < VB_ARRAY_SIZE(admins); i++) {
        setup(state);
        check_waits_for_its_own(*state, admins[i]);
        assert_int_equal(teardown(state), 0);
    }
}

/* ---- limits of connections --------------------------------------------------------------------------------------- */

static void one_that_is_full_is_not_picked(void **state)
{
    struct fixture *f = *state;
    open_three(f);
    assert_false(vb_lb_is_limited(f->workers[0], LATER));
    set_word(f, &row(f, 1)->max_connections, 2);
    assert_true(vb_lb_is_limited(f->workers[0], LATER));
    occupy(f, 3, 1, 2); /* by another worker */
    assert_int_equal(count_at(f, 1, 60, LATER), 0);
    assert_int_equal(count_at(f, 0, 60, LATER), 30);
    vb_shm_end(f->shm, 3, 1);
    assert_int_equal(count_at(f, 1, 60, LATER), 20);
    occupy(f, 3, 1, 1);
    set_word(f, &row(f, 1)->max_connections, 0);
    assert_int_equal(count_at(f, 1, 60, LATER), 20);
    assert_false(vb_lb_is_limited(f->workers[0], LATER));
}

static void when_all_are_full_nothing_is_counted(void **state)
{
    struct fixture *f = *state;
    open_three(f);
    for (unsigned i = 0; i < 3; i++) {
        set_word(f, &row(f, i)->max_connections, 1);
        pick_at(f, i, LATER);
    }
    uint64_t cursor = vb_shm_pool(f->shm, 0)->cursor;
    assert_int_equal(pick_at(f, 0, LATER), -EAGAIN);
    assert_int_equal(vb_shm_pool(f->shm, 0)->cursor, cursor);
    assert_true(vb_lb_has_other(f->workers[0], &(struct vb_tried){.n = 2, .backends = {0, 2}}, LATER));
    assert_int_equal(try_to_pick(f->workers[0], &(struct vb_tried){.n = 2, .backends = {0, 2}}, LATER), -EAGAIN);
    assert_int_equal(try_to_pick(f->workers[0], &(struct vb_tried){.n = 3, .backends = {0, 1, 2}}, LATER), -ENOENT);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(vb_shm_load(f->shm, i), 1);
}

/* As long as the master is between the two words of a change, or when it died there: a pick ends all the same. */
static void a_limit_is_seen_before_the_epoch_moves(void **state)
{
    struct fixture *f = *state;
    open_three(f);
    for (unsigned i = 0; i < 3; i++)
        pick(f, 0);
    alarm(20);
    for (unsigned i = 0; i < 3; i++)
        row(f, i)->max_connections = 2;
    for (unsigned i = 0; i < 3; i++)
        pick(f, 0);
    assert_int_equal(pick_at(f, 0, NOW), -EAGAIN);
    alarm(0);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(vb_shm_load(f->shm, i), 2);
}

enum { LIMITED = 3, PLACES = 10, ROUNDS = 300 };

static const unsigned limits[LIMITED] = {2, 3, 5};

struct taker {
    struct vb_lb *lb;
    vb_u32 *held; /* of each backend, by all; counted while it is surely in flight */
    unsigned failed, most;
};

/* Takes all that it can get, then gives all back; again and again. */
static void *take_all(void *arg)
{
    struct taker *taker = arg;
    for (unsigned round = 0; round < ROUNDS; round++) {
        int taken[PLACES + 1], got = 0;
        unsigned n = 0;
        enum vb_pick_reason reason;
        while (n <= PLACES) {
            struct vb_ask ask = {
                .tried = &none_tried, .key = round * UINT64_C(77777777777777777), .has_key = true, .stuck_to = -1};
            got = vb_lb_pick(taker->lb, &ask, LATER, &reason);
            if (got < 0)
                break;
            taker->failed += atomic_fetch_add(&taker->held[got], 1) >= limits[got];
            taken[n++] = got;
        }
        taker->failed += got != -EAGAIN;
        taker->most = VB_MAX(taker->most, n);
        for (unsigned i = 0; i < n; i++) {
            atomic_fetch_sub(&taker->held[taken[i]], 1);
            vb_lb_done(taker->lb, (unsigned)taken[i]);
        }
    }
    return NULL;
}

static void check_limits_hold(struct fixture *f, const char *balance)
{
    vb_u32 held[LIMITED] = {0};
    struct taker takers[WORKERS] = {{0}};
    pthread_t threads[WORKERS];
    open_old(f, &(struct vb_lb_rules){.balance = balance, .hash_bound = 125}, LIMITED);
    for (unsigned i = 0; i < LIMITED; i++)
        row(f, i)->max_connections = limits[i];
    for (unsigned i = 0; i < WORKERS; i++) {
        takers[i] = (struct taker){.lb = f->workers[i], .held = held};
        assert_int_equal(pthread_create(&threads[i], NULL, take_all, &takers[i]), 0);
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(takers[i].failed, 0);
    }
    take_all(&takers[0]); /* alone it gets every place: none was lost */
    assert_int_equal(takers[0].failed, 0);
    assert_int_equal(takers[0].most, PLACES);
    for (unsigned i = 0; i < LIMITED; i++)
        assert_int_equal(vb_shm_load(f->shm, i), 0);
}

static void limits_hold_however_many_workers_pick(void **state)
{
    static const char *const policies[] = {"round_robin", "least_conn", "hash"};
    for (unsigned i = 0; i < VB_ARRAY_SIZE(policies); i++) {
        setup(state);
        check_limits_hold(*state, policies[i]);
        assert_int_equal(teardown(state), 0);
    }
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_newcomer_gets_its_share_in_twenty_steps),
        TEST(steps_come_without_a_change_of_the_pool),
        TEST(all_that_are_new_are_alike),
        TEST(however_many_are_new_the_picture_is_made_at_each_step),
        TEST(without_slow_start_it_has_its_share_at_once),
        cmocka_unit_test(it_starts_slowly_whenever_it_comes_back),
        TEST(it_starts_slowly_after_an_ejection),
        TEST(backups_serve_when_no_other_is_usable),
        TEST(a_backup_serves_for_those_ejected),
        TEST(backups_are_better_than_panic),
        TEST(a_further_try_may_go_to_a_backup),
        TEST(a_cookie_is_followed_to_whoever_serves_yet),
        cmocka_unit_test(a_cookie_to_one_that_does_not_serve_is_as_none),
        TEST(a_cookie_is_not_followed_to_one_that_has_yet_to_be_ready),
        TEST(a_cookie_is_not_followed_into_another_pool),
        TEST(a_cookie_to_one_that_was_tried_is_as_none),
        cmocka_unit_test(whoever_is_stuck_to_a_full_one_waits_for_it),
        TEST(one_that_is_full_is_not_picked),
        TEST(when_all_are_full_nothing_is_counted),
        TEST(a_limit_is_seen_before_the_epoch_moves),
        cmocka_unit_test(limits_hold_however_many_workers_pick),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
