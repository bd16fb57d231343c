/*
 * Backends that cost as little as possible, so that the balancer in front of them is what is busy: one process.
 *
 *     bench_backend PORT ADDRESSES          listens at so many of 127.1.0.1, 127.1.0.2, ...
 *
 * GET /N has a body of N bytes, all other requests one of 13. Understands what the balancers here send: Content-Length,
 * `Connection: close`, one request after the other.
 */
#include "loopback.h"

enum { HEAD_MAX = 2048, BODY_MAX = 4 << 20, SMALL = 13 };

struct connection {
    int fd;
    size_t head_n, body_left, out_left; /* out_left: of the response's body */
    bool closes, wants_out;
    char head[HEAD_MAX];
};

static char buffer[READ_SIZE];
static char body[BODY_MAX];
static int epoll_fd;

static void end(struct connection *connection)
{
    close(connection->fd);
    free(connection);
}

static void accept_all(int listener)
{
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct connection *connection = malloc(sizeof(*connection));
        if (connection == NULL)
            die("malloc");
        *connection = (struct connection){.fd = fd};
        watch(epoll_fd, EPOLL_CTL_ADD, fd, EPOLLIN, connection);
    }
    if (errno != EAGAIN && errno != ECONNABORTED)
        die("accept");
}

/* What is left of the response's body; false when the connection has ended. */
static bool send_body(struct connection *connection)
{
    while (connection->out_left > 0) {
        ssize_t n = send(connection->fd, body, connection->out_left, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN) {
            end(connection);
            return false;
        }
        if (n < 0)
            break;
        connection->out_left -= (size_t)n;
    }
    if (connection->wants_out != (connection->out_left > 0)) {
        connection->wants_out = connection->out_left > 0;
        watch(epoll_fd, EPOLL_CTL_MOD, connection->fd, connection->wants_out ? EPOLLOUT : EPOLLIN, connection);
    }
    if (connection->out_left == 0 && connection->closes) {
        end(connection);
        return false;
    }
    return true;
}

static bool answer(struct connection *connection)
{
    char out[256 + SMALL];
    size_t size = SMALL;
    if (connection->head[5] >= '0' && connection->head[5] <= '9' && strncmp(connection->head, "GET /", 5) == 0)
        size = strtoul(connection->head + 5, NULL, 10);
    if (size > BODY_MAX)
        size = BODY_MAX;
    int n = snprintf(out, 256, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n%s\r\n", size,
                     connection->closes ? "Connection: close\r\n" : "");
    bool whole = size <= SMALL; /* in one call with its head */
    if (whole)
        memcpy(out + n, body, size);
    size_t wanted = (size_t)n + (whole ? size : 0);
    if (send(connection->fd, out, wanted, MSG_NOSIGNAL | (whole ? 0 : MSG_MORE)) != (ssize_t)wanted) {
        end(connection); /* the one before has been read, so there is room */
        return false;
    }
    connection->head_n = 0;
    connection->out_left = whole ? 0 : size;
    return send_body(connection);
}

/* A head begins in what has come; how many bytes of it are used, 0 when it is not complete yet. */
static size_t read_head(struct connection *connection, const char *data, size_t n)
{
    size_t before = connection->head_n, room = HEAD_MAX - 1 - before;
    size_t taken = n < room ? n : room;
    memcpy(connection->head + before, data, taken);
    connection->head_n += taken;
    connection->head[connection->head_n] = '\0';
    char *mark = strstr(connection->head, "\r\n\r\n");
    if (mark == NULL)
        return 0;
    mark[2] = '\0';
    const char *length = strcasestr(connection->head, "\r\nContent-Length:");
    connection->body_left = length != NULL ? strtoul(length + 17, NULL, 10) : 0;
    connection->closes = strcasestr(connection->head, "\r\nConnection: close\r\n") != NULL;
    return (size_t)(mark + 4 - connection->head) - before;
}

static void on_bytes(struct connection *connection, const char *data, size_t n)
{
    while (n > 0) {
        size_t used;
        if (connection->body_left > 0) {
            used = n < connection->body_left ? n : connection->body_left;
            connection->body_left -= used;
        } else {
            used = read_head(connection, data, n);
            if (used == 0 && connection->head_n < HEAD_MAX - 1)
                return;
            if (used == 0) {
                end(connection);
                return;
            }
        }
        data += used;
        n -= used;
        if (connection->body_left == 0 && !answer(connection))
            return;
    }
}

static void on_event(struct connection *connection)
{
    if (connection->wants_out) {
        send_body(connection);
        return;
    }
    ssize_t n = recv(connection->fd, buffer, sizeof(buffer), 0);
    if (n > 0)
        on_bytes(connection, buffer, (size_t)n);
    else if (n == 0 || errno != EAGAIN)
        end(connection);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: bench_backend PORT ADDRESSES\n");
        return 2;
    }
    unsigned port = number(argv[1], "PORT", 65535), addresses = number(argv[2], "ADDRESSES", 10000);
    int *listeners = calloc(addresses, sizeof(*listeners));
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (listeners == NULL || epoll_fd < 0)
        die("start");
    memset(body, 'x', sizeof(body));
    for (unsigned i = 0; i < addresses; i++) {
        listeners[i] = listen_on(backend_address(i, port));
        watch(epoll_fd, EPOLL_CTL_ADD, listeners[i], EPOLLIN, &listeners[i]);
    }
    for (;;) {
        struct epoll_event events[EVENTS];
        int n = epoll_wait(epoll_fd, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            int *listener = events[i].data.ptr;
            if (listener >= listeners && listener < listeners + addresses)
                accept_all(*listener);
            else
                on_event(events[i].data.ptr);
        }
    }
}
