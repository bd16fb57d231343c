#include "errors.h"

#define OURS VB_BACKEND_NEVER_FAILED

/* clang-format off */
static const struct vb_failure_info infos[] = {
    [VB_FAIL_NO_ROUTE] = {404, false, OURS, "Nothing is served at this address.", "no route matches"},
    [VB_FAIL_NO_BACKEND] = {503, false, OURS, "No backend is available for this request at the moment.",
                            "no usable backend"},
    [VB_FAIL_OVERLOAD] = {503, false, OURS, "Too many requests are being served at the moment.",
                          "a limit of circuit_breaker is reached"},
    [VB_FAIL_FULL] = {503, false, OURS, "All backends are busy at the moment.",
                      "no backend for it has room (max_connections), and queue is off"},
    [VB_FAIL_QUEUE_TIMEOUT] = {503, false, OURS, "All backends are busy; this request has waited too long for its turn.",
                               "queue.timeout is over: no backend for it has had room (max_connections)"},
    [VB_FAIL_NO_PORT] = {500, false, OURS, "The balancer ran out of a resource.", "no local address or port towards it"},
    [VB_FAIL_CONNECT] = {502, false, VB_BACKEND_REFUSED, "The backend could not be reached.", "cannot connect"},
    [VB_FAIL_CONNECT_TIMEOUT] = {504, true, VB_BACKEND_CONNECT_TIMEOUT,
                                 "The backend did not accept a connection in time.", "connect timed out"},
    [VB_FAIL_RESPONSE_TIMEOUT] = {504, true, VB_BACKEND_RESPONSE_TIMEOUT, "The backend did not answer in time.",
                                  "response timed out"},
    [VB_FAIL_IDLE_TIMEOUT] = {504, true, VB_BACKEND_IDLE_TIMEOUT, "The backend stopped sending.",
                              "timed out in the middle of the message"},
    [VB_FAIL_CLOSED] = {502, false, VB_BACKEND_CLOSED,
                        "The backend closed the connection without a complete response.",
                        "closed the connection too early"},
    [VB_FAIL_RESET] = {502, false, VB_BACKEND_RESET, "The backend broke the connection.", "connection broke"},
    [VB_FAIL_BAD_RESPONSE] = {502, false, VB_BACKEND_BAD_RESPONSE,
                              "The backend sent a response that is not valid HTTP.", "invalid response"},
    [VB_FAIL_DOWN] = {504, false, OURS, "The backend did not answer in time.", "it is down"},
    [VB_FAIL_STATUS] = {502, false, VB_BACKEND_STATUS, "The backend failed.", "its response says that it failed"},
    [VB_FAIL_TOTAL_TIMEOUT] = {504, true, OURS, "No backend answered in time.", "retry.total is over"},
    [VB_FAIL_INTERNAL] = {500, false, OURS, "The balancer ran out of a resource.", "out of a resource"},
};
/* clang-format on */

const struct vb_failure_info *vb_failure_info(enum vb_failure failure)
{
    assert(failure < VB_ARRAY_SIZE(infos));
    return &infos[failure];
}
