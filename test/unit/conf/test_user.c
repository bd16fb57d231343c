/* `user`: names, numbers, and what is neither. */
#include "fixture.h"

#define USER(text) "listen: 80\npools: {web: {backends: [a:1]}}\nuser: " text "\n"

static void without_it_there_is_none(void **state)
{
    struct vb_conf *conf = parse_good("listen: 80\npools: {web: {backends: [a:1]}}\n");
    assert_string_equal(conf->user.name, "");
    vb_conf_free(&conf);
}

static void a_name_stays_a_name(void **state)
{
    static const char *const names[] = {"nobody", "www-data", "_vb", "a.b@example.com", "DOMAIN\\\\web", "0day"};
    for (size_t i = 0; i < VB_ARRAY_SIZE(names); i++) {
        char text[128];
        snprintf(text, sizeof(text), USER("%s"), names[i]);
        struct vb_conf *conf = parse_good(text);
        assert_string_equal(conf->user.name, names[i]);
        assert_false(conf->user.by_number);
        assert_int_equal(conf->user.line, 3);
        assert_int_equal(conf->user.column, 7);
        vb_conf_free(&conf);
    }
}

static void numbers_are_numbers(void **state)
{
    static const struct {
        const char *text;
        unsigned uid, gid;
        bool has_gid;
    } cases[] = {
        {USER("1000"), 1000, 0, false},
        {USER("1000:100"), 1000, 100, true},
        {USER("'1000:100'"), 1000, 100, true},
        {USER("65534:0"), 65534, 0, true},
        {USER("4294967294"), 4294967294, 0, false},
        {USER("0"), 0, 0, false},
        {USER("0:0"), 0, 0, true},
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        struct vb_conf *conf = parse_good(cases[i].text);
        assert_true(conf->user.by_number);
        assert_int_equal(conf->user.uid, cases[i].uid);
        assert_int_equal(conf->user.gid, cases[i].gid);
        assert_int_equal(conf->user.has_gid, cases[i].has_gid);
        vb_conf_free(&conf);
    }
}

#define EXPECTED "f:3:7: `user`: expected the name of a user, UID or UID:GID, found "

static void what_is_neither_is_refused(void **state)
{
    static const struct wrong cases[] = {
        {USER("''"), EXPECTED "an empty text\n"},
        {USER("'a b'"), EXPECTED "`a b`\n"},
        {USER("nobody:nogroup"), EXPECTED "`nobody:nogroup`\n"},
        {USER("'1000:'"), EXPECTED "`1000:`\n"},
        {USER("':1000'"), EXPECTED "`:1000`\n"},
        {USER("'1:2:3'"), EXPECTED "`1:2:3`\n"},
        {USER("4294967295"), EXPECTED "`4294967295`\n"},
        {USER("'1:4294967295'"), EXPECTED "`1:4294967295`\n"},
        {USER("[nobody]"), EXPECTED "a list\n"},
        {USER("0:5"), "f:3:7: `user`: root keeps its groups; write `root`\n"},
    };
    check_wrong(cases, VB_ARRAY_SIZE(cases));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_it_there_is_none),
        cmocka_unit_test(a_name_stays_a_name),
        cmocka_unit_test(numbers_are_numbers),
        cmocka_unit_test(what_is_neither_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
