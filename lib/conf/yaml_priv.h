/*
 * A YAML text as a tree that knows the place of everything in it. YAML's own types mean nothing here: a scalar is text,
 * whoever reads it knows what it wants. Anchors, aliases, tags and several documents are refused: they hide what a
 * configuration says, and an alias can blow a small file up.
 */
#ifndef VB_CONF_YAML_PRIV_H
#define VB_CONF_YAML_PRIV_H

#include <sys/queue.h>

#include "diag_priv.h"

#define VB_YAML_DEPTH_MAX 32
#define VB_YAML_NODES_MAX 200000 /* some twenty times what the largest valid configuration needs */

enum vb_yaml_kind { VB_YAML_SCALAR, VB_YAML_LIST, VB_YAML_MAPPING };

STAILQ_HEAD(vb_yaml_nodes, vb_yaml);

struct vb_yaml {
    enum vb_yaml_kind kind;
    struct vb_place place, key_place; /* the key's is the node's own where there is no key */
    char *key;                        /* of an entry of a mapping, else NULL */
    char *text;                       /* of a scalar, without NUL in it; else NULL */
    bool quoted;
    bool broken; /* an error was reported for it already: readers pass over it */
    struct vb_yaml *parent;
    struct vb_yaml_nodes children;
    unsigned n_children;
    STAILQ_ENTRY(vb_yaml) next; /* in the parent's children */
    STAILQ_ENTRY(vb_yaml) all;  /* in the document's nodes */
};

struct vb_yaml_doc {
    struct vb_yaml *root; /* NULL: the text is empty */
    struct vb_yaml_nodes nodes;
    unsigned n_nodes;
};

/*
 * 0 and a document that the caller frees, also where `diag` got errors that leave the rest readable (a key given
 * twice); -EINVAL, with the reason in `diag`, where the text cannot be read on; -ENOMEM.
 */
int vb_yaml_parse(const char *text, size_t n, struct vb_diag *diag, struct vb_yaml_doc **ret_doc);

/* Frees and sets NULL; *doc may be NULL. */
void vb_yaml_free(struct vb_yaml_doc **doc);

/* The entry of a mapping, or NULL. */
const struct vb_yaml *vb_yaml_find(const struct vb_yaml *mapping, const char *key);

#endif
