/*
 * Reading a cookie costs a hash and a search in a sorted list of the pool's backends, which is made anew when the
 * pool's epoch has moved: the names in the segment can only have changed with it.
 */
#include "sticky.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>

#include "vb/siphash.h"

#define VALUE_BYTES  20 /* fingerprint, issued, signature */
#define VALUE_TEXT   27 /* in base64url, without padding */
#define SIGNED_BYTES 12
#define AHEAD_MAX_S  60 /* clocks of instances that share a secret differ a little; see issued_age_ms */

struct member {
    uint64_t fingerprint;
    unsigned backend;
    bool is_ready;
};

struct vb_sticky {
    const struct vb_shm *shm;
    const struct vb_conf_pool *conf;
    unsigned pool;
    uint64_t key[2];
    bool known;     /* `members` are those of `epoch` */
    uint32_t epoch; /* of the pool */
    struct member *members;
    unsigned n_members;
};

/* ---- the key, and what is done with it --------------------------------------------------------------------------- */

/* Two independent halves: the labels only have to differ. */
static void derive_key(uint64_t key[2], const char *secret)
{
    static const uint64_t labels[2][2] = {{0x7669626562616c61, 0x737469636b792030},
                                          {0x7669626562616c61, 0x737469636b792031}};
    for (unsigned i = 0; i < 2; i++)
        key[i] = vb_siphash(labels[i], secret, strlen(secret));
}

/* What is hashed begins with its purpose, so that no fingerprint is ever the signature of something. */
static uint64_t fingerprint(const struct vb_sticky *sticky, unsigned backend)
{
    char text[2 * (VB_SHM_NAME_MAX + 1)];
    const char *name = vb_shm_backend(sticky->shm, backend)->name;
    size_t pool_n = strlen(sticky->conf->name), name_n = strnlen(name, VB_SHM_NAME_MAX);
    char *p = text;
    *p++ = 'F';
    memcpy(p, sticky->conf->name, pool_n + 1); /* its NUL parts the two */
    p += pool_n + 1;
    memcpy(p, name, name_n);
    return vb_siphash(sticky->key, text, (size_t)(p - text) + name_n);
}

static uint64_t signature(const struct vb_sticky *sticky, const uint8_t *value)
{
    uint8_t text[1 + SIGNED_BYTES] = {'S'};
    memcpy(text + 1, value, SIGNED_BYTES);
    return vb_siphash(sticky->key, text, sizeof(text));
}

/* ---- the value as text ------------------------------------------------------------------------------------------- */

static const char base64url[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static void encode(char to[VALUE_TEXT], const uint8_t value[VALUE_BYTES])
{
    for (unsigned i = 0, bit = 0; i < VALUE_TEXT; i++, bit += 6) {
        unsigned byte = bit / 8, next = byte + 1 < VALUE_BYTES ? value[byte + 1] : 0;
        to[i] = base64url[((unsigned)value[byte] << 8 | next) >> (10 - bit % 8) & 63];
    }
}

static int digit(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '-' ? 62 : c == '_' ? 63 : -1;
}

/* Only what encode writes: a value has one spelling. */
static bool decode(uint8_t value[VALUE_BYTES], struct vb_str text)
{
    uint32_t bits = 0;
    unsigned n_bits = 0, n = 0;
    if (text.n != VALUE_TEXT)
        return false;
    for (unsigned i = 0; i < VALUE_TEXT; i++) {
        int d = digit(text.p[i]);
        if (d < 0)
            return false;
        bits = bits << 6 | (uint32_t)d;
        n_bits += 6;
        if (n_bits < 8)
            continue;
        n_bits -= 8;
        value[n++] = (uint8_t)(bits >> n_bits);
    }
    return (bits & ((1u << n_bits) - 1)) == 0;
}

/* ---- the pool's backends ----------------------------------------------------------------------------------------- */

/* During a reload that moves a backend to another address there are two of its name: the ready one comes first. */
static int compare(const void *a, const void *b)
{
    const struct member *left = a, *right = b;
    if (left->fingerprint != right->fingerprint)
        return left->fingerprint > right->fingerprint ? 1 : -1;
    return right->is_ready - left->is_ready;
}

static void collect(struct vb_sticky *sticky)
{
    sticky->n_members = 0;
    for (unsigned i = 0; i < vb_shm_capacity(sticky->shm).backends; i++) {
        const struct vb_shm_backend *backend = vb_shm_backend(sticky->shm, i);
        if (atomic_load_explicit(&backend->used, memory_order_acquire) != 0 &&
            atomic_load_explicit(&backend->pool, memory_order_relaxed) == sticky->pool)
            sticky->members[sticky->n_members++] =
                (struct member){fingerprint(sticky, i), i, atomic_load(&backend->admin) == VB_ADMIN_READY};
    }
    qsort(sticky->members, sticky->n_members, sizeof(*sticky->members), compare);
}

static int find_member(struct vb_sticky *sticky, uint64_t print)
{
    /* Read before the rows: what changes meanwhile moves it again. */
    uint32_t epoch = atomic_load(&vb_shm_pool(sticky->shm, sticky->pool)->epoch);
    if (!sticky->known || sticky->epoch != epoch)
        collect(sticky);
    sticky->known = true;
    sticky->epoch = epoch;
    unsigned low = 0, high = sticky->n_members;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (sticky->members[middle].fingerprint < print)
            low = middle + 1;
        else
            high = middle;
    }
    bool found = low < sticky->n_members && sticky->members[low].fingerprint == print;
    return found ? (int)sticky->members[low].backend : -ENOENT;
}

int vb_sticky_open(struct vb_sticky **ret_sticky, const struct vb_shm *shm, unsigned pool,
                   const struct vb_conf_pool *conf)
{
    struct vb_sticky *sticky = calloc(1, sizeof(*sticky));
    if (sticky == NULL)
        return -ENOMEM;
    sticky->members = calloc(vb_shm_capacity(shm).backends, sizeof(*sticky->members));
    if (sticky->members == NULL) {
        free(sticky);
        return -ENOMEM;
    }
    sticky->shm = shm;
    sticky->conf = conf;
    sticky->pool = pool;
    if (conf->sticky.secret[0] != '\0')
        derive_key(sticky->key, conf->sticky.secret);
    else
        memcpy(sticky->key, vb_shm_header(shm)->sticky_key, sizeof(sticky->key));
    *ret_sticky = sticky;
    return 0;
}

void vb_sticky_close(struct vb_sticky **sticky_ptr)
{
    struct vb_sticky *sticky = *sticky_ptr;
    if (sticky == NULL)
        return;
    free(sticky->members);
    free(sticky);
    *sticky_ptr = NULL;
}

/* ---- cookies ----------------------------------------------------------------------------------------------------- */

/*
 * In milliseconds; negative: this is no time at which it can have been issued. One that is far ahead would live longer
 * than it may.
 */
static int64_t issued_age_ms(const uint8_t *value, uint64_t now_wall_us)
{
    uint32_t issued;
    memcpy(&issued, value + 8, sizeof(issued));
    int64_t age_s = (int64_t)(now_wall_us / 1000000) - (int64_t)be32toh(issued);
    if (age_s < -AHEAD_MAX_S)
        return -1;
    return VB_MAX(age_s, 0) * 1000;
}

int vb_sticky_read(struct vb_sticky *sticky, const struct vb_head *head, uint64_t now_wall_us, bool *ret_is_old)
{
    uint64_t print, signed_with;
    uint8_t value[VALUE_BYTES];
    struct vb_str text;
    if (!vb_cookie_find(head, vb_str(sticky->conf->sticky.cookie), &text) || !decode(value, text))
        return -ENOENT;
    memcpy(&signed_with, value + SIGNED_BYTES, sizeof(signed_with));
    /* As numbers, in one instruction: how long it takes does not tell how many bytes were right. */
    if (be64toh(signed_with) != signature(sticky, value))
        return -ENOENT;
    int64_t age_ms = issued_age_ms(value, now_wall_us), ttl_ms = (int64_t)sticky->conf->sticky.ttl_ms;
    if (age_ms < 0 || age_ms > ttl_ms)
        return -ENOENT;
    memcpy(&print, value, sizeof(print));
    *ret_is_old = age_ms > ttl_ms / 2;
    return find_member(sticky, be64toh(print));
}

bool vb_sticky_binds(const struct vb_sticky *sticky, unsigned backend)
{
    const struct vb_shm_backend *row = vb_shm_backend(sticky->shm, backend);
    return atomic_load_explicit(&row->used, memory_order_relaxed) != 0 &&
           atomic_load_explicit(&row->admin, memory_order_relaxed) == VB_ADMIN_READY;
}

struct vb_str vb_sticky_write(const struct vb_sticky *sticky, unsigned backend, uint64_t now_wall_us,
                              char to[VB_STICKY_MAX])
{
    uint64_t print = htobe64(fingerprint(sticky, backend)), signed_with;
    uint32_t issued = htobe32((uint32_t)(now_wall_us / 1000000));
    uint8_t value[VALUE_BYTES];
    char text[VALUE_TEXT];
    memcpy(value, &print, sizeof(print));
    memcpy(value + sizeof(print), &issued, sizeof(issued));
    signed_with = htobe64(signature(sticky, value));
    memcpy(value + SIGNED_BYTES, &signed_with, sizeof(signed_with));
    encode(text, value);
    int n = snprintf(to, VB_STICKY_MAX, "%s=%.*s; Path=/; Max-Age=%llu; HttpOnly; SameSite=Lax",
                     sticky->conf->sticky.cookie, VALUE_TEXT, text,
                     (unsigned long long)(sticky->conf->sticky.ttl_ms / 1000));
    assert(n > 0 && n < VB_STICKY_MAX);
    return (struct vb_str){to, (size_t)n};
}
