/*
 * A connected byte stream: what HTTP is spoken over. TCP and unix sockets are such; TLS will be one behind the same
 * functions, so nothing above this header knows what carries the bytes.
 *
 * The owner gets events until it calls one of the closing functions, none after. A stream's memory lives until the end
 * of the loop's turn, so closing it inside one of its own events is fine.
 */
#ifndef VB_STREAM_H
#define VB_STREAM_H

#include <sys/socket.h>
#include <sys/uio.h>

#include "vb/loop.h"

struct vb_stream;

struct vb_stream_events {
    /* A stream made by vb_stream_connect is connected; writing may begin. */
    void (*connected)(void *owner);
    /* n > 0 bytes arrived. They are in the loop's shared buffer: valid only during this call. */
    void (*data)(void *owner, const char *bytes, size_t n);
    /* The peer will send no more; writing is still possible. */
    void (*end)(void *owner);
    /* All that was queued has been given to the kernel. */
    void (*drained)(void *owner);
    /* What vb_stream_write_soon put off has been written; `result` as of vb_stream_write. */
    void (*written)(void *owner, int result);
    /* Connecting or reading failed (negative errno); no other event will follow. The owner must still close. */
    void (*failed)(void *owner, int code);
};

/*
 * Takes over a connected socket (close-on-exec, from accept) of the family AF_INET, AF_INET6 or AF_UNIX. Reading starts
 * at once. On failure the descriptor is closed. `events` must live as long as the stream; `owner` is handed to each
 * event.
 */
int vb_stream_open(struct vb_stream **ret_stream, struct vb_loop *loop, int fd, const struct vb_stream_events *events,
                   void *owner);

/* Another owner from now on, also inside one of the stream's events (which is then the old owner's last one). */
void vb_stream_rebind(struct vb_stream *stream, const struct vb_stream_events *events, void *owner);

/*
 * Begins to connect to an address of one of these families (a unix socket's path ends with a NUL); `connected` or
 * `failed` tells. Reading starts once connected. The caller sets the time-out. A unix socket whose listener's queue is
 * full is not waited for: -EAGAIN.
 */
int vb_stream_connect(struct vb_stream **ret_stream, struct vb_loop *loop, const struct sockaddr *address,
                      const struct vb_stream_events *events, void *owner);

/*
 * Writes everything, or queues a copy of what the kernel does not take. 0: all is gone. 1: something is queued, so
 * produce no more until `drained`. Negative errno: the write side is broken; nothing more can be written, but what the
 * peer has sent can still arrive.
 */
int vb_stream_write(struct vb_stream *stream, const struct iovec *iov, unsigned n);

/*
 * The same, but perhaps only when the others that have read together with this stream have been told, so that all
 * write together: that is faster. 2: so it is, and `written` will tell; `bytes` must live until then (vb_loop_batch
 * says it of all streams at once), or until the stream is closed, which loses them. Whatever else is done to the stream
 * comes behind it, and then nobody is told.
 */
int vb_stream_write_soon(struct vb_stream *stream, const char *bytes, size_t n);

/*
 * Nothing more will be written (that would end the process): the peer gets a FIN behind what is queued, and `drained`
 * still tells when that has left. Reading goes on. The stream must be connected; it does not close by itself, not even
 * when the peer has ended too. Idempotent.
 */
void vb_stream_end(struct vb_stream *stream);

/* Is anything left that the kernel has not taken yet, or not been given? */
bool vb_stream_queued(const struct vb_stream *stream);

/*
 * Bytes that the peer has not acknowledged yet, queued here or in the kernel. Costs a system call: for time-outs. Of a
 * unix socket: those that it has not read, in the kernel's own measure (whole buffers), which only reaches 0 with them.
 */
size_t vb_stream_unsent(const struct vb_stream *stream);

/* Nothing is read until vb_stream_resume; what has been read already may still be told. Idempotent. */
void vb_stream_pause(struct vb_stream *stream);
void vb_stream_resume(struct vb_stream *stream);

/*
 * While it is guarded the death of this process is an RST to the peer and not a clean end: for messages that only the
 * end of the connection completes. Costs a system call. A unix socket cannot tell its peer.
 */
void vb_stream_guard(struct vb_stream *stream, bool on);

/* Has something been read, or an end, that the owner will be told of in this turn yet? */
bool vb_stream_has_news(const struct vb_stream *stream);

/* Have bytes come that have not been read yet? Closing now would be an RST to the peer. Costs a system call. */
bool vb_stream_has_unread(const struct vb_stream *stream);

/* Has nothing come that has not been read yet, not even the peer's end? Costs a system call. */
bool vb_stream_is_silent(const struct vb_stream *stream);

/* Has the peer broken the connection? For a paused stream, which hears of nothing. Costs a system call. */
bool vb_stream_broken(const struct vb_stream *stream);

/* Closing functions: each ends the ownership and sets the pointer NULL; *stream may be NULL.
 *
 * close: at once; queued bytes are lost.
 * reset: at once, with RST where the transport has one: the peer must not take what it got for a clean end. A unix
 *   socket has none: its peer sees what was sent and then an end, unless bytes of the peer were left unread here.
 * finish: sends what is left, for as long as it moves (cut with an RST when it has not for 60 s), and a FIN; then
 *   reads and drops what still comes until the peer's FIN, for at most 2 s: closing with unread bytes would send an RST
 *   that can destroy a response which the peer has not read yet (RFC 9112 9.6).
 * finish_upload: the same for a peer in the middle of an upload, which may read only behind it: as long as it sends,
 *   for at most 30 s.
 */
void vb_stream_close(struct vb_stream **stream);
void vb_stream_reset(struct vb_stream **stream);
void vb_stream_finish(struct vb_stream **stream);
void vb_stream_finish_upload(struct vb_stream **stream);

#endif
