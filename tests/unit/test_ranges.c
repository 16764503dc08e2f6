// SPDX-License-Identifier: BSD-2-Clause
// The order in which RAM is taken into use: every page once and none that is not ours, first what lies in
// blocks of 2 MiB of which others have a part, then whole blocks, the firmware's last.
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/alloc.h"
#include "kernel/ranges.h"

#define MIB 0x100000ull
#define BLOCK (2 * MIB)
#define COUNT(list) (sizeof(list) / sizeof((list)[0]))
#define PAGES 65536u // 256 MiB

static struct ranges ranges;
static uint8_t given[PAGES];

// A machine with a range below 1 MiB, one across it, one in the middle of a block, one with aligned ends,
// and what is not ours.
static const struct boot_memory_range machine[] = {
    {0, 0xa0, BOOT_MEMORY_FREE, 0},
    {0xff000, 0x706, BOOT_MEMORY_FREE, 0},
    {8 * MIB + 0x5000, 2, BOOT_MEMORY_ACPI, 0},
    {8 * MIB + 0x7000, 8, BOOT_MEMORY_FREE, 0},
    {9 * MIB, 0xc00, BOOT_MEMORY_FIRMWARE, 0},
    {32 * MIB, 100 * 256, BOOT_MEMORY_FREE, 0},
    {132 * MIB, 256, BOOT_MEMORY_LOADER, 0},
    {133 * MIB, 0x1fe0, BOOT_MEMORY_FREE, 0},
    {250 * MIB, 256, BOOT_MEMORY_RESERVED, 0},
};

static bool whole(uint64_t base, size_t pages)
{
    return base % BLOCK == 0 && pages * PAGE_SIZE == BLOCK;
}

// The type of the range in which [base, base + pages) lies.
static uint32_t type_of(const struct boot_memory_range *list, size_t count, uint64_t base,
                        size_t pages)
{
    for (size_t i = 0; i < count; i++)
        if (base >= list[i].base &&
            base + pages * PAGE_SIZE <= list[i].base + list[i].pages * PAGE_SIZE)
            return list[i].type;
    return 0;
}

// Takes all that is left and marks it. Returns how many pages that was.
static size_t take_all(void)
{
    size_t total = 0, pages, left = ranges.pages;
    uint64_t base;

    memset(given, 0, sizeof(given));
    while ((pages = ranges_next(&ranges, &base))) {
        assert_true(base >= MIB && base % PAGE_SIZE == 0 && base / PAGE_SIZE + pages <= PAGES);
        assert_true(base / BLOCK == (base + pages * PAGE_SIZE - 1) / BLOCK);
        for (size_t i = 0; i < pages; i++)
            assert_int_equal(given[base / PAGE_SIZE + i]++, 0);
        total += pages;
        left -= pages;
        assert_int_equal(ranges.pages, left);
    }
    assert_int_equal(ranges.pages, 0);
    assert_int_equal(ranges_next(&ranges, &base), 0);
    return total;
}

static void test_every_page_once(void **state)
{
    (void)state;
    ranges_init(&ranges, machine, COUNT(machine));
    assert_int_equal(ranges.top, 133 * MIB + 0x1fe0 * PAGE_SIZE);
    size_t all = 0x705 + 8 + 0xc00 + 100 * 256 + 0x1fe0; // one page of the second range is too low
    assert_int_equal(ranges.pages, all);
    assert_int_equal(take_all(), all);
    for (size_t i = 0; i < PAGES; i++) {
        uint32_t type = type_of(machine, COUNT(machine), i * PAGE_SIZE, 1);
        assert_int_equal(given[i], i * PAGE_SIZE >= MIB &&
                                       (type == BOOT_MEMORY_FREE || type == BOOT_MEMORY_FIRMWARE));
    }
}

static void test_order(void **state)
{
    unsigned stage = 0;
    size_t pages;
    uint64_t base;

    (void)state;
    ranges_init(&ranges, machine, COUNT(machine));
    while ((pages = ranges_next(&ranges, &base))) {
        unsigned now = type_of(machine, COUNT(machine), base, pages) == BOOT_MEMORY_FIRMWARE ? 2
                       : whole(base, pages)                                                  ? 1
                                                                                             : 0;
        assert_true(now >= stage);
        stage = now;
    }
    assert_int_equal(stage, 2);
}

static void test_keep(void **state)
{
    uint64_t end = 132 * MIB;

    (void)state;
    ranges_init(&ranges, machine, COUNT(machine));
    size_t all = ranges.pages;
    assert_int_equal(ranges_keep(&ranges, 33), end - 33 * PAGE_SIZE);
    assert_int_equal(ranges.pages, all - 33);
    assert_int_equal(take_all(), all - 33);
    for (size_t i = 0; i < 34; i++)
        assert_int_equal(given[end / PAGE_SIZE - 1 - i], i == 33);
    ranges_init(&ranges, machine, COUNT(machine));
    assert_int_equal(ranges_keep(&ranges, 100 * 256), 0); // the biggest has no more than that
    assert_int_equal(ranges.pages, all);
}

static void test_nothing(void **state)
{
    (void)state;
    ranges_init(&ranges, machine, 1); // all of it below 1 MiB
    assert_int_equal(ranges.pages, 0);
    assert_int_equal(ranges_keep(&ranges, 1), 0);
    assert_int_equal(take_all(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_page_once),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_keep),
        cmocka_unit_test(test_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
