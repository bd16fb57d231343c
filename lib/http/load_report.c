/*
 * What backends say of their load. Two fields: `endpoint-load-metrics` of ORCA, as text or as JSON, and `X-Load`, which
 * anybody can write.
 *
 * A backend may be anybody too: what is not exactly as it should be is no report. Each byte is read once, nothing is
 * allocated, and how deep JSON may be is bounded.
 */
#include "vb/http.h"

#define JSON_DEPTH_MAX  16
#define SIGNIFICANT_MAX UINT64_C(100000000000000000) /* digits after this many cannot be seen in the result */
#define EXPONENT_MAX    1000
#define THOUSANDTHS     3
#define PERCENT         (-2)
#define NO_MEMBER       (-1)

/* Reads from `p` on. All readers return false where it is not as it should be; then it does not matter where `p` is. */
struct reader {
    const char *p, *end;
};

static bool is_digit(const struct reader *r)
{
    return r->p < r->end && *r->p >= '0' && *r->p <= '9';
}

static bool skip(struct reader *r, char c)
{
    if (r->p == r->end || *r->p != c)
        return false;
    r->p++;
    return true;
}

static void skip_space(struct reader *r)
{
    while (r->p < r->end && (*r->p == ' ' || *r->p == '\t'))
        r->p++;
}

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

struct number {
    bool negative;
    uint64_t digits; /* times 10 to the power of `exponent` */
    int exponent;
};

static void take_digit(struct reader *r, struct number *number, bool behind_point)
{
    int digit = *r->p++ - '0';
    bool counts = number->digits < SIGNIFICANT_MAX;
    if (counts)
        number->digits = number->digits * 10 + (unsigned)digit;
    if (counts == behind_point) /* one more behind the point, or one that was left out before it */
        number->exponent += counts ? -1 : 1;
}

static bool read_exponent(struct reader *r, struct number *number)
{
    int exponent = 0;
    bool negative = skip(r, '-');
    if (!negative)
        skip(r, '+');
    if (!is_digit(r))
        return false;
    for (; is_digit(r); r->p++)
        exponent = VB_MIN(exponent * 10 + (*r->p - '0'), EXPONENT_MAX);
    number->exponent += negative ? -exponent : exponent;
    return true;
}

/* As JSON has it (RFC 8259 6). */
static bool read_number(struct reader *r, struct number *ret_number)
{
    *ret_number = (struct number){.negative = skip(r, '-')};
    if (!is_digit(r))
        return false;
    bool zero = *r->p == '0';
    do
        take_digit(r, ret_number, false);
    while (!zero && is_digit(r)); /* behind a first 0 there is none: 01 is not read to its end */
    if (skip(r, '.')) {
        if (!is_digit(r))
            return false;
        while (is_digit(r))
            take_digit(r, ret_number, true);
    }
    return skip(r, 'e') || skip(r, 'E') ? read_exponent(r, ret_number) : true;
}

static bool to_milli(const struct number *number, uint32_t *ret_milli)
{
    uint64_t milli = number->digits;
    int exponent = number->exponent + THOUSANDTHS;
    if (number->negative && milli != 0)
        return false;
    for (; exponent < 0 && milli > 0; exponent++)
        milli /= 10;
    for (; exponent > 0 && milli > 0 && milli < VB_LOAD_REPORT_MAX; exponent--)
        milli *= 10;
    *ret_milli = (uint32_t)VB_MIN(milli, (uint64_t)VB_LOAD_REPORT_MAX);
    return true;
}

/* ---- ORCA -------------------------------------------------------------------------------------------------------- */

enum metric { APPLICATION, CPU, METRICS };

struct metrics {
    bool present[METRICS];
    uint32_t milli[METRICS];
};

/* JSON has them in the one spelling or the other: that of the definition, or that which protobuf makes of it. */
static int find_metric(struct vb_str name)
{
    if (vb_str_eq(name, VB_STR("application_utilization")) || vb_str_eq(name, VB_STR("applicationUtilization")))
        return APPLICATION;
    if (vb_str_eq(name, VB_STR("cpu_utilization")) || vb_str_eq(name, VB_STR("cpuUtilization")))
        return CPU;
    return NO_MEMBER;
}

/* Twice, or below 0: not as it should be. */
static bool note(struct metrics *metrics, int metric, const struct number *number)
{
    if (metrics->present[metric])
        return false;
    metrics->present[metric] = true;
    return to_milli(number, &metrics->milli[metric]);
}

/* The application knows best what it has; what it does not tell, or as 0, the processors do. */
static bool choose(const struct metrics *metrics, uint32_t *ret_load_milli)
{
    bool application = metrics->present[APPLICATION] && metrics->milli[APPLICATION] > 0;
    *ret_load_milli = metrics->milli[application ? APPLICATION : CPU];
    return application || metrics->present[CPU];
}

/* name=value, ...; values that are not ours may be anything. */
static bool read_text(struct vb_str list, struct metrics *metrics)
{
    struct vb_str member;
    while (vb_list_next(&list, &member)) {
        const char *equals = memchr(member.p, '=', member.n);
        if (equals == NULL)
            return false;
        struct reader r = {equals + 1, member.p + member.n};
        struct number number;
        int metric = find_metric((struct vb_str){member.p, (size_t)(equals - member.p)});
        if (metric != NO_MEMBER && !(read_number(&r, &number) && r.p == r.end && note(metrics, metric, &number)))
            return false;
    }
    return true;
}

/* ---- JSON (RFC 8259) --------------------------------------------------------------------------------------------- */

static bool read_escape(struct reader *r)
{
    if (skip(r, 'u')) {
        for (unsigned i = 0; i < 4; i++, r->p++)
            if (r->p == r->end || vb_hex_value(*r->p) < 0)
                return false;
        return true;
    }
    return r->p < r->end && memchr("\"\\/bfnrt", *r->p++, 8) != NULL;
}

/* Between the quotes, as it stands there. */
static bool read_string(struct reader *r, struct vb_str *ret_raw)
{
    if (!skip(r, '"'))
        return false;
    const char *begin = r->p;
    while (!skip(r, '"')) {
        if (r->p == r->end || (unsigned char)*r->p < ' ')
            return false;
        if (*r->p++ == '\\' && !read_escape(r))
            return false;
    }
    *ret_raw = (struct vb_str){begin, (size_t)(r->p - begin) - 1};
    return true;
}

static bool read_word(struct reader *r, const char *word)
{
    while (*word != '\0')
        if (!skip(r, *word++))
            return false;
    return true;
}

static bool skip_value(struct reader *r, unsigned depth);

/* `metrics`: where what we look for goes; NULL in an object that is inside another one. */
static bool read_member(struct reader *r, struct metrics *metrics, unsigned depth)
{
    struct vb_str name;
    struct number number;
    if (!read_string(r, &name))
        return false;
    skip_space(r);
    if (!skip(r, ':'))
        return false;
    skip_space(r);
    int metric = metrics == NULL ? NO_MEMBER : find_metric(name);
    if (metric == NO_MEMBER)
        return skip_value(r, depth);
    return read_number(r, &number) && note(metrics, metric, &number);
}

/* What stands between brackets; a member of an object where it is one, and else a value. */
static bool read_members(struct reader *r, bool object, struct metrics *metrics, unsigned depth)
{
    char end = object ? '}' : ']';
    skip_space(r);
    if (skip(r, end))
        return true;
    do {
        skip_space(r);
        if (!(object ? read_member(r, metrics, depth) : skip_value(r, depth)))
            return false;
        skip_space(r);
    } while (skip(r, ','));
    return skip(r, end);
}

static bool skip_value(struct reader *r, unsigned depth)
{
    struct vb_str string;
    struct number number;
    if (r->p == r->end || depth == JSON_DEPTH_MAX)
        return false;
    switch (*r->p) {
    case '"':
        return read_string(r, &string);
    case 't':
        return read_word(r, "true");
    case 'f':
        return read_word(r, "false");
    case 'n':
        return read_word(r, "null");
    case '{':
    case '[': {
        bool object = *r->p++ == '{';
        return read_members(r, object, NULL, depth + 1);
    }
    default:
        return read_number(r, &number);
    }
}

static bool read_json(struct vb_str text, struct metrics *metrics)
{
    struct reader r = {text.p, text.p + text.n};
    skip_space(&r);
    if (!skip(&r, '{') || !read_members(&r, true, metrics, 1))
        return false;
    skip_space(&r);
    return r.p == r.end;
}

/* ---- fields ------------------------------------------------------------------------------------------------------ */

static bool take_prefix(struct vb_str *text, struct vb_str prefix)
{
    if (text->n < prefix.n || memcmp(text->p, prefix.p, prefix.n) != 0)
        return false;
    text->p += prefix.n;
    text->n -= prefix.n;
    return true;
}

static bool read_orca(struct vb_str value, uint32_t *ret_load_milli)
{
    struct metrics metrics = {0};
    bool valid = false;
    if (take_prefix(&value, VB_STR("TEXT ")))
        valid = read_text(value, &metrics);
    else if (take_prefix(&value, VB_STR("JSON ")))
        valid = read_json(value, &metrics);
    return valid && choose(&metrics, ret_load_milli);
}

static bool read_x_load(struct vb_str value, uint32_t *ret_load_milli)
{
    struct reader r = {value.p, value.p + value.n};
    struct number number;
    if (!read_number(&r, &number))
        return false;
    if (skip(&r, '%'))
        number.exponent += PERCENT;
    return r.p == r.end && to_milli(&number, ret_load_milli);
}

bool vb_head_load_report(const struct vb_head *head, uint32_t *ret_load_milli)
{
    const struct vb_field *orca = vb_head_find_name(head, VB_STR("endpoint-load-metrics"));
    if (orca != NULL)
        return read_orca(orca->value, ret_load_milli);
    const struct vb_field *x_load = vb_head_find_name(head, VB_STR("x-load"));
    return x_load != NULL && read_x_load(x_load->value, ret_load_milli);
}
