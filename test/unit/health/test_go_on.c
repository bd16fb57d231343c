/* A health thread takes the place of another, as after an upgrade: what is known of the backends goes on. */
#include "fixture.h"

/* The segment is as the one before has left it. */
static void replace_thread(struct fixture *f)
{
    assert_true(vb_health_stop(&f->health));
    assert_int_equal(vb_health_open(&f->health, f->shm, note_look, f), 0);
    for (unsigned i = 0; i < f->conf->n_pools; i++)
        assert_int_equal(vb_health_set_rules(f->health, i, &f->conf->pools[i].health), 0);
    atomic_store(&f->looks, 0);
    start(f);
}

static void who_is_down_needs_as_many_passes_as_ever(void **state)
{
    struct fixture *f = *state;
    struct server server = bound("127.0.0.1", 0);
    unsigned slot = add(f, SLOW, "a", server.address); /* rise: 3 */
    start(f);
    WAIT_UNTIL(says(f, slot, "connection refused"));
    assert_int_equal(listen(server.fd, 1024), 0);
    replace_thread(f);
    WAIT_UNTIL(record_of(f, slot).checks == 2);
    assert_int_equal(health_of(f, slot), VB_HEALTH_DOWN);
    replace_thread(f);
    WAIT_UNTIL(record_of(f, slot).checks == 3);
    assert_int_equal(health_of(f, slot), VB_HEALTH_DOWN);
    replace_thread(f);
    WAIT_UNTIL(health_of(f, slot) == VB_HEALTH_UP);
    struct vb_health_record record = record_of(f, slot);
    assert_int_equal(record.checks, 4);
    assert_int_equal(record.failures, 1);
    assert_int_equal(record.history, 7);
    assert_int_equal(record.transitions, 2);
    close(server.fd);
}

static void who_is_up_needs_as_many_failures_as_ever(void **state)
{
    struct fixture *f = *state;
    struct server server = listening();
    unsigned slot = add(f, SLOW, "a", server.address); /* fall: 3 */
    start(f);
    WAIT_UNTIL(health_of(f, slot) == VB_HEALTH_UP);
    stop_listening(&server);
    for (unsigned failures = 1; failures < 3; failures++) {
        replace_thread(f);
        WAIT_UNTIL(record_of(f, slot).failures == failures);
        assert_int_equal(health_of(f, slot), VB_HEALTH_UP);
    }
    replace_thread(f);
    WAIT_UNTIL(health_of(f, slot) == VB_HEALTH_DOWN);
    close(server.fd);
}

static void nobody_is_looked_at_for_the_first_time(void **state)
{
    struct fixture *f = *state;
    struct server server = listening();
    unsigned slot = add(f, HTTP, "a", server.address);
    start(f);
    answer(accept_one(&server));
    WAIT_UNTIL(health_of(f, slot) == VB_HEALTH_UP);
    replace_thread(f);
    WAIT_UNTIL(atomic_load(&f->looks) == 1); /* nobody answers its check */
    assert_true(vb_health_has_looked(f->health));
    assert_int_equal(health_of(f, slot), VB_HEALTH_UP);
    close(server.fd);
}

static void who_had_no_result_yet_is_looked_at(void **state)
{
    struct fixture *f = *state;
    struct server server = listening();
    unsigned slot = add(f, HTTP, "a", server.address);
    start(f);
    int before = accept_one(&server);
    replace_thread(f);
    assert_int_equal(health_of(f, slot), VB_HEALTH_DOWN);
    answer(accept_one(&server));
    WAIT_UNTIL(health_of(f, slot) == VB_HEALTH_UP);
    WAIT_UNTIL(vb_health_has_looked(f->health));
    close(before);
    close(server.fd);
}

static void what_was_known_of_another_backend_counts_for_nothing(void **state)
{
    struct fixture *f = *state;
    struct server server = listening();
    unsigned slot = add(f, SLOW, "a", server.address);
    start(f);
    WAIT_UNTIL(health_of(f, slot) == VB_HEALTH_UP);
    assert_true(vb_health_stop(&f->health)); /* as if the update had come too late for it */
    vb_shm_remove_backend(f->shm, slot);
    stop_listening(&server);
    assert_int_equal(add(f, SLOW, "b", server.address), slot);
    replace_thread(f);
    WAIT_UNTIL(says(f, slot, "connection refused"));
    assert_int_equal(record_of(f, slot).checks, 1);
    close(server.fd);
}

static void the_address_of_a_name_goes_on(void **state)
{
    struct fixture *f = *state;
    struct server server = listening();
    char address[32];
    snprintf(address, sizeof(address), "name:%u", server.port);
    resolve_to("127.0.0.1", false);
    unsigned slot = add(f, SLOW, "a", address), unchecked = add(f, OFF, "b", address);
    start(f);
    WAIT_UNTIL(health_of(f, slot) == VB_HEALTH_UP && health_of(f, unchecked) == VB_HEALTH_UNCHECKED);
    uint32_t incarnation = atomic_load(&row(f, slot)->incarnation);
    resolve_to(NULL, true);
    replace_thread(f);
    WAIT_UNTIL(record_of(f, slot).checks == 2); /* without an answer of the resolver */
    assert_int_equal(record_of(f, slot).failures, 0);
    assert_int_equal(record_of(f, slot).address_len, sizeof(struct sockaddr_in));
    assert_int_equal(health_of(f, unchecked), VB_HEALTH_UNCHECKED);
    assert_int_equal(atomic_load(&row(f, slot)->incarnation), incarnation);
    f->may_look_up = true; /* nothing says when an answer that changes nothing has come */
    close(server.fd);
}

static void maintenance_goes_on(void **state)
{
    struct fixture *f = *state;
    struct server server = listening();
    unsigned slot = add(f, FAST, "a", server.address), other = add(f, FAST, "b", server.address);
    start(f);
    WAIT_UNTIL(health_of(f, slot) == VB_HEALTH_UP);
    vb_shm_set_admin(f->shm, slot, VB_ADMIN_MAINT);
    vb_health_update(f->health);
    WAIT_UNTIL(says(f, slot, "in maintenance"));
    struct vb_health_record before = record_of(f, slot);
    replace_thread(f);
    wait_checks(f, other, 5);
    assert_int_equal(record_of(f, slot).checks, before.checks);
    assert_int_equal(record_of(f, slot).changed_wall_us, before.changed_wall_us);
    assert_int_equal(health_of(f, slot), VB_HEALTH_DOWN);
    vb_shm_set_admin(f->shm, slot, VB_ADMIN_READY);
    vb_health_update(f->health);
    WAIT_UNTIL(health_of(f, slot) == VB_HEALTH_UP);
    close(server.fd);
}

static void a_paused_thread_writes_nothing(void **state)
{
    struct fixture *f = *state;
    struct server server = listening();
    unsigned slot = add(f, FAST, "a", server.address);
    start(f);
    for (unsigned i = 0; i < 3; i++) {
        wait_checks(f, slot, 2);
        vb_health_pause(f->health);
        uint64_t checks = record_of(f, slot).checks;
        usleep(30000); /* three would be due */
        assert_int_equal(record_of(f, slot).checks, checks);
        vb_health_resume(f->health);
    }
    wait_checks(f, slot, 2);
    close(server.fd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(who_is_down_needs_as_many_passes_as_ever),
        TEST(who_is_up_needs_as_many_failures_as_ever),
        TEST(nobody_is_looked_at_for_the_first_time),
        TEST(who_had_no_result_yet_is_looked_at),
        TEST(what_was_known_of_another_backend_counts_for_nothing),
        TEST(the_address_of_a_name_goes_on),
        TEST(maintenance_goes_on),
        TEST(a_paused_thread_writes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
