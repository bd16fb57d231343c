/* Answers as text: formatted pieces and JSON strings, appended to a buffer. */
#ifndef VBDEMO_TEXT_H
#define VBDEMO_TEXT_H

#include "vb/buf.h"
#include "vb/str.h"

struct text {
    struct vb_buf buf;
    bool failed; /* a piece found no memory: the text is not whole and must not be sent */
};

/* A piece is at most 511 bytes; what may be longer goes through text_json_string. */
void text_add(struct text *text, const char *fmt, ...) VB_PRINTF(2, 3);

/* Quoted and escaped. Bytes above 0x7f become \u0080..\u00ff, so that any field value gives valid JSON. */
void text_json_string(struct text *text, struct vb_str string);

void text_clear(struct text *text);

#endif
