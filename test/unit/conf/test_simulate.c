/* The section `simulate`: what vbctl simulate plays. */
#include "fixture.h"

#define POOLS                                                                                                          \
    "listen: 80\npools: {web: {backends: [a:1, {name: b, address: b:1}]}, other: {backends: [c:1]}}\nroutes: "         \
    "[{host: x, pool: web}, {pool: other}]\n"

static void all_is_played_as_usual_without_a_word(void **state)
{
    struct vb_conf *conf = parse_good(POOLS);
    const struct vb_conf_simulate *simulate = &conf->simulate;
    assert_string_equal(simulate->pool, "");
    assert_int_equal(simulate->seed, 1);
    assert_int_equal(simulate->duration_ms, 60000);
    assert_int_equal(simulate->workers, 0);
    assert_int_equal(simulate->arrivals, VB_ARRIVALS_POISSON);
    assert_int_equal(simulate->rate, 1000);
    assert_int_equal(simulate->clients, 100);
    assert_int_equal(simulate->think_ms, 1000);
    assert_int_equal(simulate->keys, 10000);
    assert_false(simulate->zipf);
    assert_int_equal(simulate->copies, 1);
    assert_int_equal(simulate->n_policies, 0);
    assert_int_equal(simulate->model.distribution, VB_SERVICE_EXPONENTIAL);
    assert_int_equal(simulate->model.service_ms, 10);
    assert_int_equal(simulate->model.concurrency, 16);
    assert_int_equal(simulate->n_models, 0);
    vb_conf_free(&conf);
}

static void check_models(const struct vb_conf_simulate *simulate)
{
    assert_int_equal(simulate->n_models, 2);
    const struct vb_conf_model *a = &simulate->models[0], *b = &simulate->models[1];
    assert_string_equal(a->name, "a:1");
    assert_int_equal(a->service_ms, 50);
    assert_int_equal(a->distribution, VB_SERVICE_PARETO);
    assert_int_equal(a->concurrency, 0); /* as all */
    assert_int_equal(a->n_phases, 0);
    assert_int_equal(b->n_phases, 3);
    assert_int_equal(b->phases[0].is, VB_PHASE_DOWN);
    assert_int_equal(b->phases[0].from_ms, 0);
    assert_int_equal(b->phases[0].to_ms, 1000);
    assert_int_equal(b->phases[1].is, VB_PHASE_COLD);
    assert_int_equal(b->phases[1].factor, 7);
    assert_int_equal(b->phases[2].is, VB_PHASE_FAILING);
    assert_int_equal(b->phases[2].to_ms, 0);
    assert_int_equal(b->phases[2].after_ms, 2);
    assert_int_equal(b->phases[2].status, 503);
}

static void all_that_there_is(void **state)
{
    struct vb_conf *conf = parse_good(POOLS "simulate:\n"
                                            "  pool: web\n"
                                            "  policies: [p2c, least_conn, p2c]\n"
                                            "  seed: 7\n"
                                            "  duration: 90s\n"
                                            "  workers: 9\n"
                                            "  arrivals: closed\n"
                                            "  clients: 5\n"
                                            "  think: 2s\n"
                                            "  keys: 12\n"
                                            "  popularity: zipf\n"
                                            "  copies: 100\n"
                                            "  backends:\n"
                                            "    a:1: {service_time: 50ms, distribution: pareto}\n"
                                            "    b:\n"
                                            "      phases:\n"
                                            "        - {is: down, to: 1s}\n"
                                            "        - {is: cold, from: 1s, to: 2s, factor: 7}\n"
                                            "        - {is: failing, from: 3s, after: 2ms, status: 503}\n");
    const struct vb_conf_simulate *simulate = &conf->simulate;
    assert_string_equal(simulate->pool, "web");
    assert_int_equal(simulate->n_policies, 2);
    assert_int_equal(simulate->policies[0], VB_BALANCE_P2C);
    assert_int_equal(simulate->policies[1], VB_BALANCE_LEAST_CONN);
    assert_int_equal(simulate->seed, 7);
    assert_int_equal(simulate->workers, 9);
    assert_int_equal(simulate->arrivals, VB_ARRIVALS_CLOSED);
    assert_int_equal(simulate->clients, 5);
    assert_int_equal(simulate->think_ms, 2000);
    assert_true(simulate->zipf);
    assert_int_equal(simulate->copies, 100);
    check_models(simulate);
    vb_conf_free(&conf);
}

static void what_is_wrong_is_named(void **state)
{
    static const struct wrong cases[] = {
        {POOLS "simulate: {rate: 0}\n", "f:4:18: `rate`: expected a whole number from 1 to 10000000, found `0`\n"},
        {POOLS "simulate: {sed: 1}\n", "f:4:12: unknown key `sed`; did you mean `seed`?\n"},
        {POOLS "simulate: {policies: [p3c]}\n", "f:4:23: `policies`: unknown value `p3c`; did you mean `p2c`?\n"},
        {POOLS "simulate: {pool: wen}\n", "f:4:18: there is no pool `wen`\n"},
        {POOLS "simulate: {pool: other, backends: {b: {concurrency: 1}}}\n",
         "f:4:36: pool `other` has no backend `b`\n"},
        {POOLS "simulate: {copies: 4000}\n", "f:4:20: 4000 copies of 2 backends are more than 4096\n"},
        {POOLS "simulate: {copies: 0}\n", "f:4:20: `copies`: expected a whole number from 1 to 4096, found `0`\n"},
        {POOLS "simulate: {backends: {b: {phases: [{from: 1s}]}}}\n",
         "f:4:36: a phase says what the backend is then, for example `is: slow`\n"},
        {POOLS "simulate: {backends: {b: {phases: [{is: slow, from: 2s, to: 1s}]}}}\n",
         "f:4:36: this phase ends before it begins: `to` must be greater than `from`\n"},
        {POOLS "simulate: {backends: {b: {phases: [{is: slow, to: 3s}, {is: down, from: 2s}]}}}\n",
         "f:4:56: this phase begins before the one above it has ended\n"},
        {POOLS "simulate: {backends: {b: {phases: [{is: slow}, {is: down, from: 2s}]}}}\n",
         "f:4:48: this phase begins before the one above it has ended\n"},
        {POOLS "simulate: {backends: {b: {phases: [{is: cold}]}}}\n",
         "f:4:36: `cold` needs a `to`: by then the backend is warm\n"},
        {POOLS "simulate: {backends: {b: 5}}\n",
         "f:4:26: `b`: expected a mapping such as `{service_time: 50ms}`, found `5`\n"},
        {POOLS "simulate: {backends: [b]}\n",
         "f:4:22: `backends`: expected a mapping from backends to what differs there, found a list\n"},
    };
    check_wrong(cases, VB_ARRAY_SIZE(cases));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_is_played_as_usual_without_a_word),
        cmocka_unit_test(all_that_there_is),
        cmocka_unit_test(what_is_wrong_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
