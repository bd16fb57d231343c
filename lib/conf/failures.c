/* What a table cannot say of the keys for failures: outlier, circuit_breaker and retry of a pool, and admin. */
#include "load_priv.h"

#include <stdio.h>

/* ---- levels that `off` empties ---- */
/* True: it is `off`, and the caller sets what that means. */
static bool read_level_or_off(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node,
                              void *object)
{
    bool is_scalar = node->kind == VB_YAML_SCALAR;
    if (is_scalar && vb_is_off(node->text))
        return true;
    if (is_scalar && vb_is_on(node->text))
        vb_load_defaults(load, option->level, object);
    else if (vb_load_is(load, option->key, node, VB_YAML_MAPPING, "a mapping or `off`"))
        vb_load_level(load, option->level, node, object);
    return false;
}

void vb_read_circuit_breaker(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node,
                             void *object)
{
    struct vb_conf_pool *pool = object;
    if (read_level_or_off(load, option, node, pool))
        pool->circuit_breaker.max_requests = pool->circuit_breaker.max_pending = 0;
}

static void set_admin_socket(struct vb_load *load, struct vb_conf *conf, const char *path)
{
    conf->admin.socket = strdup(path);
    if (conf->admin.socket == NULL)
        load->oom = true;
}

void vb_read_admin(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *object)
{
    if (read_level_or_off(load, option, node, object))
        set_admin_socket(load, object, "");
}

void vb_read_admin_socket(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node,
                          void *object)
{
    char expected[96];
    snprintf(expected, sizeof(expected), "the path of a file that begins with /, of at most %d bytes, or `off`",
             VB_UNIX_PATH_MAX);
    if (!vb_load_is(load, option->key, node, VB_YAML_SCALAR, expected))
        return;
    const char *path = node->text;
    size_t n = strlen(path);
    if (vb_is_off(path))
        set_admin_socket(load, object, "");
    else if (n == 0 || n > VB_UNIX_PATH_MAX || !vb_valid_file_path(path) || path[n - 1] == '/')
        vb_load_mismatch(load, option->key, node, expected);
    else
        set_admin_socket(load, object, path);
}

/* ---- retry.on: a word, or `connect, 503`, or a list of such ---- */
static void add_retry_on(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node,
                         struct vb_conf_pool *pool)
{
    if (node->broken || !vb_load_is(load, option->key, node, VB_YAML_SCALAR, "words such as connect or 503"))
        return;
    struct vb_str rest = vb_str(node->text);
    bool more;
    do {
        char text[64];
        unsigned value;
        more = memchr(rest.p, ',', rest.n) != NULL;
        struct vb_str word = vb_cut(&rest, ',');
        snprintf(text, sizeof(text), "%.*s", (int)VB_MIN(word.n, sizeof(text) - 1), word.p);
        if (!vb_load_word(load, option, node, text, &value))
            return;
        pool->retry.on |= value;
    } while (more);
}

void vb_read_retry_on(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *object)
{
    struct vb_conf_pool *pool = object;
    bool is_list = node->kind == VB_YAML_LIST;
    pool->retry.on = 0;
    if (is_list ? node->n_children == 0 : node->kind == VB_YAML_SCALAR && vb_is_off(node->text)) {
        vb_diag_error(load->diag, node->place, "`%s` cannot be empty; write `retry: off` to try nothing again",
                      option->key);
        return;
    }
    if (!is_list) {
        add_retry_on(load, option, node, pool);
        return;
    }
    const struct vb_yaml *child;
    STAILQ_FOREACH (child, &node->children, next)
        add_retry_on(load, option, child, pool);
}

/* ---- outlier as a whole ---- */
/* An entry's text, or its default where the file gives none. */
static struct vb_quoted text_of(const struct vb_yaml *outlier, const char *key)
{
    const struct vb_yaml *given = vb_yaml_find(outlier, key);
    const struct vb_level *level = vb_schema_find(&vb_level_pool, "outlier")->level;
    return vb_quote(given != NULL ? given->text : vb_schema_find(level, key)->by_default);
}

static void check_ejection_times(struct vb_load *load, const struct vb_yaml *outlier, const struct vb_conf_pool *pool)
{
    if (pool->outlier.eject_max_ms >= pool->outlier.eject_ms)
        return;
    const struct vb_yaml *at = vb_yaml_find(outlier, "eject_max");
    if (at == NULL)
        at = vb_yaml_find(outlier, "eject"); /* one of them is given: the defaults fit each other */
    vb_diag_error(load->diag, at->place, "`eject_max`, %s, is shorter than `eject`, %s; raise it to that at least",
                  text_of(outlier, "eject_max").text, text_of(outlier, "eject").text);
}

/* Of the share only whole backends count, so in a small pool it may be none. */
static void warn_of_no_ejection(struct vb_load *load, const struct vb_yaml *outlier, const struct vb_conf_pool *pool)
{
    unsigned n = pool->n_backends, share = pool->outlier.max_ejected;
    if (n * share >= 100)
        return;
    vb_diag_warn(load->diag, outlier->key_place,
                 "`outlier` has no effect: `max_ejected`, %u%% of %u backend%s, is less than one; "
                 "raise it to %u%%, or write `outlier: off`",
                 share, n, n > 1 ? "s" : "", (100 + n - 1) / n);
}

void vb_check_outlier(struct vb_load *load, const struct vb_yaml *node, const struct vb_conf_pool *pool)
{
    const struct vb_yaml *outlier = vb_yaml_find(node, "outlier");
    if (outlier == NULL || !pool->outlier.enabled)
        return;
    if (outlier->kind == VB_YAML_MAPPING)
        check_ejection_times(load, outlier, pool);
    warn_of_no_ejection(load, outlier, pool);
}
