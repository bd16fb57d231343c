/* Pools that fail, fill up and recover: what their clients see. */
#include "fixture.h"

#define THREE "{backends: [a:80, b:80, c:80]}"

/* Every request ended once (vb_sim_run checks that nothing is left in flight), and all ways to count them agree. */
static void assert_conserves(const struct vb_sim_result *result)
{
    uint64_t answered = 0, tries = 0, picks = 0;
    assert_int_equal(result->requests, result->answered + result->errors);
    for (unsigned i = 0; i < VB_SIM_SLICES; i++)
        answered += result->slices[i].answered;
    for (unsigned i = 0; i < result->n_backends; i++)
        tries += result->backends[i].requests;
    for (unsigned i = 0; i < VB_PICK_REASONS; i++)
        picks += result->picks[i];
    assert_int_equal(answered, result->answered);
    assert_int_equal(tries, result->tries);
    assert_int_equal(picks, result->tries);
}

static double share(const struct vb_sim_result *result, unsigned backend)
{
    return (double)result->backends[backend].requests / (double)result->tries;
}

/* ---- the same again ---- */
static void the_same_seed_gives_the_same_result(void **state)
{
    static const char simulate[] = "{seed: %d, rate: 500, duration: 20s, backends: {'b:80': {phases: "
                                   "[{is: stalling, from: 3s, to: 4s}, {is: down, from: 8s, to: 12s}]}}}";
    struct vb_sim_result *results[3];
    for (unsigned i = 0; i < 3; i++) {
        char text[512];
        snprintf(text, sizeof(text), simulate, i < 2 ? 5 : 6);
        results[i] = play(VB_BALANCE_P2C, THREE, text);
    }
    assert_memory_equal(results[0]->backends, results[1]->backends, 3 * sizeof(*results[0]->backends));
    for (unsigned i = 0; i < 3; i++) {
        free(results[i]->backends);
        results[i]->backends = NULL;
    }
    assert_memory_equal(results[0], results[1], sizeof(*results[0]));
    assert_memory_not_equal(results[0], results[2], sizeof(*results[0]));
    for (unsigned i = 0; i < 3; i++)
        vb_sim_free(&results[i]);
}

/* ---- policies ---- */
static void least_conn_beats_random(void **state)
{
    static const char simulate[] = "{rate: 1000, duration: 60s, concurrency: 4, service_time: 10ms}";
    struct vb_sim_result *least = play(VB_BALANCE_LEAST_CONN, THREE, simulate);
    struct vb_sim_result *chance = play(VB_BALANCE_RANDOM, THREE, simulate);
    assert_true(least->mean_ms < 0.8 * chance->mean_ms);
    assert_true(least->p99_ms < 0.8 * chance->p99_ms);
    assert_true(least->most_queued < chance->most_queued && least->spread < chance->spread);
    assert_int_equal(least->requests, chance->requests);
    vb_sim_free(&least);
    vb_sim_free(&chance);
}

static void weights_are_shares(void **state)
{
    struct vb_sim_result *result = play(VB_BALANCE_ROUND_ROBIN, "{backends: [{address: a:80, weight: 5}, b:80, c:80]}",
                                        "{rate: 700, duration: 30s}");
    assert_near(share(result, 0), 5.0 / 7, 0.1);
    assert_near(share(result, 1), 1.0 / 7, 0.1);
    vb_sim_free(&result);
}

static void a_hot_key_stays_with_its_backend(void **state)
{
    struct vb_sim_result *result =
        play(VB_BALANCE_HASH, "{balance: hash, hash: {bounded: off}, backends: [a:80, b:80, c:80]}",
             "{rate: 500, duration: 30s, keys: 1, popularity: zipf}");
    double most = VB_MAX(share(result, 0), VB_MAX(share(result, 1), share(result, 2)));
    assert_true(most == 1);
    vb_sim_free(&result);
}

static void policies_are_listed_once(void **state)
{
    enum vb_balance policies[VB_BALANCES];
    struct vb_conf *conf = make(THREE, "{policies: [p2c, all]}");
    assert_int_equal(vb_sim_policies(conf, policies), VB_BALANCES);
    assert_int_equal(policies[0], VB_BALANCE_P2C);
    vb_conf_free(&conf);
    conf = make("{balance: least_conn, backends: [a:80]}", "{rate: 1}");
    assert_int_equal(vb_sim_policies(conf, policies), 1);
    assert_int_equal(policies[0], VB_BALANCE_LEAST_CONN);
    vb_conf_free(&conf);
}

/* ---- backends that fail ---- */
/* Requests are tried elsewhere; checks take it out and bring it back. */
static void one_goes_down(void **state)
{
    struct vb_sim_result *result =
        play(VB_BALANCE_ROUND_ROBIN, "{health: {interval: 1s, fast_interval: 200ms}, backends: [a:80, b:80, c:80]}",
             "{rate: 300, duration: 60s, backends: {'b:80': {phases: [{is: down, from: 10s, to: 40s}]}}}");
    assert_conserves(result);
    assert_int_equal(result->errors, 0);
    assert_near(share(result, 1), 0.5 / 3, 10); /* half of the time it had a third, and nearly nothing else */
    assert_true(result->picks[VB_PICK_RETRY] > 0);
    vb_sim_free(&result);
}

static void all_go_down(void **state)
{
    struct vb_sim_result *result =
        play(VB_BALANCE_LEAST_CONN, "{backends: [a:80]}",
             "{rate: 100, duration: 20s, backends: {'a:80': {phases: [{is: down, from: 5s, to: 10s}]}}}");
    assert_conserves(result);
    assert_true(result->errors >= 450); /* in these 5 seconds; then checks must find it again */
    assert_true(result->answered >= 1000);
    assert_int_equal(result->slices[30].answered, 0);
    vb_sim_free(&result);
}

static void attempts_bound_tries(void **state)
{
    static const char simulate[] = "{rate: 100, duration: 10s, backends: {'a:80': {phases: [{is: down}]}, 'b:80': "
                                   "{phases: [{is: down}]}, 'c:80': {phases: [{is: down}]}}}";
    for (unsigned attempts = 0; attempts < 3; attempts++) {
        char pool[128];
        snprintf(pool, sizeof(pool), "{health: off, outlier: off, retry: {attempts: %u}, backends: [a:80, b:80, c:80]}",
                 attempts);
        struct vb_sim_result *result = play(VB_BALANCE_RANDOM, pool, simulate);
        assert_conserves(result);
        assert_int_equal(result->errors, result->requests);
        assert_int_equal(result->tries, result->requests * (attempts + 1));
        vb_sim_free(&result);
    }
}

static void one_fails(void **state)
{
    struct vb_sim_result *result =
        play(VB_BALANCE_ROUND_ROBIN, THREE,
             "{rate: 300, duration: 30s, backends: {'b:80': {phases: [{is: failing, from: 10s, to: 20s}]}}}");
    assert_conserves(result);
    assert_near((double)result->errors, 1000, 5); /* a 500 passes on */
    vb_sim_free(&result);
    result = play(VB_BALANCE_ROUND_ROBIN, "{retry: {on: 503}, backends: [a:80, b:80, c:80]}",
                  "{rate: 300, duration: 30s, backends: {'b:80': {phases: [{is: failing, status: 503, from: 10s, "
                  "to: 20s}]}}}");
    assert_conserves(result);
    assert_int_equal(result->errors, 0); /* a 503 that retry.on names does not, and ejects the backend */
    assert_near(share(result, 1), 2.0 / 9, 5);
    vb_sim_free(&result);
}

static void one_stalls(void **state)
{
    struct vb_sim_result *result =
        play(VB_BALANCE_ROUND_ROBIN, "{health: off, backends: [a:80, b:80, c:80]}",
             "{rate: 300, duration: 30s, backends: {'b:80': {phases: [{is: stalling, from: 10s, to: 12s}]}}}");
    assert_conserves(result);
    assert_int_equal(result->errors, 0);
    assert_near(result->max_ms, 2000, 2); /* who came first when it stalled */
    vb_sim_free(&result);
    result = play(VB_BALANCE_ROUND_ROBIN,
                  "{health: off, timeouts: {response: 300ms}, retry: {budget: off}, backends: [a:80, b:80, c:80]}",
                  "{rate: 300, duration: 30s, backends: {'b:80': {phases: [{is: stalling, from: 10s}]}}}");
    assert_conserves(result);
    assert_int_equal(result->errors, 0);
    assert_true(result->max_ms > 300 && result->max_ms < 600);
    vb_sim_free(&result);
}

/* Whoever waits at one that checks have found ill goes elsewhere, long before the time-out. */
static void requests_leave_one_that_is_ill(void **state)
{
    struct vb_sim_result *result =
        play(VB_BALANCE_ROUND_ROBIN,
             "{health: {path: /, interval: 500ms, fast_interval: 100ms, timeout: 200ms}, retry: {budget: off}, "
             "backends: [a:80, b:80, c:80]}",
             "{rate: 300, duration: 30s, backends: {'b:80': {phases: [{is: stalling, from: 10s}]}}}");
    assert_conserves(result);
    assert_int_equal(result->errors, 0);
    assert_true(result->max_ms > 500 && result->max_ms < 3000);
    vb_sim_free(&result);
}

/* ---- limits ---- */
static void limits_hold(void **state)
{
    struct vb_sim_result *result =
        play(VB_BALANCE_LEAST_CONN,
             "{queue: {timeout: 100ms}, backends: [{address: a:80, max_connections: 4}, {address: b:80, "
             "max_connections: 4}]}",
             "{rate: 1200, duration: 10s, service_time: 10ms, concurrency: 4, workers: 16}");
    assert_conserves(result);
    assert_int_equal(result->most_queued, 0); /* it never gets more than it serves at a time */
    assert_true(result->waited > 1000 && result->errors > 1000);
    assert_near((double)result->answered, 8000, 3); /* all that 8 servers can do */
    assert_true(result->max_ms < 300);              /* 100 ms in line, and served */
    vb_sim_free(&result);
}

static void without_a_queue_nobody_waits(void **state)
{
    struct vb_sim_result *result =
        play(VB_BALANCE_LEAST_CONN, "{queue: off, backends: [{address: a:80, max_connections: 4}]}",
             "{rate: 600, duration: 10s, service_time: 10ms}");
    assert_conserves(result);
    assert_int_equal(result->waited, 0);
    assert_near((double)result->errors / (double)result->requests, 0.4696, 4); /* Erlang's B: 4 servers, 6 erlang */
    vb_sim_free(&result);
}

/* All of it at once. */
static void nothing_is_lost(void **state)
{
    static const char pool[] =
        "{health: {path: /, interval: 500ms}, timeouts: {response: 400ms}, retry: {on: [connect, "
        "reset, timeout, 503]}, queue: {timeout: 200ms}, slow_start: 3s, circuit_breaker: "
        "{max_requests: 150, max_pending: 60}, backends: [{address: a:80, max_connections: "
        "30}, {address: b:80, max_connections: 20, weight: 3}, c:80, {address: d:80, backup: "
        "true}]}";
    static const char simulate[] =
        "{rate: 900, duration: 30s, workers: 7, service_time: 20ms, concurrency: 8, distribution: pareto, backends: {"
        "'a:80': {phases: [{is: down, from: 3s, to: 5s}, {is: cold, from: 5s, to: 9s}, {is: stalling, from: 12s, to: "
        "16s}]}, 'b:80': {phases: [{is: failing, status: 503, from: 4s, to: 8s}, {is: down, from: 14s, to: 20s}]}, "
        "'c:80': {phases: [{is: slow, factor: 20, from: 6s, to: 10s}, {is: down, from: 13s, to: 15s}]}}}";
    for (unsigned policy = 0; policy < VB_BALANCES; policy++) {
        struct vb_sim_result *result = play(policy, pool, simulate);
        assert_conserves(result);
        assert_true(result->errors > 0 && result->waited > 0);
        assert_true(result->answered > result->requests / 2);
        vb_sim_free(&result);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_seed_gives_the_same_result),
        cmocka_unit_test(least_conn_beats_random),
        cmocka_unit_test(weights_are_shares),
        cmocka_unit_test(a_hot_key_stays_with_its_backend),
        cmocka_unit_test(policies_are_listed_once),
        cmocka_unit_test(one_goes_down),
        cmocka_unit_test(all_go_down),
        cmocka_unit_test(attempts_bound_tries),
        cmocka_unit_test(one_fails),
        cmocka_unit_test(one_stalls),
        cmocka_unit_test(requests_leave_one_that_is_ill),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(without_a_queue_nobody_waits),
        cmocka_unit_test(nothing_is_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
