/* Backends that come and go while the instance runs: whose slot it is, and what its next backend finds there. */
#include "fixture.h"

#include <errno.h>

#include "vb/clock.h"

static struct vb_shm *master;

static int setup_master(void **state)
{
    setup(state);
    master = create(((struct fixture *)*state)->path, small);
    claim_all(master, false);
    assert_int_equal(vb_shm_add_pool(master, &(struct vb_pool_spec){"web", "round_robin", 0, 50}), 0);
    assert_int_equal(vb_shm_add_pool(master, &(struct vb_pool_spec){"api", "round_robin", 0, 50}), 1);
    return 0;
}

static int teardown_master(void **state)
{
    vb_shm_close(&master);
    return teardown(state);
}

static int add(unsigned pool, const char *name, bool configured)
{
    return vb_shm_add_backend(master, pool,
                              &(struct vb_backend_spec){name, "127.0.0.1:80", 3, configured, VB_HEALTH_UNKNOWN,
                                                        VB_ADMIN_READY, false, 0, false});
}

/* Of worker 2, who had `n` requests there more, or fewer. */
static void in_flight(unsigned backend, int n)
{
    for (; n > 0; n--)
        assert_true(vb_shm_begin(master, 2, backend, 0));
    for (; n < 0; n++)
        vb_shm_end(master, 2, backend);
}

/* Takes all slots that are free for others; returns how many. */
static unsigned fill(void)
{
    char name[8] = "x0";
    unsigned n = 0;
    for (; add(1, name, false) >= 0; n++)
        name[1]++;
    return n;
}

static void a_removed_one_is_gone(void **state)
{
    assert_int_equal(add(0, "a", false), 0);
    assert_int_equal(vb_shm_find_backend(master, 0, "a"), 0);
    uint32_t epoch = vb_shm_pool(master, 0)->epoch;
    vb_shm_remove_backend(master, 0);
    assert_int_equal(vb_shm_pool(master, 0)->epoch, epoch + 1);
    assert_int_equal(vb_shm_find_backend(master, 0, "a"), -ENOENT);
    assert_false(vb_shm_backend_usable(vb_shm_backend(master, 0), 0));
}

static void what_an_operator_changes_moves_the_epoch(void **state)
{
    add(0, "a", true);
    uint32_t epoch = vb_shm_pool(master, 0)->epoch, other = vb_shm_pool(master, 1)->epoch;
    vb_shm_set_admin(master, 0, VB_ADMIN_MAINT);
    assert_int_equal(vb_shm_backend(master, 0)->admin, VB_ADMIN_MAINT);
    assert_int_equal(vb_shm_pool(master, 0)->epoch, epoch + 1);
    vb_shm_set_weight(master, 0, 7);
    assert_int_equal(vb_shm_backend(master, 0)->weight, 7);
    assert_int_equal(vb_shm_backend(master, 0)->configured_weight, 3);
    assert_int_equal(vb_shm_pool(master, 0)->epoch, epoch + 2);
    assert_int_equal(vb_shm_pool(master, 1)->epoch, other);
}

static void a_slot_is_free_when_nothing_is_in_flight_there(void **state)
{
    assert_int_equal(add(0, "a", false), 0);
    in_flight(0, 2);
    vb_shm_remove_backend(master, 0);
    assert_int_equal(add(0, "b", false), 1);
    assert_int_equal(fill(), small.backends - 2);
    assert_int_equal(add(0, "c", false), -ENOSPC);
    in_flight(0, -1);
    assert_int_equal(add(0, "c", false), -ENOSPC);
    in_flight(0, -1);
    assert_int_equal(add(1, "c", false), 0);
    assert_int_equal(vb_shm_backend(master, 0)->pool, 1);
    assert_string_equal(vb_shm_backend(master, 0)->name, "c");
}

static void what_a_dead_worker_had_in_flight_holds_no_slot(void **state)
{
    assert_int_equal(add(0, "a", false), 0);
    in_flight(0, 5);
    vb_shm_remove_backend(master, 0);
    assert_int_equal(fill(), small.backends - 1);
    vb_shm_release_worker(master, 2, true);
    assert_int_equal(add(0, "b", false), 0);
}

/* Who drains it then must see them. */
static void one_comes_back_to_the_requests_that_it_still_has(void **state)
{
    assert_int_equal(add(0, "a", false), 0);
    vb_add64(&vb_shm_traffic(master, 2, 0)->requests, 10);
    in_flight(0, 1);
    uint32_t incarnation = vb_shm_backend(master, 0)->incarnation;
    vb_shm_remove_backend(master, 0);
    assert_int_equal(add(0, "a", false), 0);
    assert_int_equal(vb_shm_sum_in_flight(master, 0), 1);
    assert_int_equal(vb_shm_traffic(master, 2, 0)->requests, 10);
    assert_int_equal(vb_shm_backend(master, 0)->incarnation, incarnation + 1);
    assert_int_equal(add(0, "a", false), -EEXIST);
}

static void a_configured_one_keeps_its_slot(void **state)
{
    assert_int_equal(add(0, "a", true), 0);
    assert_int_equal(add(0, "b", true), 1);
    vb_shm_remove_backend(master, 0);
    assert_int_equal(add(1, "a", false), 2); /* another pool's */
    assert_int_equal(fill(), small.backends - 3);
    assert_int_equal(add(0, "a", false), 0);
    assert_int_equal(vb_shm_backend(master, 0)->configured_weight, 3); /* the file names it as before */
    assert_int_equal(add(0, "a", true), -EEXIST);
    vb_shm_forget_backend(master, 0); /* not any more */
    assert_int_equal(add(1, "c", false), 0);
}

/* However often, and whatever is still in flight: it is there once. */
static void a_configured_one_comes_back_into_its_slot_at_once(void **state)
{
    assert_int_equal(add(0, "a", true), 0);
    in_flight(0, 3);
    for (unsigned i = 0; i < 10; i++) {
        vb_shm_remove_backend(master, 0);
        assert_int_equal(add(0, "a", true), 0);
        assert_int_equal(add(0, "a", true), -EEXIST);
        assert_int_equal(vb_shm_backend(master, 0)->incarnation, 2 + i); /* kept connections may lead elsewhere */
    }
    assert_int_equal(vb_shm_sum_in_flight(master, 0), 3);
    assert_int_equal(fill(), small.backends - 1);
}

static void fill_row(unsigned backend)
{
    struct vb_shm_backend *row = vb_shm_backend(master, backend);
    for (unsigned slot = 0; slot < small.workers; slot++) {
        vb_add64(&vb_shm_traffic(master, slot, backend)->requests, 10);
        vb_add64(&vb_shm_traffic(master, slot, backend)->latency[7], 10);
    }
    row->failures = row->ejections_in_row = row->announced_idle_ms = row->learned_idle_ms = 5;
    row->last_failure = VB_BACKEND_RESET;
    row->ejected_until_us = UINT64_MAX;
    row->ejections = 9;
    row->latency = row->reported_load = 5;
    row->admin = VB_ADMIN_DRAIN;
    vb_shm_write_health(master, backend, VB_HEALTH_DOWN, &(struct vb_health_record){.checks = 3, .reason = "refused"});
}

static void expect_fresh(unsigned backend, uint64_t figures, uint64_t ejections)
{
    const struct vb_shm_backend *row = vb_shm_backend(master, backend);
    struct vb_traffic_sum sum = {0};
    struct vb_health_record record;
    vb_shm_add_traffic(master, backend, &sum);
    assert_int_equal(sum.requests, figures);
    assert_int_equal(sum.latency[7], figures);
    assert_int_equal(row->ejections, ejections);
    assert_int_equal(row->failures + row->ejections_in_row + row->announced_idle_ms + row->learned_idle_ms, 0);
    assert_int_equal(row->latency + row->reported_load, 0);
    assert_int_equal(row->last_failure, VB_BACKEND_NEVER_FAILED);
    assert_int_equal(row->ejected_until_us, 0);
    assert_int_equal(row->health, VB_HEALTH_UNKNOWN);
    assert_true(vb_shm_read_health(master, backend, &record));
    assert_int_equal(record.checks, 0);
    assert_string_equal(record.reason, "");
    assert_true(vb_shm_backend_usable(row, 0));
}

static void a_newcomer_finds_nothing_of_the_last(void **state)
{
    assert_int_equal(add(0, "a", false), 0);
    fill_row(0);
    vb_shm_remove_backend(master, 0);
    assert_int_equal(add(0, "b", true), 0);
    expect_fresh(0, 0, 0);
}

/* What it is taken for begins anew, but its figures are its own, and only grow. */
static void who_comes_back_finds_its_figures(void **state)
{
    assert_int_equal(add(0, "a", true), 0);
    fill_row(0);
    vb_shm_remove_backend(master, 0);
    assert_int_equal(add(0, "a", true), 0);
    expect_fresh(0, 10 * small.workers, 9);
}

/* The file wins over what an operator has said. */
static void the_file_names_one_anew(void **state)
{
    struct vb_shm_backend *row = vb_shm_backend(master, 0);
    struct vb_backend_spec spec = {"a", "127.0.0.1:80", 3, true, VB_HEALTH_UNKNOWN, VB_ADMIN_DRAIN, false, 0, false};
    assert_int_equal(vb_shm_add_backend(master, 0, &spec), 0);
    assert_int_equal(row->admin, VB_ADMIN_DRAIN);
    assert_false(vb_shm_backend_usable(row, 0));
    vb_shm_set_weight(master, 0, 9);
    vb_add64(&vb_shm_traffic(master, 2, 0)->requests, 10);
    uint32_t epoch = vb_shm_pool(master, 0)->epoch, incarnation = row->incarnation;
    vb_shm_configure_backend(master, 0, &(struct vb_backend_settings){5, 7, true});
    assert_true(vb_shm_backend_usable(row, 0));
    assert_int_equal(row->weight, 5);
    assert_int_equal(row->configured_weight, 5);
    assert_int_equal(row->max_connections, 7);
    assert_int_equal(row->backup, 1);
    assert_int_equal(row->incarnation, incarnation);
    assert_int_equal(vb_shm_traffic(master, 2, 0)->requests, 10);
    assert_int_equal(vb_shm_pool(master, 0)->epoch, epoch + 1);
}

/* Also where the slot's last backend had others. */
static void one_has_the_limits_that_come_with_it(void **state)
{
    const struct vb_shm_backend *row = vb_shm_backend(master, 0);
    struct vb_backend_spec spec = {"a", "127.0.0.1:80", 3, true, VB_HEALTH_UNKNOWN, VB_ADMIN_READY, false, 9, true};
    assert_int_equal(vb_shm_add_backend(master, 0, &spec), 0);
    assert_int_equal(row->max_connections, 9);
    assert_int_equal(row->backup, 1);
    vb_shm_remove_backend(master, 0); /* who adds it again reads them there */
    assert_int_equal(row->max_connections, 9);
    assert_int_equal(row->backup, 1);
    vb_shm_forget_backend(master, 0);
    assert_int_equal(add(0, "b", true), 0);
    assert_int_equal(row->max_connections, 0);
    assert_int_equal(row->backup, 0);
}

/* ---- since when it is ready ---- */
/* Was this the beginning of a slow start? Sets the time back, so that the next beginning is seen. */
static bool has_begun(void)
{
    vb_u64 *since = &vb_shm_backend(master, 0)->ready_since_us;
    bool begun = *since != 1;
    if (begun)
        assert_in_range(*since, vb_clock_us() - 60000000, vb_clock_us());
    *since = 1;
    return begun;
}

static void one_that_is_added_is_ready_since_then(void **state)
{
    add(0, "a", true);
    assert_true(has_begun());
    vb_shm_remove_backend(master, 0);
    assert_false(has_begun());
    add(0, "a", true);
    assert_true(has_begun());
}

static void one_is_ready_since_an_operator_or_the_file_made_it_so(void **state)
{
    static const enum vb_admin_state others[] = {VB_ADMIN_DRAIN, VB_ADMIN_MAINT};
    static const struct vb_backend_settings settings = {.weight = 1};
    add(0, "a", true);
    has_begun();
    vb_shm_set_admin(master, 0, VB_ADMIN_READY); /* as it was */
    vb_shm_configure_backend(master, 0, &settings);
    vb_shm_set_weight(master, 0, 9);
    assert_false(has_begun());
    for (unsigned i = 0; i < VB_ARRAY_SIZE(others); i++) {
        vb_shm_set_admin(master, 0, others[i]);
        assert_false(has_begun());
        vb_shm_set_admin(master, 0, VB_ADMIN_READY);
        assert_true(has_begun());
        vb_shm_set_admin(master, 0, others[i]);
        vb_shm_configure_backend(master, 0, &settings);
        assert_true(has_begun());
    }
}

static void one_is_ready_since_it_came_up(void **state)
{
    static const struct {
        enum vb_health_state health;
        bool begins;
    } steps[] = {{VB_HEALTH_UP, false}, /* it was not known to be down, so it is in service already */
                 {VB_HEALTH_DOWN, false}, {VB_HEALTH_DOWN, false},     {VB_HEALTH_UP, true}, {VB_HEALTH_UP, false},
                 {VB_HEALTH_DOWN, false}, {VB_HEALTH_UNCHECKED, true}, {VB_HEALTH_UP, false}};
    add(0, "a", true);
    has_begun();
    for (unsigned i = 0; i < VB_ARRAY_SIZE(steps); i++) {
        vb_shm_write_health(master, 0, steps[i].health, &(struct vb_health_record){.checks = i});
        assert_int_equal(has_begun(), steps[i].begins);
    }
}

/* Under a name that now means another address: nothing is mixed up, whether requests are still in flight or not. */
static void a_forgotten_one_comes_back_as_another(void **state)
{
    struct vb_backend_spec spec = {"a", "127.0.0.1:81", 3, true, VB_HEALTH_UNKNOWN, VB_ADMIN_READY, false, 0, false};
    assert_int_equal(add(0, "a", true), 0);
    fill_row(0);
    uint32_t epoch = vb_shm_pool(master, 0)->epoch;
    vb_shm_forget_backend(master, 0);
    assert_true(vb_shm_pool(master, 0)->epoch > epoch);
    assert_int_equal(vb_shm_find_backend(master, 0, "a"), -ENOENT);
    assert_int_equal(vb_shm_add_backend(master, 0, &spec), 0);
    expect_fresh(0, 0, 0);
    assert_string_equal(vb_shm_backend(master, 0)->address, "127.0.0.1:81");

    fill_row(0);
    in_flight(0, 1);
    vb_shm_forget_backend(master, 0);
    spec.address = "127.0.0.1:82";
    assert_int_equal(vb_shm_add_backend(master, 0, &spec), 1);
    expect_fresh(1, 0, 0);
    assert_int_equal(vb_shm_find_backend(master, 0, "a"), 1);
    in_flight(0, -1);
    assert_int_equal(add(0, "b", true), 0);
    expect_fresh(0, 0, 0);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup_master, teardown_master)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_removed_one_is_gone),
        TEST(what_an_operator_changes_moves_the_epoch),
        TEST(a_slot_is_free_when_nothing_is_in_flight_there),
        TEST(what_a_dead_worker_had_in_flight_holds_no_slot),
        TEST(one_comes_back_to_the_requests_that_it_still_has),
        TEST(a_configured_one_keeps_its_slot),
        TEST(a_configured_one_comes_back_into_its_slot_at_once),
        TEST(a_newcomer_finds_nothing_of_the_last),
        TEST(who_comes_back_finds_its_figures),
        TEST(the_file_names_one_anew),
        TEST(one_has_the_limits_that_come_with_it),
        TEST(one_that_is_added_is_ready_since_then),
        TEST(one_is_ready_since_an_operator_or_the_file_made_it_so),
        TEST(one_is_ready_since_it_came_up),
        TEST(a_forgotten_one_comes_back_as_another),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
