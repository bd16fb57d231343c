/*
 * A worker, as its master talks to it: when it accepts, from what, and when it leaves. Each is a process of its own;
 * its only backend has no address, so that its answers are errors, which are answers too.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "inherit.h"
#include "privileges.h"
#include "vb/inbox.h"
#include "vb/listen.h"
#include "vb/proc.h"
#include "vb/shm.h"

#define PATIENCE_MS 20000 /* a test that waits so long for something has failed */
#define WAITING     20    /* connections */

enum { TCP, UNIX, LISTENERS };
enum { TCP_SOCKETS = 2 };

struct fixture {
    char dir[32], path[64];
    struct vb_shm *shm;
    struct sockaddr_in tcp;
    struct sockaddr_un un;
    int sockets[TCP_SOCKETS + 1]; /* as `0,0,1` */
    int inbox[2];
    int config, nowhere;
    int control; /* -1: closed */
    pid_t pid;   /* -1: it has ended */
};

/* ---- the world of a worker --------------------------------------------------------------------------------------- */

static void open_sockets(struct fixture *f)
{
    struct vb_error err = {{0}};
    socklen_t length = sizeof(f->tcp);
    f->tcp = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    f->un = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(f->un.sun_path, sizeof(f->un.sun_path), "%s/socket", f->dir);
    if (vb_listen_open(&f->sockets[0], 1, -1, (struct sockaddr *)&f->tcp, sizeof(f->tcp), "tcp", &err) < 0 ||
        getsockname(f->sockets[0], (struct sockaddr *)&f->tcp, &length) < 0 ||
        vb_listen_open(&f->sockets[1], 1, f->sockets[0], (struct sockaddr *)&f->tcp, length, "tcp", &err) < 0 ||
        vb_listen_open(&f->sockets[2], 1, -1, (struct sockaddr *)&f->un, sizeof(f->un), "unix", &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(vb_listen_start(f->sockets[1]), 0);
}

/* The pool of the configuration is not the first in the segment: a former generation had another one. */
static void make_segment(struct fixture *f)
{
    struct vb_error err = {{0}};
    struct vb_backend_spec backend = {.name = "b", .address = "127.0.0.1:1", .weight = 1, .configured = true};
    snprintf(f->path, sizeof(f->path), "%s/segment", f->dir);
    if (vb_shm_create(&f->shm, f->path, "test", (struct vb_shm_capacity){.workers = 2, .backends = 4}, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(vb_shm_add_pool(f->shm, &(struct vb_pool_spec){"former", "magic", 0, 50}), 0);
    assert_int_equal(vb_shm_add_pool(f->shm, &(struct vb_pool_spec){"web", "magic", 0, 50}), 1);
    assert_int_equal(vb_shm_add_backend(f->shm, 1, &backend), 0);
    assert_int_equal(vb_shm_claim_worker(f->shm, 0, 1, false), 0);
}

static int make_config(const struct fixture *f, const char *pool)
{
    int fd = memfd_create("config", MFD_CLOEXEC);
    assert_true(dprintf(fd,
                        "listen: [\"127.0.0.1:%u\", \"unix:%s\"]\n"
                        "pools: {%s: {backends: [127.0.0.1:1], health: off}}\n"
                        "shutdown: {grace: 1h}\n",
                        ntohs(f->tcp.sin_port), f->un.sun_path, pool) > 0);
    return fd;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    snprintf(f->dir, sizeof(f->dir), "/tmp/vb-proc-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    signal(SIGPIPE, SIG_IGN);
    open_sockets(f);
    make_segment(f);
    f->config = make_config(f, "web");
    f->nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);
    f->control = f->pid = -1;
    assert_int_equal(vb_inbox_pair(f->inbox), 0);
    *state = f;
    return 0;
}

static void close_own(struct fixture *f)
{
    for (unsigned i = 0; i < TCP_SOCKETS; i++) {
        if (f->sockets[i] >= 0)
            close(f->sockets[i]);
        f->sockets[i] = -1;
    }
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    if (f->pid >= 0) {
        kill(f->pid, SIGKILL);
        waitpid(f->pid, NULL, 0);
    }
    if (f->control >= 0)
        close(f->control);
    vb_listen_unlink(f->sockets[TCP_SOCKETS], (struct sockaddr *)&f->un);
    close_own(f);
    close(f->sockets[TCP_SOCKETS]);
    close(f->inbox[0]);
    close(f->inbox[1]);
    close(f->config);
    close(f->nowhere);
    vb_shm_unlink(f->shm);
    vb_shm_close(&f->shm);
    int r = rmdir(f->dir);
    free(f);
    return r;
}

/* In the child: each where a worker looks for it. */
static void be_worker(const struct fixture *f, int control, const char *sockets)
{
    const int inherited[] = {control,       vb_shm_fd_for_workers(f->shm),
                             f->config,     f->nowhere,
                             f->sockets[0], f->sockets[1],
                             f->sockets[2], f->inbox[0],
                             f->inbox[1]};
    enum { COUNT = VB_ARRAY_SIZE(inherited), ASIDE = 100 };
    char *args[] = {"vibebalancer", VB_WORKER_WORD,   "0",        "0", "1", (char *)sockets,
                    "info",         VB_IDENTITY_KEPT, "test.yaml"};
    for (int i = 0; i < COUNT; i++)
        if (dup2(inherited[i], ASIDE + i) < 0)
            _exit(99);
    for (int i = 0; i < COUNT; i++)
        dup2(ASIDE + i, VB_FD_CONTROL + i);
    closefrom(VB_FD_CONTROL + COUNT);
    _exit(vb_worker_run(VB_ARRAY_SIZE(args), args));
}

static void start(struct fixture *f, const char *sockets)
{
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    f->pid = fork();
    assert_true(f->pid >= 0);
    if (f->pid == 0)
        be_worker(f, ends[1], sockets);
    close(ends[1]);
    f->control = ends[0];
}

static void tell(struct fixture *f, const char *messages)
{
    assert_int_equal(write(f->control, messages, strlen(messages)), (ssize_t)strlen(messages));
}

static void halt(struct fixture *f)
{
    int status;
    kill(f->pid, SIGSTOP);
    assert_int_equal(waitpid(f->pid, &status, WUNTRACED), f->pid);
    assert_true(WIFSTOPPED(status));
}

static void wait_readable(int fd, const char *what)
{
    if (poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, PATIENCE_MS) != 1)
        fail_msg("waited too long for %s", what);
}

static void expect_message(struct fixture *f, char expected)
{
    char message = 0;
    wait_readable(f->control, "a message");
    assert_int_equal(read(f->control, &message, 1), 1);
    assert_int_equal(message, expected);
}

static void start_ready(struct fixture *f)
{
    start(f, "0,0,1");
    expect_message(f, VB_CONTROL_READY);
}

static void expect_exit(struct fixture *f, int expected)
{
    char byte;
    int status;
    wait_readable(f->control, "the end");
    assert_int_equal(read(f->control, &byte, 1), 0);
    assert_int_equal(waitpid(f->pid, &status, 0), f->pid);
    f->pid = -1;
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), expected);
}

/* ---- its clients ------------------------------------------------------------------------------------------------- */

/* A descriptor, or a negative errno. */
static int try_connect(const struct fixture *f, unsigned listener)
{
    const struct sockaddr *address = listener == TCP ? (struct sockaddr *)&f->tcp : (struct sockaddr *)&f->un;
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    if (connect(fd, address, listener == TCP ? sizeof(f->tcp) : sizeof(f->un)) == 0)
        return fd;
    int r = -errno;
    close(fd);
    return r;
}

static int connect_good(const struct fixture *f, unsigned listener)
{
    int fd = try_connect(f, listener);
    if (fd < 0)
        fail_msg("connect: %s", strerror(-fd));
    return fd;
}

static void ask(int fd)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_int_equal(write(fd, request, sizeof(request) - 1), sizeof(request) - 1);
}

static int ask_new(const struct fixture *f, unsigned listener)
{
    int fd = connect_good(f, listener);
    ask(fd);
    return fd;
}

static void expect_closed(int fd)
{
    char byte;
    wait_readable(fd, "the end of a connection");
    assert_int_equal(read(fd, &byte, 1), 0);
    close(fd);
}

/* An answer comes; `closes`: the connection ends with it, and is told so. Else it is still there. */
static void expect_answer(int fd, bool closes)
{
    char text[2048];
    wait_readable(fd, "an answer");
    ssize_t n = read(fd, text, sizeof(text) - 1);
    assert_true(n > 0);
    text[n] = '\0';
    assert_memory_equal(text, "HTTP/1.1 502", 12); /* 503 would be: from a pool without backends */
    assert_true((strstr(text, "\r\nConnection: close\r\n") != NULL) == closes);
    if (closes)
        expect_closed(fd);
}

static unsigned count_waiting(const struct fixture *f)
{
    unsigned waiting = 0;
    for (unsigned i = 0; i < VB_ARRAY_SIZE(f->sockets); i++)
        for (int fd; (fd = accept4(f->sockets[i], NULL, NULL, SOCK_CLOEXEC)) >= 0; close(fd))
            waiting++;
    return waiting;
}

/* ---- tests ------------------------------------------------------------------------------------------------------- */

static void what_it_is_not_told_it_does_not_begin(void **state)
{
    struct fixture *f = *state;
    int clients[WAITING];
    for (unsigned i = 0; i < WAITING; i++)
        clients[i] = connect_good(f, i % LISTENERS);
    start_ready(f);
    tell(f, "q"); /* it must not wait for FINISH: nobody has given it anything */
    expect_message(f, VB_CONTROL_ACCEPTS_NO_MORE);
    expect_exit(f, VB_EXIT_DONE);
    assert_int_equal(count_waiting(f), WAITING);
    for (unsigned i = 0; i < WAITING; i++)
        close(clients[i]);
}

static void all_its_sockets_are_served(void **state)
{
    struct fixture *f = *state;
    start_ready(f);
    tell(f, "g");
    for (unsigned i = 0; i < WAITING; i++) {
        int client = ask_new(f, i % LISTENERS);
        expect_answer(client, false);
        close(client);
    }
}

/* The next generation serves the sockets: what waits there is its business, from the moment that it is told. */
static void who_retires_leaves_its_sockets_to_others(void **state)
{
    struct fixture *f = *state;
    int clients[WAITING];
    start_ready(f);
    tell(f, "g");
    int idle = ask_new(f, TCP);
    expect_answer(idle, false);
    tell(f, "q");
    expect_message(f, VB_CONTROL_ACCEPTS_NO_MORE);
    for (unsigned i = 0; i < WAITING; i++)
        clients[i] = connect_good(f, i % LISTENERS);
    expect_closed(idle);
    assert_int_equal(count_waiting(f), WAITING);
    close_own(f); /* others have ended: then it must not be what keeps a queue that nobody serves */
    assert_int_equal(try_connect(f, TCP), -ECONNREFUSED);
    tell(f, "f");
    expect_exit(f, VB_EXIT_DONE);
    for (unsigned i = 0; i < WAITING; i++)
        close(clients[i]);
}

/* A sibling may have given it a connection before that one was told to retire too. */
static void until_finish_it_serves_what_others_give_it(void **state)
{
    struct fixture *f = *state;
    start_ready(f);
    tell(f, "gq");
    expect_message(f, VB_CONTROL_ACCEPTS_NO_MORE);
    for (unsigned i = 0; i < 3; i++) {
        int client = ask_new(f, TCP), given = -1;
        for (unsigned s = 0; s < TCP_SOCKETS && given < 0; s++)
            given = accept4(f->sockets[s], NULL, NULL, SOCK_CLOEXEC);
        assert_true(given >= 0);
        assert_int_equal(vb_inbox_put(f->inbox[1], given, TCP), 0);
        close(given);
        if (i == 2)
            tell(f, "f"); /* at once: it takes what is there */
        expect_answer(client, true);
    }
    expect_exit(f, VB_EXIT_DONE);
}

/* Of one listener, while it serves the others. The message may come in two parts. */
static void a_listener_that_is_closed_is_emptied_first(void **state)
{
    struct fixture *f = *state;
    for (unsigned listener = 0; listener < LISTENERS; listener++) {
        int clients[WAITING];
        char number[] = {(char)listener};
        unsigned other = !listener;
        start_ready(f);
        tell(f, "gx");
        for (unsigned i = 0; i < 2; i++) { /* by now it has read that much */
            int client = ask_new(f, other);
            expect_answer(client, false);
            close(client);
        }
        halt(f);
        for (unsigned i = 0; i < WAITING; i++)
            clients[i] = ask_new(f, listener);
        assert_int_equal(write(f->control, number, 1), 1);
        kill(f->pid, SIGCONT);
        for (unsigned i = 0; i < WAITING; i++)
            expect_answer(clients[i], false);
        tell(f, "q"); /* its answer tells that the message before was obeyed */
        expect_message(f, VB_CONTROL_ACCEPTS_NO_MORE);
        assert_int_equal(try_connect(f, listener), -ECONNREFUSED);
        close(connect_good(f, other));
        for (unsigned i = 0; i < WAITING; i++)
            expect_closed(clients[i]);
        tell(f, "f");
        expect_exit(f, VB_EXIT_DONE);
        close(f->control);
        if (listener == TCP) { /* both of its sockets were shut down */
            assert_int_equal(vb_listen_start(f->sockets[0]), 0);
            assert_int_equal(vb_listen_start(f->sockets[1]), 0);
        }
    }
    f->control = -1;
}

/* While it still finishes another instance may want it. */
static void an_address_that_was_given_up_is_free(void **state)
{
    struct fixture *f = *state;
    start_ready(f);
    tell(f, "gd");
    expect_message(f, VB_CONTROL_ACCEPTS_NO_MORE);
    close_own(f);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&f->tcp, sizeof(f->tcp)), 0);
    close(fd);
    tell(f, "f");
    expect_exit(f, VB_EXIT_DONE);
}

/* All stop: whoever waits is served, and nobody else can come. */
static void who_drains_takes_what_waits(void **state)
{
    struct fixture *f = *state;
    int clients[WAITING];
    start_ready(f);
    tell(f, "g");
    int client = ask_new(f, TCP);
    expect_answer(client, false);
    halt(f);
    for (unsigned i = 0; i < WAITING; i++)
        clients[i] = ask_new(f, i % LISTENERS);
    tell(f, "d");
    kill(f->pid, SIGCONT);
    for (unsigned i = 0; i < WAITING; i++)
        expect_answer(clients[i], true);
    expect_closed(client);
    expect_message(f, VB_CONTROL_ACCEPTS_NO_MORE);
    assert_int_equal(try_connect(f, TCP), -ECONNREFUSED);
    assert_int_equal(try_connect(f, UNIX), -ECONNREFUSED);
    tell(f, "f");
    expect_exit(f, VB_EXIT_DONE);
}

/* A stop in the middle of the start. */
static void who_drains_before_it_was_told_to_serve_takes_what_waits(void **state)
{
    struct fixture *f = *state;
    int clients[WAITING];
    for (unsigned i = 0; i < WAITING; i++)
        clients[i] = ask_new(f, i % LISTENERS);
    start_ready(f);
    tell(f, "d");
    for (unsigned i = 0; i < WAITING; i++)
        expect_answer(clients[i], true);
    expect_message(f, VB_CONTROL_ACCEPTS_NO_MORE);
    expect_exit(f, VB_EXIT_DONE);
}

static void without_its_master_it_finishes(void **state)
{
    struct fixture *f = *state;
    start_ready(f);
    tell(f, "g");
    int client = ask_new(f, TCP), status;
    expect_answer(client, false);
    close(f->control);
    f->control = -1;
    expect_closed(client);
    assert_int_equal(waitpid(f->pid, &status, 0), f->pid);
    f->pid = -1;
    assert_int_equal(status, 0);
}

/* In each phase; the grace is an hour. */
static void a_cut_is_the_end(void **state)
{
    static const char *const before[] = {"", "g", "gq", "gqf"};
    struct fixture *f = *state;
    for (unsigned i = 0; i < VB_ARRAY_SIZE(before); i++) {
        int client = -1;
        start_ready(f);
        if (i > 0) { /* it begins a request that has no end */
            tell(f, "g");
            client = ask_new(f, TCP);
            expect_answer(client, false);
            assert_int_equal(write(client, "GET", 3), 3);
            tell(f, before[i] + 1);
        }
        if (i > 1)
            expect_message(f, VB_CONTROL_ACCEPTS_NO_MORE);
        tell(f, "c");
        expect_exit(f, VB_EXIT_DONE);
        close(f->control);
        if (client >= 0)
            close(client);
    }
    f->control = -1;
}

static void a_pool_that_is_not_there(void **state)
{
    struct fixture *f = *state;
    close(f->config);
    f->config = make_config(f, "elsewhere");
    start(f, "0,0,1");
    expect_exit(f, VB_EXIT_FAILED);
}

static void sockets_that_are_none(void **state)
{
    static const char *const wrong[] = {"", ",", "0,", "0,,1", "0,1,", "0,x", "0,-1", "0, 1", "0,64"};
    struct fixture *f = *state;
    for (unsigned i = 0; i < VB_ARRAY_SIZE(wrong); i++) {
        start(f, wrong[i]);
        expect_exit(f, VB_EXIT_USAGE);
        close(f->control);
    }
    start(f, "0,2,1");
    expect_exit(f, VB_EXIT_FAILED);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_it_is_not_told_it_does_not_begin),
        TEST(all_its_sockets_are_served),
        TEST(who_retires_leaves_its_sockets_to_others),
        TEST(until_finish_it_serves_what_others_give_it),
        TEST(a_listener_that_is_closed_is_emptied_first),
        TEST(an_address_that_was_given_up_is_free),
        TEST(who_drains_takes_what_waits),
        TEST(who_drains_before_it_was_told_to_serve_takes_what_waits),
        TEST(without_its_master_it_finishes),
        TEST(a_cut_is_the_end),
        TEST(a_pool_that_is_not_there),
        TEST(sockets_that_are_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
