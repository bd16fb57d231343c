#include "privileges.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vb/str.h"

#define GROUPS_MAX 1024 /* of one user; its identity is an argument of a worker */

/* ---- finding ----------------------------------------------------------------------------------------------------- */

static int write_identity(uid_t uid, const gid_t *groups, int n, char **ret_identity, struct vb_error *err)
{
    size_t size;
    char *text = NULL;
    FILE *to = open_memstream(&text, &size);
    if (to == NULL)
        return vb_fail(err, -ENOMEM, "out of memory");
    fprintf(to, "%u:%u", uid, groups[0]);
    for (int i = 1; i < n; i++)
        fprintf(to, ",%u", groups[i]);
    if (fclose(to) != 0) {
        free(text);
        return vb_fail(err, -ENOMEM, "out of memory");
    }
    *ret_identity = text;
    return 0;
}

static int find_groups(const struct passwd *found, char **ret_identity, struct vb_error *err)
{
    gid_t groups[GROUPS_MAX];
    int n = GROUPS_MAX;
    if (getgrouplist(found->pw_name, found->pw_gid, groups, &n) < 0)
        return vb_fail(err, -E2BIG, "`user`: %s is in more than %d groups", found->pw_name, GROUPS_MAX);
    for (int i = 1; i < n; i++) /* its own one stands first, wherever the system lists it */
        if (groups[i] == found->pw_gid) {
            groups[i] = groups[0];
            groups[0] = found->pw_gid;
        }
    return write_identity(found->pw_uid, groups, n, ret_identity, err);
}

/* 0 with its entry, which is the C library's, or with NULL for a number that has none. */
static int look_up(const struct vb_conf_user *user, const struct passwd **ret_found, struct vb_error *err)
{
    errno = 0;
    const struct passwd *found = user->by_number ? getpwuid(user->uid) : getpwnam(user->name);
    int error = errno;
    bool is_missing = error == 0 || error == ENOENT || error == ESRCH; /* getpwnam(3) */
    if (found == NULL && !is_missing)
        return vb_fail(err, -error, "`user`: cannot look up %s: %s", user->name, vb_strerror(-error));
    if (found == NULL && !user->by_number)
        return vb_fail(err, -ENOENT,
                       "`user`: this machine has no user `%s`; add it (useradd --system %s), or write UID:GID",
                       user->name, user->name);
    *ret_found = found;
    return 0;
}

int vb_identity_find(const struct vb_conf_user *user, uid_t *ret_uid, char **ret_identity, struct vb_error *err)
{
    const struct passwd *found = NULL;
    int r = user->has_gid ? 0 : look_up(user, &found, err);
    if (r < 0)
        return r;
    /* Who has no entry has no groups to be found: the one that is given, else the one of the same number. */
    gid_t only = user->has_gid ? user->gid : user->uid;
    uid_t uid = found != NULL ? found->pw_uid : user->uid;
    r = found != NULL ? find_groups(found, ret_identity, err) : write_identity(uid, &only, 1, ret_identity, err);
    if (r == 0)
        *ret_uid = uid;
    return r;
}

/* ---- taking ------------------------------------------------------------------------------------------------------ */

/* Reads what is before the separator; *rest becomes what is behind it, or nothing (p NULL) where there is none. */
static int next_id(struct vb_str *rest, char separator, unsigned *ret_id)
{
    uint64_t id;
    if (rest->p == NULL)
        return -EINVAL;
    const char *end = memchr(rest->p, separator, rest->n);
    size_t n = end != NULL ? (size_t)(end - rest->p) : rest->n;
    if (vb_parse_u64((struct vb_str){rest->p, n}, UINT32_MAX - 1, &id) < 0)
        return -EINVAL;
    *rest = end != NULL ? (struct vb_str){end + 1, rest->n - n - 1} : (struct vb_str){NULL, 0};
    *ret_id = (unsigned)id;
    return 0;
}

/* The number of groups, or -EINVAL. */
static int parse_identity(const char *identity, uid_t *ret_uid, gid_t *groups)
{
    struct vb_str rest = vb_str(identity);
    int n = 0, r = next_id(&rest, ':', ret_uid);
    do {
        if (r == 0)
            r = n < GROUPS_MAX ? next_id(&rest, ',', &groups[n++]) : -EINVAL;
    } while (r == 0 && rest.p != NULL);
    return r < 0 ? r : n;
}

/* Real, effective and saved: with any of them left the way back would be open. */
static bool is_only(uid_t uid, gid_t gid)
{
    uid_t u[3];
    gid_t g[3];
    return getresuid(&u[0], &u[1], &u[2]) == 0 && getresgid(&g[0], &g[1], &g[2]) == 0 && u[0] == uid && u[1] == uid &&
           u[2] == uid && g[0] == gid && g[1] == gid && g[2] == gid;
}

/*
 * The kernel makes a process that did this undumpable: others of that user can neither trace it nor read its memory,
 * where clients' data are. Nothing of ours needs that, so it stays so; there is no core file either, then.
 */
int vb_identity_take(const char *identity)
{
    gid_t groups[GROUPS_MAX];
    uid_t uid;
    int n = parse_identity(identity, &uid, groups);
    if (n < 0 || uid == 0)
        return -EINVAL;
    /* Groups first: afterwards it is not root any more. */
    if (setgroups((size_t)n, groups) != 0 || setresgid(groups[0], groups[0], groups[0]) != 0 ||
        setresuid(uid, uid, uid) != 0)
        return -errno;
    if (!is_only(uid, groups[0]) || setresuid((uid_t)-1, 0, (uid_t)-1) == 0)
        return -EPERM; /* it kept a capability */
    return 0;
}

/* ---- giving up --------------------------------------------------------------------------------------------------- */

int vb_forbid_new_privileges(void)
{
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 ? 0 : -errno;
}

/*
 * All rights on files that each version of Landlock knows, which are the lowest bits (linux/landlock.h, whose copy on
 * this machine may be older than the kernel). Version 9 has one more, for connecting to a unix socket by its path, as
 * to a backend: that one stays.
 */
static uint64_t rights_on_files(long version)
{
    static const unsigned bits[] = {0, 13, 14, 15, 15, 16}; /* by version */
    unsigned known = bits[VB_MIN((size_t)version, VB_ARRAY_SIZE(bits) - 1)];
    return (UINT64_C(1) << known) - 1;
}

void vb_forbid_files(void)
{
    long version = syscall(SYS_landlock_create_ruleset, NULL, (size_t)0, 1u /* LANDLOCK_CREATE_RULESET_VERSION */);
    if (version < 1)
        return;
    /* The first member of struct landlock_ruleset_attr: what is denied but for the rules, of which there are none. */
    uint64_t denied = rights_on_files(version);
    int rules = (int)syscall(SYS_landlock_create_ruleset, &denied, sizeof(denied), 0u);
    if (rules < 0)
        return;
    syscall(SYS_landlock_restrict_self, rules, 0u);
    close(rules);
}
