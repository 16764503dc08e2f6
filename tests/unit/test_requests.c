// SPDX-License-Identifier: BSD-2-Clause
// The transaction table: ids are unique, 1..N, and only one that is out can come back.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "drivers/vmbus/requests.h"

static struct requests table;

static void test_all_ids_once(void **state)
{
    bool seen[REQUESTS_MAX + 1] = {0};

    (void)state;
    requests_init(&table, REQUESTS_MAX);
    for (uint32_t i = 0; i < REQUESTS_MAX; i++) {
        uint32_t id = requests_take(&table);
        assert_in_range(id, 1, REQUESTS_MAX);
        assert_false(seen[id]);
        seen[id] = true;
    }
    assert_int_equal(requests_take(&table), 0);
    assert_true(requests_give(&table, 17));
    assert_int_equal(requests_take(&table), 17);
    assert_int_equal(requests_take(&table), 0);
}

static void test_unknown_ids(void **state)
{
    (void)state;
    requests_init(&table, 100);
    uint32_t id = requests_take(&table);
    uint32_t free_count = table.free_count;
    static const uint64_t bad[] = {0, 2, 100, 101, 1024, 1025, 0x100000001ull, UINT64_MAX};
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_not_equal(bad[i], id);
        assert_false(requests_give(&table, bad[i]));
        assert_false(requests_used(&table, bad[i]));
    }
    assert_int_equal(table.free_count, free_count);
    assert_true(requests_give(&table, id));
    assert_false(requests_give(&table, id)); // twice
    assert_int_equal(table.free_count, 100);
}

static void test_random_use(void **state)
{
    bool out[65] = {0};

    (void)state;
    srand(7);
    requests_init(&table, 64);
    for (unsigned i = 0; i < 20000; i++) {
        uint32_t id = (uint32_t)rand() % 65;
        if (rand() & 1) {
            id = requests_take(&table);
            assert_false(id && out[id]);
            out[id] = id != 0;
        } else {
            assert_int_equal(requests_give(&table, id), id && out[id]);
            out[id] = false;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_ids_once),
        cmocka_unit_test(test_unknown_ids),
        cmocka_unit_test(test_random_use),
    };
    return cmocka_run_group_tests_name("requests", tests, NULL, NULL);
}
