/* Numbers as people write them, and bounded copies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>

#include "vb/str.h"

#define UNTOUCHED 0xdeadbeefu

struct number {
    const char *text;
    int r;
    uint64_t value;
};

static void check(int (*parse)(struct vb_str, uint64_t *), const struct number *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t value = UNTOUCHED;
        int r = parse(vb_str(cases[i].text), &value);
        if (r != cases[i].r || value != (r == 0 ? cases[i].value : UNTOUCHED))
            fail_msg("'%s': %d, %llu", cases[i].text, r, (unsigned long long)value);
    }
}

static int parse_any(struct vb_str text, uint64_t *ret_value)
{
    return vb_parse_u64(text, UINT64_MAX, ret_value);
}

static void numbers(void **state)
{
    static const struct number cases[] = {
        {"0", 0, 0},
        {"007", 0, 7},
        {"18446744073709551615", 0, UINT64_MAX},
        {"18446744073709551616", -ERANGE, 0},
        {"99999999999999999999999", -ERANGE, 0},
        {"", -EINVAL, 0},
        {"-1", -EINVAL, 0},
        {"+1", -EINVAL, 0},
        {" 1", -EINVAL, 0},
        {"1 ", -EINVAL, 0},
        {"0x10", -EINVAL, 0},
        {"1.5", -EINVAL, 0},
    };
    check(parse_any, cases, VB_ARRAY_SIZE(cases));
    uint64_t value = UNTOUCHED;
    assert_int_equal(vb_parse_u64(VB_STR("65535"), 65535, &value), 0);
    assert_int_equal(value, 65535);
    assert_int_equal(vb_parse_u64(VB_STR("65536"), 65535, &value), -ERANGE);
    assert_int_equal(value, 65535);
}

static void durations(void **state)
{
    static const struct number cases[] = {
        {"0", 0, 0},
        {"0s", 0, 0},
        {"500ms", 0, 500},
        {"5s", 0, 5000},
        {"1m", 0, 60000},
        {"1h", 0, 3600000},
        {"48h", 0, 172800000},
        {"5", -EINVAL, 0},
        {"s", -EINVAL, 0},
        {"5 s", -EINVAL, 0},
        {"5sec", -EINVAL, 0},
        {"5S", -EINVAL, 0},
        {"-5s", -EINVAL, 0},
        {"1.5s", -EINVAL, 0},
        {"", -EINVAL, 0},
        {"9223372036854775807ms", 0, INT64_MAX},
        {"9223372036854775808ms", -ERANGE, 0},
        {"18446744073709551615s", -ERANGE, 0},
        {"99999999999999999999h", -ERANGE, 0},
    };
    check(vb_parse_duration, cases, VB_ARRAY_SIZE(cases));
}

static void sizes(void **state)
{
    static const struct number cases[] = {
        {"0", 0, 0},
        {"512", 0, 512},
        {"512B", 0, 512},
        {"16KiB", 0, 16384},
        {"64MiB", 0, 64 << 20},
        {"1GiB", 0, 1 << 30},
        {"1KB", -EINVAL, 0},
        {"1kib", -EINVAL, 0},
        {"KiB", -EINVAL, 0},
        {"", -EINVAL, 0},
        {"8589934591GiB", 0, 8589934591ull << 30},
        {"8589934592GiB", -ERANGE, 0},
        {"17179869184GiB", -ERANGE, 0},
    };
    check(vb_parse_size, cases, VB_ARRAY_SIZE(cases));
}

static void slices_need_no_nul(void **state)
{
    static const char text[3] = {'4', '2', '9'};
    uint64_t value = 0;
    assert_int_equal(vb_parse_u64((struct vb_str){text, 2}, 100, &value), 0);
    assert_int_equal(value, 42);
    assert_true(vb_str_eq((struct vb_str){text, 2}, VB_STR("42")));
    assert_true(vb_str_eq_nocase(VB_STR("Host"), VB_STR("hOST")));
    assert_false(vb_str_eq_nocase(VB_STR("Host"), VB_STR("Hosts")));
}

static void copies(void **state)
{
    char to[4] = "xxx";
    assert_true(vb_copy(to, sizeof(to), "abc"));
    assert_string_equal(to, "abc");
    assert_false(vb_copy(to, sizeof(to), "abcd"));
    assert_string_equal(to, "abc");
    assert_false(vb_copy(to, 1, "a"));
    assert_string_equal(to, "");
    assert_true(vb_copy(to, 1, ""));
}

static void edit_distance(void **state)
{
    static const struct {
        const char *a, *b;
        unsigned distance;
    } cases[] = {
        {"", "", 0},
        {"abc", "abc", 0},
        {"", "abc", 3},
        {"abc", "", 3},
        {"kitten", "sitting", 3},
        {"timeout", "timeouts", 1},
        {"helath", "health", 2},
        {"flaw", "lawn", 2},
        {"abc", "xyz", 3},
    };
    for (unsigned i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        assert_int_equal(vb_edit_distance(cases[i].a, cases[i].b), cases[i].distance);
        assert_int_equal(vb_edit_distance(cases[i].b, cases[i].a), cases[i].distance);
    }
    char longest[65];
    memset(longest, 'a', 64);
    longest[64] = '\0';
    assert_true(vb_edit_distance(longest, "a") >= 64);
    assert_true(vb_edit_distance("a", longest) >= 64);
    longest[63] = '\0';
    assert_int_equal(vb_edit_distance(longest, longest), 0);
    assert_int_equal(vb_edit_distance(longest, ""), 63);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers), cmocka_unit_test(durations),
        cmocka_unit_test(sizes),   cmocka_unit_test(slices_need_no_nul),
        cmocka_unit_test(copies),  cmocka_unit_test(edit_distance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
