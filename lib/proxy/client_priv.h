/* The inside of a client's connection, for the files that make it up: client.c, arrival.c, respond.c. */
#ifndef VB_PROXY_CLIENT_PRIV_H
#define VB_PROXY_CLIENT_PRIV_H

#include "client.h"
#include "vb/addr.h"
#include "vb/buf.h"

enum vb_client_state {                     /* up to QUIET nothing has been asked for */
                       VB_CLIENT_PREFACE,  /* the PROXY header has not arrived whole */
                       VB_CLIENT_EXCESS,   /* over a limit of connections: waits for a request, to be told so */
                       VB_CLIENT_QUIET,    /* no request has begun (before the first one, or between two) */
                       VB_CLIENT_HEAD,     /* part of a request head has arrived */
                       VB_CLIENT_EXCHANGE, /* a request is being served; what the client pipelines behind it waits in
                                              `input` */
};

struct vb_client {
    uint32_t magic;
    enum vb_client_state state;
    bool close_after; /* the connection ends with the response in hand */
    bool says_last;   /* the client has said that it sends nothing behind the request in hand, which has no content */
    bool peer_done;   /* the client has sent its FIN: no request will follow, but it may still be reading */
    bool body_open;   /* the request in hand has more body to come */
    bool speaks_1_0;  /* the request in hand is HTTP/1.0 */
    bool is_head;     /* ... is HEAD: an answer has no content */
    bool read_paused, write_blocked;
    bool in_event, dead;
    bool admitted;   /* counted against the limits of connections, under `counted_ip` */
    bool is_trusted; /* one of trusted_proxies */
    bool has_ip;     /* it did not come through a unix socket */
    unsigned excess_status;
    unsigned requests;
    struct vb_proxy *proxy;
    struct vb_stream *stream;
    struct vb_exchange *exchange;
    struct vb_timer timer;
    size_t unsent; /* bytes that it had not taken when the timer was last started */
    struct vb_buf input;
    struct vb_body_reader *reader; /* NULL: no request with content has come yet */
    TAILQ_ENTRY(vb_client) link;
    struct vb_ip peer_ip;    /* in the state PREFACE: of the connection itself */
    struct vb_ip counted_ip; /* none: it has no limit by address */
    uint8_t ip_n;
    char ip[VB_ADDR_TEXT_MAX]; /* for messages; ip_n bytes */
};

/* ---- client.c -----------------------------------------------------------------------------------------------------*/

enum vb_client_ending { VB_CLIENT_FINISH, VB_CLIENT_CLOSE, VB_CLIENT_RESET };

void vb_client_end(struct vb_client *client, enum vb_client_ending how);

/* Sets the timer for what is being waited for now. */
void vb_client_arm(struct vb_client *client);

/* It does not take what was written. */
void vb_client_blocked(struct vb_client *client);

/* A request that broke a rule: nobody but us will see it. */
void vb_client_refuse(struct vb_client *client, unsigned status, const char *why);

/* ---- arrival.c: who is it, and may it come in? --------------------------------------------------------------------*/

/* The connection is there; it comes from `peer` through `listener`. Sets the state. */
void vb_client_arrive(struct vb_client *client, const struct vb_conf_listener *listener, const struct sockaddr *peer);

/* In the state PREFACE: the bytes of the PROXY header that were used; 0: more are needed, or the client has ended. */
size_t vb_client_take_preface(struct vb_client *client, const char *bytes, size_t n);

/* Gives its place back. */
void vb_client_depart(struct vb_client *client);

#endif
