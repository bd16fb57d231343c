/* Who is meant: networks, and `unix` for who comes through a unix socket and so has no address. */
#include "load_priv.h"

#include <errno.h>

#define NETWORKS_MAX 1000 /* each connection may be compared with all of them */

bool vb_conf_sources_have_ip(const struct vb_conf_sources *sources, const struct vb_ip *ip)
{
    for (unsigned i = 0; i < sources->n; i++)
        if (vb_cidr_has(&sources->networks[i], ip))
            return true;
    return false;
}

bool vb_conf_sources_have(const struct vb_conf_sources *sources, const struct sockaddr *peer)
{
    struct vb_ip ip = vb_ip_of(peer);
    return peer->sa_family == AF_UNIX ? sources->unix_peers : vb_conf_sources_have_ip(sources, &ip);
}

/* `sources` has room for one more. */
static void add_source(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node,
                       struct vb_conf_sources *sources)
{
    static const char expected[] = "a network such as 10.0.0.0/8, an IP address, or `unix`";
    if (node->broken || !vb_load_is(load, option->key, node, VB_YAML_SCALAR, expected))
        return;
    struct vb_str text = vb_str(node->text);
    if (vb_str_eq(text, VB_STR("unix"))) {
        sources->unix_peers = true;
        return;
    }
    struct vb_cidr cidr;
    int r = vb_cidr_parse(text, &cidr);
    if (r == -ERANGE && vb_cidr_around(text, &cidr) == 0) {
        char meant[VB_ADDR_TEXT_MAX];
        vb_diag_error(load->diag, node->place, "`%s`: %s has bits behind its prefix; did you mean `%s`?", option->key,
                      vb_quote(node->text).text, vb_cidr_format(meant, sizeof(meant), &cidr));
    } else if (r < 0) {
        vb_load_mismatch(load, option->key, node, expected);
    } else {
        sources->networks[sources->n++] = cidr;
    }
}

/* One source, or a list of them. */
static void read_sources(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node,
                         struct vb_conf_sources *sources)
{
    if (node->n_children > NETWORKS_MAX) {
        vb_diag_error(load->diag, node->place, "`%s`: at most %d networks", option->key, NETWORKS_MAX);
        return;
    }
    sources->networks = calloc(VB_MAX(node->n_children, 1), sizeof(*sources->networks));
    if (sources->networks == NULL) {
        load->oom = true;
        return;
    }
    if (node->kind != VB_YAML_LIST) {
        add_source(load, option, node, sources);
        return;
    }
    const struct vb_yaml *child;
    STAILQ_FOREACH (child, &node->children, next)
        add_source(load, option, child, sources);
}

void vb_read_trusted_proxies(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node,
                             void *object)
{
    struct vb_conf *conf = object;
    if (node->kind != VB_YAML_SCALAR || !vb_is_off(node->text))
        read_sources(load, option, node, &conf->trusted_proxies);
}

static void add_everyone(struct vb_load *load, struct vb_conf_sources *sources)
{
    static const char *const networks[] = {"0.0.0.0/0", "::/0"};
    sources->networks = calloc(VB_ARRAY_SIZE(networks), sizeof(*sources->networks));
    if (sources->networks == NULL) {
        load->oom = true;
        return;
    }
    for (unsigned i = 0; i < VB_ARRAY_SIZE(networks); i++)
        if (vb_cidr_parse(vb_str(networks[i]), &sources->networks[i]) == 0)
            sources->n++;
    sources->unix_peers = true;
}

void vb_read_proxy_protocol(struct vb_load *load, const struct vb_option *option, const struct vb_yaml *node,
                            void *object)
{
    struct vb_conf_sources *sources = &((struct vb_conf_listener *)object)->proxy_protocol;
    static const char expected[] = "true, false, or networks such as [10.0.0.0/8, unix]";
    struct vb_cidr cidr;
    bool is_scalar = node->kind == VB_YAML_SCALAR;
    if (is_scalar && vb_is_on(node->text))
        add_everyone(load, sources);
    else if (is_scalar && vb_is_off(node->text))
        return;
    else if (node->kind == VB_YAML_MAPPING || (node->kind == VB_YAML_LIST && node->n_children == 0) ||
             (is_scalar && strcmp(node->text, "unix") != 0 && vb_cidr_around(vb_str(node->text), &cidr) < 0))
        vb_load_mismatch(load, option->key, node, expected);
    else
        read_sources(load, option, node, sources);
}
