/* Addresses of backends and of listeners, and hosts of routes, as people write them. */
#include "fixture.h"

#include <netinet/in.h>
#include <sys/un.h>

#include "load_priv.h"

static void backend_addresses_are_split(void **state)
{
    static const struct {
        const char *text, *host;
        unsigned port;
    } cases[] = {
        {"127.0.0.1:80", "127.0.0.1", 80},
        {"[::1]:80", "::1", 80},
        {"[FD00:0:0::0001]:65535", "fd00::1", 65535},
        {"web:1", "web", 1},
        {"my_app-1.example.com:8080", "my_app-1.example.com", 8080},
        {"example.com.:80", "example.com.", 80},
        {"http://web:80", "web", 80},
        {"http://web:80/", "web", 80},
        {"http://[::1]:80/", "::1", 80},
        {"7up:80", "7up", 80},
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        struct vb_conf_endpoint endpoint;
        struct vb_error err = {""};
        int r = vb_conf_parse_endpoint(cases[i].text, &endpoint, &err);
        if (r != 0 || strcmp(endpoint.host, cases[i].host) != 0 || endpoint.port != cases[i].port)
            fail_msg("%s: %d, %s", cases[i].text, r, err.text);
        assert_string_equal(endpoint.unix_path, "");
    }
}

static void an_endpoint_has_one_spelling(void **state)
{
    static const char *const cases[][2] = {
        {"http://127.0.0.1:80/", "127.0.0.1:80"},
        {"[FD00:0::1]:80", "[fd00::1]:80"},
        {"web:080", "web:80"},
        {"unix:/run/web.sock", "unix:/run/web.sock"},
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        struct vb_conf_endpoint endpoint;
        struct vb_error err;
        char text[VB_ADDRESS_MAX + 1];
        assert_int_equal(vb_conf_parse_endpoint(cases[i][0], &endpoint, &err), 0);
        assert_string_equal(vb_conf_format_endpoint(text, sizeof(text), &endpoint), cases[i][1]);
    }
}

static void wrong_backend_addresses_are_explained(void **state)
{
    static const struct wrong cases[] = {
        {"", "expected host:port, such as 127.0.0.1:9001, found nothing"},
        {"127.0.0.1", "`127.0.0.1` has no port; add one, for example `127.0.0.1:80`"},
        {"web:", "`web:` has no port; add one, for example `web:80`"},
        {"[::1]", "`[::1]` has no port; add one, for example `[::1]:80`"},
        {"http://web", "`web` has no port; add one, for example `web:80`"},
        {"http://web/", "`web` has no port; add one, for example `web:80`"},
        {"9001", "`9001` has no host; write for example `127.0.0.1:9001`"},
        {":80", "`:80` has no host; write for example `127.0.0.1:80`"},
        {"[]:80", "`` is not an IPv6 address"},
        {"[::1:80", "`[::1:80` is not an address; an IPv6 address looks like `[::1]:80`"},
        {"[::1]80", "`[::1]80` is not an address; an IPv6 address looks like `[::1]:80`"},
        {"[web]:80", "`web` is not an IPv6 address"},
        {"::1:80", "`::1:80` has more than one colon; an IPv6 address needs brackets, as in `[::1]:80`"},
        {"300.1.1.1:80", "`300.1.1.1` is not an IPv4 address"},
        {"127.1:80", "`127.1` is not an IPv4 address"},
        {"web:0", "`0` is not a port: a port is a number from 1 to 65535"},
        {"web:65536", "`65536` is not a port: a port is a number from 1 to 65535"},
        {"web:http", "`http` is not a port: a port is a number from 1 to 65535"},
        {"a b:80", "`a b` is neither a host name nor an IP address"},
        {"user@web:80", "`user@web` is neither a host name nor an IP address"},
        {"-web:80", "`-web` is neither a host name nor an IP address"},
        {"a..b:80", "`a..b` is neither a host name nor an IP address"},
        {"*:80", "`*` is neither a host name nor an IP address"},
        {"web:80/x", "a backend is host:port; a path has no place here"},
        {"http://web:80/x", "a backend is host:port; a path has no place here"},
        {"https://web:443", "`https://` is not supported yet; a backend is host:port, such as 127.0.0.1:9001"},
        {"http://unix:/run/web", "a backend is host:port; a path has no place here"},
        {"ftp://web:21", "`ftp://web:21` is not a backend: expected host:port, such as 127.0.0.1:9001"},
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        struct vb_conf_endpoint endpoint = {.host = "untouched", .port = 7};
        struct vb_error err = {""};
        int r = vb_conf_parse_endpoint(cases[i].text, &endpoint, &err);
        if (r != -EINVAL || strcmp(err.text, cases[i].lines) != 0)
            fail_msg("%s: %d, %s", cases[i].text, r, err.text);
        assert_string_equal(endpoint.host, "untouched");
        assert_int_equal(endpoint.port, 7);
    }
}

static void hosts_fit_or_are_refused(void **state)
{
    char text[VB_HOST_MAX + 32];
    struct vb_conf_endpoint endpoint;
    struct vb_error err;
    for (size_t n = 1; n <= VB_HOST_MAX + 10; n++) {
        for (size_t i = 0; i < n; i++)
            text[i] = i % 64 == 63 ? '.' : 'a';
        snprintf(text + n, sizeof(text) - n, ":80");
        int r = vb_conf_parse_endpoint(text, &endpoint, &err);
        assert_int_equal(r, n <= VB_HOST_MAX ? 0 : -EINVAL);
    }
    char label[80];
    snprintf(label, sizeof(label), "%064d:80", 0);
    label[0] = 'a';
    assert_int_equal(vb_conf_parse_endpoint(label, &endpoint, &err), -EINVAL);
}

/* Backends and listeners say the same of a unix socket. */
static int parse_both(const char *text, struct vb_conf_endpoint *endpoint, struct vb_conf_listener *listener,
                      struct vb_error *err)
{
    struct vb_error other = {""};
    err->text[0] = '\0';
    int r = vb_conf_parse_endpoint(text, endpoint, err);
    assert_int_equal(vb_conf_parse_listener(text, listener, &other), r);
    assert_string_equal(other.text, err->text);
    return r;
}

static void unix_sockets_are_paths(void **state)
{
    static const char *const good[] = {"/run/web.sock", "/a", "/with space:80", "/m\xc3\xbcnchen", "/a//b/../c"};
    for (size_t i = 0; i < VB_ARRAY_SIZE(good); i++) {
        char text[64];
        struct vb_conf_endpoint endpoint;
        struct vb_conf_listener listener;
        struct vb_error err = {""};
        snprintf(text, sizeof(text), "unix:%s", good[i]);
        if (parse_both(text, &endpoint, &listener, &err) != 0)
            fail_msg("%s: %s", text, err.text);
        const struct sockaddr_un *un = (const struct sockaddr_un *)&listener.address;
        assert_string_equal(endpoint.unix_path, good[i]);
        assert_string_equal(endpoint.host, "");
        assert_int_equal(endpoint.port, 0);
        assert_string_equal(listener.text, text);
        assert_int_equal(un->sun_family, AF_UNIX);
        assert_string_equal(un->sun_path, good[i]);
        assert_int_equal(listener.address_len, offsetof(struct sockaddr_un, sun_path) + strlen(good[i]) + 1);
    }
}

static void wrong_unix_sockets_are_explained(void **state)
{
#define NOT_UNIX " is not a unix socket: expected a path that begins with /, such as `unix:/run/web.sock`"
    static const struct wrong cases[] = {
        {"unix:", "`unix:`" NOT_UNIX},
        {"unix:web.sock", "`unix:web.sock`" NOT_UNIX},
        {"unix:./web.sock", "`unix:./web.sock`" NOT_UNIX},
        {"unix:@abstract", "`unix:@abstract`" NOT_UNIX},
        {"unix:/a\nb", "`unix:/a?b`" NOT_UNIX},
        {"unix:/a\x7f", "`unix:/a?`" NOT_UNIX},
        {"unix:\xc2\x9b\xc3\xa4", "`unix:??\xc3\xa4`" NOT_UNIX}, /* CSI, which a terminal obeys; a letter */
        {"unix:/", "`unix:/` names a folder; a unix socket is a file in it"},
        {"unix:/run/", "`unix:/run/` names a folder; a unix socket is a file in it"},
    };
    struct vb_conf_endpoint endpoint;
    struct vb_conf_listener listener;
    struct vb_error err;
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        int r = parse_both(cases[i].text, &endpoint, &listener, &err);
        if (r != -EINVAL || strcmp(err.text, cases[i].lines) != 0)
            fail_msg("%s: %d, %s", cases[i].text, r, err.text);
    }
    char text[VB_UNIX_PATH_MAX + 7] = "unix:/";
    memset(text + 6, 'a', VB_UNIX_PATH_MAX);
    text[sizeof(text) - 1] = '\0';
    assert_int_equal(parse_both(text, &endpoint, &listener, &err), -EINVAL);
    assert_string_equal(err.text,
                        "the path of `unix:/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...` is longer "
                        "than the 107 bytes that a unix socket may have");
    text[sizeof(text) - 2] = '\0';
    assert_int_equal(parse_both(text, &endpoint, &listener, &err), 0);
    assert_int_equal(strlen(endpoint.unix_path), VB_UNIX_PATH_MAX);
    assert_string_equal(listener.text, text);
    assert_int_equal(listener.address_len, sizeof(struct sockaddr_un));
}

static void listener_addresses_are_normalised(void **state)
{
    static const struct {
        const char *text, *shown;
        int family;
    } cases[] = {
        {"8080", "0.0.0.0:8080", AF_INET},        {":8080", "0.0.0.0:8080", AF_INET},
        {"*:8080", "0.0.0.0:8080", AF_INET},      {"0.0.0.0:8080", "0.0.0.0:8080", AF_INET},
        {"127.0.0.1:1", "127.0.0.1:1", AF_INET},  {"[::]:65535", "[::]:65535", AF_INET6},
        {"[0:0::0001]:80", "[::1]:80", AF_INET6},
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        struct vb_conf_listener listener;
        struct vb_error err = {""};
        int r = vb_conf_parse_listener(cases[i].text, &listener, &err);
        if (r != 0 || strcmp(listener.text, cases[i].shown) != 0 || listener.address.ss_family != cases[i].family)
            fail_msg("%s: %d, %s", cases[i].text, r, err.text);
        bool is_v4 = cases[i].family == AF_INET;
        assert_int_equal(listener.address_len, is_v4 ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
    }
    struct vb_conf_listener listener;
    struct vb_error err;
    assert_int_equal(vb_conf_parse_listener("127.0.0.1:8080", &listener, &err), 0);
    const struct sockaddr_in *in = (const struct sockaddr_in *)&listener.address;
    assert_int_equal(in->sin_addr.s_addr, htonl(INADDR_LOOPBACK));
    assert_int_equal(in->sin_port, htons(8080));
}

static void wrong_listener_addresses_are_explained(void **state)
{
    static const struct wrong cases[] = {
        {"", "expected an address to listen on, such as 8080 or 127.0.0.1:8080, found nothing"},
        {"0", "`0` is not a port: a port is a number from 1 to 65535"},
        {"65536", "`65536` is not a port: a port is a number from 1 to 65535"},
        {":", "`:` has no port; add one, for example `:80`"},
        {":x", "`x` is not a port: a port is a number from 1 to 65535"},
        {"127.0.0.1", "`127.0.0.1` has no port; add one, for example `127.0.0.1:80`"},
        {"localhost:80", "`localhost` is not an IP address; "
                         "listen on one of this machine, or on a port of all, such as `80`"},
        {"256.0.0.1:80", "`256.0.0.1` is not an IP address; "
                         "listen on one of this machine, or on a port of all, such as `80`"},
        {"::1:80", "`::1:80` has more than one colon; an IPv6 address needs brackets, as in `[::1]:80`"},
        {"[x]:80", "`x` is not an IPv6 address"},
        {"[::ffff:127.0.0.1]:80", "`[::ffff:127.0.0.1]` is an IPv4 address; write it as one"},
        {"http://:80", "`http://:80` is not an address to listen on; expected for example 8080 or 127.0.0.1:8080"},
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        struct vb_conf_listener listener = {.line = 7};
        struct vb_error err = {""};
        int r = vb_conf_parse_listener(cases[i].text, &listener, &err);
        if (r != -EINVAL || strcmp(err.text, cases[i].lines) != 0 || listener.line != 7)
            fail_msg("%s: %d, %s", cases[i].text, r, err.text);
    }
}

static void hosts_of_routes_are_normalised(void **state)
{
    static const struct {
        const char *text, *host;
        bool wildcard;
    } cases[] = {
        {"www.example.com", "www.example.com", false},
        {"WWW.Example.COM", "www.example.com", false},
        {"www.example.com.", "www.example.com", false},
        {"localhost", "localhost", false},
        {"my_app-1", "my_app-1", false},
        {"xn--mnchen-3ya.de", "xn--mnchen-3ya.de", false},
        {"127.0.0.1", "127.0.0.1", false},
        {"127.0.0.1.", "127.0.0.1", false},
        {"[::1]", "[::1]", false},
        {"[FD00:0:0::0001]", "[fd00::1]", false},
        {"*.example.com", ".example.com", true},
        {"*.Example.com.", ".example.com", true},
        {"*.com", ".com", true},
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        char host[VB_HOST_MAX + 3];
        bool wildcard;
        struct vb_error err = {""};
        int r = vb_conf_parse_route_host(cases[i].text, host, sizeof(host), &wildcard, &err);
        if (r != 0 || strcmp(host, cases[i].host) != 0 || wildcard != cases[i].wildcard)
            fail_msg("%s: %d, %s, %s", cases[i].text, r, host, err.text);
    }
}

static void wrong_hosts_of_routes_are_explained(void **state)
{
#define STARS ": a `*` stands in front of a name only, as in `*.example.com`; for any host leave `host` out"
    static const struct wrong cases[] = {
        {"", "a host is expected here, such as `www.example.com` or `*.example.com`"},
        {"*.", "a host is expected here, such as `www.example.com` or `*.example.com`"},
        {"*", "`*`" STARS},
        {"*example.com", "`*example.com`" STARS},
        {"www.*.com", "`www.*.com`" STARS},
        {"*.*.com", "`*.*.com`" STARS},
        {"example.com:8080", "`example.com:8080` has a port, which routes do not look at; write `example.com`"},
        {"*.example.com:80", "`*.example.com:80` has a port, which routes do not look at; write `*.example.com`"},
        {"127.0.0.1:80", "`127.0.0.1:80` has a port, which routes do not look at; write `127.0.0.1`"},
        {"[::1]:80", "`[::1]:80` has a port, which routes do not look at; write `[::1]`"},
        {"::1", "`::1` has more than one colon; an IPv6 address needs brackets, as in `[::1]`"},
        {"[::1", "`[::1` is not a host; an IPv6 address looks like `[::1]`"},
        {"[::1]x", "`[::1]x` is not a host; an IPv6 address looks like `[::1]`"},
        {"[]", "`` is not an IPv6 address"},
        {"[web]", "`web` is not an IPv6 address"},
        {"300.1.1.1", "`300.1.1.1` is not an IPv4 address"},
        {"http://example.com", "`http://example.com` is more than a host; write the bare name, such as "
                               "`www.example.com`"},
        {"example.com/x", "`example.com/x` is more than a host; write the bare name, such as `www.example.com`"},
        {"a b", "`a b` is neither a host name nor an IP address"},
        {"m\xc3\xbcnchen.de", "`m\xc3\xbcnchen.de` is neither a host name nor an IP address"},
        {".", "`.` is neither a host name nor an IP address"},
        {"a..", "`a..` is neither a host name nor an IP address"},
        {".example.com", "`.example.com` is neither a host name nor an IP address"},
        {"*.[", "`[` is neither a host name nor an IP address"},
        {"*.10.0.0.1", "`*.10.0.0.1`: nothing can be below an IP address"},
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        char host[VB_HOST_MAX + 3] = "untouched";
        bool wildcard = true;
        struct vb_error err = {""};
        int r = vb_conf_parse_route_host(cases[i].text, host, sizeof(host), &wildcard, &err);
        if (r != -EINVAL || strcmp(err.text, cases[i].lines) != 0)
            fail_msg("%s: %d, %s", cases[i].text, r, err.text);
        assert_string_equal(host, "untouched");
        assert_true(wildcard);
    }
}

static void hosts_of_routes_fit_or_are_refused(void **state)
{
    char text[VB_HOST_MAX + 32], host[VB_HOST_MAX + 3];
    bool wildcard;
    struct vb_error err;
    for (size_t n = 1; n <= VB_HOST_MAX + 10; n++) {
        text[0] = '*';
        text[1] = '.';
        for (size_t i = 0; i < n; i++)
            text[i + 2] = i % 64 == 63 ? '.' : 'a';
        text[n + 2] = '\0';
        for (unsigned skipped = 0; skipped <= 2; skipped += 2)
            assert_int_equal(vb_conf_parse_route_host(text + skipped, host, sizeof(host), &wildcard, &err),
                             n <= VB_HOST_MAX ? 0 : -EINVAL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(backend_addresses_are_split),
        cmocka_unit_test(an_endpoint_has_one_spelling),
        cmocka_unit_test(wrong_backend_addresses_are_explained),
        cmocka_unit_test(hosts_fit_or_are_refused),
        cmocka_unit_test(unix_sockets_are_paths),
        cmocka_unit_test(wrong_unix_sockets_are_explained),
        cmocka_unit_test(listener_addresses_are_normalised),
        cmocka_unit_test(wrong_listener_addresses_are_explained),
        cmocka_unit_test(hosts_of_routes_are_normalised),
        cmocka_unit_test(wrong_hosts_of_routes_are_explained),
        cmocka_unit_test(hosts_of_routes_fit_or_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
