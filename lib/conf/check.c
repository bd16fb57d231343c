/* Rules that one value alone cannot break: things that must differ, and things that must fit. */
#include "load_priv.h"

#include <errno.h>
#include <sys/un.h>

/* ---- listeners ---- */
static void check_listener(const struct vb_conf *conf, unsigned i, struct vb_diag *diag)
{
    const struct vb_conf_listener *listener = &conf->listeners[i];
    for (unsigned j = 0; j < i; j++) {
        const struct vb_conf_listener *other = &conf->listeners[j];
        if (!vb_addr_collide(&listener->address, &other->address))
            continue;
        vb_diag_error(diag, (struct vb_place){listener->line, listener->column},
                      "`%s` cannot be listened on beside `%s` in line %u", listener->text, other->text, other->line);
        return;
    }
}

/* A path holds one socket. Where the control socket is by default only the master knows. */
static void check_admin_socket(const struct vb_conf *conf, const struct vb_conf_listener *listener,
                               struct vb_diag *diag)
{
    if (conf->admin.socket != NULL && listener->address.ss_family == AF_UNIX &&
        strcmp(((const struct sockaddr_un *)&listener->address)->sun_path, conf->admin.socket) == 0)
        vb_diag_error(diag, (struct vb_place){listener->line, listener->column},
                      "`%s` is the control socket already; give `listen` or `admin.socket` another path",
                      listener->text);
}

/* Who comes through a unix socket has no address, and who comes from an address is no unix peer. */
static void check_proxy_protocol(const struct vb_conf_listener *listener, struct vb_diag *diag)
{
    const struct vb_conf_sources *sources = &listener->proxy_protocol;
    bool is_unix = listener->address.ss_family == AF_UNIX;
    bool is_given = sources->n > 0 || sources->unix_peers;
    if (is_given && (is_unix ? !sources->unix_peers : sources->n == 0))
        vb_diag_warn(diag, (struct vb_place){listener->line, listener->column},
                     "`proxy_protocol` has no effect on `%s`: none of its sources can come there; %s", listener->text,
                     is_unix ? "write `unix`" : "`unix` stands for who comes through a unix socket");
}

/* ---- backends ---- */
static int by_name(const void *a, const void *b)
{
    const struct vb_conf_backend *x = *(const struct vb_conf_backend *const *)a;
    const struct vb_conf_backend *y = *(const struct vb_conf_backend *const *)b;
    int order = strcmp(x->name, y->name);
    return order != 0 ? order : (x > y) - (x < y); /* one array, in the order of the file */
}

static int check_names(const struct vb_conf_pool *pool, struct vb_diag *diag)
{
    if (pool->n_backends < 2)
        return 0;
    const struct vb_conf_backend **sorted = calloc(pool->n_backends, sizeof(*sorted));
    if (sorted == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < pool->n_backends; i++)
        sorted[i] = &pool->backends[i];
    qsort(sorted, pool->n_backends, sizeof(*sorted), by_name);
    const struct vb_conf_backend *first = sorted[0];
    for (unsigned i = 1; i < pool->n_backends; i++) {
        if (strcmp(first->name, sorted[i]->name) == 0)
            vb_diag_error(diag, (struct vb_place){sorted[i]->line, sorted[i]->column},
                          "backend `%s` is in pool %s already, in line %u; each needs a name of its own", first->name,
                          vb_quote(pool->name).text, first->line);
        else
            first = sorted[i];
    }
    free(sorted);
    return 0;
}

static void check_health_port(const struct vb_conf_pool *pool, struct vb_diag *diag)
{
    for (unsigned i = 0; i < pool->n_backends; i++) {
        const struct vb_conf_backend *backend = &pool->backends[i];
        if (pool->health.port == 0 || backend->endpoint.unix_path[0] == '\0')
            continue;
        vb_diag_error(diag, (struct vb_place){backend->line, backend->column},
                      "pool %s checks health on port %u, which means nothing for a unix socket; "
                      "leave `health.port` out, or give the socket a pool of its own",
                      vb_quote(pool->name).text, pool->health.port);
        return;
    }
}

/* The segment has a fixed number of places for the backends of all pools together. */
static void check_capacity(const struct vb_conf *conf, struct vb_diag *diag)
{
    unsigned total = 0;
    const struct vb_conf_backend *over = NULL;
    for (unsigned i = 0; i < conf->n_pools; i++) {
        const struct vb_conf_pool *pool = &conf->pools[i];
        if (over == NULL && pool->n_backends > conf->segment.backends - total)
            over = &pool->backends[conf->segment.backends - total];
        total += pool->n_backends;
    }
    if (over != NULL)
        vb_diag_error(diag, (struct vb_place){over->line, over->column},
                      "%u backends in all pools are more than the %u that the segment has room for; "
                      "raise `segment.backends` (at most %d)",
                      total, conf->segment.backends, VB_BACKENDS_MAX);
}

int vb_conf_check(const struct vb_conf *conf, struct vb_diag *diag)
{
    for (unsigned i = 0; i < conf->n_listeners; i++) {
        check_listener(conf, i, diag);
        check_admin_socket(conf, &conf->listeners[i], diag);
        check_proxy_protocol(&conf->listeners[i], diag);
    }
    for (unsigned i = 0; i < conf->n_pools; i++) {
        int r = check_names(&conf->pools[i], diag);
        if (r < 0)
            return r;
        check_health_port(&conf->pools[i], diag);
    }
    check_capacity(conf, diag);
    vb_check_simulate(conf, diag);
    return 0;
}
