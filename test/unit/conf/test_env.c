/* `${NAME}` and `${NAME:-default}`. */
#include "fixture.h"

static const char *value_of(const char *value)
{
    static char kept[4096];
    char text[4096];
    snprintf(text, sizeof(text), "listen: 80\npools: {web: {backends: [a:1], health: {path: \"/%s\"}}}", value);
    struct vb_conf *conf = parse_good(text);
    snprintf(kept, sizeof(kept), "%s", conf->pools[0].health.path + 1);
    vb_conf_free(&conf);
    return kept;
}

static void references_are_replaced(void **state)
{
    setenv("VB_TEST_A", "one", 1);
    setenv("VB_TEST_b2", "${VB_TEST_A}", 1);
    setenv("VB_TEST_EMPTY", "", 1);
    unsetenv("VB_TEST_UNSET");
    static const struct {
        const char *text, *value;
    } cases[] = {
        {"${VB_TEST_A}", "one"},
        {"x${VB_TEST_A}y${VB_TEST_A}z", "xoneyonez"},
        {"${VB_TEST_b2}", "${VB_TEST_A}"}, /* what comes out is not looked at again */
        {"${VB_TEST_EMPTY}", ""},
        {"${VB_TEST_A:-two}", "one"},
        {"${VB_TEST_UNSET:-two}", "two"},
        {"${VB_TEST_EMPTY:-two}", "two"},
        {"${VB_TEST_UNSET:-}", ""},
        {"${VB_TEST_UNSET:-a:-b$c{d}", "a:-b$c{d"},
        {"$", "$"},
        {"$$", "$$"},
        {"$VB_TEST_A", "$VB_TEST_A"},
        {"$${VB_TEST_A}", "$one"},
        {"$(x)", "$(x)"},
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++)
        assert_string_equal(value_of(cases[i].text), cases[i].value);
}

static void every_kind_of_value_is_expanded(void **state)
{
    setenv("VB_TEST_PORT", "8081", 1);
    struct vb_conf *conf =
        parse_good("listen: ${VB_TEST_PORT}\n"
                   "workers: ${VB_TEST_UNSET:-3}\n"
                   "pools:\n"
                   "  web:\n"
                   "    backends:\n"
                   "      - ${VB_TEST_HOST:-localhost}:${VB_TEST_PORT}\n"
                   "      - { address: \"127.0.0.1:${VB_TEST_PORT}\", name: \"b${VB_TEST_PORT}\" }\n");
    assert_string_equal(conf->listeners[0].text, "0.0.0.0:8081");
    assert_int_equal(conf->workers, 3);
    assert_string_equal(conf->pools[0].backends[0].address, "localhost:8081");
    assert_string_equal(conf->pools[0].backends[1].name, "b8081");
    vb_conf_free(&conf);
}

static void wrong_references_are_reported_and_nothing_else_about_them(void **state)
{
    setenv("VB_TEST_BAD", "many\n\033[31m", 1);
    static const struct wrong cases[] = {
        {REST "workers: \"${VB_TEST_UNSET}\"}", "f:1:56: the environment variable `VB_TEST_UNSET` is not set; "
                                                "set it, or give a default: ${VB_TEST_UNSET:-default}\n"},
        {REST "name: \"${}\"}", "f:1:53: expected ${NAME} or ${NAME:-default}, found `${}`\n"},
        {REST "name: \"a${VB\"}", "f:1:53: expected ${NAME} or ${NAME:-default}, found `${VB`\n"},
        {REST "name: \"${1A}\"}", "f:1:53: expected ${NAME} or ${NAME:-default}, found `${1A}`\n"},
        {REST "name: \"${A:default}\"}", "f:1:53: expected ${NAME} or ${NAME:-default}, found `${A:default}`\n"},
        {REST "name: \"${A:-${B}}\"}", "f:1:53: expected ${NAME} or ${NAME:-default}, found `${A:-${B}}`\n"},
        {REST "workers: \"${VB_TEST_BAD}\"}",
         "f:1:56: `workers`: expected a whole number from 1 to 64 or `auto`, found `many??[31m`\n"},
        {"listen: ${VB_TEST_UNSET}\npools: {web: {backends: ['${VB_TEST_UNSET}']}}",
         "f:1:9: the environment variable `VB_TEST_UNSET` is not set; "
         "set it, or give a default: ${VB_TEST_UNSET:-default}\n"
         "f:2:26: the environment variable `VB_TEST_UNSET` is not set; "
         "set it, or give a default: ${VB_TEST_UNSET:-default}\n"},
    };
    check_wrong(cases, VB_ARRAY_SIZE(cases));
}

/* A hundred thousand times a long variable: an error, and not gigabytes. */
static void expansion_is_bounded(void **state)
{
    enum { LONG = 100000 };
    char *value = malloc(LONG + 1), *text = malloc(20 * LONG);
    assert_non_null(value);
    assert_non_null(text);
    memset(value, 'x', LONG);
    value[LONG] = '\0';
    setenv("VB_TEST_LONG", value, 1);
    size_t n = (size_t)snprintf(text, 20 * LONG, REST "name: \"");
    for (unsigned i = 0; i < LONG; i++, n += 15)
        memcpy(text + n, "${VB_TEST_LONG}", 15);
    memcpy(text + n, "\"}", 3);
    struct parsed parsed = parse(text);
    assert_string_equal(parsed.lines, "f:1:53: environment variables make the values longer than 16 MiB\n");
    drop(&parsed);
    unsetenv("VB_TEST_LONG");
    free(value);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(references_are_replaced),
        cmocka_unit_test(every_kind_of_value_is_expanded),
        cmocka_unit_test(wrong_references_are_reported_and_nothing_else_about_them),
        cmocka_unit_test(expansion_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
