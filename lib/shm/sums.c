/* What readers want to know: figures over all slots with rows, free ones too: a slot's counters outlive its worker. */
#include <string.h>

#include "shm_priv.h"

void vb_shm_add_workers(const struct vb_shm *shm, struct vb_worker_sum *sum)
{
    for (unsigned i = 0, slots = vb_shm_slots(shm); i < slots; i++) {
        struct vb_shm_worker *worker = vb_shm_worker(shm, i);
#define VB_WORKER_STAT(field, kind, help) sum->field += atomic_load_explicit(&worker->field, memory_order_relaxed);
#include "vb/stats.def"
    }
}

/*
 * In the order of members.c, for whoever has taken the backend away: reading the shared count comes first, so that the
 * rows show all that is counted there; see in_flight.c.
 */
uint64_t vb_shm_sum_in_flight(const struct vb_shm *shm, unsigned backend)
{
    uint64_t sum = 0;
    assert(backend < shm->cap.backends);
    atomic_load(&vb_shm_loads(shm)[backend]);
    for (unsigned i = 0, slots = vb_shm_slots(shm); i < slots; i++)
        sum += (uint32_t)atomic_load(&vb_shm_in_flight(shm, i)[backend]);
    return sum;
}

uint64_t vb_shm_sum_places(const struct vb_shm *shm, unsigned pool, enum vb_place place)
{
    uint64_t sum = 0;
    for (unsigned i = 0, slots = vb_shm_slots(shm); i < slots; i++) {
        const struct vb_shm_places *places = vb_shm_places(shm, i, pool);
        const vb_u64 *word = place == VB_PLACE_REQUEST ? &places->requests : &places->pending;
        sum += atomic_load_explicit(word, memory_order_relaxed) >> 1;
    }
    return sum;
}

void vb_shm_add_traffic(const struct vb_shm *shm, unsigned backend, struct vb_traffic_sum *sum)
{
    if (!shm_backend_has_rows(shm, backend))
        return;
    for (unsigned i = 0, slots = vb_shm_slots(shm); i < slots; i++) {
        struct vb_shm_traffic *traffic = vb_shm_traffic(shm, i, backend);
#define VB_BACKEND_STAT(field, kind, help) sum->field += atomic_load_explicit(&traffic->field, memory_order_relaxed);
#include "vb/stats.def"
        for (unsigned r = 0; r < VB_PICK_REASONS; r++)
            sum->picks[r] += atomic_load_explicit(&traffic->picks[r], memory_order_relaxed);
        for (unsigned b = 0; b < VB_HIST_BUCKETS; b++)
            sum->latency[b] += atomic_load_explicit(&traffic->latency[b], memory_order_relaxed);
    }
    sum->in_flight += vb_shm_sum_in_flight(shm, backend);
}

void vb_shm_text(char *to, size_t size, const char *field, size_t n)
{
    size_t kept = strnlen(field, VB_MIN(n, size - 1));
    memcpy(to, field, kept);
    to[kept] = '\0';
    for (size_t i = 0; i < kept; i++)
        if ((unsigned char)to[i] < 0x20 || (unsigned char)to[i] >= 0x7f)
            to[i] = '?';
}

/* `names` by value; a gap is a value that is none of them. */
static const char *name_of(const char *const *names, size_t n, unsigned value)
{
    return value < n && names[value] != NULL ? names[value] : "?";
}

const char *vb_health_name(unsigned health)
{
    static const char *const names[] = {"unknown", "up", "down", "unchecked"};
    return name_of(names, VB_ARRAY_SIZE(names), health);
}

const char *vb_admin_name(unsigned admin)
{
    static const char *const names[] = {"ready", "drain", "maint"};
    return name_of(names, VB_ARRAY_SIZE(names), admin);
}

const char *vb_backend_failure_name(unsigned failure)
{
    static const char *const names[] = {
        [VB_BACKEND_REFUSED] = "no connection",
        [VB_BACKEND_CONNECT_TIMEOUT] = "connect timed out",
        [VB_BACKEND_RESPONSE_TIMEOUT] = "response timed out",
        [VB_BACKEND_IDLE_TIMEOUT] = "stopped in the middle of a message",
        [VB_BACKEND_CLOSED] = "closed the connection too early",
        [VB_BACKEND_RESET] = "connection broke",
        [VB_BACKEND_BAD_RESPONSE] = "invalid response",
        [VB_BACKEND_STATUS] = "status of a failure",
    };
    return name_of(names, VB_ARRAY_SIZE(names), failure);
}

const char *vb_pick_reason_name(unsigned reason)
{
    static const char *const names[] = {"policy", "sticky", "retry", "panic", "backup", "only", "spill", "explore"};
    _Static_assert(VB_ARRAY_SIZE(names) == VB_PICK_REASONS, "each reason has a name");
    return name_of(names, VB_ARRAY_SIZE(names), reason);
}

const char *vb_worker_state_name(unsigned state)
{
    static const char *const names[] = {"free", "starting", "ready", "draining"};
    return name_of(names, VB_ARRAY_SIZE(names), state);
}

const char *vb_instance_state_name(unsigned state)
{
    static const char *const names[] = {NULL, "starting", "running", "stopping"};
    return name_of(names, VB_ARRAY_SIZE(names), state);
}
