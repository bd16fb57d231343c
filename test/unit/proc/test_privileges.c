/* Identities as text, and what a process cannot do any more. Each of these ends in a process of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "privileges.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "line %d: not so: %s (errno %d)\n", __LINE__, #condition, errno);                          \
            _exit(1);                                                                                                  \
        }                                                                                                              \
    } while (0)

/* Runs it in a child. */
static void elsewhere(void (*function)(void))
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        function();
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

/* ---- identities ---- */
static void numbers_need_no_entry(void **state)
{
    static const struct {
        struct vb_conf_user user;
        uid_t uid;
        const char *identity;
    } cases[] = {
        {{.name = "54321", .by_number = true, .uid = 54321}, 54321, "54321:54321"},
        {{.name = "54321:7", .by_number = true, .has_gid = true, .uid = 54321, .gid = 7}, 54321, "54321:7"},
        {{.name = "1:0", .by_number = true, .has_gid = true, .uid = 1, .gid = 0}, 1, "1:0"},
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        struct vb_error err;
        char *identity = NULL;
        uid_t uid = 0;
        assert_int_equal(vb_identity_find(&cases[i].user, &uid, &identity, &err), 0);
        assert_int_equal(uid, cases[i].uid);
        assert_string_equal(identity, cases[i].identity);
        free(identity);
    }
}

static void a_user_that_is_not_there_is_named(void **state)
{
    struct vb_error err;
    char *identity = NULL;
    uid_t uid;
    assert_int_equal(vb_identity_find(&(struct vb_conf_user){.name = "nobody-of-that-name"}, &uid, &identity, &err),
                     -ENOENT);
    assert_non_null(strstr(err.text, "no user `nobody-of-that-name`"));
    assert_null(identity);
}

static void only_an_identity_is_taken(void **state)
{
    static const char *const wrong[] = {"",    "-",     "1",    "1:",           "1:2,", "1:2,,3",       ":1",
                                        "a:1", "1:1,a", "1:-1", "4294967295:1", "1:2 ", "1:4294967295", "0:0",
                                        "0:5", "1,2:3", "1:2:3"};
    for (size_t i = 0; i < VB_ARRAY_SIZE(wrong); i++)
        assert_int_equal(vb_identity_take(wrong[i]), -EINVAL);
}

static void becomes_another_for_good(void)
{
    gid_t groups[8];
    CHECK(vb_identity_take("54321:54322,54323,54324") == 0);
    CHECK(getuid() == 54321 && geteuid() == 54321 && getgid() == 54322 && getegid() == 54322);
    CHECK(getgroups(8, groups) == 3 && groups[0] == 54322 && groups[1] == 54323 && groups[2] == 54324);
    CHECK(setuid(0) != 0 && seteuid(0) != 0 && setgid(0) != 0 && setgroups(0, NULL) != 0);
    CHECK(vb_identity_take("54325:54325") == -EPERM);
}

/* As with `capsh --keep=1`, or a service manager that says so: setuid would not take the capabilities away. */
static void notices_that_it_could_go_back(void)
{
    CHECK(prctl(PR_SET_SECUREBITS, 4 /* SECBIT_NO_SETUID_FIXUP */) == 0);
    CHECK(vb_identity_take("54321:54321") == -EPERM);
}

static void root_takes_another_identity(void **state)
{
    if (geteuid() != 0)
        skip();
    elsewhere(becomes_another_for_good);
    elsewhere(notices_that_it_could_go_back);
}

/* ---- files ---- */
static bool has_landlock(void)
{
    return syscall(SYS_landlock_create_ruleset, NULL, (size_t)0, 1u) >= 1;
}

static char folder[] = "/tmp/vb-privileges-XXXXXX";
static struct sockaddr_un backend = {.sun_family = AF_UNIX};

static void opens_nothing_and_connects_all_the_same(void)
{
    char bytes[4];
    int null = open("/dev/null", O_RDWR), s = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(null >= 0 && s >= 0);
    CHECK(vb_forbid_new_privileges() == 0);
    CHECK(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
    vb_forbid_files();
    CHECK(open("/dev/null", O_RDONLY) == -1 && errno == EACCES);
    CHECK(open("/etc/passwd", O_RDONLY) == -1 && errno == EACCES);
    CHECK(open(folder, O_RDONLY | O_DIRECTORY) == -1 && errno == EACCES);
    CHECK(open(folder, O_TMPFILE | O_WRONLY, 0600) == -1 && errno == EACCES);
    CHECK(mkdir("/tmp/vb-privileges-never", 0700) == -1 && errno == EACCES);
    CHECK(unlink(backend.sun_path) == -1 && errno == EACCES);
    execl("/bin/true", "true", NULL);
    CHECK(errno == EACCES);
    /* What it has, and what a worker needs */
    CHECK(write(null, "x", 1) == 1 && read(null, bytes, sizeof(bytes)) == 0);
    CHECK(connect(s, (struct sockaddr *)&backend, sizeof(backend)) == 0);
    CHECK(syscall(SYS_getrandom, bytes, sizeof(bytes), 0) == (long)sizeof(bytes));
}

static void files_are_forbidden(void **state)
{
    if (!has_landlock())
        skip();
    assert_non_null(mkdtemp(folder));
    snprintf(backend.sun_path, sizeof(backend.sun_path), "%s/backend", folder);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&backend, sizeof(backend)), 0);
    assert_int_equal(listen(listener, 1), 0);
    elsewhere(opens_nothing_and_connects_all_the_same);
    close(listener);
    assert_int_equal(unlink(backend.sun_path), 0);
    assert_int_equal(rmdir(folder), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_need_no_entry),     cmocka_unit_test(a_user_that_is_not_there_is_named),
        cmocka_unit_test(only_an_identity_is_taken), cmocka_unit_test(root_takes_another_identity),
        cmocka_unit_test(files_are_forbidden),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
