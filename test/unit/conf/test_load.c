/* Values, defaults, and what is said about each kind of mistake. */
#include "fixture.h"

/* ---- good texts ---- */
static void shortest_file_has_the_defaults(void **state)
{
    struct vb_conf *conf = parse_good("listen: 8080\n"
                                      "pools:\n"
                                      "  web:\n"
                                      "    backends: [127.0.0.1:9001, 127.0.0.1:9002, 127.0.0.1:9003]\n");
    assert_string_equal(conf->name, "vibebalancer");
    assert_int_equal(conf->workers, 0);
    assert_int_equal(conf->n_listeners, 1);
    assert_string_equal(conf->listeners[0].text, "0.0.0.0:8080");
    assert_int_equal(conf->listeners[0].line, 1);
    assert_int_equal(conf->listeners[0].column, 9);
    assert_int_equal(conf->timeouts.header_ms, 10000);
    assert_int_equal(conf->timeouts.body_ms, 60000);
    assert_int_equal(conf->timeouts.keepalive_ms, 75000);
    assert_int_equal(conf->limits.header_bytes, 16384);
    assert_int_equal(conf->limits.headers, 100);
    assert_int_equal(conf->limits.requests_per_connection, 10000);
    assert_int_equal(conf->timeouts.tunnel_ms, 3600000);
    assert_int_equal(conf->limits.body, 0);
    assert_int_equal(conf->limits.connections, 0);
    assert_int_equal(conf->limits.connections_per_ip, 0);
    assert_int_equal(conf->n_routes, 0);
    assert_int_equal(conf->trusted_proxies.n, 0);
    assert_false(conf->trusted_proxies.unix_peers);
    assert_int_equal(conf->listeners[0].proxy_protocol.n, 0);
    assert_false(conf->listeners[0].proxy_protocol.unix_peers);
    assert_int_equal(conf->headers.forwarded, VB_FORWARDED_X);
    assert_string_equal(conf->headers.request_id, "X-Request-ID");
    assert_true(conf->headers.via);
    assert_int_equal(conf->shutdown_grace_ms, 30000);
    assert_int_equal(conf->watchdog_ms, 10000);
    assert_null(conf->segment.path);
    assert_int_equal(conf->segment.backends, 256);
    vb_conf_free(&conf);
}

static void shortest_pool_has_the_defaults(void **state)
{
    struct vb_conf *conf = parse_good("{listen: 8080, pools: {web: {backends: [127.0.0.1:9001, 127.0.0.1:9002]}}}");
    assert_int_equal(conf->n_pools, 1);
    const struct vb_conf_pool *pool = &conf->pools[0];
    assert_string_equal(pool->name, "web");
    assert_int_equal(pool->balance, VB_BALANCE_ROUND_ROBIN);
    assert_int_equal(pool->n_backends, 2);
    assert_string_equal(pool->backends[1].name, "127.0.0.1:9002");
    assert_string_equal(pool->backends[1].address, "127.0.0.1:9002");
    assert_string_equal(pool->backends[1].endpoint.host, "127.0.0.1");
    assert_int_equal(pool->backends[1].endpoint.port, 9002);
    assert_string_equal(pool->backends[1].endpoint.unix_path, "");
    assert_int_equal(pool->backends[1].weight, 1);
    assert_int_equal(pool->backends[1].line, 1);
    assert_int_equal(pool->backends[1].column, 57);
    assert_int_equal(pool->keepalive.idle, 64);
    assert_int_equal(pool->keepalive.timeout_ms, 30000);
    assert_int_equal(pool->timeouts.connect_ms, 3000);
    assert_int_equal(pool->timeouts.response_ms, 60000);
    assert_int_equal(pool->timeouts.idle_ms, 60000);
    assert_int_equal(pool->n_upgrade, 1);
    assert_string_equal(pool->upgrade[0].name, "websocket");
    const struct vb_conf_health *health = &pool->health;
    assert_true(health->enabled);
    assert_null(health->path);
    assert_string_equal(health->host, "");
    assert_int_equal(health->interval_ms, 2000);
    assert_int_equal(health->fast_interval_ms, 500);
    assert_int_equal(health->timeout_ms, 1000);
    assert_int_equal(health->rise, 2);
    assert_int_equal(health->fall, 3);
    assert_int_equal(health->port, 0);
    assert_int_equal(health->n_expect, 1);
    assert_int_equal(health->expect[0].first, 200);
    assert_int_equal(health->expect[0].last, 399);
    vb_conf_free(&conf);
}

static const char everything[] = "name: shop-1.eu_west\n"
                                 "workers: \"4\"\n"
                                 "listen:\n"
                                 "  - 127.0.0.1:80\n"
                                 "  - { address: \"[::]:80\" }\n"
                                 "  - { address: 'unix:/run/vb.sock', proxy_protocol: unix }\n"
                                 "pools:\n"
                                 "  web:\n"
                                 "    balance: least_conn\n"
                                 "    backends:\n"
                                 "      - http://web.example.com:80/\n"
                                 "      - { address: '[::1]:81', name: b2, weight: 256 }\n"
                                 "      - unix:/run/web.sock\n"
                                 "      - { address: 'unix:/run/b4.sock', name: b4 }\n"
                                 "    health:\n"
                                 "      path: /health?x=1\n"
                                 "      interval: 1m\n"
                                 "      fast_interval: 10ms\n"
                                 "      timeout: 90s\n"
                                 "      rise: 1\n"
                                 "      fall: 1000\n"
                                 "      expect: [200, 204 - 206, \"300-302,401\"]\n"
                                 "      port: same\n"
                                 "      host: health.example.com\n"
                                 "    keepalive: { idle: 0, timeout: 1h }\n"
                                 "    timeouts: { connect: 1ms, response: 2ms, idle: 24h }\n"
                                 "    upgrade: [WebSocket, IRC/6.9]\n"
                                 "timeouts: { header: 1s, body: 2s, keepalive: 3s, tunnel: 4s }\n"
                                 "limits:\n"
                                 "  header_bytes: 1MiB\n"
                                 "  headers: 8\n"
                                 "  requests_per_connection: 0\n"
                                 "  body: 1024GiB\n"
                                 "  connections: 1000000\n"
                                 "  connections_per_ip: 7\n"
                                 "headers: { forwarded: off, request_id: no, via: FALSE }\n"
                                 "shutdown: { grace: 0 }\n"
                                 "segment: { path: /var/tmp/seg ment, backends: 4096 }\n";

static void every_key_of_the_top_is_read(void **state)
{
    struct vb_conf *conf = parse_good(everything);
    assert_string_equal(conf->name, "shop-1.eu_west");
    assert_int_equal(conf->workers, 4);
    assert_int_equal(conf->n_listeners, 3);
    assert_string_equal(conf->listeners[0].text, "127.0.0.1:80");
    assert_string_equal(conf->listeners[1].text, "[::]:80");
    assert_int_equal(conf->listeners[1].line, 5);
    assert_int_equal(conf->listeners[1].column, 16);
    assert_string_equal(conf->listeners[2].text, "unix:/run/vb.sock");
    assert_true(conf->listeners[2].proxy_protocol.unix_peers);
    assert_int_equal(conf->timeouts.header_ms, 1000);
    assert_int_equal(conf->timeouts.body_ms, 2000);
    assert_int_equal(conf->timeouts.keepalive_ms, 3000);
    assert_int_equal(conf->timeouts.tunnel_ms, 4000);
    assert_int_equal(conf->limits.header_bytes, 1 << 20);
    assert_int_equal(conf->limits.headers, 8);
    assert_int_equal(conf->limits.requests_per_connection, 0);
    assert_int_equal(conf->limits.body, UINT64_C(1) << 40);
    assert_int_equal(conf->limits.connections, 1000000);
    assert_int_equal(conf->limits.connections_per_ip, 7);
    assert_int_equal(conf->headers.forwarded, VB_FORWARDED_OFF);
    assert_string_equal(conf->headers.request_id, "");
    assert_false(conf->headers.via);
    assert_int_equal(conf->shutdown_grace_ms, 0);
    assert_string_equal(conf->segment.path, "/var/tmp/seg ment");
    assert_int_equal(conf->segment.backends, 4096);
    vb_conf_free(&conf);
}

static void every_key_of_a_pool_is_read(void **state)
{
    struct vb_conf *conf = parse_good(everything);
    const struct vb_conf_pool *pool = &conf->pools[0];
    assert_int_equal(pool->balance, VB_BALANCE_LEAST_CONN);
    assert_int_equal(pool->n_backends, 4);
    assert_string_equal(pool->backends[0].name, "web.example.com:80");
    assert_string_equal(pool->backends[0].endpoint.host, "web.example.com");
    assert_string_equal(pool->backends[1].name, "b2");
    assert_string_equal(pool->backends[1].endpoint.host, "::1");
    assert_string_equal(pool->backends[1].address, "[::1]:81");
    assert_int_equal(pool->backends[1].weight, 256);
    assert_string_equal(pool->backends[2].name, "unix:/run/web.sock");
    assert_string_equal(pool->backends[2].address, "unix:/run/web.sock");
    assert_string_equal(pool->backends[2].endpoint.unix_path, "/run/web.sock");
    assert_string_equal(pool->backends[3].name, "b4");
    assert_string_equal(pool->backends[3].address, "unix:/run/b4.sock");
    assert_int_equal(pool->keepalive.idle, 0);
    assert_int_equal(pool->keepalive.timeout_ms, 3600000);
    assert_int_equal(pool->timeouts.connect_ms, 1);
    assert_int_equal(pool->timeouts.response_ms, 2);
    assert_int_equal(pool->timeouts.idle_ms, 86400000);
    assert_int_equal(pool->n_upgrade, 2);
    assert_string_equal(pool->upgrade[0].name, "websocket");
    assert_string_equal(pool->upgrade[1].name, "irc/6.9");
    const struct vb_conf_health *health = &pool->health;
    assert_true(health->enabled);
    assert_string_equal(health->path, "/health?x=1");
    assert_string_equal(health->host, "health.example.com");
    assert_int_equal(health->interval_ms, 60000);
    assert_int_equal(health->fast_interval_ms, 10);
    assert_int_equal(health->timeout_ms, 90000);
    assert_int_equal(health->rise, 1);
    assert_int_equal(health->fall, 1000);
    assert_int_equal(health->port, 0);
    static const struct vb_conf_status_range expect[] = {{200, 200}, {204, 206}, {300, 302}, {401, 401}};
    assert_int_equal(health->n_expect, VB_ARRAY_SIZE(expect));
    assert_memory_equal(health->expect, expect, sizeof(expect));
    vb_conf_free(&conf);
}

static void words_turn_things_off_and_on(void **state)
{
    static const char *const off[] = {"off", "OFF", "false", "False", "no", "\"off\""};
    static const char *const on[] = {"on", "On", "true", "TRUE", "yes", "'yes'"};
    char text[256];
    for (size_t i = 0; i < VB_ARRAY_SIZE(off) + VB_ARRAY_SIZE(on); i++) {
        bool is_on = i >= VB_ARRAY_SIZE(off);
        const char *word = is_on ? on[i - VB_ARRAY_SIZE(off)] : off[i];
        snprintf(text, sizeof(text),
                 "listen: 80\npools: {web: {backends: [a:1], health: %s}}\nheaders: {via: %s, request_id: %s}", word,
                 word, word);
        struct vb_conf *conf = parse_good(text);
        assert_int_equal(conf->pools[0].health.enabled, is_on);
        assert_int_equal(conf->headers.via, is_on);
        assert_string_equal(conf->headers.request_id, is_on ? "X-Request-ID" : "");
        vb_conf_free(&conf);
    }
}

static void forwarded_is_a_set(void **state)
{
    static const struct {
        const char *word;
        unsigned value;
    } cases[] = {
        {"x", VB_FORWARDED_X},     {"rfc7239", VB_FORWARDED_RFC7239}, {"both", VB_FORWARDED_X | VB_FORWARDED_RFC7239},
        {"off", VB_FORWARDED_OFF}, {"false", VB_FORWARDED_OFF},
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        char text[128];
        snprintf(text, sizeof(text), REST "headers: {forwarded: %s}}", cases[i].word);
        struct vb_conf *conf = parse_good(text);
        assert_int_equal(conf->headers.forwarded, cases[i].value);
        vb_conf_free(&conf);
    }
}

static void upgrades_are_protocols(void **state)
{
    static const struct {
        const char *value, *names; /* with a space behind each */
    } cases[] = {
        {"websocket", "websocket "},
        {"[WebSocket]", "websocket "},
        {"[websocket, TLS/1.0, a23456789012345678901234567890b]", "websocket tls/1.0 a23456789012345678901234567890b "},
        {"[a, b, c, d, e, f, g, h]", "a b c d e f g h "},
        {"off", ""},
        {"false", ""},
        {"on", "websocket "},
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        char text[256], names[256] = "";
        snprintf(text, sizeof(text), POOL "upgrade: %s}}}", cases[i].value);
        struct vb_conf *conf = parse_good(text);
        for (unsigned j = 0; j < conf->pools[0].n_upgrade; j++)
            snprintf(names + strlen(names), sizeof(names) - strlen(names), "%s ", conf->pools[0].upgrade[j].name);
        assert_string_equal(names, cases[i].names);
        vb_conf_free(&conf);
    }
}

/* ---- wrong texts ---- */
static void missing_and_empty_things_are_named(void **state)
{
    static const struct wrong cases[] = {
        {"", "f:1:1: the file is empty; it needs at least `listen` and `pools`\n"},
        {"# nothing\n", "f:1:1: the file is empty; it needs at least `listen` and `pools`\n"},
        {"\n{}", "f:2:1: `listen` is missing; add for example `listen: 8080`\n"
                 "f:2:1: `pools` is missing; add a pool with its backends\n"},
        {"listen: 80", "f:1:1: `pools` is missing; add a pool with its backends\n"},
        {"text", "f:1:1: expected a mapping with at least `listen` and `pools`, found `text`\n"},
        {"- a", "f:1:1: expected a mapping with at least `listen` and `pools`, found a list\n"},
        {"listen: 80\npools: {}", "f:2:8: `pools` is empty; add a pool with its backends\n"},
        {"listen: 80\npools:", "f:2:1: `pools`: expected a mapping from names to pools, found nothing\n"},
        {"listen: []\npools: {web: {backends: [a:1]}}", "f:1:9: `listen` is empty; write for example `listen: 8080`\n"},
        {"listen: 80\npools:\n  web: {}",
         "f:3:3: pool `web` has no backends; add for example `backends: [127.0.0.1:9001]`\n"},
        {"listen: 80\npools:\n  web: {backends: []}",
         "f:3:19: `backends` is empty; a pool needs at least one, such as 127.0.0.1:9001\n"},
        {"listen: {}\npools: {web: {backends: [{}]}}",
         "f:1:9: a listener needs an `address`, for example `address: 8080`\n"
         "f:2:26: a backend needs an `address`, for example 127.0.0.1:9001\n"},
    };
    check_wrong(cases, VB_ARRAY_SIZE(cases));
}

static void wrong_types_are_named(void **state)
{
    static const struct wrong cases[] = {
        {"listen: 80\npools: [a:1]", "f:2:8: `pools`: expected a mapping from names to pools, found a list\n"},
        {"listen: 80\npools: {web: [a:1]}", "f:2:14: `web`: expected a mapping with `backends`, found a list\n"},
        {"listen: 80\npools: {web: {backends: a:1}}",
         "f:2:25: `backends`: expected a list of addresses, found `a:1`\n"},
        {"listen: 80\npools: {web: {backends: [[a:1]]}}",
         "f:2:26: `backends`: expected an address such as 127.0.0.1:9001, found a list\n"},
        {"listen: [[80]]\npools: {web: {backends: [a:1]}}",
         "f:1:10: `listen`: expected an address such as 8080 or 127.0.0.1:8080, found a list\n"},
        {REST "timeouts: [1]}", "f:1:57: `timeouts`: expected a mapping, found a list\n"},
        {REST "timeouts: }", "f:1:47: `timeouts`: expected a mapping, found nothing\n"},
        {REST "timeouts: ''}", "f:1:57: `timeouts`: expected a mapping, found an empty text\n"},
        {REST "workers: {}}", "f:1:56: `workers`: expected a single value, found a mapping\n"},
        {POOL "health: 2s}}}", "f:2:9: `health`: expected a mapping or `off`, found `2s`\n"},
        {POOL "health: [off]}}}", "f:2:9: `health`: expected a mapping or `off`, found a list\n"},
        {POOL "keepalive: off}}}", "f:2:12: `keepalive`: expected a mapping, found `off`\n"},
    };
    check_wrong(cases, VB_ARRAY_SIZE(cases));
}

static void wrong_values_say_what_is_right(void **state)
{
#define A_NAME "expected a name of at most 63 letters, digits, `_`, `.` and `-`"
    static const struct wrong cases[] = {
        {REST "workers: 0}", "f:1:56: `workers`: expected a whole number from 1 to 64 or `auto`, found `0`\n"},
        {REST "workers: 65}", "f:1:56: `workers`: expected a whole number from 1 to 64 or `auto`, found `65`\n"},
        {REST "workers: -1}", "f:1:56: `workers`: expected a whole number from 1 to 64 or `auto`, found `-1`\n"},
        {REST "workers: Auto}", "f:1:56: `workers`: expected a whole number from 1 to 64 or `auto`, found `Auto`\n"},
        {REST "name: a b}", "f:1:53: `name`: " A_NAME ", found `a b`\n"},
        {REST "name: ''}", "f:1:53: `name`: " A_NAME ", found an empty text\n"},
        {REST "name: a123456789a123456789a123456789a123456789a123456789a123456789abcd}",
         "f:1:53: `name`: " A_NAME ", found `a123456789a123456789a123456789a123456789a123456789a123456789...`\n"},
        {REST "limits: {header_bytes: 1023}}", "f:1:70: `header_bytes`: expected 1KiB to 1MiB, found `1023`\n"},
        {REST "limits: {header_bytes: 2MiB}}", "f:1:70: `header_bytes`: expected 1KiB to 1MiB, found `2MiB`\n"},
        {REST "limits: {header_bytes: 16K}}",
         "f:1:70: `header_bytes`: expected a size such as 4096, 16KiB or 1MiB, found `16K`\n"},
        {REST "limits: {headers: 7}}", "f:1:65: `headers`: expected a whole number from 8 to 1000, found `7`\n"},
        {REST "timeouts: {body: 0}}", "f:1:64: `body`: expected 1ms to 24h, found `0`\n"},
        {REST "timeouts: {body: 99999999999999999999s}}",
         "f:1:64: `body`: expected 1ms to 24h, found `99999999999999999999s`\n"},
        {REST "timeouts: {body: 60}}", "f:1:64: `body`: expected a duration such as 500ms, 5s, 1m or 1h, found `60`\n"},
        {REST "shutdown: {grace: 25h}}", "f:1:65: `grace`: expected 0 to 24h, found `25h`\n"},
        {REST "headers: {via: maybe}}", "f:1:62: `via`: expected true or false, found `maybe`\n"},
        {REST "headers: {forwarded: y}}", "f:1:68: `forwarded`: unknown value `y`; did you mean `x`?\n"},
        {REST "headers: {forwarded: nginx}}",
         "f:1:68: `forwarded`: expected x or rfc7239 or both or off, found `nginx`\n"},
        {REST "limits: {body: 1025GiB}}", "f:1:62: `body`: expected 0 to 1024GiB, found `1025GiB`\n"},
        {REST "limits: {body: off}}", "f:1:62: `body`: expected a size such as 4096, 16KiB or 1MiB, found `off`\n"},
        {REST "limits: {connections: 1000001}}",
         "f:1:69: `connections`: expected a whole number from 0 to 1000000, found `1000001`\n"},
        {REST "limits: {connections_per_ip: -1}}",
         "f:1:76: `connections_per_ip`: expected a whole number from 0 to 1000000, found `-1`\n"},
        {REST "timeouts: {tunnel: 0}}", "f:1:66: `tunnel`: expected 1ms to 24h, found `0`\n"},
        {REST "headers: {request_id: content-length}}",
         "f:1:69: `request_id`: the field `content-length` has another meaning; use for example `X-Request-ID`\n"},
        {REST "headers: {request_id: 'X Y'}}",
         "f:1:69: `request_id`: expected the name of a header field, at most 63 characters, or `off`, found `X Y`\n"},
        {REST "segment: {path: relative}}",
         "f:1:63: `path`: expected the path of a file that begins with /, found `relative`\n"},
        {REST "segment: {backends: 4097}}",
         "f:1:67: `backends`: expected a whole number from 1 to 4096, found `4097`\n"},
        {POOL "balance: roundrobin}}}", "f:2:10: `balance`: unknown value `roundrobin`; did you mean `round_robin`?\n"},
        {POOL "balance: weighted}}}",
         "f:2:10: `balance`: expected round_robin or least_conn or fastest or p2c or random or hash or least_load, "
         "found `weighted`\n"},
        {"{listen: 80, pools: {web: {backends: [\n{address: a:1, weight: 257, name: a/b}]}}}",
         "f:2:24: `weight`: expected a whole number from 1 to 256, found `257`\n"
         "f:2:35: `name`: " A_NAME ", found `a/b`\n"},
        {"listen: 80\npools: {\"w\\nb\": {backends: [a:1]}}",
         "f:2:9: `w?b` is not a name for a pool: use at most 63 letters, digits, `_`, `.` and `-`\n"},
    };
    check_wrong(cases, VB_ARRAY_SIZE(cases));
}

static void wrong_health_values_say_what_is_right(void **state)
{
#define A_PATH   "expected a path that begins with / and has only visible ASCII characters"
#define STATUSES "expected statuses from 100 to 599 such as 200-399 or 200,204,300-302"
    static const struct wrong cases[] = {
        {HEALTH "path: ''}}}}", "f:2:1: duplicate key `path`; it was given in line 1 already\n"},
        {POOL "health: {path: health}}}}", "f:2:16: `path`: " A_PATH ", found `health`\n"},
        {POOL "health: {path: /a b}}}}", "f:2:16: `path`: " A_PATH ", found `/a b`\n"},
        {POOL "health: {path: /\xc3\xa9}}}}", "f:2:16: `path`: " A_PATH ", found `/\xc3\xa9`\n"},
        {POOL "health: {path: \"/\\r\\nX: y\"}}}}", "f:2:16: `path`: " A_PATH ", found `/??X: y`\n"},
        {HEALTH "interval: 9ms}}}}", "f:2:11: `interval`: expected 10ms to 1h, found `9ms`\n"},
        {HEALTH "interval: 5 sec}}}}",
         "f:2:11: `interval`: expected a duration such as 500ms, 5s, 1m or 1h, found `5 sec`\n"},
        {HEALTH "rise: 0}}}}", "f:2:7: `rise`: expected a whole number from 1 to 1000, found `0`\n"},
        {HEALTH "port: 65536}}}}", "f:2:7: `port`: expected a whole number from 1 to 65535 or `same`, found `65536`\n"},
        {HEALTH "port: 0}}}}", "f:2:7: `port`: expected a whole number from 1 to 65535 or `same`, found `0`\n"},
        {HEALTH "host: \"a\\r\\nb\"}}}}",
         "f:2:7: `host`: expected a Host header: visible ASCII characters, at most 253, found `a??b`\n"},
        {HEALTH "expect: 99}}}}", "f:2:9: `expect`: " STATUSES ", found `99`\n"},
        {HEALTH "expect: 600}}}}", "f:2:9: `expect`: " STATUSES ", found `600`\n"},
        {HEALTH "expect: 300-200}}}}", "f:2:9: `expect`: " STATUSES ", found `300-200`\n"},
        {HEALTH "expect: '200,'}}}}", "f:2:9: `expect`: " STATUSES ", found `200,`\n"},
        {HEALTH "expect: 200-}}}}", "f:2:9: `expect`: " STATUSES ", found `200-`\n"},
        {HEALTH "expect: 2xx}}}}", "f:2:9: `expect`: " STATUSES ", found `2xx`\n"},
        {HEALTH "expect: }}}}", "f:2:1: `expect`: " STATUSES ", found nothing\n"},
        {HEALTH "expect: []}}}}", "f:2:9: `expect`: expected at least one status, found a list\n"},
        {HEALTH "expect: [200, {}]}}}}", "f:2:15: `expect`: " STATUSES ", found a mapping\n"},
        {HEALTH "expect: '200,201,202,203,204,205,206,207,208,209,210,211,212,213,214,215,216'}}}}",
         "f:2:9: `expect`: expected at most 16 ranges of statuses, found "
         "`200,201,202,203,204,205,206,207,208,209,210,211,212,213,214,...`\n"},
    };
    check_wrong(cases, VB_ARRAY_SIZE(cases));
}

static void wrong_upgrades_are_refused(void **state)
{
#define A_PROTOCOL "expected a protocol such as websocket, at most 31 characters"
#define NO_H2C     "h2c is never passed on: the requests behind it would go past every rule of this file\n"
    static const struct wrong cases[] = {
        {POOL "upgrade: h2c}}}", "f:2:10: " NO_H2C},
        {POOL "upgrade: [websocket, H2C/1]}}}", "f:2:22: " NO_H2C},
        {POOL "upgrade: }}}", "f:2:1: `upgrade`: " A_PROTOCOL ", found nothing\n"},
        {POOL "upgrade: {}}}}", "f:2:10: `upgrade`: " A_PROTOCOL ", found a mapping\n"},
        {POOL "upgrade: []}}}", "f:2:10: `upgrade`: expected at least one protocol, or `off`, found a list\n"},
        {POOL "upgrade: [off]}}}", "f:2:11: `upgrade`: " A_PROTOCOL ", found `off`\n"},
        {POOL "upgrade: a b}}}", "f:2:10: `upgrade`: " A_PROTOCOL ", found `a b`\n"},
        {POOL "upgrade: a/}}}", "f:2:10: `upgrade`: " A_PROTOCOL ", found `a/`\n"},
        {POOL "upgrade: /1}}}", "f:2:10: `upgrade`: " A_PROTOCOL ", found `/1`\n"},
        {POOL "upgrade: a/1/2}}}", "f:2:10: `upgrade`: " A_PROTOCOL ", found `a/1/2`\n"},
        {POOL "upgrade: [[a]]}}}", "f:2:11: `upgrade`: " A_PROTOCOL ", found a list\n"},
        {POOL "upgrade: a234567890123456789012345678901c}}}",
         "f:2:10: `upgrade`: " A_PROTOCOL ", found `a234567890123456789012345678901c`\n"},
        {POOL "upgrade: [a, b, c, d, e, f, g, h, i]}}}",
         "f:2:35: `upgrade`: expected at most 8 protocols, found `i`\n"},
    };
    check_wrong(cases, VB_ARRAY_SIZE(cases));
}

static void unknown_keys_get_the_best_guess(void **state)
{
    static const struct wrong cases[] = {
        {POOL "helth: off}}}", "f:2:1: unknown key `helth`; did you mean `health`?\n"},
        {POOL "stiky: off}}}", "f:2:1: unknown key `stiky`; did you mean `sticky`?\n"},
        {REST "tracng: {}}", "f:1:47: unknown key `tracng`; did you mean `tracing`, which is not supported yet?\n"},
        {HEALTH "fastInterval: 1s}}}}", "f:2:1: unknown key `fastInterval`; did you mean `fast_interval`?\n"},
        {REST "interval: 1s}", "f:1:47: unknown key `interval` here; it belongs in `pools.NAME.health`\n"},
        {REST "backends: 1}", "f:1:47: unknown key `backends` here; it belongs in `pools.NAME` or `segment`\n"},
        {POOL "listen: 80}}}", "f:2:1: unknown key `listen` here; it belongs in `the top level`\n"},
        {POOL "rate_limit: 80}}}", "f:2:1: unknown key `rate_limit` here; it belongs in `the top level` or `routes`\n"},
        {REST "upstream: {a: {b: [c]}}}",
         "f:1:47: unknown key `upstream`; "
         "allowed here: name, workers, listen, pools, routes, timeouts, limits, "
         "headers, trusted_proxies, shutdown, watchdog, segment, admin, user, simulate\n"},
        {REST "'': 1}", "f:1:47: unknown key ``; "
                        "allowed here: name, workers, listen, pools, routes, timeouts, limits, headers, "
                        "trusted_proxies, shutdown, watchdog, segment, admin, user, simulate\n"},
        {"listen: {adress: 80}\npools: {web: {backends: [a:1]}}",
         "f:1:9: a listener needs an `address`, for example `address: 8080`\n"
         "f:1:10: unknown key `adress`; did you mean `address`?\n"},
        {"listen: 80\npools: {web: {backends: [{address: a:1, wieght: 2}]}}",
         "f:2:41: unknown key `wieght`; did you mean `weight`?\n"},
    };
    check_wrong(cases, VB_ARRAY_SIZE(cases));
}

/* Whatever the value is, `off` as well: nobody may believe that it works. */
static void options_of_later_versions_are_refused(void **state)
{
    static const char *const top[] = {"rate_limit", "cache", "access_log",  "tls",     "http2",
                                      "discovery",  "auth",  "compression", "tracing", "cluster"};
    static const char *const values[] = {"off", "", "{a: [b]}"};
    char text[256], lines[128];
    for (size_t i = 0; i < VB_ARRAY_SIZE(top); i++) {
        for (size_t j = 0; j < VB_ARRAY_SIZE(values); j++) {
            snprintf(text, sizeof(text), REST "\n%s: %s}", top[i], values[j]);
            snprintf(lines, sizeof(lines), "f:2:1: `%s` is not supported yet\n", top[i]);
            check_wrong(&(struct wrong){text, lines}, 1);
        }
    }
}

static void options_of_later_versions_are_refused_below(void **state)
{
    static const struct wrong cases[] = {
        {REST "segment: {recent: 4096}}", "f:1:57: `recent` is not supported yet\n"},
        {REST "routes: [{pool: web, cache: false, rate_limit: {rate: 1/s}}]}",
         "f:1:68: `cache` is not supported yet\n"
         "f:1:82: `rate_limit` is not supported yet\n"},
    };
    check_wrong(cases, VB_ARRAY_SIZE(cases));
}

static void all_errors_come_at_once_in_order_of_line(void **state)
{
    static const struct wrong cases[] = {
        {"workers: many\n"
         "pools:\n"
         "  web:\n"
         "    backends: [a:1, a:1, b]\n"
         "    health: { interval: soon, rise: 2, path: x }\n"
         "listen: [80, localhost:80, 127.0.0.1:80]\n"
         "tls: {}\n"
         "name: ${VB_TEST_UNSET}\n",
         "f:1:10: `workers`: expected a whole number from 1 to 64 or `auto`, found `many`\n"
         "f:4:21: backend `a:1` is in pool `web` already, in line 4; each needs a name of its own\n"
         "f:4:26: `b` has no port; add one, for example `b:80`\n"
         "f:5:25: `interval`: expected a duration such as 500ms, 5s, 1m or 1h, found `soon`\n"
         "f:5:46: `path`: " A_PATH ", found `x`\n"
         "f:6:14: `localhost` is not an IP address; "
         "listen on one of this machine, or on a port of all, such as `80`\n"
         "f:6:28: `127.0.0.1:80` cannot be listened on beside `0.0.0.0:80` in line 6\n"
         "f:7:1: `tls` is not supported yet\n"
         "f:8:7: the environment variable `VB_TEST_UNSET` is not set; "
         "set it, or give a default: ${VB_TEST_UNSET:-default}\n"},
    };
    check_wrong(cases, VB_ARRAY_SIZE(cases));
}

static void doubtful_settings_are_warned_of(void **state)
{
    struct parsed parsed = parse("listen: 80\n"
                                 "pools:\n"
                                 "  a: { backends: [a:1], health: { expect: 200, host: x } }\n"
                                 "  b: { backends: [b:1] }\n"
                                 "  c: { backends: [c:1] }\n");
    assert_int_equal(parsed.r, 0);
    assert_string_equal(parsed.lines,
                        "f:3:35: warning: `expect` has no effect: without a `path` a check only opens a connection\n"
                        "f:3:48: warning: `host` has no effect: without a `path` a check only opens a connection\n"
                        "f:4:3: warning: only the first pool, `a`, gets requests: there are no `routes`\n");
    drop(&parsed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shortest_file_has_the_defaults),
        cmocka_unit_test(shortest_pool_has_the_defaults),
        cmocka_unit_test(every_key_of_the_top_is_read),
        cmocka_unit_test(every_key_of_a_pool_is_read),
        cmocka_unit_test(words_turn_things_off_and_on),
        cmocka_unit_test(forwarded_is_a_set),
        cmocka_unit_test(upgrades_are_protocols),
        cmocka_unit_test(missing_and_empty_things_are_named),
        cmocka_unit_test(wrong_types_are_named),
        cmocka_unit_test(wrong_values_say_what_is_right),
        cmocka_unit_test(wrong_health_values_say_what_is_right),
        cmocka_unit_test(wrong_upgrades_are_refused),
        cmocka_unit_test(unknown_keys_get_the_best_guess),
        cmocka_unit_test(options_of_later_versions_are_refused),
        cmocka_unit_test(options_of_later_versions_are_refused_below),
        cmocka_unit_test(all_errors_come_at_once_in_order_of_line),
        cmocka_unit_test(doubtful_settings_are_warned_of),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
