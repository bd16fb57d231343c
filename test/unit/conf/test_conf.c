/* Reading the bytes of a file. */
#include "fixture.h"

#include <fcntl.h>
#include <unistd.h>

static char folder[] = "/tmp/vb-test-conf-XXXXXX";

static const char *file_of_size(off_t size)
{
    static char path[64];
    snprintf(path, sizeof(path), "%s/file", folder);
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, size), 0);
    close(fd);
    return path;
}

static void whole_files_are_read(void **state)
{
    static const off_t sizes[] = {0, 1, 65535, 65536, 65537, 1000000, 16 << 20};
    for (size_t i = 0; i < VB_ARRAY_SIZE(sizes); i++) {
        char *text = NULL;
        size_t n = 7;
        struct vb_error err;
        assert_int_equal(vb_conf_read(file_of_size(sizes[i]), &text, &n, &err), 0);
        assert_non_null(text);
        assert_int_equal(n, sizes[i]);
        free(text);
    }
}

static void pipes_are_read_to_their_end(void **state)
{
    int ends[2];
    char path[64], *text;
    size_t n;
    struct vb_error err;
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], "listen: 80", 10), 10);
    close(ends[1]);
    snprintf(path, sizeof(path), "/dev/fd/%d", ends[0]);
    assert_int_equal(vb_conf_read(path, &text, &n, &err), 0);
    assert_int_equal(n, 10);
    assert_memory_equal(text, "listen: 80", 10);
    free(text);
    close(ends[0]);
}

static void check_unreadable(const char *path, int wanted, const char *why)
{
    char *text = NULL, sentence[256];
    size_t n = 7;
    struct vb_error err;
    assert_int_equal(vb_conf_read(path, &text, &n, &err), wanted);
    snprintf(sentence, sizeof(sentence), "cannot read %s: %s", path, why);
    assert_string_equal(err.text, sentence);
    assert_null(text);
    assert_int_equal(n, 7);
}

static void what_cannot_be_read_is_explained(void **state)
{
    check_unreadable("/nowhere/vibebalancer.yaml", -ENOENT, "No such file or directory");
    check_unreadable(folder, -EISDIR, "Is a directory");
    check_unreadable(file_of_size((16 << 20) + 1), -EFBIG, "it is larger than 16 MiB");
    check_unreadable("/dev/zero", -EFBIG, "it is larger than 16 MiB");
}

static int make_folder(void **state)
{
    return mkdtemp(folder) == NULL ? -1 : 0;
}

static int remove_folder(void **state)
{
    unlink(file_of_size(0));
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_files_are_read),
        cmocka_unit_test(pipes_are_read_to_their_end),
        cmocka_unit_test(what_cannot_be_read_is_explained),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
