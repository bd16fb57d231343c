#include "vb/hist.h"

uint64_t vb_hist_floor(unsigned i)
{
    if (i < VB_HIST_SUB)
        return i;
    unsigned octave = (i - VB_HIST_SUB) / VB_HIST_SUB;
    return (uint64_t)(VB_HIST_SUB + i % VB_HIST_SUB) << octave;
}

double vb_hist_quantile(const uint64_t buckets[VB_HIST_BUCKETS], double share)
{
    uint64_t total = 0;
    for (unsigned i = 0; i < VB_HIST_BUCKETS; i++)
        total += buckets[i];
    if (total == 0)
        return 0;
    double wanted = share * (double)total;
    uint64_t below = 0;
    for (unsigned i = 0; i < VB_HIST_BUCKETS; i++) {
        below += buckets[i];
        if (buckets[i] > 0 && (double)below >= wanted)
            return (double)(vb_hist_floor(i) + vb_hist_floor(i + 1)) / 2;
    }
    return (double)vb_hist_floor(VB_HIST_BUCKETS);
}
