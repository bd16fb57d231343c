/* Which heads are accepted, with which meaning, and which are refused, with which status. */
#include "fixture.h"

#define HOST "Host: x\r\n"
#define GET  "GET / HTTP/1.1\r\n" HOST
#define POST "POST / HTTP/1.1\r\n" HOST
#define OK   "HTTP/1.1 200 OK\r\n"
#define END  "\r\n"

struct accepted {
    struct vb_str bytes;
    const char *wanted; /* see summary() */
};

struct refused {
    struct vb_str bytes;
    unsigned status;
};

/* A transfer coding that is wrong in itself: no RFC chooses between these two. */
enum { STATUS_400_OR_501 = 1 };

/* ---- checks ------------------------------------------------------------------------------------------------------ */

static const char *framing_text(const struct vb_head *head, char *to, size_t size)
{
    static const char *const names[] = {"none", "length", "chunked", "until close"};
    if (head->framing == VB_FRAMING_LENGTH)
        snprintf(to, size, "length=%llu", (unsigned long long)head->length);
    else
        snprintf(to, size, "%s", names[head->framing]);
    return to;
}

/* `METHOD TARGET host=HOST 1.1 keep FRAMING` or `STATUS [REASON] 1.1 close FRAMING` */
static const char *summary(enum kind kind, const struct vb_head *head)
{
    static char text[512];
    char framing[64];
    int n = kind == REQUEST
                ? snprintf(text, sizeof(text), "%.*s %s%.*s host=%.*s", VB_STR_ARGS(head->method),
                           head->slash_before_target ? "/ + " : "", VB_STR_ARGS(head->target), VB_STR_ARGS(head->host))
                : snprintf(text, sizeof(text), "%u [%.*s]", head->status, VB_STR_ARGS(head->reason));
    snprintf(text + n, sizeof(text) - (size_t)n, " 1.%u %s %s", head->minor, head->keep_alive ? "keep" : "close",
             framing_text(head, framing, sizeof(framing)));
    return text;
}

static void expect_summary(enum kind kind, const struct parsed *parsed, struct vb_str bytes, const char *wanted)
{
    if (parsed->r < 0)
        fail_msg("refused, %s: %s", parsed->refusal.why, shown(bytes));
    if (strcmp(summary(kind, parsed->head), wanted) != 0)
        fail_msg("'%s', wanted '%s', for: %s", summary(kind, parsed->head), wanted, shown(bytes));
}

/* However it arrives, the head is the same; before its last byte it is incomplete, whatever follows is not its own. */
static void check_accepted(enum kind kind, const struct accepted *one)
{
    static const char surplus[] = "\0\xff GET / HTTP/9.9\n\r\n";
    struct parsed parsed = parse(kind, one->bytes, &usual);
    expect_summary(kind, &parsed, one->bytes, one->wanted);
    assert_int_equal(parsed.r, one->bytes.n);
    assert_ptr_equal(parsed.head->raw.p + parsed.head->raw.n, parsed.bytes + one->bytes.n);
    drop(&parsed);

    char *longer = malloc(one->bytes.n + sizeof(surplus));
    assert_non_null(longer);
    memcpy(longer, one->bytes.p, one->bytes.n);
    memcpy(longer + one->bytes.n, surplus, sizeof(surplus));
    parsed = parse(kind, (struct vb_str){longer, one->bytes.n + sizeof(surplus)}, &usual);
    expect_summary(kind, &parsed, one->bytes, one->wanted);
    assert_int_equal(parsed.r, one->bytes.n);
    drop(&parsed);
    free(longer);

    for (size_t n = 0; n < one->bytes.n; n++) {
        parsed = parse(kind, (struct vb_str){one->bytes.p, n}, &usual);
        if (parsed.r != 0)
            fail_msg("%zd after %zu bytes of: %s", parsed.r, n, shown(one->bytes));
        drop(&parsed);
    }
}

static void expect_refusal(const struct parsed *parsed, const struct refused *one)
{
    unsigned status = parsed->refusal.status;
    if (parsed->r != -EPROTO)
        fail_msg("%zd, wanted a refusal with %u, for: %s", parsed->r, one->status, shown(one->bytes));
    if (one->status == STATUS_400_OR_501 ? status != 400 && status != 501 : status != one->status)
        fail_msg("refused with %u, wanted %u, for: %s", status, one->status, shown(one->bytes));
    assert_true(strlen(parsed->refusal.why) > 10);
}

/* However it arrives, the refusal is the same, and once made it is not taken back. */
static void check_refused(enum kind kind, const struct refused *one)
{
    bool refused = false;
    for (size_t n = 0; n <= one->bytes.n; n++) {
        struct parsed parsed = parse(kind, (struct vb_str){one->bytes.p, n}, &usual);
        if (refused || parsed.r != 0 || n == one->bytes.n) {
            expect_refusal(&parsed, one);
            refused = true;
        }
        drop(&parsed);
    }
}

static void check_all_accepted(enum kind kind, const struct accepted *cases, size_t n)
{
    for (size_t i = 0; i < n; i++)
        check_accepted(kind, &cases[i]);
}

static void check_all_refused(enum kind kind, const struct refused *cases, size_t n)
{
    for (size_t i = 0; i < n; i++)
        check_refused(kind, &cases[i]);
}

/* `before`, the byte, `after`: accepted or refused with 400. */
static void check_byte(const char *before, unsigned char byte, const char *after, bool fine)
{
    char bytes[256];
    size_t n = strlen(before);
    memcpy(bytes, before, n);
    bytes[n++] = (char)byte;
    memcpy(bytes + n, after, strlen(after));
    n += strlen(after);
    struct parsed parsed = parse(REQUEST, (struct vb_str){bytes, n}, &usual);
    bool accepted = parsed.r == (ssize_t)n, refused = parsed.r == -EPROTO && parsed.refusal.status == 400;
    if (fine ? !accepted : !refused)
        fail_msg("byte 0x%02x: %zd, for: %s", byte, parsed.r, shown((struct vb_str){bytes, n}));
    drop(&parsed);
}

static bool is_one_of(unsigned char byte, const char *bytes)
{
    return byte != '\0' && strchr(bytes, byte) != NULL;
}

static bool is_alphanumeric(unsigned char byte)
{
    return (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z');
}

/* ---- the request line -------------------------------------------------------------------------------------------- */

/* RFC 9112 3. Which methods exist is for backends to know (RFC 9110 9.1). */
static void request_lines_that_are_fine(void **state)
{
    static const struct accepted cases[] = {
        {BYTES(GET END), "GET / host=x 1.1 keep none"},
        {BYTES("GET / HTTP/1.0\r\n" HOST END), "GET / host=x 1.0 close none"},
        {BYTES("\r\n" GET END), "GET / host=x 1.1 keep none"},
        {BYTES("\r\n\r\n\r\n\r\n" GET END), "GET / host=x 1.1 keep none"},
        /* a higher minor version is read as the highest that we know (RFC 9110 2.5) */
        {BYTES("GET / HTTP/1.2\r\n" HOST END), "GET / host=x 1.1 keep none"},
        {BYTES("POST / HTTP/1.9\r\n" HOST "Transfer-Encoding: chunked\r\n" END), "POST / host=x 1.1 keep chunked"},
        {BYTES("FOOBAR / HTTP/1.1\r\n" HOST END), "FOOBAR / host=x 1.1 keep none"},
        {BYTES("get / HTTP/1.1\r\n" HOST END), "get / host=x 1.1 keep none"},
        {BYTES("M-SEARCH / HTTP/1.1\r\n" HOST END), "M-SEARCH / host=x 1.1 keep none"},
        {BYTES("!#$%&'*+-.^_`|~0 / HTTP/1.1\r\n" HOST END), "!#$%&'*+-.^_`|~0 / host=x 1.1 keep none"},
    };
    check_all_accepted(REQUEST, cases, VB_ARRAY_SIZE(cases));
}

static void request_lines_that_are_refused(void **state)
{
    static const struct refused cases[] = {
        {BYTES("hello world\r\n\r\n"), 400},
        {BYTES("GET /\r\n\r\n"), 400}, /* HTTP/0.9 */
        {BYTES("GET\r\n\r\n"), 400},
        {BYTES("GET \r\n\r\n"), 400},
        {BYTES("GET  HTTP/1.1\r\n" HOST END), 400},
        {BYTES("GET / \r\n" HOST END), 400},
        {BYTES("GET  / HTTP/1.1\r\n" HOST END), 400},
        {BYTES("GET /  HTTP/1.1\r\n" HOST END), 400},
        {BYTES("GET / HTTP/1.1 \r\n" HOST END), 400},
        {BYTES(" GET / HTTP/1.1\r\n" HOST END), 400},
        {BYTES("GET\t/ HTTP/1.1\r\n" HOST END), 400},
        {BYTES("GET /\tHTTP/1.1\r\n" HOST END), 400},
        {BYTES("GET /a b HTTP/1.1\r\n" HOST END), 400},
        {BYTES("GET / HTTP/1.1 HTTP/1.1\r\n" HOST END), 400},
        {BYTES("GET / HTTP/1.x\r\n" HOST END), 400},
        {BYTES("GET / HTTP/1\r\n" HOST END), 400},
        {BYTES("GET / HTTP/11\r\n" HOST END), 400},
        {BYTES("GET / HTTP/1.10\r\n" HOST END), 400},
        {BYTES("GET / HTTP/01.1\r\n" HOST END), 400},
        {BYTES("GET / http/1.1\r\n" HOST END), 400},
        {BYTES("GET / ICAP/1.1\r\n" HOST END), 400},
        {BYTES("GET / HTTP/2.0\r\n" HOST END), 505},
        {BYTES("GET / HTTP/3.7\r\n" HOST END), 505},
        {BYTES("GET / HTTP/9.9\r\n" HOST END), 505},
        {BYTES("GET / HTTP/0.9\r\n" HOST END), 400},
        {BYTES("GET / HTTP/1.2\r\n" END), 400}, /* Host as in HTTP/1.1 */
        {BYTES("TRACE / HTTP/1.2\r\n" HOST END), 405},
        {BYTES("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505}, /* the preface of HTTP/2 */
        {BYTES("\r\r\n" GET END), 400},
        {BYTES("\n" GET END), 400},
        {BYTES("\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n" GET END), 400},
        {BYTES("GET / HTTP/1.1\nHost: x\n\n"), 400},
        {BYTES("GET / HTTP/1.1\r\nHost: x\n\r\n"), 400},
        {BYTES("GET / HTTP/1.1\r\nHost: x\r\n\n"), 400},
        {BYTES("GET / HTTP/1.1\r" HOST END), 400},
        {BYTES("GET / HTTP/1.1\r\r\n" HOST END), 400},
        {BYTES("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), 400}, /* a TLS handshake */
        {BYTES("CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n"), 405},
        {BYTES("TRACE / HTTP/1.1\r\n" HOST END), 405}, /* else Max-Forwards would have to be obeyed (RFC 9110 7.6.2) */
    };
    check_all_refused(REQUEST, cases, VB_ARRAY_SIZE(cases));
}

static void targets_that_are_fine(void **state)
{
    static const struct accepted cases[] = {
        {BYTES("GET //a/../b/ HTTP/1.1\r\n" HOST END), "GET //a/../b/ host=x 1.1 keep none"},
        {BYTES("GET /? HTTP/1.1\r\n" HOST END), "GET /? host=x 1.1 keep none"},
        {BYTES("GET /a?b=c&d=http://e/?f HTTP/1.1\r\n" HOST END), "GET /a?b=c&d=http://e/?f host=x 1.1 keep none"},
        {BYTES("GET /%00%2F;a=b,c:d@e!$&'()*+~ HTTP/1.1\r\n" HOST END),
         "GET /%00%2F;a=b,c:d@e!$&'()*+~ host=x 1.1 keep none"},
        {BYTES("OPTIONS * HTTP/1.1\r\n" HOST END), "OPTIONS * host=x 1.1 keep none"},
        /* absolute-form, which a server must accept (RFC 9112 3.2.2) */
        {BYTES("GET http://x/a?b HTTP/1.1\r\n" HOST END), "GET /a?b host=x 1.1 keep none"},
        {BYTES("GET HTTP://X.example:8080/ HTTP/1.1\r\nHost: x.EXAMPLE:8080\r\n\r\n"),
         "GET / host=X.example:8080 1.1 keep none"},
        {BYTES("GET http://[::1]:80/a HTTP/1.1\r\nHost: [::1]:80\r\n\r\n"), "GET /a host=[::1]:80 1.1 keep none"},
        {BYTES("GET http://x:80/ HTTP/1.1\r\n" HOST END), "GET / host=x:80 1.1 keep none"},
        {BYTES("GET http://x/ HTTP/1.1\r\nHost: X:80\r\n\r\n"), "GET / host=x 1.1 keep none"},
        {BYTES("GET http://[::1]:/ HTTP/1.1\r\nHost: [::1]:80\r\n\r\n"), "GET / host=[::1]: 1.1 keep none"},
        {BYTES("GET http://x HTTP/1.1\r\n" HOST END), "GET / host=x 1.1 keep none"},
        {BYTES("GET http://x/ HTTP/1.0\r\n\r\n"), "GET / host=x 1.0 close none"},
        {BYTES("OPTIONS http://x HTTP/1.1\r\n" HOST END), "OPTIONS * host=x 1.1 keep none"}, /* RFC 9112 3.2.4 */
        {BYTES("OPTIONS http://x/ HTTP/1.1\r\n" HOST END), "OPTIONS / host=x 1.1 keep none"},
        {BYTES("OPTIONS http://x?a HTTP/1.1\r\n" HOST END), "OPTIONS / + ?a host=x 1.1 keep none"},
        {BYTES("GET http://x?a=/b HTTP/1.1\r\n" HOST END), "GET / + ?a=/b host=x 1.1 keep none"},
        {BYTES("GET http://x:80? HTTP/1.0\r\n\r\n"), "GET / + ? host=x:80 1.0 close none"},
        {BYTES("GET http://x/?a HTTP/1.1\r\n" HOST END), "GET /?a host=x 1.1 keep none"},
    };
    check_all_accepted(REQUEST, cases, VB_ARRAY_SIZE(cases));
}

static void targets_that_are_refused(void **state)
{
    static const struct refused cases[] = {
        {BYTES("GET a HTTP/1.1\r\n" HOST END), 400},
        {BYTES("GET ?a HTTP/1.1\r\n" HOST END), 400},
        {BYTES("GET x:80 HTTP/1.1\r\n" HOST END), 400},
        {BYTES("GET * HTTP/1.1\r\n" HOST END), 400},
        {BYTES("OPTIONS ** HTTP/1.1\r\n" HOST END), 400},
        {BYTES("GET /a#b HTTP/1.1\r\n" HOST END), 400},
        {BYTES("GET /\0 HTTP/1.1\r\n" HOST END), 400},
        {BYTES("GET /\xc3\xa4 HTTP/1.1\r\n" HOST END), 400},
        {BYTES("GET /a\rb HTTP/1.1\r\n" HOST END), 400},
        {BYTES("GET http:/x/ HTTP/1.1\r\n" HOST END), 400},
        {BYTES("GET http:///a HTTP/1.1\r\n" HOST END), 400},
        {BYTES("GET http:// HTTP/1.1\r\n" HOST END), 400},
        {BYTES("GET http://:80/ HTTP/1.1\r\nHost: :80\r\n\r\n"), 400},
        {BYTES("GET http://u@x/ HTTP/1.1\r\n" HOST END), 400},
        {BYTES("GET http://u:p@x/ HTTP/1.1\r\nHost: u:p@x\r\n\r\n"), 400},
        {BYTES("GET http://?a HTTP/1.1\r\n" HOST END), 400},
        {BYTES("GET http://x?a#b HTTP/1.1\r\n" HOST END), 400},
        {BYTES("GET http://y?a HTTP/1.1\r\n" HOST END), 400},
        {BYTES("GET https://x/ HTTP/1.1\r\n" HOST END), 400},
        {BYTES("GET http://x:99999/ HTTP/1.1\r\nHost: x:99999\r\n\r\n"), 400},
        {BYTES("GET http://x:port/ HTTP/1.1\r\nHost: x:port\r\n\r\n"), 400},
        {BYTES("GET ftp://x/ HTTP/1.1\r\n" HOST END), 400},
        {BYTES("GET http://x/a HTTP/1.1\r\nHost: y\r\n\r\n"), 400},
        {BYTES("GET http://x:8080/ HTTP/1.1\r\nHost: x:80\r\n\r\n"), 400},
        {BYTES("GET http://[::80]/ HTTP/1.1\r\nHost: [::]:80\r\n\r\n"), 400},
        {BYTES("GET http://x:81/ HTTP/1.1\r\nHost: x\r\n\r\n"), 400},
        {BYTES("GET http://x/ HTTP/1.1\r\nHost:\r\n\r\n"), 400},
        {BYTES("GET http://x/ HTTP/1.1\r\n\r\n"), 400}, /* HTTP/1.1 needs Host here too (RFC 9112 3.2) */
    };
    check_all_refused(REQUEST, cases, VB_ARRAY_SIZE(cases));
}

/* RFC 3986: what may stand in a path or query passes; what may stand nowhere in a URI and splits messages does not. */
static void every_byte_in_a_target(void **state)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        bool legal = is_alphanumeric((unsigned char)byte) || is_one_of((unsigned char)byte, "-._~!$&'()*+,;=:@/?%");
        bool dangerous = byte <= 0x20 || byte >= 0x7f || byte == '#';
        if (legal || dangerous)
            check_byte("GET /a", (unsigned char)byte, "b HTTP/1.1\r\n" HOST END, legal);
    }
}

static void every_byte_in_a_method(void **state)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        bool fine = is_alphanumeric((unsigned char)byte) || is_one_of((unsigned char)byte, "!#$%&'*+-.^_`|~");
        check_byte("G", (unsigned char)byte, "T / HTTP/1.1\r\n" HOST END, fine);
    }
}

/* ---- Host -------------------------------------------------------------------------------------------------------- */

/* RFC 9110 7.2, RFC 3986 3.2.2 and 3.2.3 */
static void hosts_that_are_fine(void **state)
{
#define FINE(host)                                                                                                     \
    {                                                                                                                  \
        BYTES("GET / HTTP/1.1\r\nHost: " host "\r\n\r\n"), "GET / host=" host " 1.1 keep none"                         \
    }
    static const struct accepted cases[] = {
        FINE("x"),
        FINE("x:80"),
        FINE("x:0"),
        FINE("x:65535"),
        FINE("x:"),
        FINE("127.0.0.1:8080"),
        FINE("[::1]"),
        FINE("[::1]:8080"),
        FINE("[2001:DB8::192.0.2.1]:"),
        FINE("a-b.c_d~e.example."),
        FINE("example.com."),
        FINE("example.com.:80"),
        FINE("a%2Db"),
        FINE("a!$&'()*+;=b"),
        FINE(""), /* a target without authority, such as a URN's */
        {BYTES("GET / HTTP/1.1\r\nHost:x\r\n\r\n"), "GET / host=x 1.1 keep none"},
        {BYTES("GET / HTTP/1.1\r\nHOST: \t x \t \r\n\r\n"), "GET / host=x 1.1 keep none"},
        {BYTES("GET / HTTP/1.0\r\n\r\n"), "GET / host= 1.0 close none"},
    };
#undef FINE
    check_all_accepted(REQUEST, cases, VB_ARRAY_SIZE(cases));
}

/* 400 is a MUST in RFC 9112 3.2, the most broken rule in the field. */
static void hosts_that_are_refused(void **state)
{
#define WRONG(host)                                                                                                    \
    {                                                                                                                  \
        BYTES("GET / HTTP/1.1\r\nHost: " host "\r\n\r\n"), 400                                                         \
    }
    static const struct refused cases[] = {
        {BYTES("GET / HTTP/1.1\r\n\r\n"), 400},
        {BYTES("GET / HTTP/1.1\r\nHosts: x\r\n\r\n"), 400},
        {BYTES(GET HOST END), 400},
        {BYTES(GET "hOST: y\r\n" END), 400},
        {BYTES(GET "Host:\r\n" END), 400},
        {BYTES("GET / HTTP/1.0\r\n" HOST HOST END), 400},
        {BYTES("GET / HTTP/1.0\r\nHost: a/b\r\n" END), 400},
        WRONG("a, b"),
        WRONG("a,b"),
        WRONG("a/b"),
        WRONG("/"),
        WRONG("u@a"),
        WRONG("http://a"),
        WRONG("a b"),
        WRONG("a\tb"),
        WRONG("a\0b"),
        WRONG("a:8x"),
        WRONG("a:+80"),
        WRONG("a:-1"),
        WRONG("a:65536"),
        WRONG("a:99999"),
        WRONG("a:18446744073709551696"),
        WRONG("a:80:80"),
        WRONG(":80"),
        WRONG("::1"),
        WRONG("[::1"),
        WRONG("::1]"),
        WRONG("[]"),
        WRONG("[::1]80"),
        WRONG("[::1]:x"),
        WRONG("[::1]]"),
        WRONG("[[::1]]"),
        WRONG("[1]"),
        WRONG("[.]"),
        WRONG("[:::]"),
        WRONG("[1:2:3:4:5:6:7:8:9]"),
        WRONG("[::1.2.3]"),
        WRONG("[x]"),
        WRONG("[v1.x]"),
        WRONG("[::1%eth0]"),
        WRONG("[fe80::1%25a]"),
        WRONG("[0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000]"),
        WRONG("a[::1]"),
        WRONG("a%"),
        WRONG("a%2"),
        WRONG("a%zz"),
    };
#undef WRONG
    check_all_refused(REQUEST, cases, VB_ARRAY_SIZE(cases));
}

/* reg-name, without the comma, which makes a list (RFC 3986 3.2.2) */
static void every_byte_in_a_host(void **state)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        bool fine = is_alphanumeric((unsigned char)byte) || is_one_of((unsigned char)byte, "-._~!$&'()*+;=:");
        if (byte != ':') /* makes a port, which has its own cases */
            check_byte("GET / HTTP/1.1\r\nHost: a", (unsigned char)byte, "b\r\n" END, fine);
    }
}

/* ---- fields ------------------------------------------------------------------------------------------------------ */

static void fields_that_are_fine(void **state)
{
    static const struct accepted cases[] = {
        {BYTES(GET "X:\r\n" END), "GET / host=x 1.1 keep none"},
        {BYTES(GET "X: \t \r\n" END), "GET / host=x 1.1 keep none"},
        {BYTES(GET "X:a\r\n" END), "GET / host=x 1.1 keep none"},
        {BYTES(GET "X: a: b\t\"c\" \xe4\xff\r\n" END), "GET / host=x 1.1 keep none"},
        {BYTES(GET "!#$%&'*+-.^_`|~0: x\r\n" END), "GET / host=x 1.1 keep none"},
        {BYTES(GET "X: a\r\nx: a\r\nX: b\r\n" END), "GET / host=x 1.1 keep none"},
        {BYTES("GET / HTTP/1.1\r\nX: a\r\n" HOST END), "GET / host=x 1.1 keep none"},
    };
    check_all_accepted(REQUEST, cases, VB_ARRAY_SIZE(cases));
}

/* RFC 9110 5.1 and 5.5; RFC 9112 2.2, 5.1 and 5.2 */
static void fields_that_are_refused(void **state)
{
    static const struct refused cases[] = {
        {BYTES(GET "nonsense\r\n" END), 400},
        {BYTES(GET ": x\r\n" END), 400},
        {BYTES(GET ":\r\n" END), 400},
        {BYTES(GET "X : x\r\n" END), 400},
        {BYTES(GET "X\t: x\r\n" END), 400},
        {BYTES(GET "X Y: x\r\n" END), 400},
        {BYTES(GET "X\xe4: x\r\n" END), 400},
        {BYTES(GET "(X): x\r\n" END), 400},
        {BYTES(GET "X\0: x\r\n" END), 400},
        {BYTES(GET "X: a\0b\r\n" END), 400},
        {BYTES(GET "X: a\rb\r\n" END), 400},
        {BYTES(GET "X: a\nb: c\r\n" END), 400},
        {BYTES(GET "X: a\x01\r\n" END), 400},
        {BYTES(GET "X: \x0b\r\n" END), 400},
        {BYTES(GET "X: a\r\r\n" END), 400},
        {BYTES(GET "X: a\r\n b\r\n" END), 400}, /* obs-fold */
        {BYTES(GET "X: a\r\n\tb\r\n" END), 400},
        {BYTES(GET "X: a\r\n \r\n" END), 400},
        {BYTES("GET / HTTP/1.1\r\n X: a\r\n" HOST END), 400},
        {BYTES("GET / HTTP/1.1\r\n \r\n" HOST END), 400},
        {BYTES(GET "\r\r\n"), 400},
    };
    check_all_refused(REQUEST, cases, VB_ARRAY_SIZE(cases));
}

static void every_byte_in_a_field_name(void **state)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        bool fine = is_alphanumeric((unsigned char)byte) || is_one_of((unsigned char)byte, "!#$%&'*+-.^_`|~:");
        check_byte(GET "X", (unsigned char)byte, "Y: a\r\n" END, fine);
    }
}

/* At every place of a word, since values are looked at eight bytes at a time. */
static void every_byte_in_a_field_value(void **state)
{
    static const char *const before[] = {GET "X: ", GET "X: a", GET "X: ab\xe4", GET "X: a\tbcdef", GET "X: abcdefgh"};
    for (size_t i = 0; i < VB_ARRAY_SIZE(before); i++)
        for (unsigned byte = 0; byte < 256; byte++)
            check_byte(before[i], (unsigned char)byte, "abcdefgh\r\n" END,
                       byte == '\t' || (byte >= 0x20 && byte != 0x7f));
}

/* ---- framing ----------------------------------------------------------------------------------------------------- */

static void framings_that_are_fine(void **state)
{
    static const struct accepted cases[] = {
        {BYTES(POST "Content-Length: 0\r\n" END), "POST / host=x 1.1 keep length=0"},
        {BYTES(POST "Content-Length: 5\r\n" END), "POST / host=x 1.1 keep length=5"},
        {BYTES(POST "content-LENGTH:5\r\n" END), "POST / host=x 1.1 keep length=5"},
        {BYTES(POST "Content-Length: 005\r\n" END), "POST / host=x 1.1 keep length=5"},
        {BYTES(POST "Content-Length: 00000000000000000000000000000005\r\n" END), "POST / host=x 1.1 keep length=5"},
        {BYTES(POST "Content-Length: 9223372036854775807\r\n" END),
         "POST / host=x 1.1 keep length=9223372036854775807"},
        {BYTES("POST / HTTP/1.0\r\nContent-Length: 5\r\n" END), "POST / host= 1.0 close length=5"},
        {BYTES(POST "Transfer-Encoding: chunked\r\n" END), "POST / host=x 1.1 keep chunked"},
        {BYTES(POST "TRANSFER-encoding:Chunked \r\n" END), "POST / host=x 1.1 keep chunked"},
        {BYTES(POST "Transfer-Encoding:\t CHUNKED\t \r\n" END), "POST / host=x 1.1 keep chunked"},
        {BYTES(POST "Content-Length:\t 5 \t\r\n" END), "POST / host=x 1.1 keep length=5"},
        /* any method may have a body (RFC 9110 9.3.1): it is consumed, never read as a request */
        {BYTES(GET "Content-Length: 5\r\n" END), "GET / host=x 1.1 keep length=5"},
        {BYTES(GET "Transfer-Encoding: chunked\r\n" END), "GET / host=x 1.1 keep chunked"},
        {BYTES("FOO / HTTP/1.1\r\n" HOST "Content-Length: 5\r\n" END), "FOO / host=x 1.1 keep length=5"},
    };
    check_all_accepted(REQUEST, cases, VB_ARRAY_SIZE(cases));
}

/* RFC 9110 8.6, RFC 9112 6.1 and 6.3. Equal lengths might be merged into one; refusing them is the other choice. */
static void framings_that_are_refused(void **state)
{
#define LENGTH(value)                                                                                                  \
    {                                                                                                                  \
        BYTES(POST "Content-Length: " value "\r\n" END), 400                                                           \
    }
#define CODING(value, status)                                                                                          \
    {                                                                                                                  \
        BYTES(POST "Transfer-Encoding: " value "\r\n" END), status                                                     \
    }
    static const struct refused cases[] = {
        {BYTES(POST "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n" END), 400},
        {BYTES(POST "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n" END), 400},
        {BYTES(POST "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n" END), 400},
        {BYTES(POST "Transfer-Encoding:\r\nContent-Length: 6\r\n" END), 400},
        {BYTES(POST "Content-Length: 5\r\nContent-Length: 10\r\n" END), 400},
        {BYTES(POST "Content-Length: 5\r\nContent-Length: 5\r\n" END), 400},
        {BYTES(POST "Content-Length: 5\r\nX: a\r\ncontent-length: 10\r\n" END), 400},
        {BYTES(POST "Content-Length:\r\n 5\r\n" END), 400},
        {BYTES(POST "Content-Length : 5\r\n" END), 400},
        LENGTH("5, 10"),
        LENGTH("5, 5"),
        LENGTH("5,"),
        LENGTH("+5"),
        LENGTH("-5"),
        LENGTH("-0"),
        LENGTH("0x5"),
        LENGTH("1_0"),
        LENGTH("1 0"),
        LENGTH("1\t0"),
        LENGTH("5z"),
        LENGTH("5."),
        LENGTH("1e1"),
        LENGTH("\"5\""),
        LENGTH(""),
        LENGTH("5\0"),
        LENGTH("\xb2"),
        LENGTH("9223372036854775808"),
        LENGTH("18446744073709551621"), /* 2^64 + 5 */
        LENGTH("99999999999999999999999999999999999999"),
        {BYTES(POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n" END), 400},
        {BYTES(POST "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n" END), 400},
        {BYTES(POST "Transfer-Encoding:\r\n chunked\r\n" END), 400},
        {BYTES(POST "Transfer-Encoding : chunked\r\n" END), 400},
        {BYTES("POST / HTTP/1.0\r\n" HOST "Transfer-Encoding: chunked\r\n" END), 400},
        CODING("gzip", 501),
        CODING("gzip, chunked", 501),
        CODING("identity", 501),
        CODING("xchunked", 501),
        CODING("chunkedx", 501),
        CODING("chunked, gzip", STATUS_400_OR_501),
        CODING("chunked, chunked", STATUS_400_OR_501),
        CODING("chunked, identity", STATUS_400_OR_501),
        CODING(",chunked", STATUS_400_OR_501),
        CODING("chunked,", STATUS_400_OR_501),
        CODING("chunked;q=1", STATUS_400_OR_501),
        CODING("\"chunked\"", STATUS_400_OR_501),
        CODING("chun ked", STATUS_400_OR_501),
        CODING("\x0b"
               "chunked",
               STATUS_400_OR_501),
        CODING("chunked\0", STATUS_400_OR_501),
        CODING("chunked\xff", STATUS_400_OR_501),
        CODING("\xa0"
               "chunked",
               STATUS_400_OR_501),
        CODING("", STATUS_400_OR_501),
    };
#undef LENGTH
#undef CODING
    check_all_refused(REQUEST, cases, VB_ARRAY_SIZE(cases));
}

/* ---- Connection -------------------------------------------------------------------------------------------------- */

/* RFC 9112 9.3 */
static void who_wants_to_persist(void **state)
{
#define GET_1_0 "GET / HTTP/1.0\r\n"
    static const struct accepted cases[] = {
        {BYTES(GET "Connection: close\r\n" END), "GET / host=x 1.1 close none"},
        {BYTES(GET "connection:CLOSE\r\n" END), "GET / host=x 1.1 close none"},
        {BYTES(GET "Connection: keep-alive\r\n" END), "GET / host=x 1.1 keep none"},
        {BYTES(GET "Connection: keep-alive, close\r\n" END), "GET / host=x 1.1 close none"},
        {BYTES(GET "Connection: close, keep-alive\r\n" END), "GET / host=x 1.1 close none"},
        {BYTES(GET "Connection: keep-alive\r\nConnection: close\r\n" END), "GET / host=x 1.1 close none"},
        {BYTES(GET "Connection: , x ,,\tclose\t,\r\n" END), "GET / host=x 1.1 close none"},
        {BYTES(GET "Connection: closed\r\n" END), "GET / host=x 1.1 keep none"},
        {BYTES(GET "Connection:\r\n" END), "GET / host=x 1.1 keep none"},
        {BYTES(GET "X-Connection: close\r\n" END), "GET / host=x 1.1 keep none"},
        {BYTES(GET_1_0 "Connection: keep-alive\r\n" END), "GET / host= 1.0 keep none"},
        {BYTES(GET_1_0 "Connection: Keep-Alive, x\r\n" END), "GET / host= 1.0 keep none"},
        {BYTES(GET_1_0 "Connection: keep-alive, close\r\n" END), "GET / host= 1.0 close none"},
        {BYTES(GET_1_0 "Proxy-Connection: keep-alive\r\n" END), "GET / host= 1.0 close none"},
    };
#undef GET_1_0
    check_all_accepted(REQUEST, cases, VB_ARRAY_SIZE(cases));
}

/* What frames and routes a message is not for one hop only, whatever Connection says (RFC 9110 7.6.1). */
static void connection_must_not_drop_framing_or_host(void **state)
{
    static const struct refused cases[] = {
        {BYTES(GET "Connection: host\r\n" END), 400},
        {BYTES(GET "Connection: close, HOST\r\n" END), 400},
        {BYTES(GET "Connection: close\r\nConnection: x,host\r\n" END), 400},
        {BYTES(POST "Content-Length: 5\r\nConnection: Content-Length\r\n" END), 400},
        {BYTES(POST "Connection: content-length\r\nContent-Length: 5\r\n" END), 400},
        {BYTES(POST "Transfer-Encoding: chunked\r\nConnection: transfer-encoding\r\n" END), 400},
        {BYTES(GET "Connection: transfer-encoding\r\n" END), 400},
    };
    check_all_refused(REQUEST, cases, VB_ARRAY_SIZE(cases));
}

/* The field Upgrade alone asks for nothing (RFC 9110 7.8). */
static void who_wants_an_upgrade(void **state)
{
    static const struct {
        enum kind kind;
        struct vb_str bytes;
        bool wanted;
    } cases[] = {
        {REQUEST, BYTES(GET "Connection: upgrade\r\nUpgrade: websocket\r\n" END), true},
        {REQUEST, BYTES(GET "Upgrade: websocket\r\nConnection: keep-alive,\tUPGRADE\r\n" END), true},
        {REQUEST, BYTES(GET "Connection: close\r\nConnection: Upgrade\r\n" END), true},
        {REQUEST, BYTES(GET "Upgrade: websocket\r\n" END), false},
        {REQUEST, BYTES(GET "Upgrade: websocket\r\nConnection: upgrades, x-upgrade\r\n" END), false},
        {REQUEST, BYTES(GET "Upgrade: upgrade\r\nX-Connection: upgrade\r\n" END), false},
        {RESPONSE, BYTES("HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" END), true},
        {RESPONSE, BYTES("HTTP/1.1 101 x\r\nUpgrade: websocket\r\n" END), false},
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        struct parsed parsed = parse_good(cases[i].kind, cases[i].bytes);
        if (parsed.head->wants_upgrade != cases[i].wanted)
            fail_msg("it does %s, says: %s", cases[i].wanted ? "not" : "want one", shown(cases[i].bytes));
        const struct vb_field *upgrade = vb_head_find(parsed.head, VB_FIELD_UPGRADE);
        assert_true(upgrade == NULL || upgrade->named_by_connection == cases[i].wanted);
        drop(&parsed);
    }
}

static void fields_named_by_connection_are_marked(void **state)
{
    static const struct vb_str bytes = BYTES(GET "X-A: 1\r\nConnection: x-b, x-C\r\nX-B: 2\r\nx-c: 3\r\nX-B: 4\r\n"
                                                 "Connection: x-d\r\nX-BC: 5\r\nX-D: 6\r\n" END);
    static const bool wanted[] = {false, false, false, true, true, true, false, false, true};
    struct parsed parsed = parse_good(REQUEST, bytes);
    assert_int_equal(parsed.head->n_fields, VB_ARRAY_SIZE(wanted));
    for (unsigned i = 0; i < VB_ARRAY_SIZE(wanted); i++)
        assert_int_equal(parsed.head->fields[i].named_by_connection, wanted[i]);
    drop(&parsed);
}

/* ---- the model --------------------------------------------------------------------------------------------------- */

static void assert_str(struct vb_str text, const char *wanted)
{
    if (!vb_str_eq(text, vb_str(wanted)))
        fail_msg("'%.*s', wanted '%s'", VB_STR_ARGS(text), wanted);
}

static void fields_are_slices_of_their_lines(void **state)
{
    static const struct vb_str bytes = BYTES("\r\nPUT /a HTTP/1.1\r\nHost:x\r\nX-Y: \t a b \t\r\nExpect:\r\n\r\nbody");
    struct parsed parsed = parse_good(REQUEST, bytes);
    const struct vb_field *fields = parsed.head->fields;
    assert_int_equal(parsed.r, bytes.n - strlen("body"));
    assert_int_equal(parsed.head->n_fields, 3);
    assert_str(fields[0].name, "Host");
    assert_str(fields[0].value, "x");
    assert_str(fields[1].name, "X-Y");
    assert_str(fields[1].value, "a b");
    assert_str(fields[2].name, "Expect");
    assert_str(fields[2].value, "");
    assert_ptr_equal(fields[0].line_end, fields[1].name.p);
    assert_ptr_equal(fields[1].line_end, fields[2].name.p);
    assert_str((struct vb_str){fields[2].line_end, 2}, "\r\n");
    assert_int_equal(parsed.head->raw.n, parsed.r - 2); /* without the empty line before it */
    assert_ptr_equal(parsed.head->raw.p, parsed.bytes + 2);
    drop(&parsed);
}

static void fields_are_found_by_kind_and_by_name(void **state)
{
    static const struct vb_str bytes = BYTES(GET "X-Id: 1\r\nx-id: 2\r\nEXPECT: 100-continue\r\n"
                                                 "x-forwarded-FOR: a\r\nX-Forwarded-For: b\r\n" END);
    struct parsed parsed = parse_good(REQUEST, bytes);
    const struct vb_head *head = parsed.head;
    assert_str(vb_head_find(head, VB_FIELD_HOST)->value, "x");
    assert_str(vb_head_find(head, VB_FIELD_EXPECT)->value, "100-continue");
    assert_str(vb_head_find(head, VB_FIELD_X_FORWARDED_FOR)->value, "a");
    assert_null(vb_head_find(head, VB_FIELD_UPGRADE));
    assert_str(vb_head_find_name(head, VB_STR("X-ID"))->value, "1");
    assert_null(vb_head_find_name(head, VB_STR("X-I")));
    assert_null(vb_head_find_name(head, VB_STR("")));
    drop(&parsed);
}

/* The names that a proxy must know, in any case; not what only looks like them. */
static void fields_that_are_known(void **state)
{
    static const struct {
        const char *name;
        enum vb_field_id id;
    } cases[] = {
        {"connection", VB_FIELD_CONNECTION},
        {"Keep-Alive", VB_FIELD_KEEP_ALIVE},
        {"PROXY-CONNECTION", VB_FIELD_PROXY_CONNECTION},
        {"te", VB_FIELD_TE},
        {"Upgrade", VB_FIELD_UPGRADE},
        {"expect", VB_FIELD_EXPECT},
        {"Forwarded", VB_FIELD_FORWARDED},
        {"x-forwarded-for", VB_FIELD_X_FORWARDED_FOR},
        {"X-Forwarded-Proto", VB_FIELD_X_FORWARDED_PROTO},
        {"X-Forwarded-Host", VB_FIELD_X_FORWARDED_HOST},
        {"Max-Forwards", VB_FIELD_MAX_FORWARDS},
        {"mAX-fORWARDS", VB_FIELD_MAX_FORWARDS},
        {"Max_Forwards", VB_FIELD_OTHER},
        {"Max-Forward", VB_FIELD_OTHER},
        {"Max-Forwardss", VB_FIELD_OTHER},
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        char bytes[128];
        int n = snprintf(bytes, sizeof(bytes), GET "%s: 1\r\n" END, cases[i].name);
        struct parsed parsed = parse_good(REQUEST, (struct vb_str){bytes, (size_t)n});
        assert_int_equal(parsed.head->fields[1].id, cases[i].id);
        assert_true((parsed.head->present & 1u << cases[i].id) != 0);
        drop(&parsed);
    }
}

static void members_of_a_list(void **state)
{
    struct vb_str list = VB_STR("\t, a ,,b c\t,\td"), member;
    assert_true(vb_list_next(&list, &member));
    assert_str(member, "a");
    assert_true(vb_list_next(&list, &member));
    assert_str(member, "b c");
    assert_true(vb_list_next(&list, &member));
    assert_str(member, "d");
    assert_false(vb_list_next(&list, &member));
    list = VB_STR("");
    assert_false(vb_list_next(&list, &member));
    list = VB_STR(" ,\t,");
    assert_false(vb_list_next(&list, &member));
}

static void idempotent_methods(void **state)
{
    static const char *const idempotent[] = {"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"}; /* RFC 9110 9.2.2 */
    static const char *const others[] = {"POST", "PATCH", "CONNECT", "get", "GETS", "GE", "FOOBAR", ""};
    for (size_t i = 0; i < VB_ARRAY_SIZE(idempotent); i++)
        assert_true(vb_method_is_idempotent(vb_str(idempotent[i])));
    for (size_t i = 0; i < VB_ARRAY_SIZE(others); i++)
        assert_false(vb_method_is_idempotent(vb_str(others[i])));
}

static void every_status_of_a_refusal_has_a_reason(void **state)
{
    static const unsigned statuses[] = {400, 404, 405, 408, 413, 414, 429, 431, 500, 501, 502, 503, 504, 505};
    for (size_t i = 0; i < VB_ARRAY_SIZE(statuses); i++)
        assert_true(strlen(vb_status_reason(statuses[i])) > 0);
    assert_string_equal(vb_status_reason(404), "Not Found");
    assert_string_equal(vb_status_reason(429), "Too Many Requests");
    assert_string_equal(vb_status_reason(799), "");
}

/* ---- limits ------------------------------------------------------------------------------------------------------ */

/* A head of exactly n bytes: `start`, as many `a` as it takes, `end`. */
static char *padded(const char *start, const char *end, size_t n)
{
    char *bytes = malloc(n + 1);
    assert_non_null(bytes);
    memset(bytes, 'a', n);
    bytes[n] = '\0';
    memcpy(bytes, start, strlen(start));
    memcpy(bytes + n - strlen(end), end, strlen(end));
    return bytes;
}

/* Of the n bytes, or of so many of them as are needed to tell. */
static unsigned verdict(enum kind kind, const char *bytes, size_t n, const struct vb_head_limits *limits)
{
    struct parsed parsed = parse(kind, (struct vb_str){bytes, n}, limits);
    unsigned status = parsed.r < 0 ? parsed.refusal.status : parsed.r > 0 ? 200 : 0;
    drop(&parsed);
    return status;
}

static void bytes_of_a_head_are_limited(void **state)
{
    static const struct {
        enum kind kind;
        const char *start, *end;
        unsigned status;
    } cases[] = {
        {REQUEST, "GET /", " HTTP/1.1\r\n" HOST END, 431}, {REQUEST, GET "X: ", "\r\n" END, 431},
        {REQUEST, "", " / HTTP/1.1\r\n" HOST END, 431},    {RESPONSE, OK "X: ", "\r\n" END, 502},
        {RESPONSE, "HTTP/1.1 200 ", "\r\n" END, 502},
    };
    static const struct vb_head_limits limits = {.bytes = 300, .fields = 10};
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        char *fits = padded(cases[i].start, cases[i].end, limits.bytes);
        char *longer = padded(cases[i].start, cases[i].end, limits.bytes + 1);
        char *followed = padded(fits, "", 2 * limits.bytes); /* what comes behind the head is not counted */
        memcpy(followed, fits, limits.bytes);
        assert_int_equal(verdict(cases[i].kind, fits, limits.bytes, &limits), 200);
        assert_int_equal(verdict(cases[i].kind, followed, 2 * limits.bytes, &limits), 200);
        assert_int_equal(verdict(cases[i].kind, longer, limits.bytes - 1, &limits), 0);
        assert_int_equal(verdict(cases[i].kind, longer, limits.bytes, &limits), cases[i].status);
        assert_int_equal(verdict(cases[i].kind, longer, limits.bytes + 1, &limits), cases[i].status);
        free(fits);
        free(longer);
        free(followed);
    }
}

static void request_lines_beyond_the_limit_are_414(void **state)
{
    static const struct vb_head_limits limits = {.bytes = 300, .fields = 10};
    char *bytes = padded("GET /", " HTTP/1.1\r\n" HOST END, 1000);
    for (size_t n = 5; n < 300; n++)
        assert_int_equal(verdict(REQUEST, bytes, n, &limits), 0);
    for (size_t n = 300; n <= 1000; n++)
        assert_int_equal(verdict(REQUEST, bytes, n, &limits), 414);
    free(bytes);
}

/* What was never a request is no request that is too long: the answer does not depend on how much came at once. */
static void nonsense_is_400_also_beyond_the_limit(void **state)
{
    static const struct vb_head_limits limits = {.bytes = 300, .fields = 10};
    char *bytes = padded("\x16\x03\x01", "", 1000);
    for (size_t n = 1; n <= 1000; n++)
        assert_int_equal(verdict(REQUEST, bytes, n, &limits), 400);
    free(bytes);
}

/* RFC 9112 3: at least 8000 octets, as a recommendation. */
static void request_lines_of_8000_bytes_are_fine(void **state)
{
    char *bytes = padded("GET /", " HTTP/1.1\r\n" HOST END, 8000 + strlen(HOST END));
    assert_int_equal(verdict(REQUEST, bytes, 8000 + strlen(HOST END), &usual), 200);
    free(bytes);
}

static size_t head_of_fields(char *to, const char *first_line, unsigned fields)
{
    size_t n = strlen(first_line);
    memcpy(to, first_line, n);
    for (unsigned i = 0; i < fields; i++, n += 6)
        memcpy(to + n, "X: a\r\n", 6);
    memcpy(to + n, "\r\n", 2);
    return n + 2;
}

static void fields_of_a_head_are_counted(void **state)
{
    static char bytes[16 * VB_FIELDS_MAX];
    static const struct vb_head_limits ten = {.bytes = 16384, .fields = 10};
    /* A limit beyond what a head can hold means just that. */
    static const struct vb_head_limits most = {.bytes = sizeof(bytes), .fields = 1000000};
    size_t n = head_of_fields(bytes, GET, 9);
    assert_int_equal(verdict(REQUEST, bytes, n, &ten), 200);
    n = head_of_fields(bytes, GET, 10);
    assert_int_equal(verdict(REQUEST, bytes, n, &ten), 431);
    assert_int_equal(verdict(REQUEST, bytes, n - 2, &ten), 431); /* not only when the head is whole */
    n = head_of_fields(bytes, GET, VB_FIELDS_MAX - 1);
    assert_int_equal(verdict(REQUEST, bytes, n, &most), 200);
    n = head_of_fields(bytes, GET, VB_FIELDS_MAX);
    assert_int_equal(verdict(REQUEST, bytes, n, &most), 431);
    n = head_of_fields(bytes, OK, 10);
    assert_int_equal(verdict(RESPONSE, bytes, n, &ten), 200);
    n = head_of_fields(bytes, OK, 11);
    assert_int_equal(verdict(RESPONSE, bytes, n, &ten), 502);
}

/* ---- early refusal ----------------------------------------------------------------------------------------------- */

/* No sooner and no later than with its last byte, though the head is not whole. */
static void check_refused_at_last_byte(enum kind kind, struct vb_str bytes)
{
    for (size_t n = 0; n <= bytes.n; n++) {
        struct parsed parsed = parse(kind, (struct vb_str){bytes.p, n}, &usual);
        if (parsed.r != (n < bytes.n ? 0 : -EPROTO))
            fail_msg("%zd after %zu bytes of: %s", parsed.r, n, shown(bytes));
        drop(&parsed);
    }
}

static void hopeless_input_is_refused_at_once(void **state)
{
    static const struct vb_str requests[] = {
        BYTES("\x16"), /* TLS */
        BYTES("\x80"),
        BYTES(" "),
        BYTES("\n"),
        BYTES("G("),
        BYTES("GET\t"),
        BYTES("GET / HTTP/2.0\r\n"),
        BYTES("CONNECT x:443 HTTP/1.1\r\n"),
        BYTES("GET / HTTP/1.1\n"),
        BYTES(GET "X : a\r\n"),
        BYTES(GET "X: a\n"),
        BYTES(GET " X: a\r\n"),
        BYTES(GET "Host: y\r\n"),
        BYTES(POST "Content-Length: 5\r\nContent-Length: 6\r\n"),
    };
    static const struct vb_str responses[] = {
        BYTES("S"),         BYTES("\r"), BYTES("HTTP/2"), BYTES("HTTP/1.1 2x0 OK\r\n"), BYTES(OK "X : a\r\n"),
        BYTES(OK "X: a\n"),
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(requests); i++)
        check_refused_at_last_byte(REQUEST, requests[i]);
    for (size_t i = 0; i < VB_ARRAY_SIZE(responses); i++)
        check_refused_at_last_byte(RESPONSE, responses[i]);
}

/* ---- responses --------------------------------------------------------------------------------------------------- */

static void responses_that_are_fine(void **state)
{
    static const struct accepted cases[] = {
        {BYTES(OK END), "200 [OK] 1.1 keep until close"},
        {BYTES(OK "Content-Length: 5\r\n" END), "200 [OK] 1.1 keep length=5"},
        {BYTES("HTTP/1.2 200 OK\r\n" END), "200 [OK] 1.1 keep until close"},
        {BYTES("HTTP/1.9 200\r\nTransfer-Encoding: chunked\r\n" END), "200 [] 1.1 keep chunked"},
        {BYTES(OK "Content-Length: 0\r\n" END), "200 [OK] 1.1 keep length=0"},
        {BYTES(OK "Content-Length: 005\r\n" END), "200 [OK] 1.1 keep length=5"},
        {BYTES(OK "Transfer-Encoding: chunked\r\n" END), "200 [OK] 1.1 keep chunked"},
        {BYTES(OK "Connection: close\r\n" END), "200 [OK] 1.1 close until close"},
        {BYTES("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n" END), "200 [OK] 1.0 close length=5"},
        {BYTES("HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n" END), "200 [OK] 1.0 keep length=5"},
        {BYTES("HTTP/1.1 404 Not Found, sorry\xe4\r\n" END), "404 [Not Found, sorry\xe4] 1.1 keep until close"},
        {BYTES("HTTP/1.1 200 \r\n" END), "200 [] 1.1 keep until close"},
        {BYTES("HTTP/1.1 200\r\n" END), "200 [] 1.1 keep until close"}, /* common, though the space is not optional */
        {BYTES("HTTP/1.1 599 x\r\n" END), "599 [x] 1.1 keep until close"},
        /* no body, whatever the fields say (RFC 9112 6.3) */
        {BYTES("HTTP/1.1 100 Continue\r\n" END), "100 [Continue] 1.1 keep none"},
        {BYTES("HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n" END), "103 [Early Hints] 1.1 keep none"},
        {BYTES("HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: a\r\n" END), "101 [x] 1.1 keep none"},
        {BYTES("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n" END), "204 [No Content] 1.1 keep none"},
        {BYTES("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n" END), "204 [No Content] 1.1 keep none"},
        {BYTES("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n" END), "304 [Not Modified] 1.1 keep none"},
        {BYTES("HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n" END), "205 [Reset Content] 1.1 keep length=0"},
    };
    static const struct accepted to_head[] = {
        {BYTES(OK END), "200 [OK] 1.1 keep none"},
        {BYTES(OK "Content-Length: 5\r\n" END), "200 [OK] 1.1 keep none"},
        {BYTES(OK "Transfer-Encoding: chunked\r\n" END), "200 [OK] 1.1 keep none"},
        {BYTES("HTTP/1.1 404 x\r\nContent-Length: 5\r\n" END), "404 [x] 1.1 keep none"},
    };
    check_all_accepted(RESPONSE, cases, VB_ARRAY_SIZE(cases));
    check_all_accepted(RESPONSE_TO_HEAD, to_head, VB_ARRAY_SIZE(to_head));
}

/* 502, whatever is wrong: the client did nothing wrong. */
static void responses_that_are_refused(void **state)
{
    static const struct refused cases[] = {
        {BYTES("hello\r\n\r\n"), 502},
        {BYTES("\r\n" OK END), 502},
        {BYTES("HTTP/0.9 200 OK\r\n\r\n"), 502},
        {BYTES("HTTP/2.0 200 OK\r\n\r\n"), 502},
        {BYTES("HTTP/1.x 200 OK\r\n\r\n"), 502},
        {BYTES("http/1.1 200 OK\r\n\r\n"), 502},
        {BYTES("HTTP/1.1\r\n\r\n"), 502},
        {BYTES("HTTP/1.1 \r\n\r\n"), 502},
        {BYTES("HTTP/2 200\r\n\r\n"), 502},
        {BYTES("HTTP/1.1 20\r\n\r\n"), 502},
        {BYTES("HTTP/1.1 20 OK\r\n\r\n"), 502},
        {BYTES("HTTP/1.1 000 OK\r\n\r\n"), 502},
        {BYTES("HTTP/1.1 2000 OK\r\n\r\n"), 502},
        {BYTES("HTTP/1.1 099 OK\r\n\r\n"), 502},
        {BYTES("HTTP/1.1 +20 OK\r\n\r\n"), 502},
        {BYTES("HTTP/1.1 20x OK\r\n\r\n"), 502},
        {BYTES("HTTP/1.1  200 OK\r\n\r\n"), 502},
        {BYTES("HTTP/1.1\t200 OK\r\n\r\n"), 502},
        {BYTES("HTTP/1.1 200\tOK\r\n\r\n"), 502},
        {BYTES("HTTP/1.1 200OK\r\n\r\n"), 502},
        {BYTES("HTTP/1.1 200 O\0K\r\n\r\n"), 502},
        {BYTES("HTTP/1.1 200 O\rK\r\n\r\n"), 502},
        {BYTES("HTTP/1.1 200 OK\nX: a\n\n"), 502},
        {BYTES(OK "X: a\r\n b\r\n" END), 502},
        {BYTES(OK "X : a\r\n" END), 502},
        {BYTES(OK ": a\r\n" END), 502},
        {BYTES(OK "X: a\0b\r\n" END), 502},
        {BYTES(OK "Content-Length: 5\r\nContent-Length: 6\r\n" END), 502},
        {BYTES(OK "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n" END), 502},
        {BYTES(OK "Content-Length: 5, 6\r\n" END), 502},
        {BYTES(OK "Content-Length: -1\r\n" END), 502},
        {BYTES(OK "Content-Length: 18446744073709551621\r\n" END), 502},
        {BYTES(OK "Transfer-Encoding: gzip\r\n" END), 502},
        {BYTES(OK "Transfer-Encoding: chunked, gzip\r\n" END), 502},
        {BYTES(OK "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n" END), 502},
        {BYTES("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n" END), 502},
        {BYTES(OK "Connection: content-length\r\nContent-Length: 5\r\n" END), 502},
        {BYTES("HTTP/1.1 204 x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n" END), 502},
    };
    check_all_refused(RESPONSE, cases, VB_ARRAY_SIZE(cases));
}

#define TEST(function) cmocka_unit_test(function)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(request_lines_that_are_fine),
        TEST(request_lines_that_are_refused),
        TEST(targets_that_are_fine),
        TEST(targets_that_are_refused),
        TEST(every_byte_in_a_target),
        TEST(every_byte_in_a_method),
        TEST(hosts_that_are_fine),
        TEST(hosts_that_are_refused),
        TEST(every_byte_in_a_host),
        TEST(fields_that_are_fine),
        TEST(fields_that_are_refused),
        TEST(every_byte_in_a_field_name),
        TEST(every_byte_in_a_field_value),
        TEST(framings_that_are_fine),
        TEST(framings_that_are_refused),
        TEST(who_wants_to_persist),
        TEST(connection_must_not_drop_framing_or_host),
        TEST(who_wants_an_upgrade),
        TEST(fields_named_by_connection_are_marked),
        TEST(fields_are_slices_of_their_lines),
        TEST(fields_are_found_by_kind_and_by_name),
        TEST(fields_that_are_known),
        TEST(members_of_a_list),
        TEST(idempotent_methods),
        TEST(every_status_of_a_refusal_has_a_reason),
        TEST(bytes_of_a_head_are_limited),
        TEST(request_lines_beyond_the_limit_are_414),
        TEST(nonsense_is_400_also_beyond_the_limit),
        TEST(request_lines_of_8000_bytes_are_fine),
        TEST(fields_of_a_head_are_counted),
        TEST(hopeless_input_is_refused_at_once),
        TEST(responses_that_are_fine),
        TEST(responses_that_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
