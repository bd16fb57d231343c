/* An answer as bytes: how it is framed, its head, and the pattern of /bytes. */
#ifndef VBDEMO_REPLY_H
#define VBDEMO_REPLY_H

#include "handlers.h"

#define REPLY_HEAD_MAX  1024
#define REPLY_BLOCK_IOV 3

struct reply {
    struct answer answer;
    unsigned minor;  /* of the client's HTTP/1.minor */
    bool head_only;  /* the request was a HEAD */
    bool keep_alive; /* the connection persists after this answer */
    enum vb_framing framing;
    uint64_t length; /* with VB_FRAMING_LENGTH */
};

/* Sets framing and length (and keep_alive, where only a close can end the body); an echo is framed as its request. */
void reply_frame(struct reply *reply, enum vb_framing request_framing, uint64_t request_length);

/* Writes the head, for which `to` has REPLY_HEAD_MAX bytes; its length. */
size_t reply_head(const struct reply *reply, const char *backend, char *to);

/*
 * The next slices of an ANSWER_BYTES, the last of them with what ends the body; answer.bytes is what is still to come.
 * The slices point to static memory and to `line`. Returns how many there are.
 */
unsigned reply_block(struct reply *reply, char line[VB_CHUNK_LINE_MAX], struct iovec iov[REPLY_BLOCK_IOV]);

#endif
