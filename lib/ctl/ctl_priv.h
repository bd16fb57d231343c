/* The client's halves of the wire: requests out, answers in. */
#ifndef VB_CTL_PRIV_H
#define VB_CTL_PRIV_H

#include "vb/ctl.h"

/* -E2BIG: more, or longer, arguments than a request may have. */
int ctl_pack_request(char *to, size_t size, unsigned n_args, const char *const *args, size_t *ret_n);

/* -EBADMSG: it is no answer. What could not be printed is replaced. */
int ctl_unpack_answer(const char *bytes, size_t n, struct vb_ctl_answer *ret_answer);

#endif
