/* Paths in normal form. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "vb/uri.h"

/* In a buffer of just the bytes that the header asks for. */
static char *normal(struct vb_str path)
{
    char *to = malloc(path.n > 0 ? path.n : 1);
    assert_non_null(to);
    size_t n = vb_uri_normal_path(to, path);
    assert_true(n <= path.n);
    char *text = strndup(to, n);
    assert_non_null(text);
    free(to);
    return text;
}

static void paths_get_their_normal_form(void **state)
{
    static const struct {
        const char *path, *normal;
    } cases[] = {
        {"/", "/"},
        {"/a", "/a"},
        {"/a/", "/a/"},
        /* percent-encoding (RFC 3986 6.2.2.1, 6.2.2.2) */
        {"/%7Euser", "/~user"},
        {"/%61%2D%2e%5f%30%5A", "/a-._0Z"},
        {"/a%2fb", "/a%2Fb"},
        {"/a%2Fb", "/a%2Fb"},
        {"/%c3%a9", "/%C3%A9"},
        {"/%3f%23%25%20%00", "/%3F%23%25%20%00"},
        {"/\xc3\xa9", "/\xc3\xa9"},
        {"/%252e", "/%252e"},
        /* no percent-encoding */
        {"/%", "/%"},
        {"/%4", "/%4"},
        {"/%zz", "/%zz"},
        {"/%4g%41", "/%4gA"},
        {"/100%/%41", "/100%/%41"},
        {"/100%/x%41", "/100%/xA"},
        /* what would become an encoding by decoding stays */
        {"/%%32e", "/%%32e"},
        {"/%2%65/x", "/%2%65/x"},
        /* dot segments (RFC 3986 5.2.4) */
        {"/a/b/c/./../../g", "/a/g"},
        {"/.", "/"},
        {"/..", "/"},
        {"/./", "/"},
        {"/../", "/"},
        {"/../..", "/"},
        {"/a/.", "/a/"},
        {"/a/..", "/"},
        {"/a/../", "/"},
        {"/a/b/..", "/a/"},
        {"/a/b/../", "/a/"},
        {"/a/b/../c", "/a/c"},
        {"/../a", "/a"},
        {"/./a", "/a"},
        {"/a/../../b", "/b"},
        {"/%2e%2E/a", "/a"},
        {"/a/%2e./b", "/b"},
        {"/a/.%2e/b", "/b"},
        {"/a/%2e/b", "/a/b"},
        {"/a%2f../b", "/a%2F../b"},
        {"/a%2f..%2fb", "/a%2F..%2Fb"},
        {"/...", "/..."},
        {"/.a/..b/c..", "/.a/..b/c.."},
        {"/.../a", "/.../a"},
        /* empty segments count */
        {"//", "//"},
        {"//a", "//a"},
        {"/a//b", "/a//b"},
        {"/a//../b", "/a/b"},
        {"/a//..", "/a/"},
        {"/..//a", "//a"},
        {"/.//a", "//a"},
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        char *got = normal(vb_str(cases[i].path));
        if (strcmp(got, cases[i].normal) != 0)
            fail_msg("%s -> %s, not %s", cases[i].path, got, cases[i].normal);
        free(got);
    }
}

static bool has_dot_segment(const char *path)
{
    for (const char *slash = path; slash != NULL; slash = strchr(slash + 1, '/')) {
        size_t n = strcspn(slash + 1, "/");
        if ((n == 1 || n == 2) && strspn(slash + 1, ".") >= n)
            return true;
    }
    return false;
}

static void check_any(struct vb_str path)
{
    char *once = normal(path), *twice = normal(vb_str(once));
    if (once[0] != '/' || has_dot_segment(once) || strcmp(once, twice) != 0)
        fail_msg("%.*s -> %s -> %s", VB_STR_ARGS(path), once, twice);
    char *in_place = strndup(path.p, path.n);
    assert_non_null(in_place);
    in_place[vb_uri_normal_path(in_place, (struct vb_str){in_place, path.n})] = '\0';
    assert_string_equal(in_place, once);
    free(in_place);
    free(once);
    free(twice);
}

/* All paths of up to seven characters that matter behind the slash: a normal form is its own, and keeps its promises.
 */
static void all_short_paths_are_sound(void **state)
{
    static const char alphabet[] = "/.%2eE6";
    enum { LETTERS = sizeof(alphabet) - 1, LONGEST = 7 };
    for (unsigned n = 0; n <= LONGEST; n++) {
        unsigned count = 1;
        for (unsigned i = 0; i < n; i++)
            count *= LETTERS;
        for (unsigned number = 0; number < count; number++) {
            char path[LONGEST + 2] = "/";
            for (unsigned i = 0, rest = number; i < n; i++, rest /= LETTERS)
                path[i + 1] = alphabet[rest % LETTERS];
            check_any((struct vb_str){path, n + 1});
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_get_their_normal_form),
        cmocka_unit_test(all_short_paths_are_sound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
