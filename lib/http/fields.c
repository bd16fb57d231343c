/* Lines, fields, the field names that we know, and small tables of the protocol. */
#include <errno.h>

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
    const char *name; /* of letters and `-`, which only they themselves become by setting the bit 0x20, in a token */
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

static inline bool is_known_8(const char *p, const char *known)
{
    uint64_t ours, theirs;
    memcpy(&ours, p, sizeof(ours));
    memcpy(&theirs, known, sizeof(theirs));
    return (ours | 0x2020202020202020) == theirs;
}

static inline bool is_known_4(const char *p, const char *known)
{
    uint32_t ours, theirs;
    memcpy(&ours, p, sizeof(ours));
    memcpy(&theirs, known, sizeof(theirs));
    return (ours | 0x20202020) == theirs;
}

/* In steps, of which the last goes to the end and may overlap with the one before. */
static bool is_known(const char *p, const char *known, size_t n)
{
    if (n < 4) /* `te` */
        return (p[0] | 0x20) == known[0] && (p[1] | 0x20) == known[1];
    if (n < 8)
        return is_known_4(p, known) && is_known_4(p + n - 4, known + n - 4);
    for (size_t i = 0; i + 8 < n; i += 8)
        if (!is_known_8(p + i, known + i))
            return false;
    return is_known_8(p + n - 8, known + n - 8);
}

enum vb_field_id vb_field_identify(struct vb_str name)
{
    if (name.n >= VB_ARRAY_SIZE(known_fields))
        return VB_FIELD_OTHER;
    for (const struct known_field *known = known_fields[name.n]; known->name != NULL; known++)
        if (is_known(name.p, known->name, name.n))
            return known->id;
    return VB_FIELD_OTHER;
}

int vb_line_read(const char **p, const char *end, struct vb_str *ret_line, const char **ret_why)
{
    const char *begin = *p, *stop = vb_scan_value(begin, end);
    bool is_cr = stop < end && *stop == '\r';
    if (stop == end || (is_cr && stop + 1 == end))
        return 0;
    if (is_cr && stop[1] == '\n') {
        *ret_line = (struct vb_str){begin, (size_t)(stop - begin)};
        *p = stop + 2;
        return 1;
    }
    *ret_why = is_cr || *stop == '\n' ? "CR or LF stands alone, where only CRLF ends a line"
                                      : "there is a control character in the head";
    return -EPROTO;
}

int vb_field_refuse(const char *p, const char *end, const char **ret_why)
{
    struct vb_str line;
    int r = vb_line_read(&p, end, &line, ret_why);
    if (r <= 0)
        return r;
    *ret_why = line.p[0] == ' ' || line.p[0] == '\t' ? "a header line begins with white space"
                                                     : "a header field has no valid name";
    return -EPROTO;
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
    return vb_str_eq(method, VB_STR("GET")) || vb_str_eq(method, VB_STR("HEAD")) || vb_str_eq(method, VB_STR("PUT")) ||
           vb_str_eq(method, VB_STR("DELETE")) || vb_str_eq(method, VB_STR("OPTIONS")) ||
           vb_str_eq(method, VB_STR("TRACE"));
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
