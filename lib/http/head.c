/*
 * The strict scanner of heads: one pass over the bytes, line by line, then the rules that concern several fields at
 * once. It accepts CRLF only, no folded lines, no control bytes (RFC 9112 2.2, 5.1, 5.2).
 */
#include <arpa/inet.h>
#include <errno.h>

#include "fields.h"
#include "scan.h"
#include "vb/http.h"

#define EMPTY_LINES_MAX 4 /* before a request line (RFC 9112 2.2 wants at least one ignored) */
#define LENGTH_MAX      INT64_MAX

struct scan {
    const char *p, *end;
    const struct vb_head_limits *limits;
    struct vb_head *head;
    struct vb_refusal *refusal;
};

static int refuse(struct scan *s, unsigned status, const char *why)
{
    *s->refusal = (struct vb_refusal){status, why};
    return -EPROTO;
}

static int next_line(struct scan *s, struct vb_str *ret_line)
{
    const char *why;
    int r = vb_line_read(&s->p, s->end, ret_line, &why);
    return r < 0 ? refuse(s, 400, why) : r;
}

/* ---- fields ------------------------------------------------------------------------------------------------------ */

/* Two of these would let two readers see two messages (RFC 9112 3.2, 6.3). */
#define ONCE (1u << VB_FIELD_HOST | 1u << VB_FIELD_CONTENT_LENGTH | 1u << VB_FIELD_TRANSFER_ENCODING)

/* The field that was read last becomes part of the head. */
static int add_field(struct scan *s)
{
    struct vb_head *head = s->head;
    struct vb_field *field = &head->fields[head->n_fields];
    field->id = vb_field_identify(field->name);
    field->named_by_connection = false;
    const uint32_t bit = 1u << field->id;
    if ((head->present & bit & ONCE) != 0)
        return refuse(s, 400, "Host, Content-Length or Transfer-Encoding is there twice");
    if ((head->present & bit) == 0)
        head->first[field->id] = (uint16_t)head->n_fields;
    head->present |= bit;
    head->n_fields++;
    return 0;
}

/* 1: the empty line has been read; 0: not yet. */
static int parse_fields(struct scan *s)
{
    struct vb_head *head = s->head;
    const unsigned max = VB_MIN(s->limits->fields, VB_FIELDS_MAX);
    const char *why;
    int r;
    while ((r = vb_field_read(&s->p, s->end, &head->fields[head->n_fields], &why)) != 0) {
        if (r > 0 && head->fields[head->n_fields].name.n == 0)
            return 1;
        if (head->n_fields == max)
            return refuse(s, 431, "too many header fields");
        r = r < 0 ? refuse(s, 400, why) : add_field(s);
        if (r < 0)
            return r;
    }
    return 0;
}

/* What the Connection field says: close, keep-alive, and the names of fields that are for this hop only. */
static int apply_connection_member(struct scan *s, struct vb_str member, bool *close, bool *keep_alive)
{
    struct vb_head *head = s->head;
    const enum vb_field_id never[] = {VB_FIELD_HOST, VB_FIELD_CONTENT_LENGTH, VB_FIELD_TRANSFER_ENCODING};
    if (vb_str_eq_nocase(member, VB_STR("close"))) {
        *close = true;
        return 0;
    }
    if (vb_str_eq_nocase(member, VB_STR("keep-alive"))) {
        *keep_alive = true;
        return 0;
    }
    if (vb_str_eq_nocase(member, VB_STR("upgrade")))
        head->wants_upgrade = true;
    enum vb_field_id id = vb_field_identify(member);
    for (unsigned i = 0; i < VB_ARRAY_SIZE(never); i++)
        if (id == never[i])
            return refuse(s, 400, "Connection names a field that no hop may drop");
    for (unsigned i = 0; i < head->n_fields; i++)
        if (vb_str_eq_nocase(head->fields[i].name, member))
            head->fields[i].named_by_connection = true;
    return 0;
}

static int apply_connection_fields(struct scan *s, bool *close, bool *keep_alive)
{
    struct vb_head *head = s->head;
    unsigned members = 0;
    for (unsigned i = head->first[VB_FIELD_CONNECTION]; i < head->n_fields; i++) {
        struct vb_str list = head->fields[i].value, member;
        if (head->fields[i].id != VB_FIELD_CONNECTION)
            continue;
        while (vb_list_next(&list, &member)) {
            if (++members > s->limits->fields) /* each is compared with every field */
                return refuse(s, 431, "Connection names too many fields");
            int r = apply_connection_member(s, member, close, keep_alive);
            if (r < 0)
                return r;
        }
    }
    return 0;
}

static int apply_connection(struct scan *s)
{
    struct vb_head *head = s->head;
    bool close = false, keep_alive = false, is_there = vb_head_find(head, VB_FIELD_CONNECTION) != NULL;
    int r = is_there ? apply_connection_fields(s, &close, &keep_alive) : 0;
    head->keep_alive = !close && (head->minor == 1 || keep_alive); /* RFC 9112 9.3 */
    return r;
}

/* Transfer-Encoding and Content-Length, the same for both kinds of message (RFC 9112 6.1, 6.3). */
static int apply_framing(struct scan *s, enum vb_framing without)
{
    struct vb_head *head = s->head;
    const struct vb_field *te = vb_head_find(head, VB_FIELD_TRANSFER_ENCODING);
    const struct vb_field *cl = vb_head_find(head, VB_FIELD_CONTENT_LENGTH);
    head->framing = without;
    head->length = 0;
    if (te != NULL && cl != NULL)
        return refuse(s, 400, "both Transfer-Encoding and Content-Length");
    if (te != NULL) {
        if (head->minor == 0)
            return refuse(s, 400, "Transfer-Encoding in an HTTP/1.0 message");
        if (!vb_str_eq_nocase(te->value, VB_STR("chunked")))
            return refuse(s, 501, "a Transfer-Encoding other than chunked");
        head->framing = VB_FRAMING_CHUNKED;
    } else if (cl != NULL) {
        if (vb_parse_u64(cl->value, LENGTH_MAX, &head->length) < 0)
            return refuse(s, 400, "Content-Length is not a number");
        head->framing = VB_FRAMING_LENGTH;
    }
    return 0;
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

/* `HTTP/1.x`; a minor version that we do not know is read as the highest one that we do (RFC 9110 2.5). */
static int parse_version(struct scan *s, struct vb_str text)
{
    if (text.n != 8 || memcmp(text.p, "HTTP/", 5) != 0 || text.p[6] != '.' || text.p[5] < '0' || text.p[5] > '9' ||
        text.p[7] < '0' || text.p[7] > '9')
        return refuse(s, 400, "the first line does not end with HTTP/1.1 or HTTP/1.0");
    if (text.p[5] == '0')
        return refuse(s, 400, "HTTP/0.9 has no version in its first line");
    if (text.p[5] != '1')
        return refuse(s, 505, "only HTTP/1.1 and HTTP/1.0 are spoken here");
    s->head->minor = text.p[7] == '0' ? 0 : 1;
    return 0;
}

/*
 * Behind the reg-name or IPv4address at `p`, without the comma, which would make a list (RFC 3986 3.2.2). May look, but
 * not go, as far as `limit`.
 */
static const char *skip_reg_name(const char *p, const char *end, const char *limit)
{
    p = VB_MIN(vb_scan_host(p, limit), end);
    while (p < end) {
        if (vb_is_host_byte[(unsigned char)*p])
            p++;
        else if (*p == '%' && end - p >= 3 && vb_hex_value(p[1]) >= 0 && vb_hex_value(p[2]) >= 0)
            p += 3;
        else
            break;
    }
    return p;
}

static bool is_ipv6(struct vb_str text)
{
    char address[INET6_ADDRSTRLEN];
    struct in6_addr ignored;
    if (text.n >= sizeof(address))
        return false;
    memcpy(address, text.p, text.n);
    address[text.n] = '\0';
    return inet_pton(AF_INET6, address, &ignored) == 1;
}

/* host [ ":" port ] without userinfo, path or list (RFC 9110 4.2, 7.2; RFC 3986 3.2.2) */
static bool is_authority(const struct scan *s, struct vb_str text)
{
    const char *end = text.p + text.n, *port;
    uint64_t value;
    if (text.n > 0 && text.p[0] == '[') {
        const char *close = memchr(text.p, ']', text.n);
        if (close == NULL || !is_ipv6((struct vb_str){text.p + 1, (size_t)(close - text.p - 1)}))
            return false;
        port = close + 1;
    } else {
        port = skip_reg_name(text.p, end, s->end);
        if (port == text.p)
            return false;
    }
    if (port == end)
        return true;
    struct vb_str digits = {port + 1, (size_t)(end - port - 1)};
    return *port == ':' && (digits.n == 0 || vb_parse_u64(digits, 65535, &value) == 0);
}

/* http://authority[/path][?query] -> host and an origin-form target, or `*` (RFC 9112 3.2.2, 3.2.4) */
static int parse_absolute_target(struct scan *s, struct vb_str target)
{
    struct vb_head *head = s->head;
    const size_t scheme = sizeof("http://") - 1;
    if (target.n <= scheme || !vb_str_eq_nocase((struct vb_str){target.p, scheme}, VB_STR("http://")))
        return refuse(s, 400, "the request target is neither a path nor an http:// address");
    const char *host = target.p + scheme, *end = target.p + target.n, *path = host;
    while (path < end && *path != '/' && *path != '?')
        path++;
    head->host = (struct vb_str){host, (size_t)(path - host)};
    head->host_from_target = true;
    head->target = (struct vb_str){path, (size_t)(end - path)};
    if (path == end)
        head->target = vb_str_eq(head->method, VB_STR("OPTIONS")) ? VB_STR("*") : VB_STR("/");
    else
        head->slash_before_target = *path == '?';
    if (!is_authority(s, head->host))
        return refuse(s, 400, "the request target names no valid host");
    return 0;
}

static int parse_target(struct scan *s, struct vb_str target)
{
    struct vb_head *head = s->head;
    head->target = target;
    if (vb_str_eq(head->method, VB_STR("CONNECT")))
        return refuse(s, 405, "CONNECT is not served here");
    if (vb_str_eq(head->method,
                  VB_STR("TRACE"))) /* it would show what is added here, and credentials (RFC 9110 9.3.8) */
        return refuse(s, 405, "TRACE is not served here");
    if (target.p[0] == '/')
        return 0;
    if (vb_str_eq(target, VB_STR("*"))) {
        if (!vb_str_eq(head->method, VB_STR("OPTIONS")))
            return refuse(s, 400, "the request target * is for OPTIONS only");
        return 0;
    }
    return parse_absolute_target(s, target);
}

/* method SP target SP version (RFC 9112 3) */
static int parse_request_line(struct scan *s, struct vb_str line)
{
    struct vb_head *head = s->head;
    const char *end = line.p + line.n, *begin = vb_scan_token(line.p, end);
    if (begin == line.p || begin == end || *begin != ' ')
        return refuse(s, 400, "the first line is not a request line");
    head->method = (struct vb_str){line.p, (size_t)(begin - line.p)};
    begin++;
    const char *space = vb_scan_target(begin, end);
    if (space == end)
        return refuse(s, 400, "the request line has no HTTP version");
    if (space == begin || *space != ' ')
        return refuse(s, 400, "the request target is empty or has a character that it may not have");
    struct vb_str target = {begin, (size_t)(space - begin)};
    int r = parse_version(s, (struct vb_str){space + 1, (size_t)(end - space - 1)});
    if (r < 0)
        return r;
    return parse_target(s, target);
}

/* `http://a`, `http://a:` and `http://a:80` are the same (RFC 9110 4.2.3). */
static struct vb_str without_default_port(struct vb_str authority)
{
    static const char *const ends[] = {":", ":80"};
    for (unsigned i = 0; i < VB_ARRAY_SIZE(ends); i++) {
        size_t n = strlen(ends[i]);
        if (authority.n > n && memcmp(authority.p + authority.n - n, ends[i], n) == 0)
            return (struct vb_str){authority.p, authority.n - n};
    }
    return authority;
}

/* Exactly one valid Host in HTTP/1.1 (RFC 9112 3.2); an absolute target's authority must not contradict it. */
static int apply_host(struct scan *s)
{
    struct vb_head *head = s->head;
    const struct vb_field *host = vb_head_find(head, VB_FIELD_HOST);
    if (host == NULL) {
        if (head->minor == 1)
            return refuse(s, 400, "no Host field");
        return 0;
    }
    /* An empty value is how a client says that its target has no authority. */
    if (host->value.n > 0 && !is_authority(s, host->value))
        return refuse(s, 400, "the Host field is not a host");
    if (head->host_from_target &&
        !vb_str_eq_nocase(without_default_port(host->value), without_default_port(head->host)))
        return refuse(s, 400, "the Host field and the request target name different hosts");
    if (!head->host_from_target)
        head->host = host->value;
    return 0;
}

/* Not a line yet: say no at once to what cannot become a request, such as a TLS handshake. */
static int check_first_bytes(struct scan *s)
{
    const char *method_end = vb_scan_token(s->p, s->end);
    if (method_end < s->end && (method_end == s->p || *method_end != ' ') && s->p[0] != '\r')
        return refuse(s, 400, "the first line is not a request line");
    return 0;
}

static int too_large(struct scan *s, bool first_line)
{
    return first_line ? refuse(s, 414, "the request line is too long")
                      : refuse(s, 431, "the request head is too large");
}

static void begin(struct scan *s, const char *bytes, size_t n, const struct vb_head_limits *limits,
                  struct vb_head *head, struct vb_refusal *refusal)
{
    *s = (struct scan){bytes, bytes + VB_MIN(n, limits->bytes), limits, head, refusal};
    memset(head, 0, offsetof(struct vb_head, first));
    head->n_fields = 0;
}

ssize_t vb_h1_parse_request(const char *bytes, size_t n, const struct vb_head_limits *limits, struct vb_head *head,
                            struct vb_refusal *ret_refusal)
{
    struct scan s;
    struct vb_str line;
    begin(&s, bytes, n, limits, head, ret_refusal);
    int r = 0;
    for (unsigned i = 0; i <= EMPTY_LINES_MAX; i++) {
        r = next_line(&s, &line);
        if (r <= 0 || line.n > 0)
            break;
        head->raw.p = s.p;
    }
    if (r <= 0) { /* of two faults the one that says more */
        if (check_first_bytes(&s) < 0)
            return -EPROTO;
        return r == 0 && n >= limits->bytes ? too_large(&s, true) : r;
    }
    head->raw.p = line.p;
    r = parse_request_line(&s, line);
    if (r == 0)
        r = parse_fields(&s);
    if (r == 0)
        return n >= limits->bytes ? too_large(&s, false) : 0;
    if (r > 0)
        r = apply_connection(&s);
    if (r == 0)
        r = apply_framing(&s, VB_FRAMING_NONE);
    if (r == 0)
        r = apply_host(&s);
    if (r < 0)
        return r;
    head->raw.n = (size_t)(s.p - head->raw.p);
    return s.p - bytes;
}

/* ---- responses --------------------------------------------------------------------------------------------------- */

static bool is_status(const char *p)
{
    return p[0] >= '1' && p[0] <= '9' && p[1] >= '0' && p[1] <= '9' && p[2] >= '0' && p[2] <= '9';
}

/* HTTP-version SP 3DIGIT SP [ reason ] (RFC 9112 4); many servers leave the last space out with the reason. */
static int parse_status_line(struct scan *s, struct vb_str line)
{
    struct vb_head *head = s->head;
    if (line.n < 12 || line.p[8] != ' ' || !is_status(line.p + 9) || (line.n > 12 && line.p[12] != ' '))
        return refuse(s, 502, "the first line is not a status line");
    int r = parse_version(s, (struct vb_str){line.p, 8});
    if (r < 0)
        return r;
    head->status = (unsigned)((line.p[9] - '0') * 100 + (line.p[10] - '0') * 10 + (line.p[11] - '0'));
    if (line.n > 13)
        head->reason = (struct vb_str){line.p + 13, line.n - 13};
    return 0;
}

static bool has_no_body(unsigned status, bool to_head)
{
    return to_head || status < 200 || status == 204 || status == 304;
}

/* Not a line yet: say no at once to what cannot become a response. */
static int check_first_response_bytes(struct scan *s)
{
    static const char start[] = "HTTP/1.";
    size_t n = VB_MIN((size_t)(s->end - s->p), sizeof(start) - 1);
    if (memcmp(s->p, start, n) != 0)
        return refuse(s, 502, "it does not begin with HTTP/1.");
    return 0;
}

ssize_t vb_h1_parse_response(const char *bytes, size_t n, const struct vb_head_limits *limits, bool to_head,
                             struct vb_head *head, struct vb_refusal *ret_refusal)
{
    struct scan s;
    struct vb_str line;
    begin(&s, bytes, n, limits, head, ret_refusal);
    int r = check_first_response_bytes(&s);
    if (r == 0)
        r = next_line(&s, &line);
    if (r == 0)
        goto incomplete;
    if (r > 0)
        r = parse_status_line(&s, line);
    if (r == 0)
        r = parse_fields(&s);
    if (r == 0)
        goto incomplete;
    if (r > 0)
        r = apply_connection(&s);
    if (r == 0)
        r = apply_framing(&s, VB_FRAMING_CLOSE);
    if (r < 0)
        goto refused;
    if (has_no_body(head->status, to_head))
        head->framing = VB_FRAMING_NONE; /* whatever the fields say; they pass, as they describe another response */
    head->raw = (struct vb_str){bytes, (size_t)(s.p - bytes)};
    return s.p - bytes;

incomplete:
    if (n < limits->bytes)
        return 0;
    r = refuse(&s, 502, "the response head is too large");
refused:
    ret_refusal->status = 502; /* the client did nothing wrong */
    return r;
}
