/* The two kinds of process: the master, which supervises, and the worker, which serves. */
#ifndef VB_PROC_H
#define VB_PROC_H

#include "vb/base.h"
#include "vb/log.h"

struct vb_options {
    char **argv;             /* the whole command line, for the executable that takes over */
    const char *config_file; /* NULL: ./vibebalancer.yaml, then /etc/vibebalancer/vibebalancer.yaml */
    const char *name;        /* NULL: as configured */
    const char *segment;     /* NULL: as configured */
    int workers;             /* -1: as configured; 0: auto */
    enum vb_log_level log_level;
};

enum { VB_EXIT_DONE = 0, VB_EXIT_FAILED = 1, VB_EXIT_USAGE = 2 };

/* Says whether the configuration is valid; binds and starts nothing. Returns the exit status. */
int vb_check_run(const struct vb_options *options);

/* Runs an instance until it is told to stop. Returns the exit status. */
int vb_master_run(const struct vb_options *options);

/*
 * Runs a worker, in a process that the master started for it: arguments and inherited descriptors are those of
 * lib/proc/inherit.h. Returns the exit status.
 */
int vb_worker_run(int argc, char **argv);

/* The first argument of a process that is a worker. */
#define VB_WORKER_WORD "worker"

#endif
