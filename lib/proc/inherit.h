/*
 * What a worker inherits from the master: descriptors at fixed numbers and a few arguments. A worker is the same binary
 * executed afresh, because the master has threads and must not go on running C code in a forked child.
 */
#ifndef VB_PROC_INHERIT_H
#define VB_PROC_INHERIT_H

enum vb_inherited_fd {
    VB_FD_CONTROL = 3, /* socket pair: one byte for each message, see below; its end means that the master is gone */
    VB_FD_SEGMENT = 4, /* the shared segment */
    VB_FD_CONFIG = 5,  /* sealed memfd: the text of the configuration that the master has validated */
    VB_FD_LOG = 6,     /* non-blocking pipe to the master's log thread */
    VB_FD_LISTEN = 7,  /* the first of the listening sockets, one for each configured address; behind the last of them
                          the own inbox, and then, for each worker by its index, where to put what is for it */
};

/* vibebalancer worker INDEX SLOT WORKERS LOG-LEVEL IDENTITY CONFIG-FILE-NAME; the identity is one of privileges.h */
enum vb_worker_argument {
    VB_ARG_WORD = 1,
    VB_ARG_INDEX,
    VB_ARG_SLOT,
    VB_ARG_WORKERS, /* how many there are */
    VB_ARG_LOG_LEVEL,
    VB_ARG_IDENTITY,
    VB_ARG_CONFIG_FILE,
    VB_ARG_COUNT
};

enum vb_control_message {
    VB_CONTROL_READY = 'r',    /* worker: it serves */
    VB_CONTROL_DRAIN = 'd',    /* master: accept no more, finish, exit */
    VB_CONTROL_DRAINING = 'a', /* worker: it accepts no more */
};

#endif
