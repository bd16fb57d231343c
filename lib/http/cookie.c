/*
 * Cookies as they come in requests (RFC 6265 4.2.1, 5.4): pairs with a semicolon after each but the last. A server must
 * not expect more order than user agents keep, so white space may stand anywhere between the parts; what is no pair is
 * passed over, and never takes its neighbours with it: neither quotes nor anything else make a semicolon harmless.
 */
#include "vb/http.h"

static struct vb_str trim(const char *begin, const char *end)
{
    while (begin < end && (*begin == ' ' || *begin == '\t'))
        begin++;
    while (end > begin && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    return (struct vb_str){begin, (size_t)(end - begin)};
}

static struct vb_str unquote(struct vb_str value)
{
    bool quoted = value.n >= 2 && value.p[0] == '"' && value.p[value.n - 1] == '"';
    return quoted ? (struct vb_str){value.p + 1, value.n - 2} : value;
}

static bool find_pair(struct vb_str list, struct vb_str name, struct vb_str *ret_value)
{
    const char *end = list.p + list.n;
    for (const char *p = list.p, *stop; p < end; p = stop + 1) {
        stop = memchr(p, ';', (size_t)(end - p));
        if (stop == NULL)
            stop = end;
        const char *equals = memchr(p, '=', (size_t)(stop - p));
        if (equals == NULL || !vb_str_eq(trim(p, equals), name))
            continue;
        *ret_value = unquote(trim(equals + 1, stop));
        return true;
    }
    return false;
}

bool vb_cookie_find(const struct vb_head *head, struct vb_str name, struct vb_str *ret_value)
{
    for (unsigned i = 0; i < head->n_fields; i++) {
        const struct vb_field *field = &head->fields[i];
        if (field->name.n == sizeof("cookie") - 1 && vb_str_eq_nocase(field->name, VB_STR("cookie")) &&
            find_pair(field->value, name, ret_value))
            return true;
    }
    return false;
}
