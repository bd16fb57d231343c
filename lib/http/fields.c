/* Lines, fields, the field names that we know, and small tables of the protocol. */
#include <errno.h>
#include <strings.h>

#include "fields.h"
#include "scan.h"
#include "vb/http.h"

#define T true
/* RFC 9110 5.6.2: ! # $ % & ' * + - . ^ _ ` | ~ digits letters */
const bool vb_is_token_byte[256] = {
    ['!'] = T, ['#'] = T, ['$'] = T, ['%'] = T,         ['&'] = T,         ['\''] = T,
    ['*'] = T, ['+'] = T, ['-'] = T, ['.'] = T,         ['^'] = T,         ['_'] = T,
    ['`'] = T, ['|'] = T, ['~'] = T, ['0' ... '9'] = T, ['A' ... 'Z'] = T, ['a' ... 'z'] = T,
};
/* RFC 3986 2.2, 2.3: unreserved and sub-delims, without the comma */
const bool vb_is_host_byte[256] = {
    ['-'] = T, ['.'] = T,  ['_'] = T,         ['~'] = T,         ['!'] = T,         ['$'] = T,
    ['&'] = T, ['\''] = T, ['('] = T,         [')'] = T,         ['*'] = T,         ['+'] = T,
    [';'] = T, ['='] = T,  ['0' ... '9'] = T, ['A' ... 'Z'] = T, ['a' ... 'z'] = T,
};
#undef T

struct known_field {
    const char *name;
    uint8_t id;
};

/* By length, so that most names are told apart by one look. */
static const struct known_field known_fields[][3] = {
    [2] = {{"te", VB_FIELD_TE}},
    [4] = {{"host", VB_FIELD_HOST}, {"date", VB_FIELD_DATE}},
    [6] = {{"expect", VB_FIELD_EXPECT}},
    [7] = {{"upgrade", VB_FIELD_UPGRADE}, {"trailer", VB_FIELD_TRAILER}},
    [9] = {{"forwarded", VB_FIELD_FORWARDED}},
    [10] = {{"connection", VB_FIELD_CONNECTION}, {"keep-alive", VB_FIELD_KEEP_ALIVE}},
    [12] = {{"max-forwards", VB_FIELD_MAX_FORWARDS}},
    [14] = {{"content-length", VB_FIELD_CONTENT_LENGTH}},
    [15] = {{"x-forwarded-for", VB_FIELD_X_FORWARDED_FOR}},
    [16] = {{"x-forwarded-host", VB_FIELD_X_FORWARDED_HOST}, {"proxy-connection", VB_FIELD_PROXY_CONNECTION}},
    [17] = {{"transfer-encoding", VB_FIELD_TRANSFER_ENCODING}, {"x-forwarded-proto", VB_FIELD_X_FORWARDED_PROTO}},
};

enum vb_field_id vb_field_identify(struct vb_str name)
{
    if (name.n >= VB_ARRAY_SIZE(known_fields))
        return VB_FIELD_OTHER;
    for (const struct known_field *known = known_fields[name.n]; known->name != NULL; known++)
        if ((name.p[0] | 0x20) == known->name[0] && strncasecmp(name.p, known->name, name.n) == 0)
            return known->id;
    return VB_FIELD_OTHER;
}

int vb_next_line(const char **p, const char *end, struct vb_str *ret_line)
{
    const char *lf = memchr(*p, '\n', (size_t)(end - *p));
    if (lf == NULL) { /* a CR that no LF follows is wrong wherever it stands */
        const char *cr = memchr(*p, '\r', (size_t)(end - *p));
        return cr == NULL || cr + 1 == end ? 0 : -EPROTO;
    }
    if (lf == *p || lf[-1] != '\r')
        return -EPROTO;
    *ret_line = (struct vb_str){*p, (size_t)(lf - 1 - *p)};
    *p = lf + 1;
    return 1;
}

const char *vb_field_read(struct vb_str line, struct vb_field *ret_field)
{
    size_t name = vb_scan_token(line.p, line.n);
    if (name == 0 && (line.p[0] == ' ' || line.p[0] == '\t'))
        return "a header line begins with white space";
    if (name == 0 || name == line.n || line.p[name] != ':')
        return "a header field has no valid name";
    const char *value = line.p + name + 1, *end = line.p + line.n;
    while (value < end && (*value == ' ' || *value == '\t'))
        value++;
    while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    if (!vb_scan_is_value(value, (size_t)(end - value)))
        return "a header field's value has a control character";
    ret_field->name = (struct vb_str){line.p, name};
    ret_field->value = (struct vb_str){value, (size_t)(end - value)};
    return NULL;
}

const struct vb_field *vb_head_find(const struct vb_head *head, enum vb_field_id id)
{
    if ((head->present & (1u << id)) == 0)
        return NULL;
    for (unsigned i = 0; i < head->n_fields; i++)
        if (head->fields[i].id == id)
            return &head->fields[i];
    return NULL;
}

const struct vb_field *vb_head_find_name(const struct vb_head *head, struct vb_str name)
{
    for (unsigned i = 0; i < head->n_fields; i++)
        if (vb_str_eq_nocase(head->fields[i].name, name))
            return &head->fields[i];
    return NULL;
}

bool vb_list_next(struct vb_str *list, struct vb_str *ret_member)
{
    const char *p = list->p, *end = list->p + list->n;
    while (p < end && (*p == ' ' || *p == '\t' || *p == ','))
        p++;
    if (p == end)
        return false;
    const char *comma = memchr(p, ',', (size_t)(end - p));
    const char *stop = comma == NULL ? end : comma;
    *list = (struct vb_str){stop, (size_t)(end - stop)};
    while (stop > p && (stop[-1] == ' ' || stop[-1] == '\t'))
        stop--;
    *ret_member = (struct vb_str){p, (size_t)(stop - p)};
    return true;
}

bool vb_method_is_idempotent(struct vb_str method)
{
    static const char *const idempotent[] = {"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"};
    for (unsigned i = 0; i < VB_ARRAY_SIZE(idempotent); i++)
        if (vb_str_eq(method, vb_str(idempotent[i])))
            return true;
    return false;
}

const char *vb_status_reason(unsigned status)
{
    static const struct {
        unsigned status;
        const char *reason;
    } reasons[] = {
        {200, "OK"},
        {400, "Bad Request"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
    };
    for (unsigned i = 0; i < VB_ARRAY_SIZE(reasons); i++)
        if (reasons[i].status == status)
            return reasons[i].reason;
    return "";
}
