/* Field names and lists. Private to lib/http. */
#ifndef VB_HTTP_FIELDS_H
#define VB_HTTP_FIELDS_H

#include "vb/http.h"

enum vb_field_id vb_field_identify(struct vb_str name);

/* Takes the next member off a comma-separated list, without its white space and skipping empty ones (RFC 9110 5.6.1).
 */
bool vb_list_next(struct vb_str *list, struct vb_str *ret_member);

#endif
