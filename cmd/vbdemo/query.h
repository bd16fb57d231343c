/* The query of a request target: `key=value&key=value`. Values are taken as they stand, without %-decoding. */
#ifndef VBDEMO_QUERY_H
#define VBDEMO_QUERY_H

#include "vb/str.h"

/* Splits a target; the query is empty when there is none. */
void query_split(struct vb_str target, struct vb_str *ret_path, struct vb_str *ret_query);

/* Takes the next pair off; false at the end. A key without `=` has an empty value. */
bool query_next(struct vb_str *query, struct vb_str *ret_key, struct vb_str *ret_value);

/* The value of the first such key; false when there is none. */
bool query_find(struct vb_str query, const char *key, struct vb_str *ret_value);

#endif
