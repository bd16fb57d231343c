/*
 * Balancing: which backend gets the next request, and what its failures mean. Pure decisions on the segment's numbers:
 * no I/O, no libuv, no clock; the time (monotonic, microseconds) is an argument.
 *
 * A `vb_lb` is one worker's picture of one pool: the backends that may be picked and what the policy prepared from
 * them. It is made anew when the pool's epoch in the segment has moved or an ejection is over, so all workers follow
 * within one pick.
 */
#ifndef VB_LB_H
#define VB_LB_H

#include "vb/base.h"
#include "vb/rand.h"
#include "vb/shm.h"

struct vb_lb;

/* What the worker's own configuration says of balancing: the segment may have the next one's by now. */
struct vb_lb_rules {
    const char *balance;    /* the policy's name */
    unsigned hash_bound;    /* hash: no backend gets more than this share of the mean, in per cent; 0: no bound */
    uint64_t slow_start_us; /* how long a backend that comes takes to get its full share; 0: it gets it at once */
};

/*
 * For the worker in `slot`. `shm` and `rand`, the source of chance, must outlive it. -ENOTSUP: there is no such policy.
 * -ENOMEM.
 */
int vb_lb_open(struct vb_lb **ret_lb, struct vb_shm *shm, unsigned pool, unsigned slot, const struct vb_lb_rules *rules,
               struct vb_rand *rand);
void vb_lb_close(struct vb_lb **lb);

#define VB_TRIES_MAX 11 /* of one request: the first, and retry.attempts */

/* The backends that a request has been given to already: slots. */
struct vb_tried {
    unsigned n;
    uint16_t backends[VB_TRIES_MAX];
};

/* What a pick has to know of its request. */
struct vb_ask {
    const struct vb_tried *tried;
    uint64_t key; /* hash: what the request is known by, hashed */
    bool has_key; /* else hash shares it out by turns */
    int stuck_to; /* the backend that its cookie names; negative: none */
};

/*
 * Picks a backend that has not been tried and counts the request in its in-flight figure, before any connection is
 * made: other workers see it at once. Whoever takes a backend away (membership, admin state) and then finds none in
 * flight there can be sure that none will come; but one that is drained still gets the requests that are stuck to it.
 * >= 0: the backend's slot, and why it; vb_lb_done takes it back. -EAGAIN: those that it could go to have their
 * max_connections. -ENOENT: none is usable; or all have been tried, also those that are ejected, and backups, which a
 * further try may go to. -ENOMEM.
 */
int vb_lb_pick(struct vb_lb *lb, const struct vb_ask *ask, uint64_t now_us, enum vb_pick_reason *ret_reason);
void vb_lb_done(struct vb_lb *lb, unsigned backend);

/* Is there one that has not been tried, if perhaps a busy one? A pick may still find that it has gone meanwhile. */
bool vb_lb_has_other(struct vb_lb *lb, const struct vb_tried *tried, uint64_t now_us);

/* Has any of the pool's backends a limit of connections? Then requests may have to wait in line (below). */
bool vb_lb_is_limited(struct vb_lb *lb, uint64_t now_us);

/* Have all that a request could go to their max_connections? Also false where there is none at all. */
bool vb_lb_is_full(struct vb_lb *lb, uint64_t now_us);

/* Is a request held by the backend that its cookie names, by the picture as it is? Else it goes to any. */
bool vb_lb_is_stuck(const struct vb_lb *lb, const struct vb_ask *ask, uint64_t now_us);

enum vb_try_end {
    VB_TRY_ANSWERED,
    VB_TRY_FAILED,    /* the backend did, also by a 5xx */
    VB_TRY_ABANDONED, /* it had not answered yet when the client gave up: it would have taken longer */
};

/*
 * How a try has gone, for policies that learn from it: `latency_us` from the pick to the response's head, or to the
 * end without one.
 */
void vb_lb_learn(struct vb_lb *lb, unsigned backend, uint64_t latency_us, enum vb_try_end how, uint64_t now_us);

/* A backend has said how loaded it is (1000 is one whole, less is better), in a response or in a health check's. */
void vb_lb_report_load(struct vb_shm *shm, unsigned backend, uint32_t load_milli, uint64_t now_us);

/* Follows the segment, as a pick does. True when the picture is another since the last call of this function. */
bool vb_lb_look(struct vb_lb *lb, uint64_t now_us);

/* May it be picked, by the picture as it is? */
bool vb_lb_is_candidate(const struct vb_lb *lb, unsigned backend);

/* Of what was last picked from: too few backends are healthy, so all have been tried that are not drained. */
bool vb_lb_in_panic(const struct vb_lb *lb);

/* ---- passive detection: outlier.c ---------------------------------------------------------------------------------*/

struct vb_outlier_rules {
    unsigned consecutive; /* failures in a row, over all workers, that eject a backend; 0: none do */
    uint64_t eject_us;    /* for how long; doubles each time in a row */
    uint64_t eject_max_us;
};

/* A request went well there. */
void vb_outlier_passed(struct vb_shm *shm, unsigned backend, uint64_t now_us);

/*
 * A request failed there, says the worker in `slot`. > 0: with this the backend is ejected, for so many microseconds;
 * 0: it is not. When it returns it is on trial: one failure ejects it again, for twice as long; one success clears it.
 */
uint64_t vb_outlier_failed(struct vb_shm *shm, unsigned slot, unsigned backend, const struct vb_outlier_rules *rules,
                           enum vb_backend_failure why, uint64_t now_us);

/* A check has just connected to it: an ejection for want of a connection is over. It stays on trial. */
void vb_outlier_refute(struct vb_shm *shm, unsigned backend, uint64_t now_us);

/* Ends its ejection, for whoever has better knowledge: it was down and has come up again. */
void vb_outlier_forgive(struct vb_shm *shm, unsigned backend);

/* ---- waiting for a turn: line.c ----------------------------------------------------------------------------------*/

/*
 * When all backends of a pool have their max_connections, requests wait. Each worker has a line of its own, in order of
 * arrival; which line is first is agreed here. Who is stuck to one backend that is full stands aside, so that he holds
 * nobody up. Times are monotonic; 0: nobody waits.
 */
struct vb_line {
    uint64_t since_us;       /* of the worker's first that can go to any backend */
    uint64_t stuck_since_us; /* of its first that is stuck to one */
    unsigned stuck_to;       /* that one */
};

/* The worker in `slot`: its line has another first. */
void vb_line_note(struct vb_shm *shm, unsigned slot, unsigned pool, const struct vb_line *line);

/*
 * The slot of the worker with the one who waits longest, of those that can go to any backend, and of those that are
 * stuck to this one (negative: without these). Negative: nobody waits.
 */
int vb_line_first(const struct vb_shm *shm, unsigned pool, int backend, uint64_t *ret_since_us);

/* ... of those only that are stuck to this one. */
int vb_line_first_stuck(const struct vb_shm *shm, unsigned pool, unsigned backend, uint64_t *ret_since_us);

/* ---- the retry budget: budget.c -----------------------------------------------------------------------------------*/

/*
 * May one more request of this pool be tried again? Then it is counted. Retries are `percent` of the requests of the
 * last ten seconds, of all workers together, and one a second (so ten after a quiet time). UINT_MAX: there is no limit.
 */
bool vb_retry_budget_take(struct vb_shm_pool *pool, unsigned percent, uint64_t now_us);

/* Each second, by the master: notes how many requests there have been. */
void vb_retry_budget_mark(struct vb_shm_pool *pool, uint64_t now_us);

/* ---- health decisions ---------------------------------------------------------------------------------------------*/

struct vb_health_rules {
    unsigned rise, fall; /* results in a row that it takes */
};

struct vb_health_fsm {
    enum vb_health_state state;
    unsigned streak; /* results in a row that speak against `state` */
};

/* Takes the next probe result; true when `state` changed. The very first result decides alone. */
bool vb_health_fsm_feed(struct vb_health_fsm *fsm, const struct vb_health_rules *rules, bool passed);

/* Is it between two states? Then probes come faster. */
bool vb_health_fsm_in_transition(const struct vb_health_fsm *fsm);

#endif
