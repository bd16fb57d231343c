/* A loop that never waits for ever, and sockets for the other end. */
#ifndef VB_TEST_NET_FIXTURE_H
#define VB_TEST_NET_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "net_priv.h"
#include "vb/stream.h"

#define PATIENCE_MS 20000 /* a test that waits so long for something has failed */

struct fixture {
    int family; /* of the sockets that a test makes, where it can do with either */
    char dir[32];
    struct vb_loop *loop;
    uv_timer_t tick; /* ends each turn of the loop after a millisecond at the latest */
};

static inline void on_tick(uv_timer_t *timer)
{
}

static inline int setup_family(void **state, int family)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    f->family = family;
    snprintf(f->dir, sizeof(f->dir), "/tmp/vb-net-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    signal(SIGPIPE, SIG_IGN); /* as the program does */
    assert_int_equal(vb_loop_open(&f->loop), 0);
    uv_timer_init(vb_loop_uv(f->loop), &f->tick);
    uv_timer_start(&f->tick, on_tick, 1, 1);
    *state = f;
    return 0;
}

static inline int setup(void **state)
{
    return setup_family(state, AF_INET);
}

static inline int setup_unix(void **state)
{
    return setup_family(state, AF_UNIX);
}

/* Streams that are still there, those that finish on their own included, and listeners. */
static inline unsigned streams(struct fixture *f)
{
    return f->loop->n_watches;
}

static inline void let_go(uv_handle_t *handle, void *arg)
{
    uv_unref(handle);
}

/* Fails when the test, or the code that it tested, left something open, or a file. */
static inline int teardown(void **state)
{
    struct fixture *f = *state;
    if (streams(f) > 0) /* which vb_loop_close does not forgive */
        return -1;
    uv_walk(vb_loop_uv(f->loop), let_go, NULL); /* vb_loop_close must not wait for events, but end the process */
    uv_close((uv_handle_t *)&f->tick, NULL);
    vb_loop_close(&f->loop);
    assert_null(f->loop);
    int r = rmdir(f->dir);
    free(f);
    return r;
}

static inline void turn(struct fixture *f)
{
    loop_turn(f->loop);
}

/* Turns the loop until `condition` holds, which is looked at after each turn. */
#define RUN_UNTIL(f, condition)                                                                                        \
    do {                                                                                                               \
        uint64_t begun_ = uv_hrtime();                                                                                 \
        while (!(condition)) {                                                                                         \
            turn(f);                                                                                                   \
            if (uv_hrtime() - begun_ > PATIENCE_MS * 1000000ull)                                                       \
                fail_msg("waited too long for " #condition);                                                           \
        }                                                                                                              \
    } while (0)

static inline void run_for_ms(struct fixture *f, uint64_t ms)
{
    uint64_t end = uv_hrtime() + ms * 1000000;
    RUN_UNTIL(f, uv_hrtime() >= end);
}

static inline struct sockaddr_in loopback(uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static inline uint16_t port_of(int fd)
{
    struct sockaddr_in address;
    socklen_t length = sizeof(address);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    return ntohs(address.sin_port);
}

/* A plain socket on a free port. */
static inline int bound_socket(void)
{
    struct sockaddr_in address = loopback(0);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

/* The socket of this name in the fixture's directory. */
static inline struct sockaddr_un unix_address(const struct fixture *f, const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s", f->dir, name);
    return address;
}

static inline int connect_to(uint16_t port)
{
    struct sockaddr_in address = loopback(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0)
        fail_msg("connect: %s", strerror(errno));
    return fd;
}

#endif
