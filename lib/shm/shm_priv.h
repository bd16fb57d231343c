/* What the files of lib/shm share. A `struct vb_shm` is one process's view of a segment. */
#ifndef VB_SHM_PRIV_H
#define VB_SHM_PRIV_H

#include "vb/shm.h"

/* Where the sections are: a pure function of the capacities, so a reader can demand exactly this. */
struct shm_layout {
    uint64_t pools_at, backends_at, loads_at, tallies_at, workers_at, in_flight_at, places_at, traffic_at, ips_at,
        total_size;
};

struct vb_shm {
    char *base;                 /* the mapping */
    struct vb_shm_capacity cap; /* checked once; the header's copy is not looked at again */
    struct shm_layout at;       /* likewise */
    int lock_fd;                /* master: holds the lock that says who is master; others: -1 */
    int fd;                     /* another open file description, without that lock */
    int last_fd;                /* master: the file whose place this one has taken; else, or forgotten: -1 */
    char *path;                 /* master: where the file is; others: NULL */
};

struct shm_layout shm_layout(struct vb_shm_capacity cap);

/* See locks.c. -EAGAIN: another has it. Others: negative errno. */
int shm_lock_master(int fd);
void shm_unlock_master(int fd);
int shm_lock_instance(int fd);

/* The pid in the header of what may be any file; 0 when it is no segment of this layout. */
pid_t shm_master_of(int fd);

/* Gets the pages of a range now: one that could not be had later would be a SIGBUS in the middle of a request. */
int shm_reserve(int fd, uint64_t at, uint64_t size);

/* Those of a slot's rows, with the traffic of all backends that have rows; of a backend's, in all slots. Done again
 * they change nothing. */
int shm_reserve_slot(const struct vb_shm *shm, unsigned slot, bool ips);
int shm_reserve_backend(const struct vb_shm *shm, unsigned backend);

/* Bytes from one worker's row of in_flight to the next: whole cache lines, so that workers do not share one. */
uint64_t shm_in_flight_stride(struct vb_shm_capacity cap);
uint64_t shm_places_stride(struct vb_shm_capacity cap);

bool shm_capacity_valid(struct vb_shm_capacity cap);

/* Everything but `ready`. The strings' lengths were checked. Negative errno: there is no random key to be had. */
int shm_header_fill(struct vb_shm_header *header, const char *name, struct vb_shm_capacity cap);

/*
 * Is `header` that of a segment which this program can read, in a file of `file_size` bytes? `what` names
 * the file in the sentence, `for_worker` who wants to know. -EPROTO.
 */
int shm_header_check(const struct vb_shm_header *header, uint64_t file_size, const char *what, bool for_worker,
                     struct vb_error *err);

/* Maps `shm->at.total_size` bytes of `fd`; `protection` as for mmap. */
int shm_map(struct vb_shm *shm, int fd, int protection);

/* An empty view: nothing mapped, nothing open. NULL without memory. */
struct vb_shm *shm_new(void);

/* Has the slot ever had a backend? Else its traffic rows are holes in the file. */
static inline bool shm_backend_has_rows(const struct vb_shm *shm, unsigned backend)
{
    return atomic_load_explicit(&vb_shm_backend(shm, backend)->incarnation, memory_order_relaxed) != 0;
}

/* Else its table of IP addresses may be a hole likewise. In the order of admission.c. */
static inline bool shm_counts_ips(const struct vb_shm *shm, unsigned slot)
{
    return atomic_load(&vb_shm_worker(shm, slot)->counts_ips) != 0;
}

/* Gives back what the dead worker of this slot had in flight; see in_flight.c. */
void shm_give_back_in_flight(struct vb_shm *shm, unsigned slot);

/* Gives back what the dead worker of this slot had admitted, or was about to: connections and places of all pools. */
void shm_give_back_admissions(struct vb_shm *shm, unsigned slot);

/* Rewrites a backend's health record whole, so that no reader takes a torn one for good. */
void shm_record_write(struct vb_shm_backend *backend, const struct vb_health_record *record);

#endif
