#include "notify.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "vb/clock.h"

void vb_notify_open(struct vb_notify *notify)
{
    *notify = (struct vb_notify){.address.sun_family = AF_UNIX};
    const char *name = getenv("NOTIFY_SOCKET");
    size_t n = name != NULL ? strlen(name) : 0;
    /* A path, or `@` in the place of the NUL that an abstract name begins with; what else there is, is not for us. */
    if (n > 1 && n < sizeof(notify->address.sun_path) && (name[0] == '/' || name[0] == '@')) {
        memcpy(notify->address.sun_path, name, n);
        notify->length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
        if (name[0] == '@')
            notify->address.sun_path[0] = '\0';
    }
    unsetenv("NOTIFY_SOCKET");
}

bool vb_notify_variable(const struct vb_notify *notify, char *to, size_t size)
{
    size_t n = notify->length - offsetof(struct sockaddr_un, sun_path);
    const char *path = notify->address.sun_path;
    if (notify->length == 0)
        return false;
    int printed = snprintf(to, size, "NOTIFY_SOCKET=%c%.*s", path[0] == '\0' ? '@' : path[0], (int)n - 1, path + 1);
    return printed >= 0 && (size_t)printed < size;
}

void vb_notify(const struct vb_notify *notify, const char *lines)
{
    if (notify->length == 0)
        return;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    /* A manager that is busy is waited for, since it waits for READY=1; but workers need the master too. */
    const struct timeval patience = {.tv_sec = 1};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    (void)sendto(fd, lines, strlen(lines), MSG_NOSIGNAL, (const struct sockaddr *)&notify->address, notify->length);
    close(fd);
}

void vb_notify_reloading(const struct vb_notify *notify)
{
    char lines[96];
    snprintf(lines, sizeof(lines), "RELOADING=1\nMONOTONIC_USEC=%" PRIu64 "\nSTATUS=Reloading", vb_clock_us());
    vb_notify(notify, lines);
}
