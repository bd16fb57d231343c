/* Cookies as user agents send them, and as those do who want to be taken for somebody else. */
#include "fixture.h"

#define GET "GET / HTTP/1.1\r\nHost: x\r\n"
#define END "\r\n"

struct lookup {
    struct vb_str came;
    const char *value; /* of the cookie `vb`; NULL: there is none */
};

static void check(const struct lookup *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct parsed parsed = parse_good(REQUEST, cases[i].came);
        struct vb_str value = VB_STR("untouched");
        bool found = vb_cookie_find(parsed.head, VB_STR("vb"), &value);
        const char *wanted = cases[i].value != NULL ? cases[i].value : "untouched";
        if (found != (cases[i].value != NULL) || !vb_str_eq(value, vb_str(wanted)))
            fail_msg("%s: found %d, `%.*s`", shown(cases[i].came), found, VB_STR_ARGS(value));
        drop(&parsed);
    }
}

static void in_any_place(void **state)
{
    static const struct lookup cases[] = {
        {BYTES(GET "Cookie: vb=1\r\n" END), "1"},
        {BYTES(GET "cOOKIE:vb=1\r\n" END), "1"},
        {BYTES(GET "Cookie: a=0; vb=1; c=2\r\n" END), "1"},
        {BYTES(GET "Cookie: a=0; vb=1\r\n" END), "1"},
        {BYTES(GET "Cookie: a=0\r\nX: y\r\nCookie: b=0; vb=1\r\n" END), "1"},
        {BYTES(GET "Cookie: vb=a=b==\r\n" END), "a=b=="},
        {BYTES(GET "Cookie: vb=\r\n" END), ""},
        {BYTES(GET END), NULL},
        {BYTES(GET "Cookie:\r\n" END), NULL},
        {BYTES(GET "Set-Cookie: vb=1\r\nCookie2: vb=2\r\nXookie: vb=3\r\n" END), NULL},
    };
    check(cases, VB_ARRAY_SIZE(cases));
}

static void the_first_wins(void **state)
{
    static const struct lookup cases[] = {
        {BYTES(GET "Cookie: vb=1; vb=2\r\n" END), "1"},
        {BYTES(GET "Cookie: a=0; vb=1\r\nCookie: vb=2\r\n" END), "1"},
        {BYTES(GET "Cookie: vb=; vb=2\r\n" END), ""},
        {BYTES(GET "Cookie: vb; vb=2\r\n" END), "2"}, /* the first is no pair */
    };
    check(cases, VB_ARRAY_SIZE(cases));
}

static void names_are_whole_and_case_sensitive(void **state)
{
    static const struct lookup cases[] = {
        {BYTES(GET "Cookie: VB=1; Vb=2; xvb=3; vbx=4; v=5; b=6; v b=7\r\n" END), NULL},
        {BYTES(GET "Cookie: a=vb=1\r\n" END), NULL},
        {BYTES(GET "Cookie: vb\r\n" END), NULL},
        {BYTES(GET "Cookie: =vb=1; \"vb\"=1; $vb=1\r\n" END), NULL},
    };
    check(cases, VB_ARRAY_SIZE(cases));
}

static void white_space_and_quotes(void **state)
{
    static const struct lookup cases[] = {
        {BYTES(GET "Cookie: a=0;vb=1;c=2\r\n" END), "1"},
        {BYTES(GET "Cookie: \t a=0 ;\t vb \t=\t 1 \t; c\r\n" END), "1"},
        {BYTES(GET "Cookie: vb=\"1\"\r\n" END), "1"},
        {BYTES(GET "Cookie: vb = \"1\" ; c=2\r\n" END), "1"},
        {BYTES(GET "Cookie: vb=\"\"\r\n" END), ""},
        {BYTES(GET "Cookie: vb=\" 1 2 \"\r\n" END), " 1 2 "},
        {BYTES(GET "Cookie: vb=\"\r\n" END), "\""},
        {BYTES(GET "Cookie: vb=\"1\r\n" END), "\"1"},
        {BYTES(GET "Cookie: vb=1\"\r\n" END), "1\""},
    };
    check(cases, VB_ARRAY_SIZE(cases));
}

/* A semicolon ends a pair wherever it stands: whoever reads it otherwise sees cookies that others do not. */
static void nothing_hides_a_pair(void **state)
{
    static const struct lookup cases[] = {
        {BYTES(GET "Cookie: a=\"x; vb=1; y\"\r\n" END), "1"},
        {BYTES(GET "Cookie: vb=\"x; y\"\r\n" END), "\"x"},
        {BYTES(GET "Cookie: a=\\; vb=1\r\n" END), "1"},
        {BYTES(GET "Cookie: ;;;=;; ;a;vb=1;;\r\n" END), "1"},
        {BYTES(GET "Cookie: a=0, vb=1\r\n" END), NULL}, /* no list of RFC 9110: a comma is a character */
        {BYTES(GET "Cookie: vb=1,2\r\n" END), "1,2"},
        {BYTES(GET "Cookie: \xff=\x80; vb=\xc3\xa4\r\n" END), "\xc3\xa4"},
        {BYTES(GET "Cookie: ;\r\n" END), NULL},
        {BYTES(GET "Cookie: =\r\n" END), NULL},
    };
    check(cases, VB_ARRAY_SIZE(cases));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_any_place),
        cmocka_unit_test(the_first_wins),
        cmocka_unit_test(names_are_whole_and_case_sensitive),
        cmocka_unit_test(white_space_and_quotes),
        cmocka_unit_test(nothing_hides_a_pair),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
