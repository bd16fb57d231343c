#include "print.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "table.h"

#define CHECK_MARKS 10      /* so many fit into a line of 120 or so */
#define LATE_US     2000000 /* a worker's heartbeat: it beats once a second */

struct text {
    char chars[32];
};

/* `12s`, `5m 3s`, `2h 5m`, `3d 4h`: the two units that matter. */
static struct text age_text(struct age age)
{
    struct text t = {"-"};
    uint64_t s = age.us / 1000000;
    if (!age.known)
        return t;
    if (s < 60)
        snprintf(t.chars, sizeof(t.chars), "%" PRIu64 "s", s);
    else if (s < 3600)
        snprintf(t.chars, sizeof(t.chars), "%" PRIu64 "m %" PRIu64 "s", s / 60, s % 60);
    else if (s < 86400)
        snprintf(t.chars, sizeof(t.chars), "%" PRIu64 "h %" PRIu64 "m", s / 3600, s / 60 % 60);
    else
        snprintf(t.chars, sizeof(t.chars), "%" PRIu64 "d %" PRIu64 "h", s / 86400, s / 3600 % 24);
    return t;
}

/* About three digits: the histogram does not know more. */
static struct text ms_text(const struct percentiles *p, unsigned which)
{
    struct text t = {"-"};
    double ms = p->ms[which];
    if (p->known)
        snprintf(t.chars, sizeof(t.chars), "%.*f", ms < 10 ? 2 : ms < 100 ? 1 : 0, ms);
    return t;
}

static void add_percentiles(struct table *table, const struct percentiles *p)
{
    for (unsigned i = 0; i < PERCENTILES; i++)
        table_cell(table, "%s", ms_text(p, i).chars);
}

static void print_instance(const struct status *status)
{
    if (status->uptime.known)
        printf("%s is %s: pid %d, version %s, for %s\n", status->name, status->state, status->pid, status->version,
               age_text(status->uptime).chars);
    else
        printf("%s is %s: it was pid %d, version %s\n", status->name, status->state, status->pid, status->version);
}

static void print_last_reload(const struct status *status)
{
    struct text age = age_text(status->last_reload);
    if (!status->last_reload.known)
        return;
    if (status->reload_failed)
        printf("  last reload  failed %s ago: %s\n", age.chars, status->reload_text);
    else
        printf("  last reload  done %s ago\n", age.chars);
}

static void print_backend_counts(const struct backend_counts *counts)
{
    printf("  backends     %u: %u up, %u down", counts->total, counts->up, counts->down);
    if (counts->ejected > 0)
        printf(", %u ejected", counts->ejected);
    if (counts->unknown > 0)
        printf(", %u not checked yet", counts->unknown);
    if (counts->drain > 0)
        printf(", %u draining", counts->drain);
    if (counts->maint > 0)
        printf(", %u in maintenance", counts->maint);
    putchar('\n');
}

/* One line for each backend that is not as the file says. */
static void print_changes(const struct vb_shm *shm)
{
    struct change change;
    const char *title = "changes";
    for (unsigned slot = 0; figures_next_change(shm, &slot, &change); title = "") {
        const char *words[3];
        unsigned n = 0;
        if (change.added || change.removed)
            words[n++] = change.added ? "added" : "removed";
        if (change.admin != NULL)
            words[n++] = change.admin;
        printf("  %-12s %s/%s: ", title, change.pool, change.name);
        for (unsigned i = 0; i < n; i++)
            printf("%s%s", i > 0 ? "; " : "", words[i]);
        if (change.weight_differs)
            printf("%sweight %u, file says %u", n > 0 ? "; " : "", change.weight, change.configured_weight);
        putchar('\n');
    }
}

int print_status(const struct vb_shm *shm, const struct status *status, const char *path)
{
    const struct totals *totals = &status->totals;
    print_instance(status);
    printf("  config       %s, generation %u\n", status->config_file[0] != '\0' ? status->config_file : "-",
           status->generation);
    print_last_reload(status);
    printf("  segment      %s, %.1f MiB\n", path, (double)status->segment_bytes / (1 << 20));
    printf("  workers      %u of %u ready\n", status->workers_ready, status->workers_wanted);
    print_backend_counts(&totals->backends);
    printf("  connections  %" PRIu64 "\n", totals->workers.connections);
    printf("  requests     %" PRIu64 ", %" PRIu64 " in flight\n", totals->workers.requests, totals->traffic.in_flight);
    printf("  errors       %" PRIu64 " by backends\n", totals->traffic.errors);
    if (status->log_lost > 0)
        printf("  log          %" PRIu64 " lines could not be written\n", status->log_lost);
    print_changes(shm);
    return 0;
}

/* Every counter with its meaning, from the rows of stats.def. */
static int print_totals(const struct totals *totals)
{
    static const struct table_column columns[] = {
        {"CLIENTS AND BACKENDS", false}, {"TOTAL", true}, {"MEANING", false}, {0}};
    struct table table;
    table_begin(&table, columns);
#define ROW(name, value, help)                                                                                         \
    do {                                                                                                               \
        table_cell(&table, "%s", name);                                                                                \
        table_cell(&table, "%" PRIu64, value);                                                                         \
        table_cell(&table, "%s", help);                                                                                \
    } while (0)
#define VB_WORKER_STAT(field, kind, help) ROW(#field, totals->workers.field, help);
#include "vb/stats.def"
    ROW("in_flight", totals->traffic.in_flight, "requests at backends now");
#define VB_BACKEND_STAT(field, kind, help) ROW("backends' " #field, totals->traffic.field, help);
#include "vb/stats.def"
#undef ROW
    return table_print(&table, 0);
}

static int print_pools(const struct vb_shm *shm)
{
    enum { PENDING = 4 };
    static const struct table_column columns[] = {{"POOL", false},
                                                  {"BALANCE", false},
                                                  {"UP", true},
                                                  {"IN-FLIGHT", true},
                                                  {"PENDING", true},
                                                  {"REQUESTS", true},
                                                  {"ERRORS", true},
                                                  {"RETRIES", true},
                                                  {"P50 ms", true},
                                                  {"P90 ms", true},
                                                  {"P99 ms", true},
                                                  {"P99.9 ms", true},
                                                  {0}};
    struct table table;
    unsigned hidden = 1u << PENDING; /* until one has any */
    table_begin(&table, columns);
    for (unsigned i = 0; i < vb_shm_capacity(shm).backends; i++) {
        struct pool_row row;
        if (!figures_pool(shm, i, &row))
            continue;
        table_cell(&table, "%s", row.name);
        table_cell(&table, "%s", row.balance);
        table_cell(&table, "%u/%u", row.backends.up, row.backends.total);
        if (row.pending_now > 0)
            hidden = 0;
        table_cell(&table, "%" PRIu64, row.traffic.in_flight);
        table_cell(&table, "%" PRIu64, row.pending_now);
        table_cell(&table, "%" PRIu64, row.traffic.requests);
        table_cell(&table, "%" PRIu64, row.traffic.errors);
        table_cell(&table, "%" PRIu64, row.traffic.retries);
        add_percentiles(&table, &row.latency);
    }
    return table_print(&table, hidden);
}

int print_stats(const struct vb_shm *shm)
{
    struct totals totals;
    figures_totals(shm, &totals);
    int r = print_totals(&totals);
    if (r < 0)
        return r;
    putchar('\n');
    return print_pools(shm);
}

static void add_state(struct table *table, const struct backend_row *row)
{
    table_cell(table, "%s%s%s", row->state, row->draining && row->traffic.in_flight == 0 ? ", empty" : "",
               row->backup ? ", backup" : "");
}

/* `3`, or with a limit `3/100`. */
static void add_in_flight(struct table *table, const struct backend_row *row)
{
    if (row->max_connections == 0)
        table_cell(table, "%" PRIu64, row->traffic.in_flight);
    else
        table_cell(table, "%" PRIu64 "/%u", row->traffic.in_flight, row->max_connections);
}

static void add_health(struct table *table, const struct backend_row *row)
{
    struct age left = {.known = true, .us = row->ejected_for_us + 999999};
    if (row->down)
        table_cell(table, "DOWN %s%s%s%s", row->last_failure[0] != '\0' ? row->last_failure : "not checked yet",
                   row->health_since.known ? ", " : "",
                   row->health_since.known ? age_text(row->health_since).chars : "",
                   row->health_since.known ? " ago" : "");
    else if (row->ejected)
        table_cell(table, "ejected, %s left: %s", age_text(left).chars,
                   row->last_request_failure != NULL ? row->last_request_failure : "-");
    else
        table_cell(table, "%s", row->health);
}

/* For how long it keeps idle connections, as far as is known: what was seen counts where it says more than it keeps. */
static void add_keep(struct table *table, const struct backend_row *row)
{
    bool seen =
        row->learned_idle_ms != 0 && (row->announced_idle_ms == 0 || row->learned_idle_ms < row->announced_idle_ms);
    unsigned ms = seen ? row->learned_idle_ms : row->announced_idle_ms;
    if (ms == 0)
        table_cell(table, "-");
    else
        table_cell(table, "%.*fs %s", ms % 1000 < 100 ? 0 : 1, (double)(ms / 100) / 10, seen ? "seen" : "said");
}

/* The last checks, the newest on the right. */
static void add_checks(struct table *table, const struct backend_row *row)
{
    char marks[CHECK_MARKS + 1];
    unsigned n = VB_MIN(row->n_history, (unsigned)CHECK_MARKS);
    for (unsigned i = 0; i < n; i++)
        marks[i] = row->history >> (n - 1 - i) & 1 ? '.' : 'x';
    marks[n] = '\0';
    table_cell(table, "%s", n > 0 ? marks : "-");
}

enum backend_column { ADDRESS = 2, RETRIES = 8, KEEP = 11, CHECKS = 12 };

/* Columns that would say nothing of this backend. */
static unsigned empty_columns(const struct backend_row *row)
{
    unsigned empty = 0;
    empty |= (unsigned)(strcmp(row->name, row->address) == 0) << ADDRESS;
    empty |= (unsigned)(row->traffic.retries == 0) << RETRIES;
    empty |= (unsigned)(row->announced_idle_ms == 0 && row->learned_idle_ms == 0) << KEEP;
    empty |= (unsigned)(row->n_history == 0) << CHECKS;
    return empty;
}

int print_backends(const struct vb_shm *shm, const char *pool)
{
    static const struct table_column columns[] = {
        {"POOL", false},     {"BACKEND", false}, {"ADDRESS", false}, {"STATE", false},  {"WEIGHT", true},
        {"IN-FLIGHT", true}, {"REQUESTS", true}, {"ERRORS", true},   {"RETRIES", true}, {"P50 ms", true},
        {"P99 ms", true},    {"KEEP", false},    {"CHECKS", true},   {"HEALTH", false}, {0}};
    struct table table;
    struct backend_walk walk = {0};
    struct backend_row row;
    unsigned hidden = 1u << ADDRESS | 1u << RETRIES | 1u << KEEP | 1u << CHECKS;
    table_begin(&table, columns);
    while (figures_next_backend(shm, pool, &walk, &row)) {
        hidden &= empty_columns(&row);
        table_cell(&table, "%s", row.pool);
        table_cell(&table, "%s", row.name);
        table_cell(&table, "%s", row.address);
        add_state(&table, &row);
        table_cell(&table, "%u", row.weight);
        add_in_flight(&table, &row);
        table_cell(&table, "%" PRIu64, row.traffic.requests);
        table_cell(&table, "%" PRIu64, row.traffic.errors);
        table_cell(&table, "%" PRIu64, row.traffic.retries);
        table_cell(&table, "%s", ms_text(&row.latency, P50).chars);
        table_cell(&table, "%s", ms_text(&row.latency, P99).chars);
        add_keep(&table, &row);
        add_checks(&table, &row);
        add_health(&table, &row);
    }
    return table_print(&table, hidden);
}

int print_workers(const struct worker_row *rows, unsigned n)
{
    static const struct table_column columns[] = {{"WORKER", true},
                                                  {"PID", true},
                                                  {"STATE", false},
                                                  {"GENERATION", true},
                                                  {"CONNECTIONS", true},
                                                  {"IN-FLIGHT", true},
                                                  {"REQUESTS", true},
                                                  {"RESTARTS", true},
                                                  {"UP FOR", true},
                                                  {"HEARTBEAT", true},
                                                  {0}};
    enum { HEARTBEAT = 9 };
    struct table table;
    unsigned hidden = 1u << HEARTBEAT;
    table_begin(&table, columns);
    for (unsigned i = 0; i < n; i++) {
        const struct worker_row *row = &rows[i];
        table_cell(&table, "%u", row->index);
        if (row->pid > 0)
            table_cell(&table, "%d", row->pid);
        else
            table_cell(&table, "-"); /* not spawned yet */
        table_cell(&table, "%s", row->state);
        table_cell(&table, "%u", row->generation);
        table_cell(&table, "%" PRIu64, row->stats.connections);
        table_cell(&table, "%" PRIu64, row->in_flight);
        table_cell(&table, "%" PRIu64, row->stats.requests);
        table_cell(&table, "%" PRIu64, row->restarts);
        table_cell(&table, "%s", age_text(row->uptime).chars);
        table_cell(&table, "%s ago", age_text(row->heartbeat).chars);
        if (row->heartbeat.known && row->heartbeat.us > LATE_US)
            hidden = 0;
    }
    return table_print(&table, hidden);
}
