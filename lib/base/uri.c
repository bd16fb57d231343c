#include "vb/uri.h"

/* RFC 3986 2.3. Not isalnum: that asks the locale. */
static bool is_unreserved(unsigned c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
           c == '_' || c == '~';
}

/* The octet that the `%` at `i` stands for; -1: these are not two hexadecimal digits. */
static int octet_at(struct vb_str path, size_t i)
{
    if (path.n - i < 3)
        return -1;
    int high = vb_hex_value(path.p[i + 1]), low = vb_hex_value(path.p[i + 2]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

static size_t decode(char *to, struct vb_str path)
{
    static const char digits[] = "0123456789ABCDEF";
    size_t n = 0;
    size_t open = 0; /* before it a decoded digit would complete a `%` that stands for itself: `%%32e`, `%2%65` */
    for (size_t i = 0; i < path.n; i++) {
        int octet = path.p[i] == '%' ? octet_at(path, i) : -1;
        if (octet < 0) {
            to[n++] = path.p[i];
            if (path.p[i] == '%')
                open = n + 2;
            continue;
        }
        i += 2;
        if (is_unreserved((unsigned)octet) && n >= open) {
            to[n++] = (char)octet;
            continue;
        }
        to[n++] = '%';
        to[n++] = digits[octet / 16];
        to[n++] = digits[octet % 16];
    }
    return n;
}

/* RFC 3986 5.2.4, in place. */
static size_t remove_dot_segments(char *path, size_t n)
{
    size_t kept = 0; /* whole segments, each with the slash before it */
    for (size_t begin = 0, end; begin < n; begin = end) {
        for (end = begin + 1; end < n && path[end] != '/';)
            end++;
        size_t length = end - begin;
        bool here = length == 2 && path[begin + 1] == '.';
        bool up = length == 3 && path[begin + 1] == '.' && path[begin + 2] == '.';
        if (up)
            while (kept > 0 && path[--kept] != '/')
                continue;
        if (here || up) {
            if (end == n)
                path[kept++] = '/';
            continue;
        }
        memmove(path + kept, path + begin, length);
        kept += length;
    }
    return kept;
}

size_t vb_uri_normal_path(char *to, struct vb_str path)
{
    return remove_dot_segments(to, decode(to, path));
}
