#include "arena.h"

#include <stdalign.h>
#include <string.h>

enum { OBJECTS = 1024 };

struct block {
    struct block *next;
    alignas(max_align_t) char objects[];
};

void *sim_arena_take(struct sim_arena *arena)
{
    assert(arena->size >= sizeof(void *) && arena->size % alignof(void *) == 0);
    if (arena->unused == NULL) {
        struct block *block = malloc(sizeof(*block) + OBJECTS * arena->size);
        if (block == NULL)
            return NULL;
        block->next = arena->blocks;
        arena->blocks = block;
        for (size_t i = 0; i < OBJECTS; i++)
            sim_arena_give_back(arena, block->objects + i * arena->size);
    }
    void *object = arena->unused;
    arena->unused = *(void **)object;
    return memset(object, 0, arena->size);
}

void sim_arena_give_back(struct sim_arena *arena, void *object)
{
    *(void **)object = arena->unused;
    arena->unused = object;
}

void sim_arena_free(struct sim_arena *arena)
{
    while (arena->blocks != NULL) {
        struct block *block = arena->blocks;
        arena->blocks = block->next;
        free(block);
    }
    arena->unused = NULL;
}
