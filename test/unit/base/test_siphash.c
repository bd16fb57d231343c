/* SipHash-2-4, by the vectors of its authors: key 00..0f, messages 00, 01, 02, ... */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "vb/siphash.h"

static uint64_t of_length(size_t n)
{
    uint8_t bytes[64];
    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)i;
    return vb_siphash((const uint64_t[]){0x0706050403020100, 0x0f0e0d0c0b0a0908}, bytes, n);
}

static void vectors_of_the_authors(void **state)
{
    assert_true(of_length(0) == 0x726fdb47dd0e0e31);
    assert_true(of_length(1) == 0x74f839c593dc67fd);
    assert_true(of_length(7) == 0xab0200f58b01d137);
    assert_true(of_length(8) == 0x93f5f5799a932462);
    assert_true(of_length(15) == 0xa129ca6149be45e5);
    assert_true(of_length(16) == 0x3f2acc7f57c29bdb);
    assert_true(of_length(63) == 0x958a324ceb064572);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(vectors_of_the_authors)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
