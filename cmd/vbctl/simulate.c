#include "simulate.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "plot.h"
#include "table.h"
#include "vb/sim.h"

enum { SHOWN_BACKENDS = 12, MISUSED = 2 };

struct play {
    struct vb_conf *conf;
    const struct vb_conf_pool *pool;
    struct vb_sim_result *results[VB_BALANCES];
    unsigned n;
};

/* ---- for people ---- */
/* About three digits: the histogram does not know more. */
static void add_ms(struct table *table, const struct vb_sim_result *result, double ms)
{
    if (result->answered == 0)
        table_cell(table, "-");
    else
        table_cell(table, "%.*f", ms < 10 ? 2 : ms < 100 ? 1 : 0, ms);
}

static int print_policies(const struct play *play)
{
    enum { WAITED = 8 };
    static const struct table_column columns[] = {
        {"POLICY", false},  {"REQUESTS", true}, {"ERRORS", true}, {"MEAN ms", true}, {"P50 ms", true}, {"P99 ms", true},
        {"P99.9 ms", true}, {"MAX ms", true},   {"WAITED", true}, {"QUEUED", true},  {"SPREAD", true}, {0}};
    struct table table;
    unsigned hidden = 1u << WAITED; /* until somebody did */
    table_begin(&table, columns);
    for (unsigned i = 0; i < play->n; i++) {
        const struct vb_sim_result *result = play->results[i];
        table_cell(&table, "%s", vb_balance_name(result->policy));
        table_cell(&table, "%" PRIu64, result->requests);
        table_cell(&table, "%" PRIu64, result->errors);
        add_ms(&table, result, result->mean_ms);
        add_ms(&table, result, result->p50_ms);
        add_ms(&table, result, result->p99_ms);
        add_ms(&table, result, result->p999_ms);
        add_ms(&table, result, result->max_ms);
        table_cell(&table, "%" PRIu64, result->waited);
        table_cell(&table, "%u", result->most_queued);
        table_cell(&table, "%u", result->spread);
        if (result->waited > 0)
            hidden = 0;
    }
    return table_print(&table, hidden);
}

static double share(const struct vb_sim_result *result, uint64_t requests)
{
    return result->tries > 0 ? 100.0 * (double)requests / (double)result->tries : 0;
}

/* Of all copies of one of the pool's backends. */
static uint64_t sum_copies(const struct vb_sim_result *result, unsigned of)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < result->n_backends; i++)
        sum += result->backends[i].of == of ? result->backends[i].requests : 0;
    return sum;
}

static uint64_t extreme(const struct vb_sim_result *result, bool most)
{
    uint64_t found = result->backends[0].requests;
    for (unsigned i = 1; i < result->n_backends; i++) {
        uint64_t requests = result->backends[i].requests;
        found = most ? VB_MAX(found, requests) : VB_MIN(found, requests);
    }
    return found;
}

static void add_backend_shares(struct table *table, const struct play *play)
{
    unsigned copies = play->conf->simulate.copies;
    for (unsigned i = 0; i < play->pool->n_backends; i++) {
        if (copies > 1)
            table_cell(table, "%s, %u copies", play->pool->backends[i].name, copies);
        else
            table_cell(table, "%s", play->pool->backends[i].name);
        for (unsigned j = 0; j < play->n; j++)
            table_cell(table, "%.1f%%", share(play->results[j], sum_copies(play->results[j], i)));
    }
}

static void add_extremes(struct table *table, const struct play *play)
{
    for (unsigned most = 0; most < 2; most++) {
        table_cell(table, most ? "most of one" : "least of one");
        for (unsigned j = 0; j < play->n; j++)
            table_cell(table, "%.3f%%", share(play->results[j], extreme(play->results[j], most != 0)));
    }
}

/* Each backend's share of the requests that backends were given. Of many only the extremes. */
static int print_shares(const struct play *play)
{
    struct table_column columns[VB_BALANCES + 2] = {{"SHARE", false}};
    struct table table;
    for (unsigned i = 0; i < play->n; i++)
        columns[i + 1] = (struct table_column){vb_balance_name(play->results[i]->policy), true};
    table_begin(&table, columns);
    if (play->pool->n_backends <= SHOWN_BACKENDS)
        add_backend_shares(&table, play);
    if (play->pool->n_backends > SHOWN_BACKENDS || play->conf->simulate.copies > 1)
        add_extremes(&table, play);
    return table_print(&table, 0);
}

static int print_play(const struct play *play)
{
    char title[256];
    printf("%s\n\n", plot_title(title, sizeof(title), play->conf));
    int r = print_policies(play);
    if (r < 0)
        return r;
    putchar('\n');
    return print_shares(play);
}

/* ---- for programs ---- */
static json_t *picks_object(const struct vb_sim_result *result)
{
    json_t *object = json_object();
    for (unsigned i = 0; i < VB_PICK_REASONS; i++)
        if (json_object_set_new(object, vb_pick_reason_name(i), json_integer((json_int_t)result->picks[i])) < 0)
            goto failed;
    return object;
failed:
    json_decref(object);
    return NULL;
}

static json_t *backends_array(const struct vb_sim_result *result)
{
    json_t *array = json_array();
    for (unsigned i = 0; i < result->n_backends; i++) {
        const struct vb_sim_backend *backend = &result->backends[i];
        json_t *object =
            json_pack("{s:s, s:I, s:f, s:i}", "name", backend->name, "requests", (json_int_t)backend->requests,
                      "share_percent", share(result, backend->requests), "most_queued", (int)backend->most_queued);
        if (json_array_append_new(array, object) < 0)
            goto failed;
    }
    return array;
failed:
    json_decref(array);
    return NULL;
}

static json_t *slices_array(const struct vb_sim_result *result)
{
    json_t *array = json_array();
    for (unsigned i = 0; i < VB_SIM_SLICES; i++) {
        const struct vb_sim_slice *slice = &result->slices[i];
        json_t *object = json_pack("{s:I, s:f, s:f}", "answered", (json_int_t)slice->answered, "p50_ms", slice->p50_ms,
                                   "p99_ms", slice->p99_ms);
        if (json_array_append_new(array, object) < 0)
            goto failed;
    }
    return array;
failed:
    json_decref(array);
    return NULL;
}

static json_t *result_object(const struct vb_sim_result *result)
{
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:i, s:i, s:o, s:o, s:o}", "policy",
                     vb_balance_name(result->policy), "requests", (json_int_t)result->requests, "answered",
                     (json_int_t)result->answered, "errors", (json_int_t)result->errors, "tries",
                     (json_int_t)result->tries, "waited", (json_int_t)result->waited, "mean_ms", result->mean_ms,
                     "p50_ms", result->p50_ms, "p99_ms", result->p99_ms, "p999_ms", result->p999_ms, "max_ms",
                     result->max_ms, "most_queued", (int)result->most_queued, "spread", (int)result->spread, "picks",
                     picks_object(result), "backends", backends_array(result), "slices", slices_array(result));
}

static int print_document(const struct play *play)
{
    const struct vb_conf_simulate *simulate = &play->conf->simulate;
    json_t *results = json_array();
    for (unsigned i = 0; i < play->n; i++)
        if (json_array_append_new(results, result_object(play->results[i])) < 0)
            goto failed;
    json_t *document = json_pack("{s:s, s:I, s:I, s:i, s:O}", "pool", play->pool->name, "seed",
                                 (json_int_t)simulate->seed, "duration_ms", (json_int_t)simulate->duration_ms,
                                 "workers", (int)vb_sim_workers(play->conf), "policies", results);
    if (document == NULL)
        goto failed;
    json_decref(results);
    json_dumpf(document, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(12));
    putchar('\n');
    json_decref(document);
    return 0;
failed:
    json_decref(results);
    return -ENOMEM;
}

/* ---- the command ---- */
static int read_file(const char *file, struct vb_conf **ret_conf, struct vb_error *err)
{
    char *text;
    size_t n;
    int r = vb_conf_read(file, &text, &n, err);
    if (r < 0)
        return r;
    r = vb_conf_parse(file, text, n, stderr, ret_conf);
    free(text);
    return r == -EINVAL ? MISUSED : r;
}

static int run_policies(struct play *play, struct vb_error *err)
{
    enum vb_balance policies[VB_BALANCES];
    unsigned n = vb_sim_policies(play->conf, policies);
    play->pool = vb_sim_pool(play->conf);
    for (unsigned i = 0; i < n; i++) {
        int r = vb_sim_run(play->conf, policies[i], &play->results[play->n]);
        if (r < 0)
            return vb_fail(err, r, "cannot simulate %s: %s", vb_balance_name(policies[i]), vb_strerror(r));
        play->n++;
    }
    return 0;
}

int simulate_run(const struct vbctl *ctl, struct vb_error *err)
{
    struct play play = {.n = 0};
    int r = read_file(ctl->args[1], &play.conf, err);
    if (r != 0)
        return r;
    r = run_policies(&play, err);
    if (r == 0 && ctl->svg != NULL)
        r = plot_write(ctl->svg, play.conf, (const struct vb_sim_result *const *)play.results, play.n, err);
    if (r == 0)
        r = ctl->json ? print_document(&play) : print_play(&play);
    for (unsigned i = 0; i < play.n; i++)
        vb_sim_free(&play.results[i]);
    vb_conf_free(&play.conf);
    return r;
}
