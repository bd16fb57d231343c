/*
 * The wire between vbctl and the master: a unix socket, one request for each connection. The request is its arguments,
 * each ended by NUL, and then the end of what the client sends; the answer is one byte, done or refused, a text for
 * people, which is a sentence or several lines, and the end of the connection.
 */
#ifndef VB_CTL_H
#define VB_CTL_H

#include <sys/socket.h>
#include <sys/un.h>

#include "vb/base.h"
#include "vb/err.h"

#define VB_CTL_REQUEST_MAX 4096
#define VB_CTL_ARGS_MAX    8
#define VB_CTL_TEXT_MAX    4096  /* of the text, with its NUL: some dozen lines */
#define VB_CTL_SILENCE_MS  5000  /* a client whose request is not there whole by then is cut */
#define VB_CTL_ANSWER_MS   40000 /* a change may have to wait for the end of a reload */
#define VB_CTL_RELOAD_MS   90000 /* the answer to `reload` comes when that has ended */

struct vb_ctl_answer {
    bool done; /* false: refused, and nothing was changed */
    char text[VB_CTL_TEXT_MAX];
};

/* The sentence of an answer; what does not fit is cut. */
void vb_ctl_done(struct vb_ctl_answer *answer, const char *fmt, ...) VB_PRINTF(2, 3);
void vb_ctl_refuse(struct vb_ctl_answer *answer, const char *fmt, ...) VB_PRINTF(2, 3);

/* The same of lines, each ended by a newline: whole ones, as many as fit, and how many more there are. */
void vb_ctl_refuse_lines(struct vb_ctl_answer *answer, const char *lines);

/* The bytes of an answer, as many as are returned; `to` has at least VB_CTL_TEXT_MAX. */
size_t vb_ctl_pack_answer(char *to, const struct vb_ctl_answer *answer);

/*
 * A whole request of n bytes -> its arguments, which point into it; returns how many there are, at least 1. -EBADMSG:
 * it is no request.
 */
int vb_ctl_unpack_request(const char *bytes, size_t n, const char *ret_args[VB_CTL_ARGS_MAX]);

/* The address of a socket at `path`. -ENAMETOOLONG. */
int vb_ctl_address(const char *path, struct sockaddr_un *ret_address);

/*
 * Asks the master whose socket is at `path`, and waits for the answer, `timeout_ms` at most. 0: it answered, which may
 * be a refusal. Negative errno and a sentence: it was not reached, or its answer is none; whether it has done what it
 * was asked is not known then. The answer's text is printable: visible ASCII, spaces and newlines.
 */
int vb_ctl_call(const char *path, unsigned n_args, const char *const *args, unsigned timeout_ms,
                struct vb_ctl_answer *ret_answer, struct vb_error *err);

#endif
