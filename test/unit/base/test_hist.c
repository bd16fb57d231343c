/* The histogram: every value lands in the bucket whose bounds hold it, and percentiles come out near enough. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "vb/hist.h"
#include "vb/rand.h"

static void floors_and_indexes_agree(void **state)
{
    for (unsigned i = 0; i < VB_HIST_BUCKETS; i++) {
        uint64_t floor = vb_hist_floor(i), end = vb_hist_floor(i + 1);
        assert_true(end > floor);
        assert_int_equal(vb_hist_index(floor), i);
        assert_int_equal(vb_hist_index(end - 1), i);
        assert_int_equal(vb_hist_index(floor + (end - floor) / 2), i);
        if (i >= VB_HIST_SUB)
            assert_true((end - floor) * VB_HIST_SUB <= floor); /* never wider than 1/16 of its value */
    }
}

static void ends_of_the_scale(void **state)
{
    assert_int_equal(vb_hist_index(0), 0);
    assert_int_equal(vb_hist_floor(VB_HIST_BUCKETS), 16ull << VB_HIST_OCTAVES);
    assert_int_equal(vb_hist_index(16ull << VB_HIST_OCTAVES), VB_HIST_BUCKETS - 1);
    assert_int_equal(vb_hist_index(UINT64_MAX), VB_HIST_BUCKETS - 1);
    for (unsigned bit = 0; bit < 64; bit++)
        assert_true(vb_hist_index(1ull << bit) < VB_HIST_BUCKETS);
}

static void quantiles_of_nothing_and_of_one(void **state)
{
    uint64_t buckets[VB_HIST_BUCKETS] = {0};
    assert_true(vb_hist_quantile(buckets, 0.99) == 0);
    for (uint64_t us = 16; us < 100 * 1000000ull; us = us * 11 / 10 + 1) {
        memset(buckets, 0, sizeof(buckets));
        buckets[vb_hist_index(us)] = 1;
        for (double share = 0; share <= 1; share += 0.25) {
            double error = vb_hist_quantile(buckets, share) / (double)us - 1;
            assert_true(error < 0.032 && error > -0.032);
        }
    }
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Against the exact answer from the sorted samples, over six decades. */
static void quantiles_of_many(void **state)
{
    enum { N = 100000 };
    static uint64_t samples[N];
    static const double shares[] = {0.01, 0.5, 0.9, 0.99, 0.999, 1};
    uint64_t buckets[VB_HIST_BUCKETS] = {0};
    struct vb_rand rand;
    vb_rand_init(&rand);
    for (unsigned i = 0; i < N; i++) {
        samples[i] = 16 + (vb_rand_below(&rand, 1u << 20) >> vb_rand_below(&rand, 16)) * 64;
        buckets[vb_hist_index(samples[i])]++;
    }
    qsort(samples, N, sizeof(samples[0]), by_value);
    for (unsigned i = 0; i < VB_ARRAY_SIZE(shares); i++) {
        double exact = (double)samples[(unsigned)(shares[i] * N + 0.5) - 1];
        double error = vb_hist_quantile(buckets, shares[i]) / exact - 1;
        if (error > 0.032 || error < -0.032)
            fail_msg("%g: off by %g", shares[i], error);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(floors_and_indexes_agree),
        cmocka_unit_test(ends_of_the_scale),
        cmocka_unit_test(quantiles_of_nothing_and_of_one),
        cmocka_unit_test(quantiles_of_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
