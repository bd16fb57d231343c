/* What happens when: a binary heap of events, by time, and of one time in the order in which they were added. */
#ifndef VB_SIM_HEAP_H
#define VB_SIM_HEAP_H

#include "vb/base.h"

enum sim_event_kind {
    SIM_ARRIVAL,      /* of a client */
    SIM_SERVED,       /* `what` is the job */
    SIM_GOES_DOWN,    /* `what` is the backend, as for the next two */
    SIM_PROBE,        /* its health check begins, */
    SIM_PROBED,       /* ... and ends */
    SIM_TRY_TIMEOUT,  /* of the oldest try */
    SIM_LINE_TIMEOUT, /* of who waits longest */
    SIM_SECOND,
};

struct sim_event {
    uint64_t at_us, number;
    enum sim_event_kind kind;
    void *what;
};

struct sim_heap {
    struct sim_event *events; /* owned */
    size_t n, room;
    uint64_t added;
};

/* 0 or -ENOMEM. */
int sim_heap_add(struct sim_heap *heap, uint64_t at_us, enum sim_event_kind kind, void *what);

/* The next one; false: there is none. */
bool sim_heap_take(struct sim_heap *heap, struct sim_event *ret_event);

void sim_heap_free(struct sim_heap *heap);

#endif
