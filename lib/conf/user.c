/* `user`: a name, or numbers for machines that know no names. Who that is here is asked by whoever needs it. */
#include "load_priv.h"

#define ID_MAX (UINT32_MAX - 1) /* the largest means "leave as it is" to the system's calls */

static bool read_id(struct vb_str text, unsigned *ret_id)
{
    uint64_t id;
    if (vb_parse_u64(text, ID_MAX, &id) < 0)
        return false;
    *ret_id = (unsigned)id;
    return true;
}

/* Digits are numbers, as for `docker run --user`, also where somebody has such a name. */
static bool read_who(const char *text, struct vb_conf_user *user)
{
    struct vb_str gid = vb_str(text), uid = vb_cut(&gid, ':');
    user->by_number = text[strspn(text, "0123456789:")] == '\0';
    user->has_gid = strchr(text, ':') != NULL;
    if (user->by_number)
        return read_id(uid, &user->uid) && (!user->has_gid || read_id(gid, &user->gid));
    return vb_is_visible_ascii(text) && !user->has_gid;
}

void vb_read_user(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *object)
{
    static const char expected[] = "the name of a user, UID or UID:GID";
    struct vb_conf *conf = object;
    struct vb_conf_user user = {.line = node->place.line, .column = node->place.column};
    if (!vb_load_is(load, option->key, node, VB_YAML_SCALAR, expected))
        return;
    if (node->text[0] == '\0' || !vb_copy(user.name, sizeof(user.name), node->text) || !read_who(node->text, &user))
        vb_load_mismatch(load, option->key, node, expected);
    else if (user.by_number && user.uid == 0 && user.has_gid && user.gid != 0)
        vb_diag_error(load->diag, node->place, "`%s`: root keeps its groups; write `root`", option->key);
    else
        conf->user = user;
}
