/* What those need who pack a part of the state that is handed over (handover.h), or take it. */
#ifndef VB_PROC_JSON_H
#define VB_PROC_JSON_H

#include <jansson.h>

#include "vb/err.h"

/* Appends `item`. When memory runs out the list is NULL from then on, and so is whatever json_pack makes with it. */
void vb_json_add(json_t **list, json_t *item);

/* The number of a descriptor, which is added to `fds`, the list of all that are handed over. -1 is none. */
json_t *vb_json_fd(json_t **fds, int fd);

/* -EPROTO, and the sentence for a state that cannot be read. */
int vb_json_wrong(const json_error_t *error, struct vb_error *err);

#endif
