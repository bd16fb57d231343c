#include "documents.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

/* jansson's *_new functions take the value and fail on NULL, so one result at the end of an object tells enough. */
struct object {
    json_t *json;
    int failed;
};

static struct object object_new(void)
{
    struct object o = {.json = json_object()};
    o.failed = o.json == NULL;
    return o;
}

static void put(struct object *o, const char *key, json_t *value)
{
    o->failed |= json_object_set_new(o->json, key, value) != 0;
}

/* Does what put() did not: hands the object over, or NULL (and all of it freed) when something in it is missing. */
static json_t *object_end(struct object *o)
{
    if (!o->failed)
        return o->json;
    json_decref(o->json);
    return NULL;
}

static void put_number(struct object *o, const char *key, uint64_t value)
{
    put(o, key, json_integer((json_int_t)VB_MIN(value, (uint64_t)INT64_MAX)));
}

static void put_number_or_null(struct object *o, const char *key, bool known, uint64_t value)
{
    if (known)
        put_number(o, key, value);
    else
        put(o, key, json_null());
}

/* JSON is UTF-8; a file name or a damaged segment may not be. */
static void put_text(struct object *o, const char *key, const char *text)
{
    char ascii[VB_SHM_ADDRESS_MAX];
    json_t *value = json_string(text);
    if (value == NULL) {
        vb_shm_text(ascii, sizeof(ascii), text, strlen(text));
        for (char *c = ascii; *c != '\0'; c++)
            if ((unsigned char)*c >= 0x80)
                *c = '?';
        value = json_string(ascii);
    }
    put(o, key, value);
}

static void put_text_or_null(struct object *o, const char *key, const char *text)
{
    if (text[0] == '\0')
        put(o, key, json_null());
    else
        put_text(o, key, text);
}

/* Microseconds are as exact as anything here is. */
static json_t *three_decimals(double value)
{
    return json_real((double)(int64_t)(value * 1000 + 0.5) / 1000);
}

static void put_percentiles(struct object *o, const struct percentiles *p)
{
    static const char *const keys[PERCENTILES] = {"p50_ms", "p90_ms", "p99_ms", "p999_ms"};
    for (unsigned i = 0; i < PERCENTILES; i++)
        put(o, keys[i], p->known ? three_decimals(p->ms[i]) : json_null());
}

static void put_age_s(struct object *o, const char *key, struct age age)
{
    put(o, key, age.known ? three_decimals((double)age.us / 1e6) : json_null());
}

static void put_age_ms(struct object *o, const char *key, struct age age)
{
    put(o, key, age.known ? json_integer((json_int_t)(age.us / 1000)) : json_null());
}

static void put_worker_stats(struct object *o, const struct vb_worker_sum *sum)
{
#define VB_WORKER_STAT(field, kind, help) put_number(o, #field, sum->field);
#include "vb/stats.def"
}

/* How many requests went there, by the reason why it was picked. */
static json_t *picks_object(const struct vb_traffic_sum *sum)
{
    struct object o = object_new();
    for (unsigned i = 0; i < VB_PICK_REASONS; i++)
        put_number(&o, vb_pick_reason_name(i), sum->picks[i]);
    return object_end(&o);
}

static void put_traffic(struct object *o, const struct vb_traffic_sum *sum, const struct percentiles *latency)
{
    put_number(o, "in_flight", sum->in_flight);
#define VB_BACKEND_STAT(field, kind, help) put_number(o, #field, sum->field);
#include "vb/stats.def"
    put(o, "picks", picks_object(sum));
    put_percentiles(o, latency);
}

static int print_document(struct object *o)
{
    json_t *json = object_end(o);
    if (json == NULL)
        return -ENOMEM;
    /* Whether it could be written is seen in the stream, at the end. */
    json_dumpf(json, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(12));
    putchar('\n');
    json_decref(json);
    return 0;
}

static json_t *counts_object(const struct backend_counts *counts)
{
    struct object o = object_new();
    put_number(&o, "total", counts->total);
    put_number(&o, "up", counts->up);
    put_number(&o, "down", counts->down);
    put_number(&o, "ejected", counts->ejected);
    put_number(&o, "unknown", counts->unknown);
    put_number(&o, "drain", counts->drain);
    put_number(&o, "maint", counts->maint);
    return object_end(&o);
}

static json_t *change_object(const struct change *change, const char *what)
{
    struct object o = object_new();
    put_text(&o, "pool", change->pool);
    put_text(&o, "name", change->name);
    put_text(&o, "change", what);
    put_number(&o, "weight", change->weight);
    put_number_or_null(&o, "configured_weight", change->configured_weight != 0, change->configured_weight);
    return object_end(&o);
}

static json_t *changes_array(const struct vb_shm *shm, struct object *o)
{
    json_t *list = json_array();
    struct change change;
    for (unsigned slot = 0; figures_next_change(shm, &slot, &change);) {
        const char *const kinds[] = {change.added ? "added" : NULL, change.removed ? "removed" : NULL, change.admin,
                                     change.weight_differs ? "weight" : NULL};
        for (unsigned i = 0; i < VB_ARRAY_SIZE(kinds); i++)
            if (kinds[i] != NULL)
                o->failed |= json_array_append_new(list, change_object(&change, kinds[i])) != 0;
    }
    return list;
}

static void put_reloads(struct object *o, const struct status *status)
{
    put_number(o, "reloads", status->reloads);
    put_number(o, "reloads_failed", status->reloads_failed);
    put(o, "last_reload_ok", status->last_reload.known ? json_boolean(!status->reload_failed) : json_null());
    put_age_s(o, "last_reload_age_s", status->last_reload);
    put_text_or_null(o, "last_reload_error", status->reload_text);
}

int document_status(const struct vb_shm *shm, const struct status *status, const char *path)
{
    struct object o = object_new(), workers = object_new();
    put_text(&o, "name", status->name);
    put_text(&o, "state", status->state);
    put_text(&o, "version", status->version);
    put(&o, "pid", json_integer(status->pid));
    put_age_s(&o, "uptime_s", status->uptime);
    put_number(&o, "generation", status->generation);
    put_text_or_null(&o, "config_file", status->config_file);
    put_reloads(&o, status);
    put_text(&o, "segment", path);
    put_number(&o, "segment_bytes", status->segment_bytes);
    put_number(&o, "log_lost", status->log_lost);
    put_number(&workers, "wanted", status->workers_wanted);
    put_number(&workers, "ready", status->workers_ready);
    put(&o, "workers", object_end(&workers));
    put(&o, "backends", counts_object(&status->totals.backends));
    put_number(&o, "connections", status->totals.workers.connections);
    put_number(&o, "in_flight", status->totals.traffic.in_flight);
    put_number(&o, "requests", status->totals.workers.requests);
    put_number(&o, "errors", status->totals.traffic.errors);
    put(&o, "changes", changes_array(shm, &o));
    return print_document(&o);
}

static json_t *pool_object(const struct pool_row *row)
{
    struct object o = object_new();
    put_text(&o, "name", row->name);
    put_text(&o, "balance", row->balance);
    put_number(&o, "backends", row->backends.total);
    put_number(&o, "backends_up", row->backends.up);
    put_number(&o, "backends_ejected", row->backends.ejected);
    put_number(&o, "requests_now", row->requests_now);
    put_number(&o, "pending_now", row->pending_now);
    put_traffic(&o, &row->traffic, &row->latency);
    return object_end(&o);
}

int document_stats(const struct vb_shm *shm)
{
    struct object o = object_new();
    struct totals totals;
    json_t *pools = json_array();
    figures_totals(shm, &totals);
    put_traffic(&o, &totals.traffic, &totals.latency);
    put_worker_stats(&o, &totals.workers); /* `requests` are those that came, not those that were passed on */
    for (unsigned i = 0; i < vb_shm_capacity(shm).backends; i++) {
        struct pool_row row;
        if (figures_pool(shm, i, &row))
            o.failed |= json_array_append_new(pools, pool_object(&row)) != 0;
    }
    put(&o, "pools", pools);
    return print_document(&o);
}

/* Oldest first. */
static json_t *checks_array(const struct backend_row *row, struct object *o)
{
    json_t *list = json_array();
    for (unsigned i = row->n_history; i > 0; i--)
        o->failed |= json_array_append_new(list, json_boolean(row->history >> (i - 1) & 1)) != 0;
    return list;
}

static void put_findings(struct object *o, const struct backend_row *row)
{
    put(o, "ejected", json_boolean(row->ejected));
    put(o, "ejected_for_s", row->ejected ? three_decimals((double)row->ejected_for_us / 1e6) : json_null());
    put_number(o, "ejections", row->ejections);
    put_number(o, "failures_in_a_row", row->failures_in_a_row);
    put_text_or_null(o, "last_request_failure", row->last_request_failure != NULL ? row->last_request_failure : "");
    put_number_or_null(o, "announced_idle_ms", row->announced_idle_ms != 0, row->announced_idle_ms);
    put_number_or_null(o, "learned_idle_ms", row->learned_idle_ms != 0, row->learned_idle_ms);
}

static json_t *backend_object(const struct backend_row *row)
{
    struct object o = object_new();
    put_text(&o, "pool", row->pool);
    put_text(&o, "name", row->name);
    put_text(&o, "address", row->address);
    put_text(&o, "state", row->state);
    put_text(&o, "health", row->health);
    put_number(&o, "weight", row->weight);
    put(&o, "configured", json_boolean(row->configured_weight != 0));
    put_number_or_null(&o, "configured_weight", row->configured_weight != 0, row->configured_weight);
    put_number(&o, "max_connections", row->max_connections);
    put(&o, "backup", json_boolean(row->backup));
    put_traffic(&o, &row->traffic, &row->latency);
    put_number_or_null(&o, "checks", row->checks_known, row->checks);
    put_number_or_null(&o, "check_failures", row->checks_known, row->check_failures);
    put(&o, "last_checks", checks_array(row, &o));
    put_age_ms(&o, "last_check_ms_ago", row->last_check);
    put_text_or_null(&o, "last_failure", row->last_failure);
    put_age_s(&o, "health_since_s", row->health_since);
    put_text_or_null(&o, "resolved_address", row->resolved);
    put_findings(&o, row);
    return object_end(&o);
}

int document_backends(const struct vb_shm *shm, const char *pool)
{
    struct object o = object_new();
    json_t *list = json_array();
    struct backend_walk walk = {0};
    struct backend_row row;
    while (figures_next_backend(shm, pool, &walk, &row))
        o.failed |= json_array_append_new(list, backend_object(&row)) != 0;
    put(&o, "backends", list);
    return print_document(&o);
}

int document_answer(bool ok, const char *message)
{
    struct object o = object_new();
    put(&o, "ok", json_boolean(ok));
    put_text(&o, "message", message);
    return print_document(&o);
}

static json_t *worker_object(const struct worker_row *row)
{
    struct object o = object_new();
    put_number(&o, "index", row->index);
    put_number(&o, "slot", row->slot);
    put_number_or_null(&o, "pid", row->pid > 0, (uint64_t)row->pid);
    put_text(&o, "state", row->state);
    put_number(&o, "generation", row->generation);
    put_worker_stats(&o, &row->stats);
    put_number(&o, "restarts", row->restarts);
    put_age_s(&o, "uptime_s", row->uptime);
    put_number(&o, "in_flight", row->in_flight);
    put_age_ms(&o, "heartbeat_age_ms", row->heartbeat);
    put_text_or_null(&o, "last_request", row->last_request);
    put_age_ms(&o, "last_request_age_ms", row->last_request_age);
    return object_end(&o);
}

int document_workers(const struct worker_row *rows, unsigned n)
{
    struct object o = object_new();
    json_t *list = json_array();
    for (unsigned i = 0; i < n; i++)
        o.failed |= json_array_append_new(list, worker_object(&rows[i])) != 0;
    put(&o, "workers", list);
    return print_document(&o);
}
