#include "arguments.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>

#include "settings.h"

#define NAME_BYTES "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"

/* The port stands at the same place in both kinds of address, and survives a change of the kind. */
static int set_port(struct arguments *arguments, const char *text)
{
    uint64_t port;
    int r = vb_parse_u64(vb_str(text), UINT16_MAX, &port);
    if (r == 0)
        arguments->listen.v4.sin_port = htons((uint16_t)port);
    return r;
}

static int set_address(struct arguments *arguments, const char *text)
{
    union address *listen = &arguments->listen;
    in_port_t port = listen->v4.sin_port;
    *listen = (union address){.v6 = {.sin6_port = port}};
    if (inet_pton(AF_INET, text, &listen->v4.sin_addr) == 1)
        listen->any.sa_family = AF_INET;
    else if (inet_pton(AF_INET6, text, &listen->v6.sin6_addr) == 1)
        listen->any.sa_family = AF_INET6;
    else
        return -EINVAL;
    return 0;
}

static int set_name(struct arguments *arguments, const char *text)
{
    if (text[0] == '\0' || text[strspn(text, NAME_BYTES)] != '\0')
        return -EINVAL;
    return vb_copy(arguments->name, sizeof(arguments->name), text) ? 0 : -ERANGE;
}

static int set_delay(struct arguments *arguments, const char *text)
{
    uint64_t ms;
    int r = vb_parse_duration(vb_str(text), &ms);
    if (r < 0 || ms > SETTINGS_DELAY_MAX_MS)
        return -EINVAL;
    arguments->server.delay_ms = ms;
    return 0;
}

static int set_blocking(struct arguments *arguments, const char *text)
{
    arguments->server.blocking = true;
    return 0;
}

static const struct {
    const char *name;
    const char *value;                                         /* its name in --help; NULL: the option has none */
    int (*set)(struct arguments *arguments, const char *text); /* NULL: arguments_parse answers it */
    const char *help;                                          /* also what is said about a wrong value */
} rows[] = {
    {"port", "P", set_port, "0 to 65535, where to listen; 0 chooses a free one"},
    {"address", "IP", set_address, "an IPv4 or IPv6 address; default 127.0.0.1"},
    {"name", "NAME", set_name, "up to 63 letters, digits and . _ -; default backend-PORT"},
    {"delay", "DUR", set_delay, "up to 1h, such as 500ms or 5s; added to requests but /health and /control"},
    {"blocking", NULL, set_blocking, "serve one request at a time: a delay stops the whole process"},
    {"help", NULL, NULL, "print this"},
    {"version", NULL, NULL, "print the version"},
};

#define ROWS VB_ARRAY_SIZE(rows)

static void print_help(void)
{
    fputs("Usage: vbdemo --port P [options]\nA backend to try the balancer on.\n\nOptions:\n", stdout);
    for (unsigned i = 0; i < ROWS; i++)
        printf("  --%-8s %-5s %s\n", rows[i].name, rows[i].value == NULL ? "" : rows[i].value, rows[i].help);
    fputs("\nPaths:\n", stdout);
    demo_print_endpoints(stdout);
}

/* 1: the option was applied. 0: it asks for something else than to serve, which has been printed. */
static int apply(struct arguments *arguments, unsigned row, const char *value, struct vb_error *err)
{
    if (rows[row].set != NULL) {
        if (rows[row].set(arguments, value) < 0)
            return vb_fail(err, -EINVAL, "--%s %s is wrong: it wants %s", rows[row].name, value, rows[row].help);
        return 1;
    }
    if (strcmp(rows[row].name, "help") == 0)
        print_help();
    else
        puts("vbdemo " VB_VERSION);
    return 0;
}

int arguments_parse(int argc, char **argv, struct arguments *ret_arguments, struct vb_error *err)
{
    struct option options[ROWS + 1] = {0};
    bool seen[ROWS] = {false};
    int option, row = 0;
    for (unsigned i = 0; i < ROWS; i++)
        options[i] = (struct option){rows[i].name, rows[i].value != NULL, NULL, 0};
    *ret_arguments = (struct arguments){.server.name = ret_arguments->name};
    set_address(ret_arguments, "127.0.0.1");
    while ((option = getopt_long(argc, argv, ":", options, &row)) != -1) {
        if (option == ':')
            return vb_fail(err, -EINVAL, "%s wants a value", argv[optind - 1]);
        if (option != 0)
            return vb_fail(err, -EINVAL, "%s is no option; see vbdemo --help", argv[optind - 1]);
        int r = apply(ret_arguments, (unsigned)row, optarg, err);
        if (r <= 0)
            return r;
        seen[row] = true;
    }
    if (optind < argc)
        return vb_fail(err, -EINVAL, "%s is one word too many; see vbdemo --help", argv[optind]);
    if (!seen[0])
        return vb_fail(err, -EINVAL, "--port is missing; see vbdemo --help");
    return 1;
}

void arguments_name(struct arguments *arguments)
{
    if (arguments->name[0] == '\0')
        snprintf(arguments->name, sizeof(arguments->name), "backend-%u", ntohs(arguments->listen.v4.sin_port));
}
