/*
 * Streams that have read together: their owners are told one after the other, and what these write soon leaves behind
 * that, wherever the streams have gone meanwhile.
 */
#include "fixture.h"

#define SIDES 100

struct side {
    struct vb_loop *loop;
    struct vb_stream *stream;
    struct side *other;
    void (*act)(struct side *side); /* in its data */
    int peer;
    unsigned datas, ends, written, drained;
    unsigned batch, batch_written; /* the number when its data came, and when it was written */
    size_t n;
    char byte;         /* all that comes are this one; 0: it is not looked at */
    int wrote, result; /* of vb_stream_write_soon, and of the last `written` */
};

static size_t most; /* the next send takes no more, as if the kernel had room for no more just then; 0: as it is */

/* In place of the C library's. */
ssize_t send(int fd, const void *bytes, size_t n, int flags)
{
    if (most > 0 && n > most)
        n = most;
    most = 0;
    return sendto(fd, bytes, n, flags, NULL, 0);
}

static void on_connected(void *owner)
{
    fail();
}

static void on_data(void *owner, const char *bytes, size_t n)
{
    struct side *side = owner;
    assert_non_null(side->stream);
    side->datas++;
    side->n += n;
    side->batch = vb_loop_batch(side->loop);
    for (size_t i = 0; i < n && side->byte != 0; i++)
        assert_int_equal(bytes[i], side->byte);
    if (side->act != NULL)
        side->act(side);
}

static void on_end(void *owner)
{
    struct side *side = owner;
    assert_non_null(side->stream);
    side->ends++;
}

static void on_drained(void *owner)
{
    struct side *side = owner;
    assert_non_null(side->stream);
    side->drained++;
}

static void on_written(void *owner, int result)
{
    struct side *side = owner;
    assert_non_null(side->stream);
    side->written++;
    side->batch_written = vb_loop_batch(side->loop);
    side->result = result;
}

static void on_failed(void *owner, int code)
{
}

static const struct vb_stream_events events = {on_connected, on_data, on_end, on_drained, on_written, on_failed};

static void open_side(struct fixture *f, struct side *side, void (*act)(struct side *side))
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    *side = (struct side){.loop = f->loop, .peer = fds[1], .act = act};
    assert_int_equal(vb_stream_open(&side->stream, f->loop, fds[0], &events, side), 0);
}

static void close_side(struct side *side)
{
    vb_stream_close(&side->stream);
    close(side->peer);
}

static void ask(const struct side *side)
{
    assert_int_equal(sendto(side->peer, "ask", 3, 0, NULL, 0), 3);
}

/* What its peer has got by now. */
static const char *got(const struct side *side)
{
    static char text[64];
    ssize_t n = recv(side->peer, text, sizeof(text) - 1, MSG_DONTWAIT);
    text[n > 0 ? n : 0] = '\0';
    return n == 0 ? "(end)" : n < 0 && errno != EAGAIN ? "(error)" : text;
}

/* Two that have read in the same turn; the first one does something to itself or to the other. */
static void open_two(struct fixture *f, struct side two[2], void (*first)(struct side *), void (*second)(struct side *))
{
    open_side(f, &two[0], first);
    open_side(f, &two[1], second);
    two[0].other = &two[1];
    two[1].other = &two[0];
    ask(&two[0]);
    ask(&two[1]);
}

static void turn_two(struct fixture *f, struct side two[2])
{
    RUN_UNTIL(f, two[0].datas + two[1].datas > 0);
    if (two[0].datas > 0 && two[1].datas > 0) /* the number does not change before all has been written */
        assert_int_equal(two[0].batch, two[1].batch);
    for (unsigned i = 0; i < 2; i++) {
        if (two[i].written > 0)
            assert_int_equal(two[i].batch_written, two[i].batch);
        assert_int_not_equal(vb_loop_batch(f->loop), two[i].batch);
    }
}

static void answer(struct side *side)
{
    side->wrote = vb_stream_write_soon(side->stream, "answer", 6);
}

static void answer_and_look(struct side *side)
{
    answer(side);
    assert_int_equal(side->wrote, 2);
    assert_true(vb_stream_queued(side->stream));
    assert_int_equal(vb_stream_unsent(side->stream), 6);
    assert_string_equal(got(side), "");
    assert_string_equal(got(side->other), "");
}

static void those_that_read_together_write_together(void **state)
{
    struct fixture *f = *state;
    struct side two[2];
    open_two(f, two, answer_and_look, answer_and_look);
    turn_two(f, two);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(two[i].datas, 1);
        assert_int_equal(two[i].written, 1);
        assert_int_equal(two[i].result, 0);
        assert_false(vb_stream_queued(two[i].stream));
        assert_string_equal(got(&two[i]), "answer");
        close_side(&two[i]);
    }
}

static void one_alone_writes_at_once(void **state)
{
    struct fixture *f = *state;
    struct side side;
    open_side(f, &side, answer);
    ask(&side);
    RUN_UNTIL(f, side.datas > 0);
    assert_int_equal(side.wrote, 0);
    assert_int_equal(side.written, 0);
    assert_string_equal(got(&side), "answer");
    answer(&side); /* outside of any event, too */
    assert_int_equal(side.wrote, 0);
    assert_string_equal(got(&side), "answer");
    close_side(&side);
}

static void many_are_all_told_and_all_written(void **state)
{
    struct fixture *f = *state;
    static struct side sides[SIDES];
    for (unsigned i = 0; i < SIDES; i++) {
        open_side(f, &sides[i], answer);
        ask(&sides[i]);
    }
    for (unsigned i = 0; i < SIDES; i++) {
        RUN_UNTIL(f, sides[i].datas == 1);
        assert_string_equal(got(&sides[i]), "answer");
        assert_int_equal(sides[i].written, sides[i].wrote == 2);
        assert_int_equal(sides[i].result, 0);
    }
    for (unsigned i = 0; i < SIDES; i++)
        close_side(&sides[i]);
}

/* What one has read is left alone by what others read, however much it is. */
static void large_reads_and_small_ones_mix(void **state)
{
    static const size_t sizes[] = {3, 1000, 64, 50000, 1, 63, 16384, 5, VB_READ_MAX, 7, 16000, VB_READ_MAX, 9};
    struct fixture *f = *state;
    struct side sides[VB_ARRAY_SIZE(sizes)];
    static char much[VB_READ_MAX];
    for (unsigned i = 0; i < VB_ARRAY_SIZE(sides); i++) {
        open_side(f, &sides[i], NULL);
        sides[i].byte = (char)('a' + i);
        memset(much, sides[i].byte, sizes[i]);
        assert_int_equal(sendto(sides[i].peer, much, sizes[i], MSG_DONTWAIT, NULL, 0), sizes[i]);
    }
    for (unsigned i = 0; i < VB_ARRAY_SIZE(sides); i++)
        RUN_UNTIL(f, sides[i].n == sizes[i]);
    for (unsigned i = 0; i < VB_ARRAY_SIZE(sides); i++)
        close_side(&sides[i]);
}

/* ---- something else happens to a stream before its write's turn -------------------------------------------------- */

static void answer_and_close(struct side *side)
{
    answer(side);
    vb_stream_close(&side->stream);
}

static void closing_loses_it(void **state)
{
    struct fixture *f = *state;
    struct side two[2];
    open_two(f, two, answer_and_close, answer);
    turn_two(f, two);
    assert_int_equal(two[0].wrote, 2);
    assert_string_equal(got(&two[0]), "(end)");
    assert_int_equal(two[0].written, 0);
    assert_string_equal(got(&two[1]), "answer");
    close_side(&two[0]);
    close_side(&two[1]);
}

static void answer_and_finish(struct side *side)
{
    answer(side);
    vb_stream_finish(&side->stream);
}

static void finishing_sends_it_first(void **state)
{
    struct fixture *f = *state;
    struct side two[2];
    open_two(f, two, answer_and_finish, answer);
    turn_two(f, two);
    assert_int_equal(two[0].wrote, 2);
    assert_string_equal(got(&two[0]), "answer");
    assert_string_equal(got(&two[0]), "(end)");
    assert_int_equal(two[0].written, 0);
    close_side(&two[0]);
    close_side(&two[1]);
    RUN_UNTIL(f, streams(f) == 0);
}

static void answer_and_write_on(struct side *side)
{
    answer(side);
    assert_int_equal(vb_stream_write(side->stream, &(struct iovec){(void *)" more", 5}, 1), 0);
    assert_string_equal(got(side), "answer more");
    assert_int_equal(vb_stream_write_soon(side->stream, " again", 6), 2);
    assert_int_equal(vb_stream_write_soon(side->stream, " still", 6), 0); /* there is one place */
    vb_stream_end(side->stream);
}

static void what_is_written_next_comes_behind_it(void **state)
{
    struct fixture *f = *state;
    struct side two[2];
    open_two(f, two, answer_and_write_on, answer);
    turn_two(f, two);
    assert_int_equal(two[0].wrote, 2);
    assert_string_equal(got(&two[0]), " again still");
    assert_string_equal(got(&two[0]), "(end)");
    assert_int_equal(two[0].written, 0);
    close_side(&two[0]);
    close_side(&two[1]);
}

static void close_the_other(struct side *side)
{
    answer(side);
    if (side->other->stream != NULL)
        assert_true(vb_stream_has_news(side->other->stream) || side->other->datas > 0);
    vb_stream_close(&side->other->stream);
}

static void one_that_is_closed_meanwhile_is_not_told(void **state)
{
    struct fixture *f = *state;
    struct side two[2];
    open_two(f, two, close_the_other, close_the_other);
    turn_two(f, two);
    assert_int_equal(two[0].datas + two[1].datas, 1);
    assert_int_equal(two[0].written + two[1].written, 1);
    close_side(&two[0]);
    close_side(&two[1]);
}

static void finish_the_other(struct side *side)
{
    answer(side);
    vb_stream_finish(&side->other->stream);
}

static void one_that_finishes_meanwhile_drops_what_it_has_read(void **state)
{
    struct fixture *f = *state;
    struct side two[2];
    open_two(f, two, finish_the_other, finish_the_other);
    shutdown(two[0].peer, SHUT_WR);
    shutdown(two[1].peer, SHUT_WR);
    turn_two(f, two);
    assert_int_equal(two[0].datas + two[1].datas, 1);
    RUN_UNTIL(f, streams(f) == 1); /* it has heard of its peer's end */
    close_side(&two[0]);
    close_side(&two[1]);
}

static void pause_the_other(struct side *side)
{
    vb_stream_pause(side->other->stream);
}

static void a_pause_comes_too_late_for_what_has_been_read(void **state)
{
    struct fixture *f = *state;
    struct side two[2];
    open_two(f, two, pause_the_other, NULL);
    turn_two(f, two);
    assert_int_equal(two[1].datas, 1);
    ask(&two[1]);
    run_for_ms(f, 3);
    assert_int_equal(two[1].datas, 1); /* but for nothing else */
    vb_stream_resume(two[1].stream);
    RUN_UNTIL(f, two[1].datas == 2);
    close_side(&two[0]);
    close_side(&two[1]);
}

static void look_at_the_other(struct side *side)
{
    bool is_first = side->other->datas == 0;
    assert_false(vb_stream_has_news(side->stream));
    assert_int_equal(vb_stream_has_news(side->other->stream), is_first);
    assert_int_equal(vb_stream_is_silent(side->other->stream), !is_first);
    assert_int_equal(vb_stream_has_unread(side->other->stream), is_first);
}

static void who_will_be_told_yet_has_news(void **state)
{
    struct fixture *f = *state;
    struct side two[2];
    open_two(f, two, look_at_the_other, look_at_the_other);
    turn_two(f, two);
    assert_int_equal(two[0].datas + two[1].datas, 2);
    close_side(&two[0]);
    close_side(&two[1]);
}

/* ---- the kernel does not take it --------------------------------------------------------------------------------- */

static void answer_before_there_is_no_room(struct side *side)
{
    answer(side);
    most = 2; /* of whom is the first to be sent */
}

static void what_finds_no_room_waits(void **state)
{
    struct fixture *f = *state;
    struct side two[2];
    open_two(f, two, answer_before_there_is_no_room, answer_before_there_is_no_room);
    turn_two(f, two);
    struct side *blocked = two[0].result == 1 ? &two[0] : &two[1];
    assert_int_equal(blocked->result, 1);
    assert_int_equal(blocked->other->result, 0);
    assert_int_equal(blocked->written, 1);
    RUN_UNTIL(f, blocked->drained == 1);
    assert_string_equal(got(blocked), "answer");
    assert_int_equal(blocked->written, 1);
    close_side(&two[0]);
    close_side(&two[1]);
}

static void answer_when_nobody_hears(struct side *side)
{
    answer(side);
    close(side->peer);
    side->peer = -1;
}

static void what_nobody_takes_is_told(void **state)
{
    struct fixture *f = *state;
    struct side two[2];
    open_two(f, two, answer_when_nobody_hears, answer);
    turn_two(f, two);
    assert_int_equal(two[0].wrote, 2);
    assert_int_equal(two[0].written, 1);
    assert_true(two[0].result == -EPIPE || two[0].result == -ECONNRESET);
    assert_int_equal(two[1].result, 0);
    vb_stream_close(&two[0].stream);
    close_side(&two[1]);
}

int main(void)
{
#define T(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(those_that_read_together_write_together),
        T(one_alone_writes_at_once),
        T(many_are_all_told_and_all_written),
        T(large_reads_and_small_ones_mix),
        T(closing_loses_it),
        T(finishing_sends_it_first),
        T(what_is_written_next_comes_behind_it),
        T(one_that_is_closed_meanwhile_is_not_told),
        T(one_that_finishes_meanwhile_drops_what_it_has_read),
        T(a_pause_comes_too_late_for_what_has_been_read),
        T(who_will_be_told_yet_has_news),
        T(what_finds_no_room_waits),
        T(what_nobody_takes_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
