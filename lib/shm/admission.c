/*
 * Limits of connections and of a pool's requests, over all workers, without a lock and without a counter that they
 * share: each worker writes words of its own, so a worker that died holds nobody up, and zeroing its words gives back
 * all that it held.
 *
 * A word is `admitted << 1 | trying`. Who wants a place
 *
 *   1. sets `trying` in his word;
 *   2. reads all words: A are admitted, T others are trying;
 *   3. A >= limit: refused. A + T < limit: there is room even if all those get in, so he is admitted;
 *   4. else they are too many for the last places: who sees one trying in a lower slot withdraws, and comes back when
 *      that one has decided; the lowest stays, reads again, and so gets his answer when the others have theirs.
 *
 * Never more than the limit: of those whose admissions made up the sum at some moment, look at the one who set `trying`
 * last. He read every word after the others had set theirs, so found each of these places admitted or being tried for.
 * This needs one order of all stores of `trying` and all loads of step 2, the same for everybody: they are seq_cst.
 * "Every word" are those of the slots that have been claimed, for IP addresses of those that count them. Both are said
 * in that order too, and before the worker's process exists: so before it sets `trying` for the first time, and who
 * sets his after that reads its words. Admitting and leaving only have to be seen some time; they are released, so that
 * who sees a place come free also sees what its holder did before.
 *
 * Nobody is refused while there is a place, with two exceptions. One who was stopped between 1 and 4 (a signal, no CPU)
 * is waited for some milliseconds (by the whole worker, for each newcomer), then his `trying` counts as a place. And a
 * place that moves from one slot to another while somebody reads may be found in both; that client came within a
 * microsecond of a full house.
 *
 * By IP address the same is done with one word for each address, in a hash table in each slot. Its bucket is all that
 * is read of the other slots' tables. A word of count 0 belongs to no connection, so its writer may give it to another
 * address; a reader gets the whole word, fingerprint and count, in one load: of the old address 0, or what is true of
 * the new one. Two addresses of one fingerprint (2^-54 for a pair) would share their limit.
 */
#include <time.h>

#include "vb/siphash.h"

#include "shm_priv.h"

enum {
    TRYING = 1,
    ONE = 2, /* one connection in a word's count */
    COUNT_BITS = 20,
    COUNT_MASK = (1 << COUNT_BITS) - 1, /* of a table's word: its count and `trying` */
    COUNT_FULL = COUNT_MASK - TRYING,
    ROUNDS_SPINNING = 500, /* deciding takes a microsecond at most; these take some ten */
    ROUNDS = 550,          /* then sleeping, which also lets one run who has lost his CPU to us */
    SLEEP_NS = 100000,
};

/* What is limited, as one worker sees it: all connections, those of one address, or requests of one pool. */
struct places {
    const struct vb_shm *shm;
    unsigned slot;
    vb_u64 *own;
    enum { OF_ALL, OF_IP, OF_POOL } kind;
    unsigned bucket;
    uint64_t fingerprint;
    unsigned pool;
    enum vb_place place;
};

static vb_u64 *word_of_pool(const struct vb_shm *shm, unsigned slot, unsigned pool, enum vb_place place)
{
    struct vb_shm_places *row = vb_shm_places(shm, slot, pool);
    return place == VB_PLACE_REQUEST ? &row->requests : &row->pending;
}

struct tally {
    uint64_t admitted;
    unsigned trying; /* not counting ourselves */
    bool lower_trying;
};

static void add_word(struct tally *tally, uint64_t word, bool lower)
{
    tally->admitted += word / ONE;
    if (word & TRYING) {
        tally->trying++;
        tally->lower_trying |= lower;
    }
}

static void add_bucket(struct tally *tally, const struct places *places, unsigned slot)
{
    const vb_u64 *words = vb_shm_ips(places->shm, slot)->words[places->bucket];
    for (unsigned i = 0; i < VB_SHM_IP_WORDS; i++) {
        uint64_t word = atomic_load(&words[i]);
        if (word >> COUNT_BITS == places->fingerprint)
            add_word(tally, word & COUNT_MASK, slot < places->slot);
    }
}

static struct tally read_all(const struct places *places)
{
    struct tally tally = {0};
    uint64_t own = atomic_load_explicit(places->own, memory_order_relaxed) & ~(uint64_t)TRYING;
    add_word(&tally, places->kind == OF_IP ? own & COUNT_MASK : own, false);
    unsigned slots = vb_shm_slots(places->shm);
    for (unsigned slot = 0; slot < slots; slot++) {
        if (slot == places->slot)
            continue;
        if (places->kind == OF_ALL)
            add_word(&tally, atomic_load(&vb_shm_worker(places->shm, slot)->admission), slot < places->slot);
        else if (places->kind == OF_POOL)
            add_word(&tally, atomic_load(word_of_pool(places->shm, slot, places->pool, places->place)),
                     slot < places->slot);
        else if (shm_counts_ips(places->shm, slot))
            add_bucket(&tally, places, slot);
    }
    return tally;
}

static void wait_a_little(unsigned round)
{
    if (round >= ROUNDS_SPINNING)
        nanosleep(&(struct timespec){.tv_nsec = SLEEP_NS}, NULL);
#if defined(__x86_64__) || defined(__i386__)
    __asm__ volatile("pause");
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static bool take(const struct places *places, unsigned limit)
{
    uint64_t word = atomic_load_explicit(places->own, memory_order_relaxed);
    if (limit == 0) {
        atomic_store_explicit(places->own, word + ONE, memory_order_release);
        return true;
    }
    bool trying = true;
    atomic_store(places->own, word | TRYING);
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct tally tally = read_all(places);
        bool fits = tally.admitted + tally.trying < limit;
        if (tally.admitted >= limit)
            break;
        if (trying && fits) {
            atomic_store_explicit(places->own, word + ONE, memory_order_release);
            return true;
        }
        bool may_try = fits || !tally.lower_trying;
        if (trying != may_try)
            atomic_store(places->own, may_try ? word | TRYING : word);
        if (trying || !may_try)
            wait_a_little(round);
        trying = may_try;
    }
    atomic_store_explicit(places->own, word, memory_order_release);
    return false;
}

static void give_back(vb_u64 *own)
{
    uint64_t word = atomic_load_explicit(own, memory_order_relaxed);
    atomic_store_explicit(own, word - ONE, memory_order_release);
}

/* Where an address is counted, `own` aside. False: it is not. */
static bool find_bucket(struct places *places, const struct vb_shm *shm, unsigned slot, const struct vb_ip *ip)
{
    if (!shm_counts_ips(shm, slot) || vb_ip_is_none(ip))
        return false;
    uint64_t hash = vb_siphash(vb_shm_header(shm)->ip_key, ip->bytes, sizeof(ip->bytes));
    *places = (struct places){
        .shm = shm, .slot = slot, .kind = OF_IP, .bucket = hash % VB_SHM_IP_BUCKETS, .fingerprint = hash >> COUNT_BITS};
    return true;
}

/* An address is in one word of its bucket at most: it gets another only when it has none, and keeps it at count 0. */
static vb_u64 *find_word(const struct places *places)
{
    vb_u64 *words = vb_shm_ips(places->shm, places->slot)->words[places->bucket];
    for (unsigned i = 0; i < VB_SHM_IP_WORDS; i++)
        if (atomic_load_explicit(&words[i], memory_order_relaxed) >> COUNT_BITS == places->fingerprint)
            return &words[i];
    return NULL;
}

/*
 * The address's word, or a new one. NULL when the bucket is full of others, or the word of connections: then it is
 * admitted without being counted. Refusing would turn away a client that has done nothing because of 16 others; and
 * who has the thousands of addresses that fill buckets under a key unknown to him is not held by a limit for each of
 * them, but by the one for all, which counts always. When a word comes free while such a connection is open, later ones
 * of its address are counted, and its leaving takes one off their count: too few are counted, never less than none.
 */
static vb_u64 *find_or_make_word(const struct places *places)
{
    vb_u64 *own = find_word(places);
    if (own != NULL)
        return (atomic_load_explicit(own, memory_order_relaxed) & COUNT_MASK) < COUNT_FULL ? own : NULL;
    vb_u64 *words = vb_shm_ips(places->shm, places->slot)->words[places->bucket];
    for (unsigned i = 0; i < VB_SHM_IP_WORDS; i++) {
        if ((atomic_load_explicit(&words[i], memory_order_relaxed) & COUNT_MASK) == 0) {
            atomic_store_explicit(&words[i], places->fingerprint << COUNT_BITS, memory_order_relaxed);
            return &words[i];
        }
    }
    return NULL;
}

enum vb_admission vb_shm_admit(struct vb_shm *shm, unsigned slot, const struct vb_ip *ip,
                               const struct vb_shm_connection_limits *limits)
{
    struct places all = {.shm = shm, .slot = slot, .own = &vb_shm_worker(shm, slot)->admission}, of_ip = {0};
    /* The address first: who is refused for that must not have held a place that others wait for. */
    if (find_bucket(&of_ip, shm, slot, ip))
        of_ip.own = find_or_make_word(&of_ip);
    if (of_ip.own != NULL && !take(&of_ip, limits->per_ip))
        return VB_REFUSED_IP;
    if (take(&all, limits->total))
        return VB_ADMITTED;
    if (of_ip.own != NULL)
        give_back(of_ip.own);
    return VB_REFUSED_TOTAL;
}

void vb_shm_leave(struct vb_shm *shm, unsigned slot, const struct vb_ip *ip)
{
    vb_u64 *all = &vb_shm_worker(shm, slot)->admission;
    struct places of_ip;
    /* In the other order than they were taken: who finds his address free will find a place in all too. */
    if (atomic_load_explicit(all, memory_order_relaxed) >= ONE)
        give_back(all);
    if (!find_bucket(&of_ip, shm, slot, ip))
        return;
    of_ip.own = find_word(&of_ip);
    if (of_ip.own != NULL && (atomic_load_explicit(of_ip.own, memory_order_relaxed) & COUNT_MASK) >= ONE)
        give_back(of_ip.own);
}

bool vb_shm_enter(struct vb_shm *shm, unsigned slot, unsigned pool, enum vb_place place, unsigned limit)
{
    struct places places = {.shm = shm,
                            .slot = slot,
                            .own = word_of_pool(shm, slot, pool, place),
                            .kind = OF_POOL,
                            .pool = pool,
                            .place = place};
    return take(&places, limit);
}

void vb_shm_exit(struct vb_shm *shm, unsigned slot, unsigned pool, enum vb_place place)
{
    give_back(word_of_pool(shm, slot, pool, place));
}

void shm_give_back_admissions(struct vb_shm *shm, unsigned slot)
{
    for (unsigned i = 0; i < shm->cap.backends; i++) {
        atomic_store_explicit(word_of_pool(shm, slot, i, VB_PLACE_REQUEST), 0, memory_order_release);
        atomic_store_explicit(word_of_pool(shm, slot, i, VB_PLACE_PENDING), 0, memory_order_release);
        atomic_store_explicit(&vb_shm_places(shm, slot, i)->waits_since_us, 0, memory_order_relaxed);
        atomic_store_explicit(&vb_shm_places(shm, slot, i)->stuck_since, 0, memory_order_relaxed);
    }
    if (shm_counts_ips(shm, slot)) {
        vb_u64 *words = vb_shm_ips(shm, slot)->words[0];
        for (unsigned i = 0; i < VB_SHM_IP_BUCKETS * VB_SHM_IP_WORDS; i++)
            atomic_store_explicit(&words[i], 0, memory_order_relaxed);
        atomic_store(&vb_shm_worker(shm, slot)->counts_ips, 0);
    }
    atomic_store_explicit(&vb_shm_worker(shm, slot)->admission, 0, memory_order_release);
}
