/* The wire of the control socket: its bytes both ways, and a client against masters of every kind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl_priv.h"
#include "vb/clock.h"

#define PATIENCE_MS 20000

/* ---- bytes --------------------------------------------------------------------------------------------------------*/

static void arguments_arrive_as_they_were(void **state)
{
    static const char *const sent[VB_CTL_ARGS_MAX] = {"weight", "web/unix:/a b", "", "5", "", "x", "y", ""};
    const char *args[VB_CTL_ARGS_MAX];
    char bytes[64];
    size_t n;
    assert_int_equal(ctl_pack_request(bytes, sizeof(bytes), VB_CTL_ARGS_MAX, sent, &n), 0);
    assert_int_equal(vb_ctl_unpack_request(bytes, n, args), VB_CTL_ARGS_MAX);
    for (unsigned i = 0; i < VB_CTL_ARGS_MAX; i++)
        assert_string_equal(args[i], sent[i]);
}

static void what_is_no_request_is_refused(void **state)
{
    const char *args[VB_CTL_ARGS_MAX];
    char nul[VB_CTL_REQUEST_MAX + 1] = {0}, text[VB_CTL_REQUEST_MAX + 1];
    memset(text, 'a', sizeof(text));
    assert_int_equal(vb_ctl_unpack_request("", 0, args), -EBADMSG);
    assert_int_equal(vb_ctl_unpack_request("drain", 5, args), -EBADMSG);
    assert_int_equal(vb_ctl_unpack_request(nul, VB_CTL_ARGS_MAX + 1, args), -EBADMSG);
    assert_int_equal(vb_ctl_unpack_request(nul, sizeof(nul), args), -EBADMSG);
    assert_int_equal(vb_ctl_unpack_request(text, sizeof(text) - 1, args), -EBADMSG);
    text[sizeof(text) - 2] = '\0';
    assert_int_equal(vb_ctl_unpack_request(text, sizeof(text) - 1, args), 1);
}

static void too_much_is_not_sent(void **state)
{
    char bytes[8], longer[9] = "12345678";
    const char *args[] = {"123", "456"}, *one = longer;
    size_t n = 0;
    assert_int_equal(ctl_pack_request(bytes, sizeof(bytes), 2, args, &n), 0);
    assert_int_equal(n, sizeof(bytes));
    assert_int_equal(ctl_pack_request(bytes, sizeof(bytes) - 1, 2, args, &n), -E2BIG);
    assert_int_equal(ctl_pack_request(bytes, sizeof(bytes), 1, &one, &n), -E2BIG);
    assert_int_equal(ctl_pack_request(bytes, sizeof(bytes), 0, args, &n), -E2BIG);
}

static void an_answer_arrives_as_it_was(void **state)
{
    struct vb_ctl_answer answer, copy;
    char bytes[VB_CTL_TEXT_MAX], longer[2 * VB_CTL_TEXT_MAX];
    vb_ctl_done(&answer, "web/%s drains", "b2");
    assert_int_equal(ctl_unpack_answer(bytes, vb_ctl_pack_answer(bytes, &answer), &copy), 0);
    assert_true(copy.done);
    assert_string_equal(copy.text, "web/b2 drains");
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    vb_ctl_refuse(&answer, "%s", longer);
    assert_int_equal(ctl_unpack_answer(bytes, vb_ctl_pack_answer(bytes, &answer), &copy), 0);
    assert_false(copy.done);
    assert_int_equal(strlen(copy.text), VB_CTL_TEXT_MAX - 1);
}

static void what_is_no_answer_is_none(void **state)
{
    struct vb_ctl_answer answer;
    char longer[VB_CTL_TEXT_MAX + 1] = "0";
    assert_int_equal(ctl_unpack_answer("", 0, &answer), -EBADMSG);
    assert_int_equal(ctl_unpack_answer("2x", 2, &answer), -EBADMSG);
    assert_int_equal(ctl_unpack_answer(longer, sizeof(longer), &answer), -EBADMSG);
    assert_int_equal(ctl_unpack_answer("1\x1b[31m\r\n", 8, &answer), 0);
    assert_string_equal(answer.text, "?[31m?\n");
}

static void lines_arrive_as_they_were(void **state)
{
    struct vb_ctl_answer answer, copy;
    char bytes[VB_CTL_TEXT_MAX];
    vb_ctl_refuse_lines(&answer, "vb.yaml:1:2: one\nvb.yaml:3:4: two\n");
    assert_int_equal(ctl_unpack_answer(bytes, vb_ctl_pack_answer(bytes, &answer), &copy), 0);
    assert_false(copy.done);
    assert_string_equal(copy.text, "vb.yaml:1:2: one\nvb.yaml:3:4: two");
    vb_ctl_refuse_lines(&answer, "");
    assert_string_equal(answer.text, "");
}

/* `n` lines of `length` bytes, newlines counted. */
static const char *make_lines(unsigned n, size_t length)
{
    static char text[4 * VB_CTL_TEXT_MAX];
    assert_true(n * length < sizeof(text));
    for (size_t i = 0; i < n * length; i++)
        text[i] = (i + 1) % length == 0 ? '\n' : 'x';
    text[n * length] = '\0';
    return text;
}

static void lines_are_whole_and_the_rest_is_counted(void **state)
{
    struct vb_ctl_answer answer;
    vb_ctl_refuse_lines(&answer, make_lines(VB_CTL_TEXT_MAX / 64, 64));
    assert_int_equal(strlen(answer.text), VB_CTL_TEXT_MAX - 1);
    assert_null(strstr(answer.text, "more"));
    for (size_t length = 2; length < 300; length++) {
        unsigned n = VB_CTL_TEXT_MAX / (unsigned)length + 3, kept = 0;
        char end[32];
        vb_ctl_refuse_lines(&answer, make_lines(n, length));
        for (const char *at = answer.text; (at = strchr(at, '\n')) != NULL; at++)
            assert_int_equal((size_t)(at + 1 - answer.text), ++kept * length);
        snprintf(end, sizeof(end), "and %u more lines", n - kept);
        assert_string_equal(strrchr(answer.text, '\n') + 1, end);
        assert_true(strlen(answer.text) + length + 16 > VB_CTL_TEXT_MAX); /* no room is left unused */
    }
    vb_ctl_refuse_lines(&answer, make_lines(1, 2 * VB_CTL_TEXT_MAX));
    assert_int_equal(strlen(answer.text), VB_CTL_TEXT_MAX - 1);
}

/* ---- calls --------------------------------------------------------------------------------------------------------*/

struct fixture {
    char dir[32];
    struct sockaddr_un address;
    int listener;
};

static int setup(void **state)
{
    static struct fixture f;
    snprintf(f.dir, sizeof(f.dir), "/tmp/vb-ctl-XXXXXX");
    assert_non_null(mkdtemp(f.dir));
    char path[64];
    snprintf(path, sizeof(path), "%s/s", f.dir);
    assert_int_equal(vb_ctl_address(path, &f.address), 0);
    f.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(f.listener, (struct sockaddr *)&f.address, sizeof(f.address)), 0);
    assert_int_equal(listen(f.listener, 8), 0);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    close(f->listener);
    unlink(f->address.sun_path);
    return rmdir(f->dir);
}

/* A master that reads `reads` bytes at most (0: to the end), and answers these. */
struct script {
    int listener;
    size_t reads;
    const char *answer;
    size_t n;
    char got[64];
    size_t got_n;
};

static void *play(void *arg)
{
    struct script *script = arg;
    int fd = accept4(script->listener, NULL, NULL, SOCK_CLOEXEC);
    size_t most = script->reads > 0 ? script->reads : sizeof(script->got);
    for (ssize_t n; script->got_n < most && (n = read(fd, script->got + script->got_n, most - script->got_n)) > 0;)
        script->got_n += (size_t)n;
    for (size_t i = 0; i < script->n; i++) /* in as many pieces as there can be */
        if (send(fd, script->answer + i, 1, MSG_NOSIGNAL) != 1)
            break;
    close(fd);
    return NULL;
}

static int call(struct fixture *f, struct script *script, struct vb_ctl_answer *answer, struct vb_error *err)
{
    static const char *const args[] = {"drain", "web/b"};
    pthread_t thread;
    script->listener = f->listener;
    assert_int_equal(pthread_create(&thread, NULL, play, script), 0);
    int r = vb_ctl_call(f->address.sun_path, 2, args, PATIENCE_MS, answer, err);
    pthread_join(thread, NULL);
    return r;
}

static void it_is_asked_and_answers(void **state)
{
    struct script script = {.answer = "0fine", .n = 5};
    struct vb_ctl_answer answer;
    struct vb_error err;
    assert_int_equal(call(*state, &script, &answer, &err), 0);
    assert_true(answer.done);
    assert_string_equal(answer.text, "fine");
    assert_int_equal(script.got_n, 12);
    assert_memory_equal(script.got, "drain\0web/b", 12);
}

static void broken_masters_are_no_answer(void **state)
{
    static char flood[4 * VB_CTL_TEXT_MAX];
    struct script scripts[] = {
        {.n = 0}, {.reads = 1}, {.answer = "xyz", .n = 3}, {.answer = flood, .n = sizeof(flood)}};
    memset(flood, '0', sizeof(flood));
    for (unsigned i = 0; i < VB_ARRAY_SIZE(scripts); i++) {
        struct vb_ctl_answer answer;
        struct vb_error err = {""};
        assert_true(call(*state, &scripts[i], &answer, &err) < 0);
        assert_non_null(strstr(err.text, "broke off"));
    }
}

static void expect_unreached(const char *path, unsigned timeout_ms, int code, const char *part)
{
    static const char *const args[] = {"drain", "web/b"};
    struct vb_ctl_answer answer;
    struct vb_error err = {""};
    assert_int_equal(vb_ctl_call(path, 2, args, timeout_ms, &answer, &err), code);
    if (strstr(err.text, part) == NULL)
        fail_msg("'%s' does not say '%s'", err.text, part);
}

static void a_master_that_says_nothing_is_not_waited_for(void **state)
{
    struct fixture *f = *state;
    uint64_t began = vb_clock_us();
    expect_unreached(f->address.sun_path, 100, -ETIMEDOUT, "does not answer");
    assert_true(vb_clock_us() - began >= 100000);
    /* Nor one whose queue is full. */
    int full = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_int_equal(listen(f->listener, 0), 0);
    assert_int_equal(connect(full, (struct sockaddr *)&f->address, sizeof(f->address)) == 0 || errno == EAGAIN, 1);
    expect_unreached(f->address.sun_path, 100, -ETIMEDOUT, "does not answer");
    close(full);
}

static void who_is_not_there_is_said(void **state)
{
    struct fixture *f = *state;
    char other[64], longer[200];
    snprintf(other, sizeof(other), "%s/none", f->dir);
    expect_unreached(other, PATIENCE_MS, -ENOENT, "no control socket");
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    expect_unreached(longer, PATIENCE_MS, -ENAMETOOLONG, "too long");
    shutdown(f->listener, SHUT_RDWR);
    expect_unreached(f->address.sun_path, PATIENCE_MS, -ECONNREFUSED, "the master is gone");
}

static void without_permission_it_says_who_has_it(void **state)
{
    struct fixture *f = *state;
    if (geteuid() != 0)
        skip();
    assert_int_equal(chmod(f->address.sun_path, 0600), 0);
    assert_int_equal(chmod(f->dir, 0755), 0);
    assert_int_equal(seteuid(65534), 0);
    expect_unreached(f->address.sun_path, PATIENCE_MS, -EACCES, "as the user of the master or as root");
    assert_int_equal(seteuid(0), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arguments_arrive_as_they_were),
        cmocka_unit_test(what_is_no_request_is_refused),
        cmocka_unit_test(too_much_is_not_sent),
        cmocka_unit_test(an_answer_arrives_as_it_was),
        cmocka_unit_test(what_is_no_answer_is_none),
        cmocka_unit_test(lines_arrive_as_they_were),
        cmocka_unit_test(lines_are_whole_and_the_rest_is_counted),
        TEST(it_is_asked_and_answers),
        TEST(broken_masters_are_no_answer),
        TEST(a_master_that_says_nothing_is_not_waited_for),
        TEST(who_is_not_there_is_said),
        TEST(without_permission_it_says_who_has_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
