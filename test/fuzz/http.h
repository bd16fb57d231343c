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

/* Inputs as long as this meet the bound on chunk extensions, which looks at them when they arrive. */
enum { LONG_INPUT = 16 * 1024 };

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

struct decoded {
    int r;
    bool complete;
    size_t consumed;
    char *body; /* the caller frees it */
    size_t n;
};

static inline void take_part(struct decoded *decoded, const struct vb_body_part *part, const char *bytes, size_t n)
{
    size_t sum = 0;
    assert(part->n_spans <= VB_BODY_SPANS && part->consumed <= n);
    for (unsigned i = 0; i < part->n_spans; i++) {
        struct vb_str span = {part->spans[i].iov_base, part->spans[i].iov_len};
        assert(span.n > 0 && is_within(span, bytes, part->consumed));
        memcpy(decoded->body + decoded->n, span.p, span.n);
        decoded->n += span.n;
        sum += span.n;
    }
    assert(sum == part->bytes);
    assert(part->consumed == n || part->complete || part->n_spans == VB_BODY_SPANS);
    decoded->consumed += part->consumed;
    decoded->complete = part->complete;
}

/* The body of the message with this head, handed over in pieces of `step` bytes. */
static inline struct decoded decode(enum vb_message_kind kind, const struct vb_head *head, const char *bytes, size_t n,
                                    size_t step)
{
    struct vb_body_reader reader;
    struct vb_body_part part;
    struct decoded decoded = {.body = malloc(n + 1)};
    assert(decoded.body != NULL);
    decoded.r = vb_body_begin(&reader, kind, head);
    decoded.complete = decoded.r == 0 && reader.complete;
    for (size_t at = 0; decoded.r == 0 && !decoded.complete && at < n;) {
        size_t piece = VB_MIN(step, n - at);
        char *exact = exact_copy(bytes + at, piece);
        size_t done = 0;
        while (decoded.r == 0 && !decoded.complete && done < piece) {
            decoded.r = vb_body_read(&reader, exact + done, piece - done, &part);
            if (decoded.r < 0)
                break;
            take_part(&decoded, &part, exact + done, piece - done);
            assert(part.consumed > 0);
            done += part.consumed;
        }
        free(exact);
        at += piece;
    }
    if (decoded.r == 0 && !decoded.complete)
        assert(vb_body_eof(&reader) == (head->framing == VB_FRAMING_CLOSE ? 0 : -ECONNRESET));
    return decoded;
}

/* As chunks of our own; what is decoded of them is the same body. */
static inline void check_encoded_again(const struct decoded *decoded)
{
    static const char head_bytes[] = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    static struct vb_head head;
    struct vb_refusal refusal;
    char *chunks = malloc(decoded->n + VB_CHUNK_LINE_MAX + 7);
    assert(chunks != NULL);
    size_t n = 0;
    if (decoded->n > 0) {
        n = vb_h1_write_chunk_line(chunks, decoded->n);
        memcpy(chunks + n, decoded->body, decoded->n);
        memcpy(chunks + n + decoded->n, "\r\n", 2);
        n += decoded->n + 2;
    }
    memcpy(chunks + n, "0\r\n\r\n", 5);
    n += 5;
    assert(vb_h1_parse_request(head_bytes, sizeof(head_bytes) - 1, &limits, &head, &refusal) > 0);
    struct decoded again = decode(VB_REQUEST, &head, chunks, n, n);
    assert(again.r == 0 && again.complete && again.consumed == n);
    assert(again.n == decoded->n && memcmp(again.body, decoded->body, again.n) == 0);
    free(again.body);
    free(chunks);
}

/* Whole, byte by byte, or in between: the same body, or broken all the same. */
static inline void check_body(enum vb_message_kind kind, const struct vb_head *head, const char *bytes, size_t n)
{
    struct decoded whole = decode(kind, head, bytes, n, n);
    for (size_t step = 1; step < n && n < LONG_INPUT; step = step * 5 + 2) {
        struct decoded pieces = decode(kind, head, bytes, n, step);
        assert(pieces.r == whole.r && pieces.complete == whole.complete);
        if (whole.r == 0) {
            assert(pieces.consumed == whole.consumed && pieces.n == whole.n);
            assert(memcmp(pieces.body, whole.body, whole.n) == 0);
        }
        free(pieces.body);
    }
    if (whole.r == 0) {
        assert(head->framing != VB_FRAMING_LENGTH || whole.complete == (whole.n == head->length));
        assert(head->framing != VB_FRAMING_NONE || (whole.complete && whole.consumed == 0));
        if (head->framing == VB_FRAMING_CHUNKED && whole.complete)
            assert(memcmp(bytes + whole.consumed - 4, "\r\n\r\n", 4) == 0);
        check_encoded_again(&whole);
    }
    free(whole.body);
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
