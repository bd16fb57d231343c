/* Things that must differ, and things that must fit. */
#include "fixture.h"

static void listeners_must_not_collide(void **state)
{
#define POOLS "\npools: {web: {backends: [a:1]}}"
    static const struct wrong cases[] = {
        {"listen: [80, 80]" POOLS, "f:1:14: `0.0.0.0:80` cannot be listened on beside `0.0.0.0:80` in line 1\n"},
        {"listen: [127.0.0.1:80, 80]" POOLS,
         "f:1:24: `0.0.0.0:80` cannot be listened on beside `127.0.0.1:80` in line 1\n"},
        {"listen:\n- 80\n- 127.0.0.1:80\n- 81" POOLS,
         "f:3:3: `127.0.0.1:80` cannot be listened on beside `0.0.0.0:80` in line 2\n"},
        {"listen: ['[::]:80', '[::1]:80']" POOLS,
         "f:1:21: `[::1]:80` cannot be listened on beside `[::]:80` in line 1\n"},
        {"listen: ['[::1]:80', {address: '[0::1]:80'}]" POOLS,
         "f:1:32: `[::1]:80` cannot be listened on beside `[::1]:80` in line 1\n"},
        {"listen:\n- unix:/a\n- 80\n- address: unix:/a" POOLS,
         "f:4:12: `unix:/a` cannot be listened on beside `unix:/a` in line 2\n"},
    };
    check_wrong(cases, VB_ARRAY_SIZE(cases));
    static const char *const good[] = {
        "listen: [80, 81]" POOLS,
        "listen: [127.0.0.1:80, 127.0.0.2:80, '[::1]:80', '[::2]:80']" POOLS,
        "listen: [0.0.0.0:80, '[::]:80']" POOLS,
        "listen: ['unix:/a', 'unix:/b', 80]" POOLS,
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(good); i++) {
        struct vb_conf *conf = parse_good(good[i]);
        vb_conf_free(&conf);
    }
}

static void listeners_are_bounded(void **state)
{
    char text[1024] = "listen: [1";
    for (unsigned i = 2; i <= 65; i++)
        snprintf(text + strlen(text), sizeof(text) - strlen(text), ",%u", i);
    snprintf(text + strlen(text), sizeof(text) - strlen(text), "]" POOLS);
    check_wrong(&(struct wrong){text, "f:1:9: `listen`: at most 64 addresses\n"}, 1);
}

static void names_of_backends_must_differ_in_their_pool(void **state)
{
    static const struct wrong cases[] = {
        {"listen: 80\npools:\n  web:\n    backends:\n    - a:1\n    - b:1\n    - http://a:1/\n    - a:1\n",
         "f:7:7: backend `a:1` is in pool `web` already, in line 5; each needs a name of its own\n"
         "f:8:7: backend `a:1` is in pool `web` already, in line 5; each needs a name of its own\n"},
        {"{listen: 80, pools: {web: {backends: [\n{address: a:1, name: x},\n{address: b:1, name: x}]}}}",
         "f:3:1: backend `x` is in pool `web` already, in line 2; each needs a name of its own\n"},
        {"listen: 80\npools:\n  web: { backends: [a:1] }\n  web: { backends: [b:1] }\n",
         "f:4:3: duplicate key `web`; it was given in line 3 already\n"},
        {"{listen: 80, pools: {\n\"a\\tb\": {backends: [a:1,\n a:1]}}}",
         "f:2:1: `a?b` is not a name for a pool: use at most 63 letters, digits, `_`, `.` and `-`\n"
         "f:3:2: backend `a:1` is in pool `a?b` already, in line 2; each needs a name of its own\n"},
    };
    check_wrong(cases, VB_ARRAY_SIZE(cases));
    struct vb_conf *conf =
        parse_good("{listen: 80, pools: {web: {backends: [{address: a:1, name: x}, {address: a:1, name: X}, a:1]}}}");
    assert_int_equal(conf->pools[0].n_backends, 3);
    vb_conf_free(&conf);
}

static void a_long_address_needs_a_name(void **state)
{
    check_wrong(&(struct wrong){"{listen: 80, pools: {web: {backends: [\n"
                                "'unix:/a1234567890123456789/b1234567890123456789/c1234567890123456789']}}}",
                                "f:2:1: the address is longer than the 63 bytes that a name may have; "
                                "give the backend a `name`\n"},
                1);
    check_wrong(&(struct wrong){"{listen: 80, pools: {web: {backends: [\n"
                                "a1234567890123456789.b1234567890123456789.c1234567890123456789:80]}}}",
                                "f:2:1: the address is longer than the 63 bytes that a name may have; "
                                "give the backend a `name`\n"},
                1);
    struct vb_conf *conf =
        parse_good("{listen: 80, pools: {web: {backends: [{name: b,\n"
                   "address: a1234567890123456789.b1234567890123456789.c1234567890123456789:80}]}}}");
    vb_conf_free(&conf);
}

static void backends_must_fit_the_segment(void **state)
{
    static const struct wrong cases[] = {
        {"listen: 80\nsegment: {backends: 2}\npools:\n  a: { backends: [a:1] }\n  b: { backends: [a:1, b:1, c:1] }\n",
         "f:5:24: 4 backends in all pools are more than the 2 that the segment has room for; "
         "raise `segment.backends` (at most 4096)\n"},
    };
    check_wrong(cases, VB_ARRAY_SIZE(cases));
    struct vb_conf *conf =
        parse_good("listen: 80\nsegment: {backends: 3}\npools:\n  a: { backends: [a:1, b:1, c:1] }\n");
    vb_conf_free(&conf);
}

static void a_unix_socket_has_no_port_to_check(void **state)
{
    static const struct wrong cases[] = {
        {"listen: 80\npools:\n  web:\n    health: {port: 81}\n    backends:\n    - a:1\n    - unix:/a\n    - unix:/b\n",
         "f:7:7: pool `web` checks health on port 81, which means nothing for a unix socket; "
         "leave `health.port` out, or give the socket a pool of its own\n"},
        {"{listen: 80, pools: {web: {health: {port: 81}, backends: [\n{address: unix:/a, name: b1}]}}}",
         "f:2:1: pool `web` checks health on port 81, which means nothing for a unix socket; "
         "leave `health.port` out, or give the socket a pool of its own\n"},
    };
    check_wrong(cases, VB_ARRAY_SIZE(cases));
    struct vb_conf *conf = parse_good("{listen: 80, pools: {web: {health: {port: same}, backends: ['unix:/a']}}}");
    vb_conf_free(&conf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(listeners_must_not_collide),
        cmocka_unit_test(listeners_are_bounded),
        cmocka_unit_test(names_of_backends_must_differ_in_their_pool),
        cmocka_unit_test(a_long_address_needs_a_name),
        cmocka_unit_test(backends_must_fit_the_segment),
        cmocka_unit_test(a_unix_socket_has_no_port_to_check),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
