/* The worker's picture of a pool, and picking through the pool's policy. */
#include "vb/lb.h"

#include <errno.h>
#include <string.h>

#include "policy.h"

static const struct vb_policy *const policies[] = {&vb_policy_round_robin, &vb_policy_least_conn, &vb_policy_p2c,
                                                   &vb_policy_random};

static const struct vb_policy *find_policy(const char *name)
{
    for (unsigned i = 0; i < VB_ARRAY_SIZE(policies); i++)
        if (strcmp(policies[i]->name, name) == 0)
            return policies[i];
    return NULL;
}

int vb_lb_open(struct vb_lb **ret_lb, struct vb_shm *shm, unsigned pool, unsigned slot, const char *balance,
               struct vb_rand *rand)
{
    const struct vb_policy *policy = find_policy(balance);
    if (policy == NULL)
        return -ENOTSUP;
    struct vb_lb *lb = calloc(1, sizeof(*lb));
    if (lb == NULL)
        return -ENOMEM;
    lb->shm = shm;
    lb->policy = policy;
    lb->rand = rand;
    lb->pool = vb_shm_pool(shm, pool);
    lb->pool_index = pool;
    lb->in_flight = vb_shm_in_flight(shm, slot); /* `look_again_us` is 0: the first pick looks */
    *ret_lb = lb;
    return 0;
}

void vb_lb_close(struct vb_lb **lb_ptr)
{
    struct vb_lb *lb = *lb_ptr;
    if (lb == NULL)
        return;
    free(lb->candidates);
    free(lb->schedule);
    free(lb->sums);
    free(lb);
    *lb_ptr = NULL;
}

struct census {
    uint64_t members, healthy, ejected; /* `healthy`: not down, ejected or not; `ejected`: of these */
    uint64_t next_end_us;               /* of an ejection; UINT64_MAX: there is none */
};

/* The members of the pool that are usable at this time, or all of them, become the candidates. */
static struct census collect(struct vb_lb *lb, uint64_t time_us, bool all)
{
    struct census census = {.next_end_us = UINT64_MAX};
    lb->n_candidates = 0;
    for (unsigned i = 0; i < vb_shm_capacity(lb->shm).backends; i++) {
        const struct vb_shm_backend *backend = vb_shm_backend(lb->shm, i);
        if (!lb_is_member(backend, lb->pool_index))
            continue;
        census.members++;
        uint64_t until_us = atomic_load_explicit(&backend->ejected_until_us, memory_order_relaxed);
        bool healthy = lb_is_healthy(backend), ejected = until_us > time_us;
        census.healthy += healthy;
        census.ejected += healthy && ejected;
        if (ejected)
            census.next_end_us = VB_MIN(census.next_end_us, until_us);
        if (all || (healthy && !ejected))
            lb->candidates[lb->n_candidates++] = (struct vb_candidate){i, VB_MAX(atomic_load(&backend->weight), 1u)};
    }
    return census;
}

/*
 * Ejections are no more than a share of those that are not down. When some went down after others had been ejected, the
 * ejections that end first end now: the last good backend of a pool may be one of them.
 *
 * Panic: when so few are usable that they could not bear the load of all, it is more likely that our judgement is
 * wrong.
 */
static void choose_candidates(struct vb_lb *lb, uint64_t now_us)
{
    uint64_t panic = atomic_load_explicit(&lb->pool->panic, memory_order_relaxed);
    uint64_t most = atomic_load_explicit(&lb->pool->max_ejected, memory_order_relaxed);
    struct census census = collect(lb, now_us, false);
    lb->look_again_us = census.next_end_us;
    while (census.ejected * 100 > most * census.healthy)
        census = collect(lb, census.next_end_us, false);
    lb->in_panic = lb->n_candidates * UINT64_C(100) < panic * census.members;
    if (lb->in_panic)
        collect(lb, now_us, true);
}

/* On failure nobody can be picked, and the next pick tries again. */
static int refresh(struct vb_lb *lb, uint32_t epoch, uint64_t now_us)
{
    unsigned capacity = vb_shm_capacity(lb->shm).backends;
    if (lb->candidates == NULL)
        lb->candidates = malloc(capacity * sizeof(*lb->candidates));
    if (lb->candidates == NULL)
        return -ENOMEM;
    lb->remade = true;
    choose_candidates(lb, now_us);
    if (lb->n_candidates > 0 && lb->policy->prepare != NULL) {
        int r = lb->policy->prepare(lb);
        if (r < 0) {
            lb->n_candidates = 0;
            lb->look_again_us = 0;
            return r;
        }
    }
    lb->epoch = epoch;
    return 0;
}

/* An ejection ends by the clock alone, so nobody moves the epoch for it. */
static int follow(struct vb_lb *lb, uint64_t now_us)
{
    uint32_t epoch = atomic_load_explicit(&lb->pool->epoch, memory_order_acquire);
    if (VB_UNLIKELY(epoch != lb->epoch || now_us >= lb->look_again_us))
        return refresh(lb, epoch, now_us);
    return 0;
}

/* Known before a ticket is taken: tickets are what the retry budget takes for requests. */
static bool has_untried(const struct vb_lb *lb, const struct vb_tried *tried)
{
    if (VB_LIKELY(lb->n_candidates > tried->n))
        return true;
    for (unsigned i = 0; i < lb->n_candidates; i++)
        if (!lb_is_tried(tried, lb->candidates[i].backend))
            return true;
    return false;
}

/*
 * Counts first and looks at the epoch after that: see shm/members.c. This worker is the only writer of the word, so the
 * addition needs no lock, but the store and the load must not change places.
 */
static bool count_in_flight(struct vb_lb *lb, unsigned backend)
{
    vb_u32 *word = &lb->in_flight[backend];
    atomic_store(word, atomic_load_explicit(word, memory_order_relaxed) + 1);
    if (VB_LIKELY(atomic_load(&lb->pool->epoch) == lb->epoch))
        return true;
    vb_lb_done(lb, backend);
    return false;
}

/* A further try is better made with one that is ejected than not at all. -ENOENT: there is none either. */
static int pick_ejected(const struct vb_lb *lb, const struct vb_tried *tried)
{
    uint64_t first_us = UINT64_MAX;
    int best = -ENOENT;
    for (unsigned i = 0; i < vb_shm_capacity(lb->shm).backends && tried->n > 0; i++) {
        const struct vb_shm_backend *backend = vb_shm_backend(lb->shm, i);
        if (!lb_is_member(backend, lb->pool_index) || !lb_is_healthy(backend) || lb_is_tried(tried, i))
            continue;
        uint64_t until_us = atomic_load_explicit(&backend->ejected_until_us, memory_order_relaxed);
        if (until_us < first_us) {
            first_us = until_us;
            best = (int)i;
        }
    }
    return best;
}

bool vb_lb_has_other(struct vb_lb *lb, const struct vb_tried *tried, uint64_t now_us)
{
    return follow(lb, now_us) == 0 && (has_untried(lb, tried) || pick_ejected(lb, tried) >= 0);
}

static uint64_t take_ticket(struct vb_lb *lb)
{
    return atomic_fetch_add_explicit(&lb->pool->cursor, 1, memory_order_relaxed);
}

/*
 * It goes round again only when the epoch moved during the pick, so it ends when that stands still for a microsecond.
 * The ticket of a round that was in vain is lost.
 */
int vb_lb_pick(struct vb_lb *lb, const struct vb_tried *tried, uint64_t now_us)
{
    int backend;
    do {
        int r = follow(lb, now_us);
        if (r < 0)
            return r;
        bool untried = has_untried(lb, tried);
        backend = untried ? 0 : pick_ejected(lb, tried);
        if (backend < 0)
            return backend;
        uint64_t ticket = take_ticket(lb);
        if (untried)
            backend = (int)lb->candidates[lb->policy->pick(lb, ticket, tried)].backend;
    } while (!count_in_flight(lb, (unsigned)backend));
    if (tried->n > 0)
        atomic_fetch_add_explicit(&lb->pool->retries, 1, memory_order_relaxed);
    return backend;
}

/* Released: who finds none in flight may give the slot, and the figures that this request has written, to another. */
void vb_lb_done(struct vb_lb *lb, unsigned backend)
{
    vb_u32 *word = &lb->in_flight[backend];
    atomic_store_explicit(word, atomic_load_explicit(word, memory_order_relaxed) - 1, memory_order_release);
}

bool vb_lb_look(struct vb_lb *lb, uint64_t now_us)
{
    follow(lb, now_us); /* without memory: the next pick says so */
    bool remade = lb->remade;
    lb->remade = false;
    return remade;
}

bool vb_lb_is_candidate(const struct vb_lb *lb, unsigned backend)
{
    for (unsigned i = 0; i < lb->n_candidates; i++)
        if (lb->candidates[i].backend == backend)
            return true;
    return false;
}

bool vb_lb_in_panic(const struct vb_lb *lb)
{
    return lb->in_panic;
}
