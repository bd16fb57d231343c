/* The results of a simulation as a picture. */
#ifndef VBCTL_PLOT_H
#define VBCTL_PLOT_H

#include "vb/err.h"
#include "vb/sim.h"

/* Writes an SVG file. Negative errno and a sentence. */
int plot_write(const char *file, const struct vb_conf *conf, const struct vb_sim_result *const *results, unsigned n,
               struct vb_error *err);

/* `60 s of pool web: 3 backends, 4 workers, 600 requests/s (poisson), seed 1` */
char *plot_title(char *to, size_t size, const struct vb_conf *conf);

#endif
