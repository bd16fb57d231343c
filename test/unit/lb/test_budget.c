/* The retry budget: so many per cent of the requests of ten seconds, and one a second; exact, whoever asks. */
#include "fixture.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define SECOND_US UINT64_C(1000000)
#define DAY       (86400 * SECOND_US) /* a time at which nothing special is */

static struct vb_shm_pool *pool;

/* Shared with children. */
static int setup_pool(void **state)
{
    pool = mmap(NULL, sizeof(*pool), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(pool != MAP_FAILED);
    return 0;
}

static int teardown_pool(void **state)
{
    return munmap(pool, sizeof(*pool));
}

static void requests(uint64_t n)
{
    pool->cursor += n;
}

/* A further try, as a worker makes it: it asks, and then it picks. */
static bool try_again(unsigned percent, uint64_t now_us)
{
    if (!vb_retry_budget_take(pool, percent, now_us))
        return false;
    atomic_fetch_add(&pool->cursor, 1);
    atomic_fetch_add(&pool->retries, 1);
    return true;
}

/* As many as there are. */
static unsigned spend(unsigned percent, uint64_t now_us)
{
    unsigned n = 0;
    while (try_again(percent, now_us)) {
        if (++n == 1000000)
            fail_msg("there is no end");
    }
    return n;
}

/* So many seconds of traffic, with the master's marks; returns the end. */
static uint64_t run_for(uint64_t now_us, unsigned seconds, unsigned requests_a_second)
{
    for (unsigned i = 0; i < seconds; i++, now_us += SECOND_US) {
        vb_retry_budget_mark(pool, now_us);
        requests(requests_a_second);
    }
    vb_retry_budget_mark(pool, now_us);
    return now_us;
}

static void ten_after_a_quiet_time_whenever(void **state)
{
    static const uint64_t times[] = {
        0, 1, SECOND_US, 9 * SECOND_US, 10 * SECOND_US, 11 * SECOND_US + 999999, DAY, DAY + 999999, 3650 * DAY};
    for (unsigned i = 0; i < VB_ARRAY_SIZE(times); i++) {
        memset(pool, 0, sizeof(*pool));
        assert_int_equal(spend(20, times[i]), 10); /* before the first mark */
        memset(pool, 0, sizeof(*pool));
        uint64_t now_us = run_for(times[i], 30, 0);
        assert_int_equal(spend(20, now_us), 10);
        assert_int_equal(spend(20, now_us), 0);
    }
}

static void a_share_of_the_requests_exactly(void **state)
{
    static const unsigned counts[] = {0, 1, 5, 100, 1000, 12345}, percents[] = {0, 1, 20, 33, 100, 250};
    for (unsigned i = 0; i < VB_ARRAY_SIZE(counts); i++) {
        for (unsigned k = 0; k < VB_ARRAY_SIZE(percents); k++) {
            memset(pool, 0, sizeof(*pool));
            uint64_t now_us = run_for(DAY, 20, 0);
            requests(counts[i]);
            assert_int_equal(spend(percents[k], now_us), counts[i] * percents[k] / 100 + 10);
        }
    }
}

static void one_a_second_without_requests(void **state)
{
    spend(20, DAY);
    for (unsigned i = 0; i < 40; i++) {
        uint64_t now_us = run_for(DAY + i * SECOND_US, 1, 0);
        assert_int_equal(spend(20, now_us - SECOND_US / 2), 0);
        assert_int_equal(spend(20, now_us), 1);
    }
}

/* The example in budget.c. */
static void at_a_steady_rate(void **state)
{
    uint64_t now_us = run_for(DAY, 100, 50);
    assert_int_equal(spend(20, now_us), 110);
    for (unsigned i = 0; i < 30; i++) {
        now_us = run_for(now_us, 1, 50);
        assert_int_equal(spend(20, now_us), 11);
    }
    now_us = run_for(now_us, 5, 50);
    assert_int_equal(spend(20, now_us), 55);
}

static void further_tries_earn_nothing(void **state)
{
    uint64_t now_us = run_for(DAY, 20, 100);
    unsigned n = spend(50, now_us);
    assert_int_equal(n, 500 + 10);
    assert_int_equal(spend(50, now_us), 0);
    now_us = run_for(now_us, 10, 0);
    assert_int_equal(spend(50, now_us), 10);
}

static void what_is_not_used_lapses_after_ten_seconds(void **state)
{
    uint64_t now_us = run_for(DAY, 20, 0);
    requests(10000);
    now_us = run_for(now_us, 9, 0);
    assert_int_equal(spend(20, now_us), 2000 + 10);
    memset(pool, 0, sizeof(*pool));
    now_us = run_for(DAY, 20, 0);
    requests(10000);
    now_us = run_for(now_us, 11, 0);
    assert_int_equal(spend(20, now_us), 10);
}

/* The master's timer comes late: what it has not noted is taken to be as it was before. */
static void a_late_master_leaves_no_hole(void **state)
{
    for (unsigned skipped = 0; skipped <= 3; skipped++) {
        memset(pool, 0, sizeof(*pool));
        uint64_t now_us = run_for(DAY, 50, 1000);
        now_us += skipped * SECOND_US + SECOND_US;
        requests(100);
        for (unsigned i = 0; i < 9 - skipped; i++, now_us += SECOND_US)
            vb_retry_budget_mark(pool, now_us);
        for (unsigned i = 0; i <= skipped; i++, now_us += SECOND_US) { /* the window begins where nothing was noted */
            struct vb_shm_pool before = *pool;
            assert_in_range(spend(20, now_us), 10, 10 + 20);
            *pool = before;
            vb_retry_budget_mark(pool, now_us);
        }
    }
}

static void a_master_that_comes_within_the_second(void **state)
{
    uint64_t now_us = run_for(DAY + 700000, 30, 100);
    for (unsigned tenth = 0; tenth < 10; tenth++) {
        struct vb_shm_pool before = *pool;
        assert_in_range(spend(20, now_us + tenth * 100000), 10 + 180, 11 + 220);
        *pool = before;
    }
}

static void a_lowered_percentage_works_soon(void **state)
{
    uint64_t now_us = run_for(DAY, 1000, 1000);
    assert_int_equal(spend(100, now_us), 10000 + 10);
    assert_int_equal(spend(10, now_us), 0); /* what has been had was more than the new share */
    now_us = run_for(now_us, 1, 1000);
    assert_int_equal(spend(10, now_us), 100 + 1);
    now_us = run_for(now_us, 20, 1000);
    assert_int_equal(spend(10, now_us), 1000 + 10);

    assert_int_equal(spend(9, now_us), 0); /* a little lower */
    now_us = run_for(now_us, 12, 1000);
    assert_in_range(spend(9, now_us), 1, 900 + 10);
    now_us = run_for(now_us, 12, 1000);
    assert_int_equal(spend(9, now_us), 900 + 10);
}

static void a_raised_percentage_works_at_once(void **state)
{
    uint64_t now_us = run_for(DAY, 1000, 1000);
    assert_int_equal(spend(1, now_us), 100 + 10);
    assert_int_equal(spend(50, now_us), 5000 + 10);
    now_us = run_for(now_us, 1, 1000);
    assert_int_equal(spend(50, now_us), 500 + 1);
}

static void no_limit(void **state)
{
    for (unsigned i = 0; i < 1000; i++)
        assert_true(try_again(UINT_MAX, DAY));
    assert_int_equal(spend(20, DAY), 10); /* which come from a limit of their own, set later */
}

/* Workers read the clock at different times; one that is behind gives nothing out twice. */
static void clocks_that_differ_give_nothing_twice(void **state)
{
    uint64_t now_us = run_for(DAY, 100, 50);
    unsigned n = 0;
    for (unsigned i = 0; i < 10000; i++)
        n += try_again(20, now_us - (i % 3) * SECOND_US * 4 / 10);
    assert_int_equal(n, 110);
    for (unsigned i = 0; i < 1000; i++)
        n += try_again(20, now_us - (i % 2) * SECOND_US);
    assert_int_equal(n, 110);
}

/* A request that is counted as a pick, but not yet as a further try, and the other way round. */
static void counters_read_in_between_do_no_harm(void **state)
{
    atomic_store(&pool->retries, 5);
    assert_int_equal(pool->cursor, 0);
    for (unsigned i = 0; i < 10; i++)
        assert_true(vb_retry_budget_take(pool, 20, DAY));
    assert_false(vb_retry_budget_take(pool, 20, DAY));
    vb_retry_budget_mark(pool, DAY);
    for (unsigned i = 0; i < VB_SHM_MARKS; i++)
        assert_int_equal(pool->request_marks[i], 0);
}

/* ---- together ---------------------------------------------------------------------------------------------------- */

enum { TAKERS = 4, REQUESTS = 50000, EXPECTED = REQUESTS / 5 + 10 };

static void *spend_in_thread(void *ret_spent)
{
    *(unsigned *)ret_spent = spend(20, DAY);
    return NULL;
}

static void exact_over_threads(void **state)
{
    pthread_t threads[TAKERS];
    unsigned spent[TAKERS] = {0}, sum = 0;
    requests(REQUESTS);
    for (unsigned i = 0; i < TAKERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, spend_in_thread, &spent[i]), 0);
    for (unsigned i = 0; i < TAKERS; i++) {
        pthread_join(threads[i], NULL);
        sum += spent[i];
    }
    assert_in_range(sum, EXPECTED, EXPECTED + 1); /* a further try that is half counted looks like a request */
    assert_int_equal(pool->retries, sum);
}

static void exact_over_processes(void **state)
{
    pid_t pids[TAKERS];
    requests(REQUESTS);
    for (unsigned i = 0; i < TAKERS; i++) {
        pids[i] = fork();
        assert_true(pids[i] >= 0);
        if (pids[i] == 0) {
            spend(20, DAY);
            _exit(0);
        }
    }
    for (unsigned i = 0; i < TAKERS; i++) {
        int status;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
    assert_in_range(pool->retries, EXPECTED, EXPECTED + 1);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup_pool, teardown_pool)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(ten_after_a_quiet_time_whenever),
        TEST(a_share_of_the_requests_exactly),
        TEST(one_a_second_without_requests),
        TEST(at_a_steady_rate),
        TEST(further_tries_earn_nothing),
        TEST(what_is_not_used_lapses_after_ten_seconds),
        TEST(a_late_master_leaves_no_hole),
        TEST(a_master_that_comes_within_the_second),
        TEST(a_lowered_percentage_works_soon),
        TEST(a_raised_percentage_works_at_once),
        TEST(no_limit),
        TEST(clocks_that_differ_give_nothing_twice),
        TEST(counters_read_in_between_do_no_harm),
        TEST(exact_over_threads),
        TEST(exact_over_processes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
