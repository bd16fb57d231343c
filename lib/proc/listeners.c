#include "listeners.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "json.h"
#include "vb/listen.h"
#include "vb/log.h"

struct vb_address {
    char text[sizeof(((struct vb_conf_listener *)0)->text)];
    struct sockaddr_storage where;
    socklen_t length;
    int *fds;
    unsigned n;
    unsigned n_sure; /* of these, those that were there before the last prepare */
};

static struct vb_address *find(const struct vb_listeners *listeners, const char *text)
{
    for (unsigned i = 0; i < listeners->n; i++)
        if (strcmp(listeners->addresses[i]->text, text) == 0)
            return listeners->addresses[i];
    return NULL;
}

static const struct vb_conf_listener *find_conf_listener(const struct vb_conf *conf, const char *text)
{
    for (unsigned i = 0; i < conf->n_listeners; i++)
        if (strcmp(conf->listeners[i].text, text) == 0)
            return &conf->listeners[i];
    return NULL;
}

bool vb_listeners_named(const struct vb_conf *conf, const char *text)
{
    return find_conf_listener(conf, text) != NULL;
}

/* ---- making them ------------------------------------------------------------------------------------------------- */

/* A socket of ours that would exclude a new one of this listener, so that it must stand beside it. -1: there is none.
 */
static int find_neighbour(const struct vb_listeners *listeners, const struct vb_conf_listener *listener)
{
    for (unsigned i = 0; i < listeners->n; i++)
        if (vb_addr_collide(&listeners->addresses[i]->where, &listener->address))
            return listeners->addresses[i]->fds[0];
    return -1;
}

static struct vb_address *append(struct vb_listeners *listeners, const struct vb_conf_listener *listener)
{
    struct vb_address **all = realloc(listeners->addresses, (listeners->n + 1) * sizeof(struct vb_address *));
    if (all == NULL)
        return NULL;
    listeners->addresses = all;
    struct vb_address *address = calloc(1, sizeof(*address));
    if (address == NULL)
        return NULL;
    memcpy(address->text, listener->text, sizeof(address->text));
    address->where = listener->address;
    address->length = listener->address_len;
    all[listeners->n++] = address;
    return address;
}

/* So that there are `n`. */
static int add_sockets(struct vb_address *address, unsigned n, int neighbour, struct vb_orphans *orphans,
                       struct vb_error *err)
{
    int *fds = realloc(address->fds, n * sizeof(*fds));
    if (fds == NULL)
        return vb_fail(err, -ENOMEM, "out of memory");
    address->fds = fds;
    int r;
    do
        r = vb_listen_open(fds + address->n, n - address->n, address->n > 0 ? fds[0] : neighbour,
                           (const struct sockaddr *)&address->where, address->length, address->text, err);
    while (r == -EADDRINUSE && vb_orphans_wait(orphans));
    if (r == 0)
        address->n = n;
    return r;
}

int vb_listeners_prepare(struct vb_listeners *listeners, const struct vb_conf *conf, unsigned workers,
                         struct vb_error *err)
{
    int r = 0;
    for (unsigned i = 0; r == 0 && i < conf->n_listeners; i++) {
        const struct vb_conf_listener *listener = &conf->listeners[i];
        int neighbour = find_neighbour(listeners, listener);
        struct vb_address *address = find(listeners, listener->text);
        if (address == NULL)
            address = append(listeners, listener);
        if (address == NULL)
            r = vb_fail(err, -ENOMEM, "out of memory");
        else if (address->n < workers)
            r = add_sockets(address, workers, neighbour, listeners->orphans, err);
    }
    if (r < 0)
        vb_listeners_undo(listeners);
    return r;
}

/* ---- handed over ------------------------------------------------------------------------------------------------- */

static json_t *pack_address(const struct vb_address *address, json_t **fds)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < address->n_sure; i++)
        vb_json_add(&list, vb_json_fd(fds, address->fds[i]));
    return json_pack("{s:s, s:o}", "address", address->text, "sockets", list);
}

json_t *vb_listeners_pack(const struct vb_listeners *listeners, json_t **fds)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < listeners->n; i++)
        vb_json_add(&list, pack_address(listeners->addresses[i], fds));
    return list;
}

static int adopt_address(struct vb_listeners *listeners, const json_t *packed, const struct vb_conf *conf,
                         struct vb_error *err)
{
    const char *text;
    json_t *list;
    json_error_t error;
    if (json_unpack_ex((json_t *)packed, &error, 0, "{s:s, s:o}", "address", &text, "sockets", &list) != 0)
        return vb_json_wrong(&error, err);
    const struct vb_conf_listener *listener = find_conf_listener(conf, text);
    size_t n = json_array_size(list);
    if (listener == NULL || n == 0)
        return vb_fail(err, -EPROTO, "%zu sockets were handed over for %s, which is not in the configuration", n, text);
    struct vb_address *address = append(listeners, listener);
    if (address == NULL || (address->fds = calloc(n, sizeof(*address->fds))) == NULL)
        return vb_fail(err, -ENOMEM, "out of memory");
    address->n = address->n_sure = (unsigned)n;
    for (size_t i = 0; i < n; i++)
        address->fds[i] = (int)json_integer_value(json_array_get(list, i));
    return 0;
}

int vb_listeners_adopt(struct vb_listeners *listeners, const json_t *packed, const struct vb_conf *conf,
                       struct vb_error *err)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < json_array_size(packed); i++)
        r = adopt_address(listeners, json_array_get(packed, i), conf, err);
    return r;
}

/* ---- closing them ------------------------------------------------------------------------------------------------ */

/* All but the first `keep`. Without one left, a unix socket stops in all processes, and its file goes. */
static void close_sockets(struct vb_address *address, unsigned keep)
{
    if (keep == 0 && address->n > 0)
        vb_listen_unlink(address->fds[0], (const struct sockaddr *)&address->where);
    while (address->n > keep)
        close(address->fds[--address->n]);
}

static void forget_empty(struct vb_listeners *listeners)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < listeners->n; i++) {
        struct vb_address *address = listeners->addresses[i];
        if (address->n > 0) {
            listeners->addresses[kept++] = address;
            continue;
        }
        free(address->fds);
        free(address);
    }
    listeners->n = kept;
}

void vb_listeners_undo(struct vb_listeners *listeners)
{
    for (unsigned i = 0; i < listeners->n; i++)
        close_sockets(listeners->addresses[i], listeners->addresses[i]->n_sure);
    forget_empty(listeners);
}

void vb_listeners_commit(struct vb_listeners *listeners, const struct vb_conf *conf)
{
    for (unsigned i = 0; i < listeners->n; i++) {
        struct vb_address *address = listeners->addresses[i];
        if (!vb_listeners_named(conf, address->text))
            close_sockets(address, 0);
        for (; address->n_sure < address->n; address->n_sure++) {
            int r = vb_listen_start(address->fds[address->n_sure]);
            if (r < 0)
                vb_log_error("cannot listen on %s: %s", address->text, vb_strerror(r));
        }
    }
    forget_empty(listeners);
}

void vb_listeners_close(struct vb_listeners *listeners)
{
    for (unsigned i = 0; i < listeners->n; i++)
        close_sockets(listeners->addresses[i], 0);
    forget_empty(listeners);
    free(listeners->addresses);
    listeners->addresses = NULL;
}

/* ---- who serves which -------------------------------------------------------------------------------------------- */

int vb_listeners_of_worker(const struct vb_listeners *listeners, const struct vb_conf *conf, unsigned index,
                           unsigned workers, bool prepared, struct vb_worker_socket **ret_sockets)
{
    unsigned room = 0, n = 0;
    for (unsigned i = 0; i < listeners->n; i++)
        room += (listeners->addresses[i]->n + workers - 1) / workers;
    struct vb_worker_socket *sockets = calloc(VB_MAX(room, 1u), sizeof(*sockets));
    if (sockets == NULL)
        return -ENOMEM;
    for (unsigned l = 0; l < conf->n_listeners; l++) {
        const struct vb_address *address = find(listeners, conf->listeners[l].text);
        unsigned most = address == NULL ? 0 : prepared ? address->n : address->n_sure;
        for (unsigned s = index; s < most; s += workers)
            sockets[n++] = (struct vb_worker_socket){address->fds[s], l};
    }
    *ret_sockets = sockets;
    return (int)n;
}
