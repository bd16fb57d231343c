/*
 * Routing. Paths are compared in their normal form, because that is how they mean the same to a backend (RFC 9110
 * 4.2.3): otherwise `/x/../admin` or `/%61dmin` would go round a route for `/admin`. What is forwarded stays as it
 * came, unless a prefix is stripped.
 */
#include "route.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>

#include "vb/uri.h"

/* `[::1]` in the one spelling that the configuration has. */
static struct vb_str canonical_v6(struct vb_str host, char *to, size_t size)
{
    const char *end = memchr(host.p, ']', host.n);
    char text[INET6_ADDRSTRLEN];
    struct in6_addr address;
    size_t n = end == NULL ? sizeof(text) : (size_t)(end - host.p - 1);
    if (n >= sizeof(text))
        return host;
    memcpy(text, host.p + 1, n);
    text[n] = '\0';
    if (inet_pton(AF_INET6, text, &address) != 1)
        return host;
    snprintf(to, size, "[%s]", inet_ntop(AF_INET6, &address, text, sizeof(text)));
    return vb_str(to);
}

/* The host without port and without the dot of a fully qualified name. */
static struct vb_str bare_host(struct vb_str host, char *to, size_t size)
{
    if (host.n == 0)
        return host;
    if (host.p[0] == '[')
        return canonical_v6(host, to, size);
    const char *colon = memchr(host.p, ':', host.n);
    if (colon != NULL)
        host.n = (size_t)(colon - host.p);
    if (host.n > 0 && host.p[host.n - 1] == '.')
        host.n--;
    return host;
}

static bool host_matches(const struct vb_conf_route *route, struct vb_str host)
{
    if (route->host == NULL)
        return true;
    struct vb_str wanted = vb_str(route->host);
    if (!route->wildcard)
        return vb_str_eq_nocase(host, wanted);
    return host.n > wanted.n && vb_str_eq_nocase((struct vb_str){host.p + host.n - wanted.n, wanted.n}, wanted);
}

static bool path_matches(const struct vb_conf_route *route, struct vb_str path)
{
    if (route->path == NULL)
        return true;
    struct vb_str prefix = vb_str(route->path);
    if (path.n < prefix.n || memcmp(path.p, prefix.p, prefix.n) != 0)
        return false;
    return prefix.p[prefix.n - 1] == '/' || path.n == prefix.n || path.p[prefix.n] == '/';
}

static bool method_matches(const struct vb_conf_route *route, struct vb_str method)
{
    for (unsigned i = 0; i < route->n_methods; i++)
        if (vb_str_eq(method, vb_str(route->methods[i])))
            return true;
    return route->n_methods == 0;
}

static bool header_matches(const struct vb_conf_route_header *wanted, const struct vb_head *head)
{
    struct vb_str name = vb_str(wanted->name);
    for (unsigned i = 0; i < head->n_fields; i++) {
        const struct vb_field *field = &head->fields[i];
        if (vb_str_eq_nocase(field->name, name) &&
            (wanted->value == NULL || vb_str_eq(field->value, vb_str(wanted->value))))
            return true;
    }
    return false;
}

static bool headers_match(const struct vb_conf_route *route, const struct vb_head *head)
{
    for (unsigned i = 0; i < route->n_headers; i++)
        if (!header_matches(&route->headers[i], head))
            return false;
    return true;
}

struct vb_str vb_route_path(char *to, struct vb_str target, bool slash_before, struct vb_str *ret_query)
{
    const char *question = memchr(target.p, '?', target.n);
    size_t n = question == NULL ? target.n : (size_t)(question - target.p);
    *ret_query = (struct vb_str){target.p + n, target.n - n};
    if (slash_before)
        return VB_STR("/");
    if (target.p[0] != '/')
        return VB_STR("");
    return (struct vb_str){to, vb_uri_normal_path(to, (struct vb_str){target.p, n})};
}

/* The target without the prefix; it still begins with a slash. `path` is in proxy->path, or "/". */
static void strip_prefix(struct vb_proxy *proxy, struct vb_head *head, const struct vb_conf_route *route,
                         struct vb_str path, struct vb_str query)
{
    size_t prefix = strlen(route->path);
    if (head->slash_before_target) /* the path is `/`, and so is the prefix */
        return;
    if (route->path[prefix - 1] == '/' || prefix == path.n)
        prefix--;
    proxy->path[prefix] = '/';
    memcpy(proxy->path + path.n, query.p, query.n); /* the normal form is never longer: there is room */
    head->target = (struct vb_str){proxy->path + prefix, path.n - prefix + query.n};
}

int vb_route(struct vb_proxy *proxy, struct vb_head *head)
{
    const struct vb_conf *conf = proxy->conf;
    struct vb_str query, path, host;
    char v6[INET6_ADDRSTRLEN + 2];
    if (conf->n_routes == 0)
        return 0;
    path = vb_route_path(proxy->path, head->target, head->slash_before_target, &query);
    host = bare_host(head->host, v6, sizeof(v6));
    for (unsigned i = 0; i < conf->n_routes; i++) {
        const struct vb_conf_route *route = &conf->routes[i];
        if (!host_matches(route, host) || !path_matches(route, path) || !method_matches(route, head->method) ||
            !headers_match(route, head))
            continue;
        if (route->strip_prefix)
            strip_prefix(proxy, head, route, path, query);
        return (int)route->pool;
    }
    return -ENOENT;
}
