/* What is not YAML, what is YAML but refused, and texts that want to do harm. */
#include "fixture.h"

#include <time.h>

static void broken_yaml_is_reported_at_its_place(void **state)
{
    static const struct wrong cases[] = {
        {"listen: 80\n\tpools: x", "f:2:1: not valid YAML: found a tab character that violates indentation while "
                                   "scanning a plain scalar that begins in line 1; indent with spaces, YAML allows "
                                   "no tabs there\n"},
        {"a: [1, 2\nb: 3", "f:2:2: not valid YAML: did not find expected ',' or ']' while parsing a flow sequence that "
                           "begins in line 1\n"},
        {"a:\n  b: 1\n c: 2", "f:3:2: not valid YAML: did not find expected key while parsing a block mapping that "
                              "begins in line 1; does the line begin in the column of its neighbours?\n"},
        {"a: 1\n  b: 2", "f:2:4: not valid YAML: mapping values are not allowed in this context; "
                         "check the indentation, and quote a text that has `: ` in it\n"},
        {"listen: [::]:80", "f:1:10: not valid YAML: did not find expected node content; "
                            "an address such as \"[::1]:80\" belongs in quotes\n"},
        {"trusted_proxies: [a, ::1]", "f:1:22: not valid YAML: did not find expected node content; "
                                      "an address such as \"::1\" belongs in quotes\n"},
        {"listen: *:80", "f:1:10: not valid YAML: did not find expected alphabetic or numeric character; "
                         "a text that begins with * or & belongs in quotes\n"},
        {"name: \"x", "f:1:9: not valid YAML: found unexpected end of stream\n"},
        {"\xef\xbb\xbf]", "f:1:1: not valid YAML: did not find expected node content\n"},
        {"a: b\nc: \xff", "f:2:4: not valid YAML: invalid leading UTF-8 octet (0xff)\n"},
        {"a: \xc3\xa9\xc3", "f:1:5: not valid YAML: incomplete UTF-8 octet sequence\n"},
        {"a: \x1b", "f:1:4: not valid YAML: control characters are not allowed (0x1b)\n"},
    };
    check_wrong(cases, VB_ARRAY_SIZE(cases));
    static const char nul[] = "a: b\0c";
    struct parsed parsed = parse_bytes(nul, sizeof(nul) - 1);
    assert_string_equal(parsed.lines, "f:1:5: not valid YAML: control characters are not allowed (0x00)\n");
    drop(&parsed);
}

static void what_hides_the_meaning_is_refused(void **state)
{
    static const struct wrong cases[] = {
        {"listen: &x 80\nname: *x\npools: !!map {web: {backends: &b [!s a:1]}}",
         "f:1:9: YAML anchors (`x`) are not supported; "
         "write the value out where it is needed, or quote a text that begins with &\n"
         "f:2:7: YAML aliases (`x`) are not supported; write the value out, or quote a text that begins with *\n"
         "f:3:8: YAML tags (`tag:yaml.org,2002:map`) are not supported; quote a text that begins with !\n"
         "f:3:31: YAML anchors (`b`) are not supported; "
         "write the value out where it is needed, or quote a text that begins with &\n"
         "f:3:35: YAML tags (`!s`) are not supported; quote a text that begins with !\n"},
        {"*x : 80", "f:1:1: YAML aliases (`x`) are not supported; "
                    "write the value out, or quote a text that begins with *\n"},
        {"listen: 80\n---\nlisten: 81", "f:2:1: a second YAML document begins here; "
                                        "a configuration is a single one\n"},
        {"[a]: 80", "f:1:1: a key must be text, not a list; text that begins with [ or { belongs in quotes\n"},
        {"? {a: b}\n: 80",
         "f:1:3: a key must be text, not a mapping; text that begins with [ or { belongs in quotes\n"},
        {"name: \"a\\0b\"", "f:1:7: a NUL byte has no place in a configuration\n"},
        {"\"a\\0b\": 1", "f:1:1: a NUL byte has no place in a configuration\n"},
    };
    check_wrong(cases, VB_ARRAY_SIZE(cases));
}

static void duplicate_keys_are_errors_everywhere(void **state)
{
    static const struct wrong cases[] = {
        {"listen: 80\nlisten: x\npools: {web: {backends: [a:1], backends: x}}\n'listen': 82\n",
         "f:2:1: duplicate key `listen`; it was given in line 1 already\n"
         "f:3:32: duplicate key `backends`; it was given in line 3 already\n"
         "f:4:1: duplicate key `listen`; it was given in line 1 already\n"},
    };
    check_wrong(cases, VB_ARRAY_SIZE(cases));
}

/* ---- harm ---- */
/* `n` times `unit` between head and tail. */
static struct parsed parse_repeated(const char *head, const char *unit, size_t n, const char *tail)
{
    size_t length = strlen(unit), used = strlen(head);
    char *text = malloc(used + n * length + strlen(tail) + 1);
    assert_non_null(text);
    memcpy(text, head, used);
    for (size_t i = 0; i < n; i++, used += length)
        memcpy(text + used, unit, length);
    memcpy(text + used, tail, strlen(tail) + 1);
    struct parsed parsed = parse(text);
    free(text);
    return parsed;
}

static void deep_nesting_is_refused(void **state)
{
    struct parsed parsed = parse_repeated("listen: ", "[", 10000, "");
    assert_string_equal(parsed.lines, "f:1:40: more than 32 levels of nesting\n");
    drop(&parsed);
    parsed = parse_repeated("", "{a: ", 10000, "");
    assert_string_equal(parsed.lines, "f:1:129: more than 32 levels of nesting\n");
    drop(&parsed);
    parsed = parse_repeated("", "- ", 10000, "x");
    assert_string_equal(parsed.lines, "f:1:65: more than 32 levels of nesting\n");
    drop(&parsed);
}

static void huge_scalars_are_shown_in_short(void **state)
{
    struct parsed parsed = parse_repeated("{listen: 80, pools: {web: {backends: [a:1]}}, name: ", "x", 15 << 20, "}");
    assert_string_equal(parsed.lines, "f:1:53: `name`: expected a name of at most 63 letters, digits, `_`, `.` and "
                                      "`-`, found `xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...`\n");
    drop(&parsed);
    parsed = parse_repeated("{? ", "\xc3\xa9", 1000, " : 1}");
    assert_int_equal(parsed.r, -EINVAL);
    drop(&parsed);
}

static void alias_bombs_stay_small(void **state)
{
    struct parsed parsed = parse("a: &a [x,x,x,x,x,x,x,x,x]\n"
                                 "b: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
                                 "c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
                                 "d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n");
    assert_int_equal(parsed.r, -EINVAL);
    assert_non_null(strstr(parsed.lines, "f:2:8: YAML aliases (`a`) are not supported"));
    drop(&parsed);
}

static void many_errors_are_counted_not_shown(void **state)
{
    struct parsed parsed = parse_repeated("listen: 80\npools:\n  web:\n    backends:\n", "    - x\n", 100000, "");
    unsigned lines = 0;
    for (const char *p = parsed.lines; (p = strchr(p, '\n')) != NULL; p++)
        lines++;
    assert_int_equal(lines, 101);
    assert_non_null(strstr(parsed.lines, "f:104:7: `x` has no port; add one, for example `x:80`\n"));
    assert_non_null(strstr(parsed.lines, "\nf: 99900 more like these are not shown\n"));
    drop(&parsed);
    parsed = parse_repeated("", "- x\n", 300000, "");
    assert_string_equal(parsed.lines, "f:200000:3: the file holds more than 200000 values\n");
    drop(&parsed);
}

static void many_duplicates_do_not_take_minutes(void **state)
{
    clock_t start = clock();
    struct parsed parsed = parse_repeated("listen: 80\n", "a: x\n", 100000, "");
    assert_int_equal(parsed.r, -EINVAL);
    drop(&parsed);
    assert_true((clock() - start) / CLOCKS_PER_SEC < 20);
}

static const char good[] = "# comment\n"
                           "listen: [ 80, \"[::]:80\" ] # more\n"
                           "pools:\n"
                           "  web:\n"
                           "    balance: least_conn\n"
                           "    backends:\n"
                           "      - 127.0.0.1:9001\n"
                           "      - { address: 'b\xc3\xa9:1', name: b2, weight: ${VB_TEST_UNSET:-3} }\n"
                           "    health: { path: /health, expect: 200-399 }\n"
                           "timeouts: { header: 10s, keepalive: \"75\\x73\" }\n"
                           "limits: &l { header_bytes: 16KiB }\n"
                           "headers: { forwarded: |\n  x\n }\n";

static void every_beginning_of_a_file_is_survived(void **state)
{
    for (size_t n = 0; n < sizeof(good); n++) {
        struct parsed parsed = parse_bytes(good, n);
        drop(&parsed);
    }
}

static void every_wrong_byte_in_a_file_is_survived(void **state)
{
    static const char bytes[] = {'\0', '\n', '\t', ' ', ':', '[', '{', '}', '"', '*', '&', '!', '-', '|', '$', '\xff'};
    char text[sizeof(good)];
    for (size_t i = 0; i < sizeof(good) - 1; i++) {
        for (size_t j = 0; j < sizeof(bytes); j++) {
            memcpy(text, good, sizeof(good));
            text[i] = bytes[j];
            struct parsed parsed = parse_bytes(text, sizeof(good) - 1);
            drop(&parsed);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(broken_yaml_is_reported_at_its_place),
        cmocka_unit_test(what_hides_the_meaning_is_refused),
        cmocka_unit_test(duplicate_keys_are_errors_everywhere),
        cmocka_unit_test(deep_nesting_is_refused),
        cmocka_unit_test(huge_scalars_are_shown_in_short),
        cmocka_unit_test(alias_bombs_stay_small),
        cmocka_unit_test(many_errors_are_counted_not_shown),
        cmocka_unit_test(many_duplicates_do_not_take_minutes),
        cmocka_unit_test(every_beginning_of_a_file_is_survived),
        cmocka_unit_test(every_wrong_byte_in_a_file_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
