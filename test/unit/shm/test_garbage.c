/* A reader survives whatever file it is handed: it refuses with a sentence, or reads nonsense within bounds. */
#include "fixture.h"

#include <errno.h>
#include <sys/stat.h>

#include "vb/rand.h"

static void write_file(const char *path, const void *bytes, size_t n)
{
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, n), n);
    close(fd);
}

/* The bytes of a proper segment; the caller frees them. */
static char *segment_bytes(const char *path, size_t *ret_size)
{
    struct vb_shm *shm = create(path, small);
    claim_all(shm, true);
    int pool = vb_shm_add_pool(shm, &(struct vb_pool_spec){"web", "round_robin", 0, 50});
    vb_shm_add_backend(
        shm, (unsigned)pool,
        &(struct vb_backend_spec){"b1", "127.0.0.1:9001", 1, true, VB_HEALTH_UNKNOWN, VB_ADMIN_READY, false, 0, false});
    vb_shm_publish(shm);
    size_t size = vb_shm_size(small);
    char *bytes = malloc(size);
    assert_non_null(bytes);
    memcpy(bytes, vb_shm_header(shm), size);
    vb_shm_close(&shm);
    unlink(path);
    *ret_size = size;
    return bytes;
}

/* Touches everything that a tool would. */
static void walk(const struct vb_shm *shm)
{
    char text[VB_SHM_ADDRESS_MAX];
    struct vb_shm_capacity cap = vb_shm_capacity(shm);
    struct vb_worker_sum workers = {0};
    vb_shm_add_workers(shm, &workers);
    for (unsigned i = 0; i < cap.backends; i++) {
        struct vb_shm_backend *backend = vb_shm_backend(shm, i);
        struct vb_traffic_sum sum = {0};
        struct vb_health_record record;
        vb_shm_text(text, sizeof(text), backend->address, sizeof(backend->address));
        assert_true(strlen(text) < sizeof(text));
        vb_shm_text(text, sizeof(text), vb_shm_pool(shm, i)->name, sizeof(vb_shm_pool(shm, i)->name));
        assert_non_null(vb_health_name(backend->health));
        assert_non_null(vb_admin_name(backend->admin));
        vb_shm_add_traffic(shm, i, &sum);
        vb_shm_read_health(shm, i, &record);
        vb_shm_backend_usable(backend, 0);
    }
    for (unsigned i = 0; i < vb_shm_slots(shm); i++) {
        const struct vb_shm_worker *worker = vb_shm_worker(shm, i);
        assert_non_null(vb_worker_state_name(worker->state));
        vb_shm_text(text, sizeof(text), worker->request, sizeof(worker->request));
        assert_true(strlen(text) <= sizeof(worker->request));
    }
    assert_non_null(vb_instance_state_name(vb_shm_header(shm)->state));
    vb_shm_alive(shm);
}

static int try_attach(const char *path)
{
    struct vb_error err = {{0}};
    struct vb_shm *shm = NULL;
    int r = vb_shm_attach(&shm, path, &err);
    if (r == 0) {
        walk(shm);
        vb_shm_close(&shm);
    } else {
        assert_int_equal(r, -EPROTO);
        assert_null(shm);
        assert_true(strlen(err.text) > 0);
    }
    return r;
}

static void truncated_at_every_length(void **state)
{
    struct fixture *f = *state;
    size_t size;
    char *bytes = segment_bytes(f->path, &size);
    write_file(f->path, bytes, size);
    assert_int_equal(try_attach(f->path), 0);
    for (size_t n = 1; n < sizeof(struct vb_shm_header) + 64; n++) {
        write_file(f->path, bytes, n);
        assert_int_equal(try_attach(f->path), -EPROTO);
    }
    for (size_t n = 1000; n < size; n += 997) {
        write_file(f->path, bytes, n);
        assert_int_equal(try_attach(f->path), -EPROTO);
    }
    write_file(f->path, bytes, size - 1);
    assert_int_equal(try_attach(f->path), -EPROTO);
    free(bytes);
}

/* Every byte of the header, in ways that hit small, large, zero and sign. */
static void every_header_byte_corrupted(void **state)
{
    static const unsigned char masks[] = {0x01, 0x80, 0xff};
    struct fixture *f = *state;
    size_t size;
    char *bytes = segment_bytes(f->path, &size);
    struct vb_shm_header *header = (struct vb_shm_header *)bytes;
    size_t ready_at = offsetof(struct vb_shm_header, ready), slots_at = offsetof(struct vb_shm_header, slots);
    write_file(f->path, bytes, size);
    int fd = open(f->path, O_WRONLY | O_CLOEXEC);
    for (size_t at = 0; at < sizeof(*header); at++) {
        if (at >= ready_at && at < ready_at + sizeof(header->ready))
            continue; /* waits 100 ms each time; has a test of its own */
        for (unsigned m = 0; m < VB_ARRAY_SIZE(masks); m++) {
            char bad = (char)(bytes[at] ^ (char)masks[m]);
            assert_int_equal(pwrite(fd, &bad, 1, (off_t)at), 1);
            int r = try_attach(f->path);
            /* What decides the layout must be refused; the rest is text and numbers to show, or within bounds. */
            bool grows = at >= slots_at && at < slots_at + sizeof(header->slots);
            assert_int_equal(r, at < offsetof(struct vb_shm_header, ip_key) && !grows ? -EPROTO : 0);
        }
        assert_int_equal(pwrite(fd, &bytes[at], 1, (off_t)at), 1);
    }
    assert_int_equal(try_attach(f->path), 0);
    close(fd);
    free(bytes);
}

static void huge_capacities_do_not_overflow(void **state)
{
    struct fixture *f = *state;
    size_t size;
    char *bytes = segment_bytes(f->path, &size);
    struct vb_shm_header *header = (struct vb_shm_header *)bytes;
    static const struct vb_shm_capacity caps[] = {
        {UINT32_MAX, UINT32_MAX}, {0, 0}, {0x80000000, 2}, {3, 4}, {4, 5}, {VB_SHM_WORKERS_MAX, VB_SHM_BACKENDS_MAX}};
    for (unsigned i = 0; i < VB_ARRAY_SIZE(caps); i++) {
        header->cap = caps[i];
        write_file(f->path, bytes, size);
        assert_int_equal(try_attach(f->path), -EPROTO);
    }
    free(bytes);
}

static void any_number_of_slots_is_within_bounds(void **state)
{
    struct fixture *f = *state;
    static const uint32_t numbers[] = {0, 1, 3, 4, 0x80000000, UINT32_MAX}, seen[] = {0, 1, 3, 3, 3, 3};
    size_t size;
    char *bytes = segment_bytes(f->path, &size);
    for (unsigned i = 0; i < VB_ARRAY_SIZE(numbers); i++) {
        ((struct vb_shm_header *)bytes)->slots = numbers[i];
        write_file(f->path, bytes, size);
        struct vb_shm *shm = attach(f->path);
        assert_int_equal(vb_shm_slots(shm), seen[i]);
        walk(shm);
        vb_shm_close(&shm);
    }
    free(bytes);
}

static void other_layout_version_is_named(void **state)
{
    struct fixture *f = *state;
    struct vb_error err = {{0}};
    struct vb_shm *shm = NULL;
    size_t size;
    char *bytes = segment_bytes(f->path, &size);
    ((struct vb_shm_header *)bytes)->version = 7;
    write_file(f->path, bytes, size);
    assert_int_equal(vb_shm_attach(&shm, f->path, &err), -EPROTO);
    assert_non_null(strstr(err.text, "layout version 7, this vbctl reads version 6"));
    free(bytes);
}

static void random_bytes_behind_a_proper_header(void **state)
{
    struct fixture *f = *state;
    struct vb_rand rand;
    size_t size;
    char *bytes = segment_bytes(f->path, &size);
    vb_rand_init(&rand);
    for (int round = 0; round < 20; round++) {
        for (size_t i = sizeof(struct vb_shm_header); i < size; i++)
            bytes[i] = (char)vb_rand_u64(&rand);
        write_file(f->path, bytes, size);
        assert_int_equal(try_attach(f->path), 0);
    }
    memset(bytes + sizeof(struct vb_shm_header), 0xff, size - sizeof(struct vb_shm_header));
    write_file(f->path, bytes, size);
    assert_int_equal(try_attach(f->path), 0);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (char)vb_rand_u64(&rand);
    write_file(f->path, bytes, size);
    assert_int_equal(try_attach(f->path), -EPROTO);
    free(bytes);
}

/* A worker trusts its segment more than a tool does; still, nonsense in it costs a wrong answer and no more. */
static void admission_among_random_words(void **state)
{
    struct fixture *f = *state;
    struct vb_error err = {{0}};
    struct vb_shm *shm = NULL;
    struct vb_rand rand;
    struct vb_ip ip = {{0}};
    size_t size;
    char *bytes = segment_bytes(f->path, &size);
    vb_rand_init(&rand);
    for (size_t i = sizeof(struct vb_shm_header); i < size; i++)
        bytes[i] = (char)vb_rand_u64(&rand);
    write_file(f->path, bytes, size);
    int fd = open(f->path, O_RDWR | O_CLOEXEC);
    assert_int_equal(vb_shm_attach_fd(&shm, fd, &err), 0);
    for (unsigned i = 0; i < 200; i++) {
        ip.bytes[15] = (uint8_t)vb_rand_u64(&rand);
        vb_shm_admit(shm, i % small.workers, &ip, &(struct vb_shm_connection_limits){i % 2, i % 5});
        vb_shm_leave(shm, i % small.workers, &ip);
    }
    for (unsigned slot = 0; slot < small.workers; slot++)
        vb_shm_release_worker(shm, slot, true);
    assert_int_equal(vb_shm_admit(shm, 0, &ip, &(struct vb_shm_connection_limits){1, 1}), VB_ADMITTED);
    vb_shm_close(&shm);
    close(fd);
    free(bytes);
}

static void things_that_are_no_files(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(mkfifo(f->path, 0600), 0);
    assert_int_equal(try_attach(f->path), -EPROTO);
    unlink(f->path);
    assert_int_equal(try_attach(f->dir), -EPROTO);
    assert_int_equal(try_attach("/dev/zero"), -EPROTO);
}

static void inherited_garbage(void **state)
{
    struct fixture *f = *state;
    struct vb_error err = {{0}};
    struct vb_shm *shm = NULL;
    write_file(f->path, "", 0);
    int fd = open(f->path, O_RDWR | O_CLOEXEC);
    assert_int_equal(vb_shm_attach_fd(&shm, fd, &err), -EPROTO);
    assert_int_equal(pwrite(fd, "nonsense", 8, 5000), 8);
    assert_int_equal(vb_shm_attach_fd(&shm, fd, &err), -EPROTO);
    assert_int_equal(vb_shm_attach_fd(&shm, -1, &err), -EPROTO);
    assert_null(shm);
    close(fd);
}

static void text_is_bounded_and_printable(void **state)
{
    char to[8];
    vb_shm_text(to, sizeof(to), "abcdefghij", 10);
    assert_string_equal(to, "abcdefg");
    vb_shm_text(to, sizeof(to), "abcdef", 3);
    assert_string_equal(to, "abc");
    vb_shm_text(to, sizeof(to), "a\033[\n\177", 6);
    assert_string_equal(to, "a?[??");
    vb_shm_text(to, sizeof(to), "", 1);
    assert_string_equal(to, "");
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(truncated_at_every_length),
        TEST(every_header_byte_corrupted),
        TEST(huge_capacities_do_not_overflow),
        TEST(any_number_of_slots_is_within_bounds),
        TEST(other_layout_version_is_named),
        TEST(random_bytes_behind_a_proper_header),
        TEST(admission_among_random_words),
        TEST(things_that_are_no_files),
        TEST(inherited_garbage),
        TEST(text_is_bounded_and_printable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
