/* PROXY headers: what a prefix gives, every longer one gives too, and nothing is read behind it. */
#include <errno.h>

#include "fuzz.h"
#include "vb/proxyproto.h"

#define PREFIXES 1024 /* of long inputs not every prefix is tried */

struct parsed {
    ssize_t r;
    struct sockaddr_storage source;
};

static struct parsed parse(const uint8_t *data, size_t n)
{
    struct parsed parsed = {.source.ss_family = AF_MAX};
    const char *why = NULL;
    char *bytes = exact_copy(data, n);
    parsed.r = vb_proxyproto_parse(bytes, n, &parsed.source, &why);
    free(bytes);
    assert(parsed.r == -EPROTO || (parsed.r >= 0 && (size_t)parsed.r <= n && parsed.r <= VB_PROXYPROTO_MAX));
    assert((parsed.r == -EPROTO) == (why != NULL));
    const sa_family_t family = parsed.source.ss_family;
    assert(parsed.r > 0 ? family == AF_UNSPEC || family == AF_INET || family == AF_INET6 : family == AF_MAX);
    return parsed;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct parsed whole = parse(data, size);
    const size_t length = whole.r > 0 ? (size_t)whole.r : size, step = 1 + size / PREFIXES;
    bool refused = false;
    for (size_t n = 0; n < length; n += step) {
        ssize_t r = parse(data, n).r;
        assert(r == 0 || (r == -EPROTO && whole.r == -EPROTO));
        assert(!refused || r == -EPROTO);
        refused = r == -EPROTO;
    }
    if (whole.r > 0) { /* what follows the header is not looked at */
        const struct parsed alone = parse(data, length);
        assert(alone.r == whole.r && memcmp(&alone.source, &whole.source, sizeof(alone.source)) == 0);
    }
    assert(whole.r != 0 || size < VB_PROXYPROTO_MAX);
    return 0;
}
