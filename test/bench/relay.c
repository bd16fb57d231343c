/*
 * The floor: bytes from each client to a connection of its own to a backend, and back. Parses nothing, counts nothing.
 *
 *     bench_relay PORT BACKEND_PORT BACKENDS
 *
 * Backends take turns, by connection. What a side does not take waits here, and the other side is read no further.
 */
#include "loopback.h"

struct side {
    int fd; /* -1: closed */
    struct side *peer;
    char *waiting; /* for this side; NULL mostly */
    size_t n_waiting, n_sent;
};

struct pair {
    struct side client, backend;
    struct pair *next_dead;
};

static char buffer[READ_SIZE];
static struct pair *dead; /* an event for them may still be in this turn's list */
static int epoll_fd;

static struct pair *pair_of(struct side *side)
{
    return (struct pair *)(side < side->peer ? side : side->peer);
}

static void end(struct side *side)
{
    struct pair *pair = pair_of(side);
    if (pair->client.fd < 0)
        return;
    close(pair->client.fd);
    close(pair->backend.fd);
    pair->client.fd = pair->backend.fd = -1;
    pair->next_dead = dead;
    dead = pair;
}

static void bury(void)
{
    while (dead != NULL) {
        struct pair *pair = dead;
        dead = pair->next_dead;
        free(pair->client.waiting);
        free(pair->backend.waiting);
        free(pair);
    }
}

static void accept_all(int listener, unsigned backend_port, unsigned backends)
{
    static unsigned turn;
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
        int backend = connect_to(backend_address(turn++ % backends, backend_port));
        struct pair *pair = calloc(1, sizeof(*pair));
        if (backend < 0 || pair == NULL)
            die("connect");
        pair->client = (struct side){.fd = fd, .peer = &pair->backend};
        pair->backend = (struct side){.fd = backend, .peer = &pair->client};
        watch(epoll_fd, EPOLL_CTL_ADD, fd, EPOLLIN, &pair->client);
        watch(epoll_fd, EPOLL_CTL_ADD, backend, EPOLLIN, &pair->backend);
    }
    if (errno != EAGAIN && errno != ECONNABORTED)
        die("accept");
}

/* The kernel has no room for these: the one they came from is left alone until it has. */
static void keep(struct side *to, const char *data, size_t n)
{
    to->waiting = malloc(n);
    if (to->waiting == NULL)
        die("malloc");
    memcpy(to->waiting, data, n);
    to->n_waiting = n;
    to->n_sent = 0;
    watch(epoll_fd, EPOLL_CTL_MOD, to->fd, EPOLLOUT, to);
    watch(epoll_fd, EPOLL_CTL_MOD, to->peer->fd, 0, to->peer);
}

static void send_waiting(struct side *to)
{
    ssize_t n = send(to->fd, to->waiting + to->n_sent, to->n_waiting - to->n_sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0) {
        if (errno != EAGAIN)
            end(to);
        return;
    }
    to->n_sent += (size_t)n;
    if (to->n_sent < to->n_waiting)
        return;
    free(to->waiting);
    to->waiting = NULL;
    watch(epoll_fd, EPOLL_CTL_MOD, to->fd, EPOLLIN, to);
    watch(epoll_fd, EPOLL_CTL_MOD, to->peer->fd, EPOLLIN, to->peer);
}

static void pass_on(struct side *from)
{
    ssize_t n = recv(from->fd, buffer, sizeof(buffer), MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        end(from);
        return;
    }
    ssize_t sent = send(from->peer->fd, buffer, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN)
        end(from);
    else if (sent < n)
        keep(from->peer, buffer + (sent > 0 ? sent : 0), (size_t)(n - (sent > 0 ? sent : 0)));
}

static void on_event(struct side *side)
{
    if (side->fd < 0)
        return;
    if (side->waiting != NULL)
        send_waiting(side);
    else if (side->peer->waiting != NULL)
        end(side); /* not read, so this is a reset */
    else
        pass_on(side);
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: bench_relay PORT BACKEND_PORT BACKENDS\n");
        return 2;
    }
    unsigned backend_port = number(argv[2], "BACKEND_PORT", 65535), backends = number(argv[3], "BACKENDS", 10000);
    int listener = listen_on(loopback(number(argv[1], "PORT", 65535)));
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0)
        die("epoll_create1");
    watch(epoll_fd, EPOLL_CTL_ADD, listener, EPOLLIN, NULL);
    for (;;) {
        struct epoll_event events[EVENTS];
        int n = epoll_wait(epoll_fd, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr == NULL)
                accept_all(listener, backend_port, backends);
            else
                on_event(events[i].data.ptr);
        }
        bury();
    }
}
