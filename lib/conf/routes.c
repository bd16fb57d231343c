/* Routes: which requests go to which pool. */
#include "load_priv.h"

#include <limits.h>
#include <stdio.h>

#include "vb/uri.h"

#define ROUTES_MAX 1000 /* a request may be compared with all of them */

void vb_free_route(struct vb_conf_route *route)
{
    for (unsigned i = 0; i < route->n_methods; i++)
        free(route->methods[i]);
    for (unsigned i = 0; i < route->n_headers; i++) {
        free(route->headers[i].name);
        free(route->headers[i].value);
    }
    free(route->methods);
    free(route->headers);
    free(route->host);
    free(route->path);
}

static char *copy(struct vb_load *load, const char *text)
{
    char *copied = strdup(text);
    if (copied == NULL)
        load->oom = true;
    return copied;
}

/* Zeroed; n > 0. */
static void *make(struct vb_load *load, size_t n, size_t size)
{
    void *made = calloc(n, size);
    if (made == NULL)
        load->oom = true;
    return made;
}

/* ---- conditions ---- */
void vb_read_route_host(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *object)
{
    struct vb_conf_route *route = object;
    struct vb_error err;
    char host[VB_HOST_MAX + 3];
    if (!vb_load_is(load, option->key, node, VB_YAML_SCALAR, "one name such as www.example.com"))
        return;
    if (vb_conf_parse_route_host(node->text, host, sizeof(host), &route->wildcard, &err) < 0)
        vb_diag_error(load->diag, node->place, "%s", err.text);
    else
        route->host = copy(load, host);
}

void vb_read_route_path(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *object)
{
    static const char expected[] = "a path that begins with / and has only visible ASCII characters, no ? and no #";
    struct vb_conf_route *route = object;
    if (!vb_load_is(load, option->key, node, VB_YAML_SCALAR, expected))
        return;
    struct vb_str path = vb_str(node->text);
    if (!vb_valid_url_path(path.p) || strpbrk(path.p, "?#") != NULL) {
        vb_load_mismatch(load, option->key, node, expected);
        return;
    }
    if (path.p[path.n - 1] == '*')
        vb_diag_warn(load->diag, node->place,
                     "`*` is a character like others here; a path matches all that begins with it, such as `/api/`");
    route->path = make(load, path.n + 1, 1);
    if (route->path != NULL)
        route->path[vb_uri_normal_path(route->path, path)] = '\0';
}

static void add_method(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node,
                       struct vb_conf_route *route)
{
    static const char *const known[] = {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"};
    static const char expected[] = "a method such as GET";
    if (node->broken || !vb_load_is(load, option->key, node, VB_YAML_SCALAR, expected))
        return;
    if (!vb_valid_token(node->text)) {
        vb_load_mismatch(load, option->key, node, expected);
        return;
    }
    if (vb_str_eq_nocase(vb_str(node->text), VB_STR("TRACE")) ||
        vb_str_eq_nocase(vb_str(node->text), VB_STR("CONNECT"))) {
        vb_diag_error(load->diag, node->place, "`%s`: %s is never served, whatever the route", option->key,
                      vb_quote(node->text).text);
        return;
    }
    for (unsigned i = 0; i < VB_ARRAY_SIZE(known); i++) {
        if (!vb_str_eq_nocase(vb_str(node->text), vb_str(known[i])) || strcmp(node->text, known[i]) == 0)
            continue;
        vb_diag_error(load->diag, node->place, "`%s`: unknown value %s; did you mean `%s`?", option->key,
                      vb_quote(node->text).text, known[i]);
        return;
    }
    route->methods[route->n_methods] = copy(load, node->text);
    route->n_methods++;
}

void vb_read_route_method(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node,
                          void *object)
{
    struct vb_conf_route *route = object;
    if (node->kind == VB_YAML_LIST && node->n_children == 0) {
        vb_diag_error(load->diag, node->place, "`%s` is empty; leave it out for any method", option->key);
        return;
    }
    route->methods = make(load, VB_MAX(node->n_children, 1), sizeof(*route->methods));
    if (route->methods == NULL)
        return;
    if (node->kind != VB_YAML_LIST) {
        add_method(load, option, node, route);
        return;
    }
    const struct vb_yaml *child;
    STAILQ_FOREACH (child, &node->children, next)
        add_method(load, option, child, route);
}

/* What a parser can hand on as the value of a field: white space around it is not part of it (RFC 9110 5.5). */
static bool is_field_value(const char *text)
{
    size_t n = strlen(text);
    for (const char *p = text; *p != '\0'; p++)
        if (((unsigned char)*p < 0x20 && *p != '\t') || *p == 0x7f)
            return false;
    return n == 0 || (strchr(" \t", text[0]) == NULL && strchr(" \t", text[n - 1]) == NULL);
}

static void add_header(struct vb_load *load, const struct vb_yaml *node, struct vb_conf_route *route)
{
    static const char expected[] = "a text without control characters and spaces around it, or \"*\" for any";
    if (!vb_valid_token(node->key)) {
        vb_diag_error(load->diag, node->key_place, "%s is not the name of a header field", vb_quote(node->key).text);
        return;
    }
    for (unsigned i = 0; i < route->n_headers; i++) {
        if (!vb_str_eq_nocase(vb_str(node->key), vb_str(route->headers[i].name)))
            continue;
        vb_diag_error(load->diag, node->key_place, "field %s is there already: case does not matter in names",
                      vb_quote(node->key).text);
        return;
    }
    if (!vb_load_is(load, node->key, node, VB_YAML_SCALAR, expected))
        return;
    if (!is_field_value(node->text) || (node->text[0] == '\0' && !node->quoted)) {
        vb_load_mismatch(load, node->key, node, expected);
        return;
    }
    char *name = copy(load, node->key);
    if (name == NULL)
        return;
    struct vb_conf_route_header *header = &route->headers[route->n_headers++];
    header->name = name;
    header->value = strcmp(node->text, "*") == 0 ? NULL : copy(load, node->text);
}

void vb_read_route_header(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node,
                          void *object)
{
    enum { HEADERS_MAX = 64 };
    struct vb_conf_route *route = object;
    if (!vb_load_is(load, option->key, node, VB_YAML_MAPPING, "a mapping such as { X-Beta: \"1\" }"))
        return;
    if (node->n_children == 0 || node->n_children > HEADERS_MAX) {
        vb_diag_error(load->diag, node->place, "`%s`: expected 1 to %d fields, found %u", option->key, HEADERS_MAX,
                      node->n_children);
        return;
    }
    route->headers = make(load, node->n_children, sizeof(*route->headers));
    if (route->headers == NULL)
        return;
    const struct vb_yaml *child;
    STAILQ_FOREACH (child, &node->children, next)
        if (!child->broken)
            add_header(load, child, route);
}

/* ---- where to ---- */
static const struct vb_yaml *nearest_pool(const struct vb_yaml *pools, const char *name)
{
    const struct vb_yaml *pool, *nearest = NULL;
    unsigned fewest = UINT_MAX;
    STAILQ_FOREACH (pool, &pools->children, next) {
        unsigned slips = vb_schema_slips(name, pool->key);
        if (slips < fewest) {
            nearest = pool;
            fewest = slips;
        }
    }
    return nearest;
}

/* "`web`, `api`", or as many as there is room for. */
static void list_pools(const struct vb_yaml *pools, char *to, size_t size)
{
    static const char more[] = ", ...";
    size_t n = 0;
    const struct vb_yaml *pool;
    to[0] = '\0';
    STAILQ_FOREACH (pool, &pools->children, next) {
        struct vb_quoted name = vb_quote(pool->key);
        if (n + strlen(name.text) + 2 * sizeof(more) > size) {
            vb_copy(to + n, size - n, more);
            return;
        }
        n += (size_t)snprintf(to + n, size - n, "%s%s", n > 0 ? ", " : "", name.text);
    }
}

static void report_no_pool(struct vb_load *load, const struct vb_yaml *node, const struct vb_yaml *pools)
{
    struct vb_quoted name = vb_quote(node->text);
    char names[256];
    if (load->diag->errors.total >= VB_DIAG_MAX) { /* many pools and many wrong routes must not take minutes */
        vb_diag_error(load->diag, node->place, "there is no pool %s", name.text);
        return;
    }
    const struct vb_yaml *meant = nearest_pool(pools, node->text);
    if (meant != NULL) {
        vb_diag_error(load->diag, node->place, "there is no pool %s; did you mean %s?", name.text,
                      vb_quote(meant->key).text);
        return;
    }
    list_pools(pools, names, sizeof(names));
    vb_diag_error(load->diag, node->place, "there is no pool %s; there are %s", name.text, names);
}

/* Looks in the file, not in what was read: pools may stand behind routes. Those with errors are found all the same. */
void vb_read_route_pool(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *object)
{
    struct vb_conf_route *route = object;
    const struct vb_yaml *pools = vb_yaml_find(load->root, "pools"), *pool;
    if (node->kind != VB_YAML_SCALAR || node->text[0] == '\0') {
        vb_load_mismatch(load, option->key, node, "the name of a pool");
        return;
    }
    if (pools == NULL || pools->kind != VB_YAML_MAPPING || pools->n_children == 0)
        return; /* that is an error of its own */
    unsigned index = 0;
    STAILQ_FOREACH (pool, &pools->children, next) {
        if (strcmp(pool->key, node->text) == 0) {
            route->pool = index;
            return;
        }
        index++;
    }
    report_no_pool(load, node, pools);
}

/* ---- the list ---- */
static void read_route(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node,
                       struct vb_conf_route *route)
{
    route->line = node->place.line;
    route->column = node->place.column;
    if (!vb_load_is(load, option->key, node, VB_YAML_MAPPING, "a mapping such as { path: /api/, pool: web }"))
        return;
    vb_load_defaults(load, &vb_level_route, route);
    vb_load_level(load, &vb_level_route, node, route);
    if (vb_yaml_find(node, "pool") == NULL)
        vb_diag_error(load->diag, node->place, "a route needs a `pool`, where its requests go");
    if (route->strip_prefix && vb_yaml_find(node, "path") == NULL)
        vb_diag_error(load->diag, vb_yaml_find(node, "strip_prefix")->key_place,
                      "`strip_prefix` needs a `path`: that is the prefix it takes off");
}

void vb_read_routes(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *object)
{
    struct vb_conf *conf = object;
    if (!vb_load_is(load, option->key, node, VB_YAML_LIST, "a list of mappings such as { path: /api/, pool: web }"))
        return;
    if (node->n_children == 0) {
        vb_diag_error(load->diag, node->place, "`routes` is empty; without it the first pool takes all requests");
        return;
    }
    if (node->n_children > ROUTES_MAX) {
        vb_diag_error(load->diag, node->place, "`routes`: at most %d", ROUTES_MAX);
        return;
    }
    conf->routes = make(load, node->n_children, sizeof(*conf->routes));
    if (conf->routes == NULL)
        return;
    const struct vb_yaml *child;
    STAILQ_FOREACH (child, &node->children, next)
        if (!child->broken)
            read_route(load, option, child, &conf->routes[conf->n_routes++]);
}

/* ---- warnings ---- */
/* Does the first take whatever the second could match? `/` is the beginning of every path. */
static bool hides(const struct vb_conf_route *first, const struct vb_conf_route *second)
{
    if (first->host != NULL || first->n_methods > 0 || first->n_headers > 0)
        return false;
    return first->path == NULL || (strcmp(first->path, "/") == 0 && second->path != NULL);
}

static void warn_of_hidden(struct vb_load *load, const struct vb_conf *conf)
{
    for (unsigned i = 1; i < conf->n_routes; i++) {
        const struct vb_conf_route *route = &conf->routes[i], *first = conf->routes;
        while (first < route && !hides(first, route))
            first++;
        if (first < route)
            vb_diag_warn(load->diag, (struct vb_place){route->line, route->column},
                         "this route never matches: the one in line %u takes all requests", first->line);
    }
}

static bool leads_to(const struct vb_conf *conf, unsigned pool)
{
    for (unsigned i = 0; i < conf->n_routes; i++)
        if (conf->routes[i].pool == pool)
            return true;
    return false;
}

static bool have_one_host(const struct vb_conf_route *a, const struct vb_conf_route *b)
{
    if (a->host == NULL || b->host == NULL)
        return a->host == b->host;
    return a->wildcard == b->wildcard && strcmp(a->host, b->host) == 0;
}

/* Would a browser keep one cookie for both, which says nothing in the one pool when the other has set it? */
static bool share_cookie(const struct vb_conf *conf, const struct vb_conf_route *a, const struct vb_conf_route *b)
{
    const struct vb_conf_pool *one = &conf->pools[a->pool], *other = &conf->pools[b->pool];
    return one != other && one->sticky.enabled && other->sticky.enabled &&
           strcmp(one->sticky.cookie, other->sticky.cookie) == 0 && have_one_host(a, b);
}

static void warn_of_shared_cookies(struct vb_load *load, const struct vb_conf *conf)
{
    for (unsigned i = 1; i < conf->n_routes; i++) {
        const struct vb_conf_route *route = &conf->routes[i], *first = conf->routes;
        while (first < route && !share_cookie(conf, first, route))
            first++;
        if (first < route)
            vb_diag_warn(load->diag, (struct vb_place){route->line, route->column},
                         "pools `%s` (line %u) and `%s` set the same cookie, `%s`, for one host, so that each loses "
                         "the clients that the other one gets; give one of them another `sticky.cookie`",
                         conf->pools[first->pool].name, first->line, conf->pools[route->pool].name,
                         conf->pools[route->pool].sticky.cookie);
    }
}

void vb_warn_of_routes(struct vb_load *load, const struct vb_conf *conf)
{
    unsigned index = 0; /* without errors there is one pool for each key */
    const struct vb_yaml *pools = vb_yaml_find(load->root, "pools"), *pool;
    STAILQ_FOREACH (pool, &pools->children, next) {
        if (conf->n_routes == 0 && index == 1)
            vb_diag_warn(load->diag, pool->key_place, "only the first pool, `%s`, gets requests: there are no `routes`",
                         conf->pools[0].name);
        else if (conf->n_routes > 0 && !leads_to(conf, index))
            vb_diag_warn(load->diag, pool->key_place, "no route leads to pool `%s`: it gets no requests", pool->key);
        index++;
    }
    warn_of_hidden(load, conf);
    warn_of_shared_cookies(load, conf);
}
