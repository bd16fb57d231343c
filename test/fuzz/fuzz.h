/* What all targets share: libFuzzer's entry, and memory of exactly the input's size, so that ASan sees a read behind
 * it. */
#ifndef VB_FUZZ_H
#define VB_FUZZ_H

#include <string.h>

#include "vb/base.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static inline char *exact_copy(const void *bytes, size_t n)
{
    char *copy = malloc(n > 0 ? n : 1);
    assert(copy != NULL);
    if (n > 0)
        memcpy(copy, bytes, n);
    return copy;
}

#endif
