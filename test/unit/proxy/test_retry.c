/* What may be sent a second time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "retry.h"

static struct vb_conf_pool pool;
static struct vb_retry retry;

static int setup(void **state)
{
    memset(&pool, 0, sizeof(pool));
    memset(&retry, 0, sizeof(retry));
    pool.retry.enabled = true;
    pool.retry.attempts = 2;
    pool.retry.on = VB_RETRY_CONNECT | VB_RETRY_RESET | VB_RETRY_TIMEOUT;
    pool.retry.buffer = 10;
    retry.conf = &pool;
    retry.tried.n = 1;
    return 0;
}

static int teardown(void **state)
{
    vb_retry_free(&retry);
    return 0;
}

static void keep(const char *a, const char *b, bool sent)
{
    struct iovec iov[] = {{(void *)a, strlen(a)}, {(void *)b, strlen(b)}};
    vb_retry_keep(&retry, iov, 2, sent);
}

static void only_idempotent_requests_are_sent_twice(void **state)
{
    assert_true(vb_retry_allows(&retry, VB_FAIL_CONNECT, false)); /* any method, as nothing was sent */
    assert_false(vb_retry_allows(&retry, VB_FAIL_CONNECT, true));
    assert_false(vb_retry_allows(&retry, VB_FAIL_RESET, true));
    assert_false(vb_retry_allows(&retry, VB_FAIL_RESPONSE_TIMEOUT, true));
    assert_false(vb_retry_allows(&retry, VB_FAIL_STATUS, true));
    retry.idempotent = true;
    assert_true(vb_retry_allows(&retry, VB_FAIL_RESET, true));
    assert_true(vb_retry_allows(&retry, VB_FAIL_CLOSED, true));
    assert_true(vb_retry_allows(&retry, VB_FAIL_BAD_RESPONSE, true));
    assert_true(vb_retry_allows(&retry, VB_FAIL_RESPONSE_TIMEOUT, true));
    assert_true(vb_retry_allows(&retry, VB_FAIL_STATUS, true));
}

static void never_after_the_client_has_seen_something(void **state)
{
    retry.idempotent = true;
    vb_retry_answered(&retry);
    assert_false(vb_retry_allows(&retry, VB_FAIL_RESET, true));
    assert_false(vb_retry_allows(&retry, VB_FAIL_CONNECT, false));
    assert_false(vb_retry_is_safe(&retry, false));
}

static void only_what_the_configuration_names(void **state)
{
    retry.idempotent = true;
    pool.retry.on = VB_RETRY_CONNECT;
    assert_true(vb_retry_allows(&retry, VB_FAIL_CONNECT_TIMEOUT, false));
    assert_false(vb_retry_allows(&retry, VB_FAIL_RESET, true));
    assert_false(vb_retry_allows(&retry, VB_FAIL_DOWN, true));
    pool.retry.on = VB_RETRY_TIMEOUT;
    assert_false(vb_retry_allows(&retry, VB_FAIL_CONNECT, false));
    assert_true(vb_retry_allows(&retry, VB_FAIL_DOWN, true));
    assert_false(vb_retry_allows(&retry, VB_FAIL_INTERNAL, false)); /* our own lack is the same with all backends */
    assert_false(vb_retry_allows(&retry, VB_FAIL_OVERLOAD, false));
    pool.retry.enabled = false;
    assert_false(vb_retry_allows(&retry, VB_FAIL_DOWN, true));
}

static void as_often_as_it_says(void **state)
{
    retry.idempotent = true;
    for (retry.tried.n = 1; retry.tried.n <= 2; retry.tried.n++)
        assert_true(vb_retry_allows(&retry, VB_FAIL_RESET, true));
    assert_false(vb_retry_allows(&retry, VB_FAIL_RESET, true));
    retry.tried.n = 1;
    pool.retry.attempts = 0;
    assert_false(vb_retry_allows(&retry, VB_FAIL_CONNECT, false));
}

static void a_body_is_kept_as_long_as_it_fits(void **state)
{
    retry.idempotent = true;
    keep("0123", "45678", true);
    keep("9", "", true);
    assert_true(vb_retry_is_safe(&retry, true));
    assert_memory_equal(vb_buf_data(&retry.body), "0123456789", 10);
    keep("x", "", true);
    assert_false(vb_retry_is_safe(&retry, true));
    assert_false(vb_retry_is_safe(&retry, false)); /* bytes are gone, whoever they were for */
    assert_int_equal(vb_buf_len(&retry.body), 0);
    keep("", "", true);
    assert_false(vb_retry_is_safe(&retry, true));
}

static void a_body_that_cannot_be_sent_twice_is_kept_until_it_is_sent(void **state)
{
    keep("01", "", false);
    assert_true(vb_retry_is_safe(&retry, false));
    assert_int_equal(vb_buf_len(&retry.body), 2);
    vb_retry_keep(&retry, NULL, 0, true);
    assert_int_equal(vb_buf_len(&retry.body), 0);
    assert_false(vb_retry_is_safe(&retry, true));
}

static void what_holds_is_known_from_the_head(void **state)
{
    static struct vb_head head;
    head.framing = VB_FRAMING_NONE;
    assert_true(vb_retry_holds(&retry, &head));
    head.framing = VB_FRAMING_LENGTH;
    head.length = 10;
    assert_true(vb_retry_holds(&retry, &head));
    head.length = 11;
    assert_false(vb_retry_holds(&retry, &head));
    head.framing = VB_FRAMING_CHUNKED;
    assert_false(vb_retry_holds(&retry, &head));
}

static void statuses_that_are_failures(void **state)
{
    static const unsigned statuses[] = {502, 503, 504, 429};
    for (size_t i = 0; i < VB_ARRAY_SIZE(statuses); i++)
        assert_false(vb_retry_is_failure(&pool, statuses[i]));
    pool.retry.on |= VB_RETRY_503 | VB_RETRY_429;
    assert_true(vb_retry_is_failure(&pool, 503));
    assert_true(vb_retry_is_failure(&pool, 429));
    assert_false(vb_retry_is_failure(&pool, 502));
    assert_false(vb_retry_is_failure(&pool, 504));
    assert_false(vb_retry_is_failure(&pool, 500));
    pool.retry.enabled = false;
    assert_false(vb_retry_is_failure(&pool, 503));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(only_idempotent_requests_are_sent_twice, setup, teardown),
        cmocka_unit_test_setup_teardown(never_after_the_client_has_seen_something, setup, teardown),
        cmocka_unit_test_setup_teardown(only_what_the_configuration_names, setup, teardown),
        cmocka_unit_test_setup_teardown(as_often_as_it_says, setup, teardown),
        cmocka_unit_test_setup_teardown(a_body_is_kept_as_long_as_it_fits, setup, teardown),
        cmocka_unit_test_setup_teardown(a_body_that_cannot_be_sent_twice_is_kept_until_it_is_sent, setup, teardown),
        cmocka_unit_test_setup_teardown(what_holds_is_known_from_the_head, setup, teardown),
        cmocka_unit_test_setup_teardown(statuses_that_are_failures, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
