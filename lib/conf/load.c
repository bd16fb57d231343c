/* The walk along a mapping and its table of options, and the readers of the plain types. */
#include "load_priv.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>

bool vb_is_off(const char *word)
{
    struct vb_str text = vb_str(word);
    return vb_str_eq_nocase(text, VB_STR("off")) || vb_str_eq_nocase(text, VB_STR("false")) ||
           vb_str_eq_nocase(text, VB_STR("no"));
}

bool vb_is_on(const char *word)
{
    struct vb_str text = vb_str(word);
    return vb_str_eq_nocase(text, VB_STR("on")) || vb_str_eq_nocase(text, VB_STR("true")) ||
           vb_str_eq_nocase(text, VB_STR("yes"));
}

/* ---- reports ---- */
static struct vb_quoted found(const struct vb_yaml *node)
{
    switch (node->kind) {
    case VB_YAML_LIST:
        return (struct vb_quoted){"a list"};
    case VB_YAML_MAPPING:
        return (struct vb_quoted){"a mapping"};
    default:
        if (node->text[0] != '\0')
            return vb_quote(node->text);
        return node->quoted ? (struct vb_quoted){"an empty text"} : (struct vb_quoted){"nothing"};
    }
}

void vb_load_mismatch(struct vb_load *load, const char *key, const struct vb_yaml *node, const char *expected)
{
    vb_diag_error(load->diag, node->place, "%s: expected %s, found %s", vb_quote(key).text, expected, found(node).text);
}

bool vb_load_is(struct vb_load *load, const char *key, const struct vb_yaml *node, enum vb_yaml_kind kind,
                const char *expected)
{
    if (node->kind == kind)
        return true;
    vb_load_mismatch(load, key, node, expected);
    return false;
}

/* ---- numbers ---- */
struct unit {
    const char *name;
    uint64_t factor;
};

static const struct unit duration_units[] = {{"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}};
static const struct unit size_units[] = {{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"", 1}};

/* In the largest unit that leaves a whole number. `units` ends with a factor of 1. */
static void show(char *to, size_t size, uint64_t value, const struct unit *units)
{
    while (value % units->factor != 0)
        units++;
    snprintf(to, size, "%" PRIu64 "%s", value / units->factor, value > 0 ? units->name : "");
}

static bool is_special(const struct vb_option *option, const char *text)
{
    return option->special != NULL && strcmp(vb_is_off(text) ? "off" : text, option->special) == 0;
}

static void report_or_special(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node,
                              const char *expected)
{
    char either[96];
    snprintf(either, sizeof(either), "%s or `%s`", expected, option->special != NULL ? option->special : "");
    vb_load_mismatch(load, option->key, node, option->special != NULL ? either : expected);
}

static void report_range(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node,
                         const struct unit *units)
{
    char low[32], high[32], expected[80];
    show(low, sizeof(low), option->min, units);
    show(high, sizeof(high), option->max, units);
    snprintf(expected, sizeof(expected), "%s to %s", low, high);
    report_or_special(load, option, node, expected);
}

static void store(const struct vb_option *option, void *object, uint64_t value)
{
    char *to = (char *)object + option->offset;
    switch (option->size) {
    case sizeof(bool):
        *(bool *)to = value != 0;
        return;
    case sizeof(unsigned):
        *(unsigned *)to = (unsigned)value;
        return;
    default:
        assert(option->size == sizeof(uint64_t));
        *(uint64_t *)to = value;
    }
}

static void read_uint(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *object)
{
    uint64_t value;
    if (is_special(option, node->text)) {
        store(option, object, option->special_value);
    } else if (vb_parse_u64(vb_str(node->text), option->max, &value) == 0 && value >= option->min) {
        store(option, object, value);
    } else {
        char expected[64];
        snprintf(expected, sizeof(expected), "a whole number from %" PRIu64 " to %" PRIu64, option->min, option->max);
        report_or_special(load, option, node, expected);
    }
}

/* `20%`: with its sign, so that nobody takes it for a factor or a number of backends. */
static void read_share(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *object)
{
    struct vb_str text = vb_str(node->text);
    if (is_special(option, node->text)) {
        store(option, object, option->special_value);
        return;
    }
    uint64_t value = 0;
    bool has_sign = text.n > 0 && text.p[text.n - 1] == '%';
    int r = has_sign ? vb_parse_u64((struct vb_str){text.p, text.n - 1}, option->max, &value) : -EINVAL;
    if (r == -EINVAL) {
        report_or_special(load, option, node, "a share such as 20%");
    } else if (r < 0 || value < option->min) {
        char expected[64];
        snprintf(expected, sizeof(expected), "a share from %" PRIu64 "%% to %" PRIu64 "%%", option->min, option->max);
        report_or_special(load, option, node, expected);
    } else {
        store(option, object, value);
    }
}

static void read_duration(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node,
                          void *object)
{
    uint64_t ms;
    if (is_special(option, node->text)) {
        store(option, object, option->special_value);
        return;
    }
    int r = vb_parse_duration(vb_str(node->text), &ms);
    if (r == -EINVAL)
        report_or_special(load, option, node, "a duration such as 500ms, 5s, 1m or 1h");
    else if (r < 0 || ms < option->min || ms > option->max)
        report_range(load, option, node, duration_units);
    else
        store(option, object, ms);
}

static void read_size(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *object)
{
    uint64_t bytes;
    int r = vb_parse_size(vb_str(node->text), &bytes);
    if (r == -EINVAL)
        vb_load_mismatch(load, option->key, node, "a size such as 4096, 16KiB or 1MiB");
    else if (r < 0 || bytes < option->min || bytes > option->max)
        report_range(load, option, node, size_units);
    else
        store(option, object, bytes);
}

/* ---- words and texts ---- */
static void read_bool(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *object)
{
    if (vb_is_on(node->text) || vb_is_off(node->text))
        store(option, object, vb_is_on(node->text));
    else
        vb_load_mismatch(load, option->key, node, "true or false");
}

static void list_words(const struct vb_word *words, char *to, size_t size)
{
    size_t n = 0;
    for (; words->word != NULL && n < size; words++)
        n += (size_t)snprintf(to + n, size - n, "%s%s", n > 0 ? " or " : "", words->word);
}

static const struct vb_word *nearest_word(const struct vb_word *words, const char *text)
{
    const struct vb_word *best = NULL;
    unsigned fewest = UINT_MAX;
    for (; words->word != NULL; words++) {
        unsigned slips = vb_schema_slips(text, words->word);
        if (slips < fewest) {
            best = words;
            fewest = slips;
        }
    }
    return best;
}

bool vb_load_word(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, const char *text,
                  unsigned *ret_value)
{
    if (vb_is_off(text))
        text = "off";
    const struct vb_word *word = option->words;
    while (word->word != NULL && strcmp(word->word, text) != 0)
        word++;
    if (word->word != NULL) {
        *ret_value = word->value;
        return true;
    }
    char allowed[128];
    list_words(option->words, allowed, sizeof(allowed));
    bool is_number = text[strspn(text, "0123456789")] == '\0'; /* who writes 500 does not mean 502 */
    const struct vb_word *meant = is_number ? NULL : nearest_word(option->words, text);
    if (meant != NULL)
        vb_diag_error(load->diag, node->place, "`%s`: unknown value %s; did you mean `%s`?", option->key,
                      vb_quote(text).text, meant->word);
    else
        vb_load_mismatch(load, option->key, node, allowed);
    return false;
}

static void read_word(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *object)
{
    unsigned value;
    if (vb_load_word(load, option, node, node->text, &value))
        store(option, object, value);
}

static void read_chars(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *object)
{
    if (!option->valid(node->text) || !vb_copy((char *)object + option->offset, option->size, node->text))
        vb_load_mismatch(load, option->key, node, option->expected);
}

static void read_string(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *object)
{
    char **to = (char **)(void *)((char *)object + option->offset);
    if (!option->valid(node->text)) {
        vb_load_mismatch(load, option->key, node, option->expected);
        return;
    }
    char *copy = strdup(node->text);
    if (copy == NULL) {
        load->oom = true;
        return;
    }
    free(*to);
    *to = copy;
}

/* ---- the walk ---- */
/* A mapping of options, or one word where the level can be switched off. */
static void read_level(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *object)
{
    bool has_switch = option->size != 0;
    if (has_switch && node->kind == VB_YAML_SCALAR && (vb_is_on(node->text) || vb_is_off(node->text))) {
        store(option, object, vb_is_on(node->text));
        return;
    }
    if (!vb_load_is(load, option->key, node, VB_YAML_MAPPING, has_switch ? "a mapping or `off`" : "a mapping"))
        return;
    if (has_switch)
        store(option, object, true);
    vb_load_level(load, option->level, node, object);
}

static void read_option(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *object)
{
    static void (*const scalar_readers[])(struct vb_load *, const struct vb_option *, const struct vb_yaml *,
                                          void *) = {
        [VB_OPTION_UINT] = read_uint,     [VB_OPTION_DURATION] = read_duration, [VB_OPTION_SIZE] = read_size,
        [VB_OPTION_BOOL] = read_bool,     [VB_OPTION_WORD] = read_word,         [VB_OPTION_CHARS] = read_chars,
        [VB_OPTION_STRING] = read_string, [VB_OPTION_SHARE] = read_share,
    };
    if (option->type == VB_OPTION_LATER)
        vb_diag_error(load->diag, node->key_place, "`%s` is not supported yet", option->key);
    else if (option->type == VB_OPTION_LEVEL)
        read_level(load, option, node, object);
    else if (option->type == VB_OPTION_CUSTOM)
        option->read(load, option, node, object);
    else if (vb_load_is(load, option->key, node, VB_YAML_SCALAR, "a single value"))
        scalar_readers[option->type](load, option, node, object);
}

void vb_load_level(struct vb_load *load, const struct vb_level *level, const struct vb_yaml *mapping, void *object)
{
    const struct vb_yaml *child;
    STAILQ_FOREACH (child, &mapping->children, next) {
        const struct vb_option *option = vb_schema_find(level, child->key);
        if (option == NULL)
            vb_schema_unknown(level, child, load->diag);
        else if (!child->broken || option->type == VB_OPTION_LATER)
            read_option(load, option, child, object);
    }
}

void vb_load_defaults(struct vb_load *load, const struct vb_level *level, void *object)
{
    unsigned errors_before = load->diag->errors.total;
    for (const struct vb_option *option = level->options; option->key != NULL; option++) {
        if (option->type == VB_OPTION_LEVEL)
            vb_load_defaults(load, option->level, object);
        if (option->by_default == NULL)
            continue;
        char text[64];
        vb_copy(text, sizeof(text), option->by_default);
        struct vb_yaml node = {.kind = VB_YAML_SCALAR, .text = text, .quoted = true};
        read_option(load, option, &node, object);
    }
    assert(load->diag->errors.total == errors_before);
}

int vb_conf_load(const struct vb_yaml *root, struct vb_diag *diag, struct vb_conf *conf)
{
    static const struct vb_place start = {1, 1};
    struct vb_load load = {.diag = diag, .root = root};
    vb_load_defaults(&load, &vb_level_top, conf);
    if (root == NULL || (root->kind == VB_YAML_SCALAR && root->text[0] == '\0' && !root->broken)) {
        vb_diag_error(diag, start, "the file is empty; it needs at least `listen` and `pools`");
    } else if (root->kind != VB_YAML_MAPPING) {
        vb_diag_error(diag, root->place, "expected a mapping with at least `listen` and `pools`, found %s",
                      found(root).text);
    } else {
        vb_load_level(&load, &vb_level_top, root, conf);
        if (vb_yaml_find(root, "listen") == NULL)
            vb_diag_error(diag, root->place, "`listen` is missing; add for example `listen: 8080`");
        if (vb_yaml_find(root, "pools") == NULL)
            vb_diag_error(diag, root->place, "`pools` is missing; add a pool with its backends");
    }
    if (diag->errors.total == 0 && !load.oom) {
        vb_warn_of_routes(&load, conf);
        vb_bound_simulate(&load, conf);
    }
    return load.oom ? -ENOMEM : 0;
}
