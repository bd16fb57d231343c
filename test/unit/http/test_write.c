/* The heads that leave, byte for byte: what is removed, replaced, added, and what passes as it came. */
#include "fixture.h"

#define HOST "Host: x\r\n"
#define GET  "GET / HTTP/1.1\r\n" HOST
#define OK   "HTTP/1.1 200 OK\r\n"
#define END  "\r\n"

/* Everything off. */
static const struct vb_forward_request plain = {.fallback_host = BYTES("10.0.0.1:80")};
/* Everything on. */
static const struct vb_forward_request full = {
    .fallback_host = BYTES("10.0.0.1:80"),
    .via = BYTES("vb"),
    .client = {.x = true, .ip = BYTES("1.2.3.4")},
    .id_field = BYTES("X-Request-ID"),
    .id = BYTES("abc"),
};
#define FORWARDED      "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: x\r\n"
#define VIA_AND_ID     "Via: 1.1 vb\r\nX-Request-ID: abc\r\n"
#define VIA_AND_ID_1_0 "Via: 1.0 vb\r\nX-Request-ID: abc\r\n"

/* In exactly the room that is asked for: a byte behind it is seen by the sanitizer. */
static char *write_request(const struct vb_head *head, const struct vb_forward_request *how, size_t *ret_n)
{
    char *to = malloc(vb_h1_request_room(head, how));
    assert_non_null(to);
    *ret_n = vb_h1_write_request(to, head, how);
    assert_true(*ret_n <= vb_h1_request_room(head, how));
    return to;
}

static char *write_response(const struct vb_head *head, const struct vb_forward_response *how, size_t *ret_n)
{
    char *to = malloc(vb_h1_response_room(head, how));
    assert_non_null(to);
    *ret_n = vb_h1_write_response(to, head, how);
    assert_true(*ret_n <= vb_h1_response_room(head, how));
    return to;
}

static void check_written(char *written, size_t n, struct vb_str wanted)
{
    if (n != wanted.n || memcmp(written, wanted.p, n) != 0) {
        char text[2048];
        snprintf(text, sizeof(text), "%s", shown((struct vb_str){written, n}));
        fail_msg("%s\nwanted: %s", text, shown(wanted));
    }
    free(written);
}

struct request {
    struct vb_str came, wanted;
};

static void check_requests(const struct vb_forward_request *how, const struct request *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct parsed parsed = parse_good(REQUEST, cases[i].came);
        size_t written;
        char *to = write_request(parsed.head, how, &written);
        check_written(to, written, cases[i].wanted);
        drop(&parsed);
    }
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

static void what_concerns_nobody_passes_as_it_came(void **state)
{
    static const struct request cases[] = {
        {BYTES(GET END), BYTES(GET END)},
        {BYTES(GET "X:1\r\nx: \t 2 \r\nY:\r\nX: \xe4\t\"3\"\r\n" END),
         BYTES(GET "X:1\r\nx: \t 2 \r\nY:\r\nX: \xe4\t\"3\"\r\n" END)},
        {BYTES("GET / HTTP/1.1\r\nA: 1\r\nhOSt:  x \r\nB: 2\r\n" END),
         BYTES(GET "A: 1\r\nB: 2\r\n" END)}, /* Host is made anew, and comes first (RFC 9110 7.2) */
        {BYTES("FOO /?a=%00 HTTP/1.1\r\n" HOST END), BYTES("FOO /?a=%00 HTTP/1.1\r\n" HOST END)},
        {BYTES("OPTIONS * HTTP/1.1\r\n" HOST END), BYTES("OPTIONS * HTTP/1.1\r\n" HOST END)},
        {BYTES(GET "Authorization: a\r\nCookie: b\r\nTrailer: c\r\n" END),
         BYTES(GET "Authorization: a\r\nCookie: b\r\nTrailer: c\r\n" END)},
        {BYTES(GET "Expect: 100-continue\r\nContent-Length: 1\r\n" END),
         BYTES(GET "Expect: 100-continue\r\nContent-Length: 1\r\n" END)},
        {BYTES("\r\n\r\n" GET END), BYTES(GET END)},
        {BYTES("GET / HTTP/1.0\r\n" HOST END), BYTES(GET END)},
    };
    check_requests(&plain, cases, VB_ARRAY_SIZE(cases));
}

/* RFC 9110 7.6.1 */
static void what_is_for_one_hop_is_removed(void **state)
{
    static const struct request cases[] = {
        {BYTES(GET "Connection: close\r\n" END), BYTES(GET END)},
        {BYTES(GET "A: 1\r\nCONNECTION: keep-alive\r\nKeep-Alive: 5\r\nB: 2\r\nProxy-Connection: close\r\nTE: gzip\r\n"
                   "Upgrade: websocket\r\nC: 3\r\n" END),
         BYTES(GET "A: 1\r\nB: 2\r\nC: 3\r\n" END)},
        {BYTES(GET "X-A: 1\r\nConnection: x-a, X-B ,,x-d\r\nx-b: 2\r\nX-C: 3\r\nX-A: 4\r\n" END),
         BYTES(GET "X-C: 3\r\n" END)},
        {BYTES(GET "X-A: 1\r\nX-B: 2\r\nConnection: X-A\r\nConnection: upgrade, X-B\r\nUpgrade: h2c\r\nHTTP2-Settings: "
                   "a\r\n" END),
         BYTES(GET "HTTP2-Settings: a\r\n" END)},
    };
    check_requests(&plain, cases, VB_ARRAY_SIZE(cases));
}

/* RFC 9110 10.1.4: trailers can be kept, transfer codings cannot. */
static void te_says_trailers_or_nothing(void **state)
{
    static const struct request cases[] = {
        {BYTES(GET "TE: Trailers\r\nConnection: TE\r\nA: 1\r\n" END),
         BYTES(GET "A: 1\r\nConnection: TE\r\nTE: trailers\r\n" END)},
        {BYTES(GET "TE: trailers, deflate\r\nConnection: TE\r\n" END), BYTES(GET END)},
        {BYTES(GET "TE:\r\n" END), BYTES(GET END)},
        {BYTES(GET "TE: trailers\r\nTE: gzip\r\nConnection: TE\r\n" END), BYTES(GET END)},
        {BYTES("GET / HTTP/1.0\r\n" HOST "TE: trailers\r\n" END), BYTES(GET END)},
    };
    check_requests(&plain, cases, VB_ARRAY_SIZE(cases));
}

/* RFC 9110 7.8 */
static void an_upgrade_is_asked_for_anew(void **state)
{
    static const struct request cases[] = {
        {BYTES(GET "Connection: keep-alive, Upgrade\r\nUpgrade: h2c, WebSocket\r\nSec-WebSocket-Key: a\r\n" END),
         BYTES(GET "Sec-WebSocket-Key: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" END)},
        {BYTES(GET "Connection: upgrade, te\r\nUpgrade: websocket\r\nTE: trailers\r\n" END),
         BYTES(GET "Connection: Upgrade, TE\r\nUpgrade: websocket\r\nTE: trailers\r\n" END)},
    };
    struct vb_forward_request how = plain;
    how.upgrade = VB_STR("websocket");
    check_requests(&how, cases, VB_ARRAY_SIZE(cases));
}

static void max_forwards_is_replaced(void **state)
{
    static const struct request cases[] = {
        {BYTES("OPTIONS * HTTP/1.1\r\nMax-Forwards: 5\r\n" HOST END),
         BYTES("OPTIONS * HTTP/1.1\r\n" HOST "Max-Forwards: 4\r\n" END)},
    };
    struct vb_forward_request how = plain;
    how.max_forwards = VB_STR("4");
    check_requests(&how, cases, VB_ARRAY_SIZE(cases));
}

/* RFC 9110 10.1.1: an HTTP/1.0 client cannot be told to continue, and without content there is nothing to expect. */
static void an_expectation_that_cannot_be_meant_is_removed(void **state)
{
    static const struct request cases[] = {
        {BYTES(GET "Expect: 100-continue\r\n" END), BYTES(GET END)},
        {BYTES(GET "Expect: 100-continue\r\nContent-Length: 0\r\n" END), BYTES(GET "Content-Length: 0\r\n" END)},
        {BYTES("POST / HTTP/1.0\r\n" HOST "Expect: 100-continue\r\nContent-Length: 5\r\n" END),
         BYTES("POST / HTTP/1.1\r\n" HOST "Content-Length: 5\r\n" END)},
    };
    check_requests(&plain, cases, VB_ARRAY_SIZE(cases));
}

/* A client must not be able to say who it is, nor to have what we say removed (CVE-2024-45410 is such a case). */
static void what_we_say_of_the_client_replaces_what_it_says(void **state)
{
    static const struct request cases[] = {
        {BYTES(GET END), BYTES(GET FORWARDED VIA_AND_ID END)},
        {BYTES(GET "X-Forwarded-For: 6.6.6.6\r\nA: 1\r\nx-forwarded-for: 7.7.7.7\r\nX-FORWARDED-PROTO: https\r\n"
                   "X-Forwarded-Host: evil\r\nForwarded: for=6.6.6.6\r\nX-Request-Id: mine\r\nB: 2\r\n" END),
         BYTES(GET "A: 1\r\nB: 2\r\n" FORWARDED VIA_AND_ID END)},
        {BYTES(GET "Connection: X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, Forwarded, Via, X-Request-ID\r\n"
                   "X-Forwarded-For: 6.6.6.6\r\n" END),
         BYTES(GET FORWARDED VIA_AND_ID END)},
        {BYTES(GET "Via: 1.0 a, 1.1 b\r\nvia: 1.1 c\r\n" END),
         BYTES(GET "Via: 1.0 a, 1.1 b\r\nvia: 1.1 c\r\n" FORWARDED VIA_AND_ID END)},
        {BYTES("GET / HTTP/1.0\r\n" HOST END), BYTES(GET FORWARDED VIA_AND_ID_1_0 END)},
    };
    check_requests(&full, cases, VB_ARRAY_SIZE(cases));
}

/* RFC 7239 4, 6: addresses of IPv6 are quoted, and in brackets. */
static void the_client_by_rfc_7239(void **state)
{
    static const struct request v4[] = {
        {BYTES(GET "Forwarded: for=6.6.6.6\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Host: evil\r\n" END),
         BYTES(GET "Forwarded: for=1.2.3.4;host=\"x\";proto=http\r\n" END)},
        {BYTES("GET / HTTP/1.0\r\n" END),
         BYTES("GET / HTTP/1.1\r\nHost: 10.0.0.1:80\r\nForwarded: for=1.2.3.4;proto=http\r\n" END)},
    };
    static const struct request v6[] = {
        {BYTES(GET END),
         BYTES(GET "X-Forwarded-For: 2001:db8::1\r\nX-Forwarded-Proto: http\r\n"
                   "X-Forwarded-Host: x\r\nForwarded: for=\"[2001:db8::1]\";host=\"x\";proto=http\r\n" END)},
    };
    static const struct request unknown[] = {
        {BYTES(GET "X-Forwarded-For: 6.6.6.6\r\n" END),
         BYTES(GET "X-Forwarded-Proto: http\r\nX-Forwarded-Host: x\r\n"
                   "Forwarded: for=unknown;host=\"x\";proto=http\r\n" END)},
    };
    struct vb_forward_request how = plain;
    how.client = (struct vb_forward_client){.rfc7239 = true, .ip = VB_STR("1.2.3.4")};
    check_requests(&how, v4, VB_ARRAY_SIZE(v4));
    how.client = (struct vb_forward_client){.rfc7239 = true, .x = true, .ip = VB_STR("2001:db8::1")};
    check_requests(&how, v6, VB_ARRAY_SIZE(v6));
    how.client.ip = VB_STR("");
    check_requests(&how, unknown, VB_ARRAY_SIZE(unknown));
}

/* A proxy that is trusted: its lists grow by one, in one field each, and what it says besides passes. */
static void what_a_trusted_proxy_says_is_gone_on_with(void **state)
{
    static const struct request x[] = {
        {BYTES(GET "X-Forwarded-For: 9.9.9.9\r\nA: 1\r\nX-Forwarded-For: 8.8.8.8\r\nX-Forwarded-Proto: https\r\n"
                   "Forwarded: for=9.9.9.9\r\n" END),
         BYTES(GET "A: 1\r\nX-Forwarded-Proto: https\r\nForwarded: for=9.9.9.9\r\n"
                   "X-Forwarded-For: 9.9.9.9, 8.8.8.8, 1.2.3.4\r\nX-Forwarded-Host: x\r\n" END)},
        {BYTES(GET "X-Forwarded-For:\r\nX-Forwarded-Host: y\r\nConnection: X-Forwarded-Host\r\n" END),
         BYTES(GET "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: x\r\n" END)},
    };
    static const struct request rfc7239[] = {
        {BYTES(GET "Forwarded: for=9.9.9.9;proto=https\r\nX-Forwarded-For: 9.9.9.9\r\n" END),
         BYTES(GET "X-Forwarded-For: 9.9.9.9\r\n"
                   "Forwarded: for=9.9.9.9;proto=https, for=1.2.3.4;host=\"x\";proto=http\r\n" END)},
    };
    static const struct request open_quote[] = {
        {BYTES(GET "Forwarded: for=9.9.9.9\r\nForwarded: for=\"evil\\\"\r\nForwarded: by=\"a\\\"b\"\r\n" END),
         BYTES(GET "Forwarded: for=9.9.9.9, by=\"a\\\"b\", for=1.2.3.4;host=\"x\";proto=http\r\n" END)},
    };
    static const struct request without_ip[] = {
        {BYTES(GET "X-Forwarded-For: 9.9.9.9\r\n" END),
         BYTES(GET "X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: x\r\n" END)},
    };
    struct vb_forward_request how = plain;
    how.client = (struct vb_forward_client){.x = true, .trusted = true, .ip = VB_STR("1.2.3.4")};
    check_requests(&how, x, VB_ARRAY_SIZE(x));
    how.client.ip = VB_STR("");
    check_requests(&how, without_ip, VB_ARRAY_SIZE(without_ip));
    how.client = (struct vb_forward_client){.rfc7239 = true, .trusted = true, .ip = VB_STR("1.2.3.4")};
    check_requests(&how, rfc7239, VB_ARRAY_SIZE(rfc7239));
    check_requests(&how, open_quote, VB_ARRAY_SIZE(open_quote));
}

/* Where we say nothing of the client, what it says is for the backend to judge. */
static void what_is_turned_off_passes(void **state)
{
    static const struct request cases[] = {
        {BYTES(GET "X-Forwarded-For: a\r\nForwarded: for=b\r\nVia: 1.1 c\r\nX-Request-ID: d\r\n" END),
         BYTES(GET "X-Forwarded-For: a\r\nForwarded: for=b\r\nVia: 1.1 c\r\nX-Request-ID: d\r\n" END)},
    };
    struct vb_forward_request own_id = plain; /* the client's id was taken over */
    own_id.id_field = VB_STR("X-Request-ID");
    check_requests(&plain, cases, VB_ARRAY_SIZE(cases));
    check_requests(&own_id, cases, VB_ARRAY_SIZE(cases));
}

/* Exactly one Host, and it is the one that routed the request (RFC 9112 3.2.2). */
static void the_host_that_counts_is_the_only_one(void **state)
{
    static const struct request cases[] = {
        {BYTES("GET http://X:80/a?b HTTP/1.1\r\nA: 1\r\nHost: x:80\r\nB: 2\r\n" END),
         BYTES("GET /a?b HTTP/1.1\r\nHost: X:80\r\nA: 1\r\nB: 2\r\n" END)},
        {BYTES("GET http://x HTTP/1.1\r\n" HOST END), BYTES(GET END)},
        {BYTES("GET http://x?a HTTP/1.1\r\n" HOST END), BYTES("GET /?a HTTP/1.1\r\n" HOST END)},
        {BYTES("OPTIONS http://x HTTP/1.1\r\n" HOST END), BYTES("OPTIONS * HTTP/1.1\r\n" HOST END)},
        {BYTES("GET http://x/ HTTP/1.0\r\n" END), BYTES(GET END)},
        {BYTES("GET / HTTP/1.0\r\nA: 1\r\n" END), BYTES("GET / HTTP/1.1\r\nHost: 10.0.0.1:80\r\nA: 1\r\n" END)},
        {BYTES("GET / HTTP/1.1\r\nHost:\r\n" END), BYTES("GET / HTTP/1.1\r\nHost: \r\n" END)},
    };
    static const struct request forwarded[] = {
        {BYTES("GET http://X:80/ HTTP/1.1\r\nHost: x:80\r\n" END),
         BYTES("GET / HTTP/1.1\r\nHost: X:80\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: http\r\n"
               "X-Forwarded-Host: X:80\r\n" VIA_AND_ID END)},
        /* what the client did not name is not claimed to be its */
        {BYTES("GET / HTTP/1.0\r\n" END), BYTES("GET / HTTP/1.1\r\nHost: 10.0.0.1:80\r\nX-Forwarded-For: "
                                                "1.2.3.4\r\nX-Forwarded-Proto: http\r\n" VIA_AND_ID_1_0 END)},
    };
    check_requests(&plain, cases, VB_ARRAY_SIZE(cases));
    check_requests(&full, forwarded, VB_ARRAY_SIZE(forwarded));
}

static void framing_of_requests_is_made_anew(void **state)
{
    static const struct request cases[] = {
        {BYTES(GET "Content-Length: 005\r\nA: 1\r\n" END), BYTES(GET "A: 1\r\nContent-Length: 5\r\n" END)},
        {BYTES(GET "content-length:0\r\n" END), BYTES(GET "Content-Length: 0\r\n" END)},
        {BYTES(GET "Content-Length: 0\r\nA: 1\r\n" END), BYTES(GET "Content-Length: 0\r\nA: 1\r\n" END)},
        {BYTES(GET "content-length: 50\r\nA: 1\r\n" END), BYTES(GET "A: 1\r\nContent-Length: 50\r\n" END)},
        {BYTES(GET "Content-Length: 5 \r\nA: 1\r\n" END), BYTES(GET "A: 1\r\nContent-Length: 5\r\n" END)},
        {BYTES(GET "Content-Length:\t5\r\nA: 1\r\n" END), BYTES(GET "A: 1\r\nContent-Length: 5\r\n" END)},
        {BYTES(GET "Content-Length: 09223372036854775807\r\n" END),
         BYTES(GET "Content-Length: 9223372036854775807\r\n" END)},
        {BYTES(GET "TRANSFER-ENCODING:Chunked\t\r\nA: 1\r\n" END),
         BYTES(GET "A: 1\r\nTransfer-Encoding: chunked\r\n" END)},
        {BYTES("POST / HTTP/1.0\r\n" HOST "Content-Length: 5\r\n" END),
         BYTES("POST / HTTP/1.1\r\n" HOST "Content-Length: 5\r\n" END)},
    };
    check_requests(&plain, cases, VB_ARRAY_SIZE(cases));
}

/* ---- responses --------------------------------------------------------------------------------------------------- */

struct response {
    struct vb_str came;
    enum vb_framing framing; /* towards the client */
    struct vb_str wanted;
};

static void check_responses(enum kind kind, struct vb_forward_response how, const struct response *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct parsed parsed = parse_good(kind, cases[i].came);
        how.framing = cases[i].framing;
        size_t written;
        char *to = write_response(parsed.head, &how, &written);
        check_written(to, written, cases[i].wanted);
        drop(&parsed);
    }
}

static void responses_pass(void **state)
{
    static const struct response cases[] = {
        {BYTES(OK "Content-Length: 5\r\n" END), VB_FRAMING_LENGTH, BYTES(OK "Content-Length: 5\r\n" END)},
        {BYTES(OK "A:1\r\nContent-Length: 005\r\nSet-Cookie: a\r\nset-cookie:\t b\r\n" END), VB_FRAMING_LENGTH,
         BYTES(OK "A:1\r\nSet-Cookie: a\r\nset-cookie:\t b\r\nContent-Length: 5\r\n" END)},
        {BYTES("HTTP/1.0 404 Not here\xe4\r\nContent-Length: 0\r\n" END), VB_FRAMING_LENGTH,
         BYTES("HTTP/1.1 404 Not here\xe4\r\nContent-Length: 0\r\n" END)},
        {BYTES("HTTP/1.1 200\r\nContent-Length: 0\r\n" END), VB_FRAMING_LENGTH,
         BYTES("HTTP/1.1 200 \r\nContent-Length: 0\r\n" END)}, /* the space is not optional (RFC 9112 4) */
        {BYTES("HTTP/1.7 200 OK\r\nContent-Length: 5\r\nA: 1\r\n" END), VB_FRAMING_LENGTH,
         BYTES(OK "Content-Length: 5\r\nA: 1\r\n" END)},
        {BYTES(OK "Content-Length: 5 \r\nA: 1\r\n" END), VB_FRAMING_LENGTH,
         BYTES(OK "A: 1\r\nContent-Length: 5\r\n" END)},
        {BYTES("HTTP/1.1 999 x\r\nContent-Length: 0\r\n" END), VB_FRAMING_LENGTH,
         BYTES("HTTP/1.1 999 x\r\nContent-Length: 0\r\n" END)},
        {BYTES(OK "Connection: close, X-A\r\nKeep-Alive: a\r\nX-A: 1\r\nUpgrade: h2\r\nProxy-Connection: a\r\n"
                  "Proxy-Authenticate: b\r\nContent-Length: 5\r\n" END),
         VB_FRAMING_LENGTH, BYTES(OK "Proxy-Authenticate: b\r\nContent-Length: 5\r\n" END)},
        /* framing: as the client can understand it */
        {BYTES(OK "Transfer-Encoding:CHUNKED\r\nA: 1\r\n" END), VB_FRAMING_CHUNKED,
         BYTES(OK "A: 1\r\nTransfer-Encoding: chunked\r\n" END)},
        {BYTES(OK "Transfer-Encoding: chunked\r\nTrailer: a\r\n" END), VB_FRAMING_CLOSE, BYTES(OK END)},
        {BYTES("HTTP/1.0 200 OK\r\n" END), VB_FRAMING_CHUNKED, BYTES(OK "Transfer-Encoding: chunked\r\n" END)},
        {BYTES(OK END), VB_FRAMING_CLOSE, BYTES(OK END)},
    };
    check_responses(RESPONSE, (struct vb_forward_response){0}, cases, VB_ARRAY_SIZE(cases));
}

/* RFC 9110 8.6: a length may say what another request would get, but not in 1xx and 204. */
static void responses_without_body(void **state)
{
    static const struct response cases[] = {
        {BYTES("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: a\r\n" END), VB_FRAMING_NONE,
         BYTES("HTTP/1.1 304 Not Modified\r\nETag: a\r\nContent-Length: 5\r\n" END)},
        {BYTES("HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n" END), VB_FRAMING_NONE,
         BYTES("HTTP/1.1 304 Not Modified\r\n" END)},
        {BYTES("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\nA: 1\r\n" END), VB_FRAMING_NONE,
         BYTES("HTTP/1.1 204 No Content\r\nA: 1\r\n" END)},
        {BYTES("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n" END), VB_FRAMING_NONE,
         BYTES("HTTP/1.1 204 No Content\r\n" END)},
        {BYTES("HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n" END), VB_FRAMING_NONE,
         BYTES("HTTP/1.1 100 Continue\r\n" END)},
        {BYTES("HTTP/1.1 103 Early Hints\r\nLink: a\r\n" END), VB_FRAMING_NONE,
         BYTES("HTTP/1.1 103 Early Hints\r\nLink: a\r\n" END)},
    };
    static const struct response to_head[] = {
        {BYTES(OK "Content-Length: 005\r\n" END), VB_FRAMING_NONE, BYTES(OK "Content-Length: 5\r\n" END)},
        {BYTES(OK "Transfer-Encoding: chunked\r\nA: 1\r\n" END), VB_FRAMING_NONE, BYTES(OK "A: 1\r\n" END)},
        {BYTES(OK END), VB_FRAMING_NONE, BYTES(OK END)},
    };
    check_responses(RESPONSE, (struct vb_forward_response){0}, cases, VB_ARRAY_SIZE(cases));
    check_responses(RESPONSE_TO_HEAD, (struct vb_forward_response){0}, to_head, VB_ARRAY_SIZE(to_head));
}

static void what_we_add_to_responses(void **state)
{
    static const struct response nothing_there[] = {
        {BYTES(OK "Connection: keep-alive\r\n" END), VB_FRAMING_CHUNKED,
         BYTES(OK "Transfer-Encoding: chunked\r\nConnection: close\r\nVia: 1.1 vb\r\nX-Request-ID: abc\r\n" END)},
        {BYTES("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n" END), VB_FRAMING_LENGTH,
         BYTES(OK "Content-Length: 5\r\nConnection: close\r\nVia: 1.0 vb\r\nX-Request-ID: abc\r\n" END)},
    };
    static const struct response there_already[] = {
        {BYTES(OK "Via: 1.1 a\r\nx-request-id: own\r\n" END), VB_FRAMING_CLOSE,
         BYTES(OK "Via: 1.1 a\r\nx-request-id: own\r\nConnection: close\r\nVia: 1.1 vb\r\n" END)},
    };
    static const struct response dated[] = {
        {BYTES(OK "Content-Length: 0\r\n" END), VB_FRAMING_LENGTH, BYTES(OK "Content-Length: 0\r\nDate: now\r\n" END)},
    };
    static const struct response for_this_hop[] = {
        {BYTES(OK "Connection: x-request-id\r\nX-Request-ID: own\r\nContent-Length: 5\r\n" END), VB_FRAMING_LENGTH,
         BYTES(OK "Content-Length: 5\r\nConnection: close\r\nVia: 1.1 vb\r\nX-Request-ID: abc\r\n" END)},
    };
    static const struct response switching[] = {
        {BYTES("HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\nA: 1\r\n" END), VB_FRAMING_NONE,
         BYTES("HTTP/1.1 101 Switching\r\nA: 1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" END)},
    };
    static const struct response to_1_0[] = {
        {BYTES(OK "Connection: close\r\nContent-Length: 5\r\n" END), VB_FRAMING_LENGTH,
         BYTES(OK "Content-Length: 5\r\nConnection: keep-alive\r\n" END)},
    };
    static const struct response with_cookie[] = {
        {BYTES(OK "Set-Cookie: a=1\r\nContent-Length: 5\r\nSet-Cookie: vb=2\r\n" END), VB_FRAMING_LENGTH,
         BYTES(OK "Set-Cookie: a=1\r\nContent-Length: 5\r\nSet-Cookie: vb=2\r\nSet-Cookie: vb=1; Path=/\r\n" END)},
        {BYTES("HTTP/1.1 304 Not Modified\r\n" END), VB_FRAMING_NONE,
         BYTES("HTTP/1.1 304 Not Modified\r\nSet-Cookie: vb=1; Path=/\r\n" END)},
    };
    struct vb_forward_response how = {
        .via = VB_STR("vb"), .id_field = VB_STR("X-Request-ID"), .id = VB_STR("abc"), .announce_close = true};
    check_responses(RESPONSE, (struct vb_forward_response){.set_cookie = VB_STR("vb=1; Path=/")}, with_cookie,
                    VB_ARRAY_SIZE(with_cookie));
    check_responses(RESPONSE, how, nothing_there, VB_ARRAY_SIZE(nothing_there));
    check_responses(RESPONSE, how, there_already, VB_ARRAY_SIZE(there_already));
    check_responses(RESPONSE, (struct vb_forward_response){.date = VB_STR("now")}, dated, VB_ARRAY_SIZE(dated));
    check_responses(RESPONSE, how, for_this_hop, VB_ARRAY_SIZE(for_this_hop));
    check_responses(RESPONSE, (struct vb_forward_response){.upgrade = VB_STR("websocket")}, switching,
                    VB_ARRAY_SIZE(switching));
    check_responses(RESPONSE, (struct vb_forward_response){.announce_keep_alive = true}, to_1_0, VB_ARRAY_SIZE(to_1_0));
}

/* ---- room -------------------------------------------------------------------------------------------------------- */

static struct vb_str long_text(void)
{
    static char text[5000];
    memset(text, 'h', sizeof(text));
    return (struct vb_str){text, sizeof(text)};
}

/* All that may be added, each as long as nobody expects it, and each as often as it can be. */
static void what_is_added_fits_into_the_room_that_is_promised(void **state)
{
    const struct vb_str text = long_text();
    const struct vb_forward_request how = {
        .fallback_host = text,
        .via = text,
        .client = {.x = true, .rfc7239 = true, .trusted = true, .ip = BYTES("1111:2222:3333:4444:5555:6666:7777:8888")},
        .id_field = text,
        .id = text,
        .upgrade = text,
        .max_forwards = text,
    };
    static const char *const starts[] = {"GET / HTTP/1.1\r\nHost: %.*s\r\nTE: trailers\r\n",
                                         "GET http://%.*s HTTP/1.0\r\n",
                                         "POST / HTTP/1.1\r\nHost: %.*s\r\nContent-Length:09223372036854775807\r\n",
                                         "GET / HTTP/1.0\r\nIt-has-no-host:%.*s\r\n"};
    static const char lists[] = "X-Forwarded-For:1\r\nForwarded:a\r\nX-Forwarded-For:2\r\nForwarded:b\r\n\r\n";
    static char bytes[sizeof(lists) + 6000];
    for (size_t i = 0; i < VB_ARRAY_SIZE(starts); i++) {
        size_t n = (size_t)snprintf(bytes, sizeof(bytes), starts[i], VB_STR_ARGS(text)), written;
        n += (size_t)snprintf(bytes + n, sizeof(bytes) - n, "%s", lists);
        struct parsed parsed = parse_good(REQUEST, (struct vb_str){bytes, n});
        free(write_request(parsed.head, &how, &written));
        assert_true(written > 6 * text.n);
        drop(&parsed);
    }
}

static void what_is_added_to_a_response_fits_too(void **state)
{
    const struct vb_str text = long_text();
    const struct vb_forward_response how = {.via = text,
                                            .date = text,
                                            .upgrade = text,
                                            .id_field = text,
                                            .id = text,
                                            .set_cookie = text,
                                            .framing = VB_FRAMING_CHUNKED,
                                            .announce_close = true};
    static const struct vb_str responses[] = {BYTES("HTTP/1.1 200\r\n\r\n"), BYTES("HTTP/1.0 200 OK\r\n\r\n"),
                                              BYTES("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n")};
    for (size_t i = 0; i < VB_ARRAY_SIZE(responses); i++) {
        struct parsed parsed = parse_good(RESPONSE, responses[i]);
        size_t written;
        free(write_response(parsed.head, &how, &written));
        assert_true(written > 6 * text.n);
        drop(&parsed);
    }
}

static void chunk_lines(void **state)
{
    static const struct {
        size_t chunk;
        const char *wanted;
    } cases[] = {{0, "0\r\n"},
                 {1, "1\r\n"},
                 {15, "f\r\n"},
                 {16, "10\r\n"},
                 {0xabcdef, "abcdef\r\n"},
                 {65536, "10000\r\n"},
                 {SIZE_MAX, "ffffffffffffffff\r\n"}};
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        char line[VB_CHUNK_LINE_MAX];
        size_t n = vb_h1_write_chunk_line(line, cases[i].chunk);
        assert_int_equal(n, strlen(cases[i].wanted));
        assert_memory_equal(line, cases[i].wanted, n);
    }
}

#define TEST(function) cmocka_unit_test(function)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_concerns_nobody_passes_as_it_came),
        TEST(what_is_for_one_hop_is_removed),
        TEST(te_says_trailers_or_nothing),
        TEST(an_upgrade_is_asked_for_anew),
        TEST(max_forwards_is_replaced),
        TEST(an_expectation_that_cannot_be_meant_is_removed),
        TEST(what_we_say_of_the_client_replaces_what_it_says),
        TEST(the_client_by_rfc_7239),
        TEST(what_a_trusted_proxy_says_is_gone_on_with),
        TEST(what_is_turned_off_passes),
        TEST(the_host_that_counts_is_the_only_one),
        TEST(framing_of_requests_is_made_anew),
        TEST(responses_pass),
        TEST(responses_without_body),
        TEST(what_we_add_to_responses),
        TEST(what_is_added_fits_into_the_room_that_is_promised),
        TEST(what_is_added_to_a_response_fits_too),
        TEST(chunk_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
