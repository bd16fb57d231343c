/* Rise and fall: how many results in a row change our mind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "vb/lb.h"

struct story {
    struct vb_health_rules rules;
    const char *results; /* + passed, - failed */
    const char *states;  /* after each: U up, D down; in small letters where it is between two states */
};

static char letter(const struct vb_health_fsm *fsm)
{
    bool between = vb_health_fsm_in_transition(fsm);
    if (fsm->state == VB_HEALTH_UP)
        return between ? 'u' : 'U';
    return fsm->state != VB_HEALTH_DOWN ? '?' : between ? 'd' : 'D';
}

static void check_stories(enum vb_health_state first, const struct story *stories, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct vb_health_fsm fsm = {.state = first};
        assert_false(vb_health_fsm_in_transition(&fsm));
        for (size_t k = 0; k < strlen(stories[i].results); k++) {
            enum vb_health_state before = fsm.state;
            bool changed = vb_health_fsm_feed(&fsm, &stories[i].rules, stories[i].results[k] == '+');
            if (letter(&fsm) != stories[i].states[k])
                fail_msg("%c after %zu of %s with rise %u, fall %u; wanted %s", letter(&fsm), k + 1, stories[i].results,
                         stories[i].rules.rise, stories[i].rules.fall, stories[i].states);
            assert_int_equal(changed, fsm.state != before);
        }
    }
}

static void the_first_result_decides_alone(void **state)
{
    static const struct story stories[] = {
        {{2, 3}, "+", "U"},     {{2, 3}, "-", "D"},
        {{100, 100}, "-", "D"}, {{2, 3}, "+--", "Uuu"}, /* after that it is as always */
        {{2, 3}, "-+", "Dd"},
    };
    check_stories(VB_HEALTH_UNKNOWN, stories, VB_ARRAY_SIZE(stories));
}

static void it_falls_after_so_many_failures_in_a_row(void **state)
{
    static const struct story stories[] = {
        {{2, 3}, "---", "uuD"},       {{2, 3}, "--+---", "uuUuuD"}, {{2, 3}, "-+-+-+-+-+", "uUuUuUuUuU"},
        {{2, 3}, "+++---", "UUUuuD"}, {{2, 1}, "-", "D"},           {{2, 2}, "-----", "uDDDD"},
    };
    check_stories(VB_HEALTH_UP, stories, VB_ARRAY_SIZE(stories));
}

static void it_rises_after_so_many_passes_in_a_row(void **state)
{
    static const struct story stories[] = {
        {{2, 3}, "++", "dU"}, {{3, 3}, "++-+++", "ddDddU"}, {{2, 3}, "+-+-+-", "dDdDdD"},
        {{1, 3}, "+", "U"},   {{1, 1}, "+-+-", "UDUD"},     {{2, 3}, "++--+---++", "dUuuUuuDdU"},
    };
    check_stories(VB_HEALTH_DOWN, stories, VB_ARRAY_SIZE(stories));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_result_decides_alone),
        cmocka_unit_test(it_falls_after_so_many_failures_in_a_row),
        cmocka_unit_test(it_rises_after_so_many_passes_in_a_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
