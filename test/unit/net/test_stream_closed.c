/*
 * Streams whose system calls go as a test wants it.
 *
 * One that is closed while the loop still owes it the news that there is room for its queue: its descriptor may
 * belong to another connection by then, which must see nothing of it.
 */
#include "fixture.h"

static unsigned lacking; /* so many sends find no memory in the kernel */
static size_t most;      /* the next send takes no more, as if the kernel had room for no more just then; 0: as it is */

/* In place of the C library's. */
ssize_t send(int fd, const void *bytes, size_t n, int flags)
{
    if (lacking > 0) {
        lacking--;
        errno = ENOBUFS;
        return -1;
    }
    if (most > 0 && n > most)
        n = most;
    most = 0;
    return sendto(fd, bytes, n, flags, NULL, 0);
}

static void on_event(void *owner)
{
}

static void on_data(void *owner, const char *bytes, size_t n)
{
}

static void on_failed(void *owner, int code)
{
}

static const struct vb_stream_events events = {on_event, on_data, on_event, on_event, NULL, on_failed};

static void open_pair(int pair[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
}

/* With a queue, for which there is room, but nobody has been told. */
static struct vb_stream *open_owed(struct fixture *f, int fd)
{
    struct vb_stream *stream;
    static int owner;
    assert_int_equal(vb_stream_open(&stream, f->loop, fd, &events, &owner), 0);
    most = 5;
    assert_int_equal(vb_stream_write(stream, &(struct iovec){(void *)"0123456789", 10}, 1), 1);
    assert_int_equal(most, 0);
    return stream;
}

/* Closes it, gives its descriptor's number to a connection of its own, and looks what comes there. */
static void check_others_see_nothing(struct fixture *f, struct vb_stream *stream, int fd)
{
    int other[2];
    char byte;
    open_pair(other);
    vb_stream_close(&stream);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
    assert_int_equal(dup2(other[0], fd), fd);
    for (unsigned i = 0; i < 3; i++)
        turn(f);
    assert_int_equal(recv(other[1], &byte, 1, MSG_DONTWAIT), -1);
    assert_int_equal(errno, EAGAIN);
    close(fd);
    close(other[0]);
    close(other[1]);
}

static void bytes_that_waited_go_nowhere(void **state)
{
    struct fixture *f = *state;
    int pair[2];
    open_pair(pair);
    struct vb_stream *stream = open_owed(f, pair[0]);
    assert_int_equal(vb_stream_write(stream, &(struct iovec){(void *)"waits", 5}, 1), 1);
    check_others_see_nothing(f, stream, pair[0]);
    close(pair[1]);
}

static void an_end_that_waited_goes_nowhere(void **state)
{
    struct fixture *f = *state;
    int pair[2];
    open_pair(pair);
    struct vb_stream *stream = open_owed(f, pair[0]);
    vb_stream_end(stream);
    check_others_see_nothing(f, stream, pair[0]);
    close(pair[1]);
}

/* Nothing tells when there is memory again. */
static void want_of_memory_loses_nothing(void **state)
{
    struct fixture *f = *state;
    struct vb_stream *stream;
    char bytes[10];
    int pair[2];
    open_pair(pair);
    assert_int_equal(vb_stream_open(&stream, f->loop, pair[0], &events, f), 0);
    lacking = 5;
    assert_int_equal(vb_stream_write(stream, &(struct iovec){(void *)"0123456789", 10}, 1), 1);
    RUN_UNTIL(f, recv(pair[1], bytes, sizeof(bytes), MSG_DONTWAIT) == 10);
    assert_memory_equal(bytes, "0123456789", 10);
    assert_false(vb_stream_queued(stream));
    vb_stream_close(&stream);
    close(pair[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(want_of_memory_loses_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(bytes_that_waited_go_nowhere, setup, teardown),
        cmocka_unit_test_setup_teardown(an_end_that_waited_goes_nowhere, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
