/* The configuration as the master takes it from its file, with all that workers will not be able to find out. */
#ifndef VB_PROC_CONFIG_H
#define VB_PROC_CONFIG_H

#include <stdio.h>

#include "vb/conf.h"
#include "vb/proc.h"

struct vb_config {
    struct vb_conf *conf;
    char *text;
    size_t length;
    char *identity;       /* that workers take; NULL: they are whoever the master is */
    bool user_is_another; /* than the master, who cannot become it */
};

/* The file that counts for these options; NULL: there is none, with a sentence. */
const char *vb_config_find(const struct vb_options *options, struct vb_error *err);

/*
 * Reads and checks it. What is wrong goes to `said`, a line each, and so do warnings. Negative errno; the caller frees
 * it in any case.
 */
int vb_config_load(struct vb_config *config, const char *file, FILE *said);
void vb_config_free(struct vb_config *config);

/* Logs what the configuration asks for and cannot have here. */
void vb_config_warn(const struct vb_config *config);

/*
 * The text in a descriptor that nobody can change any more: a worker never sees another version than its master.
 * Returns it, the caller's, or a negative errno with a sentence.
 */
int vb_config_seal(const struct vb_config *config, struct vb_error *err);

/* Parses what was sealed there; its warnings have been printed when it was read from `file`. Negative errno. */
int vb_config_unseal(int fd, const char *file, struct vb_conf **ret_conf);

#endif
