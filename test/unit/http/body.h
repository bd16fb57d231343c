/* A body in pieces, and what becomes of it. */
#ifndef VB_TEST_HTTP_BODY_H
#define VB_TEST_HTTP_BODY_H

#include "fixture.h"

#define HOST    "Host: x\r\n"
#define POST    "POST / HTTP/1.1\r\n" HOST
#define CHUNKED POST "Transfer-Encoding: chunked\r\n\r\n"
#define OK      "HTTP/1.1 200 OK\r\n"
#define END     "\r\n"

static const struct vb_str chunked_post = BYTES(CHUNKED);

/* Begins the body of a message with this head, which must be fine; what vb_body_begin says. */
static inline int begin(struct vb_body_reader *reader, enum kind kind, struct vb_str bytes)
{
    struct parsed parsed = parse_good(kind, bytes);
    int r = vb_body_begin(reader, kind == REQUEST ? VB_REQUEST : VB_RESPONSE, parsed.head, &usual);
    drop(&parsed);
    return r;
}

static inline void begin_good(struct vb_body_reader *reader, enum kind kind, struct vb_str bytes)
{
    if (begin(reader, kind, bytes) != 0)
        fail_msg("llhttp reads it otherwise: %s", shown(bytes));
}

/* What reading came to. */
struct decoded {
    int r; /* of the last vb_body_read */
    size_t consumed;
    bool complete;
    struct vb_str body, trailers; /* in memory that the next decoding takes over */
};

/* Room for the parts of one message, which may be as long as the message. */
static inline char *room_for(char **room, size_t n)
{
    free(*room);
    *room = malloc(n + 1);
    assert_non_null(*room);
    return *room;
}

static inline void take_part(struct decoded *to, const struct vb_body_part *part, const char *bytes, size_t n)
{
    size_t in_spans = 0;
    assert_true(part->n_spans <= VB_BODY_SPANS && part->consumed <= n && part->n_trailers <= VB_TRAILER_SPANS);
    for (unsigned i = 0; i < part->n_spans; i++) {
        struct vb_str span = {part->spans[i].iov_base, part->spans[i].iov_len};
        assert_true(span.n > 0 && span.p >= bytes && span.p + span.n <= bytes + part->consumed);
        memcpy((char *)to->body.p + to->body.n, span.p, span.n);
        to->body.n += span.n;
        in_spans += span.n;
    }
    for (unsigned i = 0; i < part->n_trailers; i++) {
        struct vb_str run = part->trailers[i];
        assert_true(part->complete && run.p >= bytes && run.p + run.n <= bytes + part->consumed);
        memcpy((char *)to->trailers.p + to->trailers.n, run.p, run.n);
        to->trailers.n += run.n;
    }
    assert_int_equal(in_spans, part->bytes);
    assert_false(part->complete && part->waiting);
    if (part->waiting)
        assert_true(part->consumed < n);
    else
        assert_true(part->complete || part->consumed == n || part->n_spans == VB_BODY_SPANS);
    to->consumed += part->consumed;
    to->complete = part->complete;
}

/* All that came up to `end` and was not consumed; false: the message is over, or broken. */
static inline bool read_up_to(struct vb_body_reader *reader, const char *bytes, size_t end, struct decoded *so_far)
{
    struct vb_body_part part = {.waiting = false};
    while (so_far->consumed < end && so_far->r == 0 && !so_far->complete && !part.waiting) {
        size_t n = end - so_far->consumed;
        char *exact = exact_copy(bytes + so_far->consumed, n);
        so_far->r = vb_body_read(reader, exact, n, &part);
        if (so_far->r == 0)
            take_part(so_far, &part, exact, n);
        free(exact);
    }
    return so_far->r == 0 && !so_far->complete;
}

/* A body that arrives in pieces of `first`, then `step` bytes. */
static inline struct decoded decode(enum kind kind, struct vb_str head, struct vb_str bytes, size_t first, size_t step)
{
    static char *body, *trailers;
    struct vb_body_reader reader;
    struct decoded decoded = {.body = {room_for(&body, bytes.n), 0}, .trailers = {room_for(&trailers, bytes.n), 0}};
    begin_good(&reader, kind, head);
    for (size_t end = VB_MIN(first, bytes.n); end > 0; end = VB_MIN(end + step, bytes.n))
        if (!read_up_to(&reader, bytes.p, end, &decoded) || end == bytes.n)
            break;
    return decoded;
}

static inline struct decoded decode_whole(enum kind kind, struct vb_str head, struct vb_str bytes)
{
    return decode(kind, head, bytes, bytes.n, 1);
}

/* A body that is complete, and ends before `surplus` bytes of the input. */
static inline void expect_body(const struct decoded *decoded, struct vb_str bytes, struct vb_str wanted, size_t surplus)
{
    if (decoded->r < 0 || !decoded->complete)
        fail_msg("%d, %scomplete: %s", decoded->r, decoded->complete ? "" : "not ", shown(bytes));
    if (!vb_str_eq(decoded->body, wanted))
        fail_msg("'%s' is not the body wanted", shown(decoded->body));
    assert_int_equal(decoded->consumed, bytes.n - surplus);
}

/* However it is split: this body, these trailers. */
static inline void check_at_every_split(struct vb_str bytes, struct vb_str wanted, struct vb_str trailers)
{
    for (size_t first = 1; first <= bytes.n; first++)
        for (size_t step = 1; step <= bytes.n; step += step < 3 ? 1 : bytes.n) {
            struct decoded decoded = decode(REQUEST, chunked_post, bytes, first, step);
            expect_body(&decoded, bytes, wanted, 0);
            if (!vb_str_eq(decoded.trailers, trailers))
                fail_msg("'%s' are not the trailers wanted", shown(decoded.trailers));
        }
}

struct chunked {
    struct vb_str bytes; /* a whole body */
    struct vb_str wanted;
};

#endif
