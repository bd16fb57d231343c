/* Configurations as text, and the results of playing them. */
#ifndef VB_TEST_SIM_FIXTURE_H
#define VB_TEST_SIM_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "vb/sim.h"

static inline struct vb_conf *parse(const char *text)
{
    struct vb_conf *conf = NULL;
    if (vb_conf_parse("test.yaml", text, strlen(text), stderr, &conf) != 0)
        fail_msg("the configuration has errors");
    return conf;
}

/* With a pool `web` of these settings, and what is to be played. */
static inline struct vb_conf *make(const char *pool, const char *simulate)
{
    char text[4096];
    snprintf(text, sizeof(text), "listen: 8080\npools:\n  web: %s\nsimulate: %s\n", pool, simulate);
    return parse(text);
}

static inline struct vb_sim_result *play_conf(const struct vb_conf *conf, enum vb_balance policy)
{
    struct vb_sim_result *result = NULL;
    assert_int_equal(vb_sim_run(conf, policy, &result), 0);
    return result;
}

static inline struct vb_sim_result *play(enum vb_balance policy, const char *pool, const char *simulate)
{
    struct vb_conf *conf = make(pool, simulate);
    struct vb_sim_result *result = play_conf(conf, policy);
    vb_conf_free(&conf);
    return result;
}

/* Within so many per cent. */
static inline void assert_near(double is, double wanted, double percent)
{
    if (fabs(is - wanted) > wanted * percent / 100)
        fail_msg("%g, and not %g", is, wanted);
}

#endif
