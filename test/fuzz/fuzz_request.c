/* Requests: what is accepted means the same to the backend, and to us, once it was written and read again. */
#include "http.h"

static const struct vb_forward_request plain = {.fallback_host = {"fallback", 8}};
static const struct vb_forward_request full = {
    .fallback_host = {"fallback", 8},
    .via = {"vb", 2},
    .client = {.x = true, .ip = {"192.0.2.1", 9}},
    .id_field = {"X-Request-ID", 12},
    .id = {"0123456789abcdef", 16},
};

/* Behind a proxy that is trusted, with an upgrade. */
static const struct vb_forward_request trusted = {
    .fallback_host = {"fallback", 8},
    .client = {.x = true, .rfc7239 = true, .trusted = true, .ip = {"2001:db8::1", 11}},
    .upgrade = {"websocket", 9},
    .max_forwards = {"7", 1},
};

static ssize_t parse(const char *bytes, size_t n, struct vb_head *head, struct vb_refusal *refusal)
{
    return vb_h1_parse_request(bytes, n, &limits, head, refusal);
}

/* Into the room that a caller has to make; it is always enough. */
static char *write_request(const struct vb_head *head, const struct vb_forward_request *how, size_t *ret_n)
{
    size_t room = vb_h1_request_room(head, how);
    char *to = malloc(room);
    assert(to != NULL);
    *ret_n = vb_h1_write_request(to, head, how);
    assert(*ret_n <= room);
    char *exact = exact_copy(to, *ret_n);
    free(to);
    return exact;
}

static void parse_written(const char *bytes, size_t n, struct vb_head *head)
{
    struct vb_refusal refusal;
    struct vb_body_reader reader;
    ssize_t r = vb_h1_parse_request(bytes, n, &roomy, head, &refusal);
    assert(r == (ssize_t)n);
    assert(vb_body_begin(&reader, VB_REQUEST, head, &roomy) == 0);
}

static void check_host(const struct vb_head *came, const struct vb_head *left)
{
    if (came->host.n > 0)
        assert(vb_str_eq(left->host, came->host));
    else if ((came->present & BIT(HOST)) != 0)
        assert(left->host.n == 0);
    else
        assert(vb_str_eq(left->host, plain.fallback_host));
}

static void check_meaning(const struct vb_head *came, const struct vb_head *left)
{
    assert(left->minor == 1 && left->keep_alive && !left->host_from_target);
    assert(vb_str_eq(left->method, came->method));
    if (came->slash_before_target)
        assert(left->target.p[0] == '/' &&
               vb_str_eq((struct vb_str){left->target.p + 1, left->target.n - 1}, came->target));
    else
        assert(vb_str_eq(left->target, came->target));
    assert(left->framing == came->framing && left->length == came->length);
    assert((left->present & (BIT(KEEP_ALIVE) | BIT(PROXY_CONNECTION))) == 0);
    check_framing_fields(left);
    check_host(came, left);
}

/* What is for one hop is made anew: TE, which can only say `trailers`, and what Connection has to name. */
static void check_hop(const struct vb_head *left, struct vb_str upgrade)
{
    const struct vb_field *te = vb_head_find(left, VB_FIELD_TE), *to = vb_head_find(left, VB_FIELD_UPGRADE);
    const struct vb_field *connection = vb_head_find(left, VB_FIELD_CONNECTION);
    assert(te == NULL || (vb_str_eq(te->value, VB_STR("trailers")) && te->named_by_connection));
    assert((to == NULL) == (upgrade.n == 0) && (to == NULL || vb_str_eq(to->value, upgrade)));
    assert((connection != NULL) == (te != NULL || to != NULL));
    assert(left->wants_upgrade == (to != NULL));
}

static unsigned count_name(const struct vb_head *head, struct vb_str name)
{
    unsigned n = 0;
    for (unsigned i = 0; i < head->n_fields; i++)
        n += vb_str_eq_nocase(head->fields[i].name, name);
    return n;
}

static void check_forwarded(const struct vb_head *left)
{
    assert(count_name(left, VB_STR("X-Forwarded-For")) == 1);
    assert(vb_str_eq(vb_head_find(left, VB_FIELD_X_FORWARDED_FOR)->value, full.client.ip));
    assert(count_name(left, VB_STR("X-Forwarded-Proto")) == 1);
    assert(count_name(left, VB_STR("X-Forwarded-Host")) <= 1);
    assert(count_name(left, VB_STR("Forwarded")) == 0);
    assert(count_name(left, full.id_field) == 1);
    assert(vb_str_eq(vb_head_find_name(left, full.id_field)->value, full.id));
}

static bool ends_with(struct vb_str text, struct vb_str end)
{
    return text.n >= end.n && memcmp(text.p + text.n - end.n, end.p, end.n) == 0;
}

static void check_trusted(const struct vb_head *left)
{
    assert(count_name(left, VB_STR("X-Forwarded-For")) == 1 && count_name(left, VB_STR("Forwarded")) == 1);
    assert(ends_with(vb_head_find(left, VB_FIELD_X_FORWARDED_FOR)->value, trusted.client.ip));
    assert(ends_with(vb_head_find(left, VB_FIELD_FORWARDED)->value, VB_STR(";proto=http")));
    assert(count_name(left, VB_STR("Max-Forwards")) == 1);
}

static void check_written(const struct vb_head *came)
{
    static struct vb_head left;
    size_t n, n_again;
    char *bytes = write_request(came, &plain, &n);
    parse_written(bytes, n, &left);
    check_meaning(came, &left);
    check_hop(&left, VB_STR(""));
    bool has_content = came->framing == VB_FRAMING_CHUNKED || came->length > 0;
    check_passed(came, &left, came->minor == 0 || !has_content ? BIT(EXPECT) : 0); /* RFC 9110 10.1.1 */
    char *again = write_request(&left, &plain, &n_again);
    assert(n_again == n && memcmp(again, bytes, n) == 0);
    free(again);
    free(bytes);

    bytes = write_request(came, &full, &n);
    parse_written(bytes, n, &left);
    check_meaning(came, &left);
    check_hop(&left, VB_STR(""));
    check_forwarded(&left);
    free(bytes);

    bytes = write_request(came, &trusted, &n);
    parse_written(bytes, n, &left);
    check_meaning(came, &left);
    check_hop(&left, trusted.upgrade);
    check_trusted(&left);
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct vb_head head;
    struct vb_refusal refusal = {0};
    struct vb_body_reader reader;
    char *bytes = exact_copy(data, size);
    ssize_t r = parse(bytes, size, &head, &refusal);
    assert(r <= (ssize_t)VB_MIN(size, limits.bytes));
    assert(r >= 0 || (r == -EPROTO && refusal.status >= 400 && refusal.status < 600 && refusal.why != NULL));
    check_prefixes(parse, bytes, size, r, &refusal);
    if (r > 0) {
        check_fields(&head, bytes, (size_t)r);
        if (vb_body_begin(&reader, VB_REQUEST, &head, &limits) == 0) {
            check_written(&head);
            check_body(VB_REQUEST, &head, bytes + r, size - (size_t)r);
        }
    }
    free(bytes);
    return 0;
}
