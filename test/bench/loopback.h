/* What relay.c, backend.c and load.c have in common: one thread, one epoll, IPv4 on the loopback. */
#ifndef BENCH_LOOPBACK_H
#define BENCH_LOOPBACK_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 512, READ_SIZE = 65536, BACKLOG = 4096 };

static inline void die(const char *what)
{
    perror(what);
    exit(1);
}

/* An argument; says which one is wrong. */
static inline unsigned number(const char *text, const char *what, unsigned long max)
{
    char *end;
    errno = 0;
    unsigned long n = strtoul(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || n > max) {
        fprintf(stderr, "%s: expected a number up to %lu, found `%s`\n", what, max, text);
        exit(2);
    }
    return (unsigned)n;
}

/* The i-th address of a backend: 127.1.0.1, 127.1.0.2, and so on. peers.py has the same. */
static inline struct sockaddr_in backend_address(unsigned i, unsigned port)
{
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)port),
                                .sin_addr.s_addr = htonl(0x7f010000u + (i / 250 << 8) + i % 250 + 1)};
}

static inline struct sockaddr_in loopback(unsigned port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static inline int listen_on(struct sockaddr_in address)
{
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) < 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, BACKLOG) < 0)
        die("listen");
    return fd; /* what it accepts inherits TCP_NODELAY */
}

/* Waits for the handshake, which on the loopback takes as long as the call; then it never blocks. */
static inline int connect_to(struct sockaddr_in address)
{
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) < 0 ||
        connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static inline void watch(int epoll, int how, int fd, uint32_t events, void *data)
{
    struct epoll_event event = {.events = events, .data.ptr = data};
    if (epoll_ctl(epoll, how, fd, &event) < 0)
        die("epoll_ctl");
}

#endif
