#include "key.h"

#include "route.h"
#include "vb/addr.h"
#include "vb/siphash.h"

/*
 * The same everywhere and for ever: all workers, all instances in front of the same backends, and those that are
 * started tomorrow send a key to the same backend. So it is no secret, and who chooses his keys can choose his backend;
 * that one is protected by the bound on its load.
 */
static const uint64_t fixed_key[2] = {0x76b3c8d12e5f9a04, 0x41d7e6609b3a82f5};

static struct vb_str header_value(const struct vb_head *head, const char *name)
{
    const struct vb_field *field = vb_head_find_name(head, vb_str(name));
    return field == NULL ? VB_STR("") : field->value;
}

static struct vb_str cookie_value(const struct vb_head *head, const char *name)
{
    struct vb_str value = VB_STR("");
    vb_cookie_find(head, vb_str(name), &value);
    return value;
}

/* In one form, however a proxy before us has spelled it; who came through a unix socket has none. */
static struct vb_str address(struct vb_str client_ip, struct vb_ip *ip)
{
    if (vb_ip_parse(client_ip, ip) < 0)
        return VB_STR("");
    return (struct vb_str){(const char *)ip->bytes, sizeof(ip->bytes)};
}

bool vb_key_find(const struct vb_conf_pool *pool, const struct vb_head *head, struct vb_str target,
                 struct vb_str client_ip, char *room, uint64_t *ret_key)
{
    struct vb_str text = VB_STR(""), query;
    struct vb_ip ip;
    switch (pool->hash.key) {
    case VB_HASH_CLIENT_IP:
        text = address(client_ip, &ip);
        break;
    case VB_HASH_PATH:
        text = vb_route_path(room, target, head->slash_before_target, &query);
        break;
    case VB_HASH_URI:
        text = target;
        break;
    case VB_HASH_HEADER:
        text = header_value(head, pool->hash.name);
        break;
    case VB_HASH_COOKIE:
        text = cookie_value(head, pool->hash.name);
        break;
    }
    if (text.n == 0)
        return false;
    *ret_key = vb_siphash(fixed_key, text.p, text.n);
    return true;
}
