// SPDX-License-Identifier: BSD-2-Clause
// DNS servers of routers: how long each is believed, whose place a new one takes, what is no server.
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/time.h"
#include "net/router_dns.h"

#define NOW (1000 * TIME_S)

static struct router_dns dns;

// An option that names the servers from fd00::first on.
static void advertise(uint32_t lifetime, uint8_t first, unsigned count)
{
    uint8_t option[8 + 5 * 16] = {25, (uint8_t)(1 + 2 * count)};

    for (unsigned i = 0; i < 4; i++)
        option[4 + i] = (uint8_t)(lifetime >> (24 - 8 * i));
    for (unsigned i = 0; i < count; i++) {
        option[8 + 16 * i] = 0xfd;
        option[8 + 16 * i + 15] = (uint8_t)(first + i);
    }
    router_dns_take(&dns, option, 8 + 16 * count, NOW);
}

// For how many seconds a server is believed, -1: not at all.
static int64_t seconds(uint8_t number)
{
    for (unsigned i = 0; i < ROUTER_DNS; i++)
        if (dns.servers[i].until > NOW && dns.servers[i].address[15] == number)
            return (int64_t)((dns.servers[i].until - NOW) / TIME_S);
    return -1;
}

static int setup(void **state)
{
    (void)state;
    memset(&dns, 0, sizeof(dns));
    return 0;
}

static void test_lifetime(void **state)
{
    (void)state;
    advertise(600, 1, 2);
    assert_int_equal(seconds(1), 600);
    assert_int_equal(seconds(2), 600);
    advertise(30, 2, 1); // shorter than it was: that counts
    assert_int_equal(seconds(2), 30);
    advertise(0, 1, 1); // taken back
    assert_int_equal(seconds(1), -1);
    assert_int_equal(seconds(2), 30);
    advertise(0, 9, 1); // nobody had said it
    assert_int_equal(seconds(9), -1);
    advertise(UINT32_MAX, 3, 1);
    router_dns_age(&dns, 31 * TIME_S);
    assert_int_equal(seconds(2), -1);
    router_dns_age(&dns, 1000000 * TIME_S);
    assert_true(seconds(3) > UINT32_MAX);
}

static void test_more_than_there_is_room_for(void **state)
{
    (void)state;
    advertise(600, 1, 1);
    advertise(60, 2, 1);
    advertise(6000, 3, 1);
    advertise(100, 4, 1); // for the one that goes first
    assert_int_equal(seconds(2), -1);
    assert_int_equal(seconds(1), 600);
    assert_int_equal(seconds(3), 6000);
    assert_int_equal(seconds(4), 100);
    advertise(700, 1, 5);
    advertise(0, 0, 5);
    advertise(0, 5, 1);
    for (uint8_t i = 0; i < 6; i++)
        assert_int_equal(seconds(i), -1);
}

static void test_no_servers(void **state)
{
    uint8_t option[24] = {25, 3, [7] = 200};

    (void)state;
    router_dns_take(&dns, option, 4, NOW);
    router_dns_take(&dns, option, 8, NOW);
    router_dns_take(&dns, option, 23, NOW);
    router_dns_take(&dns, option, 24, NOW); // ::
    option[8] = 0xff;
    router_dns_take(&dns, option, 24, NOW);
    for (unsigned i = 0; i < ROUTER_DNS; i++)
        assert_int_equal(dns.servers[i].until, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_lifetime, setup),
        cmocka_unit_test_setup(test_more_than_there_is_room_for, setup),
        cmocka_unit_test_setup(test_no_servers, setup),
    };
    return cmocka_run_group_tests_name("router_dns", tests, NULL, NULL);
}
