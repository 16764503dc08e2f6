// SPDX-License-Identifier: BSD-2-Clause
// ChaCha20 and SipHash against their published vectors.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/cipher.h"
#include "kernel/random.h"

static void test_chacha20_rfc8439(void **state) // section 2.3.2
{
    static const uint32_t nonce[3] = {0x09000000, 0x4a000000, 0x00000000};
    static const uint32_t expected[16] = {0xe4e7f110, 0x15593bd1, 0x1fdd0f50, 0xc47120a3,
                                          0xc7f4d1c7, 0x0368c033, 0x9aaa2204, 0x4e6cd4c3,
                                          0x466482d2, 0x09aa9f07, 0x05d7c214, 0xa2028bd9,
                                          0xd19c12b5, 0xb94e16de, 0xe883d0cb, 0x4e3c50a2};
    uint8_t bytes[32];
    uint32_t key[8], out[16];

    (void)state;
    for (unsigned i = 0; i < 32; i++)
        bytes[i] = (uint8_t)i;
    memcpy(key, bytes, sizeof(key));
    chacha20_block(key, 1, nonce, out);
    assert_memory_equal(out, expected, sizeof(out));
}

static void test_siphash24_paper(void **state) // appendix A, and the reference table's first rows
{
    static const uint64_t of_length[] = {0x726fdb47dd0e0e31, 0x74f839c593dc67fd, 0x0d6c8009d9a94f5a,
                                         0x85676696d7fb7e2d};
    uint8_t key[16], data[15];

    (void)state;
    for (unsigned i = 0; i < sizeof(key); i++)
        key[i] = (uint8_t)i;
    for (unsigned i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)i;
    for (unsigned i = 0; i < 4; i++)
        assert_true(siphash24(key, data, i) == of_length[i]);
    assert_true(siphash24(key, data, 15) == 0xa129ca6149be45e5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chacha20_rfc8439),
        cmocka_unit_test(test_siphash24_paper),
    };
    return cmocka_run_group_tests_name("cipher", tests, NULL, NULL);
}
