/* Configurations: any text gives a configuration within its ranges, or says where it is wrong; the same each time. */
#include <errno.h>

#include "fuzz.h"
#include "vb/conf.h"

#define FILE_NAME "fuzz"

struct parsed {
    int r;
    char *lines;
    size_t n;
    struct vb_conf *conf;
};

static struct parsed parse(const uint8_t *data, size_t size)
{
    struct parsed parsed = {.conf = NULL};
    char *text = exact_copy(data, size);
    FILE *to = open_memstream(&parsed.lines, &parsed.n);
    assert(to != NULL);
    parsed.r = vb_conf_parse(FILE_NAME, text, size, to, &parsed.conf);
    fclose(to);
    free(text);
    return parsed;
}

static void drop(struct parsed *parsed)
{
    vb_conf_free(&parsed->conf);
    assert(parsed->conf == NULL);
    free(parsed->lines);
}

/* Lines of `FILE:LINE:COLUMN: message`, and nothing that a terminal would obey. */
static void check_lines(const struct parsed *parsed)
{
    assert(parsed->n == strlen(parsed->lines));
    for (const char *line = parsed->lines, *end; *line != '\0'; line = end + 1) {
        end = strchr(line, '\n');
        assert(end != NULL && strncmp(line, FILE_NAME ":", strlen(FILE_NAME ":")) == 0);
        for (const char *c = line; c < end; c++)
            assert((unsigned char)*c >= 0x20 && *c != 0x7f);
    }
}

static bool is_text(const char *text, size_t size)
{
    return memchr(text, '\0', size) != NULL && text[0] != '\0';
}

static void check_pool(const struct vb_conf_pool *pool)
{
    assert(is_text(pool->name, sizeof(pool->name)));
    assert(pool->n_backends >= 1);
    for (unsigned i = 0; i < pool->n_backends; i++) {
        const struct vb_conf_backend *backend = &pool->backends[i];
        assert(is_text(backend->name, sizeof(backend->name)) && is_text(backend->host, sizeof(backend->host)));
        assert(is_text(backend->address, sizeof(backend->address)) && backend->port != 0);
        assert(backend->weight >= 1 && backend->weight <= VB_WEIGHT_MAX);
        for (unsigned k = 0; k < i; k++)
            assert(strcmp(backend->name, pool->backends[k].name) != 0);
    }
    const struct vb_conf_health *health = &pool->health;
    assert(!health->enabled ||
           (health->interval_ms > 0 && health->timeout_ms > 0 && health->rise > 0 && health->fall > 0));
    assert(health->n_expect <= VB_ARRAY_SIZE(health->expect));
    for (unsigned i = 0; i < health->n_expect; i++)
        assert(health->expect[i].first >= 100 && health->expect[i].first <= health->expect[i].last &&
               health->expect[i].last <= 599);
}

static void check_conf(const struct vb_conf *conf)
{
    unsigned backends = 0;
    assert(is_text(conf->name, sizeof(conf->name)));
    assert(conf->n_listeners >= 1 && conf->n_pools >= 1 && conf->workers <= VB_WORKERS_MAX);
    for (unsigned i = 0; i < conf->n_listeners; i++)
        assert(is_text(conf->listeners[i].text, sizeof(conf->listeners[i].text)) && conf->listeners[i].address_len > 0);
    for (unsigned i = 0; i < conf->n_pools; i++) {
        check_pool(&conf->pools[i]);
        backends += conf->pools[i].n_backends;
    }
    assert(backends <= conf->segment.backends && conf->segment.backends <= VB_BACKENDS_MAX);
    assert(conf->limits.header_bytes >= 1024 && conf->limits.headers >= 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct parsed first = parse(data, size), second = parse(data, size);
    assert(first.r == 0 || first.r == -EINVAL);
    assert((first.r == 0) == (first.conf != NULL));
    assert(first.r == 0 || first.n > 0);
    check_lines(&first);
    if (first.conf != NULL)
        check_conf(first.conf);
    assert(second.r == first.r && second.n == first.n && memcmp(second.lines, first.lines, first.n) == 0);
    drop(&first);
    drop(&second);
    return 0;
}
