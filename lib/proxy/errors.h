/* What can go wrong with a backend, what the client is told, and what the log says. */
#ifndef VB_PROXY_ERRORS_H
#define VB_PROXY_ERRORS_H

#include "vb/shm.h"

enum vb_failure {
    VB_FAIL_NO_ROUTE,
    VB_FAIL_NO_BACKEND,
    VB_FAIL_OVERLOAD,
    VB_FAIL_FULL, /* all backends have max_connections, and nobody waits for them */
    VB_FAIL_QUEUE_TIMEOUT,
    VB_FAIL_NO_PORT, /* we have no address or port left towards this backend; towards others we may have */
    VB_FAIL_CONNECT,
    VB_FAIL_CONNECT_TIMEOUT,
    VB_FAIL_RESPONSE_TIMEOUT,
    VB_FAIL_IDLE_TIMEOUT,
    VB_FAIL_CLOSED,
    VB_FAIL_RESET,
    VB_FAIL_BAD_RESPONSE,
    VB_FAIL_DOWN,   /* it was declared down, or ejected, before it answered */
    VB_FAIL_STATUS, /* its response has a status that retry.on names */
    VB_FAIL_TOTAL_TIMEOUT,
    VB_FAIL_INTERNAL,
};

struct vb_failure_info {
    unsigned status;
    bool timeout;
    enum vb_backend_failure is; /* what it says about the backend; VB_BACKEND_NEVER_FAILED: nothing */
    const char *to_client;      /* names no backend: a client need not know our inside */
    const char *to_log;
};

const struct vb_failure_info *vb_failure_info(enum vb_failure failure);

#endif
