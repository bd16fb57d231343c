/*
 * What a worker inherits from the master: descriptors at fixed numbers and a few arguments. A worker is the same binary
 * executed afresh, because the master has threads and must not go on running C code in a forked child.
 */
#ifndef VB_PROC_INHERIT_H
#define VB_PROC_INHERIT_H

enum vb_inherited_fd {
    VB_FD_CONTROL = 3, /* socket pair: messages, see below; its end means that the master is gone */
    VB_FD_SEGMENT = 4, /* the shared segment */
    VB_FD_CONFIG = 5,  /* sealed memfd: the text of the configuration that the master has validated */
    VB_FD_LOG = 6,     /* non-blocking pipe to the master's log thread */
    VB_FD_LISTEN = 7,  /* the first of the listening sockets, as many as SOCKETS names; behind the last of them the own
                          inbox, and then, for each worker by its index, where to put what is for it */
};

/*
 * vibebalancer worker INDEX SLOT WORKERS SOCKETS LOG-LEVEL IDENTITY CONFIG-FILE-NAME
 *
 * SOCKETS says which configured listener each socket is of, by its number: `0,1,0` are three sockets of two listeners.
 * The identity is one of privileges.h.
 */
enum vb_worker_argument {
    VB_ARG_WORD = 1,
    VB_ARG_INDEX,
    VB_ARG_SLOT,
    VB_ARG_WORKERS, /* how many there are */
    VB_ARG_SOCKETS,
    VB_ARG_LOG_LEVEL,
    VB_ARG_IDENTITY,
    VB_ARG_CONFIG_FILE,
    VB_ARG_COUNT
};

/*
 * One byte each, and CLOSE has another one behind it: the number of a listener.
 *
 * A worker goes through READY, GO, DRAIN or RETIRE, ACCEPTS_NO_MORE, FINISH. Between the last two it goes on taking
 * what other workers put into its inbox, so the master sends FINISH when all of a generation have said that they accept
 * no more, or are dead: then nobody has anything to give away. One that is told to leave before GO finishes by itself.
 */
enum vb_control_message {
    VB_CONTROL_READY = 'r',           /* worker: everything is open; it waits for GO */
    VB_CONTROL_GO = 'g',              /* master: serve */
    VB_CONTROL_DRAIN = 'd',           /* master: all stop. Take what waits at the sockets, shut them down, finish; after
                                         RETIRE: lose no time with clients that have not asked for anything */
    VB_CONTROL_RETIRE = 'q',          /* master: others serve the sockets from now on. Leave what waits there, finish */
    VB_CONTROL_CLOSE = 'x',           /* master: take what waits at the sockets of this listener, and shut them down */
    VB_CONTROL_ACCEPTS_NO_MORE = 'a', /* worker: nor does it give any away */
    VB_CONTROL_FINISH = 'f',          /* master: nothing more comes into the inbox; exit when the last client is gone */
    VB_CONTROL_CUT = 'c',             /* master: exit now */
};

#endif
