// SPDX-License-Identifier: BSD-2-Clause
// Frames to the scripted host: copied or by reference, batches, full rings, refused signals.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "drivers/hyperv/hyperv.h"
#include "drivers/netvsc/nic.h"
#include "fake_kernel.h"
#include "kernel/config.h"
#include "kernel/core.h"
#include "kernel/loop.h"
#include "netvsc_client.h"

static void child_test_send_copied(void)
{
    start_up();
    fill_frame();
    unsigned signals = host.signals;
    CHECK(client_send(100, NIC_TX_IP4 | NIC_TX_TCP, NULL) == NIC_TX_COPIED);
    CHECK(client_send(61, 0, NULL) == NIC_TX_COPIED);
    CHECK(host.packet_count == 0); // nothing before the flush
    nic_flush(client.nic);
    CHECK(host.packet_count == 1 && host.signals == signals + 1);
    struct host_packet *p = &host.packets[0];
    CHECK(p->type == PACKET_INBAND && p->header_len == 16 && p->payload_len == 40);
    CHECK(word(p->bytes, 16) == NVSP_SEND_RNDIS_PACKET && word(p->bytes, 20) == 0);
    uint32_t section = word(p->bytes, 24), bytes = word(p->bytes, 28);
    const uint8_t *m = host_send_buffer() + section * HOST_SEND_SECTION;
    // First: header, checksum PPI, frame; padded to 8 because another follows.
    CHECK(word(m, 0) == RNDIS_PACKET && word(m, 4) == 160);
    CHECK(word(m, 8) == 36 + 16 && word(m, 12) == 100);
    CHECK(word(m, 16) == 0 && word(m, 20) == 0 && word(m, 24) == 0 && word(m, 36) == 0);
    CHECK(word(m, 28) == 36 && word(m, 32) == 16);
    CHECK(word(m, 44) == 16 && word(m, 48) == PPI_CHECKSUM && word(m, 52) == 12);
    CHECK(word(m, 56) == (PPI_TX_IPV4 | PPI_TX_TCP | 34u << 16));
    CHECK(memcmp(m + 60, frame_bytes, 54) == 0 && memcmp(m + 114, frame_bytes + 4000, 46) == 0);
    const uint8_t *second = m + word(m, 4);
    CHECK(word(second, 0) == RNDIS_PACKET && word(second, 4) == 44 + 61);
    CHECK(word(second, 8) == 36 && word(second, 28) == 0 && word(second, 32) == 0);
    CHECK(memcmp(second + 44, frame_bytes, 54) == 0);
    CHECK(bytes == 160 + 44 + 61);
    CHECK(client.done_count == 0);
}
CHILD_TEST(test_send_copied)

static bool always_busy(void *ctx)
{
    (void)ctx;
    return true;
}

// Something else keeps the core from halting: what was queued outside of the handler goes out anyway.
static void child_test_flushed_while_the_core_is_busy(void)
{
    static struct poller busy = {.name = "busy", .poll = always_busy};
    uint8_t a[64] = {0};

    start_up();
    uint32_t range[2] = {0, host_frame(0, a, sizeof(a), 0)};
    host_transfer(1, range, 1);
    fake_run(0);
    CHECK(client.frames == 1);
    unsigned completions = host.completion_count;
    loop_add(&busy);
    CHECK(client_send(100, 0, NULL) == NIC_TX_COPIED);
    nic_rx_release(client.nic, client.tokens[0]);
    client.frames = 0;
    CHECK(host.packet_count == 0 && host.completion_count == completions);
    fake_turn();
    CHECK(host.packet_count == 1 && host.completion_count == completions + 1);
    fake_loop_remove(&busy);
}
CHILD_TEST(test_flushed_while_the_core_is_busy)

static void child_test_send_aggregates_up_to_the_limit(void)
{
    start_up();
    fill_frame();
    for (unsigned i = 0; i < 20; i++)
        CHECK(client_send(61, 0, NULL) == NIC_TX_COPIED);
    nic_flush(client.nic);
    CHECK(host.packet_count == 3); // 8, 8, 4
    const uint8_t *m = host_send_buffer() + word(host.packets[0].bytes, 24) * HOST_SEND_SECTION;
    for (unsigned i = 0; i < 7; i++) {
        CHECK(word(m, 4) == 112); // 44 + 61, padded
        m += 112;
    }
    CHECK(word(m, 4) == 105);
}
CHILD_TEST(test_send_aggregates_up_to_the_limit)

static void child_test_send_held(void)
{
    start_up();
    fill_frame();
    host.hold = true;
    CHECK(client_send(8000, NIC_TX_IP4 | NIC_TX_TCP, &client) == NIC_TX_HELD);
    nic_flush(client.nic);
    CHECK(host.packet_count == 1);
    struct host_packet *p = &host.packets[0];
    CHECK(p->type == PACKET_GPA_DIRECT && word(p->bytes, 20) == 2);
    CHECK(word(p->bytes, p->header_len + 8) == NVSP_NO_SECTION);
    // The ranges give the message: header and headers of the frame first, then the payload's pages.
    static uint8_t message[16384];
    uint32_t at = 24, len = 0;
    for (unsigned i = 0; i < 2; i++) {
        uint32_t bytes = word(p->bytes, at), offset = word(p->bytes, at + 4);
        CHECK(offset < 4096);
        at += 8;
        for (uint32_t left = bytes; left; at += 8) {
            uint64_t pfn;
            memcpy(&pfn, p->bytes + at, 8);
            uint32_t run = 4096 - offset < left ? 4096 - offset : left;
            memcpy(message + len, (uint8_t *)(uintptr_t)(pfn << 12) + offset, run);
            len += run;
            left -= run;
            offset = 0;
        }
    }
    CHECK(at == p->header_len && len == 60 + 8000 && word(message, 4) == len);
    CHECK(memcmp(message + 60, frame_bytes, 54) == 0);
    CHECK(memcmp(message + 114, frame_bytes + 4000, 8000 - 54) == 0);
    fake_run(0);
    CHECK(client.done_count == 0);
    host_complete(p->transaction_id, 1);
    fake_run(0);
    CHECK(client.done_count == 1 && client.done[0] == &client);
    host_complete(p->transaction_id, 1); // again
    fake_run(0);
    CHECK(client.done_count == 1 && fake_counter("bad_completions") == 1);
}
CHILD_TEST(test_send_held)

static void child_test_bad_completions(void)
{
    start_up();
    host.hold = true;
    CHECK(client_send(100, 0, NULL) ==
          NIC_TX_COPIED); // its id is taken, but the host has not seen it
    static const uint64_t bad[] = {0, 1, 2, 3, 511, 512, 513, 0x100000001ull, UINT64_MAX};
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        host_put(PACKET_COMPLETION, 0, bad[i], NULL, 0, NULL, 0);
    host_put(PACKET_INBAND, PACKET_WANTS_COMPLETION, 0x8000000000000000ull, NULL, 0, "abcd", 4);
    fake_turn();
    CHECK(fake_counter("bad_completions") == sizeof(bad) / sizeof(bad[0]));
    nic_flush(client.nic);
    CHECK(host.packet_count == 1);
    // A completion that says failure, and one without a payload, still give everything back.
    host_complete(host.packets[0].transaction_id, 2);
    CHECK(client_send(2000, 0, &host) == NIC_TX_HELD);
    nic_flush(client.nic);
    host_put(PACKET_COMPLETION, 0, host.packets[1].transaction_id, NULL, 0, NULL, 0);
    fake_run(0);
    CHECK(fake_counter("tx_failed") == 2 && fake_counter("tx_outstanding") == 0);
    CHECK(client.done_count == 1 && client.done[0] == &host);
}
CHILD_TEST(test_bad_completions)

static void child_test_back_pressure(void)
{
    static unsigned ctx[4096];
    unsigned sent = 0, held = 0;

    start_up();
    host.paused = true;
    for (;;) {
        enum nic_tx_result r = client_send(sent % 3 ? 2000 : 200, 0, &ctx[held]);
        if (r == NIC_TX_FULL)
            break;
        held += r == NIC_TX_HELD;
        sent++;
    }
    CHECK(sent > 100 && client.ready == 0);
    fake_run(0);
    CHECK(client.ready == 0);
    host.paused = false;
    host_service(); // makes room, and sees that it is waited for
    fake_run(0);
    CHECK(client.ready == 1);
    CHECK(host_out_header()->pending_send_size == 0); // no more interrupts for room
    CHECK(client.done_count == held);
    for (unsigned i = 0; i < held; i++) // all, in order, once
        CHECK(client.done[i] == &ctx[i]);
    CHECK(client_send(2000, 0, NULL) == NIC_TX_HELD);
    fake_run(0);
    CHECK(fake_counter("tx_outstanding") == 0);
    CHECK(fake_counter("tx_failed") == 0);
    CHECK(host.bad == 0);
}
CHILD_TEST(test_back_pressure)

// A signal that the host refuses for lack of memory is repeated, at leisure; other refusals are not.
static void child_test_refused_signals(void)
{
    start_up();
    host.busy_signals = 3;
    host.busy_status = HV_STATUS_INSUFFICIENT_BUFFERS;
    unsigned signals = host.signals;
    uint64_t began = time_now();
    CHECK(client_send(2000, 0, NULL) == NIC_TX_HELD);
    fake_run(0);
    CHECK(host.packet_count == 0 && host.signals == signals + 1);
    CHECK(client_send(2000, 0, NULL) == NIC_TX_HELD); // the ring is not empty: nothing to tell
    fake_run(LONG);
    CHECK(host.packet_count == 2 && host.signals == signals + 4 && client.done_count == 2);
    CHECK(fake_counter("signals_refused") == 3 && time_now() - began < 100 * TIME_MS);
    host.busy_signals = 1;
    host.busy_status = HV_STATUS_INVALID_CONNECTION_ID;
    signals = host.signals;
    CHECK(client_send(2000, 0, NULL) == NIC_TX_HELD);
    fake_run(LONG);
    CHECK(host.signals == signals + 1 && fake_counter("signals_refused") == 4);
    host_service();
}
CHILD_TEST(test_refused_signals)

// Whoever sends before it was told that there is room ends the waiting, too.
static void child_test_sending_ends_the_waiting(void)
{
    start_up();
    host.paused = true;
    while (client_send(2000, 0, NULL) != NIC_TX_FULL)
        ;
    CHECK(host_out_header()->pending_send_size != 0);
    host.paused = false;
    host_service();
    CHECK(client_send(2000, 0, NULL) == NIC_TX_HELD);
    nic_flush(client.nic);
    CHECK(host_out_header()->pending_send_size == 0);
    fake_run(0);
    CHECK(client.ready == 0 && fake_counter("tx_outstanding") == 0 && host.bad == 0);
}
CHILD_TEST(test_sending_ends_the_waiting)

// The ring towards the host is full of frames: completions wait, none is lost.
static void child_test_completions_wait_for_room(void)
{
    uint8_t a[64] = {0};

    config.ring = 8192;
    start_up();
    client.release = true;
    host.paused = true;
    unsigned before = host.completion_count;
    while (client_send(2000, 0, NULL) != NIC_TX_FULL)
        ;
    for (unsigned i = 0; i < 60; i++) {
        uint32_t range[2] = {0, host_frame(0, a, sizeof(a), 0)};
        host_transfer(500 + i, range, 1);
        fake_run(0);
    }
    CHECK(client.frames == 60);
    CHECK(fake_counter("completions_blocked") > 0);
    host.paused = false;
    host_service();
    fake_run(0);
    CHECK(host.completion_count == before + 60);
    for (unsigned i = 0; i < 60; i++)
        CHECK(host.completions[before + i] == 500 + i);
    CHECK(host_out_header()->pending_send_size == 0);
    CHECK(host.bad == 0);
}
CHILD_TEST(test_completions_wait_for_room)

// Completions and frames wait for room; the host makes it just when completions take back the one
// wish that both have. The frames must not wait for ever.
static void child_test_frames_wait_with_completions(void)
{
    uint8_t a[64] = {0};

    config.ring = 8192;
    start_up();
    client.release = true;
    host.paused = true;
    unsigned before = host.completion_count;
    for (unsigned i = 0; i < 140; i++) { // more completions than fit
        uint32_t range[2] = {0, host_frame(0, a, sizeof(a), 0)};
        host_transfer(500 + i, range, 1);
        fake_run(0);
    }
    CHECK(fake_counter("completions_blocked") > 0 && fake_counter("tx_outstanding") == 0);
    CHECK(client_send(2000, 0, NULL) == NIC_TX_FULL);
    ring_out_cancel_room(
        &client.nic->queue[0]->channel.out); // rx_flush() does if there is room at this moment
    host.paused = false;
    uint64_t interrupts = fake_counter("interrupts");
    host_service();
    CHECK(client.ready == 0);
    fake_run(0);
    CHECK(client.ready == 1 && fake_counter("interrupts") == interrupts);
    CHECK(host.completion_count == before + 140 && host.bad == 0);
}
CHILD_TEST(test_frames_wait_with_completions)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_send_copied),
        cmocka_unit_test(test_flushed_while_the_core_is_busy),
        cmocka_unit_test(test_send_aggregates_up_to_the_limit),
        cmocka_unit_test(test_send_held),
        cmocka_unit_test(test_bad_completions),
        cmocka_unit_test(test_back_pressure),
        cmocka_unit_test(test_refused_signals),
        cmocka_unit_test(test_sending_ends_the_waiting),
        cmocka_unit_test(test_completions_wait_for_room),
        cmocka_unit_test(test_frames_wait_with_completions),
    };
    return cmocka_run_group_tests_name("netvsc_send", tests, NULL, NULL);
}
