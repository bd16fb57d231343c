/* How long a backend takes for what, and what it is at which time: all of it known before the first request comes. */
#ifndef VB_SIM_MODEL_H
#define VB_SIM_MODEL_H

#include "vb/conf.h"
#include "vb/rand.h"

#define SIM_NEVER UINT64_MAX

/* Times are in microseconds since the beginning. */
struct sim_model {
    enum vb_service distribution;
    double service_us;
    unsigned concurrency;
    const struct vb_conf_phase *phases; /* of the configuration */
    unsigned n_phases;
};

/* How heavy a request is, wherever it is served: the chances that its service time is drawn by. */
struct sim_weight {
    double first, second; /* (0, 1) */
};

/* What the pool's backend `name` is: as `simulate.backends` says, else as `simulate` does. */
void sim_model_init(struct sim_model *model, const struct vb_conf_simulate *simulate, const char *name);

/* In (0, 1). */
double sim_chance(struct vb_rand *rand);

/* How it is at that time; NULL: as usual. */
const struct vb_conf_phase *sim_phase(const struct sim_model *model, uint64_t us);

/* When a phase ends; SIM_NEVER. */
uint64_t sim_phase_end(const struct vb_conf_phase *phase);

/* How much longer than usual service takes that begins at that time in that phase; NULL: none. */
double sim_phase_factor(const struct vb_conf_phase *phase, uint64_t us);

/* When the service of such a request ends that begins at `us`, and with what status; SIM_NEVER. */
uint64_t sim_serve(const struct sim_model *model, struct sim_weight weight, uint64_t us, unsigned *ret_status);

#endif
