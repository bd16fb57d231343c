/* Objects of one size, that come and go by the million and are all freed together. */
#ifndef VB_SIM_ARENA_H
#define VB_SIM_ARENA_H

#include "vb/base.h"

struct sim_arena {
    size_t size;          /* of an object, at least that of a pointer */
    struct block *blocks; /* owned */
    void *unused;         /* each begins with the next one */
};

/* Zeroed; NULL: no memory. */
void *sim_arena_take(struct sim_arena *arena);
void sim_arena_give_back(struct sim_arena *arena, void *object);
void sim_arena_free(struct sim_arena *arena);

#endif
