/* Who is trusted, and who sends PROXY headers. */
#include "fixture.h"

#include <arpa/inet.h>
#include <netinet/in.h>

static struct sockaddr_storage peer_of(const char *text)
{
    struct sockaddr_storage peer = {.ss_family = AF_UNIX};
    struct sockaddr_in *v4 = (struct sockaddr_in *)&peer;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&peer;
    if (inet_pton(AF_INET, text, &v4->sin_addr) == 1)
        peer.ss_family = AF_INET;
    else if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1)
        peer.ss_family = AF_INET6;
    else
        assert_string_equal(text, "unix");
    return peer;
}

static bool have(const struct vb_conf_sources *sources, const char *text)
{
    struct sockaddr_storage peer = peer_of(text);
    return vb_conf_sources_have(sources, (const struct sockaddr *)&peer);
}

/* Which of some peers are meant: a letter for each. */
static void check_peers(const char *what, const struct vb_conf_sources *sources, const char *wanted)
{
    static const char *const peers[] = {"10.0.0.0", "10.255.255.255", "11.0.0.0", "127.0.0.1",
                                        "::1",      "2001:db8::5",    "unix",     "::ffff:10.1.1.1"};
    char got[VB_ARRAY_SIZE(peers) + 1] = "";
    for (size_t i = 0; i < VB_ARRAY_SIZE(peers); i++)
        got[i] = have(sources, peers[i]) ? "abclsdum"[i] : '-';
    if (strcmp(got, wanted) != 0)
        fail_msg("%s: %s", what, got);
}

struct meant {
    const char *value, *peers;
};

static void trusted_proxies_are_sources(void **state)
{
    static const struct meant cases[] = {
        {"[]", "--------"},
        {"off", "--------"},
        {"10.0.0.0/8", "ab-----m"},
        {"[10.0.0.0/8]", "ab-----m"},
        {"['::1', unix]", "----s-u-"},
        {"unix", "------u-"},
        {"[127.0.0.1, '2001:db8::/32']", "---l-d--"},
        {"[0.0.0.0/0]", "abcl---m"},
        {"['::/0']", "----sd--"},
        {"['::ffff:10.0.0.0/104']", "ab-----m"},
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        char text[256];
        snprintf(text, sizeof(text), REST "trusted_proxies: %s}", cases[i].value);
        struct vb_conf *conf = parse_good(text);
        check_peers(cases[i].value, &conf->trusted_proxies, cases[i].peers);
        vb_conf_free(&conf);
    }
}

static void proxy_protocol_is_of_a_listener(void **state)
{
    static const struct meant cases[] = {
        {"false", "--------"}, {"off", "--------"},        {"true", "abclsdum"},
        {"on", "abclsdum"},    {"10.0.0.0/8", "ab-----m"}, {"[10.0.0.0/8, '::1', unix]", "ab--s-um"},
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        char text[256];
        snprintf(text, sizeof(text),
                 "{listen: [{proxy_protocol: %s, address: 80}, {address: 81}], pools: {web: {backends: [a:1]}}}",
                 cases[i].value);
        struct vb_conf *conf = parse_good(text);
        check_peers(cases[i].value, &conf->listeners[0].proxy_protocol, cases[i].peers);
        check_peers(cases[i].value, &conf->listeners[1].proxy_protocol, "--------");
        assert_string_equal(conf->listeners[0].text, "0.0.0.0:80");
        vb_conf_free(&conf);
    }
}

static void wrong_sources_are_refused(void **state)
{
#define A_SOURCE      "expected a network such as 10.0.0.0/8, an IP address, or `unix`"
#define A_PROXY       "expected true, false, or networks such as [10.0.0.0/8, unix]"
#define LISTEN(value) "{listen: {address: 80, proxy_protocol:\n" value "}, pools: {web: {backends: [a:1]}}}"
    static const struct wrong cases[] = {
        {REST "trusted_proxies:\n [10.0.0.1/8]}",
         "f:2:3: `trusted_proxies`: `10.0.0.1/8` has bits behind its prefix; did you mean `10.0.0.0/8`?\n"},
        {REST "trusted_proxies:\n ['2001:db8::1/32', 1.2.3.4/31]}",
         "f:2:3: `trusted_proxies`: `2001:db8::1/32` has bits behind its prefix; did you mean `2001:db8::/32`?\n"},
        {REST "trusted_proxies:\n [1.2.3.5/31]}",
         "f:2:3: `trusted_proxies`: `1.2.3.5/31` has bits behind its prefix; did you mean `1.2.3.4/31`?\n"},
        {REST "trusted_proxies:\n [10.0.0.0/33]}", "f:2:3: `trusted_proxies`: " A_SOURCE ", found `10.0.0.0/33`\n"},
        {REST "trusted_proxies:\n [localhost]}", "f:2:3: `trusted_proxies`: " A_SOURCE ", found `localhost`\n"},
        {REST "trusted_proxies:\n ['[::1]']}", "f:2:3: `trusted_proxies`: " A_SOURCE ", found `[::1]`\n"},
        {REST "trusted_proxies:\n ['unix:/a']}", "f:2:3: `trusted_proxies`: " A_SOURCE ", found `unix:/a`\n"},
        {REST "trusted_proxies:\n [10.0.0.0/8, []]}", "f:2:15: `trusted_proxies`: " A_SOURCE ", found a list\n"},
        {REST "trusted_proxies:\n true}", "f:2:2: `trusted_proxies`: " A_SOURCE ", found `true`\n"},
        {REST "trusted_proxies:\n {a: b}}", "f:2:2: `trusted_proxies`: " A_SOURCE ", found a mapping\n"},
        {REST "trusted_proxies: }", "f:1:47: `trusted_proxies`: " A_SOURCE ", found nothing\n"},
        {LISTEN("10.1.0.0/8"),
         "f:2:1: `proxy_protocol`: `10.1.0.0/8` has bits behind its prefix; did you mean `10.0.0.0/8`?\n"},
        {LISTEN("maybe"), "f:2:1: `proxy_protocol`: " A_PROXY ", found `maybe`\n"},
        {LISTEN("[]"), "f:2:1: `proxy_protocol`: " A_PROXY ", found a list\n"},
        {LISTEN("{}"), "f:2:1: `proxy_protocol`: " A_PROXY ", found a mapping\n"},
        {LISTEN("[true]"), "f:2:2: `proxy_protocol`: " A_SOURCE ", found `true`\n"},
        {"{listen: [{address: x, proxy_protocol: true}, 80], pools: {web: {backends: [a:1]}}}",
         "f:1:21: `x` has no port; add one, for example `x:80`\n"},
    };
    check_wrong(cases, VB_ARRAY_SIZE(cases));
}

static void sources_are_bounded(void **state)
{
    char *text = NULL;
    size_t size;
    FILE *to = open_memstream(&text, &size);
    assert_non_null(to);
    fputs(REST "trusted_proxies:\n [", to);
    for (unsigned i = 0; i <= 1000; i++)
        fputs("10.0.0.0/8,", to);
    fputs("]}", to);
    fclose(to);
    check_wrong(&(struct wrong){text, "f:2:2: `trusted_proxies`: at most 1000 networks\n"}, 1);
    free(text);
}

static void sources_that_cannot_come_are_warned_of(void **state)
{
    struct parsed parsed = parse("listen:\n"
                                 "  - { address: 'unix:/a', proxy_protocol: 10.0.0.0/8 }\n"
                                 "  - { address: 80, proxy_protocol: [unix] }\n"
                                 "  - { address: 'unix:/b', proxy_protocol: true }\n"
                                 "  - { address: 81, proxy_protocol: true }\n"
                                 "pools: { web: { backends: [a:1] } }\n");
    assert_int_equal(parsed.r, 0);
    assert_string_equal(parsed.lines,
                        "f:2:16: warning: `proxy_protocol` has no effect on `unix:/a`: none of its sources can come "
                        "there; write `unix`\n"
                        "f:3:16: warning: `proxy_protocol` has no effect on `0.0.0.0:80`: none of its sources can come "
                        "there; `unix` stands for who comes through a unix socket\n");
    drop(&parsed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trusted_proxies_are_sources),
        cmocka_unit_test(proxy_protocol_is_of_a_listener),
        cmocka_unit_test(wrong_sources_are_refused),
        cmocka_unit_test(sources_are_bounded),
        cmocka_unit_test(sources_that_cannot_come_are_warned_of),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
