/*
 * What a pick costs, by policy, number of backends and number of workers. pick.sh adds the instructions.
 *
 * Two in flight for each backend, and some for each worker; they end in random order, so policies see loads as they are
 * in use. One worker is measured. Between two of its requests each other worker has one of its own: what is shared
 * changes as often as it would. They all have this processor's caches, so what other CPUs would do to them is not seen.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "vb/lb.h"
#include "vb/str.h"

enum { ROUNDS = 9, PER_WORKER = 4, TURN_US = 20, KEYS = 100000 };

static const char *const policies[] = {"round_robin", "random", "p2c", "least_conn", "fastest", "least_load", "hash"};
static const unsigned sizes[] = {3, 30, 300, 1000};
static const unsigned teams[] = {1, 64};

struct options {
    const char *policy; /* NULL: all */
    unsigned picks;     /* in each round */
    bool weighted;
};

/* The requests that a worker has in flight: their backends. */
struct window {
    struct vb_lb *lb;
    unsigned n;
    unsigned *backends;
};

struct bench {
    struct vb_shm *shm;
    struct vb_rand rand;
    struct window mine, others; /* all others together are one that is as busy as they are */
    unsigned n_others;
    bool reports; /* backends say how loaded they are */
    uint64_t now_us;
};

struct cost {
    double pick, done, learn; /* nanoseconds */
};

static void die(const char *what, int r)
{
    fprintf(stderr, "bench_pick: %s: %s\n", what, strerror(-r));
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* ---- one request --------------------------------------------------------------------------------------------------*/

/* Named for callgrind, which counts in these two only: see pick.sh. */
__attribute__((noipa)) static int measured_pick(struct vb_lb *lb, const struct vb_ask *ask, uint64_t now_us)
{
    enum vb_pick_reason reason;
    return vb_lb_pick(lb, ask, now_us, &reason);
}

__attribute__((noipa)) static void measured_done(struct vb_lb *lb, unsigned backend)
{
    vb_lb_done(lb, backend);
}

static struct vb_ask next_ask(struct bench *b)
{
    static const struct vb_tried none;
    uint64_t key = vb_rand_below(&b->rand, KEYS) * UINT64_C(0x9e3779b97f4a7c15);
    return (struct vb_ask){.tried = &none, .key = key, .has_key = true, .stuck_to = -1};
}

static unsigned must_pick(struct vb_lb *lb, const struct vb_ask *ask, uint64_t now_us)
{
    enum vb_pick_reason reason;
    int backend = vb_lb_pick(lb, ask, now_us, &reason);
    if (backend < 0)
        die("pick", backend);
    return (unsigned)backend;
}

/* What a response tells: some backends are slower, and each varies. */
static uint64_t latency_of(struct bench *b, unsigned backend)
{
    return 1000 + 500 * (backend % 7) + vb_rand_below(&b->rand, 1000);
}

static void learn(struct bench *b, struct vb_lb *lb, unsigned backend, uint64_t latency_us)
{
    vb_lb_learn(lb, backend, latency_us, VB_TRY_ANSWERED, b->now_us);
    if (b->reports)
        vb_lb_report_load(b->shm, backend, (uint32_t)latency_us / 10, b->now_us);
}

/* One of these requests ends and the next begins. */
static void go_on(struct bench *b, struct window *w)
{
    unsigned *one = &w->backends[vb_rand_below(&b->rand, w->n)];
    struct vb_ask ask = next_ask(b);
    learn(b, w->lb, *one, latency_of(b, *one));
    vb_lb_done(w->lb, *one);
    *one = must_pick(w->lb, &ask, b->now_us);
}

static void others_go_on(struct bench *b)
{
    for (unsigned i = 0; i < b->n_others; i++)
        go_on(b, &b->others);
}

/* The same of mine; adds what it took, and what looking at the clock took. */
static void turn(struct bench *b, struct cost *sum)
{
    unsigned *one = &b->mine.backends[vb_rand_below(&b->rand, b->mine.n)];
    struct vb_ask ask = next_ask(b);
    uint64_t latency_us = latency_of(b, *one);
    b->now_us += TURN_US;
    uint64_t t0 = now_ns();
    learn(b, b->mine.lb, *one, latency_us);
    uint64_t t1 = now_ns();
    measured_done(b->mine.lb, *one);
    uint64_t t2 = now_ns();
    int backend = measured_pick(b->mine.lb, &ask, b->now_us);
    uint64_t t3 = now_ns();
    if (backend < 0)
        die("pick", backend);
    *one = (unsigned)backend;
    sum->learn += (double)(t1 - t0);
    sum->done += (double)(t2 - t1);
    sum->pick += (double)(t3 - t2);
}

/* ---- one case -----------------------------------------------------------------------------------------------------*/

/* The pool's requests are known by their worker too: hash looks how many there are. */
static void fill(struct bench *b, struct window *w, unsigned n, unsigned first_slot, unsigned slots)
{
    w->n = n;
    w->backends = calloc(n, sizeof(*w->backends));
    if (w->backends == NULL)
        die("window", -ENOMEM);
    for (unsigned i = 0; i < n; i++) {
        struct vb_ask ask = next_ask(b);
        if (!vb_shm_enter(b->shm, first_slot + i % slots, 0, VB_PLACE_REQUEST, 0))
            die("place", -EAGAIN);
        w->backends[i] = must_pick(w->lb, &ask, b->now_us);
    }
}

static void open_segment(struct bench *b, const char *policy, unsigned backends, unsigned workers, bool weighted)
{
    int r = vb_shm_create_private(&b->shm, (struct vb_shm_capacity){.workers = workers + 1, .backends = backends});
    if (r < 0)
        die("segment", r);
    for (unsigned i = 0; i < workers; i++)
        if ((r = vb_shm_claim_worker(b->shm, i, 1, false)) < 0)
            die("worker", r);
    if ((r = vb_shm_add_pool(b->shm, &(struct vb_pool_spec){"bench", policy, 0, 50})) < 0)
        die("pool", r);
    for (unsigned i = 0; i < backends; i++) {
        char name[16];
        snprintf(name, sizeof(name), "b%u", i);
        struct vb_backend_spec spec = {.name = name,
                                       .address = "127.0.0.1:1",
                                       .weight = weighted ? 1 + i % 5 : 1,
                                       .configured = true,
                                       .health = VB_HEALTH_UP};
        if ((r = vb_shm_add_backend(b->shm, 0, &spec)) < 0)
            die("backend", r);
    }
}

/* 0; -ENOTSUP: there is no such policy. */
static int open_bench(struct bench *b, const char *policy, unsigned backends, unsigned workers, bool weighted)
{
    const struct vb_lb_rules rules = {.balance = policy, .hash_bound = 125};
    *b = (struct bench){.rand = {{1, 2, 3, 4}},
                        .n_others = workers - 1,
                        .now_us = 1000000,
                        .reports = strcmp(policy, "least_load") == 0};
    open_segment(b, policy, backends, workers, weighted);
    int r = vb_lb_open(&b->mine.lb, b->shm, 0, 0, &rules, &b->rand);
    if (r < 0)
        return r;
    unsigned all = VB_MAX(2 * backends, PER_WORKER * workers), mine = VB_MAX(all / workers, 1u);
    fill(b, &b->mine, mine, 0, 1);
    if (workers == 1)
        return 0;
    r = vb_lb_open(&b->others.lb, b->shm, 0, 1, &rules, &b->rand);
    if (r < 0)
        return r;
    fill(b, &b->others, all - mine, 1, workers - 1);
    return 0;
}

static void close_bench(struct bench *b)
{
    vb_lb_close(&b->mine.lb);
    vb_lb_close(&b->others.lb);
    free(b->mine.backends);
    free(b->others.backends);
    vb_shm_close(&b->shm);
}

/* Of several rounds the best: whatever else the machine does only adds to it. */
static double least(const double *values)
{
    double found = values[0];
    for (unsigned i = 1; i < ROUNDS; i++)
        found = VB_MIN(found, values[i]);
    return found;
}

/* What it takes to look at the clock, which stands in every figure. */
static double clock_cost(void)
{
    double rounds[ROUNDS];
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t sum = 0;
        for (unsigned k = 0; k < 10000; k++) {
            uint64_t t0 = now_ns();
            sum += now_ns() - t0;
        }
        rounds[i] = (double)sum / 10000;
    }
    return least(rounds);
}

/* The last function of a case: pick.sh has callgrind write its count when this returns. */
__attribute__((noipa)) static struct cost measured_case(struct bench *b, unsigned picks)
{
    double pick[ROUNDS], done[ROUNDS], learn[ROUNDS], looking = clock_cost();
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct cost sum = {0};
        for (unsigned k = 0; k < picks; k++) {
            others_go_on(b);
            turn(b, &sum);
        }
        pick[i] = sum.pick / picks;
        done[i] = sum.done / picks;
        learn[i] = sum.learn / picks;
    }
    return (struct cost){.pick = VB_MAX(least(pick) - looking, 0),
                         .done = VB_MAX(least(done) - looking, 0),
                         .learn = VB_MAX(least(learn) - looking, 0)};
}

static void warm_up(struct bench *b)
{
    for (unsigned i = 0; i < 4 * b->mine.n; i++) {
        others_go_on(b);
        go_on(b, &b->mine);
    }
}

/* ---- all cases ----------------------------------------------------------------------------------------------------*/

struct report {
    FILE *json, *instructions;
    unsigned n;
};

/* Of the case that callgrind has counted as the n-th; negative: it has counted none. */
static double next_instructions(FILE *file)
{
    double n = -1;
    return file != NULL && fscanf(file, "%lf", &n) == 1 ? n : -1;
}

static void print_case(struct report *report, const char *policy, unsigned backends, unsigned workers,
                       const struct cost *cost)
{
    double instructions = next_instructions(report->instructions);
    char text[32] = "";
    if (instructions >= 0)
        snprintf(text, sizeof(text), "%.0f", instructions);
    printf("| %-11s | %8u | %7u | %9.0f | %7.0f | %8.0f | %12s |\n", policy, backends, workers, cost->pick + cost->done,
           cost->pick, cost->learn, text);
    fflush(stdout);
    if (report->json != NULL)
        fprintf(report->json,
                "%s\n  {\"policy\": \"%s\", \"backends\": %u, \"workers\": %u, \"pick_done_ns\": %.1f, "
                "\"pick_ns\": %.1f, \"learn_ns\": %.1f, \"instructions\": %s}",
                report->n == 0 ? "[" : ",", policy, backends, workers, cost->pick + cost->done, cost->pick, cost->learn,
                instructions >= 0 ? text : "null");
    report->n++;
}

/* 0; -ENOTSUP: there is no such policy. */
static int measure(struct report *report, const struct options *options, const char *policy, unsigned backends,
                   unsigned workers)
{
    struct bench b;
    int r = open_bench(&b, policy, backends, workers, options->weighted);
    if (r == 0) {
        warm_up(&b);
        struct cost cost = measured_case(&b, options->picks);
        print_case(report, policy, backends, workers, &cost);
    }
    close_bench(&b);
    return r;
}

static int measure_all(struct report *report, const struct options *options)
{
    bool found = false;
    puts("| policy      | backends | workers | pick+done | pick ns | learn ns | instructions |\n"
         "|-------------|---------:|--------:|----------:|--------:|---------:|-------------:|");
    for (unsigned p = 0; p < VB_ARRAY_SIZE(policies); p++) {
        if (options->policy != NULL && strcmp(options->policy, policies[p]) != 0)
            continue;
        for (unsigned t = 0; t < VB_ARRAY_SIZE(teams); t++) {
            for (unsigned s = 0; s < VB_ARRAY_SIZE(sizes); s++) {
                int r = measure(report, options, policies[p], sizes[s], teams[t]);
                if (r < 0 && r != -ENOTSUP)
                    die(policies[p], r);
                found = found || r == 0;
            }
        }
    }
    return found ? 0 : -ENOTSUP;
}

static FILE *open_file(const char *path, const char *mode)
{
    FILE *file = fopen(path, mode);
    if (file == NULL)
        die(path, -errno);
    return file;
}

static struct options parse(int argc, char **argv, struct report *report)
{
    static const struct option known[] = {{"picks", 1, NULL, 'n'},        {"policy", 1, NULL, 'p'},
                                          {"weighted", 0, NULL, 'w'},     {"json", 1, NULL, 'j'},
                                          {"instructions", 1, NULL, 'i'}, {0}};
    struct options options = {.picks = 4000};
    uint64_t n = 0;
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        if (option == 'n' && vb_parse_u64(vb_str(optarg), 100000000, &n) == 0 && n > 0)
            options.picks = (unsigned)n;
        else if (option == 'p')
            options.policy = optarg;
        else if (option == 'w')
            options.weighted = true;
        else if (option == 'j')
            report->json = open_file(optarg, "w");
        else if (option == 'i')
            report->instructions = open_file(optarg, "r");
        else
            die("usage: bench_pick [--picks N] [--policy NAME] [--weighted] [--json FILE] [--instructions FILE]",
                -EINVAL);
    }
    return options;
}

int main(int argc, char **argv)
{
    struct report report = {0};
    struct options options = parse(argc, argv, &report);
    int r = measure_all(&report, &options);
    if (r < 0)
        die("policy", r);
    if (report.json != NULL) {
        fputs("\n]\n", report.json);
        fclose(report.json);
    }
    if (report.instructions != NULL)
        fclose(report.instructions);
    return 0;
}
