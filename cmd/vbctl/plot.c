#include "plot.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Pixels. */
enum {
    WIDTH = 960,
    LEFT = 84,
    RIGHT = 936,
    TOP = 78, /* of the first panel */
    PANEL = 190,
    GAP = 62,
    BAR = 20,
    BAR_GAP = 8,
    BAR_LEFT = 120,
    BAR_RIGHT = 830,   /* errors stand behind the bars */
    BACKENDS_MAX = 12, /* of more only the extremes are drawn */
};

/* Okabe and Ito's, which people see apart who do not see all colours. */
static const char *const colours[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555"};
static const char *const shades[] = {"#a9c4dc", "#d3e1ee", "#bcd8c6", "#deecdf", "#e8d3ae", "#f5ead4",
                                     "#cdbfe0", "#e6dff0", "#e5bcb8", "#f4e0de", "#c9c9c9", "#e6e6e6"};
_Static_assert(VB_ARRAY_SIZE(colours) == VB_BALANCES, "each policy has a colour");
_Static_assert(VB_ARRAY_SIZE(shades) == BACKENDS_MAX, "each backend has a shade");

struct plot {
    FILE *to;
    const struct vb_conf *conf;
    const struct vb_conf_pool *pool;
    const struct vb_sim_result *const *results;
    unsigned n;
};

char *plot_title(char *to, size_t size, const struct vb_conf *conf)
{
    static const char *const arrivals[] = {"poisson", "constant", "closed"};
    const struct vb_conf_simulate *simulate = &conf->simulate;
    const struct vb_conf_pool *pool = vb_sim_pool(conf);
    char load[96];
    if (simulate->arrivals == VB_ARRIVALS_CLOSED)
        snprintf(load, sizeof(load), "%u clients", simulate->clients);
    else
        snprintf(load, sizeof(load), "%u requests/s (%s)", simulate->rate, arrivals[simulate->arrivals]);
    snprintf(to, size, "%g s of pool %s: %u backends, %u workers, %s, seed %" PRIu64,
             (double)simulate->duration_ms / 1e3, pool->name, pool->n_backends * simulate->copies, vb_sim_workers(conf),
             load, simulate->seed);
    return to;
}

/* Backends may be called after unix sockets, whose paths may be anything. */
static void write_text(FILE *to, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '<')
            fputs("&lt;", to);
        else if (*text == '&')
            fputs("&amp;", to);
        else
            fputc(*text, to);
    }
}

static void write_label(const struct plot *plot, double x, double y, const char *class, const char *text)
{
    fprintf(plot->to, "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\">", x, y, class);
    write_text(plot->to, text);
    fputs("</text>\n", plot->to);
}

/* ---- the frame ---- */
static unsigned bars(const struct plot *plot)
{
    return plot->n * (BAR + BAR_GAP);
}

/* Which shade is which backend. Returns the height of that; with `top` 0 nothing is written. */
static double write_shades(const struct plot *plot, double top)
{
    double x = BAR_LEFT, y = top;
    for (unsigned i = 0; i < plot->pool->n_backends && plot->pool->n_backends <= BACKENDS_MAX; i++) {
        const char *name = plot->pool->backends[i].name;
        double width = 40 + 7.2 * (double)strlen(name);
        if (x + width > RIGHT && x > BAR_LEFT) {
            x = BAR_LEFT;
            y += 20;
        }
        if (top > 0) {
            fprintf(plot->to, "<rect x=\"%.1f\" y=\"%.1f\" width=\"14\" height=\"14\" fill=\"%s\"/>\n", x, y,
                    shades[i]);
            write_label(plot, x + 20, y + 11, "name", name);
        }
        x += width;
    }
    return y - top + 14;
}

static unsigned height(const struct plot *plot)
{
    return TOP + 2 * (PANEL + GAP) + bars(plot) + 48 + (unsigned)write_shades(plot, 0);
}

static void write_head(const struct plot *plot)
{
    char title[256];
    fprintf(plot->to,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%u\" viewBox=\"0 0 %d %u\">\n"
            "<style>text{font:12px sans-serif;fill:#333}.title{font-size:15px;fill:#111}.panel{font-size:13px;"
            "font-weight:bold}.right{text-anchor:end}.middle{text-anchor:middle}.note{fill:#777;font-size:11px}"
            ".grid{stroke:#e3e3e3}.axis{stroke:#888}.line{fill:none;stroke-width:1.6;stroke-linejoin:round}</style>\n"
            "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
            WIDTH, height(plot), WIDTH, height(plot));
    write_label(plot, 16, 24, "title", plot_title(title, sizeof(title), plot->conf));
}

static void write_legend(const struct plot *plot)
{
    double x = 16;
    for (unsigned i = 0; i < plot->n; i++) {
        const char *name = vb_balance_name(plot->results[i]->policy);
        fprintf(plot->to, "<rect x=\"%.1f\" y=\"38\" width=\"18\" height=\"4\" fill=\"%s\"/>\n", x, colours[i]);
        write_label(plot, x + 24, 45, "name", name);
        x += 44 + 7.2 * (double)strlen(name);
    }
}

/* ---- latency by time ---- */
/* Logarithmic, from one of 1, 2, 5, 10, 20, ... to another. */
struct scale {
    double top; /* y of the panel */
    double low, high;
};

static double first_step(double ms)
{
    return pow(10, floor(log10(ms)));
}

/* 1, 2, 5, 10, ...: to the next. */
static double next_step(double ms)
{
    double leading = ms / first_step(ms * 1.001);
    return leading > 1.5 && leading < 3 ? ms * 2.5 : ms * 2;
}

static double value(const struct vb_sim_slice *slice, bool p99)
{
    return p99 ? slice->p99_ms : slice->p50_ms;
}

static struct scale find_scale(const struct plot *plot, bool p99, double top)
{
    double least = HUGE_VAL, most = 0;
    for (unsigned i = 0; i < plot->n; i++) {
        for (unsigned j = 0; j < VB_SIM_SLICES; j++) {
            const struct vb_sim_slice *slice = &plot->results[i]->slices[j];
            if (slice->answered == 0)
                continue;
            least = VB_MIN(least, value(slice, p99));
            most = VB_MAX(most, value(slice, p99));
        }
    }
    struct scale scale = {top, 1, 2};
    if (most == 0)
        return scale;
    scale.low = first_step(least);
    while (next_step(scale.low) <= least)
        scale.low = next_step(scale.low);
    scale.high = next_step(scale.low);
    while (scale.high < most)
        scale.high = next_step(scale.high);
    return scale;
}

static double y_of(const struct scale *scale, double ms)
{
    return scale->top + PANEL - PANEL * log(ms / scale->low) / log(scale->high / scale->low);
}

static double x_of(const struct plot *plot, double us)
{
    return LEFT + (RIGHT - LEFT) * us / (1e3 * (double)plot->conf->simulate.duration_ms);
}

static void write_y_axis(const struct plot *plot, const struct scale *scale)
{
    for (double ms = scale->low; ms <= scale->high * 1.001; ms = next_step(ms)) {
        double y = y_of(scale, ms);
        char text[32];
        if (ms >= 1000)
            snprintf(text, sizeof(text), "%g s", ms / 1000);
        else
            snprintf(text, sizeof(text), "%g ms", ms);
        fprintf(plot->to, "<path class=\"grid\" d=\"M%d %.1fH%d\"/>\n", LEFT, y, RIGHT);
        write_label(plot, LEFT - 8, y + 4, "right", text);
    }
}

/* 1, 2 or 5 times a power of ten: about ten of them. */
static double find_step(double length)
{
    double step = pow(10, floor(log10(length / 10)));
    return length / step > 50 ? 5 * step : length / step > 20 ? 2 * step : step;
}

static void write_x_axis(const struct plot *plot, double top)
{
    double length_s = (double)plot->conf->simulate.duration_ms / 1e3, step = find_step(length_s);
    fprintf(plot->to, "<path class=\"axis\" fill=\"none\" d=\"M%d %.1fV%.1fH%d\"/>\n", LEFT, top, top + PANEL, RIGHT);
    for (unsigned i = 0; step * i <= length_s * 1.0001; i++) {
        char text[32];
        double x = x_of(plot, step * i * 1e6);
        snprintf(text, sizeof(text), "%g s", step * i);
        fprintf(plot->to, "<path class=\"axis\" d=\"M%.1f %.1fv4\"/>\n", x, top + PANEL);
        write_label(plot, x, top + PANEL + 17, "middle", text);
    }
}

static void name_phase(const struct vb_conf_model *model, const struct vb_conf_phase *phase, char *to, size_t size)
{
    static const char *const names[] = {"slow", "failing", "stalling", "down", "cold"};
    if (phase->is == VB_PHASE_SLOW || phase->is == VB_PHASE_COLD)
        snprintf(to, size, "%s %s x%u", model->name, names[phase->is], phase->factor);
    else
        snprintf(to, size, "%s %s", model->name, names[phase->is]);
}

/* When a backend is not as usual, as bands behind the lines. */
static void write_phases(const struct plot *plot, double top)
{
    const struct vb_conf_simulate *simulate = &plot->conf->simulate;
    for (unsigned i = 0; i < simulate->n_models; i++) {
        for (unsigned j = 0; j < simulate->models[i].n_phases; j++) {
            const struct vb_conf_phase *phase = &simulate->models[i].phases[j];
            uint64_t to_ms = phase->to_ms == 0 ? simulate->duration_ms : VB_MIN(phase->to_ms, simulate->duration_ms);
            double x = x_of(plot, (double)phase->from_ms * 1e3), end = x_of(plot, (double)to_ms * 1e3);
            char text[128];
            if (phase->from_ms >= to_ms)
                continue;
            name_phase(&simulate->models[i], phase, text, sizeof(text));
            fprintf(plot->to,
                    "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" fill=\"#000\" "
                    "fill-opacity=\"%s\"/>\n",
                    x, top, end - x, PANEL, j % 2 == 0 ? "0.05" : "0.03");
            write_label(plot, x + 4, top + 12 + 13 * (i + j % 2), "note", text);
        }
    }
}

static void write_line(const struct plot *plot, const struct scale *scale, unsigned i, bool p99)
{
    const struct vb_sim_result *result = plot->results[i];
    double slice_us = (double)plot->conf->simulate.duration_ms * 1e3 / VB_SIM_SLICES;
    char step = 'M';
    fprintf(plot->to, "<path class=\"line\" stroke=\"%s\" d=\"", colours[i]);
    for (unsigned j = 0; j < VB_SIM_SLICES; j++) {
        if (result->slices[j].answered == 0) {
            step = 'M';
            continue;
        }
        fprintf(plot->to, "%c%.1f %.1f", step, x_of(plot, (j + 0.5) * slice_us),
                y_of(scale, value(&result->slices[j], p99)));
        step = 'L';
    }
    fputs("\"/>\n", plot->to);
}

static void write_latency(const struct plot *plot, double top, bool p99)
{
    struct scale scale = find_scale(plot, p99, top);
    write_label(plot, 16, top - 10, "panel",
                p99 ? "Latency, 99th percentile, by time of arrival" : "Latency, median, by time of arrival");
    write_phases(plot, top);
    write_y_axis(plot, &scale);
    for (unsigned i = 0; i < plot->n; i++)
        write_line(plot, &scale, i, p99);
    write_x_axis(plot, top);
}

/* ---- shares ---- */
static double share(const struct vb_sim_result *result, uint64_t requests)
{
    return result->tries > 0 ? (double)requests / (double)result->tries : 0;
}

static double bar_x(double part)
{
    return BAR_LEFT + (BAR_RIGHT - BAR_LEFT) * part;
}

static bool fits(const char *text, double width)
{
    return 7.2 * (double)strlen(text) + 6 < width;
}

/* All of the bar, backend by backend. */
static void write_stack(const struct plot *plot, const struct vb_sim_result *result, double y)
{
    double before = 0;
    for (unsigned i = 0; i < plot->pool->n_backends; i++) {
        uint64_t requests = 0;
        for (unsigned j = 0; j < result->n_backends; j++)
            requests += result->backends[j].of == i ? result->backends[j].requests : 0;
        double part = share(result, requests), x = bar_x(before), width = bar_x(before + part) - x;
        fprintf(plot->to, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" fill=\"%s\" stroke=\"#fff\"/>\n", x,
                y, width, BAR, shades[i]);
        char text[96];
        snprintf(text, sizeof(text), "%s %.1f%%", plot->pool->backends[i].name, 100 * part);
        const char *shown = fits(text, width) ? text : text + strlen(plot->pool->backends[i].name) + 1;
        if (fits(shown, width))
            write_label(plot, x + 6, y + BAR - 6, "name", shown);
        before += part;
    }
}

/* From the least to the most that one backend has, in twice the mean. */
static void write_range(const struct plot *plot, const struct vb_sim_result *result, double y)
{
    uint64_t least = UINT64_MAX, most = 0;
    for (unsigned i = 0; i < result->n_backends; i++) {
        least = VB_MIN(least, result->backends[i].requests);
        most = VB_MAX(most, result->backends[i].requests);
    }
    double mean = 1.0 / result->n_backends, from = share(result, least) / mean, to = share(result, most) / mean;
    double x = bar_x(VB_MIN(from / 2, 1)), end = bar_x(VB_MIN(to / 2, 1));
    fprintf(plot->to, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>\n", x, y + 4,
            VB_MAX(end - x, 2), BAR - 8, shades[1]);
    char text[96];
    snprintf(text, sizeof(text), "%.2f to %.2f times the mean", from, to);
    write_label(plot, bar_x(0) + 6, y + BAR - 6, "note", text);
}

static void write_shares(const struct plot *plot, double top)
{
    bool many = plot->pool->n_backends > BACKENDS_MAX;
    write_label(plot, 16, top - 10, "panel",
                many ? "Requests of single backends, from the least to the most, and errors"
                     : "Share of the requests, and errors");
    for (unsigned i = 0; i < plot->n; i++) {
        double y = top + i * (BAR + BAR_GAP);
        write_label(plot, BAR_LEFT - 8, y + BAR - 6, "right", vb_balance_name(plot->results[i]->policy));
        if (many)
            write_range(plot, plot->results[i], y);
        else
            write_stack(plot, plot->results[i], y);
        char text[32];
        snprintf(text, sizeof(text), "%" PRIu64 " errors", plot->results[i]->errors);
        write_label(plot, RIGHT, y + BAR - 6, "right", text);
    }
    double y = top + bars(plot);
    fprintf(plot->to, "<path class=\"axis\" d=\"M%d %.1fH%d\"/>\n", BAR_LEFT, y, BAR_RIGHT);
    for (unsigned i = 0; i <= 4; i++) {
        char text[32];
        snprintf(text, sizeof(text), many ? "%gx mean" : "%g%%", many ? 0.5 * i : 25.0 * i);
        fprintf(plot->to, "<path class=\"axis\" d=\"M%.1f %.1fv4\"/>\n", bar_x(0.25 * i), y);
        write_label(plot, bar_x(0.25 * i), y + 17, "middle", text);
    }
    write_shades(plot, y + 32);
}

int plot_write(const char *file, const struct vb_conf *conf, const struct vb_sim_result *const *results, unsigned n,
               struct vb_error *err)
{
    FILE *to = fopen(file, "we");
    if (to == NULL)
        return vb_fail(err, -errno, "cannot write %s: %s", file, vb_strerror(-errno));
    struct plot plot = {.to = to, .conf = conf, .pool = vb_sim_pool(conf), .results = results, .n = n};
    write_head(&plot);
    write_legend(&plot);
    write_latency(&plot, TOP, false);
    write_latency(&plot, TOP + PANEL + GAP, true);
    write_shares(&plot, TOP + 2 * (PANEL + GAP));
    fputs("</svg>\n", to);
    bool failed = ferror(to) != 0;
    failed |= fclose(to) != 0;
    return failed ? vb_fail(err, -EIO, "cannot write %s: %s", file, vb_strerror(-EIO)) : 0;
}
