/* What queueing theory knows exactly: one backend, or one line, against its formulas. */
#include "fixture.h"

/* Mean time from arrival to answer; 70 requests a second for two hours. */
static double mean_ms(const char *pool, const char *simulate)
{
    char text[256];
    snprintf(text, sizeof(text), "{rate: 70, duration: 2h, %s}", simulate);
    struct vb_sim_result *result = play(VB_BALANCE_ROUND_ROBIN, pool, text);
    double mean = result->mean_ms;
    assert_int_equal(result->errors, 0);
    vb_sim_free(&result);
    return mean;
}

#define ONE "{backends: [a:80]}"

/* 1 / (100 - 70) s */
static void one_server_exponential(void **state)
{
    assert_near(mean_ms(ONE, "concurrency: 1, service_time: 10ms"), 33.33, 3);
}

/* Pollaczek and Khinchine: service + rate * E[service^2] / (2 * (1 - load)) */
static void one_server_constant(void **state)
{
    assert_near(mean_ms(ONE, "concurrency: 1, service_time: 10ms, distribution: constant"), 21.67, 2);
}

static void one_server_uniform(void **state)
{
    assert_near(mean_ms(ONE, "concurrency: 1, service_time: 10ms, distribution: uniform"), 25.56, 2);
}

/* E[service^2] is e times the square of the mean. */
static void one_server_lognormal(void **state)
{
    assert_near(mean_ms(ONE, "concurrency: 1, service_time: 10ms, distribution: lognormal"), 41.71, 5);
}

/* Erlang's C for 4 servers at 70 %: 0.4287 wait, 1 / (100 - 70) s on average. */
static void four_servers(void **state)
{
    assert_near(mean_ms(ONE, "concurrency: 4, service_time: 40ms"), 40 + 0.4287 * 33.33, 2);
}

/* The same line, but before the balancer's door. */
static void four_places_at_two_backends(void **state)
{
    assert_near(mean_ms("{queue: {timeout: 1h}, backends: [{address: a:80, max_connections: 2}, "
                        "{address: b:80, max_connections: 2}]}",
                        "service_time: 40ms"),
                40 + 0.4287 * 33.33, 2);
}

static void constant_arrivals_do_not_wait(void **state)
{
    assert_near(mean_ms(ONE, "arrivals: constant, concurrency: 1, service_time: 10ms, distribution: constant"), 10,
                0.01);
}

/* Little's law: the clients are at the backend or think. */
static void closed_clients(void **state)
{
    struct vb_sim_result *result =
        play(VB_BALANCE_ROUND_ROBIN, ONE,
             "{arrivals: closed, clients: 50, think: 900ms, duration: 10m, service_time: 100ms, concurrency: 50}");
    assert_near((double)result->requests, 50 * 600, 2);
    assert_near(result->mean_ms, 100, 2);
    vb_sim_free(&result);
}

/* Of shape 1.5: the minimum is a third of the mean, and of the others one in x^1.5 is greater than x times that. */
static void pareto_has_its_tail(void **state)
{
    struct vb_sim_result *result =
        play(VB_BALANCE_ROUND_ROBIN, ONE,
             "{rate: 1000, duration: 10m, service_time: 30ms, distribution: pareto, concurrency: 100000}");
    assert_near(result->p50_ms, 10 * pow(2, 1 / 1.5), 4);
    assert_near(result->p99_ms, 10 * pow(100, 1 / 1.5), 4);
    assert_near(result->p999_ms, 10 * pow(1000, 1 / 1.5), 8);
    vb_sim_free(&result);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_server_exponential),
        cmocka_unit_test(one_server_constant),
        cmocka_unit_test(one_server_uniform),
        cmocka_unit_test(one_server_lognormal),
        cmocka_unit_test(four_servers),
        cmocka_unit_test(four_places_at_two_backends),
        cmocka_unit_test(constant_arrivals_do_not_wait),
        cmocka_unit_test(closed_clients),
        cmocka_unit_test(pareto_has_its_tail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
