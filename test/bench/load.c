/*
 * The load that wrk has not: connections that are open before anything is counted, and requests at a constant rate.
 *
 *     bench_load PORT CONNECTIONS
 *
 * Connects, sends one request on each connection, one after the other, and writes `ready`. Then each line on standard
 * input is answered by one of figures; it ends with its input, and resets its connections.
 *
 *     closed SECONDS         as many requests under way as there are connections: a new one begins when one ends
 *     open RATE SECONDS      so many begin each second, whatever becomes of those before; latency is from when one was
 * due
 *     -> requests errors seconds p50_us p99_us p999_us
 *
 * Each line ends when all that began has been answered, ANSWER_S after its time at the latest.
 */
#include <poll.h>
#include <sys/timerfd.h>
#include <time.h>

#include "loopback.h"

enum { ANSWER_S = 10, RESPONSE_MAX = 4096 };

static const char request[] = "GET / HTTP/1.1\r\nHost: bench\r\n\r\n";

struct connection {
    int fd;
    uint64_t due_us; /* of the request under way */
    size_t n;
    char response[RESPONSE_MAX];
};

static struct connection *all;
static unsigned n_all;
static unsigned *free_ones; /* a ring: the one that has been free longest first */
static unsigned free_first, n_free;
static uint32_t *latencies;
static size_t n_latencies, latencies_max;
static unsigned long errors, under_way;
static int epoll_fd;

static uint64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

static void release(struct connection *one)
{
    free_ones[(free_first + n_free++) % n_all] = (unsigned)(one - all);
}

static void begin_on(struct connection *one, uint64_t due_us)
{
    one->due_us = due_us;
    one->n = 0;
    under_way++;
    if (send(one->fd, request, sizeof(request) - 1, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)sizeof(request) - 1)
        errors++; /* its end comes as an event */
}

static void begin(uint64_t due_us)
{
    struct connection *one = &all[free_ones[free_first]];
    free_first = (free_first + 1) % n_all;
    n_free--;
    begin_on(one, due_us);
}

static void learn(uint64_t us)
{
    if (n_latencies == latencies_max) {
        latencies_max = latencies_max > 0 ? 2 * latencies_max : 1 << 20;
        latencies = realloc(latencies, latencies_max * sizeof(*latencies));
        if (latencies == NULL)
            die("realloc");
    }
    latencies[n_latencies++] = us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;
}

/* True when a response is complete. Ends the program when it is none: nothing that follows would mean anything. */
static bool read_response(struct connection *one)
{
    ssize_t n = recv(one->fd, one->response + one->n, RESPONSE_MAX - 1 - one->n, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return false;
    if (n <= 0) {
        fprintf(stderr, "bench_load: a connection was closed\n");
        exit(1);
    }
    one->n += (size_t)n;
    one->response[one->n] = '\0';
    const char *body = strstr(one->response, "\r\n\r\n");
    if (body == NULL && one->n < RESPONSE_MAX - 1)
        return false;
    const char *length = strcasestr(one->response, "\r\nContent-Length:");
    if (body == NULL || length == NULL || strncmp(one->response, "HTTP/1.1 200 ", 13) != 0) {
        fprintf(stderr, "bench_load: not the response that was expected: %.200s\n", one->response);
        exit(1);
    }
    return one->n >= (size_t)(body + 4 - one->response) + strtoul(length + 17, NULL, 10);
}

static void connect_all(unsigned port)
{
    for (unsigned i = 0; i < n_all; i++) {
        struct connection *one = &all[i];
        struct linger reset = {.l_onoff = 1};
        one->fd = connect_to(loopback(port));
        if (one->fd < 0 || setsockopt(one->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)) < 0)
            die("connect");
        watch(epoll_fd, EPOLL_CTL_ADD, one->fd, EPOLLIN, one);
        begin_on(one, now_us());
        struct pollfd answered = {.fd = one->fd, .events = POLLIN};
        do {
            if (poll(&answered, 1, ANSWER_S * 1000) != 1)
                die("no answer");
        } while (!read_response(one));
        under_way--;
        release(one);
    }
}

static void on_event(struct connection *one, bool again)
{
    if (!read_response(one))
        return;
    uint64_t now = now_us();
    learn(now - one->due_us);
    under_way--;
    release(one);
    if (again)
        begin(now);
}

/* When the n-th of an open loop is due. */
static uint64_t due_us(uint64_t first, uint64_t n, unsigned rate)
{
    return first + n * 1000000u / rate;
}

/* epoll_wait's milliseconds are too coarse. While all are busy an answer comes first. */
static void set_timer(int timer, uint64_t due, uint64_t now)
{
    uint64_t wait = due > now ? due - now : 1000;
    struct itimerspec at = {
        .it_value = {.tv_sec = (time_t)(wait / 1000000u), .tv_nsec = (long)(wait % 1000000u) * 1000}};
    timerfd_settime(timer, 0, &at, NULL);
}

/* rate 0: closed. */
static void play(unsigned rate, double seconds, int timer)
{
    uint64_t first = now_us(), last = first + (uint64_t)(seconds * 1e6), n = 0, now;
    n_latencies = 0;
    errors = 0;
    while (rate == 0 && n_free > 0)
        begin(first);
    while ((now = now_us()) < last || under_way > 0 || (rate > 0 && due_us(first, n, rate) < last)) {
        if (now > last + ANSWER_S * UINT64_C(1000000)) {
            fprintf(stderr, "bench_load: %lu requests were not answered\n", under_way);
            exit(1);
        }
        for (uint64_t due; rate > 0 && n_free > 0 && (due = due_us(first, n, rate)) <= now && due < last; n++)
            begin(due);
        if (rate > 0)
            set_timer(timer, due_us(first, n, rate), now);
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(epoll_fd, events, EVENTS, 100);
        for (int i = 0; i < ready; i++)
            if (events[i].data.ptr != NULL)
                on_event(events[i].data.ptr, rate == 0 && now_us() < last);
    }
}

static int by_size(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return (left > right) - (left < right);
}

static uint32_t quantile(double q)
{
    return n_latencies > 0 ? latencies[(size_t)(q * (double)(n_latencies - 1))] : 0;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: bench_load PORT CONNECTIONS\n");
        return 2;
    }
    n_all = number(argv[2], "CONNECTIONS", 100000);
    all = calloc(n_all, sizeof(*all));
    free_ones = calloc(n_all, sizeof(*free_ones));
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (n_all == 0 || all == NULL || free_ones == NULL || epoll_fd < 0 || timer < 0)
        die("start");
    watch(epoll_fd, EPOLL_CTL_ADD, timer, EPOLLIN | EPOLLET, NULL);
    connect_all(number(argv[1], "PORT", 65535));
    printf("ready\n");
    fflush(stdout);

    char line[80];
    while (fgets(line, sizeof(line), stdin) != NULL) {
        unsigned rate = 0;
        double seconds;
        if (sscanf(line, "closed %lf", &seconds) != 1 && sscanf(line, "open %u %lf", &rate, &seconds) != 2) {
            fprintf(stderr, "bench_load: not understood: %s", line);
            return 2;
        }
        uint64_t begun = now_us();
        play(rate, seconds, timer);
        double took = (double)(now_us() - begun) / 1e6;
        qsort(latencies, n_latencies, sizeof(*latencies), by_size);
        printf("%zu %lu %.6f %u %u %u\n", n_latencies, errors, took, quantile(0.5), quantile(0.99), quantile(0.999));
        fflush(stdout);
    }
    return 0;
}
