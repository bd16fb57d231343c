/* Configurations: any text gives a configuration within its ranges, or says where it is wrong; the same each time. */
#include <errno.h>

#include "fuzz.h"
#include "vb/conf.h"
#include "vb/uri.h"

#define FILE_NAME "fuzz"

struct parsed {
    int r;
    char *lines;
    size_t n;
    struct vb_conf *conf;
};

static struct parsed parse(const uint8_t *data, size_t size)
{
    struct parsed parsed = {.conf = NULL};
    char *text = exact_copy(data, size);
    FILE *to = open_memstream(&parsed.lines, &parsed.n);
    assert(to != NULL);
    parsed.r = vb_conf_parse(FILE_NAME, text, size, to, &parsed.conf);
    fclose(to);
    free(text);
    return parsed;
}

static void drop(struct parsed *parsed)
{
    vb_conf_free(&parsed->conf);
    assert(parsed->conf == NULL);
    free(parsed->lines);
}

/* Lines of `FILE:LINE:COLUMN: message`, and nothing that a terminal would obey. */
static void check_lines(const struct parsed *parsed)
{
    assert(parsed->n == strlen(parsed->lines));
    for (const char *line = parsed->lines, *end; *line != '\0'; line = end + 1) {
        end = strchr(line, '\n');
        assert(end != NULL && strncmp(line, FILE_NAME ":", strlen(FILE_NAME ":")) == 0);
        for (const char *c = line; c < end; c++)
            assert((unsigned char)*c >= 0x20 && *c != 0x7f);
    }
}

static bool is_text(const char *text, size_t size)
{
    return memchr(text, '\0', size) != NULL && text[0] != '\0';
}

/* Networks are just their prefix. */
static void check_sources(const struct vb_conf_sources *sources)
{
    for (unsigned i = 0; i < sources->n; i++) {
        struct vb_cidr again;
        char text[VB_ADDR_TEXT_MAX];
        vb_cidr_format(text, sizeof(text), &sources->networks[i]);
        assert(vb_cidr_parse(vb_str(text), &again) == 0);
        assert(memcmp(&again, &sources->networks[i], sizeof(again)) == 0);
    }
}

static void check_listener(const struct vb_conf_listener *listener)
{
    assert(is_text(listener->text, sizeof(listener->text)));
    assert(listener->address_len > 0 && listener->address_len <= sizeof(listener->address));
    check_sources(&listener->proxy_protocol);
}

/* A backend is a unix socket, or a host and a port. */
static void check_endpoint(const struct vb_conf_endpoint *endpoint, const char *address)
{
    struct vb_conf_endpoint again;
    struct vb_error err;
    bool is_unix = is_text(endpoint->unix_path, sizeof(endpoint->unix_path));
    assert(is_unix != is_text(endpoint->host, sizeof(endpoint->host)) && is_unix == (endpoint->port == 0));
    assert(vb_conf_parse_endpoint(address, &again, &err) == 0);
    assert(memcmp(&again, endpoint, sizeof(again)) == 0);
}

static void check_upgrades(const struct vb_conf_pool *pool)
{
    assert(pool->n_upgrade <= VB_ARRAY_SIZE(pool->upgrade));
    for (unsigned i = 0; i < pool->n_upgrade; i++) {
        const char *name = pool->upgrade[i].name;
        assert(is_text(name, sizeof(pool->upgrade[i].name)));
        assert(strncmp(name, "h2c", 3) != 0 || (name[3] != '\0' && name[3] != '/'));
        assert(strpbrk(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ ,") == NULL);
    }
}

static void check_route_path(const char *path)
{
    size_t n = strlen(path);
    char *again = malloc(n);
    assert(path[0] == '/' && again != NULL);
    assert(vb_uri_normal_path(again, vb_str(path)) == n && memcmp(again, path, n) == 0);
    free(again);
}

static void check_route(const struct vb_conf *conf, const struct vb_conf_route *route)
{
    assert(route->pool < conf->n_pools);
    assert(!route->wildcard || (route->host != NULL && route->host[0] == '.'));
    if (route->host != NULL) {
        assert(route->host[0] != '\0' && strpbrk(route->host, "ABCDEFGHIJKLMNOPQRSTUVWXYZ */") == NULL);
        assert(route->host[0] == '[' || strchr(route->host, ':') == NULL);
    }
    assert(!route->strip_prefix || route->path != NULL);
    if (route->path != NULL)
        check_route_path(route->path);
    for (unsigned i = 0; i < route->n_methods; i++)
        assert(route->methods[i][0] != '\0' && strpbrk(route->methods[i], " ,") == NULL);
    for (unsigned i = 0; i < route->n_headers; i++)
        assert(route->headers[i].name[0] != '\0' && strpbrk(route->headers[i].name, " :") == NULL);
}

static void check_failures(const struct vb_conf_pool *pool)
{
    assert(pool->outlier.consecutive >= 1 && pool->outlier.consecutive <= 1000 && pool->outlier.max_ejected <= 100);
    assert(pool->outlier.eject_ms >= 10 &&
           (!pool->outlier.enabled || pool->outlier.eject_ms <= pool->outlier.eject_max_ms));
    assert(pool->panic <= 100);
    assert(pool->circuit_breaker.max_requests <= 10000000 && pool->circuit_breaker.max_pending <= 10000000);
    assert(pool->retry.attempts <= VB_RETRY_ATTEMPTS_MAX && pool->retry.on > 0 && pool->retry.on < VB_RETRY_429 * 2);
    assert(pool->retry.budget <= 100 || pool->retry.budget == VB_RETRY_UNLIMITED);
    assert(pool->retry.buffer <= 16 << 20 && pool->retry.total_ms > 0);
}

static void check_pool(const struct vb_conf_pool *pool)
{
    assert(is_text(pool->name, sizeof(pool->name)));
    assert(pool->n_backends >= 1);
    for (unsigned i = 0; i < pool->n_backends; i++) {
        const struct vb_conf_backend *backend = &pool->backends[i];
        assert(is_text(backend->name, sizeof(backend->name)));
        assert(is_text(backend->address, sizeof(backend->address)));
        check_endpoint(&backend->endpoint, backend->address);
        assert(backend->weight >= 1 && backend->weight <= VB_WEIGHT_MAX);
        for (unsigned k = 0; k < i; k++)
            assert(strcmp(backend->name, pool->backends[k].name) != 0);
    }
    check_upgrades(pool);
    check_failures(pool);
    const struct vb_conf_health *health = &pool->health;
    assert(!health->enabled ||
           (health->interval_ms > 0 && health->timeout_ms > 0 && health->rise > 0 && health->fall > 0));
    assert(health->n_expect <= VB_ARRAY_SIZE(health->expect));
    for (unsigned i = 0; i < health->n_expect; i++)
        assert(health->expect[i].first >= 100 && health->expect[i].first <= health->expect[i].last &&
               health->expect[i].last <= 599);
}

static void check_conf(const struct vb_conf *conf)
{
    unsigned backends = 0;
    assert(is_text(conf->name, sizeof(conf->name)));
    assert(conf->n_listeners >= 1 && conf->n_pools >= 1 && conf->workers <= VB_WORKERS_MAX);
    for (unsigned i = 0; i < conf->n_listeners; i++)
        check_listener(&conf->listeners[i]);
    for (unsigned i = 0; i < conf->n_routes; i++)
        check_route(conf, &conf->routes[i]);
    check_sources(&conf->trusted_proxies);
    for (unsigned i = 0; i < conf->n_pools; i++) {
        check_pool(&conf->pools[i]);
        backends += conf->pools[i].n_backends;
    }
    const char *control = conf->admin.socket;
    assert(control == NULL || control[0] == '\0' || (control[0] == '/' && strlen(control) <= VB_UNIX_PATH_MAX));
    assert(backends <= conf->segment.backends && conf->segment.backends <= VB_BACKENDS_MAX);
    assert(conf->limits.header_bytes >= 1024 && conf->limits.headers >= 1);
    assert(conf->limits.body <= UINT64_C(1) << 40 && conf->limits.connections <= 1000000);
    assert(conf->headers.forwarded <= VB_FORWARDED_BOTH && conf->timeouts.tunnel_ms > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct parsed first = parse(data, size), second = parse(data, size);
    assert(first.r == 0 || first.r == -EINVAL);
    assert((first.r == 0) == (first.conf != NULL));
    assert(first.r == 0 || first.n > 0);
    check_lines(&first);
    if (first.conf != NULL)
        check_conf(first.conf);
    assert(second.r == first.r && second.n == first.n && memcmp(second.lines, first.lines, first.n) == 0);
    drop(&first);
    drop(&second);
    return 0;
}
