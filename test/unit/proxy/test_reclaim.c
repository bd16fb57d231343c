/* When memory is given back after a burst, and when not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "reclaim.h"

static struct vb_reclaim reclaim;

static int setup(void **state)
{
    reclaim = (struct vb_reclaim){0};
    return 0;
}

/* As the proxy does it: how often is memory given back in so many looks that all see the same? */
static unsigned look(unsigned looks, unsigned most)
{
    unsigned n = 0;
    for (unsigned i = 0; i < looks; i++) {
        if (!vb_reclaim_is_due(&reclaim, most))
            continue;
        vb_reclaim_done(&reclaim, most);
        n++;
    }
    return n;
}

static void not_before_there_was_anything(void **state)
{
    assert_int_equal(look(100, 0), 0);
    assert_int_equal(look(100, 5000), 0);
}

static void once_after_a_burst_and_not_at_once(void **state)
{
    look(1, 8000);
    assert_int_equal(look(VB_RECLAIM_CALM - 1, 0), 0);
    assert_int_equal(look(1, 0), 1);
    assert_int_equal(look(100, 0), 0);
    look(1, 8000);
    assert_int_equal(look(100, 0), 1);
}

static void also_when_half_of_them_stay(void **state)
{
    look(1, 8000);
    assert_int_equal(look(100, 4001), 0);
    assert_int_equal(look(100, 4000), 1);
    assert_int_equal(look(100, 2000), 1);
}

static void what_goes_up_and_down_costs_nothing(void **state)
{
    unsigned n = 0;
    for (unsigned i = 0; i < 100; i++) {
        n += look(1, 8000);
        n += look(VB_RECLAIM_CALM - 1, 10);
    }
    assert_int_equal(n, 0);
}

static void a_few_are_not_worth_it(void **state)
{
    look(1, VB_RECLAIM_MIN - 1);
    assert_int_equal(look(100, 0), 0);
    look(1, VB_RECLAIM_MIN);
    assert_int_equal(look(100, 1), 0);
    assert_int_equal(look(100, 0), 1);
}

static void a_slow_end_is_taken_in_steps(void **state)
{
    unsigned n = 0;
    for (unsigned most = 8000; most > 0; most -= 100)
        n += look(1, most);
    n += look(100, 0);
    assert_in_range(n, 3, 8);
    assert_int_equal(reclaim.peak, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(not_before_there_was_anything, setup),
        cmocka_unit_test_setup(once_after_a_burst_and_not_at_once, setup),
        cmocka_unit_test_setup(also_when_half_of_them_stay, setup),
        cmocka_unit_test_setup(what_goes_up_and_down_costs_nothing, setup),
        cmocka_unit_test_setup(a_few_are_not_worth_it, setup),
        cmocka_unit_test_setup(a_slow_end_is_taken_in_steps, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
