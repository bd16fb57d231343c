/* What a table cannot say of `simulate`: policies, the models of single backends, and whether all names are known. */
#include <stdio.h>

#include "load_priv.h"

enum { REQUESTS_MAX = 100000000 }; /* some minutes for each policy; more is a slip of the pen */

void vb_free_simulate(struct vb_conf_simulate *simulate)
{
    for (unsigned i = 0; i < simulate->n_models; i++)
        free(simulate->models[i].phases);
    free(simulate->models);
}

/* ---- single values whose place is needed later ---- */
void vb_read_simulated_pool(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node,
                            void *object)
{
    struct vb_conf_simulate *simulate = &((struct vb_conf *)object)->simulate;
    if (node->kind != VB_YAML_SCALAR || !vb_copy(simulate->pool, sizeof(simulate->pool), node->text))
        vb_load_mismatch(load, option->key, node, "the name of a pool");
    simulate->pool_line = node->place.line;
    simulate->pool_column = node->place.column;
}

void vb_read_copies(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *object)
{
    struct vb_conf_simulate *simulate = &((struct vb_conf *)object)->simulate;
    uint64_t value = 0;
    if (node->kind != VB_YAML_SCALAR || vb_parse_u64(vb_str(node->text), VB_BACKENDS_MAX, &value) < 0 || value == 0)
        vb_load_mismatch(load, option->key, node, "a whole number from 1 to 4096");
    else
        simulate->copies = (unsigned)value;
    simulate->copies_line = node->place.line;
    simulate->copies_column = node->place.column;
}

/* ---- policies: a word, a list of words, or `all` ---- */
static void add_policy(struct vb_conf_simulate *simulate, unsigned policy)
{
    for (unsigned i = 0; i < simulate->n_policies; i++)
        if (simulate->policies[i] == policy)
            return;
    assert(simulate->n_policies < VB_BALANCES);
    simulate->policies[simulate->n_policies++] = policy;
}

static void read_policy(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node,
                        struct vb_conf_simulate *simulate)
{
    unsigned policy;
    if (node->broken || !vb_load_is(load, option->key, node, VB_YAML_SCALAR, "names of policies, or `all`"))
        return;
    if (strcmp(node->text, "all") == 0)
        for (const struct vb_word *word = option->words; word->word != NULL; word++)
            add_policy(simulate, word->value);
    else if (vb_load_word(load, option, node, node->text, &policy))
        add_policy(simulate, policy);
}

void vb_read_policies(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *object)
{
    struct vb_conf_simulate *simulate = &((struct vb_conf *)object)->simulate;
    if (node->kind != VB_YAML_LIST) {
        read_policy(load, option, node, simulate);
        return;
    }
    const struct vb_yaml *child;
    STAILQ_FOREACH (child, &node->children, next)
        read_policy(load, option, child, simulate);
}

/* ---- models ---- */
/* They follow each other: so a time has one phase, or none. */
static void read_phase(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node,
                       struct vb_conf_model *model)
{
    struct vb_conf_phase *phase = &model->phases[model->n_phases];
    const struct vb_conf_phase *last = model->n_phases > 0 ? phase - 1 : NULL;
    if (node->broken ||
        !vb_load_is(load, option->key, node, VB_YAML_MAPPING, "mappings such as `{is: slow, from: 10s}`"))
        return;
    vb_load_defaults(load, &vb_level_phase, phase);
    vb_load_level(load, &vb_level_phase, node, phase);
    if (vb_yaml_find(node, "is") == NULL)
        vb_diag_error(load->diag, node->place, "a phase says what the backend is then, for example `is: slow`");
    if (phase->to_ms != 0 && phase->to_ms <= phase->from_ms)
        vb_diag_error(load->diag, node->place, "this phase ends before it begins: `to` must be greater than `from`");
    if (last != NULL && (last->to_ms == 0 || last->to_ms > phase->from_ms))
        vb_diag_error(load->diag, node->place, "this phase begins before the one above it has ended");
    if (phase->is == VB_PHASE_COLD && phase->to_ms == 0)
        vb_diag_error(load->diag, node->place, "`cold` needs a `to`: by then the backend is warm");
    model->n_phases++;
}

void vb_read_phases(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *object)
{
    struct vb_conf_model *model = object;
    if (!vb_load_is(load, option->key, node, VB_YAML_LIST, "a list of phases") || node->n_children == 0)
        return;
    model->phases = calloc(node->n_children, sizeof(*model->phases));
    if (model->phases == NULL) {
        load->oom = true;
        return;
    }
    const struct vb_yaml *child;
    STAILQ_FOREACH (child, &node->children, next)
        read_phase(load, option, child, model);
}

static void read_model(struct vb_load *load, const struct vb_yaml *node, struct vb_conf_simulate *simulate)
{
    struct vb_conf_model *model = &simulate->models[simulate->n_models];
    if (!vb_load_is(load, node->key, node, VB_YAML_MAPPING, "a mapping such as `{service_time: 50ms}`"))
        return;
    *model = (struct vb_conf_model){.line = node->key_place.line, .column = node->key_place.column};
    if (!vb_copy(model->name, sizeof(model->name), node->key))
        vb_diag_error(load->diag, node->key_place, "%s is longer than any backend's name", vb_quote(node->key).text);
    vb_load_level(load, &vb_level_model, node, model);
    simulate->n_models++;
}

void vb_read_models(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *object)
{
    struct vb_conf_simulate *simulate = &((struct vb_conf *)object)->simulate;
    if (!vb_load_is(load, option->key, node, VB_YAML_MAPPING, "a mapping from backends to what differs there") ||
        node->n_children == 0)
        return;
    simulate->models = calloc(node->n_children, sizeof(*simulate->models));
    if (simulate->models == NULL) {
        load->oom = true;
        return;
    }
    const struct vb_yaml *child;
    STAILQ_FOREACH (child, &node->children, next)
        if (!child->broken)
            read_model(load, child, simulate);
}

/* ---- the whole ---- */
/* Clients that wait for answers ask less often than this says. */
static uint64_t most_requests(const struct vb_conf_simulate *simulate)
{
    if (simulate->arrivals == VB_ARRIVALS_CLOSED)
        return simulate->clients * (simulate->duration_ms / simulate->think_ms + 1);
    return simulate->rate * simulate->duration_ms / 1000;
}

void vb_bound_simulate(struct vb_load *load, const struct vb_conf *conf)
{
    const struct vb_yaml *node = vb_yaml_find(load->root, "simulate");
    uint64_t requests = most_requests(&conf->simulate);
    if (node != NULL && requests > REQUESTS_MAX)
        vb_diag_error(load->diag, node->key_place, "`simulate`: that may be %llu requests, more than %d",
                      (unsigned long long)requests, REQUESTS_MAX);
}

static void check_model(const struct vb_conf_pool *pool, const struct vb_conf_model *model, struct vb_diag *diag)
{
    for (unsigned i = 0; i < pool->n_backends; i++)
        if (strcmp(pool->backends[i].name, model->name) == 0)
            return;
    vb_diag_error(diag, (struct vb_place){model->line, model->column}, "pool %s has no backend %s",
                  vb_quote(pool->name).text, vb_quote(model->name).text);
}

void vb_check_simulate(const struct vb_conf *conf, struct vb_diag *diag)
{
    const struct vb_conf_simulate *simulate = &conf->simulate;
    if (diag->errors.total > 0)
        return; /* what is missing may be among what could not be read */
    const struct vb_conf_pool *pool =
        simulate->pool[0] != '\0' ? vb_conf_find_pool(conf, simulate->pool) : &conf->pools[0];
    if (pool == NULL) {
        vb_diag_error(diag, (struct vb_place){simulate->pool_line, simulate->pool_column}, "there is no pool %s",
                      vb_quote(simulate->pool).text);
        return;
    }
    for (unsigned i = 0; i < simulate->n_models; i++)
        check_model(pool, &simulate->models[i], diag);
    if ((uint64_t)pool->n_backends * simulate->copies > VB_BACKENDS_MAX)
        vb_diag_error(diag, (struct vb_place){simulate->copies_line, simulate->copies_column},
                      "%u copies of %u backends are more than %d", simulate->copies, pool->n_backends, VB_BACKENDS_MAX);
}
