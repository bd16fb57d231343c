/*
 * A close tells little by itself: a backend that restarts closes connections of any age. Three in a row at about the
 * same age, at different times, are a rule. They go on being watched after that, since connections that are too old to
 * be used are left for the backend to close; so a changed rule is learned as well.
 */
#include "keepalive.h"

#define AGREEING     3
#define APART_MS     500  /* closes nearer to each other are one event, such as a restart */
#define YOUNG_MS     20   /* an age below this is no idle time-out that one could live with */
#define MARGIN_MS    1000 /* kept from the end of the backend's time ... */
#define MARGIN_SHARE 4    /* ... or a quarter of it, where that is less */
#define SECONDS_MAX  (30u * 24 * 3600)

/* `timeout=5, max=100` (a list of parameters; RFC 2068 19.7.1.1 has the field, RFC 9110 leaves it alone) */
static bool read_timeout(struct vb_str list, uint32_t *ret_ms)
{
    static const char name[] = "timeout=";
    struct vb_str member;
    while (vb_list_next(&list, &member)) {
        uint64_t seconds;
        if (member.n < sizeof(name) || !vb_str_eq_nocase((struct vb_str){member.p, sizeof(name) - 1}, VB_STR(name)))
            continue;
        struct vb_str value = {member.p + sizeof(name) - 1, member.n - (sizeof(name) - 1)};
        if (vb_parse_u64(value, SECONDS_MAX, &seconds) < 0)
            return false;
        *ret_ms = (uint32_t)VB_MAX(seconds * 1000, 1u); /* 0 would be: it says nothing */
        return true;
    }
    return false;
}

void vb_keepalive_heard(struct vb_shm_backend *backend, const struct vb_head *head)
{
    const struct vb_field *field = vb_head_find(head, VB_FIELD_KEEP_ALIVE);
    uint32_t ms;
    if (field == NULL || !read_timeout(field->value, &ms))
        return;
    if (atomic_load_explicit(&backend->announced_idle_ms, memory_order_relaxed) != ms)
        atomic_store_explicit(&backend->announced_idle_ms, ms, memory_order_relaxed);
}

static bool agree(uint64_t a, uint64_t b)
{
    uint64_t apart = a > b ? a - b : b - a;
    return apart <= VB_MAX(VB_MIN(a, b) / 8, 50u);
}

void vb_keepalive_closed(struct vb_shm_backend *backend, struct vb_idle_closes *closes, uint64_t age_ms,
                         uint64_t now_ms)
{
    uint32_t incarnation = atomic_load_explicit(&backend->incarnation, memory_order_relaxed);
    if (closes->incarnation != incarnation)
        *closes = (struct vb_idle_closes){.incarnation = incarnation};
    if (age_ms < YOUNG_MS || age_ms > UINT32_MAX || (closes->agreeing > 0 && now_ms - closes->last_ms < APART_MS))
        return;
    closes->last_ms = now_ms;
    if (closes->agreeing > 0 && agree(closes->age_ms, age_ms)) {
        closes->agreeing++;
        closes->age_ms = VB_MIN(closes->age_ms, (uint32_t)age_ms);
    } else {
        closes->agreeing = 1;
        closes->age_ms = (uint32_t)age_ms;
    }
    if (closes->agreeing >= AGREEING)
        atomic_store_explicit(&backend->learned_idle_ms, closes->age_ms, memory_order_relaxed);
}

uint64_t vb_keepalive_limit_ms(const struct vb_shm_backend *backend)
{
    uint64_t said = atomic_load_explicit(&backend->announced_idle_ms, memory_order_relaxed);
    uint64_t seen = atomic_load_explicit(&backend->learned_idle_ms, memory_order_relaxed);
    uint64_t least = said == 0 || (seen != 0 && seen < said) ? seen : said;
    return least == 0 ? UINT64_MAX : least - VB_MIN(least / MARGIN_SHARE, (uint64_t)MARGIN_MS);
}
