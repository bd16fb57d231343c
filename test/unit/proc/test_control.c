/* Connections that wait for the end of a reload: who is answered when, and who loses their place. The reload is ours.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control.h"
#include "reload.h"
#include "vb/clock.h"
#include "vb/str.h"

#define PLACES      64
#define WAITERS     48
#define PATIENCE_US 20000000
#define NEVER       UINT64_MAX

static struct {
    char dir[32], socket[64], segment[64];
    struct vb_conf conf;
    struct vb_generation generation;
    struct vb_master master;
    uint64_t reload; /* the number that is given to whoever asks */
    bool is_building;
    unsigned open_files; /* before */
} f;

uint64_t vb_reload_request(struct vb_master *master)
{
    return f.reload;
}

uint64_t vb_reload_request_upgrade(struct vb_master *master)
{
    return vb_reload_request(master);
}

bool vb_reload_is_building(const struct vb_master *master)
{
    return f.is_building;
}

static unsigned count_open_files(void)
{
    unsigned n = 0;
    DIR *dir = opendir("/proc/self/fd");
    assert_non_null(dir);
    while (readdir(dir) != NULL)
        n++;
    closedir(dir);
    return n;
}

/* The first loop opens files that stay open for those after it. */
static int open_what_libuv_keeps(void **state)
{
    uv_loop_t loop;
    return uv_loop_init(&loop) == 0 ? uv_loop_close(&loop) : -1;
}

static int setup(void **state)
{
    struct vb_error err;
    memset(&f, 0, sizeof(f));
    f.open_files = count_open_files();
    f.reload = 1;
    snprintf(f.dir, sizeof(f.dir), "/tmp/vb-control-XXXXXX");
    assert_non_null(mkdtemp(f.dir));
    snprintf(f.socket, sizeof(f.socket), "%s/socket", f.dir);
    snprintf(f.segment, sizeof(f.segment), "%s/segment", f.dir);
    f.generation.config.conf = &f.conf;
    f.master.reload.number = f.reload;
    f.master.current = &f.generation;
    assert_int_equal(
        vb_shm_create(&f.master.shm, f.segment, "test", (struct vb_shm_capacity){.workers = 1, .backends = 1}, &err),
        0);
    assert_int_equal(uv_loop_init(&f.master.loop), 0);
    f.master.control = vb_control_open(&f.master, f.socket, f.segment);
    assert_non_null(f.master.control);
    assert_int_equal(vb_control_start(f.master.control), 0);
    return 0;
}

static void close_handle(uv_handle_t *handle, void *arg)
{
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

static int teardown(void **state)
{
    uv_walk(&f.master.loop, close_handle, NULL);
    uv_run(&f.master.loop, UV_RUN_DEFAULT);
    vb_control_close(&f.master.control);
    assert_int_equal(uv_loop_close(&f.master.loop), 0);
    vb_shm_unlink(f.master.shm);
    vb_shm_close(&f.master.shm);
    assert_int_equal(rmdir(f.dir), 0);
    assert_int_equal(count_open_files(), f.open_files);
    return 0;
}

/* ---- clients ---- */
static int client(const char *request)
{
    struct sockaddr_un address;
    assert_int_equal(vb_ctl_address(f.socket, &address), 0);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    if (request != NULL) {
        char words[64]; /* each ended by NUL */
        size_t n = strlen(request) + 1;
        memcpy(words, request, n);
        for (size_t i = 0; i < n; i++)
            words[i] = words[i] == ' ' ? '\0' : words[i];
        assert_int_equal(send(fd, words, n, 0), n);
        assert_int_equal(shutdown(fd, SHUT_WR), 0);
    }
    return fd;
}

static void count_handle(uv_handle_t *handle, void *arg)
{
    unsigned *counts = arg;
    counts[handle->type]++;
}

/* How many connections there are that wait for a reload: only these have a handle of this type. */
static unsigned waiting(void)
{
    unsigned counts[UV_HANDLE_TYPE_MAX] = {0};
    uv_walk(&f.master.loop, count_handle, counts);
    return counts[UV_POLL];
}

static void find_first(uv_handle_t *handle, void *arg)
{
    uint64_t *ms = arg;
    if (handle->type == UV_TIMER && uv_is_active(handle))
        *ms = VB_MIN(*ms, uv_timer_get_due_in((uv_timer_t *)handle));
}

/* How soon the first connection is cut because time has passed. */
static uint64_t first_cut_in_ms(void)
{
    uint64_t ms = NEVER;
    uv_walk(&f.master.loop, find_first, &ms);
    return ms;
}

static void until_waiting(unsigned n)
{
    uint64_t deadline = vb_clock_us() + PATIENCE_US;
    while (waiting() != n) {
        assert_true(vb_clock_us() < deadline);
        uv_run(&f.master.loop, UV_RUN_NOWAIT);
    }
}

/* Everything that can happen by itself does. */
static void settle(void)
{
    for (unsigned i = 0; i < 20; i++)
        uv_run(&f.master.loop, UV_RUN_NOWAIT);
}

static bool is_answered(int fd)
{
    char byte;
    return recv(fd, &byte, 1, MSG_PEEK) >= 0 || errno != EAGAIN;
}

/* Its answer comes, is this one, and is all; closes it. NULL: it is cut without one. */
static void expect(int fd, const char *answer)
{
    char got[VB_CTL_TEXT_MAX];
    size_t n = 0;
    uint64_t deadline = vb_clock_us() + PATIENCE_US;
    for (;;) {
        ssize_t r = recv(fd, got + n, sizeof(got) - n, 0);
        if (r == 0 || (r < 0 && errno == ECONNRESET))
            break;
        n += r > 0 ? (size_t)r : 0;
        assert_true(vb_clock_us() < deadline);
        uv_run(&f.master.loop, UV_RUN_NOWAIT);
    }
    assert_int_equal(n, answer != NULL ? strlen(answer) : 0);
    assert_memory_equal(got, answer != NULL ? answer : "", n);
    close(fd);
}

static void end_reload(uint64_t number, const char *text)
{
    struct vb_ctl_answer answer;
    vb_ctl_done(&answer, "%s", text);
    vb_control_reloaded(f.master.control, number, &answer);
}

/* ---- tests ---- */
static void each_waits_for_its_own_reload(void **state)
{
    int first = client("reload"), also_first = client("reload");
    until_waiting(2);
    f.reload = 2;
    int second = client("reload");
    until_waiting(3);
    assert_false(is_answered(first) || is_answered(also_first) || is_answered(second));
    end_reload(1, "one\nof two lines");
    expect(first, "0one\nof two lines");
    expect(also_first, "0one\nof two lines");
    settle();
    assert_false(is_answered(second));
    end_reload(2, "two");
    expect(second, "0two");
    assert_int_equal(waiting(), 0);
}

static void a_later_reload_answers_for_those_before(void **state)
{
    int first = client("reload");
    until_waiting(1);
    f.reload = 2;
    int second = client("reload");
    until_waiting(2);
    end_reload(2, "both");
    expect(first, "0both");
    expect(second, "0both");
}

static void time_does_not_cut_who_waits(void **state)
{
    int fd = client("reload");
    until_waiting(1);
    assert_int_equal(first_cut_in_ms(), NEVER);
    end_reload(1, "at last");
    expect(fd, "0at last");
}

static void who_hangs_up_is_forgotten_at_once(void **state)
{
    int gone = client("reload"), stays = client("reload");
    until_waiting(2);
    unsigned before = count_open_files();
    close(gone);
    until_waiting(1);
    settle();
    assert_int_equal(count_open_files(), before - 3); /* its end, ours, and the copy */
    close(client("reload"));                          /* and away before it was read */
    settle();
    until_waiting(1);
    end_reload(1, "here");
    expect(stays, "0here");
}

static void fill(int *fds, unsigned n, const char *request)
{
    for (unsigned i = 0; i < n; i++)
        fds[i] = client(request);
    settle();
}

static void newcomers_cut_nobody_who_waits(void **state)
{
    int waiters[WAITERS], silent[PLACES - WAITERS];
    fill(waiters, WAITERS, "reload");
    until_waiting(WAITERS);
    fill(silent, PLACES - WAITERS, NULL);
    int newcomer = client("nonsense");
    expect(silent[0], NULL); /* the oldest of the others */
    expect(newcomer, "1this vibebalancer knows no command 'nonsense'; is vbctl of another version?");
    assert_int_equal(waiting(), WAITERS);
    end_reload(1, "done");
    for (unsigned i = 0; i < WAITERS; i++)
        expect(waiters[i], "0done");
    for (unsigned i = 1; i < PLACES - WAITERS; i++) {
        assert_false(is_answered(silent[i]));
        close(silent[i]);
    }
}

static void some_places_are_kept_from_those_who_wait(void **state)
{
    int waiters[WAITERS];
    fill(waiters, WAITERS, "reload");
    until_waiting(WAITERS);
    expect(client("reload"), "1too many others wait for this reload, which goes on: see vbctl status");
    f.is_building = true;
    expect(client("drain web/b"), "1too many others wait for this reload; nothing was changed");
    end_reload(1, "done");
    for (unsigned i = 0; i < WAITERS; i++)
        expect(waiters[i], "0done");
}

static void a_change_waits_until_nothing_is_being_built(void **state)
{
    f.is_building = true;
    int fd = client("drain web/b");
    until_waiting(1);
    assert_false(is_answered(fd));
    f.is_building = false;
    end_reload(1, "done");
    expect(fd, "1there is no pool 'web'; the pools are: ");
}

static void another_is_cut_when_the_oldest_begins_to_wait(void **state)
{
    int waiters[WAITERS - 1], silent[PLACES - WAITERS];
    fill(waiters, WAITERS - 1, "reload");
    until_waiting(WAITERS - 1);
    int oldest = client(NULL);
    settle();
    fill(silent, PLACES - WAITERS, NULL);
    assert_int_equal(send(oldest, "reload", 7, 0), 7);
    settle();
    int newcomer = client("nonsense");
    shutdown(oldest, SHUT_WR); /* seen in the same turn of the loop */
    until_waiting(WAITERS);
    assert_true(first_cut_in_ms() < VB_CTL_SILENCE_MS / 2); /* not just in its own time */
    expect(silent[0], NULL);
    expect(newcomer, "1this vibebalancer knows no command 'nonsense'; is vbctl of another version?");
    end_reload(1, "done");
    for (unsigned i = 0; i < WAITERS - 1; i++)
        expect(waiters[i], "0done");
    expect(oldest, "0done");
    for (unsigned i = 1; i < PLACES - WAITERS; i++)
        close(silent[i]);
}

static void who_still_waits_at_the_end_of_the_loop_is_let_go(void **state)
{
    int fd = client("reload");
    until_waiting(1);
    uv_walk(&f.master.loop, close_handle, NULL);
    end_reload(1, "too late");
    uv_run(&f.master.loop, UV_RUN_DEFAULT);
    vb_control_close(&f.master.control);
    expect(fd, NULL);
}

static void a_reload_needs_no_control_socket(void **state)
{
    struct vb_ctl_answer answer = {.done = true};
    vb_control_reloaded(NULL, 1, &answer);
}

static void reload_takes_no_argument_and_none_while_it_stops(void **state)
{
    int fd = client(NULL);
    assert_int_equal(send(fd, "reload\0x", 9, 0), 9);
    shutdown(fd, SHUT_WR);
    expect(fd, "1reload needs no argument");
    f.master.stopping = true;
    expect(client("reload"), "1this vibebalancer is stopping; nothing was changed");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(each_waits_for_its_own_reload),
        TEST(a_later_reload_answers_for_those_before),
        TEST(time_does_not_cut_who_waits),
        TEST(who_hangs_up_is_forgotten_at_once),
        TEST(newcomers_cut_nobody_who_waits),
        TEST(some_places_are_kept_from_those_who_wait),
        TEST(a_change_waits_until_nothing_is_being_built),
        TEST(another_is_cut_when_the_oldest_begins_to_wait),
        TEST(who_still_waits_at_the_end_of_the_loop_is_let_go),
        TEST(reload_takes_no_argument_and_none_while_it_stops),
        cmocka_unit_test(a_reload_needs_no_control_socket),
    };
    return cmocka_run_group_tests(tests, open_what_libuv_keeps, NULL);
}
