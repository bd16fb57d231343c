/* What a service manager is told of a reload, see sd_notify(3). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "notify.h"
#include "vb/clock.h"

static void a_reload_has_the_time_of_its_beginning(void **state)
{
    char name[32], got[256];
    struct vb_notify notify;
    uint64_t us;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    snprintf(name, sizeof(name), "@vb-notify-%d", getpid());
    setenv("NOTIFY_SOCKET", name, 1);
    vb_notify_open(&notify);
    assert_int_equal(bind(fd, (struct sockaddr *)&notify.address, notify.length), 0);
    uint64_t before = vb_clock_us();
    vb_notify_reloading(&notify);
    ssize_t n = recv(fd, got, sizeof(got) - 1, MSG_DONTWAIT);
    assert_true(n > 0);
    got[n] = '\0';
    assert_int_equal(sscanf(got, "RELOADING=1\nMONOTONIC_USEC=%" SCNu64 "\n", &us), 1);
    assert_true(before <= us && us <= vb_clock_us());
    close(fd);
}

static void without_a_manager_nobody_is_told(void **state)
{
    struct vb_notify notify;
    vb_notify_open(&notify);
    vb_notify_reloading(&notify);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reload_has_the_time_of_its_beginning),
        cmocka_unit_test(without_a_manager_nobody_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
