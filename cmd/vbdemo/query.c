#include "query.h"

/* Up to the first `mark`, and what stands behind it; all of it and nothing when there is no mark. */
static void cut(struct vb_str text, char mark, struct vb_str *ret_before, struct vb_str *ret_behind)
{
    const char *at = text.n == 0 ? NULL : memchr(text.p, mark, text.n);
    const char *end = text.p + text.n;
    *ret_before = (struct vb_str){text.p, at == NULL ? text.n : (size_t)(at - text.p)};
    *ret_behind = at == NULL ? (struct vb_str){end, 0} : (struct vb_str){at + 1, (size_t)(end - at - 1)};
}

void query_split(struct vb_str target, struct vb_str *ret_path, struct vb_str *ret_query)
{
    cut(target, '?', ret_path, ret_query);
}

bool query_next(struct vb_str *query, struct vb_str *ret_key, struct vb_str *ret_value)
{
    struct vb_str pair = {query->p, 0};
    while (query->n > 0 && pair.n == 0)
        cut(*query, '&', &pair, query);
    if (pair.n == 0)
        return false;
    cut(pair, '=', ret_key, ret_value);
    return true;
}

bool query_find(struct vb_str query, const char *key, struct vb_str *ret_value)
{
    struct vb_str name;
    while (query_next(&query, &name, ret_value))
        if (vb_str_eq(name, vb_str(key)))
            return true;
    return false;
}
