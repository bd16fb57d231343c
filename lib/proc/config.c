#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "privileges.h"
#include "vb/log.h"

const char *vb_config_find(const struct vb_options *options, struct vb_error *err)
{
    static const char *const usual[] = {"./vibebalancer.yaml", "/etc/vibebalancer/vibebalancer.yaml"};
    if (options->config_file != NULL)
        return options->config_file;
    for (unsigned i = 0; i < VB_ARRAY_SIZE(usual); i++)
        if (access(usual[i], F_OK) == 0)
            return usual[i];
    vb_fail(err, -ENOENT, "there is neither %s nor %s; name a file with -c", usual[0], usual[1]);
    return NULL;
}

/* Not part of reading it, which workers do too: they need not, and later could not, look users up. */
static int find_user(struct vb_config *config, const char *file, FILE *said)
{
    const struct vb_conf_user *user = &config->conf->user;
    struct vb_error err;
    uid_t uid;
    if (user->name[0] == '\0')
        return 0;
    int r = vb_identity_find(user, &uid, &config->identity, &err);
    if (r < 0) {
        fprintf(said, "%s:%u:%u: %s\n", file, user->line, user->column, err.text);
        return r;
    }
    if (geteuid() == 0 && uid != 0)
        return 0;
    config->user_is_another = uid != geteuid();
    free(config->identity);
    config->identity = NULL;
    return 0;
}

int vb_config_load(struct vb_config *config, const char *file, FILE *said)
{
    struct vb_error err;
    *config = (struct vb_config){.conf = NULL};
    int r = vb_conf_read(file, &config->text, &config->length, &err);
    if (r < 0) {
        fprintf(said, "%s\n", err.text);
        return r;
    }
    r = vb_conf_parse(file, config->text, config->length, said, &config->conf);
    if (r == -ENOMEM)
        fprintf(said, "out of memory\n");
    return r < 0 ? r : find_user(config, file, said);
}

void vb_config_free(struct vb_config *config)
{
    free(config->text);
    free(config->identity);
    vb_conf_free(&config->conf);
    *config = (struct vb_config){.conf = NULL};
}

void vb_config_warn(const struct vb_config *config)
{
    if (config->user_is_another)
        vb_log_warn("`user: %s` has no effect: only root can become another user", config->conf->user.name);
}

int vb_config_seal(const struct vb_config *config, struct vb_error *err)
{
    int fd = memfd_create("vibebalancer-config", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return vb_fail(err, -errno, "cannot make a memory file: %s", vb_strerror(-errno));
    if (write(fd, config->text, config->length) == (ssize_t)config->length &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) == 0)
        return fd;
    int r = -errno;
    close(fd);
    return vb_fail(err, r, "cannot seal the configuration: %s", vb_strerror(r));
}

int vb_config_unseal(int fd, const char *file, struct vb_conf **ret_conf)
{
    struct stat st;
    FILE *nowhere = fopen("/dev/null", "we");
    if (nowhere == NULL)
        return -errno;
    size_t n = fstat(fd, &st) == 0 ? (size_t)st.st_size : 0;
    char *text = malloc(n + 1);
    int r = text == NULL ? -ENOMEM : -EIO;
    if (text != NULL && n > 0 && pread(fd, text, n, 0) == (ssize_t)n)
        r = vb_conf_parse(file, text, n, nowhere, ret_conf);
    free(text);
    fclose(nowhere);
    return r;
}
