/*
 * Bodies, and llhttp as the second opinion on all that is read here or in head.c. The only file that knows it.
 *
 * llhttp 8.1 (Debian 12) and 9.x (Debian 13), both in their strict mode, refuse some messages that are valid, and not
 * the same ones. What they stumble over does not concern framing, is checked by our own readers, and is not shown to
 * them, or they are shown something else that frames alike.
 */
#include <errno.h>
#include <llhttp.h>

#include "chunk.h"

_Static_assert(sizeof(llhttp_t) <= sizeof(((struct vb_body_reader *)0)->llhttp), "make room for llhttp_t");

/* ---- the second opinion ------------------------------------------------------------------------------------------ */

static llhttp_t *parser_of(struct vb_body_reader *reader)
{
    return (llhttp_t *)(void *)reader->llhttp;
}

static int on_headers_complete(llhttp_t *parser)
{
    struct vb_body_reader *reader = parser->data;
    reader->llhttp_headers_complete = true;
    return reader->skip_body ? 1 : 0;
}

static int on_body(llhttp_t *parser, const char *bytes, size_t n)
{
    struct vb_body_reader *reader = parser->data;
    reader->llhttp_body_bytes += n;
    return 0;
}

static int on_message_complete(llhttp_t *parser)
{
    struct vb_body_reader *reader = parser->data;
    reader->llhttp_complete = true;
    return HPE_PAUSED; /* what follows belongs to another message */
}

static const llhttp_settings_t settings = {
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

/* The input as llhttp gets it: in one piece, unless something is left out. */
struct showing {
    struct vb_body_reader *reader;
    const char *at; /* everything before was shown, or left out */
    bool fine;      /* llhttp has nothing against it so far */
};

static void show_bytes(struct showing *s, const char *bytes, size_t n)
{
    llhttp_t *parser = parser_of(s->reader);
    if (!s->fine || n == 0)
        return;
    llhttp_errno_t code = llhttp_execute(parser, bytes, n);
    /* It may stop at the end of the message, but not sooner. */
    bool stopped = code == HPE_PAUSED || code == HPE_PAUSED_UPGRADE;
    s->fine = code == HPE_OK || (stopped && llhttp_get_error_pos(parser) == bytes + n);
}

static void show(struct showing *s, const char *to)
{
    show_bytes(s, s->at, (size_t)(to - s->at));
    s->at = to;
}

/* Shows `other` in place of [from, to). */
static void show_other(struct showing *s, const char *from, const char *to, struct vb_str other)
{
    if (from == to)
        return;
    show(s, from);
    show_bytes(s, other.p, other.n);
    s->at = to;
}

static void leave_out(struct showing *s, const char *from, const char *to)
{
    show_other(s, from, to, VB_STR(""));
}

/* Has it come as far, with as many bytes of the body? */
static bool agrees(const struct showing *s)
{
    const struct vb_body_reader *reader = s->reader;
    return s->fine && reader->llhttp_complete == reader->complete && reader->llhttp_body_bytes == reader->body_bytes;
}

/* ---- heads ------------------------------------------------------------------------------------------------------- */

/* Methods that llhttp has; any other valid one is forwarded too. */
static bool llhttp_has_method(struct vb_str method)
{
    return vb_str_eq(method, VB_STR("GET")) || vb_str_eq(method, VB_STR("HEAD")) || vb_str_eq(method, VB_STR("POST")) ||
           vb_str_eq(method, VB_STR("PUT")) || vb_str_eq(method, VB_STR("DELETE")) ||
           vb_str_eq(method, VB_STR("OPTIONS")) || vb_str_eq(method, VB_STR("PATCH"));
}

static const char *minor_version_of(enum vb_message_kind kind, const struct vb_head *head)
{
    const char *fields = head->n_fields > 0 ? head->fields[0].name.p : head->raw.p + head->raw.n - strlen("\r\n");
    return kind == VB_REQUEST ? fields - strlen("1\r\n") : head->raw.p + strlen("HTTP/1.");
}

static void show_head(struct showing *s, enum vb_message_kind kind, const struct vb_head *head)
{
    const char *minor = minor_version_of(kind, head);
    const enum vb_field_id framing[] = {VB_FIELD_CONTENT_LENGTH, VB_FIELD_TRANSFER_ENCODING};
    if (kind == VB_REQUEST && !llhttp_has_method(head->method))
        show_other(s, head->method.p, head->method.p + head->method.n, VB_STR("POST"));
    if (*minor > '1')
        show_other(s, minor, minor + 1, VB_STR("1"));
    for (unsigned i = 0; i < VB_ARRAY_SIZE(framing); i++) {
        const struct vb_field *field = vb_head_find(head, framing[i]); /* there is only one: see head.c */
        if (field != NULL) /* a tab behind the value is too much for llhttp before 9.4 */
            leave_out(s, field->value.p + field->value.n, field->line_end - strlen("\r\n"));
    }
    show(s, head->raw.p + head->raw.n);
}

static bool framing_agrees(struct vb_body_reader *reader, const struct vb_head *head)
{
    const llhttp_t *parser = parser_of(reader);
    bool chunked = (parser->flags & F_CHUNKED) != 0;
    bool sized = (parser->flags & F_CONTENT_LENGTH) != 0;
    if (!reader->llhttp_headers_complete)
        return false;
    switch (head->framing) {
    case VB_FRAMING_NONE:
        return reader->skip_body || (!chunked && !sized);
    case VB_FRAMING_LENGTH:
        /* The parser counts down from the length as it reads, and has not read any body yet. */
        return sized && !chunked && parser->content_length == head->length;
    case VB_FRAMING_CHUNKED:
        return chunked && !sized;
    case VB_FRAMING_CLOSE:
        return !chunked && !sized;
    }
    return false;
}

/* Does Connection name a field that might come as a trailer? It would be for this hop only (RFC 9110 7.6.1). */
static bool connection_names_trailers(const struct vb_head *head)
{
    for (unsigned i = 0; i < head->n_fields && (head->present & 1u << VB_FIELD_CONNECTION) != 0; i++) {
        struct vb_str list = head->fields[i].value, member;
        while (head->fields[i].id == VB_FIELD_CONNECTION && vb_list_next(&list, &member))
            if (!vb_str_eq_nocase(member, VB_STR("close")) && vb_trailer_passes(member))
                return true;
    }
    return false;
}

static uint64_t bytes_without_chunks(const struct vb_head *head)
{
    return head->framing == VB_FRAMING_LENGTH ? head->length : head->framing == VB_FRAMING_CLOSE ? UINT64_MAX : 0;
}

int vb_body_begin(struct vb_body_reader *reader, enum vb_message_kind kind, const struct vb_head *head,
                  const struct vb_head_limits *limits)
{
    reader->limits = *limits;
    reader->trailer_seen = 0;
    reader->chunk = (struct vb_chunk_state){0};
    reader->left = bytes_without_chunks(head);
    reader->body_bytes = reader->frame_bytes = reader->llhttp_body_bytes = 0;
    reader->framing = head->framing;
    reader->complete = head->framing != VB_FRAMING_CHUNKED && reader->left == 0;
    reader->skip_body = kind == VB_RESPONSE && head->framing == VB_FRAMING_NONE;
    reader->drop_trailers = head->framing == VB_FRAMING_CHUNKED && connection_names_trailers(head);
    reader->llhttp_headers_complete = reader->llhttp_complete = false;
    llhttp_init(parser_of(reader), kind == VB_REQUEST ? HTTP_REQUEST : HTTP_RESPONSE, &settings);
    parser_of(reader)->data = reader;
    struct showing s = {reader, head->raw.p, true};
    show_head(&s, kind, head);
    return agrees(&s) && framing_agrees(reader, head) ? 0 : -EPROTO;
}

/* ---- bodies ------------------------------------------------------------------------------------------------------ */

static void add_span(struct vb_body_reader *reader, const char *bytes, size_t n, struct vb_body_part *part)
{
    part->spans[part->n_spans++] = (struct iovec){(char *)bytes, n};
    part->bytes += n;
    reader->body_bytes += n;
}

/* A body of known length, or until the peer closes. */
static void read_plain(struct vb_body_reader *reader, const char **p, const char *end, struct vb_body_part *part)
{
    size_t n = VB_MIN(reader->left, (size_t)(end - *p));
    if (n == 0)
        return;
    add_span(reader, *p, n, part);
    *p += n;
    if (reader->framing == VB_FRAMING_LENGTH) {
        reader->left -= n;
        reader->complete = reader->left == 0;
    }
}

/* Chunk lines carry nothing on; 16 bytes of frame for each byte of body is honest use (CVE-2023-39326). */
static bool add_frame(struct vb_body_reader *reader, size_t n)
{
    reader->frame_bytes += n;
    return reader->frame_bytes <= 16 * 1024 + 16 * reader->body_bytes;
}

/* llhttp 8.1 and 9.x do not agree on which fields a trailer section may have: they see only those that pass. */
static void show_trailers(struct showing *s, const char *section, const char *end, const struct vb_body_part *part)
{
    for (unsigned i = 0; i < part->n_trailers; i++) {
        leave_out(s, section, part->trailers[i].p);
        section = part->trailers[i].p + part->trailers[i].n;
    }
    leave_out(s, section, end - strlen("\r\n"));
}

static int read_trailers(struct vb_body_reader *reader, struct showing *s, const char **p, const char *end,
                         struct vb_body_part *part)
{
    size_t n = (size_t)(end - *p), seen = VB_MIN(reader->trailer_seen, n);
    ssize_t length = 0;
    /* If it comes byte by byte it is read again at each line's end, not for each byte. */
    bool line_end = memchr(*p + seen, '\n', n - seen) != NULL || memchr(*p + seen, '\r', n - seen) != NULL;
    if (line_end || n >= reader->limits.bytes)
        length = vb_trailers_read(*p, n, &reader->limits, part);
    if (length < 0)
        return -EPROTO;
    if (length == 0) {
        reader->trailer_seen = (*p)[n - 1] == '\r' ? n - 1 : n; /* what follows a CR decides */
        part->waiting = true;
        return 0;
    }
    if (reader->drop_trailers)
        part->n_trailers = 0;
    show_trailers(s, *p, *p + length, part);
    *p += length;
    reader->complete = true;
    return 0;
}

static int read_chunks(struct vb_body_reader *reader, struct showing *s, const char **p, const char *end,
                       struct vb_body_part *part)
{
    const char *frame = *p; /* begin of what was read since the last body byte */
    struct vb_str slice;
    while (part->n_spans < VB_BODY_SPANS) {
        int event = vb_chunk_next(&reader->chunk, p, end, &slice);
        size_t n = event == VB_CHUNK_DATA ? slice.n : 0;
        if (event < 0 || !add_frame(reader, (size_t)(*p - frame) - n))
            return -EPROTO;
        frame = *p;
        if (event == VB_CHUNK_DATA)
            add_span(reader, slice.p, slice.n, part);
        else if (event == VB_CHUNK_EXTENSION)
            leave_out(s, slice.p, slice.p + slice.n);
        else
            return event == VB_CHUNK_TRAILERS ? read_trailers(reader, s, p, end, part) : 0;
    }
    return 0;
}

int vb_body_read(struct vb_body_reader *reader, const char *bytes, size_t n, struct vb_body_part *ret_part)
{
    struct showing s = {reader, bytes, true};
    const char *p = bytes;
    ret_part->n_spans = ret_part->n_trailers = 0;
    ret_part->bytes = 0;
    ret_part->waiting = false;
    if (reader->framing != VB_FRAMING_CHUNKED)
        read_plain(reader, &p, bytes + n, ret_part);
    else if (read_chunks(reader, &s, &p, bytes + n, ret_part) < 0)
        return -EPROTO;
    show(&s, p);
    ret_part->consumed = (size_t)(p - bytes);
    ret_part->complete = reader->complete;
    return agrees(&s) ? 0 : -EPROTO;
}

int vb_body_eof(const struct vb_body_reader *reader)
{
    return reader->framing == VB_FRAMING_CLOSE ? 0 : -ECONNRESET;
}
