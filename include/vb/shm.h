/*
 * The shared segment: the one truth about backends, workers and traffic. The master makes it, its health thread and the
 * workers write it, vbctl reads it. Fixed capacity, no pointers: everything is an array of rows behind the header.
 *
 *   section      rows                      writer (only one for each word, but where it says all)
 *   header       1                         master main thread
 *   pools        cap.backends              master main thread; `epoch` by all, `ejecting` and the line of `cursor` by
 *                                          all workers (atomics: members.c, lb/outlier.c, lb/budget.c)
 *   backends     cap.backends              membership: master main thread; health and address: health thread; what
 *                                          requests have shown: all workers (atomics, each word for itself)
 *   workers      cap.workers               master at spawn and reap; signs of life and stats by the worker in that slot
 *   in_flight    cap.workers x backends    the worker in that slot; zeroed by the master when the worker is dead
 *   loads, tallies  cap.backends, / 16    all workers (atomics: in_flight.c); the master when a worker is dead
 *   places       cap.workers x pools       the worker in that slot; zeroed by the master when the worker is dead
 *   traffic      cap.workers x backends    the worker in that slot
 *   ips          cap.workers               the worker in that slot; zeroed by the master when the worker is dead. Only
 *                                          of one that counts_ips
 *
 * There is room for many more slots than are in use, and it costs nothing: from `workers` on, rows have memory from
 * when their slot is first claimed; a backend's traffic rows from when it is added, if that is later; ips from when a
 * worker counts them. Other rows are holes in the file, and to touch one takes a page, or on a full tmpfs is a SIGBUS.
 * So loops over slots end at vb_shm_slots.
 *
 * A slot's counters go on when another worker takes it over, so sums over slots only grow. Single words are relaxed
 * atomics; records of several words that change while readers read carry a sequence number (odd while being written).
 *
 * Nothing in a segment is trusted by a reader: vb_shm_attach checks the header once, keeps its own copy of the
 * capacities, and every accessor checks its index against that copy.
 */
#ifndef VB_SHM_H
#define VB_SHM_H

#include <stdalign.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "vb/addr.h"
#include "vb/base.h"
#include "vb/err.h"
#include "vb/hist.h"
#include "vb/str.h"

#define VB_SHM_MAGIC        0x4d47455331424c56ull /* "VLB1SEGM" */
#define VB_SHM_VERSION      6u
#define VB_SHM_NAME_MAX     64
#define VB_SHM_ADDRESS_MAX  264
#define VB_SHM_WORKERS_MAX  256
#define VB_SHM_BACKENDS_MAX 4096
#define VB_SHM_MARKS        16
#define VB_SHM_REQUEST_MAX  112

typedef _Atomic uint64_t vb_u64;
typedef _Atomic uint32_t vb_u32;

enum vb_pool_use { VB_POOL_FREE, VB_POOL_USED, VB_POOL_LEAVING };
enum vb_instance_state { VB_INSTANCE_STARTING = 1, VB_INSTANCE_RUNNING, VB_INSTANCE_STOPPING };
enum vb_worker_state { VB_WORKER_FREE, VB_WORKER_STARTING, VB_WORKER_READY, VB_WORKER_DRAINING };
enum vb_admin_state { VB_ADMIN_READY, VB_ADMIN_DRAIN, VB_ADMIN_MAINT };
/* UNKNOWN (not probed yet) and UNCHECKED (health: off) are served like UP. */
enum vb_health_state { VB_HEALTH_UNKNOWN, VB_HEALTH_UP, VB_HEALTH_DOWN, VB_HEALTH_UNCHECKED };

struct vb_shm_capacity {
    uint32_t workers, backends; /* pools share the capacity of backends: each pool has at least one */
};

struct vb_shm_header {
    uint64_t magic;
    uint32_t version;
    vb_u32 ready; /* 1, with release order, once everything else is there */
    uint32_t header_size, pool_size, backend_size, worker_size, traffic_size;
    struct vb_shm_capacity cap;
    vb_u32 slots; /* of workers, that have ever been claimed: 0..slots-1. Read it with vb_shm_slots */
    /* bytes from the start */
    uint64_t pools_at, backends_at, loads_at, tallies_at, workers_at, in_flight_at, places_at, traffic_at, ips_at;
    uint64_t total_size;
    uint64_t ip_key[2];     /* random: who cannot read the segment cannot say which addresses share a bucket */
    uint64_t sticky_key[2]; /* likewise: what signs the cookies of pools that have no secret of their own */
    char boot_id[40];
    char name[VB_SHM_NAME_MAX];
    char program_version[32];
    char config_file[256];
    char control_path[108]; /* of the master's control socket; empty: it has none */
    uint64_t start_wall_us;
    int32_t master_pid;
    vb_u32 state;      /* enum vb_instance_state */
    vb_u32 generation; /* of the configuration, from 1 */
    vb_u32 workers_wanted;
    vb_u64 log_lost; /* lines that could not be written; by the log thread */
    vb_u64 reloads, reloads_failed;
    vb_u64 reload_wall_us; /* end of the last one; 0: there was none */
    vb_u32 reload_failed;  /* 1: the last one did */
    char reload_text[512]; /* what is wrong then; it may change meanwhile: vb_shm_text */
};

struct vb_shm_pool {
    vb_u32 used; /* enum vb_pool_use. LEAVING: only workers of old generations still use it and its backends */
    char name[VB_SHM_NAME_MAX];
    char balance[24];   /* the policy's name */
    vb_u32 max_ejected; /* per cent of those that are not down */
    vb_u32 panic;       /* per cent: when a smaller share of its backends is usable, all are tried; 0: never */
    /* Grows whenever the set of backends that may be picked, or a weight, changes: workers then look again. */
    alignas(64) vb_u32 epoch;
    vb_u32 ejecting; /* 1 + the slot of the worker that decides about an ejection just now; 0: nobody does */
    /* Requests of this pool, by the second (modulo their number), for the retry budget. The master writes them. */
    vb_u64 request_marks[VB_SHM_MARKS];
    /* The next ticket, shared by all workers: how many backends have been picked by the policy. */
    alignas(64) vb_u64 cursor;
    vb_u64 stuck;        /* ... and how many by a cookie */
    vb_u64 retries;      /* of all these picks, those for a further try of a request */
    vb_u64 retry_credit; /* what the retry budget has given out, in hundredths */
};

/* What the health thread knows of a backend. Several words: read it with vb_shm_read_health. */
struct vb_health_record {
    uint64_t checks, failures; /* probes made, and how many of them failed */
    uint64_t history;          /* the last 64 results, the newest in bit 0, 1 = passed; valid up to `checks` */
    uint64_t changed_wall_us;  /* when `health` took its present value; 0: never */
    uint64_t last_wall_us;     /* end of the last probe; 0: none yet */
    uint32_t last_latency_us;
    uint32_t transitions;
    char reason[104];     /* of the last failure, e.g. "connection refused"; empty: none yet */
    uint32_t address_len; /* 0: the name has not been resolved */
    uint32_t incarnation; /* of the slot that this was found out for */
    struct sockaddr_storage address;
};

/*
 * A slot is free for another backend when it is not `used`, the file does not name its last one, and no request is in
 * flight there.
 */
struct vb_shm_backend {
    vb_u32 used;
    vb_u32 incarnation; /* grows when the slot is given to another backend, or its name to another address (atomic) */
    vb_u32 pool;        /* index */
    vb_u32 admin;       /* enum vb_admin_state */
    vb_u32 weight;
    vb_u32 health;            /* enum vb_health_state, on its own because every pick reads it */
    vb_u32 configured_weight; /* as the file has it; 0: the file does not name this backend */
    vb_u32 max_connections;   /* requests in flight, over all workers; 0: no limit */
    vb_u32 backup;            /* 1: gets requests only where no other of its pool is usable */
    vb_u32 unsettled;         /* 1: its shared count of requests in flight may be wrong; see in_flight.c */
    char name[VB_SHM_NAME_MAX];
    char address[VB_SHM_ADDRESS_MAX]; /* as configured: host:port */
    alignas(64) vb_u32 record_seq;
    struct vb_health_record record;
    /* What requests have shown, of all workers together. See lb/outlier.c and proxy/keepalive.c. */
    alignas(64) vb_u32 failures; /* in a row */
    vb_u32 ejections_in_row;
    vb_u32 last_failure;      /* enum vb_backend_failure */
    vb_u32 announced_idle_ms; /* how long it keeps idle connections, as it says (Keep-Alive: timeout); 0: nothing */
    vb_u32 learned_idle_ms;   /* ... as it was seen; 0: not known */
    vb_u64 ejected_until_us;  /* monotonic clock; in the future: it gets no requests */
    vb_u64 ejections;         /* in all */
    /* It was added, has come up, or has become ready (again; monotonic): see slow start. 0: it has yet to be ready. */
    vb_u64 ready_since_us;
    vb_u64 latency;       /* of the policy `fastest`; lb/policy_fastest.c has its form */
    vb_u64 reported_load; /* of the policy `least_load`; lb/policy_least_load.c has its form */
};

/*
 * Requests in flight at backends, of all workers: what balancing sees. One word for each backend; sixteen of them are a
 * line, and for a line a tally may be kept: its least load, and how many have that. See in_flight.c.
 */
#define VB_SHM_LINE 16u
struct vb_shm_tally {
    uint32_t least;
    unsigned ties;
};

/* Of one worker, for one pool: how many there are << 1 | one is being decided; see admission.c. */
struct vb_shm_places {
    vb_u64 requests;       /* between their first pick and their end */
    vb_u64 pending;        /* of these, those that wait for a connection, or for their turn at a backend */
    vb_u64 waits_since_us; /* of these, the one that has waited longest for its turn (monotonic); 0: none */
    vb_u64 stuck_since;    /* likewise of those that wait for one backend only, and which; see lb/line.c */
};

/* Why a backend was picked. */
enum vb_pick_reason {
    VB_PICK_POLICY,  /* its turn, says the policy */
    VB_PICK_STICKY,  /* a cookie names it */
    VB_PICK_RETRY,   /* a further try: others have failed */
    VB_PICK_PANIC,   /* too few are usable, so that all are tried */
    VB_PICK_BACKUP,  /* nobody but backups is usable */
    VB_PICK_ONLY,    /* no other is usable */
    VB_PICK_SPILL,   /* hash: the key's own backend has more than its share */
    VB_PICK_EXPLORE, /* fastest, least_load: nothing recent is known of it */
    VB_PICK_REASONS  /* how many there are */
};

/* How a request failed at a backend. */
enum vb_backend_failure {
    VB_BACKEND_NEVER_FAILED,
    VB_BACKEND_REFUSED,          /* no connection */
    VB_BACKEND_CONNECT_TIMEOUT,  /* no connection in time */
    VB_BACKEND_RESPONSE_TIMEOUT, /* no response in time */
    VB_BACKEND_IDLE_TIMEOUT,     /* it stopped in the middle */
    VB_BACKEND_CLOSED,           /* FIN too early */
    VB_BACKEND_RESET,            /* RST */
    VB_BACKEND_BAD_RESPONSE,     /* no valid HTTP */
    VB_BACKEND_STATUS,           /* a status that retry.on names */
};

enum vb_stat_kind { VB_STAT_COUNTER, VB_STAT_GAUGE };

struct vb_shm_worker {
    vb_u32 state; /* enum vb_worker_state */
    vb_u32 index; /* 0..N-1: which listening sockets it serves */
    vb_u32 generation;
    _Atomic int32_t pid;
    vb_u64 start_wall_us;
    vb_u64 restarts;        /* workers that died in this slot and were replaced */
    vb_u64 requests_before; /* value of `requests` when this process took the slot */
    vb_u64 admission;  /* connections admitted << 1 | one is being decided; written by the worker, see admission.c */
    vb_u32 counts_ips; /* 1: this worker counts connections by their IP address too, in its table */
    vb_u32 inbound;    /* connections that other workers have given to it and it has not taken yet (atomic) */
    /* Signs of life, by the worker, for the watchdog (monotonic clock). 0: none yet. */
    alignas(128) vb_u64 heartbeat_us; /* its loop turned; 0 also when it has left its loop for good */
    vb_u64 request_us;                /* it took a request */
    /* ... this one, method and path as the client wrote them, cut to what fits and without the query, which may hold
     * secrets: everyone may read a segment. Read it with vb_shm_text: it may change meanwhile, and then is a mixture.
     */
    char request[VB_SHM_REQUEST_MAX];
    alignas(128) char stats_begin[0];
#define VB_WORKER_STAT(field, kind, help) vb_u64 field;
#include "vb/stats.def"
};

/*
 * One worker's connections by their IP address: a hash table of 128 KiB, whose words are fingerprint (44 bits) | count
 * (19 bits) | one is being decided (1 bit).
 */
#define VB_SHM_IP_BUCKETS 1024u
#define VB_SHM_IP_WORDS   16u
struct vb_shm_ips {
    alignas(128) vb_u64 words[VB_SHM_IP_BUCKETS][VB_SHM_IP_WORDS];
};

/* One worker's traffic with one backend. */
struct vb_shm_traffic {
    alignas(128) char stats_begin[0];
#define VB_BACKEND_STAT(field, kind, help) vb_u64 field;
#include "vb/stats.def"
    vb_u64 picks[VB_PICK_REASONS];   /* requests given to it, by the reason */
    vb_u64 latency[VB_HIST_BUCKETS]; /* from the request's head to the response's last byte, see vb/hist.h */
};

struct vb_shm; /* a mapped segment: its address, its size, and a checked copy of its capacities */

/* ---- making and finding -------------------------------------------------------------------------------------------*/

/* `/dev/shm/vibebalancer-NAME`; -ENAMETOOLONG. */
int vb_shm_default_path(char *to, size_t size, const char *name);

/* Bytes of the file of a segment of this capacity, holes included. */
uint64_t vb_shm_size(struct vb_shm_capacity cap);

/* Bytes of memory that the file takes now. */
uint64_t vb_shm_memory(const struct vb_shm *shm);

/*
 * Makes the segment of a new instance at `path`, reserves the pages of all rows but those of worker slots, and holds a
 * lock on it for as long as the process lives: that lock decides who is master. The new file takes the place of one
 * that a dead master left. The header is filled in except for `ready`; nobody can attach before vb_shm_publish. -EBUSY:
 * a living master has it. -ENOSPC: no room; the sentence says how much is needed. Others: negative errno.
 */
int vb_shm_create(struct vb_shm **ret_shm, const char *path, const char *name, struct vb_shm_capacity cap,
                  struct vb_error *err);
void vb_shm_publish(struct vb_shm *shm);

/* A descriptor for a worker to inherit; not the one that holds the lock. Owned by `shm`. */
int vb_shm_fd_for_workers(const struct vb_shm *shm);

/* Removes the file, if it is still ours: for a clean stop. */
void vb_shm_unlink(struct vb_shm *shm);

/* What a master has of its segment, for the one that takes its place in the same process. Owned by `shm`. */
struct vb_shm_files {
    const char *path;
    int lock_fd, fd; /* with the lock, without it */
};
struct vb_shm_files vb_shm_files(const struct vb_shm *shm);

/*
 * In that successor: maps it, and is the owner of the descriptors from then on. -EPROTO: it is of another layout
 * version; the sentence says which.
 */
int vb_shm_adopt(struct vb_shm **ret_shm, const struct vb_shm_files *files, struct vb_error *err);

/* One that nobody else sees, without a file, and memory only for what is touched: for simulations. -EINVAL, -ENOMEM. */
int vb_shm_create_private(struct vb_shm **ret_shm, struct vb_shm_capacity cap);

/* In a worker: maps the inherited descriptor for writing, ready or not. `fd` stays the caller's. */
int vb_shm_attach_fd(struct vb_shm **ret_shm, int fd, struct vb_error *err);

/*
 * In a tool: maps the file read-only. Waits up to 100 ms for `ready`. -ENOENT: no such file. -EPROTO: not a segment, or
 * one of another layout version; the sentence says which.
 */
int vb_shm_attach(struct vb_shm **ret_shm, const char *path, struct vb_error *err);

/* Does a living master hold the lock? Asks only, takes nothing. */
bool vb_shm_alive(const struct vb_shm *shm);

/* Unmaps, closes, frees, sets NULL; *shm may be NULL. Does not unlink. */
void vb_shm_close(struct vb_shm **shm);

/* ---- when a master was killed (locks.c) ---------------------------------------------------------------------------*/

/* In a worker: it has listening sockets from now on, or none any more. Known for as long as the process lives. */
void vb_shm_worker_listens(const struct vb_shm *shm, unsigned slot, bool listens);

/* In the next master: the pid of the one that left its segment behind. 0: there was none, or of another layout. */
pid_t vb_shm_last_master(const struct vb_shm *shm);

/* Do processes of that one live still, of whatever layout? */
bool vb_shm_has_orphans(const struct vb_shm *shm);

/* Of these the worker in a slot below VB_SHM_WORKERS_MAX; 0: there is none, or it has not told yet that it lives. */
pid_t vb_shm_orphan(const struct vb_shm *shm, unsigned slot, bool *ret_listens);

/* Lets the last one's file go, and its memory; from then on there are no orphans. */
void vb_shm_forget_last(struct vb_shm *shm);

/* ---- rows ---------------------------------------------------------------------------------------------------------*/

struct vb_shm_capacity vb_shm_capacity(const struct vb_shm *shm);
struct vb_shm_header *vb_shm_header(const struct vb_shm *shm);

/* How many worker slots have ever been claimed, never more than the capacity; of others there is nothing to read. */
unsigned vb_shm_slots(const struct vb_shm *shm);

/* Index at or over the capacity ends the process: indexes come from our own loops, or were checked. */
struct vb_shm_pool *vb_shm_pool(const struct vb_shm *shm, unsigned pool);
struct vb_shm_backend *vb_shm_backend(const struct vb_shm *shm, unsigned backend);
struct vb_shm_worker *vb_shm_worker(const struct vb_shm *shm, unsigned slot);
struct vb_shm_traffic *vb_shm_traffic(const struct vb_shm *shm, unsigned slot, unsigned backend);
/* A slot's requests in flight, an array over all backends; see in_flight.c for the words. */
vb_u64 *vb_shm_in_flight(const struct vb_shm *shm, unsigned slot);
/* All workers' requests in flight, an array over all backends, and the tallies of its lines. */
vb_u32 *vb_shm_loads(const struct vb_shm *shm);
vb_u64 *vb_shm_tallies(const struct vb_shm *shm);
struct vb_shm_places *vb_shm_places(const struct vb_shm *shm, unsigned slot, unsigned pool);
/* A slot's table; only of one that counts_ips. */
struct vb_shm_ips *vb_shm_ips(const struct vb_shm *shm, unsigned slot);

/* ---- membership (master main thread) ------------------------------------------------------------------------------*/

struct vb_pool_spec {
    const char *name, *balance;
    unsigned panic;       /* per cent; 0: never */
    unsigned max_ejected; /* per cent */
};

struct vb_backend_spec {
    const char *name, *address;
    unsigned weight;
    bool configured;             /* the file names it */
    enum vb_health_state health; /* what it is taken for until it has been looked at */
    enum vb_admin_state admin;
    bool beside;              /* one of this name may be there, which the caller forgets soon */
    unsigned max_connections; /* 0: no limit */
    bool backup;
};

/* What the file says of a backend, besides who it is. */
struct vb_backend_settings {
    unsigned weight, max_connections;
    bool backup;
};

/*
 * Takes a free slot. >= 0: its index. -ENOSPC: capacity is used up. -EEXIST: the name is taken. -EINVAL: too long.
 * -ENOMEM: no room for the backend's traffic rows. A backend that was removed comes back into its slot, and to its
 * figures, if the file names it.
 */
int vb_shm_add_pool(struct vb_shm *shm, const struct vb_pool_spec *spec);
int vb_shm_add_backend(struct vb_shm *shm, unsigned pool, const struct vb_backend_spec *spec);

/* From now on it has these settings; its name stays. */
void vb_shm_set_pool(struct vb_shm *shm, unsigned pool, const struct vb_pool_spec *spec);

/* It is LEAVING: not found any more, but there for those who know it. */
void vb_shm_retire_pool(struct vb_shm *shm, unsigned pool);

/* One that is LEAVING is used again, as it is. Its slot; -ENOENT: there is none of this name. */
int vb_shm_recall_pool(struct vb_shm *shm, const char *name);

/* Nobody uses it any more: its backends are forgotten, and its slot is as new for the next pool. */
void vb_shm_free_pool(struct vb_shm *shm, unsigned pool);

/* It gets no new requests from now on: whoever reads its requests in flight after this sees all there will ever be. */
void vb_shm_remove_backend(struct vb_shm *shm, unsigned backend);

/* Removes it for good: the file names it no more. Added again under this name, it is another, and its figures begin
 * at 0. */
void vb_shm_forget_backend(struct vb_shm *shm, unsigned backend);

/* The file names it, with these settings: that takes the place of what an operator has said. */
void vb_shm_configure_backend(struct vb_shm *shm, unsigned backend, const struct vb_backend_settings *settings);

void vb_shm_set_admin(struct vb_shm *shm, unsigned backend, enum vb_admin_state admin);
void vb_shm_set_weight(struct vb_shm *shm, unsigned backend, unsigned weight);

/* By name, in use and not LEAVING. -ENOENT. For any process. */
int vb_shm_find_pool(const struct vb_shm *shm, const char *name);
int vb_shm_find_backend(const struct vb_shm *shm, unsigned pool, const char *name);

/* ---- health (health thread writes, all read) ----------------------------------------------------------------------*/

/* Publishes the record, then the state; when the state changed, the pool's epoch too. */
void vb_shm_write_health(struct vb_shm *shm, unsigned backend, enum vb_health_state health,
                         const struct vb_health_record *record);

/* A consistent copy; false when the writer seems to have died in the middle (the copy is zeroed). */
bool vb_shm_read_health(const struct vb_shm *shm, unsigned backend, struct vb_health_record *ret_record);

/* Is it ejected at this time (monotonic clock)? May it be given a new request then? */
bool vb_shm_backend_ejected(const struct vb_shm_backend *backend, uint64_t now_us);
bool vb_shm_backend_usable(const struct vb_shm_backend *backend, uint64_t now_us);

/* ---- workers (master) ---------------------------------------------------------------------------------------------*/

/*
 * Takes a free slot for worker `index`, before its process exists (admission.c builds on that). -ENOSPC. -ENOMEM: no
 * room for its rows. `count_ips`: it will count connections by their IP address. The worker's pid follows with
 * vb_shm_worker_started.
 */
int vb_shm_claim_worker(struct vb_shm *shm, unsigned index, unsigned generation, bool count_ips);
void vb_shm_worker_started(struct vb_shm *shm, unsigned slot, pid_t pid);

/* The process in this slot is gone: gives back all it counted as present. Counters stay. The slot becomes free. */
void vb_shm_release_worker(struct vb_shm *shm, unsigned slot, bool died);

/* ---- requests in flight (the worker in that slot) -----------------------------------------------------------------*/

/*
 * Counts a request at a backend, if it has fewer than `limit` (0: no limit) in all workers, and takes it back. No other
 * worker can have come to the limit at the same time: exact, without a lock.
 */
bool vb_shm_begin(const struct vb_shm *shm, unsigned slot, unsigned backend, unsigned limit);
void vb_shm_end(const struct vb_shm *shm, unsigned slot, unsigned backend);

/* How many there are now in all workers, by the shared count. */
static inline uint32_t vb_shm_load(const struct vb_shm *shm, unsigned backend)
{
    int32_t load = (int32_t)atomic_load_explicit(&vb_shm_loads(shm)[backend], memory_order_relaxed);
    return load > 0 ? (uint32_t)load : 0; /* below 0: for a moment, after a crash */
}

/*
 * From now on the line's tally is kept, by all workers: who counts sees to it. Where all sixteen are of interest, that
 * saves looking at each.
 */
void vb_shm_keep_tally(const struct vb_shm *shm, unsigned line);

/* Only of a line whose tally is kept: least load:32 | ties:5 | ... */
#define VB_SHM_TIES_AT   32
#define VB_SHM_TIES_MASK 31u
static inline struct vb_shm_tally vb_shm_read_tally(const vb_u64 *tally)
{
    uint64_t word = atomic_load_explicit(tally, memory_order_acquire);
    return (struct vb_shm_tally){(uint32_t)word, (unsigned)(word >> VB_SHM_TIES_AT) & VB_SHM_TIES_MASK};
}

/*
 * In the master, after a worker has died, and each second: makes the shared counts true where the dead one was in the
 * middle of counting.
 */
void vb_shm_settle(struct vb_shm *shm);

/* ---- signs of life (the worker in that slot) ----------------------------------------------------------------------*/

/* It takes a request; what is noted is what costs no more than a copy of a few bytes. */
void vb_shm_worker_takes(struct vb_shm_worker *worker, uint64_t now_us, struct vb_str method, struct vb_str target);

/* When it last gave a sign of life; 0: it has given none, or has left its loop for good. */
uint64_t vb_shm_worker_moved_us(const struct vb_shm_worker *worker);

/* ---- limits of connections (workers) ------------------------------------------------------------------------------*/

/*
 * How many connections may be open, counted over all workers: exact when many come at once, and what a dead worker held
 * is given back by vb_shm_release_worker. Each worker writes only its own counts, and counts also where there is no
 * limit: one may come later, and finds the connections that are open by then.
 */
struct vb_shm_connection_limits {
    unsigned total;  /* 0: no limit */
    unsigned per_ip; /* 0: no limit; a worker that counts nothing by ip has none either */
};

enum vb_admission { VB_ADMITTED, VB_REFUSED_TOTAL, VB_REFUSED_IP };

/*
 * Takes a place for a connection from `ip`, if there is one, in a slot that was claimed. An `ip` that is none is not
 * counted by itself. May wait some milliseconds where the last places hang on a worker that was stopped in the middle.
 */
enum vb_admission vb_shm_admit(struct vb_shm *shm, unsigned slot, const struct vb_ip *ip,
                               const struct vb_shm_connection_limits *limits);

/* Gives it back: the same ip. Without vb_shm_admit before it does nothing. */
void vb_shm_leave(struct vb_shm *shm, unsigned slot, const struct vb_ip *ip);

/* ---- limits of a pool's requests (workers) ------------------------------------------------------------------------*/

enum vb_place { VB_PLACE_REQUEST, VB_PLACE_PENDING };

/* Takes a place, as above exact over all workers, if there is one; `limit` 0: there always is. */
bool vb_shm_enter(struct vb_shm *shm, unsigned slot, unsigned pool, enum vb_place place, unsigned limit);
void vb_shm_exit(struct vb_shm *shm, unsigned slot, unsigned pool, enum vb_place place);

/* ---- reading sums -------------------------------------------------------------------------------------------------*/

struct vb_worker_sum {
#define VB_WORKER_STAT(field, kind, help) uint64_t field;
#include "vb/stats.def"
};
struct vb_traffic_sum {
#define VB_BACKEND_STAT(field, kind, help) uint64_t field;
#include "vb/stats.def"
    uint64_t in_flight;
    uint64_t picks[VB_PICK_REASONS];
    uint64_t latency[VB_HIST_BUCKETS];
};

/* Adds all slots' figures to *sum, which the caller zeroes first (so several backends can be added up). */
void vb_shm_add_workers(const struct vb_shm *shm, struct vb_worker_sum *sum);
void vb_shm_add_traffic(const struct vb_shm *shm, unsigned backend, struct vb_traffic_sum *sum);
uint64_t vb_shm_sum_in_flight(const struct vb_shm *shm, unsigned backend);
uint64_t vb_shm_sum_places(const struct vb_shm *shm, unsigned pool, enum vb_place place);

/*
 * A string of the segment as text that can be printed: what fits into `size`, ended by NUL even where the segment's is
 * not; bytes other than visible ASCII are replaced. `n` is the size of the field.
 */
void vb_shm_text(char *to, size_t size, const char *field, size_t n);

/* Name of an enum value as people and programs see it ("up", "ready", ...); "?" when it is none. */
const char *vb_health_name(unsigned health);
const char *vb_admin_name(unsigned admin);
const char *vb_backend_failure_name(unsigned failure);
const char *vb_pick_reason_name(unsigned reason);
const char *vb_worker_state_name(unsigned state);
const char *vb_instance_state_name(unsigned state);

/* For the single writer of a word: no locked instruction. */
static inline void vb_add64(vb_u64 *word, uint64_t n)
{
    atomic_store_explicit(word, atomic_load_explicit(word, memory_order_relaxed) + n, memory_order_relaxed);
}
static inline void vb_sub64(vb_u64 *word, uint64_t n)
{
    atomic_store_explicit(word, atomic_load_explicit(word, memory_order_relaxed) - n, memory_order_relaxed);
}
static inline void vb_add32(vb_u32 *word, uint32_t n)
{
    atomic_store_explicit(word, atomic_load_explicit(word, memory_order_relaxed) + n, memory_order_relaxed);
}
static inline void vb_sub32(vb_u32 *word, uint32_t n)
{
    atomic_store_explicit(word, atomic_load_explicit(word, memory_order_relaxed) - n, memory_order_relaxed);
}

#endif
