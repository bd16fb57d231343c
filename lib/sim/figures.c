#include "figures.h"

#include <errno.h>
#include <string.h>

enum { ROOM = 64 };

int sim_figures_init(struct sim_figures *figures, unsigned alike)
{
    struct sim_spread *spread = &figures->spread;
    *spread = (struct sim_spread){.n = alike, .room = ROOM};
    spread->backends = calloc(ROOM, sizeof(*spread->backends));
    if (spread->backends == NULL)
        return -ENOMEM;
    spread->backends[0] = alike;
    return 0;
}

void sim_figures_free(struct sim_figures *figures)
{
    free(figures->spread.backends);
    figures->spread.backends = NULL;
}

void sim_figures_answered(struct sim_figures *figures, unsigned slice, uint64_t latency_us)
{
    unsigned bucket = vb_hist_index(latency_us);
    figures->result->answered++;
    figures->sum_us += latency_us;
    figures->max_us = VB_MAX(figures->max_us, latency_us);
    figures->all[bucket]++;
    figures->slices[slice][bucket]++;
}

static int make_room(struct sim_spread *spread, unsigned for_count)
{
    if (for_count < spread->room)
        return 0;
    unsigned room = 2 * for_count;
    unsigned *backends = realloc(spread->backends, room * sizeof(*backends));
    if (backends == NULL)
        return -ENOMEM;
    memset(backends + spread->room, 0, (room - spread->room) * sizeof(*backends));
    spread->backends = backends;
    spread->room = room;
    return 0;
}

/* The fewest can only have changed to a neighbour, and the most too. */
int sim_figures_moved(struct sim_figures *figures, unsigned from, unsigned to)
{
    struct sim_spread *spread = &figures->spread;
    int r = make_room(spread, to);
    if (r < 0)
        return r;
    spread->backends[from]--;
    spread->backends[to]++;
    spread->least = VB_MIN(spread->least, to);
    spread->most = VB_MAX(spread->most, to);
    while (spread->backends[spread->least] == 0)
        spread->least++;
    while (spread->backends[spread->most] == 0)
        spread->most--;
    spread->worst = VB_MAX(spread->worst, spread->most - spread->least);
    return 0;
}

/* What the histogram says of the middle of a bucket may be more than there ever was. */
static double quantile_ms(const struct sim_figures *figures, const uint64_t buckets[VB_HIST_BUCKETS], double share)
{
    return VB_MIN(vb_hist_quantile(buckets, share), (double)figures->max_us) / 1e3;
}

void sim_figures_end(struct sim_figures *figures)
{
    struct vb_sim_result *result = figures->result;
    result->mean_ms = result->answered > 0 ? (double)figures->sum_us / 1e3 / (double)result->answered : 0;
    result->p50_ms = quantile_ms(figures, figures->all, 0.5);
    result->p99_ms = quantile_ms(figures, figures->all, 0.99);
    result->p999_ms = quantile_ms(figures, figures->all, 0.999);
    result->max_ms = (double)figures->max_us / 1e3;
    result->spread = figures->spread.worst;
    for (unsigned i = 0; i < VB_SIM_SLICES; i++) {
        struct vb_sim_slice *slice = &result->slices[i];
        for (unsigned j = 0; j < VB_HIST_BUCKETS; j++)
            slice->answered += figures->slices[i][j];
        slice->p50_ms = quantile_ms(figures, figures->slices[i], 0.5);
        slice->p99_ms = quantile_ms(figures, figures->slices[i], 0.99);
    }
    for (unsigned i = 0; i < result->n_backends; i++) {
        result->tries += result->backends[i].requests;
        result->most_queued = VB_MAX(result->most_queued, result->backends[i].most_queued);
    }
}
