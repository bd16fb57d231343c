/* The configuration from outside: read the file, parse the text, free the result. */
#include "vb/conf.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "load_priv.h"

#define FILE_MAX (16u << 20)

/* ---- reading ---- */
/* Everything until the end; it may be a pipe, so its size is not asked for. */
static int read_all(int fd, char **ret_text, size_t *ret_n)
{
    size_t n = 0, size = 65536;
    char *text = malloc(size);
    int r = -ENOMEM;
    while (text != NULL) {
        ssize_t got = read(fd, text + n, size - n);
        if (got < 0 && errno == EINTR)
            continue;
        r = got < 0 ? -errno : n + (size_t)got > FILE_MAX ? -EFBIG : 0;
        if (r < 0 || got == 0)
            break;
        n += (size_t)got;
        if (n < size)
            continue;
        size *= 2;
        char *larger = realloc(text, size);
        if (larger == NULL) {
            r = -ENOMEM;
            break;
        }
        text = larger;
    }
    if (r < 0) {
        free(text);
        return r;
    }
    *ret_text = text;
    *ret_n = n;
    return 0;
}

const struct vb_conf_pool *vb_conf_find_pool(const struct vb_conf *conf, const char *name)
{
    for (unsigned i = 0; i < conf->n_pools; i++)
        if (strcmp(conf->pools[i].name, name) == 0)
            return &conf->pools[i];
    return NULL;
}

int vb_conf_read(const char *file, char **ret_text, size_t *ret_n, struct vb_error *err)
{
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return vb_fail(err, -errno, "cannot read %s: %s", file, vb_strerror(-errno));
    int r = read_all(fd, ret_text, ret_n);
    close(fd);
    if (r == -EFBIG)
        return vb_fail(err, r, "cannot read %s: it is larger than 16 MiB", file);
    if (r < 0)
        return vb_fail(err, r, "cannot read %s: %s", file, vb_strerror(r));
    return 0;
}

/* ---- parsing ---- */
static int parse(const char *text, size_t n, struct vb_diag *diag, struct vb_conf *conf)
{
    struct vb_yaml_doc *doc = NULL;
    int r = vb_yaml_parse(text, n, diag, &doc);
    if (r < 0)
        return r;
    r = vb_conf_expand(doc, diag);
    if (r == 0)
        r = vb_conf_load(doc->root, diag, conf);
    if (r == 0)
        r = vb_conf_check(conf, diag);
    vb_yaml_free(&doc);
    return r;
}

int vb_conf_parse(const char *file, const char *text, size_t n, FILE *errors, struct vb_conf **ret_conf)
{
    int r = -ENOMEM;
    struct vb_diag *diag = calloc(1, sizeof(*diag));
    struct vb_conf *conf = calloc(1, sizeof(*conf));
    if (diag == NULL || conf == NULL)
        goto out;
    r = parse(text, n, diag, conf);
    if (r == 0 && diag->errors.total > 0)
        r = -EINVAL;
    if (r != -ENOMEM)
        vb_diag_print(diag, file, errors);
    if (r == 0) {
        *ret_conf = conf;
        conf = NULL;
    }
out:
    vb_conf_free(&conf);
    free(diag);
    return r;
}

void vb_conf_free(struct vb_conf **conf)
{
    struct vb_conf *old = *conf;
    if (old == NULL)
        return;
    for (unsigned i = 0; i < old->n_pools; i++) {
        free(old->pools[i].backends);
        free(old->pools[i].health.path);
        free(old->pools[i].health.host);
        free(old->pools[i].hash.name);
        free(old->pools[i].sticky.secret);
    }
    for (unsigned i = 0; i < old->n_listeners; i++)
        free(old->listeners[i].proxy_protocol.networks);
    for (unsigned i = 0; i < old->n_routes; i++)
        vb_free_route(&old->routes[i]);
    vb_free_simulate(&old->simulate);
    free(old->pools);
    free(old->listeners);
    free(old->routes);
    free(old->trusted_proxies.networks);
    free(old->segment.path);
    free(old->admin.socket);
    free(old);
    *conf = NULL;
}
