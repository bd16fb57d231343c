/* Events come by time, and those of one time in the order in which they were added. */
#include "fixture.h"

#include "heap.h"
#include "vb/rand.h"

static void events_come_in_order(void **state)
{
    enum { N = 20000 };
    struct sim_heap heap = {.n = 0};
    struct vb_rand rand;
    struct sim_event event, last = {.at_us = 0};
    vb_rand_seed(&rand, 7);
    for (unsigned i = 0; i < N; i++) {
        assert_int_equal(sim_heap_add(&heap, last.at_us + vb_rand_below(&rand, 50), SIM_ARRIVAL, NULL), 0);
        if (vb_rand_below(&rand, 3) > 0)
            continue;
        assert_true(sim_heap_take(&heap, &event));
        assert_true(event.at_us > last.at_us || (event.at_us == last.at_us && (i == 0 || event.number != last.number)));
        last = event;
    }
    while (sim_heap_take(&heap, &event)) {
        assert_true(event.at_us > last.at_us || (event.at_us == last.at_us && event.number > last.number));
        last = event;
    }
    assert_int_equal(heap.added, N);
    sim_heap_free(&heap);
}

static void seeds_make_the_same_numbers_again(void **state)
{
    struct vb_rand one, again, other;
    vb_rand_seed(&one, 1);
    vb_rand_seed(&again, 1);
    vb_rand_seed(&other, 2);
    uint64_t first = vb_rand_u64(&one);
    assert_true(first == vb_rand_u64(&again));
    assert_true(first != vb_rand_u64(&other));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_come_in_order),
        cmocka_unit_test(seeds_make_the_same_numbers_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
