// SPDX-License-Identifier: BSD-2-Clause
// The wall clock: what is believed, how fast it is brought to the right time, that it never goes back
// unless it is set, and how it reads.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/log.h"
#include "kernel/time.h"
#include "kernel/utc.h"

#define NOON 17957592000000000ull // 2026-11-27 12:00:00

static uint64_t now = 100 * TIME_S;
static int64_t leapt;

uint64_t time_now(void)
{
    return now;
}

static void on_leap(int64_t by)
{
    leapt = by;
}

static int set_noon(void **state)
{
    (void)state;
    now += 1000 * TIME_S;
    assert_true(utc_take(NOON, now, true));
    utc_watch(on_leap);
    leapt = 0;
    return 0;
}

static void test_not_known_at_first(void **state)
{
    (void)state;
    assert_int_equal(utc_now(), 0);
    assert_false(utc_take(1, now, true));
    assert_int_equal(utc_now(), 0);
    utc_watch(on_leap);
    assert_true(utc_take(NOON, now - 3 * TIME_S, false)); // the first sample counts
    assert_int_equal(utc_now(), NOON + 3 * TIME_S);
    assert_int_equal(leapt, 0); // there was nothing to leap from
}

static void test_goes_on(void **state)
{
    (void)state;
    now += 3600 * TIME_S;
    assert_int_equal(utc_now(), NOON + 3600 * TIME_S);
}

static void test_what_is_refused(void **state)
{
    (void)state;
    assert_false(utc_take(NOON, now + 1, true));
    assert_false(utc_take(NOON, now - 61 * TIME_S, true));
    assert_false(utc_take(0, now, true));
    assert_false(utc_take(UINT64_MAX, now, true));
    assert_int_equal(utc_now(), NOON);
}

// Half a second is 1000 seconds of work.
static void test_slew(void **state)
{
    int64_t off[] = {(int64_t)TIME_S / 2, -(int64_t)TIME_S / 2};

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        set_noon(NULL);
        assert_true(utc_take(NOON + (uint64_t)off[i], now, false));
        assert_int_equal(utc_now(), NOON);
        uint64_t before = utc_now();
        for (unsigned s = 1; s <= 1100; s++) {
            now += TIME_S;
            uint64_t utc = utc_now();
            assert_true(utc > before);
            before = utc;
            int64_t done = (int64_t)(utc - NOON - s * TIME_S);
            int64_t due = s < 1000 ? off[i] * s / 1000 : off[i];
            assert_int_equal(done, due);
        }
    }
}

// A sample while the clock is on its way: on from where it is.
static void test_slew_again(void **state)
{
    (void)state;
    assert_true(utc_take(NOON + TIME_S / 2, now, false));
    now += 100 * TIME_S;
    uint64_t before = utc_now();
    assert_int_equal(before, NOON + 100 * TIME_S + TIME_S / 20);
    assert_true(utc_take(NOON + 100 * TIME_S, now, false));
    assert_int_equal(utc_now(), before);
    now += 2000 * TIME_S;
    assert_int_equal(utc_now(), NOON + 2100 * TIME_S);
}

static void test_far_off_needs_two(void **state)
{
    (void)state;
    assert_true(utc_take(NOON + 60 * TIME_S, now, false));
    assert_int_equal(utc_now(), NOON);
    now += 5 * TIME_S;
    assert_true(utc_take(NOON + 30 * TIME_S, now, false)); // says another thing
    assert_int_equal(utc_now(), NOON + 5 * TIME_S);
    now += 5 * TIME_S;
    assert_true(utc_take(NOON + 35 * TIME_S, now, false));
    assert_int_equal(utc_now(), NOON + 35 * TIME_S);
    assert_int_equal(leapt, 25 * TIME_S);
}

static void test_suspicion_ends(void **state)
{
    (void)state;
    assert_true(utc_take(NOON + 60 * TIME_S, now, false));
    assert_true(utc_take(NOON, now, false));
    assert_true(utc_take(NOON + 60 * TIME_S, now, false));
    assert_int_equal(utc_now(), NOON);
}

static void test_sync_sets(void **state)
{
    (void)state;
    assert_true(utc_take(NOON - 7 * TIME_S, now, true)); // also back
    assert_int_equal(utc_now(), NOON - 7 * TIME_S);
    assert_int_equal(leapt, 0);
    assert_true(utc_take(NOON + 293 * TIME_S, now, true));
    assert_int_equal(leapt, 300 * TIME_S);
}

static void test_text(void **state)
{
    static const struct {
        uint64_t seconds;
        const char *text;
    } of[] = {
        {0, "1970-01-01T00:00:00.123Z"},          {68169599, "1972-02-28T23:59:59.123Z"},
        {68169600, "1972-02-29T00:00:00.123Z"},   {951782400, "2000-02-29T00:00:00.123Z"},
        {1735689599, "2024-12-31T23:59:59.123Z"}, {1735689600, "2025-01-01T00:00:00.123Z"},
        {4107542400, "2100-03-01T00:00:00.123Z"}, // 2100 has no leap day
        {7258118399, "2199-12-31T23:59:59.123Z"},
    };
    char text[UTC_TEXT_BYTES];

    (void)state;
    for (unsigned i = 0; i < sizeof(of) / sizeof(of[0]); i++) {
        utc_text(of[i].seconds * TIME_S + 1239999, text);
        assert_string_equal(text, of[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_not_known_at_first),
        cmocka_unit_test_setup(test_goes_on, set_noon),
        cmocka_unit_test_setup(test_what_is_refused, set_noon),
        cmocka_unit_test(test_slew),
        cmocka_unit_test_setup(test_slew_again, set_noon),
        cmocka_unit_test_setup(test_far_off_needs_two, set_noon),
        cmocka_unit_test_setup(test_suspicion_ends, set_noon),
        cmocka_unit_test_setup(test_sync_sets, set_noon),
        cmocka_unit_test(test_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
