// SPDX-License-Identifier: BSD-2-Clause
// VMBus against the scripted host: offers, messages of any kind, unload.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "drivers/vmbus/connection.h"
#include "drivers/vmbus/vmbus.h"
#include "fake_kernel.h"
#include "netvsc_client.h"

static void child_test_offers(void)
{
    start_up();
    size_t objects = fake_objects_live();
    host_offer(30, 1, 1);         // a subchannel that nobody asked for
    host_offer(31, 0, 1);         // a second offer of the living NIC
    host_offer(HOST_RELID, 0, 9); // a relid in use
    host_offer(0, 0, 9);          // relids that do not exist
    host_offer(2048, 0, 9);
    host_offer(0xffffffff, 0, 9);
    fake_run(LONG);
    CHECK(host.released == 2); // 30 and 31
    CHECK(fake_objects_live() == objects);
    CHECK(client.attached == 1 && fake_counter("offers_dropped") == 6);
    for (uint32_t relid = 2046; relid < 2050; relid++)
        host_rescind(relid);
    host_rescind(0xffffffff);
    for (uint32_t relid = 0; relid < 2048; relid++)
        host_event(relid); // flags of channels that do not exist
    fake_run(LONG);
    CHECK(client.detached == 0 && host.released == 2 && host.bad == 0);
    CHECK(fake_counter("unknown_events") ==
          63); // those beside the NIC's own, the others are not looked at
}
CHILD_TEST(test_offers)

static void child_test_messages(void)
{
    uint8_t m[240] = {0};

    start_up();
    for (uint32_t type = 0; type < 64; type++) {
        memcpy(m, &type, 4);
        for (unsigned len = 0; len <= 16; len += 4) // too short for most
            host_message(m, (uint8_t)len);
        fake_run(0);
    }
    memset(m, 0xff, sizeof(m));
    host_message(m, 240);
    for (uint32_t type = 4; type < 64; type++) { // answers to nothing
        memset(m, 0, sizeof(m));
        memcpy(m, &type, 4);
        host_message(m, 240);
        fake_run(0);
    }
    fake_run(LONG);
    CHECK(client.detached == 0 && client.attached == 1 && host.bad == 0);
    CHECK(fake_counter("bad_messages") > 300);
    CHECK(client_send(100, 0, NULL) == NIC_TX_COPIED);
    fake_run(0);
    CHECK(host.packet_count == 1);
}
CHILD_TEST(test_messages)

static void child_test_unload(void)
{
    start_up();
    struct vmbus_header noise = {.type = VMBUS_ALL_OFFERS};
    host_message(&noise, sizeof(noise)); // the answer may be behind others
    host.busy_posts = 3;
    vmbus_unload();
    CHECK(host.unloads == 1);
    vmbus_unload();
    CHECK(host.unloads == 1);
}
CHILD_TEST(test_unload)

static void child_test_unload_old_host(void)
{
    host.max_version = VMBUS_VERSION_2_4;
    start_up();
    vmbus_unload();
    CHECK(host.unloads == 0); // it does not know the message
}
CHILD_TEST(test_unload_old_host)

static void test_message_sizes(void **state)
{
    static const struct {
        uint32_t type;
        size_t size;
    } known[] = {{1, 196}, {2, 12}, {4, 8}, {6, 20}, {10, 20}, {12, 12}, {15, 10}, {17, 8}};
    uint8_t m[256] = {0};

    (void)state;
    for (uint32_t type = 0; type < 100; type++) {
        size_t need = SIZE_MAX;
        for (unsigned i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
            if (known[i].type == type)
                need = known[i].size;
        }
        memcpy(m, &type, 4);
        for (size_t len = 0; len <= 256; len++)
            assert_int_equal(vmbus_message_valid(m, len), len >= need && len <= 240);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_message_sizes),   cmocka_unit_test(test_offers),
        cmocka_unit_test(test_messages),        cmocka_unit_test(test_unload),
        cmocka_unit_test(test_unload_old_host),
    };
    return cmocka_run_group_tests_name("vmbus", tests, NULL, NULL);
}
