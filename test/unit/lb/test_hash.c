/* hash: who gets a key, what moves when backends come and go, and bounded load. */
#include "fixture.h"

#include "policy.h"
#include "policy_hash.h"
#include "vb/siphash.h"

enum { KEYS = 20000, MOST = 1001, BOUND = 125 };

static int setup_large(void **state)
{
    return setup_sized(state, MOST + 1);
}

/* As the proxy makes them, of something that counts. */
static uint64_t key_of(unsigned number)
{
    return vb_siphash((uint64_t[]){7, number}, "", 0);
}

static unsigned add_numbered(struct fixture *f, unsigned number, unsigned weight)
{
    char name[16];
    snprintf(name, sizeof(name), "app-%u", number);
    int slot = vb_shm_add_backend(f->shm, 0,
                                  &(struct vb_backend_spec){name, "127.0.0.1:1", weight, true, VB_HEALTH_UNKNOWN,
                                                            VB_ADMIN_READY, false, 0, false});
    assert_true(slot >= 0);
    return (unsigned)slot;
}

static void open_empty(struct fixture *f, unsigned bound, uint64_t slow_start_us)
{
    assert_int_equal(vb_shm_add_pool(f->shm, &(struct vb_pool_spec){"web", "hash", 0, 50}), 0);
    for (unsigned i = 0; i < WORKERS; i++)
        open_worker(f, i, &(struct vb_lb_rules){"hash", bound, slow_start_us});
}

/* Backends in slots 0, 1, ...; `period` weights again and again. */
static void open_hash(struct fixture *f, unsigned bound, unsigned n, const unsigned *weights, unsigned period)
{
    open_empty(f, bound, 0);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(add_numbered(f, i, weights[i % period]), i);
}

static const unsigned one[] = {1};

static unsigned pick_key(struct fixture *f, unsigned worker, uint64_t key, const struct vb_tried *tried,
                         enum vb_pick_reason *ret_reason)
{
    struct vb_ask ask = {.tried = tried, .key = key, .has_key = true, .stuck_to = -1};
    int backend = vb_lb_pick(f->workers[worker], &ask, NOW, ret_reason);
    if (backend < 0)
        fail_msg("worker %u: %d", worker, backend);
    return (unsigned)backend;
}

/* Whose a key is while it may go there; nothing stays in flight. */
static unsigned owner_but(struct fixture *f, unsigned worker, unsigned number, const struct vb_tried *tried)
{
    enum vb_pick_reason reason;
    unsigned backend = pick_key(f, worker, key_of(number), tried, &reason);
    vb_lb_done(f->workers[worker], backend);
    return backend;
}

static unsigned owner(struct fixture *f, unsigned number)
{
    return owner_but(f, 0, number, &none_tried); /* all agree, and each has to prepare */
}

static uint16_t *all_owners(struct fixture *f)
{
    uint16_t *owners = malloc(KEYS * sizeof(*owners));
    assert_non_null(owners);
    for (unsigned i = 0; i < KEYS; i++)
        owners[i] = (uint16_t)owner(f, i);
    return owners;
}

static unsigned weight_of(const struct fixture *f, unsigned backend)
{
    return vb_shm_backend(f->shm, backend)->weight;
}

/* ---- agreement --------------------------------------------------------------------------------------------------- */

static void workers_and_instances_agree(void **state)
{
    enum { N = 30 };
    struct fixture *f = *state, *other;
    static const unsigned weights[] = {1, 10, 3};
    open_hash(f, BOUND, N, weights, 3);
    setup_large((void **)&other);
    open_empty(other, BOUND, 0);
    for (unsigned i = 0; i < N; i++) { /* 7 has no divisor in common with N: each of them, in another order */
        unsigned number = (i * 7 + 3) % N;
        add_numbered(other, number, weights[number % 3]);
    }
    for (unsigned i = 0; i < KEYS; i++) {
        unsigned here = owner(f, i), there = owner_but(other, i % WORKERS, i, &none_tried);
        assert_int_equal(owner_but(f, 1 + i % 3, i, &none_tried), here);
        assert_string_equal(vb_shm_backend(f->shm, here)->name, vb_shm_backend(other->shm, there)->name);
    }
    teardown((void **)&other);
}

/* ---- shares ------------------------------------------------------------------------------------------------------ */

#define VARIANCE 0.00104 /* of a share, as a part of it: 1 / (POINTS * (2 * PROBES - 1)) */

/*
 * How far shares are off, as a part of what they should be: their mean square, less what is chance of the keys, is
 * within a deviation of 4 %, and nobody is further off than 4.5 deviations.
 */
static void expect_even(struct fixture *f, unsigned n, unsigned n_keys)
{
    static unsigned counts[MOST];
    double weights = 0, squares = 0;
    memset(counts, 0, sizeof(counts));
    for (unsigned i = 0; i < n; i++)
        weights += weight_of(f, i);
    for (unsigned i = 0; i < n_keys; i++)
        counts[owner(f, i)]++;
    for (unsigned i = 0; i < n; i++) {
        double expected = n_keys * weight_of(f, i) / weights, off = counts[i] / expected - 1;
        squares += (off * off - 1 / expected) / n;
        if (off * off > 4.5 * 4.5 * (VARIANCE + 1 / expected))
            fail_msg("%u backends: %u instead of %.0f", n, counts[i], expected);
    }
    if (squares > 0.04 * 0.04)
        fail_msg("%u backends: mean square %.5f", n, squares);
}

static void shares_are_as_the_weights(void **state)
{
    static const struct {
        unsigned n, period, weights[5];
    } cases[] = {{3, 1, {1}},       {10, 1, {1}},
                 {100, 1, {1}},     {1000, 1, {1}},
                 {3, 3, {5, 3, 2}}, {10, 5, {1, 2, 3, 4, 5}},
                 {100, 2, {10, 1}}, {1000, 3, {100, 50, 25}}};
    for (unsigned i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        setup_large(state);
        open_hash(*state, 0, cases[i].n, cases[i].weights, cases[i].period);
        expect_even(*state, cases[i].n, cases[i].n > 10 ? 3 * KEYS : KEYS);
        assert_int_equal(teardown(state), 0);
    }
}

/* ---- what moves -------------------------------------------------------------------------------------------------- */

/* Of those that moved: all from `from`, or all to `to`. How many. */
static unsigned count_moved(struct fixture *f, const uint16_t *before, int from, int to)
{
    unsigned moved = 0;
    for (unsigned i = 0; i < KEYS; i++) {
        unsigned now = owner(f, i);
        if (now == before[i])
            continue;
        moved++;
        if ((from >= 0 && before[i] != from) || (to >= 0 && (int)now != to))
            fail_msg("key %u moved from %u to %u", i, before[i], now);
    }
    return moved;
}

static unsigned count_of(const uint16_t *owners, unsigned backend)
{
    unsigned count = 0;
    for (unsigned i = 0; i < KEYS; i++)
        count += owners[i] == backend;
    return count;
}

static void for_some_sizes(void **state, void (*check)(struct fixture *f, unsigned n))
{
    static const unsigned sizes[] = {3, 10, 100, 1000};
    for (unsigned i = 0; i < VB_ARRAY_SIZE(sizes); i++) {
        setup_large(state);
        open_hash(*state, BOUND, sizes[i], (unsigned[]){10, 20, 10, 10}, 4);
        check(*state, sizes[i]);
        assert_int_equal(teardown(state), 0);
    }
}

static void check_removal(struct fixture *f, unsigned n)
{
    uint16_t *before = all_owners(f);
    unsigned gone = n / 2;
    vb_shm_remove_backend(f->shm, gone);
    assert_int_equal(count_moved(f, before, (int)gone, -1), count_of(before, gone));
    assert_true(count_of(before, gone) > 0);
    free(before);
}

static void without_one_only_its_keys_move(void **state)
{
    for_some_sizes(state, check_removal);
}

static void check_addition(struct fixture *f, unsigned n)
{
    uint16_t *before = all_owners(f);
    unsigned weights = 10, share;
    for (unsigned i = 0; i < n; i++)
        weights += weight_of(f, i);
    share = KEYS * 10 / weights;
    unsigned moved = count_moved(f, before, -1, (int)add_numbered(f, n, 10));
    double off = (double)moved - share; /* a tenth more or less, and four standard deviations for chance */
    if (off * off > share * share / 100.0 + 16.0 * share)
        fail_msg("%u: %u moved, not about %u", n, moved, share);
    free(before);
}

static void one_that_comes_takes_its_share_from_all(void **state)
{
    for_some_sizes(state, check_addition);
}

static void check_flap(struct fixture *f, unsigned n)
{
    uint16_t *before = all_owners(f);
    set_health(f, 1, VB_HEALTH_DOWN);
    assert_int_equal(count_moved(f, before, 1, -1), count_of(before, 1));
    set_health(f, 1, VB_HEALTH_UP);
    assert_int_equal(count_moved(f, before, -1, -1), 0);
    free(before);
}

static void keys_come_back_to_one_that_comes_back(void **state)
{
    for_some_sizes(state, check_flap);
}

static void another_weight_moves_keys_to_that_one_or_from_it(void **state)
{
    struct fixture *f = *state;
    open_hash(f, BOUND, 5, (unsigned[]){10}, 1);
    uint16_t *before = all_owners(f);
    vb_shm_set_weight(f->shm, 2, 30); /* 30 of 70 */
    unsigned gained = count_moved(f, before, -1, 2);
    assert_in_range(gained + count_of(before, 2), KEYS * 40 / 100, KEYS * 46 / 100);
    vb_shm_set_weight(f->shm, 2, 10);
    assert_int_equal(count_moved(f, before, -1, -1), 0);
    vb_shm_set_weight(f->shm, 2, 5); /* 5 of 45 */
    unsigned lost = count_moved(f, before, 2, -1);
    assert_in_range(count_of(before, 2) - lost, KEYS * 10 / 100, KEYS * 12 / 100);
    free(before);
}

static void weights_count_only_by_comparison(void **state)
{
    struct fixture *f = *state;
    open_hash(f, BOUND, 6, (unsigned[]){1, 2, 3}, 3);
    uint16_t *before = all_owners(f);
    for (unsigned i = 0; i < 6; i++)
        vb_shm_set_weight(f->shm, i, (1 + i % 3) * 64);
    assert_int_equal(count_moved(f, before, -1, -1), 0);
    free(before);
}

/* ---- who may not be picked --------------------------------------------------------------------------------------- */

/* The next best is who would have the key if the others were not there. */
static void those_tried_or_full_leave_it_to_the_next_best(void **state)
{
    struct fixture *f = *state;
    open_hash(f, 0, 8, (unsigned[]){2, 1}, 2);
    for (unsigned i = 0; i < 300; i++) {
        struct vb_tried tried = {.n = 1};
        tried.backends[0] = (uint16_t)owner(f, i);
        unsigned second = owner_but(f, 0, i, &tried);
        tried.backends[tried.n++] = (uint16_t)second;
        unsigned third = owner_but(f, 1, i, &tried);
        set_health(f, tried.backends[0], VB_HEALTH_DOWN);
        assert_int_equal(owner(f, i), second);
        set_health(f, tried.backends[0], VB_HEALTH_UP);
        for (unsigned k = 0; k < 2; k++) {
            set_word(f, &vb_shm_backend(f->shm, tried.backends[k])->max_connections, 1);
            occupy(f, 3, tried.backends[k], 1);
            assert_int_equal(owner_but(f, 2, i, &none_tried), k == 0 ? second : third);
        }
        for (unsigned k = 0; k < 2; k++) {
            vb_shm_end(f->shm, 3, tried.backends[k]);
            set_word(f, &vb_shm_backend(f->shm, tried.backends[k])->max_connections, 0);
        }
    }
}

/* A few of many are not full: they have the keys that they would have without the others. */
static void the_last_ones_are_found(void **state)
{
    enum { N = 1000 };
    struct fixture *f = *state;
    open_hash(f, BOUND, N, (unsigned[]){3, 1}, 2);
    for (unsigned i = 0; i < N; i++) {
        vb_shm_backend(f->shm, i)->max_connections = 1;
        occupy(f, 3, i, i % 100 != 17);
    }
    uint16_t *before = all_owners(f);
    for (unsigned i = 0; i < N; i++)
        vb_shm_backend(f->shm, i)->health = i % 100 == 17 ? VB_HEALTH_UP : VB_HEALTH_DOWN;
    set_health(f, 0, VB_HEALTH_UP); /* and all look again */
    set_health(f, 0, VB_HEALTH_DOWN);
    assert_int_equal(count_moved(f, before, -1, -1), 0);
    free(before);
}

/* ---- bounded load ------------------------------------------------------------------------------------------------ */

/* A request begins and stays. */
static unsigned begin(struct fixture *f, unsigned worker, unsigned number, enum vb_pick_reason *ret_reason)
{
    assert_true(vb_shm_enter(f->shm, worker, 0, VB_PLACE_REQUEST, 0));
    return pick_key(f, worker, key_of(number), &none_tried, ret_reason);
}

static void end(struct fixture *f, unsigned worker, unsigned backend)
{
    vb_lb_done(f->workers[worker], backend);
    vb_shm_exit(f->shm, worker, 0, VB_PLACE_REQUEST);
}

/* What a backend may have of so many requests, rounded up. */
static unsigned most_of(struct fixture *f, unsigned n, unsigned backend, unsigned requests, unsigned bound)
{
    unsigned weights = 0;
    for (unsigned i = 0; i < n; i++)
        weights += weight_of(f, i);
    unsigned whole = 100 * weights;
    return (bound * requests * weight_of(f, backend) + whole - 1) / whole;
}

static void a_hot_key_is_shared_out_within_the_bound(void **state)
{
    static const struct {
        unsigned bound, n, period, weights[3];
    } cases[] = {{125, 10, 1, {1}}, {101, 7, 1, {10}}, {150, 6, 3, {1, 2, 4}}, {125, 1, 1, {3}}, {200, 3, 1, {1}}};
    for (unsigned i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        enum { HOT = 42, REQUESTS = 400 };
        unsigned backends[REQUESTS], spilled = 0, bound = cases[i].bound, n = cases[i].n;
        enum vb_pick_reason reason;
        setup(state);
        struct fixture *f = *state;
        open_hash(f, bound, n, cases[i].weights, cases[i].period);
        unsigned own = owner(f, HOT);
        for (unsigned k = 0; k < REQUESTS; k++) {
            bool is_full = vb_shm_load(f->shm, own) >= most_of(f, n, own, k + 1, bound);
            unsigned got = backends[k] = begin(f, k % WORKERS, HOT, &reason);
            assert_true(vb_shm_load(f->shm, got) <= most_of(f, n, got, k + 1, bound));
            assert_int_equal(got != own, is_full);
            assert_int_equal(reason, is_full ? VB_PICK_SPILL : n == 1 ? VB_PICK_ONLY : VB_PICK_POLICY);
            spilled += is_full;
        }
        assert_int_equal(spilled, REQUESTS - most_of(f, n, own, REQUESTS, bound) + (n == 1 ? 100 : 0));
        for (unsigned k = 0; k < REQUESTS; k++)
            end(f, k % WORKERS, backends[k]);
        assert_int_equal(begin(f, 0, HOT, &reason), own);
        assert_int_equal(teardown(state), 0);
    }
}

/* Requests of all keys come and go: whoever gets one has no more than its bound then. */
static void the_bound_holds_while_requests_come_and_go(void **state)
{
    enum { N = 12, MOST_AT_ONCE = 100 };
    struct fixture *f = *state;
    unsigned workers[MOST_AT_ONCE], backends[MOST_AT_ONCE], n = 0, spilled = 0;
    uint16_t own[50];
    open_hash(f, BOUND, N, (unsigned[]){3, 1}, 2);
    for (unsigned i = 0; i < 50; i++)
        own[i] = (uint16_t)owner(f, i);
    for (unsigned i = 0; i < 20000; i++) {
        if (n == MOST_AT_ONCE || (n > 0 && random_below(9) < 4)) {
            unsigned k = random_below(n--);
            end(f, workers[k], backends[k]);
            workers[k] = workers[n];
            backends[k] = backends[n];
            continue;
        }
        enum vb_pick_reason reason;
        unsigned key = random_below(50);
        workers[n] = random_below(WORKERS);
        backends[n] = begin(f, workers[n], key, &reason);
        n++;
        assert_true(vb_shm_load(f->shm, backends[n - 1]) <= most_of(f, N, backends[n - 1], n, BOUND));
        assert_int_equal(reason, backends[n - 1] == own[key] ? VB_PICK_POLICY : VB_PICK_SPILL);
        spilled += reason == VB_PICK_SPILL;
    }
    assert_true(spilled > 0);
}

static void without_a_bound_a_hot_key_stays(void **state)
{
    struct fixture *f = *state;
    enum vb_pick_reason reason;
    open_hash(f, 0, 4, one, 1);
    unsigned own = owner(f, 42);
    for (unsigned i = 0; i < 200; i++) {
        assert_int_equal(begin(f, i % WORKERS, 42, &reason), own);
        assert_int_equal(reason, VB_PICK_POLICY);
    }
}

/* One of two is full, so the other has to have more than the bound. */
static void where_all_have_more_than_the_bound_each_keeps_its_keys(void **state)
{
    struct fixture *f = *state;
    enum vb_pick_reason reason;
    open_hash(f, BOUND, 3, one, 1);
    unsigned own = owner(f, 42), full = (own + 1) % 3, third = (own + 2) % 3;
    set_word(f, &vb_shm_backend(f->shm, full)->max_connections, 1);
    for (unsigned i = 0; i < 10; i++) {
        vb_shm_enter(f->shm, 3, 0, VB_PLACE_REQUEST, 0);
        occupy(f, 3, own, 1);
        occupy(f, 3, third, 1);
    }
    occupy(f, 3, full, 1);
    assert_int_equal(begin(f, 0, 42, &reason), own);
    assert_int_equal(reason, VB_PICK_POLICY);
}

/* Its keys are its own at once; of many requests at the same time it gets no more than its step. */
static void slow_start_acts_through_the_bound(void **state)
{
    enum { N = 4, SLOWLY = NOW / 2 };
    struct fixture *f = *state;
    enum vb_pick_reason reason;
    unsigned counts[N] = {0}, hot = 0;
    open_empty(f, BOUND, SLOWLY);
    for (unsigned i = 0; i < N; i++)
        vb_shm_backend(f->shm, add_numbered(f, i, 1))->ready_since_us = i == 0 ? NOW : 1;
    for (unsigned i = 0; i < KEYS; i++)
        counts[owner(f, i)]++;
    assert_in_range(counts[0], KEYS * 22 / 100, KEYS * 28 / 100);
    while (owner(f, hot) != 0)
        hot++;
    for (unsigned i = 0; i < 122; i++)
        begin(f, i % WORKERS, hot, &reason);
    assert_int_equal(vb_shm_load(f->shm, 0), 3); /* 1.25 x 122 x 1/61 */
}

/* ---- without a key ----------------------------------------------------------------------------------------------- */

static void without_a_key_they_take_turns(void **state)
{
    struct fixture *f = *state;
    unsigned counts[3] = {0};
    open_hash(f, BOUND, 3, (unsigned[]){5, 1, 1}, 3);
    for (unsigned i = 0; i < 700; i++) {
        unsigned worker = random_below(WORKERS);
        counts[pick(f, worker)]++;
    }
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(counts[i], i == 0 ? 500 : 100);
}

/* ---- extremes ---------------------------------------------------------------------------------------------------- */

static void heavy_weights_cost_no_more_points(void **state)
{
    struct fixture *f = *state;
    open_hash(f, BOUND, 1000, (unsigned[]){256}, 1);
    owner(f, 0);
    const struct lb_points *ring = f->workers[0]->points;
    assert_int_equal(ring->n, 1000 * LB_HASH_POINTS);
    for (unsigned i = 1; i < ring->n; i++)
        assert_true(ring->points[i - 1] < ring->points[i]);
    vb_shm_set_weight(f->shm, 0, UINT32_MAX);
    for (unsigned i = 0; i < 1000; i++)
        assert_int_equal(owner(f, i), 0);
}

#define TEST(function)  cmocka_unit_test_setup_teardown(function, setup, teardown)
#define LARGE(function) cmocka_unit_test_setup_teardown(function, setup_large, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LARGE(workers_and_instances_agree),
        cmocka_unit_test(shares_are_as_the_weights),
        cmocka_unit_test(without_one_only_its_keys_move),
        cmocka_unit_test(one_that_comes_takes_its_share_from_all),
        cmocka_unit_test(keys_come_back_to_one_that_comes_back),
        TEST(another_weight_moves_keys_to_that_one_or_from_it),
        TEST(weights_count_only_by_comparison),
        TEST(those_tried_or_full_leave_it_to_the_next_best),
        LARGE(the_last_ones_are_found),
        cmocka_unit_test(a_hot_key_is_shared_out_within_the_bound),
        TEST(the_bound_holds_while_requests_come_and_go),
        TEST(without_a_bound_a_hot_key_stays),
        TEST(where_all_have_more_than_the_bound_each_keeps_its_keys),
        TEST(slow_start_acts_through_the_bound),
        TEST(without_a_key_they_take_turns),
        LARGE(heavy_weights_cost_no_more_points),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
