/* What requests are known by: what must be the same key, what must not, and who has none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "key.h"

#define GET  "GET / HTTP/1.1\r\nHost: x\r\n"
#define NONE 0 /* no key of these tests comes to it */

static struct vb_conf_pool pool;
static struct vb_head head;

static void parse(const char *bytes)
{
    static const struct vb_head_limits limits = {.bytes = 16384, .fields = 100};
    struct vb_refusal refusal;
    if (vb_h1_parse_request(bytes, strlen(bytes), &limits, &head, &refusal) <= 0)
        fail_msg("%s", bytes);
}

static uint64_t find(struct vb_str client_ip)
{
    uint64_t key = NONE;
    char *room = malloc(head.target.n); /* of just that size, so that ASan sees a write behind it */
    assert_non_null(room);
    bool has_key = vb_key_find(&pool, &head, head.target, client_ip, room, &key);
    free(room);
    assert_true(has_key == (key != NONE));
    return key;
}

static uint64_t key_of_head(const char *bytes)
{
    parse(bytes);
    return find(VB_STR("10.0.0.1"));
}

static uint64_t key_of_target(const char *target)
{
    static char bytes[256]; /* the head is made of slices of it */
    snprintf(bytes, sizeof(bytes), "OPTIONS %s HTTP/1.1\r\nHost: x\r\n\r\n", target);
    return key_of_head(bytes);
}

static uint64_t key_of_ip(const char *ip)
{
    parse(GET "\r\n");
    return find(vb_str(ip));
}

static void client_ip(void **state)
{
    pool.hash.key = VB_HASH_CLIENT_IP;
    assert_int_equal(key_of_ip("10.0.0.1"), key_of_ip("10.0.0.1"));
    assert_int_not_equal(key_of_ip("10.0.0.1"), key_of_ip("10.0.0.2"));
    assert_int_equal(key_of_ip("2001:db8::1"), key_of_ip("2001:DB8:0:0::0001"));
    assert_int_not_equal(key_of_ip("2001:db8::1"), key_of_ip("2001:db8::2"));
    assert_int_equal(key_of_ip("::ffff:10.0.0.1"), key_of_ip("10.0.0.1"));
    assert_int_equal(key_of_ip("unix"), NONE);
}

static void path(void **state)
{
    pool.hash.key = VB_HASH_PATH;
    assert_int_not_equal(key_of_target("/a"), key_of_target("/b"));
    assert_int_not_equal(key_of_target("/a"), key_of_target("/a/"));
    assert_int_not_equal(key_of_target("/a"), key_of_target("/A"));
    assert_int_not_equal(key_of_target("/a/b"), key_of_target("/a%2Fb"));
    static const char *const same[] = {"/a?q=1", "/a?", "/%61", "/x/../a", "/./a?/../b", "http://x/a?q"};
    for (size_t i = 0; i < VB_ARRAY_SIZE(same); i++)
        assert_int_equal(key_of_target(same[i]), key_of_target("/a"));
    assert_int_equal(key_of_target("http://x?q"), key_of_target("/"));
    assert_int_equal(key_of_target("*"), NONE);
}

static void uri(void **state)
{
    pool.hash.key = VB_HASH_URI;
    assert_int_equal(key_of_target("/a?q=1"), key_of_target("/a?q=1"));
    assert_int_equal(key_of_target("/a?q=1"), key_of_target("http://x/a?q=1"));
    static const char *const other[] = {"/a", "/a?", "/a?q=2", "/%61?q=1", "/./a?q=1"};
    for (size_t i = 0; i < VB_ARRAY_SIZE(other); i++)
        assert_int_not_equal(key_of_target(other[i]), key_of_target("/a?q=1"));
}

static void header(void **state)
{
    char name[] = "X-User";
    pool.hash.key = VB_HASH_HEADER;
    pool.hash.name = name;
    uint64_t key = key_of_head(GET "X-User: 1\r\n\r\n");
    assert_int_not_equal(key, NONE);
    assert_int_equal(key_of_head(GET "A: 0\r\nx-user: \t1 \r\n\r\n"), key);
    assert_int_equal(key_of_head(GET "X-User: 1\r\nX-User: 2\r\n\r\n"), key); /* the first */
    assert_int_not_equal(key_of_head(GET "X-User: 2\r\n\r\n"), key);
    assert_int_equal(key_of_head(GET "X-Users: 1\r\n\r\n"), NONE);
    assert_int_equal(key_of_head(GET "X-User: \r\n\r\n"), NONE);
}

static void cookie(void **state)
{
    char name[] = "id";
    pool.hash.key = VB_HASH_COOKIE;
    pool.hash.name = name;
    uint64_t key = key_of_head(GET "Cookie: id=1\r\n\r\n");
    assert_int_not_equal(key, NONE);
    assert_int_equal(key_of_head(GET "Cookie: a=b; id=\"1\"; id=2\r\n\r\n"), key);
    assert_int_not_equal(key_of_head(GET "Cookie: id=2\r\n\r\n"), key);
    assert_int_equal(key_of_head(GET "Cookie: ID=1\r\n\r\n"), NONE);
    assert_int_equal(key_of_head(GET "Cookie: id=; id=1\r\n\r\n"), NONE);
    assert_int_equal(key_of_head(GET "id: 1\r\n\r\n"), NONE);
}

/* Instances of different versions stand side by side in an upgrade: a key that moved would empty all caches. */
static void keys_never_change(void **state)
{
    pool.hash.key = VB_HASH_URI;
    assert_true(key_of_target("/a") == UINT64_C(0x12632a0111b6c48a));
}

/* A route may have put another target in the place of the one that came. */
static void the_target_is_the_one_that_came(void **state)
{
    char room[16];
    uint64_t key = NONE;
    const enum vb_hash_key kinds[] = {VB_HASH_PATH, VB_HASH_URI};
    for (size_t i = 0; i < VB_ARRAY_SIZE(kinds); i++) {
        pool.hash.key = kinds[i];
        uint64_t wanted = key_of_target("/api/a");
        struct vb_str came = head.target;
        head.target = VB_STR("/a");
        assert_true(vb_key_find(&pool, &head, came, VB_STR("10.0.0.1"), room, &key));
        assert_int_equal(key, wanted);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(client_ip),
        cmocka_unit_test(path),
        cmocka_unit_test(uri),
        cmocka_unit_test(header),
        cmocka_unit_test(cookie),
        cmocka_unit_test(keys_never_change),
        cmocka_unit_test(the_target_is_the_one_that_came),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
