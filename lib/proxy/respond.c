/*
 * What a client's connection writes: responses that pass through, in pieces that leave together, and answers of our
 * own.
 */
#include <stdio.h>
#include <string.h>

#include "client_priv.h"

#define COPY_MAX 4096 /* up to here a copy costs less than another slice that the kernel has to go over */

/* Another piece. Responses that leave together stand in the memory one behind the other until they have left. */
static struct vb_out *out_for(struct vb_client *c)
{
    struct vb_out *out = &c->proxy->to_client;
    unsigned batch = vb_loop_batch(c->proxy->loop);
    assert(out->batch == batch || out->n == 0);
    if (out->batch != batch)
        out->scratch = out->memory;
    out->batch = batch;
    out->owner = c;
    return out;
}

/* Space for small things that are made here; out_made then says how much was used. */
static char *out_scratch(struct vb_out *out, size_t *ret_room)
{
    *ret_room = out->size - out->used;
    return out->scratch + out->used;
}

/* The next n bytes of the scratch space are part of it: of the slice that ends there, if one does. */
static void out_made(struct vb_out *out, size_t n)
{
    char *made = out->scratch + out->used;
    struct iovec *last = out->n > 0 ? &out->iov[out->n - 1] : NULL;
    out->used += n;
    if (last != NULL && (char *)last->iov_base + last->iov_len == made) {
        last->iov_len += n;
        return;
    }
    assert(out->n < VB_OUT_SLICES);
    out->iov[out->n++] = (struct iovec){made, n};
}

static void out_add(struct vb_out *out, const void *bytes, size_t n)
{
    size_t room;
    char *to = out_scratch(out, &room);
    if (n == 0)
        return;
    if (out->used + n <= COPY_MAX && n + VB_CHUNK_LINE_MAX <= room) { /* a chunk may begin behind it */
        memcpy(to, bytes, n);
        out_made(out, n);
        return;
    }
    assert(out->n < VB_OUT_SLICES);
    out->iov[out->n++] = (struct iovec){(void *)bytes, n};
}

void vb_client_send_head(struct vb_client *c, const struct vb_head *head, const struct vb_forward_response *how)
{
    struct vb_out *out = out_for(c);
    size_t room;
    char *to = out_scratch(out, &room);
    /* the scratch space holds the largest head that is accepted, and what we add */
    assert(out->n == 0 && vb_h1_response_room(head, how) <= room);
    size_t n = vb_h1_write_response(to, head, how);
    out_made(out, n);
}

void vb_client_send_body(struct vb_client *c, enum vb_framing framing, const struct vb_body_part *part)
{
    struct vb_out *out = out_for(c);
    size_t room;
    if (framing == VB_FRAMING_CHUNKED && part->bytes > 0) {
        char *line = out_scratch(out, &room);
        assert(room >= VB_CHUNK_LINE_MAX);
        out_made(out, vb_h1_write_chunk_line(line, part->bytes));
    }
    for (unsigned i = 0; i < part->n_spans; i++)
        out_add(out, part->spans[i].iov_base, part->spans[i].iov_len);
    if (framing != VB_FRAMING_CHUNKED)
        return;
    if (part->bytes > 0)
        out_add(out, "\r\n", 2);
    if (!part->complete)
        return;
    if (part->n_trailers == 0) {
        out_add(out, "0\r\n\r\n", 5);
        return;
    }
    out_add(out, "0\r\n", 3);
    for (unsigned i = 0; i < part->n_trailers; i++)
        out_add(out, part->trailers[i].p, part->trailers[i].n);
    out_add(out, "\r\n", 2);
}

int vb_client_flush(struct vb_client *c)
{
    struct vb_out *out = &c->proxy->to_client;
    int r = out->n == 0 ? 0 : vb_stream_write(c->stream, out->iov, out->n);
    out->n = 0;
    out->used = 0;
    if (r == 1)
        vb_client_blocked(c);
    return r;
}

int vb_client_flush_last(struct vb_client *c)
{
    struct vb_out *out = &c->proxy->to_client;
    bool is_copied = out->n == 1 && out->iov->iov_base == out->scratch;
    bool has_room = out->scratch + out->used <= out->memory + VB_OUT_WAITING;
    /* Who closes, or has another request waiting, needs to know at once whether it has left. */
    if (!is_copied || !has_room || c->close_after || vb_buf_len(&c->input) > 0)
        return vb_client_flush(c);
    int r = vb_stream_write_soon(c->stream, out->scratch, out->used);
    if (r == 2)
        out->scratch += out->used;
    out->n = 0;
    out->used = 0;
    if (r == 1)
        vb_client_blocked(c);
    return r;
}

/* What can be asked for here; CONNECT and TRACE cannot (RFC 9110 10.2.1). */
#define ALLOW "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"

static const char *extra_fields(unsigned status)
{
    switch (status) {
    case 200: /* to OPTIONS */
    case 405:
        return ALLOW;
    default:
        return "";
    }
}

void vb_client_answer(struct vb_client *c, const struct vb_answer *answer)
{
    if (c->speaks_1_0)
        c->close_after = true; /* it takes a connection for closed unless it is told otherwise */
    struct vb_str id = answer->id, id_field = id.n > 0 ? c->proxy->id_field : VB_STR("");
    struct vb_str date = vb_proxy_date(c->proxy);
    const char *reason = vb_status_reason(answer->status);
    char body[512] = "", head[768], retry_after[40] = "";
    if (answer->status == 429 || answer->status == 503)
        snprintf(retry_after, sizeof(retry_after), "Retry-After: %u\r\n", VB_MAX(answer->retry_after_s, 1u));
    int body_n = 0;
    if (answer->text != NULL)
        body_n = snprintf(body, sizeof(body), "%u %s\n%s\n", answer->status, reason, answer->text);
    int head_n = snprintf(
        head, sizeof(head),
        "HTTP/1.1 %u %s\r\nDate: %.*s\r\n%sContent-Length: %d\r\nCache-Control: no-store\r\n%s%s%.*s%s%.*s%s%s\r\n",
        answer->status, reason, VB_STR_ARGS(date), body_n > 0 ? "Content-Type: text/plain; charset=utf-8\r\n" : "",
        body_n, extra_fields(answer->status), retry_after, VB_STR_ARGS(id_field), id.n > 0 ? ": " : "", VB_STR_ARGS(id),
        id.n > 0 ? "\r\n" : "", vb_client_decide_close(c) ? "Connection: close\r\n" : "");
    struct iovec iov[] = {{head, (size_t)head_n}, {body, answer->no_body ? 0 : (size_t)body_n}};
    if (vb_stream_write(c->stream, iov, 2) == 1)
        c->write_blocked = true;
}
