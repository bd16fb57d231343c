/*
 * Heads as they leave. Fields that pass are copied in runs of whole lines, as they came; only what a proxy must change
 * is written anew: the first line, framing, hop-by-hop fields, and what it adds.
 */
#include <errno.h>
#include <stdio.h>

#include "vb/http.h"

struct writer {
    char *p, *end;
    bool full;
};

static inline void put(struct writer *w, const char *bytes, size_t n)
{
    if (VB_UNLIKELY((size_t)(w->end - w->p) < n)) {
        w->full = true;
        return;
    }
    memcpy(w->p, bytes, n);
    w->p += n;
}

#define put_literal(w, text) put(w, text, sizeof(text) - 1)

static void put_str(struct writer *w, struct vb_str text)
{
    put(w, text.p, text.n);
}

static void put_field(struct writer *w, struct vb_str name, struct vb_str value)
{
    put_str(w, name);
    put_literal(w, ": ");
    put_str(w, value);
    put_literal(w, "\r\n");
}

static char *format_u64(char *end, uint64_t value, unsigned base)
{
    do {
        *--end = "0123456789abcdef"[value % base];
        value /= base;
    } while (value > 0);
    return end;
}

static void put_u64(struct writer *w, uint64_t value)
{
    char digits[20], *end = digits + sizeof(digits), *p = format_u64(end, value, 10);
    put(w, p, (size_t)(end - p));
}

/* The fields that are not in the bit set `drop`, nor named by Connection, in runs of whole lines. */
static void put_fields(struct writer *w, const struct vb_head *head, uint32_t drop, struct vb_str drop_name)
{
    const char *run = NULL, *run_end = NULL;
    for (unsigned i = 0; i < head->n_fields; i++) {
        const struct vb_field *field = &head->fields[i];
        if ((drop & (1u << field->id)) != 0 || field->named_by_connection ||
            (field->name.n == drop_name.n && vb_str_eq_nocase(field->name, drop_name)))
            continue;
        if (field->name.p != run_end) {
            if (run != NULL)
                put(w, run, (size_t)(run_end - run));
            run = field->name.p;
        }
        run_end = field->line_end;
    }
    if (run != NULL)
        put(w, run, (size_t)(run_end - run));
}

/* For one hop only (RFC 9110 7.6.1), or made anew here. */
#define HOP_BY_HOP                                                                                                     \
    (1u << VB_FIELD_CONNECTION | 1u << VB_FIELD_KEEP_ALIVE | 1u << VB_FIELD_PROXY_CONNECTION | 1u << VB_FIELD_TE |     \
     1u << VB_FIELD_TRANSFER_ENCODING | 1u << VB_FIELD_UPGRADE)
#define X_FORWARDED                                                                                                    \
    (1u << VB_FIELD_X_FORWARDED_FOR | 1u << VB_FIELD_X_FORWARDED_PROTO | 1u << VB_FIELD_X_FORWARDED_HOST)

static void put_framing(struct writer *w, enum vb_framing framing, uint64_t length)
{
    if (framing == VB_FRAMING_LENGTH) {
        put_literal(w, "Content-Length: ");
        put_u64(w, length);
        put_literal(w, "\r\n");
    } else if (framing == VB_FRAMING_CHUNKED) {
        put_literal(w, "Transfer-Encoding: chunked\r\n");
    }
}

/* `Via: 1.1 name` on a line of its own, which means the same as appended to the list (RFC 9110 7.6.3, 5.3). */
static void put_via(struct writer *w, unsigned minor, struct vb_str pseudonym)
{
    if (pseudonym.n == 0)
        return;
    if (minor == 1)
        put_literal(w, "Via: 1.1 ");
    else
        put_literal(w, "Via: 1.0 ");
    put_str(w, pseudonym);
    put_literal(w, "\r\n");
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
static void put_hop_fields(struct writer *w, const struct vb_head *head, struct vb_str upgrade)
{
    bool trailers = head->minor == 1 && wants_trailers(head);
    if (upgrade.n > 0) {
        put_field(w, VB_STR("Connection"), trailers ? VB_STR("Upgrade, TE") : VB_STR("Upgrade"));
        put_field(w, VB_STR("Upgrade"), upgrade);
    } else if (trailers) {
        put_literal(w, "Connection: TE\r\n");
    }
    if (trailers)
        put_literal(w, "TE: trailers\r\n");
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
static void put_list_so_far(struct writer *w, const struct vb_head *head, const struct vb_forward_client *client,
                            enum vb_field_id id)
{
    for (unsigned i = 0; client->trusted && i < head->n_fields; i++) {
        const struct vb_field *field = &head->fields[i];
        if (field->id != id || field->named_by_connection || field->value.n == 0 || has_open_quote(field->value))
            continue;
        put_str(w, field->value);
        put_literal(w, ", ");
    }
}

static void put_x_forwarded(struct writer *w, const struct vb_head *head, const struct vb_forward_client *client)
{
    if (client->ip.n > 0) {
        put_literal(w, "X-Forwarded-For: ");
        put_list_so_far(w, head, client, VB_FIELD_X_FORWARDED_FOR);
        put_str(w, client->ip);
        put_literal(w, "\r\n");
    }
    if (!is_kept(head, client, VB_FIELD_X_FORWARDED_PROTO))
        put_literal(w, "X-Forwarded-Proto: http\r\n");
    if (head->host.n > 0 && !is_kept(head, client, VB_FIELD_X_FORWARDED_HOST))
        put_field(w, VB_STR("X-Forwarded-Host"), head->host);
}

static void put_forwarded(struct writer *w, const struct vb_head *head, const struct vb_forward_client *client)
{
    bool is_v6 = memchr(client->ip.p, ':', client->ip.n) != NULL;
    put_literal(w, "Forwarded: ");
    put_list_so_far(w, head, client, VB_FIELD_FORWARDED);
    put_literal(w, "for=");
    if (client->ip.n == 0) {
        put_literal(w, "unknown"); /* RFC 7239 6.2 */
    } else if (is_v6) {
        put_literal(w, "\"[");
        put_str(w, client->ip);
        put_literal(w, "]\"");
    } else {
        put_str(w, client->ip);
    }
    if (head->host.n > 0) { /* it was checked to be a host: nothing in it needs a backslash */
        put_literal(w, ";host=\"");
        put_str(w, head->host);
        put_literal(w, "\"");
    }
    put_literal(w, ";proto=http\r\n");
}

/* ---- heads ------------------------------------------------------------------------------------------------------- */

static ssize_t finish(struct writer *w, const char *begin)
{
    put_literal(w, "\r\n");
    return w->full ? -ENOBUFS : w->p - begin;
}

ssize_t vb_h1_write_request(char *to, size_t size, const struct vb_head *head, const struct vb_forward_request *how)
{
    struct writer w = {to, to + size, false};
    bool has_host = head->host_from_target || vb_head_find(head, VB_FIELD_HOST) != NULL;
    bool has_content = head->framing == VB_FRAMING_CHUNKED || head->length > 0;
    uint32_t drop = HOP_BY_HOP | 1u << VB_FIELD_CONTENT_LENGTH | 1u << VB_FIELD_HOST | forwarded_to_drop(&how->client);
    if (how->max_forwards.n > 0)
        drop |= 1u << VB_FIELD_MAX_FORWARDS;
    if (head->minor == 0 ||
        !has_content) /* RFC 9110 10.1.1: then it cannot be meant, and some servers wait for a body */
        drop |= 1u << VB_FIELD_EXPECT;
    put_str(&w, head->method);
    put_literal(&w, " ");
    if (head->slash_before_target)
        put_literal(&w, "/");
    put_str(&w, head->target);
    put_literal(&w, " HTTP/1.1\r\n");
    put_field(&w, VB_STR("Host"), has_host ? head->host : how->fallback_host);
    put_fields(&w, head, drop, how->id.n > 0 ? how->id_field : VB_STR(""));
    put_framing(&w, head->framing, head->length);
    put_hop_fields(&w, head, how->upgrade);
    if (how->max_forwards.n > 0)
        put_field(&w, VB_STR("Max-Forwards"), how->max_forwards);
    if (how->client.x)
        put_x_forwarded(&w, head, &how->client);
    if (how->client.rfc7239)
        put_forwarded(&w, head, &how->client);
    put_via(&w, head->minor, how->via);
    if (how->id.n > 0)
        put_field(&w, how->id_field, how->id);
    return finish(&w, to);
}

static bool has_end_to_end(const struct vb_head *head, struct vb_str name)
{
    const struct vb_field *field = vb_head_find_name(head, name);
    return field != NULL && !field->named_by_connection;
}

static void put_connection(struct writer *w, const struct vb_forward_response *how)
{
    bool upgrade = how->upgrade.n > 0;
    if (how->announce_close)
        put_field(w, VB_STR("Connection"), upgrade ? VB_STR("Upgrade, close") : VB_STR("close"));
    else if (how->announce_keep_alive)
        put_field(w, VB_STR("Connection"), upgrade ? VB_STR("Upgrade, keep-alive") : VB_STR("keep-alive"));
    else if (upgrade)
        put_field(w, VB_STR("Connection"), VB_STR("Upgrade"));
}

ssize_t vb_h1_write_response(char *to, size_t size, const struct vb_head *head, const struct vb_forward_response *how)
{
    struct writer w = {to, to + size, false};
    uint32_t drop = HOP_BY_HOP | 1u << VB_FIELD_CONTENT_LENGTH;
    if (head->framing == VB_FRAMING_CHUNKED && how->framing != VB_FRAMING_CHUNKED)
        drop |= 1u << VB_FIELD_TRAILER; /* there will be none */
    /* With no body the length describes what another method or an unconditional request would get. But 1xx and 204 must
     * not have one (RFC 9110 8.6). */
    bool describes = how->framing == VB_FRAMING_NONE && head->status >= 200 && head->status != 204 &&
                     vb_head_find(head, VB_FIELD_CONTENT_LENGTH) != NULL;
    char status[3] = {(char)('0' + head->status / 100), (char)('0' + head->status / 10 % 10),
                      (char)('0' + head->status % 10)};
    put_literal(&w, "HTTP/1.1 ");
    put(&w, status, sizeof(status));
    put_literal(&w, " ");
    if (head->reason.n > 0)
        put_str(&w, head->reason);
    put_literal(&w, "\r\n");
    put_fields(&w, head, drop, VB_STR(""));
    if (how->date.n > 0)
        put_field(&w, VB_STR("Date"), how->date);
    put_framing(&w, describes ? VB_FRAMING_LENGTH : how->framing, head->length);
    if (how->upgrade.n > 0)
        put_field(&w, VB_STR("Upgrade"), how->upgrade);
    put_connection(&w, how);
    put_via(&w, head->minor, how->via);
    if (how->id.n > 0 && !has_end_to_end(head, how->id_field))
        put_field(&w, how->id_field, how->id);
    if (how->set_cookie.n > 0) /* last: of two with one name a client keeps the later one (RFC 6265 5.3) */
        put_field(&w, VB_STR("Set-Cookie"), how->set_cookie);
    return finish(&w, to);
}

size_t vb_h1_write_chunk_line(char *to, size_t chunk)
{
    char digits[16], *end = digits + sizeof(digits), *p = format_u64(end, chunk, 16);
    size_t n = (size_t)(end - p);
    memcpy(to, p, n);
    memcpy(to + n, "\r\n", 2);
    return n + 2;
}
