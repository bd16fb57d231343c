/* Listening on TCP: one instance has an address to itself, and nobody who knocked is sent away. */
#include "fixture.h"

#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "vb/addr.h"
#include "vb/listen.h"

#define SOCKETS 3

static struct sockaddr_in any_address(uint16_t port)
{
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_ANY)};
}

static struct sockaddr_in6 address_6(struct in6_addr ip, uint16_t port)
{
    return (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = ip};
}

static int open_beside(int joins, int *fds, unsigned n, const void *address, struct vb_error *err)
{
    char text[VB_ADDR_TEXT_MAX];
    const struct sockaddr *any = address;
    vb_addr_format(text, sizeof(text), any);
    err->text[0] = '\0';
    socklen_t length = any->sa_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
    return vb_listen_open(fds, n, joins, any, length, text, err);
}

static int open_one(int *fds, unsigned n, const void *address, struct vb_error *err)
{
    return open_beside(-1, fds, n, address, err);
}

static void open_good(int *fds, unsigned n, const void *address)
{
    struct vb_error err;
    if (open_one(fds, n, address, &err) != 0)
        fail_msg("%s", err.text);
}

static void close_all(int *fds, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        close(fds[i]);
}

/* A port that nobody has now, below those that the kernel hands out by itself to whoever runs beside this test. */
static uint16_t free_port(void)
{
    static unsigned next;
    unsigned low = 0;
    FILE *range = fopen("/proc/sys/net/ipv4/ip_local_port_range", "re");
    assert_non_null(range);
    assert_int_equal(fscanf(range, "%u", &low), 1);
    fclose(range);
    unsigned first = low > 12000 ? 10000 : 1024;
    if (next == 0)
        next = (unsigned)getpid() * 7919;
    for (unsigned tries = 0; tries < 1000; tries++) {
        uint16_t port = (uint16_t)(first + next++ % (low - first));
        struct sockaddr_in address = any_address(port);
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
        bool is_free = bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 1) == 0;
        close(fd);
        if (is_free)
            return port;
    }
    fail_msg("no free port");
    return 0;
}

/* The lowest descriptor that is free: it tells whether any was left open. */
static int lowest_free(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    close(fd);
    return fd;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static void all_sockets_of_an_address_are_served(void **state)
{
    int fds[SOCKETS];
    uint16_t port = free_port();
    struct sockaddr_in address = loopback(port);
    open_good(fds, SOCKETS, &address);
    unsigned waiting[SOCKETS] = {0}, total = 0;
    int clients[60];
    for (unsigned i = 0; i < VB_ARRAY_SIZE(clients); i++)
        clients[i] = connect_to(port);
    for (unsigned i = 0; i < SOCKETS; i++)
        for (int fd; (fd = accept4(fds[i], NULL, NULL, SOCK_CLOEXEC)) >= 0; close(fd))
            waiting[i]++;
    for (unsigned i = 0; i < SOCKETS; i++)
        total += waiting[i];
    assert_int_equal(total, VB_ARRAY_SIZE(clients));
    for (unsigned i = 0; i < SOCKETS; i++)
        assert_true(waiting[i] > 0); /* by chance one is left out in 3 of 10^11 runs */
    for (unsigned i = 0; i < VB_ARRAY_SIZE(clients); i++)
        close(clients[i]);
    close_all(fds, SOCKETS);
}

static void expect_refused(const void *address, const char *text)
{
    int fds[SOCKETS] = {-1, -1, -1}, lowest = lowest_free();
    struct vb_error err;
    char sentence[128];
    assert_int_equal(open_one(fds, SOCKETS, address, &err), -EADDRINUSE);
    snprintf(sentence, sizeof(sentence), "cannot listen on %s:", text);
    assert_memory_equal(err.text, sentence, strlen(sentence));
    assert_non_null(strstr(err.text, "another process"));
    assert_int_equal(lowest_free(), lowest);
}

/* `mine` is served; `other` meets it. */
static void check_clash(const void *mine, const void *other, unsigned n)
{
    int fds[SOCKETS];
    char text[VB_ADDR_TEXT_MAX];
    open_good(fds, n, mine);
    expect_refused(other, vb_addr_format(text, sizeof(text), other));
    close_all(fds, n);
    open_good(fds, n, other);
    close_all(fds, n);
}

/* Both would use SO_REUSEPORT, so the kernel alone would share the port out between them. */
static void a_second_instance_is_refused(void **state)
{
    uint16_t port = free_port();
    struct sockaddr_in one = loopback(port), all = any_address(port);
    struct sockaddr_in6 one_6 = address_6(in6addr_loopback, port), all_6 = address_6(in6addr_any, port);
    for (unsigned n = 1; n <= SOCKETS; n++) {
        check_clash(&one, &one, n);
        check_clash(&all, &all, n);
        check_clash(&all, &one, n);
        check_clash(&one, &all, n);
    }
    int probe = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (probe < 0 || bind(probe, (struct sockaddr *)&one_6, sizeof(one_6)) != 0) {
        print_message("no IPv6 here\n");
        return;
    }
    close(probe);
    check_clash(&one_6, &all_6, SOCKETS);
    check_clash(&all_6, &one_6, SOCKETS);
}

static void whoever_else_listens_there_is_respected(void **state)
{
    int plain = bound_socket();
    struct sockaddr_in address = loopback(port_of(plain));
    char text[VB_ADDR_TEXT_MAX];
    assert_int_equal(listen(plain, 1), 0);
    expect_refused(&address, vb_addr_format(text, sizeof(text), (struct sockaddr *)&address));
    close(plain);
}

static void ipv6_does_not_take_ipv4_too(void **state)
{
    uint16_t port = free_port();
    int v6[1], v4[1];
    struct sockaddr_in all = any_address(port);
    struct sockaddr_in6 all_6 = address_6(in6addr_any, port);
    struct vb_error err;
    if (open_one(v6, 1, &all_6, &err) != 0) {
        print_message("no IPv6 here\n");
        return;
    }
    open_good(v4, 1, &all);
    close_all(v6, 1);
    close_all(v4, 1);
}

static void an_address_of_another_machine_is_explained(void **state)
{
    struct sockaddr_in address = loopback(80);
    struct vb_error err;
    int fds[1] = {-1}, lowest = lowest_free();
    address.sin_addr.s_addr = htonl(0xc0000201); /* 192.0.2.1, for documentation (RFC 5737) */
    assert_int_equal(open_one(fds, 1, &address, &err), -EADDRNOTAVAIL);
    assert_string_equal(err.text, "cannot listen on 192.0.2.1:80: this machine does not have that address");
    assert_int_equal(lowest_free(), lowest);
}

/* Connections that were closed on our side leave TIME_WAIT behind: a restart must not wait for that. */
static void a_restart_can_listen_at_once(void **state)
{
    int fds[1];
    char byte;
    uint16_t port = free_port();
    struct sockaddr_in address = loopback(port);
    open_good(fds, 1, &address);
    int client = connect_to(port), accepted = accept4(fds[0], NULL, NULL, SOCK_CLOEXEC);
    assert_true(accepted >= 0);
    close(accepted);
    assert_int_equal(recv(client, &byte, 1, 0), 0);
    close(client);
    close_all(fds, 1);
    open_good(fds, 1, &address);
    close_all(fds, 1);
}

/* ---- starting at the same time, as several processes ------------------------------------------------------------- */

/* Waits for the gun, tries, reports, and if it won listens until all have tried. */
static void starter(uint16_t port, int gun, int done, int end)
{
    struct sockaddr_in address = loopback(port);
    struct vb_error err;
    char byte;
    int fds[SOCKETS];
    if (read(gun, &byte, 1) != 0)
        _exit(2);
    int r = open_one(fds, SOCKETS, &address, &err);
    byte = r == 0 ? 'W' : r == -EADDRINUSE ? 'B' : 'X';
    if (write(done, &byte, 1) != 1 || read(end, &byte, 1) != 0)
        _exit(2);
    _exit(0);
}

static unsigned winners_of_a_race(unsigned starters)
{
    int gun[2], done[2], end[2];
    uint16_t port = free_port();
    unsigned won = 0;
    pid_t pids[8];
    assert_int_equal(pipe(gun) | pipe(done) | pipe(end), 0);
    for (unsigned i = 0; i < starters; i++) {
        pids[i] = fork();
        assert_true(pids[i] >= 0);
        if (pids[i] == 0) {
            close(gun[1]);
            close(end[1]);
            starter(port, gun[0], done[1], end[0]);
        }
    }
    close(gun[1]);
    for (unsigned i = 0; i < starters; i++) {
        char byte = 0;
        assert_int_equal(read(done[0], &byte, 1), 1);
        assert_int_not_equal(byte, 'X');
        won += byte == 'W';
    }
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

/* None, where they meet in the middle of it: then both are told so. */
static void of_many_starters_at_most_one_wins(void **state)
{
    unsigned won = 0;
    for (unsigned round = 0; round < 60; round++) {
        unsigned winners = winners_of_a_race(8);
        assert_in_range(winners, 0, 1);
        won += winners;
    }
    assert_true(won > 0);
}

/* ---- joining ----------------------------------------------------------------------------------------------------- */

static void join_good(int beside, int *fds, unsigned n, const void *address)
{
    struct vb_error err;
    if (open_beside(beside, fds, n, address, &err) != 0)
        fail_msg("%s", err.text);
}

static void start_all(const int *fds, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(vb_listen_start(fds[i]), 0);
}

/* Connections that wait at these sockets; they are taken. */
static unsigned count_waiting(const int *fds, unsigned n)
{
    unsigned waiting = 0;
    for (unsigned i = 0; i < n; i++)
        for (int fd; (fd = accept4(fds[i], NULL, NULL, SOCK_CLOEXEC)) >= 0; close(fd))
            waiting++;
    return waiting;
}

static void connect_many(uint16_t port, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        close(connect_to(port));
}

/* As a reload does that brings more workers: nobody waits where nobody serves yet. */
static void who_joins_gets_nothing_before_the_start(void **state)
{
    int old[2], new[SOCKETS];
    uint16_t port = free_port();
    struct sockaddr_in address = loopback(port);
    open_good(old, 2, &address);
    join_good(old[0], new, SOCKETS, &address);
    connect_many(port, 60);
    assert_int_equal(count_waiting(old, 2), 60);
    start_all(old, 2); /* nothing happens to those that listen */
    start_all(new, SOCKETS);
    connect_many(port, 100);
    unsigned at_old = count_waiting(old, 2);
    assert_in_range(at_old, 1, 99);
    for (unsigned i = 0; i < SOCKETS; i++) {
        unsigned n = count_waiting(&new[i], 1);
        assert_true(n > 0); /* by chance one is left out in 1 of 10^9 runs */
        at_old += n;
    }
    assert_int_equal(at_old, 100);
    close_all(old, 2);
    expect_refused(&address, "127.0.0.1"); /* the address is still ours */
    connect_many(port, 10);
    assert_int_equal(count_waiting(new, SOCKETS), 10);
    close_all(new, SOCKETS);
}

/* A specific address in the place of a wildcard, and the other way round. */
static void who_joins_may_overlap(void **state)
{
    uint16_t port = free_port();
    struct sockaddr_in one = loopback(port), all = any_address(port);
    const struct sockaddr_in *pairs[][2] = {{&one, &all}, {&all, &one}};
    for (unsigned i = 0; i < VB_ARRAY_SIZE(pairs); i++) {
        int old[SOCKETS], new[SOCKETS];
        open_good(old, SOCKETS, pairs[i][0]);
        join_good(old[0], new, SOCKETS, pairs[i][1]);
        connect_many(port, 10);
        assert_int_equal(count_waiting(old, SOCKETS), 10);
        start_all(new, SOCKETS);
        close_all(old, SOCKETS);
        connect_many(port, 10);
        assert_int_equal(count_waiting(new, SOCKETS), 10);
        close_all(new, SOCKETS);
    }
}

static void who_joins_respects_others(void **state)
{
    int own[1], fds[SOCKETS];
    uint16_t port = free_port();
    struct sockaddr_in one = loopback(port), other = loopback(port), all = any_address(port);
    struct vb_error err;
    char sentence[128];
    open_good(own, 1, &one);
    other.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1);
    int plain = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(plain, (struct sockaddr *)&other, sizeof(other)), 0);
    assert_int_equal(listen(plain, 1), 0);
    int lowest = lowest_free();
    assert_int_equal(open_beside(own[0], fds, SOCKETS, &all, &err), -EADDRINUSE);
    snprintf(sentence, sizeof(sentence), "cannot listen on 0.0.0.0:%u: another process listens there", port);
    assert_string_equal(err.text, sentence);
    assert_int_equal(lowest_free(), lowest);
    close(plain);
    close(own[0]);
}

/* ---- accepting --------------------------------------------------------------------------------------------------- */

#define ACCEPTED_MAX 300

struct server {
    struct fixture *f;
    uint16_t port;
    int fd;
    struct vb_listener *listener;
    unsigned accepted, exhausted;
    int fds[ACCEPTED_MAX];
    uint16_t peer_port; /* of the last one */
    uint64_t exhausted_ms;
    int code;
};

static void on_accepted(void *owner, int fd, const struct sockaddr *peer)
{
    struct server *server = owner;
    assert_true(server->accepted < ACCEPTED_MAX);
    assert_int_equal(peer->sa_family, AF_INET);
    server->peer_port = ntohs(((const struct sockaddr_in *)peer)->sin_port);
    server->fds[server->accepted++] = fd;
}

static void on_exhausted(void *owner, int code)
{
    struct server *server = owner;
    server->exhausted++;
    server->exhausted_ms = vb_loop_now_ms(server->f->loop);
    server->code = code;
}

static const struct vb_listener_events events = {on_accepted, on_exhausted};

static void open_server(struct server *server, struct fixture *f)
{
    *server = (struct server){.f = f, .port = free_port()};
    struct sockaddr_in address = loopback(server->port);
    open_good(&server->fd, 1, &address);
    assert_int_equal(vb_listener_open(&server->listener, f->loop, server->fd, &events, server), 0);
    vb_listener_start(server->listener);
}

static void close_server(struct server *server)
{
    vb_listener_close(&server->listener, true);
    assert_null(server->listener);
    vb_listener_close(&server->listener, true); /* of NULL */
    close_all(server->fds, server->accepted);
    close(server->fd);
}

static int option(int fd, int level, int name)
{
    int value = -1;
    socklen_t length = sizeof(value);
    assert_int_equal(getsockopt(fd, level, name, &value, &length), 0);
    return value;
}

static void an_accepted_connection_is_ready_for_use(void **state)
{
    struct server server;
    open_server(&server, *state);
    int client = connect_to(server.port);
    RUN_UNTIL(server.f, server.accepted == 1);
    assert_int_equal(server.peer_port, port_of(client));
    assert_true((fcntl(server.fds[0], F_GETFL) & O_NONBLOCK) != 0);
    assert_true((fcntl(server.fds[0], F_GETFD) & FD_CLOEXEC) != 0);
    assert_int_not_equal(option(server.fds[0], IPPROTO_TCP, TCP_NODELAY), 0);
    assert_int_not_equal(option(server.fds[0], SOL_SOCKET, SO_KEEPALIVE), 0);
    close(client);
    close_server(&server);
}

static void a_burst_is_accepted_whole(void **state)
{
    struct server server;
    int clients[200];
    open_server(&server, *state);
    for (unsigned i = 0; i < VB_ARRAY_SIZE(clients); i++)
        clients[i] = connect_to(server.port);
    RUN_UNTIL(server.f, server.accepted == VB_ARRAY_SIZE(clients));
    assert_int_equal(server.exhausted, 0);
    close_all(clients, VB_ARRAY_SIZE(clients));
    close_server(&server);
}

static void closing_accepts_what_waits_and_leaves_the_socket_open(void **state)
{
    struct server server;
    int clients[100];
    open_server(&server, *state);
    for (unsigned i = 0; i < VB_ARRAY_SIZE(clients); i++)
        clients[i] = connect_to(server.port);
    vb_listener_close(&server.listener, true);
    assert_int_equal(server.accepted, VB_ARRAY_SIZE(clients));
    int late = connect_to(server.port); /* waits for whoever shares the socket */
    run_for_ms(server.f, 10);
    assert_int_equal(server.accepted, VB_ARRAY_SIZE(clients));
    int accepted = accept4(server.fd, NULL, NULL, SOCK_CLOEXEC);
    assert_true(accepted >= 0);
    close(accepted);
    close(late);
    close_all(clients, VB_ARRAY_SIZE(clients));
    close_server(&server);
}

static void nothing_is_accepted_before_the_start(void **state)
{
    struct server server = {.f = *state, .port = free_port()};
    struct sockaddr_in address = loopback(server.port);
    open_good(&server.fd, 1, &address);
    assert_int_equal(vb_listener_open(&server.listener, server.f->loop, server.fd, &events, &server), 0);
    int client = connect_to(server.port);
    run_for_ms(server.f, 10);
    assert_int_equal(server.accepted, 0);
    vb_listener_start(server.listener);
    RUN_UNTIL(server.f, server.accepted == 1);
    close(client);
    close_server(&server);
}

static void closing_may_leave_what_waits_to_others(void **state)
{
    struct server server;
    open_server(&server, *state);
    connect_many(server.port, 100);
    vb_listener_close(&server.listener, false);
    run_for_ms(server.f, 10);
    assert_int_equal(server.accepted, 0);
    assert_int_equal(count_waiting(&server.fd, 1), 100);
    close_server(&server);
}

/* As a worker finds it that was born when its listener had just been taken away: it must not spin. */
static void a_socket_that_was_shut_down(void **state)
{
    struct server server;
    unsigned turns = 0;
    open_server(&server, *state);
    shutdown(server.fd, SHUT_RD);
    run_for_ms(server.f, 5);
    for (uint64_t end = uv_hrtime() + 50 * 1000000; uv_hrtime() < end; turns++)
        turn(server.f);
    assert_true(turns <= 60); /* the fixture's timer ends one each millisecond */
    assert_int_equal(server.accepted + server.exhausted, 0);
    close_server(&server);
}

/* ---- no descriptors ---------------------------------------------------------------------------------------------- */

static struct rlimit descriptors;

static int setup_limited(void **state)
{
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &descriptors), 0);
    return setup(state);
}

static int teardown_limited(void **state)
{
    setrlimit(RLIMIT_NOFILE, &descriptors);
    return teardown(state);
}

/* From here on only so many more can be had. */
static void leave_descriptors(int more)
{
    struct rlimit few = {(rlim_t)(lowest_free() + more), descriptors.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
}

static void opening_leaves_nothing_open_when_descriptors_run_out(void **state)
{
    int fds[SOCKETS], lowest = lowest_free();
    struct sockaddr_in address = loopback(free_port());
    struct vb_error err;
    leave_descriptors(SOCKETS - 1);
    assert_int_equal(open_one(fds, SOCKETS, &address, &err), -EMFILE);
    assert_int_equal(lowest_free(), lowest);
    setrlimit(RLIMIT_NOFILE, &descriptors);
    open_good(fds, SOCKETS, &address);
    close_all(fds, SOCKETS);
}

/* Those who wait are not dropped, the loop does not spin, and once there are descriptors again all are served. */
static void a_listener_without_descriptors_rests_and_recovers(void **state)
{
    struct server server;
    int clients[10];
    open_server(&server, *state);
    for (unsigned i = 0; i < VB_ARRAY_SIZE(clients); i++)
        clients[i] = connect_to(server.port);
    leave_descriptors(3);
    RUN_UNTIL(server.f, server.exhausted == 1);
    uint64_t first = server.exhausted_ms;
    assert_int_equal(server.code, -EMFILE);
    assert_int_equal(server.accepted, 3);
    RUN_UNTIL(server.f, server.exhausted == 2);
    assert_true(server.exhausted_ms - first >= 100);
    assert_int_equal(server.accepted, 3);
    close(server.fds[--server.accepted]); /* one is enough for one */
    RUN_UNTIL(server.f, server.exhausted == 3);
    assert_int_equal(server.accepted, 3);
    setrlimit(RLIMIT_NOFILE, &descriptors);
    RUN_UNTIL(server.f, server.accepted == VB_ARRAY_SIZE(clients) - 1);
    unsigned closed = 0;
    char byte;
    for (unsigned i = 0; i < VB_ARRAY_SIZE(clients); i++) {
        ssize_t n = recv(clients[i], &byte, 1, MSG_DONTWAIT);
        assert_true(n == 0 || (n < 0 && errno == EAGAIN)); /* never reset */
        closed += n == 0;
    }
    assert_int_equal(closed, 1);
    close_all(clients, VB_ARRAY_SIZE(clients));
    close_server(&server);
}

static void closing_while_it_rests(void **state)
{
    struct server server;
    open_server(&server, *state);
    int client = connect_to(server.port);
    leave_descriptors(0);
    RUN_UNTIL(server.f, server.exhausted == 1);
    vb_listener_close(&server.listener, true);
    run_for_ms(server.f, 150);
    assert_int_equal(server.accepted, 0);
    assert_int_equal(server.exhausted, 2); /* closing tried once more, and nobody after that */
    setrlimit(RLIMIT_NOFILE, &descriptors);
    close(client);
    close_server(&server);
}

#define TEST(function)    cmocka_unit_test_setup_teardown(function, setup, teardown)
#define LIMITED(function) cmocka_unit_test_setup_teardown(function, setup_limited, teardown_limited)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(all_sockets_of_an_address_are_served),
        TEST(a_second_instance_is_refused),
        TEST(whoever_else_listens_there_is_respected),
        TEST(ipv6_does_not_take_ipv4_too),
        TEST(an_address_of_another_machine_is_explained),
        TEST(a_restart_can_listen_at_once),
        TEST(of_many_starters_at_most_one_wins),
        TEST(who_joins_gets_nothing_before_the_start),
        TEST(who_joins_may_overlap),
        TEST(who_joins_respects_others),
        TEST(an_accepted_connection_is_ready_for_use),
        TEST(nothing_is_accepted_before_the_start),
        TEST(closing_may_leave_what_waits_to_others),
        TEST(a_socket_that_was_shut_down),
        TEST(a_burst_is_accepted_whole),
        TEST(closing_accepts_what_waits_and_leaves_the_socket_open),
        LIMITED(opening_leaves_nothing_open_when_descriptors_run_out),
        LIMITED(a_listener_without_descriptors_rests_and_recovers),
        LIMITED(closing_while_it_rests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
