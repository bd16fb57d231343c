/* The log of one process. State is global on purpose: a process has one log. */
#include "vb/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "vb/clock.h"
#include "vb/str.h"

static struct {
    int fd;
    enum vb_log_level level;
    char process[32];
    atomic_uint_fast64_t dropped;
} the_log = {.fd = STDERR_FILENO, .level = VB_LOG_INFO, .process = "vibebalancer"};

static const char *const level_names[] = {"error", "warn", "info", "debug"};

void vb_log_open(int fd, const char *process, enum vb_log_level level)
{
    the_log.fd = fd;
    the_log.level = level;
    vb_copy(the_log.process, sizeof(the_log.process), process);
}

bool vb_log_enabled(enum vb_log_level level)
{
    return level <= the_log.level;
}

uint64_t vb_log_dropped(void)
{
    return atomic_load_explicit(&the_log.dropped, memory_order_relaxed);
}

/* What a peer sent may be in the text: control bytes must not reach a terminal or fake a second line. */
static void defuse(char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            text[i] = '?';
}

void vb_log(enum vb_log_level level, const char *fmt, ...)
{
    if (!vb_log_enabled(level))
        return;
    char line[VB_LOG_LINE_MAX], stamp[32];
    int head = snprintf(line, sizeof(line), "%s %-5s %s: ", vb_clock_format(stamp, sizeof(stamp), vb_clock_wall_us()),
                        level_names[level], the_log.process);
    size_t room = sizeof(line) - (size_t)head - 1;
    va_list args;
    va_start(args, fmt);
    int text = vsnprintf(line + head, room, fmt, args);
    va_end(args);
    size_t n = text < 0 ? 0 : VB_MIN((size_t)text, room - 1);
    defuse(line + head, n);
    n += (size_t)head;
    line[n++] = '\n';
    ssize_t written;
    do
        written = write(the_log.fd, line, n);
    while (written < 0 && errno == EINTR);
    if (written != (ssize_t)n)
        atomic_fetch_add_explicit(&the_log.dropped, 1, memory_order_relaxed);
}

int vb_log_level_parse(const char *word, enum vb_log_level *ret_level)
{
    for (unsigned i = 0; i < VB_ARRAY_SIZE(level_names); i++) {
        if (strcmp(word, level_names[i]) == 0) {
            *ret_level = (enum vb_log_level)i;
            return 0;
        }
    }
    return -EINVAL;
}

const char *vb_log_level_name(enum vb_log_level level)
{
    return level_names[level];
}
