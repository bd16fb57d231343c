/*
 * The configuration: one YAML text in, one validated and immutable `struct vb_conf` out. No YAML type is visible here.
 * The same text, under the same environment, gives the same configuration in every process: the master hands the text
 * to its workers, not the file.
 *
 * Durations are milliseconds, sizes are bytes, shares are per cent. Strings are owned by the configuration.
 */
#ifndef VB_CONF_H
#define VB_CONF_H

#include <stdio.h>
#include <sys/socket.h>

#include "vb/base.h"
#include "vb/err.h"

#define VB_NAME_MAX     63  /* names of instances, pools and backends, in bytes */
#define VB_HOST_MAX     253 /* RFC 1035 2.3.4 */
#define VB_WORKERS_MAX  64
#define VB_WEIGHT_MAX   256
#define VB_BACKENDS_MAX 4096 /* most that `segment.backends` may ask for */

enum vb_balance { VB_BALANCE_ROUND_ROBIN, VB_BALANCE_LEAST_CONN };

struct vb_conf_listener {
    char text[80]; /* normalised, as messages show it: `0.0.0.0:8080`, `[::]:8080` */
    struct sockaddr_storage address;
    socklen_t address_len;
    unsigned line, column; /* where the file names it */
};

struct vb_conf_backend {
    char name[VB_NAME_MAX + 1]; /* unique in its pool; the address where the file gives none */
    char host[VB_HOST_MAX + 1]; /* a host name or an IP literal without brackets */
    uint16_t port;
    char address[VB_HOST_MAX + 9]; /* `host:port` or `[v6]:port` */
    unsigned weight;               /* 1..VB_WEIGHT_MAX */
    unsigned line, column;
};

struct vb_conf_status_range {
    unsigned first, last; /* inclusive, 100..599 */
};

struct vb_conf_health {
    bool enabled;
    char *path; /* NULL: a TCP connect is the check */
    char *host; /* Host header of checks; "" means the backend's address */
    uint64_t interval_ms, fast_interval_ms, timeout_ms;
    unsigned rise, fall;
    unsigned port; /* 0: the backend's own */
    struct vb_conf_status_range expect[16];
    unsigned n_expect;
};

struct vb_conf_pool {
    char name[VB_NAME_MAX + 1];
    enum vb_balance balance;
    struct vb_conf_backend *backends;
    unsigned n_backends;
    struct vb_conf_health health;
    struct {
        unsigned idle; /* connections a worker keeps for each backend */
        uint64_t timeout_ms;
    } keepalive;
    struct {
        uint64_t connect_ms;
        uint64_t response_ms; /* to the first byte of the response */
        uint64_t idle_ms;     /* between bytes of a body */
    } timeouts;
};

struct vb_conf {
    char name[VB_NAME_MAX + 1];
    unsigned workers; /* 0: auto */
    struct vb_conf_listener *listeners;
    unsigned n_listeners;
    struct vb_conf_pool *pools; /* the first one takes all requests */
    unsigned n_pools;
    struct {
        uint64_t header_ms;    /* for a whole request head, from its first byte */
        uint64_t body_ms;      /* between bytes of a request body */
        uint64_t keepalive_ms; /* between requests */
    } timeouts;
    struct {
        size_t header_bytes; /* a whole head, request or response */
        unsigned headers;
        unsigned requests_per_connection; /* 0: no limit */
    } limits;
    struct {
        bool forwarded;                   /* X-Forwarded-For, -Proto, -Host */
        char request_id[VB_NAME_MAX + 1]; /* name of the field; "" turns it off */
        bool via;
    } headers;
    uint64_t shutdown_grace_ms;
    struct {
        char *path;        /* NULL: /dev/shm/vibebalancer-NAME */
        unsigned backends; /* capacity */
    } segment;
};

/*
 * Reads and checks `text` (n bytes). Every error found (past a hundred they are only counted) goes to `errors`, in
 * order of line, as a `FILE:LINE:COLUMN: message` line; where there is none, warnings do, as `FILE:LINE:COLUMN:
 * warning: message`. `file` is only for these. 0 and a configuration that the caller frees; -EINVAL when there were
 * errors; -ENOMEM.
 */
int vb_conf_parse(const char *file, const char *text, size_t n, FILE *errors, struct vb_conf **ret_conf);

/*
 * The bytes of a configuration file, at most 16 MiB, for vb_conf_parse; the caller frees them with free(). Negative
 * errno, with a sentence in `err`.
 */
int vb_conf_read(const char *file, char **ret_text, size_t *ret_n, struct vb_error *err);

/* Frees and sets NULL; *conf may be NULL. */
void vb_conf_free(struct vb_conf **conf);

const char *vb_balance_name(enum vb_balance balance);

/*
 * `127.0.0.1:80`, `[::1]:80`, `host:80`, `http://host:80/` -> host without brackets, and port. -EINVAL with a sentence
 * that says what is wrong.
 */
int vb_conf_parse_host_port(const char *text, char *host, size_t host_size, uint16_t *ret_port, struct vb_error *err);

#endif
