/* vibebalancer: the command line. What it starts lives in lib/proc. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "vb/conf.h"
#include "vb/proc.h"
#include "vb/str.h"

static const char usage_text[] =
    "usage: vibebalancer [-c FILE] [--workers N|auto] [--check] [--name NAME] [--segment PATH]\n"
    "                    [--log-level error|warn|info|debug] [--version] [--help]\n"
    "\n"
    "  -c, --config FILE   configuration; otherwise ./vibebalancer.yaml, then\n"
    "                      /etc/vibebalancer/vibebalancer.yaml\n"
    "  --workers N|auto    worker processes, 1 to 64; auto: one for each CPU that may be used\n"
    "  --check             say whether the configuration is valid, and start nothing\n"
    "  --name NAME         of this instance, for vbctl and when several run on one machine\n"
    "  --segment PATH      file of the shared segment; otherwise /dev/shm/vibebalancer-NAME\n"
    "  --log-level L       how much is logged to standard error (info)\n"
    "\n"
    "Signals: SIGTERM, SIGINT and SIGQUIT finish requests and stop; a second one stops now.\n"
    "SIGHUP reads the configuration anew, as `vbctl reload` does. SIGUSR2 lets the executable that\n"
    "is there now take over, as `vbctl upgrade` does.\n"
    "Exit status: 0 done, 1 failed while running, 2 the configuration or the command line is wrong.\n"
    "Watch it with vbctl.\n";

static int complain(const char *option, const char *value, const char *expected)
{
    fprintf(stderr, "vibebalancer: --%s %s: expected %s\n", option, value, expected);
    return -EINVAL;
}

static int parse_workers(const char *text, int *ret_workers)
{
    uint64_t n;
    if (strcmp(text, "auto") == 0) {
        *ret_workers = 0;
        return 0;
    }
    if (vb_parse_u64(vb_str(text), VB_WORKERS_MAX, &n) < 0 || n == 0)
        return complain("workers", text, "auto or a number from 1 to 64");
    *ret_workers = (int)n;
    return 0;
}

static int check_name(const char *name)
{
    size_t n = strlen(name);
    if (n == 0 || n > VB_NAME_MAX ||
        strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-") != n)
        return complain("name", name, "1 to 63 letters, digits, or any of _ . -");
    return 0;
}

struct command_line {
    struct vb_options options;
    bool check, done; /* done: --help or --version has said it all */
};

static int take_option(struct command_line *line, int option, const char *value)
{
    switch (option) {
    case 'c':
        line->options.config_file = value;
        return 0;
    case 'w':
        return parse_workers(value, &line->options.workers);
    case 'k':
        line->check = true;
        return 0;
    case 'n':
        line->options.name = value;
        return check_name(value);
    case 's':
        line->options.segment = value;
        return 0;
    case 'l':
        if (vb_log_level_parse(value, &line->options.log_level) < 0)
            return complain("log-level", value, "error, warn, info or debug");
        return 0;
    case 'v':
        printf("vibebalancer %s\n", VB_VERSION);
        line->done = true;
        return 0;
    case 'h':
        fputs(usage_text, stdout);
        line->done = true;
        return 0;
    default: /* getopt has said what is wrong */
        fputs("try vibebalancer --help\n", stderr);
        return -EINVAL;
    }
}

/*
 * Whoever starts us with 0, 1 or 2 closed would see the segment or a listening socket get that number, and then what is
 * meant for standard error be written there, and workers keep it open.
 */
static int open_standard_files(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd < 0)
        return -errno;
    close(fd);
    return 0;
}

int main(int argc, char **argv)
{
    static const struct option long_options[] = {
        {"config", required_argument, NULL, 'c'},
        {"workers", required_argument, NULL, 'w'},
        {"check", no_argument, NULL, 'k'},
        {"name", required_argument, NULL, 'n'},
        {"segment", required_argument, NULL, 's'},
        {"log-level", required_argument, NULL, 'l'},
        {"version", no_argument, NULL, 'v'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    struct command_line line = {.options = {.argv = argv, .workers = -1, .log_level = VB_LOG_INFO}};
    int option;
    if (open_standard_files() < 0)
        return VB_EXIT_FAILED;
    if (argc > 1 && strcmp(argv[1], VB_WORKER_WORD) == 0)
        return vb_worker_run(argc, argv);
    while ((option = getopt_long(argc, argv, "c:", long_options, NULL)) != -1) {
        if (take_option(&line, option, optarg) < 0)
            return VB_EXIT_USAGE;
        if (line.done)
            return VB_EXIT_DONE;
    }
    if (optind < argc) {
        fprintf(stderr, "vibebalancer: unexpected argument %s; try vibebalancer --help\n", argv[optind]);
        return VB_EXIT_USAGE;
    }
    return line.check ? vb_check_run(&line.options) : vb_master_run(&line.options);
}
