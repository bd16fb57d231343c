/* Listening on unix sockets: whose file it is, what a dead instance leaves, and several who accept from one socket. */
#include "fixture.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "vb/listen.h"

#define SOCKETS 3

static int open_at(const struct sockaddr_un *address, int *fds, unsigned n, struct vb_error *err)
{
    char text[sizeof(address->sun_path) + 8];
    snprintf(text, sizeof(text), "unix:%s", address->sun_path);
    err->text[0] = '\0';
    return vb_listen_open(fds, n, -1, (const struct sockaddr *)address, sizeof(*address), text, err);
}

static void open_good(const struct sockaddr_un *address, int *fds, unsigned n)
{
    struct vb_error err;
    if (open_at(address, fds, n, &err) != 0)
        fail_msg("%s", err.text);
}

static void close_all(int *fds, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        close(fds[i]);
}

static void stop(const struct sockaddr_un *address, int *fds, unsigned n)
{
    vb_listen_unlink(fds[0], (const struct sockaddr *)address);
    close_all(fds, n);
}

static bool exists(const struct sockaddr_un *address)
{
    struct stat st;
    return lstat(address->sun_path, &st) == 0;
}

/* A descriptor, or a negative errno. */
static int try_connect(const struct sockaddr_un *address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0)
        return fd;
    int r = -errno;
    close(fd);
    return r;
}

static int connect_good(const struct sockaddr_un *address)
{
    int fd = try_connect(address);
    assert_true(fd >= 0);
    return fd;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static void all_descriptors_are_of_one_socket(void **state)
{
    struct sockaddr_un address = unix_address(*state, "s");
    int fds[SOCKETS];
    struct stat st;
    mode_t before = umask(0077);
    open_good(&address, fds, SOCKETS);
    assert_int_equal(umask(before), 0077); /* it is as it was */
    assert_int_equal(lstat(address.sun_path, &st), 0);
    assert_int_equal(st.st_mode, S_IFSOCK | 0666);
    for (unsigned i = 0; i < SOCKETS; i++) {
        int client = connect_good(&address), accepted = accept4(fds[i], NULL, NULL, SOCK_CLOEXEC);
        assert_true(accepted >= 0);
        assert_true((fcntl(fds[i], F_GETFD) & FD_CLOEXEC) != 0);
        assert_true((fcntl(fds[i], F_GETFL) & O_NONBLOCK) != 0);
        close(client);
        close(accepted);
    }
    stop(&address, fds, SOCKETS);
    assert_false(exists(&address));
}

static void expect_refused(const struct sockaddr_un *address, int code, const char *part)
{
    int fds[SOCKETS];
    struct vb_error err;
    assert_int_equal(open_at(address, fds, SOCKETS, &err), code);
    assert_memory_equal(err.text, "cannot listen on unix:/", 23);
    if (strstr(err.text, part) == NULL)
        fail_msg("'%s' does not say '%s'", err.text, part);
}

/* As a reload does that brings more workers. */
static void who_joins_gets_the_same_socket(void **state)
{
    struct sockaddr_un address = unix_address(*state, "s");
    int first, more[SOCKETS];
    struct vb_error err;
    open_good(&address, &first, 1);
    int client = connect_good(&address);
    assert_int_equal(vb_listen_open(more, SOCKETS, first, (struct sockaddr *)&address, sizeof(address), "unix:s", &err),
                     0);
    close(first);
    for (unsigned i = 0; i < SOCKETS; i++) {
        assert_true((fcntl(more[i], F_GETFD) & FD_CLOEXEC) != 0);
        assert_int_equal(vb_listen_start(more[i]), 0);
        int accepted = accept4(more[i], NULL, NULL, SOCK_CLOEXEC); /* the first of them: who waited already */
        assert_true(accepted >= 0);
        close(accepted);
        close(client);
        client = connect_good(&address);
    }
    close(client);
    expect_refused(&address, -EADDRINUSE, "another process listens there");
    stop(&address, more, SOCKETS);
    assert_false(exists(&address));
}

static void a_private_one_is_its_owners(void **state)
{
    struct sockaddr_un address = unix_address(*state, "s");
    struct vb_error err;
    struct stat st;
    int fd, other;
    mode_t before = umask(0);
    assert_int_equal(vb_listen_open_private(&fd, &address, &err), 0);
    assert_int_equal(umask(before), 0);
    assert_int_equal(lstat(address.sun_path, &st), 0);
    assert_int_equal(st.st_mode, S_IFSOCK | 0600);
    assert_true((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    close(connect_good(&address));
    assert_int_equal(vb_listen_open_private(&other, &address, &err), -EADDRINUSE);
    assert_non_null(strstr(err.text, address.sun_path));
    stop(&address, &fd, 1);
    assert_false(exists(&address));
}

static void a_second_instance_is_refused(void **state)
{
    struct sockaddr_un address = unix_address(*state, "s");
    int fds[SOCKETS];
    open_good(&address, fds, SOCKETS);
    expect_refused(&address, -EADDRINUSE, "another process listens there");
    close_all(fds, SOCKETS - 1);
    expect_refused(&address, -EADDRINUSE, "another process listens there");
    int client = connect_good(&address); /* the first one has not noticed */
    close(client);
    stop(&address, fds + SOCKETS - 1, 1);
}

static void whoever_else_listens_there_is_respected(void **state)
{
    static const int types[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET};
    struct sockaddr_un address = unix_address(*state, "s");
    for (unsigned i = 0; i < VB_ARRAY_SIZE(types); i++) {
        int other = socket(AF_UNIX, types[i] | SOCK_CLOEXEC, 0), waiting = -1;
        assert_int_equal(bind(other, (struct sockaddr *)&address, sizeof(address)), 0);
        if (types[i] != SOCK_DGRAM)
            assert_int_equal(listen(other, 0), 0);
        if (types[i] == SOCK_STREAM)
            waiting = connect_good(&address); /* its queue is full now */
        expect_refused(&address, -EADDRINUSE, "another process listens there");
        assert_true(exists(&address));
        close(other);
        if (waiting >= 0)
            close(waiting);
        unlink(address.sun_path);
    }
}

static void what_a_dead_instance_left_is_replaced(void **state)
{
    struct sockaddr_un address = unix_address(*state, "s");
    int fds[SOCKETS];
    for (unsigned round = 0; round < 3; round++) {
        open_good(&address, fds, SOCKETS);
        int client = connect_good(&address);
        close(client);
        close_all(fds, SOCKETS); /* as a kill does */
        assert_true(exists(&address));
        assert_int_equal(try_connect(&address), -ECONNREFUSED);
    }
    open_good(&address, fds, SOCKETS);
    stop(&address, fds, SOCKETS);
}

static void what_is_no_socket_is_left_alone(void **state)
{
    struct sockaddr_un address = unix_address(*state, "s");
    char text[8] = {0};
    int fd = open(address.sun_path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    assert_int_equal(write(fd, "diary", 5), 5);
    expect_refused(&address, -ENOTSOCK, "no socket has that name; remove it yourself");
    assert_int_equal(pread(fd, text, sizeof(text), 0), 5);
    close(fd);
    assert_true(exists(&address));
    unlink(address.sun_path);

    assert_int_equal(symlink("/tmp/elsewhere", address.sun_path), 0);
    expect_refused(&address, -ENOTSOCK, "no socket");
    assert_true(exists(&address));
    unlink(address.sun_path);

    assert_int_equal(mkdir(address.sun_path, 0700), 0);
    expect_refused(&address, -ENOTSOCK, "no socket");
    rmdir(address.sun_path);
}

static void directories_that_cannot_be_used(void **state)
{
    struct fixture *f = *state;
    struct sockaddr_un address = unix_address(f, "none/s");
    expect_refused(&address, -ENOENT, "its directory does not exist");
    address = unix_address(f, "file/s");
    char *slash = strrchr(address.sun_path, '/');
    *slash = '\0';
    close(open(address.sun_path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    *slash = '/';
    expect_refused(&address, -ENOTDIR, "directory");
    *slash = '\0';
    unlink(address.sun_path);

    address = unix_address(f, "s");
    chmod(f->dir, 0500);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct vb_error err;
        int fds[1];
        if (geteuid() == 0 && (chmod(f->dir, 0755) != 0 || setuid(12345) != 0))
            _exit(1);
        bool said = open_at(&address, fds, 1, &err) == -EACCES && strstr(err.text, "no permission") != NULL;
        _exit(said ? 0 : 2);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    chmod(f->dir, 0700);
}

static void opening_leaves_nothing_when_descriptors_run_out(void **state)
{
    struct sockaddr_un address = unix_address(*state, "s");
    struct rlimit before, few;
    struct vb_error err;
    int fds[SOCKETS], lowest = open("/dev/null", O_RDONLY | O_CLOEXEC);
    close(lowest);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    for (int more = 0; more <= SOCKETS; more++) { /* one more for its directory */
        few = (struct rlimit){(rlim_t)(lowest + more), before.rlim_max};
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
        assert_int_equal(open_at(&address, fds, SOCKETS, &err), -EMFILE);
        setrlimit(RLIMIT_NOFILE, &before);
        int now = open("/dev/null", O_RDONLY | O_CLOEXEC);
        assert_int_equal(now, lowest);
        close(now);
    }
    assert_false(exists(&address));
}

/* One starter: waits for the gun, tries, reports, and if it won holds on until all have tried. */
static void starter(const struct sockaddr_un *address, int gun, int done, int end)
{
    struct vb_error err;
    char byte;
    int fd = -1;
    if (read(gun, &byte, 1) != 0)
        _exit(2);
    int r = open_at(address, &fd, 1, &err);
    byte = r == 0 ? 'W' : r == -EADDRINUSE ? 'B' : 'X';
    if (write(done, &byte, 1) != 1 || read(end, &byte, 1) != 0)
        _exit(2);
    _exit(0); /* as if killed: the next round has something to replace */
}

static unsigned winners_of_a_race(const struct sockaddr_un *address, unsigned starters)
{
    int gun[2], done[2], end[2];
    unsigned won = 0;
    pid_t pids[16];
    assert_int_equal(pipe(gun) | pipe(done) | pipe(end), 0);
    for (unsigned i = 0; i < starters; i++) {
        pids[i] = fork();
        assert_true(pids[i] >= 0);
        if (pids[i] == 0) {
            close(gun[1]);
            close(end[1]);
            starter(address, gun[0], done[1], end[0]);
        }
    }
    close(gun[1]);
    for (unsigned i = 0; i < starters; i++) {
        char byte = 0;
        assert_int_equal(read(done[0], &byte, 1), 1);
        assert_int_not_equal(byte, 'X');
        won += byte == 'W';
    }
    int client = try_connect(address); /* and the one that won is the one that is found */
    assert_true(client >= 0);
    close(client);
    close(end[1]);
    for (unsigned i = 0; i < starters; i++) {
        int status;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
    close(gun[0]);
    close(done[0]);
    close(done[1]);
    close(end[0]);
    return won;
}

static void only_one_of_many_starters_wins(void **state)
{
    struct sockaddr_un address = unix_address(*state, "s");
    for (unsigned round = 0; round < 60; round++)
        assert_int_equal(winners_of_a_race(&address, 8), 1);
    unlink(address.sun_path);
}

/* ---- the end of the file ----------------------------------------------------------------------------------------- */

static void unlinking_spares_a_successor(void **state)
{
    struct sockaddr_un address = unix_address(*state, "s");
    int first, second;
    open_good(&address, &first, 1);
    assert_int_equal(unlink(address.sun_path), 0); /* somebody removed the file under us, and another instance began */
    open_good(&address, &second, 1);
    vb_listen_unlink(first, (struct sockaddr *)&address);
    int client = connect_good(&address);
    close(client);
    close(first);
    stop(&address, &second, 1);
    assert_false(exists(&address));
}

static void unlinking_spares_what_is_no_socket(void **state)
{
    struct sockaddr_un address = unix_address(*state, "s");
    int fd;
    open_good(&address, &fd, 1);
    unlink(address.sun_path);
    close(open(address.sun_path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    stop(&address, &fd, 1);
    assert_true(exists(&address));
    unlink(address.sun_path);
}

static void unlinking_ends_all_who_share_it(void **state)
{
    struct sockaddr_un address = unix_address(*state, "s");
    int fds[SOCKETS];
    open_good(&address, fds, SOCKETS);
    struct sockaddr_un link_address = unix_address(*state, "other");
    assert_int_equal(link(address.sun_path, link_address.sun_path), 0); /* so that it can still be found */
    vb_listen_unlink(fds[1], (struct sockaddr *)&address);
    assert_false(exists(&address));
    assert_int_equal(try_connect(&link_address), -ECONNREFUSED);
    unlink(link_address.sun_path);
    close_all(fds, SOCKETS);
}

static void other_addresses_have_no_file(void **state)
{
    struct sockaddr_in address = loopback(0);
    int fd = bound_socket();
    assert_int_equal(listen(fd, 1), 0);
    vb_listen_unlink(fd, (struct sockaddr *)&address);
    int client = connect_to(port_of(fd));
    close(client);
    close(fd);
}

/* ---- accepting --------------------------------------------------------------------------------------------------- */

struct server {
    struct vb_listener *listener;
    unsigned accepted;
};

static void on_accepted(void *owner, int fd, const struct sockaddr *peer)
{
    struct server *server = owner;
    assert_int_equal(peer->sa_family, AF_UNIX);
    assert_true((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
    assert_true((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    server->accepted++;
    close(fd);
}

static void on_exhausted(void *owner, int code)
{
    fail_msg("exhausted: %d", code);
}

static const struct vb_listener_events events = {on_accepted, on_exhausted};

static void open_servers(struct fixture *f, struct server *servers, int *fds)
{
    struct sockaddr_un address = unix_address(f, "s");
    open_good(&address, fds, SOCKETS);
    for (unsigned i = 0; i < SOCKETS; i++) {
        servers[i].accepted = 0;
        assert_int_equal(vb_listener_open(&servers[i].listener, f->loop, fds[i], &events, &servers[i]), 0);
        vb_listener_start(servers[i].listener);
    }
}

static unsigned all_accepted(const struct server *servers)
{
    unsigned n = 0;
    for (unsigned i = 0; i < SOCKETS; i++)
        n += servers[i].accepted;
    return n;
}

static void several_accept_from_one_socket(void **state)
{
    struct fixture *f = *state;
    struct sockaddr_un address = unix_address(f, "s");
    struct server servers[SOCKETS];
    int fds[SOCKETS], clients[150];
    open_servers(f, servers, fds);
    for (unsigned i = 0; i < VB_ARRAY_SIZE(clients); i++)
        clients[i] = connect_good(&address);
    RUN_UNTIL(f, all_accepted(servers) == VB_ARRAY_SIZE(clients));
    vb_listener_close(&servers[0].listener, true);
    int late = connect_good(&address); /* the others go on */
    RUN_UNTIL(f, all_accepted(servers) == VB_ARRAY_SIZE(clients) + 1);
    close(late);
    close_all(clients, VB_ARRAY_SIZE(clients));
    for (unsigned i = 1; i < SOCKETS; i++)
        vb_listener_close(&servers[i].listener, true);
    stop(&address, fds, SOCKETS);
}

/* As a worker drains: nobody new, and whoever waits is accepted. The other workers neither spin nor fail. */
static void a_socket_that_was_shut_down(void **state)
{
    struct fixture *f = *state;
    struct sockaddr_un address = unix_address(f, "s");
    struct server servers[SOCKETS];
    int fds[SOCKETS], clients[150];
    open_servers(f, servers, fds);
    for (unsigned i = 0; i < VB_ARRAY_SIZE(clients); i++)
        clients[i] = connect_good(&address);
    shutdown(fds[0], SHUT_RD);
    assert_int_equal(try_connect(&address), -ECONNREFUSED);
    vb_listener_close(&servers[0].listener, true);
    assert_int_equal(servers[0].accepted, VB_ARRAY_SIZE(clients));
    close(fds[0]);
    assert_int_equal(try_connect(&address), -ECONNREFUSED);
    run_for_ms(f, 5);
    unsigned turns = 0;
    for (uint64_t end = uv_hrtime() + 50 * 1000000; uv_hrtime() < end; turns++)
        turn(f);
    assert_true(turns <= 60); /* the fixture's timer ends one each millisecond */
    for (unsigned i = 1; i < SOCKETS; i++)
        vb_listener_close(&servers[i].listener, true);
    assert_int_equal(all_accepted(servers), VB_ARRAY_SIZE(clients));
    close_all(clients, VB_ARRAY_SIZE(clients));
    stop(&address, fds + 1, SOCKETS - 1);
    assert_false(exists(&address));
}

/* As the master does it where the new file has it no more: the workers that still serve it lose nobody. */
static void a_socket_that_was_unlinked_is_emptied(void **state)
{
    struct fixture *f = *state;
    struct sockaddr_un address = unix_address(f, "s");
    struct server servers[SOCKETS];
    int fds[SOCKETS], clients[200]; /* one accepts up to 64 in a turn */
    open_servers(f, servers, fds);
    for (unsigned i = 0; i < VB_ARRAY_SIZE(clients); i++)
        clients[i] = connect_good(&address);
    vb_listen_unlink(fds[0], (struct sockaddr *)&address);
    assert_int_equal(try_connect(&address), -ENOENT);
    vb_listener_close(&servers[0].listener, false);
    vb_listener_close(&servers[1].listener, false);
    RUN_UNTIL(f, all_accepted(servers) == VB_ARRAY_SIZE(clients));
    vb_listener_close(&servers[2].listener, true);
    close_all(clients, VB_ARRAY_SIZE(clients));
    close_all(fds, SOCKETS);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup_unix, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(all_descriptors_are_of_one_socket),     TEST(a_private_one_is_its_owners),
        TEST(a_second_instance_is_refused),          TEST(whoever_else_listens_there_is_respected),
        TEST(what_a_dead_instance_left_is_replaced), TEST(what_is_no_socket_is_left_alone),
        TEST(directories_that_cannot_be_used),       TEST(opening_leaves_nothing_when_descriptors_run_out),
        TEST(only_one_of_many_starters_wins),        TEST(unlinking_spares_a_successor),
        TEST(unlinking_spares_what_is_no_socket),    TEST(unlinking_ends_all_who_share_it),
        TEST(other_addresses_have_no_file),          TEST(several_accept_from_one_socket),
        TEST(a_socket_that_was_shut_down),           TEST(who_joins_gets_the_same_socket),
        TEST(a_socket_that_was_unlinked_is_emptied),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
