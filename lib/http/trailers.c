/* Trailer sections: fields behind a chunked body, of which only such pass as change nothing about the message. */
#include <errno.h>

#include "chunk.h"
#include "fields.h"

/*
 * A recipient may merge trailers into the head that it has acted on already; so those that frame, route, authorise or
 * describe the message may not be there (RFC 9110 6.5.1). A name that ends with `-` stands for all that begin so.
 */
static const struct vb_str never_trailers[] = {
#define NAME(literal)                                                                                                  \
    {                                                                                                                  \
        literal, sizeof(literal) - 1                                                                                   \
    }
    /* framing, and this hop only: RFC 9112 6, RFC 9110 7.6.1 */
    NAME("Transfer-Encoding"),
    NAME("Content-Length"),
    NAME("Connection"),
    NAME("Keep-Alive"),
    NAME("Proxy-Connection"),
    NAME("TE"),
    NAME("Trailer"),
    NAME("Upgrade"),
    /* routing and trust: RFC 9110 7.2, 7.6.3, RFC 7239 */
    NAME("Host"),
    NAME("Via"),
    NAME("Forwarded"),
    NAME("X-Forwarded-"),
    /* authentication: RFC 9110 11, RFC 6265 */
    NAME("Authorization"),
    NAME("Authentication-Info"),
    NAME("WWW-Authenticate"),
    NAME("Proxy-Authorization"),
    NAME("Proxy-Authenticate"),
    NAME("Proxy-Authentication-Info"),
    NAME("Cookie"),
    NAME("Set-Cookie"),
    /* request modifiers: RFC 9110 7.6.2, 10.1.1, 13.1, 14.2, RFC 9111 5.2, 5.4 */
    NAME("Expect"),
    NAME("Max-Forwards"),
    NAME("Cache-Control"),
    NAME("Pragma"),
    NAME("Range"),
    NAME("If-"),
    /* response control: RFC 9110 6.6.1, 10.2, 12.5.5, RFC 9111 5 */
    NAME("Age"),
    NAME("Date"),
    NAME("Expires"),
    NAME("Location"),
    NAME("Retry-After"),
    NAME("Vary"),
    NAME("Warning"),
    /* content: RFC 9110 8.3, 8.4, 14.4 */
    NAME("Content-Encoding"),
    NAME("Content-Type"),
    NAME("Content-Range"),
#undef NAME
};

bool vb_trailer_passes(struct vb_str name)
{
    for (unsigned i = 0; i < VB_ARRAY_SIZE(never_trailers); i++) {
        struct vb_str never = never_trailers[i], start = name;
        if (never.p[never.n - 1] == '-')
            start.n = VB_MIN(start.n, never.n);
        if (vb_str_eq_nocase(start, never))
            return false;
    }
    return true;
}

/* The line [begin, end) goes to the run that ends there, or begins one. */
static void add_line(struct vb_body_part *part, const char *begin, const char *end)
{
    struct vb_str *last = part->n_trailers > 0 ? &part->trailers[part->n_trailers - 1] : NULL;
    if (last != NULL && last->p + last->n == begin)
        last->n += (size_t)(end - begin);
    else if (part->n_trailers < VB_TRAILER_SPANS)
        part->trailers[part->n_trailers++] = (struct vb_str){begin, (size_t)(end - begin)};
    /* else it is discarded, as any trailer may be (RFC 9112 7.1.2) */
}

ssize_t vb_trailers_read(const char *bytes, size_t n, const struct vb_head_limits *limits,
                         struct vb_body_part *ret_part)
{
    const char *p = bytes, *end = bytes + VB_MIN(n, limits->bytes);
    struct vb_field field;
    const char *why;
    unsigned fields = 0;
    int r;
    ret_part->n_trailers = 0;
    while ((r = vb_field_read(&p, end, &field, &why)) > 0) {
        if (field.name.n == 0)
            return p - bytes;
        if (++fields > limits->fields)
            return -EPROTO;
        if (vb_trailer_passes(field.name))
            add_line(ret_part, field.name.p, field.line_end);
    }
    ret_part->n_trailers = 0;
    return r == 0 && n >= limits->bytes ? -EPROTO : r;
}
