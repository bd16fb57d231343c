/* PROXY headers: whole ones are read, impossible ones are refused at the byte that makes them so, others wait. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>

#include "vb/addr.h"
#include "vb/proxyproto.h"

#define MARK      '|' /* in refused headers: behind the byte that is too much */
#define NOBODY    "?" /* as vb_addr_format writes AF_UNSPEC */
#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define V4_BLOCK  "\x0a\1\2\3\x0a\0\0\1\x1f\x90\0\x50" /* 10.1.2.3:8080 to 10.0.0.1:80 */
#define V6_BLOCK  "\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\2\xff\xff\0\x50"
#define X10       "xxxxxxxxxx"
#define X90       X10 X10 X10 X10 X10 X10 X10 X10 X10
#define NUL_8     "\0\0\0\0\0\0\0\0"
#define NUL_216                                                                                                        \
    NUL_8 NUL_8 NUL_8 NUL_8 NUL_8 NUL_8 NUL_8 NUL_8 NUL_8 NUL_8 NUL_8 NUL_8 NUL_8 NUL_8 NUL_8 NUL_8 NUL_8 NUL_8 NUL_8  \
        NUL_8 NUL_8 NUL_8 NUL_8 NUL_8 NUL_8 NUL_8 NUL_8
#define FULL_V6 "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
#define LONG_V6 "1111:1111:1111:1111:1111:1111:111.111.111.111" /* inet_pton reads it; two are too long for a line */

/* From memory of exactly n bytes, so that ASan sees a read behind them. *ret_source is untouched unless it is > 0. */
static ssize_t parse(const char *bytes, size_t n, struct sockaddr_storage *ret_source)
{
    static const struct sockaddr_storage untouched = {.ss_family = AF_MAX};
    char *exact = malloc(n > 0 ? n : 1);
    const char *why = NULL;
    assert_non_null(exact);
    memcpy(exact, bytes, n);
    *ret_source = untouched;
    ssize_t r = vb_proxyproto_parse(exact, n, ret_source, &why);
    free(exact);
    assert_true(r == -EPROTO || (r >= 0 && (size_t)r <= n));
    assert_true((r == -EPROTO) == (why != NULL));
    assert_true(r > 0 || memcmp(ret_source, &untouched, sizeof(untouched)) == 0);
    return r;
}

/* Waits at each byte before the last, whatever follows the header. */
static void expect_valid(struct vb_str header, const char *wanted)
{
    static const char *const next[] = {"", "GET / HTTP/1.1\r\n", "PROXY UNKNOWN\r\n", "\r\n", "\n", " "};
    struct sockaddr_storage source;
    char text[VB_ADDR_TEXT_MAX], *bytes = malloc(header.n + 32);
    assert_non_null(bytes);
    for (size_t n = 0; n < header.n; n++)
        if (parse(header.p, n, &source) != 0)
            fail_msg("%s: %zu of %zu bytes do not wait: %.*s", wanted, n, header.n, VB_STR_ARGS(header));
    for (size_t i = 0; i < VB_ARRAY_SIZE(next); i++) {
        memcpy(bytes, header.p, header.n);
        memcpy(bytes + header.n, next[i], strlen(next[i]));
        ssize_t r = parse(bytes, header.n + strlen(next[i]), &source);
        if (r != (ssize_t)header.n)
            fail_msg("%s: %zd, not %zu bytes: %.*s", wanted, r, header.n, VB_STR_ARGS(header));
        assert_string_equal(vb_addr_format(text, sizeof(text), (struct sockaddr *)&source), wanted);
    }
    free(bytes);
}

/* Waits up to the byte before the mark, and with that byte there is no way back. */
static void expect_refused(struct vb_str header)
{
    struct sockaddr_storage source;
    char *bytes = malloc(header.n);
    assert_non_null(bytes);
    const char *mark = memrchr(header.p, MARK, header.n);
    assert_non_null(mark);
    size_t needed = (size_t)(mark - header.p), whole = header.n - 1;
    memcpy(bytes, header.p, needed);
    memcpy(bytes + needed, mark + 1, whole - needed);
    for (size_t n = 0; n <= whole; n++) {
        ssize_t r = parse(bytes, n, &source);
        if (r != (n < needed ? 0 : -EPROTO))
            fail_msg("%zd for %zu of %zu bytes: %.*s", r, n, whole, VB_STR_ARGS(header));
    }
    free(bytes);
}

/* ---- version 1 --------------------------------------------------------------------------------------------------- */

static void lines_are_read(void **state)
{
    static const struct {
        const char *line, *source;
    } cases[] = {
        {"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", "192.168.0.1:56324"},
        {"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255:65535"},
        {"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", "0.0.0.0:0"},
        {"PROXY TCP4 10.20.30.40 1.2.3.4 10 9\r\n", "10.20.30.40:10"},
        {"PROXY TCP6 2001:db8::1 2001:DB8::2 1 65535\r\n", "[2001:db8::1]:1"},
        {"PROXY TCP6 :: ::1 0 80\r\n", "[::]:0"},
        {"PROXY TCP6 1:2:3:4:5:6:7:: ::2:3:4:5:6:7:8 80 80\r\n", "[1:2:3:4:5:6:7:0]:80"},
        {"PROXY TCP6 1:2:3:4:5:6:7:8 1:2:3:4:5:6:17.18.19.20 80 80\r\n", "[1:2:3:4:5:6:7:8]:80"},
        {"PROXY TCP6 1:2:3:4:5:6:7.8.9.10 fe80:: 80 80\r\n", "[1:2:3:4:5:6:708:90a]:80"},
        {"PROXY TCP6 ::ffff:192.168.0.1 ::ffff:10.0.0.1 80 80\r\n", "192.168.0.1:80"},
        {"PROXY TCP6 ::ffff:a00:1 ::1 80 80\r\n", "10.0.0.1:80"},
        {"PROXY TCP6 " FULL_V6 " " FULL_V6 " 65535 65535\r\n", "[" FULL_V6 "]:65535"},
        {"PROXY UNKNOWN\r\n", NOBODY},
        {"PROXY UNKNOWN \r\n", NOBODY},
        {"PROXY UNKNOWN " FULL_V6 " " FULL_V6 " 65535 65535\r\n", NOBODY}, /* 107 bytes */
        {"PROXY UNKNOWN 1.2.3.4 1.2.3.4 5 6 PROXY TCP4\r\n", NOBODY},
        {"PROXY UNKNOWN  \x01\xff\x7f\t\r\n", NOBODY},
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++)
        expect_valid(vb_str(cases[i].line), cases[i].source);
    expect_valid(VB_STR("PROXY UNKNOWN a\0b\r\n"), NOBODY);
}

static void the_family_is_as_it_was_written(void **state)
{
    const struct vb_str mapped = VB_STR("PROXY TCP6 ::ffff:10.0.0.1 ::1 1 2\r\n"),
                        plain = VB_STR("PROXY TCP4 10.0.0.1 10.0.0.1 1 2\r\n");
    struct sockaddr_storage source;
    assert_int_equal(parse(mapped.p, mapped.n, &source), mapped.n);
    assert_int_equal(source.ss_family, AF_INET6);
    assert_int_equal(parse(plain.p, plain.n, &source), plain.n);
    assert_int_equal(source.ss_family, AF_INET);
}

static void other_bytes_are_refused_at_once(void **state)
{
    for (unsigned c = 0; c < 256; c++) {
        char byte = (char)c;
        struct sockaddr_storage source;
        assert_int_equal(parse(&byte, 1, &source), byte == 'P' || byte == '\r' ? 0 : -EPROTO);
    }
    static const char *const cases[] = {
        "G|ET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "PO|ST / HTTP/1.1\r\n",
        "PRI| * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "PROP|FIND / HTTP/1.1\r\n",
        " |PROXY UNKNOWN\r\n",
        "p|roxy UNKNOWN\r\n",
        "\n|",
        "\x16|\x03\x01",
        "\r\nG|ET / HTTP/1.1\r\n",
        "\r\n\r\n\r|\n",
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++)
        expect_refused(vb_str(cases[i]));
}

static void wrong_words_are_refused(void **state)
{
    static const char *const cases[] = {
        "PROXY\r|\n",
        "PROXY\t|TCP4 1.1.1.1 1.1.1.1 1 1\r\n",
        "PROXY  |TCP4 1.1.1.1 1.1.1.1 1 1\r\n",
        "PROXY \r|\n",
        "PROXY t|cp4 1.1.1.1 1.1.1.1 1 1\r\n",
        "PROXY TCP5| 1.1.1.1 1.1.1.1 1 1\r\n",
        "PROXY TCP |1.1.1.1 1.1.1.1 1 1\r\n",
        "PROXY TCP4\r|\n",
        "PROXY TCP46| ::1 ::1 1 1\r\n",
        "PROXY UD|P4 1.1.1.1 1.1.1.1 1 1\r\n",
        "PROXY UNKNOWn|\r\n",
        "PROXY UNKNOWNS|\r\n",
        "PROXY UNKNOWN\n|",
        "PROXY UNKNOWN\n|GET / HTTP/1.1\r\n",
        "PROXY UNKNOWN \n|\r\n",
        "PROXY UNKNOWN\r |\n",
        "PROXY UNKNOWN a\rb|\r\n",
        "PROXY UNKNOWN a\r\r|\n",
        "PROXY UNKNOWN " X90 "xx|x\r\n", /* 106 bytes that do not end with CR */
        "PROXY UNKNOWN " X90 "xx|" X90 X90 "\r\n",
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++)
        expect_refused(vb_str(cases[i]));
}

static void wrong_addresses_are_refused(void **state)
{
    static const char *const cases[] = {
        "PROXY TCP4  |1.1.1.1 1.1.1.1 1 1\r\n",
        "PROXY TCP4 \r|\n",
        "PROXY TCP4 256|.1.1.1 1.1.1.1 1 1\r\n",
        "PROXY TCP4 01|.1.1.1 1.1.1.1 1 1\r\n",
        "PROXY TCP4 1..|1.1 1.1.1.1 1 1\r\n",
        "PROXY TCP4 .|1.1.1 1.1.1.1 1 1\r\n",
        "PROXY TCP4 1.1.1 |1.1.1.1 1 1\r\n",
        "PROXY TCP4 1.1.1. |1.1.1.1 1 1\r\n",
        "PROXY TCP4 1.1.1.1.|1 1.1.1.1 1 1\r\n",
        "PROXY TCP4 1.1.1.1111| 1.1.1.1 1 1\r\n",
        "PROXY TCP4 +|1.1.1.1 1.1.1.1 1 1\r\n",
        "PROXY TCP4 0x|1.1.1.1 1.1.1.1 1 1\r\n",
        "PROXY TCP4 a|.example 1.1.1.1 1 1\r\n",
        "PROXY TCP4 :|:1 ::1 1 1\r\n",
        "PROXY TCP4 1:|:1 ::1 1 1\r\n",
        "PROXY TCP4 1.1.1.1\t|1.1.1.1 1 1\r\n",
        "PROXY TCP4 1.1.1.1\r|\n",
        "PROXY TCP4 1.1.1.1\n|1.1.1.1 1 1\r\n",
        "PROXY TCP4 1.1.1.1  |1.1.1.1 1 1\r\n",
        "PROXY TCP4 1.1.1.1 1.1.1.256| 1 1\r\n",
        "PROXY TCP4 1.1.1.1 1.1.1 |1 1\r\n",
        "PROXY TCP4 1.1.1.1 :|:1 1 1\r\n",
        "PROXY TCP6 1.|1.1.1 1.1.1.1 1 1\r\n",
        "PROXY TCP6 1 |::1 1 1\r\n",
        "PROXY TCP6 g|::1 ::1 1 1\r\n",
        "PROXY TCP6 [|::1] ::1 1 1\r\n",
        "PROXY TCP6 :::|1 ::1 1 1\r\n",
        "PROXY TCP6 :1|::1 ::1 1 1\r\n",
        "PROXY TCP6 1::1::| ::1 1 1\r\n",
        "PROXY TCP6 1: |::1 1 1\r\n",
        "PROXY TCP6 12345|::1 ::1 1 1\r\n",
        "PROXY TCP6 1:2:3:4:5:6:7 |::1 1 1\r\n",
        "PROXY TCP6 1:2:3:4:5:6:7:8:|9 ::1 1 1\r\n",
        "PROXY TCP6 1:2:3:4:5:6:7:1.|1.1.1 ::1 1 1\r\n",
        "PROXY TCP6 ::ffff:256.|1.1.1 ::1 1 1\r\n",
        "PROXY TCP6 ::ffff:1.1.1 |::1 1 1\r\n",
        "PROXY TCP6 fe80::1%|eth0 ::1 1 1\r\n",
        "PROXY TCP6 ::1/|128 ::1 1 1\r\n",
        "PROXY TCP6 ::1 1.|1.1.1 1 1\r\n",
        "PROXY TCP6 " LONG_V6 "1| ::1 1 1\r\n",
        "PROXY TCP6 " LONG_V6 " " LONG_V6 " 655|35 65535\r\n",
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++)
        expect_refused(vb_str(cases[i]));
    expect_refused(VB_STR("PROXY TCP4 1.1.1.1\0| 1.1.1.1 1 1\r\n"));
    expect_refused(VB_STR("PROXY TCP6 ::1 ::1\0| 1 1\r\n"));
}

static void wrong_ports_and_ends_are_refused(void **state)
{
    static const char *const cases[] = {
        "  |1\r\n",    " -|1 1\r\n",
        " +|1 1\r\n",  " 01|\r\n",
        " 00|\r\n",    " 65536| 1\r\n",
        " 70000| 1",   " 100000|0",
        " a|",         " 1a| 1\r\n",
        " 1 \r|\n",    " 1\r|\n",
        " 1\t|1\r\n",  " 1  |1\r\n",
        " 1 01|\r\n",  " 1 65536|\r\n",
        " 1 -|1\r\n",  " 1 +|1\r\n",
        " 1 1 |\r\n",  " 1 1\n|",
        " 1 1\r\r|\n", " 1 1\r |\n",
        " 1 1\t|\r\n", " 1 1,|\r\n",
        " 1 0x|1\r\n", " 1 99999|999999999999999\r\n",
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        char line[128];
        snprintf(line, sizeof(line), "PROXY TCP4 1.1.1.1 1.1.1.1%s", cases[i]);
        expect_refused(vb_str(line));
    }
}

/* ---- version 2 --------------------------------------------------------------------------------------------------- */

static void binary_headers_are_read(void **state)
{
    const struct {
        struct vb_str header;
        const char *source;
    } cases[] = {
        {VB_STR(SIGNATURE "\x21\x11\0\x0c" V4_BLOCK), "10.1.2.3:8080"},
        {VB_STR(SIGNATURE "\x21\x12\0\x0c" V4_BLOCK), "10.1.2.3:8080"},
        {VB_STR(SIGNATURE "\x21\x21\0\x24" V6_BLOCK), "[2001:db8::1]:65535"},
        {VB_STR(SIGNATURE "\x21\x22\0\x24" V6_BLOCK), "[2001:db8::1]:65535"},
        {VB_STR(SIGNATURE "\x21\x31\0\xd8" NUL_216), NOBODY},
        {VB_STR(SIGNATURE "\x21\x32\0\xd8" NUL_216), NOBODY},
        {VB_STR(SIGNATURE "\x21\x11\0\x0f" V4_BLOCK "\x04\0\0"), "10.1.2.3:8080"},
        {VB_STR(SIGNATURE "\x21\x11\0\x19" V4_BLOCK "\x02\0\7a.b.c.d\xea\0\0"), "10.1.2.3:8080"},
        {VB_STR(SIGNATURE "\x21\x31\0\xdc" NUL_216 "\x04\0\1x"), NOBODY},
        /* the rest is skipped, whatever it is */
        {VB_STR(SIGNATURE "\x21\0\0\0"), NOBODY},
        {VB_STR(SIGNATURE "\x21\0\0\4abcd"), NOBODY},
        {VB_STR(SIGNATURE "\x21\1\0\1\3"), NOBODY},
        {VB_STR(SIGNATURE "\x21\x10\0\x0c" V4_BLOCK), NOBODY},
        {VB_STR(SIGNATURE "\x21\x20\0\0"), NOBODY},
        {VB_STR(SIGNATURE "\x20\0\0\0"), NOBODY},
        {VB_STR(SIGNATURE "\x20\x11\0\x0c" V4_BLOCK), NOBODY},
        {VB_STR(SIGNATURE "\x20\x11\0\1\3"), NOBODY},
        {VB_STR(SIGNATURE "\x20\xff\0\2\3\3"), NOBODY},
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++)
        expect_valid(cases[i].header, cases[i].source);
}

static void wrong_binary_headers_are_refused(void **state)
{
    const struct vb_str cases[] = {
        VB_STR("\r\n\r\n\0\r\nQUIT\r|"),
        VB_STR("\r\n\r\n\0\r\nq|uit\n\x21\x11"),
        VB_STR("\r\n\r\n\1|\r\nQUIT\n\x21\x11"),
        VB_STR(SIGNATURE "\x11|\x11\0\x0c" V4_BLOCK),
        VB_STR(SIGNATURE "\x01|\x11\0\x0c" V4_BLOCK),
        VB_STR(SIGNATURE "\x31|\x11\0\x0c" V4_BLOCK),
        VB_STR(SIGNATURE "\x22|\x11\0\x0c" V4_BLOCK),
        VB_STR(SIGNATURE "\x2f|\x11\0\x0c" V4_BLOCK),
        VB_STR(SIGNATURE "\x21\x13|\0\x0c" V4_BLOCK),
        VB_STR(SIGNATURE "\x21\x03|\0\0"),
        VB_STR(SIGNATURE "\x21\x41|\0\0"),
        VB_STR(SIGNATURE "\x21\xf0|\0\0"),
        /* lengths */
        VB_STR(SIGNATURE "\x21\x11\0\0|"),
        VB_STR(SIGNATURE "\x21\x11\0\x0b|" V4_BLOCK),
        VB_STR(SIGNATURE "\x21\x11\0\x0d|" V4_BLOCK "\0"),
        VB_STR(SIGNATURE "\x21\x11\0\x0e|" V4_BLOCK "\0\0"),
        VB_STR(SIGNATURE "\x21\x21\0\x0c|" V4_BLOCK),
        VB_STR(SIGNATURE "\x21\x21\0\x23|" V6_BLOCK),
        VB_STR(SIGNATURE "\x21\x31\0\xd7|" NUL_216),
        VB_STR(SIGNATURE "\x21\x32\0\xda|" NUL_216 "\0\0"),
        /* TLVs: beyond the end; one or two bytes behind the last; in the first and in the second */
        VB_STR(SIGNATURE "\x21\x11\0\x0f" V4_BLOCK "\x04\0\1|"),
        VB_STR(SIGNATURE "\x21\x11\0\x0f" V4_BLOCK "\x04\1|\0"),
        VB_STR(SIGNATURE "\x21\x11\0\x10" V4_BLOCK "\x04\0\0|\0"),
        VB_STR(SIGNATURE "\x21\x11\0\x11" V4_BLOCK "\x04\0\0|\0\0"),
        VB_STR(SIGNATURE "\x21\x11\0\x12" V4_BLOCK "\x04\0\0\x04\0\1|"),
        VB_STR(SIGNATURE "\x21\x11\0\x14" V4_BLOCK "\x04\0\1x\x04\xff|\xff\0"),
        VB_STR(SIGNATURE "\x21\x11\0\x0f" V4_BLOCK "\x04\xff|\xff"),
        /* checksums of another length, two of them, and where there is no place for one */
        VB_STR(SIGNATURE "\x21\x11\0\x0f" V4_BLOCK "\x03|\0\0"),
        VB_STR(SIGNATURE "\x21\x11\0\x14" V4_BLOCK "\x03|\0\5abcde"),
        VB_STR(SIGNATURE "\x21\x11\0\x13" V4_BLOCK "\x03\0\5|abcd"),
        VB_STR(SIGNATURE "\x21\x11\0\x13" V4_BLOCK "\x03\0\3|abcd"),
        VB_STR(SIGNATURE "\x21\x11\0\x13" V4_BLOCK "\x03\4|\0abcd"),
        VB_STR(SIGNATURE "\x21\x11\0\x1a" V4_BLOCK "\x03\0\4abcd\x03|\0\4abcd"),
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++)
        expect_refused(cases[i]);
}

/* Sums by a bitwise implementation in another language; each bit counts, those of the sum too. */
static void checksums_are_verified(void **state)
{
    const struct {
        struct vb_str header;
        const char *source;
        size_t sum_tlv_at;
    } cases[] = {
        {VB_STR(SIGNATURE "\x21\x11\0\x13" V4_BLOCK "\x03\0\4"
                          "\x11\xcb\xde\xa7"),
         "10.1.2.3:8080", 28},
        {VB_STR(SIGNATURE "\x21\x11\0\x1a" V4_BLOCK "\x03\0\4"
                          "\x6e\x0f\xcb\xc2"
                          "\x04\0\4abcd"),
         "10.1.2.3:8080", 28},
        {VB_STR(SIGNATURE "\x21\x21\0\x2f" V6_BLOCK "\x01\0\1h\x03\0\4"
                          "\xc5\xc0\x7b\x52"),
         "[2001:db8::1]:65535", 56},
        {VB_STR(SIGNATURE "\x21\x31\0\xdf" NUL_216 "\x03\0\4"
                          "\x40\xe4\xe1\x6f"),
         NOBODY, 232},
    };
    for (size_t i = 0; i < VB_ARRAY_SIZE(cases); i++) {
        struct vb_str header = cases[i].header;
        struct sockaddr_storage source;
        char *bytes = malloc(header.n);
        assert_non_null(bytes);
        expect_valid(header, cases[i].source);
        memcpy(bytes, header.p, header.n);
        for (size_t bit = 16 * 8; bit < header.n * 8; bit++) {
            if (bit / 8 == cases[i].sum_tlv_at) /* of another type it is no sum */
                continue;
            bytes[bit / 8] ^= (char)(1 << bit % 8);
            assert_int_equal(parse(bytes, header.n, &source), -EPROTO);
            bytes[bit / 8] ^= (char)(1 << bit % 8);
        }
        free(bytes);
    }
}

/* As long as a header can be: one TLV, and as many as there can be. */
static void the_longest_are_read(void **state)
{
    const struct vb_str head = VB_STR(SIGNATURE "\x21\x11\xff\xff" V4_BLOCK);
    static char bytes[VB_PROXYPROTO_MAX + 1];
    const size_t tlvs = VB_PROXYPROTO_MAX - head.n; /* 65523, a multiple of 3 */
    struct sockaddr_storage source;
    memcpy(bytes, head.p, head.n);
    for (unsigned i = 0; i < 2; i++) {
        bytes[head.n] = 4;
        bytes[head.n + 1] = i == 0 ? (char)((tlvs - 3) >> 8) : 0;
        bytes[head.n + 2] = i == 0 ? (char)(tlvs - 3) : 0;
        for (size_t n = 0; n < VB_PROXYPROTO_MAX; n += n < 64 || n > VB_PROXYPROTO_MAX - 64 ? 1 : 61)
            assert_int_equal(parse(bytes, n, &source), 0);
        assert_int_equal(parse(bytes, VB_PROXYPROTO_MAX, &source), VB_PROXYPROTO_MAX);
        assert_int_equal(parse(bytes, sizeof(bytes), &source), VB_PROXYPROTO_MAX);
        assert_int_equal(source.ss_family, AF_INET);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_read),
        cmocka_unit_test(the_family_is_as_it_was_written),
        cmocka_unit_test(other_bytes_are_refused_at_once),
        cmocka_unit_test(wrong_words_are_refused),
        cmocka_unit_test(wrong_addresses_are_refused),
        cmocka_unit_test(wrong_ports_and_ends_are_refused),
        cmocka_unit_test(binary_headers_are_read),
        cmocka_unit_test(wrong_binary_headers_are_refused),
        cmocka_unit_test(checksums_are_verified),
        cmocka_unit_test(the_longest_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
