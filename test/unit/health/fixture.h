/*
 * A segment, its health thread, and backends that are sockets of the test. The test is the master's main thread: it
 * changes the segment and calls vb_health_update. Names are resolved as the test says.
 */
#ifndef VB_TEST_HEALTH_FIXTURE_H
#define VB_TEST_HEALTH_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vb/clock.h"
#include "vb/health.h"
#include "vb/log.h"
#include "vb/str.h"

#define PATIENCE_US 20000000ull /* a test that waits so long for something has failed */

/* slow: a check an hour, so that each that is made has a cause. fast: for what must go on or come to an end. */
enum { SLOW, FAST, HTTP, OFF };
static const char conf_text[] =
    "listen: 80\n"
    "pools:\n"
    "  slow: {backends: [a:1], health: {interval: 1h, fast_interval: 1h, timeout: 1h, rise: 3, fall: 3}}\n"
    "  fast: {backends: [a:1], health: {interval: 10ms, fast_interval: 10ms, timeout: 10s, rise: 2, fall: 2}}\n"
    "  http: {backends: [a:1], health: {path: /, interval: 1h, timeout: 1h}}\n"
    "  off: {backends: [a:1], health: off}\n"
    "routes: [{host: a, pool: slow}, {host: b, pool: fast}, {host: c, pool: http}, {host: d, pool: off}]\n";

struct fixture {
    char dir[32], path[64];
    struct vb_conf *conf;
    struct vb_shm *shm;
    struct vb_health *health;
    vb_u32 looks; /* how often `looked` was called */
    bool
        may_look_up; /* names when it is stopped: then the thread leaves something behind, for the end of the process */
};

/* ---- the resolver: libuv calls these instead of the system's ------------------------------------------------------*/

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool blocked;
    in_addr_t address; /* of every name; 0: it does not resolve */
    unsigned asked;
} resolver = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, 0, 0};

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **ret)
{
    pthread_mutex_lock(&resolver.lock);
    resolver.asked++;
    while (resolver.blocked)
        pthread_cond_wait(&resolver.changed, &resolver.lock);
    in_addr_t address = resolver.address;
    pthread_mutex_unlock(&resolver.lock);
    if (address == 0)
        return EAI_NONAME;
    struct both {
        struct addrinfo info;
        struct sockaddr_in address;
    } *both = calloc(1, sizeof(*both));
    assert_non_null(both);
    both->address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = address};
    both->info = (struct addrinfo){.ai_family = AF_INET,
                                   .ai_socktype = SOCK_STREAM,
                                   .ai_addrlen = sizeof(both->address),
                                   .ai_addr = (struct sockaddr *)&both->address};
    *ret = &both->info;
    return 0;
}

void freeaddrinfo(struct addrinfo *info)
{
    free(info);
}

static inline void resolve_to(const char *address, bool blocked)
{
    pthread_mutex_lock(&resolver.lock);
    resolver.address = address != NULL ? inet_addr(address) : 0;
    resolver.blocked = blocked;
    pthread_cond_broadcast(&resolver.changed);
    pthread_mutex_unlock(&resolver.lock);
}

static inline unsigned times_asked(void)
{
    pthread_mutex_lock(&resolver.lock);
    unsigned asked = resolver.asked;
    pthread_mutex_unlock(&resolver.lock);
    return asked;
}

/* ---- waiting ------------------------------------------------------------------------------------------------------*/

#define WAIT_UNTIL(condition)                                                                                          \
    do {                                                                                                               \
        uint64_t begun_ = vb_clock_us();                                                                               \
        while (!(condition)) {                                                                                         \
            if (vb_clock_us() - begun_ > PATIENCE_US)                                                                  \
                fail_msg("waited too long for " #condition);                                                           \
            usleep(500);                                                                                               \
        }                                                                                                              \
    } while (0)

/* ---- segment and thread -------------------------------------------------------------------------------------------*/

static inline void note_look(void *arg)
{
    struct fixture *f = arg;
    atomic_fetch_add(&f->looks, 1);
}

static inline int setup(void **state)
{
    static const struct vb_shm_capacity capacity = {.workers = 1, .backends = 64};
    static const char *const pools[] = {"slow", "fast", "http", "off"};
    struct vb_error err = {{0}};
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    snprintf(f->dir, sizeof(f->dir), "/tmp/vb-health-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->path, sizeof(f->path), "%s/segment", f->dir);
    signal(SIGPIPE, SIG_IGN); /* as the program does */
    vb_log_open(STDERR_FILENO, "test", VB_LOG_ERROR);
    resolve_to(NULL, false);
    assert_int_equal(vb_conf_parse("f", conf_text, sizeof(conf_text) - 1, stderr, &f->conf), 0);
    if (vb_shm_create(&f->shm, f->path, "test", capacity, &err) != 0)
        fail_msg("%s", err.text);
    for (unsigned i = 0; i < VB_ARRAY_SIZE(pools); i++)
        assert_int_equal(vb_shm_add_pool(f->shm, &(struct vb_pool_spec){pools[i], "round_robin", 0, 50}), (int)i);
    assert_int_equal(vb_health_open(&f->health, f->shm, note_look, f), 0);
    for (unsigned i = 0; i < VB_ARRAY_SIZE(pools); i++)
        assert_int_equal(vb_health_set_rules(f->health, i, &f->conf->pools[i].health), 0);
    *state = f;
    return 0;
}

static inline int teardown(void **state)
{
    struct fixture *f = *state;
    resolve_to(NULL, false); /* a thread that waits there could not be joined */
    bool clean = vb_health_stop(&f->health);
    vb_shm_close(&f->shm);
    vb_conf_free(&f->conf);
    unlink(f->path);
    int r = rmdir(f->dir);
    bool may_look_up = f->may_look_up;
    free(f);
    return (clean || may_look_up) && r == 0 ? 0 : -1;
}

static inline void start(struct fixture *f)
{
    assert_int_equal(vb_health_start(f->health), 0);
}

static inline unsigned add_as(struct fixture *f, unsigned pool, const char *name, const char *address,
                              enum vb_health_state health)
{
    struct vb_backend_spec spec = {name, address, 1, false, health, VB_ADMIN_READY, false, 0, false};
    int slot = vb_shm_add_backend(f->shm, pool, &spec);
    assert_true(slot >= 0);
    return (unsigned)slot;
}

/* As the master does it when a backend comes while the program runs; vb_health_update is the test's. */
static inline unsigned add(struct fixture *f, unsigned pool, const char *name, const char *address)
{
    return add_as(f, pool, name, address, VB_HEALTH_DOWN);
}

static inline struct vb_shm_backend *row(const struct fixture *f, unsigned slot)
{
    return vb_shm_backend(f->shm, slot);
}

static inline unsigned health_of(const struct fixture *f, unsigned slot)
{
    return atomic_load(&row(f, slot)->health);
}

static inline struct vb_health_record record_of(const struct fixture *f, unsigned slot)
{
    struct vb_health_record record;
    WAIT_UNTIL(vb_shm_read_health(f->shm, slot, &record)); /* the thread may have lost its CPU in the middle */
    return record;
}

static inline bool says(const struct fixture *f, unsigned slot, const char *reason)
{
    struct vb_health_record record = record_of(f, slot);
    return strcmp(record.reason, reason) == 0;
}

/* Waits until `n` more checks of a backend have been made. */
static inline void wait_checks(const struct fixture *f, unsigned slot, uint64_t n)
{
    uint64_t before = record_of(f, slot).checks;
    WAIT_UNTIL(record_of(f, slot).checks >= before + n);
}

/* ---- sockets ------------------------------------------------------------------------------------------------------*/

struct server {
    int fd;
    uint16_t port;
    char address[32];
};

static inline int bound_socket(const struct sockaddr_in *address)
{
    const int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)address, sizeof(*address)), 0);
    return fd;
}

/*
 * Bound to a port, or to a free one (0), so that it is nobody else's; until it listens, it refuses. The second bind
 * names the port: only then the kernel leaves it to a socket that stops listening.
 */
static inline struct server bound(const char *host, uint16_t port)
{
    struct server server;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = inet_addr(host)};
    socklen_t length = sizeof(address);
    int first = bound_socket(&address);
    assert_int_equal(getsockname(first, (struct sockaddr *)&address, &length), 0);
    server.fd = bound_socket(&address);
    close(first);
    server.port = ntohs(address.sin_port);
    snprintf(server.address, sizeof(server.address), "%s:%u", host, server.port);
    return server;
}

/* As if its process had ended: it refuses. `listen` ends that. */
static inline void stop_listening(const struct server *server)
{
    assert_int_equal(shutdown(server->fd, SHUT_RDWR), 0);
}

static inline struct server listening(void)
{
    struct server server = bound("127.0.0.1", 0);
    assert_int_equal(listen(server.fd, 1024), 0);
    return server;
}

/* The next connection; waits for it. */
static inline int accept_one(const struct server *server)
{
    int fd;
    WAIT_UNTIL((fd = accept4(server->fd, NULL, NULL, SOCK_CLOEXEC)) >= 0);
    return fd;
}

/* How many have connected since the last call. */
static inline unsigned accept_all(const struct server *server)
{
    unsigned n = 0;
    for (int fd; (fd = accept4(server->fd, NULL, NULL, SOCK_CLOEXEC)) >= 0; n++)
        close(fd);
    return n;
}

/* To the check that came over this connection: status and reason. */
static inline void answer_with(int connection, const char *status)
{
    char response[64];
    int n = snprintf(response, sizeof(response), "HTTP/1.1 %s\r\n\r\n", status);
    assert_int_equal(write(connection, response, (size_t)n), n);
}

/* Of one who is well. */
static inline void answer(int connection)
{
    answer_with(connection, "200 OK");
}

#endif
