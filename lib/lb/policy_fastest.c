/*
 * fastest: of two that were drawn by their weights, the one whose answer will probably come first: its latency times
 * how crowded it is.
 *
 * Latency is a mean that fears the worst. A response that took longer counts at once, though as no more than twice
 * what is known: one slow response is an outlier, and over in seconds, several are a slow backend. One that took less
 * pulls the mean down as slowly as time goes by, by half in five seconds. Latencies within half of each other are
 * alike: among such backends it is p2c, and none of them gets all because it was lucky.
 *
 * Failing fast is not fast: a failure counts as one second, or four times what is known, up to one minute. A client
 * that gives up before there is a response shows that it takes longer than that, if that was not known: so a backend
 * that hangs is not one that is never measured.
 *
 * What is known fades: when a backend was not asked its latency is taken to be half as much every five seconds. When it
 * would win so, it is explored: it gets one request, of all workers together, and what that shows takes the place of
 * what was known. No more than each tenth of such picks explores, which is for pools with few requests, where all
 * knowledge is old. So one that is ten times slower is explored about each 20 s, and one that fails, among others that
 * take 1 ms, after 50 s at first and each 80 s in the long run; one that has recovered is like all others with its next
 * response. A backend that nothing is known of, or that has come up again, is explored at once; until it answers it is
 * taken to need a second, so a slow one does not fill up with requests before the first tells.
 *
 * The word (stamped.h): latency in microseconds, and one bit while a request explores. It is changed by compare-and-
 * swap, and the one whose change succeeds is the one that explores. Of samples that come at the same time some may be
 * lost.
 */
#include "stamped.h"

#define HALF_LIFE_MS   5000.0
#define GUESS_US       1000000u /* of one that nothing is known of */
#define FAILURE_US     1000000u /* a failure counts as at least this */
#define LATENCY_MAX_US 60000000u
#define ALIKE          1.5
#define STEP_MAX       2u /* times what is known: the most that one slow response shows */
#define FAILURE_STEP   4u /* ... and that a failure shows at least */
#define EXPLORE_ONE_IN 10u
#define SMALL_STEP_MS  1000u /* so long a change of less than a microsecond adds up */
#define ATTEMPTS       3

#define EXPLORED       (UINT32_C(1) << 31) /* a request explores, and its response tells more than what is known */

/* The share that is left after so long: 2^-x, where x is in halvings. A parabola from each one to the next. */
static double left_after(uint32_t age_ms)
{
    static const double ln_2 = 0.693147;
    double halvings = VB_MIN(age_ms / HALF_LIFE_MS, 62.0);
    unsigned whole = (unsigned)halvings;
    double rest = halvings - whole;
    return (1 - rest * (ln_2 - (ln_2 - 0.5) * rest)) / (double)(UINT64_C(1) << whole);
}

/* ---- learning ---------------------------------------------------------------------------------------------------- */

static uint32_t latency_of(uint64_t word)
{
    return lb_stamped_value(word) & ~EXPLORED;
}

static uint32_t sample_of(uint32_t known_us, uint64_t latency_us, bool failed)
{
    if (failed)
        latency_us = VB_MAX(latency_us, VB_MAX((uint64_t)known_us * FAILURE_STEP, (uint64_t)FAILURE_US));
    return (uint32_t)VB_MIN(VB_MAX(latency_us, UINT64_C(1)), (uint64_t)LATENCY_MAX_US);
}

/* A step that is too small to show leaves the word as it is: the time that it was for is not lost. */
static uint64_t lower(uint64_t word, uint32_t sample_us, uint64_t now_us)
{
    uint32_t known_us = latency_of(word), age_ms = lb_stamped_age_ms(word, now_us), above_us = known_us - sample_us;
    double step_us = above_us * (1 - left_after(age_ms));
    if (step_us < 1) {
        if (age_ms < SMALL_STEP_MS)
            return word;
        step_us = VB_MIN(above_us, 1u);
    }
    return lb_stamped(known_us - (uint32_t)(step_us + 0.5), now_us);
}

static uint64_t with_sample(uint64_t word, uint64_t latency_us, enum vb_try_end how, uint64_t now_us)
{
    bool failed = how == VB_TRY_FAILED;
    uint32_t known_us = latency_of(word), sample_us = sample_of(known_us, latency_us, failed);
    bool is_news = word == 0 || (lb_stamped_value(word) & EXPLORED) != 0;
    if (how == VB_TRY_ABANDONED && sample_us <= (word == 0 ? GUESS_US : known_us))
        return word; /* nothing is said by that */
    if (sample_us > known_us && !failed && word != 0)
        sample_us = (uint32_t)VB_MIN(sample_us, (uint64_t)known_us * STEP_MAX);
    if (sample_us > known_us || is_news)
        return lb_stamped(sample_us, now_us);
    return lower(word, sample_us, now_us);
}

static void learn(struct vb_shm_backend *backend, uint64_t latency_us, enum vb_try_end how, uint64_t now_us)
{
    uint64_t word = atomic_load_explicit(&backend->latency, memory_order_relaxed);
    for (unsigned i = 0; i < ATTEMPTS; i++) {
        uint64_t next = with_sample(word, latency_us, how, now_us);
        if (next == word || atomic_compare_exchange_strong_explicit(&backend->latency, &word, next,
                                                                    memory_order_relaxed, memory_order_relaxed))
            return;
    }
}

/* ---- picking ----------------------------------------------------------------------------------------------------- */

struct view {
    unsigned index;
    struct vb_shm_backend *backend;
    uint64_t word;
    bool is_new;         /* nothing is known of it, or of another time */
    struct lb_side side; /* by its latency, in microseconds */
};

static struct view look(const struct vb_lb *lb, unsigned index, unsigned other, uint64_t now_us)
{
    struct view view = {.index = index, .backend = vb_shm_backend(lb->shm, lb->candidates[index].backend)};
    view.word = atomic_load_explicit(&view.backend->latency, memory_order_relaxed);
    uint64_t since_us = atomic_load_explicit(&view.backend->ready_since_us, memory_order_relaxed);
    bool is_from_before = since_us <= now_us && lb_stamped_age_ms(view.word, now_us) > (now_us - since_us) / 1000;
    view.is_new = view.word == 0 || is_from_before;
    view.side.cost = view.is_new ? GUESS_US : latency_of(view.word);
    view.side.crowd = lb_crowd(lb, index, other);
    return view;
}

/* Whoever succeeds explores; until its response comes all others see that what is known is of now. */
static bool explore(const struct view *view, struct lb_turn *turn)
{
    uint64_t word = view->word, claimed = lb_stamped((uint32_t)view->side.cost | EXPLORED, turn->now_us);
    if (!atomic_compare_exchange_strong_explicit(&view->backend->latency, &word, claimed, memory_order_relaxed,
                                                 memory_order_relaxed))
        return false;
    turn->reason = VB_PICK_EXPLORE;
    return true;
}

static double faded(const struct view *view, uint64_t now_us)
{
    return view->side.cost * view->side.crowd * left_after(lb_stamped_age_ms(view->word, now_us));
}

/* Is it only what was known long ago that speaks against it? */
static bool is_worth_exploring(const struct vb_lb *lb, const struct view *loser, const struct view *winner,
                               uint64_t now_us)
{
    return loser->side.cost > winner->side.cost && !lb_is_alike(loser->side.cost, winner->side.cost, ALIKE) &&
           faded(loser, now_us) < faded(winner, now_us) && vb_rand_below(lb->rand, EXPLORE_ONE_IN) == 0;
}

static unsigned pick(const struct vb_lb *lb, struct lb_turn *turn)
{
    unsigned first = lb_draw(lb, turn->ask, lb->n_candidates), second = lb_draw(lb, turn->ask, first);
    if (second == lb->n_candidates)
        return first; /* it is the only one left */
    struct view a = look(lb, first, second, turn->now_us), b = look(lb, second, first, turn->now_us);
    if (a.is_new && explore(&a, turn))
        return first;
    if (b.is_new && explore(&b, turn))
        return second;
    bool b_wins = lb_is_better(&b.side, &a.side, ALIKE); /* who was drawn first wins a tie */
    const struct view *winner = b_wins ? &b : &a, *loser = b_wins ? &a : &b;
    if (is_worth_exploring(lb, loser, winner, turn->now_us) && explore(loser, turn))
        return loser->index;
    return winner->index;
}

const struct vb_policy vb_policy_fastest = {.name = "fastest", .prepare = lb_sum_weights, .pick = pick, .learn = learn};
