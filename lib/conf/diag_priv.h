/*
 * What is wrong with a configuration, collected while it is read and printed once, in order of line: checks do not run
 * in the order of the file. Reporting never fails and never stops the reader.
 */
#ifndef VB_CONF_DIAG_PRIV_H
#define VB_CONF_DIAG_PRIV_H

#include <stdio.h>

#include "vb/base.h"

#define VB_DIAG_MAX      100 /* messages that are kept and shown; the rest is only counted */
#define VB_DIAG_TEXT_MAX 512

/* As editors count: both from 1, columns in characters. */
struct vb_place {
    unsigned line, column;
};

struct vb_diag_entry {
    struct vb_place place;
    char text[VB_DIAG_TEXT_MAX];
};

/* The first ones of the file, in its order. */
struct vb_diag_list {
    struct vb_diag_entry entries[VB_DIAG_MAX];
    unsigned n, total;
};

struct vb_diag {
    struct vb_diag_list errors;
    struct vb_diag_list warnings; /* shown only where there are no errors: these come first */
};

void vb_diag_error(struct vb_diag *diag, struct vb_place place, const char *fmt, ...) VB_PRINTF(3, 4);
void vb_diag_warn(struct vb_diag *diag, struct vb_place place, const char *fmt, ...) VB_PRINTF(3, 4);

/* One `FILE:LINE:COLUMN: message` line for each. */
void vb_diag_print(const struct vb_diag *diag, const char *file, FILE *to);

/* A value as messages show it: in backticks, cut where it is long, harmless to a terminal. */
struct vb_quoted {
    char text[72];
};

struct vb_quoted vb_quote(const char *value);

#endif
