/* The server: accepts connections and speaks HTTP/1 on them. */
#ifndef VBDEMO_SERVER_H
#define VBDEMO_SERVER_H

#include "vb/loop.h"

struct server;

struct server_options {
    const char *name; /* below DEMO_NAME_MAX bytes: letters, digits, `.`, `_`, `-` */
    bool blocking;    /* work and delays stop the whole process, as in a server that serves one request at a time */
    uint64_t delay_ms;
    int stop_fd; /* becomes readable when the process is to stop; it cuts a blocking delay short */
};

/* Starts to serve. `listen_fd` stays the caller's and must outlive the server. */
int server_open(struct server **ret_server, struct vb_loop *loop, int listen_fd, const struct server_options *options);

/* Ends all connections at once. The memory goes while vb_loop_close runs the last callbacks. Sets NULL. */
void server_close(struct server **server);

#endif
