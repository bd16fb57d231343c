/* The paths of the backend: a function and a row in the table for each. */
#include "handlers.h"

#include <errno.h>
#include <sys/resource.h>
#include <unistd.h>

#include "query.h"
#include "vb/clock.h"

#define WORK_MAX_MS 600000
#define BYTES_MAX   (16ull << 30)
#define JSON        "application/json"
#define PLAIN       "text/plain; charset=utf-8"

/* ---- answers ----------------------------------------------------------------------------------------------------- */

static struct text *answer_text(struct answer *answer, unsigned status, const char *type)
{
    answer->kind = ANSWER_TEXT;
    answer->status = status;
    answer->type = type;
    return &answer->text;
}

static void answer_error(struct answer *answer, unsigned status, const char *why)
{
    text_add(answer_text(answer, status, PLAIN), "%.400s\n", why);
}

static void answer_status(const struct demo *demo, struct answer *answer, unsigned status)
{
    struct text *text = answer_text(answer, status, JSON);
    if (status != 205) /* which must not have content (RFC 9110 15.3.6) */
        text_add(text, "{\"backend\":\"%s\",\"status\":%u}\n", demo->name, status);
}

void answer_received(struct answer *answer, uint64_t bytes)
{
    text_add(answer_text(answer, 200, JSON), "{\"received_bytes\":%llu}\n", (unsigned long long)bytes);
}

/* ---- endpoints --------------------------------------------------------------------------------------------------- */

static void hello(struct demo *demo, const struct request *request, struct answer *answer)
{
    text_add(answer_text(answer, 200, PLAIN), "hello from %s\n", demo->name);
}

static void work(struct demo *demo, const struct request *request, struct answer *answer)
{
    struct vb_str value;
    uint64_t ms = 0;
    if (query_find(request->query, "ms", &value) && vb_parse_u64(value, WORK_MAX_MS, &ms) < 0) {
        answer_error(answer, 400, "ms wants a number from 0 to 600000");
        return;
    }
    answer->delay_ms += ms;
    text_add(answer_text(answer, 200, JSON), "{\"backend\":\"%s\",\"worked_ms\":%llu}\n", demo->name,
             (unsigned long long)ms);
}

static uint64_t resident_bytes(void)
{
    char line[128] = "";
    FILE *statm = fopen("/proc/self/statm", "re"); /* pages: size, resident, ... */
    if (statm == NULL)
        return 0;
    const char *resident = fgets(line, sizeof(line), statm) == NULL ? NULL : strchr(line, ' ');
    fclose(statm);
    return resident == NULL ? 0 : strtoull(resident, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE);
}

static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* The target as it came, which may be in absolute-form; head->target is what a proxy forwards. */
static struct vb_str raw_target(const struct vb_head *head)
{
    const char *p = head->raw.p + head->method.n + 1;
    const char *end = memchr(p, ' ', head->raw.n - head->method.n - 1);
    return (struct vb_str){p, (size_t)(end - p)}; /* a space stands before the version, or the head was refused */
}

static void print_request(const struct vb_head *head, struct text *text)
{
    text_add(text, "{\"method\":");
    text_json_string(text, head->method);
    text_add(text, ",\"target\":");
    text_json_string(text, raw_target(head));
    text_add(text, ",\"version\":\"HTTP/1.%u\",\"headers\":[", head->minor);
    for (unsigned i = 0; i < head->n_fields; i++) {
        text_add(text, "%s[", i == 0 ? "" : ",");
        text_json_string(text, head->fields[i].name);
        text_add(text, ",");
        text_json_string(text, head->fields[i].value);
        text_add(text, "]");
    }
    text_add(text, "]}");
}

static void info(struct demo *demo, const struct request *request, struct answer *answer)
{
    struct text *text = answer_text(answer, 200, JSON);
    text_add(text, "{\"name\":\"%s\",\"pid\":%d,\"uptime_s\":%.3f,\"mode\":\"%s\",", demo->name, (int)getpid(),
             (double)(vb_clock_us() - demo->started_us) / 1e6, demo->blocking ? "blocking" : "non-blocking");
    text_add(text, "\"total_requests\":%llu,\"total_checks\":%llu,\"total_errors\":%llu,",
             (unsigned long long)demo->requests, (unsigned long long)demo->checks, (unsigned long long)demo->errors);
    text_add(text, "\"active_connections\":%llu,\"active_requests\":%llu,\"connection_requests\":%llu,",
             (unsigned long long)demo->active_connections, (unsigned long long)demo->active_requests,
             (unsigned long long)request->nth);
    text_add(text, "\"cpu_seconds\":%.6f,\"memory_rss_bytes\":%llu,\"request\":", cpu_seconds(),
             (unsigned long long)resident_bytes());
    print_request(request->head, text);
    text_add(text, "}\n");
}

static void health(struct demo *demo, const struct request *request, struct answer *answer)
{
    bool down = demo->settings.unhealthy;
    text_add(answer_text(answer, down ? 503 : 200, JSON), "{\"status\":\"%s\",\"backend\":\"%s\"}\n",
             down ? "unhealthy" : "healthy", demo->name);
}

static void control(struct demo *demo, const struct request *request, struct answer *answer)
{
    struct vb_error err;
    if (settings_apply(&demo->settings, request->query, &err) < 0) {
        answer_error(answer, 400, err.text);
        return;
    }
    struct text *text = answer_text(answer, 200, JSON);
    text_add(text, "{\"backend\":\"%s\",", demo->name);
    settings_print(&demo->settings, text);
    text_add(text, "}\n");
}

static void echo(struct demo *demo, const struct request *request, struct answer *answer)
{
    answer->kind = ANSWER_ECHO;
    answer->status = 200;
    answer->type = "application/octet-stream";
}

static void sink(struct demo *demo, const struct request *request, struct answer *answer)
{
    answer->kind = ANSWER_SINK;
}

static void bytes(struct demo *demo, const struct request *request, struct answer *answer)
{
    struct vb_str value;
    if (!query_find(request->query, "n", &value) || vb_parse_size(value, &answer->bytes) < 0 ||
        answer->bytes > BYTES_MAX) {
        answer_error(answer, 400, "n wants a size up to 16GiB, such as 1024 or 64MiB");
        return;
    }
    answer->chunked = query_find(request->query, "chunked", &value) && vb_str_eq(value, VB_STR("1"));
    answer->kind = ANSWER_BYTES;
    answer->status = 200;
    answer->type = "application/octet-stream";
}

static void status(struct demo *demo, const struct request *request, struct answer *answer)
{
    struct vb_str value;
    uint64_t code;
    if (!query_find(request->query, "code", &value) || vb_parse_u64(value, 599, &code) < 0 || code < 200)
        answer_error(answer, 400, "code wants a status from 200 to 599");
    else
        answer_status(demo, answer, (unsigned)code);
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

static const struct endpoint {
    const char *path;
    const char *methods; /* as in an Allow field; NULL: all */
    void (*handle)(struct demo *demo, const struct request *request, struct answer *answer);
    bool exempt; /* from delays, failures and hanging */
    const char *help;
} endpoints[] = {
    {"/", NULL, hello, false, "a line of text"},
    {"/work", NULL, work, false, "?ms=N  answers after N ms"},
    {"/info", NULL, info, false, "this process, and the request as it came"},
    {"/health", "GET, HEAD", health, true, "200, or 503 when it was set to be down"},
    {"/echo", "POST, PUT", echo, false, "the body of the request"},
    {"/sink", "POST, PUT", sink, false, "how long the body was"},
    {"/bytes", NULL, bytes, false, "?n=SIZE[&chunked=1]  a body of that size"},
    {"/status", NULL, status, false, "?code=N  that status"},
    {"/control", "POST", control, true,
     "?delay=DUR, health=up|down, fail=SHARE, status=N, reset=SHARE, hang=on|off, normal=1"},
};

void demo_print_endpoints(FILE *to)
{
    for (unsigned i = 0; i < VB_ARRAY_SIZE(endpoints); i++)
        fprintf(to, "  %-9s %-10s %s\n", endpoints[i].path, endpoints[i].methods == NULL ? "" : endpoints[i].methods,
                endpoints[i].help);
}

static const struct endpoint *find_endpoint(struct vb_str path)
{
    for (unsigned i = 0; i < VB_ARRAY_SIZE(endpoints); i++)
        if (vb_str_eq(path, vb_str(endpoints[i].path)))
            return &endpoints[i];
    return NULL;
}

/* `methods` as in an Allow field; a method is a token, so it can only match between the commas. */
static bool has_method(const char *methods, struct vb_str method)
{
    struct vb_str rest = vb_str(methods);
    while (rest.n >= method.n) {
        if (memcmp(rest.p, method.p, method.n) == 0 && (rest.n == method.n || rest.p[method.n] == ','))
            return true;
        const char *comma = memchr(rest.p, ',', rest.n);
        if (comma == NULL)
            return false;
        rest = vb_str(comma + 2);
    }
    return false;
}

static void serve(struct demo *demo, const struct endpoint *endpoint, const struct request *request,
                  struct answer *answer)
{
    if (endpoint == NULL) {
        answer_error(answer, 404, "there is nothing at this path; vbdemo --help lists what there is");
    } else if (endpoint->methods != NULL && !has_method(endpoint->methods, request->head->method)) {
        answer_error(answer, 405, "this path does not have that method");
        answer->allow = endpoint->methods;
    } else {
        endpoint->handle(demo, request, answer);
    }
}

void demo_answer(struct demo *demo, const struct vb_head *head, uint64_t nth, struct answer *ret_answer)
{
    struct request request = {.head = head, .nth = nth};
    struct vb_str path;
    unsigned forced;
    query_split(head->target, &path, &request.query);
    const struct endpoint *endpoint = find_endpoint(path);
    *ret_answer = (struct answer){0};
    if (endpoint != NULL && endpoint->exempt) {
        demo->checks++;
        serve(demo, endpoint, &request, ret_answer);
        return;
    }
    demo->requests++;
    ret_answer->delay_ms = demo->settings.delay_ms;
    switch (settings_decide(&demo->settings, &forced)) {
    case FATE_ANSWER:
        serve(demo, endpoint, &request, ret_answer);
        break;
    case FATE_STATUS:
        answer_status(demo, ret_answer, forced);
        break;
    case FATE_RESET:
        ret_answer->kind = ANSWER_RESET;
        break;
    case FATE_HANG:
        ret_answer->kind = ANSWER_HANG;
        break;
    }
    if (ret_answer->kind == ANSWER_RESET || ret_answer->status >= 500)
        demo->errors++;
}

void demo_refuse(struct demo *demo, const struct vb_refusal *refusal, struct answer *ret_answer)
{
    *ret_answer = (struct answer){0};
    answer_error(ret_answer, refusal->status, refusal->why);
}
