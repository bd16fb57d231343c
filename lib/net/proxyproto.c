/*
 * Strict, because an address that is read wrongly is a client that is somebody else. A header that cannot become valid
 * any more is refused at the byte that did it: nobody waits for the end of a line that plain HTTP never sends. Nothing
 * is kept between calls; what a longer prefix gives never contradicts a shorter one.
 */
#include "vb/proxyproto.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>

#include "vb/str.h"

static ssize_t refuse(const char **ret_why, const char *why)
{
    *ret_why = why;
    return -EPROTO;
}

/* Whether the text begins with `begin`, or could when more of it comes. */
static bool may_begin(struct vb_str text, struct vb_str begin)
{
    return memcmp(text.p, begin.p, VB_MIN(text.n, begin.n)) == 0;
}

/* The places of both families' parts; the port is at the same one. */
static void *address_of(struct sockaddr_storage *to)
{
    return to->ss_family == AF_INET ? (void *)&((struct sockaddr_in *)to)->sin_addr
                                    : (void *)&((struct sockaddr_in6 *)to)->sin6_addr;
}

static in_port_t *port_of(struct sockaddr_storage *to)
{
    return &((struct sockaddr_in *)to)->sin_port;
}

/* ---- version 1: a line ---- */
#define V1_MAX    107          /* with its CRLF */
#define V1_CR_MAX (V1_MAX - 1) /* bytes up to the CR, itself included */

/* Behind a CR at bytes[at - 1]: it ends the line with an LF only. */
static ssize_t take_lf(const char *bytes, size_t n, size_t at, const char **ret_why)
{
    if (n == at)
        return 0;
    return bytes[at] == '\n' ? (ssize_t)at + 1 : refuse(ret_why, "a CR without LF");
}

static bool parse_address(struct vb_str text, const char *completion, struct sockaddr_storage *to)
{
    char copy[INET6_ADDRSTRLEN + sizeof(".0.0.0")];
    if (text.n >= INET6_ADDRSTRLEN || memchr(text.p, '\0', text.n) != NULL)
        return false;
    memcpy(copy, text.p, text.n);
    vb_copy(copy + text.n, sizeof(copy) - text.n, completion);
    return inet_pton(to->ss_family, copy, address_of(to)) == 1;
}

/* Every beginning of an address that is not empty becomes one with one of these behind it. */
static bool may_become_address(struct vb_str text, sa_family_t family)
{
    static const char *const completions[] = {
        "", "0", ":", "::", ".0", "0.0", ".0.0", "0.0.0", ".0.0.0",
    };
    struct sockaddr_storage ignored = {.ss_family = family};
    for (size_t i = 0; i < VB_ARRAY_SIZE(completions); i++)
        if (parse_address(text, completions[i], &ignored))
            return true;
    return false;
}

/* Every beginning of a port is one itself. */
static bool parse_port(struct vb_str text, struct sockaddr_storage *to)
{
    uint64_t port;
    if ((text.n > 1 && text.p[0] == '0') || vb_parse_u64(text, UINT16_MAX, &port) < 0)
        return false;
    *port_of(to) = htons((uint16_t)port);
    return true;
}

/* Addresses and ports of source and destination, from bytes[at]. */
static ssize_t parse_fields(const char *bytes, size_t n, size_t at, struct sockaddr_storage *source,
                            const char **ret_why)
{
    struct sockaddr_storage destination = *source;
    for (unsigned i = 0; i < 4; i++) {
        size_t there = VB_MIN(n, V1_CR_MAX) - at;
        const char *end = memchr(bytes + at, i < 3 ? ' ' : '\r', there);
        struct vb_str text = {bytes + at, end != NULL ? (size_t)(end - bytes) - at : there};
        struct sockaddr_storage *to = i % 2 == 0 ? source : &destination;
        bool is_address = i < 2, good;
        if (end == NULL && text.n == 0)
            good = true;
        else if (is_address)
            good = end != NULL ? parse_address(text, "", to) : may_become_address(text, to->ss_family);
        else
            good = parse_port(text, to);
        if (!good)
            return refuse(ret_why, is_address ? "not an address of the family" : "not a port");
        if (end == NULL)
            return n < V1_CR_MAX ? 0 : refuse(ret_why, "the line is too long");
        at += text.n + 1;
    }
    return take_lf(bytes, n, at, ret_why);
}

/* Behind UNKNOWN: anything, but a CR or LF alone would be a line's end for others. */
static ssize_t skip_line(const char *bytes, size_t n, size_t at, const char **ret_why)
{
    if (n > at && bytes[at] != ' ' && bytes[at] != '\r')
        return refuse(ret_why, "an unknown protocol");
    for (; at < VB_MIN(n, V1_CR_MAX); at++) {
        if (bytes[at] == '\n')
            return refuse(ret_why, "an LF without CR");
        if (bytes[at] == '\r')
            return take_lf(bytes, n, at + 1, ret_why);
    }
    return n < V1_CR_MAX ? 0 : refuse(ret_why, "the line is too long");
}

static ssize_t parse_v1(const char *bytes, size_t n, struct sockaddr_storage *source, const char **ret_why)
{
    static const struct {
        const char *name;
        sa_family_t family;
    } protocols[] = {{"TCP4 ", AF_INET}, {"TCP6 ", AF_INET6}, {"UNKNOWN", AF_UNSPEC}};
    const struct vb_str begin = VB_STR("PROXY ");
    if (!may_begin((struct vb_str){bytes, n}, begin))
        return refuse(ret_why, "it does not begin with PROXY");
    if (n <= begin.n)
        return 0;
    const struct vb_str rest = {bytes + begin.n, n - begin.n};
    for (size_t i = 0; i < VB_ARRAY_SIZE(protocols); i++) {
        struct vb_str name = vb_str(protocols[i].name);
        if (!may_begin(rest, name))
            continue;
        if (rest.n < name.n)
            return 0;
        source->ss_family = protocols[i].family;
        return source->ss_family == AF_UNSPEC ? skip_line(bytes, n, begin.n + name.n, ret_why)
                                              : parse_fields(bytes, n, begin.n + name.n, source, ret_why);
    }
    return refuse(ret_why, "an unknown protocol");
}

/* ---- version 2: binary ---- */
#define V2_SIGNATURE  VB_STR("\r\n\r\n\0\r\nQUIT\n")
#define V2_COMMAND_AT 12 /* version and command */
#define V2_FAMILY_AT  13 /* family and transport */
#define V2_LENGTH_AT  14 /* of what follows, 2 bytes */
#define V2_HEAD       16

#define TLV_HEAD      3 /* type, 2 bytes of length */
#define TLV_CRC32C    0x03
#define CRC32C_BYTES  4

enum { V2_LOCAL, V2_PROXY };
enum { V2_UNSPEC, V2_INET, V2_INET6, V2_UNIX };
enum { V2_TRANSPORT_UNSPEC, V2_STREAM, V2_DGRAM };

/* By family: the system's, the bytes of one address, and those of the block of both addresses and ports. */
static const struct {
    sa_family_t family;
    uint8_t address, block;
} families[] = {
    [V2_UNSPEC] = {AF_UNSPEC, 0, 0},
    [V2_INET] = {AF_INET, 4, 2 * 4 + 2 * 2},
    [V2_INET6] = {AF_INET6, 16, 2 * 16 + 2 * 2},
    [V2_UNIX] = {AF_UNSPEC, 108, 2 * 108},
};

/* Four bits at a time: a small table, and fast enough for the longest header. */
static uint32_t crc32c(uint32_t crc, const uint8_t *bytes, size_t n)
{
    static const uint32_t table[16] = {
        0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
        0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
    };
    for (size_t i = 0; i < n; i++) {
        crc ^= bytes[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return crc;
}

/* The sum is of the whole header, with zeros in its own place. */
static bool is_sum_right(const uint8_t *bytes, size_t n, size_t sum_at)
{
    static const uint8_t zeros[CRC32C_BYTES];
    uint32_t sum;
    memcpy(&sum, bytes + sum_at, sizeof(sum));
    uint32_t crc = crc32c(UINT32_MAX, bytes, sum_at);
    crc = crc32c(crc, zeros, sizeof(zeros));
    crc = crc32c(crc, bytes + sum_at + CRC32C_BYTES, n - sum_at - CRC32C_BYTES);
    return ntohl(sum) == ~crc;
}

/* Whether something of `low` to `high` bytes can be the first in `room`, with nothing or further TLVs behind it. */
static bool may_fit(size_t low, size_t high, size_t room)
{
    return low + TLV_HEAD <= room || (low <= room && room <= high);
}

/* Looks at the TLVs in bytes[at..end), of which n are there. *ret_sum_at: where a checksum is, 0 for none. */
static int check_tlvs(const uint8_t *bytes, size_t n, size_t at, size_t end, size_t *ret_sum_at, const char **ret_why)
{
    *ret_sum_at = 0;
    while (at < VB_MIN(n, end)) {
        const uint8_t *tlv = bytes + at;
        const size_t there = n - at;
        /* The length, between what it is at the least and at the most when bytes of it are missing. */
        size_t low = (there > 1 ? tlv[1] << 8 : 0) | (there > 2 ? tlv[2] : 0);
        size_t high = (there > 1 ? tlv[1] << 8 : 0xff00) | (there > 2 ? tlv[2] : 0xff);
        if (tlv[0] == TLV_CRC32C) {
            if (*ret_sum_at != 0)
                return (int)refuse(ret_why, "two checksums");
            if (low > CRC32C_BYTES || high < CRC32C_BYTES)
                return (int)refuse(ret_why, "a checksum of another length");
            low = high = CRC32C_BYTES;
            *ret_sum_at = at + TLV_HEAD;
        }
        if (!may_fit(low, high, end - at - TLV_HEAD))
            return (int)refuse(ret_why, "TLVs do not end with the header");
        at += TLV_HEAD + low;
    }
    return 0;
}

static void read_source(const uint8_t *block, unsigned kind, struct sockaddr_storage *source)
{
    source->ss_family = families[kind].family;
    if (source->ss_family == AF_UNSPEC)
        return;
    memcpy(address_of(source), block, families[kind].address);
    memcpy(port_of(source), block + (size_t)2 * families[kind].address, sizeof(in_port_t));
}

/* The fixed part, as far as it is there: 0 or -EPROTO. */
static ssize_t check_v2_head(const uint8_t *bytes, size_t n, const char **ret_why)
{
    if (!may_begin((struct vb_str){(const char *)bytes, n}, V2_SIGNATURE))
        return refuse(ret_why, "it has no signature");
    if (n > V2_COMMAND_AT && bytes[V2_COMMAND_AT] >> 4 != 2)
        return refuse(ret_why, "an unknown version");
    if (n > V2_COMMAND_AT && (bytes[V2_COMMAND_AT] & 15) > V2_PROXY)
        return refuse(ret_why, "an unknown command");
    if (n <= V2_FAMILY_AT || (bytes[V2_COMMAND_AT] & 15) == V2_LOCAL) /* LOCAL's family is not looked at */
        return 0;
    if (bytes[V2_FAMILY_AT] >> 4 > V2_UNIX || (bytes[V2_FAMILY_AT] & 15) > V2_DGRAM)
        return refuse(ret_why, "an unknown family or transport");
    return 0;
}

static ssize_t parse_v2(const uint8_t *bytes, size_t n, struct sockaddr_storage *source, const char **ret_why)
{
    ssize_t r = check_v2_head(bytes, n, ret_why);
    if (r < 0 || n < V2_HEAD)
        return r;
    const size_t length = (size_t)bytes[V2_LENGTH_AT] << 8 | bytes[V2_LENGTH_AT + 1], end = V2_HEAD + length;
    const unsigned kind = bytes[V2_FAMILY_AT] >> 4;
    if ((bytes[V2_COMMAND_AT] & 15) == V2_LOCAL || kind == V2_UNSPEC ||
        (bytes[V2_FAMILY_AT] & 15) == V2_TRANSPORT_UNSPEC)
        return n < end ? 0 : (ssize_t)end; /* how long the addresses are is unknown, so where TLVs begin is too */
    size_t block = families[kind].block, sum_at;
    if (!may_fit(block, block, length))
        return refuse(ret_why, "a length that does not suit the family");
    r = check_tlvs(bytes, n, V2_HEAD + block, end, &sum_at, ret_why);
    if (r < 0 || n < end)
        return r;
    if (sum_at != 0 && !is_sum_right(bytes, end, sum_at))
        return refuse(ret_why, "a wrong checksum");
    read_source(bytes + V2_HEAD, kind, source);
    return (ssize_t)end;
}

ssize_t vb_proxyproto_parse(const char *bytes, size_t n, struct sockaddr_storage *ret_source, const char **ret_why)
{
    struct sockaddr_storage source = {.ss_family = AF_UNSPEC};
    if (n == 0)
        return 0;
    ssize_t r =
        bytes[0] == '\r' ? parse_v2((const uint8_t *)bytes, n, &source, ret_why) : parse_v1(bytes, n, &source, ret_why);
    if (r > 0)
        *ret_source = source;
    return r;
}
