/*
 * HTTP/1 as bytes: no sockets, no time, no configuration. Bytes in, a message model out, and back.
 *
 * A message is read twice: by our own strict readers, whose result is what the rest of the program sees, and by llhttp,
 * which must come to the same framing and the same body; where they disagree the message is refused.
 * Rules: RFC 9110 (semantics), RFC 9112 (HTTP/1.1).
 */
#ifndef VB_HTTP_H
#define VB_HTTP_H

#include <stdalign.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "vb/base.h"
#include "vb/str.h"

/* ---- the model ----------------------------------------------------------------------------------------------------*/

/* The fields that a proxy must know; all others pass untouched. */
enum vb_field_id {
    VB_FIELD_OTHER,
    VB_FIELD_CONNECTION,
    VB_FIELD_KEEP_ALIVE,
    VB_FIELD_PROXY_CONNECTION,
    VB_FIELD_TE,
    VB_FIELD_TRANSFER_ENCODING,
    VB_FIELD_UPGRADE,
    VB_FIELD_CONTENT_LENGTH,
    VB_FIELD_HOST,
    VB_FIELD_EXPECT,
    VB_FIELD_FORWARDED,
    VB_FIELD_X_FORWARDED_FOR,
    VB_FIELD_X_FORWARDED_PROTO,
    VB_FIELD_X_FORWARDED_HOST,
    VB_FIELD_MAX_FORWARDS,
    VB_FIELD_DATE,
    VB_FIELD_TRAILER,
    VB_FIELD_ID_COUNT,
};

struct vb_field {
    struct vb_str name;       /* its first byte is where the line begins */
    struct vb_str value;      /* without the white space around it */
    const char *line_end;     /* behind the line's CRLF */
    uint8_t id;               /* enum vb_field_id */
    bool named_by_connection; /* hop-by-hop because the Connection field says so (RFC 9110 7.6.1) */
};

/* How the end of a message's body is known (RFC 9112 6.3). */
enum vb_framing { VB_FRAMING_NONE, VB_FRAMING_LENGTH, VB_FRAMING_CHUNKED, VB_FRAMING_CLOSE };

#define VB_FIELDS_MAX 1000

/*
 * The head of a message: slices of the bytes that it was parsed from, valid as long as those. It is large: a worker has
 * one, not each connection, because a head is parsed and passed on in one go.
 */
struct vb_head {
    struct vb_str raw; /* request line or status line, fields, and the empty line */
    /* requests */
    struct vb_str method;
    struct vb_str target;     /* to forward: origin-form, or `*` (RFC 9112 3.2) */
    struct vb_str host;       /* to forward; empty in an HTTP/1.0 request without one */
    bool host_from_target;    /* the target was in absolute-form: its authority replaces the Host field */
    bool slash_before_target; /* it was `http://host?query`: `target` is `?query`, and a `/` goes before it */
    bool wants_upgrade;       /* Connection lists `upgrade` */
    /* responses */
    unsigned status;
    struct vb_str reason;
    /* both */
    unsigned minor;  /* HTTP/1.minor: 0 or 1; a higher one is read as 1 (RFC 9110 2.5) */
    bool keep_alive; /* the sender wants the connection to persist (RFC 9112 9.3) */
    enum vb_framing framing;
    uint64_t length;                   /* body bytes, with VB_FRAMING_LENGTH */
    uint32_t present;                  /* bit set of enum vb_field_id */
    uint16_t first[VB_FIELD_ID_COUNT]; /* where in `fields`, of those that are present */
    unsigned n_fields;
    struct vb_field fields[VB_FIELDS_MAX + 1]; /* the last is where one too many is read to */
};

/* Of a request: does content follow? */
static inline bool vb_head_has_content(const struct vb_head *head)
{
    return head->framing == VB_FRAMING_CHUNKED || (head->framing == VB_FRAMING_LENGTH && head->length > 0);
}

/* Why a message was refused: the status that a client gets for such a request, and a sentence. */
struct vb_refusal {
    unsigned status;
    const char *why; /* a literal */
};

struct vb_head_limits {
    size_t bytes;    /* of a whole head */
    unsigned fields; /* at most VB_FIELDS_MAX */
};

/*
 * Reads a head from the first n bytes of a message. > 0: its length; `head` is filled. 0: more bytes are needed, and
 * the lines that are complete are valid so far. -EPROTO: refused, see ret_refusal. Call it again, with all the bytes,
 * when a further line end has arrived.
 */
ssize_t vb_h1_parse_request(const char *bytes, size_t n, const struct vb_head_limits *limits, struct vb_head *head,
                            struct vb_refusal *ret_refusal);

/* The same for a response to a request with the method HEAD (`to_head`) or another one. */
ssize_t vb_h1_parse_response(const char *bytes, size_t n, const struct vb_head_limits *limits, bool to_head,
                             struct vb_head *head, struct vb_refusal *ret_refusal);

/* The first field of that kind; NULL when there is none. */
static inline const struct vb_field *vb_head_find(const struct vb_head *head, enum vb_field_id id)
{
    return (head->present & 1u << id) != 0 ? &head->fields[head->first[id]] : NULL;
}

const struct vb_field *vb_head_find_name(const struct vb_head *head, struct vb_str name);

/* Takes the next member off a comma-separated list, without its white space and skipping empty ones (RFC 9110 5.6.1).
 */
bool vb_list_next(struct vb_str *list, struct vb_str *ret_member);

/*
 * How loaded the sender of a response says that it is, in 1/1000, at most VB_LOAD_REPORT_MAX (vb/lb.h has the use):
 *   endpoint-load-metrics: TEXT application_utilization=0.5, cpu_utilization=0.3      (ORCA, also as `JSON {...}`)
 *   X-Load: 0.5, or X-Load: 50%
 * False: it says nothing, or something that cannot be read, which is the same.
 */
#define VB_LOAD_REPORT_MAX 1000000000u
bool vb_head_load_report(const struct vb_head *head, uint32_t *ret_load_milli);

/*
 * The value of a request's cookie, without quotes around it; names are case-sensitive. Of several with this name the
 * first, which is the one whose path fits best (RFC 6265 5.4). It may be empty.
 */
bool vb_cookie_find(const struct vb_head *head, struct vb_str name, struct vb_str *ret_value);

/* May the request be sent again when it is not known whether it took effect? (RFC 9110 9.2.2) */
bool vb_method_is_idempotent(struct vb_str method);

/* The standard reason phrase; "" for a status that has none. */
const char *vb_status_reason(unsigned status);

/* ---- bodies -------------------------------------------------------------------------------------------------------*/

#define VB_BODY_SPANS    32
#define VB_TRAILER_SPANS 32

struct vb_body_part {
    struct iovec spans[VB_BODY_SPANS]; /* decoded body bytes, slices of the input */
    unsigned n_spans;
    size_t bytes;    /* sum of the spans */
    size_t consumed; /* of the input; all of it unless the spans ran out, or one of the following is set */
    bool complete;   /* the message ends here; what follows in the input belongs to the next one */
    bool waiting;    /* the rest is the beginning of a trailer section: keep it, and come again when more has arrived */
    /* With `complete`: whole lines of the trailer section that may be passed on (RFC 9110 6.5.1); slices of the input.
     */
    struct vb_str trailers[VB_TRAILER_SPANS];
    unsigned n_trailers;
};

/* Where in a chunked body a reader is. */
struct vb_chunk_state {
    uint64_t left; /* of the chunk */
    uint8_t at, digits;
};

/* Decodes the body of one message. Plain memory: nothing to free. */
struct vb_body_reader {
    alignas(8) unsigned char llhttp[128];
    struct vb_head_limits limits; /* of a trailer section */
    size_t trailer_seen;          /* bytes of that section, which is not whole yet */
    struct vb_chunk_state chunk;
    uint64_t left;                    /* of a body without chunks */
    uint64_t body_bytes, frame_bytes; /* frame: chunk lines, bounded in proportion to the body */
    uint64_t llhttp_body_bytes;
    enum vb_framing framing;
    bool complete, skip_body, drop_trailers;
    bool llhttp_headers_complete, llhttp_complete;
};

enum vb_message_kind { VB_REQUEST, VB_RESPONSE };

/*
 * Begins with the message whose head was just parsed; gives the head to llhttp. -EPROTO: llhttp reads it otherwise, the
 * message must be refused. When it is 0 and framing is NONE, or the length is 0, the message is complete already. The
 * limits are those of a trailer section.
 */
int vb_body_begin(struct vb_body_reader *reader, enum vb_message_kind kind, const struct vb_head *head,
                  const struct vb_head_limits *limits);

/*
 * Decodes the next bytes. Call again with the rest while consumed < n and neither complete nor waiting. -EPROTO:
 * broken. What is kept while it is waiting never grows beyond limits->bytes.
 */
int vb_body_read(struct vb_body_reader *reader, const char *bytes, size_t n, struct vb_body_part *ret_part);

/* The peer closed. 0: that was the end of a close-delimited message. -ECONNRESET: the message was cut short. */
int vb_body_eof(const struct vb_body_reader *reader);

/* ---- writing ------------------------------------------------------------------------------------------------------*/

/* The client as the backend shall see it. */
struct vb_forward_client {
    bool x;           /* by X-Forwarded-For, -Proto and -Host */
    bool rfc7239;     /* by Forwarded; with neither, all such fields of the client pass as they came */
    bool trusted;     /* it is a proxy whose own fields are true: they are gone on with; otherwise they are dropped */
    struct vb_str ip; /* empty: it has none, it came through a unix socket */
};

struct vb_forward_request {
    struct vb_str fallback_host; /* for an HTTP/1.0 request that has none */
    struct vb_str via;           /* pseudonym of this proxy; empty: no Via field */
    struct vb_forward_client client;
    struct vb_str id_field, id; /* request id; empty id: the client's own field passes */
    struct vb_str upgrade;      /* protocol that the client may switch to; empty: none */
    struct vb_str max_forwards; /* in place of the client's; empty: that one passes */
};

/* Writes the request head that a backend gets. Its length; `to` has at least the room that the other function says. */
size_t vb_h1_write_request(char *to, const struct vb_head *head, const struct vb_forward_request *how);
size_t vb_h1_request_room(const struct vb_head *head, const struct vb_forward_request *how);

struct vb_forward_response {
    struct vb_str via;
    struct vb_str date;         /* for a final response that has none (RFC 9110 6.6.1); empty: it has */
    struct vb_str upgrade;      /* the protocol of a 101 or 426; empty: none */
    struct vb_str id_field, id; /* added when the backend did not send that field */
    struct vb_str set_cookie;   /* the value of one more Set-Cookie field; empty: none */
    enum vb_framing framing;    /* towards the client */
    bool announce_close;        /* Connection: close */
    bool announce_keep_alive;   /* Connection: keep-alive, which an HTTP/1.0 client needs to hear */
};

/* The same for the response head that a client gets. */
size_t vb_h1_write_response(char *to, const struct vb_head *head, const struct vb_forward_response *how);
size_t vb_h1_response_room(const struct vb_head *head, const struct vb_forward_response *how);

/* Of that room: all but the head that came in, three times its host, and the texts in `how`. */
#define VB_HEAD_ROOM 512

/* Writes a chunk's size line, for which `to` has VB_CHUNK_LINE_MAX bytes; its length. Data and "\r\n" follow it. */
#define VB_CHUNK_LINE_MAX 20
size_t vb_h1_write_chunk_line(char *to, size_t chunk);

#endif
