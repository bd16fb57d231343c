#include "model.h"

#include <math.h>
#include <string.h>

#define LONGEST_US 3600e6 /* no draw of a heavy tail is longer */

void sim_model_init(struct sim_model *model, const struct vb_conf_simulate *simulate, const char *name)
{
    struct vb_conf_model own = {.n_phases = 0};
    for (unsigned i = 0; i < simulate->n_models; i++)
        if (strcmp(simulate->models[i].name, name) == 0)
            own = simulate->models[i];
    const struct vb_conf_model *all = &simulate->model;
    *model = (struct sim_model){
        .distribution = own.distribution != 0 ? own.distribution : all->distribution,
        .service_us = 1e3 * (double)(own.service_ms != 0 ? own.service_ms : all->service_ms),
        .concurrency = own.concurrency != 0 ? own.concurrency : all->concurrency,
        .phases = own.phases,
        .n_phases = own.n_phases,
    };
}

double sim_chance(struct vb_rand *rand)
{
    return ((double)(vb_rand_u64(rand) >> 11) + 0.5) * 0x1p-53;
}

/* Of mean 1. */
static double draw(enum vb_service distribution, struct sim_weight weight)
{
    switch (distribution) {
    case VB_SERVICE_EXPONENTIAL:
        return -log(weight.first);
    case VB_SERVICE_UNIFORM:
        return 2 * weight.first;
    case VB_SERVICE_LOGNORMAL: /* Box and Muller; exp(1/2) is the mean of what is not shifted */
        return exp(sqrt(-2 * log(weight.first)) * cos(2 * M_PI * weight.second) - 0.5);
    case VB_SERVICE_PARETO: /* shape 1.5, and so 1/3 at least */
        return pow(weight.first, -1 / 1.5) / 3;
    case VB_SERVICE_CONSTANT:
        break;
    }
    return 1;
}

uint64_t sim_phase_end(const struct vb_conf_phase *phase)
{
    return phase->to_ms == 0 ? SIM_NEVER : phase->to_ms * 1000;
}

const struct vb_conf_phase *sim_phase(const struct sim_model *model, uint64_t us)
{
    for (unsigned i = 0; i < model->n_phases; i++)
        if (model->phases[i].from_ms * 1000 <= us && us < sim_phase_end(&model->phases[i]))
            return &model->phases[i];
    return NULL;
}

double sim_phase_factor(const struct vb_conf_phase *phase, uint64_t us)
{
    if (phase == NULL)
        return 1;
    double more = phase->factor - 1.0, length = (double)(phase->to_ms - phase->from_ms) * 1e3;
    switch (phase->is) {
    case VB_PHASE_SLOW:
        return 1 + more;
    case VB_PHASE_COLD:
        return 1 + more * (double)(sim_phase_end(phase) - us) / length;
    default:
        return 1;
    }
}

/* What is being served when it stalls stands still until that is over. */
static uint64_t with_stalls(const struct sim_model *model, uint64_t begin_us, uint64_t end_us)
{
    for (unsigned i = 0; i < model->n_phases; i++) {
        const struct vb_conf_phase *phase = &model->phases[i];
        uint64_t from_us = phase->from_ms * 1000;
        if (phase->is != VB_PHASE_STALLING || from_us < begin_us || from_us >= end_us)
            continue;
        if (phase->to_ms == 0)
            return SIM_NEVER;
        end_us += sim_phase_end(phase) - from_us;
    }
    return end_us;
}

uint64_t sim_serve(const struct sim_model *model, struct sim_weight weight, uint64_t us, unsigned *ret_status)
{
    const struct vb_conf_phase *phase = sim_phase(model, us);
    while (phase != NULL && phase->is == VB_PHASE_STALLING) {
        us = sim_phase_end(phase);
        if (us == SIM_NEVER)
            return SIM_NEVER;
        phase = sim_phase(model, us);
    }
    double takes_us = model->service_us * draw(model->distribution, weight) * sim_phase_factor(phase, us);
    *ret_status = 200;
    if (phase != NULL && phase->is == VB_PHASE_FAILING) {
        takes_us = (double)phase->after_ms * 1e3;
        *ret_status = phase->status;
    }
    takes_us = takes_us < 1 ? 1 : takes_us > LONGEST_US ? LONGEST_US : takes_us;
    return with_stalls(model, us, us + (uint64_t)takes_us);
}
