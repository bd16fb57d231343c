/*
 * Responses: what a backend says means the same to the client. The first byte of the input chooses what was asked and
 * what is announced; the rest is the response.
 */
#include "http.h"

static bool to_head; /* of the input in hand */

static ssize_t parse(const char *bytes, size_t n, struct vb_head *head, struct vb_refusal *refusal)
{
    return vb_h1_parse_response(bytes, n, &limits, to_head, head, refusal);
}

static struct vb_forward_response choose(uint8_t choice, const struct vb_head *head)
{
    struct vb_forward_response how = {.framing = head->framing};
    if ((choice & 2) != 0)
        how.via = VB_STR("vb");
    if ((choice & 4) != 0) {
        how.id_field = VB_STR("X-Request-ID");
        how.id = VB_STR("0123456789abcdef");
    }
    how.announce_close = (choice & 8) != 0;
    how.announce_keep_alive = (choice & 16) != 0;
    if (head->framing == VB_FRAMING_CLOSE && !how.announce_close)
        how.framing = VB_FRAMING_CHUNKED; /* a client that stays must see where it ends */
    return how;
}

static void check_written(const struct vb_head *came, const struct vb_forward_response *how)
{
    static struct vb_head left;
    struct vb_refusal refusal;
    struct vb_body_reader reader;
    size_t room = vb_h1_response_room(came, how);
    char *to = malloc(room);
    assert(to != NULL);
    size_t n = vb_h1_write_response(to, came, how);
    assert(n <= room);
    char *bytes = exact_copy(to, n);
    free(to);
    ssize_t r = vb_h1_parse_response(bytes, n, &roomy, to_head, &left, &refusal);
    assert(r == (ssize_t)n);
    assert(vb_body_begin(&reader, VB_RESPONSE, &left, &roomy) == 0);
    assert(left.status == came->status && left.minor == 1);
    assert(left.reason.n == 0 ? came->reason.n == 0 : vb_str_eq(left.reason, came->reason));
    assert(left.framing == how->framing);
    assert(left.framing != VB_FRAMING_LENGTH || left.length == came->length);
    assert(left.keep_alive == !how->announce_close);
    assert((left.present & (BIT(KEEP_ALIVE) | BIT(PROXY_CONNECTION) | BIT(TE) | BIT(UPGRADE))) == 0);
    assert((left.status >= 200 && left.status != 204) || (left.present & BIT(CONTENT_LENGTH)) == 0);
    if (left.framing != VB_FRAMING_NONE)
        check_framing_fields(&left);
    assert(how->id.n == 0 || vb_head_find_name(came, how->id_field) != NULL ||
           vb_str_eq(vb_head_find_name(&left, how->id_field)->value, how->id));
    if (how->via.n == 0 && how->id.n == 0)
        check_passed(came, &left, 0);
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct vb_head head;
    struct vb_refusal refusal = {0};
    struct vb_body_reader reader;
    if (size == 0)
        return 0;
    to_head = (data[0] & 1) != 0;
    size_t n = size - 1;
    char *bytes = exact_copy(data + 1, n);
    ssize_t r = parse(bytes, n, &head, &refusal);
    assert(r <= (ssize_t)VB_MIN(n, limits.bytes));
    assert(r >= 0 || (r == -EPROTO && refusal.status == 502 && refusal.why != NULL));
    check_prefixes(parse, bytes, n, r, &refusal);
    if (r > 0) {
        uint32_t load;
        check_fields(&head, bytes, (size_t)r);
        assert(!vb_head_load_report(&head, &load) || load <= VB_LOAD_REPORT_MAX);
        if (vb_body_begin(&reader, VB_RESPONSE, &head, &limits) == 0) {
            struct vb_forward_response how = choose(data[0], &head);
            check_written(&head, &how);
            check_body(VB_RESPONSE, &head, bytes + r, n - (size_t)r);
        }
    }
    free(bytes);
    return 0;
}
