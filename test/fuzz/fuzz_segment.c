/*
 * Segments: a tool may be handed any file. It refuses it with a sentence, or reads nonsense within bounds.
 *
 * Inputs that begin with a zero byte are the file itself. Others are changes to a proper segment: pieces,
 * each of which says where its bytes go (three of them, little endian, modulo the size) and how many they are.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "fuzz.h"
#include "vb/shm.h"

static char path[64];
static char *proper; /* a segment's bytes */
static size_t proper_size;

static void remove_file(void)
{
    unlink(path);
    free(proper);
}

static void make_proper(void)
{
    static const struct vb_shm_capacity cap = {.workers = 2, .backends = 2};
    struct vb_shm *shm = NULL;
    struct vb_error err;
    snprintf(path, sizeof(path), "/dev/shm/vb-fuzz-%d", (int)getpid());
    int r = vb_shm_create(&shm, path, "fuzz", cap, &err);
    assert(r == 0);
    assert(vb_shm_add_pool(shm, &(struct vb_pool_spec){"web", "round_robin", 0, 50}) == 0);
    assert(vb_shm_claim_worker(shm, 0, 1, true) == 0);
    assert(vb_shm_add_backend(shm, 0,
                              &(struct vb_backend_spec){"b1", "127.0.0.1:1", 1, true, VB_HEALTH_UNKNOWN, VB_ADMIN_READY,
                                                        false, 0, false}) == 0);
    vb_shm_publish(shm);
    proper_size = vb_shm_size(cap);
    proper = exact_copy(vb_shm_header(shm), proper_size);
    vb_shm_close(&shm);
    atexit(remove_file);
}

static void change(char *bytes, const uint8_t *data, size_t size)
{
    while (size > 4) {
        size_t at = (data[0] | (size_t)data[1] << 8 | (size_t)data[2] << 16) % proper_size;
        size_t n = VB_MIN(VB_MIN((size_t)data[3] + 1, size - 4), proper_size - at);
        memcpy(bytes + at, data + 4, n);
        data += 4 + n;
        size -= 4 + n;
    }
}

/* Waiting for a segment that is not ready takes time, and is tested elsewhere. */
static void make_ready(char *bytes, size_t size)
{
    uint32_t one = 1;
    size_t at = offsetof(struct vb_shm_header, ready);
    if (size >= at + sizeof(one))
        memcpy(bytes + at, &one, sizeof(one));
}

static void write_file(const char *bytes, size_t size)
{
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    assert(fd >= 0);
    assert(write(fd, bytes, size) == (ssize_t)size);
    close(fd);
}

/* All that a tool looks at. */
static void read_all(const struct vb_shm *shm)
{
    char text[VB_SHM_ADDRESS_MAX];
    struct vb_shm_capacity cap = vb_shm_capacity(shm);
    struct vb_worker_sum workers = {0};
    vb_shm_add_workers(shm, &workers);
    for (unsigned i = 0; i < cap.backends; i++) {
        const struct vb_shm_backend *backend = vb_shm_backend(shm, i);
        const struct vb_shm_pool *pool = vb_shm_pool(shm, i);
        struct vb_traffic_sum sum = {0};
        struct vb_health_record record;
        vb_shm_text(text, sizeof(text), backend->name, sizeof(backend->name));
        vb_shm_text(text, sizeof(text), backend->address, sizeof(backend->address));
        vb_shm_text(text, sizeof(text), pool->name, sizeof(pool->name));
        vb_shm_text(text, sizeof(text), pool->balance, sizeof(pool->balance));
        assert(vb_health_name(backend->health) != NULL && vb_admin_name(backend->admin) != NULL);
        vb_shm_backend_usable(backend, 0);
        vb_shm_add_traffic(shm, i, &sum);
        vb_shm_sum_in_flight(shm, i);
        vb_hist_quantile(sum.latency, 0.99);
        if (vb_shm_read_health(shm, i, &record))
            vb_shm_text(text, sizeof(text), record.reason, sizeof(record.reason));
    }
    for (unsigned i = 0; i < vb_shm_slots(shm); i++) {
        const struct vb_shm_worker *worker = vb_shm_worker(shm, i);
        assert(vb_worker_state_name(worker->state) != NULL);
        vb_shm_text(text, sizeof(text), worker->request, sizeof(worker->request));
    }
    const struct vb_shm_header *header = vb_shm_header(shm);
    assert(vb_instance_state_name(header->state) != NULL);
    vb_shm_text(text, sizeof(text), header->reload_text, sizeof(header->reload_text));
    vb_shm_alive(shm);
    vb_shm_memory(shm);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (proper == NULL)
        make_proper();
    if (size < 2)
        return 0;
    bool whole_file = data[0] == 0;
    size_t n = whole_file ? size - 1 : proper_size;
    char *bytes = exact_copy(whole_file ? (const char *)data + 1 : proper, n);
    if (!whole_file)
        change(bytes, data + 1, size - 1);
    make_ready(bytes, n);
    write_file(bytes, n);
    free(bytes);

    struct vb_shm *shm = NULL;
    struct vb_error err = {{0}};
    int r = vb_shm_attach(&shm, path, &err);
    assert((r == 0) == (shm != NULL));
    assert(r == 0 || (r == -EPROTO && err.text[0] != '\0'));
    if (shm != NULL)
        read_all(shm);
    vb_shm_close(&shm);
    return 0;
}
