#include "json.h"

#include <errno.h>

void vb_json_add(json_t **list, json_t *item)
{
    if (*list == NULL) {
        json_decref(item);
    } else if (json_array_append_new(*list, item) < 0) {
        json_decref(*list);
        *list = NULL;
    }
}

json_t *vb_json_fd(json_t **fds, int fd)
{
    if (fd >= 0)
        vb_json_add(fds, json_integer(fd));
    return json_integer(fd);
}

int vb_json_wrong(const json_error_t *error, struct vb_error *err)
{
    return vb_fail(err, -EPROTO, "the state that was handed over cannot be read: %s", error->text);
}
