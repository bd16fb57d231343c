/* The health thread follows the segment: backends come, go, change places, and rest. */
#include "fixture.h"

/* ---- who comes ----------------------------------------------------------------------------------------------------*/

static void one_that_comes_is_probed_at_once(void **state)
{
    struct fixture *f = *state;
    struct server well = listening(), ill = bound("127.0.0.1", 0);
    start(f);
    unsigned a = add(f, SLOW, "a", well.address), b = add(f, SLOW, "b", ill.address);
    vb_health_update(f->health);
    WAIT_UNTIL(health_of(f, a) == VB_HEALTH_UP); /* the first result alone decides: another comes in an hour */
    WAIT_UNTIL(says(f, b, "connection refused"));
    assert_int_equal(health_of(f, b), VB_HEALTH_DOWN);
    assert_int_equal(record_of(f, a).checks, 1);
    assert_int_equal(record_of(f, b).checks, 1);
    assert_string_equal(record_of(f, a).reason, "");
    close(well.fd);
    close(ill.fd);
}

static void one_that_comes_is_down_until_its_first_result(void **state)
{
    struct fixture *f = *state;
    struct server silent = listening();
    start(f);
    unsigned slot = add(f, HTTP, "a", silent.address);
    vb_health_update(f->health);
    int connection = accept_one(&silent);
    assert_int_equal(health_of(f, slot), VB_HEALTH_DOWN);
    assert_true(says(f, slot, "not checked yet"));
    assert_int_equal(record_of(f, slot).address_len, sizeof(struct sockaddr_in));
    answer(connection);
    WAIT_UNTIL(health_of(f, slot) == VB_HEALTH_UP);
    assert_true(says(f, slot, "")); /* it has never failed */
    close(connection);
    close(silent.fd);
}

static void one_that_is_trusted_is_used_before_its_first_result(void **state)
{
    struct fixture *f = *state;
    struct server silent[] = {listening(), listening(), listening()};
    static const enum vb_health_state taken_for[] = {VB_HEALTH_UNKNOWN, VB_HEALTH_UNKNOWN, VB_HEALTH_UNCHECKED};
    for (unsigned i = 0; i < 3; i++) { /* at the start, and later */
        char name[] = {(char)('a' + i), '\0'};
        unsigned slot = add_as(f, HTTP, name, silent[i].address, taken_for[i]);
        if (i == 0)
            start(f);
        else
            vb_health_update(f->health);
        int connection = accept_one(&silent[i]);
        assert_int_equal(health_of(f, slot), VB_HEALTH_UNKNOWN);
        assert_true(says(f, slot, ""));
        answer_with(connection, "503 No");
        WAIT_UNTIL(health_of(f, slot) == VB_HEALTH_DOWN); /* the first result alone decides */
        assert_int_equal(record_of(f, slot).checks, 1);
        close(connection);
        close(silent[i].fd);
    }
}

static void one_that_is_trusted_is_down_until_its_name_resolves(void **state)
{
    struct fixture *f = *state;
    resolve_to("127.0.0.1", true);
    start(f);
    unsigned slot = add_as(f, HTTP, "a", "name:1", VB_HEALTH_UNKNOWN);
    vb_health_update(f->health);
    WAIT_UNTIL(health_of(f, slot) == VB_HEALTH_DOWN);
    assert_true(says(f, slot, "its name has not been resolved yet"));
    resolve_to("127.0.0.1", false);
    WAIT_UNTIL(says(f, slot, "connection refused"));
}

static void a_name_is_down_until_it_resolves(void **state)
{
    struct fixture *f = *state;
    struct server there = listening();
    char address[32];
    snprintf(address, sizeof(address), "name:%u", there.port);
    resolve_to("127.0.0.1", true);
    start(f);
    unsigned checked = add(f, SLOW, "a", address), unchecked = add(f, OFF, "b", address);
    vb_health_update(f->health);
    WAIT_UNTIL(says(f, checked, "its name has not been resolved yet"));
    WAIT_UNTIL(says(f, unchecked, "its name has not been resolved yet"));
    assert_int_equal(health_of(f, checked), VB_HEALTH_DOWN);
    assert_int_equal(health_of(f, unchecked), VB_HEALTH_DOWN);
    resolve_to("127.0.0.1", false);
    WAIT_UNTIL(health_of(f, checked) == VB_HEALTH_UP);
    WAIT_UNTIL(health_of(f, unchecked) == VB_HEALTH_UNCHECKED);
    close(there.fd);
}

static void without_checks_an_address_is_used_at_once(void **state)
{
    struct fixture *f = *state;
    struct server nobody = bound("127.0.0.1", 0);
    start(f);
    unsigned slot = add(f, OFF, "a", nobody.address);
    vb_health_update(f->health);
    WAIT_UNTIL(health_of(f, slot) == VB_HEALTH_UNCHECKED);
    assert_int_equal(record_of(f, slot).address_len, sizeof(struct sockaddr_in));
    close(nobody.fd);
}

static void one_that_cannot_be_checked_is_down(void **state)
{
    struct fixture *f = *state;
    struct server there = listening();
    start(f);
    unsigned bad = add_as(f, SLOW, "bad", "no address", VB_HEALTH_UNKNOWN), good = add(f, SLOW, "good", there.address);
    vb_health_update(f->health);
    WAIT_UNTIL(health_of(f, good) == VB_HEALTH_UP);
    assert_int_equal(health_of(f, bad), VB_HEALTH_DOWN);
    assert_true(says(f, bad, "it cannot be checked: invalid argument"));
    vb_shm_remove_backend(f->shm, bad);
    assert_int_equal(add(f, SLOW, "mended", there.address), bad);
    vb_health_update(f->health);
    WAIT_UNTIL(health_of(f, bad) == VB_HEALTH_UP);
    close(there.fd);
}

/* ---- who goes -----------------------------------------------------------------------------------------------------*/

static void one_that_went_is_not_probed(void **state)
{
    struct fixture *f = *state;
    struct server gone = listening(), there = listening();
    unsigned a = add_as(f, FAST, "gone", gone.address, VB_HEALTH_UNKNOWN);
    start(f);
    wait_checks(f, a, 3);
    unsigned b = add(f, FAST, "there", there.address);
    vb_shm_remove_backend(f->shm, a);
    vb_health_update(f->health);
    wait_checks(f, b, 1); /* now the thread knows */
    accept_all(&gone);
    uint64_t before = record_of(f, a).checks;
    wait_checks(f, b, 10);
    assert_int_equal(accept_all(&gone), 0);
    assert_int_equal(record_of(f, a).checks, before);
    close(gone.fd);
    close(there.fd);
}

static void a_slot_that_another_has_now_is_the_others(void **state)
{
    struct fixture *f = *state;
    struct server gone = listening(), there = listening();
    unsigned slot = add_as(f, FAST, "gone", gone.address, VB_HEALTH_UNKNOWN);
    start(f);
    wait_checks(f, slot, 3);
    vb_shm_remove_backend(f->shm, slot);
    assert_int_equal(add(f, SLOW, "there", there.address), slot);
    vb_health_update(f->health);
    WAIT_UNTIL(health_of(f, slot) == VB_HEALTH_UP);
    accept_all(&gone);
    unsigned other = add(f, FAST, "other", there.address);
    vb_health_update(f->health);
    wait_checks(f, other, 10);
    assert_int_equal(accept_all(&gone), 0);
    assert_int_equal(record_of(f, slot).checks, 1);
    const struct vb_health_record record = record_of(f, slot);
    assert_int_equal(ntohs(((const struct sockaddr_in *)&record.address)->sin_port), there.port);
    close(gone.fd);
    close(there.fd);
}

/* The master has changed the slot in the middle of a probe, and the thread has not looked yet. */
static void a_late_result_is_not_written_into_the_row_of_another(void **state)
{
    struct fixture *f = *state;
    struct server silent = listening(), there = listening();
    unsigned slot = add_as(f, HTTP, "gone", silent.address, VB_HEALTH_UNKNOWN),
             clock = add_as(f, FAST, "clock", there.address, VB_HEALTH_UNKNOWN);
    start(f);
    int connection = accept_one(&silent);
    vb_shm_remove_backend(f->shm, slot);
    assert_int_equal(add(f, HTTP, "other", silent.address), slot);
    answer(connection);
    char end;
    struct pollfd closed = {.fd = connection, .events = POLLIN};
    do { /* the request, and then the end: the probe is over */
        assert_int_equal(poll(&closed, 1, (int)(PATIENCE_US / 1000)), 1);
    } while (read(connection, &end, 1) > 0);
    wait_checks(f, clock, 3);
    assert_int_equal(health_of(f, slot), VB_HEALTH_DOWN);
    assert_int_equal(record_of(f, slot).checks, 0);
    close(connection);
    close(silent.fd);
    close(there.fd);
}

/* What the resolver holds is freed when it lets go, and no answer of it reaches the slot's next backend. */
static void one_whose_name_is_being_resolved_goes(void **state)
{
    struct fixture *f = *state;
    struct server there = listening();
    unsigned slots[40];
    char name[16], address[32];
    resolve_to("127.0.0.1", true);
    start(f);
    unsigned before = times_asked();
    for (unsigned i = 0; i < VB_ARRAY_SIZE(slots); i++) { /* more than the resolver takes at a time: some wait */
        snprintf(name, sizeof(name), "b%u", i);
        snprintf(address, sizeof(address), "name:%u", there.port);
        slots[i] = add(f, SLOW, name, address);
    }
    vb_health_update(f->health);
    WAIT_UNTIL(times_asked() >= before + 4);
    for (unsigned i = 0; i < VB_ARRAY_SIZE(slots); i++)
        vb_shm_remove_backend(f->shm, slots[i]);
    unsigned other = add(f, SLOW, "other", there.address);
    assert_int_equal(other, slots[0]);
    vb_health_update(f->health);
    WAIT_UNTIL(health_of(f, other) == VB_HEALTH_UP);
    resolve_to(NULL, false);
    unsigned last = add(f, FAST, "last", "name:1");
    vb_health_update(f->health);
    wait_checks(f, last, 3);
    assert_int_equal(health_of(f, other), VB_HEALTH_UP);
    assert_int_equal(record_of(f, other).checks, 1);
    close(there.fd);
}

/* ---- who rests ----------------------------------------------------------------------------------------------------*/

static void set_admin(struct fixture *f, unsigned slot, enum vb_admin_state admin)
{
    vb_shm_set_admin(f->shm, slot, admin);
    vb_health_update(f->health);
}

static void in_maintenance_nothing_is_probed(void **state)
{
    struct fixture *f = *state;
    struct server resting = listening(), there = listening();
    unsigned a = add_as(f, FAST, "resting", resting.address, VB_HEALTH_UNKNOWN),
             b = add_as(f, FAST, "there", there.address, VB_HEALTH_UNKNOWN);
    start(f);
    WAIT_UNTIL(health_of(f, a) == VB_HEALTH_UP);
    uint64_t since = record_of(f, a).changed_wall_us;
    set_admin(f, a, VB_ADMIN_MAINT);
    WAIT_UNTIL(health_of(f, a) == VB_HEALTH_DOWN);
    assert_true(says(f, a, "in maintenance"));
    assert_true(record_of(f, a).changed_wall_us > since);
    accept_all(&resting);
    uint64_t before = record_of(f, a).checks;
    wait_checks(f, b, 10);
    assert_int_equal(accept_all(&resting), 0);
    assert_int_equal(record_of(f, a).checks, before);
    set_admin(f, a, VB_ADMIN_READY);
    WAIT_UNTIL(health_of(f, a) == VB_HEALTH_UP);
    assert_true(says(f, a, ""));
    wait_checks(f, a, 3);
    close(resting.fd);
    close(there.fd);
}

static void after_maintenance_the_first_result_decides(void **state)
{
    struct fixture *f = *state;
    struct server well = listening(), ill = listening();
    unsigned a = add_as(f, SLOW, "a", well.address, VB_HEALTH_UNKNOWN),
             b = add_as(f, SLOW, "b", ill.address, VB_HEALTH_UNKNOWN);
    start(f);
    WAIT_UNTIL(health_of(f, a) == VB_HEALTH_UP && health_of(f, b) == VB_HEALTH_UP);
    set_admin(f, a, VB_ADMIN_MAINT);
    set_admin(f, b, VB_ADMIN_MAINT);
    WAIT_UNTIL(says(f, a, "in maintenance") && says(f, b, "in maintenance"));
    stop_listening(&ill);
    set_admin(f, a, VB_ADMIN_READY);
    set_admin(f, b, VB_ADMIN_READY);
    WAIT_UNTIL(health_of(f, a) == VB_HEALTH_UP);
    WAIT_UNTIL(says(f, b, "connection refused"));
    assert_int_equal(health_of(f, b), VB_HEALTH_DOWN);
    assert_int_equal(record_of(f, a).checks, 2);
    assert_int_equal(record_of(f, b).checks, 2);
    close(well.fd);
    close(ill.fd);
}

static void maintenance_without_checks(void **state)
{
    struct fixture *f = *state;
    struct server there = listening();
    char name[32];
    snprintf(name, sizeof(name), "name:%u", there.port);
    unsigned slots[] = {add_as(f, OFF, "a", there.address, VB_HEALTH_UNCHECKED),
                        add_as(f, OFF, "b", name, VB_HEALTH_UNCHECKED)};
    resolve_to("127.0.0.1", true);
    start(f);
    unsigned before = times_asked();
    WAIT_UNTIL(times_asked() > before || says(f, slots[1], "its name has not been resolved yet"));
    for (unsigned i = 0; i < 2; i++) {
        set_admin(f, slots[i], VB_ADMIN_MAINT);
        WAIT_UNTIL(says(f, slots[i], "in maintenance"));
        assert_int_equal(health_of(f, slots[i]), VB_HEALTH_DOWN);
    }
    set_admin(f, slots[0], VB_ADMIN_READY);
    WAIT_UNTIL(health_of(f, slots[0]) == VB_HEALTH_UNCHECKED);
    set_admin(f, slots[1], VB_ADMIN_READY); /* the look-up of before is still under way */
    WAIT_UNTIL(says(f, slots[1], "its name has not been resolved yet"));
    assert_int_equal(health_of(f, slots[1]), VB_HEALTH_DOWN);
    resolve_to("127.0.0.1", false);
    WAIT_UNTIL(health_of(f, slots[1]) == VB_HEALTH_UNCHECKED);
    close(there.fd);
}

static void a_drained_backend_is_checked_as_before(void **state)
{
    struct fixture *f = *state;
    struct server there = listening();
    unsigned a = add_as(f, FAST, "a", there.address, VB_HEALTH_UNKNOWN);
    start(f);
    WAIT_UNTIL(health_of(f, a) == VB_HEALTH_UP);
    set_admin(f, a, VB_ADMIN_DRAIN);
    wait_checks(f, a, 5);
    assert_int_equal(health_of(f, a), VB_HEALTH_UP);
    stop_listening(&there);
    WAIT_UNTIL(health_of(f, a) == VB_HEALTH_DOWN);
    close(there.fd);
}

/* ---- the first look -----------------------------------------------------------------------------------------------*/

static void with_nothing_to_look_at_each_update_is_answered(void **state)
{
    struct fixture *f = *state;
    assert_false(vb_health_has_looked(f->health));
    start(f);
    WAIT_UNTIL(f->looks == 1);
    assert_true(vb_health_has_looked(f->health));
    for (unsigned i = 2; i < 20; i++) {
        vb_health_update(f->health);
        WAIT_UNTIL(f->looks == i && vb_health_has_looked(f->health));
    }
}

static void who_is_there_is_waited_for(void **state)
{
    struct fixture *f = *state;
    struct server silent = listening(), there = listening();
    add_as(f, HTTP, "a", silent.address, VB_HEALTH_UNKNOWN);
    start(f);
    int first = accept_one(&silent);
    unsigned late = add_as(f, HTTP, "late", silent.address, VB_HEALTH_UNKNOWN),
             clock = add(f, FAST, "clock", there.address);
    vb_shm_set_admin(f->shm, late, VB_ADMIN_DRAIN); /* of a configuration that is still being tried */
    vb_health_update(f->health);
    int second = accept_one(&silent);
    wait_checks(f, clock, 3);
    answer(first);
    wait_checks(f, clock, 3);
    assert_int_equal(f->looks, 0);
    assert_false(vb_health_has_looked(f->health));
    answer(second);
    WAIT_UNTIL(f->looks == 1);
    assert_true(vb_health_has_looked(f->health));
    vb_health_update(f->health); /* each further one is answered too */
    WAIT_UNTIL(f->looks == 2 && vb_health_has_looked(f->health));
    close(first);
    close(second);
    close(silent.fd);
    close(there.fd);
}

/* One that went, one that rests, and one that cannot be checked. */
static void nobody_waits_for_a_result_that_will_not_come(void **state)
{
    struct fixture *f = *state;
    struct server silent = listening();
    unsigned gone = add_as(f, HTTP, "gone", silent.address, VB_HEALTH_UNKNOWN),
             resting = add_as(f, HTTP, "resting", silent.address, VB_HEALTH_UNKNOWN);
    start(f);
    close(accept_one(&silent)); /* a failure: that is a result too */
    close(accept_one(&silent));
    WAIT_UNTIL(f->looks == 1);
    vb_shm_remove_backend(f->shm, gone);
    unsigned other = add(f, HTTP, "other", silent.address);
    vb_health_update(f->health);
    int connection = accept_one(&silent);
    vb_shm_remove_backend(f->shm, other);
    add(f, HTTP, "bad", "no address");
    vb_health_update(f->health);
    WAIT_UNTIL(f->looks == 2 && vb_health_has_looked(f->health));
    set_admin(f, resting, VB_ADMIN_MAINT);
    WAIT_UNTIL(f->looks == 3 && vb_health_has_looked(f->health));
    close(connection);
    close(silent.fd);
}

/* After it nothing is known. */
static void who_comes_back_from_maintenance_is_waited_for(void **state)
{
    struct fixture *f = *state;
    struct server silent = listening(), there = listening();
    unsigned a = add_as(f, HTTP, "a", silent.address, VB_HEALTH_UNKNOWN);
    start(f);
    int connection = accept_one(&silent);
    set_admin(f, a, VB_ADMIN_MAINT);
    WAIT_UNTIL(f->looks == 1 && vb_health_has_looked(f->health));
    close(connection);
    set_admin(f, a, VB_ADMIN_READY);
    connection = accept_one(&silent);
    assert_int_equal(f->looks, 1);
    answer(connection);
    WAIT_UNTIL(f->looks == 2 && vb_health_has_looked(f->health));
    close(connection);
    close(silent.fd);
    close(there.fd);
}

/* ---- beginning and end --------------------------------------------------------------------------------------------*/

static void what_was_never_started_can_be_stopped(void **state)
{
    struct fixture *f = *state;
    vb_health_update(f->health);
    assert_true(vb_health_stop(&f->health));
    assert_null(f->health);
    assert_true(vb_health_stop(&f->health));
}

static void what_could_not_start_can_be_stopped(void **state)
{
    struct fixture *f = *state;
    add_as(f, SLOW, "good", "127.0.0.1:1", VB_HEALTH_UNKNOWN);
    add_as(f, SLOW, "bad", "no address", VB_HEALTH_UNKNOWN);
    assert_int_equal(vb_health_start(f->health), -EINVAL);
    assert_true(vb_health_stop(&f->health));
    assert_int_equal(f->looks, 0);
}

/* ---- what else a result does --------------------------------------------------------------------------------------*/

static void set_findings(struct vb_shm_backend *backend)
{
    backend->failures = 3;
    backend->ejected_until_us = UINT64_MAX;
    backend->announced_idle_ms = 5000;
    backend->learned_idle_ms = 700;
}

static void who_comes_up_again_is_forgiven(void **state)
{
    struct fixture *f = *state;
    struct server there = listening();
    unsigned slot = add_as(f, FAST, "a", there.address, VB_HEALTH_UNKNOWN);
    set_findings(row(f, slot));
    start(f);
    WAIT_UNTIL(health_of(f, slot) == VB_HEALTH_UP);
    assert_true(vb_shm_backend_ejected(row(f, slot), vb_clock_us())); /* it was not down: requests know better */
    assert_int_equal(row(f, slot)->learned_idle_ms, 700);
    stop_listening(&there);
    WAIT_UNTIL(health_of(f, slot) == VB_HEALTH_DOWN);
    assert_true(vb_shm_backend_ejected(row(f, slot), vb_clock_us()));
    assert_int_equal(listen(there.fd, 1024), 0);
    WAIT_UNTIL(health_of(f, slot) == VB_HEALTH_UP);
    assert_false(vb_shm_backend_ejected(row(f, slot), vb_clock_us()));
    assert_int_equal(row(f, slot)->announced_idle_ms, 0);
    assert_int_equal(row(f, slot)->learned_idle_ms, 0);
    close(there.fd);
}

static in_addr_t address_of(const struct fixture *f, unsigned slot)
{
    const struct vb_health_record record = record_of(f, slot);
    return ((const struct sockaddr_in *)&record.address)->sin_addr.s_addr;
}

/* The last address is as good as any: a resolver that is down takes no backend away. */
static void a_name_that_resolves_no_more_keeps_its_address(void **state)
{
    struct fixture *f = *state;
    struct server there = listening();
    char address[32];
    snprintf(address, sizeof(address), "name:%u", there.port);
    resolve_to("127.0.0.1", false);
    unsigned slot = add_as(f, FAST, "a", address, VB_HEALTH_UNKNOWN);
    start(f);
    WAIT_UNTIL(health_of(f, slot) == VB_HEALTH_UP);
    resolve_to(NULL, false);
    stop_listening(&there);
    WAIT_UNTIL(health_of(f, slot) == VB_HEALTH_DOWN);
    unsigned before = times_asked();
    WAIT_UNTIL(times_asked() > before + 3); /* in doubt the name is looked up with each check */
    WAIT_UNTIL(says(f, slot, "connection refused"));
    assert_int_equal(address_of(f, slot), inet_addr("127.0.0.1"));
    assert_int_equal(listen(there.fd, 1024), 0);
    WAIT_UNTIL(health_of(f, slot) == VB_HEALTH_UP);
    close(there.fd);
}

/* A move makes the slot's incarnation grow; that is no other backend. */
static void a_name_that_moves_is_still_the_same_backend(void **state)
{
    struct fixture *f = *state;
    struct server before = listening(), after = bound("127.0.0.2", before.port);
    char address[32];
    snprintf(address, sizeof(address), "name:%u", before.port);
    resolve_to("127.0.0.1", false);
    unsigned slot = add_as(f, FAST, "a", address, VB_HEALTH_UNKNOWN);
    start(f);
    WAIT_UNTIL(health_of(f, slot) == VB_HEALTH_UP);
    uint32_t incarnation = row(f, slot)->incarnation;
    assert_int_equal(listen(after.fd, 1024), 0);
    resolve_to("127.0.0.2", false);
    stop_listening(&before);
    WAIT_UNTIL(address_of(f, slot) == inet_addr("127.0.0.2"));
    assert_int_equal(row(f, slot)->incarnation, incarnation + 1);
    wait_checks(f, slot, 20);
    uint64_t checks = record_of(f, slot).checks;
    unsigned clock = add(f, FAST, "clock", address);
    vb_health_update(f->health);
    wait_checks(f, clock, 3);
    assert_true(record_of(f, slot).checks >= checks); /* not begun anew */
    assert_int_equal(health_of(f, slot), VB_HEALTH_UP);
    close(before.fd);
    close(after.fd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(one_that_comes_is_probed_at_once),
        TEST(one_that_comes_is_down_until_its_first_result),
        TEST(one_that_is_trusted_is_used_before_its_first_result),
        TEST(one_that_is_trusted_is_down_until_its_name_resolves),
        TEST(a_name_is_down_until_it_resolves),
        TEST(without_checks_an_address_is_used_at_once),
        TEST(one_that_cannot_be_checked_is_down),
        TEST(one_that_went_is_not_probed),
        TEST(a_slot_that_another_has_now_is_the_others),
        TEST(a_late_result_is_not_written_into_the_row_of_another),
        TEST(one_whose_name_is_being_resolved_goes),
        TEST(in_maintenance_nothing_is_probed),
        TEST(after_maintenance_the_first_result_decides),
        TEST(maintenance_without_checks),
        TEST(a_drained_backend_is_checked_as_before),
        TEST(with_nothing_to_look_at_each_update_is_answered),
        TEST(who_is_there_is_waited_for),
        TEST(nobody_waits_for_a_result_that_will_not_come),
        TEST(who_comes_back_from_maintenance_is_waited_for),
        TEST(what_was_never_started_can_be_stopped),
        TEST(what_could_not_start_can_be_stopped),
        TEST(who_comes_up_again_is_forgiven),
        TEST(a_name_that_resolves_no_more_keeps_its_address),
        TEST(a_name_that_moves_is_still_the_same_backend),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
