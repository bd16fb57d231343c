/* Bodies: where they end, which bytes they hold, and that llhttp and our own scanner never read a head in two ways. */
#include "body.h"

/* ---- two readings of a head -------------------------------------------------------------------------------------- */

struct agreed {
    struct vb_str head;
    bool complete; /* there is no body */
};

static void check_agreement(enum kind kind, const struct agreed *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct vb_body_reader reader;
        begin_good(&reader, kind, cases[i].head);
        if (reader.complete != cases[i].complete)
            fail_msg("%scomplete: %s", reader.complete ? "" : "not ", shown(cases[i].head));
    }
}

static void llhttp_agrees_on_requests(void **state)
{
    static const struct agreed cases[] = {
        {BYTES("GET / HTTP/1.1\r\n" HOST END), true},
        {BYTES("GET / HTTP/1.0\r\n" END), true},
        {BYTES("\r\n\r\nGET / HTTP/1.1\r\n" HOST END), true},
        {BYTES(POST END), true},
        {BYTES(POST "Content-Length: 0\r\n" END), true},
        {BYTES(POST "Content-Length: 5\r\n" END), false},
        {BYTES(POST "Content-Length: 005\r\n" END), false},
        {BYTES(POST "Content-Length: 9223372036854775807\r\n" END), false},
        {BYTES("POST / HTTP/1.0\r\nContent-Length: 5\r\n" END), false},
        {BYTES(POST "Transfer-Encoding: Chunked\r\n" END), false},
        {BYTES("GET / HTTP/1.1\r\n" HOST "Content-Length: 5\r\n" END), false},
        {BYTES("HEAD / HTTP/1.1\r\n" HOST "Content-Length: 5\r\n" END), false},
        {BYTES("GET / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n" END), false},
        /* methods that llhttp lacks, and such as mean something special to it */
        {BYTES("FOOBAR / HTTP/1.1\r\n" HOST END), true},
        {BYTES("FOOBAR / HTTP/1.1\r\n" HOST "Content-Length: 5\r\n" END), false},
        {BYTES("G / HTTP/1.1\r\n" HOST END), true},
        {BYTES("get / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n" END), false},
        {BYTES("PRI / HTTP/1.1\r\n" HOST END), true},
        {BYTES("SOURCE / HTTP/1.1\r\n" HOST END), true},
        {BYTES("ANNOUNCE / HTTP/1.1\r\n" HOST END), true},
        /* minor versions to come */
        {BYTES("GET / HTTP/1.2\r\n" HOST END), true},
        {BYTES("POST / HTTP/1.9\r\nContent-Length: 5\r\n" HOST END), false},
        {BYTES("FOOBAR / HTTP/1.2\r\n" HOST "Transfer-Encoding: chunked\t\r\n" END), false},
        /* white space around values */
        {BYTES(POST "Content-Length:\t 5 \t\r\n" END), false},
        {BYTES(POST "Content-Length:0\t\r\n" END), true},
        {BYTES(POST "Transfer-Encoding: \tchunked\t \r\n" END), false},
        {BYTES(POST "X:\t a\t \r\nConnection:\tclose\t, \tkeep-alive\t\r\nY: \r\n" END), true},
        /* targets */
        {BYTES("OPTIONS * HTTP/1.1\r\n" HOST END), true},
        {BYTES("OPTIONS http://x HTTP/1.1\r\n" HOST END), true},
        {BYTES("GET http://x.example:80/a?b HTTP/1.1\r\nHost: x.example:80\r\n" END), true},
        {BYTES("GET HTTP://[::1]:80/ HTTP/1.1\r\nHost: [::1]:80\r\n" END), true},
        {BYTES("GET http://a%2Db!$&'()*+;=_~/ HTTP/1.1\r\nHost: a%2Db!$&'()*+;=_~\r\n" END), true},
        {BYTES("GET http://x?a HTTP/1.1\r\n" HOST END), true},
        {BYTES("OPTIONS http://x?a HTTP/1.1\r\n" HOST END), true},
        {BYTES("GET /a?b?c=%00&d[]=\"<>\\^`{|} HTTP/1.1\r\n" HOST END), true},
        /* an upgrade is not offered to the backend, so what follows is still HTTP */
        {BYTES("GET / HTTP/1.1\r\n" HOST "Connection: Upgrade\r\nUpgrade: websocket\r\n" END), true},
        {BYTES(POST "Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n" END), false},
        /* fields */
        {BYTES("GET / HTTP/1.1\r\n" HOST "X:\r\nY: \xe4\t\"\r\nConnection: , a,,close\r\nProxy-Connection: b\r\n" END),
         true},
    };
    check_agreement(REQUEST, cases, VB_ARRAY_SIZE(cases));
}

static void llhttp_agrees_on_responses(void **state)
{
    static const struct agreed cases[] = {
        {BYTES(OK END), false},
        {BYTES("HTTP/1.0 200 OK\r\n" END), false},
        {BYTES("HTTP/1.1 200\r\n" END), false},
        {BYTES("HTTP/1.1 200 \r\n" END), false},
        {BYTES("HTTP/1.1 999 x\xe4\r\n" END), false},
        {BYTES("HTTP/1.2 200 OK\r\n" END), false},
        {BYTES("HTTP/1.9 200\r\nContent-Length: 0\r\n" END), true},
        {BYTES("HTTP/1.9 204 x\r\n" END), true},
        {BYTES(OK "Content-Length:\t5\t\r\n" END), false},
        {BYTES(OK "Content-Length: 5\r\n" END), false},
        {BYTES(OK "Content-Length: 0\r\n" END), true},
        {BYTES(OK "Transfer-Encoding: chunked\r\n" END), false},
        {BYTES(OK "Connection: close\r\n" END), false},
        {BYTES("HTTP/1.1 100 Continue\r\n" END), true},
        {BYTES("HTTP/1.1 103 x\r\nContent-Length: 5\r\n" END), true},
        {BYTES("HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: a\r\n" END), true},
        {BYTES("HTTP/1.1 204 x\r\n" END), true},
        {BYTES("HTTP/1.1 204 x\r\nContent-Length: 5\r\n" END), true},
        {BYTES("HTTP/1.1 204 x\r\nTransfer-Encoding: chunked\r\n" END), true},
        {BYTES("HTTP/1.1 304 x\r\nContent-Length: 5\r\n" END), true},
        {BYTES("HTTP/1.1 426 x\r\nConnection: upgrade\r\nUpgrade: a\r\nContent-Length: 5\r\n" END), false},
    };
    static const struct agreed to_head[] = {
        {BYTES(OK END), true},
        {BYTES(OK "Content-Length: 5\r\n" END), true},
        {BYTES(OK "Transfer-Encoding: chunked\r\n" END), true},
        {BYTES("HTTP/1.0 200 OK\r\nConnection: close\r\n" END), true},
    };
    check_agreement(RESPONSE, cases, VB_ARRAY_SIZE(cases));
    check_agreement(RESPONSE_TO_HEAD, to_head, VB_ARRAY_SIZE(to_head));
}

/* Whatever our scanner might get wrong about the framing: nobody acts on a head that llhttp reads otherwise. */
static void a_head_of_two_readings_is_refused(void **state)
{
    static const struct vb_str heads[] = {BYTES(POST END), BYTES(POST "Content-Length: 5\r\n" END), BYTES(CHUNKED),
                                          BYTES(POST "Content-Length: 0\r\n" END)};
    static const struct {
        enum vb_framing framing;
        uint64_t length;
    } readings[] = {{VB_FRAMING_NONE, 0},   {VB_FRAMING_LENGTH, 0},  {VB_FRAMING_LENGTH, 5},
                    {VB_FRAMING_LENGTH, 6}, {VB_FRAMING_CHUNKED, 0}, {VB_FRAMING_CLOSE, 0}};
    for (size_t i = 0; i < VB_ARRAY_SIZE(heads); i++) {
        struct parsed parsed = parse_good(REQUEST, heads[i]);
        enum vb_framing framing = parsed.head->framing;
        uint64_t length = parsed.head->length;
        for (size_t k = 0; k < VB_ARRAY_SIZE(readings); k++) {
            struct vb_body_reader reader;
            bool same = readings[k].framing == framing && readings[k].length == length;
            parsed.head->framing = readings[k].framing;
            parsed.head->length = readings[k].length;
            assert_int_equal(vb_body_begin(&reader, VB_REQUEST, parsed.head, &usual), same ? 0 : -EPROTO);
        }
        drop(&parsed);
    }
}

/* A head that ends elsewhere for llhttp: what we would forward as body, it takes for a field, or the reverse. */
static void a_head_of_two_lengths_is_refused(void **state)
{
    static const struct vb_str bytes = BYTES("GET / HTTP/1.1\r\n" HOST "\r\nGET /b HTTP/1.1\r\n\r\n");
    struct vb_body_reader reader;
    struct parsed parsed = parse_good(REQUEST, bytes);
    size_t n = parsed.head->raw.n;
    parsed.head->raw.n = bytes.n;
    assert_int_equal(vb_body_begin(&reader, VB_REQUEST, parsed.head, &usual), -EPROTO);
    parsed.head->raw.n = n - 1;
    assert_int_equal(vb_body_begin(&reader, VB_REQUEST, parsed.head, &usual), -EPROTO);
    parsed.head->raw.n = n;
    assert_int_equal(vb_body_begin(&reader, VB_REQUEST, parsed.head, &usual), 0);
    drop(&parsed);

    static const struct vb_str with_body = BYTES(POST "Content-Length: 5\r\n\r\nhello");
    parsed = parse_good(REQUEST, with_body);
    parsed.head->raw.n = with_body.n;
    assert_int_equal(vb_body_begin(&reader, VB_REQUEST, parsed.head, &usual), -EPROTO);
    drop(&parsed);
}

/* Nor on a body: whatever our decoder might get wrong, llhttp has counted other bytes or sees another end. */
static void a_body_of_two_readings_is_refused(void **state)
{
    static const struct vb_str sized = BYTES(POST "Content-Length: 5\r\n" END),
                               bytes = BYTES("5\r\nhello\r\n0\r\n\r\n");
    struct vb_body_reader reader;
    struct vb_body_part part;
    begin_good(&reader, REQUEST, chunked_post);
    reader.framing = VB_FRAMING_CLOSE;
    reader.left = UINT64_MAX;
    assert_int_equal(vb_body_read(&reader, bytes.p, bytes.n, &part), -EPROTO);
    for (unsigned wrong = 4; wrong <= 6; wrong++) {
        begin_good(&reader, REQUEST, chunked_post);
        reader.framing = VB_FRAMING_LENGTH;
        reader.left = wrong;
        assert_int_equal(vb_body_read(&reader, bytes.p, bytes.n, &part), -EPROTO);

        begin_good(&reader, REQUEST, sized);
        reader.left = wrong;
        assert_int_equal(vb_body_read(&reader, "helloG", 6, &part), wrong == 5 ? 0 : -EPROTO);

        begin_good(&reader, REQUEST, chunked_post);
        assert_int_equal(vb_body_read(&reader, "5\r\n", 3, &part), 0);
        reader.chunk.left = wrong;
        assert_int_equal(vb_body_read(&reader, "hello\r\n", wrong + 2, &part), wrong == 5 ? 0 : -EPROTO);
    }
}

/* ---- Content-Length ---------------------------------------------------------------------------------------------- */

static void a_length_is_read_to_its_last_byte_at_every_split(void **state)
{
    static const struct vb_str head = BYTES(POST "Content-Length: 5\r\n" END);
    static const struct vb_str bytes = BYTES("h\0l\no"
                                             "GET / HTTP/1.1\r\n");
    static const struct vb_str wanted = BYTES("h\0l\no");
    for (size_t first = 1; first <= bytes.n; first++) {
        struct decoded decoded = decode(REQUEST, head, bytes, first, bytes.n);
        expect_body(&decoded, bytes, wanted, bytes.n - wanted.n);
        decoded = decode(REQUEST, head, bytes, first, 1);
        expect_body(&decoded, bytes, wanted, bytes.n - wanted.n);
    }
}

static void a_length_is_one_span_of_the_input(void **state)
{
    static const struct vb_str head = BYTES(OK "Content-Length: 100000\r\n" END);
    static char bytes[60000];
    struct vb_body_reader reader;
    struct vb_body_part part;
    begin_good(&reader, RESPONSE, head);
    assert_int_equal(vb_body_read(&reader, bytes, sizeof(bytes), &part), 0);
    assert_int_equal(part.n_spans, 1);
    assert_ptr_equal(part.spans[0].iov_base, bytes);
    assert_int_equal(part.bytes, sizeof(bytes));
    assert_int_equal(part.consumed, sizeof(bytes));
    assert_false(part.complete);
    assert_int_equal(vb_body_read(&reader, bytes, sizeof(bytes), &part), 0);
    assert_int_equal(part.bytes, 40000);
    assert_int_equal(part.consumed, 40000);
    assert_true(part.complete);
}

/* A head may have to leave before its body comes: then nothing is read, and nothing is broken. */
static void nothing_may_be_read(void **state)
{
    static const struct vb_str heads[] = {BYTES(POST "Content-Length: 5\r\n" END), BYTES(CHUNKED)};
    for (size_t i = 0; i < VB_ARRAY_SIZE(heads); i++) {
        struct vb_body_reader reader;
        struct vb_body_part part;
        begin_good(&reader, REQUEST, heads[i]);
        assert_int_equal(vb_body_read(&reader, "", 0, &part), 0);
        assert_int_equal(part.n_spans + part.bytes + part.consumed, 0);
        assert_false(part.complete);
    }
}

/* ---- chunks ------------------------------------------------------------------------------------------------------ */

/* RFC 9112 7.1 */
static void chunks_that_are_fine_at_every_split(void **state)
{
    static const struct chunked cases[] = {
        {BYTES("0\r\n\r\n"), BYTES("")},
        {BYTES("5\r\nhello\r\n0\r\n\r\n"), BYTES("hello")},
        {BYTES("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"), BYTES("hello world")},
        {BYTES("1\r\nh\r\n1\r\ne\r\n0003\r\nllo\r\n000\r\n\r\n"), BYTES("hello")},
        {BYTES("A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n"), BYTES("01234567890123456789")},
        {BYTES("0000000000000005\r\nhello\r\n0000000000000000\r\n\r\n"), BYTES("hello")},
        {BYTES("7\r\n0\r\n\r\nab\r\n2\r\n\r\n\r\n1\r\n\n\r\n0\r\n\r\n"), BYTES("0\r\n\r\nab\r\n\n")},
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++)
        check_at_every_split(cases[i].bytes, cases[i].wanted, VB_STR(""));
}

/* RFC 9112 7.1.1: all that is valid is read over, also where one llhttp or the other would refuse it. */
static void extensions_are_read_over_at_every_split(void **state)
{
    static const struct vb_str extensions[] = {
        BYTES(";a"),
        BYTES(";a=b"),
        BYTES(";a=b;c"),
        BYTES(";a=b;c=d;e"),
        BYTES(";a=\"\""),
        BYTES(";a=\"b;c\""),
        BYTES(";a=\"b=\";c=\"d\""),
        BYTES(";a=\"b\\\"c\""),
        BYTES(";a=b;c=\"x;\\\"y\""),
        BYTES(";a=\"\\\\\""),
        BYTES(";a=\"\\\t\\ \\\xe4\""),
        BYTES(";a=\"\t \xe4\xff,;=(\""),
        BYTES(";!#$%&'*+-.^_`|~0=!#$%&'*+-.^_`|~0"),
        BYTES(" ;a"),
        BYTES("\t ; \ta"),
        BYTES("; a \t=\t b \t; c ;d\t= \"e\" ;f"),
        BYTES(";5=5;0"),
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(extensions); i++) {
        char bytes[256];
        int n = snprintf(bytes, sizeof(bytes), "5%s\r\nhello\r\n0%s\r\n\r\n", extensions[i].p, extensions[i].p);
        check_at_every_split((struct vb_str){bytes, (size_t)n}, VB_STR("hello"), VB_STR(""));
    }
}

static const struct vb_str refused_chunks[] = {
    BYTES("0x5\r\nhello\r\n0\r\n\r\n"),
    BYTES("+5\r\nhello\r\n0\r\n\r\n"),
    BYTES("-5\r\nhello\r\n0\r\n\r\n"),
    BYTES("5_\r\nhello\r\n0\r\n\r\n"),
    BYTES("5zz\r\nhello\r\n0\r\n\r\n"),
    BYTES(" 5\r\nhello\r\n0\r\n\r\n"),
    BYTES("\t5\r\nhello\r\n0\r\n\r\n"),
    BYTES("\r\nhello\r\n0\r\n\r\n"),
    BYTES(";a\r\nhello\r\n0\r\n\r\n"),
    BYTES("g\r\nhello\r\n0\r\n\r\n"),
    BYTES("\xb2\r\nhello\r\n0\r\n\r\n"),
    BYTES("8000000000000000\r\nhello\r\n0\r\n\r\n"), /* 2^63 */
    BYTES("ffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
    BYTES("00000000000000005\r\nhello\r\n0\r\n\r\n"), /* 17 digits */
    BYTES("5\r\nhello\r\n00000000000000000\r\n\r\n"),
    BYTES("10000000000000005\r\nhello\r\n0\r\n\r\n"), /* 2^64 + 5 */
    BYTES("fffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
    /* line ends */
    BYTES("5\nhello\r\n0\r\n\r\n"),
    BYTES("5\rhello\r\n0\r\n\r\n"),
    BYTES("5\r\r\nhello\r\n0\r\n\r\n"),
    BYTES("5\r\nhello\n0\r\n\r\n"),
    BYTES("5\r\nhello\r0\r\n\r\n"),
    BYTES("5\r\nhello0\r\n\r\n"),
    BYTES("5\r\nhello\r\n\r\n0\r\n\r\n"),
    BYTES("5\r\nhello\r\n0\n\r\n"),
    BYTES("5\r\nhello\r\n0\r\n\n"),
    BYTES("5\r\nhello\r\n0\r\n\r\r\n"),
    BYTES("5\r\nhello\r\n0\r\nX: a\n\r\n"),
    BYTES("5\r\nhello\r\n0\r\nX: a\r\n\n"),
    BYTES("5\r\nhello\r\n0;a\r\n\n"),
    /* more, or less, than the size says */
    BYTES("5\r\nhello world\r\n0\r\n\r\n"),
    BYTES("6\r\nhello\r\n0\r\n\r\n"),
    BYTES("2\r\nhello\r\n0\r\n\r\n"),
    /* extensions */
    BYTES("5;a\nhello\r\n0\r\n\r\n"),
    BYTES("5;a\n\r\nhello\r\n0\r\n\r\n"),
    BYTES("5;a\rb\r\nhello\r\n0\r\n\r\n"),
    BYTES("5;a\0\r\nhello\r\n0\r\n\r\n"),
    BYTES("5;a=\"b\r\nhello\r\n0\r\n\r\n"),
    BYTES("5;a=\"b\nc\"\r\nhello\r\n0\r\n\r\n"),
    BYTES("5 \r\nhello\r\n0\r\n\r\n"),
    BYTES("5;\r\nhello\r\n0\r\n\r\n"),
    BYTES("5; \r\nhello\r\n0\r\n\r\n"),
    BYTES("5;;a\r\nhello\r\n0\r\n\r\n"),
    BYTES("5;a;\r\nhello\r\n0\r\n\r\n"),
    BYTES("5;a \r\nhello\r\n0\r\n\r\n"),
    BYTES("5;a b\r\nhello\r\n0\r\n\r\n"),
    BYTES("5;a=\r\nhello\r\n0\r\n\r\n"),
    BYTES("5;a= \r\nhello\r\n0\r\n\r\n"),
    BYTES("5;a=;b\r\nhello\r\n0\r\n\r\n"),
    BYTES("5;a==b\r\nhello\r\n0\r\n\r\n"),
    BYTES("5;a=b=c\r\nhello\r\n0\r\n\r\n"),
    BYTES("5;a=b \r\nhello\r\n0\r\n\r\n"),
    BYTES("5;a=b c\r\nhello\r\n0\r\n\r\n"),
    BYTES("5;=b\r\nhello\r\n0\r\n\r\n"),
    BYTES("5;\"a\"\r\nhello\r\n0\r\n\r\n"),
    BYTES("5;a=\"b\"c\r\nhello\r\n0\r\n\r\n"),
    BYTES("5;a=b\"c\"\r\nhello\r\n0\r\n\r\n"),
    BYTES("5;a=\"b\\\"\r\nhello\r\n0\r\n\r\n"),
    BYTES("5;a=\"b\\\nc\"\r\nhello\r\n0\r\n\r\n"),
    BYTES("5;a=\"b\\\x7f\"\r\nhello\r\n0\r\n\r\n"),
    BYTES("5;a=\"b\x7f\"\r\nhello\r\n0\r\n\r\n"),
    BYTES("5;a=\"b\0\"\r\nhello\r\n0\r\n\r\n"),
    BYTES("5;a=\xe4\r\nhello\r\n0\r\n\r\n"),
    BYTES("5;\xe4\r\nhello\r\n0\r\n\r\n"),
    BYTES("5,a\r\nhello\r\n0\r\n\r\n"),
    BYTES("5\x0b;a\r\nhello\r\n0\r\n\r\n"),
    BYTES("5\r\nhello\r\n0;a=b\n\r\n"),
    /* trailers */
    BYTES("5\r\nhello\r\n0\r\nnonsense\r\n\r\n"),
    BYTES("5\r\nhello\r\n0\r\nX : a\r\n\r\n"),
    BYTES("5\r\nhello\r\n0\r\n X: a\r\n\r\n"),
    BYTES("5\r\nhello\r\n0\r\nX: a\0\r\n\r\n"),
    BYTES("5\r\nhello\r\n0\r\nX: a\x7f\r\n\r\n"),
    BYTES("5\r\nhello\r\n0\r\n: a\r\n\r\n"),
    BYTES("5\r\nhello\r\n0\r\nX: a\r\n b\r\n\r\n"), /* obs-fold */
    BYTES("5\r\nhello\r\n0\r\nX: a\r\n\r\r\n"),
    BYTES("5\r\nhello\r\n0\r\nX: a\rb\r\n\r\n"),
    BYTES("5\r\nhello\r\n0\r\nX\xe4: a\r\n\r\n"),
    BYTES("5\r\nhello\r\n0\r\nHost : a\r\n\r\n"), /* also in a line that would not pass */
    BYTES("5\r\nhello\r\n0\r\nCookie: a\0\r\n\r\n"),
};

/* Broken at the same place whether it comes whole or byte by byte; never a complete body. */
static void chunks_that_are_refused_at_every_split(void **state)
{
    for (size_t i = 0; i < VB_ARRAY_SIZE(refused_chunks); i++)
        for (size_t first = 1; first <= refused_chunks[i].n; first++) {
            struct decoded decoded =
                decode(REQUEST, chunked_post, refused_chunks[i], first, first % 2 == 0 ? refused_chunks[i].n : 1);
            if (decoded.r != -EPROTO || decoded.complete)
                fail_msg("%d with a split at %zu: %s", decoded.r, first, shown(refused_chunks[i]));
        }
}

static void pipelined_bytes_are_not_consumed(void **state)
{
    static const struct chunked cases[] = {
        {BYTES("5\r\nhello\r\n0\r\n\r\n"), BYTES("GET / HTTP/1.1\r\n\r\n")},
        {BYTES("5\r\nhello\r\n0\r\n\r\n"), BYTES("\r\n")},
        {BYTES("5\r\nhello\r\n0\r\n\r\n"), BYTES("\n")},
        {BYTES("5\r\nhello\r\n0\r\n\r\n"), BYTES("\0")},
        {BYTES("5\r\nhello\r\n0\r\nX: a\r\n\r\n"), BYTES("X: b\r\n\r\n")},
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        char bytes[256];
        size_t n = cases[i].bytes.n + cases[i].wanted.n;
        memcpy(bytes, cases[i].bytes.p, cases[i].bytes.n);
        memcpy(bytes + cases[i].bytes.n, cases[i].wanted.p, cases[i].wanted.n);
        for (size_t first = 1; first <= n; first++) {
            struct decoded decoded = decode(REQUEST, chunked_post, (struct vb_str){bytes, n}, first, n);
            expect_body(&decoded, (struct vb_str){bytes, n}, VB_STR("hello"), cases[i].wanted.n);
        }
    }
}

/* `count` chunks of one byte, and the last one. The caller frees it. */
static struct vb_str one_byte_chunks(unsigned count)
{
    size_t n = 0, size = (size_t)count * 6 + 5;
    char *bytes = malloc(size);
    assert_non_null(bytes);
    for (unsigned i = 0; i < count; i++, n += 6) {
        memcpy(bytes + n, "1\r\n?\r\n", 6);
        bytes[n + 3] = (char)('a' + i % 26);
    }
    memcpy(bytes + n, "0\r\n\r\n", 5);
    return (struct vb_str){bytes, n + 5};
}

/* More chunks than spans: what is left is read by the next call. It is honest use, however long it goes on. */
static void one_byte_chunks_beyond_the_spans(void **state)
{
    static const unsigned counts[] = {VB_BODY_SPANS - 1, VB_BODY_SPANS, VB_BODY_SPANS + 1, 3 * VB_BODY_SPANS, 50000};
    for (size_t i = 0; i < VB_ARRAY_SIZE(counts); i++) {
        struct vb_str bytes = one_byte_chunks(counts[i]);
        for (size_t first = 1; first <= VB_MIN(bytes.n, 700); first += 7) {
            struct decoded decoded = decode(REQUEST, chunked_post, bytes, first, 4096);
            assert_int_equal(decoded.r, 0);
            assert_true(decoded.complete);
            assert_int_equal(decoded.consumed, bytes.n);
            assert_int_equal(decoded.body.n, counts[i]);
            for (size_t k = 0; k < decoded.body.n; k++)
                assert_int_equal(decoded.body.p[k], 'a' + k % 26);
        }
        free((char *)bytes.p);
    }
}

static void one_chunk_is_one_span(void **state)
{
    static const char bytes[] = "5\r\nhello\r\n";
    struct vb_body_reader reader;
    struct vb_body_part part;
    begin_good(&reader, REQUEST, chunked_post);
    assert_int_equal(vb_body_read(&reader, bytes, sizeof(bytes) - 1, &part), 0);
    assert_int_equal(part.n_spans, 1);
    assert_ptr_equal(part.spans[0].iov_base, bytes + 3);
    assert_int_equal(part.spans[0].iov_len, 5);
}

/* How many bytes of an endless `line` are read behind `start` until it is refused. */
static size_t bytes_until_refused(const char *start, const char *line)
{
    static char bytes[1 << 18];
    struct vb_body_reader reader;
    struct decoded decoded = {.r = 0};
    char body[sizeof(bytes)];
    size_t n = strlen(start);
    decoded.body.p = body;
    memcpy(bytes, start, n);
    begin_good(&reader, REQUEST, chunked_post);
    while (n + strlen(line) <= sizeof(bytes) && read_up_to(&reader, bytes, n, &decoded)) {
        memcpy(bytes + n, line, strlen(line));
        n += strlen(line);
    }
    assert_false(decoded.complete);
    return n - strlen(start);
}

/* What is not passed on is bounded while it arrives (CVE-2023-39326 is what becomes of it elsewhere). */
static void extensions_and_trailers_are_bounded(void **state)
{
    static const char *const cases[][2] = {
        {"5;", "aaaaaaaaaa"},
        {"5;a=\"", "aaaaaaaaaa"},
        {"5\r\nhello\r\n0\r\nX: ", "aaaaaaaaaa"},
        {"5\r\nhello\r\n0\r\n", "aaaaaaaaaa"},
        {"0;", "aaaaaaaaaa"},
        {"", "1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nx\r\n"},
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        size_t n = bytes_until_refused(cases[i][0], cases[i][1]);
        if (n < 8000 || n > 100000)
            fail_msg("%zu bytes of '%s' were read", n, cases[i][1]);
    }
    assert_int_equal(bytes_until_refused("", "0000000000"), 20);
    assert_int_equal(bytes_until_refused("0\r\n", "X: aaaaa\r\n"), 10 * (usual.fields + 1));
}

/* ---- the peer closes --------------------------------------------------------------------------------------------- */

static void a_close_delimited_body_ends_with_the_connection(void **state)
{
    static const struct vb_str head = BYTES(OK END);
    static const char bytes[] = "0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
    struct vb_body_reader reader;
    struct vb_body_part part;
    begin_good(&reader, RESPONSE, head);
    assert_int_equal(vb_body_eof(&reader), 0); /* an empty body */
    for (int i = 0; i < 3; i++) {
        assert_int_equal(vb_body_read(&reader, bytes, sizeof(bytes), &part), 0);
        assert_int_equal(part.n_spans, 1);
        assert_ptr_equal(part.spans[0].iov_base, bytes);
        assert_int_equal(part.bytes, sizeof(bytes));
        assert_false(part.complete);
    }
    assert_int_equal(vb_body_eof(&reader), 0);
}

/* RFC 9112 8: an incomplete message, at whatever byte it was cut. */
static void a_cut_body_is_no_end(void **state)
{
    static const struct chunked cases[] = {
        {BYTES(POST "Content-Length: 5\r\n" END), BYTES("hello")},
        {BYTES(CHUNKED), BYTES("5;a=\"\\b\"\r\nhello\r\n0\r\nX: a\r\n\r\n")},
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++)
        for (size_t n = 0; n < cases[i].wanted.n; n++) {
            struct vb_body_reader reader;
            struct vb_body_part part;
            begin_good(&reader, REQUEST, cases[i].bytes);
            assert_int_equal(vb_body_read(&reader, cases[i].wanted.p, n, &part), 0);
            assert_false(part.complete);
            assert_int_equal(vb_body_eof(&reader), -ECONNRESET);
        }
}

/* One reader serves one message after another. */
static void a_reader_can_begin_again(void **state)
{
    static const struct vb_str length = BYTES(POST "Content-Length: 5\r\n" END), none = BYTES(POST END);
    struct vb_body_reader reader;
    struct vb_body_part part;
    begin_good(&reader, REQUEST, chunked_post);
    assert_int_equal(vb_body_read(&reader, "5;\n", 3, &part), -EPROTO);
    begin_good(&reader, REQUEST, length);
    assert_int_equal(vb_body_read(&reader, "\nello", 5, &part), 0);
    assert_true(part.complete);
    begin_good(&reader, REQUEST, none);
    assert_true(reader.complete);
    begin_good(&reader, REQUEST, chunked_post);
    assert_int_equal(vb_body_read(&reader, "0\r\n\r\n", 5, &part), 0);
    assert_true(part.complete);
}

#define TEST(function) cmocka_unit_test(function)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(llhttp_agrees_on_requests),
        TEST(llhttp_agrees_on_responses),
        TEST(a_head_of_two_readings_is_refused),
        TEST(a_head_of_two_lengths_is_refused),
        TEST(a_body_of_two_readings_is_refused),
        TEST(a_length_is_read_to_its_last_byte_at_every_split),
        TEST(a_length_is_one_span_of_the_input),
        TEST(nothing_may_be_read),
        TEST(chunks_that_are_fine_at_every_split),
        TEST(extensions_are_read_over_at_every_split),
        TEST(chunks_that_are_refused_at_every_split),
        TEST(pipelined_bytes_are_not_consumed),
        TEST(one_byte_chunks_beyond_the_spans),
        TEST(one_chunk_is_one_span),
        TEST(extensions_and_trailers_are_bounded),
        TEST(a_close_delimited_body_ends_with_the_connection),
        TEST(a_cut_body_is_no_end),
        TEST(a_reader_can_begin_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
