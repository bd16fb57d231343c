/* Memory of rows: only of those that are in use, and of all of these. */
#include "fixture.h"

enum { SLOTS = 200, BACKENDS = 64, PAGES = 8 * 4096 };

static struct vb_shm *master;

/* In memory, where a page that is touched counts. */
static struct vb_shm *create_in_memory(struct vb_shm_capacity cap)
{
    char path[64];
    snprintf(path, sizeof(path), "/dev/shm/vb-reserve-%d", (int)getpid());
    struct vb_shm *shm = create(path, cap);
    vb_shm_unlink(shm);
    return shm;
}

static int setup_master(void **state)
{
    master = create_in_memory((struct vb_shm_capacity){SLOTS, BACKENDS});
    return 0;
}

static int teardown_master(void **state)
{
    vb_shm_close(&master);
    return 0;
}

static void add(struct vb_shm *shm, unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++) {
        char name[16];
        snprintf(name, sizeof(name), "b%u", i);
        struct vb_backend_spec spec = {name,           "127.0.0.1:80", 1, true, VB_HEALTH_UNKNOWN,
                                       VB_ADMIN_READY, false,          0, false};
        assert_int_equal(vb_shm_add_backend(shm, 0, &spec), i);
    }
}

static void claim(unsigned from, unsigned to, bool count_ips)
{
    for (unsigned i = from; i < to; i++)
        assert_int_equal(vb_shm_claim_worker(master, i, 1, count_ips), i);
}

/* All that workers in the first `slots`, which have seen `backends`, may ever write. */
static void write_all(unsigned slots, unsigned backends)
{
    for (unsigned slot = 0; slot < slots; slot++) {
        vb_add64(&vb_shm_worker(master, slot)->requests, 1);
        for (unsigned i = 0; i < BACKENDS; i++) {
            vb_add64(&vb_shm_in_flight(master, slot)[i], 1);
            vb_add32(&vb_shm_loads(master)[i], 1);
            vb_add64(&vb_shm_tallies(master)[i / VB_SHM_LINE], 1);
            vb_add64(&vb_shm_places(master, slot, i)->pending, 2);
        }
        for (unsigned i = 0; i < backends; i++)
            memset(vb_shm_traffic(master, slot, i), 1, sizeof(struct vb_shm_traffic));
        if (vb_shm_worker(master, slot)->counts_ips)
            memset(vb_shm_ips(master, slot), 0xfe, sizeof(struct vb_shm_ips));
    }
}

static void read_all(void)
{
    struct vb_worker_sum workers = {0};
    vb_shm_add_workers(master, &workers);
    for (unsigned i = 0; i < BACKENDS; i++) {
        struct vb_traffic_sum traffic = {0};
        vb_shm_add_traffic(master, i, &traffic);
        vb_shm_sum_in_flight(master, i);
        vb_shm_sum_places(master, i, VB_PLACE_PENDING);
    }
    for (unsigned n = 0; n < 1000; n++) {
        struct vb_ip ip = {{0x20, 0x01, (uint8_t)n, (uint8_t)(n >> 8)}};
        if (vb_shm_admit(master, 0, &ip, &(struct vb_shm_connection_limits){2, 1}) == VB_ADMITTED)
            vb_shm_leave(master, 0, &ip);
        if (vb_shm_enter(master, 0, 1, VB_PLACE_REQUEST, 1))
            vb_shm_exit(master, 0, 1, VB_PLACE_REQUEST);
    }
}

static void slots_not_in_use_cost_nothing(void **state)
{
    struct vb_shm *one = create_in_memory((struct vb_shm_capacity){1, BACKENDS});
    assert_int_equal(vb_shm_claim_worker(one, 0, 1, true), 0);
    add(one, 0, BACKENDS);
    claim(0, 1, true);
    add(master, 0, BACKENDS);
    assert_in_range(vb_shm_memory(master), vb_shm_memory(one), vb_shm_memory(one) + PAGES);
    assert_true(vb_shm_size((struct vb_shm_capacity){SLOTS, BACKENDS}) > 50 * vb_shm_memory(master));
    vb_shm_close(&one);
}

static void what_comes_brings_its_memory(void **state)
{
    uint64_t before = vb_shm_memory(master), row = sizeof(struct vb_shm_traffic);
    claim(0, 1, false);
    assert_in_range(vb_shm_memory(master), before, before + PAGES);
    add(master, 0, BACKENDS);
    assert_in_range(vb_shm_memory(master), before + BACKENDS * row, before + BACKENDS * row + PAGES);
    before = vb_shm_memory(master);
    claim(1, 2, true);
    uint64_t more = BACKENDS * row + sizeof(struct vb_shm_ips);
    assert_in_range(vb_shm_memory(master), before + more - PAGES, before + more + PAGES);
}

/* Whichever came first: what may be written takes no page more, so that on a full tmpfs it can be written too. */
static void rows_that_may_be_written_are_there(void **state)
{
    add(master, 0, 3);
    claim(0, 2, false);
    add(master, 3, 7);
    claim(2, 5, true);
    add(master, 7, 20);
    uint64_t before = vb_shm_memory(master);
    write_all(5, 20);
    read_all();
    for (unsigned slot = 0; slot < 5; slot++)
        vb_shm_release_worker(master, slot, true);
    assert_int_equal(vb_shm_memory(master), before);
}

static void readers_touch_no_other(void **state)
{
    claim(0, 1, true);
    claim(1, 2, false);
    add(master, 0, 1);
    vb_shm_remove_backend(master, 0);
    uint64_t before = vb_shm_memory(master);
    read_all();
    vb_shm_free_pool(master, 0);
    add(master, 0, 1);
    assert_int_equal(vb_shm_memory(master), before);
}

/* A slot whose workers did not count gets its table with the first that does, and keeps it. */
static void a_table_comes_with_the_first_who_counts(void **state)
{
    claim(0, 1, false);
    uint64_t without = vb_shm_memory(master);
    vb_shm_release_worker(master, 0, false);
    claim(0, 1, true);
    uint64_t with = vb_shm_memory(master);
    assert_in_range(with - without, sizeof(struct vb_shm_ips) - 4096, sizeof(struct vb_shm_ips) + 4096);
    write_all(1, 0);
    vb_shm_release_worker(master, 0, false);
    claim(0, 1, false);
    vb_shm_release_worker(master, 0, false);
    claim(0, 1, true);
    assert_int_equal(vb_shm_memory(master), with);
}

/* Reloads: as many slots as workers that live at the same time. */
static void generations_take_over_each_others_slots(void **state)
{
    enum { WORKERS = 4 };
    int slots[2][WORKERS];
    for (unsigned generation = 1; generation <= 50; generation++) {
        int *ours = slots[generation % 2], *theirs = slots[(generation + 1) % 2];
        for (unsigned i = 0; i < WORKERS; i++)
            ours[i] = vb_shm_claim_worker(master, (i + generation) % WORKERS, generation, false);
        for (unsigned i = 0; i < WORKERS && generation > 1; i++)
            vb_shm_release_worker(master, (unsigned)theirs[i], false);
    }
    assert_int_equal(vb_shm_slots(master), 2 * WORKERS);
}

static void the_largest_can_be_mapped(void **state)
{
    static const struct vb_shm_capacity largest[] = {{SLOTS, VB_SHM_BACKENDS_MAX},
                                                     {VB_SHM_WORKERS_MAX, VB_SHM_BACKENDS_MAX}};
    for (unsigned i = 0; i < VB_ARRAY_SIZE(largest); i++) {
        struct vb_shm_capacity cap = largest[i];
        struct vb_shm *shm = create_in_memory(cap);
        const char *base = (const char *)vb_shm_header(shm);
        uint64_t rows = (uint64_t)cap.workers * cap.backends * sizeof(struct vb_shm_traffic);
        assert_true(vb_shm_size(cap) > rows + cap.workers * sizeof(struct vb_shm_ips));
        assert_true((uint64_t)((const char *)(vb_shm_ips(shm, cap.workers - 1) + 1) - base) == vb_shm_size(cap));
        assert_int_equal(vb_shm_claim_worker(shm, 0, 1, true), 0);
        assert_true(vb_shm_memory(shm) < 8 << 20);
        vb_shm_close(&shm);
    }
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup_master, teardown_master)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(slots_not_in_use_cost_nothing),
        TEST(what_comes_brings_its_memory),
        TEST(rows_that_may_be_written_are_there),
        TEST(readers_touch_no_other),
        TEST(a_table_comes_with_the_first_who_counts),
        TEST(generations_take_over_each_others_slots),
        TEST(the_largest_can_be_mapped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
