// SPDX-License-Identifier: BSD-2-Clause
// The emulated host's Toeplitz hash and the driver's, against the vectors that Microsoft publishes for
// checking implementations of receive side scaling ("Verifying the RSS Hash Calculation"), and against
// each other.
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "drivers/netvsc/toeplitz.h"
#include "tools/hyperv-host/overlay/hw/hyperv/hv-net-toeplitz.h"

static const uint8_t key[TOEPLITZ_KEY_BYTES] = {
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3,
    0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3,
    0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
};

static const struct vector {
    int family;
    const char *source;
    uint16_t source_port;
    const char *destination;
    uint16_t destination_port;
    uint32_t addresses; // hash over the addresses only
    uint32_t tuple;     // and with the ports
} vectors[] = {
    {AF_INET, "66.9.149.187", 2794, "161.142.100.80", 1766, 0x323e8fc2, 0x51ccc178},
    {AF_INET, "199.92.111.2", 14230, "65.69.140.83", 4739, 0xd718262a, 0xc626b0ea},
    {AF_INET, "24.19.198.95", 12898, "12.22.207.184", 38024, 0xd2d0a5de, 0x5c2b394a},
    {AF_INET, "38.27.205.30", 48228, "209.142.163.6", 2217, 0x82989176, 0xafc7327f},
    {AF_INET, "153.39.163.191", 44251, "202.188.127.2", 1303, 0x5d1809c5, 0x10e828a2},
    {AF_INET6, "3ffe:2501:200:1fff::7", 2794, "3ffe:2501:200:3::1", 1766, 0x2cc18cd5, 0x40207d3d},
    {AF_INET6, "3ffe:501:8::260:97ff:fe40:efab", 14230, "ff02::1", 4739, 0x0f0c461c, 0xdde51bbf},
    {AF_INET6, "3ffe:1900:4545:3:200:f8ff:fe21:67cf", 44251, "fe80::200:f8ff:fe21:67cf", 38024,
     0x4b61e985, 0x02d1feef},
};

static void published_vectors(void **state)
{
    struct toeplitz ours;

    (void)state;
    toeplitz_prepare(&ours, key);
    for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
        const struct vector *v = &vectors[i];
        size_t bytes = v->family == AF_INET ? 4 : 16;
        uint16_t ports[2] = {htons(v->source_port), htons(v->destination_port)};
        uint8_t input[36];

        assert_int_equal(inet_pton(v->family, v->source, input), 1);
        assert_int_equal(inet_pton(v->family, v->destination, input + bytes), 1);
        memcpy(input + 2 * bytes, ports, sizeof(ports));
        assert_int_equal(toeplitz_hash(key, input, 2 * bytes), v->addresses);
        assert_int_equal(toeplitz_hash(key, input, 2 * bytes + 4), v->tuple);
        assert_int_equal(toeplitz(&ours, input, 2 * (unsigned)bytes), v->addresses);
        assert_int_equal(toeplitz(&ours, input, 2 * (unsigned)bytes + 4), v->tuple);
    }
}

static void any_key(void **state)
{
    uint8_t random_key[TOEPLITZ_KEY_BYTES], input[36];
    struct toeplitz ours;

    (void)state;
    srand(3);
    for (unsigned round = 0; round < 2000; round++) {
        for (unsigned i = 0; i < sizeof(random_key); i++)
            random_key[i] = (uint8_t)rand();
        for (unsigned i = 0; i < sizeof(input); i++)
            input[i] = (uint8_t)rand();
        toeplitz_prepare(&ours, random_key);
        for (unsigned bytes = 0; bytes <= sizeof(input); bytes += 4)
            assert_int_equal(toeplitz(&ours, input, bytes),
                             toeplitz_hash(random_key, input, bytes));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(published_vectors),
                                       cmocka_unit_test(any_key)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
