/* What all policies share: further tries, taking a backend away, panic, and when the picture is made anew. */
#include "fixture.h"

#include <pthread.h>
#include <sched.h>

static const char *const policies[] = {"round_robin", "least_conn"};

/* For each policy a segment of its own. */
static void for_each_policy(const unsigned *weights, unsigned n, void (*check)(struct fixture *f, unsigned n))
{
    for (unsigned i = 0; i < VB_ARRAY_SIZE(policies); i++) {
        void *state;
        setup(&state);
        open_pool(state, policies[i], weights, n);
        check(state, n);
        assert_int_equal(teardown(&state), 0);
    }
}

static bool was_tried(const struct vb_tried *tried, unsigned backend)
{
    for (unsigned i = 0; i < tried->n; i++)
        if (tried->backends[i] == backend)
            return true;
    return false;
}

static void add_tried(struct vb_tried *tried, unsigned backend)
{
    assert_true(tried->n < VB_TRIES_MAX);
    tried->backends[tried->n++] = (uint16_t)backend;
}

static const struct vb_shm_pool *pool_of(const struct fixture *f)
{
    return vb_shm_pool(f->shm, 0);
}

/* ---- further tries ----------------------------------------------------------------------------------------------- */

/* Each request tries until it has tried all, and meets each backend once. */
static void check_each_is_tried_once(struct fixture *f, unsigned n)
{
    for (unsigned round = 0; round < 500; round++) {
        unsigned worker = random_below(WORKERS);
        struct vb_tried tried = {0};
        while (tried.n < n) {
            unsigned backend = pick_untried(f, worker, &tried);
            assert_false(was_tried(&tried, backend));
            add_tried(&tried, backend);
            if (random_below(2) == 0)
                vb_lb_done(f->workers[worker], backend);
        }
        assert_int_equal(try_to_pick(f->workers[worker], &tried, NOW), -ENOENT);
    }
}

static void a_backend_is_tried_once(void **state)
{
    for_each_policy((unsigned[]){1, 1, 1}, 3, check_each_is_tried_once);
    for_each_policy((unsigned[]){9, 1, 4, 2}, 4, check_each_is_tried_once);
    for_each_policy((unsigned[]){1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, VB_TRIES_MAX, check_each_is_tried_once);
    for_each_policy((unsigned[]){3}, 1, check_each_is_tried_once);
}

static void check_nothing_is_counted_when_all_were_tried(struct fixture *f, unsigned n)
{
    struct vb_tried tried = {.n = 4, .backends = {1, 0, 1, 7}}; /* 7: one that is not there any more */
    pick(f, 0);
    uint64_t cursor = pool_of(f)->cursor, in_flight = vb_shm_sum_in_flight(f->shm, 0) + vb_shm_sum_in_flight(f->shm, 1);
    assert_int_equal(try_to_pick(f->workers[0], &tried, NOW), -ENOENT);
    assert_int_equal(pool_of(f)->cursor, cursor);
    assert_int_equal(pool_of(f)->retries, 0);
    assert_int_equal(vb_shm_sum_in_flight(f->shm, 0) + vb_shm_sum_in_flight(f->shm, 1), in_flight);
    unsigned added = add_backend(f, 0, 1);
    assert_int_equal(pick_untried(f, 0, &tried), added);
}

static void nothing_is_counted_when_all_were_tried(void **state)
{
    for_each_policy((unsigned[]){1, 1}, 2, check_nothing_is_counted_when_all_were_tried);
}

static void check_requests_are_picks_without_further_tries(struct fixture *f, unsigned n)
{
    struct vb_tried tried = {.n = 1, .backends = {1}};
    for (unsigned i = 0; i < 10; i++)
        pick(f, i % WORKERS);
    assert_int_equal(pool_of(f)->retries, 0);
    for (unsigned i = 0; i < 7; i++)
        pick_untried(f, i % WORKERS, &tried);
    assert_int_equal(pool_of(f)->cursor, 17);
    assert_int_equal(pool_of(f)->retries, 7);
}

static void requests_are_picks_without_further_tries(void **state)
{
    for_each_policy((unsigned[]){1, 1, 1}, 3, check_requests_are_picks_without_further_tries);
}

/* Where the tickets of those tried go: to all the others, exactly by their weights. */
static void turns_of_the_tried_are_shared_by_weight(void **state)
{
    static const struct {
        unsigned n, weights[4];
        struct vb_tried tried;
        unsigned picks, expected[4];
    } cases[] = {
        {4, {1, 1, 1, 1}, {1, {0}}, 1200, {0, 400, 400, 400}},  {4, {1, 1, 1, 1}, {1, {2}}, 1200, {400, 400, 0, 400}},
        {4, {1, 1, 1, 1}, {2, {3, 1}}, 1200, {600, 0, 600, 0}}, {4, {100, 100, 100, 100}, {1, {0}}, 12, {0, 4, 4, 4}},
        {3, {2, 1, 1}, {1, {0}}, 800, {0, 400, 400, 0}},        {3, {5, 3, 2}, {1, {0}}, 500, {0, 300, 200, 0}},
        {3, {5, 3, 2}, {1, {2}}, 800, {500, 300, 0, 0}},        {4, {3, 1, 2, 2}, {2, {0, 2}}, 240, {0, 80, 0, 160}},
    };
    for (unsigned i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        unsigned counts[4] = {0};
        setup(state);
        open_pool(*state, "round_robin", cases[i].weights, cases[i].n);
        for (unsigned k = 0; k < cases[i].picks; k++)
            counts[pick_untried(*state, random_below(WORKERS), &cases[i].tried)]++;
        for (unsigned b = 0; b < 4; b++)
            assert_int_equal(counts[b], cases[i].expected[b]);
        assert_int_equal(teardown(state), 0);
    }
}

enum { DEAD = 1, SERVED = 6000, FAILING = 20 };

static void serve(struct fixture *f, unsigned worker, const struct vb_tried *tried, unsigned *counts)
{
    unsigned backend = pick_untried(f, worker, tried);
    counts[backend]++;
    vb_lb_done(f->workers[worker], backend);
}

/* A backend is dead: its requests go on elsewhere, after some other picks. `lag` is how many wait at a time. */
static void spread_with_one_dead(struct fixture *f, unsigned n, unsigned lag, unsigned *counts)
{
    static const struct vb_tried tried = {.n = 1, .backends = {DEAD}};
    unsigned due[FAILING] = {0};
    for (unsigned i = 0; i < SERVED; i++) {
        unsigned worker = random_below(WORKERS);
        unsigned *retry = lag == 0 ? NULL : &due[random_below(lag)];
        if (retry != NULL && *retry > 0) {
            serve(f, *retry - 1, &tried, counts);
            *retry = 0;
        }
        unsigned backend = pick(f, worker);
        vb_lb_done(f->workers[worker], backend);
        if (backend != DEAD)
            counts[backend]++;
        else if (retry != NULL)
            *retry = 1 + worker;
        else
            serve(f, worker, &tried, counts);
    }
}

static void check_even_spread(struct fixture *f, unsigned n)
{
    static const unsigned lags[] = {0, 1, 3, FAILING};
    for (unsigned i = 0; i < VB_ARRAY_SIZE(lags); i++) {
        unsigned counts[16] = {0}, least = UINT_MAX, most = 0;
        spread_with_one_dead(f, n, lags[i], counts);
        for (unsigned b = 0; b < n; b++) {
            if (b == DEAD)
                continue;
            least = VB_MIN(least, counts[b]);
            most = VB_MAX(most, counts[b]);
        }
        if (most - least > most / 20)
            fail_msg("%u backends, lag %u: %u to %u", n, lags[i], least, most);
    }
}

static void what_a_dead_one_misses_is_spread_evenly(void **state)
{
    for_each_policy((unsigned[]){1, 1, 1}, 3, check_even_spread);
    for_each_policy((unsigned[]){1, 1, 1, 1}, 4, check_even_spread);
    for_each_policy((unsigned[]){1, 1, 1, 1, 1, 1, 1}, 7, check_even_spread);
}

/* The dead one has the fewest in flight, so each request comes to it first, and each further try has the next ticket.
 */
static void an_idle_dead_one_sends_on_to_all_others(void **state)
{
    struct fixture *f = *state;
    unsigned counts[3] = {0};
    open_pool(f, "least_conn", (unsigned[]){1, 1, 1}, 3);
    occupy(f, 3, 0, 5);
    occupy(f, 3, 2, 5);
    spread_with_one_dead(f, 3, 0, counts);
    assert_in_range(counts[0], SERVED * 45 / 100, SERVED * 55 / 100);
    assert_int_equal(counts[0] + counts[2], SERVED);
}

/* ---- taking away ------------------------------------------------------------------------------------------------- */

enum { MANY = 256, PICKERS = 2, ROUNDS = 60 };

struct race {
    struct vb_lb *lb;
    const _Atomic bool *stop, *gone;
    vb_u64 picks, picks_of_0;
    _Atomic bool wrong;
};

static void *pick_and_leave(void *arg)
{
    struct race *race = arg;
    while (!*race->stop) {
        int backend = try_to_pick(race->lb, &none_tried, NOW);
        if (backend == 0) {
            race->wrong |= *race->gone;
            race->picks_of_0++;
        }
        if (backend >= 0)
            vb_lb_done(race->lb, (unsigned)backend);
        race->picks++;
    }
    return NULL;
}

/* Until each picker has begun another pick and ended it. */
static void wait_for_picks(const struct race *races, bool of_0)
{
    for (unsigned i = 0; i < PICKERS; i++) {
        const vb_u64 *word = of_0 ? &races[i].picks_of_0 : &races[i].picks;
        for (uint64_t before = *word; *word < before + 2;)
            sched_yield();
    }
}

static void drain(struct fixture *f, bool away)
{
    vb_shm_set_admin(f->shm, 0, away ? VB_ADMIN_DRAIN : VB_ADMIN_READY);
}

/* The slot, which is the only free one, goes to a backend of another pool and comes back. */
static void reuse(struct fixture *f, bool away)
{
    struct vb_backend_spec spec = {away ? "theirs" : "ours", "127.0.0.1:1", 1, false, VB_HEALTH_UP,
                                   VB_ADMIN_READY,           false,         0, false};
    int slot;
    vb_shm_remove_backend(f->shm, 0);
    while ((slot = vb_shm_add_backend(f->shm, away, &spec)) == -ENOSPC) /* while one is in flight, or taken back */
        sched_yield();
    assert_int_equal(slot, 0);
}

/*
 * Pickers who like slot 0 best, and a master who takes it away again and again. With so many backends a pick lasts so
 * long that most changes come in the middle of one.
 */
static void race_with(struct fixture *f, void (*change)(struct fixture *f, bool away))
{
    _Atomic bool stop = false, gone = false;
    struct race races[PICKERS] = {{0}};
    pthread_t threads[PICKERS];
    assert_int_equal(vb_shm_add_pool(f->shm, &(struct vb_pool_spec){"web", "least_conn", 0, 50}), 0);
    assert_int_equal(vb_shm_add_pool(f->shm, &(struct vb_pool_spec){"other", "least_conn", 0, 50}), 1);
    for (unsigned i = 0; i < MANY; i++) {
        char name[8];
        snprintf(name, sizeof(name), "b%u", i);
        struct vb_backend_spec spec = {name, "127.0.0.1:1", 1, false, VB_HEALTH_UP, VB_ADMIN_READY, false, 0, false};
        assert_int_equal(vb_shm_add_backend(f->shm, 0, &spec), i);
        occupy(f, PICKERS, i, i > 0);
    }
    for (unsigned i = 0; i < PICKERS; i++) {
        assert_int_equal(
            vb_lb_open(&f->workers[i], f->shm, 0, i, &(struct vb_lb_rules){.balance = "least_conn"}, &f->rand), 0);
        races[i].lb = f->workers[i];
        races[i].stop = &stop;
        races[i].gone = &gone;
        assert_int_equal(pthread_create(&threads[i], NULL, pick_and_leave, &races[i]), 0);
    }
    for (unsigned round = 0; round < ROUNDS; round++) {
        wait_for_picks(races, true);
        change(f, true);
        while (vb_shm_sum_in_flight(f->shm, 0) > 0)
            sched_yield();
        gone = true; /* none is in flight, so none will come */
        wait_for_picks(races, false);
        gone = false;
        change(f, false);
    }
    stop = true;
    for (unsigned i = 0; i < PICKERS; i++) {
        pthread_join(threads[i], NULL);
        assert_false(races[i].wrong);
    }
}

static void none_comes_once_none_is_in_flight_of_a_drained_one(void **state)
{
    race_with(*state, drain);
}

static void none_comes_to_the_next_backend_of_a_slot(void **state)
{
    race_with(*state, reuse);
}

static int setup_many(void **state)
{
    return setup_sized(state, MANY);
}

/* ---- panic ------------------------------------------------------------------------------------------------------- */

/* Of n backends, how many must be usable so that only those are picked. */
static unsigned usable_without_panic(struct fixture *f, unsigned n)
{
    for (unsigned usable = 0; usable <= n; usable++) {
        unsigned counts[16] = {0}, served = 0;
        for (unsigned b = 0; b < n; b++)
            set_health(f, b, b < usable ? VB_HEALTH_UP : VB_HEALTH_DOWN);
        for (unsigned k = 0; k < 4 * n; k++) {
            int backend = pick_at(f, k % WORKERS, NOW);
            if (backend >= 0)
                counts[backend]++;
        }
        for (unsigned b = 0; b < n; b++)
            served += counts[b] > 0;
        for (unsigned w = 0; w < WORKERS; w++)
            assert_int_equal(vb_lb_in_panic(f->workers[w]), usable < n && served == n);
        if (served == usable)
            return usable;
        assert_int_equal(served, n); /* all, not some */
    }
    fail_msg("panic with all usable");
    return 0;
}

static void panic_begins_below_its_share(void **state)
{
    static const struct {
        unsigned n, panic, usable;
    } cases[] = {{4, 50, 2}, {3, 50, 2}, {3, 34, 2},  {3, 33, 1},  {10, 1, 1}, {10, 10, 1}, {10, 11, 2},
                 {2, 50, 1}, {1, 1, 1},  {1, 100, 1}, {5, 100, 5}, {4, 0, 0},  {10, 99, 10}};
    for (unsigned i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        unsigned weights[16];
        for (unsigned k = 0; k < 16; k++)
            weights[k] = 1;
        setup(state);
        struct fixture *f = *state;
        open_pool(f, "round_robin", weights, cases[i].n);
        set_word(f, &vb_shm_pool(f->shm, 0)->panic, cases[i].panic);
        assert_int_equal(usable_without_panic(f, cases[i].n), cases[i].usable);
        assert_int_equal(teardown(state), 0);
    }
}

/* Whom the operator has taken out gets nothing in panic either, and does not count as a member. */
static void panic_spares_the_drained(void **state)
{
    struct fixture *f = *state;
    open_pool(f, "round_robin", (unsigned[]){1, 1, 1, 1}, 4);
    set_word(f, &vb_shm_pool(f->shm, 0)->panic, 50);
    vb_shm_set_admin(f->shm, 2, VB_ADMIN_DRAIN);
    vb_shm_set_admin(f->shm, 3, VB_ADMIN_MAINT);
    set_health(f, 0, VB_HEALTH_DOWN); /* one of two */
    assert_int_equal(pick(f, 0), 1);
    assert_int_equal(pick(f, 0), 1);
    assert_false(vb_lb_in_panic(f->workers[0]));
    set_health(f, 1, VB_HEALTH_DOWN);
    assert_int_not_equal(pick(f, 0), pick(f, 0));
    assert_true(vb_lb_in_panic(f->workers[0]));
    for (unsigned i = 0; i < 8; i++)
        assert_true(pick(f, i % WORKERS) < 2);
    vb_shm_set_admin(f->shm, 0, VB_ADMIN_MAINT);
    vb_shm_set_admin(f->shm, 1, VB_ADMIN_MAINT);
    assert_int_equal(pick_at(f, 0, NOW), -ENOENT);
    assert_false(vb_lb_in_panic(f->workers[0]));
}

/* ---- looking ----------------------------------------------------------------------------------------------------- */

static void looking_says_once_that_something_changed(void **state)
{
    struct fixture *f = *state;
    open_pool(f, "round_robin", (unsigned[]){1, 1}, 2);
    assert_true(vb_lb_look(f->workers[0], NOW));
    assert_false(vb_lb_look(f->workers[0], NOW));
    pick(f, 0);
    assert_false(vb_lb_look(f->workers[0], NOW));
    vb_shm_set_weight(f->shm, 1, 3);
    assert_true(vb_lb_look(f->workers[0], NOW));
    assert_false(vb_lb_look(f->workers[0], NOW));
    set_health(f, 0, VB_HEALTH_DOWN);
    pick(f, 0); /* which has seen it first */
    assert_true(vb_lb_look(f->workers[0], NOW));
    assert_false(vb_lb_look(f->workers[0], NOW));
    assert_true(vb_lb_look(f->workers[1], NOW)); /* each worker for itself */
}

static void looking_sees_panic_without_a_pick(void **state)
{
    struct fixture *f = *state;
    open_pool(f, "round_robin", (unsigned[]){1, 1}, 2);
    set_word(f, &vb_shm_pool(f->shm, 0)->panic, 100);
    set_health(f, 0, VB_HEALTH_DOWN);
    vb_lb_look(f->workers[0], NOW);
    assert_true(vb_lb_in_panic(f->workers[0]));
    set_health(f, 0, VB_HEALTH_UP);
    vb_lb_look(f->workers[0], NOW);
    assert_false(vb_lb_in_panic(f->workers[0]));
    assert_int_equal(pool_of(f)->cursor, 0);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_backend_is_tried_once),
        cmocka_unit_test(nothing_is_counted_when_all_were_tried),
        cmocka_unit_test(requests_are_picks_without_further_tries),
        cmocka_unit_test(turns_of_the_tried_are_shared_by_weight),
        cmocka_unit_test(what_a_dead_one_misses_is_spread_evenly),
        TEST(an_idle_dead_one_sends_on_to_all_others),
        cmocka_unit_test_setup_teardown(none_comes_once_none_is_in_flight_of_a_drained_one, setup_many, teardown),
        cmocka_unit_test_setup_teardown(none_comes_to_the_next_backend_of_a_slot, setup_many, teardown),
        cmocka_unit_test(panic_begins_below_its_share),
        TEST(panic_spares_the_drained),
        TEST(looking_says_once_that_something_changed),
        TEST(looking_sees_panic_without_a_pick),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
