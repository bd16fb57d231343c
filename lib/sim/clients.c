/* When requests come, which worker gets them, and what they ask for. The same for every policy that is compared. */
#include <errno.h>
#include <math.h>

#include "vb/siphash.h"

#include "sim_priv.h"

static void add_arrival(struct sim *sim, uint64_t at_us)
{
    if (at_us >= sim->length_us)
        return;
    sim_at(sim, SIM_BEGIN_US + at_us, SIM_ARRIVAL, NULL);
    sim->arriving++;
}

static void add_next_arrival(struct sim *sim)
{
    double gap_us = 1e6 / sim->conf->rate;
    if (sim->conf->arrivals == VB_ARRIVALS_POISSON)
        gap_us *= -log(sim_chance(&sim->arrivals));
    sim->next_us += gap_us;
    add_arrival(sim, (uint64_t)sim->next_us);
}

/* A client thinks, or has not come yet. */
static void add_client(struct sim *sim)
{
    double think_us = (double)sim->conf->think_ms * 1e3 * -log(sim_chance(&sim->arrivals));
    add_arrival(sim, sim_us(sim) + (uint64_t)think_us + 1);
}

/* The n-th key has the share 1/n of the first's. */
static int sum_shares(struct sim *sim)
{
    double sum = 0;
    sim->sums = malloc(sim->conf->keys * sizeof(*sim->sums));
    if (sim->sums == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < sim->conf->keys; i++)
        sim->sums[i] = sum += 1.0 / (i + 1);
    return 0;
}

int sim_clients_begin(struct sim *sim)
{
    int r = sim->conf->zipf ? sum_shares(sim) : 0;
    if (r < 0)
        return r;
    if (sim->conf->arrivals == VB_ARRIVALS_CLOSED)
        for (unsigned i = 0; i < sim->conf->clients; i++)
            add_client(sim);
    else
        add_next_arrival(sim);
    return 0;
}

static uint64_t draw_key(struct sim *sim)
{
    static const uint64_t key[2] = {0};
    unsigned low = 0, high = sim->conf->keys - 1;
    if (sim->sums == NULL)
        low = high = (unsigned)vb_rand_below(&sim->arrivals, sim->conf->keys);
    double share = sim->sums != NULL ? sim->sums[high] * sim_chance(&sim->arrivals) : 0;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (sim->sums[middle] > share)
            high = middle;
        else
            low = middle + 1;
    }
    return vb_siphash(key, &low, sizeof(low));
}

void sim_client_arrives(struct sim *sim)
{
    struct sim_request *request = sim_arena_take(&sim->requests);
    sim->arriving--;
    if (request == NULL) {
        sim->failed = -ENOMEM;
        return;
    }
    request->arrived_us = sim->now_us;
    request->worker = (unsigned)vb_rand_below(&sim->arrivals, sim->n_workers);
    request->weight.first = sim_chance(&sim->arrivals);
    request->weight.second = sim_chance(&sim->arrivals);
    request->key = draw_key(sim);
    request->backend = -1;
    if (sim->conf->arrivals != VB_ARRIVALS_CLOSED)
        add_next_arrival(sim);
    sim_request_begin(sim, request);
}

void sim_client_answered(struct sim *sim)
{
    if (sim->conf->arrivals == VB_ARRIVALS_CLOSED)
        add_client(sim);
}
