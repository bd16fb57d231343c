/* One pool's rules: copied, handed from thread to thread, compared. */
#include "rules.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "vb/str.h"

static void free_copy(struct vb_conf_health *copy)
{
    if (copy == NULL)
        return;
    free(copy->path);
    free(copy->host);
    free(copy);
}

static struct vb_conf_health *make_copy(const struct vb_conf_health *conf)
{
    struct vb_conf_health *copy = malloc(sizeof(*copy));
    if (copy == NULL)
        return NULL;
    *copy = *conf;
    copy->path = conf->path != NULL ? strdup(conf->path) : NULL;
    copy->host = strdup(conf->host);
    if ((conf->path == NULL || copy->path != NULL) && copy->host != NULL)
        return copy;
    free_copy(copy);
    return NULL;
}

static bool same(const struct vb_conf_health *a, const struct vb_conf_health *b)
{
    return a->enabled == b->enabled && vb_same_text(a->path, b->path) && strcmp(a->host, b->host) == 0 &&
           a->interval_ms == b->interval_ms && a->fast_interval_ms == b->fast_interval_ms &&
           a->timeout_ms == b->timeout_ms && a->rise == b->rise && a->fall == b->fall && a->port == b->port &&
           a->n_expect == b->n_expect && memcmp(a->expect, b->expect, a->n_expect * sizeof(a->expect[0])) == 0;
}

int vb_rules_hand_over(struct vb_rules *rules, const struct vb_conf_health *conf)
{
    struct vb_conf_health *copy = make_copy(conf);
    if (copy == NULL)
        return -ENOMEM;
    free_copy(atomic_exchange(&rules->handed, copy));
    return 0;
}

struct vb_conf_health *vb_rules_take(struct vb_rules *rules)
{
    struct vb_conf_health *next = atomic_exchange(&rules->handed, NULL);
    if (next == NULL || rules->now == NULL || !same(next, rules->now))
        return next;
    free_copy(next);
    return NULL;
}

static void drop(struct vb_rules *rules)
{
    if (rules->now != NULL)
        vb_timer_list_close(&rules->timeouts);
    free_copy(rules->now);
}

void vb_rules_replace(struct vb_rules *rules, struct vb_loop *loop, struct vb_conf_health *next)
{
    drop(rules);
    rules->now = next;
    vb_timer_list_open(&rules->timeouts, loop, next->timeout_ms);
}

void vb_rules_close(struct vb_rules *rules)
{
    drop(rules);
    free_copy(atomic_load(&rules->handed));
}
