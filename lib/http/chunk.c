/*
 * Chunk lines and chunk data, strictly: what is lax about the size or the line ends is how two readers come to see two
 * messages. Extensions are checked and read over.
 */
#include <errno.h>

#include "chunk.h"
#include "scan.h"

#define SIZE_DIGITS_MAX 16

/* chunk = chunk-size [ chunk-ext ] CRLF chunk-data CRLF; what may come next */
enum {
    SIZE,
    /* chunk-ext = *( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] ) (RFC 9112 7.1.1) */
    EXT_GAP, /* white space before a `;` */
    EXT_NAME_BEGIN,
    EXT_NAME,
    EXT_NAME_END, /* white space behind a name, before `=` or `;` */
    EXT_VALUE_BEGIN,
    EXT_TOKEN,
    EXT_QUOTED,
    EXT_PAIR, /* behind a backslash */
    EXT_VALUE_END,
    LINE_CR,
    LINE_LF,
    DATA,
    DATA_CR,
    DATA_LF,
    TRAILERS,
    BROKEN,
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static int read_size(struct vb_chunk_state *state, const char **p, const char *end)
{
    for (; *p < end; ++*p) {
        int digit = vb_hex_value(**p);
        if (digit < 0) {
            state->at = is_blank(**p) || **p == ';' ? EXT_GAP : LINE_CR;
            return state->digits == 0 ? -EPROTO : 0;
        }
        if (++state->digits > SIZE_DIGITS_MAX || state->left > INT64_MAX >> 4)
            return -EPROTO;
        state->left = state->left << 4 | (unsigned)digit;
    }
    return 0;
}

static int behind_name(char c)
{
    return c == '=' ? EXT_VALUE_BEGIN : c == ';' ? EXT_NAME_BEGIN : is_blank(c) ? EXT_NAME_END : BROKEN;
}

static int behind_value(char c)
{
    return c == ';' ? EXT_NAME_BEGIN : c == '\r' ? LINE_CR : is_blank(c) ? EXT_GAP : BROKEN;
}

/* What comes behind the byte c of an extension. */
static int after_extension_byte(int at, char c)
{
    bool token = vb_is_token_byte[(unsigned char)c];
    switch (at) {
    case EXT_GAP:
        return c == ';' ? EXT_NAME_BEGIN : is_blank(c) ? EXT_GAP : BROKEN;
    case EXT_NAME_BEGIN:
        return token ? EXT_NAME : is_blank(c) ? EXT_NAME_BEGIN : BROKEN;
    case EXT_NAME:
        return token ? EXT_NAME : c == '\r' ? LINE_CR : behind_name(c);
    case EXT_NAME_END:
        return behind_name(c);
    case EXT_VALUE_BEGIN:
        return token ? EXT_TOKEN : c == '"' ? EXT_QUOTED : is_blank(c) ? EXT_VALUE_BEGIN : BROKEN;
    case EXT_TOKEN:
        return token ? EXT_TOKEN : behind_value(c);
    case EXT_QUOTED:
        return c == '"' ? EXT_VALUE_END : c == '\\' ? EXT_PAIR : vb_is_value_byte(c) ? EXT_QUOTED : BROKEN;
    case EXT_PAIR:
        return vb_is_value_byte(c) ? EXT_QUOTED : BROKEN;
    default: /* EXT_VALUE_END */
        return behind_value(c);
    }
}

/* Up to the CR that ends the line, which is not read here. */
static int read_extension(struct vb_chunk_state *state, const char **p, const char *end, struct vb_str *ret_slice)
{
    const char *begin = *p;
    for (; *p < end; ++*p) {
        state->at = (uint8_t)after_extension_byte(state->at, **p);
        if (state->at == BROKEN)
            return -EPROTO;
        if (state->at == LINE_CR)
            break;
    }
    *ret_slice = (struct vb_str){begin, (size_t)(*p - begin)};
    return VB_CHUNK_EXTENSION;
}

static int read_data(struct vb_chunk_state *state, const char **p, const char *end, struct vb_str *ret_slice)
{
    size_t n = VB_MIN(state->left, (size_t)(end - *p));
    *ret_slice = (struct vb_str){*p, n};
    *p += n;
    state->left -= n;
    if (state->left == 0)
        state->at = DATA_CR;
    return VB_CHUNK_DATA;
}

/* The one byte that may stand here. */
static int expect(struct vb_chunk_state *state, const char **p, char byte, uint8_t then)
{
    if (*(*p)++ != byte)
        return -EPROTO;
    state->at = then;
    return 0;
}

int vb_chunk_next(struct vb_chunk_state *state, const char **p, const char *end, struct vb_str *ret_slice)
{
    int r = 0;
    while (r == 0 && *p < end) {
        switch (state->at) {
        case SIZE:
            r = read_size(state, p, end);
            break;
        case LINE_CR:
            r = expect(state, p, '\r', LINE_LF);
            break;
        case LINE_LF:
            r = expect(state, p, '\n', state->left > 0 ? DATA : TRAILERS);
            state->digits = 0;
            break;
        case DATA:
            return read_data(state, p, end, ret_slice);
        case DATA_CR:
            r = expect(state, p, '\r', DATA_LF);
            break;
        case DATA_LF:
            r = expect(state, p, '\n', SIZE);
            break;
        case TRAILERS:
            return VB_CHUNK_TRAILERS;
        default:
            return read_extension(state, p, end, ret_slice);
        }
    }
    return r; /* VB_CHUNK_END, or broken */
}
