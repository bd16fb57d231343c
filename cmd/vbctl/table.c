#include "table.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void table_begin(struct table *table, const struct table_column *columns)
{
    *table = (struct table){.columns = columns};
    while (columns[table->n_columns].title != NULL)
        table->n_columns++;
    assert(table->n_columns <= TABLE_COLUMNS_MAX);
}

void table_cell(struct table *table, const char *fmt, ...)
{
    if (table->n_cells == table->room) {
        size_t room = table->room > 0 ? 2 * table->room : 128;
        char **cells = realloc(table->cells, room * sizeof(*cells));
        if (cells == NULL) {
            table->failed = true;
            return;
        }
        table->cells = cells;
        table->room = room;
    }
    char *text;
    va_list args;
    va_start(args, fmt);
    int n = vasprintf(&text, fmt, args);
    va_end(args);
    if (n < 0)
        table->failed = true;
    else
        table->cells[table->n_cells++] = text;
}

/* The last column that is shown is not padded: no blanks at the ends of lines. */
static void print_row(const struct table *table, const char *const *cells, const int *widths, unsigned hidden)
{
    size_t last = table->n_columns;
    while (last > 0 && hidden >> (last - 1) & 1)
        last--;
    for (size_t i = 0; i < last; i++) {
        if (hidden >> i & 1)
            continue;
        if (table->columns[i].right)
            printf("%*s", widths[i], cells[i]);
        else
            printf("%-*s", i + 1 < last ? widths[i] : 0, cells[i]);
        fputs(i + 1 < last ? "  " : "\n", stdout);
    }
}

static void print_rows(const struct table *table, unsigned hidden)
{
    const char *titles[TABLE_COLUMNS_MAX];
    int widths[TABLE_COLUMNS_MAX];
    for (size_t i = 0; i < table->n_columns; i++) {
        titles[i] = table->columns[i].title;
        widths[i] = (int)strlen(titles[i]);
    }
    for (size_t i = 0; i < table->n_cells; i++) {
        int *width = &widths[i % table->n_columns];
        *width = VB_MAX(*width, (int)strlen(table->cells[i]));
    }
    print_row(table, titles, widths, hidden);
    for (size_t i = 0; i + table->n_columns <= table->n_cells; i += table->n_columns)
        print_row(table, (const char *const *)&table->cells[i], widths, hidden);
}

int table_print(struct table *table, unsigned hidden)
{
    if (!table->failed)
        print_rows(table, hidden);
    for (size_t i = 0; i < table->n_cells; i++)
        free(table->cells[i]);
    free(table->cells);
    table->cells = NULL;
    return table->failed ? -ENOMEM : 0;
}
