/* What the files of lib/net share. */
#ifndef VB_NET_PRIV_H
#define VB_NET_PRIV_H

#include <sys/socket.h>

#include "vb/err.h"
#include "vb/loop.h"

#define VB_LINGER_MS 2000
/* How long a stream goes on reading from a peer whose upload is answered and does not end. */
#define VB_FINISH_MAX_MS 30000
#define LISTEN_BACKLOG   4096 /* the kernel lowers it to net.core.somaxconn */

struct vb_loop {
    uint32_t magic;
    uv_loop_t uv;
    uv_timer_t timer; /* fires at the earliest deadline of all lists, or earlier */
    uint64_t wake_ms; /* when `timer` will fire; UINT64_MAX: it is not running */
    LIST_HEAD(, vb_timer_list) lists;
    uint64_t finish_max_ms;
    struct vb_timer_list linger; /* streams that wait for their peer's FIN */
    char read_buffer[VB_READ_MAX];
};

/* vb_listen_open for unix sockets. */
int listen_unix_open(int *ret_fds, unsigned n, int joins, const struct sockaddr *address, socklen_t length,
                     const char *text, struct vb_error *err);

#endif
