/*
 * libyaml's events -> a tree. The only file that knows libyaml.
 *
 * Nothing here recurses: the tree is built under a pointer to the node that is open, and freed along a list of all
 * nodes. So a hostile text costs memory in proportion to its size, and no stack.
 */
#include "yaml_priv.h"

#include <errno.h>
#include <string.h>
#include <yaml.h>

struct builder {
    yaml_parser_t parser;
    const char *text;
    size_t n;
    struct vb_diag *diag;
    struct vb_yaml_doc *doc;
    struct vb_yaml *open; /* the list or mapping that takes the next node; NULL at the top */
    unsigned depth;
    unsigned n_documents;
    char *key; /* of the next node, when `open` is a mapping and its key was read */
    struct vb_place key_place;
};

static struct vb_place place_of(yaml_mark_t mark)
{
    return (struct vb_place){(unsigned)mark.line + 1, (unsigned)mark.column + 1};
}

static bool is_continuation(char c)
{
    return ((unsigned char)c & 0xc0) == 0x80;
}

/* libyaml's reader, which meets bad bytes, knows only how many bytes came before them. */
static struct vb_place place_of_offset(const struct builder *b, size_t offset)
{
    struct vb_place place = {1, 1};
    for (size_t i = 0; i < offset && i < b->n; i++) {
        if (b->text[i] == '\n')
            place = (struct vb_place){place.line + 1, 1};
        else if (!is_continuation(b->text[i]))
            place.column++;
    }
    return place;
}

/* Byte of a character, counted as marks count: from 0. */
static char byte_at(const struct builder *b, size_t index)
{
    size_t characters = 0;
    for (size_t i = 0; i < b->n; i++)
        if (!is_continuation(b->text[i]) && characters++ == index)
            return b->text[i];
    return '\0';
}

/* What people stumble over most, said in their words. */
static const char *hint(const struct builder *b)
{
    static const struct {
        const char *problem; /* some words of libyaml's */
        const char *hint;
    } hints[] = {
        {"alphabetic or numeric", "; a text that begins with * or & belongs in quotes"},
        {"mapping values", "; check the indentation, and quote a text that has `: ` in it"},
        {"cannot start any token", "; a text that begins with such a character belongs in quotes"},
        {"<document start>", "; does the line begin in the column of its neighbours?"},
        {"expected key", "; does the line begin in the column of its neighbours?"},
    };
    size_t index = b->parser.problem_mark.index;
    char at = byte_at(b, index), before = byte_at(b, index - 1), after = byte_at(b, index + 1); /* NUL: there is none */
    if (at == '\t')
        return "; indent with spaces, YAML allows no tabs there";
    if (at == ':' && (before == '[' || before == ']'))
        return "; an address such as \"[::1]:80\" belongs in quotes";
    if (at == ':' && after == ':')
        return "; an address such as \"::1\" belongs in quotes";
    for (unsigned i = 0; i < VB_ARRAY_SIZE(hints); i++)
        if (strstr(b->parser.problem, hints[i].problem) != NULL)
            return hints[i].hint;
    return "";
}

static int syntax_error(struct builder *b)
{
    const yaml_parser_t *parser = &b->parser;
    if (parser->error == YAML_MEMORY_ERROR)
        return -ENOMEM;
    if (parser->error == YAML_READER_ERROR) {
        char byte[32] = "";
        if (parser->problem_value >= 0)
            snprintf(byte, sizeof(byte), " (0x%02x)", (unsigned)parser->problem_value);
        vb_diag_error(b->diag, place_of_offset(b, parser->problem_offset), "not valid YAML: %s%s", parser->problem,
                      byte);
        return -EINVAL;
    }
    struct vb_place place = place_of(parser->problem_mark), begun = place_of(parser->context_mark);
    if (parser->context == NULL || begun.line == place.line)
        vb_diag_error(b->diag, place, "not valid YAML: %s%s", parser->problem, hint(b));
    else
        vb_diag_error(b->diag, place, "not valid YAML: %s %s that begins in line %u%s", parser->problem,
                      parser->context, begun.line, hint(b));
    return -EINVAL;
}

static void free_node(struct vb_yaml *node)
{
    free(node->key);
    free(node->text);
    free(node);
}

void vb_yaml_free(struct vb_yaml_doc **doc)
{
    if (*doc == NULL)
        return;
    struct vb_yaml *node;
    while ((node = STAILQ_FIRST(&(*doc)->nodes)) != NULL) {
        STAILQ_REMOVE_HEAD(&(*doc)->nodes, all);
        free_node(node);
    }
    free(*doc);
    *doc = NULL;
}

const struct vb_yaml *vb_yaml_find(const struct vb_yaml *mapping, const char *key)
{
    const struct vb_yaml *child;
    STAILQ_FOREACH (child, &mapping->children, next)
        if (strcmp(child->key, key) == 0)
            return child;
    return NULL;
}

/* A new node of the open one. Takes the key that waits for it. */
static int add_node(struct builder *b, enum vb_yaml_kind kind, yaml_mark_t mark, struct vb_yaml **ret_node)
{
    if (b->doc->n_nodes == VB_YAML_NODES_MAX) {
        vb_diag_error(b->diag, place_of(mark), "the file holds more than %d values", VB_YAML_NODES_MAX);
        return -EINVAL;
    }
    struct vb_yaml *node = calloc(1, sizeof(*node));
    if (node == NULL)
        return -ENOMEM;
    node->kind = kind;
    node->place = place_of(mark);
    node->key_place = b->key != NULL ? b->key_place : node->place;
    node->key = b->key;
    b->key = NULL;
    STAILQ_INIT(&node->children);
    STAILQ_INSERT_TAIL(&b->doc->nodes, node, all);
    b->doc->n_nodes++;
    node->parent = b->open;
    if (b->open == NULL) {
        b->doc->root = node;
    } else {
        STAILQ_INSERT_TAIL(&b->open->children, node, next);
        b->open->n_children++;
    }
    *ret_node = node;
    return 0;
}

static bool wants_key(const struct builder *b)
{
    return b->open != NULL && b->open->kind == VB_YAML_MAPPING && b->key == NULL;
}

static void refuse_marks(struct builder *b, yaml_mark_t mark, const yaml_char_t *anchor, const yaml_char_t *tag)
{
    if (anchor != NULL)
        vb_diag_error(b->diag, place_of(mark),
                      "YAML anchors (%s) are not supported; write the value out where it is "
                      "needed, or quote a text that begins with &",
                      vb_quote((const char *)anchor).text);
    if (tag != NULL)
        vb_diag_error(b->diag, place_of(mark), "YAML tags (%s) are not supported; quote a text that begins with !",
                      vb_quote((const char *)tag).text);
}

static int on_alias(struct builder *b, const yaml_event_t *event)
{
    vb_diag_error(b->diag, place_of(event->start_mark),
                  "YAML aliases (%s) are not supported; write the value out, or quote a text that begins with *",
                  vb_quote((const char *)event->data.alias.anchor).text);
    if (wants_key(b))
        return -EINVAL;
    struct vb_yaml *node;
    int r = add_node(b, VB_YAML_SCALAR, event->start_mark, &node);
    if (r < 0)
        return r;
    node->broken = true;
    node->text = strdup("");
    return node->text == NULL ? -ENOMEM : 0;
}

static int on_scalar(struct builder *b, const yaml_event_t *event)
{
    const char *value = (const char *)event->data.scalar.value;
    size_t length = event->data.scalar.length;
    refuse_marks(b, event->start_mark, event->data.scalar.anchor, event->data.scalar.tag);
    if (memchr(value, '\0', length) != NULL) {
        vb_diag_error(b->diag, place_of(event->start_mark), "a NUL byte has no place in a configuration");
        return -EINVAL;
    }
    char *text = strndup(value, length);
    if (text == NULL)
        return -ENOMEM;
    if (wants_key(b)) {
        b->key = text;
        b->key_place = place_of(event->start_mark);
        return 0;
    }
    struct vb_yaml *node;
    int r = add_node(b, VB_YAML_SCALAR, event->start_mark, &node);
    if (r < 0) {
        free(text);
        return r;
    }
    node->text = text;
    node->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    if (length == 0 && !node->quoted)
        node->place = node->key_place; /* a value that is not there has no place of its own */
    return 0;
}

static int on_begin(struct builder *b, enum vb_yaml_kind kind, const yaml_event_t *event)
{
    if (wants_key(b)) {
        vb_diag_error(b->diag, place_of(event->start_mark),
                      "a key must be text, not a %s; text that begins with [ or { belongs in quotes",
                      kind == VB_YAML_LIST ? "list" : "mapping");
        return -EINVAL;
    }
    if (b->depth == VB_YAML_DEPTH_MAX) {
        vb_diag_error(b->diag, place_of(event->start_mark), "more than %d levels of nesting", VB_YAML_DEPTH_MAX);
        return -EINVAL;
    }
    struct vb_yaml *node;
    int r = add_node(b, kind, event->start_mark, &node);
    if (r < 0)
        return r;
    b->open = node;
    b->depth++;
    return 0;
}

static int by_key(const void *a, const void *b)
{
    const struct vb_yaml *x = *(const struct vb_yaml *const *)a, *y = *(const struct vb_yaml *const *)b;
    int order = strcmp(x->key, y->key);
    if (order != 0)
        return order;
    if (x->key_place.line != y->key_place.line)
        return x->key_place.line < y->key_place.line ? -1 : 1;
    return x->key_place.column < y->key_place.column ? -1 : 1;
}

/* Sorted, because comparing each with each of a hundred thousand keys would take minutes. */
static int refuse_duplicates(struct builder *b, struct vb_yaml *mapping)
{
    if (mapping->n_children < 2)
        return 0;
    struct vb_yaml **sorted = calloc(mapping->n_children, sizeof(*sorted));
    if (sorted == NULL)
        return -ENOMEM;
    unsigned n = 0;
    struct vb_yaml *child;
    STAILQ_FOREACH (child, &mapping->children, next)
        sorted[n++] = child;
    qsort(sorted, n, sizeof(*sorted), by_key);
    const struct vb_yaml *first = sorted[0];
    for (unsigned i = 1; i < n; i++) {
        if (strcmp(first->key, sorted[i]->key) != 0) {
            first = sorted[i];
            continue;
        }
        sorted[i]->broken = true;
        vb_diag_error(b->diag, sorted[i]->key_place, "duplicate key %s; it was given in line %u already",
                      vb_quote(first->key).text, first->key_place.line);
    }
    free(sorted);
    return 0;
}

static int on_end(struct builder *b)
{
    struct vb_yaml *node = b->open;
    b->open = node->parent;
    b->depth--;
    return node->kind == VB_YAML_MAPPING ? refuse_duplicates(b, node) : 0;
}

static int on_document(struct builder *b, const yaml_event_t *event)
{
    if (b->n_documents++ == 0)
        return 0;
    vb_diag_error(b->diag, place_of(event->start_mark),
                  "a second YAML document begins here; a configuration is a single one");
    return -EINVAL;
}

static int on_event(struct builder *b, const yaml_event_t *event)
{
    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        return on_document(b, event);
    case YAML_ALIAS_EVENT:
        return on_alias(b, event);
    case YAML_SCALAR_EVENT:
        return on_scalar(b, event);
    case YAML_SEQUENCE_START_EVENT:
        refuse_marks(b, event->start_mark, event->data.sequence_start.anchor, event->data.sequence_start.tag);
        return on_begin(b, VB_YAML_LIST, event);
    case YAML_MAPPING_START_EVENT:
        refuse_marks(b, event->start_mark, event->data.mapping_start.anchor, event->data.mapping_start.tag);
        return on_begin(b, VB_YAML_MAPPING, event);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        return on_end(b);
    default:
        return 0;
    }
}

static int build(struct builder *b)
{
    bool more = true;
    while (more) {
        yaml_event_t event;
        if (!yaml_parser_parse(&b->parser, &event))
            return syntax_error(b);
        more = event.type != YAML_STREAM_END_EVENT;
        int r = on_event(b, &event);
        yaml_event_delete(&event);
        if (r < 0)
            return r;
    }
    return 0;
}

int vb_yaml_parse(const char *text, size_t n, struct vb_diag *diag, struct vb_yaml_doc **ret_doc)
{
    static const char bom[] = {'\xef', '\xbb', '\xbf'};
    if (n >= sizeof(bom) && memcmp(text, bom, sizeof(bom)) == 0) { /* it would shift the columns of line 1 */
        text += sizeof(bom);
        n -= sizeof(bom);
    }
    struct builder b = {.text = text, .n = n, .diag = diag};
    b.doc = calloc(1, sizeof(*b.doc));
    if (b.doc == NULL)
        return -ENOMEM;
    STAILQ_INIT(&b.doc->nodes);
    int r = -ENOMEM;
    if (!yaml_parser_initialize(&b.parser))
        goto out;
    yaml_parser_set_encoding(&b.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&b.parser, (const unsigned char *)text, n);
    r = build(&b);
    yaml_parser_delete(&b.parser);
    free(b.key);
    if (r == 0) {
        *ret_doc = b.doc;
        return 0;
    }
out:
    vb_yaml_free(&b.doc);
    return r;
}
