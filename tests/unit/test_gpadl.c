// SPDX-License-Identifier: BSD-2-Clause
// GPADL messages: how page numbers are split over the header and the bodies.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "drivers/vmbus/gpadl.h"
#include "drivers/vmbus/vmbus_proto.h"

#define GPA 0x123456000ull
#define PFN (GPA >> 12)

static uint32_t u32(const uint8_t *m, unsigned offset)
{
    uint32_t v;
    memcpy(&v, m + offset, 4);
    return v;
}

static uint16_t u16(const uint8_t *m, unsigned offset)
{
    uint16_t v;
    memcpy(&v, m + offset, 2);
    return v;
}

static uint64_t u64(const uint8_t *m, unsigned offset)
{
    uint64_t v;
    memcpy(&v, m + offset, 8);
    return v;
}

// Checks all messages of a GPADL; returns how many there are.
static unsigned check_messages(uint32_t pages)
{
    uint8_t m[240];
    uint32_t seen = 0;
    unsigned index = 0;

    for (;; index++) {
        size_t len = gpadl_message(3, 0xd0001, GPA, pages, index, m);
        if (len == 0)
            break;
        assert_true(len <= 240);
        unsigned at = index == 0 ? 28 : 16;
        assert_int_equal(u32(m, 0), index == 0 ? VMBUS_GPADL_HEADER : VMBUS_GPADL_BODY);
        assert_int_equal(u32(m, 12), 0xd0001);
        assert_true(len > at);
        for (; at < len; at += 8)
            assert_int_equal(u64(m, at), PFN + seen++);
    }
    assert_int_equal(seen, pages);
    return index;
}

static void test_header(void **state)
{
    uint8_t m[240];

    (void)state;
    assert_int_equal(gpadl_message(3, 0xd0001, GPA, 2, 0, m), 28 + 16);
    assert_int_equal(u32(m, 8), 3);
    assert_int_equal(u16(m, 16), 8 + 2 * 8);
    assert_int_equal(u16(m, 18), 1);
    assert_int_equal(u32(m, 20), 8192);
    assert_int_equal(u32(m, 24), 0);
    assert_int_equal(u64(m, 28), PFN);
    assert_int_equal(gpadl_message(3, 0xd0001, GPA, 2, 1, m), 0);
}

static void test_split(void **state)
{
    (void)state;
    assert_int_equal(check_messages(1), 1);
    assert_int_equal(check_messages(26), 1);
    assert_int_equal(check_messages(27), 2);
    assert_int_equal(check_messages(26 + 28), 2);
    assert_int_equal(check_messages(26 + 28 + 1), 3);
    assert_int_equal(check_messages(4096), 1 + 146); // 16 MiB
    assert_int_equal(check_messages(VMBUS_GPADL_MAX_PAGES), 1 + 292);
}

static void test_limits(void **state)
{
    struct vmbus_device device = {.relid = 3};
    struct gpadl gpadl;
    uint8_t m[240];
    bool leaked;

    (void)state;
    gpadl_message(3, 1, GPA, VMBUS_GPADL_MAX_PAGES, 0, m);
    assert_int_equal(u16(m, 16), 8 * (VMBUS_GPADL_MAX_PAGES + 1)); // fits 16 bits
    assert_true(gpadl_create(&device, m, 0, &gpadl, &leaked) < 0);
    assert_false(leaked);
    assert_true(gpadl_create(&device, m, VMBUS_GPADL_MAX_PAGES + 1, &gpadl, &leaked) < 0);
    assert_false(leaked);
    assert_int_equal(gpadl.handle, 0);
    assert_int_equal(gpadl_destroy(&device, &gpadl), 0); // nothing to destroy
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_header),
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests_name("gpadl", tests, NULL, NULL);
}
