/*
 * llhttp: the second opinion on heads, and the decoder of bodies. The only file that knows it.
 *
 * llhttp 8.1 (Debian 12) and 9.x (Debian 13) are both built in their strict mode; where they differ in leniency the
 * scanner in head.c has decided before.
 */
#include <errno.h>
#include <llhttp.h>

#include "vb/http.h"

_Static_assert(sizeof(llhttp_t) <= sizeof(((struct vb_body_reader *)0)->llhttp), "make room for llhttp_t");

static llhttp_t *parser_of(struct vb_body_reader *reader)
{
    return (llhttp_t *)(void *)reader->llhttp;
}

static int on_headers_complete(llhttp_t *parser)
{
    struct vb_body_reader *reader = parser->data;
    reader->headers_complete = true;
    return reader->skip_body ? 1 : 0;
}

static int on_body(llhttp_t *parser, const char *bytes, size_t n)
{
    struct vb_body_reader *reader = parser->data;
    struct vb_body_part *part = reader->part;
    if (part == NULL)
        return -1; /* body bytes inside a head: the two readings differ */
    if (n == 0)
        return 0;
    struct iovec *last = part->n_spans > 0 ? &part->spans[part->n_spans - 1] : NULL;
    if (last != NULL && (const char *)last->iov_base + last->iov_len == bytes) {
        last->iov_len += n;
    } else {
        part->spans[part->n_spans++] = (struct iovec){(char *)bytes, n};
    }
    part->bytes += n;
    return part->n_spans == VB_BODY_SPANS ? HPE_PAUSED : 0;
}

static int on_message_complete(llhttp_t *parser)
{
    struct vb_body_reader *reader = parser->data;
    reader->complete = true;
    return HPE_PAUSED; /* what follows belongs to another message */
}

static const llhttp_settings_t settings = {
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

/* Methods that llhttp has; any other valid one is forwarded too, and shown to llhttp as POST, which frames alike. */
static bool llhttp_has_method(struct vb_str method)
{
    static const char *const common[] = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"};
    for (unsigned i = 0; i < VB_ARRAY_SIZE(common); i++)
        if (vb_str_eq(method, vb_str(common[i])))
            return true;
    return false;
}

/* Errors that only say "stop here". */
static bool is_stop(llhttp_errno_t code)
{
    return code == HPE_PAUSED || code == HPE_PAUSED_UPGRADE;
}

static bool head_agrees(struct vb_body_reader *reader, const struct vb_head *head)
{
    llhttp_t *parser = parser_of(reader);
    bool chunked = (parser->flags & F_CHUNKED) != 0;
    bool sized = (parser->flags & F_CONTENT_LENGTH) != 0;
    if (!reader->headers_complete)
        return false;
    switch (head->framing) {
    case VB_FRAMING_NONE:
        return reader->complete && (reader->skip_body || (!chunked && !sized));
    case VB_FRAMING_LENGTH:
        /* The parser counts down from the length as it reads, and has not read any body yet. */
        return sized && !chunked && parser->content_length == head->length && reader->complete == (head->length == 0);
    case VB_FRAMING_CHUNKED:
        return chunked && !sized && !reader->complete;
    case VB_FRAMING_CLOSE:
        return !chunked && !sized && !reader->complete;
    }
    return false;
}

int vb_body_begin(struct vb_body_reader *reader, enum vb_message_kind kind, const struct vb_head *head)
{
    llhttp_t *parser = parser_of(reader);
    llhttp_errno_t code = HPE_OK;
    size_t skip = 0;
    llhttp_init(parser, kind == VB_REQUEST ? HTTP_REQUEST : HTTP_RESPONSE, &settings);
    parser->data = reader;
    reader->part = NULL;
    reader->body_bytes = reader->other_bytes = 0;
    reader->framing = head->framing;
    reader->complete = reader->headers_complete = reader->after_cr = false;
    reader->skip_body = kind == VB_RESPONSE && head->framing == VB_FRAMING_NONE;
    if (kind == VB_REQUEST && !llhttp_has_method(head->method)) {
        skip = head->method.n;
        code = llhttp_execute(parser, "POST", 4);
    }
    if (code == HPE_OK)
        code = llhttp_execute(parser, head->raw.p + skip, head->raw.n - skip);
    if (is_stop(code)) {
        if (llhttp_get_error_pos(parser) != head->raw.p + head->raw.n)
            return -EPROTO; /* it saw the end of the message earlier than we do */
        code = HPE_OK;
    }
    return code == HPE_OK && head_agrees(reader, head) ? 0 : -EPROTO;
}

/* Do all lines in [p, end) end with CRLF? They go on where the last ones ended. */
static bool lines_end_with_crlf(struct vb_body_reader *reader, const char *p, const char *end)
{
    const char *begin = p, *lf;
    for (; p < end && (lf = memchr(p, '\n', (size_t)(end - p))) != NULL; p = lf + 1)
        if (lf > begin ? lf[-1] != '\r' : !reader->after_cr)
            return false;
    if (begin < end)
        reader->after_cr = end[-1] == '\r';
    return true;
}

/* Chunk lines and trailers: llhttp 8.1 takes LF alone for the end of the last line (RFC 9112 7.1). */
static bool frame_is_strict(struct vb_body_reader *reader, const char *bytes, const struct vb_body_part *part)
{
    const char *p = bytes;
    for (unsigned i = 0; i < part->n_spans; i++) {
        if (!lines_end_with_crlf(reader, p, part->spans[i].iov_base))
            return false;
        p = (const char *)part->spans[i].iov_base + part->spans[i].iov_len;
    }
    return lines_end_with_crlf(reader, p, bytes + part->consumed);
}

int vb_body_read(struct vb_body_reader *reader, const char *bytes, size_t n, struct vb_body_part *ret_part)
{
    llhttp_t *parser = parser_of(reader);
    ret_part->n_spans = 0;
    ret_part->bytes = 0;
    reader->part = ret_part;
    llhttp_errno_t code = llhttp_execute(parser, bytes, n);
    reader->part = NULL;
    ret_part->consumed = n;
    if (is_stop(code)) {
        ret_part->consumed = (size_t)(llhttp_get_error_pos(parser) - bytes);
        llhttp_resume(parser);
    } else if (code != HPE_OK) {
        return -EPROTO;
    }
    if (reader->framing == VB_FRAMING_CHUNKED && !frame_is_strict(reader, bytes, ret_part))
        return -EPROTO;
    ret_part->complete = reader->complete;
    reader->body_bytes += ret_part->bytes;
    reader->other_bytes += ret_part->consumed - ret_part->bytes;
    /* Chunk extensions and trailers carry nothing on; 16 bytes of frame for each byte of body is honest use. */
    if (reader->other_bytes > 16 * 1024 + 16 * reader->body_bytes)
        return -EPROTO;
    return 0;
}

int vb_body_eof(const struct vb_body_reader *reader)
{
    return reader->framing == VB_FRAMING_CLOSE ? 0 : -ECONNRESET;
}
