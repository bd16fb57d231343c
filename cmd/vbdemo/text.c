#include "text.h"

#include <stdarg.h>
#include <stdio.h>

#define PIECE_MAX 512

void text_add(struct text *text, const char *fmt, ...)
{
    char piece[PIECE_MAX];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(piece, sizeof(piece), fmt, args);
    va_end(args);
    assert(n >= 0 && n < PIECE_MAX);
    if (vb_buf_append(&text->buf, piece, (size_t)n) < 0)
        text->failed = true;
}

static bool is_plain(char c)
{
    return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

void text_json_string(struct text *text, struct vb_str string)
{
    text_add(text, "\"");
    for (size_t i = 0; i < string.n;) {
        size_t run = i;
        while (run < string.n && is_plain(string.p[run]))
            run++;
        if (run > i && vb_buf_append(&text->buf, string.p + i, run - i) < 0)
            text->failed = true;
        if (run < string.n)
            text_add(text, "\\u%04x", (unsigned char)string.p[run]);
        i = run + 1;
    }
    text_add(text, "\"");
}

void text_clear(struct text *text)
{
    vb_buf_clear(&text->buf);
    text->failed = false;
}
