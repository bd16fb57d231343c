/* What a table cannot say of the keys for balancing: hash and sticky of a pool. */
#include "load_priv.h"

#define SECRET_MIN 16 /* bytes; a shorter one can be guessed */

/* *to becomes a copy, which the configuration owns. */
static void keep(struct vb_load *load, char **to, const char *text)
{
    char *copy = strdup(text);
    if (copy == NULL) {
        load->oom = true;
        return;
    }
    free(*to);
    *to = copy;
}

/* ---- hash.key: a word, or `header:X-User`, or `cookie:session` ---- */
static bool begins(const char *text, const char *word)
{
    return strncmp(text, word, strlen(word)) == 0;
}

void vb_read_hash_key(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *object)
{
    struct vb_conf_pool *pool = object;
    if (!vb_load_is(load, option->key, node, VB_YAML_SCALAR, "a word such as client_ip or path"))
        return;
    bool is_header = begins(node->text, "header:"), is_cookie = begins(node->text, "cookie:");
    const char *word = is_header ? VB_HASH_HEADER_WORD : is_cookie ? VB_HASH_COOKIE_WORD : node->text;
    unsigned key;
    if (!vb_load_word(load, option, node, word, &key))
        return;
    pool->hash.key = key;
    if (!is_header && !is_cookie)
        return;
    const char *name = strchr(node->text, ':') + 1;
    if (vb_valid_token(name))
        keep(load, &pool->hash.name, name);
    else
        vb_diag_error(load->diag, node->place,
                      "`%s`: %s is not the name of a %s; that has letters, digits and !#$%%&'*+-.^_`|~", option->key,
                      vb_quote(name).text, is_header ? "header field" : "cookie");
}

/* ---- sticky.secret ---- */
/* No message shows what it is: messages go to logs and terminals. */
void vb_read_secret(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *object)
{
    struct vb_conf_pool *pool = object;
    if (!vb_load_is(load, option->key, node, VB_YAML_SCALAR, "a text"))
        return;
    size_t n = strlen(node->text);
    if (n > 0 && n < SECRET_MIN)
        vb_diag_error(load->diag, node->place, "`%s`: expected at least %d bytes, found %zu", option->key, SECRET_MIN,
                      n);
    else
        keep(load, &pool->sticky.secret, node->text);
}

/* ---- the pool as a whole ---- */
void vb_warn_of_balancing(struct vb_load *load, const struct vb_yaml *node, const struct vb_conf_pool *pool)
{
    const struct vb_yaml *hash = vb_yaml_find(node, "hash");
    if (hash != NULL && pool->balance != VB_BALANCE_HASH)
        vb_diag_warn(load->diag, hash->key_place,
                     "`hash` has no effect: `balance` is `%s`; write `balance: hash`, or leave `hash` out",
                     vb_balance_name(pool->balance));
}
