/* The keys for balancing: hash, sticky, queue and slow_start of a pool, max_connections and backup of a backend. */
#include "fixture.h"

#define SIXTEEN "0123456789abcdef"

/* A name of as many bytes as a cookie's may have. */
#define LONGEST "a23456789b23456789c23456789d23456789e23456789f23456789g23456789"

/* A pool that hashes; and with a mapping of its own. */
#define HASHED "{listen: 80, pools: {web: {backends: [a:1], balance: hash, hash:\n"
#define STICKY "{listen: 80, pools: {web: {backends: [a:1], sticky:\n"
#define QUEUE  "{listen: 80, pools: {web: {backends: [a:1], queue:\n"
#define BACK   "{listen: 80, pools: {web: {backends: [{address: a:1,\n"

/* ---- good texts ---- */
static void check_sticky_defaults(const struct vb_conf_pool *pool)
{
    assert_string_equal(pool->sticky.cookie, "vb");
    assert_int_equal(pool->sticky.ttl_ms, 3600000);
    assert_string_equal(pool->sticky.secret, "");
}

static void a_pool_without_a_word_has_the_defaults(void **state)
{
    struct vb_conf *conf = parse_good("{listen: 80, pools: {web: {backends: [a:1]}}}");
    const struct vb_conf_pool *pool = &conf->pools[0];
    assert_int_equal(pool->hash.key, VB_HASH_CLIENT_IP);
    assert_null(pool->hash.name);
    assert_int_equal(pool->hash.bounded, 125);
    assert_false(pool->sticky.enabled);
    check_sticky_defaults(pool);
    assert_true(pool->queue.enabled);
    assert_int_equal(pool->queue.timeout_ms, 5000);
    assert_int_equal(pool->slow_start_ms, 0);
    assert_int_equal(pool->backends[0].max_connections, 0);
    assert_false(pool->backends[0].backup);
    vb_conf_free(&conf);
}

static void every_key_is_read(void **state)
{
    struct vb_conf *conf = parse_good("listen: 80\n"
                                      "pools:\n"
                                      "  web:\n"
                                      "    balance: hash\n"
                                      "    backends:\n"
                                      "      - { address: 'a:1', max_connections: 100, backup: yes }\n"
                                      "      - { address: 'b:1', max_connections: 7 }\n"
                                      "    hash: { key: header:X-User, bounded: 150% }\n"
                                      "    sticky: { cookie: shop, ttl: 30m, secret: 'sixteen bytes...' }\n"
                                      "    queue: { timeout: 250ms }\n"
                                      "    slow_start: 30s\n");
    const struct vb_conf_pool *pool = &conf->pools[0];
    assert_int_equal(pool->balance, VB_BALANCE_HASH);
    assert_int_equal(pool->hash.key, VB_HASH_HEADER);
    assert_string_equal(pool->hash.name, "X-User");
    assert_int_equal(pool->hash.bounded, 150);
    assert_true(pool->sticky.enabled);
    assert_string_equal(pool->sticky.cookie, "shop");
    assert_int_equal(pool->sticky.ttl_ms, 1800000);
    assert_string_equal(pool->sticky.secret, "sixteen bytes...");
    assert_true(pool->queue.enabled);
    assert_int_equal(pool->queue.timeout_ms, 250);
    assert_int_equal(pool->slow_start_ms, 30000);
    assert_int_equal(pool->backends[0].max_connections, 100);
    assert_true(pool->backends[0].backup);
    assert_int_equal(pool->backends[1].max_connections, 7);
    assert_false(pool->backends[1].backup);
    vb_conf_free(&conf);
}

static void every_policy_has_its_word(void **state)
{
    static const struct {
        const char *word;
        enum vb_balance balance;
    } cases[] = {
        {"round_robin", VB_BALANCE_ROUND_ROBIN}, {"least_conn", VB_BALANCE_LEAST_CONN},
        {"fastest", VB_BALANCE_FASTEST},         {"p2c", VB_BALANCE_P2C},
        {"random", VB_BALANCE_RANDOM},           {"hash", VB_BALANCE_HASH},
        {"least_load", VB_BALANCE_LEAST_LOAD},
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        char text[128];
        snprintf(text, sizeof(text), POOL "balance: %s}}}", cases[i].word);
        struct vb_conf *conf = parse_good(text);
        assert_int_equal(conf->pools[0].balance, cases[i].balance);
        assert_string_equal(vb_balance_name(cases[i].balance), cases[i].word);
        vb_conf_free(&conf);
    }
}

static void what_is_hashed_is_a_word_and_perhaps_a_name(void **state)
{
    static const struct {
        const char *value;
        enum vb_hash_key key;
        const char *name;
    } cases[] = {
        {"client_ip", VB_HASH_CLIENT_IP, NULL},
        {"path", VB_HASH_PATH, NULL},
        {"uri", VB_HASH_URI, NULL},
        {"header:X-User", VB_HASH_HEADER, "X-User"},
        {"header:NAME", VB_HASH_HEADER, "NAME"},
        {"\"header:!#$%&'*+-.^_`|~0aZ\"", VB_HASH_HEADER, "!#$%&'*+-.^_`|~0aZ"},
        {"cookie:session", VB_HASH_COOKIE, "session"},
        {"cookie:path", VB_HASH_COOKIE, "path"},
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        char text[256];
        snprintf(text, sizeof(text), HASHED "{key: %s}}}}", cases[i].value);
        struct vb_conf *conf = parse_good(text);
        assert_int_equal(conf->pools[0].hash.key, cases[i].key);
        if (cases[i].name == NULL)
            assert_null(conf->pools[0].hash.name);
        else
            assert_string_equal(conf->pools[0].hash.name, cases[i].name);
        vb_conf_free(&conf);
    }
}

static void words_turn_things_off_and_on(void **state)
{
    static const struct {
        const char *value;
        bool is_on;
    } cases[] = {{"off", false}, {"no", false}, {"False", false}, {"on", true}, {"yes", true}, {"{}", true}};
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        char text[256];
        snprintf(text, sizeof(text), POOL "sticky: %s, queue: %s}}}", cases[i].value, cases[i].value);
        struct vb_conf *conf = parse_good(text);
        const struct vb_conf_pool *pool = &conf->pools[0];
        assert_int_equal(pool->sticky.enabled, cases[i].is_on);
        assert_int_equal(pool->queue.enabled, cases[i].is_on);
        check_sticky_defaults(pool);
        assert_int_equal(pool->queue.timeout_ms, 5000);
        vb_conf_free(&conf);
    }
}

/* One key turns it on, the others keep their defaults. */
static void a_mapping_turns_it_on(void **state)
{
    struct vb_conf *conf = parse_good(STICKY "{ttl: 2h}}}}");
    assert_true(conf->pools[0].sticky.enabled);
    assert_string_equal(conf->pools[0].sticky.cookie, "vb");
    assert_int_equal(conf->pools[0].sticky.ttl_ms, 7200000);
    assert_string_equal(conf->pools[0].sticky.secret, "");
    vb_conf_free(&conf);
}

static void the_ends_of_each_range_are_in_it(void **state)
{
    struct vb_conf *conf = parse_good("listen: 80\n"
                                      "pools:\n"
                                      "  low:\n"
                                      "    backends: [{ address: 'a:1', max_connections: 0, backup: off }]\n"
                                      "    balance: hash\n"
                                      "    hash: { bounded: 101% }\n"
                                      "    sticky: { cookie: a, ttl: 1s, secret: " SIXTEEN " }\n"
                                      "    queue: { timeout: 1ms }\n"
                                      "    slow_start: 0\n"
                                      "  high:\n"
                                      "    backends: [{ address: 'a:1', max_connections: 10000000 }]\n"
                                      "    balance: hash\n"
                                      "    hash: { bounded: 10000% }\n"
                                      "    sticky: { cookie: " LONGEST ", ttl: 8760h, secret: '' }\n"
                                      "    queue: { timeout: 24h }\n"
                                      "    slow_start: 1h\n"
                                      "routes: [{ path: /low, pool: low }, { pool: high }]\n");
    const struct vb_conf_pool *low = &conf->pools[0], *high = &conf->pools[1];
    assert_int_equal(low->hash.bounded, 101);
    assert_string_equal(low->sticky.cookie, "a");
    assert_int_equal(low->sticky.ttl_ms, 1000);
    assert_string_equal(low->sticky.secret, SIXTEEN);
    assert_int_equal(low->queue.timeout_ms, 1);
    assert_int_equal(low->slow_start_ms, 0);
    assert_int_equal(high->backends[0].max_connections, 10000000);
    assert_int_equal(high->hash.bounded, 10000);
    assert_string_equal(high->sticky.cookie, LONGEST);
    assert_int_equal(high->sticky.ttl_ms, UINT64_C(365) * 86400000);
    assert_string_equal(high->sticky.secret, "");
    assert_int_equal(high->queue.timeout_ms, 86400000);
    assert_int_equal(high->slow_start_ms, 3600000);
    vb_conf_free(&conf);
}

static void a_hash_without_a_bound(void **state)
{
    struct vb_conf *conf = parse_good(HASHED "{bounded: off}}}}");
    assert_int_equal(conf->pools[0].hash.bounded, 0);
    vb_conf_free(&conf);
}

/* ---- wrong texts ---- */
#define A_KEY     "expected client_ip or path or uri or header:NAME or cookie:NAME"
#define A_BOUND   "expected a share from 101% to 10000% or `off`"
#define CHARS_ARE "that has letters, digits and !#$%&'*+-.^_`|~\n"

static void wrong_hashes_say_what_is_right(void **state)
{
    static const struct wrong cases[] = {
        {HASHED "off}}}", "f:2:1: `hash`: expected a mapping, found `off`\n"},
        {HASHED "{key: client-ip}}}}", "f:2:7: `key`: unknown value `client-ip`; did you mean `client_ip`?\n"},
        {HASHED "{key: url}}}}", "f:2:7: `key`: unknown value `url`; did you mean `uri`?\n"},
        {HASHED "{key: header}}}}", "f:2:7: `key`: " A_KEY ", found `header`\n"},
        {HASHED "{key: query:user}}}}", "f:2:7: `key`: " A_KEY ", found `query:user`\n"},
        {HASHED "{key: off}}}}", "f:2:7: `key`: " A_KEY ", found `off`\n"},
        {HASHED "{key: ''}}}}", "f:2:7: `key`: " A_KEY ", found an empty text\n"},
        {HASHED "{key: [path]}}}}", "f:2:7: `key`: expected a word such as client_ip or path, found a list\n"},
        {HASHED "{key: 'header:'}}}}", "f:2:7: `key`: `` is not the name of a header field; " CHARS_ARE},
        {HASHED "{key: 'header: X'}}}}", "f:2:7: `key`: ` X` is not the name of a header field; " CHARS_ARE},
        {HASHED "{key: 'cookie:a=b'}}}}", "f:2:7: `key`: `a=b` is not the name of a cookie; " CHARS_ARE},
        {HASHED "{key: cookie:a:b}}}}", "f:2:7: `key`: `a:b` is not the name of a cookie; " CHARS_ARE},
        {HASHED "{bounded: 100%}}}}", "f:2:11: `bounded`: " A_BOUND ", found `100%`\n"},
        {HASHED "{bounded: 10001%}}}}", "f:2:11: `bounded`: " A_BOUND ", found `10001%`\n"},
        {HASHED "{bounded: 1.25}}}}", "f:2:11: `bounded`: expected a share such as 20% or `off`, found `1.25`\n"},
        {HASHED "{bound: 200%}}}}", "f:2:2: unknown key `bound`; did you mean `bounded`?\n"},
    };
    check_wrong(cases, VB_ARRAY_SIZE(cases));
}

#define A_COOKIE "expected the name of a cookie: at most 63 letters, digits and !#$%&'*+-.^_`|~"

static void wrong_stickiness_says_what_is_right(void **state)
{
    static const struct wrong cases[] = {
        {STICKY "cookie}}}", "f:2:1: `sticky`: expected a mapping or `off`, found `cookie`\n"},
        {STICKY "{cookie: a b}}}}", "f:2:10: `cookie`: " A_COOKIE ", found `a b`\n"},
        {STICKY "{cookie: a=b}}}}", "f:2:10: `cookie`: " A_COOKIE ", found `a=b`\n"},
        {STICKY "{cookie: ''}}}}", "f:2:10: `cookie`: " A_COOKIE ", found an empty text\n"},
        {STICKY "{cookie: x" LONGEST "}}}}",
         "f:2:10: `cookie`: " A_COOKIE ", found `xa23456789b23456789c23456789d23456789e23456789f23456789g2345...`\n"},
        {STICKY "{ttl: 999ms}}}}", "f:2:7: `ttl`: expected 1s to 8760h, found `999ms`\n"},
        {STICKY "{ttl: 8761h}}}}", "f:2:7: `ttl`: expected 1s to 8760h, found `8761h`\n"},
        {STICKY "{name: a}}}}",
         "f:2:2: unknown key `name` here; it belongs in `the top level` or `pools.NAME.backends`\n"},
    };
    check_wrong(cases, VB_ARRAY_SIZE(cases));
}

/* Nor is one shown that is too short: it may be half of a good one. */
static void short_secrets_are_refused(void **state)
{
    static const struct wrong cases[] = {
        {STICKY "{secret: hidden}}}}", "f:2:10: `secret`: expected at least 16 bytes, found 6\n"},
        {STICKY "{secret: 0123456789abcde}}}}", "f:2:10: `secret`: expected at least 16 bytes, found 15\n"},
        {STICKY "{secret: off}}}}", "f:2:10: `secret`: expected at least 16 bytes, found 3\n"},
        {STICKY "{secret: [a]}}}}", "f:2:10: `secret`: expected a text, found a list\n"},
    };
    check_wrong(cases, VB_ARRAY_SIZE(cases));
}

static void wrong_times_and_limits_say_what_is_right(void **state)
{
    static const struct wrong cases[] = {
        {QUEUE "5s}}}", "f:2:1: `queue`: expected a mapping or `off`, found `5s`\n"},
        {QUEUE "{timeout: 0}}}}", "f:2:11: `timeout`: expected 1ms to 24h, found `0`\n"},
        {QUEUE "{timeout: 25h}}}}", "f:2:11: `timeout`: expected 1ms to 24h, found `25h`\n"},
        {QUEUE "{timout: 1s}}}}", "f:2:2: unknown key `timout`; did you mean `timeout`?\n"},
        {POOL "slow_start: 61m}}}", "f:2:13: `slow_start`: expected 0 to 1h, found `61m`\n"},
        {POOL "slow_start: soon}}}",
         "f:2:13: `slow_start`: expected a duration such as 500ms, 5s, 1m or 1h, found `soon`\n"},
        {POOL "slowstart: 1s}}}", "f:2:1: unknown key `slowstart`; did you mean `slow_start`?\n"},
        {BACK "max_connections: -1}]}}}",
         "f:2:18: `max_connections`: expected a whole number from 0 to 10000000, found `-1`\n"},
        {BACK "max_connections: 10000001}]}}}",
         "f:2:18: `max_connections`: expected a whole number from 0 to 10000000, found `10000001`\n"},
        {BACK "max_connection: 1}]}}}", "f:2:1: unknown key `max_connection`; did you mean `max_connections`?\n"},
        {BACK "backup: 1}]}}}", "f:2:9: `backup`: expected true or false, found `1`\n"},
        {POOL "max_connections: 1}}}",
         "f:2:1: unknown key `max_connections` here; it belongs in `pools.NAME.backends`\n"},
    };
    check_wrong(cases, VB_ARRAY_SIZE(cases));
}

static void a_hash_for_another_policy_is_warned_of(void **state)
{
    struct parsed parsed = parse(POOL "balance: fastest, hash: {bounded: off}}}}");
    assert_int_equal(parsed.r, 0);
    assert_string_equal(parsed.lines, "f:2:19: warning: `hash` has no effect: `balance` is `fastest`; "
                                      "write `balance: hash`, or leave `hash` out\n");
    drop(&parsed);
}

/* Two pools with these settings, and these routes. */
static void check_cookies(const char *web, const char *api, const char *routes, const char *lines)
{
    char text[512];
    snprintf(text, sizeof(text),
             "listen: 80\npools:\n  web: {backends: [a:1], %s}\n  api: {backends: [b:1], %s}\nroutes:\n%s", web, api,
             routes);
    struct parsed parsed = parse(text);
    assert_int_equal(parsed.r, 0);
    assert_string_equal(parsed.lines, lines);
    drop(&parsed);
}

static void pools_that_overwrite_each_others_cookie_are_warned_of(void **state)
{
    static const char warning[] =
        "f:7:3: warning: pools `web` (line 6) and `api` set the same cookie, `vb`, for one host, so that each loses "
        "the clients that the other one gets; give one of them another `sticky.cookie`\n";
    static const char paths[] = "- {path: /api/, pool: web}\n- {pool: api}\n";
    static const char hosts[] = "- {host: a.example, pool: web}\n- {host: b.example, pool: api}\n";
    static const char one_host[] = "- {host: a.example, path: /x, pool: web}\n- {host: a.example, pool: api}\n";
    static const char on[] = "sticky: on", off[] = "sticky: off", other[] = "sticky: {cookie: other}";
    check_cookies(on, on, paths, warning);
    check_cookies(on, on, one_host, warning);
    check_cookies(other, "sticky: {cookie: vb}", paths, "");
    check_cookies(on, off, paths, "");
    check_cookies(off, off, paths, "");
    check_cookies(on, on, hosts, ""); /* browsers keep those apart */
    check_cookies(on, on, "- {path: /a, pool: web}\n- {path: /b, pool: web}\n- {host: b.example, pool: api}\n", "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pool_without_a_word_has_the_defaults),
        cmocka_unit_test(every_key_is_read),
        cmocka_unit_test(every_policy_has_its_word),
        cmocka_unit_test(what_is_hashed_is_a_word_and_perhaps_a_name),
        cmocka_unit_test(words_turn_things_off_and_on),
        cmocka_unit_test(a_mapping_turns_it_on),
        cmocka_unit_test(the_ends_of_each_range_are_in_it),
        cmocka_unit_test(a_hash_without_a_bound),
        cmocka_unit_test(wrong_hashes_say_what_is_right),
        cmocka_unit_test(wrong_stickiness_says_what_is_right),
        cmocka_unit_test(short_secrets_are_refused),
        cmocka_unit_test(wrong_times_and_limits_say_what_is_right),
        cmocka_unit_test(a_hash_for_another_policy_is_warned_of),
        cmocka_unit_test(pools_that_overwrite_each_others_cookie_are_warned_of),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
