/* Small things that every file needs. Layer 0: knows nothing of HTTP or balancing. */
#ifndef VB_BASE_H
#define VB_BASE_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define VB_ARRAY_SIZE(a)   (sizeof(a) / sizeof((a)[0]))
#define VB_MIN(a, b)       ((a) < (b) ? (a) : (b))
#define VB_MAX(a, b)       ((a) > (b) ? (a) : (b))
#define VB_LIKELY(x)       __builtin_expect(!!(x), 1)
#define VB_UNLIKELY(x)     __builtin_expect(!!(x), 0)
#define VB_PRINTF(fmt, va) __attribute__((format(printf, fmt, va)))

/* The structure of which `ptr` is the member `member`. */
#define vb_container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

/*
 * Objects that travel through a `void *` (libuv's data fields, epoll's) have a `uint32_t magic`; the cast back checks
 * it, so that a stale or foreign pointer ends the worker at the place of the mistake and not somewhere later.
 */
#define vb_cast(type, wanted, pointer)                                                                                 \
    ({                                                                                                                 \
        type *cast_ = (type *)(pointer);                                                                               \
        assert(cast_ != NULL && cast_->magic == (wanted));                                                             \
        cast_;                                                                                                         \
    })

#endif
