#include "reply.h"

#include <stdarg.h>
#include <time.h>

/* Byte i of a body is letter i % 26, so that a reader can check that none is missing. */
#define ALPHABET   "abcdefghijklmnopqrstuvwxyz"
#define BLOCK_SIZE (2520ul * 26) /* almost 64 KiB, whole alphabets */

void reply_frame(struct reply *reply, enum vb_framing request_framing, uint64_t request_length)
{
    const struct answer *answer = &reply->answer;
    reply->framing = VB_FRAMING_LENGTH;
    reply->length = 0;
    if (answer->kind == ANSWER_ECHO) {
        if (request_framing == VB_FRAMING_CHUNKED)
            reply->framing = VB_FRAMING_CHUNKED;
        else if (request_framing == VB_FRAMING_LENGTH)
            reply->length = request_length;
    } else if (answer->kind == ANSWER_BYTES && answer->chunked) {
        reply->framing = reply->minor == 1 ? VB_FRAMING_CHUNKED : VB_FRAMING_CLOSE;
    } else if (answer->kind == ANSWER_BYTES) {
        reply->length = answer->bytes;
    } else if (answer->status == 204 || answer->status == 304) {
        reply->framing = VB_FRAMING_NONE;
    } else {
        reply->length = vb_buf_len(&answer->text.buf);
    }
    if (reply->framing == VB_FRAMING_CLOSE)
        reply->keep_alive = false;
}

/* The Date field's value; made once a second. */
static const char *date_now(void)
{
    static time_t second;
    static char text[32];
    time_t now = time(NULL);
    struct tm tm;
    if (now != second) {
        second = now;
        strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&now, &tm));
    }
    return text;
}

static void put(char *to, size_t *used, const char *fmt, ...) VB_PRINTF(3, 4);

static void put(char *to, size_t *used, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(to + *used, REPLY_HEAD_MAX - *used, fmt, args);
    va_end(args);
    assert(n >= 0 && (size_t)n < REPLY_HEAD_MAX - *used); /* nothing in a head comes from the client */
    *used += (size_t)n;
}

size_t reply_head(const struct reply *reply, const char *backend, char *to)
{
    const struct answer *answer = &reply->answer;
    size_t n = 0;
    put(to, &n, "HTTP/1.1 %u %s\r\nDate: %s\r\nX-Backend: %s\r\n", answer->status, vb_status_reason(answer->status),
        date_now(), backend);
    if (reply->framing != VB_FRAMING_NONE)
        put(to, &n, "Content-Type: %s\r\n", answer->type);
    if (reply->framing == VB_FRAMING_LENGTH)
        put(to, &n, "Content-Length: %llu\r\n", (unsigned long long)reply->length);
    else if (reply->framing == VB_FRAMING_CHUNKED)
        put(to, &n, "Transfer-Encoding: chunked\r\n");
    if (answer->allow != NULL)
        put(to, &n, "Allow: %s\r\n", answer->allow);
    if (!reply->keep_alive)
        put(to, &n, "Connection: close\r\n");
    else if (reply->minor == 0)
        put(to, &n, "Connection: keep-alive\r\n");
    put(to, &n, "\r\n");
    return n;
}

/* The block is constant; iovec just cannot say so. */
static char *pattern(void)
{
    static char block[BLOCK_SIZE];
    if (block[0] == '\0')
        for (size_t i = 0; i < BLOCK_SIZE; i++)
            block[i] = ALPHABET[i % (sizeof(ALPHABET) - 1)];
    return block;
}

unsigned reply_block(struct reply *reply, char line[VB_CHUNK_LINE_MAX], struct iovec iov[REPLY_BLOCK_IOV])
{
    static char next_chunk[] = "\r\n", last_chunk[] = "\r\n0\r\n\r\n";
    bool chunked = reply->framing == VB_FRAMING_CHUNKED;
    size_t size = (size_t)VB_MIN(reply->answer.bytes, (uint64_t)BLOCK_SIZE);
    unsigned n = 0;
    reply->answer.bytes -= size;
    if (chunked && size > 0)
        iov[n++] = (struct iovec){line, vb_h1_write_chunk_line(line, size)};
    if (size > 0)
        iov[n++] = (struct iovec){pattern(), size};
    if (chunked && reply->answer.bytes > 0)
        iov[n++] = (struct iovec){next_chunk, sizeof(next_chunk) - 1};
    else if (chunked && size > 0)
        iov[n++] = (struct iovec){last_chunk, sizeof(last_chunk) - 1};
    else if (chunked)
        iov[n++] = (struct iovec){last_chunk + 2, sizeof(last_chunk) - 3};
    return n;
}
