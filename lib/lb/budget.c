/*
 * The retry budget: further tries of requests may not become the load that keeps a backend down.
 *
 * A pool's requests earn credit, and so does the time; a further try costs 100. What has been earned since the machine
 * was started, in hundredths of a try, is
 *
 *   earned(t) = percent * requests until t + 100 * seconds until t
 *
 * `retry_credit` is what has been spent of that. What was earned more than ten seconds ago has lapsed, so as long as
 * nobody spends, the spent is taken to be earned(ten seconds ago); and nobody spends what is not earned yet:
 *
 *   spent = retry_credit, but at least earned(t - 10 s)
 *   one more try may be made when spent + 100 <= earned(t); retry_credit is spent + 100 then
 *
 * So no window of ten seconds has more tries than it earned together with the ten before, whatever happens at its edge.
 *
 * For example, percent = 20 and 50 requests a second, since long: 100 seconds after some moment that we take for zero,
 * 5000 requests have earned 100000 and the time 10000. Ten seconds ago that was 90000 and 9000. A backend dies: spent
 * is 99000, so (110000 - 99000) / 100 = 110 tries may be made at once, 20 % of the 500 requests of these ten seconds
 * and one for each second. The 111th must wait: each second earns 50 * 20 + 100, which is 11 more.
 *
 * Requests are the picks (`cursor` and `stuck`) without those for further tries (`retries`), which are counted after
 * this has allowed them. How many there were ten seconds ago, the master notes each second in `request_marks`, one word
 * for each of the last seconds: a word is that second modulo their number, and also stands for the seconds that follow
 * until the master comes by again, so that one who is late by a second or two leaves no hole. Before the first mark the
 * words are 0, and so were the requests. All of it is one compare-and-swap on one word, so it is exact over all
 * workers.
 */
#include "vb/lb.h"

#include <limits.h>

enum {
    TRY = 100,       /* hundredths */
    WINDOW_S = 10,   /* who looks one second late, and the master's marks ahead, fit into VB_SHM_MARKS besides */
    MARKS_AHEAD = 3, /* of this second and of the next ones */
    SECOND_US = 1000000,
};
_Static_assert(WINDOW_S + MARKS_AHEAD + 1 < VB_SHM_MARKS, "a mark is overwritten that is still to be read");

/* Reckoned from ten seconds before the machine was started: the beginning of the window is never before that. */
static uint64_t shifted(uint64_t now_us)
{
    return now_us + WINDOW_S * (uint64_t)SECOND_US;
}

/* The words are not read at one moment: a request more or less, never a huge number. */
static uint64_t count_requests(struct vb_shm_pool *pool)
{
    uint64_t picks = atomic_load_explicit(&pool->cursor, memory_order_relaxed) +
                     atomic_load_explicit(&pool->stuck, memory_order_relaxed);
    uint64_t retries = atomic_load_explicit(&pool->retries, memory_order_relaxed);
    return picks > retries ? picks - retries : 0;
}

static uint64_t earned(unsigned percent, uint64_t requests, uint64_t us)
{
    return percent * requests + us / (SECOND_US / TRY);
}

bool vb_retry_budget_take(struct vb_shm_pool *pool, unsigned percent, uint64_t now_us)
{
    if (percent == UINT_MAX)
        return true;
    uint64_t us = shifted(now_us), begin_s = us / SECOND_US - WINDOW_S;
    uint64_t mark = atomic_load_explicit(&pool->request_marks[begin_s % VB_SHM_MARKS], memory_order_relaxed);
    uint64_t lapsed = earned(percent, mark, begin_s * SECOND_US);
    uint64_t spent = atomic_load_explicit(&pool->retry_credit, memory_order_relaxed), next;
    bool taken;
    do {
        uint64_t all = earned(percent, count_requests(pool), us);
        next = VB_MAX(spent, lapsed) + TRY;
        taken = next <= all;
        if (!taken) {
            /*
             * A little more may be spent than we see earned: by a worker whose clock or counter is ahead of ours. So
             * much more was spent under a higher percentage, which a reload has lowered; none has been earned since.
             */
            if (spent <= all || spent - all <= all - VB_MIN(lapsed, all))
                return false;
            next = all;
        }
    } while (!atomic_compare_exchange_weak_explicit(&pool->retry_credit, &spent, next, memory_order_relaxed,
                                                    memory_order_relaxed));
    return taken;
}

void vb_retry_budget_mark(struct vb_shm_pool *pool, uint64_t now_us)
{
    uint64_t second = shifted(now_us) / SECOND_US, requests = count_requests(pool);
    for (unsigned i = 0; i <= MARKS_AHEAD; i++)
        atomic_store_explicit(&pool->request_marks[(second + i) % VB_SHM_MARKS], requests, memory_order_relaxed);
}
