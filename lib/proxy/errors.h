/* What can go wrong with a backend, what the client is told, and what the log says. */
#ifndef VB_PROXY_ERRORS_H
#define VB_PROXY_ERRORS_H

#include "vb/base.h"

enum vb_failure {
    VB_FAIL_NO_ROUTE,
    VB_FAIL_NO_BACKEND,
    VB_FAIL_CONNECT,
    VB_FAIL_CONNECT_TIMEOUT,
    VB_FAIL_RESPONSE_TIMEOUT,
    VB_FAIL_IDLE_TIMEOUT,
    VB_FAIL_CLOSED,
    VB_FAIL_RESET,
    VB_FAIL_BAD_RESPONSE,
    VB_FAIL_INTERNAL,
};

struct vb_failure_info {
    unsigned status;
    bool timeout;
    const char *to_client; /* names no backend: a client need not know our inside */
    const char *to_log;
};

const struct vb_failure_info *vb_failure_info(enum vb_failure failure);

#endif
