// SPDX-License-Identifier: BSD-2-Clause
// How a NIC goes: the host takes it back, a ring is broken, frames are still held.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "drivers/vmbus/connection.h"
#include "fake_kernel.h"
#include "netvsc_client.h"

static void child_test_rescind(void)
{
    static unsigned ctx;

    start_up();
    uint8_t a[64] = {0};
    uint32_t range[2] = {0, host_frame(0, a, sizeof(a), 0)};
    host_transfer(1, range, 1);
    host.hold = true;
    CHECK(client_send(2000, 0, &ctx) == NIC_TX_HELD);
    CHECK(client_send(100, 0, NULL) == NIC_TX_COPIED);
    fake_run(0);
    CHECK(client.frames == 1);
    host_rescind(HOST_RELID);
    host_rescind(HOST_RELID); // twice
    fake_run(LONG);
    CHECK(client.detached == 1 && client.done_count == 1 && client.done[0] == &ctx);
    CHECK(host.released == 1 && host.closes == 0 && host.bad == 0);
    check_all_freed();
    CHECK(fake_counter("leaked_pages") == 0);
    CHECK(fake_fibers_live() == 1);
    host_rescind(1); // the device that has no driver
    fake_run(LONG);
    CHECK(host.released == 2 && fake_objects_live() == 0);
}
CHILD_TEST(test_rescind)

static void corrupt_and_check(_Atomic uint32_t *index, uint32_t value)
{
    *index = value;
    host_event(HOST_RELID);
    if (client.nic) {
        client_send(100, 0, NULL);
        client_send(60000, 0, NULL);
        nic_flush(client.nic);
    }
    run_until_idle();
    CHECK(client.detached == 1);
    CHECK(host.closes == 1 && host.released == 0); // let go of, but not given back
    host_rescind(HOST_RELID);
    fake_run(LONG);
    CHECK(host.released == 1);
    check_all_freed();
}

static void child_test_dead_receive_ring(void)
{
    start_up();
    host.hold = true; // a completion would put the index right
    corrupt_and_check(&host_in_header()->write_index, 0x7ffffff8);
}
CHILD_TEST(test_dead_receive_ring)

static void child_test_dead_send_ring(void)
{
    start_up();
    host.paused = true;
    while (client_send(2000, 0, NULL) != NIC_TX_FULL)
        ;
    corrupt_and_check(&host_out_header()->read_index, 12);
}
CHILD_TEST(test_dead_send_ring)

// The same, but the host never interrupts again: who sends finds out.
static void child_test_dead_send_ring_in_silence(void)
{
    start_up();
    host.paused = true;
    while (client_send(2000, 0, NULL) != NIC_TX_FULL)
        ;
    host_out_header()->read_index = 12;
    uint64_t interrupts = fake_counter("interrupts");
    CHECK(client_send(2000, 0, NULL) == NIC_TX_FULL);
    CHECK(client_send(2000, 0, NULL) == NIC_TX_FULL);
    nic_flush(client.nic);
    fake_turn();
    CHECK(fake_counter("interrupts") == interrupts);
    run_until_idle();
    CHECK(client.detached == 1 && host.closes == 1);
    host_rescind(HOST_RELID);
    fake_run(LONG);
    CHECK(host.released == 1);
    check_all_freed();
}
CHILD_TEST(test_dead_send_ring_in_silence)

// Frames whose sending breaks off are given back when the host has let go of the channel, not before.
static void child_test_held_frames_of_a_dead_channel(void)
{
    start_up();
    host.hold = true;
    CHECK(client_send(2000, 0, &client) == NIC_TX_HELD);
    fake_run(0);
    CHECK(host.packet_count == 1 && client.done_count == 0);
    unsigned gpadls = host.gpadls_live;
    host_in_header()->write_index = 0x7ffffff8;
    host_event(HOST_RELID);
    run_until_idle();
    CHECK(client.detached == 1 && client.done_count == 1 && client.done[0] == &client);
    CHECK(client.closes_at_done == 1 && gpadls == 3 && host.gpadls_live == 0);
    CHECK(host.bad == 0);
    check_all_freed();
    CHECK(fake_counter("leaked_pages") == 0 && fake_counter("leaked_requests") == 0);
}
CHILD_TEST(test_held_frames_of_a_dead_channel)

// The host does not even confirm the end of the channel: the frames stay away.
static void child_test_held_frames_are_lost(void)
{
    start_up();
    host.hold = true;
    CHECK(client_send(2000, 0, &client) == NIC_TX_HELD);
    CHECK(client_send(3000, 0, &client) == NIC_TX_HELD);
    fake_run(0);
    host.fault_at = host.questions + 1;
    host.fault = FAULT_SILENT;
    host_in_header()->write_index = 0x7ffffff8;
    host_event(HOST_RELID);
    fake_run(LONG);
    CHECK(strcmp(host.question, "teardown") == 0);
    CHECK(client.detached == 1 && client.done_count == 0);
    CHECK(fake_counter("leaked_requests") == 2 && fake_counter("leaked_pages") > 0);
    CHECK(client.attached == 1); // not tried again: that might cost as much each time
    check_all_freed();
}
CHILD_TEST(test_held_frames_are_lost)

// A NIC that goes down by our own wish while the host is slow: said goodbye to in order, then closed.
static void child_test_held_frames_of_a_slow_host(void)
{
    host.hold = true;
    client.send = true;
    host.max_version = want_version;
    host.fault_at = fault_number; // opening the packet filter, the last question
    host.fault = FAULT_SILENT;
    start_in_vain();
    CHECK(strncmp(host.question, "teardown", 8) == 0);
    CHECK(client.attached == 1 && client.detached == 1);
    CHECK(client.done_count == 1 && client.closes_at_done == 1);
    CHECK(host.halts == 1 && host.revokes == 2 && host.closes == 1 && host.bad == 0);
    check_all_freed();
    CHECK(fake_counter("leaked_pages") == 0 && host.gpadls_live == 0);
}

static void test_held_frames_of_a_slow_host(void **state)
{
    (void)state;
    fault_number = (unsigned)questions_of_a_good_run(1);
    want_version = VMBUS_VERSION_5_3;
    in_child(child_test_held_frames_of_a_slow_host);
    want_version = VMBUS_VERSION_3_0; // another order; two versions are refused before
    fault_number += 2;
    in_child(child_test_held_frames_of_a_slow_host);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rescind),
        cmocka_unit_test(test_dead_receive_ring),
        cmocka_unit_test(test_dead_send_ring),
        cmocka_unit_test(test_dead_send_ring_in_silence),
        cmocka_unit_test(test_held_frames_of_a_dead_channel),
        cmocka_unit_test(test_held_frames_are_lost),
        cmocka_unit_test(test_held_frames_of_a_slow_host),
    };
    return cmocka_run_group_tests_name("netvsc_end", tests, NULL, NULL);
}
