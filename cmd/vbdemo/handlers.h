/* What is answered: a request's head goes in, an answer comes out. Nothing here knows of sockets. */
#ifndef VBDEMO_HANDLERS_H
#define VBDEMO_HANDLERS_H

#include <stdio.h>

#include "settings.h"
#include "vb/http.h"

#define DEMO_NAME_MAX 64

/* The backend as all its requests see it. */
struct demo {
    char name[DEMO_NAME_MAX]; /* letters, digits, `.`, `_`, `-`: fit for a field value and for JSON as it is */
    bool blocking;
    uint64_t started_us;
    struct settings settings;
    /* /health and /control are not in `requests`, so that checks do not blur what clients sent. */
    uint64_t requests, checks;
    uint64_t errors; /* answers with a status of 500 and more, and resets */
    uint64_t active_requests, active_connections;
};

struct request {
    const struct vb_head *head;
    struct vb_str query;
    uint64_t nth; /* on its connection, from 1 */
};

enum answer_kind {
    ANSWER_TEXT,  /* `text` */
    ANSWER_BYTES, /* `bytes` of a pattern, in chunks if `chunked` */
    ANSWER_ECHO,  /* the request's body, framed as it came */
    ANSWER_SINK,  /* how long the request's body was; answer_received makes the text */
    ANSWER_RESET, /* the connection is reset */
    ANSWER_HANG,  /* nothing, ever */
};

struct answer {
    enum answer_kind kind;
    unsigned status;
    bool chunked;
    const char *type;  /* of the content */
    const char *allow; /* methods that this path has; NULL: not said */
    struct text text;
    uint64_t bytes;
    uint64_t delay_ms; /* before the answer begins */
};

/* Decides, and counts. `ret_answer` owns memory until text_clear(&ret_answer->text). */
void demo_answer(struct demo *demo, const struct vb_head *head, uint64_t nth, struct answer *ret_answer);

/* The answer to a request that is no valid HTTP. */
void demo_refuse(struct demo *demo, const struct vb_refusal *refusal, struct answer *ret_answer);

/* The body of an ANSWER_SINK has been read: it becomes an ANSWER_TEXT. */
void answer_received(struct answer *answer, uint64_t bytes);

/* One line for each path, for --help. */
void demo_print_endpoints(FILE *to);

#endif
