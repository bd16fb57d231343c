/*
 * The configuration: one YAML text in, one validated and immutable `struct vb_conf` out. No YAML type is visible here.
 * The same text, under the same environment, gives the same configuration in every process: the master hands the text
 * to its workers, not the file.
 *
 * Durations are milliseconds, sizes are bytes, shares are per cent. Strings are owned by the configuration.
 */
#ifndef VB_CONF_H
#define VB_CONF_H

#include <limits.h>
#include <stdio.h>
#include <sys/socket.h>

#include "vb/addr.h"
#include "vb/base.h"
#include "vb/err.h"

#define VB_NAME_MAX      63                /* names of instances, pools and backends, in bytes */
#define VB_HOST_MAX      253               /* RFC 1035 2.3.4 */
#define VB_ADDRESS_MAX   (VB_HOST_MAX + 8) /* of a backend, as text */
#define VB_WORKERS_MAX   64
#define VB_LISTENERS_MAX 64 /* each is as many sockets as there are workers */
#define VB_WEIGHT_MAX    256
#define VB_BACKENDS_MAX  4096 /* most that `segment.backends` may ask for */
#define VB_UNIX_PATH_MAX 107  /* of a unix socket, in bytes */
#define VB_BALANCES      7    /* how many policies there are */

enum vb_balance {
    VB_BALANCE_ROUND_ROBIN,
    VB_BALANCE_LEAST_CONN,
    VB_BALANCE_FASTEST,
    VB_BALANCE_P2C,
    VB_BALANCE_RANDOM,
    VB_BALANCE_HASH,
    VB_BALANCE_LEAST_LOAD,
};

/* What of a request `balance: hash` goes by. */
enum vb_hash_key { VB_HASH_CLIENT_IP, VB_HASH_PATH, VB_HASH_URI, VB_HASH_HEADER, VB_HASH_COOKIE };

/* Who is meant: any of the networks, and perhaps everyone who comes through a unix socket. Nobody: neither of them. */
struct vb_conf_sources {
    struct vb_cidr *networks;
    unsigned n;
    bool unix_peers;
};

bool vb_conf_sources_have(const struct vb_conf_sources *sources, const struct sockaddr *peer);
bool vb_conf_sources_have_ip(const struct vb_conf_sources *sources, const struct vb_ip *ip);

struct vb_conf_listener {
    char text[VB_UNIX_PATH_MAX + 8]; /* normalised: `0.0.0.0:8080`, `[::]:8080`, `unix:/path` */
    struct sockaddr_storage address;
    socklen_t address_len;
    struct vb_conf_sources proxy_protocol; /* whose connections begin with a PROXY header */
    unsigned line, column;                 /* where the file names it */
};

/* Where a backend is. */
struct vb_conf_endpoint {
    char unix_path[VB_UNIX_PATH_MAX + 1]; /* "": it is host and port */
    char host[VB_HOST_MAX + 1];           /* a host name or an IP literal without brackets */
    uint16_t port;
};

struct vb_conf_backend {
    char name[VB_NAME_MAX + 1]; /* unique in its pool; the address where the file gives none */
    struct vb_conf_endpoint endpoint;
    char address[VB_ADDRESS_MAX + 1]; /* as vb_conf_format_endpoint writes it */
    unsigned weight;                  /* 1..VB_WEIGHT_MAX */
    unsigned max_connections;         /* requests at it at once, over all workers; 0: no limit */
    bool backup;                      /* gets requests only while no other one is usable */
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

/* What makes a request be tried again: a bit set. */
enum vb_retry_on {
    VB_RETRY_CONNECT = 1, /* no connection: for any method */
    VB_RETRY_RESET = 2,   /* it broke before an answer: this and all further ones only for idempotent methods */
    VB_RETRY_TIMEOUT = 4,
    VB_RETRY_502 = 8,
    VB_RETRY_503 = 16,
    VB_RETRY_504 = 32,
    VB_RETRY_429 = 64,
};

#define VB_RETRY_UNLIMITED    UINT_MAX /* as a budget */
#define VB_RETRY_ATTEMPTS_MAX 10

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
    struct {
        char name[32]; /* as in the Upgrade field, in lower case */
    } upgrade[8];      /* protocols that a connection may switch to; never h2c */
    unsigned n_upgrade;
    struct {
        bool enabled;
        unsigned consecutive; /* failures in a row */
        uint64_t eject_ms, eject_max_ms;
        unsigned max_ejected; /* per cent of the pool */
    } outlier;
    unsigned panic; /* per cent: when a smaller share is usable, all are tried; 0: never */
    struct {
        unsigned max_requests; /* in flight, over all workers; 0: no limit, as for the next */
        unsigned max_pending;  /* waiting for a connection */
    } circuit_breaker;
    struct {
        bool enabled;
        unsigned attempts; /* after the first */
        unsigned budget;   /* per cent of the requests, or VB_RETRY_UNLIMITED */
        unsigned on;       /* enum vb_retry_on */
        size_t buffer;     /* of a body, in bytes, so that it can be sent again */
        uint64_t total_ms; /* no further try begins, or lasts, longer than this after the request */
    } retry;
    struct {
        enum vb_hash_key key;
        char *name;       /* of the field or cookie; NULL for other keys */
        unsigned bounded; /* per cent of its fair share that a backend may have in flight; 0: no bound */
    } hash;
    struct {
        bool enabled;
        char cookie[VB_NAME_MAX + 1]; /* its name */
        uint64_t ttl_ms;
        char *secret; /* what signs it; "": the instance makes a key of its own */
    } sticky;
    struct {
        bool enabled;        /* requests wait where all backends are full */
        uint64_t timeout_ms; /* but not for longer */
    } queue;
    uint64_t slow_start_ms; /* a backend that is ready again comes to its full weight in this time; 0: at once */
};

struct vb_conf_route_header {
    char *name, *value; /* value NULL: any, the field only has to be there */
};

/* All that is given must match. */
struct vb_conf_route {
    char *host;    /* lower case, without port and last dot, `[::1]` in its canonical form; NULL: any; with `wildcard`
                      from the dot on: `.example.com` */
    bool wildcard; /* `*.example.com`: every name below it, not itself */
    char *path;    /* a prefix in normal form; NULL: any. It ends at a segment's end unless it ends with `/` */
    char **methods;
    unsigned n_methods; /* 0: any */
    struct vb_conf_route_header *headers;
    unsigned n_headers;
    unsigned pool; /* index */
    bool strip_prefix;
    unsigned line, column;
};

/* How a backend learns of the client: a bit set. */
enum vb_forwarded { VB_FORWARDED_OFF = 0, VB_FORWARDED_X = 1, VB_FORWARDED_RFC7239 = 2, VB_FORWARDED_BOTH = 3 };

/* Who workers are to be, where the master is root. */
struct vb_conf_user {
    char name[VB_NAME_MAX + 1]; /* as the file has it, also numbers; "": whoever the master is */
    bool by_number, has_gid;
    unsigned uid, gid; /* by_number; the gid only where it has one */
    unsigned line, column;
};

/* ---- `simulate`: what `vbctl simulate` plays; the balancer only checks it ---- */

enum vb_arrivals { VB_ARRIVALS_POISSON, VB_ARRIVALS_CONSTANT, VB_ARRIVALS_CLOSED };

/* How service times are spread around their mean. */
enum vb_service {
    VB_SERVICE_CONSTANT = 1,
    VB_SERVICE_EXPONENTIAL,
    VB_SERVICE_UNIFORM,   /* 0 to twice the mean */
    VB_SERVICE_LOGNORMAL, /* of sigma 1: one in a hundred takes 6 times the mean */
    VB_SERVICE_PARETO,    /* of shape 1.5: one in a thousand takes 33 times the mean */
};

enum vb_phase { VB_PHASE_SLOW, VB_PHASE_FAILING, VB_PHASE_STALLING, VB_PHASE_DOWN, VB_PHASE_COLD };

/* For a time a backend is not as usual. */
struct vb_conf_phase {
    enum vb_phase is;
    uint64_t from_ms, to_ms; /* to_ms 0: until the end */
    unsigned factor;         /* slow: service takes so many times as long; cold: at first, then ever less */
    uint64_t after_ms;       /* failing: it answers so soon, */
    unsigned status;         /* ... and this */
};

/* What a backend is made of. Of a single backend: 0 is as it is for all. */
struct vb_conf_model {
    char name[VB_NAME_MAX + 1]; /* of the backend that it is for; "": all that have none of their own */
    enum vb_service distribution;
    uint64_t service_ms;  /* the mean */
    unsigned concurrency; /* requests that it serves at a time; others wait there */
    struct vb_conf_phase *phases;
    unsigned n_phases;
    unsigned line, column;
};

struct vb_conf_simulate {
    char pool[VB_NAME_MAX + 1]; /* "": the first */
    unsigned pool_line, pool_column;
    uint64_t seed, duration_ms;
    unsigned workers; /* 0: as the balancer; 4 where that is auto */
    enum vb_arrivals arrivals;
    unsigned rate; /* requests a second */
    unsigned clients;
    uint64_t think_ms; /* closed: each of the clients waits so long between an answer and its next request */
    unsigned keys;     /* requests have so many different keys */
    bool zipf;         /* the n-th of them comes 1/n times as often as the first; else all come equally often */
    unsigned copies;   /* each backend of the pool is there so many times */
    unsigned copies_line, copies_column;
    enum vb_balance policies[VB_BALANCES];
    unsigned n_policies; /* 0: the pool's own */
    struct vb_conf_model model;
    struct vb_conf_model *models; /* for single backends */
    unsigned n_models;
};

struct vb_conf {
    char name[VB_NAME_MAX + 1];
    unsigned workers; /* 0: auto */
    struct vb_conf_listener *listeners;
    unsigned n_listeners;
    struct vb_conf_pool *pools; /* without routes the first one takes all requests */
    unsigned n_pools;
    struct vb_conf_route *routes; /* the first that matches */
    unsigned n_routes;
    struct {
        uint64_t header_ms;    /* for a whole request head, from its first byte */
        uint64_t body_ms;      /* between bytes of a request body */
        uint64_t keepalive_ms; /* between requests */
        uint64_t tunnel_ms;    /* without a byte either way, after an upgrade */
    } timeouts;
    struct {
        size_t header_bytes; /* a whole head, request or response */
        unsigned headers;
        unsigned requests_per_connection; /* 0: no limit, as for those that follow */
        uint64_t body;                    /* of a request, in bytes */
        unsigned connections;             /* of clients, over all workers */
        unsigned connections_per_ip;
    } limits;
    struct vb_conf_sources trusted_proxies; /* whose X-Forwarded-* and Forwarded fields are believed */
    struct {
        unsigned forwarded;               /* enum vb_forwarded */
        char request_id[VB_NAME_MAX + 1]; /* name of the field; "" turns it off */
        bool via;
    } headers;
    struct {
        char *socket; /* path of the control socket; NULL: beside the segment; "": off */
    } admin;
    struct vb_conf_user user;
    uint64_t shutdown_grace_ms;
    uint64_t watchdog_ms; /* a worker that has not moved for so long is killed; 0: never */
    struct {
        char *path;        /* NULL: /dev/shm/vibebalancer-NAME */
        unsigned backends; /* capacity */
    } segment;
    struct vb_conf_simulate simulate;
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

/* NULL: it has no pool of that name. */
const struct vb_conf_pool *vb_conf_find_pool(const struct vb_conf *conf, const char *name);

/*
 * `127.0.0.1:80`, `[::1]:80`, `host:80`, `http://host:80/`, `unix:/path` -> where that is. -EINVAL with a sentence that
 * says what is wrong.
 */
int vb_conf_parse_endpoint(const char *text, struct vb_conf_endpoint *ret_endpoint, struct vb_error *err);

/* Its one spelling: `host:port`, `[v6]:port` or `unix:/path`; VB_ADDRESS_MAX + 1 bytes hold every one. Returns `to`. */
char *vb_conf_format_endpoint(char *to, size_t size, const struct vb_conf_endpoint *endpoint);

#endif
