/*
 * least_conn: the fewest requests in flight for its weight, counted over all workers at the moment of the pick. Those
 * that tie take turns by the ticket that all workers share, so that they neither choose alike nor favour a neighbour.
 *
 * A pick among many need not look at each: candidates are grouped by the lines in which their counts stand, and where a
 * group is all of a line, and of one weight, the line's tally is kept in the segment and says it in one word.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include "policy.h"

/* How loaded one is, or several: load / weight, compared without division. */
struct level {
    uint32_t load, weight;
};

struct group {
    unsigned begin, end; /* candidates */
    unsigned line;
    const vb_u64 *tally; /* NULL: none is kept */
    struct level least;  /* seen in the pick in hand, and how many have the same */
    unsigned ties;
};

struct lb_groups {
    unsigned n;
    struct group groups[];
};

/* < 0: `a` is the lower one; 0: they are equal. */
static int64_t compare(struct level a, struct level b)
{
    return (int64_t)((uint64_t)a.load * b.weight) - (int64_t)((uint64_t)b.load * a.weight);
}

static struct level level_of(const struct vb_lb *lb, unsigned i)
{
    const struct vb_candidate *candidate = &lb->candidates[i];
    return (struct level){vb_shm_load(lb->shm, candidate->backend), candidate->weight};
}

static bool is_whole_line(const struct vb_lb *lb, const struct group *group)
{
    if (group->end - group->begin < VB_SHM_LINE)
        return false;
    for (unsigned i = group->begin; i < group->end; i++)
        if (lb->candidates[i].weight != lb->candidates[group->begin].weight)
            return false;
    return true;
}

static int prepare(struct vb_lb *lb)
{
    unsigned n = lb->n_candidates;
    struct lb_groups *all = realloc(lb->groups, sizeof(*all) + n * sizeof(struct group));
    if (all == NULL)
        return -ENOMEM;
    lb->groups = all;
    all->n = 0;
    for (unsigned i = 0; i < n; i++) { /* candidates are in the order of their slots */
        unsigned line = lb->candidates[i].backend / VB_SHM_LINE;
        if (all->n == 0 || all->groups[all->n - 1].line != line)
            all->groups[all->n++] = (struct group){.begin = i, .line = line};
        all->groups[all->n - 1].end = i + 1;
    }
    for (struct group *group = all->groups; group < all->groups + all->n; group++) {
        group->least.weight = lb->candidates[group->begin].weight;
        if (!is_whole_line(lb, group))
            continue;
        group->tally = &vb_shm_tallies(lb->shm)[group->line];
        vb_shm_keep_tally(lb->shm, group->line);
    }
    return 0;
}

static void look_at(const struct vb_lb *lb, struct group *group)
{
    if (group->tally != NULL) {
        struct vb_shm_tally tally = vb_shm_read_tally(group->tally);
        group->least.load = tally.least;
        group->ties = tally.ties;
        return;
    }
    group->least = level_of(lb, group->begin);
    group->ties = 1;
    for (unsigned i = group->begin + 1; i < group->end; i++) {
        struct level level = level_of(lb, i);
        int64_t order = compare(level, group->least);
        group->ties = order < 0 ? 1 : group->ties + (order == 0);
        group->least = order < 0 ? level : group->least;
    }
}

/* Those of the group's least load, without the first few; the least loaded where it has changed in this moment. */
static unsigned find_in(const struct vb_lb *lb, const struct group *group, unsigned skip)
{
    unsigned best = group->begin;
    struct level least = level_of(lb, best);
    for (unsigned i = group->begin; i < group->end; i++) {
        struct level level = level_of(lb, i);
        if (compare(level, group->least) == 0 && skip-- == 0)
            return i;
        if (compare(level, least) < 0) {
            least = level;
            best = i;
        }
    }
    return best;
}

/* Whose turn it is among those of the least load. */
static unsigned find_least(const struct vb_lb *lb, uint64_t turn)
{
    struct group *group = lb->groups->groups, *end = group + lb->groups->n;
    struct level least = {1, 0}; /* more than any */
    unsigned ties = 0;
    for (; group < end; group++) {
        look_at(lb, group);
        int64_t order = compare(group->least, least);
        ties = order < 0 ? group->ties : ties + (order == 0 ? group->ties : 0);
        least = order < 0 ? group->least : least;
    }
    unsigned skip = (unsigned)(turn % ties);
    for (group = lb->groups->groups;; group++) {
        if (compare(group->least, least) != 0)
            continue;
        if (skip < group->ties)
            return find_in(lb, group, skip);
        skip -= group->ties;
    }
}

/* ... and of those that may be picked. Each of those that tie is as likely, also where loads change meanwhile. */
static unsigned find_least_of_rest(const struct vb_lb *lb, const struct vb_ask *ask, uint64_t turn)
{
    struct level least = {1, 0};
    unsigned best = 0, ties = 0;
    for (unsigned i = 0; i < lb->n_candidates; i++) {
        struct level level = level_of(lb, i);
        int64_t order = compare(level, least);
        if (!lb_may_pick(lb, ask, i) || order > 0)
            continue;
        ties = order < 0 ? 1 : ties + 1;
        least = level;
        if (lb_scatter(turn + ties) % ties == 0)
            best = i;
    }
    return best;
}

/*
 * Those that may not be picked have their turns too, and pass them on: without that, a dead backend and the request's
 * next try would take tickets in step with each other, and some of the others would never have a turn. Passed on by
 * scattered numbers, for the same reason.
 */
static unsigned pick(const struct vb_lb *lb, struct lb_turn *turn)
{
    unsigned chosen = find_least(lb, turn->ticket);
    if (VB_LIKELY(lb_may_pick(lb, turn->ask, chosen)))
        return chosen;
    return find_least_of_rest(lb, turn->ask, turn->ticket);
}

const struct vb_policy vb_policy_least_conn = {.name = "least_conn", .prepare = prepare, .pick = pick};
