#include "retry.h"

#include <errno.h>

/* The body can be of any size, and a client that announces none may send more than we keep. */
bool vb_retry_holds(const struct vb_retry *retry, const struct vb_head *head)
{
    return head->framing == VB_FRAMING_NONE ||
           (head->framing == VB_FRAMING_LENGTH && head->length <= retry->conf->retry.buffer);
}

static void drop(struct vb_retry *retry)
{
    vb_buf_clear(&retry->body);
    retry->over = true;
}

void vb_retry_keep(struct vb_retry *retry, const struct iovec *iov, unsigned n, bool sent)
{
    size_t bytes = 0;
    for (unsigned i = 0; i < n; i++)
        bytes += iov[i].iov_len;
    if (retry->over)
        return;
    if ((sent && !retry->idempotent) || vb_buf_len(&retry->body) + bytes > retry->conf->retry.buffer) {
        drop(retry);
        return;
    }
    for (unsigned i = 0; i < n && !retry->over; i++)
        if (vb_buf_append(&retry->body, iov[i].iov_base, iov[i].iov_len) < 0)
            drop(retry); /* without memory it goes on without a net */
}

int vb_retry_hold(struct vb_retry *retry, const struct iovec *iov, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (vb_buf_append(&retry->body, iov[i].iov_base, iov[i].iov_len) < 0)
            return -ENOMEM;
    return 0;
}

void vb_retry_answered(struct vb_retry *retry)
{
    drop(retry);
}

bool vb_retry_is_safe(const struct vb_retry *retry, bool sent)
{
    return !retry->over && (!sent || retry->idempotent);
}

/* What `retry.on` calls it; 0: nothing that another backend could mend. */
static unsigned kind_of(enum vb_failure failure)
{
    switch (failure) {
    case VB_FAIL_CONNECT:
    case VB_FAIL_CONNECT_TIMEOUT:
    case VB_FAIL_NO_PORT:
        return VB_RETRY_CONNECT;
    case VB_FAIL_CLOSED:
    case VB_FAIL_RESET:
    case VB_FAIL_BAD_RESPONSE:
        return VB_RETRY_RESET;
    case VB_FAIL_RESPONSE_TIMEOUT:
    case VB_FAIL_IDLE_TIMEOUT:
    case VB_FAIL_DOWN:
        return VB_RETRY_TIMEOUT;
    default:
        return 0;
    }
}

static bool has_tries_left(const struct vb_retry *retry)
{
    return retry->conf->retry.enabled && retry->tried.n <= retry->conf->retry.attempts;
}

bool vb_retry_allows(const struct vb_retry *retry, enum vb_failure failure, bool sent)
{
    bool wanted = failure == VB_FAIL_STATUS || (retry->conf->retry.on & kind_of(failure)) != 0;
    return wanted && has_tries_left(retry) && vb_retry_is_safe(retry, sent);
}

bool vb_retry_is_failure(const struct vb_conf_pool *conf, unsigned status)
{
    unsigned on = conf->retry.enabled ? conf->retry.on : 0;
    return (status == 502 && on & VB_RETRY_502) || (status == 503 && on & VB_RETRY_503) ||
           (status == 504 && on & VB_RETRY_504) || (status == 429 && on & VB_RETRY_429);
}

void vb_retry_free(struct vb_retry *retry)
{
    vb_buf_clear(&retry->body);
}
