/* Addresses of backends and of listeners, as people write them. */
#include "fixture.h"

#include <netinet/in.h>

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
        char host[VB_HOST_MAX + 1];
        uint16_t port;
        struct vb_error err = {""};
        int r = vb_conf_parse_host_port(cases[i].text, host, sizeof(host), &port, &err);
        if (r != 0 || strcmp(host, cases[i].host) != 0 || port != cases[i].port)
            fail_msg("%s: %d, %s", cases[i].text, r, err.text);
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
        {"unix:/run/web", "`unix:` is not supported yet; a backend is host:port, such as 127.0.0.1:9001"},
        {"ftp://web:21", "`ftp://web:21` is not a backend: expected host:port, such as 127.0.0.1:9001"},
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        char host[VB_HOST_MAX + 1] = "untouched";
        uint16_t port = 7;
        struct vb_error err = {""};
        int r = vb_conf_parse_host_port(cases[i].text, host, sizeof(host), &port, &err);
        if (r != -EINVAL || strcmp(err.text, cases[i].lines) != 0)
            fail_msg("%s: %d, %s", cases[i].text, r, err.text);
        assert_string_equal(host, "untouched");
        assert_int_equal(port, 7);
    }
}

static void hosts_fit_or_are_refused(void **state)
{
    char text[VB_HOST_MAX + 32], host[VB_HOST_MAX + 1], small[4] = "abc";
    uint16_t port;
    struct vb_error err;
    for (size_t n = 1; n <= VB_HOST_MAX + 10; n++) {
        for (size_t i = 0; i < n; i++)
            text[i] = i % 64 == 63 ? '.' : 'a';
        snprintf(text + n, sizeof(text) - n, ":80");
        int r = vb_conf_parse_host_port(text, host, sizeof(host), &port, &err);
        assert_int_equal(r, n <= VB_HOST_MAX ? 0 : -EINVAL);
        r = vb_conf_parse_host_port(text, small, sizeof(small), &port, &err);
        assert_int_equal(r, n < sizeof(small) ? 0 : -EINVAL);
    }
    char label[80];
    snprintf(label, sizeof(label), "%064d:80", 0);
    label[0] = 'a';
    assert_int_equal(vb_conf_parse_host_port(label, host, sizeof(host), &port, &err), -EINVAL);
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
        {"unix:/run/vb", "`unix:` is not supported yet; listen on a port, such as 8080"},
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(backend_addresses_are_split),
        cmocka_unit_test(wrong_backend_addresses_are_explained),
        cmocka_unit_test(hosts_fit_or_are_refused),
        cmocka_unit_test(listener_addresses_are_normalised),
        cmocka_unit_test(wrong_listener_addresses_are_explained),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
