/* The command line. */
#ifndef VBDEMO_ARGUMENTS_H
#define VBDEMO_ARGUMENTS_H

#include <netinet/in.h>

#include "handlers.h"
#include "server.h"
#include "vb/err.h"

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

struct arguments {
    union address listen;
    char name[DEMO_NAME_MAX];
    struct server_options
        server; /* without stop_fd; server.name points to `name`, so the structure must not be copied */
};

/* 1: serve. 0: --help or --version was asked for and has been answered. -EINVAL: wrong, with a sentence. */
int arguments_parse(int argc, char **argv, struct arguments *ret_arguments, struct vb_error *err);

/* Where no name was given, makes one of the port; call it when the port is known. */
void arguments_name(struct arguments *arguments);

#endif
