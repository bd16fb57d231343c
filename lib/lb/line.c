/*
 * Which worker's line is first. Each worker says in two words of its own how long its first ones have waited: the first
 * of those that can go anywhere, and the first of those that are stuck to a full backend, with that. So nobody locks,
 * and a dead worker's lines are gone with its words.
 *
 * No wake-up is lost between who comes and who leaves: the one notes that he waits, then looks for a place; the other
 * gives his place back, then looks who waits. The fences see to it that one of them sees the other.
 */
#include "vb/lb.h"

enum { BACKEND_BITS = 12 };

_Static_assert(VB_SHM_BACKENDS_MAX <= 1 << BACKEND_BITS, "a backend's slot fits beside the time");

void vb_line_note(struct vb_shm *shm, unsigned slot, unsigned pool, const struct vb_line *line)
{
    struct vb_shm_places *row = vb_shm_places(shm, slot, pool);
    uint64_t stuck = line->stuck_since_us == 0 ? 0 : line->stuck_since_us << BACKEND_BITS | line->stuck_to;
    atomic_store_explicit(&row->waits_since_us, line->since_us, memory_order_relaxed);
    atomic_store_explicit(&row->stuck_since, stuck, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
}

/* `any`: also of those that can go to any backend. */
static int find_first(const struct vb_shm *shm, unsigned pool, int backend, bool any, uint64_t *ret_since_us)
{
    int first = -1;
    *ret_since_us = UINT64_MAX;
    atomic_thread_fence(memory_order_seq_cst);
    for (unsigned slot = 0, slots = vb_shm_slots(shm); slot < slots; slot++) {
        const struct vb_shm_places *row = vb_shm_places(shm, slot, pool);
        uint64_t since = any ? atomic_load_explicit(&row->waits_since_us, memory_order_relaxed) : 0;
        uint64_t stuck = atomic_load_explicit(&row->stuck_since, memory_order_relaxed);
        bool is_same = backend >= 0 && stuck != 0 && (stuck & ((1u << BACKEND_BITS) - 1)) == (unsigned)backend;
        if (is_same && (since == 0 || stuck >> BACKEND_BITS < since))
            since = stuck >> BACKEND_BITS;
        if (since != 0 && since < *ret_since_us) {
            first = (int)slot;
            *ret_since_us = since;
        }
    }
    return first;
}

int vb_line_first(const struct vb_shm *shm, unsigned pool, int backend, uint64_t *ret_since_us)
{
    return find_first(shm, pool, backend, true, ret_since_us);
}

int vb_line_first_stuck(const struct vb_shm *shm, unsigned pool, unsigned backend, uint64_t *ret_since_us)
{
    return find_first(shm, pool, (int)backend, false, ret_since_us);
}
