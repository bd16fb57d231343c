/*
 * Requests in flight, counted twice.
 *
 * Each worker has a row of its own, which nobody else writes: what it holds when it dies is known, and can be given
 * back. Beside that all workers share one count for each backend, so that a pick reads one word for a backend and not
 * one for each worker, and a limit can be kept exactly: by compare-and-swap.
 *
 * The two agree but while somebody is between them. A row's word says whether its worker is: it is
 * `sequence << 32 | requests`, and the sequence is odd from before the shared count is changed until after. A worker
 * that dies there leaves it unknown whether the shared count has its last change: the backend is then `unsettled`.
 *
 * Settling: the difference between the shared count and the sum of the rows is 0, plus what was lost or left by those
 * who died; no one who counts changes it once he has finished. So it only has to be seen in a moment in which nobody is
 * in the middle: all sequences are even, and the same before and after. Then the difference is taken off, which is
 * right also later. Counting takes some nanoseconds, so that a quiet moment is found soon; where one is stopped in the
 * middle, it is tried again each second.
 */
#include "shm_priv.h"

#define STEP (UINT64_C(1) << 32) /* of the sequence */

enum { SETTLE_TRIES = 1000 };

static bool is_counting(uint64_t word)
{
    return (word & STEP) != 0;
}

static vb_u32 *shared_count(const struct vb_shm *shm, unsigned backend)
{
    return &vb_shm_loads(shm)[backend];
}

/* ---- tallies: least:32 | ties:5 | version:26 | kept:1 ------------------------------------------------------------ */

enum { VERSION_AT = VB_SHM_TIES_AT + 5 };

#define KEPT         (UINT64_C(1) << 63)
#define VERSION_MASK (KEPT - (UINT64_C(1) << VERSION_AT))

static uint64_t tally_after(uint64_t before, const vb_u32 *counts)
{
    uint64_t least = UINT32_MAX, ties = 0;
    for (unsigned i = 0; i < VB_SHM_LINE; i++) {
        int32_t count = (int32_t)atomic_load(&counts[i]);
        uint64_t load = count > 0 ? (uint64_t)count : 0;
        ties = load < least ? 1 : ties + (load == least);
        least = VB_MIN(load, least);
    }
    return KEPT | ((before + (UINT64_C(1) << VERSION_AT)) & VERSION_MASK) | ties << VB_SHM_TIES_AT | least;
}

static void tally(const struct vb_shm *shm, unsigned backend)
{
    unsigned line = backend / VB_SHM_LINE;
    vb_u64 *word = &vb_shm_tallies(shm)[line];
    for (unsigned tries = 0; tries < 2; tries++) {
        uint64_t before = atomic_load(word);
        if ((before & KEPT) == 0 ||
            atomic_compare_exchange_strong(word, &before, tally_after(before, &vb_shm_loads(shm)[line * VB_SHM_LINE])))
            return;
    }
}

void vb_shm_keep_tally(const struct vb_shm *shm, unsigned line)
{
    assert((line + 1) * VB_SHM_LINE <= shm->cap.backends);
    atomic_fetch_or(&vb_shm_tallies(shm)[line], KEPT); /* who counted before this is seen by the next line's look */
    tally(shm, line * VB_SHM_LINE);
}

/* ---- counting ---------------------------------------------------------------------------------------------------- */

static bool take_below(vb_u32 *count, unsigned limit)
{
    uint32_t now = atomic_load_explicit(count, memory_order_relaxed);
    do {
        if ((int32_t)now >= 0 && now >= limit) /* below 0: see vb_shm_load */
            return false;
    } while (!atomic_compare_exchange_weak(count, &now, now + 1));
    return true;
}

bool vb_shm_begin(const struct vb_shm *shm, unsigned slot, unsigned backend, unsigned limit)
{
    vb_u64 *own = &vb_shm_in_flight(shm, slot)[backend];
    vb_u32 *shared = shared_count(shm, backend);
    uint64_t word = atomic_load_explicit(own, memory_order_relaxed);
    atomic_store_explicit(own, word + STEP + 1, memory_order_relaxed);
    if (limit == 0) {
        atomic_fetch_add(shared, 1);
    } else if (!take_below(shared, limit)) {
        atomic_store_explicit(own, word + 2 * STEP, memory_order_release);
        return false;
    }
    tally(shm, backend);
    atomic_store_explicit(own, word + 2 * STEP + 1, memory_order_release);
    return true;
}

/* Released: who finds none in flight may give the slot, and the figures that this request has written, to another. */
void vb_shm_end(const struct vb_shm *shm, unsigned slot, unsigned backend)
{
    vb_u64 *own = &vb_shm_in_flight(shm, slot)[backend];
    uint64_t word = atomic_load_explicit(own, memory_order_relaxed);
    assert((uint32_t)word > 0);
    atomic_store_explicit(own, word + STEP - 1, memory_order_release);
    atomic_fetch_sub(shared_count(shm, backend), 1);
    tally(shm, backend);
    atomic_store_explicit(own, word + 2 * STEP - 1, memory_order_release);
}

/* ---- when a worker has died -------------------------------------------------------------------------------------- */

/* All rows at one moment in which nobody was counting, and the shared count at that moment. */
static bool read_quiet(const struct vb_shm *shm, unsigned backend, uint32_t *ret_rows, uint32_t *ret_shared)
{
    uint64_t words[VB_SHM_WORKERS_MAX];
    unsigned slots = vb_shm_slots(shm);
    *ret_rows = 0;
    for (unsigned i = 0; i < slots; i++) {
        words[i] = atomic_load_explicit(&vb_shm_in_flight(shm, i)[backend], memory_order_acquire);
        *ret_rows += (uint32_t)words[i];
        if (is_counting(words[i]))
            return false;
    }
    *ret_shared = atomic_load_explicit(shared_count(shm, backend), memory_order_acquire);
    for (unsigned i = 0; i < slots; i++)
        if (atomic_load_explicit(&vb_shm_in_flight(shm, i)[backend], memory_order_relaxed) != words[i])
            return false;
    return true;
}

static void settle(struct vb_shm *shm, unsigned backend)
{
    uint32_t rows, shared;
    for (unsigned tries = 0; tries < SETTLE_TRIES; tries++) {
        if (!read_quiet(shm, backend, &rows, &shared))
            continue;
        atomic_fetch_add(shared_count(shm, backend), rows - shared);
        tally(shm, backend);
        atomic_store_explicit(&vb_shm_backend(shm, backend)->unsettled, 0, memory_order_relaxed);
        return;
    }
}

void vb_shm_settle(struct vb_shm *shm)
{
    for (unsigned i = 0; i < shm->cap.backends; i++)
        if (atomic_load_explicit(&vb_shm_backend(shm, i)->unsettled, memory_order_relaxed) != 0)
            settle(shm, i);
}

void shm_give_back_in_flight(struct vb_shm *shm, unsigned slot)
{
    vb_u64 *row = vb_shm_in_flight(shm, slot);
    for (unsigned i = 0; i < shm->cap.backends; i++) {
        uint64_t word = atomic_load_explicit(&row[i], memory_order_acquire);
        if ((uint32_t)word > 0)
            atomic_fetch_sub(shared_count(shm, i), (uint32_t)word);
        if (is_counting(word))
            atomic_store_explicit(&vb_shm_backend(shm, i)->unsettled, 1, memory_order_relaxed);
        if (word != 0)
            tally(shm, i);
        atomic_store_explicit(&row[i], 0, memory_order_release);
    }
    vb_shm_settle(shm);
}
