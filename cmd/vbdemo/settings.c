/*
 * Settings, one row of a table for each key of /control.
 *
 * Shares: each request adds its percentage to `due`, and one is taken off when 100 have gathered. A request that is
 * reset cannot fail as well; then the failure stays due for the next, so that two shares never hide each other.
 */
#include "settings.h"

#include <errno.h>

#include "query.h"

#define DUE_MAX 200 /* what stays due while other fates go first is forgotten beyond this */

static void share_gather(struct share *share)
{
    share->due = VB_MIN(share->due + share->percent, DUE_MAX);
}

static bool share_take(struct share *share)
{
    if (share->due < 100)
        return false;
    share->due -= 100;
    return true;
}

enum fate settings_decide(struct settings *settings, unsigned *ret_status)
{
    if (settings->hang)
        return FATE_HANG;
    share_gather(&settings->reset);
    share_gather(&settings->fail);
    if (share_take(&settings->reset))
        return FATE_RESET;
    if (share_take(&settings->fail)) {
        *ret_status = 500;
        return FATE_STATUS;
    }
    *ret_status = settings->status;
    return settings->status == 0 ? FATE_ANSWER : FATE_STATUS;
}

/* ---- changing ---------------------------------------------------------------------------------------------------- */

static int parse_word(struct vb_str value, const char *yes, const char *no, bool *ret_value)
{
    if (!vb_str_eq(value, vb_str(yes)) && !vb_str_eq(value, vb_str(no)))
        return -EINVAL;
    *ret_value = vb_str_eq(value, vb_str(yes));
    return 0;
}

/* `50`, `50%`, or `50%25` from a client that encodes the percent sign. */
static int parse_share(struct vb_str value, struct share *ret_share)
{
    static const struct vb_str signs[] = {{"%25", 3}, {"%", 1}};
    uint64_t percent;
    for (unsigned i = 0; i < VB_ARRAY_SIZE(signs); i++) {
        if (value.n > signs[i].n && memcmp(value.p + value.n - signs[i].n, signs[i].p, signs[i].n) == 0) {
            value.n -= signs[i].n;
            break;
        }
    }
    int r = vb_parse_u64(value, 100, &percent);
    if (r == 0)
        *ret_share = (struct share){.percent = (unsigned)percent};
    return r;
}

static int set_delay(struct settings *settings, struct vb_str value)
{
    uint64_t ms;
    int r = vb_parse_duration(value, &ms);
    if (r < 0 || ms > SETTINGS_DELAY_MAX_MS)
        return -EINVAL;
    settings->delay_ms = ms;
    return 0;
}

static int set_health(struct settings *settings, struct vb_str value)
{
    return parse_word(value, "down", "up", &settings->unhealthy);
}

static int set_fail(struct settings *settings, struct vb_str value)
{
    return parse_share(value, &settings->fail);
}

static int set_reset(struct settings *settings, struct vb_str value)
{
    return parse_share(value, &settings->reset);
}

static int set_status(struct settings *settings, struct vb_str value)
{
    uint64_t status;
    if (vb_parse_u64(value, 599, &status) < 0 || (status != 0 && status < 200))
        return -EINVAL;
    settings->status = (unsigned)status;
    return 0;
}

static int set_hang(struct settings *settings, struct vb_str value)
{
    return parse_word(value, "on", "off", &settings->hang);
}

static int set_normal(struct settings *settings, struct vb_str value)
{
    uint64_t usual = settings->usual_delay_ms;
    if (!vb_str_eq(value, VB_STR("1")))
        return -EINVAL;
    *settings = (struct settings){.usual_delay_ms = usual, .delay_ms = usual};
    return 0;
}

static const struct {
    const char *key;
    int (*set)(struct settings *settings, struct vb_str value);
    const char *wants;
} keys[] = {
    {"delay", set_delay, "a duration up to 1h, such as 500ms or 5s"},
    {"health", set_health, "up or down"},
    {"fail", set_fail, "a share from 0% to 100%"},
    {"reset", set_reset, "a share from 0% to 100%"},
    {"status", set_status, "a status from 200 to 599, or 0 for none"},
    {"hang", set_hang, "on or off"},
    {"normal", set_normal, "1"},
};

static int apply_pair(struct settings *settings, struct vb_str key, struct vb_str value, struct vb_error *err)
{
    for (unsigned i = 0; i < VB_ARRAY_SIZE(keys); i++) {
        if (!vb_str_eq(key, vb_str(keys[i].key)))
            continue;
        if (keys[i].set(settings, value) < 0)
            return vb_fail(err, -EINVAL, "%s wants %s", keys[i].key, keys[i].wants);
        return 0;
    }
    return vb_fail(err, -EINVAL, "there is no such setting; known: delay, health, fail, reset, status, hang, normal");
}

int settings_apply(struct settings *settings, struct vb_str query, struct vb_error *err)
{
    struct settings changed = *settings;
    struct vb_str key, value;
    while (query_next(&query, &key, &value)) {
        int r = apply_pair(&changed, key, value, err);
        if (r < 0)
            return r;
    }
    *settings = changed;
    return 0;
}

void settings_print(const struct settings *settings, struct text *text)
{
    text_add(text, "\"delay_ms\":%llu,\"health\":\"%s\",\"fail_percent\":%u,\"reset_percent\":%u,",
             (unsigned long long)settings->delay_ms, settings->unhealthy ? "down" : "up", settings->fail.percent,
             settings->reset.percent);
    text_add(text, "\"status\":%u,\"hang\":%s", settings->status, settings->hang ? "true" : "false");
}
