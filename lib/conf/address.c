/* Addresses as people write them: where to listen, where backends are, which hosts a route is for. */
#include "load_priv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/un.h>

struct host_port {
    char host[VB_HOST_MAX + 1]; /* without brackets */
    bool bracketed;
    uint16_t port;
};

static bool has_prefix(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static bool is_number(const char *text)
{
    return *text != '\0' && text[strspn(text, "0123456789")] == '\0';
}

static int parse_port(const char *text, uint16_t *ret_port, struct vb_error *err)
{
    uint64_t port;
    if (vb_parse_u64(vb_str(text), 65535, &port) < 0 || port == 0)
        return vb_fail(err, -EINVAL, "%s is not a port: a port is a number from 1 to 65535", vb_quote(text).text);
    *ret_port = (uint16_t)port;
    return 0;
}

static int fail_no_port(const char *text, struct vb_error *err)
{
    if (is_number(text))
        return vb_fail(err, -EINVAL, "%s has no host; write for example `127.0.0.1:9001`", vb_quote(text).text);
    char example[VB_HOST_MAX + 1];
    size_t n = strlen(text);
    bool ends_in_colon = n > 0 && text[n - 1] == ':';
    snprintf(example, sizeof(example), "%s%s", text, ends_in_colon ? "80" : ":80");
    return vb_fail(err, -EINVAL, "%s has no port; add one, for example %s", vb_quote(text).text,
                   vb_quote(example).text);
}

/* Finds the colon before the port, and the host that ends at *ret_host_end. */
static int find_colon(const char *text, const char **ret_host_end, const char **ret_colon, struct vb_error *err)
{
    const char *colon = strrchr(text, ':'), *host_end = colon;
    if (text[0] == '[') {
        const char *bracket = strchr(text, ']');
        if (bracket == NULL || (bracket[1] != ':' && bracket[1] != '\0'))
            return vb_fail(err, -EINVAL, "%s is not an address; an IPv6 address looks like `[::1]:80`",
                           vb_quote(text).text);
        host_end = bracket;
        colon = bracket[1] == ':' ? bracket + 1 : NULL;
    } else if (colon != NULL && strchr(text, ':') != colon) {
        return vb_fail(err, -EINVAL, "%s has more than one colon; an IPv6 address needs brackets, as in `[::1]:80`",
                       vb_quote(text).text);
    }
    if (colon == NULL || colon[1] == '\0')
        return fail_no_port(text, err);
    *ret_host_end = host_end;
    *ret_colon = colon;
    return 0;
}

/* `host:port` or `[v6]:port`. What the host is, is not looked at; it may be empty. */
static int split(const char *text, struct host_port *ret_parts, struct vb_error *err)
{
    const char *end = NULL, *colon = NULL;
    int r = find_colon(text, &end, &colon, err);
    if (r < 0)
        return r;
    struct host_port parts = {.bracketed = text[0] == '['};
    r = parse_port(colon + 1, &parts.port, err);
    if (r < 0)
        return r;
    const char *host = text + parts.bracketed;
    size_t n = (size_t)(end - host);
    if (n >= sizeof(parts.host))
        return vb_fail(err, -EINVAL, "the host of %s is longer than %d bytes", vb_quote(text).text, VB_HOST_MAX);
    memcpy(parts.host, host, n);
    *ret_parts = parts;
    return 0;
}

/* ---- unix sockets ---- */
#define UNIX_PREFIX "unix:"

/* `unix:/path` -> the path. */
static int parse_unix(const char *text, char *to, size_t size, struct vb_error *err)
{
    const char *path = text + strlen(UNIX_PREFIX);
    if (path[0] == '\0' || !vb_valid_file_path(path))
        return vb_fail(err, -EINVAL,
                       "%s is not a unix socket: expected a path that begins with /, such as `unix:/run/web.sock`",
                       vb_quote(text).text);
    if (path[strlen(path) - 1] == '/')
        return vb_fail(err, -EINVAL, "%s names a folder; a unix socket is a file in it", vb_quote(text).text);
    if (!vb_copy(to, size, path))
        return vb_fail(err, -EINVAL, "the path of %s is longer than the %d bytes that a unix socket may have",
                       vb_quote(text).text, VB_UNIX_PATH_MAX);
    return 0;
}

/* ---- hosts ---- */
/* Labels of letters, digits, - and _ (which DNS takes, and container names have), with dots between; a last dot may be.
 */
static bool is_host_name(const char *text)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    size_t n;
    do {
        n = strspn(text, allowed);
        if (n == 0 || n > 63 || text[0] == '-')
            return false;
        text += n;
        if (*text == '.')
            text++;
        else if (*text != '\0')
            return false;
    } while (*text != '\0');
    return true;
}

/* No top-level domain is a number: what looks like an IPv4 address is meant to be one. */
static bool ends_in_number(const char *host)
{
    const char *dot = strrchr(host, '.');
    return is_number(dot != NULL ? dot + 1 : host);
}

/* Checks the host; an IPv6 address gets its one canonical spelling, so that two spellings are seen as one address. */
static int check_host(const char *text, struct host_port *parts, struct vb_error *err)
{
    struct in6_addr v6;
    struct in_addr v4;
    if (parts->bracketed) {
        if (inet_pton(AF_INET6, parts->host, &v6) != 1)
            return vb_fail(err, -EINVAL, "%s is not an IPv6 address", vb_quote(parts->host).text);
        inet_ntop(AF_INET6, &v6, parts->host, sizeof(parts->host));
        return 0;
    }
    if (parts->host[0] == '\0')
        return vb_fail(err, -EINVAL, "%s has no host; write for example `127.0.0.1:%u`", vb_quote(text).text,
                       parts->port);
    if (ends_in_number(parts->host)) {
        if (inet_pton(AF_INET, parts->host, &v4) != 1)
            return vb_fail(err, -EINVAL, "%s is not an IPv4 address", vb_quote(parts->host).text);
        return 0;
    }
    if (!is_host_name(parts->host))
        return vb_fail(err, -EINVAL, "%s is neither a host name nor an IP address", vb_quote(parts->host).text);
    return 0;
}

/* ---- backends ---- */
/* Takes `http://` and a bare `/` at the end off; what else a URL can have is refused. */
static int strip_url(const char *text, char *to, size_t size, struct vb_error *err)
{
    if (has_prefix(text, "https://"))
        return vb_fail(err, -EINVAL, "`https://` is not supported yet; a backend is host:port, such as 127.0.0.1:9001");
    bool is_url = has_prefix(text, "http://");
    const char *rest = is_url ? text + strlen("http://") : text;
    if (strstr(rest, "://") != NULL)
        return vb_fail(err, -EINVAL, "%s is not a backend: expected host:port, such as 127.0.0.1:9001",
                       vb_quote(text).text);
    const char *slash = strchr(rest, '/');
    if (slash != NULL && (!is_url || slash[1] != '\0'))
        return vb_fail(err, -EINVAL, "a backend is host:port; a path has no place here");
    if (!vb_copy(to, size, rest))
        return vb_fail(err, -EINVAL, "%s is too long for host:port", vb_quote(text).text);
    if (slash != NULL)
        to[slash - rest] = '\0';
    return 0;
}

static int parse_host_port(const char *text, struct vb_conf_endpoint *endpoint, struct vb_error *err)
{
    char bare[VB_HOST_MAX + 16] = "";
    struct host_port parts = {.host = ""};
    int r = strip_url(text, bare, sizeof(bare), err);
    if (r == 0)
        r = split(bare, &parts, err);
    if (r == 0)
        r = check_host(bare, &parts, err);
    vb_copy(endpoint->host, sizeof(endpoint->host), parts.host);
    endpoint->port = parts.port;
    return r;
}

int vb_conf_parse_endpoint(const char *text, struct vb_conf_endpoint *ret_endpoint, struct vb_error *err)
{
    struct vb_conf_endpoint endpoint = {.port = 0};
    if (text[0] == '\0')
        return vb_fail(err, -EINVAL, "expected host:port, such as 127.0.0.1:9001, found nothing");
    int r = has_prefix(text, UNIX_PREFIX) ? parse_unix(text, endpoint.unix_path, sizeof(endpoint.unix_path), err)
                                          : parse_host_port(text, &endpoint, err);
    if (r == 0)
        *ret_endpoint = endpoint;
    return r;
}

char *vb_conf_format_endpoint(char *to, size_t size, const struct vb_conf_endpoint *endpoint)
{
    bool is_v6 = strchr(endpoint->host, ':') != NULL;
    if (endpoint->unix_path[0] != '\0')
        snprintf(to, size, UNIX_PREFIX "%s", endpoint->unix_path);
    else
        snprintf(to, size, is_v6 ? "[%s]:%u" : "%s:%u", endpoint->host, endpoint->port);
    return to;
}

/* ---- hosts of routes ---- */
/* What is not a bare host, said in the words of who wrote it. */
static int refuse_more_than_host(const char *text, struct vb_error *err)
{
    const char *colon = strrchr(text, ':'), *bracket = text[0] == '[' ? strchr(text, ']') : NULL;
    if (strchr(text, '/') != NULL)
        return vb_fail(err, -EINVAL, "%s is more than a host; write the bare name, such as `www.example.com`",
                       vb_quote(text).text);
    if (text[0] == '[' && (bracket == NULL || (bracket[1] != ':' && bracket[1] != '\0')))
        return vb_fail(err, -EINVAL, "%s is not a host; an IPv6 address looks like `[::1]`", vb_quote(text).text);
    if (text[0] != '[' && colon != NULL && strchr(text, ':') != colon)
        return vb_fail(err, -EINVAL, "%s has more than one colon; an IPv6 address needs brackets, as in `[::1]`",
                       vb_quote(text).text);
    if (colon == NULL || (bracket != NULL && bracket[1] == '\0'))
        return 0;
    char host[VB_HOST_MAX + 1] = "";
    memcpy(host, text, VB_MIN((size_t)(colon - text), sizeof(host) - 1));
    return vb_fail(err, -EINVAL, "%s has a port, which routes do not look at; write %s", vb_quote(text).text,
                   vb_quote(host).text);
}

/* A name that may follow `*.`, or an address. */
static int parse_name(const char *text, struct host_port *parts, struct vb_error *err)
{
    size_t n = strlen(text);
    parts->bracketed = n >= 2 && text[0] == '[' && text[n - 1] == ']';
    if (parts->bracketed) {
        text++;
        n -= 2;
    } else if (n > 1 && text[n - 1] == '.' && text[n - 2] != '.') {
        n--; /* the root: `example.com.` is the same name */
    }
    if (n == 0 && !parts->bracketed)
        return vb_fail(err, -EINVAL, "a host is expected here, such as `www.example.com` or `*.example.com`");
    if (n > VB_HOST_MAX)
        return vb_fail(err, -EINVAL, "the host %s is longer than %d bytes", vb_quote(text).text, VB_HOST_MAX);
    memcpy(parts->host, text, n);
    parts->host[n] = '\0';
    return check_host(text, parts, err);
}

int vb_conf_parse_route_host(const char *text, char *to, size_t size, bool *ret_wildcard, struct vb_error *err)
{
    struct host_port parts = {.host = ""};
    bool wildcard = has_prefix(text, "*.");
    const char *name = wildcard ? text + 2 : text;
    if (strchr(name, '*') != NULL)
        return vb_fail(err, -EINVAL,
                       "%s: a `*` stands in front of a name only, as in `*.example.com`; for any host leave `host` out",
                       vb_quote(text).text);
    int r = refuse_more_than_host(text, err);
    if (r == 0)
        r = parse_name(name, &parts, err);
    if (r < 0)
        return r;
    if (wildcard && (parts.bracketed || ends_in_number(parts.host)))
        return vb_fail(err, -EINVAL, "%s: nothing can be below an IP address", vb_quote(text).text);
    vb_to_lower(parts.host);
    snprintf(to, size, parts.bracketed ? "[%s]" : wildcard ? ".%s" : "%s", parts.host);
    *ret_wildcard = wildcard;
    return 0;
}

/* ---- listeners ---- */
static int set_unix(const char *text, struct vb_conf_listener *listener, struct vb_error *err)
{
    struct sockaddr_un *un = (struct sockaddr_un *)&listener->address;
    *un = (struct sockaddr_un){.sun_family = AF_UNIX};
    static_assert(sizeof(un->sun_path) == VB_UNIX_PATH_MAX + 1, "a path and its NUL fill what the kernel has");
    int r = parse_unix(text, un->sun_path, sizeof(un->sun_path), err);
    if (r < 0)
        return r;
    vb_copy(listener->text, sizeof(listener->text), text);
    listener->address_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(un->sun_path) + 1);
    return 0;
}

static int set_v4(const struct host_port *parts, struct vb_conf_listener *listener, struct vb_error *err)
{
    struct sockaddr_in *in = (struct sockaddr_in *)&listener->address;
    *in = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(parts->port)};
    bool is_any = parts->host[0] == '\0' || strcmp(parts->host, "*") == 0;
    if (!is_any && inet_pton(AF_INET, parts->host, &in->sin_addr) != 1)
        return vb_fail(err, -EINVAL,
                       "%s is not an IP address; listen on one of this machine, or on a port of all, such as `%u`",
                       vb_quote(parts->host).text, parts->port);
    char text[INET_ADDRSTRLEN];
    inet_ntop(AF_INET, &in->sin_addr, text, sizeof(text));
    snprintf(listener->text, sizeof(listener->text), "%s:%u", text, parts->port);
    listener->address_len = sizeof(*in);
    return 0;
}

static int set_v6(const struct host_port *parts, struct vb_conf_listener *listener, struct vb_error *err)
{
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&listener->address;
    *in6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(parts->port)};
    if (inet_pton(AF_INET6, parts->host, &in6->sin6_addr) != 1)
        return vb_fail(err, -EINVAL, "%s is not an IPv6 address", vb_quote(parts->host).text);
    char text[INET6_ADDRSTRLEN];
    inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof(text));
    if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) /* bind() refuses these on a socket that is IPv6 only, as ours are */
        return vb_fail(err, -EINVAL, "`[%s]` is an IPv4 address; write it as one", text);
    snprintf(listener->text, sizeof(listener->text), "[%s]:%u", text, parts->port);
    listener->address_len = sizeof(*in6);
    return 0;
}

static int parse_listener(const char *text, struct vb_conf_listener *listener, struct vb_error *err)
{
    struct host_port parts = {.host = ""};
    if (text[0] == '\0')
        return vb_fail(err, -EINVAL, "expected an address to listen on, such as 8080 or 127.0.0.1:8080, found nothing");
    if (has_prefix(text, UNIX_PREFIX))
        return set_unix(text, listener, err);
    if (strchr(text, '/') != NULL)
        return vb_fail(err, -EINVAL, "%s is not an address to listen on; expected for example 8080 or 127.0.0.1:8080",
                       vb_quote(text).text);
    int r = is_number(text) ? parse_port(text, &parts.port, err) : split(text, &parts, err);
    if (r < 0)
        return r;
    return parts.bracketed ? set_v6(&parts, listener, err) : set_v4(&parts, listener, err);
}

int vb_conf_parse_listener(const char *text, struct vb_conf_listener *listener, struct vb_error *err)
{
    struct vb_conf_listener parsed = {.line = 0};
    int r = parse_listener(text, &parsed, err);
    if (r < 0)
        return r;
    memcpy(listener->text, parsed.text, sizeof(parsed.text));
    listener->address = parsed.address;
    listener->address_len = parsed.address_len;
    return 0;
}
