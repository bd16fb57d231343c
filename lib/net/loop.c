/*
 * The loop and its coarse timers.
 *
 * Streams and listeners stand in an epoll set of the loop's own, the streams edge-triggered: the kernel tells of each
 * once, where libuv's (level-triggered) would look at its socket a second time, and one that is read or written costs
 * no call of epoll_ctl(2) after its first. libuv's own descriptor stands in the same set, for signals, processes, names
 * and timers of others; libuv is run when there is something to do for it.
 *
 * A timer list holds timers of one duration in order of their deadlines, because each is appended when it starts. The
 * loop knows a time before which none is due. It is moved only towards earlier deadlines; when that time comes too
 * early because that head has been stopped or restarted, it is simply looked for again, so most restarts touch two
 * pointers.
 */
#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "net_priv.h"

#define EVENTS_MAX 64 /* from one system call: what the kernel has just looked at is still in the caches */
#define CALLS_MAX  4  /* for events, in one turn */

/* ---- watches ----------------------------------------------------------------------------------------------------- */

static int control(struct vb_loop *loop, int how, int fd, uint32_t events, struct loop_watch *watch)
{
    struct epoll_event event = {.events = events, .data.ptr = watch};
    return epoll_ctl(loop->epoll, how, fd, &event) == 0 ? 0 : -errno;
}

int loop_watch_open(struct vb_loop *loop, struct loop_watch *watch, int fd, uint32_t events,
                    void (*ready)(struct loop_watch *watch, uint32_t events))
{
    int r = control(loop, EPOLL_CTL_ADD, fd, events, watch);
    if (r < 0)
        return r;
    watch->ready = ready;
    if (loop->n_watches++ == 0)
        uv_ref((uv_handle_t *)&loop->watches);
    return 0;
}

int loop_watch_change(struct vb_loop *loop, struct loop_watch *watch, int fd, uint32_t events)
{
    return control(loop, EPOLL_CTL_MOD, fd, events, watch);
}

static void enqueue(struct loop_watches *queue, struct loop_watch *watch)
{
    if (watch->queue != NULL)
        return;
    watch->queue = queue;
    TAILQ_INSERT_TAIL(queue, watch, link);
}

static void dequeue(struct loop_watch *watch)
{
    if (watch->queue != NULL)
        TAILQ_REMOVE(watch->queue, watch, link);
    watch->queue = NULL;
}

void loop_watch_again(struct vb_loop *loop, struct loop_watch *watch)
{
    enqueue(watch->is_patient ? &loop->patient : &loop->again, watch);
}

void loop_watch_close(struct vb_loop *loop, struct loop_watch *watch, int fd)
{
    /* That it is closed would not do: a process that is being started may have it for a moment too. */
    control(loop, EPOLL_CTL_DEL, fd, 0, NULL);
    dequeue(watch);
    watch->ready = NULL;
    TAILQ_INSERT_TAIL(&loop->closed, watch, link);
    if (--loop->n_watches == 0)
        uv_unref((uv_handle_t *)&loop->watches);
}

static void free_closed(struct vb_loop *loop)
{
    struct loop_watch *watch;
    while ((watch = TAILQ_FIRST(&loop->closed)) != NULL) {
        TAILQ_REMOVE(&loop->closed, watch, link);
        free(watch);
    }
}

/* Only those that stand there by now, and at most so many: what they ask for is for the next turn. */
static void call_queued(struct vb_loop *loop, struct loop_watches *queue, unsigned most)
{
    struct loop_watch end, *watch;
    TAILQ_INSERT_TAIL(queue, &end, link);
    while (most-- > 0 && (watch = TAILQ_FIRST(queue)) != &end) {
        uint32_t events = watch->events;
        watch->events = 0;
        dequeue(watch);
        watch->ready(watch, events);
    }
    TAILQ_REMOVE(queue, &end, link);
    batch_run(loop);
}

/* ---- turns ------------------------------------------------------------------------------------------------------- */

static void look_at_clock(struct vb_loop *loop)
{
    uv_update_time(&loop->uv);
    loop->now_ms = uv_now(&loop->uv);
}

static void run_timers(struct vb_loop *loop)
{
    uint64_t now = loop->now_ms;
    struct vb_timer_list *list;
    if (now < loop->wake_ms)
        return;
    loop->wake_ms = UINT64_MAX;
    LIST_FOREACH (list, &loop->lists, link) {
        struct vb_timer *timer;
        while ((timer = TAILQ_FIRST(&list->timers)) != NULL && timer->deadline_ms <= now) {
            vb_timer_stop(timer);
            timer->fire(timer);
        }
    }
    LIST_FOREACH (list, &loop->lists, link) {
        struct vb_timer *first = TAILQ_FIRST(&list->timers);
        if (first != NULL)
            loop->wake_ms = VB_MIN(loop->wake_ms, first->deadline_ms);
    }
}

/* Milliseconds that may be waited; -1: for ever. */
static int patience(const struct vb_loop *loop, int uv_patience)
{
    uint64_t now = loop->now_ms, left = loop->wake_ms > now ? loop->wake_ms - now : 0;
    if (!TAILQ_EMPTY(&loop->again) || !TAILQ_EMPTY(&loop->patient) || loop->stopped)
        return 0;
    if (uv_patience >= 0)
        left = VB_MIN(left, (uint64_t)uv_patience);
    return left > INT_MAX ? -1 : (int)left;
}

/* Waits for what the kernel tells, and deals with it. True: it may have more to tell. */
static bool take_events(struct vb_loop *loop, int patience_ms, bool *is_uv_ready)
{
    struct epoll_event events[EVENTS_MAX];
    int n = epoll_wait(loop->epoll, events, EVENTS_MAX, patience_ms);
    if (patience_ms != 0)
        look_at_clock(loop);
    for (int i = 0; i < n; i++) {
        struct loop_watch *watch = events[i].data.ptr;
        if (watch == NULL) {
            *is_uv_ready = true;
        } else if (watch->is_patient && watch->ready != NULL) {
            watch->events |= events[i].events;
            enqueue(&loop->patient, watch);
        } else if (watch->ready != NULL) {
            watch->ready(watch, events[i].events);
        }
    }
    batch_run(loop);
    return n == EVENTS_MAX;
}

/*
 * What has been begun comes first: a response is handed on before further requests are read. When there is more to do
 * than can be done, requests wait at their clients, and the backends have few at a time instead of nearly all.
 */
void loop_turn(struct vb_loop *loop)
{
    bool is_uv_ready = false;
    look_at_clock(loop);
    int uv_patience = uv_backend_timeout(&loop->uv);
    if (uv_patience == 0) {
        uv_run(&loop->uv, UV_RUN_NOWAIT);
        uv_patience = uv_backend_timeout(&loop->uv);
    }
    bool has_more = take_events(loop, patience(loop, uv_patience), &is_uv_ready);
    for (unsigned calls = 1; has_more && calls < CALLS_MAX; calls++)
        has_more = take_events(loop, 0, &is_uv_ready);
    call_queued(loop, &loop->again, CALLS_MAX * EVENTS_MAX);
    call_queued(loop, &loop->patient, EVENTS_MAX);
    if (is_uv_ready)
        uv_run(&loop->uv, UV_RUN_NOWAIT);
    run_timers(loop);
    free_closed(loop);
}

void vb_loop_run(struct vb_loop *loop)
{
    while (!loop->stopped && uv_loop_alive(&loop->uv))
        loop_turn(loop);
    loop->stopped = false;
}

void vb_loop_stop(struct vb_loop *loop)
{
    loop->stopped = true;
}

/* ---- beginning and end ------------------------------------------------------------------------------------------- */

static void on_prepare(uv_prepare_t *handle)
{
}

static int open_uv(struct vb_loop *loop)
{
    int r = uv_loop_init(&loop->uv);
    if (r < 0)
        return r;
    r = control(loop, EPOLL_CTL_ADD, uv_backend_fd(&loop->uv), EPOLLIN, NULL);
    if (r < 0) {
        uv_loop_close(&loop->uv); /* which it does while it has no handle */
        return r;
    }
    uv_prepare_init(&loop->uv, &loop->watches);
    uv_prepare_start(&loop->watches, on_prepare);
    uv_unref((uv_handle_t *)&loop->watches);
    return 0;
}

int vb_loop_open(struct vb_loop **ret_loop)
{
    struct vb_loop *loop = malloc(sizeof(*loop));
    int r = -ENOMEM;
    if (loop == NULL)
        return r;
    loop->stopped = false;
    loop->n_watches = 0;
    loop->batch.n_reads = loop->batch.n_writes = loop->batch.number = 0;
    loop->batch.read_bytes = 0;
    loop->batch.takes_writes = false;
    loop->wake_ms = UINT64_MAX;
    loop->finish_max_ms = VB_FINISH_MAX_MS;
    LIST_INIT(&loop->lists);
    TAILQ_INIT(&loop->again);
    TAILQ_INIT(&loop->patient);
    TAILQ_INIT(&loop->closed);
    loop->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epoll < 0) {
        r = -errno;
        goto fail;
    }
    r = open_uv(loop);
    if (r < 0)
        goto fail_epoll;
    look_at_clock(loop);
    vb_timer_list_open(&loop->linger, loop, VB_LINGER_MS);
    vb_timer_list_open(&loop->rest, loop, VB_REST_MS);
    *ret_loop = loop;
    return 0;

fail_epoll:
    close(loop->epoll);
fail:
    free(loop);
    return r;
}

void vb_loop_close(struct vb_loop **loop_ptr)
{
    struct vb_loop *loop = *loop_ptr;
    if (loop == NULL)
        return;
    *loop_ptr = NULL;
    struct vb_timer *lingering;
    while ((lingering = TAILQ_FIRST(&loop->linger.timers)) != NULL) {
        vb_timer_stop(lingering);
        lingering->fire(lingering);
    }
    uv_close((uv_handle_t *)&loop->watches, NULL);
    uv_run(&loop->uv, UV_RUN_DEFAULT); /* only close callbacks are left */
    vb_timer_list_close(&loop->linger);
    vb_timer_list_close(&loop->rest);
    free_closed(loop);
    int r = uv_loop_close(&loop->uv);
    assert(r == 0 && loop->n_watches == 0); /* somebody forgot to close something */
    (void)r;
    close(loop->epoll);
    free(loop);
}

uv_loop_t *vb_loop_uv(struct vb_loop *loop)
{
    return &loop->uv;
}

uint64_t vb_loop_now_ms(const struct vb_loop *loop)
{
    return loop->now_ms;
}

/* ---- timers ------------------------------------------------------------------------------------------------------ */

void vb_timer_list_open(struct vb_timer_list *list, struct vb_loop *loop, uint64_t duration_ms)
{
    list->loop = loop;
    list->duration_ms = duration_ms;
    TAILQ_INIT(&list->timers);
    LIST_INSERT_HEAD(&loop->lists, list, link);
}

void vb_timer_list_close(struct vb_timer_list *list)
{
    assert(TAILQ_EMPTY(&list->timers));
    LIST_REMOVE(list, link);
}

void vb_timer_start(struct vb_timer *timer, struct vb_timer_list *list, void (*fire)(struct vb_timer *timer))
{
    vb_timer_stop(timer);
    if (list->duration_ms == 0)
        return;
    struct vb_loop *loop = list->loop;
    timer->list = list;
    timer->fire = fire;
    timer->deadline_ms = loop->now_ms + list->duration_ms;
    TAILQ_INSERT_TAIL(&list->timers, timer, link);
    loop->wake_ms = VB_MIN(loop->wake_ms, timer->deadline_ms);
}

void vb_timer_start_at(struct vb_timer *timer, struct vb_timer_list *list, uint64_t deadline_ms,
                       void (*fire)(struct vb_timer *timer))
{
    vb_timer_stop(timer);
    timer->list = list;
    timer->fire = fire;
    timer->deadline_ms = deadline_ms;
    struct vb_timer *before = TAILQ_LAST(&list->timers, vb_timers);
    while (before != NULL && before->deadline_ms > deadline_ms)
        before = TAILQ_PREV(before, vb_timers, link);
    if (before != NULL)
        TAILQ_INSERT_AFTER(&list->timers, before, timer, link);
    else
        TAILQ_INSERT_HEAD(&list->timers, timer, link);
    list->loop->wake_ms = VB_MIN(list->loop->wake_ms, deadline_ms);
}

void vb_timer_stop(struct vb_timer *timer)
{
    if (timer->list == NULL)
        return;
    TAILQ_REMOVE(&timer->list->timers, timer, link);
    timer->list = NULL;
}
