/*
 * `${NAME}` and `${NAME:-default}` in values. As in a shell, the default also stands in for a variable that is set but
 * empty. Any other `$` is just a character. Keys are left alone.
 */
#include "load_priv.h"

#include <errno.h>
#include <string.h>

/* A value may name a long variable a thousand times: this bounds what all values become. */
#define EXPANDED_MAX (16u << 20)

struct expander {
    struct vb_diag *diag;
    size_t total;
};

/* One `${...}`; the slices point into the value. */
struct reference {
    struct vb_str name, by_default, rest;
    bool has_default;
};

/* `text` begins with `${`. */
static int parse_reference(const char *text, struct reference *ret_reference)
{
    const char *name = text + 2, *p = name;
    while (*p == '_' || (*p >= 'A' && *p <= 'Z') || (*p >= 'a' && *p <= 'z') || (p > name && *p >= '0' && *p <= '9'))
        p++;
    struct reference reference = {.name = {name, (size_t)(p - name)}};
    if (p == name)
        return -EINVAL;
    if (p[0] == ':' && p[1] == '-') {
        reference.has_default = true;
        reference.by_default.p = p += 2;
        p += strcspn(p, "}");
        reference.by_default.n = (size_t)(p - reference.by_default.p);
        if (memmem(reference.by_default.p, reference.by_default.n, "${", 2) != NULL)
            return -EINVAL;
    }
    if (*p != '}')
        return -EINVAL;
    reference.rest = vb_str(p + 1);
    *ret_reference = reference;
    return 0;
}

/* What takes the place of a reference; -ENOENT where there is nothing. */
static int look_up(const struct reference *reference, struct vb_str *ret_value)
{
    char name[256];
    const char *value = NULL;
    if (reference->name.n < sizeof(name)) {
        memcpy(name, reference->name.p, reference->name.n);
        name[reference->name.n] = '\0';
        value = getenv(name);
    }
    if (reference->has_default && (value == NULL || *value == '\0'))
        *ret_value = reference->by_default;
    else if (value != NULL)
        *ret_value = vb_str(value);
    else
        return -ENOENT;
    return 0;
}

/* The value of one reference goes to `to`. -EINVAL: reported. */
static int expand_one(struct expander *x, const struct vb_yaml *node, const char **text, FILE *to)
{
    struct reference reference;
    if (parse_reference(*text, &reference) < 0) {
        vb_diag_error(x->diag, node->place, "expected ${NAME} or ${NAME:-default}, found %s", vb_quote(*text).text);
        return -EINVAL;
    }
    struct vb_str value;
    if (look_up(&reference, &value) < 0) {
        vb_diag_error(x->diag, node->place,
                      "the environment variable `%.*s` is not set; set it, or give a default: ${%.*s:-default}",
                      (int)VB_MIN(reference.name.n, 64), reference.name.p, (int)VB_MIN(reference.name.n, 64),
                      reference.name.p);
        return -EINVAL;
    }
    x->total += value.n;
    if (x->total > EXPANDED_MAX) {
        vb_diag_error(x->diag, node->place, "environment variables make the values longer than 16 MiB");
        return -EINVAL;
    }
    *text = reference.rest.p;
    return fwrite(value.p, 1, value.n, to) == value.n ? 0 : -ENOMEM;
}

static int expand(struct expander *x, const struct vb_yaml *node, FILE *to)
{
    const char *text = node->text;
    const char *found;
    while ((found = strstr(text, "${")) != NULL) {
        size_t n = (size_t)(found - text);
        if (fwrite(text, 1, n, to) != n)
            return -ENOMEM;
        text = found;
        int r = expand_one(x, node, &text, to);
        if (r < 0)
            return r;
    }
    return fputs(text, to) < 0 ? -ENOMEM : 0;
}

static int expand_node(struct expander *x, struct vb_yaml *node)
{
    char *expanded = NULL;
    size_t n;
    FILE *to = open_memstream(&expanded, &n);
    if (to == NULL)
        return -ENOMEM;
    int r = expand(x, node, to);
    if ((fclose(to) != 0 || expanded == NULL) && r == 0)
        r = -ENOMEM;
    if (r < 0) {
        free(expanded);
        return r;
    }
    free(node->text);
    node->text = expanded;
    return 0;
}

int vb_conf_expand(struct vb_yaml_doc *doc, struct vb_diag *diag)
{
    struct expander x = {.diag = diag};
    struct vb_yaml *node;
    STAILQ_FOREACH (node, &doc->nodes, all) {
        if (node->kind != VB_YAML_SCALAR || node->broken || strstr(node->text, "${") == NULL)
            continue;
        int r = expand_node(&x, node);
        if (r == -ENOMEM)
            return r;
        node->broken = r < 0;
    }
    return 0;
}
