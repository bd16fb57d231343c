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

/*
 * For the worker in `slot`, by the policy of this name: that of the worker's own configuration, because the segment may
 * have the next one's by now. `shm` and `rand`, the source of chance, must outlive it. -ENOTSUP: there is no such
 * policy. -ENOMEM.
 */
int vb_lb_open(struct vb_lb **ret_lb, struct vb_shm *shm, unsigned pool, unsigned slot, const char *balance,
               struct vb_rand *rand);
void vb_lb_close(struct vb_lb **lb);

#define VB_TRIES_MAX 11 /* of one request: the first, and retry.attempts */

/* The backends that a request has been given to already: slots. */
struct vb_tried {
    unsigned n;
    uint16_t backends[VB_TRIES_MAX];
};

/*
 * Picks a backend that has not been tried and counts the request in its in-flight figure, before any connection is
 * made: other workers see it at once. Whoever takes a backend away (membership, admin state) and then finds none in
 * flight there can be sure that none will come. >= 0: the backend's slot; vb_lb_done takes it back. -ENOENT: none is
 * usable; or all have been tried, also those that are ejected, which a further try may go to. -ENOMEM.
 */
int vb_lb_pick(struct vb_lb *lb, const struct vb_tried *tried, uint64_t now_us);
void vb_lb_done(struct vb_lb *lb, unsigned backend);

/* Is there one that has not been tried? A pick may still find that it has gone meanwhile. */
bool vb_lb_has_other(struct vb_lb *lb, const struct vb_tried *tried, uint64_t now_us);

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
