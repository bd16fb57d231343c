/* A table for people: columns as wide as their widest cell, two spaces between them, no lines. */
#ifndef VBCTL_TABLE_H
#define VBCTL_TABLE_H

#include "vb/base.h"

enum { TABLE_COLUMNS_MAX = 16 };

struct table_column {
    const char *title; /* NULL ends the columns */
    bool right;        /* numbers */
};

struct table {
    const struct table_column *columns;
    size_t n_columns;
    char **cells; /* row after row; owned */
    size_t n_cells, room;
    bool failed; /* out of memory: table_print says so */
};

void table_begin(struct table *table, const struct table_column *columns);

/* The next cell, left to right, row after row. */
void table_cell(struct table *table, const char *fmt, ...) VB_PRINTF(2, 3);

/* Prints the table to stdout, without the columns in `hidden` (a bit for each), and frees it. 0 or -ENOMEM. */
int table_print(struct table *table, unsigned hidden);

#endif
