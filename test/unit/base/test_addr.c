/* Addresses as text, and as members of networks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/un.h>

#include "vb/addr.h"

static struct sockaddr_storage make_v4(const char *text, uint16_t port)
{
    struct sockaddr_storage address = {.ss_family = AF_INET};
    struct sockaddr_in *in = (struct sockaddr_in *)&address;
    assert_int_equal(inet_pton(AF_INET, text, &in->sin_addr), 1);
    in->sin_port = htons(port);
    return address;
}

static struct sockaddr_storage make_v6(const char *text, uint16_t port)
{
    struct sockaddr_storage address = {.ss_family = AF_INET6};
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&address;
    assert_int_equal(inet_pton(AF_INET6, text, &in6->sin6_addr), 1);
    in6->sin6_port = htons(port);
    return address;
}

static struct sockaddr_storage make_family(sa_family_t family)
{
    return (struct sockaddr_storage){.ss_family = family};
}

static void socket_addresses_have_texts(void **state)
{
    const struct {
        struct sockaddr_storage address;
        const char *whole, *ip;
    } cases[] = {
        {make_v4("127.0.0.1", 80), "127.0.0.1:80", "127.0.0.1"},
        {make_v4("255.255.255.255", 65535), "255.255.255.255:65535", "255.255.255.255"},
        {make_v4("0.9.10.99", 1), "0.9.10.99:1", "0.9.10.99"},
        {make_v4("100.101.110.209", 0), "100.101.110.209:0", "100.101.110.209"},
        {make_v6("::1", 80), "[::1]:80", "::1"},
        {make_v6("::", 0), "[::]:0", "::"},
        {make_v6("::ffff:10.0.0.1", 80), "10.0.0.1:80", "10.0.0.1"},
        {make_family(AF_UNIX), "unix", "unix"},
        {make_family(AF_UNSPEC), "?", "?"},
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        char text[VB_ADDR_TEXT_MAX];
        const struct sockaddr *address = (const struct sockaddr *)&cases[i].address;
        assert_ptr_equal(vb_addr_format(text, sizeof(text), address), text);
        assert_string_equal(text, cases[i].whole);
        assert_ptr_equal(vb_addr_format_ip(text, sizeof(text), address), text);
        assert_string_equal(text, cases[i].ip);
    }
    char small[sizeof("127.0.0.1") - 1], just[sizeof("127.0.0.1")];
    const struct sockaddr *address = (const struct sockaddr *)&cases[0].address;
    assert_string_equal(vb_addr_format_ip(small, sizeof(small), address), "?");
    assert_string_equal(vb_addr_format_ip(just, sizeof(just), address), "127.0.0.1");
}

/* A peer without a name has no more than its family: nothing behind it is read. */
static void unix_peers_may_be_short(void **state)
{
    sa_family_t *family = malloc(sizeof(*family));
    char text[VB_ADDR_TEXT_MAX];
    assert_non_null(family);
    *family = AF_UNIX;
    const struct sockaddr *address = (const struct sockaddr *)family;
    assert_string_equal(vb_addr_format(text, sizeof(text), address), "unix");
    struct vb_ip ip = vb_ip_of(address);
    assert_true(vb_ip_is_none(&ip));
    free(family);
}

static void ips_are_of_one_form(void **state)
{
    static const uint8_t mapped[16] = {[10] = 0xff, [11] = 0xff, 10, 0, 0, 1};
    struct sockaddr_storage v4 = make_v4("10.0.0.1", 80), v6 = make_v6("::ffff:10.0.0.1", 81), none = make_v6("::", 80);
    struct vb_ip a = vb_ip_of((const struct sockaddr *)&v4), b = vb_ip_of((const struct sockaddr *)&v6), c;
    assert_memory_equal(a.bytes, mapped, sizeof(mapped));
    assert_memory_equal(b.bytes, mapped, sizeof(mapped));
    assert_int_equal(vb_ip_parse(VB_STR("10.0.0.1"), &c), 0);
    assert_memory_equal(c.bytes, mapped, sizeof(mapped));
    assert_int_equal(vb_ip_parse(VB_STR("::ffff:10.0.0.1"), &c), 0);
    assert_memory_equal(c.bytes, mapped, sizeof(mapped));
    assert_false(vb_ip_is_none(&a));
    c = vb_ip_of((const struct sockaddr *)&none);
    assert_true(vb_ip_is_none(&c));
    assert_int_equal(vb_ip_parse(VB_STR("0.0.0.0"), &c), 0);
    assert_false(vb_ip_is_none(&c));
}

static void ips_have_nothing_around_them(void **state)
{
    static const char *const good[] = {
        "0.0.0.0", "255.255.255.255", "::", "::1", "FD00::0001", "0000:0000:0000:0000:0000:ffff:255.255.255.255"};
    static const char *const bad[] = {"",           " 127.0.0.1",
                                      "127.0.0.1 ", "127.1",
                                      "127.0.0.01", "256.0.0.1",
                                      "[::1]",      "::1%lo",
                                      "::1:80:",    "1.2.3.4:80",
                                      "0x7f.0.0.1", "localhost",
                                      "10.0.0.0/8", "0000:0000:0000:0000:0000:ffff:255.255.255.2555"};
    for (size_t i = 0; i < VB_ARRAY_SIZE(good); i++) {
        struct vb_ip ip;
        if (vb_ip_parse(vb_str(good[i]), &ip) != 0)
            fail_msg("%s", good[i]);
    }
    for (size_t i = 0; i < VB_ARRAY_SIZE(bad); i++) {
        struct vb_ip ip = {{7}};
        if (vb_ip_parse(vb_str(bad[i]), &ip) != -EINVAL || ip.bytes[0] != 7)
            fail_msg("%s", bad[i]);
    }
    struct vb_ip ip;
    static const char no_nul[] = {'1', '.', '2', '.', '3', '.', '4'};
    assert_int_equal(vb_ip_parse((struct vb_str){no_nul, sizeof(no_nul)}, &ip), 0);
    assert_int_equal(ip.bytes[15], 4);
    assert_int_equal(vb_ip_parse(VB_STR("1.2.3.4\0x"), &ip), -EINVAL);
    assert_int_equal(vb_ip_parse((struct vb_str){NULL, 0}, &ip), -EINVAL);
}

static void networks_are_parsed(void **state)
{
    static const struct {
        const char *text;
        int r;
        const char *shown; /* also what was meant, where bits are set behind the prefix */
    } cases[] = {
        {"10.0.0.0/8", 0, "10.0.0.0/8"},
        {"0.0.0.0/0", 0, "0.0.0.0/0"},
        {"10.0.0.1", 0, "10.0.0.1/32"},
        {"10.0.0.1/32", 0, "10.0.0.1/32"},
        {"192.168.128.0/17", 0, "192.168.128.0/17"},
        {"::/0", 0, "::/0"},
        {"::1", 0, "::1/128"},
        {"2001:DB8::/32", 0, "2001:db8::/32"},
        {"fe80::/10", 0, "fe80::/10"},
        {"::ffff:10.0.0.0/104", 0, "10.0.0.0/8"},
        {"10.0.0.1/8", -ERANGE, "10.0.0.0/8"},
        {"10.0.0.1/31", -ERANGE, "10.0.0.0/31"},
        {"10.0.0.1/0", -ERANGE, "0.0.0.0/0"},
        {"192.168.129.0/17", -ERANGE, "192.168.128.0/17"},
        {"2001:db8::1/32", -ERANGE, "2001:db8::/32"},
        {"::1/0", -ERANGE, "::/0"},
        {"10.0.0.0/33", -EINVAL, NULL},
        {"::/129", -EINVAL, NULL},
        {"10.0.0.0/", -EINVAL, NULL},
        {"10.0.0.0/-1", -EINVAL, NULL},
        {"10.0.0.0/8/8", -EINVAL, NULL},
        {"10.0.0.0/255.0.0.0", -EINVAL, NULL},
        {"10.0.0.0/99999999999999999999", -EINVAL, NULL},
        {"10/8", -EINVAL, NULL},
        {"/8", -EINVAL, NULL},
        {"", -EINVAL, NULL},
        {"unix", -EINVAL, NULL},
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        struct vb_cidr cidr = {.bits = 77}, around = {.bits = 77};
        char text[VB_ADDR_TEXT_MAX] = "";
        int r = vb_cidr_parse(vb_str(cases[i].text), &cidr);
        if (r != cases[i].r || (r < 0 && cidr.bits != 77))
            fail_msg("%s: %d", cases[i].text, r);
        assert_int_equal(vb_cidr_around(vb_str(cases[i].text), &around), r == -EINVAL ? -EINVAL : 0);
        if (r == -EINVAL)
            assert_int_equal(around.bits, 77);
        else
            assert_string_equal(vb_cidr_format(text, sizeof(text), &around), cases[i].shown);
    }
}

static void networks_have_members(void **state)
{
    static const struct {
        const char *network, *ip;
        bool has;
    } cases[] = {
        {"10.0.0.0/8", "10.0.0.0", true},
        {"10.0.0.0/8", "10.255.255.255", true},
        {"10.0.0.0/8", "::ffff:10.1.2.3", true},
        {"10.0.0.0/8", "11.0.0.0", false},
        {"10.0.0.0/8", "9.255.255.255", false},
        {"10.0.0.0/8", "a00::", false},
        {"192.168.128.0/17", "192.168.128.0", true},
        {"192.168.128.0/17", "192.168.255.255", true},
        {"192.168.128.0/17", "192.168.127.255", false},
        {"10.0.0.1", "10.0.0.1", true},
        {"10.0.0.1", "10.0.0.0", false},
        {"10.0.0.0/31", "10.0.0.1", true},
        {"10.0.0.0/31", "10.0.0.2", false},
        {"0.0.0.0/0", "255.1.2.3", true},
        {"0.0.0.0/0", "0.0.0.0", true},
        {"0.0.0.0/0", "::1", false},
        {"::/0", "::1", true},
        {"::/0", "ffff::", true},
        {"::/0", "10.0.0.1", false},
        {"::/0", "::", false}, /* nobody */
        {"::", "::", false},
        {"::1", "::1", true},
        {"::1", "::2", false},
        {"fe80::/10", "febf:ffff::1", true},
        {"fe80::/10", "fec0::", false},
        {"2001:db8::/127", "2001:db8::1", true},
        {"2001:db8::/127", "2001:db8::2", false},
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        struct vb_cidr cidr;
        struct vb_ip ip;
        assert_int_equal(vb_cidr_parse(vb_str(cases[i].network), &cidr), 0);
        assert_int_equal(vb_ip_parse(vb_str(cases[i].ip), &ip), 0);
        if (vb_cidr_has(&cidr, &ip) != cases[i].has)
            fail_msg("%s and %s", cases[i].network, cases[i].ip);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(socket_addresses_have_texts), cmocka_unit_test(unix_peers_may_be_short),
        cmocka_unit_test(ips_are_of_one_form),         cmocka_unit_test(ips_have_nothing_around_them),
        cmocka_unit_test(networks_are_parsed),         cmocka_unit_test(networks_have_members),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
