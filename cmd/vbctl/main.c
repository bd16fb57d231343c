/*
 * vbctl: reads the segment of a vibebalancer that runs, or ran, and shows it. It takes no lock and writes nothing
 * there: what is to be changed it asks the master for.
 */
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "find.h"

enum exit_status { DONE = 0, FAILED = 1, MISUSED = 2 };

struct options {
    const char *name, *segment, *svg;
    char **args; /* the command's word and what stands behind it; n_args 0: none */
    unsigned n_args;
    const struct vbctl_command *command;
    bool json, wait, now, help, version;
};

static enum exit_status misused(const char *fmt, ...) VB_PRINTF(1, 2);

static enum exit_status misused(const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    fprintf(stderr, "vbctl: %s; see `vbctl help`\n", text);
    return MISUSED;
}

/* Options may stand before and behind the command. */
static enum exit_status read_options(int argc, char **argv, struct options *ret_options)
{
    static const struct option known[] = {{"name", required_argument, NULL, 'n'},
                                          {"segment", required_argument, NULL, 's'},
                                          {"json", no_argument, NULL, 'j'},
                                          {"wait", no_argument, NULL, 'w'},
                                          {"now", no_argument, NULL, 'N'},
                                          {"svg", required_argument, NULL, 'S'},
                                          {"help", no_argument, NULL, 'h'},
                                          {"version", no_argument, NULL, 'V'},
                                          {0}};
    struct options *o = ret_options;
    char letter[] = "-?";
    opterr = 0;
    for (int c; (c = getopt_long(argc, argv, ":h", known, NULL)) != -1;) {
        switch (c) {
        case 'n':
            o->name = optarg;
            break;
        case 's':
            o->segment = optarg;
            break;
        case 'j':
            o->json = true;
            break;
        case 'w':
            o->wait = true;
            break;
        case 'N':
            o->now = true;
            break;
        case 'S':
            o->svg = optarg;
            break;
        case 'h':
            o->help = true;
            break;
        case 'V':
            o->version = true;
            break;
        case ':':
            return misused("%s needs a value", argv[optind - 1]);
        default: /* of several letters behind one dash, getopt names only the wrong one */
            letter[1] = (char)optopt;
            return misused("there is no option %s",
                           strncmp(argv[optind - 1], "--", 2) == 0 ? argv[optind - 1] : letter);
        }
    }
    if (o->name != NULL && o->segment != NULL)
        return misused("--name and --segment exclude each other");
    o->args = argv + optind;
    o->n_args = (unsigned)(argc - optind);
    return DONE;
}

static enum exit_status check_arguments(const struct options *o)
{
    const struct vbctl_command *command = o->command;
    unsigned n = o->n_args - 1;
    if (n < command->least)
        return misused("%s needs %s", command->word, command->arguments);
    if (n > command->most && command->most == 0)
        return misused("%s takes no argument, and here is '%s'", command->word, o->args[1]);
    if (n > command->most)
        return misused("'%s' is one word too many for %s %s", o->args[command->most + 1], command->word,
                       command->arguments);
    if (o->wait && !command->waits)
        return misused("%s has nothing to wait for", command->word);
    if (o->now && !command->stops)
        return misused("--now is for stop, not for %s", command->word);
    if (o->svg != NULL && !command->plays)
        return misused("--svg is for simulate, not for %s", command->word);
    if (command->plays && (o->name != NULL || o->segment != NULL))
        return misused("%s asks no instance, so there is nothing to say with --name or --segment", command->word);
    return DONE;
}

static enum exit_status find_command(struct options *o)
{
    const char *word = o->args[0];
    o->command = command_find(word);
    if (o->command != NULL)
        return check_arguments(o);
    const char *nearest = command_nearest(word);
    if (nearest == NULL)
        return misused("there is no command '%s'", word);
    fprintf(stderr, "vbctl: there is no command '%s'; did you mean '%s'?\n", word, nearest);
    return MISUSED;
}

/* Output that did not arrive is a failure, also when the disk was full only at the end. */
static int finish_output(struct vb_error *err)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return 0;
    return vb_fail(err, -EIO, "the output could not be written");
}

/* What is left to say after a command. */
static enum exit_status finish(int r, struct vb_error *err)
{
    if (r == 0)
        r = finish_output(err);
    if (r < 0)
        fprintf(stderr, "vbctl: %s\n", err->text[0] != '\0' ? err->text : vb_strerror(r));
    return r < 0 ? FAILED : (enum exit_status)r;
}

static struct vbctl to_command(const struct options *o)
{
    return (struct vbctl){.json = o->json,
                          .wait = o->wait,
                          .now = o->now,
                          .svg = o->svg,
                          .n_args = o->n_args,
                          .args = (const char *const *)o->args};
}

static enum exit_status run_without_instance(const struct options *o)
{
    struct vb_error err = {{0}};
    struct vbctl ctl = to_command(o);
    return finish(o->command->run(&ctl, &err), &err);
}

static enum exit_status run(const struct options *o)
{
    char path[4096];
    struct vb_error err = {{0}};
    struct vb_shm *shm = NULL;
    int r = find_segment(o->name, o->segment, path, sizeof(path), &err);
    if (r == 0)
        r = vb_shm_attach(&shm, path, &err);
    if (r < 0) {
        fprintf(stderr, "vbctl: %s\n", err.text);
        return FAILED;
    }
    struct vbctl ctl = to_command(o);
    ctl.shm = shm;
    ctl.path = path;
    ctl.alive = vb_shm_alive(shm);
    r = o->command->run(&ctl, &err);
    int pid = vb_shm_header(shm)->master_pid;
    vb_shm_close(&shm);
    enum exit_status status = finish(r, &err);
    if ((status == DONE || r > 0) && !ctl.alive) {
        fprintf(stderr, "vbctl: this vibebalancer (pid %d) is not running any more; these are its last figures\n", pid);
        return FAILED;
    }
    return status;
}

int main(int argc, char **argv)
{
    struct options o = {0};
    enum exit_status status = read_options(argc, argv, &o);
    if (status != DONE)
        return status;
    if (o.help || (o.n_args > 0 && strcmp(o.args[0], "help") == 0)) {
        command_help(stdout);
        return DONE;
    }
    if (o.version) {
        printf("vbctl %s\n", VB_VERSION);
        return DONE;
    }
    if (o.n_args == 0) {
        command_help(stderr);
        return MISUSED;
    }
    status = find_command(&o);
    if (status != DONE)
        return status;
    return o.command->plays ? run_without_instance(&o) : run(&o);
}
