/* The chunked transfer coding: chunks, and the trailer section behind them (RFC 9112 7.1). Private to lib/http. */
#ifndef VB_HTTP_CHUNK_H
#define VB_HTTP_CHUNK_H

#include "vb/http.h"

enum vb_chunk_event {
    VB_CHUNK_END,       /* of the input */
    VB_CHUNK_DATA,      /* body bytes */
    VB_CHUNK_EXTENSION, /* bytes of a chunk line behind the size; they mean nothing to us */
    VB_CHUNK_TRAILERS,  /* the last chunk is over; the trailer section begins at *p */
};

/*
 * Reads on from *p to the next event, and moves *p behind it. `ret_slice`: the bytes of VB_CHUNK_DATA and
 * VB_CHUNK_EXTENSION, as many as there are. -EPROTO: broken. Zeros are the state at the begin of a body.
 */
int vb_chunk_next(struct vb_chunk_state *state, const char **p, const char *end, struct vb_str *ret_slice);

/*
 * Reads a whole trailer section, with the rules and the limits of a head. > 0: its length, the empty line included;
 * the lines that pass are in `ret_part`. 0: it has not arrived whole. -EPROTO: refused.
 */
ssize_t vb_trailers_read(const char *bytes, size_t n, const struct vb_head_limits *limits,
                         struct vb_body_part *ret_part);

/* May a trailer field of that name be passed on? */
bool vb_trailer_passes(struct vb_str name);

#endif
