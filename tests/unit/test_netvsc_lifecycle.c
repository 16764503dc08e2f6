// SPDX-License-Identifier: BSD-2-Clause
// Devices come and go at any moment: the host takes the NIC or one of its channels back after each
// message of the guest's, memory runs out at each request for some, offers come again, come twice, come
// for a device that has not gone yet. Whatever happens, in the end the NIC works if it is offered, and if it
// is not, nothing of it is left.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "drivers/vmbus/connection.h"
#include "drivers/vmbus/vmbus.h"
#include "fake_kernel.h"
#include "kernel/config.h"
#include "kernel/core.h"
#include "kernel/fiber.h"
#include "netvsc_client.h"

#define OTHER_RELID 20u // of a device that is no NIC

static unsigned cores; // that the next process has, and channels

static void want(void)
{
    if (cores > 1)
        want_cores(cores, cores);
    client.release = true;
    host.max_version = want_version;
}

// A frame comes by each channel and one goes: the NIC works.
static void check_works(void)
{
    uint8_t a[64] = {0};

    CHECK(client.nic && client.attached == client.detached + 1 && host.filter == RNDIS_FILTER_UP);
    for (unsigned i = 0; i < nic_info(client.nic)->channels; i++) {
        uint32_t range[2] = {0, host_frame(0, a, sizeof(a), 0)};
        unsigned frames = client.frames, sent = host.packet_count;

        host_channel(i);
        host_transfer(70, range, 1);
        fake_core(i);
        CHECK(client_send(100, 0, NULL) == NIC_TX_COPIED);
        fake_run(0);
        CHECK(client.frames == frames + 1 && host.packet_count == sent + 1);
    }
    host_channel(0);
    fake_core(0);
}

// The NIC is not offered: nothing is left of it, all relids but that of the other device are given back.
static void check_nothing_left(void)
{
    for (unsigned i = 0; i < HOST_CHANNELS; i++)
        CHECK(!host_offered(i));
    CHECK(!client.nic && client.attached == client.detached);
    CHECK(client.attached_cores == client.detached_cores);
    CHECK(host.bad == 0 && host.gpadls_live == 0);
    CHECK(fake_counter("opening") == 0 && fake_counter("running") == 0);
    CHECK(fake_objects_live() <= 1 && fake_fibers_live() == 1);
    CHECK(fake_counter("leaked_pages") == 0 && fake_counter("leaked_requests") == 0);
    check_all_freed();
}

static void take_back(void)
{
    host_rescind_all();
    fake_run(LONG);
    check_nothing_left();
}

static void offer_again(void)
{
    host_offer(HOST_RELID, 0, 1);
    fake_run(LONG);
    check_works();
}

// How many messages a guest sends until its NIC works, and until its subchannels are offered.

static uint32_t count_messages(void)
{
    want();
    start_up();
    return host.guest_messages;
}

static uint32_t count_messages_to_subchannels(void)
{
    want();
    start_machine();
    while (!host_offered(1))
        CHECK(fake_turn());
    return host.guest_messages;
}

// How often it asks for memory; not counted what the connection needs.
static uint32_t count_allocations(void)
{
    want();
    start_machine();
    unsigned before = fake_allocations();
    fake_run(LONG);
    check_works();
    return fake_allocations() - before;
}

static void sleep_long(void *arg)
{
    (void)arg;
    fiber_sleep(LONG);
}

static void let_time_pass(void)
{
    fiber_spawn("time", sleep_long, NULL);
    fake_run(LONG);
}

// ---- Taken back after each message ----

static unsigned rescind_at, rescind_index, refuse_at, refuse_count;
static bool rescind_first;

static void child_rescind_at(void)
{
    want();
    host.rescind_at = rescind_at;
    host.rescind_first = rescind_first;
    start_machine();
    fake_refuse(refuse_at, refuse_count);
    fake_run(LONG);
    if (host.offers_requested == 0)
        return; // taken back before it was offered
    fake_refuse(0, 0);
    host.rescind_at = 0;
    take_back(); // if it is still there
    CHECK(host.released >= 1);
    offer_again();
    take_back();
}

static void each_message(unsigned from, unsigned step)
{
    unsigned messages = number_in_child(count_messages);

    assert_true(messages >= 30);
    for (rescind_at = from; rescind_at <= messages; rescind_at += step) {
        rescind_first = !rescind_first;
        in_child(child_rescind_at);
    }
}

// Twice, so that each message is tried both ways.
static void test_rescind_after_each_message(void **state)
{
    static const uint32_t versions[] = {VMBUS_VERSION_5_3, VMBUS_VERSION_3_0};

    (void)state;
    for (unsigned i = 0; i < 8; i++) {
        want_version = versions[i % 2];
        cores = i & 2 ? 3 : 1;
        rescind_first = i & 4;
        each_message(1, 1);
    }
}

// A subchannel alone: the NIC begins again, with all its channels.
static void child_rescind_subchannel(void)
{
    want();
    host.rescind_at = rescind_at;
    host.rescind_first = rescind_first;
    host.rescind_index = rescind_index;
    start();
    CHECK(host.released >= 1);
    fake_run(LONG);
    CHECK(nic_info(client.nic)->channels == 3);
    check_works();
    take_back();
}

static void test_rescind_of_a_subchannel_after_each_message(void **state)
{
    (void)state;
    want_version = VMBUS_VERSION_5_3;
    cores = 3;
    unsigned messages = number_in_child(count_messages);
    unsigned offered = number_in_child(count_messages_to_subchannels);
    assert_true(messages > offered + 4);
    for (unsigned i = 0; i < 4; i++) {
        rescind_index = 1 + i % 2;
        rescind_first = i & 2;
        for (rescind_at = offered + 1; rescind_at <= messages; rescind_at++)
            in_child(child_rescind_subchannel);
    }
}

// ---- No memory ----

// Once, or from a certain moment on for a while: there is a NIC afterwards, maybe with fewer channels.
static void child_refuse(void)
{
    want();
    start_machine();
    fake_refuse(refuse_at, refuse_count);
    fake_run(LONG);
    if (fake_counter("running") == 0) { // the connection's own memory, or the offer's
        host_rescind_all();
        fake_run(LONG);
        CHECK(host.bad == 0);
        return;
    }
    check_works();
    fake_refuse(0, 0);
    take_back();
    offer_again();
    CHECK(nic_info(client.nic)->channels == cores);
    take_back();
}

static void test_memory_refused(void **state)
{
    static const unsigned counts[] = {1, 2, 5, 40};

    (void)state;
    want_version = VMBUS_VERSION_5_3;
    for (cores = 1; cores <= 3; cores += 2) {
        unsigned allocations = number_in_child(count_allocations);

        assert_true(allocations >= 8);
        for (unsigned i = 0; i < 4; i++) {
            refuse_count = counts[i];
            for (refuse_at = 1; refuse_at <= allocations; refuse_at++)
                in_child(child_refuse);
        }
    }
}

// Both at once: every request for memory beside messages all the way.
static void test_memory_refused_and_rescind(void **state)
{
    (void)state;
    want_version = VMBUS_VERSION_5_3;
    cores = 2;
    refuse_count = 1;
    unsigned allocations = number_in_child(count_allocations);
    for (refuse_at = 1; refuse_at <= allocations; refuse_at++)
        each_message(6 + refuse_at % 5, 5);
    refuse_count = 0;
}

// Buffers are halved until they fit, and leave something to all else; where even small ones do not, the
// NIC comes when there is memory.
static void child_test_short_memory(void)
{
    config.receive_buffer = 31u << 20;
    config.send_buffer = 15u << 20;
    fake_memory(8192);
    client.release = true;
    start_machine();
    size_t before = fake_pages_live();
    fake_run(LONG);
    CHECK(nic_info(client.nic)->rx_sections == (31u << 19) / HOST_SECTION);
    CHECK(fake_counter("pages") == fake_pages_live() - before);
    CHECK(fake_pages_live() < 8192 / 8 * 7);
    check_works();
    take_back();
    fake_memory(2048);
    offer_again();
    CHECK(nic_info(client.nic)->rx_sections == (31u << 17) / HOST_SECTION);
    take_back();
    fake_memory(300);
    host_offer(HOST_RELID, 0, 1);
    fake_run(LONG);
    CHECK(!client.nic && fake_counter("idle") == 2);
    check_all_freed();
    fake_memory(1024);
    fake_run(20 * TIME_S);
    check_works();
    take_back();
}
CHILD_TEST(test_short_memory)

// An offer that there is no memory for: the rescind is answered all the same.
static void child_test_offer_without_memory(void)
{
    start_up();
    fake_refuse(1, 1);
    host_offer(30, 0, 9);
    fake_run(LONG);
    CHECK(fake_counter("offers_dropped") == 1 && host.released == 0);
    host_rescind(30);
    host_rescind(30);
    fake_run(LONG);
    CHECK(host.released == 1 && fake_counter("unexpected_messages") == 1);
    host_offer(30, 0, 9); // now there is some
    fake_run(0);
    CHECK(fake_counter("running") == 1 && fake_counter("opening") == 1);
}
CHILD_TEST(test_offer_without_memory)

// ---- Two devices ----

// Another kind of device; it has no room while `other.full`.
static struct {
    bool full;
    unsigned probes, removes;
} other;

static int other_probe(struct vmbus_device *device)
{
    (void)device;
    other.probes++;
    return other.full ? -ENOSPC : 0;
}

static void other_remove(struct vmbus_device *device)
{
    (void)device;
    other.removes++;
}

static struct vmbus_driver other_driver = {
    .name = "other",
    .class_id = {{9}},
    .probe = other_probe,
    .remove = other_remove,
};

static void offer_other(uint32_t relid, uint8_t instance)
{
    struct vmbus_offer o = {
        .header.type = VMBUS_OFFER,
        .class_id = {{9}},
        .instance_id = {{instance}},
        .relid = relid,
    };

    host_message(&o, sizeof(o));
    fake_run(0);
}

// Who found no room gets it as soon as another device has gone, and else some time later.
static void child_test_room_when_another_goes(void)
{
    vmbus_register_driver(&other_driver);
    start_up();
    other.full = true;
    offer_other(OTHER_RELID, 1);
    CHECK(other.probes == 1 && fake_counter("running") == 1);
    uint64_t began = time_now();
    host_rescind(HOST_RELID);
    fake_run(TIME_MS);
    CHECK(client.detached == 1 && other.probes == 2 && time_now() - began <= TIME_MS);
    fake_run(25 * TIME_S);
    CHECK(other.probes >= 3 && other.probes <= 5);
    other.full = false;
    fake_run(LONG);
    unsigned probes = other.probes;
    CHECK(fake_counter("running") == 1 && other.removes == 0);
    fake_run(LONG);
    CHECK(other.probes == probes);
    host_rescind(OTHER_RELID);
    fake_run(0);
    CHECK(other.removes == 1 && host.released == 2 && fake_fibers_live() == 1);
}
CHILD_TEST(test_room_when_another_goes)

// A device that waits for room is taken back.
static void child_test_waiting_device_goes(void)
{
    vmbus_register_driver(&other_driver);
    start_up();
    other.full = true;
    for (unsigned i = 0; i < 3; i++)
        offer_other(OTHER_RELID + i, (uint8_t)i);
    CHECK(other.probes == 3);
    for (unsigned i = 0; i < 3; i++)
        host_rescind(OTHER_RELID + i);
    fake_run(0);
    CHECK(host.released == 3 && other.removes == 0 && fake_fibers_live() == 2);
    check_works();
}
CHILD_TEST(test_waiting_device_goes)

// ---- The same instance again ----

static struct vmbus_device *slow; // in its remove()
static struct event let_go;

static void slow_remove(struct vmbus_device *device)
{
    slow = device;
    event_wait(&let_go, WAIT_FOREVER);
    slow = NULL;
    other.removes++;
}

// An offer of an instance that is still being taken apart waits for that; one of many gets it.
static void child_test_instance_comes_back_early(void)
{
    other_driver.remove = slow_remove;
    vmbus_register_driver(&other_driver);
    start_up();
    offer_other(OTHER_RELID, 1);
    host_rescind(OTHER_RELID);
    offer_other(OTHER_RELID + 1, 1);
    CHECK(slow && slow->relid == OTHER_RELID && other.probes == 1);
    host_rescind(OTHER_RELID + 1);
    offer_other(OTHER_RELID + 2, 1);
    fake_run(LONG);
    CHECK(other.probes == 1 && host.released == 1); // the one in the middle never was used
    offer_other(OTHER_RELID + 3, 1);                // this one is a mistake: the third one lives
    fake_run(LONG);
    CHECK(other.probes == 1 && host.released == 2 && fake_counter("offers_dropped") == 1);
    offer_other(OTHER_RELID + 4, 2); // another instance has nothing to wait for
    CHECK(other.probes == 2);
    event_set(&let_go);
    fake_run(0);
    CHECK(other.removes == 1 && other.probes == 3 && host.released == 3 && !slow);
    check_works(); // the NIC has noticed nothing
}
CHILD_TEST(test_instance_comes_back_early)

// The NIC comes back with another relid before it is gone, with the same one as soon as that is free, and
// its offers are taken back at once.
static void child_test_offers_in_a_row(void)
{
    want_cores(3, 3);
    want_version = VMBUS_VERSION_5_3;
    start_up();
    for (unsigned i = 0; i < 20; i++) {
        host_rescind_all();
        while (host_offered(0) || host.released < 3 * (i + 1))
            CHECK(fake_turn());
        host_offer(HOST_RELID, 0, 1);
        if (i % 3 == 0) {
            fake_run(LONG);
            check_works();
        } else {
            host_rescind_all();
            fake_run(i % 3 == 1 ? 0 : LONG);
            CHECK(host.released == 3 * i + 4);
            host.released--; // that one had no subchannels
            host_offer(HOST_RELID, 0, 1);
            fake_run(LONG);
            check_works();
        }
    }
    take_back();
}
CHILD_TEST(test_offers_in_a_row)

// ---- A NIC that fails again and again ----

static void child_test_gives_up(void)
{
    host.mtu = 10; // no NIC can be that narrow
    start();
    unsigned opens = host.opens;
    CHECK(client.attached == 0 && opens >= 2 && opens <= 7 && fake_counter("idle") == 2);
    fake_run(LONG);
    CHECK(host.opens == opens && fake_fibers_live() == 1);
    check_all_freed();
    host_rescind_all();
    fake_run(LONG);
    CHECK(host.released == 1);
    host.mtu = 1500;
    offer_again();
}
CHILD_TEST(test_gives_up)

// One that has worked for a while begins to count anew.
static void child_test_fails_now_and_then(void)
{
    client.release = true;
    start_up();
    for (unsigned i = 0; i < 20; i++) {
        let_time_pass();
        host_in_header()->write_index = 0x7ffffff8;
        host_event(HOST_RELID);
        fake_run(10 * TIME_S);
        CHECK(client.attached == i + 2);
        check_works();
    }
    CHECK(fake_counter("leaked_pages") == 0);
}
CHILD_TEST(test_fails_now_and_then)

// ---- The end of the machine in the middle of it ----

static unsigned unload_at;

static bool unload_due(void)
{
    return host.guest_messages >= unload_at;
}

static void child_unload(void)
{
    want();
    host.max_version = VMBUS_VERSION_5_3;
    start_machine();
    while (!unload_due() && fake_turn())
        ;
    unsigned unloads = vmbus_version() ? 1 : 0;
    vmbus_unload();
    CHECK(host.unloads == unloads);
    fake_run(LONG); // the loop may go on for a moment: not a word to the host
    CHECK(host.unloads == unloads && host.bad == 0);
}

static void test_unload_after_each_message(void **state)
{
    (void)state;
    want_version = VMBUS_VERSION_5_3;
    cores = 3;
    unsigned messages = number_in_child(count_messages);
    for (unload_at = 1; unload_at <= messages; unload_at++)
        in_child(child_unload);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rescind_after_each_message),
        cmocka_unit_test(test_rescind_of_a_subchannel_after_each_message),
        cmocka_unit_test(test_memory_refused),
        cmocka_unit_test(test_memory_refused_and_rescind),
        cmocka_unit_test(test_short_memory),
        cmocka_unit_test(test_offer_without_memory),
        cmocka_unit_test(test_room_when_another_goes),
        cmocka_unit_test(test_waiting_device_goes),
        cmocka_unit_test(test_instance_comes_back_early),
        cmocka_unit_test(test_offers_in_a_row),
        cmocka_unit_test(test_gives_up),
        cmocka_unit_test(test_fails_now_and_then),
        cmocka_unit_test(test_unload_after_each_message),
    };
    return cmocka_run_group_tests_name("netvsc_lifecycle", tests, NULL, NULL);
}
