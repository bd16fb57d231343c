/* The list of errors of a configuration: sorted as it grows, bounded whatever the file holds. */
#include "diag_priv.h"

#include <stdarg.h>
#include <string.h>

static bool is_before(struct vb_place a, struct vb_place b)
{
    return a.line != b.line ? a.line < b.line : a.column < b.column;
}

static void VB_PRINTF(3, 0) add(struct vb_diag_list *list, struct vb_place place, const char *fmt, va_list args)
{
    list->total++;
    unsigned i = list->n;
    while (i > 0 && is_before(place, list->entries[i - 1].place))
        i--;
    if (i == VB_DIAG_MAX)
        return;
    if (list->n < VB_DIAG_MAX)
        list->n++;
    struct vb_diag_entry *entry = &list->entries[i];
    memmove(entry + 1, entry, (list->n - 1 - i) * sizeof(*entry));
    entry->place = place;
    vsnprintf(entry->text, sizeof(entry->text), fmt, args);
}

void vb_diag_error(struct vb_diag *diag, struct vb_place place, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    add(&diag->errors, place, fmt, args);
    va_end(args);
}

void vb_diag_warn(struct vb_diag *diag, struct vb_place place, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    add(&diag->warnings, place, fmt, args);
    va_end(args);
}

static void print_list(const struct vb_diag_list *list, const char *file, const char *prefix, FILE *to)
{
    for (unsigned i = 0; i < list->n; i++) {
        const struct vb_diag_entry *entry = &list->entries[i];
        fprintf(to, "%s:%u:%u: %s%s\n", file, entry->place.line, entry->place.column, prefix, entry->text);
    }
    if (list->total > list->n)
        fprintf(to, "%s: %s%u more like these are not shown\n", file, prefix, list->total - list->n);
}

void vb_diag_print(const struct vb_diag *diag, const char *file, FILE *to)
{
    if (diag->errors.total > 0)
        print_list(&diag->errors, file, "", to);
    else
        print_list(&diag->warnings, file, "warning: ", to);
}

struct vb_quoted vb_quote(const char *value)
{
    enum { SHOWN = 60 };
    struct vb_quoted quoted;
    size_t n = strlen(value);
    const char *dots = "";
    if (n > SHOWN) {
        n = SHOWN;
        while (n > 0 && ((unsigned char)value[n] & 0xc0) == 0x80) /* not in the middle of a character */
            n--;
        dots = "...";
    }
    snprintf(quoted.text, sizeof(quoted.text), "`%.*s%s`", (int)n, value, dots);
    /* What would steer a terminal: C0, DEL, and C1, which is two bytes in UTF-8. */
    for (unsigned char *p = (unsigned char *)quoted.text; *p != '\0'; p++) {
        bool is_c1 = p[0] == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0;
        if (is_c1)
            p[1] = '?';
        if (is_c1 || *p < 0x20 || *p == 0x7f)
            *p = '?';
    }
    return quoted;
}
