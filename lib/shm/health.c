/*
 * The health record: several words that must be read together. It carries a sequence number, odd while the health
 * thread is writing; a reader copies, and keeps the copy when the number was even and the same before and after.
 *
 * The words are copied as atomics, stored with release and loaded with acquire order: that keeps them on the right side
 * of the sequence number without fences (which ThreadSanitizer cannot follow), and costs nothing on x86.
 */
#include <sched.h>
#include <string.h>

#include "vb/clock.h"

#include "shm_priv.h"

typedef uint64_t __attribute__((may_alias)) word;

enum {
    WORDS = sizeof(struct vb_health_record) / sizeof(word),
    TRIES_SPINNING = 100, /* a write takes well under a microsecond */
    TRIES = 2000,         /* with yields: about a millisecond, for a writer that lost its CPU */
};
_Static_assert(sizeof(struct vb_health_record) % sizeof(word) == 0, "the record is copied in words");
_Static_assert(offsetof(struct vb_shm_backend, record) % sizeof(word) == 0, "the record is copied in words");

/* The next odd number; also where a writer that died in the middle left an odd one. */
static uint32_t write_begin(struct vb_shm_backend *backend)
{
    uint32_t seq = (atomic_load_explicit(&backend->record_seq, memory_order_relaxed) + 1) | 1;
    atomic_store_explicit(&backend->record_seq, seq, memory_order_relaxed);
    return seq;
}

static void write_end(struct vb_shm_backend *backend, uint32_t seq)
{
    atomic_store_explicit(&backend->record_seq, seq + 1, memory_order_release);
}

static bool read_begin(const struct vb_shm_backend *backend, uint32_t *ret_seq)
{
    *ret_seq = atomic_load_explicit(&backend->record_seq, memory_order_acquire);
    return *ret_seq % 2 == 0;
}

static bool read_end(const struct vb_shm_backend *backend, uint32_t seq)
{
    return atomic_load_explicit(&backend->record_seq, memory_order_relaxed) == seq;
}

void shm_record_write(struct vb_shm_backend *backend, const struct vb_health_record *record)
{
    const word *from = (const word *)record;
    word *to = (word *)&backend->record;
    uint32_t seq = write_begin(backend);
    for (unsigned i = 0; i < WORDS; i++)
        __atomic_store_n(&to[i], from[i], __ATOMIC_RELEASE);
    write_end(backend, seq);
}

bool vb_shm_read_health(const struct vb_shm *shm, unsigned backend, struct vb_health_record *ret_record)
{
    const struct vb_shm_backend *row = vb_shm_backend(shm, backend);
    const word *from = (const word *)&row->record;
    word *to = (word *)ret_record;
    for (unsigned tries = 0; tries < TRIES; tries++) {
        uint32_t seq;
        if (tries >= TRIES_SPINNING)
            sched_yield();
        if (!read_begin(row, &seq))
            continue;
        for (unsigned i = 0; i < WORDS; i++)
            to[i] = __atomic_load_n(&from[i], __ATOMIC_ACQUIRE);
        if (read_end(row, seq))
            return true;
    }
    memset(ret_record, 0, sizeof(*ret_record));
    return false;
}

void vb_shm_write_health(struct vb_shm *shm, unsigned backend, enum vb_health_state health,
                         const struct vb_health_record *record)
{
    struct vb_shm_backend *row = vb_shm_backend(shm, backend);
    shm_record_write(row, record);
    bool was_down = atomic_load_explicit(&row->health, memory_order_relaxed) == VB_HEALTH_DOWN;
    bool was_ready = atomic_load_explicit(&row->ready_since_us, memory_order_relaxed) != 0;
    if (was_down && was_ready && health != VB_HEALTH_DOWN) /* its slow start begins */
        atomic_store_explicit(&row->ready_since_us, vb_clock_us(), memory_order_relaxed);
    if (atomic_exchange_explicit(&row->health, health, memory_order_release) == (uint32_t)health)
        return;
    unsigned pool = atomic_load_explicit(&row->pool, memory_order_relaxed);
    atomic_fetch_add_explicit(&vb_shm_pool(shm, pool)->epoch, 1, memory_order_release);
}
