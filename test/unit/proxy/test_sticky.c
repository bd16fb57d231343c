/* Cookies that bind: whose are believed, for how long, and what they say of a backend that has gone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "sticky.h"

#define NOW    UINT64_C(1800000000000000) /* wall clock, microseconds */
#define SECOND UINT64_C(1000000)
#define TTL    3600
#define VALUE  27

enum { BACKENDS = 3, CAPACITY = 8 };

/* An instance: a segment with the pools `web` and `api`, each with the backends b0, b1, b2. */
struct instance {
    struct vb_shm *shm;
    struct vb_conf_pool conf[2];
    struct vb_sticky *web, *api;
};

static int slot_of(const struct instance *in, unsigned pool, const char *name)
{
    return vb_shm_find_backend(in->shm, pool, name);
}

static void add(struct instance *in, unsigned pool, const char *name)
{
    struct vb_backend_spec spec = {.name = name, .address = "127.0.0.1:1", .weight = 1, .configured = true};
    assert_true(vb_shm_add_backend(in->shm, pool, &spec) >= 0);
}

static void open_instance(struct instance *in, char *secret, uint64_t own_key)
{
    static const char *const pools[] = {"web", "api"}, *const backends[] = {"b0", "b1", "b2"};
    struct vb_sticky **const stickies[] = {&in->web, &in->api};
    memset(in, 0, sizeof(*in));
    assert_int_equal(vb_shm_create_private(&in->shm, (struct vb_shm_capacity){.workers = 1, .backends = CAPACITY}), 0);
    memcpy(vb_shm_header(in->shm)->sticky_key, (uint64_t[]){own_key, own_key}, 2 * sizeof(own_key));
    for (unsigned pool = 0; pool < 2; pool++) {
        struct vb_conf_pool *conf = &in->conf[pool];
        assert_int_equal(vb_shm_add_pool(in->shm, &(struct vb_pool_spec){pools[pool], "round_robin", 0, 50}), pool);
        for (unsigned i = 0; i < BACKENDS; i++)
            add(in, pool, backends[i]);
        snprintf(conf->name, sizeof(conf->name), "%s", pools[pool]);
        snprintf(conf->sticky.cookie, sizeof(conf->sticky.cookie), "vb");
        conf->sticky.enabled = true;
        conf->sticky.ttl_ms = TTL * 1000;
        conf->sticky.secret = secret;
        assert_int_equal(vb_sticky_open(stickies[pool], in->shm, pool, conf), 0);
    }
}

static void close_instance(struct instance *in)
{
    vb_sticky_close(&in->web);
    vb_sticky_close(&in->api);
    vb_shm_close(&in->shm);
}

static char no_secret[] = "", secret[] = "0123456789abcdef", other_secret[] = "0123456789abcdeg";

static int setup(void **state)
{
    static struct instance in;
    open_instance(&in, no_secret, 1);
    *state = &in;
    return 0;
}

static int teardown(void **state)
{
    close_instance(*state);
    return 0;
}

/* The value alone. */
static void issue(const struct vb_sticky *sticky, unsigned backend, uint64_t now, char value[VALUE + 1])
{
    char text[VB_STICKY_MAX];
    struct vb_str set = vb_sticky_write(sticky, backend, now, text);
    assert_true(set.n > 3 + VALUE && memcmp(set.p, "vb=", 3) == 0 && set.p[3 + VALUE] == ';');
    memcpy(value, set.p + 3, VALUE);
    value[VALUE] = '\0';
}

static int read_at(struct vb_sticky *sticky, const char *value, uint64_t now, bool *ret_is_old)
{
    static const struct vb_head_limits limits = {.bytes = 16384, .fields = 100};
    static struct vb_head head;
    struct vb_refusal refusal;
    char bytes[512];
    snprintf(bytes, sizeof(bytes), "GET / HTTP/1.1\r\nHost: x\r\nCookie: a=b; vb=%s\r\n\r\n", value);
    assert_true(vb_h1_parse_request(bytes, strlen(bytes), &limits, &head, &refusal) > 0);
    return vb_sticky_read(sticky, &head, now, ret_is_old);
}

static int backend_at(struct vb_sticky *sticky, const char *value, uint64_t now)
{
    bool is_old;
    return read_at(sticky, value, now, &is_old);
}

static bool is_named(struct vb_sticky *sticky, const char *value)
{
    return backend_at(sticky, value, NOW) >= 0;
}

static void a_cookie_names_its_backend(void **state)
{
    struct instance *in = *state;
    char values[BACKENDS][VALUE + 1];
    for (unsigned i = 0; i < BACKENDS; i++) {
        issue(in->web, i, NOW, values[i]);
        assert_int_equal(backend_at(in->web, values[i], NOW), i);
    }
    assert_string_not_equal(values[0], values[1]);
}

static void it_is_set_for_the_whole_site_and_for_no_script(void **state)
{
    struct instance *in = *state;
    char text[VB_STICKY_MAX], wanted[VB_STICKY_MAX], value[VALUE + 1];
    issue(in->web, 0, NOW, value);
    snprintf(wanted, sizeof(wanted), "vb=%s; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax", value);
    struct vb_str set = vb_sticky_write(in->web, 0, NOW, text);
    assert_true(vb_str_eq(set, vb_str(wanted)));
}

/* The longest there can be: what does not fit ends the worker. */
static void there_is_room_for_the_longest(void **state)
{
    struct instance *in = *state;
    char text[VB_STICKY_MAX];
    memset(in->conf[0].sticky.cookie, 'n', VB_NAME_MAX);
    in->conf[0].sticky.ttl_ms = UINT64_C(365) * 24 * 3600 * 1000;
    assert_int_equal(vb_sticky_write(in->web, 0, NOW, text).n,
                     VB_NAME_MAX + 1 + VALUE + strlen("; Path=/; Max-Age=31536000; HttpOnly; SameSite=Lax"));
}

static void not_one_character_may_be_another(void **state)
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/=%. \x80";
    struct instance *in = *state;
    char value[VALUE + 1], forged[VALUE + 1];
    issue(in->web, 1, NOW, value);
    for (unsigned i = 0; i < VALUE; i++) {
        memcpy(forged, value, sizeof(forged));
        for (const char *c = alphabet; *c != '\0'; c++) {
            forged[i] = *c;
            if (is_named(in->web, forged) != (*c == value[i]))
                fail_msg("%s for %s", forged, value);
        }
    }
}

static void what_is_not_a_value(void **state)
{
    struct instance *in = *state;
    char value[VALUE + 1], other[VALUE * 4];
    issue(in->web, 1, NOW, value);
    for (int n = 0; n < VALUE; n++) {
        snprintf(other, sizeof(other), "%.*s", n, value);
        assert_false(is_named(in->web, other));
    }
    static const char *const forms[] = {"%sA", "A%s", "%s=", "%s%%00", "\"%s", "%s\"", "%s%s"};
    for (size_t i = 0; i < VB_ARRAY_SIZE(forms); i++) {
        snprintf(other, sizeof(other), forms[i], value, value);
        assert_false(is_named(in->web, other));
    }
    assert_false(is_named(in->web, "AAAAAAAAAAAAAAAAAAAAAAAAAAA"));
    snprintf(other, sizeof(other), "\"%s\"", value); /* quotes are not part of it */
    assert_true(is_named(in->web, other));
}

static void of_another_pool(void **state)
{
    struct instance *in = *state;
    char value[VALUE + 1];
    issue(in->web, 0, NOW, value);
    assert_false(is_named(in->api, value)); /* which has a backend of this name too */
    issue(in->api, (unsigned)slot_of(in, 1, "b0"), NOW, value);
    assert_false(is_named(in->web, value));
    assert_int_equal(backend_at(in->api, value, NOW), slot_of(in, 1, "b0"));
}

static void keys_of_instances(void **state)
{
    static const struct {
        char *issuer, *reader; /* secrets */
        uint64_t issuers_own, readers_own;
        bool believed;
    } cases[] = {
        {no_secret, no_secret, 1, 2, false}, {no_secret, no_secret, 1, 1, true}, /* the same segment, seen by other
                                                                                    workers */
        {secret, secret, 1, 2, true},        {secret, other_secret, 1, 1, false}, {secret, no_secret, 1, 1, false},
        {no_secret, secret, 1, 1, false},
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        struct instance issuer, reader;
        char value[VALUE + 1];
        open_instance(&issuer, cases[i].issuer, cases[i].issuers_own);
        open_instance(&reader, cases[i].reader, cases[i].readers_own);
        issue(issuer.web, 2, NOW, value);
        if (backend_at(reader.web, value, NOW) != (cases[i].believed ? 2 : -ENOENT))
            fail_msg("case %zu", i);
        close_instance(&issuer);
        close_instance(&reader);
    }
}

/* A name is what lasts: in another instance, and after a reload, it may be in another slot. */
static void backends_are_known_by_name(void **state)
{
    struct instance in, moved;
    char value[VALUE + 1];
    open_instance(&in, secret, 1);
    open_instance(&moved, secret, 2);
    issue(in.web, 0, NOW, value);
    vb_shm_forget_backend(moved.shm, 0);
    assert_true(backend_at(moved.web, value, NOW) < 0);
    add(&moved, 0, "c0"); /* takes the slot */
    assert_int_equal(slot_of(&moved, 0, "c0"), 0);
    assert_true(backend_at(moved.web, value, NOW) < 0);
    add(&moved, 0, "b0");
    assert_int_not_equal(slot_of(&moved, 0, "b0"), 0);
    assert_int_equal(backend_at(moved.web, value, NOW), slot_of(&moved, 0, "b0"));
    close_instance(&in);
    close_instance(&moved);
}

/* As while a reload has prepared it, and has not been committed. */
static void of_two_with_one_name_the_ready_one(void **state)
{
    struct instance *in = *state;
    char value[VALUE + 1];
    struct vb_backend_spec moved = {.name = "b1",
                                    .address = "127.0.0.1:2",
                                    .weight = 1,
                                    .configured = true,
                                    .admin = VB_ADMIN_DRAIN,
                                    .beside = true};
    issue(in->web, 1, NOW, value);
    int slot = vb_shm_add_backend(in->shm, 0, &moved);
    assert_true(slot > 1);
    assert_int_equal(backend_at(in->web, value, NOW), 1);
    vb_shm_set_admin(in->shm, 1, VB_ADMIN_DRAIN);
    vb_shm_set_admin(in->shm, (unsigned)slot, VB_ADMIN_READY);
    assert_int_equal(backend_at(in->web, value, NOW), slot);
    vb_shm_forget_backend(in->shm, 1);
    assert_int_equal(backend_at(in->web, value, NOW), slot);
}

static void the_time_of_a_cookie(void **state)
{
    static const struct {
        int64_t age_s;
        bool believed, is_old;
    } cases[] = {
        {0, true, false},   {TTL / 2, true, false},  {TTL / 2 + 1, true, true},
        {TTL, true, true},  {TTL + 1, false, false}, {INT32_MAX / 2, false, false},
        {-1, true, false}, /* a clock is a little ahead */
        {-60, true, false}, {-61, false, false},     {-INT32_MAX / 2, false, false},
    };
    struct instance *in = *state;
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        char value[VALUE + 1];
        issue(in->web, 1, NOW - (uint64_t)(cases[i].age_s * (int64_t)SECOND), value);
        bool is_old = false;
        int backend = read_at(in->web, value, NOW, &is_old);
        if (backend != (cases[i].believed ? 1 : -ENOENT) || is_old != cases[i].is_old)
            fail_msg("age %lld s: %d, %d", (long long)cases[i].age_s, backend, is_old);
    }
}

static void who_may_be_bound_to(void **state)
{
    struct instance *in = *state;
    char value[VALUE + 1];
    issue(in->web, 1, NOW, value);
    assert_true(vb_sticky_binds(in->web, 1));
    vb_shm_set_admin(in->shm, 1, VB_ADMIN_DRAIN);
    assert_false(vb_sticky_binds(in->web, 1));
    assert_int_equal(backend_at(in->web, value, NOW), 1); /* but who is bound already still is */
    vb_shm_set_admin(in->shm, 1, VB_ADMIN_MAINT);
    assert_false(vb_sticky_binds(in->web, 1));
    vb_shm_set_admin(in->shm, 1, VB_ADMIN_READY);
    assert_true(vb_sticky_binds(in->web, 1));
    vb_shm_remove_backend(in->shm, 1);
    assert_false(vb_sticky_binds(in->web, 1));
    assert_true(backend_at(in->web, value, NOW) < 0);
    add(in, 0, "b1");
    assert_int_equal(backend_at(in->web, value, NOW), 1);
}

static void of_several_cookies_the_first(void **state)
{
    struct instance *in = *state;
    char values[2][VALUE + 1], both[VALUE * 4];
    issue(in->web, 0, NOW, values[0]);
    issue(in->web, 1, NOW, values[1]);
    snprintf(both, sizeof(both), "%s; vb=%s", values[1], values[0]);
    assert_int_equal(backend_at(in->web, both, NOW), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_cookie_names_its_backend, setup, teardown),
        cmocka_unit_test_setup_teardown(it_is_set_for_the_whole_site_and_for_no_script, setup, teardown),
        cmocka_unit_test_setup_teardown(there_is_room_for_the_longest, setup, teardown),
        cmocka_unit_test_setup_teardown(not_one_character_may_be_another, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_not_a_value, setup, teardown),
        cmocka_unit_test_setup_teardown(of_another_pool, setup, teardown),
        cmocka_unit_test(keys_of_instances),
        cmocka_unit_test(backends_are_known_by_name),
        cmocka_unit_test_setup_teardown(of_two_with_one_name_the_ready_one, setup, teardown),
        cmocka_unit_test_setup_teardown(the_time_of_a_cookie, setup, teardown),
        cmocka_unit_test_setup_teardown(who_may_be_bound_to, setup, teardown),
        cmocka_unit_test_setup_teardown(of_several_cookies_the_first, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
