/* The values that a row of a table cannot describe: listeners, pools and backends, statuses, protocols, names. */
#include "load_priv.h"

#include <stdio.h>

/* ---- what texts must look like ---- */
static bool is_letter_or_digit(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool vb_valid_name(const char *text)
{
    const char *p = text;
    while (is_letter_or_digit(*p) || *p == '_' || *p == '.' || *p == '-')
        p++;
    return *p == '\0' && p > text && p - text <= VB_NAME_MAX;
}

bool vb_is_visible_ascii(const char *text)
{
    while (*text > 0x20 && *text < 0x7f)
        text++;
    return *text == '\0';
}

bool vb_valid_url_path(const char *text)
{
    return text[0] == '/' && vb_is_visible_ascii(text);
}

bool vb_valid_host_header(const char *text)
{
    return vb_is_visible_ascii(text) && strlen(text) <= VB_HOST_MAX;
}

bool vb_valid_file_path(const char *text)
{
    for (const char *p = text; *p != '\0'; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            return false;
    return text[0] == '/' || text[0] == '\0'; /* "" asks for the default, as leaving it out does */
}

static size_t token_length(const char *text)
{
    const char *p = text;
    while (is_letter_or_digit(*p) || (*p != '\0' && strchr("!#$%&'*+-.^_`|~", *p) != NULL))
        p++;
    return (size_t)(p - text);
}

bool vb_valid_token(const char *text)
{
    size_t n = token_length(text);
    return n > 0 && text[n] == '\0';
}

void vb_to_lower(char *text)
{
    for (; *text != '\0'; text++)
        if (*text >= 'A' && *text <= 'Z')
            *text |= 0x20;
}

/* Fields that are made or read here for another purpose. */
static bool is_taken_field(const char *name)
{
    static const char *const taken[] = {
        "Host",
        "Connection",
        "Content-Length",
        "Transfer-Encoding",
        "TE",
        "Trailer",
        "Upgrade",
        "Date",
        "Keep-Alive",
        "Via",
        "Expect",
        "Max-Forwards",
        "Proxy-Connection",
        "Forwarded",
        "Range",
        "Cookie",
        "Set-Cookie",
        "Authorization",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
    };
    for (unsigned i = 0; i < VB_ARRAY_SIZE(taken); i++)
        if (vb_str_eq_nocase(vb_str(name), vb_str(taken[i])))
            return true;
    return false;
}

void vb_read_request_id(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *object)
{
    struct vb_conf *conf = object;
    static const char expected[] = "the name of a header field, at most 63 characters, or `off`";
    if (!vb_load_is(load, option->key, node, VB_YAML_SCALAR, expected))
        return;
    const char *name = node->text;
    if (vb_is_on(name))
        name = option->by_default;
    if (vb_is_off(name))
        conf->headers.request_id[0] = '\0';
    else if (is_taken_field(name))
        vb_diag_error(load->diag, node->place, "`%s`: the field %s has another meaning; use for example `X-Request-ID`",
                      option->key, vb_quote(name).text);
    else if (!vb_valid_token(name) || strlen(name) >= sizeof(conf->headers.request_id))
        vb_load_mismatch(load, option->key, node, expected);
    else
        vb_copy(conf->headers.request_id, sizeof(conf->headers.request_id), name);
}

/* ---- statuses: 200-399, or 200,204,300-302, or a list of such ---- */
static struct vb_str trim(struct vb_str text)
{
    while (text.n > 0 && text.p[0] == ' ')
        text = (struct vb_str){text.p + 1, text.n - 1};
    while (text.n > 0 && text.p[text.n - 1] == ' ')
        text.n--;
    return text;
}

struct vb_str vb_cut(struct vb_str *rest, char separator)
{
    struct vb_str part = *rest;
    const char *p = memchr(part.p, separator, part.n);
    if (p == NULL) {
        rest->n = 0;
        return trim(part);
    }
    part.n = (size_t)(p - part.p);
    rest->p = p + 1;
    rest->n -= part.n + 1;
    return trim(part);
}

static bool parse_status_range(struct vb_str text, struct vb_conf_status_range *ret_range)
{
    uint64_t first, last;
    bool is_range = memchr(text.p, '-', text.n) != NULL;
    struct vb_str from = vb_cut(&text, '-'), to = is_range ? trim(text) : from;
    if (vb_parse_u64(from, 599, &first) < 0 || vb_parse_u64(to, 599, &last) < 0 || first < 100 || last < first)
        return false;
    *ret_range = (struct vb_conf_status_range){(unsigned)first, (unsigned)last};
    return true;
}

static void add_statuses(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node,
                         struct vb_conf_health *health)
{
    static const char expected[] = "statuses from 100 to 599 such as 200-399 or 200,204,300-302";
    if (node->broken || !vb_load_is(load, option->key, node, VB_YAML_SCALAR, expected))
        return;
    struct vb_str rest = vb_str(node->text);
    bool more;
    do {
        struct vb_conf_status_range range;
        more = memchr(rest.p, ',', rest.n) != NULL;
        if (!parse_status_range(vb_cut(&rest, ','), &range)) {
            vb_load_mismatch(load, option->key, node, expected);
            return;
        }
        if (health->n_expect == VB_ARRAY_SIZE(health->expect)) {
            vb_load_mismatch(load, option->key, node, "at most 16 ranges of statuses");
            return;
        }
        health->expect[health->n_expect++] = range;
    } while (more);
}

void vb_read_expect(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *object)
{
    struct vb_conf_health *health = &((struct vb_conf_pool *)object)->health;
    health->n_expect = 0;
    if (node->kind != VB_YAML_LIST) {
        add_statuses(load, option, node, health);
        return;
    }
    const struct vb_yaml *child;
    STAILQ_FOREACH (child, &node->children, next)
        add_statuses(load, option, child, health);
    if (node->n_children == 0)
        vb_load_mismatch(load, option->key, node, "at least one status");
}

/* ---- listeners ---- */
void vb_read_listener_address(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node,
                              void *object)
{
    struct vb_error err;
    if (!vb_load_is(load, option->key, node, VB_YAML_SCALAR, "an address such as 8080 or 127.0.0.1:8080"))
        return;
    struct vb_conf_listener *listener = object;
    if (vb_conf_parse_listener(node->text, listener, &err) < 0) {
        vb_diag_error(load->diag, node->place, "%s", err.text);
        return;
    }
    listener->line = node->place.line;
    listener->column = node->place.column;
}

/* One listener, as an address or as a mapping with one. It counts only where nothing was wrong. */
static void read_listener(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node,
                          struct vb_conf *conf)
{
    struct vb_conf_listener *listener = &conf->listeners[conf->n_listeners];
    unsigned errors_before = load->diag->errors.total;
    if (node->broken)
        return;
    if (node->kind != VB_YAML_MAPPING) {
        vb_read_listener_address(load, option, node, listener);
    } else {
        vb_load_level(load, &vb_level_listener, node, listener);
        if (vb_yaml_find(node, "address") == NULL)
            vb_diag_error(load->diag, node->place, "a listener needs an `address`, for example `address: 8080`");
    }
    if (load->diag->errors.total == errors_before) {
        conf->n_listeners++;
    } else {
        free(listener->proxy_protocol.networks);
        *listener = (struct vb_conf_listener){.line = 0};
    }
}

void vb_read_listen(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *object)
{
    struct vb_conf *conf = object;
    bool is_list = node->kind == VB_YAML_LIST;
    if (is_list && node->n_children == 0) {
        vb_diag_error(load->diag, node->place, "`listen` is empty; write for example `listen: 8080`");
        return;
    }
    if (is_list && node->n_children > VB_LISTENERS_MAX) {
        vb_diag_error(load->diag, node->place, "`listen`: at most %d addresses", VB_LISTENERS_MAX);
        return;
    }
    conf->listeners = calloc(is_list ? node->n_children : 1, sizeof(*conf->listeners));
    if (conf->listeners == NULL) {
        load->oom = true;
        return;
    }
    if (!is_list) {
        read_listener(load, option, node, conf);
        return;
    }
    const struct vb_yaml *child;
    STAILQ_FOREACH (child, &node->children, next)
        read_listener(load, option, child, conf);
}

/* ---- pools ---- */
void vb_read_backend_address(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node,
                             void *object)
{
    struct vb_conf_backend *backend = object;
    struct vb_error err;
    if (!vb_load_is(load, option->key, node, VB_YAML_SCALAR, "an address such as 127.0.0.1:9001"))
        return;
    if (vb_conf_parse_endpoint(node->text, &backend->endpoint, &err) < 0)
        vb_diag_error(load->diag, node->place, "%s", err.text);
    else
        vb_conf_format_endpoint(backend->address, sizeof(backend->address), &backend->endpoint);
}

/* One backend, as an address or as a mapping. It counts only where nothing was wrong. */
static void read_backend(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node,
                         struct vb_conf_pool *pool)
{
    struct vb_conf_backend *backend = &pool->backends[pool->n_backends];
    unsigned errors_before = load->diag->errors.total;
    if (node->broken)
        return;
    *backend = (struct vb_conf_backend){.line = node->place.line, .column = node->place.column};
    vb_load_defaults(load, &vb_level_backend, backend);
    if (node->kind != VB_YAML_MAPPING) {
        vb_read_backend_address(load, option, node, backend);
    } else {
        vb_load_level(load, &vb_level_backend, node, backend);
        if (vb_yaml_find(node, "address") == NULL)
            vb_diag_error(load->diag, node->place, "a backend needs an `address`, for example 127.0.0.1:9001");
    }
    if (load->diag->errors.total != errors_before)
        return;
    if (backend->name[0] == '\0' && !vb_copy(backend->name, sizeof(backend->name), backend->address))
        vb_diag_error(load->diag, node->place,
                      "the address is longer than the %d bytes that a name may have; give the backend a `name`",
                      VB_NAME_MAX);
    else
        pool->n_backends++;
}

void vb_read_backends(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *object)
{
    struct vb_conf_pool *pool = object;
    if (!vb_load_is(load, option->key, node, VB_YAML_LIST, "a list of addresses"))
        return;
    if (node->n_children == 0) {
        vb_diag_error(load->diag, node->place,
                      "`backends` is empty; a pool needs at least one, such as 127.0.0.1:9001");
        return;
    }
    pool->backends = calloc(node->n_children, sizeof(*pool->backends));
    if (pool->backends == NULL) {
        load->oom = true;
        return;
    }
    const struct vb_yaml *child;
    STAILQ_FOREACH (child, &node->children, next)
        read_backend(load, option, child, pool);
}

/* Protocols that a connection may switch to: a token, perhaps with a version (RFC 9110 7.8). */
static void add_upgrade(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node,
                        struct vb_conf_pool *pool)
{
    static const char expected[] = "a protocol such as websocket, at most 31 characters";
    if (node->broken || !vb_load_is(load, option->key, node, VB_YAML_SCALAR, expected))
        return;
    const char *text = node->text;
    size_t n = token_length(text);
    bool is_valid = n > 0 && (text[n] == '\0' || (text[n] == '/' && vb_valid_token(text + n + 1)));
    if (!is_valid || vb_is_off(text) || vb_is_on(text) || strlen(text) >= sizeof(pool->upgrade[0].name))
        vb_load_mismatch(load, option->key, node, expected);
    else if (vb_str_eq_nocase((struct vb_str){text, n}, VB_STR("h2c")))
        vb_diag_error(load->diag, node->place,
                      "h2c is never passed on: the requests behind it would go past every rule of this file");
    else if (pool->n_upgrade == VB_ARRAY_SIZE(pool->upgrade))
        vb_load_mismatch(load, option->key, node, "at most 8 protocols");
    else
        vb_copy(pool->upgrade[pool->n_upgrade++].name, sizeof(pool->upgrade[0].name), text);
}

void vb_read_upgrade(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *object)
{
    struct vb_conf_pool *pool = object;
    if (node->kind == VB_YAML_SCALAR && vb_is_on(node->text))
        return; /* the default is there already */
    pool->n_upgrade = 0;
    if (node->kind == VB_YAML_LIST && node->n_children == 0)
        vb_load_mismatch(load, option->key, node, "at least one protocol, or `off`");
    const struct vb_yaml *child;
    if (node->kind == VB_YAML_LIST)
        STAILQ_FOREACH (child, &node->children, next)
            add_upgrade(load, option, child, pool);
    else if (node->kind != VB_YAML_SCALAR || !vb_is_off(node->text))
        add_upgrade(load, option, node, pool);
    for (unsigned i = 0; i < pool->n_upgrade; i++)
        vb_to_lower(pool->upgrade[i].name);
}

/* Settings that look as if answers were checked, while a check without a path only connects. */
static void warn_of_connect_checks(struct vb_load *load, const struct vb_yaml *pool)
{
    static const char *const keys[] = {"expect", "host"};
    const struct vb_yaml *health = vb_yaml_find(pool, "health");
    if (health == NULL || health->kind != VB_YAML_MAPPING || vb_yaml_find(health, "path") != NULL)
        return;
    for (unsigned i = 0; i < VB_ARRAY_SIZE(keys); i++) {
        const struct vb_yaml *found = vb_yaml_find(health, keys[i]);
        if (found != NULL)
            vb_diag_warn(load->diag, found->key_place,
                         "`%s` has no effect: without a `path` a check only opens a connection", keys[i]);
    }
}

static void read_pool(struct vb_load *load, const struct vb_yaml *node, struct vb_conf *conf)
{
    if (!vb_valid_name(node->key))
        vb_diag_error(load->diag, node->key_place,
                      "%s is not a name for a pool: use at most %d letters, digits, `_`, `.` and `-`",
                      vb_quote(node->key).text, VB_NAME_MAX);
    if (!vb_load_is(load, node->key, node, VB_YAML_MAPPING, "a mapping with `backends`"))
        return;
    struct vb_conf_pool *pool = &conf->pools[conf->n_pools++];
    unsigned errors_before = load->diag->errors.total;
    vb_copy(pool->name, sizeof(pool->name), node->key);
    vb_load_defaults(load, &vb_level_pool, pool);
    vb_load_level(load, &vb_level_pool, node, pool);
    if (vb_yaml_find(node, "backends") == NULL)
        vb_diag_error(load->diag, node->key_place,
                      "pool %s has no backends; add for example `backends: [127.0.0.1:9001]`",
                      vb_quote(node->key).text);
    warn_of_connect_checks(load, node);
    if (load->diag->errors.total == errors_before && !load->oom) {
        vb_check_outlier(load, node, pool);
        vb_warn_of_balancing(load, node, pool);
    }
}

void vb_read_pools(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *object)
{
    struct vb_conf *conf = object;
    if (!vb_load_is(load, option->key, node, VB_YAML_MAPPING, "a mapping from names to pools"))
        return;
    if (node->n_children == 0) {
        vb_diag_error(load->diag, node->place, "`pools` is empty; add a pool with its backends");
        return;
    }
    conf->pools = calloc(node->n_children, sizeof(*conf->pools));
    if (conf->pools == NULL) {
        load->oom = true;
        return;
    }
    const struct vb_yaml *child;
    STAILQ_FOREACH (child, &node->children, next)
        if (!child->broken)
            read_pool(load, child, conf);
}
