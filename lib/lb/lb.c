/* The worker's picture of a pool, and picking through the pool's policy. */
#include "vb/lb.h"

#include <errno.h>
#include <string.h>

#include "policy.h"

static const struct vb_policy *const policies[] = {
    &vb_policy_round_robin, &vb_policy_least_conn, &vb_policy_p2c,        &vb_policy_random,
    &vb_policy_hash,        &vb_policy_fastest,    &vb_policy_least_load,
};

static const struct vb_policy *find_policy(const char *name)
{
    for (unsigned i = 0; i < VB_ARRAY_SIZE(policies); i++)
        if (strcmp(policies[i]->name, name) == 0)
            return policies[i];
    return NULL;
}

int vb_lb_open(struct vb_lb **ret_lb, struct vb_shm *shm, unsigned pool, unsigned slot, const struct vb_lb_rules *rules,
               struct vb_rand *rand)
{
    const struct vb_policy *policy = find_policy(rules->balance);
    if (policy == NULL)
        return -ENOTSUP;
    struct vb_lb *lb = calloc(1, sizeof(*lb));
    if (lb == NULL)
        return -ENOMEM;
    lb->shm = shm;
    lb->slot = slot;
    lb->policy = policy;
    lb->rules = *rules;
    lb->rand = rand;
    lb->pool = vb_shm_pool(shm, pool);
    lb->pool_index = pool; /* `look_again_us` is 0: the first pick looks */
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
    free(lb->groups);
    free(lb->points);
    free(lb->mean);
    free(lb);
    *lb_ptr = NULL;
}

/* ---- who may be picked ------------------------------------------------------------------------------------------- */

/* Of a pool at some time. `healthy`: not down, ejected or not; `ejected`: of these. */
struct census {
    uint64_t members, backups, healthy, ejected;
    uint64_t usable, usable_backups; /* neither down nor ejected; the former are no backups */
    uint64_t next_end_us;            /* of an ejection; UINT64_MAX: there is none */
};

static unsigned limit_of(const struct vb_lb *lb, unsigned backend)
{
    return atomic_load_explicit(&vb_shm_backend(lb->shm, backend)->max_connections, memory_order_relaxed);
}

/*
 * Is it there for requests that are stuck to it? A backend that is drained keeps those, one in maintenance does not.
 * One that a reload is preparing is drained too, but has yet to be ready: who names it was bound to an earlier one.
 */
static bool keeps_stuck(const struct vb_lb *lb, const struct vb_shm_backend *backend)
{
    if (atomic_load_explicit(&backend->used, memory_order_acquire) == 0 ||
        atomic_load_explicit(&backend->pool, memory_order_relaxed) != lb->pool_index)
        return false;
    uint32_t admin = atomic_load_explicit(&backend->admin, memory_order_relaxed);
    bool was_ready = atomic_load_explicit(&backend->ready_since_us, memory_order_relaxed) != 0;
    return admin == VB_ADMIN_READY || (admin == VB_ADMIN_DRAIN && was_ready);
}

static bool is_backup(const struct vb_shm_backend *backend)
{
    return atomic_load_explicit(&backend->backup, memory_order_relaxed) != 0;
}

static struct census take_census(const struct vb_lb *lb, uint64_t time_us)
{
    struct census census = {.next_end_us = UINT64_MAX};
    for (unsigned i = 0; i < vb_shm_capacity(lb->shm).backends; i++) {
        const struct vb_shm_backend *backend = vb_shm_backend(lb->shm, i);
        if (!lb_is_member(backend, lb->pool_index))
            continue;
        uint64_t until_us = atomic_load_explicit(&backend->ejected_until_us, memory_order_relaxed);
        bool healthy = lb_is_healthy(backend), ejected = until_us > time_us, backup = is_backup(backend);
        census.members++;
        census.backups += backup;
        census.healthy += healthy;
        census.ejected += healthy && ejected;
        census.usable += healthy && !ejected && !backup;
        census.usable_backups += healthy && !ejected && backup;
        if (ejected)
            census.next_end_us = VB_MIN(census.next_end_us, until_us);
    }
    return census;
}

/*
 * A backend that comes, or comes back, is cold: it gets its share in steps. How many of LB_RAMP_STEPS it has, and when
 * it may have the next: all go up at the same times by the clock, because the picture is made anew each time, which for
 * many that have come one after the other would never end.
 */
static unsigned ramp(const struct vb_lb *lb, const struct vb_shm_backend *backend, uint64_t now_us, uint64_t *next_us)
{
    uint64_t lasts_us = lb->rules.slow_start_us;
    uint64_t since_us = atomic_load_explicit(&backend->ready_since_us, memory_order_relaxed);
    uint64_t until_us = atomic_load_explicit(&backend->ejected_until_us, memory_order_relaxed);
    if (until_us <= now_us)
        since_us = VB_MAX(since_us, until_us);
    uint64_t age_us = now_us > since_us ? now_us - since_us : 0;
    if (age_us >= lasts_us)
        return LB_RAMP_STEPS;
    uint64_t step_us = (lasts_us + LB_RAMP_STEPS - 1) / LB_RAMP_STEPS;
    *next_us = VB_MIN(*next_us, (now_us / step_us + 1) * step_us);
    return (unsigned)(age_us * LB_RAMP_STEPS / lasts_us + 1);
}

/* Weights are what the candidates have, in steps while one of them has not all; `nominal` is that without steps. */
static void set_weights(struct vb_lb *lb, uint64_t now_us)
{
    bool ramping = false;
    lb->is_weighted = false;
    for (unsigned i = 0; i < lb->n_candidates; i++) {
        struct vb_candidate *candidate = &lb->candidates[i];
        candidate->weight = ramp(lb, vb_shm_backend(lb->shm, candidate->backend), now_us, &lb->look_again_us);
        ramping |= candidate->weight < LB_RAMP_STEPS;
    }
    for (unsigned i = 0; i < lb->n_candidates; i++) {
        struct vb_candidate *candidate = &lb->candidates[i];
        candidate->weight = candidate->nominal * (ramping ? candidate->weight : 1);
        lb->is_weighted |= candidate->weight != lb->candidates[0].weight;
    }
}

enum whom { USABLE, USABLE_BACKUPS, ALL };

static bool is_wanted(const struct vb_shm_backend *backend, uint64_t time_us, enum whom whom)
{
    bool usable = lb_is_healthy(backend) && !vb_shm_backend_ejected(backend, time_us);
    return whom == ALL || (usable && is_backup(backend) == (whom == USABLE_BACKUPS));
}

static void collect(struct vb_lb *lb, uint64_t time_us, enum whom whom)
{
    lb->n_candidates = 0;
    lb->is_limited = false;
    for (unsigned i = 0; i < vb_shm_capacity(lb->shm).backends; i++) {
        const struct vb_shm_backend *backend = vb_shm_backend(lb->shm, i);
        lb->is_limited |= keeps_stuck(lb, backend) && limit_of(lb, i) != 0;
        if (lb_is_member(backend, lb->pool_index) && is_wanted(backend, time_us, whom))
            lb->candidates[lb->n_candidates++] =
                (struct vb_candidate){.backend = i, .nominal = VB_MAX(atomic_load(&backend->weight), 1u)};
    }
}

/*
 * Ejections are no more than a share of those that are not down. When some went down after others had been ejected, the
 * ejections that end first end now: the last good backend of a pool may be one of them.
 *
 * Backups are asked when no other is usable. Panic: when so few are usable that they could not bear the load of all, it
 * is more likely that our judgement is wrong; unless there are backups for that.
 */
static void choose_candidates(struct vb_lb *lb, uint64_t now_us)
{
    uint64_t panic = atomic_load_explicit(&lb->pool->panic, memory_order_relaxed), time_us = now_us;
    uint64_t most = atomic_load_explicit(&lb->pool->max_ejected, memory_order_relaxed);
    struct census census = take_census(lb, now_us);
    lb->look_again_us = census.next_end_us;
    while (census.ejected * 100 > most * census.healthy) {
        time_us = census.next_end_us;
        census = take_census(lb, time_us);
    }
    lb->on_backups = census.usable == 0 && census.usable_backups > 0;
    lb->in_panic = !lb->on_backups && census.usable * 100 < panic * (census.members - census.backups);
    collect(lb, time_us, lb->on_backups ? USABLE_BACKUPS : lb->in_panic ? ALL : USABLE);
    set_weights(lb, now_us);
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

/* ---- one pick ---------------------------------------------------------------------------------------------------- */

static bool has_untried(const struct vb_lb *lb, const struct vb_tried *tried)
{
    if (VB_LIKELY(lb->n_candidates > tried->n))
        return true;
    for (unsigned i = 0; i < lb->n_candidates; i++)
        if (!lb_is_tried(tried, lb->candidates[i].backend))
            return true;
    return false;
}

/* Has it as many requests as it may have? */
static bool is_full(const struct vb_lb *lb, unsigned backend)
{
    unsigned limit = limit_of(lb, backend);
    return limit != 0 && vb_shm_load(lb->shm, backend) >= limit;
}

/* Known before a ticket is taken: tickets are what the retry budget takes for requests. */
static bool has_pickable(struct vb_lb *lb, const struct vb_ask *ask)
{
    bool found = false;
    if (VB_LIKELY(!lb->is_limited))
        return has_untried(lb, ask->tried);
    for (unsigned i = 0; i < lb->n_candidates; i++) {
        lb->candidates[i].is_full = is_full(lb, lb->candidates[i].backend);
        found |= lb_may_pick(lb, ask, i);
    }
    return found;
}

/*
 * A further try is better made with one that is ejected, or a backup, than not at all: the one that is free soonest,
 * of several the least loaded. -ENOENT: there is none either. -EAGAIN: there is, but it is full.
 */
static int pick_beyond(const struct vb_lb *lb, const struct vb_tried *tried, uint64_t now_us)
{
    uint64_t first_us = UINT64_MAX, least = 0;
    int best = -ENOENT;
    for (unsigned i = 0; i < vb_shm_capacity(lb->shm).backends && tried->n > 0; i++) {
        const struct vb_shm_backend *backend = vb_shm_backend(lb->shm, i);
        if (!lb_is_member(backend, lb->pool_index) || !lb_is_healthy(backend) || lb_is_tried(tried, i))
            continue;
        if (is_full(lb, i)) {
            best = best < 0 ? -EAGAIN : best;
            continue;
        }
        uint64_t until_us = atomic_load_explicit(&backend->ejected_until_us, memory_order_relaxed);
        uint64_t free_us = until_us > now_us ? until_us : 0, load = vb_shm_load(lb->shm, i);
        if (free_us < first_us || (free_us == first_us && load < least)) {
            first_us = free_us;
            least = load;
            best = (int)i;
        }
    }
    return best;
}

bool vb_lb_has_other(struct vb_lb *lb, const struct vb_tried *tried, uint64_t now_us)
{
    return follow(lb, now_us) == 0 && (has_untried(lb, tried) || pick_beyond(lb, tried, now_us) != -ENOENT);
}

bool vb_lb_is_full(struct vb_lb *lb, uint64_t now_us)
{
    static const struct vb_tried none;
    static const struct vb_ask anybody = {.tried = &none, .stuck_to = -1};
    return follow(lb, now_us) == 0 && lb->n_candidates > 0 && !has_pickable(lb, &anybody);
}

bool vb_lb_is_limited(struct vb_lb *lb, uint64_t now_us)
{
    follow(lb, now_us); /* without memory: the next pick says so */
    return lb->is_limited;
}

/* Ejected ones are candidates where too many are ejected. */
bool vb_lb_is_stuck(const struct vb_lb *lb, const struct vb_ask *ask, uint64_t now_us)
{
    if (ask->stuck_to < 0 || lb_is_tried(ask->tried, (unsigned)ask->stuck_to))
        return false;
    const struct vb_shm_backend *backend = vb_shm_backend(lb->shm, (unsigned)ask->stuck_to);
    bool usable = lb_is_healthy(backend) && !vb_shm_backend_ejected(backend, now_us);
    return (keeps_stuck(lb, backend) && usable) || vb_lb_is_candidate(lb, (unsigned)ask->stuck_to);
}

static enum vb_pick_reason reason_of(const struct vb_lb *lb, const struct lb_turn *turn)
{
    if (turn->ask->tried->n > 0)
        return VB_PICK_RETRY;
    if (lb->in_panic)
        return VB_PICK_PANIC;
    if (lb->on_backups)
        return VB_PICK_BACKUP;
    return lb->n_candidates == 1 ? VB_PICK_ONLY : turn->reason;
}

static uint64_t take_ticket(struct vb_lb *lb)
{
    return atomic_fetch_add_explicit(&lb->pool->cursor, 1, memory_order_relaxed);
}

/* The slot of the backend that is to get the request; nothing is counted there yet. */
static int choose(struct vb_lb *lb, const struct vb_ask *ask, uint64_t now_us, enum vb_pick_reason *ret_reason)
{
    struct lb_turn turn = {.ask = ask, .now_us = now_us, .reason = VB_PICK_POLICY};
    if (vb_lb_is_stuck(lb, ask, now_us)) {
        if (is_full(lb, (unsigned)ask->stuck_to))
            return -EAGAIN;
        atomic_fetch_add_explicit(&lb->pool->stuck, 1, memory_order_relaxed);
        *ret_reason = ask->tried->n > 0 ? VB_PICK_RETRY : VB_PICK_STICKY;
        return ask->stuck_to;
    }
    if (has_pickable(lb, ask)) {
        turn.ticket = take_ticket(lb);
        unsigned chosen = lb->policy->pick(lb, &turn);
        *ret_reason = reason_of(lb, &turn);
        return (int)lb->candidates[chosen].backend;
    }
    if (has_untried(lb, ask->tried))
        return -EAGAIN;
    int beyond = pick_beyond(lb, ask->tried, now_us);
    if (beyond >= 0)
        take_ticket(lb);
    *ret_reason = VB_PICK_RETRY;
    return beyond;
}

/*
 * Counts first and looks at the epoch after that: see shm/members.c. -EAGAIN: it is full. -ESTALE: the pool has
 * changed.
 */
static int count_in_flight(struct vb_lb *lb, unsigned backend)
{
    if (VB_UNLIKELY(!vb_shm_begin(lb->shm, lb->slot, backend, limit_of(lb, backend)))) {
        lb->is_limited = true; /* the limit may be newer than the picture, and the epoch still be the old one */
        return -EAGAIN;
    }
    if (VB_LIKELY(atomic_load(&lb->pool->epoch) == lb->epoch))
        return 0;
    vb_lb_done(lb, backend);
    return -ESTALE;
}

/*
 * It goes round again when the epoch moved during the pick, or others took the last places of the one that it chose: so
 * it ends when the epoch stands still for a microsecond, and each further round means that somebody else got a request
 * through. The ticket of a round that was in vain is lost.
 */
int vb_lb_pick(struct vb_lb *lb, const struct vb_ask *ask, uint64_t now_us, enum vb_pick_reason *ret_reason)
{
    int backend, r;
    do {
        r = follow(lb, now_us);
        if (r < 0)
            return r;
        backend = choose(lb, ask, now_us, ret_reason);
        if (backend < 0)
            return backend;
        r = count_in_flight(lb, (unsigned)backend);
    } while (r < 0);
    if (ask->tried->n > 0)
        atomic_fetch_add_explicit(&lb->pool->retries, 1, memory_order_relaxed);
    return backend;
}

void vb_lb_done(struct vb_lb *lb, unsigned backend)
{
    vb_shm_end(lb->shm, lb->slot, backend);
}

void vb_lb_learn(struct vb_lb *lb, unsigned backend, uint64_t latency_us, enum vb_try_end how, uint64_t now_us)
{
    if (lb->policy->learn != NULL)
        lb->policy->learn(vb_shm_backend(lb->shm, backend), latency_us, how, now_us);
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
