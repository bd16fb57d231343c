/*
 * From the tree to `struct vb_conf`. schema.c says in tables which options there are; load.c walks tree and table
 * together; values.c, sources.c, routes.c, balancing.c, failures.c and user.c read what a table cannot say; check.c
 * looks at the whole.
 *
 * Readers report to `diag` and go on, so that one run shows all errors. Only memory ends a run early, and that not at
 * once: `oom` is remembered, readers leave things half-built, and who began the run throws them away.
 */
#ifndef VB_CONF_LOAD_PRIV_H
#define VB_CONF_LOAD_PRIV_H

#include "vb/conf.h"
#include "vb/str.h"

#include "yaml_priv.h"

struct vb_load {
    struct vb_diag *diag;
    const struct vb_yaml *root; /* for values that name what stands elsewhere in the file */
    bool oom;
};

enum vb_option_type {
    VB_OPTION_LATER,    /* the design has it, the code does not yet */
    VB_OPTION_LEVEL,    /* a mapping of more options of the same object */
    VB_OPTION_UINT,     /* bool, unsigned, uint64_t or size_t, by `size`: */
    VB_OPTION_DURATION, /* in milliseconds */
    VB_OPTION_SIZE,     /* in bytes */
    VB_OPTION_SHARE,    /* in whole per cents */
    VB_OPTION_BOOL,
    VB_OPTION_WORD,   /* one of `words` */
    VB_OPTION_CHARS,  /* char[size], as `valid` wants it */
    VB_OPTION_STRING, /* char *, owned */
    VB_OPTION_CUSTOM, /* `read` does it all */
};

/* A value of an enumeration, for reading and for showing. */
struct vb_word {
    const char *word;
    unsigned value;
};

struct vb_option {
    const char *key; /* NULL ends a table */
    enum vb_option_type type;
    size_t offset, size; /* of the member in the object of the level; for VB_OPTION_LEVEL: a bool that `off` clears, and
                            a mapping sets */
    uint64_t min, max;
    const char *by_default; /* as a file would say it; NULL leaves zero */
    const char *special;    /* a word that stands for a number, share or duration: `auto`, `off` */
    uint64_t special_value;
    const struct vb_word *words; /* ends with a NULL word */
    const struct vb_level *level;
    bool (*valid)(const char *text);
    const char *expected; /* what `valid` wants, for messages */
    void (*read)(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *object);
};

/* The options that one mapping may hold. */
struct vb_level {
    const char *path; /* for people: `pools.NAME.health` */
    const struct vb_option *options;
};

/* ---- schema.c: what there is ---- */
extern const struct vb_level vb_level_top, vb_level_listener, vb_level_pool, vb_level_backend, vb_level_route,
    vb_level_model, vb_level_phase;

const struct vb_option *vb_schema_find(const struct vb_level *level, const char *key);

/* How many slips of the finger make `text` of `word`; UINT_MAX where nobody would take the one for the other. */
unsigned vb_schema_slips(const char *text, const char *word);

/* The error for a key that is not in the level, with the best guess at what was meant. */
void vb_schema_unknown(const struct vb_level *level, const struct vb_yaml *node, struct vb_diag *diag);

/* ---- load.c: walking ---- */
/* Sets every option of a level, and of the levels in it, to its default. */
void vb_load_defaults(struct vb_load *load, const struct vb_level *level, void *object);

/* Reads a mapping into an object. */
void vb_load_level(struct vb_load *load, const struct vb_level *level, const struct vb_yaml *mapping, void *object);

/* "KEY: expected THIS, found THAT", at the value. */
void vb_load_mismatch(struct vb_load *load, const char *key, const struct vb_yaml *node, const char *expected);

/* False, after a report, where the node is another kind of thing, or nothing. */
bool vb_load_is(struct vb_load *load, const char *key, const struct vb_yaml *node, enum vb_yaml_kind kind,
                const char *expected);

/* The value of the one of option->words that `text`, at or in `node`, is; false, after a report, where it is none. */
bool vb_load_word(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, const char *text,
                  unsigned *ret_value);

/* `off false no`; `on true yes`; case does not matter. */
bool vb_is_off(const char *word);
bool vb_is_on(const char *word);

/* 0 with *conf filled, and errors in `diag` where there were some; -ENOMEM. */
int vb_conf_load(const struct vb_yaml *root, struct vb_diag *diag, struct vb_conf *conf);

/* ---- values.c: what needs code of its own ---- */
void vb_read_listen(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *conf);
void vb_read_listener_address(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node,
                              void *listener);
void vb_read_pools(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *conf);
void vb_read_backends(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *pool);
void vb_read_backend_address(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node,
                             void *backend);
void vb_read_expect(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *pool);
void vb_read_request_id(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *conf);
void vb_read_upgrade(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *pool);
bool vb_valid_name(const char *text);
bool vb_valid_token(const char *text); /* a field name, a method, a protocol (RFC 9110 5.6.2) */
bool vb_valid_url_path(const char *text);
bool vb_valid_host_header(const char *text);
bool vb_valid_file_path(const char *text);
bool vb_is_visible_ascii(const char *text);
void vb_to_lower(char *text); /* ASCII */

/* What is before the separator, without spaces around it; *rest becomes what is behind it. Without one the whole text,
 * and an empty rest. */
struct vb_str vb_cut(struct vb_str *rest, char separator);

/* ---- sources.c ---- */
void vb_read_trusted_proxies(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node,
                             void *conf);
void vb_read_proxy_protocol(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node,
                            void *listener);

/* ---- routes.c ---- */
void vb_read_routes(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *conf);
void vb_read_route_host(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *route);
void vb_read_route_path(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *route);
void vb_read_route_method(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node,
                          void *route);
void vb_read_route_header(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node,
                          void *route);
void vb_read_route_pool(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *route);

/* Warns of routes that never match and of pools that get no requests. `conf` was read without errors. */
void vb_warn_of_routes(struct vb_load *load, const struct vb_conf *conf);

void vb_free_route(struct vb_conf_route *route); /* what it owns */

/* ---- balancing.c ---- */
/* How tables and messages have the two keys of a hash that end with a name. */
#define VB_HASH_HEADER_WORD "header:NAME"
#define VB_HASH_COOKIE_WORD "cookie:NAME"

void vb_read_hash_key(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *pool);
void vb_read_secret(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *pool);

/* Warns of what does nothing in a pool with this policy; it was read without errors from `node`. */
void vb_warn_of_balancing(struct vb_load *load, const struct vb_yaml *node, const struct vb_conf_pool *pool);

/* ---- failures.c ---- */
void vb_read_circuit_breaker(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node,
                             void *pool);
void vb_read_retry_on(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *pool);
void vb_read_admin(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *conf);
void vb_read_admin_socket(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *conf);

/* What `outlier` says as a whole, once its pool was read without errors from `node`. */
void vb_check_outlier(struct vb_load *load, const struct vb_yaml *node, const struct vb_conf_pool *pool);

/* ---- user.c ---- */
void vb_read_user(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *conf);

/* ---- simulate.c ---- */
void vb_read_simulated_pool(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node,
                            void *conf);
void vb_read_copies(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *conf);
void vb_read_policies(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *conf);
void vb_read_models(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *conf);
void vb_read_phases(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node, void *model);

/* Does it speak of a pool and of backends that there are? */
void vb_check_simulate(const struct vb_conf *conf, struct vb_diag *diag);

/* Does it end in reasonable time? */
void vb_bound_simulate(struct vb_load *load, const struct vb_conf *conf);

void vb_free_simulate(struct vb_conf_simulate *simulate); /* what it owns */

/* ---- address.c ---- */
/* `8080 :8080 *:8080 127.0.0.1:8080 [::1]:8080 unix:/path` -> text and address, and nothing else of the listener.
 * -EINVAL with a sentence. */
int vb_conf_parse_listener(const char *text, struct vb_conf_listener *listener, struct vb_error *err);

/* `www.example.com`, `127.0.0.1`, `[::1]`, `*.example.com` -> as a route keeps it; `to` has room for VB_HOST_MAX + 3.
 * -EINVAL with a sentence. */
int vb_conf_parse_route_host(const char *text, char *to, size_t size, bool *ret_wildcard, struct vb_error *err);

/* ---- env.c ---- */
/* Replaces `${NAME}` in all values; what cannot be is reported and left broken. 0 or -ENOMEM. */
int vb_conf_expand(struct vb_yaml_doc *doc, struct vb_diag *diag);

/* ---- check.c: rules over the whole ---- */
/* 0, with errors in `diag` where there were some; -ENOMEM. */
int vb_conf_check(const struct vb_conf *conf, struct vb_diag *diag);

#endif
