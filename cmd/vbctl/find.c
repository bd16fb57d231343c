#include "find.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "vb/str.h"

static const char directory[] = "/dev/shm", prefix[] = "vibebalancer-";

/* Is the file that of an instance with this name, and not what a killed starter left? One of another layout is. */
static bool is_instance(int dir, const char *file, const char *name)
{
    struct vb_shm_header header;
    char own[VB_SHM_NAME_MAX];
    int fd = openat(dir, file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = pread(fd, &header, sizeof(header), 0);
    close(fd);
    if (n != (ssize_t)sizeof(header) || header.magic != VB_SHM_MAGIC)
        return false;
    vb_shm_text(own, sizeof(own), header.name, sizeof(header.name));
    return header.version != VB_SHM_VERSION || strcmp(own, name) == 0;
}

/* How many instances there are; `ret_list` gets their names, `ret_only` the name of one. */
static unsigned list_instances(char *ret_list, size_t list_size, char *ret_only, size_t only_size)
{
    unsigned n = 0;
    size_t used = 0;
    ret_list[0] = '\0';
    DIR *dir = opendir(directory);
    if (dir == NULL)
        return 0;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        if (strncmp(entry->d_name, prefix, sizeof(prefix) - 1) != 0)
            continue;
        const char *name = entry->d_name + sizeof(prefix) - 1;
        if (!is_instance(dirfd(dir), entry->d_name, name))
            continue;
        int more = snprintf(ret_list + used, list_size - used, "%s%s", n > 0 ? ", " : "", name);
        used = VB_MIN(used + (size_t)VB_MAX(more, 0), list_size - 1);
        vb_copy(ret_only, only_size, name);
        n++;
    }
    closedir(dir);
    return n;
}

static int path_of(const char *name, char *ret_path, size_t size, struct vb_error *err)
{
    if (vb_shm_default_path(ret_path, size, name) < 0)
        return vb_fail(err, -ENAMETOOLONG, "no vibebalancer can have so long a name");
    if (access(ret_path, F_OK) == 0)
        return 0;
    return vb_fail(err, -ENOENT, "no vibebalancer named '%s' is running (no %s)", name, ret_path);
}

int find_segment(const char *name, const char *segment, char *ret_path, size_t size, struct vb_error *err)
{
    char list[512], only[VB_SHM_NAME_MAX];
    if (segment != NULL) {
        if (!vb_copy(ret_path, size, segment))
            return vb_fail(err, -ENAMETOOLONG, "the path of the segment is too long");
        if (access(segment, F_OK) == 0)
            return 0;
        return vb_fail(err, -errno, "no vibebalancer is running at %s: %s", segment, vb_strerror(-errno));
    }
    if (name != NULL)
        return path_of(name, ret_path, size, err);
    int r = path_of(FIND_DEFAULT_NAME, ret_path, size, err);
    if (r != -ENOENT)
        return r;
    unsigned n = list_instances(list, sizeof(list), only, sizeof(only));
    if (n > 1)
        return vb_fail(err, -ENOTUNIQ, "there are several instances: %s; say which with --name", list);
    return n == 1 ? path_of(only, ret_path, size, err) : r;
}
