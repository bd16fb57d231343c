/*
 * Heads as they leave. Lines that pass are copied in runs, as they came; only what a proxy must change is written anew:
 * hop-by-hop fields, what it adds, and the first line, Host and framing unless they are written just as it would.
 */
#include "vb/http.h"

/*
 * Each of these writes at `to`, for which the caller has made room (see vb_h1_request_room), and says where it ends.
 */

static inline char *put(char *to, const char *bytes, size_t n)
{
    return (char *)memcpy(to, bytes, n) + n;
}

#define put_literal(to, text) put(to, text, sizeof(text) - 1)

static inline char *put_str(char *to, struct vb_str text)
{
    return put(to, text.p, text.n);
}

static inline char *put_field(char *to, struct vb_str name, struct vb_str value)
{
    to = put_str(to, name);
    to = put_literal(to, ": ");
    to = put_str(to, value);
    return put_literal(to, "\r\n");
}

static char *format_u64(char *end, uint64_t value, unsigned base)
{
    do {
        *--end = "0123456789abcdef"[value % base];
        value /= base;
    } while (value > 0);
    return end;
}

static char *put_u64(char *to, uint64_t value)
{
    char digits[20], *end = digits + sizeof(digits), *p = format_u64(end, value, 10);
    return put(to, p, (size_t)(end - p));
}

/*
 * The fields that are not in the bit set `drop`, nor named by Connection, in runs of whole lines; `run` is a line
 * before them that passes too, if any.
 */
static char *put_fields(char *to, struct vb_str run, const struct vb_head *head, uint32_t drop, struct vb_str drop_name)
{
    for (unsigned i = 0; i < head->n_fields; i++) {
        const struct vb_field *field = &head->fields[i];
        if ((drop & (1u << field->id)) != 0 || field->named_by_connection ||
            (field->name.n == drop_name.n && vb_str_eq_nocase(field->name, drop_name)))
            continue;
        if (field->name.p != run.p + run.n) {
            to = put_str(to, run);
            run = (struct vb_str){field->name.p, 0};
        }
        run.n = (size_t)(field->line_end - run.p);
    }
    return put_str(to, run);
}

/* For one hop only (RFC 9110 7.6.1), or made anew here. */
#define HOP_BY_HOP                                                                                                     \
    (1u << VB_FIELD_CONNECTION | 1u << VB_FIELD_KEEP_ALIVE | 1u << VB_FIELD_PROXY_CONNECTION | 1u << VB_FIELD_TE |     \
     1u << VB_FIELD_TRANSFER_ENCODING | 1u << VB_FIELD_UPGRADE)
#define X_FORWARDED                                                                                                    \
    (1u << VB_FIELD_X_FORWARDED_FOR | 1u << VB_FIELD_X_FORWARDED_PROTO | 1u << VB_FIELD_X_FORWARDED_HOST)

/* Is its line written just as we would write it? `start` is all before the value. */
static inline bool is_plain(const struct vb_field *field, struct vb_str start)
{
    return field->value.p == field->name.p + start.n && memcmp(field->name.p, start.p, start.n) == 0 &&
           field->line_end == field->value.p + field->value.n + strlen("\r\n");
}

/* Then it may pass as it came; a recipient might read another way of writing it otherwise. */
static bool is_plain_length(const struct vb_head *head)
{
    const struct vb_field *field = vb_head_find(head, VB_FIELD_CONTENT_LENGTH);
    return head->framing == VB_FRAMING_LENGTH && (field->value.p[0] != '0' || field->value.n == 1) &&
           is_plain(field, VB_STR("Content-Length: "));
}

static char *put_framing(char *to, enum vb_framing framing, uint64_t length)
{
    if (framing == VB_FRAMING_LENGTH) {
        to = put_literal(to, "Content-Length: ");
        to = put_u64(to, length);
        to = put_literal(to, "\r\n");
    } else if (framing == VB_FRAMING_CHUNKED) {
        to = put_literal(to, "Transfer-Encoding: chunked\r\n");
    }
    return to;
}

/* `Via: 1.1 name` on a line of its own, which means the same as appended to the list (RFC 9110 7.6.3, 5.3). */
static char *put_via(char *to, unsigned minor, struct vb_str pseudonym)
{
    if (pseudonym.n == 0)
        return to;
    if (minor == 1)
        to = put_literal(to, "Via: 1.1 ");
    else
        to = put_literal(to, "Via: 1.0 ");
    to = put_str(to, pseudonym);
    return put_literal(to, "\r\n");
}

/* TE is one field, and says `trailers`. */
static bool wants_trailers(const struct vb_head *head)
{
    unsigned n = 0;
    if (vb_head_find(head, VB_FIELD_TE) == NULL)
        return false;
    for (unsigned i = 0; i < head->n_fields; i++) {
        if (head->fields[i].id != VB_FIELD_TE)
            continue;
        if (++n > 1 || !vb_str_eq_nocase(head->fields[i].value, VB_STR("trailers")))
            return false;
    }
    return true;
}

/* `Connection: Upgrade, TE` and what it names. TE is for one hop too; only `trailers` says something that we can keep.
 */
static char *put_hop_fields(char *to, const struct vb_head *head, struct vb_str upgrade)
{
    bool trailers = head->minor == 1 && wants_trailers(head);
    if (upgrade.n > 0) {
        to = put_field(to, VB_STR("Connection"), trailers ? VB_STR("Upgrade, TE") : VB_STR("Upgrade"));
        to = put_field(to, VB_STR("Upgrade"), upgrade);
    } else if (trailers) {
        to = put_literal(to, "Connection: TE\r\n");
    }
    if (trailers)
        to = put_literal(to, "TE: trailers\r\n");
    return to;
}

/* ---- who the client is (RFC 7239; X-Forwarded-* by custom) ------------------------------------------------------- */

/* Which of the client's own fields about that do not pass. */
static uint32_t forwarded_to_drop(const struct vb_forward_client *client)
{
    if (!client->x && !client->rfc7239)
        return 0;
    if (!client->trusted)
        return X_FORWARDED | 1u << VB_FIELD_FORWARDED;
    /* Lists that we append to are written anew, as one field; what we would not change passes. */
    uint32_t drop = 0;
    if (client->x && client->ip.n > 0)
        drop |= 1u << VB_FIELD_X_FORWARDED_FOR;
    if (client->rfc7239)
        drop |= 1u << VB_FIELD_FORWARDED;
    return drop;
}

static bool is_kept(const struct vb_head *head, const struct vb_forward_client *client, enum vb_field_id id)
{
    const struct vb_field *field = client->trusted ? vb_head_find(head, id) : NULL;
    return field != NULL && !field->named_by_connection;
}

/* An open quote would take in what is appended. */
static bool has_open_quote(struct vb_str list)
{
    bool open = false;
    for (size_t i = 0; i < list.n; i++) {
        if (open && list.p[i] == '\\')
            i++;
        else if (list.p[i] == '"')
            open = !open;
    }
    return open;
}

/* The members that a trusted client sent, each with the comma behind it. */
static char *put_list_so_far(char *to, const struct vb_head *head, const struct vb_forward_client *client,
                             enum vb_field_id id)
{
    for (unsigned i = 0; client->trusted && i < head->n_fields; i++) {
        const struct vb_field *field = &head->fields[i];
        if (field->id != id || field->named_by_connection || field->value.n == 0 || has_open_quote(field->value))
            continue;
        to = put_str(to, field->value);
        to = put_literal(to, ", ");
    }
    return to;
}

static char *put_x_forwarded(char *to, const struct vb_head *head, const struct vb_forward_client *client)
{
    if (client->ip.n > 0) {
        to = put_literal(to, "X-Forwarded-For: ");
        to = put_list_so_far(to, head, client, VB_FIELD_X_FORWARDED_FOR);
        to = put_str(to, client->ip);
        to = put_literal(to, "\r\n");
    }
    if (!is_kept(head, client, VB_FIELD_X_FORWARDED_PROTO))
        to = put_literal(to, "X-Forwarded-Proto: http\r\n");
    if (head->host.n > 0 && !is_kept(head, client, VB_FIELD_X_FORWARDED_HOST))
        to = put_field(to, VB_STR("X-Forwarded-Host"), head->host);
    return to;
}

static char *put_forwarded(char *to, const struct vb_head *head, const struct vb_forward_client *client)
{
    bool is_v6 = memchr(client->ip.p, ':', client->ip.n) != NULL;
    to = put_literal(to, "Forwarded: ");
    to = put_list_so_far(to, head, client, VB_FIELD_FORWARDED);
    to = put_literal(to, "for=");
    if (client->ip.n == 0) {
        to = put_literal(to, "unknown"); /* RFC 7239 6.2 */
    } else if (is_v6) {
        to = put_literal(to, "\"[");
        to = put_str(to, client->ip);
        to = put_literal(to, "]\"");
    } else {
        to = put_str(to, client->ip);
    }
    if (head->host.n > 0) { /* it was checked to be a host: nothing in it needs a backslash */
        to = put_literal(to, ";host=\"");
        to = put_str(to, head->host);
        to = put_literal(to, "\"");
    }
    return put_literal(to, ";proto=http\r\n");
}

/* ---- heads ------------------------------------------------------------------------------------------------------- */

/*
 * The request line and the Host line behind it, if both are just what would be made of them: as most clients send them.
 * Otherwise empty.
 */
static struct vb_str plain_start(const struct vb_head *head)
{
    const struct vb_field *host = &head->fields[0];
    const char *target_end = head->target.p + head->target.n;
    bool passes = head->n_fields > 0 && head->host.p == host->value.p && is_plain(host, VB_STR("Host: ")) &&
                  head->target.p == head->raw.p + head->method.n + 1 &&
                  host->name.p == target_end + strlen(" HTTP/1.1\r\n") && target_end[strlen(" HTTP/1.")] == '1';
    return passes ? (struct vb_str){head->raw.p, (size_t)(host->line_end - head->raw.p)} : VB_STR("");
}

static char *put_start(char *to, const struct vb_head *head, struct vb_str fallback_host)
{
    bool has_host = head->host_from_target || vb_head_find(head, VB_FIELD_HOST) != NULL;
    to = put_str(to, head->method);
    to = put_literal(to, " ");
    if (head->slash_before_target)
        to = put_literal(to, "/");
    to = put_str(to, head->target);
    to = put_literal(to, " HTTP/1.1\r\n");
    return put_field(to, VB_STR("Host"), has_host ? head->host : fallback_host);
}

size_t vb_h1_request_room(const struct vb_head *head, const struct vb_forward_request *how)
{
    /* Host may appear three times more: of its own, and in two ways of telling about the client. */
    return head->raw.n + 3 * head->host.n + how->fallback_host.n + how->via.n + how->id_field.n + how->id.n +
           2 * how->client.ip.n + how->upgrade.n + how->max_forwards.n + VB_HEAD_ROOM;
}

size_t vb_h1_write_request(char *to, const struct vb_head *head, const struct vb_forward_request *how)
{
    char *begin = to;
    struct vb_str start = plain_start(head);
    bool has_content = vb_head_has_content(head);
    bool length_passes = is_plain_length(head);
    uint32_t drop = HOP_BY_HOP | 1u << VB_FIELD_HOST | forwarded_to_drop(&how->client);
    if (!length_passes)
        drop |= 1u << VB_FIELD_CONTENT_LENGTH;
    if (how->max_forwards.n > 0)
        drop |= 1u << VB_FIELD_MAX_FORWARDS;
    if (head->minor == 0 ||
        !has_content) /* RFC 9110 10.1.1: then it cannot be meant, and some servers wait for a body */
        drop |= 1u << VB_FIELD_EXPECT;
    if (start.n == 0)
        to = put_start(to, head, how->fallback_host);
    to = put_fields(to, start, head, drop, how->id.n > 0 ? how->id_field : VB_STR(""));
    if (!length_passes)
        to = put_framing(to, head->framing, head->length);
    to = put_hop_fields(to, head, how->upgrade);
    if (how->max_forwards.n > 0)
        to = put_field(to, VB_STR("Max-Forwards"), how->max_forwards);
    if (how->client.x)
        to = put_x_forwarded(to, head, &how->client);
    if (how->client.rfc7239)
        to = put_forwarded(to, head, &how->client);
    to = put_via(to, head->minor, how->via);
    if (how->id.n > 0)
        to = put_field(to, how->id_field, how->id);
    to = put_literal(to, "\r\n");
    return (size_t)(to - begin);
}

static bool has_end_to_end(const struct vb_head *head, struct vb_str name)
{
    const struct vb_field *field = vb_head_find_name(head, name);
    return field != NULL && !field->named_by_connection;
}

static char *put_connection(char *to, const struct vb_forward_response *how)
{
    bool upgrade = how->upgrade.n > 0;
    if (how->announce_close)
        to = put_field(to, VB_STR("Connection"), upgrade ? VB_STR("Upgrade, close") : VB_STR("close"));
    else if (how->announce_keep_alive)
        to = put_field(to, VB_STR("Connection"), upgrade ? VB_STR("Upgrade, keep-alive") : VB_STR("keep-alive"));
    else if (upgrade)
        to = put_field(to, VB_STR("Connection"), VB_STR("Upgrade"));
    return to;
}

/* The status line as we send it: the one that came, unless that is of another version or lacks the last space. */
static char *put_status_line(char *to, const struct vb_head *head, struct vb_str *ret_line)
{
    const char *line = head->raw.p, *end = line + strlen("HTTP/1.1 200 ") + head->reason.n + strlen("\r\n");
    *ret_line = VB_STR("");
    if (line[strlen("HTTP/1.")] == '1' && line[strlen("HTTP/1.1 200")] == ' ') {
        *ret_line = (struct vb_str){line, (size_t)(end - line)};
        return to;
    }
    to = put_literal(to, "HTTP/1.1 ");
    to = put(to, line + strlen("HTTP/1.1 "), 3);
    to = put_literal(to, " ");
    if (head->reason.n > 0)
        to = put_str(to, head->reason);
    return put_literal(to, "\r\n");
}

size_t vb_h1_response_room(const struct vb_head *head, const struct vb_forward_response *how)
{
    return head->raw.n + how->via.n + how->date.n + how->upgrade.n + how->id_field.n + how->id.n + how->set_cookie.n +
           VB_HEAD_ROOM;
}

size_t vb_h1_write_response(char *to, const struct vb_head *head, const struct vb_forward_response *how)
{
    char *begin = to;
    struct vb_str status_line;
    bool length_passes = how->framing == VB_FRAMING_LENGTH && is_plain_length(head);
    uint32_t drop = HOP_BY_HOP;
    if (!length_passes)
        drop |= 1u << VB_FIELD_CONTENT_LENGTH;
    if (head->framing == VB_FRAMING_CHUNKED && how->framing != VB_FRAMING_CHUNKED)
        drop |= 1u << VB_FIELD_TRAILER; /* there will be none */
    /* With no body the length describes what another method or an unconditional request would get. But 1xx and 204 must
     * not have one (RFC 9110 8.6). */
    bool describes = how->framing == VB_FRAMING_NONE && head->status >= 200 && head->status != 204 &&
                     vb_head_find(head, VB_FIELD_CONTENT_LENGTH) != NULL;
    to = put_status_line(to, head, &status_line);
    to = put_fields(to, status_line, head, drop, VB_STR(""));
    if (how->date.n > 0)
        to = put_field(to, VB_STR("Date"), how->date);
    if (!length_passes)
        to = put_framing(to, describes ? VB_FRAMING_LENGTH : how->framing, head->length);
    if (how->upgrade.n > 0)
        to = put_field(to, VB_STR("Upgrade"), how->upgrade);
    to = put_connection(to, how);
    to = put_via(to, head->minor, how->via);
    if (how->id.n > 0 && !has_end_to_end(head, how->id_field))
        to = put_field(to, how->id_field, how->id);
    if (how->set_cookie.n > 0) /* last: of two with one name a client keeps the later one (RFC 6265 5.3) */
        to = put_field(to, VB_STR("Set-Cookie"), how->set_cookie);
    to = put_literal(to, "\r\n");
    return (size_t)(to - begin);
}

size_t vb_h1_write_chunk_line(char *to, size_t chunk)
{
    char digits[16], *end = digits + sizeof(digits), *p = format_u64(end, chunk, 16);
    char *crlf = put(to, p, (size_t)(end - p));
    return (size_t)(put_literal(crlf, "\r\n") - to);
}
