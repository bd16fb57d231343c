/* What must hold for requests and responses alike: how the bytes arrive changes nothing. */
#ifndef VB_FUZZ_HTTP_H
#define VB_FUZZ_HTTP_H

#include <errno.h>

#include "fuzz.h"
#include "vb/http.h"

/* Low, so that inputs of a few hundred bytes meet them. */
static const struct vb_head_limits limits = {.bytes = 1024, .fields = 30};
/* For heads that were written: they may have grown. */
static const struct vb_head_limits roomy = {.bytes = 1 << 16, .fields = 100};

/* Bodies up to this length are split at every byte. */
enum { SHORT_BODY = 256 };

/* Parses n bytes in memory of exactly that size, which the caller frees. */
typedef ssize_t parse_head(const char *bytes, size_t n, struct vb_head *head, struct vb_refusal *refusal);

static inline bool is_within(struct vb_str part, const char *bytes, size_t n)
{
    return part.n == 0 || (part.p >= bytes && part.n <= n && part.p + part.n <= bytes + n);
}

static inline void check_fields(const struct vb_head *head, const char *bytes, size_t n)
{
    assert(is_within(head->raw, bytes, n));
    assert(head->n_fields <= VB_FIELDS_MAX);
    for (unsigned i = 0; i < head->n_fields; i++) {
        const struct vb_field *field = &head->fields[i];
        assert(field->name.n > 0 && is_within(field->name, bytes, n) && is_within(field->value, bytes, n));
        assert(field->line_end > field->name.p && field->line_end <= bytes + n);
        assert((head->present & 1u << field->id) != 0);
    }
}

/* Would a prefix of this length be told from its neighbours? */
static inline bool is_interesting(const char *bytes, size_t n, size_t size)
{
    return n <= 16 || n + 4 >= size || bytes[n - 1] == '\n' || bytes[n - 1] == '\r' || n % 61 == 0;
}

/* Refused sooner or later with the same status, or accepted as soon as it is whole and not before. */
static inline void check_prefixes(parse_head *parse, const char *bytes, size_t size, ssize_t r,
                                  const struct vb_refusal *refusal)
{
    static struct vb_head head;
    bool refused = false;
    for (size_t n = 1; n < size; n++) {
        if (!is_interesting(bytes, n, size))
            continue;
        struct vb_refusal early;
        char *exact = exact_copy(bytes, n);
        ssize_t r_early = parse(exact, n, &head, &early);
        free(exact);
        if (r > 0)
            assert(r_early == ((ssize_t)n < r ? 0 : r));
        else if (r == 0)
            assert(r_early == 0);
        else
            assert((r_early == 0 && !refused) || (r_early < 0 && early.status == refusal->status));
        refused = r_early < 0;
    }
}

/* ---- bodies ------------------------------------------------------------------------------------------------------ */

struct text {
    char *p; /* the caller frees it */
    size_t n;
};

struct decoded {
    int r;
    bool complete;
    size_t consumed;
    struct text body, trailers;
};

static inline void append(struct text *to, struct vb_str bytes)
{
    memcpy(to->p + to->n, bytes.p, bytes.n);
    to->n += bytes.n;
}

static inline bool same_text(const struct text *one, const struct text *other)
{
    return one->n == other->n && memcmp(one->p, other->p, one->n) == 0;
}

static inline void take_part(struct decoded *decoded, const struct vb_body_part *part, const char *bytes, size_t n)
{
    size_t sum = 0;
    assert(part->n_spans <= VB_BODY_SPANS && part->consumed <= n);
    for (unsigned i = 0; i < part->n_spans; i++) {
        struct vb_str span = {part->spans[i].iov_base, part->spans[i].iov_len};
        assert(span.n > 0 && is_within(span, bytes, part->consumed));
        append(&decoded->body, span);
        sum += span.n;
    }
    assert(sum == part->bytes);
    assert(part->n_trailers == 0 || (part->complete && part->n_trailers <= VB_TRAILER_SPANS));
    for (unsigned i = 0; i < part->n_trailers; i++) {
        assert(part->trailers[i].n > 0 && is_within(part->trailers[i], bytes, part->consumed));
        append(&decoded->trailers, part->trailers[i]);
    }
    if (part->waiting)
        assert(!part->complete && part->consumed < n && n - part->consumed < limits.bytes);
    else
        assert(part->consumed == n || part->complete || part->n_spans == VB_BODY_SPANS);
    decoded->consumed += part->consumed;
    decoded->complete = part->complete;
}

/* What came up to `end` and was not consumed, in memory of exactly that size. */
static inline void read_up_to(struct vb_body_reader *reader, const char *bytes, size_t end, struct decoded *decoded)
{
    struct vb_body_part part = {.waiting = false};
    while (decoded->r == 0 && !decoded->complete && !part.waiting && decoded->consumed < end) {
        size_t n = end - decoded->consumed;
        char *exact = exact_copy(bytes + decoded->consumed, n);
        decoded->r = vb_body_read(reader, exact, n, &part);
        if (decoded->r == 0) {
            assert(part.consumed > 0 || part.waiting);
            take_part(decoded, &part, exact, n);
        }
        free(exact);
    }
}

/* The body of the message with this head, handed over in pieces of `first`, then `step` bytes. */
static inline struct decoded decode(enum vb_message_kind kind, const struct vb_head *head, const char *bytes, size_t n,
                                    size_t first, size_t step)
{
    struct vb_body_reader reader;
    struct decoded decoded = {.body = {.p = malloc(n + 1)}, .trailers = {.p = malloc(n + 1)}};
    assert(decoded.body.p != NULL && decoded.trailers.p != NULL);
    decoded.r = vb_body_begin(&reader, kind, head, &limits);
    decoded.complete = decoded.r == 0 && reader.complete;
    for (size_t end = first; end < n; end += step)
        read_up_to(&reader, bytes, end, &decoded);
    read_up_to(&reader, bytes, n, &decoded);
    if (decoded.r == 0 && !decoded.complete)
        assert(vb_body_eof(&reader) == (head->framing == VB_FRAMING_CLOSE ? 0 : -ECONNRESET));
    return decoded;
}

static inline void drop_decoded(struct decoded *decoded)
{
    free(decoded->body.p);
    free(decoded->trailers.p);
}

/* As chunks of our own; what is decoded of them is the same body, with the same trailers. */
static inline void check_encoded_again(const struct decoded *decoded)
{
    static const char head_bytes[] = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    static struct vb_head head;
    struct vb_refusal refusal;
    struct text chunks = {.p = malloc(decoded->body.n + decoded->trailers.n + VB_CHUNK_LINE_MAX + 7)};
    assert(chunks.p != NULL);
    if (decoded->body.n > 0) {
        chunks.n = vb_h1_write_chunk_line(chunks.p, decoded->body.n);
        append(&chunks, (struct vb_str){decoded->body.p, decoded->body.n});
        append(&chunks, VB_STR("\r\n"));
    }
    append(&chunks, VB_STR("0\r\n"));
    append(&chunks, (struct vb_str){decoded->trailers.p, decoded->trailers.n});
    append(&chunks, VB_STR("\r\n"));
    assert(vb_h1_parse_request(head_bytes, sizeof(head_bytes) - 1, &limits, &head, &refusal) > 0);
    struct decoded again = decode(VB_REQUEST, &head, chunks.p, chunks.n, chunks.n, 1);
    assert(again.r == 0 && again.complete && again.consumed == chunks.n);
    assert(same_text(&again.body, &decoded->body) && same_text(&again.trailers, &decoded->trailers));
    drop_decoded(&again);
    free(chunks.p);
}

/* A recipient may merge trailers into the head: they mean nothing to how that is read, or to us. */
static inline void check_trailers(const struct text *trailers)
{
    static const struct vb_str before = {"POST / HTTP/1.1\r\nHost: x\r\n", 26};
    static struct vb_head head;
    struct vb_refusal refusal;
    struct text merged = {.p = malloc(before.n + trailers->n + 2)};
    assert(merged.p != NULL);
    append(&merged, before);
    append(&merged, (struct vb_str){trailers->p, trailers->n});
    append(&merged, VB_STR("\r\n"));
    assert(vb_h1_parse_request(merged.p, merged.n, &roomy, &head, &refusal) == (ssize_t)merged.n);
    assert((head.present & ~(1u << VB_FIELD_OTHER)) == 1u << VB_FIELD_HOST);
    free(merged.p);
}

static inline void check_split(enum vb_message_kind kind, const struct vb_head *head, const char *bytes, size_t n,
                               size_t first, size_t step, const struct decoded *whole)
{
    struct decoded pieces = decode(kind, head, bytes, n, first, step);
    assert(pieces.r == whole->r && pieces.complete == whole->complete);
    if (whole->r == 0)
        assert(pieces.consumed == whole->consumed && same_text(&pieces.body, &whole->body) &&
               same_text(&pieces.trailers, &whole->trailers));
    drop_decoded(&pieces);
}

/* Whole, byte by byte, or in between: the same body with the same trailers, or broken all the same. */
static inline void check_body(enum vb_message_kind kind, const struct vb_head *head, const char *bytes, size_t n)
{
    struct decoded whole = decode(kind, head, bytes, n, n, 1);
    for (size_t step = 1; step < n; step = step * 5 + 2)
        check_split(kind, head, bytes, n, step, step, &whole);
    for (size_t first = 1; first < n; first += n <= SHORT_BODY ? 1 : n / 16)
        check_split(kind, head, bytes, n, first, n, &whole);
    if (whole.r == 0) {
        assert(head->framing != VB_FRAMING_LENGTH || whole.complete == (whole.body.n == head->length));
        assert(head->framing != VB_FRAMING_NONE || (whole.complete && whole.consumed == 0));
        if (head->framing == VB_FRAMING_CHUNKED && whole.complete)
            assert(memcmp(bytes + whole.consumed - 4, "\r\n\r\n", 4) == 0);
        check_encoded_again(&whole);
        check_trailers(&whole.trailers);
    }
    drop_decoded(&whole);
}

/* ---- heads that were written ------------------------------------------------------------------------------------- */

#define BIT(id) (1u << VB_FIELD_##id)
#define MADE_ANEW                                                                                                      \
    (BIT(CONNECTION) | BIT(KEEP_ALIVE) | BIT(PROXY_CONNECTION) | BIT(TE) | BIT(TRANSFER_ENCODING) | BIT(UPGRADE) |     \
     BIT(CONTENT_LENGTH) | BIT(HOST))

/* The first field from *i on that passes: not for one hop, nor framing or Host, nor in `drop`; NULL at the end. */
static inline const struct vb_field *next_passing(const struct vb_head *head, uint32_t drop, unsigned *i)
{
    while (*i < head->n_fields) {
        const struct vb_field *field = &head->fields[(*i)++];
        if (((MADE_ANEW | drop) & 1u << field->id) == 0 && !field->named_by_connection)
            return field;
    }
    return NULL;
}

/* All that should pass did, unchanged and in its order; nothing else came in between. */
static inline void check_passed(const struct vb_head *came, const struct vb_head *left, uint32_t drop)
{
    unsigned i = 0, k = 0;
    for (const struct vb_field *one; (one = next_passing(came, drop, &i)) != NULL;) {
        const struct vb_field *other = next_passing(left, 0, &k);
        assert(other != NULL && vb_str_eq(one->name, other->name) && vb_str_eq(one->value, other->value));
    }
    assert(next_passing(left, 0, &k) == NULL);
}

static inline void check_framing_fields(const struct vb_head *head)
{
    assert(((head->present & BIT(CONTENT_LENGTH)) != 0) == (head->framing == VB_FRAMING_LENGTH));
    assert(((head->present & BIT(TRANSFER_ENCODING)) != 0) == (head->framing == VB_FRAMING_CHUNKED));
}

#endif
