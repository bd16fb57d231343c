/* Lines and fields of heads and trailer sections. Private to lib/http. */
#ifndef VB_HTTP_FIELDS_H
#define VB_HTTP_FIELDS_H

#include "scan.h"
#include "vb/http.h"

enum vb_field_id vb_field_identify(struct vb_str name);

/*
 * Takes the next line, without its CRLF. 1: there, and all its bytes may stand in a value; 0: it has not arrived whole;
 * -EPROTO: *ret_why is wrong.
 */
int vb_line_read(const char **p, const char *end, struct vb_str *ret_line, const char **ret_why);

/* Of a line that is no valid field: 0, it has not arrived whole; -EPROTO: *ret_why is wrong. */
int vb_field_refuse(const char *p, const char *end, const char **ret_why);

/*
 * Takes the next field line (RFC 9110 5.1, 5.5; RFC 9112 5.1, 5.2), or the empty line behind the last: then the name is
 * empty too. 1: there; only name, value and line_end are set. 0: it has not arrived whole. -EPROTO: *ret_why is wrong.
 */
static inline int vb_field_read(const char **p, const char *end, struct vb_field *ret_field, const char **ret_why)
{
    const char *name = *p, *colon = vb_scan_token(name, end);
    if (end - colon >= 2 && *colon == ':' && colon != name) {
        const char *value = colon + 1;
        while (value < end && (*value == ' ' || *value == '\t'))
            value++;
        const char *stop = vb_scan_value(value, end);
        if (end - stop >= 2 && stop[0] == '\r' && stop[1] == '\n') {
            *p = ret_field->line_end = stop + 2;
            while (stop > value && (stop[-1] == ' ' || stop[-1] == '\t'))
                stop--;
            ret_field->name = (struct vb_str){name, (size_t)(colon - name)};
            ret_field->value = (struct vb_str){value, (size_t)(stop - value)};
            return 1;
        }
    } else if (end - name >= 2 && name[0] == '\r' && name[1] == '\n') {
        ret_field->name = (struct vb_str){name, 0};
        *p = name + 2;
        return 1;
    }
    return vb_field_refuse(name, end, ret_why);
}

#endif
