/* SipHash-2-4: a hash under a 128-bit key, for tables that strangers fill and for signing short texts. */
#ifndef VB_SIPHASH_H
#define VB_SIPHASH_H

#include "vb/base.h"

uint64_t vb_siphash(const uint64_t key[2], const void *bytes, size_t n);

#endif
