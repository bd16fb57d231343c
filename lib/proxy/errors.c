#include "errors.h"

static const struct vb_failure_info infos[] = {
    [VB_FAIL_NO_ROUTE] = {404, false, "Nothing is served at this address.", "no route matches"},
    [VB_FAIL_NO_BACKEND] = {503, false, "No backend is available for this request at the moment.", "no usable backend"},
    [VB_FAIL_CONNECT] = {502, false, "The backend could not be reached.", "cannot connect"},
    [VB_FAIL_CONNECT_TIMEOUT] = {504, true, "The backend did not accept a connection in time.", "connect timed out"},
    [VB_FAIL_RESPONSE_TIMEOUT] = {504, true, "The backend did not answer in time.", "response timed out"},
    [VB_FAIL_IDLE_TIMEOUT] = {504, true, "The backend stopped sending.", "timed out in the middle of the message"},
    [VB_FAIL_CLOSED] = {502, false, "The backend closed the connection without a complete response.",
                        "closed the connection too early"},
    [VB_FAIL_RESET] = {502, false, "The backend broke the connection.", "connection broke"},
    [VB_FAIL_BAD_RESPONSE] = {502, false, "The backend sent a response that is not valid HTTP.", "invalid response"},
    [VB_FAIL_INTERNAL] = {500, false, "The balancer ran out of a resource.", "out of a resource"},
};

const struct vb_failure_info *vb_failure_info(enum vb_failure failure)
{
    assert(failure < VB_ARRAY_SIZE(infos));
    return &infos[failure];
}
