/* The rules of a pool change while the health thread runs. */
#include "fixture.h"

/* The rules of a pool as the file has them, to be changed by the test. */
static struct vb_conf_health rules_of(const struct fixture *f, unsigned pool)
{
    return f->conf->pools[pool].health;
}

/* The thread keeps no part of what it is given. */
static void set_rules(struct fixture *f, unsigned pool, const struct vb_conf_health *rules)
{
    struct vb_conf_health given = *rules;
    given.path = rules->path != NULL ? strdup(rules->path) : NULL;
    given.host = strdup(rules->host);
    assert_int_equal(vb_health_set_rules(f->health, pool, &given), 0);
    if (given.path != NULL)
        memset(given.path, '?', strlen(given.path));
    memset(given.host, '?', strlen(given.host));
    free(given.path);
    free(given.host);
}

static void change_rules(struct fixture *f, unsigned pool, const struct vb_conf_health *rules)
{
    set_rules(f, pool, rules);
    vb_health_update(f->health);
}

/* What comes over a connection, up to the request's end, or up to the connection's. */
static void read_request(int connection, char *request, size_t size)
{
    size_t n = 0;
    request[0] = '\0';
    while (strstr(request, "\r\n\r\n") == NULL && n + 1 < size) {
        struct pollfd readable = {.fd = connection, .events = POLLIN};
        assert_int_equal(poll(&readable, 1, (int)(PATIENCE_US / 1000)), 1);
        ssize_t r = read(connection, request + n, size - n - 1);
        if (r <= 0)
            return;
        n += (size_t)r;
        request[n] = '\0';
    }
}

/* Does the next check ask for this? It is left without an answer. */
static int accept_asking(const struct server *server, const char *line)
{
    char request[1024];
    int connection = accept_one(server);
    read_request(connection, request, sizeof(request));
    assert_non_null(strstr(request, line));
    return connection;
}

static void answer_next(const struct server *server, const char *status)
{
    int connection = accept_asking(server, "GET ");
    answer_with(connection, status);
    close(connection);
}

static bool is_closed(int connection)
{
    char byte;
    struct pollfd readable = {.fd = connection, .events = POLLIN};
    return poll(&readable, 1, (int)(PATIENCE_US / 1000)) == 1 && read(connection, &byte, 1) <= 0;
}

/* Some time has passed in which the thread has followed all updates. */
static void let_it_run(struct fixture *f)
{
    struct server there = listening();
    unsigned clock = add(f, FAST, "clock", there.address);
    vb_health_update(f->health);
    wait_checks(f, clock, 5);
    vb_shm_remove_backend(f->shm, clock);
    vb_health_update(f->health);
    close(there.fd);
}

/* One that was asked once and is well. */
static unsigned add_well(struct fixture *f, const struct server *server)
{
    unsigned slot = add_as(f, HTTP, "a", server->address, VB_HEALTH_UNKNOWN);
    start(f);
    answer_next(server, "200 OK");
    WAIT_UNTIL(health_of(f, slot) == VB_HEALTH_UP);
    return slot;
}

/* ---- the same rules -----------------------------------------------------------------------------------------------*/

static void the_same_rules_change_nothing(void **state)
{
    struct fixture *f = *state;
    struct server silent = listening(), there = listening();
    struct vb_conf_health http = rules_of(f, HTTP), slow = rules_of(f, SLOW);
    unsigned asked = add_as(f, HTTP, "asked", silent.address, VB_HEALTH_UNKNOWN),
             waits = add_as(f, SLOW, "waits", there.address, VB_HEALTH_UNKNOWN);
    start(f);
    int connection = accept_asking(&silent, "GET / ");
    WAIT_UNTIL(health_of(f, waits) == VB_HEALTH_UP);
    set_rules(f, HTTP, &http);
    change_rules(f, SLOW, &slow);
    let_it_run(f);
    assert_int_equal(record_of(f, waits).checks, 1);
    answer(connection);
    WAIT_UNTIL(health_of(f, asked) == VB_HEALTH_UP); /* by the check that was under way */
    assert_int_equal(record_of(f, asked).checks, 1);
    assert_int_equal(accept_all(&silent), 0);
    close(connection);
    close(silent.fd);
    close(there.fd);
}

static void change_path(struct vb_conf_health *rules)
{
    rules->path = "/other";
}

static void change_host(struct vb_conf_health *rules)
{
    rules->host = "other";
}

static void change_interval(struct vb_conf_health *rules)
{
    rules->interval_ms--;
}

static void change_fast_interval(struct vb_conf_health *rules)
{
    rules->fast_interval_ms++;
}

static void change_timeout(struct vb_conf_health *rules)
{
    rules->timeout_ms--;
}

static void change_rise(struct vb_conf_health *rules)
{
    rules->rise++;
}

static void change_fall(struct vb_conf_health *rules)
{
    rules->fall++;
}

static void change_expect(struct vb_conf_health *rules)
{
    rules->expect[0].last--;
}

static void change_n_expect(struct vb_conf_health *rules)
{
    rules->expect[rules->n_expect++] = (struct vb_conf_status_range){404, 404};
}

static void each_rule_is_noticed(void **state)
{
    struct fixture *f = *state;
    struct server there = listening();
    struct vb_conf_health rules = rules_of(f, HTTP);
    void (*const changes[])(struct vb_conf_health * rules) = {
        change_path, change_host, change_interval, change_fast_interval, change_timeout,
        change_rise, change_fall, change_expect,   change_n_expect,
    };
    unsigned slot = add_well(f, &there);
    for (unsigned i = 0; i < VB_ARRAY_SIZE(changes); i++) {
        changes[i](&rules);
        change_rules(f, HTTP, &rules);
        answer_next(&there, "200 OK");
        WAIT_UNTIL(record_of(f, slot).checks == i + 2);
    }
    rules.port = there.port;
    change_rules(f, HTTP, &rules);
    answer_next(&there, "200 OK");
    WAIT_UNTIL(record_of(f, slot).checks == VB_ARRAY_SIZE(changes) + 2);
    rules.path = NULL;
    change_rules(f, HTTP, &rules);
    WAIT_UNTIL(record_of(f, slot).checks == VB_ARRAY_SIZE(changes) + 3); /* a connect is enough */
    assert_int_equal(record_of(f, slot).failures, 0);
    close(there.fd);
}

/* ---- other rules --------------------------------------------------------------------------------------------------*/

static void the_next_check_is_made_by_the_new_rules(void **state)
{
    struct fixture *f = *state;
    struct server there = listening(), admin = listening();
    struct vb_conf_health rules = rules_of(f, HTTP);
    unsigned slot = add_well(f, &there);
    rules.path = "/ready?really";
    rules.host = "a.example";
    change_rules(f, HTTP, &rules);
    int connection = accept_asking(&there, "GET /ready?really HTTP/1.1\r\nHost: a.example\r\n");
    answer(connection);
    WAIT_UNTIL(record_of(f, slot).checks == 2);
    close(connection);
    rules.port = admin.port;
    rules.fall = 1;
    rules.n_expect = 1;
    rules.expect[0] = (struct vb_conf_status_range){204, 204};
    change_rules(f, HTTP, &rules);
    answer_next(&admin, "200 OK");
    WAIT_UNTIL(health_of(f, slot) == VB_HEALTH_DOWN);
    assert_true(says(f, slot, "status 200, expected 204"));
    close(there.fd);
    close(admin.fd);
}

static void a_check_under_way_gets_no_verdict(void **state)
{
    struct fixture *f = *state;
    struct server there = listening();
    struct vb_conf_health rules = rules_of(f, HTTP);
    unsigned slot = add_well(f, &there);
    rules.path = "/first";
    change_rules(f, HTTP, &rules);
    int first = accept_asking(&there, "GET /first ");
    rules.path = "/second";
    change_rules(f, HTTP, &rules);
    int second = accept_asking(&there, "GET /second ");
    assert_true(is_closed(first));
    assert_int_equal(record_of(f, slot).checks, 1);
    answer(second);
    WAIT_UNTIL(record_of(f, slot).checks == 2);
    assert_int_equal(record_of(f, slot).failures, 0);
    close(first);
    close(second);
    close(there.fd);
}

/* Each change makes one check, and it is an hour to the next. */
static void what_is_known_goes_on(void **state)
{
    struct fixture *f = *state;
    struct server there = listening();
    struct vb_conf_health rules = rules_of(f, SLOW);
    unsigned slot = add_as(f, SLOW, "a", there.address, VB_HEALTH_UNKNOWN);
    start(f);
    WAIT_UNTIL(health_of(f, slot) == VB_HEALTH_UP);
    const struct vb_health_record before = record_of(f, slot);
    stop_listening(&there);
    rules.interval_ms--;
    change_rules(f, SLOW, &rules); /* fall 3: the first of them */
    WAIT_UNTIL(record_of(f, slot).checks == 2);
    assert_int_equal(health_of(f, slot), VB_HEALTH_UP);
    assert_int_equal(record_of(f, slot).changed_wall_us, before.changed_wall_us);
    rules.fall = 2;
    change_rules(f, SLOW, &rules); /* the second */
    WAIT_UNTIL(health_of(f, slot) == VB_HEALTH_DOWN);
    assert_int_equal(listen(there.fd, 1024), 0);
    rules.interval_ms--;
    change_rules(f, SLOW, &rules);
    WAIT_UNTIL(record_of(f, slot).checks == 4);
    assert_int_equal(health_of(f, slot), VB_HEALTH_DOWN); /* rise 3 */
    rules.rise = 2;
    change_rules(f, SLOW, &rules);
    WAIT_UNTIL(health_of(f, slot) == VB_HEALTH_UP);
    const struct vb_health_record after = record_of(f, slot);
    assert_int_equal(after.checks, 5);
    assert_int_equal(after.failures, 2);
    assert_int_equal(after.history, 0x13); /* 10011 */
    assert_int_equal(after.transitions, before.transitions + 2);
    close(there.fd);
}

static void another_interval(void **state)
{
    struct fixture *f = *state;
    struct server there = listening();
    struct vb_conf_health rules = rules_of(f, SLOW);
    unsigned slot = add_as(f, SLOW, "a", there.address, VB_HEALTH_UNKNOWN);
    start(f);
    WAIT_UNTIL(health_of(f, slot) == VB_HEALTH_UP);
    rules.interval_ms = 10;
    change_rules(f, SLOW, &rules);
    wait_checks(f, slot, 10);
    rules.interval_ms = 3600 * 1000;
    change_rules(f, SLOW, &rules);
    let_it_run(f);
    uint64_t checks = record_of(f, slot).checks;
    let_it_run(f);
    let_it_run(f);
    assert_int_equal(record_of(f, slot).checks, checks);
    close(there.fd);
}

/* Checks of several backends are under way by the old time when the new one comes, and the other way round. */
static void another_timeout(void **state)
{
    struct fixture *f = *state;
    struct server silent = listening();
    struct vb_conf_health rules = rules_of(f, HTTP);
    unsigned slots[] = {add_as(f, HTTP, "a", silent.address, VB_HEALTH_UNKNOWN),
                        add_as(f, HTTP, "b", silent.address, VB_HEALTH_UNKNOWN)};
    int connections[4];
    start(f);
    for (unsigned i = 0; i < 2; i++)
        connections[i] = accept_asking(&silent, "GET / ");
    rules.timeout_ms = 50;
    change_rules(f, HTTP, &rules);
    for (unsigned i = 0; i < 2; i++) {
        WAIT_UNTIL(health_of(f, slots[i]) == VB_HEALTH_DOWN);
        assert_true(says(f, slots[i], "timeout after 50ms"));
        assert_int_equal(record_of(f, slots[i]).checks, 1);
        assert_true(is_closed(connections[i]));
    }
    assert_int_equal(accept_all(&silent), 2);
    rules.timeout_ms = 3600 * 1000;
    change_rules(f, HTTP, &rules);
    for (unsigned i = 2; i < 4; i++)
        connections[i] = accept_asking(&silent, "GET / ");
    uint64_t begun = vb_clock_us();
    WAIT_UNTIL(vb_clock_us() - begun > 60000); /* the old time is over */
    let_it_run(f);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(record_of(f, slots[i]).checks, 1);
    for (unsigned i = 0; i < 4; i++)
        close(connections[i]);
    close(silent.fd);
}

static void the_last_of_several_holds(void **state)
{
    struct fixture *f = *state;
    struct server there = listening();
    struct vb_conf_health rules = rules_of(f, HTTP);
    unsigned slot = add_well(f, &there);
    rules.path = "/never";
    set_rules(f, HTTP, &rules);
    rules.path = "/last";
    change_rules(f, HTTP, &rules);
    int connection = accept_asking(&there, "GET /last ");
    answer(connection);
    WAIT_UNTIL(record_of(f, slot).checks == 2);
    close(connection);
    close(there.fd);
}

/* The threads meet again and again; nothing is lost, and what was set last holds. */
static void rules_that_change_all_the_time(void **state)
{
    struct fixture *f = *state;
    struct server there = listening();
    struct vb_conf_health rules = rules_of(f, FAST);
    unsigned slot = add_as(f, FAST, "a", there.address, VB_HEALTH_UNKNOWN);
    start(f);
    for (unsigned i = 0; i < 500; i++) {
        rules.timeout_ms = 5000 + i;
        rules.enabled = i % 3 != 0;
        change_rules(f, FAST, &rules);
    }
    rules.enabled = true;
    change_rules(f, FAST, &rules);
    WAIT_UNTIL(vb_health_has_looked(f->health));
    wait_checks(f, slot, 3);
    assert_int_equal(health_of(f, slot), VB_HEALTH_UP);
    assert_int_equal(record_of(f, slot).failures, 0);
    stop_listening(&there);
    WAIT_UNTIL(health_of(f, slot) == VB_HEALTH_DOWN);
    close(there.fd);
}

/* ---- off and on ---------------------------------------------------------------------------------------------------*/

static void without_checks_all_are_served(void **state)
{
    struct fixture *f = *state;
    struct server silent = listening();
    struct vb_conf_health off = rules_of(f, OFF);
    unsigned ill = add_as(f, HTTP, "ill", silent.address, VB_HEALTH_UNKNOWN);
    start(f);
    answer_next(&silent, "503 No");
    WAIT_UNTIL(health_of(f, ill) == VB_HEALTH_DOWN);
    unsigned asked = add(f, HTTP, "asked", silent.address);
    vb_health_update(f->health);
    int connection = accept_asking(&silent, "GET / ");
    change_rules(f, HTTP, &off);
    WAIT_UNTIL(health_of(f, ill) == VB_HEALTH_UNCHECKED && health_of(f, asked) == VB_HEALTH_UNCHECKED);
    assert_true(is_closed(connection));
    WAIT_UNTIL(vb_health_has_looked(f->health));
    assert_true(says(f, ill, "")); /* as if it had never been checked */
    assert_int_equal(record_of(f, ill).failures, 0);
    assert_int_equal(record_of(f, ill).address_len, sizeof(struct sockaddr_in));
    accept_all(&silent);
    let_it_run(f);
    assert_int_equal(accept_all(&silent), 0);
    assert_int_equal(health_of(f, asked), VB_HEALTH_UNCHECKED);
    close(connection);
    close(silent.fd);
}

/* Where a backend is must be known even where checks are off. */
static void without_checks_a_name_must_resolve(void **state)
{
    struct fixture *f = *state;
    struct server there = listening();
    struct vb_conf_health off = rules_of(f, OFF);
    char address[32];
    snprintf(address, sizeof(address), "name:%u", there.port);
    unsigned slot = add_as(f, SLOW, "a", address, VB_HEALTH_UNKNOWN);
    resolve_to("127.0.0.1", true);
    start(f);
    WAIT_UNTIL(times_asked() > 0);
    change_rules(f, SLOW, &off);
    let_it_run(f);
    assert_int_equal(health_of(f, slot), VB_HEALTH_DOWN);
    assert_true(says(f, slot, "its name has not been resolved yet"));
    resolve_to("127.0.0.1", false); /* the look-up of the check that was under way */
    WAIT_UNTIL(health_of(f, slot) == VB_HEALTH_UNCHECKED);
    close(there.fd);
}

static void who_rests_goes_on_resting(void **state)
{
    struct fixture *f = *state;
    struct server there = listening();
    struct vb_conf_health off = rules_of(f, OFF), on = rules_of(f, SLOW);
    unsigned slot = add_as(f, SLOW, "a", there.address, VB_HEALTH_UNKNOWN);
    start(f);
    WAIT_UNTIL(health_of(f, slot) == VB_HEALTH_UP);
    vb_shm_set_admin(f->shm, slot, VB_ADMIN_MAINT);
    vb_health_update(f->health);
    WAIT_UNTIL(health_of(f, slot) == VB_HEALTH_DOWN);
    accept_all(&there);
    change_rules(f, SLOW, &off);
    WAIT_UNTIL(vb_health_has_looked(f->health));
    assert_int_equal(health_of(f, slot), VB_HEALTH_DOWN);
    change_rules(f, SLOW, &on);
    on.rise++;
    change_rules(f, SLOW, &on);
    let_it_run(f);
    assert_int_equal(health_of(f, slot), VB_HEALTH_DOWN);
    assert_true(says(f, slot, "in maintenance"));
    assert_int_equal(accept_all(&there), 0);
    change_rules(f, SLOW, &off);
    vb_shm_set_admin(f->shm, slot, VB_ADMIN_READY);
    vb_health_update(f->health);
    WAIT_UNTIL(health_of(f, slot) == VB_HEALTH_UNCHECKED);
    close(there.fd);
}

static void with_checks_the_first_result_decides(void **state)
{
    struct fixture *f = *state;
    struct server well = listening(), ill = listening();
    struct vb_conf_health on = rules_of(f, HTTP);
    unsigned a = add_as(f, OFF, "a", well.address, VB_HEALTH_UNCHECKED),
             b = add_as(f, OFF, "b", ill.address, VB_HEALTH_UNCHECKED);
    start(f);
    WAIT_UNTIL(vb_health_has_looked(f->health));
    change_rules(f, OFF, &on);
    int first = accept_asking(&well, "GET / "), second = accept_asking(&ill, "GET / ");
    assert_int_equal(health_of(f, a), VB_HEALTH_UNKNOWN); /* which is served */
    assert_int_equal(health_of(f, b), VB_HEALTH_UNKNOWN);
    assert_false(vb_health_has_looked(f->health));
    answer(first);
    answer_with(second, "503 No");
    WAIT_UNTIL(health_of(f, a) == VB_HEALTH_UP);
    WAIT_UNTIL(health_of(f, b) == VB_HEALTH_DOWN);
    assert_int_equal(record_of(f, a).checks, 1);
    assert_int_equal(record_of(f, b).checks, 1);
    WAIT_UNTIL(vb_health_has_looked(f->health));
    close(first);
    close(second);
    close(well.fd);
    close(ill.fd);
}

/* ---- pools come and go --------------------------------------------------------------------------------------------*/

static void a_pool_that_comes_has_its_own_rules(void **state)
{
    struct fixture *f = *state;
    struct server there = listening();
    struct vb_conf_health rules = rules_of(f, HTTP);
    start(f);
    int pool = vb_shm_add_pool(f->shm, &(struct vb_pool_spec){"new", "round_robin", 0, 50});
    assert_true(pool >= 0);
    rules.path = "/new";
    set_rules(f, (unsigned)pool, &rules);
    unsigned slot = add_as(f, (unsigned)pool, "a", there.address, VB_HEALTH_UNKNOWN);
    vb_health_update(f->health);
    int connection = accept_asking(&there, "GET /new ");
    answer(connection);
    WAIT_UNTIL(health_of(f, slot) == VB_HEALTH_UP);
    close(connection);
    close(there.fd);
}

/* One slot of a pool, one of a backend: both are another's from one update to the next, in the middle of a check. */
static void a_pool_slot_that_another_has_now(void **state)
{
    struct fixture *f = *state;
    struct server gone = listening(), there = listening();
    struct vb_conf_health rules = rules_of(f, HTTP);
    unsigned slot = add_as(f, HTTP, "a", gone.address, VB_HEALTH_UNKNOWN);
    start(f);
    int old = accept_asking(&gone, "GET / ");
    vb_shm_remove_backend(f->shm, slot);
    rules.path = "/another";
    rules.timeout_ms = 10000;
    set_rules(f, HTTP, &rules);
    assert_int_equal(add(f, HTTP, "b", there.address), slot);
    vb_health_update(f->health);
    int connection = accept_asking(&there, "GET /another ");
    assert_true(is_closed(old));
    assert_int_equal(health_of(f, slot), VB_HEALTH_DOWN);
    answer(connection);
    WAIT_UNTIL(health_of(f, slot) == VB_HEALTH_UP);
    assert_int_equal(record_of(f, slot).checks, 1);
    assert_int_equal(accept_all(&gone), 0);
    close(old);
    close(connection);
    close(gone.fd);
    close(there.fd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_same_rules_change_nothing),
        TEST(each_rule_is_noticed),
        TEST(the_next_check_is_made_by_the_new_rules),
        TEST(a_check_under_way_gets_no_verdict),
        TEST(what_is_known_goes_on),
        TEST(another_interval),
        TEST(another_timeout),
        TEST(the_last_of_several_holds),
        TEST(rules_that_change_all_the_time),
        TEST(without_checks_all_are_served),
        TEST(without_checks_a_name_must_resolve),
        TEST(who_rests_goes_on_resting),
        TEST(with_checks_the_first_result_decides),
        TEST(a_pool_that_comes_has_its_own_rules),
        TEST(a_pool_slot_that_another_has_now),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
