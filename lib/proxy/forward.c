#include "forward.h"

#include <stdio.h>

#include "client.h"

static bool is_visible(struct vb_str text)
{
    for (size_t i = 0; i < text.n; i++)
        if (text.p[i] <= 0x20 || text.p[i] >= 0x7f)
            return false;
    return text.n > 0;
}

/* Eight digits at once, each in a byte: in the order of memory, which for a random number is as good as any. */
static void write_hex(char *to, uint32_t number)
{
    uint64_t digits = number;
    digits = (digits | digits << 16) & 0x0000ffff0000ffff;
    digits = (digits | digits << 8) & 0x00ff00ff00ff00ff;
    digits = (digits | digits << 4) & 0x0f0f0f0f0f0f0f0f;
    uint64_t above_9 = (digits + 0x0606060606060606) >> 4 & 0x0101010101010101;
    digits += 0x3030303030303030 + above_9 * ('a' - '0' - 10);
    memcpy(to, &digits, sizeof(digits));
}

void vb_forward_take_id(struct vb_proxy *proxy, const struct vb_head *head, struct vb_request_id *id)
{
    struct vb_str name = proxy->id_field;
    id->is_new = false;
    id->length = 0;
    if (name.n == 0)
        return;
    const struct vb_field *own = vb_head_find_name(head, name);
    if (own != NULL && !own->named_by_connection && own->value.n <= sizeof(id->text) && is_visible(own->value)) {
        id->length = (unsigned)own->value.n;
        memcpy(id->text, own->value.p, own->value.n);
        return;
    }
    for (unsigned i = 0; i < VB_REQUEST_ID_LEN; i += 2 * sizeof(uint64_t)) {
        uint64_t random = vb_rand_u64(&proxy->rand);
        write_hex(id->text + i, (uint32_t)random);
        write_hex(id->text + i + sizeof(uint64_t), (uint32_t)(random >> 32));
    }
    id->length = VB_REQUEST_ID_LEN;
    id->is_new = true;
}

/* ---- where the client is ----------------------------------------------------------------------------------------- */

/* The last member of a list, which is cut off it. */
static bool take_last(struct vb_str *list, struct vb_str *ret_member)
{
    while (list->n > 0 && (list->p[list->n - 1] == ' ' || list->p[list->n - 1] == '\t' || list->p[list->n - 1] == ','))
        list->n--;
    if (list->n == 0)
        return false;
    const char *end = list->p + list->n, *begin = end;
    while (begin > list->p && begin[-1] != ',')
        begin--;
    list->n = (size_t)(begin - list->p);
    while (*begin == ' ' || *begin == '\t')
        begin++;
    *ret_member = (struct vb_str){begin, (size_t)(end - begin)};
    return true;
}

/* From the nearest hop to the farthest: up to the first that is not trusted, or is no address. */
struct vb_str vb_forward_client_ip(const struct vb_proxy *proxy, const struct vb_client *client,
                                   const struct vb_head *head, char *text, size_t size)
{
    struct vb_str found = vb_client_ip(client), member;
    struct vb_ip ip;
    if (!vb_client_is_trusted(client) || vb_head_find(head, VB_FIELD_X_FORWARDED_FOR) == NULL)
        return found;
    for (unsigned i = head->n_fields; i > 0; i--) {
        const struct vb_field *field = &head->fields[i - 1];
        struct vb_str list = field->value;
        if (field->id != VB_FIELD_X_FORWARDED_FOR || field->named_by_connection)
            continue;
        while (take_last(&list, &member)) {
            if (vb_ip_parse(member, &ip) < 0 || member.n >= size)
                return found;
            memcpy(text, member.p, member.n);
            found = (struct vb_str){text, member.n};
            if (!vb_conf_sources_have_ip(&proxy->conf->trusted_proxies, &ip))
                return found;
        }
    }
    return found;
}

/* ---- hops -------------------------------------------------------------------------------------------------------- */

bool vb_forward_is_for_others(const struct vb_head *head, char *memory, struct vb_str *ret_max_forwards)
{
    const struct vb_field *field = vb_head_find(head, VB_FIELD_MAX_FORWARDS);
    uint64_t hops;
    *ret_max_forwards = VB_STR("");
    /* For other methods it means nothing; TRACE is not served. */
    if (field == NULL || !vb_str_eq(head->method, VB_STR("OPTIONS")) ||
        vb_parse_u64(field->value, INT64_MAX, &hops) < 0)
        return true;
    if (hops == 0)
        return false;
    int n = snprintf(memory, VB_MAX_FORWARDS_LEN, "%llu", (unsigned long long)(hops - 1));
    *ret_max_forwards = (struct vb_str){memory, (size_t)n};
    return true;
}

static struct vb_str allowed_protocol(const struct vb_conf_pool *pool, struct vb_str wanted)
{
    for (unsigned i = 0; i < pool->n_upgrade; i++)
        if (vb_str_eq_nocase(vb_str(pool->upgrade[i].name), wanted))
            return vb_str(pool->upgrade[i].name);
    return VB_STR("");
}

struct vb_str vb_forward_offer(const struct vb_conf_pool *pool, const struct vb_head *head)
{
    struct vb_str found = VB_STR("");
    if (!head->wants_upgrade || vb_head_find(head, VB_FIELD_UPGRADE) == NULL)
        return found;
    for (unsigned i = 0; i < head->n_fields && found.n == 0; i++) {
        struct vb_str list = head->fields[i].value, member;
        if (head->fields[i].id != VB_FIELD_UPGRADE)
            continue;
        while (found.n == 0 && vb_list_next(&list, &member))
            found = allowed_protocol(pool, member);
    }
    return found;
}

/* A request with content is not upgraded: its body and the new protocol could be taken for one another. */
struct vb_str vb_forward_upgrade(const struct vb_conf_pool *pool, const struct vb_head *head)
{
    bool may = head->minor == 1 && head->framing == VB_FRAMING_NONE && vb_str_eq(head->method, VB_STR("GET"));
    return may ? vb_forward_offer(pool, head) : VB_STR("");
}

/* ---- the head that the backend gets ------------------------------------------------------------------------------ */

void vb_forward_prepare(const struct vb_proxy *proxy, const struct vb_client *client, const struct vb_request_id *id,
                        struct vb_forward_request *ret_how)
{
    unsigned forwarded = proxy->conf->headers.forwarded;
    *ret_how = (struct vb_forward_request){
        .via = proxy->via,
        .client =
            {
                .x = (forwarded & VB_FORWARDED_X) != 0,
                .rfc7239 = (forwarded & VB_FORWARDED_RFC7239) != 0,
                .trusted = vb_client_is_trusted(client),
                .ip = vb_client_has_ip(client) ? vb_client_ip(client) : VB_STR(""),
            },
        .id_field = proxy->id_field,
    };
    if (id->is_new)
        ret_how->id = (struct vb_str){id->text, id->length};
}
