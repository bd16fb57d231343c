/* Lines and fields of heads and trailer sections. Private to lib/http. */
#ifndef VB_HTTP_FIELDS_H
#define VB_HTTP_FIELDS_H

#include "vb/http.h"

enum vb_field_id vb_field_identify(struct vb_str name);

/* Takes the next line, without its CRLF. 1: there; 0: it has not arrived whole; -EPROTO: CR or LF stands alone. */
int vb_next_line(const char **p, const char *end, struct vb_str *ret_line);

/*
 * Reads the name and the value in a line of at least one byte. NULL, or what is wrong with it (RFC 9110 5.1, 5.5; RFC
 * 9112 5.1, 5.2).
 */
const char *vb_field_read(struct vb_str line, struct vb_field *ret_field);

#endif
