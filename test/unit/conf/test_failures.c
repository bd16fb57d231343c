/* The keys for failures: outlier, panic, circuit_breaker and retry of a pool, the watchdog, the control socket. */
#include "fixture.h"

/* A pool of two, so that one of them may be ejected, and keys of it; keys of the top. */
#define TWO        "{listen: 80, pools: {web: {backends: [a:1, b:1],\n"
#define RETRY      "{listen: 80, pools: {web: {backends: [a:1], retry: {\n"
#define ADMIN      "{listen: 80, pools: {web: {backends: [a:1]}}, admin:\n"

#define WATCHDOG   "{listen: 80, pools: {web: {backends: [a:1]}},\nwatchdog: "

#define DEFAULT_ON (VB_RETRY_CONNECT | VB_RETRY_RESET | VB_RETRY_TIMEOUT)

/* 107 bytes, which a unix socket can have. */
#define LONGEST                                                                                                        \
    "/a12345678/b12345678/c12345678/d12345678/e12345678/f12345678/g12345678/h12345678/i12345678/j12345678/k12345"

/* ---- good texts ---- */
static void check_defaults(const struct vb_conf_pool *pool)
{
    assert_true(pool->outlier.enabled);
    assert_int_equal(pool->outlier.consecutive, 5);
    assert_int_equal(pool->outlier.eject_ms, 10000);
    assert_int_equal(pool->outlier.eject_max_ms, 300000);
    assert_int_equal(pool->outlier.max_ejected, 50);
    assert_int_equal(pool->panic, 0);
    assert_int_equal(pool->circuit_breaker.max_requests, 0);
    assert_int_equal(pool->circuit_breaker.max_pending, 1024);
    assert_true(pool->retry.enabled);
    assert_int_equal(pool->retry.attempts, 2);
    assert_int_equal(pool->retry.budget, 20);
    assert_int_equal(pool->retry.on, DEFAULT_ON);
    assert_int_equal(pool->retry.buffer, 65536);
    assert_int_equal(pool->retry.total_ms, 120000);
}

static void all_is_guarded_without_a_word(void **state)
{
    struct vb_conf *conf = parse_good("{listen: 80, pools: {web: {backends: [a:1]}}}");
    check_defaults(&conf->pools[0]);
    assert_null(conf->admin.socket);
    vb_conf_free(&conf);
}

/* What is not named keeps its default. */
static void on_and_empty_mappings_are_the_defaults(void **state)
{
    static const char *const values[] = {"on", "true", "YES", "{}"};
    for (size_t i = 0; i < VB_ARRAY_SIZE(values); i++) {
        char text[256];
        snprintf(text, sizeof(text), TWO "outlier: %s, circuit_breaker: %s, retry: %s}}, admin: %s}", values[i],
                 values[i], values[i], values[i]);
        struct vb_conf *conf = parse_good(text);
        check_defaults(&conf->pools[0]);
        assert_null(conf->admin.socket);
        vb_conf_free(&conf);
    }
    struct vb_conf *conf = parse_good(TWO "outlier: {consecutive: 9}, circuit_breaker: {max_requests: 9}, "
                                          "retry: {attempts: 9}}}}");
    const struct vb_conf_pool *pool = &conf->pools[0];
    assert_int_equal(pool->outlier.consecutive, 9);
    assert_int_equal(pool->outlier.eject_ms, 10000);
    assert_int_equal(pool->circuit_breaker.max_requests, 9);
    assert_int_equal(pool->circuit_breaker.max_pending, 1024);
    assert_int_equal(pool->retry.attempts, 9);
    assert_int_equal(pool->retry.on, DEFAULT_ON);
    vb_conf_free(&conf);
}

static void every_key_is_read(void **state)
{
    struct vb_conf *conf =
        parse_good("listen: 80\n"
                   "pools:\n"
                   "  web:\n"
                   "    backends: [a:1, b:1, c:1]\n"
                   "    outlier: { consecutive: 7, eject: 250ms, eject_max: 2h, max_ejected: 34% }\n"
                   "    panic: 40%\n"
                   "    circuit_breaker: { max_requests: 5, max_pending: 6 }\n"
                   "    retry: { attempts: 3, budget: 25%, on: [503, connect], buffer: 1MiB, total: 90s }\n"
                   "admin: { socket: /run/vb.sock }\n");
    const struct vb_conf_pool *pool = &conf->pools[0];
    assert_true(pool->outlier.enabled);
    assert_int_equal(pool->outlier.consecutive, 7);
    assert_int_equal(pool->outlier.eject_ms, 250);
    assert_int_equal(pool->outlier.eject_max_ms, 7200000);
    assert_int_equal(pool->outlier.max_ejected, 34);
    assert_int_equal(pool->panic, 40);
    assert_int_equal(pool->circuit_breaker.max_requests, 5);
    assert_int_equal(pool->circuit_breaker.max_pending, 6);
    assert_true(pool->retry.enabled);
    assert_int_equal(pool->retry.attempts, 3);
    assert_int_equal(pool->retry.budget, 25);
    assert_int_equal(pool->retry.on, VB_RETRY_503 | VB_RETRY_CONNECT);
    assert_int_equal(pool->retry.buffer, 1 << 20);
    assert_int_equal(pool->retry.total_ms, 90000);
    assert_string_equal(conf->admin.socket, "/run/vb.sock");
    vb_conf_free(&conf);
}

static void the_ends_of_each_range_are_in_it(void **state)
{
    struct vb_conf *conf =
        parse_good("listen: 80\n"
                   "pools:\n"
                   "  web:\n"
                   "    backends: [a:1]\n"
                   "    outlier: { consecutive: 1, eject: 10ms, eject_max: 10ms, max_ejected: 100% }\n"
                   "    panic: 1%\n"
                   "    circuit_breaker: { max_requests: 0, max_pending: 0 }\n"
                   "    retry: { attempts: 0, budget: 0%, buffer: 0, total: 1ms }\n");
    const struct vb_conf_pool *pool = &conf->pools[0];
    assert_int_equal(pool->outlier.consecutive, 1);
    assert_int_equal(pool->outlier.eject_ms, 10);
    assert_int_equal(pool->outlier.eject_max_ms, 10);
    assert_int_equal(pool->outlier.max_ejected, 100);
    assert_int_equal(pool->panic, 1);
    assert_int_equal(pool->circuit_breaker.max_pending, 0);
    assert_int_equal(pool->retry.attempts, 0);
    assert_int_equal(pool->retry.budget, 0);
    assert_int_equal(pool->retry.buffer, 0);
    assert_int_equal(pool->retry.total_ms, 1);
    vb_conf_free(&conf);
    conf = parse_good("listen: 80\n"
                      "pools:\n"
                      "  web:\n"
                      "    backends: [a:1]\n"
                      "    outlier: { consecutive: 1000, eject: 24h, eject_max: 24h, max_ejected: 100% }\n"
                      "    panic: 100%\n"
                      "    circuit_breaker: { max_requests: 10000000, max_pending: 10000000 }\n"
                      "    retry: { attempts: 10, budget: 100%, buffer: 16MiB, total: 24h }\n"
                      "admin: { socket: " LONGEST " }\n");
    pool = &conf->pools[0];
    assert_int_equal(pool->outlier.consecutive, 1000);
    assert_int_equal(pool->outlier.eject_ms, 86400000);
    assert_int_equal(pool->outlier.eject_max_ms, 86400000);
    assert_int_equal(pool->panic, 100);
    assert_int_equal(pool->circuit_breaker.max_requests, 10000000);
    assert_int_equal(pool->circuit_breaker.max_pending, 10000000);
    assert_int_equal(pool->retry.attempts, VB_RETRY_ATTEMPTS_MAX);
    assert_int_equal(pool->retry.budget, 100);
    assert_int_equal(pool->retry.buffer, 16 << 20);
    assert_int_equal(pool->retry.total_ms, 86400000);
    assert_int_equal(strlen(conf->admin.socket), VB_UNIX_PATH_MAX);
    vb_conf_free(&conf);
}

static void each_can_be_off(void **state)
{
    static const char *const words[] = {"off", "Off", "false", "no", "\"off\""};
    for (size_t i = 0; i < VB_ARRAY_SIZE(words); i++) {
        char text[256];
        snprintf(text, sizeof(text), POOL "outlier: %s, panic: %s, circuit_breaker: %s, retry: %s}}, admin: %s}",
                 words[i], words[i], words[i], words[i], words[i]);
        struct vb_conf *conf = parse_good(text);
        const struct vb_conf_pool *pool = &conf->pools[0];
        assert_false(pool->outlier.enabled);
        assert_int_equal(pool->panic, 0);
        assert_int_equal(pool->circuit_breaker.max_requests, 0);
        assert_int_equal(pool->circuit_breaker.max_pending, 0);
        assert_false(pool->retry.enabled);
        assert_string_equal(conf->admin.socket, "");
        vb_conf_free(&conf);
        snprintf(text, sizeof(text), POOL "retry: {budget: %s}}}, admin: {socket: %s}}", words[i], words[i]);
        conf = parse_good(text);
        assert_true(conf->pools[0].retry.enabled);
        assert_int_equal(conf->pools[0].retry.budget, VB_RETRY_UNLIMITED);
        assert_string_equal(conf->admin.socket, "");
        vb_conf_free(&conf);
    }
}

static void the_watchdog_has_a_time_or_is_off(void **state)
{
    static const struct {
        const char *text;
        uint64_t ms;
    } good[] = {{"1s", 1000}, {"1500ms", 1500}, {"1h", 3600000}, {"off", 0}, {"No", 0}, {"'off'", 0}};
    static const struct wrong bad[] = {
        {WATCHDOG "999ms}", "f:2:11: `watchdog`: expected 1s to 1h or `off`, found `999ms`\n"},
        {WATCHDOG "61m}", "f:2:11: `watchdog`: expected 1s to 1h or `off`, found `61m`\n"},
        {WATCHDOG "0}", "f:2:11: `watchdog`: expected 1s to 1h or `off`, found `0`\n"},
        {WATCHDOG "on}", "f:2:11: `watchdog`: expected a duration such as 500ms, 5s, 1m or 1h or `off`, found `on`\n"},
        {WATCHDOG "{}}", "f:2:11: `watchdog`: expected a single value, found a mapping\n"},
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(good); i++) {
        char text[256];
        snprintf(text, sizeof(text), WATCHDOG "%s}", good[i].text);
        struct vb_conf *conf = parse_good(text);
        assert_int_equal(conf->watchdog_ms, good[i].ms);
        vb_conf_free(&conf);
    }
    check_wrong(bad, VB_ARRAY_SIZE(bad));
}

static void retry_on_is_a_set_in_place_of_the_default(void **state)
{
    static const struct {
        const char *value;
        unsigned on;
    } cases[] = {
        {"connect", VB_RETRY_CONNECT},
        {"[connect]", VB_RETRY_CONNECT},
        {"[reset]", VB_RETRY_RESET},
        {"timeout", VB_RETRY_TIMEOUT},
        {"502", VB_RETRY_502},
        {"503", VB_RETRY_503},
        {"\"504\"", VB_RETRY_504},
        {"429", VB_RETRY_429},
        {"[429, connect, 429, '429']", VB_RETRY_429 | VB_RETRY_CONNECT},
        {"'502,503 , 504'", VB_RETRY_502 | VB_RETRY_503 | VB_RETRY_504},
        {"[connect, reset, timeout, 502, 503, 504, 429]",
         DEFAULT_ON | VB_RETRY_502 | VB_RETRY_503 | VB_RETRY_504 | VB_RETRY_429},
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        char text[256];
        snprintf(text, sizeof(text), RETRY "on: %s}}}}", cases[i].value);
        struct vb_conf *conf = parse_good(text);
        assert_int_equal(conf->pools[0].retry.on, cases[i].on);
        vb_conf_free(&conf);
    }
}

/* ---- wrong texts ---- */
static void wrong_shares_say_what_is_right(void **state)
{
#define A_SHARE "expected a share such as 20%"
    static const struct wrong cases[] = {
        {TWO "panic: 50}}}", "f:2:8: `panic`: " A_SHARE " or `off`, found `50`\n"},
        {TWO "panic: 0.5}}}", "f:2:8: `panic`: " A_SHARE " or `off`, found `0.5`\n"},
        {TWO "panic: 2.5%}}}", "f:2:8: `panic`: " A_SHARE " or `off`, found `2.5%`\n"},
        {TWO "panic: 50 %}}}", "f:2:8: `panic`: " A_SHARE " or `off`, found `50 %`\n"},
        {TWO "panic: -5%}}}", "f:2:8: `panic`: " A_SHARE " or `off`, found `-5%`\n"},
        {TWO "panic: '%'}}}", "f:2:8: `panic`: " A_SHARE " or `off`, found `%`\n"},
        {TWO "panic: ''}}}", "f:2:8: `panic`: " A_SHARE " or `off`, found an empty text\n"},
        {TWO "panic: on}}}", "f:2:8: `panic`: " A_SHARE " or `off`, found `on`\n"},
        {TWO "panic: 0%}}}", "f:2:8: `panic`: expected a share from 1% to 100% or `off`, found `0%`\n"},
        {TWO "panic: 101%}}}", "f:2:8: `panic`: expected a share from 1% to 100% or `off`, found `101%`\n"},
        {TWO "panic: 99999999999999999999%}}}",
         "f:2:8: `panic`: expected a share from 1% to 100% or `off`, found `99999999999999999999%`\n"},
        {TWO "panic: [1%]}}}", "f:2:8: `panic`: expected a single value, found a list\n"},
        {RETRY "budget: 20}}}}", "f:2:9: `budget`: " A_SHARE " or `off`, found `20`\n"},
        {RETRY "budget: 101%}}}}", "f:2:9: `budget`: expected a share from 0% to 100% or `off`, found `101%`\n"},
    };
    check_wrong(cases, VB_ARRAY_SIZE(cases));
}

static void wrong_outliers_say_what_is_right(void **state)
{
    static const struct wrong cases[] = {
        {TWO "outlier: 5}}}", "f:2:10: `outlier`: expected a mapping or `off`, found `5`\n"},
        {TWO "outlier: {consecutive: 0}}}}",
         "f:2:24: `consecutive`: expected a whole number from 1 to 1000, found `0`\n"},
        {TWO "outlier: {consecutive: 1001}}}}",
         "f:2:24: `consecutive`: expected a whole number from 1 to 1000, found `1001`\n"},
        {TWO "outlier: {eject: 9ms}}}}", "f:2:18: `eject`: expected 10ms to 24h, found `9ms`\n"},
        {TWO "outlier: {eject: 25h}}}}", "f:2:18: `eject`: expected 10ms to 24h, found `25h`\n"},
        {TWO "outlier: {eject: 10}}}}",
         "f:2:18: `eject`: expected a duration such as 500ms, 5s, 1m or 1h, found `10`\n"},
        {TWO "outlier: {eject_max: 9ms}}}}", "f:2:22: `eject_max`: expected 10ms to 24h, found `9ms`\n"},
        {TWO "outlier: {max_ejected: 50}}}}", "f:2:24: `max_ejected`: " A_SHARE ", found `50`\n"},
        {TWO "outlier: {max_ejected: off}}}}", "f:2:24: `max_ejected`: " A_SHARE ", found `off`\n"},
        {TWO "outlier: {max_ejected: 101%}}}}",
         "f:2:24: `max_ejected`: expected a share from 0% to 100%, found `101%`\n"},
        {TWO "outlier: {ejcet: 5s}}}}", "f:2:11: unknown key `ejcet`; did you mean `eject`?\n"},
    };
    check_wrong(cases, VB_ARRAY_SIZE(cases));
}

static void wrong_circuit_breakers_say_what_is_right(void **state)
{
    static const struct wrong cases[] = {
        {TWO "circuit_breaker: 5}}}", "f:2:18: `circuit_breaker`: expected a mapping or `off`, found `5`\n"},
        {TWO "circuit_breaker: [off]}}}", "f:2:18: `circuit_breaker`: expected a mapping or `off`, found a list\n"},
        {TWO "circuit_breaker: }}}", "f:2:1: `circuit_breaker`: expected a mapping or `off`, found nothing\n"},
        {TWO "circuit_breaker: {max_requests: 10000001}}}}",
         "f:2:33: `max_requests`: expected a whole number from 0 to 10000000, found `10000001`\n"},
        {TWO "circuit_breaker: {max_pending: off}}}}",
         "f:2:32: `max_pending`: expected a whole number from 0 to 10000000, found `off`\n"},
        {TWO "circuit_breaker: {max_request: 1}}}}",
         "f:2:19: unknown key `max_request`; did you mean `max_requests`?\n"},
    };
    check_wrong(cases, VB_ARRAY_SIZE(cases));
}

static void wrong_retries_say_what_is_right(void **state)
{
#define RETRY_ON "expected connect or reset or timeout or 502 or 503 or 504 or 429"
#define NO_RETRY "`on` cannot be empty; write `retry: off` to try nothing again\n"
    static const struct wrong cases[] = {
        {TWO "retry: 3}}}", "f:2:8: `retry`: expected a mapping or `off`, found `3`\n"},
        {RETRY "attempts: 11}}}}", "f:2:11: `attempts`: expected a whole number from 0 to 10, found `11`\n"},
        {RETRY "buffer: 17MiB}}}}", "f:2:9: `buffer`: expected 0 to 16MiB, found `17MiB`\n"},
        {RETRY "buffer: off}}}}", "f:2:9: `buffer`: expected a size such as 4096, 16KiB or 1MiB, found `off`\n"},
        {RETRY "total: 0}}}}", "f:2:8: `total`: expected 1ms to 24h, found `0`\n"},
        {RETRY "total: 25h}}}}", "f:2:8: `total`: expected 1ms to 24h, found `25h`\n"},
        {RETRY "on: []}}}}", "f:2:5: " NO_RETRY},
        {RETRY "on: off}}}}", "f:2:5: " NO_RETRY},
        {RETRY "on: }}}}", "f:2:1: `on`: " RETRY_ON ", found nothing\n"},
        {RETRY "on: ''}}}}", "f:2:5: `on`: " RETRY_ON ", found an empty text\n"},
        {RETRY "on: {}}}}}", "f:2:5: `on`: expected words such as connect or 503, found a mapping\n"},
        {RETRY "on: [connect, [503]]}}}}", "f:2:15: `on`: expected words such as connect or 503, found a list\n"},
        {RETRY "on: conect}}}}", "f:2:5: `on`: unknown value `conect`; did you mean `connect`?\n"},
        {RETRY "on: [connect,\n timeouts, rest]}}}}", "f:3:2: `on`: unknown value `timeouts`; did you mean `timeout`?\n"
                                                      "f:3:12: `on`: unknown value `rest`; did you mean `reset`?\n"},
        {RETRY "on: [500]}}}}", "f:2:6: `on`: " RETRY_ON ", found `500`\n"},
        {RETRY "on: 5xx}}}}", "f:2:5: `on`: " RETRY_ON ", found `5xx`\n"},
        {RETRY "on: 'connect,'}}}}", "f:2:5: `on`: " RETRY_ON ", found `connect,`\n"},
        {RETRY "tries: 3}}}}", "f:2:1: unknown key `tries`; allowed here: attempts, budget, on, buffer, total\n"},
    };
    check_wrong(cases, VB_ARRAY_SIZE(cases));
}

static void wrong_admins_say_what_is_right(void **state)
{
#define A_SOCKET "expected the path of a file that begins with /, of at most 107 bytes, or `off`"
    static const struct wrong cases[] = {
        {ADMIN "/run/vb.sock}", "f:2:1: `admin`: expected a mapping or `off`, found `/run/vb.sock`\n"},
        {ADMIN "{socket: vb.sock}}", "f:2:10: `socket`: " A_SOCKET ", found `vb.sock`\n"},
        {ADMIN "{socket: 'unix:/run/vb.sock'}}", "f:2:10: `socket`: " A_SOCKET ", found `unix:/run/vb.sock`\n"},
        {ADMIN "{socket: ''}}", "f:2:10: `socket`: " A_SOCKET ", found an empty text\n"},
        {ADMIN "{socket: /run/}}", "f:2:10: `socket`: " A_SOCKET ", found `/run/`\n"},
        {ADMIN "{socket: \"/run/a\\tb\"}}", "f:2:10: `socket`: " A_SOCKET ", found `/run/a?b`\n"},
        {ADMIN "{socket: [/a]}}", "f:2:10: `socket`: " A_SOCKET ", found a list\n"},
        {ADMIN "{socket: " LONGEST "6}}",
         "f:2:10: `socket`: " A_SOCKET ", found `/a12345678/b12345678/c12345678/d12345678/e12345678/f12345678...`\n"},
        {ADMIN "{listen: 127.0.0.1:9900}}", "f:2:2: `listen` is not supported yet\n"},
        {ADMIN "{sokcet: /a}}", "f:2:2: unknown key `sokcet`; did you mean `socket`?\n"},
        {"listen: [80, 'unix:/run/vb.sock']\npools: {web: {backends: [a:1]}}\nadmin: {socket: /run/vb.sock}\n",
         "f:1:14: `unix:/run/vb.sock` is the control socket already; give `listen` or `admin.socket` another path\n"},
    };
    check_wrong(cases, VB_ARRAY_SIZE(cases));
    struct vb_conf *conf =
        parse_good("listen: 'unix:/a'\npools: {web: {backends: ['unix:/b']}}\nadmin: {socket: /b}\n");
    vb_conf_free(&conf);
}

/* ---- values that do not fit each other ---- */
static void an_ejection_may_not_begin_longer_than_the_longest(void **state)
{
    static const struct wrong cases[] = {
        {TWO "outlier: {eject: 10s, eject_max: 5s}}}}",
         "f:2:34: `eject_max`, `5s`, is shorter than `eject`, `10s`; raise it to that at least\n"},
        {TWO "outlier: {eject_max: 1s}}}}",
         "f:2:22: `eject_max`, `1s`, is shorter than `eject`, `10s`; raise it to that at least\n"},
        {TWO "outlier: {eject: 10m}}}}",
         "f:2:18: `eject_max`, `300s`, is shorter than `eject`, `10m`; raise it to that at least\n"},
        /* Only where the times can be read. */
        {TWO "outlier: {eject: soon, eject_max: 5s}}}}",
         "f:2:18: `eject`: expected a duration such as 500ms, 5s, 1m or 1h, found `soon`\n"},
    };
    check_wrong(cases, VB_ARRAY_SIZE(cases));
}

static void outliers_that_are_never_ejected_are_warned_of(void **state)
{
    static const struct {
        const char *backends, *outlier, *lines;
    } cases[] = {
        {"[a:1]", "on",
         "f:3:27: warning: `outlier` has no effect: `max_ejected`, 50% of 1 backend, is less than one; "
         "raise it to 100%, or write `outlier: off`\n"},
        {"[a:1]", "{consecutive: 3}",
         "f:3:27: warning: `outlier` has no effect: `max_ejected`, 50% of 1 backend, is less than one; "
         "raise it to 100%, or write `outlier: off`\n"},
        {"[a:1, b:1, c:1]", "{max_ejected: 33%}",
         "f:3:37: warning: `outlier` has no effect: `max_ejected`, 33% of 3 backends, is less than one; "
         "raise it to 34%, or write `outlier: off`\n"},
        {"[a:1, b:1]", "{max_ejected: 0%}",
         "f:3:32: warning: `outlier` has no effect: `max_ejected`, 0% of 2 backends, is less than one; "
         "raise it to 50%, or write `outlier: off`\n"},
        {"[a:1, b:1, c:1]", "{max_ejected: 34%}", ""},
        {"[a:1, b:1]", "on", ""},
        {"[a:1]", "{max_ejected: 100%}", ""},
        {"[a:1]", "off", ""},
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        char text[256];
        snprintf(text, sizeof(text), "listen: 80\npools:\n  web: { backends: %s, outlier: %s }\n", cases[i].backends,
                 cases[i].outlier);
        struct parsed parsed = parse(text);
        assert_int_equal(parsed.r, 0);
        assert_string_equal(parsed.lines, cases[i].lines);
        drop(&parsed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_is_guarded_without_a_word),
        cmocka_unit_test(on_and_empty_mappings_are_the_defaults),
        cmocka_unit_test(every_key_is_read),
        cmocka_unit_test(the_ends_of_each_range_are_in_it),
        cmocka_unit_test(each_can_be_off),
        cmocka_unit_test(the_watchdog_has_a_time_or_is_off),
        cmocka_unit_test(retry_on_is_a_set_in_place_of_the_default),
        cmocka_unit_test(wrong_shares_say_what_is_right),
        cmocka_unit_test(wrong_outliers_say_what_is_right),
        cmocka_unit_test(wrong_circuit_breakers_say_what_is_right),
        cmocka_unit_test(wrong_retries_say_what_is_right),
        cmocka_unit_test(wrong_admins_say_what_is_right),
        cmocka_unit_test(an_ejection_may_not_begin_longer_than_the_longest),
        cmocka_unit_test(outliers_that_are_never_ejected_are_warned_of),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
