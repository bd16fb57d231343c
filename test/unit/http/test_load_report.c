/* Loads that backends report: all forms, and what is no report. */
#include "fixture.h"

#define NONE UINT32_MAX

/* Of a response with these lines; NONE: no report. */
static uint32_t load_of(const char *lines)
{
    char text[8192];
    uint32_t load = 0;
    int n = snprintf(text, sizeof(text), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n%s\r\n", lines);
    assert_true(n > 0 && (size_t)n < sizeof(text));
    struct parsed parsed = parse(RESPONSE, (struct vb_str){text, (size_t)n}, &usual);
    assert_true(parsed.r > 0);
    bool known = vb_head_load_report(parsed.head, &load);
    drop(&parsed);
    assert_true(!known || load <= VB_LOAD_REPORT_MAX);
    return known ? load : NONE;
}

static uint32_t load_in(const char *name, const char *value)
{
    char line[8000];
    snprintf(line, sizeof(line), "%s: %s\r\n", name, value);
    return load_of(line);
}

struct example {
    const char *value;
    uint32_t load;
};

static void check(const char *field, const char *before, const struct example *examples, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        char value[4096];
        snprintf(value, sizeof(value), "%s%s", before, examples[i].value);
        uint32_t load = load_in(field, value);
        if (load != examples[i].load)
            fail_msg("%s: %s is %u", field, value, load);
    }
}

#define CHECK(field, before, examples) check(field, before, examples, VB_ARRAY_SIZE(examples))

static void a_response_without_the_fields_is_no_report(void **state)
{
    assert_int_equal(load_of(""), NONE);
    assert_int_equal(load_of("X-Loads: 0.5\r\nLoad: 0.5\r\n"), NONE);
}

static void x_load_is_a_decimal_number_or_a_percentage(void **state)
{
    static const struct example examples[] = {
        {"0", 0},
        {"0.5", 500},
        {"1", 1000},
        {"12.25", 12250},
        {"0.0009", 0},
        {"0.123456789012345678901234567890", 123},
        {"0.00000000000000000000000000000000000001", 0},
        {"50%", 500},
        {"0.5%", 5},
        {"250%", 2500},
        {"1000000", VB_LOAD_REPORT_MAX},
        {"1000001", VB_LOAD_REPORT_MAX},
        {"99999999999999999999999999999999999999999", VB_LOAD_REPORT_MAX},
        {"10000000000000000000000000000000000000000%", VB_LOAD_REPORT_MAX},
        {"18446744073709551616", VB_LOAD_REPORT_MAX}, /* 2^64 is not 0 */
        {"-0", 0},
        {"-0.1", NONE},
        {"", NONE},
        {"%", NONE},
        {"5 %", NONE},
        {"50%%", NONE},
        {".5", NONE},
        {"5.", NONE},
        {"05", NONE},
        {"00", NONE},
        {"0,5", NONE},
        {"0.5, 0.6", NONE},
        {"+1", NONE},
        {"0x10", NONE},
        {"nan", NONE},
        {"inf", NONE},
        {"1_000", NONE},
        {"0.5 ;q=1", NONE},
        {"\xd9\xa1", NONE},
    };
    CHECK("X-Load", "", examples);
    assert_int_equal(load_of("x-LOAD: 0.25\r\n"), 250);
}

static void text_is_names_and_numbers(void **state)
{
    static const struct example examples[] = {
        {"cpu_utilization=0.3", 300},
        {"cpu_utilization=0.3, application_utilization=0.5", 500},
        {"application_utilization=0.5,cpu_utilization=0.3", 500},
        {"application_utilization=0, cpu_utilization=0.3", 300},
        {"cpu_utilization=0", 0},
        {" cpu_utilization=1.5 , mem_utilization=0.9", 1500},
        {"cpu_utilization=3e-1", 300},
        {"cpu_utilization=3E+2", 300000},
        {"cpu_utilization=1e999999999999", VB_LOAD_REPORT_MAX},
        {"cpu_utilization=1e-999999999999", 0},
        {"rps_fractional=100, named_metrics.a=x, cpu_utilization=0.1", 100},
        {"application_utilization=0", NONE}, /* that is said of what is not known */
        {"mem_utilization=0.9", NONE},
        {"xcpu_utilization=0.9", NONE},
        {"cpu_utilization", NONE},
        {"cpu_utilization=", NONE},
        {"cpu_utilization=a", NONE},
        {"cpu_utilization=-0.1", NONE},
        {"cpu_utilization=0.1e", NONE},
        {"cpu_utilization=0.1 0.2", NONE},
        {"cpu_utilization=0.1, cpu_utilization=0.1", NONE},
        {"application_utilization=x, cpu_utilization=0.3", NONE},
        {"cpu_utilization=0.3, what", NONE},
        {"", NONE},
    };
    CHECK("Endpoint-Load-Metrics", "TEXT ", examples);
}

static void json_is_an_object_with_numbers(void **state)
{
    static const struct example examples[] = {
        {"{\"cpu_utilization\": 0.3}", 300},
        {"{\"cpuUtilization\":0.3,\"applicationUtilization\":0.7}", 700},
        {" { \"application_utilization\" : 7e-1 , \"cpu_utilization\" : 0.3 } ", 700},
        {"{\"named_metrics\":{\"cpu_utilization\":0.9},\"cpu_utilization\":0.1}", 100},
        {"{\"a\":[1,{\"cpu_utilization\":0.9},[]],\"b\":{},\"cpu_utilization\":0.1}", 100},
        {"{\"a\":\"\\\",\\\"cpu_utilization\\\":0.9\",\"cpu_utilization\":0.1}", 100},
        {"{\"a\":\"\\\\\",\"cpu_utilization\":0.1}", 100},
        {"{\"a\":\"\\u0022\\n}\",\"b\":[true,false,null,-1.5e+3],\"cpu_utilization\":0.1}", 100},
        {"{\"a\":{\"b\":\"}\"},\"cpu_utilization\":0.1}", 100},
        {"{\"a\":\"cpu_utilization\"}", NONE},
        {"{\"a\":{\"cpu_utilization\":0.1}}", NONE},
        {"[{\"cpu_utilization\":0.1}]", NONE},
        {"{}", NONE},
        {"", NONE},
        {"{", NONE},
        {"{\"cpu_utilization\":0.1", NONE},
        {"{\"cpu_utilization\":0.1}}", NONE},
        {"{\"cpu_utilization\":0.1} x", NONE},
        {"{\"cpu_utilization\":0.1,}", NONE},
        {"{,\"cpu_utilization\":0.1}", NONE},
        {"{\"cpu_utilization\":0.1 \"a\":1}", NONE},
        {"{\"cpu_utilization\":\"0.1\"}", NONE},
        {"{\"cpu_utilization\":null}", NONE},
        {"{\"cpu_utilization\":-0.1}", NONE},
        {"{\"cpu_utilization\":01}", NONE},
        {"{\"cpu_utilization\":.1}", NONE},
        {"{\"cpu_utilization\":0.1,\"cpu_utilization\":0.1}", NONE},
        {"{\"cpu_utilization\":0.1,\"a\":tru}", NONE},
        {"{\"cpu_utilization\":0.1,\"a\":\"\\x\"}", NONE},
        {"{\"cpu_utilization\":0.1,\"a\":\"\\u00g0\"}", NONE},
        {"{\"cpu_utilization\":0.1,\"a\":\"\\u00", NONE},
        {"{\"cpu_utilization\":0.1,\"a\":\"\\", NONE},
        {"{\"cpu_utilization\":0.1,\"a\":[1}", NONE},
        {"{\"cpu_utilization\":0.1,\"a\":[1,]}", NONE},
        {"{\"cpu_utilization\":0.1,\"a\":\"b\tc\"}", NONE},
        {"{cpu_utilization:0.1}", NONE},
    };
    CHECK("endpoint-load-metrics", "JSON ", examples);
}

/* As deep as there are bytes in a head: it must not be as deep on the stack. */
static void how_deep_json_may_be_is_bounded(void **state)
{
    for (unsigned depth = 1; depth < 3000; depth += depth < 20 ? 1 : 500) {
        char value[8000] = "JSON {\"a\":";
        size_t n = strlen(value);
        memset(value + n, '[', depth);
        memset(value + n + depth, ']', depth);
        vb_copy(value + n + 2 * depth, sizeof(value) - n - 2 * depth, ",\"cpu_utilization\":0.1}");
        assert_int_equal(load_in("endpoint-load-metrics", value), depth < 16 ? 100 : NONE);
    }
}

static void other_forms_are_no_report(void **state)
{
    static const struct example examples[] = {
        {"cpu_utilization=0.3", NONE},
        {"BIN CgkJAAAAAAAA8D8=", NONE},
        {"TEXT", NONE},
        {"JSON", NONE},
        {"text cpu_utilization=0.3", NONE},
        {"JSON{\"cpu_utilization\":0.3}", NONE},
        {"TEXT {\"cpu_utilization\":0.3}", NONE},
    };
    CHECK("endpoint-load-metrics", "", examples);
}

/* Who says both says the same twice; the one that is defined is taken, also when it cannot be read. */
static void the_field_of_orca_goes_first(void **state)
{
    assert_int_equal(load_of("X-Load: 0.1\r\nEndpoint-Load-Metrics: TEXT cpu_utilization=0.2\r\n"), 200);
    assert_int_equal(load_of("X-Load: 0.1\r\nEndpoint-Load-Metrics: nonsense\r\n"), NONE);
}

/* Each prefix of a good one: none reads behind its end, and none is taken for more than it is. */
static void what_was_cut_is_no_report(void **state)
{
    static const char whole[] = "JSON {\"a\":{\"b\":[\"\\u0041\",-1.5e3,true]},\"cpu_utilization\":0.1}";
    for (size_t n = 0; n < sizeof(whole); n++) {
        char value[sizeof(whole)];
        memcpy(value, whole, n);
        value[n] = '\0';
        assert_int_equal(load_in("endpoint-load-metrics", value), n < sizeof(whole) - 1 ? NONE : 100);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_response_without_the_fields_is_no_report),
        cmocka_unit_test(x_load_is_a_decimal_number_or_a_percentage),
        cmocka_unit_test(text_is_names_and_numbers),
        cmocka_unit_test(json_is_an_object_with_numbers),
        cmocka_unit_test(how_deep_json_may_be_is_bounded),
        cmocka_unit_test(other_forms_are_no_report),
        cmocka_unit_test(the_field_of_orca_goes_first),
        cmocka_unit_test(what_was_cut_is_no_report),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
