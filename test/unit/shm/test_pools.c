/* Pools that come and go with the file, while workers of old generations still use them. */
#include "fixture.h"

#include <errno.h>

static struct vb_shm *master;

static int add_pool(const char *name, unsigned panic)
{
    return vb_shm_add_pool(master, &(struct vb_pool_spec){name, "round_robin", panic, 50});
}

static int add(unsigned pool, const char *name)
{
    struct vb_backend_spec spec = {name, "127.0.0.1:80", 3, true, VB_HEALTH_UP, VB_ADMIN_READY, false, 0, false};
    return vb_shm_add_backend(master, pool, &spec);
}

/* Two pools of two: web with a and b, api with a and c. */
static int setup_master(void **state)
{
    setup(state);
    master = create(((struct fixture *)*state)->path, small);
    claim_all(master, false);
    assert_int_equal(add_pool("web", 0), 0);
    assert_int_equal(add_pool("api", 0), 1);
    assert_int_equal(add(0, "a"), 0);
    assert_int_equal(add(0, "b"), 1);
    assert_int_equal(add(1, "a"), 2);
    assert_int_equal(add(1, "c"), 3);
    return 0;
}

static int teardown_master(void **state)
{
    vb_shm_close(&master);
    return teardown(state);
}

static uint32_t epoch(unsigned pool)
{
    return vb_shm_pool(master, pool)->epoch;
}

static void new_settings_move_the_epoch(void **state)
{
    const struct vb_shm_pool *pool = vb_shm_pool(master, 0);
    uint32_t before = epoch(0), other = epoch(1);
    vb_shm_set_pool(master, 0, &(struct vb_pool_spec){"web", "least_conn", 40, 10});
    assert_string_equal(pool->name, "web");
    assert_string_equal(pool->balance, "least_conn");
    assert_int_equal(pool->panic, 40);
    assert_int_equal(pool->max_ejected, 10);
    assert_true(epoch(0) > before);
    assert_int_equal(epoch(1), other);
}

static void a_leaving_pool_is_there_only_for_those_who_know_it(void **state)
{
    vb_shm_retire_pool(master, 0);
    assert_int_equal(vb_shm_find_pool(master, "web"), -ENOENT);
    assert_int_equal(vb_shm_find_pool(master, "api"), 1);
    assert_int_equal(vb_shm_pool(master, 0)->used, VB_POOL_LEAVING);
    assert_true(vb_shm_backend_usable(vb_shm_backend(master, 0), 0));
    assert_true(vb_shm_enter(master, 1, 0, VB_PLACE_REQUEST, 1));
    assert_int_equal(add_pool("new", 0), 2); /* its slot is not free */
}

static void a_leaving_pool_comes_back_as_it_was(void **state)
{
    vb_shm_pool(master, 0)->cursor = 77;
    vb_shm_retire_pool(master, 0);
    unsigned panic = vb_shm_pool(master, 0)->panic;
    assert_int_equal(add_pool("web", panic + 1), -EEXIST); /* its name is taken */
    assert_int_equal(vb_shm_recall_pool(master, "nobody"), -ENOENT);
    assert_int_equal(vb_shm_recall_pool(master, "web"), 0);
    assert_int_equal(vb_shm_recall_pool(master, "web"), -ENOENT);
    assert_int_equal(vb_shm_find_pool(master, "web"), 0);
    assert_int_equal(vb_shm_find_backend(master, 0, "b"), 1);
    assert_int_equal(vb_shm_pool(master, 0)->panic, panic);
    assert_int_equal(vb_shm_pool(master, 0)->cursor, 77);
}

static void use(unsigned pool)
{
    struct vb_shm_pool *row = vb_shm_pool(master, pool);
    row->cursor = row->retries = row->retry_credit = 5;
    row->ejecting = 2;
    for (unsigned i = 0; i < VB_SHM_MARKS; i++)
        row->request_marks[i] = 5;
    for (unsigned slot = 0; slot < small.workers; slot++) {
        assert_true(vb_shm_enter(master, slot, pool, VB_PLACE_REQUEST, 0));
        assert_true(vb_shm_enter(master, slot, pool, VB_PLACE_PENDING, 0));
    }
}

static void the_next_pool_finds_nothing_of_the_last(void **state)
{
    use(0);
    use(1);
    uint32_t before = epoch(0);
    vb_shm_retire_pool(master, 0);
    vb_shm_free_pool(master, 0);
    assert_int_equal(vb_shm_find_pool(master, "web"), -ENOENT);
    assert_int_equal(add_pool("new", 0), 0);
    const struct vb_shm_pool *row = vb_shm_pool(master, 0);
    assert_int_equal(row->cursor + row->retries + row->retry_credit + row->ejecting, 0);
    for (unsigned i = 0; i < VB_SHM_MARKS; i++)
        assert_int_equal(row->request_marks[i], 0);
    assert_int_equal(vb_shm_sum_places(master, 0, VB_PLACE_REQUEST), 0);
    assert_int_equal(vb_shm_sum_places(master, 0, VB_PLACE_PENDING), 0);
    assert_true(epoch(0) > before);

    const struct vb_shm_pool *other = vb_shm_pool(master, 1);
    assert_int_equal(other->cursor + other->retries + other->retry_credit, 15);
    assert_int_equal(vb_shm_sum_places(master, 1, VB_PLACE_REQUEST), small.workers);
    assert_int_equal(vb_shm_sum_places(master, 1, VB_PLACE_PENDING), small.workers);
}

static void the_backends_of_a_freed_pool_are_forgotten(void **state)
{
    vb_shm_remove_backend(master, 1); /* by an operator: the file named it all the same */
    assert_true(vb_shm_begin(master, 2, 0, 0));
    vb_shm_free_pool(master, 0);
    assert_int_equal(vb_shm_find_backend(master, 0, "a"), -ENOENT);
    assert_int_equal(vb_shm_find_backend(master, 1, "a"), 2);
    assert_int_equal(vb_shm_find_backend(master, 1, "c"), 3);
    assert_int_equal(add_pool("web", 0), 0);
    assert_int_equal(add(0, "x"), 1); /* in slot 0 there is still one in flight */
    assert_int_equal(add(0, "b"), 4);
    assert_int_equal(add(0, "c"), -ENOSPC);
    vb_shm_end(master, 2, 0);
    assert_int_equal(add(0, "c"), 0);
}

static void pools_may_come_and_go_forever(void **state)
{
    uint32_t last = epoch(2);
    for (unsigned i = 0; i < 100; i++) {
        char name[8];
        snprintf(name, sizeof(name), "p%u", i);
        assert_int_equal(add_pool(name, 0), 2);
        assert_int_equal(add(2, "x"), 4);
        vb_shm_retire_pool(master, 2);
        vb_shm_free_pool(master, 2);
        assert_true(epoch(2) > last);
        last = epoch(2);
    }
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup_master, teardown_master)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(new_settings_move_the_epoch),
        TEST(a_leaving_pool_is_there_only_for_those_who_know_it),
        TEST(a_leaving_pool_comes_back_as_it_was),
        TEST(the_next_pool_finds_nothing_of_the_last),
        TEST(the_backends_of_a_freed_pool_are_forgotten),
        TEST(pools_may_come_and_go_forever),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
