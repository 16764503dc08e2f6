// SPDX-License-Identifier: BSD-2-Clause
// kernel/spin.h: when a core looks on before it halts.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernel/spin.h"

#define MOST 50u

// Pauses of these lengths in turn; returns how much time of them was spent looking.
static uint64_t pauses(struct spin *s, const uint64_t *lengths, unsigned count, unsigned times)
{
    uint64_t looked = 0;

    for (unsigned i = 0; i < times; i++) {
        uint64_t pause = lengths[i % count];
        if (spin_pays(s))
            looked += pause < MOST ? pause : MOST;
        spin_learn(s, pause, MOST);
    }
    return looked;
}

static void test_idle(void **state)
{
    struct spin s = {0};
    (void)state;

    assert_int_equal(pauses(&s, (uint64_t[]){100000, 2500000}, 2, 1000), 0);
    assert_int_equal(pauses(&s, (uint64_t[]){MOST}, 1, 1000), 0);
}

static void test_traffic(void **state)
{
    struct spin s = {0};
    (void)state;

    assert_int_equal(pauses(&s, (uint64_t[]){10}, 1, 1000), 10 * (1000 - SPIN_SHORT));
}

// One pause in eight is long: what is lost by that is bounded.
static void test_bursts(void **state)
{
    struct spin s = {0};
    (void)state;

    pauses(&s, (uint64_t[]){10}, 1, 8);
    assert_int_equal(pauses(&s, (uint64_t[]){10, 10, 10, 10, 10, 10, 10, 1000}, 8, 800),
                     100 * (7 * 10 + MOST));
}

// Every request brings a short pause (its completion) and a long one.
static void test_rare_requests(void **state)
{
    struct spin s = {0};
    (void)state;

    assert_int_equal(pauses(&s, (uint64_t[]){10, 1000}, 2, 1000), 0);
}

static void test_traffic_ends(void **state)
{
    struct spin s = {0};
    (void)state;

    pauses(&s, (uint64_t[]){10}, 1, 1000);
    assert_int_equal(pauses(&s, (uint64_t[]){100000}, 1, 1000),
                     MOST * (SPIN_PAUSES - SPIN_SHORT + 1));
}

// No time to look for: nothing is short.
static void test_off(void **state)
{
    struct spin s = {0};
    (void)state;

    for (unsigned i = 0; i < 100; i++) {
        spin_learn(&s, 0, 0);
        assert_false(spin_pays(&s));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_idle),         cmocka_unit_test(test_traffic),
        cmocka_unit_test(test_bursts),       cmocka_unit_test(test_rare_requests),
        cmocka_unit_test(test_traffic_ends), cmocka_unit_test(test_off),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
