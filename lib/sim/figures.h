/* What is measured while the simulation runs, and what becomes of it. */
#ifndef VB_SIM_FIGURES_H
#define VB_SIM_FIGURES_H

#include "vb/hist.h"
#include "vb/sim.h"

/* The difference between the most and the fewest requests in flight of some backends, kept while these change by one.
 */
struct sim_spread {
    unsigned *backends; /* how many of them have so many in flight; owned */
    unsigned room, n, least, most, worst;
};

struct sim_figures {
    struct vb_sim_result *result; /* filled at the end, but for what is only counted */
    uint64_t sum_us, max_us;
    uint64_t all[VB_HIST_BUCKETS];
    uint64_t slices[VB_SIM_SLICES][VB_HIST_BUCKETS];
    struct sim_spread spread;
};

/* `alike`: how many backends the spread is of. -ENOMEM. */
int sim_figures_init(struct sim_figures *figures, unsigned alike);
void sim_figures_free(struct sim_figures *figures);

/* A request that had arrived in that slice was answered well. */
void sim_figures_answered(struct sim_figures *figures, unsigned slice, uint64_t latency_us);

/* One of the backends that are alike had `from` in flight and has `to` now, one more or less. -ENOMEM. */
int sim_figures_moved(struct sim_figures *figures, unsigned from, unsigned to);

/* Works the result out. */
void sim_figures_end(struct sim_figures *figures);

#endif
