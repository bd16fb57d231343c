#include "heap.h"

#include <errno.h>

static bool is_before(const struct sim_event *a, const struct sim_event *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->number < b->number;
}

static int make_room(struct sim_heap *heap)
{
    if (heap->n < heap->room)
        return 0;
    size_t room = heap->room > 0 ? 2 * heap->room : 1024;
    struct sim_event *events = realloc(heap->events, room * sizeof(*events));
    if (events == NULL)
        return -ENOMEM;
    heap->events = events;
    heap->room = room;
    return 0;
}

int sim_heap_add(struct sim_heap *heap, uint64_t at_us, enum sim_event_kind kind, void *what)
{
    int r = make_room(heap);
    if (r < 0)
        return r;
    struct sim_event event = {at_us, heap->added++, kind, what};
    size_t i = heap->n++;
    while (i > 0 && is_before(&event, &heap->events[(i - 1) / 2])) {
        heap->events[i] = heap->events[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap->events[i] = event;
    return 0;
}

bool sim_heap_take(struct sim_heap *heap, struct sim_event *ret_event)
{
    if (heap->n == 0)
        return false;
    *ret_event = heap->events[0];
    struct sim_event last = heap->events[--heap->n];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < heap->n; i = child) {
        if (child + 1 < heap->n && is_before(&heap->events[child + 1], &heap->events[child]))
            child++;
        if (!is_before(&heap->events[child], &last))
            break;
        heap->events[i] = heap->events[child];
    }
    heap->events[i] = last;
    return true;
}

void sim_heap_free(struct sim_heap *heap)
{
    free(heap->events);
    *heap = (struct sim_heap){.events = NULL};
}
