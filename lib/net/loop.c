/*
 * The loop and its coarse timers.
 *
 * A timer list holds timers of one duration in order of their deadlines, because each is appended when it starts. The
 * one libuv timer is set to the earliest head. It is moved only towards earlier deadlines; when it fires too early
 * because that head has been stopped or restarted, it is simply set again, so most restarts touch two pointers.
 */
#include <errno.h>

#include "net_priv.h"

#define LOOP_MAGIC 0x4c4f4f50

static void on_timer(uv_timer_t *handle)
{
    struct vb_loop *loop = vb_cast(struct vb_loop, LOOP_MAGIC, handle->data);
    uint64_t now = uv_now(&loop->uv), next = UINT64_MAX;
    struct vb_timer_list *list;
    loop->wake_ms = now; /* so that timers started below do not touch the libuv timer; it is set once, after them */
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
            next = VB_MIN(next, first->deadline_ms);
    }
    loop->wake_ms = next;
    if (next != UINT64_MAX)
        uv_timer_start(&loop->timer, on_timer, next > now ? next - now : 1, 0);
}

int vb_loop_open(struct vb_loop **ret_loop)
{
    struct vb_loop *loop = malloc(sizeof(*loop));
    if (loop == NULL)
        return -ENOMEM;
    loop->magic = LOOP_MAGIC;
    loop->wake_ms = UINT64_MAX;
    loop->finish_max_ms = VB_FINISH_MAX_MS;
    LIST_INIT(&loop->lists);
    int r = uv_loop_init(&loop->uv);
    if (r < 0)
        goto fail;
    uv_timer_init(&loop->uv, &loop->timer);
    loop->timer.data = loop;
    uv_unref((uv_handle_t *)&loop->timer); /* waiting for time-outs alone keeps no loop alive */
    vb_timer_list_open(&loop->linger, loop, VB_LINGER_MS);
    *ret_loop = loop;
    return 0;

fail:
    free(loop);
    return r;
}

void vb_loop_run(struct vb_loop *loop)
{
    uv_run(&loop->uv, UV_RUN_DEFAULT);
}

void vb_loop_stop(struct vb_loop *loop)
{
    uv_stop(&loop->uv);
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
    uv_close((uv_handle_t *)&loop->timer, NULL);
    uv_run(&loop->uv, UV_RUN_DEFAULT); /* only close callbacks are left */
    vb_timer_list_close(&loop->linger);
    int r = uv_loop_close(&loop->uv);
    assert(r == 0); /* somebody forgot to close a handle */
    (void)r;
    free(loop);
}

uv_loop_t *vb_loop_uv(struct vb_loop *loop)
{
    return &loop->uv;
}

uint64_t vb_loop_now_ms(const struct vb_loop *loop)
{
    return uv_now(&loop->uv);
}

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

/* The libuv timer fires at this time at the latest. */
static void wake_by(struct vb_loop *loop, uint64_t deadline_ms)
{
    if (deadline_ms >= loop->wake_ms)
        return;
    uint64_t now = uv_now(&loop->uv);
    loop->wake_ms = deadline_ms;
    uv_timer_start(&loop->timer, on_timer, deadline_ms > now ? deadline_ms - now : 0, 0);
}

void vb_timer_start(struct vb_timer *timer, struct vb_timer_list *list, void (*fire)(struct vb_timer *timer))
{
    vb_timer_stop(timer);
    if (list->duration_ms == 0)
        return;
    struct vb_loop *loop = list->loop;
    timer->list = list;
    timer->fire = fire;
    timer->deadline_ms = uv_now(&loop->uv) + list->duration_ms;
    TAILQ_INSERT_TAIL(&list->timers, timer, link);
    wake_by(loop, timer->deadline_ms);
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
    wake_by(list->loop, deadline_ms);
}

void vb_timer_stop(struct vb_timer *timer)
{
    if (timer->list == NULL)
        return;
    TAILQ_REMOVE(&timer->list->timers, timer, link);
    timer->list = NULL;
}
