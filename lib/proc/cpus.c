#include "cpus.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "vb/base.h"

static unsigned from_affinity(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) != 0)
        return 1;
    return (unsigned)CPU_COUNT(&set);
}

/* First line of a small file; false when there is none. */
static bool read_line(const char *path, char *to, size_t size)
{
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    bool there = fgets(to, (int)size, file) != NULL;
    fclose(file);
    return there;
}

/* "200000 100000" (v2), or two files (v1): quota and period in microseconds. 0: no limit. */
static unsigned from_cgroup(void)
{
    char line[64];
    long long quota = 0, period = 0;
    if (read_line("/sys/fs/cgroup/cpu.max", line, sizeof(line))) {
        if (sscanf(line, "%lld %lld", &quota, &period) != 2) /* "max 100000": no limit */
            return 0;
    } else if (read_line("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", line, sizeof(line)) &&
               sscanf(line, "%lld", &quota) == 1 &&
               read_line("/sys/fs/cgroup/cpu/cpu.cfs_period_us", line, sizeof(line))) {
        if (sscanf(line, "%lld", &period) != 1)
            return 0;
    }
    if (quota <= 0 || period <= 0)
        return 0;
    return (unsigned)((quota + period - 1) / period);
}

unsigned vb_cpus_usable(void)
{
    unsigned cpus = VB_MAX(from_affinity(), 1u), granted = from_cgroup();
    return granted == 0 ? cpus : VB_MIN(cpus, granted);
}
