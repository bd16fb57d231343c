/* Limits of connections, with workers that arrive together, die, and stop in the middle. */
#include "fixture.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <time.h>

#include "vb/siphash.h"

#include "shm_priv.h"

enum {
    WORKERS = 4,
    ROUNDS = 1000,
    PATIENCE_US = 2000, /* a refusal that took longer may be due to somebody who had lost his CPU in the middle */
};

static const struct vb_shm_capacity capacity = {.workers = WORKERS, .backends = 1};
static const struct vb_ip none;
static struct vb_shm *master;

/* What the workers of a test share. */
struct shared {
    _Atomic unsigned arrived, admitted, disturbed_rounds, wrong_rounds;
    _Atomic bool slow;
    vb_u32 inside; /* of two addresses: 16 bits each */
    _Atomic bool too_many;
};
static struct shared *shared;

static struct vb_ip ip_number(unsigned n)
{
    struct vb_ip ip = {{0x20, 0x01, 0x0d, 0xb8}};
    n = htonl(n);
    memcpy(ip.bytes + 12, &n, sizeof(n));
    return ip;
}

static int setup_master(void **state)
{
    setup(state);
    master = create(((struct fixture *)*state)->path, capacity);
    claim_all(master, true);
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(shared != MAP_FAILED);
    return 0;
}

static int teardown_master(void **state)
{
    munmap(shared, sizeof(*shared));
    vb_shm_close(&master);
    return teardown(state);
}

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static enum vb_admission admit(unsigned slot, struct vb_ip ip, unsigned total, unsigned per_ip)
{
    return vb_shm_admit(master, slot, &ip, &(struct vb_shm_connection_limits){total, per_ip});
}

static void leave(unsigned slot, struct vb_ip ip)
{
    vb_shm_leave(master, slot, &ip);
}

static unsigned bucket_of(struct vb_ip ip)
{
    return vb_siphash(vb_shm_header(master)->ip_key, ip.bytes, sizeof(ip.bytes)) % VB_SHM_IP_BUCKETS;
}

/* Connections that a slot holds by address, and words that are being decided. */
static unsigned counted_by_ip(unsigned slot)
{
    const vb_u64 *words = vb_shm_ips(master, slot)->words[0];
    unsigned sum = 0;
    for (unsigned i = 0; i < VB_SHM_IP_BUCKETS * VB_SHM_IP_WORDS; i++) {
        assert_int_equal(words[i] & 1, 0);
        sum += (unsigned)(words[i] >> 1) & 0x7ffff;
    }
    return sum;
}

static void assert_nothing_is_held(void)
{
    for (unsigned slot = 0; slot < WORKERS; slot++) {
        assert_int_equal(vb_shm_worker(master, slot)->admission, 0);
        assert_int_equal(counted_by_ip(slot), 0);
    }
}

/* ---- one worker ---------------------------------------------------------------------------------------------------*/

static void limits_hold_over_slots(void **state)
{
    struct vb_ip a = ip_number(1), b = ip_number(2);
    assert_int_equal(admit(0, a, 4, 2), VB_ADMITTED);
    assert_int_equal(admit(3, a, 4, 2), VB_ADMITTED);
    assert_int_equal(admit(1, a, 4, 2), VB_REFUSED_IP);
    assert_int_equal(admit(1, b, 4, 2), VB_ADMITTED);
    assert_int_equal(admit(0, b, 4, 2), VB_ADMITTED); /* nothing stayed with the one that was refused */
    assert_int_equal(admit(2, none, 4, 2), VB_REFUSED_TOTAL);
    leave(3, a);
    assert_int_equal(admit(2, b, 4, 2), VB_REFUSED_IP);
    assert_int_equal(admit(2, a, 4, 2), VB_ADMITTED);
    leave(0, a);
    leave(0, b);
    leave(1, b);
    leave(2, a);
    assert_nothing_is_held();
}

/* In slots that nobody had when the others began to decide. */
static void who_comes_later_is_counted(void **state)
{
    struct vb_ip ip = ip_number(1);
    vb_shm_close(&master);
    master = create(((struct fixture *)*state)->path, capacity);
    for (unsigned i = 0; i < WORKERS; i++) {
        assert_int_equal(vb_shm_claim_worker(master, i, 1, true), i);
        assert_int_equal(admit(i, ip, i + 1, 0), VB_ADMITTED);
        for (unsigned other = 0; other <= i; other++) {
            assert_int_equal(admit(other, ip, i + 1, 0), VB_REFUSED_TOTAL);
            assert_int_equal(admit(other, ip, 0, i + 1), VB_REFUSED_IP);
        }
    }
}

static void limits_that_come_later_find_who_is_there(void **state)
{
    struct vb_ip ip = ip_number(1);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(admit(i, ip, 0, 0), VB_ADMITTED);
    assert_int_equal(admit(0, none, 3, 0), VB_REFUSED_TOTAL);
    assert_int_equal(admit(0, ip, 0, 3), VB_REFUSED_IP);
    assert_int_equal(admit(0, ip, 4, 4), VB_ADMITTED);
    assert_int_equal(admit(0, ip, 2, 2), VB_REFUSED_IP); /* lowered under what is open */
}

static void no_ip_is_counted_in_total_only(void **state)
{
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(admit(0, none, 5, 1), VB_ADMITTED);
    assert_int_equal(counted_by_ip(0), 0);
    assert_int_equal(admit(1, none, 5, 1), VB_REFUSED_TOTAL);
    for (unsigned i = 0; i < 5; i++)
        leave(0, none);
    assert_nothing_is_held();
}

static void leaving_without_a_place_does_nothing(void **state)
{
    struct vb_ip a = ip_number(1), b = ip_number(2);
    leave(0, none);
    leave(0, a);
    assert_nothing_is_held();
    assert_int_equal(admit(0, a, 1, 1), VB_ADMITTED);
    leave(1, a); /* another's */
    assert_int_equal(admit(1, b, 1, 1), VB_REFUSED_TOTAL);
    leave(0, a);
    leave(0, a);
    assert_nothing_is_held();
}

static void many_addresses(void **state)
{
    enum { ADDRESSES = 2000 };
    for (unsigned n = 0; n < ADDRESSES; n++) {
        assert_int_equal(admit(0, ip_number(n), 0, 2), VB_ADMITTED);
        assert_int_equal(admit(n % WORKERS, ip_number(n), 0, 2), VB_ADMITTED);
    }
    for (unsigned n = 0; n < ADDRESSES; n++)
        assert_int_equal(admit((n + 1) % WORKERS, ip_number(n), 0, 2), VB_REFUSED_IP);
    assert_int_equal(counted_by_ip(0) + counted_by_ip(1) + counted_by_ip(2) + counted_by_ip(3), 2 * ADDRESSES);
    for (unsigned n = 0; n < ADDRESSES; n++) {
        leave(0, ip_number(n));
        leave(n % WORKERS, ip_number(n));
    }
    assert_nothing_is_held();
    /* Others find room in the words that these have left. */
    for (unsigned n = ADDRESSES; n < 20 * ADDRESSES; n++) {
        assert_int_equal(admit(0, ip_number(n), 0, 1), VB_ADMITTED);
        assert_int_equal(admit(1, ip_number(n), 0, 1), VB_REFUSED_IP);
        leave(0, ip_number(n));
    }
}

static void full_bucket_lets_in_uncounted(void **state)
{
    struct vb_ip ips[VB_SHM_IP_WORDS + 1];
    unsigned n = 0;
    for (unsigned i = 0; n < VB_ARRAY_SIZE(ips); i++)
        if (bucket_of(ip_number(i)) == 7)
            ips[n++] = ip_number(i);
    struct vb_ip late = ips[VB_SHM_IP_WORDS];
    for (unsigned i = 0; i < VB_SHM_IP_WORDS; i++)
        assert_int_equal(admit(0, ips[i], 0, 1), VB_ADMITTED);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(admit(0, late, 19, 1), VB_ADMITTED);
    assert_int_equal(admit(0, late, 19, 1), VB_REFUSED_TOTAL);
    assert_int_equal(counted_by_ip(0), VB_SHM_IP_WORDS);
    leave(0, late);
    assert_int_equal(counted_by_ip(0), VB_SHM_IP_WORDS);
    for (unsigned i = 0; i < VB_SHM_IP_WORDS; i++)
        assert_int_equal(admit(1, ips[i], 0, 1), VB_REFUSED_IP);

    leave(0, ips[3]); /* its word is the next one's */
    assert_int_equal(admit(0, late, 0, 1), VB_ADMITTED);
    assert_int_equal(admit(1, late, 0, 1), VB_REFUSED_IP);
    assert_int_equal(admit(1, ips[3], 0, 1), VB_ADMITTED);
    leave(1, ips[3]);
    for (unsigned i = 0; i < 3; i++)
        leave(0, late);
    for (unsigned i = 0; i < VB_SHM_IP_WORDS; i++)
        if (i != 3)
            leave(0, ips[i]);
    assert_nothing_is_held();
}

/* The count of a word does not run over into the fingerprint. */
static void word_full_of_connections(void **state)
{
    struct vb_ip ip = ip_number(1);
    admit(0, ip, 0, 0);
    vb_u64 *word = vb_shm_ips(master, 0)->words[bucket_of(ip)];
    *word |= 0xffffe;
    uint64_t full = *word;
    assert_int_equal(admit(0, ip, 0, 0), VB_ADMITTED);
    assert_true(*word == full);
    leave(0, ip);
    assert_true(*word == full - 2);
    assert_int_equal(admit(0, ip, 0, 1000), VB_REFUSED_IP);
    assert_true(*word == full - 2);
}

static void without_tables_addresses_are_not_counted(void **state)
{
    struct fixture *f = *state;
    struct vb_ip ip = ip_number(1);
    vb_shm_close(&master);
    master = create(f->path, capacity);
    claim_all(master, false);
    assert_int_equal(admit(0, ip, 3, 1), VB_ADMITTED);
    assert_int_equal(admit(0, ip, 3, 1), VB_ADMITTED);
    assert_int_equal(admit(1, ip, 3, 1), VB_ADMITTED);
    assert_int_equal(admit(1, ip, 3, 1), VB_REFUSED_TOTAL);
    leave(0, ip);
    vb_shm_release_worker(master, 0, true);
    assert_int_equal(admit(1, ip, 3, 1), VB_ADMITTED);
}

/* Workers of a configuration with a limit for each address beside those of one without. */
static void who_counts_sees_those_who_count(void **state)
{
    struct vb_ip ip = ip_number(1);
    vb_shm_release_worker(master, 1, false);
    assert_int_equal(vb_shm_claim_worker(master, 1, 2, false), 1);
    assert_int_equal(admit(1, ip, 4, 1), VB_ADMITTED);
    assert_int_equal(admit(1, ip, 4, 1), VB_ADMITTED);
    assert_int_equal(counted_by_ip(1), 0);
    assert_int_equal(admit(0, ip, 4, 1), VB_ADMITTED);
    assert_int_equal(admit(2, ip, 4, 1), VB_REFUSED_IP);
    assert_int_equal(admit(2, ip, 3, 2), VB_REFUSED_TOTAL);
    leave(1, ip);
    assert_int_equal(admit(2, ip, 4, 1), VB_REFUSED_IP); /* it was not counted, so it does not come off */

    vb_shm_release_worker(master, 1, false);
    assert_int_equal(vb_shm_claim_worker(master, 1, 3, true), 1);
    assert_int_equal(admit(1, ip, 4, 1), VB_REFUSED_IP);
    assert_int_equal(admit(1, ip, 4, 2), VB_ADMITTED);
    assert_int_equal(admit(0, ip, 4, 2), VB_REFUSED_IP);
    leave(0, ip);
    leave(1, ip);
    assert_nothing_is_held();
}

/* Whoever had counted there before, its slot begins with an empty table. */
static void a_slot_that_counts_again_begins_at_nothing(void **state)
{
    static const struct vb_shm_ips empty;
    for (unsigned n = 0; n < 100; n++)
        assert_int_equal(admit(1, ip_number(n), 0, 1), VB_ADMITTED);
    for (unsigned n = 0; n < 50; n++)
        leave(1, ip_number(n));
    vb_shm_release_worker(master, 1, true);
    assert_int_equal(admit(0, ip_number(99), 0, 1), VB_ADMITTED); /* no table of a free slot counts */
    assert_int_equal(vb_shm_claim_worker(master, 1, 2, true), 1);
    assert_memory_equal(vb_shm_ips(master, 1), &empty, sizeof(empty));
    assert_int_equal(admit(1, ip_number(98), 0, 1), VB_ADMITTED);
}

/* ---- several workers ----------------------------------------------------------------------------------------------*/

struct job {
    unsigned slot, total, per_ip, expected, tries;
};

/* Lets them all go at the same moment, as far as there are CPUs: who sleeps until then comes too late. */
static void meet(unsigned times)
{
    shared->arrived++;
    while (shared->arrived < times * WORKERS)
        sched_yield();
}

/* All try at once and nobody leaves: exactly as many as there are places get in. */
static void try_at_once(const struct job *job)
{
    struct vb_ip ip = ip_number(1);
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned mine = 0;
        meet(2 * round + 1);
        for (unsigned i = 0; i < job->tries; i++) {
            uint64_t begin = now_us();
            if (admit(job->slot, ip, job->total, job->per_ip) == VB_ADMITTED)
                mine++;
            else if (now_us() - begin >= PATIENCE_US)
                shared->slow = true;
        }
        shared->admitted += mine;
        meet(2 * round + 2);
        if (job->slot == 0) {
            if (shared->slow && shared->admitted <= job->expected)
                shared->disturbed_rounds++;
            else if (shared->admitted != job->expected)
                shared->wrong_rounds++;
            shared->admitted = 0;
            shared->slow = false;
        }
        for (; mine > 0; mine--)
            leave(job->slot, ip);
    }
}

static void exactly_as_many_as_places(void **state)
{
    static const struct job jobs[] = {
        {.total = 7, .expected = 7, .tries = 4},
        {.total = 3, .expected = 3, .tries = 1},
        {.total = 1, .expected = 1, .tries = 1},
        {.per_ip = 7, .expected = 7, .tries = 4},
        {.per_ip = 3, .expected = 3, .tries = 1},
        {.per_ip = 1, .expected = 1, .tries = 1},
        {.total = 10, .per_ip = 6, .expected = 6, .tries = 4},
        {.total = 6, .per_ip = 10, .expected = 6, .tries = 4},
    };
    for (unsigned i = 0; i < VB_ARRAY_SIZE(jobs); i++) {
        pid_t pids[WORKERS];
        for (unsigned slot = 0; slot < WORKERS; slot++) {
            struct job job = jobs[i];
            job.slot = slot;
            pids[slot] = fork_child();
            if (pids[slot] == 0) {
                try_at_once(&job);
                _exit(0);
            }
        }
        for (unsigned slot = 0; slot < WORKERS; slot++)
            assert_int_equal(status_of(pids[slot]), 0);
        assert_int_equal(shared->wrong_rounds, 0);
        assert_true(shared->disturbed_rounds < ROUNDS / 10);
        shared->disturbed_rounds = shared->arrived = 0;
        assert_nothing_is_held();
    }
}

enum { HAMMER_TOTAL = 3, HAMMER_PER_IP = 2 };

/* Comes and goes: those inside, counted on their own, are never more than may be. */
static void hammer(unsigned slot, unsigned times)
{
    for (unsigned i = 0; i < times; i++) {
        unsigned which = (slot + i / 3) % 2;
        if (admit(slot, ip_number(which), HAMMER_TOTAL, HAMMER_PER_IP) != VB_ADMITTED)
            continue;
        uint32_t one = which == 0 ? 1 : 1 << 16;
        uint32_t inside = atomic_fetch_add(&shared->inside, one) + one, a = inside & 0xffff, b = inside >> 16;
        if (a > HAMMER_PER_IP || b > HAMMER_PER_IP || a + b > HAMMER_TOTAL)
            shared->too_many = true;
        shared->admitted++;
        atomic_fetch_sub(&shared->inside, one);
        leave(slot, ip_number(which));
    }
}

static void *hammer_in_thread(void *slot)
{
    hammer((unsigned)(uintptr_t)slot, 20000);
    return NULL;
}

static void never_too_many_from_threads(void **state)
{
    pthread_t threads[WORKERS];
    for (unsigned slot = 0; slot < WORKERS; slot++)
        assert_int_equal(pthread_create(&threads[slot], NULL, hammer_in_thread, (void *)(uintptr_t)slot), 0);
    for (unsigned slot = 0; slot < WORKERS; slot++)
        pthread_join(threads[slot], NULL);
    assert_false(shared->too_many);
    assert_true(shared->admitted > 1000);
    assert_nothing_is_held();
}

static void never_too_many_from_processes(void **state)
{
    pid_t pids[WORKERS];
    for (unsigned slot = 0; slot < WORKERS; slot++) {
        pids[slot] = fork_child();
        if (pids[slot] == 0) {
            hammer(slot, 20000);
            _exit(0);
        }
    }
    for (unsigned slot = 0; slot < WORKERS; slot++)
        assert_int_equal(status_of(pids[slot]), 0);
    assert_false(shared->too_many);
    assert_true(shared->admitted > 1000);
    assert_nothing_is_held();
}

/* ---- dead and stopped workers -------------------------------------------------------------------------------------*/

static void places_of_a_killed_worker_come_back(void **state)
{
    struct vb_ip ip = ip_number(1);
    int told[2];
    char byte;
    assert_int_equal(pipe(told), 0);
    pid_t pid = fork_child();
    if (pid == 0) {
        for (unsigned i = 0; i < 3; i++)
            admit(1, ip, 3, 3);
        if (write(told[1], "r", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    assert_int_equal(read(told[0], &byte, 1), 1);
    close(told[0]);
    close(told[1]);
    assert_int_equal(admit(0, none, 3, 3), VB_REFUSED_TOTAL);
    assert_int_equal(admit(0, ip, 0, 3), VB_REFUSED_IP);
    kill(pid, SIGKILL);
    assert_int_equal(status_of(pid), -1);
    assert_int_equal(admit(0, ip, 0, 3), VB_REFUSED_IP); /* until the master has seen to it */
    vb_shm_release_worker(master, 1, true);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(admit(0, ip, 3, 3), VB_ADMITTED);
    assert_int_equal(admit(0, ip, 3, 3), VB_REFUSED_IP);
}

/* Wherever it is killed, nothing of it stays. */
static void killed_at_any_moment(void **state)
{
    for (unsigned round = 0; round < 50; round++) {
        pid_t pid = fork_child();
        if (pid == 0)
            for (;;)
                hammer(1, 1000);
        usleep(round * 37);
        kill(pid, SIGKILL);
        assert_int_equal(status_of(pid), -1);
        vb_shm_release_worker(master, 1, true);
        assert_nothing_is_held();
        assert_int_equal(vb_shm_claim_worker(master, 1, round, true), 1);
    }
}

/* Stops a worker by hand where it is about to decide. */
static void set_trying(unsigned slot, struct vb_ip ip)
{
    vb_shm_worker(master, slot)->admission |= 1;
    admit(slot, ip, 0, 0);
    leave(slot, ip);
    vb_shm_ips(master, slot)->words[bucket_of(ip)][0] |= 1;
    vb_shm_worker(master, slot)->admission |= 1;
}

static void stopped_worker_hangs_nobody(void **state)
{
    static const unsigned stopped[] = {0, 3}; /* below and above those that go on */
    struct vb_ip ip = ip_number(1);
    for (unsigned i = 0; i < VB_ARRAY_SIZE(stopped); i++) {
        set_trying(stopped[i], ip);
        assert_int_equal(admit(1, ip, 3, 3), VB_ADMITTED);
        assert_int_equal(admit(2, ip, 3, 3), VB_ADMITTED);
        uint64_t begin = now_us();
        assert_int_equal(admit(1, ip, 3, 0), VB_REFUSED_TOTAL); /* the last place may be the stopped one's */
        assert_int_equal(admit(1, ip, 0, 3), VB_REFUSED_IP);
        assert_true(now_us() - begin < 2000000);
        assert_int_equal(admit(1, ip, 4, 4), VB_ADMITTED);
        leave(1, ip);

        vb_shm_release_worker(master, stopped[i], true);
        assert_int_equal(admit(1, ip, 3, 3), VB_ADMITTED);
        leave(1, ip);
        leave(1, ip);
        leave(2, ip);
        assert_nothing_is_held();
        assert_int_equal(vb_shm_claim_worker(master, stopped[i], 2, true), stopped[i]);
    }
}

static void *start_again(void *withdrawn)
{
    usleep(1000);
    *(unsigned *)withdrawn += vb_shm_worker(master, 1)->admission == 0;
    vb_shm_worker(master, 0)->admission = 0;
    return NULL;
}

/* One that goes on within the time that is allowed costs nobody a place; those above it do not stand in its way. */
static void worker_that_goes_on_is_waited_for(void **state)
{
    unsigned admitted = 0, withdrawn = 0;
    for (unsigned round = 0; round < 20; round++) {
        pthread_t thread;
        vb_shm_worker(master, 0)->admission = 1;
        assert_int_equal(pthread_create(&thread, NULL, start_again, &withdrawn), 0);
        if (admit(1, none, 1, 0) == VB_ADMITTED) {
            admitted++;
            leave(1, none);
        }
        pthread_join(thread, NULL);
    }
    assert_true(admitted > 10);
    assert_true(withdrawn > 10);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup_master, teardown_master)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(limits_hold_over_slots),
        TEST(who_comes_later_is_counted),
        TEST(limits_that_come_later_find_who_is_there),
        TEST(no_ip_is_counted_in_total_only),
        TEST(leaving_without_a_place_does_nothing),
        TEST(many_addresses),
        TEST(full_bucket_lets_in_uncounted),
        TEST(word_full_of_connections),
        TEST(without_tables_addresses_are_not_counted),
        TEST(who_counts_sees_those_who_count),
        TEST(a_slot_that_counts_again_begins_at_nothing),
        TEST(exactly_as_many_as_places),
        TEST(never_too_many_from_threads),
        TEST(never_too_many_from_processes),
        TEST(places_of_a_killed_worker_come_back),
        TEST(killed_at_any_moment),
        TEST(stopped_worker_hangs_nobody),
        TEST(worker_that_goes_on_is_waited_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
