/*
 * Backends that take their time, on a clock of their own: requests come, are picked for by all workers in turn, and
 * end. Millisecond by millisecond, so a minute of a thousand requests a second is done in a moment.
 */
#ifndef VB_TEST_LB_SIMULATION_H
#define VB_TEST_LB_SIMULATION_H

#include "fixture.h"
#include "vb/clock.h"

#define SERVERS_MAX   16
#define REQUESTS_MAX  4096
#define MS            UINT64_C(1000)
#define SECOND        (1000 * MS)
#define NEVER_ANSWERS (1000000 * SECOND)

struct server {
    uint64_t latency_us; /* for a request alone; by chance from half of it to one and a half */
    bool fails;
    void (*answered)(struct fixture *f, unsigned backend, uint64_t now_us); /* may be NULL */
    unsigned requests, explored;                                            /* since the counts were cleared */
};

struct request {
    unsigned worker, backend;
    uint64_t begun_us, ends_us;
};

struct simulation {
    struct fixture *f;
    uint64_t now_us;
    double owed; /* requests that have not come yet, though it is their time */
    struct server servers[SERVERS_MAX];
    struct request requests[REQUESTS_MAX];
    unsigned n_requests, next_worker;
};

/* The pool is open; what comes to the segment's backends has come by now. */
static inline struct simulation *begin_simulation(struct fixture *f)
{
    struct simulation *s = calloc(1, sizeof(*s));
    assert_non_null(s);
    s->f = f;
    s->now_us = vb_clock_us();
    return s;
}

static inline void end_requests(struct simulation *s)
{
    for (unsigned i = 0; i < s->n_requests;) {
        struct request *request = &s->requests[i];
        struct server *server = &s->servers[request->backend];
        if (request->ends_us > s->now_us) {
            i++;
            continue;
        }
        struct vb_lb *lb = s->f->workers[request->worker];
        vb_lb_learn(lb, request->backend, request->ends_us - request->begun_us,
                    server->fails ? VB_TRY_FAILED : VB_TRY_ANSWERED, s->now_us);
        vb_lb_done(lb, request->backend);
        if (server->answered != NULL)
            server->answered(s->f, request->backend, s->now_us);
        *request = s->requests[--s->n_requests];
    }
}

static inline void begin_request(struct simulation *s)
{
    enum vb_pick_reason reason;
    unsigned worker = s->next_worker++ % WORKERS;
    struct vb_ask ask = {.tried = &none_tried, .stuck_to = -1};
    int backend = vb_lb_pick(s->f->workers[worker], &ask, s->now_us, &reason);
    assert_in_range(backend, 0, SERVERS_MAX - 1);
    assert_true(s->n_requests < REQUESTS_MAX);
    struct server *server = &s->servers[backend];
    uint64_t takes_us = server->latency_us / 2 + random_below((unsigned)VB_MIN(server->latency_us, UINT_MAX) + 1);
    s->requests[s->n_requests++] = (struct request){worker, (unsigned)backend, s->now_us, s->now_us + takes_us};
    server->requests++;
    server->explored += reason == VB_PICK_EXPLORE;
}

/* So many requests a second for so long. */
static inline void run(struct simulation *s, double rate, uint64_t for_us)
{
    for (uint64_t until_us = s->now_us + for_us; s->now_us < until_us; s->now_us += MS) {
        end_requests(s);
        for (s->owed += rate / 1000; s->owed >= 1; s->owed--)
            begin_request(s);
    }
}

/* Until it has got so many; how long that took. */
static inline uint64_t run_until(struct simulation *s, double rate, unsigned backend, unsigned requests)
{
    uint64_t begun_us = s->now_us;
    s->servers[backend].requests = 0;
    while (s->servers[backend].requests < requests && s->now_us - begun_us < 1000 * SECOND)
        run(s, rate, 10 * MS);
    return s->now_us - begun_us;
}

static inline void clear_counts(struct simulation *s)
{
    for (unsigned i = 0; i < SERVERS_MAX; i++)
        s->servers[i].requests = s->servers[i].explored = 0;
}

/* Of all requests since the counts were cleared, in per cent. */
static inline double share(const struct simulation *s, unsigned backend)
{
    unsigned sum = 0;
    for (unsigned i = 0; i < SERVERS_MAX; i++)
        sum += s->servers[i].requests;
    return sum == 0 ? 0 : 100.0 * s->servers[backend].requests / sum;
}

#endif
