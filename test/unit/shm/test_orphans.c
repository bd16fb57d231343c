/* Who is left of an instance whose master was killed, as the next master sees it. */
#include "fixture.h"

#include <errno.h>

enum { SLOT = 2 };

/* A master in a process of its own, with one worker. Each byte written to `orders` is an order to that worker. */
struct instance {
    pid_t master, worker;
    int orders, answers;
};

static void obey(struct vb_shm *shm, int orders, int answers)
{
    char order;
    while (read(orders, &order, 1) == 1) {
        vb_shm_worker_listens(shm, SLOT, order == 'l');
        if (write(answers, &order, 1) != 1)
            _exit(1);
    }
    _exit(0);
}

/* As a worker is, that was executed: without the master's own descriptors. */
static void be_worker(struct vb_shm *inherited, int orders, int answers)
{
    struct vb_error err;
    struct vb_shm *shm;
    int fd = dup(vb_shm_fd_for_workers(inherited));
    pid_t pid = getpid();
    vb_shm_close(&inherited);
    if (vb_shm_attach_fd(&shm, fd, &err) < 0 || write(answers, &pid, sizeof(pid)) != (ssize_t)sizeof(pid))
        _exit(1);
    obey(shm, orders, answers);
}

static void be_master(const char *path, int orders, int answers)
{
    struct vb_error err;
    struct vb_shm *shm;
    if (vb_shm_create(&shm, path, NAME, small, &err) < 0)
        _exit(1);
    vb_shm_publish(shm);
    if (fork() == 0)
        be_worker(shm, orders, answers);
    for (;;)
        pause();
}

static struct instance start(const char *path)
{
    int orders[2], answers[2];
    struct instance instance;
    assert_int_equal(pipe(orders), 0);
    assert_int_equal(pipe(answers), 0);
    instance.master = fork_child();
    if (instance.master == 0) {
        close(orders[1]);
        be_master(path, orders[0], answers[1]);
    }
    close(orders[0]);
    close(answers[1]);
    instance.orders = orders[1];
    instance.answers = answers[0];
    assert_int_equal(read(answers[0], &instance.worker, sizeof(pid_t)), sizeof(pid_t));
    return instance;
}

static void kill_master(const struct instance *instance)
{
    kill(instance->master, SIGKILL);
    assert_int_equal(status_of(instance->master), -1);
}

static void order(const struct instance *instance, char order)
{
    char answer;
    assert_int_equal(write(instance->orders, &order, 1), 1);
    assert_int_equal(read(instance->answers, &answer, 1), 1);
}

/* Its end is that of its answers, whoever reaps it. */
static void end_worker(const struct instance *instance)
{
    char nothing;
    kill(instance->worker, SIGKILL);
    assert_int_equal(read(instance->answers, &nothing, 1), 0);
    close(instance->orders);
    close(instance->answers);
}

static void after_a_clean_stop_there_is_nobody(void **state)
{
    struct fixture *f = *state;
    bool listens;
    for (int i = 0; i < 2; i++) {
        struct vb_shm *shm = create(f->path, small);
        assert_int_equal(vb_shm_last_master(shm), 0);
        assert_false(vb_shm_has_orphans(shm));
        assert_int_equal(vb_shm_orphan(shm, SLOT, &listens), 0);
        vb_shm_unlink(shm);
        vb_shm_close(&shm);
    }
}

static void a_worker_is_known_until_it_ends(void **state)
{
    struct fixture *f = *state;
    struct instance last = start(f->path);
    bool listens = false;
    order(&last, 'l');
    kill_master(&last);
    struct vb_shm *shm = create(f->path, small);
    assert_int_equal(vb_shm_last_master(shm), last.master);
    for (unsigned slot = 0; slot < VB_SHM_WORKERS_MAX; slot++)
        assert_int_equal(vb_shm_orphan(shm, slot, &listens), slot == SLOT ? last.worker : 0);
    assert_true(vb_shm_has_orphans(shm));
    assert_true(listens);
    order(&last, 'n');
    assert_int_equal(vb_shm_orphan(shm, SLOT, &listens), last.worker);
    assert_true(vb_shm_has_orphans(shm));
    assert_false(listens);
    end_worker(&last);
    assert_int_equal(vb_shm_orphan(shm, SLOT, &listens), 0);
    assert_false(vb_shm_has_orphans(shm));
    vb_shm_close(&shm);
}

static void one_that_has_only_just_been_made_counts(void **state)
{
    struct fixture *f = *state;
    struct instance last = start(f->path);
    bool listens;
    kill_master(&last);
    struct vb_shm *shm = create(f->path, small);
    assert_true(vb_shm_has_orphans(shm));
    assert_int_equal(vb_shm_orphan(shm, SLOT, &listens), 0);
    end_worker(&last);
    assert_false(vb_shm_has_orphans(shm));
    vb_shm_close(&shm);
}

static void it_is_in_nobodys_way(void **state)
{
    struct fixture *f = *state;
    struct instance last = start(f->path);
    bool listens;
    order(&last, 'l');
    struct vb_shm *tool = attach(f->path);
    kill_master(&last);
    assert_false(vb_shm_alive(tool)); /* a worker is no master */
    struct vb_shm *shm = create(f->path, small);
    assert_false(vb_shm_alive(tool));
    vb_shm_forget_last(shm);
    assert_int_equal(vb_shm_last_master(shm), 0);
    assert_false(vb_shm_has_orphans(shm));
    assert_int_equal(vb_shm_orphan(shm, SLOT, &listens), 0);
    end_worker(&last);
    vb_shm_close(&tool);
    vb_shm_close(&shm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(after_a_clean_stop_there_is_nobody, setup, teardown),
        cmocka_unit_test_setup_teardown(a_worker_is_known_until_it_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(one_that_has_only_just_been_made_counts, setup, teardown),
        cmocka_unit_test_setup_teardown(it_is_in_nobodys_way, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
