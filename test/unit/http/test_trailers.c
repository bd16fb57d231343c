/* Trailer sections: when they are whole, and which of their lines pass. */
#include "body.h"

#define LAST "5\r\nhello\r\n0\r\n"

static void trailers_pass_as_they_came_at_every_split(void **state)
{
    static const struct chunked cases[] = {
        {BYTES(LAST "X: a\r\nY:b\r\n\r\n"), BYTES("X: a\r\nY:b\r\n")},
        {BYTES(LAST "x:\r\nX:\t\xe4 \"a\"\t \r\nx:\r\n\r\n"), BYTES("x:\r\nX:\t\xe4 \"a\"\t \r\nx:\r\n")},
        {BYTES("0\r\ngrpc-status: 0\r\n\r\n"), BYTES("grpc-status: 0\r\n")},
        {BYTES("0;a=b;c=\"\\\"\"\r\nServer-Timing: a\r\n\r\n"), BYTES("Server-Timing: a\r\n")},
        {BYTES(LAST "Host: y\r\nX: a\r\n\r\n"), BYTES("X: a\r\n")},
        {BYTES(LAST "X: a\r\nHost: y\r\n\r\n"), BYTES("X: a\r\n")},
        {BYTES(LAST "X: a\r\nContent-Length: 99\r\nTransfer-Encoding: gzip\r\nY: b\r\nTE: x\r\nZ: c\r\n\r\n"),
         BYTES("X: a\r\nY: b\r\nZ: c\r\n")},
        {BYTES(LAST "Content-Length: 1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"), BYTES("")},
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++)
        check_at_every_split(cases[i].bytes, cases[i].bytes.p[0] == '5' ? VB_STR("hello") : VB_STR(""),
                             cases[i].wanted);
}

/* Does a trailer field of that name pass, as it is and in capital letters? Either way it does no harm. */
static bool name_passes(const char *name)
{
    bool passed[2];
    for (int capital = 0; capital < 2; capital++) {
        char bytes[256];
        int n = snprintf(bytes, sizeof(bytes), LAST "%s: 7\r\n\r\n", name);
        for (char *c = bytes + strlen(LAST); capital && *c != ':'; c++)
            *c = (char)(*c >= 'a' && *c <= 'z' ? *c - 0x20 : *c);
        struct decoded decoded = decode_whole(REQUEST, chunked_post, (struct vb_str){bytes, (size_t)n});
        expect_body(&decoded, (struct vb_str){bytes, (size_t)n}, VB_STR("hello"), 0);
        passed[capital] = decoded.trailers.n > 0;
        assert_int_equal(decoded.trailers.n, passed[capital] ? (size_t)n - strlen(LAST "\r\n") : 0);
    }
    assert_int_equal(passed[0], passed[1]);
    return passed[0];
}

/* RFC 9110 6.5.1 */
static void trailers_that_would_change_the_message_do_not_pass(void **state)
{
    static const char *const never[] = {
        "Transfer-Encoding",
        "Content-Length",
        "Connection",
        "Keep-Alive",
        "Proxy-Connection",
        "TE",
        "Trailer",
        "Upgrade",
        "Host",
        "Forwarded",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "X-Forwarded-Port",
        "X-Forwarded-",
        "Via",
        "Authorization",
        "Proxy-Authorization",
        "Proxy-Authenticate",
        "WWW-Authenticate",
        "Authentication-Info",
        "Proxy-Authentication-Info",
        "Cookie",
        "Set-Cookie",
        "Expect",
        "Max-Forwards",
        "Cache-Control",
        "Pragma",
        "Range",
        "If-Match",
        "If-None-Match",
        "If-Range",
        "If-Modified-Since",
        "If-Unmodified-Since",
        "Age",
        "Date",
        "Expires",
        "Location",
        "Retry-After",
        "Vary",
        "Warning",
        "Content-Encoding",
        "Content-Type",
        "Content-Range",
    };
    static const char *const others[] = {"X",        "Digest", "ETag",         "X-Forwarded",   "I",
                                         "If",       "Iff",    "Dat",          "Dates",         "Hos",
                                         "Trailers", "T-",     "X-Request-ID", "Content-Digest"};
    for (size_t i = 0; i < VB_ARRAY_SIZE(never); i++)
        if (name_passes(never[i]))
            fail_msg("%s passes", never[i]);
    for (size_t i = 0; i < VB_ARRAY_SIZE(others); i++)
        if (!name_passes(others[i]))
            fail_msg("%s does not pass", others[i]);
}

/* What the head's Connection field names is for one hop only, as a trailer too (RFC 9110 7.6.1). */
static void trailers_do_not_pass_when_connection_names_them(void **state)
{
    static const struct {
        struct vb_str head;
        bool passes;
    } cases[] = {
        {BYTES(POST "Connection: x\r\nTransfer-Encoding: chunked\r\n\r\n"), false},
        {BYTES(POST "Connection: close\r\nConnection: , keep-alive,X\r\nTransfer-Encoding: chunked\r\n\r\n"), false},
        {BYTES(POST "Connection: close, Keep-Alive, TE, Upgrade\r\nTransfer-Encoding: chunked\r\n\r\n"), true},
        {BYTES(POST "Trailer: x\r\nTransfer-Encoding: chunked\r\n\r\n"), true},
    };
    static const struct vb_str bytes = BYTES(LAST "X: a\r\n\r\n");
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        struct decoded decoded = decode_whole(REQUEST, cases[i].head, bytes);
        expect_body(&decoded, bytes, VB_STR("hello"), 0);
        if ((decoded.trailers.n > 0) != cases[i].passes)
            fail_msg("'%s', for: %s", shown(decoded.trailers), shown(cases[i].head));
    }
}

static void runs_of_trailers_beyond_the_spans_are_dropped(void **state)
{
    char bytes[1024], wanted[512];
    size_t n = (size_t)snprintf(bytes, sizeof(bytes), "%s", LAST), w = 0;
    for (unsigned i = 0; i < VB_TRAILER_SPANS + 10; i++) {
        n += (size_t)snprintf(bytes + n, sizeof(bytes) - n, "X: a\r\nHost: c\r\n");
        if (i < VB_TRAILER_SPANS)
            w += (size_t)snprintf(wanted + w, sizeof(wanted) - w, "X: a\r\n");
    }
    n += (size_t)snprintf(bytes + n, sizeof(bytes) - n, "\r\n");
    assert_true(n < sizeof(bytes) && w < sizeof(wanted));
    check_at_every_split(vb_str(bytes), VB_STR("hello"), vb_str(wanted));
}

/* The section stays with the caller until it is whole. */
static void a_trailer_section_is_waited_for(void **state)
{
    static const char bytes[] = LAST "X: a\r\n\r\nGET";
    const size_t section = strlen(LAST), whole = strlen(LAST "X: a\r\n\r\n");
    for (size_t n = section + 1; n < whole; n++) {
        struct vb_body_reader reader;
        struct vb_body_part part;
        begin_good(&reader, REQUEST, chunked_post);
        assert_int_equal(vb_body_read(&reader, bytes, n, &part), 0);
        assert_true(part.waiting && !part.complete);
        assert_int_equal(part.consumed, section);
        assert_int_equal(part.bytes, strlen("hello"));
        assert_int_equal(vb_body_eof(&reader), -ECONNRESET);
        for (size_t more = n; more < whole; more++) {
            assert_int_equal(vb_body_read(&reader, bytes + section, more - section, &part), 0);
            assert_true(part.waiting && !part.complete);
            assert_int_equal(part.consumed + part.n_spans + part.n_trailers, 0);
        }
        assert_int_equal(vb_body_read(&reader, bytes + section, strlen(bytes + section), &part), 0);
        assert_true(!part.waiting && part.complete);
        assert_int_equal(part.consumed, whole - section);
        assert_int_equal(part.n_trailers, 1);
        assert_ptr_equal(part.trailers[0].p, bytes + section);
        assert_int_equal(part.trailers[0].n, strlen("X: a\r\n"));
    }
}

/* What reading the last chunk and the n bytes of a trailer section comes to: at once, or byte by byte. */
static int read_section(const char *section, size_t n, const struct vb_head_limits *limits, bool at_once)
{
    struct parsed parsed = parse_good(REQUEST, chunked_post);
    struct vb_body_reader reader;
    struct vb_body_part part;
    int r = vb_body_begin(&reader, VB_REQUEST, parsed.head, limits);
    drop(&parsed);
    assert_int_equal(r, 0);
    assert_int_equal(vb_body_read(&reader, "0\r\n", 3, &part), 0);
    for (size_t i = at_once ? n : 1; i <= n; i++) {
        r = vb_body_read(&reader, section, i, &part);
        if (r < 0)
            return r;
        if (part.complete)
            return 1;
    }
    return 0;
}

static void a_trailer_section_is_limited_as_a_head_is(void **state)
{
    static const struct vb_head_limits limits = {.bytes = 20, .fields = 2};
    static const struct {
        const char *section;
        int wanted; /* 1: fine, 0: not whole */
    } cases[] = {
        {"X: aaaaaaaaaaaaa\r\n\r\n", 1},           /* 20 bytes */
        {"X: aaaaaaaaaaaaa\r\n\r\nGET / HTTP", 1}, /* what comes behind is not counted */
        {"X: aaaaaaaaaaaaaa\r\n\r\n", -EPROTO},
        {"X: aaaaaaaaaaaaaaaa", 0},
        {"X: aaaaaaaaaaaaaaaaa", -EPROTO},
        {"X: aaaaaaaaaaaaa\r\n\r", 0},
        {"X: aaaaaaaaaaaaa\r\nX:", -EPROTO},
        {"X:a\r\nY:a\r\n\r\n", 1},
        {"X:a\r\nY:a\r\nZ:\r\n", -EPROTO},
        {"Via:\r\nTE:\r\nTE:\r\n", -EPROTO}, /* those that do not pass count too */
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++)
        for (int at_once = 0; at_once < 2; at_once++) {
            int r = read_section(cases[i].section, strlen(cases[i].section), &limits, at_once);
            if (r != cases[i].wanted)
                fail_msg("%d, wanted %d, for: %s", r, cases[i].wanted, shown(vb_str(cases[i].section)));
        }
}

#define TEST(function) cmocka_unit_test(function)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(trailers_pass_as_they_came_at_every_split),
        TEST(trailers_that_would_change_the_message_do_not_pass),
        TEST(trailers_do_not_pass_when_connection_names_them),
        TEST(runs_of_trailers_beyond_the_spans_are_dropped),
        TEST(a_trailer_section_is_waited_for),
        TEST(a_trailer_section_is_limited_as_a_head_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
