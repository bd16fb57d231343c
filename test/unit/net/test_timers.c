/* Timers: each fires once, not before its time, in the order of its list, whatever happens inside of others. */
#include "fixture.h"

#include "vb/rand.h"

#define FIRED_MAX 16

struct test_timer {
    struct vb_timer timer;
    char name;
    uint64_t started_ms;
    void (*also)(struct test_timer *self); /* what it does when it fires */
    struct vb_timer_list *list;
};

static char fired[FIRED_MAX]; /* names, in order */

static void on_fire(struct vb_timer *timer)
{
    struct test_timer *self = vb_container_of(timer, struct test_timer, timer);
    size_t n = strlen(fired);
    assert_true(n + 1 < FIRED_MAX);
    fired[n] = self->name;
    assert_null(timer->list); /* it does not run any more */
    assert_true(vb_loop_now_ms(self->list->loop) >= self->started_ms + self->list->duration_ms);
    if (self->also != NULL)
        self->also(self);
}

static void start(struct test_timer *timer, struct vb_timer_list *list)
{
    timer->list = list;
    timer->started_ms = vb_loop_now_ms(list->loop);
    vb_timer_start(&timer->timer, list, on_fire);
}

static int setup_timers(void **state)
{
    memset(fired, 0, sizeof(fired));
    return setup(state);
}

static void run_until_fired(struct fixture *f, const char *wanted)
{
    RUN_UNTIL(f, strlen(fired) >= strlen(wanted));
    assert_string_equal(fired, wanted);
}

/* Long enough for all durations here. */
static void run_until_quiet(struct fixture *f)
{
    run_for_ms(f, 60);
}

static void they_fire_once_in_the_order_of_their_starts(void **state)
{
    struct fixture *f = *state;
    struct vb_timer_list list;
    struct test_timer a = {.name = 'a'}, b = {.name = 'b'}, c = {.name = 'c'};
    vb_timer_list_open(&list, f->loop, 10);
    start(&c, &list);
    start(&a, &list);
    start(&b, &list);
    run_until_fired(f, "cab");
    run_until_quiet(f);
    assert_string_equal(fired, "cab");
    vb_timer_list_close(&list);
}

/* The longest was opened first and started first: neither decides. */
static void shorter_ones_fire_before_longer_ones(void **state)
{
    struct fixture *f = *state;
    static const uint64_t durations[] = {45, 25, 5};
    struct vb_timer_list lists[3];
    struct test_timer timers[3] = {{.name = 'c'}, {.name = 'b'}, {.name = 'a'}};
    for (int i = 0; i < 3; i++) {
        vb_timer_list_open(&lists[i], f->loop, durations[i]);
        start(&timers[i], &lists[i]);
    }
    run_until_fired(f, "abc");
    for (int i = 0; i < 3; i++)
        vb_timer_list_close(&lists[i]);
}

static void a_restarted_one_stands_last(void **state)
{
    struct fixture *f = *state;
    struct vb_timer_list list;
    struct test_timer a = {.name = 'a'}, b = {.name = 'b'}, c = {.name = 'c'};
    vb_timer_list_open(&list, f->loop, 5);
    start(&a, &list);
    start(&b, &list);
    start(&c, &list);
    start(&a, &list);
    run_until_fired(f, "bca");
    run_until_quiet(f);
    assert_string_equal(fired, "bca");
    vb_timer_list_close(&list);
}

static void a_restart_may_be_in_another_list(void **state)
{
    struct fixture *f = *state;
    struct vb_timer_list hour, moment;
    struct test_timer a = {.name = 'a'};
    vb_timer_list_open(&hour, f->loop, 3600 * 1000);
    vb_timer_list_open(&moment, f->loop, 5);
    start(&a, &moment);
    start(&a, &hour);
    run_until_quiet(f);
    assert_string_equal(fired, "");
    start(&a, &moment);
    run_until_fired(f, "a");
    vb_timer_list_close(&hour); /* which must be empty */
    vb_timer_list_close(&moment);
}

static void stopped_ones_do_not_fire(void **state)
{
    struct fixture *f = *state;
    struct vb_timer_list list;
    struct test_timer a = {.name = 'a'}, b = {.name = 'b'}, never = {.name = 'n'};
    vb_timer_list_open(&list, f->loop, 5);
    start(&a, &list);
    start(&b, &list);
    vb_timer_stop(&a.timer);
    vb_timer_stop(&a.timer);
    vb_timer_stop(&never.timer);
    run_until_fired(f, "b");
    run_until_quiet(f);
    assert_string_equal(fired, "b");
    vb_timer_stop(&b.timer);
    vb_timer_list_close(&list);
}

/* The clock of the loop was set for one that is stopped: it wakes for nothing, and then for the next. */
static void those_behind_a_stopped_one_fire(void **state)
{
    struct fixture *f = *state;
    struct vb_timer_list longer, shorter;
    struct test_timer a = {.name = 'a'}, b = {.name = 'b'};
    vb_timer_list_open(&longer, f->loop, 20);
    vb_timer_list_open(&shorter, f->loop, 5);
    start(&a, &shorter);
    start(&b, &longer);
    vb_timer_stop(&a.timer);
    run_until_fired(f, "b");
    start(&a, &shorter);
    run_until_fired(f, "ba");
    vb_timer_list_close(&longer);
    vb_timer_list_close(&shorter);
}

static void a_longer_one_does_not_delay_those_that_wait(void **state)
{
    struct fixture *f = *state;
    struct vb_timer_list hour, longer, shorter;
    struct test_timer a = {.name = 'a'}, b = {.name = 'b'}, c = {.name = 'c'};
    vb_timer_list_open(&hour, f->loop, 3600 * 1000);
    vb_timer_list_open(&longer, f->loop, 20);
    vb_timer_list_open(&shorter, f->loop, 5);
    start(&b, &longer);
    start(&a, &shorter);
    RUN_UNTIL(f, fired[0] == 'a');
    start(&c, &hour);
    run_until_fired(f, "ab");
    vb_timer_stop(&c.timer);
    vb_timer_list_close(&hour);
    vb_timer_list_close(&longer);
    vb_timer_list_close(&shorter);
}

static void a_duration_of_zero_never_fires(void **state)
{
    struct fixture *f = *state;
    struct vb_timer_list off, on;
    struct test_timer a = {.name = 'a'}, b = {.name = 'b'};
    vb_timer_list_open(&off, f->loop, 0);
    vb_timer_list_open(&on, f->loop, 5);
    start(&a, &off);
    start(&b, &on);
    start(&b, &off); /* a time-out that is turned off is also not the one before */
    run_until_quiet(f);
    assert_string_equal(fired, "");
    vb_timer_list_close(&off);
    vb_timer_list_close(&on);
}

/* ---- inside of callbacks ----------------------------------------------------------------------------------------- */

static struct test_timer *victim;

static void restart_three_times(struct test_timer *self)
{
    if (strlen(fired) < 3)
        start(self, self->list);
}

static void stop_victim(struct test_timer *self)
{
    vb_timer_stop(&victim->timer);
}

static void restart_victim(struct test_timer *self)
{
    start(victim, self->list);
}

static void one_may_restart_itself(void **state)
{
    struct fixture *f = *state;
    struct vb_timer_list list;
    struct test_timer a = {.name = 'a', .also = restart_three_times};
    vb_timer_list_open(&list, f->loop, 5);
    start(&a, &list);
    run_until_fired(f, "aaa");
    run_until_quiet(f);
    assert_string_equal(fired, "aaa");
    vb_timer_list_close(&list);
}

static void one_may_stop_another_that_is_due(void **state)
{
    struct fixture *f = *state;
    struct vb_timer_list list;
    struct test_timer a = {.name = 'a', .also = stop_victim}, b = {.name = 'b'}, c = {.name = 'c'};
    vb_timer_list_open(&list, f->loop, 5);
    victim = &b;
    start(&a, &list);
    start(&b, &list);
    start(&c, &list);
    run_until_fired(f, "ac");
    run_until_quiet(f);
    assert_string_equal(fired, "ac");
    vb_timer_list_close(&list);
}

/* Then it fires a whole duration later, which on_fire checks. */
static void one_may_restart_another_that_is_due(void **state)
{
    struct fixture *f = *state;
    struct vb_timer_list list;
    struct test_timer a = {.name = 'a', .also = restart_victim}, b = {.name = 'b'}, c = {.name = 'c'};
    vb_timer_list_open(&list, f->loop, 5);
    victim = &b;
    start(&a, &list);
    start(&b, &list);
    start(&c, &list);
    run_until_fired(f, "acb");
    vb_timer_list_close(&list);
}

static struct vb_timer_list *other_list;

static void start_victim_elsewhere(struct test_timer *self)
{
    start(victim, other_list);
}

/* Whether the other list is looked at before or after this one. */
static void one_may_start_another_in_another_list(void **state)
{
    struct fixture *f = *state;
    struct vb_timer_list lists[2];
    vb_timer_list_open(&lists[0], f->loop, 5);
    vb_timer_list_open(&lists[1], f->loop, 10);
    for (int i = 0; i < 2; i++) {
        struct test_timer a = {.name = 'a', .also = start_victim_elsewhere}, b = {.name = 'b'};
        memset(fired, 0, sizeof(fired));
        victim = &b;
        other_list = &lists[1 - i];
        start(&a, &lists[i]);
        run_until_fired(f, "ab");
    }
    vb_timer_list_close(&lists[0]);
    vb_timer_list_close(&lists[1]);
}

/* ---- all together ------------------------------------------------------------------------------------------------ */

enum { MANY = 100, LISTS = 3 };

static struct expected {
    struct vb_timer timer;
    bool running;
    uint64_t deadline_ms;
    struct vb_loop *loop;
} many[MANY];
static unsigned n_fired;

static void on_expected(struct vb_timer *timer)
{
    struct expected *one = vb_container_of(timer, struct expected, timer);
    assert_true(one->running);
    assert_true(vb_loop_now_ms(one->loop) >= one->deadline_ms);
    one->running = false;
    n_fired++;
}

static void touch_one(struct fixture *f, struct vb_timer_list *lists, struct vb_rand *rand)
{
    struct expected *one = &many[vb_rand_below(rand, MANY)];
    one->running = vb_rand_below(rand, 4) != 0;
    if (!one->running) {
        vb_timer_stop(&one->timer);
        return;
    }
    struct vb_timer_list *list = &lists[vb_rand_below(rand, LISTS)];
    one->loop = f->loop;
    one->deadline_ms = vb_loop_now_ms(f->loop) + list->duration_ms;
    vb_timer_start(&one->timer, list, on_expected);
}

static unsigned count_running(void)
{
    unsigned n = 0;
    for (unsigned i = 0; i < MANY; i++)
        n += many[i].running;
    return n;
}

/* Started, restarted and stopped at random: exactly those fire that should, and none is forgotten. */
static void many_timers(void **state)
{
    struct fixture *f = *state;
    struct vb_timer_list lists[LISTS];
    struct vb_rand rand = {{1, 2, 3, 4}};
    for (unsigned i = 0; i < LISTS; i++)
        vb_timer_list_open(&lists[i], f->loop, 1 + 3 * i);
    for (unsigned i = 0; i < 100; i++) {
        for (unsigned k = 0; k < 20; k++)
            touch_one(f, lists, &rand);
        turn(f);
    }
    RUN_UNTIL(f, count_running() == 0);
    assert_true(n_fired > 100);
    for (unsigned i = 0; i < LISTS; i++)
        vb_timer_list_close(&lists[i]);
}

/* ---- the loop ---------------------------------------------------------------------------------------------------- */

static void waiting_for_timers_alone_keeps_no_loop_alive(void **state)
{
    struct vb_loop *loop;
    struct vb_timer_list list;
    struct test_timer a = {.name = 'a'};
    assert_int_equal(vb_loop_open(&loop), 0);
    vb_timer_list_open(&list, loop, 3600 * 1000);
    start(&a, &list);
    vb_loop_run(loop); /* returns at once */
    vb_timer_stop(&a.timer);
    vb_timer_list_close(&list);
    vb_loop_close(&loop);
    vb_loop_close(&loop); /* of NULL */
}

static void stop_loop(struct test_timer *self)
{
    vb_loop_stop(self->list->loop);
}

static void a_loop_runs_until_it_is_stopped(void **state)
{
    struct fixture *f = *state;
    struct vb_timer_list list;
    struct test_timer a = {.name = 'a', .also = stop_loop};
    vb_timer_list_open(&list, f->loop, 5);
    start(&a, &list);
    vb_loop_run(f->loop);
    assert_string_equal(fired, "a");
    vb_timer_list_close(&list);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup_timers, teardown)

static void be_busy(struct test_timer *self)
{
    uint64_t end = uv_hrtime() + 900 * 1000000ull;
    while (uv_hrtime() < end)
        ;
}

/* How long to wait is reckoned from the end of what has kept the loop from looking. */
static void a_turn_that_takes_long_delays_no_timer(void **state)
{
    struct vb_loop *loop;
    struct vb_timer_list now, later;
    struct test_timer busy = {.name = 'b', .also = be_busy}, last = {.name = 'l', .also = stop_loop};
    uv_timer_t keep; /* the loop, and does not wake it; the fixture's would */
    assert_int_equal(vb_loop_open(&loop), 0);
    uv_timer_init(vb_loop_uv(loop), &keep);
    uv_timer_start(&keep, on_tick, PATIENCE_MS, 0);
    vb_timer_list_open(&now, loop, 1);
    vb_timer_list_open(&later, loop, 1000);
    uint64_t begun = uv_hrtime();
    start(&busy, &now);
    start(&last, &later);
    vb_loop_run(loop);
    assert_string_equal(fired, "bl");
    assert_true(uv_hrtime() - begun < 1700 * 1000000ull); /* not 1900 */
    vb_timer_list_close(&now);
    vb_timer_list_close(&later);
    uv_close((uv_handle_t *)&keep, NULL);
    vb_loop_close(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(they_fire_once_in_the_order_of_their_starts),
        TEST(shorter_ones_fire_before_longer_ones),
        TEST(a_restarted_one_stands_last),
        TEST(a_restart_may_be_in_another_list),
        TEST(stopped_ones_do_not_fire),
        TEST(those_behind_a_stopped_one_fire),
        TEST(a_longer_one_does_not_delay_those_that_wait),
        TEST(a_duration_of_zero_never_fires),
        TEST(one_may_restart_itself),
        TEST(one_may_stop_another_that_is_due),
        TEST(one_may_restart_another_that_is_due),
        TEST(one_may_start_another_in_another_list),
        TEST(many_timers),
        cmocka_unit_test(waiting_for_timers_alone_keeps_no_loop_alive),
        TEST(a_loop_runs_until_it_is_stopped),
        TEST(a_turn_that_takes_long_delays_no_timer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
