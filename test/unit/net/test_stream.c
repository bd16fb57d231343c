/*
 * Streams, seen from their peer: what it gets, and whether the end looks like an end or like a break. Most tests run
 * over TCP and over a unix socket; what needs an RST runs over TCP only.
 */
#include "fixture.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

/* The fixture, and one stream with all that happened to it. */
struct side {
    struct fixture *f;
    struct vb_stream *stream;
    unsigned connected, ended, drained, failed;
    int code;       /* of the failure */
    size_t n;       /* bytes that arrived */
    char bytes[64]; /* the first ones */
    bool queued_when_drained;
    unsigned close_in; /* which event closes: one of the letters below */
    struct side *twin; /* whom data closes */
};

enum { NOWHERE, IN_CONNECTED = 'c', IN_DATA = 'd', IN_END = 'e', IN_DRAINED = 'r', IN_FAILED = 'f' };

/* Gone at once, memory and all: what the stream still did with its owner would be found by ASan. */
static void close_if_in(struct side *side, unsigned event)
{
    if (side->close_in != event)
        return;
    vb_stream_close(&side->stream);
    assert_null(side->stream);
}

static void expect_open(const struct side *side)
{
    assert_non_null(side->stream); /* no event after closing */
}

static void on_connected(void *owner)
{
    struct side *side = owner;
    expect_open(side);
    side->connected++;
    close_if_in(side, IN_CONNECTED);
}

static void on_data(void *owner, const char *bytes, size_t n)
{
    struct side *side = owner;
    expect_open(side);
    assert_true(n > 0);
    if (side->n < sizeof(side->bytes))
        memcpy(side->bytes + side->n, bytes, VB_MIN(n, sizeof(side->bytes) - side->n));
    side->n += n;
    close_if_in(side, IN_DATA);
}

static void on_end(void *owner)
{
    struct side *side = owner;
    expect_open(side);
    side->ended++;
    close_if_in(side, IN_END);
}

static void on_drained(void *owner)
{
    struct side *side = owner;
    expect_open(side);
    side->drained++;
    side->queued_when_drained = vb_stream_queued(side->stream);
    close_if_in(side, IN_DRAINED);
}

static void on_failed(void *owner, int code)
{
    struct side *side = owner;
    expect_open(side);
    side->failed++;
    side->code = code;
    close_if_in(side, IN_FAILED);
}

/* Only of vb_stream_write_soon, for which see test_batch.c. */
static void on_written(void *owner, int result)
{
    fail();
}

static const struct vb_stream_events events = {on_connected, on_data, on_end, on_drained, on_written, on_failed};

/* ---- the peer: a plain socket ------------------------------------------------------------------------------------ */

struct peer {
    int fd;
    size_t n;  /* bytes read; each must be the next one of the pattern */
    int error; /* that ended reading; 0 with `eof`, or when it goes on */
    bool eof;
};

static char pattern(size_t at)
{
    return (char)(at * 2654435761u >> 13);
}

static void fill(char *bytes, size_t at, size_t n)
{
    for (size_t i = 0; i < n; i++)
        bytes[i] = pattern(at + i);
}

/* Reads at most `most` bytes of what is there; true when there was an end. */
static bool read_some(struct peer *peer, size_t most)
{
    static char bytes[65536];
    ssize_t got = recv(peer->fd, bytes, VB_MIN(most, sizeof(bytes)), MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN)
        return false;
    peer->eof = got == 0;
    peer->error = got < 0 ? errno : 0;
    for (ssize_t i = 0; i < got; i++)
        if (bytes[i] != pattern(peer->n + (size_t)i))
            fail_msg("byte %zu is not the one that was sent", peer->n + (size_t)i);
    peer->n += got > 0 ? (size_t)got : 0;
    return got <= 0;
}

static bool peer_sends(struct peer *peer, const char *text)
{
    return send(peer->fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text);
}

/* Bytes that it has sent, and the other end has no room for. */
static int not_taken(const struct peer *peer)
{
    int n = -1;
    assert_int_equal(ioctl(peer->fd, SIOCOUTQ, &n), 0);
    return n;
}

/* The peer breaks the connection: it gets an RST. */
static void peer_resets(struct peer *peer)
{
    struct linger hard = {.l_onoff = 1, .l_linger = 0};
    setsockopt(peer->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    close(peer->fd);
    peer->fd = -1;
}

/* Little room in the kernel, so that few bytes make back-pressure. */
static void make_small(int fd)
{
    int small = 4096;
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
}

/* A plain listening socket of the fixture's family, and its address. */
static int listener_with_little_room(const struct fixture *f, struct sockaddr_storage *ret_address)
{
    socklen_t length = sizeof(*ret_address);
    int fd;
    if (f->family == AF_UNIX) {
        struct sockaddr_un address = unix_address(f, "peer");
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    } else {
        fd = bound_socket();
    }
    make_small(fd);
    assert_int_equal(listen(fd, 8), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)ret_address, &length), 0);
    return fd;
}

static void close_listener(const struct fixture *f, int fd)
{
    close(fd);
    if (f->family == AF_UNIX)
        unlink(unix_address(f, "peer").sun_path);
}

/* Two plain sockets that are connected. */
static void open_sockets(const struct fixture *f, int *ret_ours, int *ret_theirs)
{
    if (f->family == AF_UNIX) {
        int fds[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        make_small(fds[0]);
        make_small(fds[1]);
        *ret_ours = fds[0];
        *ret_theirs = fds[1];
        return;
    }
    struct sockaddr_storage address;
    int listener = listener_with_little_room(f, &address);
    *ret_theirs = connect_to(port_of(listener));
    *ret_ours = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    assert_true(*ret_ours >= 0);
    close(listener);
}

/* A stream, and the plain socket at its other end. */
static void open_pair(struct fixture *f, struct side *side, struct peer *peer)
{
    int fd;
    *side = (struct side){.f = f};
    *peer = (struct peer){.n = 0};
    open_sockets(f, &fd, &peer->fd);
    assert_int_equal(vb_stream_open(&side->stream, f->loop, fd, &events, side), 0);
}

/* A stream that is about to be connected, to the plain socket that is returned. */
static struct peer begin_to_connect(struct side *side)
{
    struct sockaddr_storage address;
    int listener = listener_with_little_room(side->f, &address);
    assert_int_equal(vb_stream_connect(&side->stream, side->f->loop, (struct sockaddr *)&address, &events, side), 0);
    struct peer peer = {.fd = accept(listener, NULL, NULL)};
    close_listener(side->f, listener);
    return peer;
}

static void close_pair(struct side *side, struct peer *peer)
{
    vb_stream_close(&side->stream);
    if (peer->fd >= 0)
        close(peer->fd);
}

static int write_pattern(struct side *side, size_t at, size_t n)
{
    char *bytes = malloc(n);
    assert_non_null(bytes);
    fill(bytes, at, n);
    int r = vb_stream_write(side->stream, &(struct iovec){bytes, n}, 1);
    free(bytes); /* what the kernel did not take was copied */
    return r;
}

/* Writes until something is queued, and somewhat more; how many bytes. */
static size_t write_until_queued(struct side *side)
{
    size_t n = 0;
    int r = 0;
    for (; r == 0; n += 65536)
        r = write_pattern(side, n, 65536);
    assert_int_equal(r, 1);
    for (unsigned i = 0; i < 10; i++, n += 50000)
        assert_int_equal(write_pattern(side, n, 50000), 1);
    assert_true(vb_stream_queued(side->stream));
    assert_true(vb_stream_unsent(side->stream) >= 500000);
    return n;
}

/* ---- reading and writing ----------------------------------------------------------------------------------------- */

static void bytes_go_both_ways(void **state)
{
    struct side side;
    struct peer peer;
    open_pair(*state, &side, &peer);
    assert_true(peer_sends(&peer, "hello"));
    RUN_UNTIL(side.f, side.n == 5);
    assert_memory_equal(side.bytes, "hello", 5);
    assert_int_equal(write_pattern(&side, 0, 1000), 0);
    assert_false(vb_stream_queued(side.stream));
    RUN_UNTIL(side.f, read_some(&peer, 1000) || peer.n == 1000);
    assert_int_equal(side.drained + side.ended + side.failed, 0);
    close_pair(&side, &peer);
}

static void a_descriptor_that_is_none_is_refused(void **state)
{
    struct side side = {.f = *state};
    assert_true(vb_stream_open(&side.stream, side.f->loop, -1, &events, &side) < 0);
    assert_null(side.stream);
    run_for_ms(side.f, 5);
    assert_int_equal(streams(side.f), 0);
}

static void slices_leave_as_one(void **state)
{
    struct side side;
    struct peer peer;
    char bytes[30];
    open_pair(*state, &side, &peer);
    fill(bytes, 0, sizeof(bytes));
    struct iovec iov[] = {{bytes, 10}, {bytes + 10, 0}, {bytes + 10, 1}, {bytes + 11, 19}};
    assert_int_equal(vb_stream_write(side.stream, iov, VB_ARRAY_SIZE(iov)), 0);
    RUN_UNTIL(side.f, read_some(&peer, 1000) || peer.n == sizeof(bytes));
    close_pair(&side, &peer);
}

/* Slices of a write that the kernel takes half are queued from the right byte on. */
static void back_pressure_loses_nothing(void **state)
{
    struct side side;
    struct peer peer;
    static char bytes[100001];
    size_t n = 0;
    open_pair(*state, &side, &peer);
    do {
        fill(bytes, n, sizeof(bytes));
        struct iovec iov[] = {{bytes, 1}, {bytes + 1, 50000}, {bytes + 50001, 0}, {bytes + 50001, 50000}};
        assert_true(vb_stream_write(side.stream, iov, VB_ARRAY_SIZE(iov)) >= 0);
        n += sizeof(bytes);
    } while (vb_stream_unsent(side.stream) < 1000000);
    assert_int_equal(side.drained, 0);
    RUN_UNTIL(side.f, read_some(&peer, 65536) || side.drained > 0);
    assert_false(side.queued_when_drained);
    RUN_UNTIL(side.f, read_some(&peer, 65536) || peer.n == n);
    run_for_ms(side.f, 5);
    assert_int_equal(peer.n, n);
    assert_int_equal(side.drained, 1); /* once, not for each write */
    close_pair(&side, &peer);
}

static void a_drained_stream_queues_again(void **state)
{
    struct side side;
    struct peer peer;
    size_t n = 0;
    open_pair(*state, &side, &peer);
    for (unsigned round = 1; round <= 3; round++) {
        int r = 0;
        for (; r == 0; n += 65536)
            r = write_pattern(&side, n, 65536);
        assert_int_equal(r, 1);
        RUN_UNTIL(side.f, read_some(&peer, 65536) || (side.drained == round && peer.n == n));
    }
    close_pair(&side, &peer);
}

static void paused_streams_read_nothing(void **state)
{
    struct side side;
    struct peer peer;
    open_pair(*state, &side, &peer);
    vb_stream_pause(side.stream);
    vb_stream_pause(side.stream);
    assert_true(peer_sends(&peer, "hello"));
    run_for_ms(side.f, 10);
    assert_int_equal(side.n, 0);
    vb_stream_resume(side.stream);
    vb_stream_resume(side.stream);
    RUN_UNTIL(side.f, side.n == 5);
    close_pair(&side, &peer);
}

/* ---- the kernel tells of each change only once ------------------------------------------------------------------- */

/* A stream whose peer has sent more than two reads can bring, and its end; how much. */
static size_t open_with_much(struct fixture *f, struct side *side, const struct vb_stream_events *how)
{
    static char much[2 * VB_READ_MAX + 1000];
    int fds[2], room = 8 * VB_READ_MAX;
    *side = (struct side){.f = f};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    setsockopt(fds[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
    assert_int_equal(send(fds[1], much, sizeof(much), MSG_DONTWAIT), sizeof(much));
    close(fds[1]);
    assert_int_equal(vb_stream_open(&side->stream, f->loop, fds[0], how, side), 0);
    return sizeof(much);
}

static void much_and_the_end_are_read_to_the_end(void **state)
{
    struct side side;
    size_t n = open_with_much(*state, &side, &events);
    RUN_UNTIL(side.f, side.ended > 0);
    assert_int_equal(side.n, n);
    vb_stream_close(&side.stream);
}

static void on_data_pausing(void *owner, const char *bytes, size_t n)
{
    struct side *side = owner;
    on_data(owner, bytes, n);
    vb_stream_pause(side->stream);
}

static const struct vb_stream_events pausing_events = {on_connected, on_data_pausing, on_end,
                                                       on_drained,   on_written,      on_failed};

static void what_came_before_a_pause_comes_behind_it(void **state)
{
    struct side side;
    size_t n = open_with_much(*state, &side, &pausing_events), pauses = 0;
    for (size_t before = 0; side.n < n; before = side.n, pauses++) {
        RUN_UNTIL(side.f, side.n > before);
        size_t now = side.n;
        run_for_ms(side.f, 3);
        assert_int_equal(side.n, now);
        assert_int_equal(side.ended, 0);
        vb_stream_resume(side.stream);
    }
    assert_true(pauses >= 3);
    RUN_UNTIL(side.f, side.ended > 0);
    vb_stream_close(&side.stream);
}

static void what_comes_in_a_pause_comes_behind_it(void **state)
{
    struct side side;
    struct peer peer;
    open_pair(*state, &side, &peer);
    vb_stream_pause(side.stream);
    run_for_ms(side.f, 3);
    assert_true(peer_sends(&peer, "hello"));
    shutdown(peer.fd, SHUT_WR);
    run_for_ms(side.f, 3);
    assert_int_equal(side.n + side.ended, 0);
    vb_stream_resume(side.stream);
    RUN_UNTIL(side.f, side.ended > 0);
    assert_int_equal(side.n, 5);
    close_pair(&side, &peer);
}

/* At which a read stops, and of which HTTP knows nothing. */
static void what_comes_behind_an_urgent_byte_is_read_too(void **state)
{
    struct side side;
    struct peer peer;
    open_pair(*state, &side, &peer);
    assert_true(peer_sends(&peer, "abc"));
    assert_int_equal(send(peer.fd, "!", 1, MSG_OOB), 1);
    assert_true(peer_sends(&peer, "def"));
    RUN_UNTIL(side.f, side.n >= 6);
    assert_memory_equal(side.bytes, "abcdef", 6);
    close_pair(&side, &peer);
}

/* ---- turns ------------------------------------------------------------------------------------------------------- */

static void on_data_twice(void *owner, const char *bytes, size_t n)
{
    struct side *side = owner;
    bool is_second = side->n > 0;
    on_data(owner, bytes, n);
    if (is_second)
        vb_stream_close(&side->twin->stream);
}

static const struct vb_stream_events twice_events = {on_connected, on_data_twice, on_end,
                                                     on_drained,   on_written,    on_failed};

/* Also when somebody who wanted one too is closed meanwhile. */
static void each_has_one_read_in_a_turn(void **state)
{
    struct fixture *f = *state;
    struct side sides[2];
    for (unsigned i = 0; i < 2; i++) {
        open_with_much(f, &sides[i], &twice_events);
        sides[i].twin = &sides[1 - i];
    }
    for (size_t before[2] = {0, 0}; streams(f) == 2; before[0] = sides[0].n, before[1] = sides[1].n) {
        turn(f);
        assert_true(sides[0].n - before[0] <= VB_READ_MAX);
        assert_true(sides[1].n - before[1] <= VB_READ_MAX);
    }
    vb_stream_close(&sides[0].stream);
    vb_stream_close(&sides[1].stream);
}

static char order[8]; /* whose data came, in order */

static void on_data_in_order(void *owner, const char *bytes, size_t n)
{
    on_data(owner, bytes, n);
    strncat(order, bytes, 1);
}

static const struct vb_stream_events order_events = {on_connected, on_data_in_order, on_end,
                                                     on_drained,   on_written,       on_failed};

/* What was begun is finished first: requests wait, not responses. */
static void who_was_connected_to_is_heard_before_who_came(void **state)
{
    struct fixture *f = *state;
    struct side came[2] = {{.f = f}, {.f = f}}, connected = {.f = f};
    struct peer peers[2];
    struct sockaddr_storage address;
    int listener = listener_with_little_room(f, &address);
    order[0] = '\0';
    assert_int_equal(
        vb_stream_connect(&connected.stream, f->loop, (struct sockaddr *)&address, &order_events, &connected), 0);
    struct peer backend = {.fd = accept(listener, NULL, NULL)};
    RUN_UNTIL(f, connected.connected > 0);
    close_listener(f, listener);
    for (unsigned i = 0; i < 2; i++) {
        int fd;
        open_sockets(f, &fd, &peers[i].fd);
        assert_int_equal(vb_stream_open(&came[i].stream, f->loop, fd, &order_events, &came[i]), 0);
        assert_true(peer_sends(&peers[i], "client"));
    }
    assert_true(peer_sends(&backend, "backend"));
    RUN_UNTIL(f, strlen(order) == 3);
    assert_string_equal(order, "bcc");
    for (unsigned i = 0; i < 2; i++)
        close_pair(&came[i], &peers[i]);
    close_pair(&connected, &backend);
}

static void after_the_peers_end_writing_goes_on(void **state)
{
    struct side side;
    struct peer peer;
    open_pair(*state, &side, &peer);
    assert_true(peer_sends(&peer, "hello"));
    shutdown(peer.fd, SHUT_WR);
    RUN_UNTIL(side.f, side.ended > 0);
    assert_int_equal(side.n, 5);
    vb_stream_resume(side.stream); /* there is nothing more to read, whatever the owner believes */
    assert_int_equal(write_pattern(&side, 0, 1000), 0);
    RUN_UNTIL(side.f, read_some(&peer, 1000) || peer.n == 1000);
    run_for_ms(side.f, 5);
    assert_int_equal(side.ended, 1);
    assert_int_equal(side.failed, 0);
    close_pair(&side, &peer);
}

static void a_reset_by_the_peer_is_a_failure(void **state)
{
    struct side side;
    struct peer peer;
    open_pair(*state, &side, &peer);
    peer_resets(&peer);
    RUN_UNTIL(side.f, side.failed > 0);
    assert_int_equal(side.code, -ECONNRESET);
    assert_true(write_pattern(&side, 0, 10) < 0);
    assert_true(write_pattern(&side, 0, 10) < 0); /* and it stays so */
    run_for_ms(side.f, 5);
    assert_int_equal(side.failed, 1);
    assert_int_equal(side.ended, 0);
    close_pair(&side, &peer);
}

/* What ends with an RST is not complete, though its last bytes came. */
static void a_reset_behind_the_last_bytes_is_no_end(void **state)
{
    for (int paused = 0; paused < 2; paused++) {
        struct side side;
        struct peer peer;
        open_pair(*state, &side, &peer);
        if (paused == 1)
            vb_stream_pause(side.stream);
        assert_true(peer_sends(&peer, "hello"));
        peer_resets(&peer);
        vb_stream_resume(side.stream);
        RUN_UNTIL(side.f, side.failed + side.ended > 0);
        assert_int_equal(side.ended, 0);
        assert_int_equal(side.code, -ECONNRESET);
        close_pair(&side, &peer);
    }
}

/* The nearest thing to an RST that a unix socket has: its peer has not read all that it was sent. */
static void a_unix_peer_that_closes_with_unread_bytes_is_a_failure(void **state)
{
    struct side side;
    struct peer peer;
    open_pair(*state, &side, &peer);
    assert_int_equal(write_pattern(&side, 0, 1000), 0);
    assert_true(peer_sends(&peer, "hello"));
    close(peer.fd);
    peer.fd = -1;
    RUN_UNTIL(side.f, side.failed + side.ended > 0);
    assert_int_equal(side.n, 5);
    assert_int_equal(side.ended, 0);
    assert_int_equal(side.code, -ECONNRESET);
    close_pair(&side, &peer);
}

static void what_the_peer_has_not_taken_is_unsent(void **state)
{
    struct side side;
    struct peer peer;
    open_pair(*state, &side, &peer);
    assert_int_equal(vb_stream_unsent(side.stream), 0);
    size_t n = write_until_queued(&side), before = vb_stream_unsent(side.stream);
    assert_true(before <= n || side.f->family == AF_UNIX); /* there in the kernel's measure */
    RUN_UNTIL(side.f, read_some(&peer, 65536) || vb_stream_unsent(side.stream) < before);
    RUN_UNTIL(side.f, read_some(&peer, 65536) || vb_stream_unsent(side.stream) == 0);
    assert_int_equal(side.drained, 1);
    close_pair(&side, &peer);
}

/* The queue cannot leave any more. Whoever waits for `drained` must not wait for ever. */
static void a_reset_under_a_queue_is_told(void **state)
{
    struct side side;
    struct peer peer;
    open_pair(*state, &side, &peer);
    write_until_queued(&side);
    peer_resets(&peer);
    RUN_UNTIL(side.f, side.failed + side.ended > 0 && side.drained > 0);
    assert_int_equal(side.ended, 0);
    assert_int_equal(side.code, -ECONNRESET);
    assert_false(vb_stream_queued(side.stream));
    assert_true(write_pattern(&side, 0, 10) < 0);
    close_pair(&side, &peer);
}

/* ---- another owner ----------------------------------------------------------------------------------------------- */

struct handover {
    struct side from, to;
};

static void on_data_of_the_first(void *owner, const char *bytes, size_t n)
{
    struct handover *both = owner;
    on_data(&both->from, bytes, n);
    both->to.stream = both->from.stream;
    vb_stream_rebind(both->to.stream, &events, &both->to);
    both->from.stream = NULL; /* an event would be found by expect_open */
    if (both->from.close_in == IN_END)
        vb_stream_close(&both->to.stream);
}

static const struct vb_stream_events first_events = {on_connected, on_data_of_the_first, on_end,
                                                     on_drained,   on_written,           on_failed};

static void rebinding_inside_of_data(void **state)
{
    struct fixture *f = *state;
    for (int close_too = 0; close_too < 2; close_too++) {
        struct handover both = {.from = {.f = f, .close_in = close_too ? IN_END : NOWHERE}, .to = {.f = f}};
        struct peer peer = {.n = 0};
        int fd;
        open_sockets(f, &fd, &peer.fd);
        assert_int_equal(vb_stream_open(&both.from.stream, f->loop, fd, &first_events, &both), 0);
        assert_true(peer_sends(&peer, "hello"));
        RUN_UNTIL(f, both.from.n == 5);
        if (!close_too) {
            assert_true(peer_sends(&peer, "again"));
            RUN_UNTIL(f, both.to.n == 5);
            write_until_queued(&both.to);
            RUN_UNTIL(f, read_some(&peer, 65536) || both.to.drained > 0);
            shutdown(peer.fd, SHUT_WR);
            RUN_UNTIL(f, both.to.ended > 0);
        }
        assert_int_equal(both.from.n, 5);
        assert_int_equal(both.from.drained + both.from.ended + both.from.failed, 0);
        close_pair(&both.to, &peer);
    }
}

/* ---- half-closed ------------------------------------------------------------------------------------------------- */

static void after_our_end_reading_goes_on(void **state)
{
    struct side side;
    struct peer peer;
    open_pair(*state, &side, &peer);
    assert_int_equal(write_pattern(&side, 0, 1000), 0);
    vb_stream_end(side.stream);
    vb_stream_end(side.stream);
    RUN_UNTIL(side.f, read_some(&peer, 65536));
    assert_true(peer.eof);
    assert_int_equal(peer.n, 1000);
    for (unsigned i = 1; i <= 3; i++) {
        assert_true(peer_sends(&peer, "hello"));
        RUN_UNTIL(side.f, side.n == 5 * i);
        run_for_ms(side.f, 5);
    }
    shutdown(peer.fd, SHUT_WR);
    RUN_UNTIL(side.f, side.ended > 0);
    run_for_ms(side.f, 5);
    assert_int_equal(side.ended, 1);
    assert_int_equal(side.failed + side.drained, 0);
    assert_int_equal(streams(side.f), 1); /* both have ended; the owner closes */
    close_pair(&side, &peer);
}

static void our_end_waits_for_the_queue(void **state)
{
    for (int peer_first = 0; peer_first < 2; peer_first++) {
        struct side side;
        struct peer peer;
        open_pair(*state, &side, &peer);
        if (peer_first == 1) {
            shutdown(peer.fd, SHUT_WR);
            RUN_UNTIL(side.f, side.ended > 0);
        }
        size_t n = write_until_queued(&side);
        vb_stream_end(side.stream);
        assert_true(vb_stream_queued(side.stream));
        run_for_ms(side.f, 5);
        RUN_UNTIL(side.f, read_some(&peer, 65536));
        assert_true(peer.eof);
        assert_int_equal(peer.n, n);
        RUN_UNTIL(side.f, side.drained > 0);
        vb_stream_end(side.stream);
        if (peer_first == 0) {
            assert_true(peer_sends(&peer, "hello"));
            RUN_UNTIL(side.f, side.n == 5);
        }
        assert_int_equal(streams(side.f), 1);
        assert_int_equal(side.failed, 0);
        close_pair(&side, &peer);
    }
}

static void an_ended_stream_can_finish(void **state)
{
    for (int queue = 0; queue < 2; queue++) {
        struct side side;
        struct peer peer;
        size_t n = 1000;
        open_pair(*state, &side, &peer);
        if (queue == 1)
            n = write_until_queued(&side);
        else
            assert_int_equal(write_pattern(&side, 0, n), 0);
        vb_stream_end(side.stream);
        vb_stream_finish(&side.stream);
        RUN_UNTIL(side.f, read_some(&peer, 65536));
        assert_true(peer.eof);
        assert_int_equal(peer.n, n);
        assert_int_equal(streams(side.f), 1); /* it waits for the peer's end */
        close(peer.fd);
        RUN_UNTIL(side.f, streams(side.f) == 0);
    }
}

/* What has been lost must not look like an end. */
static void a_reset_under_an_ended_queue_is_told(void **state)
{
    struct side side;
    struct peer peer;
    open_pair(*state, &side, &peer);
    write_until_queued(&side);
    vb_stream_end(side.stream);
    peer_resets(&peer);
    RUN_UNTIL(side.f, side.failed > 0 && side.drained > 0);
    assert_int_equal(side.code, -ECONNRESET);
    assert_int_equal(side.ended, 0);
    close_pair(&side, &peer);
}

static void writing_after_our_end_ends_the_process(void **state)
{
    struct side side;
    struct peer peer;
    open_pair(*state, &side, &peer);
    vb_stream_end(side.stream);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        signal(SIGABRT, SIG_DFL);
        close(STDERR_FILENO);
        write_pattern(&side, 0, 1);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    close_pair(&side, &peer);
}

/* ---- connecting -------------------------------------------------------------------------------------------------- */

static void connecting(void **state)
{
    struct side side = {.f = *state};
    struct sockaddr_storage address;
    int listener = listener_with_little_room(side.f, &address);
    assert_int_equal(vb_stream_connect(&side.stream, side.f->loop, (struct sockaddr *)&address, &events, &side), 0);
    assert_int_equal(side.connected, 0);
    RUN_UNTIL(side.f, side.connected > 0);
    struct peer peer = {.fd = accept(listener, NULL, NULL)};
    close_listener(side.f, listener);
    assert_int_equal(write_pattern(&side, 0, 1000), 0);
    RUN_UNTIL(side.f, read_some(&peer, 1000) || peer.n == 1000);
    vb_stream_pause(side.stream);
    assert_true(peer_sends(&peer, "hello"));
    vb_stream_resume(side.stream);
    RUN_UNTIL(side.f, side.n == 5);
    assert_int_equal(side.connected, 1);
    assert_int_equal(side.failed, 0);
    vb_stream_finish(&side.stream);
    RUN_UNTIL(side.f, read_some(&peer, 1));
    assert_true(peer.eof);
    assert_int_equal(streams(side.f), 1);
    close(peer.fd);
    RUN_UNTIL(side.f, streams(side.f) == 0);
}

/* Also where the kernel has connected it by then: who counts on `connected` hears of it before anything has left. */
static void what_is_written_before_it_is_connected_waits(void **state)
{
    struct side side = {.f = *state};
    struct peer peer = begin_to_connect(&side);
    assert_int_equal(write_pattern(&side, 0, 500), 1);
    assert_int_equal(write_pattern(&side, 500, 500), 1);
    assert_false(read_some(&peer, 1000));
    assert_int_equal(peer.n, 0);
    RUN_UNTIL(side.f, read_some(&peer, 1000) || peer.n == 1000);
    RUN_UNTIL(side.f, side.drained > 0);
    assert_int_equal(side.connected, 1);
    close_pair(&side, &peer);
}

static void what_waits_until_it_is_connected_may_be_more_than_there_is_room_for(void **state)
{
    struct side side = {.f = *state};
    struct peer peer = begin_to_connect(&side);
    const size_t n = 8000000;
    assert_int_equal(write_pattern(&side, 0, n), 1);
    assert_int_equal(vb_stream_unsent(side.stream), n);
    RUN_UNTIL(side.f, side.connected > 0);
    assert_true(vb_stream_queued(side.stream));
    RUN_UNTIL(side.f, read_some(&peer, 65536) || peer.n == n);
    RUN_UNTIL(side.f, side.drained > 0);
    assert_int_equal(side.drained, 1);
    close_pair(&side, &peer);
}

static void finishing_while_it_connects_sends_what_waits(void **state)
{
    struct side side = {.f = *state};
    struct peer peer = begin_to_connect(&side);
    assert_int_equal(write_pattern(&side, 0, 1000), 1);
    vb_stream_finish(&side.stream);
    RUN_UNTIL(side.f, read_some(&peer, 1000));
    assert_true(peer.eof);
    assert_int_equal(peer.n, 1000);
    close(peer.fd);
    RUN_UNTIL(side.f, streams(side.f) == 0);
    assert_int_equal(side.connected + side.drained + side.failed, 0);
}

static void finishing_while_it_is_refused(void **state)
{
    struct side side = {.f = *state};
    int bound = bound_socket();
    struct sockaddr_in address = loopback(port_of(bound));
    assert_int_equal(vb_stream_connect(&side.stream, side.f->loop, (struct sockaddr *)&address, &events, &side), 0);
    assert_int_equal(write_pattern(&side, 0, 1000), 1);
    vb_stream_finish(&side.stream);
    RUN_UNTIL(side.f, streams(side.f) == 0);
    assert_int_equal(side.connected + side.drained + side.failed, 0);
    close(bound);
}

static void a_refused_connection_is_a_failure(void **state)
{
    for (int writes = 0; writes < 2; writes++) {
        struct side side = {.f = *state};
        int bound = bound_socket(); /* nobody listens there, and nobody else can begin to */
        struct sockaddr_in address = loopback(port_of(bound));
        assert_int_equal(vb_stream_connect(&side.stream, side.f->loop, (struct sockaddr *)&address, &events, &side), 0);
        if (writes == 1)
            assert_int_equal(write_pattern(&side, 0, 1000), 1);
        RUN_UNTIL(side.f, side.failed > 0);
        assert_int_equal(side.code, -ECONNREFUSED);
        run_for_ms(side.f, 5);
        assert_int_equal(side.failed, 1);
        assert_int_equal(side.connected, 0);
        vb_stream_close(&side.stream);
        close(bound);
    }
}

static void an_impossible_connection_fails_at_once(void **state)
{
    struct side side = {.f = *state};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(80), .sin_addr.s_addr = INADDR_BROADCAST};
    assert_true(vb_stream_connect(&side.stream, side.f->loop, (struct sockaddr *)&address, &events, &side) < 0);
    assert_null(side.stream);
    run_for_ms(side.f, 5);
    assert_int_equal(side.failed, 0);
    assert_int_equal(streams(side.f), 0);
}

/* What is known at once is told in an event all the same. */
static void unix_sockets_that_cannot_be_connected_to(void **state)
{
    struct side side = {.f = *state};
    struct sockaddr_un address = unix_address(side.f, "none");
    const struct sockaddr *any = (struct sockaddr *)&address;
    assert_int_equal(vb_stream_connect(&side.stream, side.f->loop, any, &events, &side), 0);
    RUN_UNTIL(side.f, side.failed > 0);
    assert_int_equal(side.code, -ENOENT);
    vb_stream_close(&side.stream);

    int bound = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(bound, any, sizeof(address)), 0);
    side.close_in = IN_FAILED;
    assert_int_equal(vb_stream_connect(&side.stream, side.f->loop, any, &events, &side), 0);
    RUN_UNTIL(side.f, side.failed > 1);
    assert_int_equal(side.code, -ECONNREFUSED);
    RUN_UNTIL(side.f, streams(side.f) == 0);

    assert_int_equal(listen(bound, 0), 0);
    int waiting = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_int_equal(connect(waiting, any, sizeof(address)), 0);
    assert_int_equal(vb_stream_connect(&side.stream, side.f->loop, any, &events, &side), 0);
    RUN_UNTIL(side.f, side.failed > 2);
    assert_int_equal(side.code, -EAGAIN); /* no more room in its queue */
    RUN_UNTIL(side.f, streams(side.f) == 0);
    assert_int_equal(side.connected, 0);
    close(waiting);
    close(bound);
    unlink(address.sun_path);
}

static void closing_while_it_connects(void **state)
{
    struct side side = {.f = *state};
    struct sockaddr_storage address;
    int listener = listener_with_little_room(side.f, &address);
    void (*const closing[])(struct vb_stream **) = {vb_stream_close, vb_stream_reset, vb_stream_finish};
    for (unsigned i = 0; i < VB_ARRAY_SIZE(closing); i++) {
        assert_int_equal(vb_stream_connect(&side.stream, side.f->loop, (struct sockaddr *)&address, &events, &side), 0);
        closing[i](&side.stream);
        assert_null(side.stream);
        RUN_UNTIL(side.f, streams(side.f) == 0);
    }
    assert_int_equal(side.connected + side.failed, 0);
    close_listener(side.f, listener);
}

/* ---- closing ----------------------------------------------------------------------------------------------------- */

static void closing_nothing_is_fine(void **state)
{
    struct vb_stream *none = NULL;
    vb_stream_close(&none);
    vb_stream_reset(&none);
    vb_stream_finish(&none);
}

static void closing_inside_of_data(void **state)
{
    struct side side;
    struct peer peer;
    static char much[200000];
    open_pair(*state, &side, &peer);
    side.close_in = IN_DATA;
    assert_true(send(peer.fd, much, sizeof(much), MSG_DONTWAIT) > 0);
    RUN_UNTIL(side.f, streams(side.f) == 0);
    assert_true(side.n > 0 && side.n <= VB_READ_MAX); /* one event, none after */
    close_pair(&side, &peer);
}

static void on_data_closing_the_other(void *owner, const char *bytes, size_t n)
{
    struct side *side = owner;
    on_data(owner, bytes, n);
    vb_stream_close(&side->twin->stream);
}

static const struct vb_stream_events twin_events = {
    on_connected, on_data_closing_the_other, on_end, on_drained, on_written, on_failed};

/* The kernel has told of both at once. */
static void closing_another_that_has_its_own_event(void **state)
{
    struct fixture *f = *state;
    struct side sides[] = {{.f = f, .twin = &sides[1]}, {.f = f, .twin = &sides[0]}};
    struct peer peers[2] = {{.n = 0}, {.n = 0}};
    for (unsigned i = 0; i < 2; i++) {
        int fd;
        open_sockets(f, &fd, &peers[i].fd);
        assert_true(peer_sends(&peers[i], "hello"));
        assert_int_equal(vb_stream_open(&sides[i].stream, f->loop, fd, &twin_events, &sides[i]), 0);
    }
    RUN_UNTIL(f, streams(f) == 1);
    run_for_ms(f, 3);
    assert_int_equal(sides[0].n + sides[1].n, 5);
    for (unsigned i = 0; i < 2; i++)
        close_pair(&sides[i], &peers[i]);
}

static void closing_inside_of_end(void **state)
{
    struct side side;
    struct peer peer;
    open_pair(*state, &side, &peer);
    side.close_in = IN_END;
    shutdown(peer.fd, SHUT_WR);
    RUN_UNTIL(side.f, streams(side.f) == 0);
    assert_int_equal(side.ended, 1);
    RUN_UNTIL(side.f, read_some(&peer, 1));
    assert_true(peer.eof);
    close_pair(&side, &peer);
}

static void closing_inside_of_drained(void **state)
{
    struct side side;
    struct peer peer;
    open_pair(*state, &side, &peer);
    side.close_in = IN_DRAINED;
    size_t n = write_until_queued(&side);
    RUN_UNTIL(side.f, read_some(&peer, 65536));
    assert_true(peer.eof);
    assert_int_equal(peer.n, n); /* it had all been given to the kernel */
    RUN_UNTIL(side.f, streams(side.f) == 0);
    close_pair(&side, &peer);
}

static void closing_inside_of_failed(void **state)
{
    struct side side;
    struct peer peer;
    open_pair(*state, &side, &peer);
    side.close_in = IN_FAILED;
    peer_resets(&peer);
    RUN_UNTIL(side.f, streams(side.f) == 0);
    assert_int_equal(side.failed, 1);
    close_pair(&side, &peer);
}

static void closing_inside_of_connected(void **state)
{
    struct side side = {.f = *state, .close_in = IN_CONNECTED};
    struct sockaddr_storage address;
    int listener = listener_with_little_room(side.f, &address);
    assert_int_equal(vb_stream_connect(&side.stream, side.f->loop, (struct sockaddr *)&address, &events, &side), 0);
    assert_int_equal(write_pattern(&side, 0, 10), 1); /* nobody is left to hear that it has gone */
    RUN_UNTIL(side.f, streams(side.f) == 0);
    assert_int_equal(side.connected, 1);
    close_listener(side.f, listener);
}

static void closing_drops_the_queue(void **state)
{
    struct side side;
    struct peer peer;
    open_pair(*state, &side, &peer);
    size_t n = write_until_queued(&side);
    vb_stream_close(&side.stream);
    RUN_UNTIL(side.f, read_some(&peer, 65536));
    assert_true(peer.n < n);
    assert_int_equal(streams(side.f), 0);
    assert_int_equal(side.drained, 0);
    close_pair(&side, &peer);
}

static void a_reset_is_no_clean_end(void **state)
{
    for (int queue = 0; queue < 2; queue++) {
        struct side side;
        struct peer peer;
        open_pair(*state, &side, &peer);
        if (queue == 1)
            write_until_queued(&side);
        else
            assert_int_equal(write_pattern(&side, 0, 1000), 0);
        vb_stream_reset(&side.stream);
        RUN_UNTIL(side.f, read_some(&peer, 65536));
        assert_false(peer.eof);
        assert_int_equal(peer.error, ECONNRESET);
        close_pair(&side, &peer);
    }
}

/* There is no RST: the peer gets what the kernel had, and an end. */
static void a_reset_of_a_unix_stream_drops_the_queue(void **state)
{
    struct side side;
    struct peer peer;
    open_pair(*state, &side, &peer);
    size_t n = write_until_queued(&side);
    vb_stream_reset(&side.stream);
    RUN_UNTIL(side.f, read_some(&peer, 65536));
    assert_true(peer.eof && peer.n < n);
    assert_int_equal(streams(side.f), 0);
    close_pair(&side, &peer);
}

static void finishing_gives_up_a_reader_that_stopped(void **state)
{
    struct side side;
    struct peer peer;
    open_pair(*state, &side, &peer);
    side.f->loop->linger.duration_ms = 2;
    size_t n = write_until_queued(&side);
    vb_stream_finish(&side.stream);
    RUN_UNTIL(side.f, streams(side.f) == 0);
    RUN_UNTIL(side.f, read_some(&peer, 65536));
    assert_true(peer.n < n);
    close(peer.fd);
}

/* ---- finishing --------------------------------------------------------------------------------------------------- */

static void finishing_sends_the_end_and_waits_for_the_peers(void **state)
{
    struct side side;
    struct peer peer;
    open_pair(*state, &side, &peer);
    assert_int_equal(write_pattern(&side, 0, 1000), 0);
    vb_stream_finish(&side.stream);
    assert_null(side.stream);
    RUN_UNTIL(side.f, read_some(&peer, 65536));
    assert_true(peer.eof);
    assert_int_equal(peer.n, 1000);
    assert_int_equal(streams(side.f), 1);
    close(peer.fd);
    RUN_UNTIL(side.f, streams(side.f) == 0);
    assert_int_equal(side.n + side.ended + side.failed + side.drained, 0); /* the owner is gone */
}

/* RFC 9112 9.6: closing with unread bytes sends an RST, which can destroy a response that has not been read. */
static void check_unread_bytes(struct fixture *f, bool queue)
{
    struct side side;
    struct peer peer;
    static const char request[20000];
    size_t n = 1000;
    open_pair(f, &side, &peer);
    vb_stream_pause(side.stream);
    assert_true(send(peer.fd, request, sizeof(request), MSG_DONTWAIT) > 0);
    if (queue)
        n = write_until_queued(&side);
    else
        assert_int_equal(write_pattern(&side, 0, n), 0);
    vb_stream_finish(&side.stream);
    RUN_UNTIL(f, read_some(&peer, 65536));
    assert_true(peer.eof);
    assert_int_equal(peer.n, n);
    /* our end does not stop it from sending, and all that it sends is taken */
    for (unsigned i = 0; i < 20; i++) {
        assert_int_equal(send(peer.fd, request, 1000, MSG_DONTWAIT | MSG_NOSIGNAL), 1000);
        turn(f);
    }
    RUN_UNTIL(f, not_taken(&peer) == 0);
    assert_int_equal(streams(f), 1);
    close(peer.fd);
    RUN_UNTIL(f, streams(f) == 0);
}

static void finishing_with_unread_bytes_does_not_destroy_the_response(void **state)
{
    check_unread_bytes(*state, false);
    check_unread_bytes(*state, true);
}

/* Longer than a stream waits for its peer's end: as long as it moves, nothing is cut. */
static void finishing_sends_the_queue_to_a_slow_reader(void **state)
{
    struct side side;
    struct peer peer;
    open_pair(*state, &side, &peer);
    side.f->loop->linger.duration_ms = 2;
    size_t n = write_until_queued(&side);
    vb_stream_finish(&side.stream);
    RUN_UNTIL(side.f, read_some(&peer, n / 200)); /* once a millisecond */
    assert_true(peer.eof);
    assert_int_equal(peer.n, n);
    close(peer.fd);
    RUN_UNTIL(side.f, streams(side.f) == 0);
}

/* A client may send its FIN behind its request and still wait for the response. */
static void finishing_sends_the_queue_when_the_peer_ended_first(void **state)
{
    struct side side;
    struct peer peer;
    open_pair(*state, &side, &peer);
    shutdown(peer.fd, SHUT_WR);
    RUN_UNTIL(side.f, side.ended > 0);
    size_t n = write_until_queued(&side);
    vb_stream_finish(&side.stream);
    RUN_UNTIL(side.f, read_some(&peer, 65536));
    assert_true(peer.eof);
    assert_int_equal(peer.n, n);
    RUN_UNTIL(side.f, streams(side.f) == 0); /* there is nothing to wait for */
    close(peer.fd);
}

static void finishing_sends_the_queue_when_the_peer_ends_meanwhile(void **state)
{
    struct side side;
    struct peer peer;
    open_pair(*state, &side, &peer);
    size_t n = write_until_queued(&side);
    vb_stream_finish(&side.stream);
    turn(side.f);
    shutdown(peer.fd, SHUT_WR);
    run_for_ms(side.f, 5);
    RUN_UNTIL(side.f, read_some(&peer, 65536));
    assert_true(peer.eof);
    assert_int_equal(peer.n, n);
    RUN_UNTIL(side.f, streams(side.f) == 0);
    close(peer.fd);
}

static void finishing_after_the_peers_end_is_over_at_once(void **state)
{
    struct side side;
    struct peer peer;
    open_pair(*state, &side, &peer);
    shutdown(peer.fd, SHUT_WR);
    RUN_UNTIL(side.f, side.ended > 0);
    assert_int_equal(write_pattern(&side, 0, 1000), 0);
    vb_stream_finish(&side.stream);
    assert_int_equal(streams(side.f), 0);
    RUN_UNTIL(side.f, read_some(&peer, 65536));
    assert_true(peer.eof);
    assert_int_equal(peer.n, 1000);
    close(peer.fd);
}

/* It must not take what it got for the whole. */
static void finishing_cuts_a_reader_that_stopped_with_a_reset(void **state)
{
    struct side side;
    struct peer peer;
    open_pair(*state, &side, &peer);
    side.f->loop->linger.duration_ms = 2;
    size_t n = write_until_queued(&side);
    vb_stream_finish(&side.stream);
    RUN_UNTIL(side.f, streams(side.f) == 0);
    RUN_UNTIL(side.f, read_some(&peer, 65536));
    assert_false(peer.eof);
    assert_int_equal(peer.error, ECONNRESET);
    assert_true(peer.n < n);
    close(peer.fd);
}

static void finishing_does_not_wait_for_ever(void **state)
{
    struct side side;
    struct peer peer;
    open_pair(*state, &side, &peer);
    side.f->loop->linger.duration_ms = 10;
    side.f->loop->finish_max_ms = 1000000;
    vb_stream_finish(&side.stream);
    /* a peer that sends and sends is no reason to stay */
    RUN_UNTIL(side.f, streams(side.f) == 0 || (peer_sends(&peer, "x"), false));
    close(peer.fd);
}

static void an_upload_is_heard_out_for_a_while(void **state)
{
    struct side side;
    struct peer peer;
    open_pair(*state, &side, &peer);
    side.f->loop->linger.duration_ms = 400;
    side.f->loop->finish_max_ms = 1000;
    uint64_t begun = uv_hrtime();
    vb_stream_finish_upload(&side.stream);
    RUN_UNTIL(side.f, streams(side.f) == 0 || (peer_sends(&peer, "x"), false));
    assert_true(uv_hrtime() - begun >= 990 * 1000000ull);
    close(peer.fd);
    /* one that has stopped sending is not waited for so long */
    open_pair(*state, &side, &peer);
    side.f->loop->finish_max_ms = 1000000;
    vb_stream_finish_upload(&side.stream);
    RUN_UNTIL(side.f, streams(side.f) == 0);
    close(peer.fd);
}

static void finishing_ends_when_the_peer_resets(void **state)
{
    for (int queue = 0; queue < 2; queue++) {
        struct side side;
        struct peer peer;
        open_pair(*state, &side, &peer);
        if (queue == 1)
            write_until_queued(&side);
        vb_stream_finish(&side.stream);
        turn(side.f);
        peer_resets(&peer);
        RUN_UNTIL(side.f, streams(side.f) == 0);
    }
}

/* A loop that closes takes what still finishes with it; else it would end the process. */
static void closing_the_loop_ends_what_finishes(void **state)
{
    struct fixture own = {.family = ((struct fixture *)*state)->family};
    struct side side[2];
    struct peer peer[2];
    assert_int_equal(vb_loop_open(&own.loop), 0);
    for (int i = 0; i < 2; i++)
        open_pair(&own, &side[i], &peer[i]);
    write_until_queued(&side[0]);
    vb_stream_finish(&side[0].stream);
    vb_stream_finish(&side[1].stream);
    assert_int_equal(streams(&own), 2);
    vb_loop_close(&own.loop);
    close(peer[0].fd);
    close(peer[1].fd);
}

#define TCP(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
#define UNIX(function)                                                                                                 \
    {                                                                                                                  \
#function " (unix)", function, setup_unix, teardown, NULL                                                      \
    }
#define BOTH(function) TCP(function), UNIX(function)

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(bytes_go_both_ways),
        BOTH(a_descriptor_that_is_none_is_refused),
        BOTH(slices_leave_as_one),
        BOTH(back_pressure_loses_nothing),
        BOTH(a_drained_stream_queues_again),
        BOTH(paused_streams_read_nothing),
        UNIX(much_and_the_end_are_read_to_the_end),
        UNIX(what_came_before_a_pause_comes_behind_it),
        BOTH(what_comes_in_a_pause_comes_behind_it),
        TCP(what_comes_behind_an_urgent_byte_is_read_too),
        UNIX(each_has_one_read_in_a_turn),
        BOTH(who_was_connected_to_is_heard_before_who_came),
        BOTH(after_the_peers_end_writing_goes_on),
        TCP(a_reset_by_the_peer_is_a_failure),
        TCP(a_reset_behind_the_last_bytes_is_no_end),
        UNIX(a_unix_peer_that_closes_with_unread_bytes_is_a_failure),
        BOTH(what_the_peer_has_not_taken_is_unsent),
        TCP(a_reset_under_a_queue_is_told),
        BOTH(rebinding_inside_of_data),
        BOTH(after_our_end_reading_goes_on),
        BOTH(our_end_waits_for_the_queue),
        BOTH(an_ended_stream_can_finish),
        TCP(a_reset_under_an_ended_queue_is_told),
        TCP(writing_after_our_end_ends_the_process),
        BOTH(connecting),
        BOTH(what_is_written_before_it_is_connected_waits),
        BOTH(what_waits_until_it_is_connected_may_be_more_than_there_is_room_for),
        BOTH(finishing_while_it_connects_sends_what_waits),
        TCP(finishing_while_it_is_refused),
        TCP(a_refused_connection_is_a_failure),
        TCP(an_impossible_connection_fails_at_once),
        UNIX(unix_sockets_that_cannot_be_connected_to),
        BOTH(closing_while_it_connects),
        TCP(closing_nothing_is_fine),
        BOTH(closing_inside_of_data),
        BOTH(closing_another_that_has_its_own_event),
        BOTH(closing_inside_of_end),
        BOTH(closing_inside_of_drained),
        TCP(closing_inside_of_failed),
        BOTH(closing_inside_of_connected),
        BOTH(closing_drops_the_queue),
        TCP(a_reset_is_no_clean_end),
        UNIX(a_reset_of_a_unix_stream_drops_the_queue),
        BOTH(finishing_sends_the_end_and_waits_for_the_peers),
        BOTH(finishing_with_unread_bytes_does_not_destroy_the_response),
        BOTH(finishing_sends_the_queue_to_a_slow_reader),
        BOTH(finishing_sends_the_queue_when_the_peer_ended_first),
        BOTH(finishing_sends_the_queue_when_the_peer_ends_meanwhile),
        BOTH(finishing_after_the_peers_end_is_over_at_once),
        TCP(finishing_cuts_a_reader_that_stopped_with_a_reset),
        UNIX(finishing_gives_up_a_reader_that_stopped),
        BOTH(finishing_does_not_wait_for_ever),
        BOTH(an_upload_is_heard_out_for_a_while),
        BOTH(finishing_ends_when_the_peer_resets),
        BOTH(closing_the_loop_ends_what_finishes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
