#include "vb/clock.h"

#include <stdio.h>
#include <time.h>

static uint64_t read_us(clockid_t id)
{
    struct timespec ts;
    clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

uint64_t vb_clock_us(void)
{
    return read_us(CLOCK_MONOTONIC);
}

uint64_t vb_clock_wall_us(void)
{
    return read_us(CLOCK_REALTIME);
}

char *vb_clock_format(char *to, size_t size, uint64_t wall_us)
{
    time_t seconds = (time_t)(wall_us / 1000000);
    struct tm tm;
    gmtime_r(&seconds, &tm);
    size_t n = strftime(to, size, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(to + n, size - n, ".%03uZ", (unsigned)(wall_us / 1000 % 1000));
    return to;
}

char *vb_clock_format_http(char *to, size_t size, uint64_t wall_us)
{
    time_t seconds = (time_t)(wall_us / 1000000);
    struct tm tm;
    gmtime_r(&seconds, &tm);
    strftime(to, size, "%a, %d %b %Y %H:%M:%S GMT", &tm); /* the program never leaves the C locale */
    return to;
}
