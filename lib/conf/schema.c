/*
 * Every option there is: its place, type, range and default, and what the design names but the code does not do yet.
 * A default is text that goes through the reader that a file's text goes through, so it cannot be out of its own range.
 */
#include "load_priv.h"

#include <limits.h>
#include <stdio.h>

#define FIELD(type, member) .offset = offsetof(type, member), .size = sizeof(((type *)NULL)->member)
#define CONF(member)        FIELD(struct vb_conf, member)
#define POOL(member)        FIELD(struct vb_conf_pool, member)
#define BACKEND(member)     FIELD(struct vb_conf_backend, member)
#define ROUTE(member)       FIELD(struct vb_conf_route, member)
#define MODEL(member)       FIELD(struct vb_conf_model, member)
#define PHASE(member)       FIELD(struct vb_conf_phase, member)

/* clang-format off */
#define ROW(name, kind, ...) {.key = (name), .type = VB_OPTION_##kind, __VA_ARGS__}
#define LATER(name) {.key = (name), .type = VB_OPTION_LATER}
#define UINT(name, field, low, high, its) ROW(name, UINT, field, .min = (low), .max = (high), .by_default = (its))
#define UINT_OR(word, name, field, low, high) \
    ROW(name, UINT, field, .min = (low), .max = (high), .special = (word), .by_default = (word))
#define DURATION(name, field, low, high, its) \
    ROW(name, DURATION, field, .min = (low), .max = (high), .by_default = (its))
#define DURATION_OR(word, name, field, low, high, its) \
    ROW(name, DURATION, field, .min = (low), .max = (high), .special = (word), .by_default = (its))
#define SIZE(name, field, low, high, its) ROW(name, SIZE, field, .min = (low), .max = (high), .by_default = (its))
#define SHARE(name, field, low, high, its) ROW(name, SHARE, field, .min = (low), .max = (high), .by_default = (its))
#define SHARE_OR(word, value, name, field, low, high, its) \
    ROW(name, SHARE, field, .min = (low), .max = (high), .special = (word), .special_value = (value), \
        .by_default = (its))
#define BOOL(name, field, its) ROW(name, BOOL, field, .by_default = (its))
#define WORD(name, field, its_words, its) ROW(name, WORD, field, .words = (its_words), .by_default = (its))
#define CHARS(name, field, check, wanted, its) \
    ROW(name, CHARS, field, .valid = (check), .expected = (wanted), .by_default = (its))
#define STRING(name, field, check, wanted, its) \
    ROW(name, STRING, field, .valid = (check), .expected = (wanted), .by_default = (its))
#define CUSTOM(name, function, its) ROW(name, CUSTOM, .read = (function), .by_default = (its))
#define LEVEL(name, its_level) ROW(name, LEVEL, .level = &(its_level))
#define LEVEL_OR_OFF(name, field, its_level, its) ROW(name, LEVEL, field, .level = &(its_level), .by_default = (its))
#define CUSTOM_WORDS(name, function, its_words, its) \
    ROW(name, CUSTOM, .read = (function), .words = (its_words), .by_default = (its))
#define CUSTOM_LEVEL(name, function, its_level) \
    ROW(name, CUSTOM, .read = (function), .level = &(its_level), .by_default = "on")
#define END {.key = NULL}
/* clang-format on */

#define MS              UINT64_C(1)
#define HOUR            (MS * 3600 * 1000)
#define DAY             (HOUR * 24)
#define KIB             UINT64_C(1024)
#define MIB             (KIB * 1024)
#define TIB             (MIB * 1024 * 1024)

#define NAME_EXPECTED   "a name of at most 63 letters, digits, `_`, `.` and `-`"
#define PATH_EXPECTED   "a path that begins with / and has only visible ASCII characters"
#define COOKIE_EXPECTED "the name of a cookie: at most 63 letters, digits and !#$%&'*+-.^_`|~"
#define HOST_EXPECTED   "a Host header: visible ASCII characters, at most 253"

/* ---- words ---- */
static const struct vb_word balance_words[] = {
    {.word = "round_robin", .value = VB_BALANCE_ROUND_ROBIN}, {.word = "least_conn", .value = VB_BALANCE_LEAST_CONN},
    {.word = "fastest", .value = VB_BALANCE_FASTEST},         {.word = "p2c", .value = VB_BALANCE_P2C},
    {.word = "random", .value = VB_BALANCE_RANDOM},           {.word = "hash", .value = VB_BALANCE_HASH},
    {.word = "least_load", .value = VB_BALANCE_LEAST_LOAD},   {.word = NULL},
};

static const struct vb_word hash_words[] = {
    {.word = "client_ip", .value = VB_HASH_CLIENT_IP},
    {.word = "path", .value = VB_HASH_PATH},
    {.word = "uri", .value = VB_HASH_URI},
    {.word = VB_HASH_HEADER_WORD, .value = VB_HASH_HEADER},
    {.word = VB_HASH_COOKIE_WORD, .value = VB_HASH_COOKIE},
    {.word = NULL},
};

static const struct vb_word retry_words[] = {
    {.word = "connect", .value = VB_RETRY_CONNECT}, {.word = "reset", .value = VB_RETRY_RESET},
    {.word = "timeout", .value = VB_RETRY_TIMEOUT}, {.word = "502", .value = VB_RETRY_502},
    {.word = "503", .value = VB_RETRY_503},         {.word = "504", .value = VB_RETRY_504},
    {.word = "429", .value = VB_RETRY_429},         {.word = NULL},
};

static const struct vb_word forwarded_words[] = {
    {.word = "x", .value = VB_FORWARDED_X},
    {.word = "rfc7239", .value = VB_FORWARDED_RFC7239},
    {.word = "both", .value = VB_FORWARDED_BOTH},
    {.word = "off", .value = VB_FORWARDED_OFF},
    {.word = NULL},
};

const char *vb_balance_name(enum vb_balance balance)
{
    for (const struct vb_word *word = balance_words; word->word != NULL; word++)
        if (word->value == balance)
            return word->word;
    return "unknown";
}

/* ---- a pool ---- */
static const struct vb_option health_options[] = {
    STRING("path", POOL(health.path), vb_valid_url_path, PATH_EXPECTED, NULL),
    DURATION("interval", POOL(health.interval_ms), 10 * MS, HOUR, "2s"),
    DURATION("fast_interval", POOL(health.fast_interval_ms), 10 * MS, HOUR, "500ms"),
    DURATION("timeout", POOL(health.timeout_ms), 1 * MS, HOUR, "1s"),
    UINT("rise", POOL(health.rise), 1, 1000, "2"),
    UINT("fall", POOL(health.fall), 1, 1000, "3"),
    CUSTOM("expect", vb_read_expect, "200-399"),
    UINT_OR("same", "port", POOL(health.port), 1, 65535),
    STRING("host", POOL(health.host), vb_valid_host_header, HOST_EXPECTED, ""),
    END,
};
static const struct vb_level health_level = {"pools.NAME.health", health_options};

static const struct vb_option pool_keepalive_options[] = {
    UINT("idle", POOL(keepalive.idle), 0, 10000, "64"),
    DURATION("timeout", POOL(keepalive.timeout_ms), 1 * MS, DAY, "30s"),
    END,
};
static const struct vb_level pool_keepalive_level = {"pools.NAME.keepalive", pool_keepalive_options};

static const struct vb_option pool_timeouts_options[] = {
    DURATION("connect", POOL(timeouts.connect_ms), 1 * MS, DAY, "3s"),
    DURATION("response", POOL(timeouts.response_ms), 1 * MS, DAY, "60s"),
    DURATION("idle", POOL(timeouts.idle_ms), 1 * MS, DAY, "60s"),
    END,
};
static const struct vb_level pool_timeouts_level = {"pools.NAME.timeouts", pool_timeouts_options};

static const struct vb_option outlier_options[] = {
    UINT("consecutive", POOL(outlier.consecutive), 1, 1000, "5"),
    DURATION("eject", POOL(outlier.eject_ms), 10 * MS, DAY, "10s"),
    DURATION("eject_max", POOL(outlier.eject_max_ms), 10 * MS, DAY, "300s"),
    SHARE("max_ejected", POOL(outlier.max_ejected), 0, 100, "50%"),
    END,
};
static const struct vb_level outlier_level = {"pools.NAME.outlier", outlier_options};

static const struct vb_option circuit_breaker_options[] = {
    UINT("max_requests", POOL(circuit_breaker.max_requests), 0, 10000000, "0"),
    UINT("max_pending", POOL(circuit_breaker.max_pending), 0, 10000000, "1024"),
    END,
};
static const struct vb_level circuit_breaker_level = {"pools.NAME.circuit_breaker", circuit_breaker_options};

static const struct vb_option retry_options[] = {
    UINT("attempts", POOL(retry.attempts), 0, VB_RETRY_ATTEMPTS_MAX, "2"),
    SHARE_OR("off", VB_RETRY_UNLIMITED, "budget", POOL(retry.budget), 0, 100, "20%"),
    CUSTOM_WORDS("on", vb_read_retry_on, retry_words, "connect, reset, timeout"),
    SIZE("buffer", POOL(retry.buffer), 0, 16 * MIB, "64KiB"),
    DURATION("total", POOL(retry.total_ms), 1 * MS, DAY, "2m"),
    END,
};
static const struct vb_level retry_level = {"pools.NAME.retry", retry_options};

static const struct vb_option hash_options[] = {
    CUSTOM_WORDS("key", vb_read_hash_key, hash_words, "client_ip"),
    SHARE_OR("off", 0, "bounded", POOL(hash.bounded), 101, 10000, "125%"),
    END,
};
static const struct vb_level hash_level = {"pools.NAME.hash", hash_options};

static const struct vb_option sticky_options[] = {
    CHARS("cookie", POOL(sticky.cookie), vb_valid_token, COOKIE_EXPECTED, "vb"),
    DURATION("ttl", POOL(sticky.ttl_ms), 1000 * MS, 365 * DAY, "1h"),
    CUSTOM("secret", vb_read_secret, ""),
    END,
};
static const struct vb_level sticky_level = {"pools.NAME.sticky", sticky_options};

static const struct vb_option queue_options[] = {
    DURATION("timeout", POOL(queue.timeout_ms), 1 * MS, DAY, "5s"),
    END,
};
static const struct vb_level queue_level = {"pools.NAME.queue", queue_options};

static const struct vb_option pool_options[] = {
    WORD("balance", POOL(balance), balance_words, "round_robin"),
    CUSTOM("backends", vb_read_backends, NULL),
    LEVEL_OR_OFF("health", POOL(health.enabled), health_level, "on"),
    LEVEL("keepalive", pool_keepalive_level),
    LEVEL("timeouts", pool_timeouts_level),
    CUSTOM("upgrade", vb_read_upgrade, "websocket"),
    LEVEL_OR_OFF("outlier", POOL(outlier.enabled), outlier_level, "on"),
    SHARE_OR("off", 0, "panic", POOL(panic), 1, 100, "off"),
    CUSTOM_LEVEL("circuit_breaker", vb_read_circuit_breaker, circuit_breaker_level),
    LEVEL_OR_OFF("retry", POOL(retry.enabled), retry_level, "on"),
    LEVEL("hash", hash_level),
    LEVEL_OR_OFF("sticky", POOL(sticky.enabled), sticky_level, "off"),
    LEVEL_OR_OFF("queue", POOL(queue.enabled), queue_level, "on"),
    DURATION("slow_start", POOL(slow_start_ms), 0, HOUR, "0s"),
    END,
};
const struct vb_level vb_level_pool = {"pools.NAME", pool_options};

static const struct vb_option backend_options[] = {
    CUSTOM("address", vb_read_backend_address, NULL),
    CHARS("name", BACKEND(name), vb_valid_name, NAME_EXPECTED, NULL),
    UINT("weight", BACKEND(weight), 1, VB_WEIGHT_MAX, "1"),
    UINT("max_connections", BACKEND(max_connections), 0, 10000000, "0"),
    BOOL("backup", BACKEND(backup), "false"),
    END,
};
const struct vb_level vb_level_backend = {"pools.NAME.backends", backend_options};

/* ---- the top ---- */
static const struct vb_option listener_options[] = {
    CUSTOM("address", vb_read_listener_address, NULL),
    CUSTOM("proxy_protocol", vb_read_proxy_protocol, NULL),
    END,
};
const struct vb_level vb_level_listener = {"listen", listener_options};

static const struct vb_option route_options[] = {
    CUSTOM("host", vb_read_route_host, NULL),
    CUSTOM("path", vb_read_route_path, NULL),
    CUSTOM("method", vb_read_route_method, NULL),
    CUSTOM("header", vb_read_route_header, NULL),
    CUSTOM("pool", vb_read_route_pool, NULL),
    BOOL("strip_prefix", ROUTE(strip_prefix), "false"),
    LATER("cache"),
    LATER("rate_limit"),
    END,
};
const struct vb_level vb_level_route = {"routes", route_options};

static const struct vb_option timeouts_options[] = {
    DURATION("header", CONF(timeouts.header_ms), 1 * MS, DAY, "10s"),
    DURATION("body", CONF(timeouts.body_ms), 1 * MS, DAY, "60s"),
    DURATION("keepalive", CONF(timeouts.keepalive_ms), 1 * MS, DAY, "75s"),
    DURATION("tunnel", CONF(timeouts.tunnel_ms), 1 * MS, DAY, "1h"),
    END,
};
static const struct vb_level timeouts_level = {"timeouts", timeouts_options};

static const struct vb_option limits_options[] = {
    SIZE("header_bytes", CONF(limits.header_bytes), 1 * KIB, 1 * MIB, "16KiB"),
    UINT("headers", CONF(limits.headers), 8, 1000, "100"),
    UINT("requests_per_connection", CONF(limits.requests_per_connection), 0, 1000000000, "10000"),
    SIZE("body", CONF(limits.body), 0, 1 * TIB, "0"),
    UINT("connections", CONF(limits.connections), 0, 1000000, "0"),
    UINT("connections_per_ip", CONF(limits.connections_per_ip), 0, 1000000, "0"),
    END,
};
static const struct vb_level limits_level = {"limits", limits_options};

static const struct vb_option headers_options[] = {
    WORD("forwarded", CONF(headers.forwarded), forwarded_words, "x"),
    CUSTOM("request_id", vb_read_request_id, "X-Request-ID"),
    BOOL("via", CONF(headers.via), "true"),
    END,
};
static const struct vb_level headers_level = {"headers", headers_options};

static const struct vb_option shutdown_options[] = {
    DURATION("grace", CONF(shutdown_grace_ms), 0, DAY, "30s"),
    END,
};
static const struct vb_level shutdown_level = {"shutdown", shutdown_options};

static const struct vb_option segment_options[] = {
    STRING("path", CONF(segment.path), vb_valid_file_path, "the path of a file that begins with /", NULL),
    UINT("backends", CONF(segment.backends), 1, VB_BACKENDS_MAX, "256"),
    LATER("recent"),
    END,
};
static const struct vb_level segment_level = {"segment", segment_options};

static const struct vb_option admin_options[] = {
    CUSTOM("socket", vb_read_admin_socket, NULL),
    LATER("listen"),
    END,
};
static const struct vb_level admin_level = {"admin", admin_options};

/* ---- simulate ---- */
static const struct vb_word arrivals_words[] = {
    {.word = "poisson", .value = VB_ARRIVALS_POISSON},
    {.word = "constant", .value = VB_ARRIVALS_CONSTANT},
    {.word = "closed", .value = VB_ARRIVALS_CLOSED},
    {.word = NULL},
};

static const struct vb_word service_words[] = {
    {.word = "exponential", .value = VB_SERVICE_EXPONENTIAL}, {.word = "constant", .value = VB_SERVICE_CONSTANT},
    {.word = "uniform", .value = VB_SERVICE_UNIFORM},         {.word = "lognormal", .value = VB_SERVICE_LOGNORMAL},
    {.word = "pareto", .value = VB_SERVICE_PARETO},           {.word = NULL},
};

static const struct vb_word phase_words[] = {
    {.word = "slow", .value = VB_PHASE_SLOW},         {.word = "failing", .value = VB_PHASE_FAILING},
    {.word = "stalling", .value = VB_PHASE_STALLING}, {.word = "down", .value = VB_PHASE_DOWN},
    {.word = "cold", .value = VB_PHASE_COLD},         {.word = NULL},
};

static const struct vb_word popularity_words[] = {
    {.word = "uniform", .value = false}, {.word = "zipf", .value = true}, {.word = NULL}};

static const struct vb_option phase_options[] = {
    WORD("is", PHASE(is), phase_words, NULL),
    DURATION("from", PHASE(from_ms), 0, DAY, "0s"),
    DURATION("to", PHASE(to_ms), 1 * MS, DAY, NULL),
    UINT("factor", PHASE(factor), 1, 10000, "10"),
    DURATION("after", PHASE(after_ms), 1 * MS, HOUR, "1ms"),
    UINT("status", PHASE(status), 500, 599, "500"),
    END,
};
const struct vb_level vb_level_phase = {"simulate.backends.NAME.phases", phase_options};

/* Without defaults: what it does not say is as in `simulate`. */
static const struct vb_option model_options[] = {
    WORD("distribution", MODEL(distribution), service_words, NULL),
    DURATION("service_time", MODEL(service_ms), 1 * MS, HOUR, NULL),
    UINT("concurrency", MODEL(concurrency), 1, 1000000, NULL),
    CUSTOM("phases", vb_read_phases, NULL),
    END,
};
const struct vb_level vb_level_model = {"simulate.backends.NAME", model_options};

static const struct vb_option simulate_options[] = {
    CUSTOM("pool", vb_read_simulated_pool, NULL),
    UINT("seed", CONF(simulate.seed), 0, UINT64_MAX, "1"),
    DURATION("duration", CONF(simulate.duration_ms), 100 * MS, DAY, "60s"),
    UINT("workers", CONF(simulate.workers), 1, VB_WORKERS_MAX, NULL),
    WORD("arrivals", CONF(simulate.arrivals), arrivals_words, "poisson"),
    UINT("rate", CONF(simulate.rate), 1, 10000000, "1000"),
    UINT("clients", CONF(simulate.clients), 1, 1000000, "100"),
    DURATION("think", CONF(simulate.think_ms), 1 * MS, HOUR, "1s"),
    UINT("keys", CONF(simulate.keys), 1, 10000000, "10000"),
    WORD("popularity", CONF(simulate.zipf), popularity_words, "uniform"),
    CUSTOM("copies", vb_read_copies, "1"),
    CUSTOM_WORDS("policies", vb_read_policies, balance_words, NULL),
    WORD("distribution", CONF(simulate.model.distribution), service_words, "exponential"),
    DURATION("service_time", CONF(simulate.model.service_ms), 1 * MS, HOUR, "10ms"),
    UINT("concurrency", CONF(simulate.model.concurrency), 1, 1000000, "16"),
    CUSTOM("backends", vb_read_models, NULL),
    END,
};
static const struct vb_level simulate_level = {"simulate", simulate_options};

static const struct vb_option top_options[] = {
    CHARS("name", CONF(name), vb_valid_name, NAME_EXPECTED, "vibebalancer"),
    UINT_OR("auto", "workers", CONF(workers), 1, VB_WORKERS_MAX),
    CUSTOM("listen", vb_read_listen, NULL),
    CUSTOM("pools", vb_read_pools, NULL),
    CUSTOM("routes", vb_read_routes, NULL),
    LEVEL("timeouts", timeouts_level),
    LEVEL("limits", limits_level),
    LEVEL("headers", headers_level),
    CUSTOM("trusted_proxies", vb_read_trusted_proxies, NULL),
    LEVEL("shutdown", shutdown_level),
    DURATION_OR("off", "watchdog", CONF(watchdog_ms), 1000 * MS, HOUR, "10s"),
    LEVEL("segment", segment_level),
    CUSTOM_LEVEL("admin", vb_read_admin, admin_level),
    CUSTOM("user", vb_read_user, NULL),
    LEVEL("simulate", simulate_level),
    LATER("rate_limit"),
    LATER("cache"),
    LATER("access_log"),
    LATER("tls"),
    LATER("http2"),
    LATER("discovery"),
    LATER("compression"),
    LATER("auth"),
    LATER("tracing"),
    LATER("cluster"),
    END,
};
const struct vb_level vb_level_top = {"the top level", top_options};

/* ---- looking things up ---- */
static const struct vb_level *const levels[] = {
    &vb_level_top,  &vb_level_listener,    &vb_level_pool,       &vb_level_backend, &vb_level_route,
    &health_level,  &pool_keepalive_level, &pool_timeouts_level, &timeouts_level,   &limits_level,
    &headers_level, &shutdown_level,       &segment_level,       &outlier_level,    &circuit_breaker_level,
    &retry_level,   &hash_level,           &sticky_level,        &queue_level,      &admin_level,
};

const struct vb_option *vb_schema_find(const struct vb_level *level, const char *key)
{
    for (const struct vb_option *option = level->options; option->key != NULL; option++)
        if (strcmp(option->key, key) == 0)
            return option;
    return NULL;
}

unsigned vb_schema_slips(const char *text, const char *word)
{
    size_t tolerated = VB_MIN(strlen(text) / 4 + 1, 3);
    unsigned distance = vb_edit_distance(text, word);
    return distance <= tolerated ? distance : UINT_MAX;
}

static const struct vb_option *nearest(const struct vb_level *level, const char *key)
{
    const struct vb_option *best = NULL;
    unsigned fewest = UINT_MAX;
    for (const struct vb_option *option = level->options; option->key != NULL; option++) {
        unsigned slips = vb_schema_slips(key, option->key);
        if (slips < fewest) {
            best = option;
            fewest = slips;
        }
    }
    return best;
}

/* "`pools.NAME.health` or `segment`", or an empty text: where the key is an option, now or later. */
static void list_homes(const char *key, bool later, char *to, size_t size)
{
    size_t n = 0;
    to[0] = '\0';
    for (unsigned i = 0; i < VB_ARRAY_SIZE(levels) && n < size; i++) {
        const struct vb_option *option = vb_schema_find(levels[i], key);
        if (option != NULL && (option->type == VB_OPTION_LATER) == later)
            n += (size_t)snprintf(to + n, size - n, "%s`%s`", n > 0 ? " or " : "", levels[i]->path);
    }
}

static void list_keys(const struct vb_level *level, char *to, size_t size)
{
    size_t n = 0;
    for (const struct vb_option *option = level->options; option->key != NULL && n < size; option++)
        if (option->type != VB_OPTION_LATER)
            n += (size_t)snprintf(to + n, size - n, "%s%s", n > 0 ? ", " : "", option->key);
}

void vb_schema_unknown(const struct vb_level *level, const struct vb_yaml *node, struct vb_diag *diag)
{
    struct vb_quoted key = vb_quote(node->key);
    const struct vb_option *meant = nearest(level, node->key);
    char text[256];
    if (meant != NULL) {
        vb_diag_error(diag, node->key_place, "unknown key %s; did you mean `%s`%s?", key.text, meant->key,
                      meant->type == VB_OPTION_LATER ? ", which is not supported yet" : "");
        return;
    }
    list_homes(node->key, false, text, sizeof(text));
    if (text[0] == '\0')
        list_homes(node->key, true, text, sizeof(text));
    if (text[0] != '\0') {
        vb_diag_error(diag, node->key_place, "unknown key %s here; it belongs in %s", key.text, text);
        return;
    }
    list_keys(level, text, sizeof(text));
    vb_diag_error(diag, node->key_place, "unknown key %s; allowed here: %s", key.text, text);
}
