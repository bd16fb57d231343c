/*
 * Who a new client is, and whether it may come in. A proxy in front of us may say the client's address in a PROXY
 * header; without one the connection's own peer counts. Limits of connections are counted over all workers, by that
 * address; those of trusted proxies have no limit by address, because they carry many clients.
 */
#include <errno.h>

#include "client_priv.h"
#include "vb/log.h"
#include "vb/proxyproto.h"

/* Takes a place under `counted_ip`. False: it is one too many, and its state says so. */
static bool take_place(struct vb_client *c)
{
    struct vb_proxy *proxy = c->proxy;
    const struct vb_shm_connection_limits limits = {proxy->conf->limits.connections,
                                                    proxy->conf->limits.connections_per_ip};
    enum vb_admission admission = vb_shm_admit(proxy->shm, proxy->slot, &c->counted_ip, &limits);
    c->admitted = admission == VB_ADMITTED;
    if (c->admitted)
        return true;
    c->state = VB_CLIENT_EXCESS;
    c->excess_status = admission == VB_REFUSED_IP ? 429 : 503;
    vb_count(proxy->stats, connections_refused);
    return false;
}

/* Its address is known now. */
static void admit(struct vb_client *c, const struct sockaddr *peer)
{
    struct vb_proxy *proxy = c->proxy;
    c->ip_n = (uint8_t)strlen(vb_addr_format_ip(c->ip, sizeof(c->ip), peer));
    c->is_trusted = vb_conf_sources_have(&proxy->conf->trusted_proxies, peer);
    c->has_ip = peer->sa_family != AF_UNIX;
    c->counted_ip = c->is_trusted ? (struct vb_ip){.bytes = {0}} : vb_ip_of(peer);
    if (take_place(c))
        c->state = VB_CLIENT_QUIET;
}

void vb_client_arrive(struct vb_client *c, const struct vb_conf_listener *listener, const struct sockaddr *peer)
{
    if (!vb_conf_sources_have(&listener->proxy_protocol, peer)) {
        admit(c, peer);
        return;
    }
    c->state = VB_CLIENT_PREFACE;
    c->has_ip = peer->sa_family != AF_UNIX;
    c->ip_n = (uint8_t)strlen(vb_addr_format_ip(c->ip, sizeof(c->ip), peer));
    c->peer_ip = vb_ip_of(peer); /* for a header that names nobody */
    take_place(c);
}

/* The connection's own peer, where the header names nobody. */
static void admit_peer(struct vb_client *c)
{
    struct sockaddr_storage peer = {.ss_family = AF_UNIX};
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&peer;
    if (c->has_ip) {
        v6->sin6_family = AF_INET6;
        memcpy(&v6->sin6_addr, c->peer_ip.bytes, sizeof(c->peer_ip.bytes));
    }
    admit(c, (struct sockaddr *)&peer);
}

size_t vb_client_take_preface(struct vb_client *c, const char *bytes, size_t n)
{
    struct sockaddr_storage source;
    const char *why;
    ssize_t used = vb_proxyproto_parse(bytes, n, &source, &why);
    if (used < 0) { /* its sender is no client that could read an answer */
        vb_log_warn("%s: no valid PROXY header: %s", c->ip, why);
        vb_count(c->proxy->stats, refused);
        vb_client_end(c, VB_CLIENT_CLOSE);
        return 0;
    }
    if (used > 0)
        vb_client_depart(c); /* it had its place without an address; it takes another with one */
    if (used > 0 && source.ss_family == AF_UNSPEC)
        admit_peer(c);
    else if (used > 0)
        admit(c, (struct sockaddr *)&source);
    return (size_t)used;
}

void vb_client_depart(struct vb_client *c)
{
    if (c->admitted)
        vb_shm_leave(c->proxy->shm, c->proxy->slot, &c->counted_ip);
    c->admitted = false;
}
