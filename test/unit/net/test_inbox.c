/* Inboxes: descriptors that go from one worker to another. */
#include "fixture.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vb/inbox.h"

struct taken {
    struct vb_loop *loop;
    unsigned n, stop_at;
    unsigned alone; /* without a descriptor */
    unsigned numbers[64];
};

/* Each descriptor is the end of a pipe: it must be the one that was put there. */
static void on_arrived(void *owner, int fd, unsigned number)
{
    struct taken *taken = owner;
    char byte = 0;
    if (fd >= 0) {
        assert_int_equal(read(fd, &byte, 1), 1);
        assert_int_equal(byte, (char)number);
        close(fd);
    }
    taken->alone += fd < 0;
    taken->numbers[taken->n++] = number;
    if (taken->n == taken->stop_at)
        vb_loop_stop(taken->loop);
}

static int put(int inbox, unsigned number)
{
    int ends[2];
    char byte = (char)number;
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], &byte, 1), 1);
    int r = vb_inbox_put(inbox, ends[0], number);
    close(ends[0]);
    close(ends[1]);
    return r;
}

static void what_is_put_is_taken(void **state)
{
    int ends[2];
    struct taken taken = {.stop_at = 3};
    struct vb_inbox *inbox = NULL;
    assert_int_equal(vb_loop_open(&taken.loop), 0);
    assert_int_equal(vb_inbox_pair(ends), 0);
    assert_int_equal(put(ends[1], 7), 0); /* before anybody looks: as for a worker that has died */
    assert_int_equal(vb_inbox_open(&inbox, taken.loop, ends[0], on_arrived, &taken), 0);
    assert_int_equal(put(ends[1], 8), 0);
    assert_int_equal(put(ends[1], 9), 0);
    vb_loop_run(taken.loop);
    assert_int_equal(taken.n, 3);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(taken.numbers[i], 7 + i);
    vb_inbox_close(&inbox);
    vb_inbox_close(&inbox);
    vb_loop_close(&taken.loop);
    close(ends[0]);
    close(ends[1]);
}

static void a_handful_may_wait_and_is_taken_at_the_end(void **state)
{
    int ends[2];
    struct taken taken = {.stop_at = 0};
    struct vb_inbox *inbox = NULL;
    unsigned n = 0;
    assert_int_equal(vb_loop_open(&taken.loop), 0);
    assert_int_equal(vb_inbox_pair(ends), 0);
    assert_int_equal(vb_inbox_open(&inbox, taken.loop, ends[0], on_arrived, &taken), 0);
    while (put(ends[1], n) == 0)
        assert_true(++n < 64);
    assert_true(n >= 1);
    assert_int_equal(put(ends[1], n), -EAGAIN);
    vb_inbox_close(&inbox);
    assert_int_equal(taken.n, n);
    vb_loop_close(&taken.loop);
    close(ends[0]);
    close(ends[1]);
}

/* To wake it. */
static void a_number_may_come_alone(void **state)
{
    int ends[2];
    struct taken taken = {.stop_at = 3};
    struct vb_inbox *inbox = NULL;
    assert_int_equal(vb_loop_open(&taken.loop), 0);
    assert_int_equal(vb_inbox_pair(ends), 0);
    assert_int_equal(put(ends[1], 7), 0);
    assert_int_equal(vb_inbox_put(ends[1], -1, 8), 0);
    assert_int_equal(put(ends[1], 9), 0);
    assert_int_equal(vb_inbox_open(&inbox, taken.loop, ends[0], on_arrived, &taken), 0);
    vb_loop_run(taken.loop);
    assert_int_equal(taken.n, 3);
    assert_int_equal(taken.alone, 1);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(taken.numbers[i], 7 + i);
    vb_inbox_close(&inbox);
    vb_loop_close(&taken.loop);
    close(ends[0]);
    close(ends[1]);
}

static void nobody_is_there(void **state)
{
    int ends[2];
    assert_int_equal(vb_inbox_pair(ends), 0);
    close(ends[0]);
    assert_true(put(ends[1], 1) < 0);
    close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_put_is_taken),
        cmocka_unit_test(a_handful_may_wait_and_is_taken_at_the_end),
        cmocka_unit_test(a_number_may_come_alone),
        cmocka_unit_test(nobody_is_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
