/* Routes: what they keep, what is refused, what is doubted. */
#include "fixture.h"

/* A file with the pools `web` and `api`, one route in line 2. */
#define ROUTE(route) "{listen: 80, pools: {web: {backends: [a:1]}, api: {backends: [a:1]}}, routes: [\n{" route "}]}"

static struct vb_conf *parse_route(const char *route)
{
    char text[1024];
    snprintf(text, sizeof(text), ROUTE("%s") "\n", route);
    struct parsed parsed = parse(text); /* it warns of the pool that has no route */
    if (parsed.r != 0 || parsed.conf->n_routes != 1)
        fail_msg("%d for:\n%s\n%s", parsed.r, route, parsed.lines);
    free(parsed.lines);
    return parsed.conf;
}

static void every_key_is_read(void **state)
{
    struct vb_conf *conf = parse_good("listen: 80\n"
                                      "routes:\n"
                                      "  - host: '*.Example.com'\n"
                                      "    path: /v1/\n"
                                      "    method: [GET, HEAD]\n"
                                      "    header: { X-Beta: '1', Cookie: \"*\" }\n"
                                      "    pool: api\n"
                                      "    strip_prefix: true\n"
                                      "  - { method: PURGE, pool: web }\n"
                                      "  - pool: web\n"
                                      "pools: { web: { backends: [a:1] }, api: { backends: [a:1] } }\n");
    assert_int_equal(conf->n_routes, 3);
    const struct vb_conf_route *first = &conf->routes[0], *second = &conf->routes[1], *last = &conf->routes[2];
    assert_string_equal(first->host, ".example.com");
    assert_true(first->wildcard);
    assert_string_equal(first->path, "/v1/");
    assert_int_equal(first->n_methods, 2);
    assert_string_equal(first->methods[0], "GET");
    assert_string_equal(first->methods[1], "HEAD");
    assert_int_equal(first->n_headers, 2);
    assert_string_equal(first->headers[0].name, "X-Beta");
    assert_string_equal(first->headers[0].value, "1");
    assert_string_equal(first->headers[1].name, "Cookie");
    assert_null(first->headers[1].value);
    assert_int_equal(first->pool, 1);
    assert_true(first->strip_prefix);
    assert_int_equal(first->line, 3);
    assert_int_equal(first->column, 5);
    assert_int_equal(second->n_methods, 1);
    assert_string_equal(second->methods[0], "PURGE");
    assert_int_equal(last->pool, 0);
    assert_null(last->host);
    assert_false(last->wildcard);
    assert_null(last->path);
    assert_int_equal(last->n_methods, 0);
    assert_int_equal(last->n_headers, 0);
    assert_false(last->strip_prefix);
    vb_conf_free(&conf);
}

static void paths_are_kept_in_normal_form(void **state)
{
    static const struct {
        const char *text, *path;
    } cases[] = {
        {"/", "/"},
        {"/api", "/api"},
        {"/api/", "/api/"},
        {"/a/../b/./c", "/b/c"},
        {"/%61pi%2fv1", "/api%2Fv1"},
        {"/a//b", "/a//b"},
        {"/%2e%2e/x", "/x"},
        {"/100%", "/100%"},
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        char route[128];
        snprintf(route, sizeof(route), "pool: web, path: '%s'", cases[i].text);
        struct vb_conf *conf = parse_route(route);
        assert_string_equal(conf->routes[0].path, cases[i].path);
        vb_conf_free(&conf);
    }
}

static void values_of_fields_are_texts(void **state)
{
    static const struct {
        const char *value, *kept;
    } cases[] = {
        {"1", "1"},     {"true", "true"},      {"''", ""},
        {"'*'", NULL},  {"'* *'", "* *"},      {"a b", "a b"},
        {"'**'", "**"}, {"\"a\\tb\"", "a\tb"}, {"\xc3\xa9", "\xc3\xa9"},
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        char route[128];
        snprintf(route, sizeof(route), "pool: web, header: {X-A: %s}", cases[i].value);
        struct vb_conf *conf = parse_route(route);
        if (cases[i].kept == NULL)
            assert_null(conf->routes[0].headers[0].value);
        else
            assert_string_equal(conf->routes[0].headers[0].value, cases[i].kept);
        vb_conf_free(&conf);
    }
}

static void wrong_conditions_are_refused(void **state)
{
#define A_PATH  "f:2:19: `path`: expected a path that begins with / and has only visible ASCII characters, no ? and no #"
#define A_VALUE "expected a text without control characters and spaces around it, or \"*\" for any"
    static const struct wrong cases[] = {
        {ROUTE("pool: web, host: a:80"), "f:2:19: `a:80` has a port, which routes do not look at; write `a`\n"},
        {ROUTE("pool: web, host: ''"),
         "f:2:19: a host is expected here, such as `www.example.com` or `*.example.com`\n"},
        {ROUTE("pool: web, host: [a, b]"), "f:2:19: `host`: expected one name such as www.example.com, found a list\n"},
        {ROUTE("pool: web, path: api"), A_PATH ", found `api`\n"},
        {ROUTE("pool: web, path: ''"), A_PATH ", found an empty text\n"},
        {ROUTE("pool: web, path: /a b"), A_PATH ", found `/a b`\n"},
        {ROUTE("pool: web, path: /a?b"), A_PATH ", found `/a?b`\n"},
        {ROUTE("pool: web, path: /a#b"), A_PATH ", found `/a#b`\n"},
        {ROUTE("pool: web, path: \"/\\xe9\""), A_PATH ", found `/\xc3\xa9`\n"},
        {ROUTE("pool: web, path: [/]"), A_PATH ", found a list\n"},
        {ROUTE("pool: web, method: TRACE"), "f:2:21: `method`: `TRACE` is never served, whatever the route\n"},
        {ROUTE("pool: web, method: get"), "f:2:21: `method`: unknown value `get`; did you mean `GET`?\n"},
        {ROUTE("pool: web, method: [GET, Post]"), "f:2:27: `method`: unknown value `Post`; did you mean `POST`?\n"},
        {ROUTE("pool: web, method: 'GET,POST'"), "f:2:21: `method`: expected a method such as GET, found `GET,POST`\n"},
        {ROUTE("pool: web, method: "), "f:2:13: `method`: expected a method such as GET, found nothing\n"},
        {ROUTE("pool: web, method: {}"), "f:2:21: `method`: expected a method such as GET, found a mapping\n"},
        {ROUTE("pool: web, method: []"), "f:2:21: `method` is empty; leave it out for any method\n"},
        {ROUTE("pool: web, header: X-A"),
         "f:2:21: `header`: expected a mapping such as { X-Beta: \"1\" }, found `X-A`\n"},
        {ROUTE("pool: web, header: {}"), "f:2:21: `header`: expected 1 to 64 fields, found 0\n"},
        {ROUTE("pool: web, header: {X A: 1}"), "f:2:22: `X A` is not the name of a header field\n"},
        {ROUTE("pool: web, header: {'': 1}"), "f:2:22: `` is not the name of a header field\n"},
        {ROUTE("pool: web, header: {X-A: 1, x-a: 2}"),
         "f:2:30: field `x-a` is there already: case does not matter in names\n"},
        {ROUTE("pool: web, header: {X-A: }"), "f:2:22: `X-A`: " A_VALUE ", found nothing\n"},
        {ROUTE("pool: web, header: {X-A: [1]}"), "f:2:27: `X-A`: " A_VALUE ", found a list\n"},
        {ROUTE("pool: web, header: {X-A: ' 1'}"), "f:2:27: `X-A`: " A_VALUE ", found ` 1`\n"},
        {ROUTE("pool: web, header: {X-A: \"1\\t\"}"), "f:2:27: `X-A`: " A_VALUE ", found `1?`\n"},
        {ROUTE("pool: web, header: {X-A: \"1\\r\\nX-B: 2\"}"), "f:2:27: `X-A`: " A_VALUE ", found `1??X-B: 2`\n"},
        {ROUTE("pool: web, headers: {X-A: 1}"), "f:2:13: unknown key `headers`; did you mean `header`?\n"},
    };
    check_wrong(cases, VB_ARRAY_SIZE(cases));
}

static void a_route_leads_to_a_pool_that_is_there(void **state)
{
    static const struct wrong cases[] = {
        {ROUTE("pool: wep"), "f:2:8: there is no pool `wep`; did you mean `web`?\n"},
        {ROUTE("pool: backend"), "f:2:8: there is no pool `backend`; there are `web`, `api`\n"},
        {ROUTE("pool: WEB"), "f:2:8: there is no pool `WEB`; there are `web`, `api`\n"},
        {ROUTE("pool: "), "f:2:2: `pool`: expected the name of a pool, found nothing\n"},
        {ROUTE("pool: [web]"), "f:2:8: `pool`: expected the name of a pool, found a list\n"},
        {ROUTE("path: /"), "f:2:1: a route needs a `pool`, where its requests go\n"},
        {ROUTE(""), "f:2:1: a route needs a `pool`, where its requests go\n"},
        {ROUTE("pool: web, strip_prefix: true"),
         "f:2:13: `strip_prefix` needs a `path`: that is the prefix it takes off\n"},
        {"routes: [{pool: wep}]\nlisten: 80\npools: {web: {backends: [a:1]}}",
         "f:1:17: there is no pool `wep`; did you mean `web`?\n"},
        /* Only the pool's own error. */
        {"routes: [{pool: web}]\nlisten: 80\npools: {web: {backends: []}}",
         "f:3:25: `backends` is empty; a pool needs at least one, such as 127.0.0.1:9001\n"},
        {"routes: [{pool: web}]\nlisten: 80\npools: {web: }",
         "f:3:9: `web`: expected a mapping with `backends`, found nothing\n"},
        {"routes: [{pool: web}]\nlisten: 80\npools: off",
         "f:3:8: `pools`: expected a mapping from names to pools, found `off`\n"},
        {"routes: [{pool: web}]\nlisten: 80", "f:1:1: `pools` is missing; add a pool with its backends\n"},
    };
    check_wrong(cases, VB_ARRAY_SIZE(cases));
    struct vb_conf *conf = parse_route("pool: web, strip_prefix: false");
    vb_conf_free(&conf);
}

static void what_is_no_list_of_routes_is_refused(void **state)
{
#define A_ROUTE "such as { path: /api/, pool: web }"
    static const struct wrong cases[] = {
        {REST "routes: []}", "f:1:55: `routes` is empty; without it the first pool takes all requests\n"},
        {REST "routes: {path: /}}", "f:1:55: `routes`: expected a list of mappings " A_ROUTE ", found a mapping\n"},
        {REST "routes: off}", "f:1:55: `routes`: expected a list of mappings " A_ROUTE ", found `off`\n"},
        {REST "routes: [web]}", "f:1:56: `routes`: expected a mapping " A_ROUTE ", found `web`\n"},
        {REST "routes: [[]]}", "f:1:56: `routes`: expected a mapping " A_ROUTE ", found a list\n"},
    };
    check_wrong(cases, VB_ARRAY_SIZE(cases));
}

static char *many_routes(unsigned n, const char *route)
{
    char *text = NULL;
    size_t size;
    FILE *to = open_memstream(&text, &size);
    assert_non_null(to);
    fputs("{listen: 80, pools: {web: {backends: [a:1]}}, routes: [", to);
    for (unsigned i = 0; i < n; i++)
        fputs(route, to);
    fputs("]}", to);
    fclose(to);
    return text;
}

static void routes_are_bounded(void **state)
{
    char *text = many_routes(1001, "{pool: web, path: /a},");
    check_wrong(&(struct wrong){text, "f:1:55: `routes`: at most 1000\n"}, 1);
    free(text);
    text = many_routes(1000, "{pool: web, path: /a},");
    struct vb_conf *conf = parse_good(text);
    assert_int_equal(conf->n_routes, 1000);
    vb_conf_free(&conf);
    free(text);
}

/* Some are named, and none is cut in the middle. */
static void of_many_pools_some_are_named(void **state)
{
    char text[2048] = "routes: [{pool: x}]\nlisten: 80\npools:\n", lines[512];
    for (unsigned i = 10; i < 40; i++)
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "  pool%u: {backends: [a:1]}\n", i);
    snprintf(lines, sizeof(lines), "f:1:17: there is no pool `x`; there are `pool10`");
    for (unsigned i = 11; i < 34; i++)
        snprintf(lines + strlen(lines), sizeof(lines) - strlen(lines), ", `pool%u`", i);
    snprintf(lines + strlen(lines), sizeof(lines) - strlen(lines), ", ...\n");
    check_wrong(&(struct wrong){text, lines}, 1);
}

struct doubt {
    const char *routes, *lines;
};

static void doubtful_routes_are_warned_of(void **state)
{
    static const struct doubt cases[] = {
        {"[{pool: web},\n{host: a, pool: api}]",
         "f:2:1: warning: this route never matches: the one in line 1 takes all requests\n"},
        {"[{path: /, pool: web},\n{path: /api/, pool: api},\n{pool: api}]",
         "f:2:1: warning: this route never matches: the one in line 1 takes all requests\n"},
        {"[{host: a, pool: web},\n{pool: api},\n{method: GET, pool: web},\n{pool: web}]",
         "f:3:1: warning: this route never matches: the one in line 2 takes all requests\n"
         "f:4:1: warning: this route never matches: the one in line 2 takes all requests\n"},
        {"[{pool: web}]", "f:2:49: warning: no route leads to pool `api`: it gets no requests\n"},
        {"[{pool: api}]", "f:2:25: warning: no route leads to pool `web`: it gets no requests\n"},
        {"[{path: /api/*, pool: api}, {pool: web}]",
         "f:1:17: warning: `*` is a character like others here; a path matches all that begins with it, such as "
         "`/api/`\n"},
        {"[{host: a, pool: api}, {path: /, pool: web}]", ""},
        {"[{header: {A: '*'}, pool: web}, {method: GET, pool: api}, {pool: web}]", ""},
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        char text[512];
        snprintf(text, sizeof(text), "routes: %s\n%s", cases[i].routes,
                 "pools: {                web: {backends: [a:1]}, api: {backends: [b:1]}}\nlisten: 80\n");
        struct parsed parsed = parse(text);
        if (parsed.r != 0 || strcmp(parsed.lines, cases[i].lines) != 0)
            fail_msg("%d for:\n%s\nsaid:\n%swanted:\n%s", parsed.r, text, parsed.lines, cases[i].lines);
        drop(&parsed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_key_is_read),
        cmocka_unit_test(paths_are_kept_in_normal_form),
        cmocka_unit_test(values_of_fields_are_texts),
        cmocka_unit_test(wrong_conditions_are_refused),
        cmocka_unit_test(a_route_leads_to_a_pool_that_is_there),
        cmocka_unit_test(of_many_pools_some_are_named),
        cmocka_unit_test(what_is_no_list_of_routes_is_refused),
        cmocka_unit_test(routes_are_bounded),
        cmocka_unit_test(doubtful_routes_are_warned_of),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
