/* Membership, worker slots, sums, and the health record under a writer that never rests. */
#include "fixture.h"

#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>

static struct vb_shm *master;

static int setup_master(void **state)
{
    setup(state);
    master = create(((struct fixture *)*state)->path, small);
    return 0;
}

static int teardown_master(void **state)
{
    vb_shm_close(&master);
    return teardown(state);
}

static int add_backend(unsigned pool, const char *name)
{
    return vb_shm_add_backend(
        master, pool,
        &(struct vb_backend_spec){name, "127.0.0.1:80", 3, true, VB_HEALTH_UNKNOWN, VB_ADMIN_READY, false, 0, false});
}

static void membership(void **state)
{
    assert_int_equal(vb_shm_add_pool(master, &(struct vb_pool_spec){"web", "least_conn", 0, 50}), 0);
    assert_int_equal(vb_shm_add_pool(master, &(struct vb_pool_spec){"api", "round_robin", 0, 50}), 1);
    assert_int_equal(vb_shm_add_pool(master, &(struct vb_pool_spec){"web", "round_robin", 0, 50}), -EEXIST);
    assert_string_equal(vb_shm_pool(master, 0)->balance, "least_conn");

    assert_int_equal(add_backend(0, "a"), 0);
    assert_int_equal(add_backend(0, "a"), -EEXIST);
    assert_int_equal(add_backend(1, "a"), 1); /* names are unique in a pool only */
    assert_int_equal(vb_shm_pool(master, 0)->epoch, 2);
    const struct vb_shm_backend *backend = vb_shm_backend(master, 1);
    assert_int_equal(backend->pool, 1);
    assert_int_equal(backend->weight, 3);
    assert_int_equal(backend->incarnation, 1);
    assert_int_equal(backend->health, VB_HEALTH_UNKNOWN);
    assert_int_equal(backend->admin, VB_ADMIN_READY);

    char name[8] = "b0";
    for (int i = 2; i < (int)small.backends; i++, name[1]++)
        assert_int_equal(add_backend(0, name), i);
    assert_int_equal(add_backend(0, "one more"), -ENOSPC);
}

static void too_long_names(void **state)
{
    char name[VB_SHM_ADDRESS_MAX + 1];
    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    struct vb_backend_spec spec = {"b", name, 1, true, VB_HEALTH_UNKNOWN, VB_ADMIN_READY, false, 0, false};
    assert_int_equal(vb_shm_add_backend(master, 0, &spec), -EINVAL);
    assert_int_equal(vb_shm_add_pool(master, &(struct vb_pool_spec){"p", name, 0, 50}), -EINVAL);
    name[VB_SHM_NAME_MAX] = '\0';
    assert_int_equal(add_backend(0, name), -EINVAL);
    assert_int_equal(vb_shm_add_pool(master, &(struct vb_pool_spec){name, "x", 0, 50}), -EINVAL);
    name[VB_SHM_NAME_MAX - 1] = '\0';
    assert_int_equal(vb_shm_add_pool(master, &(struct vb_pool_spec){name, "x", 0, 50}), 0);
    assert_int_equal(add_backend(0, name), 0);
}

static void who_is_usable(void **state)
{
    vb_shm_add_pool(master, &(struct vb_pool_spec){"web", "round_robin", 0, 50});
    struct vb_health_record record = {.checks = 1};
    struct vb_shm_backend *backend = vb_shm_backend(master, 0);
    assert_false(vb_shm_backend_usable(backend, 0));
    add_backend(0, "a");
    assert_true(vb_shm_backend_usable(backend, 0)); /* unknown is served */
    vb_shm_write_health(master, 0, VB_HEALTH_DOWN, &record);
    assert_false(vb_shm_backend_usable(backend, 0));
    vb_shm_write_health(master, 0, VB_HEALTH_UP, &record);
    assert_true(vb_shm_backend_usable(backend, 0));
    backend->admin = VB_ADMIN_DRAIN;
    assert_false(vb_shm_backend_usable(backend, 0));
    struct vb_backend_spec unchecked = {"u", "h:1", 1, true, VB_HEALTH_UNCHECKED, VB_ADMIN_READY, false, 0, false};
    assert_int_equal(vb_shm_add_backend(master, 0, &unchecked), 1);
    assert_int_equal(vb_shm_backend(master, 1)->health, VB_HEALTH_UNCHECKED);
    assert_true(vb_shm_backend_usable(vb_shm_backend(master, 1), 0));
}

static void epoch_moves_only_with_the_state(void **state)
{
    struct vb_health_record record = {.checks = 7, .reason = "connection refused"}, copy;
    vb_shm_add_pool(master, &(struct vb_pool_spec){"web", "round_robin", 0, 50});
    add_backend(0, "a");
    uint32_t epoch = vb_shm_pool(master, 0)->epoch;
    vb_shm_write_health(master, 0, VB_HEALTH_UP, &record);
    assert_int_equal(vb_shm_pool(master, 0)->epoch, epoch + 1);
    record.checks = 8;
    vb_shm_write_health(master, 0, VB_HEALTH_UP, &record);
    assert_int_equal(vb_shm_pool(master, 0)->epoch, epoch + 1);
    assert_true(vb_shm_read_health(master, 0, &copy));
    assert_memory_equal(&copy, &record, sizeof(copy));
}

static void writer_that_died_in_the_middle(void **state)
{
    struct vb_health_record copy;
    memset(&copy, 0xff, sizeof(copy));
    vb_shm_backend(master, 0)->record_seq = 5;
    assert_false(vb_shm_read_health(master, 0, &copy));
    static const struct vb_health_record zero;
    assert_memory_equal(&copy, &zero, sizeof(copy));
    struct vb_health_record record = {.checks = 9};
    vb_shm_write_health(master, 0, VB_HEALTH_UP, &record);
    assert_true(vb_shm_read_health(master, 0, &copy));
    assert_int_equal(copy.checks, 9);
}

static vb_u32 stop_writing;

/* Records whose every byte is the same: a torn one shows. */
static void *write_records(void *arg)
{
    const struct vb_shm *shm = arg;
    struct vb_health_record record;
    for (unsigned n = 0; !stop_writing; n++) {
        memset(&record, (int)(n & 0xff), sizeof(record));
        vb_shm_write_health((struct vb_shm *)shm, 0, VB_HEALTH_UP, &record);
        if (n % 64 == 0)
            usleep(1);
    }
    return NULL;
}

static bool torn(const struct vb_health_record *record)
{
    const unsigned char *bytes = (const unsigned char *)record;
    return memcmp(bytes, bytes + 1, sizeof(*record) - 1) != 0;
}

/* How many of `n` reads gave a record; none may be torn. */
static unsigned read_records(const struct vb_shm *shm, unsigned n)
{
    struct vb_health_record record;
    unsigned read = 0;
    for (unsigned i = 0; i < n; i++) {
        if (!vb_shm_read_health(shm, 0, &record))
            continue;
        assert_false(torn(&record));
        read++;
    }
    return read;
}

static void no_torn_reads_from_a_thread(void **state)
{
    pthread_t writer;
    vb_shm_publish(master);
    struct vb_shm *tool = attach(((struct fixture *)*state)->path);
    stop_writing = 0;
    assert_int_equal(pthread_create(&writer, NULL, write_records, master), 0);
    unsigned got = read_records(tool, 200000);
    stop_writing = 1;
    pthread_join(writer, NULL);
    vb_shm_close(&tool);
    assert_true(got > 1000);
}

static void no_torn_reads_from_a_process_that_is_killed(void **state)
{
    struct vb_error err;
    for (int round = 0; round < 20; round++) {
        struct vb_shm *writer_view = NULL;
        stop_writing = 0;
        pid_t pid = fork_child();
        if (pid == 0) {
            if (vb_shm_attach_fd(&writer_view, vb_shm_fd_for_workers(master), &err) == 0)
                write_records(writer_view);
            _exit(1);
        }
        read_records(master, 5000);
        kill(pid, SIGKILL);
        assert_int_equal(status_of(pid), -1);
        read_records(master, 3); /* the last whole record, or none; the next writer makes it whole again */
    }
}

static void slots_go_back_to_their_index(void **state)
{
    assert_int_equal(vb_shm_claim_worker(master, 0, 1, false), 0);
    assert_int_equal(vb_shm_claim_worker(master, 1, 1, false), 1);
    vb_shm_worker_started(master, 1, 4242);
    assert_int_equal(vb_shm_worker(master, 1)->pid, 4242);
    vb_add64(&vb_shm_worker(master, 1)->requests, 10);
    vb_add64(&vb_shm_worker(master, 1)->connections, 4);

    vb_shm_release_worker(master, 0, false);
    vb_shm_release_worker(master, 1, true);
    assert_int_equal(vb_shm_worker(master, 1)->connections, 0);
    assert_int_equal(vb_shm_worker(master, 1)->requests, 10);
    assert_int_equal(vb_shm_worker(master, 1)->pid, 0);

    assert_int_equal(vb_shm_claim_worker(master, 1, 2, false), 1);
    const struct vb_shm_worker *worker = vb_shm_worker(master, 1);
    assert_int_equal(worker->restarts, 1);
    assert_int_equal(worker->requests_before, 10);
    assert_int_equal(worker->generation, 2);
    assert_int_equal(worker->state, VB_WORKER_STARTING);
    assert_int_equal(vb_shm_worker(master, 0)->restarts, 0);

    assert_int_equal(vb_shm_claim_worker(master, 2, 2, false), 0); /* what others had costs no memory */
    assert_int_equal(vb_shm_slots(master), 2);
    assert_int_equal(vb_shm_claim_worker(master, 0, 2, false), 2);
    assert_int_equal(vb_shm_slots(master), 3);
    assert_int_equal(vb_shm_claim_worker(master, 3, 2, false), -ENOSPC);
}

static void check_request(const char *method, const char *target, const char *expected)
{
    char text[VB_SHM_REQUEST_MAX];
    struct vb_shm_worker *worker = vb_shm_worker(master, 1);
    vb_shm_worker_takes(worker, 7, vb_str(method), vb_str(target));
    vb_shm_text(text, sizeof(text), worker->request, sizeof(worker->request));
    assert_string_equal(text, expected);
}

static void a_worker_notes_its_last_request(void **state)
{
    char longest[4 * VB_SHM_REQUEST_MAX], kept[VB_SHM_REQUEST_MAX] = "GET ";
    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    vb_shm_claim_worker(master, 0, 1, false);
    vb_shm_claim_worker(master, 1, 1, false);
    struct vb_shm_worker *worker = vb_shm_worker(master, 1);
    check_request("GET", "/a", "GET /a");
    check_request("OPTIONS", "*", "OPTIONS *");
    check_request("GET", "/a?token=secret", "GET /a");
    memset(kept + 4, 'x', sizeof(kept) - 5);
    check_request("GET", longest, kept);
    memset(kept, 'x', sizeof(kept) - 1);
    check_request(longest, "/", kept);
    assert_int_equal(worker->connections, 0); /* the word behind it */
}

static void a_worker_moves_by_heartbeats_and_requests(void **state)
{
    vb_shm_claim_worker(master, 0, 1, false);
    struct vb_shm_worker *worker = vb_shm_worker(master, 0);
    vb_shm_worker_takes(worker, 7, VB_STR("GET"), VB_STR("/"));
    assert_int_equal(vb_shm_worker_moved_us(worker), 0); /* it has not come to its loop, or has left it */
    worker->heartbeat_us = 5;
    assert_int_equal(vb_shm_worker_moved_us(worker), 7);
    worker->heartbeat_us = 9;
    assert_int_equal(vb_shm_worker_moved_us(worker), 9);

    vb_shm_release_worker(master, 0, true);
    assert_string_equal(worker->request, "GET /"); /* whoever looks at a dead instance sees it */
    assert_int_equal(vb_shm_claim_worker(master, 0, 1, false), 0);
    assert_int_equal(vb_shm_worker_moved_us(worker), 0);
    assert_int_equal(worker->request_us, 0);
    assert_string_equal(worker->request, "");
}

static void sums_over_slots(void **state)
{
    vb_shm_add_pool(master, &(struct vb_pool_spec){"web", "round_robin", 0, 50});
    add_backend(0, "a");
    add_backend(0, "b");
    for (unsigned slot = 0; slot < small.workers; slot++) {
        vb_shm_claim_worker(master, slot, 1, false);
        for (unsigned n = 0; n <= slot; n++)
            assert_true(vb_shm_begin(master, slot, 1, 0));
        vb_add64(&vb_shm_traffic(master, slot, 1)->requests, 100);
        vb_add64(&vb_shm_traffic(master, slot, 1)->latency[vb_hist_index(1000)], 100);
        vb_add64(&vb_shm_worker(master, slot)->connections, 2);
        vb_add64(&vb_shm_worker(master, slot)->connections_total, 50);
    }
    assert_int_equal(vb_shm_sum_in_flight(master, 1), 1 + 2 + 3);
    assert_int_equal(vb_shm_sum_in_flight(master, 0), 0);

    vb_shm_release_worker(master, 2, true); /* killed with 3 in flight */
    struct vb_traffic_sum traffic = {0};
    struct vb_worker_sum workers = {0};
    vb_shm_add_traffic(master, 1, &traffic);
    vb_shm_add_workers(master, &workers);
    assert_int_equal(traffic.in_flight, 1 + 2);
    assert_int_equal(traffic.requests, 300);
    assert_int_equal(traffic.latency[vb_hist_index(1000)], 300);
    assert_int_equal(workers.connections, 4);
    assert_int_equal(workers.connections_total, 150);
}

/* Rows of different workers must not share a cache line, and no two rows may overlap. */
static void rows_are_apart(void **state)
{
    struct {
        char *at;
        size_t size;
    } rows[64];
    size_t n = 0;
    for (unsigned slot = 0; slot < small.workers; slot++) {
        rows[n].at = (char *)vb_shm_worker(master, slot);
        rows[n++].size = sizeof(struct vb_shm_worker);
        rows[n].at = (char *)vb_shm_in_flight(master, slot);
        rows[n++].size = small.backends * sizeof(vb_u64);
        rows[n].at = (char *)vb_shm_places(master, slot, 0);
        rows[n++].size = small.backends * sizeof(struct vb_shm_places);
        rows[n].at = (char *)vb_shm_ips(master, slot);
        rows[n++].size = sizeof(struct vb_shm_ips);
        for (unsigned b = 0; b < small.backends; b++) {
            rows[n].at = (char *)vb_shm_traffic(master, slot, b);
            rows[n++].size = sizeof(struct vb_shm_traffic);
        }
    }
    assert_int_equal(n, small.workers * (4 + small.backends));
    const char *base = (const char *)vb_shm_header(master), *end = base + vb_shm_size(small);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal((uintptr_t)rows[i].at % 128, 0);
        assert_true(rows[i].at > (char *)vb_shm_backend(master, small.backends - 1));
        assert_true(rows[i].at + rows[i].size <= end);
        memset(rows[i].at, (int)i + 1, rows[i].size);
    }
    for (size_t i = 0; i < n; i++)
        for (size_t b = 0; b < rows[i].size; b++)
            assert_int_equal((unsigned char)rows[i].at[b], i + 1);
    assert_int_equal(vb_shm_backend(master, small.backends - 1)->used, 0);
}

static void index_out_of_range_ends_the_process(void **state)
{
    for (int what = 0; what < 7; what++) {
        pid_t pid = fork_child();
        if (pid == 0) {
            signal(SIGABRT, SIG_DFL);
            close(STDERR_FILENO);
            switch (what) {
            case 0:
                vb_shm_pool(master, small.backends);
                break;
            case 1:
                vb_shm_backend(master, small.backends);
                break;
            case 2:
                vb_shm_worker(master, small.workers);
                break;
            case 3:
                vb_shm_traffic(master, 0, UINT32_MAX);
                break;
            case 4:
                vb_shm_in_flight(master, small.workers);
                break;
            case 5:
                vb_shm_places(master, small.workers, 0);
                break;
            case 6:
                vb_shm_ips(master, small.workers);
                break;
            }
            _exit(0);
        }
        assert_int_equal(status_of(pid), -1);
    }
}

static void names_of_values(void **state)
{
    assert_string_equal(vb_health_name(VB_HEALTH_DOWN), "down");
    assert_string_equal(vb_admin_name(VB_ADMIN_MAINT), "maint");
    assert_string_equal(vb_worker_state_name(VB_WORKER_READY), "ready");
    assert_string_equal(vb_instance_state_name(VB_INSTANCE_RUNNING), "running");
    assert_string_equal(vb_instance_state_name(0), "?");
    assert_string_equal(vb_health_name(UINT32_MAX), "?");
    assert_string_equal(vb_worker_state_name(5), "?");
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup_master, teardown_master)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(membership),
        TEST(too_long_names),
        TEST(who_is_usable),
        TEST(epoch_moves_only_with_the_state),
        TEST(writer_that_died_in_the_middle),
        TEST(no_torn_reads_from_a_thread),
        TEST(no_torn_reads_from_a_process_that_is_killed),
        TEST(slots_go_back_to_their_index),
        TEST(a_worker_notes_its_last_request),
        TEST(a_worker_moves_by_heartbeats_and_requests),
        TEST(sums_over_slots),
        TEST(rows_are_apart),
        TEST(index_out_of_range_ends_the_process),
        TEST(names_of_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
