/* Request targets as RFC 3986 compares them. */
#ifndef VB_URI_H
#define VB_URI_H

#include "vb/str.h"

/*
 * A path in its normal form (RFC 3986 6.2.2): unreserved characters decoded, hexadecimal digits in upper case, dot
 * segments removed. `%2F` is no slash, empty segments count, and a `%` without two digits is a character like others;
 * the normal form of a normal form is itself. `path` begins with `/`, as the result does, and has no query. `to` has
 * room for path.n bytes, and may be path.p. Returns the length.
 */
size_t vb_uri_normal_path(char *to, struct vb_str path);

#endif
