/* Making, finding and losing a segment; who is master. */
#include "fixture.h"

#include <errno.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>

enum { SKIPPED = 77 };

static void round_trip(void **state)
{
    struct fixture *f = *state;
    struct vb_shm *master = create(f->path, small);
    vb_shm_header(master)->workers_wanted = 2;
    assert_int_equal(vb_shm_add_pool(master, &(struct vb_pool_spec){"web", "round_robin", 0, 50}), 0);
    vb_shm_publish(master);

    struct vb_shm *tool = attach(f->path);
    const struct vb_shm_header *header = vb_shm_header(tool);
    assert_int_equal(vb_shm_capacity(tool).workers, small.workers);
    assert_int_equal(vb_shm_capacity(tool).backends, small.backends);
    assert_string_equal(header->name, NAME);
    assert_string_equal(header->program_version, VB_VERSION);
    assert_int_equal(strlen(header->boot_id), 36);
    assert_int_equal(header->master_pid, getpid());
    assert_int_equal(header->workers_wanted, 2);
    assert_int_equal(header->total_size, vb_shm_size(small));
    assert_string_equal(vb_shm_pool(tool, 0)->name, "web");
    assert_true(vb_shm_alive(tool));
    assert_true(vb_shm_alive(master));

    vb_shm_unlink(master);
    assert_int_equal(access(f->path, F_OK), -1);
    vb_shm_close(&master);
    assert_null(master);
    assert_false(vb_shm_alive(tool));
    vb_shm_close(&tool);
    vb_shm_close(&tool);
}

static void worker_writes_what_others_see(void **state)
{
    struct fixture *f = *state;
    struct vb_error err = {{0}};
    struct vb_shm *master = create(f->path, small), *worker = NULL;
    assert_int_equal(vb_shm_attach_fd(&worker, vb_shm_fd_for_workers(master), &err), 0);
    assert_int_equal(vb_shm_claim_worker(master, 0, 1, false), 0);
    vb_add64(&vb_shm_worker(worker, 0)->requests, 5);
    assert_int_equal(vb_shm_worker(master, 0)->requests, 5);
    /* A worker that outlives its master must not look like one. */
    vb_shm_close(&master);
    assert_false(vb_shm_alive(worker));
    vb_shm_close(&worker);
}

static void not_ready_is_refused(void **state)
{
    struct fixture *f = *state;
    struct vb_error err = {{0}};
    struct vb_shm *master = create(f->path, small), *tool = NULL;
    assert_int_equal(vb_shm_attach(&tool, f->path, &err), -EPROTO);
    assert_non_null(strstr(err.text, "still being made"));
    assert_null(tool);
    vb_shm_close(&master);
}

static void missing_is_not_there(void **state)
{
    struct fixture *f = *state;
    struct vb_error err = {{0}};
    struct vb_shm *tool = NULL;
    assert_int_equal(vb_shm_attach(&tool, f->path, &err), -ENOENT);
}

static void default_path(void **state)
{
    char path[40];
    assert_int_equal(vb_shm_default_path(path, sizeof(path), "x"), 0);
    assert_string_equal(path, "/dev/shm/vibebalancer-x");
    assert_int_equal(vb_shm_default_path(path, 23, "x"), -ENAMETOOLONG);
    assert_int_equal(vb_shm_default_path(path, 24, "x"), 0);
}

/* A master in another process: it says `ready` through a pipe and waits to be killed. */
static pid_t start_master(const char *path)
{
    int ready[2];
    char byte;
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork_child();
    if (pid == 0) {
        struct vb_error err;
        struct vb_shm *shm;
        if (vb_shm_create(&shm, path, NAME, small, &err) < 0)
            _exit(1);
        vb_shm_publish(shm);
        if (write(ready[1], "r", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return pid;
}

static void second_master_is_refused_until_the_first_is_killed(void **state)
{
    struct fixture *f = *state;
    struct vb_error err = {{0}};
    struct vb_shm *shm = NULL;
    char pid_text[32];
    pid_t first = start_master(f->path);
    assert_int_equal(vb_shm_create(&shm, f->path, NAME, small, &err), -EBUSY);
    snprintf(pid_text, sizeof(pid_text), "(pid %d)", (int)first);
    assert_non_null(strstr(err.text, pid_text));
    assert_null(shm);
    struct vb_shm *tool = attach(f->path);
    assert_true(vb_shm_alive(tool));

    kill(first, SIGKILL);
    assert_int_equal(status_of(first), -1);
    assert_false(vb_shm_alive(tool));
    assert_int_equal(vb_shm_header(tool)->master_pid, first);

    shm = create(f->path, small);
    vb_shm_publish(shm);
    assert_int_equal(vb_shm_header(shm)->master_pid, getpid());
    assert_int_equal(vb_shm_header(tool)->master_pid, first); /* the old file is as it was */
    assert_false(vb_shm_alive(tool));
    vb_shm_close(&tool);
    tool = attach(f->path);
    assert_true(vb_shm_alive(tool));
    vb_shm_close(&tool);
    vb_shm_close(&shm);
}

static void unlink_spares_a_successor(void **state)
{
    struct fixture *f = *state;
    struct vb_shm *first = create(f->path, small);
    assert_int_equal(unlink(f->path), 0); /* somebody removed the file under us, and another instance began */
    struct vb_shm *second = create(f->path, small);
    vb_shm_unlink(first);
    assert_int_equal(access(f->path, F_OK), 0);
    vb_shm_unlink(second);
    assert_int_equal(access(f->path, F_OK), -1);
    vb_shm_close(&first);
    vb_shm_close(&second);
}

/* One starter: waits for the gun, tries, reports, and if it won holds on until all have tried. */
static void starter(const char *path, int gun, int done, int end)
{
    struct vb_error err;
    struct vb_shm *shm = NULL;
    char byte;
    if (read(gun, &byte, 1) != 0)
        _exit(2);
    int r = vb_shm_create(&shm, path, NAME, small, &err);
    byte = r == 0 ? 'W' : r == -EBUSY ? 'B' : 'X';
    if (r != 0 && r != -EBUSY)
        fprintf(stderr, "starter: %d, %s\n", r, err.text);
    if (write(done, &byte, 1) != 1 || read(end, &byte, 1) != 0)
        _exit(2);
    if (shm != NULL && getpid() % 2 == 0)
        vb_shm_unlink(shm); /* half of them stop cleanly, the others as if killed */
    _exit(0);
}

static int winners_of_a_race(const char *path, int starters)
{
    int gun[2], done[2], end[2], won = 0;
    pid_t pids[16];
    assert_int_equal(pipe(gun) | pipe(done) | pipe(end), 0);
    for (int i = 0; i < starters; i++) {
        pids[i] = fork_child();
        if (pids[i] == 0) {
            close(gun[1]);
            close(end[1]);
            starter(path, gun[0], done[1], end[0]);
        }
    }
    close(gun[1]);
    for (int i = 0; i < starters; i++) {
        char byte = 0;
        assert_int_equal(read(done[0], &byte, 1), 1);
        assert_int_not_equal(byte, 'X');
        won += byte == 'W';
    }
    close(end[1]);
    for (int i = 0; i < starters; i++)
        assert_int_equal(status_of(pids[i]), 0);
    close(gun[0]);
    close(done[0]);
    close(done[1]);
    close(end[0]);
    return won;
}

static void only_one_of_many_starters_wins(void **state)
{
    struct fixture *f = *state;
    for (int round = 0; round < 60; round++)
        assert_int_equal(winners_of_a_race(f->path, 8), 1);
}

static void expect_refusal(const char *path, int code, const char *sentence_part)
{
    struct vb_error err = {{0}};
    struct vb_shm *shm = NULL;
    assert_int_equal(vb_shm_create(&shm, path, NAME, small, &err), code);
    assert_null(shm);
    if (strstr(err.text, sentence_part) == NULL)
        fail_msg("'%s' does not say '%s'", err.text, sentence_part);
}

static void foreign_files_are_left_alone(void **state)
{
    struct fixture *f = *state;
    char text[16] = {0}, other[96];
    int fd = open(f->path, O_CREAT | O_WRONLY, 0600);
    assert_int_equal(write(fd, "dear diary", 10), 10);
    close(fd);
    expect_refusal(f->path, -EEXIST, "holds something else");
    fd = open(f->path, O_RDONLY);
    assert_int_equal(read(fd, text, sizeof(text)), 10);
    assert_string_equal(text, "dear diary");
    close(fd);
    unlink(f->path);

    assert_int_equal(symlink("/etc/passwd", f->path), 0);
    expect_refusal(f->path, -ELOOP, "symbolic link");
    unlink(f->path);

    assert_int_equal(mkfifo(f->path, 0600), 0);
    expect_refusal(f->path, -EINVAL, "not a regular file");
    unlink(f->path);

    expect_refusal(f->dir, -EISDIR, "cannot make the segment");
    snprintf(other, sizeof(other), "%s/none/segment", f->dir);
    expect_refusal(other, -ENOENT, "directory does not exist");

    if (geteuid() == 0) {
        close(open(f->path, O_CREAT | O_WRONLY, 0600));
        assert_int_equal(chown(f->path, 12345, 12345), 0);
        expect_refusal(f->path, -EPERM, "another user (uid 12345)");
    }
}

static void impossible_capacities_and_names(void **state)
{
    struct fixture *f = *state;
    struct vb_error err;
    struct vb_shm *shm = NULL;
    static const struct vb_shm_capacity wrong[] = {
        {0, 1}, {1, 0}, {VB_SHM_WORKERS_MAX + 1, 1}, {1, VB_SHM_BACKENDS_MAX + 1}, {UINT32_MAX, UINT32_MAX}};
    for (unsigned i = 0; i < VB_ARRAY_SIZE(wrong); i++)
        assert_int_equal(vb_shm_create(&shm, f->path, NAME, wrong[i], &err), -EINVAL);
    char name[VB_SHM_NAME_MAX + 1];
    memset(name, 'n', VB_SHM_NAME_MAX);
    name[VB_SHM_NAME_MAX] = '\0';
    assert_int_equal(vb_shm_create(&shm, f->path, name, small, &err), -EINVAL);
    assert_int_equal(access(f->path, F_OK), -1);
}

/* The last room goes while there is one worker: others come as long as they have all their rows. */
static int add_workers_without_room(const char *dir, const char *path)
{
    static const char bytes[4096];
    struct vb_error err = {{0}};
    struct vb_shm *shm = NULL;
    char other[96];
    int slot;
    unsigned n = 0;
    if (vb_shm_create(&shm, path, NAME, (struct vb_shm_capacity){200, 1}, &err) != 0)
        return 8;
    snprintf(other, sizeof(other), "%s/other", dir);
    int fd = open(other, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    if (vb_shm_claim_worker(shm, n++, 1, false) != 0)
        return 9;
    while (write(fd, bytes, sizeof(bytes)) > 0)
        ;
    while ((slot = vb_shm_claim_worker(shm, n, 1, false)) >= 0)
        n++;
    if (slot != -ENOMEM || n == 1 || vb_shm_slots(shm) != n)
        return 10;
    close(fd);
    vb_shm_close(&shm);
    return 0;
}

/* In a mount namespace of our own; the exit status tells. */
static int try_tiny_tmpfs(const char *dir, const char *path)
{
    struct vb_error err = {{0}};
    struct vb_shm *shm = NULL;
    if ((unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 || mount("tmpfs", dir, "tmpfs", 0, "size=224k") != 0)
        return SKIPPED;
    int r = vb_shm_create(&shm, path, NAME, (struct vb_shm_capacity){2, 512}, &err);
    if (r != -ENOSPC || strstr(err.text, "MiB in ") == NULL || strstr(err.text, "--segment") == NULL) {
        fprintf(stderr, "tiny tmpfs: %d, %s\n", r, err.text);
        return 1;
    }
    if (access(path, F_OK) == 0)
        return 2;
    /* Room for the segment and a worker, but not for its table, a second one with all its rows, or one more backend's
     * rows: they are refused, and not half there. */
    struct vb_backend_spec spec = {"b0", "127.0.0.1:9001", 1, true, VB_HEALTH_UNKNOWN, VB_ADMIN_READY, false, 0, false};
    char name[8];
    int slot, n = 0;
    if (vb_shm_create(&shm, path, NAME, (struct vb_shm_capacity){200, 96}, &err) != 0)
        return 3;
    if (vb_shm_claim_worker(shm, 0, 1, true) != -ENOMEM || vb_shm_slots(shm) != 0)
        return 4;
    if (vb_shm_claim_worker(shm, 0, 1, false) != 0 || vb_shm_slots(shm) != 1)
        return 5;
    for (spec.name = name; snprintf(name, sizeof(name), "b%d", n), (slot = vb_shm_add_backend(shm, 0, &spec)) >= 0; n++)
        memset(vb_shm_traffic(shm, 0, (unsigned)slot), 1, sizeof(struct vb_shm_traffic));
    if (slot != -ENOMEM || n == 0 || vb_shm_backend(shm, (unsigned)n)->used != 0)
        return 6;
    if (vb_shm_claim_worker(shm, 1, 1, false) != -ENOMEM || vb_shm_slots(shm) != 1)
        return 7;
    vb_shm_unlink(shm);
    vb_shm_close(&shm);
    return add_workers_without_room(dir, path);
}

static void no_room_says_how_much(void **state)
{
    struct fixture *f = *state;
    pid_t pid = fork_child();
    if (pid == 0)
        _exit(try_tiny_tmpfs(f->dir, f->path));
    int status = status_of(pid);
    if (status == SKIPPED) {
        print_message("skipped: a tmpfs cannot be mounted here\n");
        skip();
    }
    assert_int_equal(status, 0);
}

static void file_size_limit_is_no_room(void **state)
{
    struct fixture *f = *state;
    pid_t pid = fork_child();
    if (pid == 0) {
        struct vb_error err = {{0}};
        struct vb_shm *shm = NULL;
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &(struct rlimit){16384, 16384});
        int r = vb_shm_create(&shm, f->path, NAME, (struct vb_shm_capacity){2, 64}, &err);
        _exit(r == -EFBIG && strstr(err.text, "there is no room") != NULL ? 0 : 1);
    }
    assert_int_equal(status_of(pid), 0);
    assert_int_equal(access(f->path, F_OK), -1);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(round_trip),
        TEST(worker_writes_what_others_see),
        TEST(not_ready_is_refused),
        TEST(missing_is_not_there),
        TEST(default_path),
        TEST(second_master_is_refused_until_the_first_is_killed),
        TEST(unlink_spares_a_successor),
        TEST(only_one_of_many_starters_wins),
        TEST(foreign_files_are_left_alone),
        TEST(impossible_capacities_and_names),
        TEST(no_room_says_how_much),
        TEST(file_size_limit_is_no_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
