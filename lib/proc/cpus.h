/* How many CPUs this process may use: its affinity, and what its cgroup is granted (a container's --cpus). */
#ifndef VB_PROC_CPUS_H
#define VB_PROC_CPUS_H

/* At least 1. */
unsigned vb_cpus_usable(void);

#endif
