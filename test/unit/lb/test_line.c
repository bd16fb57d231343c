/* Whose line is first, and what those who wait ask about their pool. */
#include "fixture.h"

enum { POOL = 0, OTHER_POOL = 1, ANY = -1 };

static void waits(struct fixture *f, unsigned slot, uint64_t since_us)
{
    vb_line_note(f->shm, slot, POOL, &(struct vb_line){.since_us = since_us});
}

static void assert_first(struct fixture *f, int backend, int slot, uint64_t since_us)
{
    uint64_t since;
    assert_int_equal(vb_line_first(f->shm, POOL, backend, &since), slot);
    if (slot >= 0)
        assert_int_equal(since, since_us);
}

static void nobody_waits(void **state)
{
    struct fixture *f = *state;
    assert_first(f, ANY, -1, 0);
    assert_first(f, 0, -1, 0);
}

static void who_has_waited_longest_is_first(void **state)
{
    struct fixture *f = *state;
    waits(f, 2, 300);
    assert_first(f, ANY, 2, 300);
    waits(f, 0, 400);
    assert_first(f, ANY, 2, 300);
    waits(f, 3, 200);
    assert_first(f, ANY, 3, 200);
    waits(f, 3, 0);
    waits(f, 2, 500); /* its first has gone, the next one came later */
    assert_first(f, ANY, 0, 400);
    waits(f, 0, 0);
    waits(f, 2, 0);
    assert_first(f, ANY, -1, 0);
}

static void pools_have_lines_of_their_own(void **state)
{
    struct fixture *f = *state;
    uint64_t since;
    vb_line_note(f->shm, 1, OTHER_POOL, &(struct vb_line){.since_us = 100});
    assert_first(f, ANY, -1, 0);
    assert_int_equal(vb_line_first(f->shm, OTHER_POOL, ANY, &since), 1);
}

static void who_is_stuck_counts_for_his_backend_only(void **state)
{
    struct fixture *f = *state;
    unsigned last = VB_SHM_BACKENDS_MAX - 1;
    vb_line_note(f->shm, 0, POOL, &(struct vb_line){.stuck_since_us = 100, .stuck_to = 0});
    vb_line_note(f->shm, 1, POOL, &(struct vb_line){.since_us = 200, .stuck_since_us = 150, .stuck_to = last});
    assert_first(f, ANY, 1, 200);
    assert_first(f, 0, 0, 100);
    assert_first(f, (int)last, 1, 150);
    uint64_t since;
    assert_int_equal(vb_line_first_stuck(f->shm, POOL, last, &since), 1);
    assert_int_equal(since, 150);
    assert_int_equal(vb_line_first_stuck(f->shm, POOL, 1, &since), -1);
    assert_first(f, 7, 1, 200);
    waits(f, 2, 50);
    assert_first(f, 0, 2, 50);
    waits(f, 1, 0);
    waits(f, 2, 0);
    assert_first(f, ANY, -1, 0);
    assert_first(f, 0, 0, 100);
}

static void a_century_fits(void **state)
{
    struct fixture *f = *state;
    uint64_t long_after_boot = UINT64_C(100) * 365 * 86400 * 1000000;
    vb_line_note(f->shm, 0, POOL, &(struct vb_line){.stuck_since_us = long_after_boot, .stuck_to = 5});
    assert_first(f, 5, 0, long_after_boot);
}

static void a_dead_worker_does_not_wait(void **state)
{
    struct fixture *f = *state;
    vb_line_note(f->shm, 1, POOL, &(struct vb_line){.since_us = 200, .stuck_since_us = 150, .stuck_to = 3});
    waits(f, 2, 300);
    vb_shm_release_worker(f->shm, 1, true);
    assert_first(f, ANY, 2, 300);
    assert_first(f, 3, 2, 300);
}

static void set_limit(struct fixture *f, unsigned backend, unsigned limit)
{
    set_word(f, &vb_shm_backend(f->shm, backend)->max_connections, limit);
}

static void a_pool_is_full_when_nobody_could_be_picked_for_it(void **state)
{
    struct fixture *f = *state;
    struct vb_lb **lb = f->workers;
    const unsigned weights[] = {1, 1};
    open_pool(f, "round_robin", weights, 2);
    occupy(f, 3, 0, 2);
    assert_false(vb_lb_is_full(lb[0], NOW)); /* without limits it never is */
    set_limit(f, 0, 2);
    set_limit(f, 1, 1);
    assert_false(vb_lb_is_full(lb[0], NOW));
    occupy(f, 2, 1, 1);
    assert_true(vb_lb_is_full(lb[0], NOW));
    vb_shm_end(f->shm, 3, 0);
    assert_false(vb_lb_is_full(lb[0], NOW));
    set_health(f, 0, VB_HEALTH_DOWN);
    assert_true(vb_lb_is_full(lb[0], NOW));
    set_health(f, 1, VB_HEALTH_DOWN); /* nobody is there: then it is not that they are full */
    assert_false(vb_lb_is_full(lb[0], NOW));
}

static void who_is_stuck_is_held_while_his_backend_may_come_for_him(void **state)
{
    struct fixture *f = *state;
    const unsigned weights[] = {1, 1};
    const struct vb_tried tried = {.n = 1, .backends = {1}};
    struct vb_ask ask = {.tried = &none_tried, .stuck_to = 1};
    open_pool(f, "round_robin", weights, 2);
    set_limit(f, 1, 1);
    pick(f, 0); /* it follows the segment */
    assert_true(vb_lb_is_stuck(f->workers[0], &ask, NOW));
    occupy(f, 3, 1, 1);
    assert_true(vb_lb_is_stuck(f->workers[0], &ask, NOW));
    ask.tried = &tried;
    assert_false(vb_lb_is_stuck(f->workers[0], &ask, NOW));
    ask.tried = &none_tried;
    vb_shm_set_admin(f->shm, 1, VB_ADMIN_DRAIN);
    assert_true(vb_lb_is_stuck(f->workers[0], &ask, NOW));
    vb_shm_set_admin(f->shm, 1, VB_ADMIN_MAINT);
    vb_lb_look(f->workers[0], NOW);
    assert_false(vb_lb_is_stuck(f->workers[0], &ask, NOW));
    ask.stuck_to = -1;
    assert_false(vb_lb_is_stuck(f->workers[0], &ask, NOW));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(nobody_waits, setup, teardown),
        cmocka_unit_test_setup_teardown(who_has_waited_longest_is_first, setup, teardown),
        cmocka_unit_test_setup_teardown(pools_have_lines_of_their_own, setup, teardown),
        cmocka_unit_test_setup_teardown(who_is_stuck_counts_for_his_backend_only, setup, teardown),
        cmocka_unit_test_setup_teardown(a_century_fits, setup, teardown),
        cmocka_unit_test_setup_teardown(a_dead_worker_does_not_wait, setup, teardown),
        cmocka_unit_test_setup_teardown(a_pool_is_full_when_nobody_could_be_picked_for_it, setup, teardown),
        cmocka_unit_test_setup_teardown(who_is_stuck_is_held_while_his_backend_may_come_for_him, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
