/* How long a backend keeps an idle connection: what it says, and what it is seen to do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "keepalive.h"

static struct vb_shm_backend backend;
static struct vb_idle_closes closes;
static struct vb_head head;

static int setup(void **state)
{
    memset(&backend, 0, sizeof(backend));
    memset(&closes, 0, sizeof(closes));
    return 0;
}

static void hear(const char *fields)
{
    static const struct vb_head_limits limits = {4096, 20};
    char bytes[512];
    struct vb_refusal refusal;
    int n = snprintf(bytes, sizeof(bytes), "HTTP/1.1 200 OK\r\n%s\r\n", fields);
    assert_int_equal(vb_h1_parse_response(bytes, (size_t)n, &limits, false, &head, &refusal), n);
    vb_keepalive_heard(&backend, &head);
}

static void nothing_is_known_at_first(void **state)
{
    assert_true(vb_keepalive_limit_ms(&backend) == UINT64_MAX);
    hear("Content-Length: 0\r\n");
    assert_true(vb_keepalive_limit_ms(&backend) == UINT64_MAX);
}

static void what_it_says_is_obeyed(void **state)
{
    static const struct {
        const char *fields;
        uint64_t limit;
    } cases[] = {
        {"Keep-Alive: timeout=5\r\n", 4000},
        {"keep-alive: TIMEOUT=60, max=100\r\n", 59000},
        {"Keep-Alive: max=100, timeout=2\r\n", 1500},
        {"Keep-Alive: timeout=1\r\n", 750},
        {"Keep-Alive: timeout=0\r\n", 1},
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        hear(cases[i].fields);
        assert_int_equal(vb_keepalive_limit_ms(&backend), cases[i].limit);
    }
}

static void what_makes_no_sense_is_not_heard(void **state)
{
    static const char *const fields[] = {
        "Keep-Alive: timeout=\r\n",
        "Keep-Alive: timeout=-5\r\n",
        "Keep-Alive: timeout=5s\r\n",
        "Keep-Alive: timeout=99999999999999999999\r\n",
        "Keep-Alive: timeout\r\n",
        "Keep-Alive: mytimeout=5\r\n",
        "Keep-Alive:\r\n",
        "Keep-Alive: timeout = 5\r\n",
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(fields); i++) {
        hear(fields[i]);
        assert_true(vb_keepalive_limit_ms(&backend) == UINT64_MAX);
    }
}

static void three_closes_at_one_age_are_a_rule(void **state)
{
    vb_keepalive_closed(&backend, &closes, 5010, 10000);
    vb_keepalive_closed(&backend, &closes, 5002, 20000);
    assert_true(vb_keepalive_limit_ms(&backend) == UINT64_MAX);
    vb_keepalive_closed(&backend, &closes, 5004, 30000);
    assert_int_equal(backend.learned_idle_ms, 5002);
    assert_int_equal(vb_keepalive_limit_ms(&backend), 4002);
}

static void closes_at_any_age_are_none(void **state)
{
    for (uint64_t i = 1; i < 50; i++)
        vb_keepalive_closed(&backend, &closes, i % 3 * 1000 + 100, i * 10000);
    assert_true(vb_keepalive_limit_ms(&backend) == UINT64_MAX);
}

/* All that are open are closed when a backend restarts, perhaps at one age. */
static void closes_at_one_time_are_one(void **state)
{
    for (uint64_t i = 0; i < 50; i++)
        vb_keepalive_closed(&backend, &closes, 3000, 10000 + i);
    assert_true(vb_keepalive_limit_ms(&backend) == UINT64_MAX);
}

static void a_changed_rule_is_learned(void **state)
{
    for (uint64_t i = 1; i <= 3; i++)
        vb_keepalive_closed(&backend, &closes, 5000, i * 10000);
    for (uint64_t i = 4; i <= 6; i++)
        vb_keepalive_closed(&backend, &closes, 15000, i * 100000);
    assert_int_equal(backend.learned_idle_ms, 15000);
    for (uint64_t i = 7; i <= 9; i++)
        vb_keepalive_closed(&backend, &closes, 2000, i * 100000);
    assert_int_equal(backend.learned_idle_ms, 2000);
}

static void the_shorter_of_both_counts(void **state)
{
    backend.announced_idle_ms = 60000;
    backend.learned_idle_ms = 5000;
    assert_int_equal(vb_keepalive_limit_ms(&backend), 4000);
    backend.announced_idle_ms = 2000;
    assert_int_equal(vb_keepalive_limit_ms(&backend), 1500);
}

static void another_backend_in_the_slot_begins_anew(void **state)
{
    vb_keepalive_closed(&backend, &closes, 5000, 10000);
    vb_keepalive_closed(&backend, &closes, 5000, 20000);
    backend.incarnation++;
    vb_keepalive_closed(&backend, &closes, 5000, 30000);
    assert_int_equal(backend.learned_idle_ms, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(nothing_is_known_at_first, setup),
        cmocka_unit_test_setup(what_it_says_is_obeyed, setup),
        cmocka_unit_test_setup(what_makes_no_sense_is_not_heard, setup),
        cmocka_unit_test_setup(three_closes_at_one_age_are_a_rule, setup),
        cmocka_unit_test_setup(closes_at_any_age_are_none, setup),
        cmocka_unit_test_setup(closes_at_one_time_are_one, setup),
        cmocka_unit_test_setup(a_changed_rule_is_learned, setup),
        cmocka_unit_test_setup(the_shorter_of_both_counts, setup),
        cmocka_unit_test_setup(another_backend_in_the_slot_begins_anew, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
