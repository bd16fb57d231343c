/*
 * hash: the same key goes to the same backend, whichever worker or instance is asked, and when backends come and go no
 * more keys move than must.
 *
 * Multi-probe consistent hashing. Each candidate has points on a ring, at places that follow from its name alone; a key
 * looks from several places, and goes to the candidate with the shortest way from one of them to one of its points.
 * Ways count by weight: to a backend of twice the weight they are half as long. So what a key thinks of one backend
 * depends on no other: without a backend only its own keys move, to each key's next best, and another weight moves keys
 * only to that backend or only away from it. Points in proportion to weight would need a scale, which moves others'
 * keys when it changes; and their number would grow with the weights.
 *
 * How even: P points and K probes give each backend its share with a deviation of 1/sqrt(P * (2K - 1)): 3.2 %. Probes
 * are paid by each pick, points when the candidates change.
 *
 * Bounded load: who has more than its share of all requests in flight passes the next ones on, to each key's next best.
 */
#include "policy_hash.h"

#include <errno.h>
#include <float.h>
#include <stdlib.h>
#include <string.h>

#include "policy.h"
#include "vb/siphash.h"

/* The ring is a full turn of 64 bits, with the lowest ones given to the candidate's index. */
#define INDEX_BITS 16
#define INDEX_MASK ((UINT64_C(1) << INDEX_BITS) - 1)

_Static_assert(VB_SHM_BACKENDS_MAX <= INDEX_MASK + 1, "a point has room for any index");

/* Not secret, and never to be changed: all instances place the same names at the same points. */
static const uint64_t names_key[2] = {0x0f1e6c5dab7a9284, 0x61d3c8f05b2e7a49};

/* ---- the ring ---------------------------------------------------------------------------------------------------- */

static uint64_t hash_name(const struct vb_lb *lb, unsigned i)
{
    const char *name = vb_shm_backend(lb->shm, lb->candidates[i].backend)->name;
    return vb_siphash(names_key, name, strnlen(name, VB_SHM_NAME_MAX));
}

static uint64_t make_point(uint64_t name, unsigned number, unsigned candidate)
{
    uint64_t position = vb_siphash((uint64_t[]){name, number}, "", 0);
    return (position & ~INDEX_MASK) | candidate;
}

/*
 * Sorts by bucket: first counts, and makes of it where each bucket ends; then puts each point before those that its
 * bucket has, so that in the end it is known where each begins. Points are made twice, which is cheaper than to keep
 * them somewhere.
 */
static void place(const struct vb_lb *lb, struct lb_points *ring, unsigned n_buckets)
{
    memset(ring->first, 0, n_buckets * sizeof(*ring->first));
    for (unsigned i = 0; i < lb->n_candidates; i++) {
        uint64_t name = hash_name(lb, i);
        for (unsigned k = 0; k < LB_HASH_POINTS; k++)
            ring->first[make_point(name, k, i) >> ring->shift]++;
    }
    for (unsigned b = 1; b < n_buckets; b++)
        ring->first[b] += ring->first[b - 1];
    for (unsigned i = 0; i < lb->n_candidates; i++) {
        uint64_t name = hash_name(lb, i);
        for (unsigned k = 0; k < LB_HASH_POINTS; k++) {
            uint64_t point = make_point(name, k, i);
            ring->points[--ring->first[point >> ring->shift]] = point;
        }
    }
}

/* Buckets are in order and hold a point or two: by insertion. */
static void sort(uint64_t *points, unsigned n)
{
    for (unsigned i = 1; i < n; i++) {
        uint64_t point = points[i];
        unsigned to = i;
        for (; to > 0 && points[to - 1] > point; to--)
            points[to] = points[to - 1];
        points[to] = point;
    }
}

static void weigh(const struct vb_lb *lb, struct lb_points *ring)
{
    unsigned heaviest = 1;
    ring->weight_sum = 0;
    for (unsigned i = 0; i < lb->n_candidates; i++) {
        heaviest = VB_MAX(heaviest, lb->candidates[i].nominal);
        ring->weight_sum += lb->candidates[i].weight;
    }
    for (unsigned i = 0; i < lb->n_candidates; i++)
        ring->lengths[i] = (double)heaviest / lb->candidates[i].nominal;
}

static int prepare(struct vb_lb *lb)
{
    unsigned n = lb->n_candidates * LB_HASH_POINTS, bits = 1;
    while ((1u << bits) < n)
        bits++;
    size_t n_buckets = (size_t)1 << bits;
    struct lb_points *ring = malloc(sizeof(*ring) + n * sizeof(*ring->points) +
                                    lb->n_candidates * sizeof(*ring->lengths) + n_buckets * sizeof(*ring->first));
    if (ring == NULL)
        return -ENOMEM;
    ring->n = n;
    ring->shift = 64 - bits;
    ring->lengths = (double *)&ring->points[n];
    ring->first = (uint32_t *)&ring->lengths[lb->n_candidates];
    place(lb, ring, (unsigned)n_buckets);
    sort(ring->points, n);
    weigh(lb, ring);
    free(lb->points);
    lb->points = ring;
    return vb_policy_round_robin.prepare(lb); /* for those without a key */
}

/* ---- one pick ---------------------------------------------------------------------------------------------------- */

/* Whom a search may find. */
struct search {
    const struct vb_lb *lb;
    const struct vb_ask *ask;
    uint64_t requests; /* of the pool, in flight: who has its share of them is not wanted; 0: whatever it has */
    double shortest;   /* way so far */
    unsigned found;    /* n_candidates: nobody yet */
};

/*
 * Has it the share of these requests that it may have, or more? Their part by weight, times the bound; of a part of a
 * request, all of it. While it starts slowly its part is smaller, which is what spares it: its keys are its own.
 */
static bool is_over_bound(const struct vb_lb *lb, unsigned i, uint64_t requests)
{
    uint64_t load = vb_shm_load(lb->shm, lb->candidates[i].backend);
    return load * lb->points->weight_sum * 100 >= lb->rules.hash_bound * requests * lb->candidates[i].weight;
}

static bool is_wanted(const struct search *search, unsigned i)
{
    return lb_may_pick(search->lb, search->ask, i) &&
           (search->requests == 0 || !is_over_bound(search->lb, i, search->requests));
}

static bool is_any_wanted(const struct search *search)
{
    for (unsigned i = 0; i < search->lb->n_candidates; i++)
        if (is_wanted(search, i))
            return true;
    return false;
}

/*
 * The way from this place to points further on, until even the heaviest could not be nearer: a step or two, more only
 * where few are wanted. Before it goes on for long, it makes sure that there is something to be found.
 */
static void look_from(struct search *search, uint64_t place)
{
    const struct lb_points *ring = search->lb->points;
    unsigned at = ring->first[place >> ring->shift];
    while (at < ring->n && ring->points[at] < place)
        at++;
    for (unsigned steps = 0; steps < ring->n; steps++, at++) {
        uint64_t point = ring->points[at < ring->n ? at : (at = 0)];
        double distance = (double)((point - place) >> INDEX_BITS);
        if (distance >= search->shortest)
            return;
        unsigned i = point & INDEX_MASK;
        double way = distance * ring->lengths[i];
        if (way < search->shortest && is_wanted(search, i)) {
            search->shortest = way;
            search->found = i;
        }
        if (VB_UNLIKELY(steps == search->lb->n_candidates) && !is_any_wanted(search))
            return;
    }
}

/* Places are the key and equal steps on from it, which are hashed once more to be another number. */
static unsigned find(const struct vb_lb *lb, const struct vb_ask *ask, uint64_t requests)
{
    struct search search = {lb, ask, requests, DBL_MAX, lb->n_candidates};
    uint64_t place = ask->key, step = vb_siphash((uint64_t[]){ask->key, 0}, "", 0) | (INDEX_MASK + 1);
    for (unsigned k = 0; k < LB_HASH_PROBES; k++)
        look_from(&search, (place += step) & ~INDEX_MASK);
    return search.found;
}

/*
 * The bound is of what is in flight in the pool, this request included. Where all that may be picked have more than
 * that, because others could not be, it is no help.
 */
static unsigned pick(const struct vb_lb *lb, struct lb_turn *turn)
{
    if (!turn->ask->has_key)
        return vb_policy_round_robin.pick(lb, turn);
    unsigned own = find(lb, turn->ask, 0);
    if (lb->rules.hash_bound == 0 || vb_shm_load(lb->shm, lb->candidates[own].backend) == 0)
        return own;
    uint64_t requests = VB_MAX(vb_shm_sum_places(lb->shm, lb->pool_index, VB_PLACE_REQUEST), UINT64_C(1));
    if (!is_over_bound(lb, own, requests))
        return own;
    unsigned next = find(lb, turn->ask, requests);
    if (next == lb->n_candidates)
        return own;
    turn->reason = VB_PICK_SPILL;
    return next;
}

const struct vb_policy vb_policy_hash = {.name = "hash", .prepare = prepare, .pick = pick};
