/*
 * Steering: which worker serves a new connection.
 *
 * The kernel spreads connections over the workers' sockets by a hash, which is even in the long run only: of 8 clients
 * that stay, one of 4 workers has 4 or more in every second case. So who accepts one that would make it more than
 * ceil(mean) + 1 gives it to the worker that has the fewest; and while there are few, to one that has two less. Nothing
 * has been read from it then. No more than that: where connections come and go, handing them over costs more than it
 * mends.
 *
 * Not to a worker that has not taken what it was given before: it may be stuck. Then the next one is asked.
 */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client.h"
#include "proxy_priv.h"
#include "queue.h"
#include "vb/inbox.h"

#define FEW 8 /* connections of a worker, up to which one more or less matters */

_Static_assert(VB_WORKERS_MAX <= 64, "a bit for each worker");

struct crowd {
    uint64_t connections, least; /* of all workers that serve; of the one that has the fewest, of those not `passed` */
    unsigned workers, least_index, least_slot;
};

/* Those on their way to it count already: of a burst, all that are handed over find the same picture otherwise. */
static uint64_t count(const struct vb_shm_worker *worker)
{
    return atomic_load_explicit(&worker->connections, memory_order_relaxed) +
           atomic_load_explicit(&worker->inbound, memory_order_relaxed);
}

/* Those of our generation that serve, ourselves included. */
static struct crowd look_around(const struct vb_proxy *proxy, uint64_t passed)
{
    struct crowd crowd = {.least = UINT64_MAX};
    uint32_t generation = atomic_load_explicit(&proxy->stats->generation, memory_order_relaxed);
    for (unsigned i = 0, slots = vb_shm_slots(proxy->shm); i < slots; i++) {
        const struct vb_shm_worker *worker = vb_shm_worker(proxy->shm, i);
        uint64_t connections = count(worker);
        unsigned index = atomic_load_explicit(&worker->index, memory_order_relaxed);
        if (atomic_load_explicit(&worker->state, memory_order_relaxed) != VB_WORKER_READY ||
            atomic_load_explicit(&worker->generation, memory_order_relaxed) != generation || index >= proxy->n_inboxes)
            continue;
        crowd.workers++;
        crowd.connections += connections;
        if (connections < crowd.least && (passed >> index & 1) == 0) {
            crowd.least = connections;
            crowd.least_index = index;
            crowd.least_slot = i;
        }
    }
    return crowd;
}

/* What travels with the descriptor: through which listener it came, and how often it has been passed on. */
enum { HOP = 1 << 8, HOPS_MAX = 3 };
_Static_assert(VB_LISTENERS_MAX <= HOP, "a listener's number is below a hop");

/* One less is on its way. The number begins anew with another process in the slot, so it may be 0 already. */
static void take_off(vb_u32 *inbound)
{
    uint32_t n = atomic_load_explicit(inbound, memory_order_relaxed);
    while (n > 0 && !atomic_compare_exchange_weak(inbound, &n, n - 1))
        continue;
}

/* 0: it is its business now. */
static int give(struct vb_proxy *proxy, const struct crowd *crowd, int fd, unsigned number)
{
    vb_u32 *inbound = &vb_shm_worker(proxy->shm, crowd->least_slot)->inbound;
    atomic_fetch_add_explicit(inbound, 1, memory_order_relaxed);
    int r = vb_inbox_put(proxy->first_inbox + (int)crowd->least_index, fd, number);
    if (r < 0)
        take_off(inbound);
    return r;
}

bool vb_steer_away(struct vb_proxy *proxy, unsigned number, int fd)
{
    uint64_t own = count(proxy->stats), passed = 0;
    for (unsigned tries = 1; tries < proxy->n_inboxes && !proxy->draining; tries++) {
        struct crowd crowd = look_around(proxy, passed);
        if (own <= crowd.least)
            return false;
        uint64_t mean_up = crowd.connections / crowd.workers + 1; /* with this one, rounded up */
        bool is_even = own >= FEW || own < crowd.least + 2;
        if (is_even && own + 1 <= mean_up + 1)
            return false;
        if (give(proxy, &crowd, fd, number + HOP) == 0)
            return true;
        passed |= UINT64_C(1) << crowd.least_index;
    }
    return false;
}

/* Others may have given us theirs in the same moment: then it goes on. */
static void on_arrived(void *owner, int fd, unsigned number)
{
    struct vb_proxy *proxy = owner;
    struct sockaddr_storage peer;
    socklen_t length = sizeof(peer);
    unsigned listener = number % HOP;
    if (fd < 0) {
        vb_queue_woken(proxy, number);
        return;
    }
    take_off(&proxy->stats->inbound);
    if (number / HOP < HOPS_MAX && vb_steer_away(proxy, number, fd))
        close(fd);
    else if (listener < proxy->conf->n_listeners && getpeername(fd, (struct sockaddr *)&peer, &length) == 0)
        vb_client_open(proxy, &proxy->conf->listeners[listener], fd, (struct sockaddr *)&peer);
    else
        close(fd); /* it has gone meanwhile */
}

int vb_proxy_share(struct vb_proxy *proxy, int own_inbox, int first_inbox, unsigned n)
{
    proxy->first_inbox = first_inbox;
    proxy->n_inboxes = n;
    return vb_inbox_open(&proxy->inbox, proxy->loop, own_inbox, on_arrived, proxy);
}
