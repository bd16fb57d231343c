/* When a service ends that begins at some time: phases that slow it, stall it, or make it fail. */
#include "fixture.h"

#include "model.h"

#define S 1000000u /* in microseconds */

static const struct sim_weight whatever = {0.5, 0.5};

/* Constant service of 10 ms, with one or two phases. */
static struct sim_model with(const struct vb_conf_phase *phases, unsigned n)
{
    return (struct sim_model){VB_SERVICE_CONSTANT, 10000, 1, phases, n};
}

static void assert_serves(const struct sim_model *model, uint64_t begin_us, uint64_t end_us, unsigned status)
{
    unsigned got = 0;
    assert_int_equal(sim_serve(model, whatever, begin_us, &got), end_us);
    if (end_us != SIM_NEVER)
        assert_int_equal(got, status);
}

static void as_usual(void **state)
{
    struct sim_model model = with(NULL, 0);
    assert_serves(&model, 0, 10000, 200);
    assert_null(sim_phase(&model, 0));
}

static void slow(void **state)
{
    struct vb_conf_phase phase = {.is = VB_PHASE_SLOW, .from_ms = 1000, .to_ms = 2000, .factor = 10};
    struct sim_model model = with(&phase, 1);
    assert_serves(&model, 1 * S - 1, 1 * S - 1 + 10000, 200);
    assert_serves(&model, 1 * S, 1 * S + 100000, 200);
    assert_serves(&model, 2 * S - 1, 2 * S - 1 + 100000, 200);
    assert_serves(&model, 2 * S, 2 * S + 10000, 200);
}

static void cold(void **state)
{
    struct vb_conf_phase phase = {.is = VB_PHASE_COLD, .from_ms = 1000, .to_ms = 3000, .factor = 11};
    struct sim_model model = with(&phase, 1);
    assert_serves(&model, 1 * S, 1 * S + 110000, 200);
    assert_serves(&model, 2 * S, 2 * S + 60000, 200);
    assert_serves(&model, 3 * S, 3 * S + 10000, 200);
}

static void failing(void **state)
{
    struct vb_conf_phase phase = {.is = VB_PHASE_FAILING, .from_ms = 1000, .after_ms = 2, .status = 503};
    struct sim_model model = with(&phase, 1);
    assert_serves(&model, 0, 10000, 200);
    assert_serves(&model, 9 * S, 9 * S + 2000, 503);
}

static void stalling(void **state)
{
    struct vb_conf_phase phases[] = {{.is = VB_PHASE_STALLING, .from_ms = 1000, .to_ms = 2000},
                                     {.is = VB_PHASE_SLOW, .from_ms = 2000, .to_ms = 3000, .factor = 10}};
    struct sim_model model = with(phases, 2);
    assert_serves(&model, 1 * S - 10000, 1 * S, 200);
    assert_serves(&model, 1 * S - 4000, 2 * S + 6000, 200); /* 4 ms before it and 6 ms after it */
    assert_serves(&model, 1 * S + 4000, 2 * S + 100000, 200);
    phases[0].to_ms = 0;
    model.n_phases = 1;
    assert_serves(&model, 1 * S - 4000, SIM_NEVER, 0);
    assert_serves(&model, 5 * S, SIM_NEVER, 0);
}

static void a_backend_of_its_own(void **state)
{
    struct vb_conf *conf =
        make("{backends: [a:80, b:80]}", "{backends: {'b:80': {service_time: 50ms}}, "
                                         "service_time: 5ms, concurrency: 3, distribution: uniform}");
    struct sim_model a, b;
    sim_model_init(&a, &conf->simulate, "a:80");
    sim_model_init(&b, &conf->simulate, "b:80");
    assert_true(a.service_us == 5000 && b.service_us == 50000);
    assert_int_equal(b.concurrency, 3);
    assert_int_equal(b.distribution, VB_SERVICE_UNIFORM);
    vb_conf_free(&conf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_usual), cmocka_unit_test(slow),     cmocka_unit_test(cold),
        cmocka_unit_test(failing),  cmocka_unit_test(stalling), cmocka_unit_test(a_backend_of_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
