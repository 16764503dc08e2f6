// SPDX-License-Identifier: BSD-2-Clause
// What a NIC of the scripted host sends: frames, held and given back; malformed and unasked packets.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "drivers/netvsc/nic.h"
#include "fake_kernel.h"
#include "kernel/config.h"
#include "netvsc_client.h"

static void child_test_receive_by_reference(void)
{
    uint8_t a[64], b[1514];
    uint32_t ranges[4];

    memset(a, 0x11, sizeof(a));
    memset(b, 0x22, sizeof(b));
    start_up();
    ranges[0] = 2 * HOST_SECTION;
    ranges[1] = host_frame(2, a, sizeof(a), PPI_RX_TCP_OK | PPI_RX_IP_OK);
    ranges[2] = 5 * HOST_SECTION;
    ranges[3] = host_frame(5, b, sizeof(b), PPI_RX_TCP_FAILED | PPI_RX_IP_OK);
    unsigned completions = host.completion_count;
    unsigned batches = client.batches;
    host_transfer(77, ranges, 2);
    fake_run(0);
    CHECK(client.frames == 2 && client.batches == batches + 1);
    CHECK(client.data == host_receive_buffer() + 5 * HOST_SECTION + 60);
    CHECK(client.last.len == 1514 && memcmp(client.bytes, b, 1514) == 0);
    CHECK(client.last.csum == NIC_CSUM_BAD);
    // One completion, when the last frame is released; the core's halt is when the host learns of it.
    CHECK(host.completion_count == completions);
    nic_rx_release(client.nic, client.tokens[1]);
    fake_run(0);
    CHECK(host.completion_count == completions);
    CHECK(fake_counter("rx_held") == 1);
    nic_rx_release(client.nic, client.tokens[0]);
    fake_run(0);
    CHECK(host.completion_count == completions + 1);
    CHECK(host.completions[completions] == 77 && host.completion_status[completions] == 1);
    CHECK(fake_counter("rx_held") == 0 && fake_counter("rx_held_peak") == 2);
    CHECK(host.bad == 0);
}
CHILD_TEST(test_receive_by_reference)

// A core that looks on instead of halting sees what comes by a channel that does not interrupt, and
// what interrupts; when it halts after all the channel interrupts again.
static void child_test_look(void)
{
    uint8_t a[64] = {0};

    start_up();
    uint32_t range[2] = {HOST_SECTION, host_frame(1, a, sizeof(a), 0)};
    client.release = true;
    CHECK(!fake_look());
    fake_spin(true);
    for (unsigned i = 1; i <= 3; i++) { // the first one interrupts
        unsigned interrupts = (unsigned)fake_counter("interrupts");
        host_transfer(i, range, 1);
        CHECK(fake_look() && client.frames == i - 1);
        fake_run(0);
        CHECK(!fake_look() && client.frames == i);
        CHECK(fake_counter("interrupts") == interrupts + (i == 1));
    }
    host_transfer(4, range, 1);
    fake_spin(false);
    fake_run(0);
    CHECK(client.frames == 4);
    host_transfer(5, range, 1);
    fake_run(0);
    CHECK(client.frames == 5 && host.bad == 0);
}
CHILD_TEST(test_look)

static void child_test_scarce(void)
{
    uint8_t a[64] = {0};

    config.receive_buffer = 256 << 10;
    start_up();
    unsigned half = nic_info(client.nic)->rx_sections / 2;
    for (unsigned i = 0; i < half; i++) {
        uint32_t range[2] = {i * HOST_SECTION, host_frame(i, a, sizeof(a), 0)};
        CHECK(!nic_rx_scarce(client.nic));
        host_transfer(i + 1, range, 1);
        fake_run(0);
    }
    CHECK(nic_rx_scarce(client.nic));
    nic_rx_release(client.nic, client.tokens[0]);
    CHECK(!nic_rx_scarce(client.nic));
    client.tokens[0] = client.tokens[--client.frames];
}
CHILD_TEST(test_scarce)

// One frame that is kept keeps all the sections of its packet.
static void child_test_scarce_counts_sections(void)
{
    uint8_t a[64] = {0};
    uint32_t ranges[2 * 60];

    config.receive_buffer = 364 << 10; // 206 sections
    start_up();
    unsigned sections = nic_info(client.nic)->rx_sections;
    CHECK(sections == 206);
    for (unsigned packet = 0; packet < 3; packet++) {
        for (unsigned i = 0; i < 60; i++) {
            ranges[2 * i] = (60 * packet + i) * HOST_SECTION;
            ranges[2 * i + 1] = host_frame(60 * packet + i, a, sizeof(a), 0);
        }
        host_transfer(packet + 1, ranges, 60);
        fake_run(0);
        // All frames but one go back at once; the sections do not.
        for (unsigned i = 1; i < 60; i++)
            nic_rx_release(client.nic, client.tokens[packet * 60 + i]);
        fake_run(0);
        CHECK(fake_counter("rx_held") == packet + 1 &&
              fake_counter("rx_pinned") == 60 * (packet + 1));
        CHECK(nic_rx_scarce(client.nic) == (60 * (packet + 1) >= sections / 2));
    }
    nic_rx_release(client.nic, client.tokens[0]);
    CHECK(fake_counter("rx_pinned") == 120 && nic_rx_scarce(client.nic));
    nic_rx_release(client.nic, client.tokens[60]);
    nic_rx_release(client.nic, client.tokens[120]);
    CHECK(!nic_rx_scarce(client.nic));
    fake_run(0);
    CHECK(fake_counter("rx_pinned") == 0 && fake_counter("rx_pinned_peak") == 180 && host.bad == 0);
    // Ranges of a packet that is refused as a whole never were ours.
    const uint32_t extra[4] = {0xbeef, 1, 64, 0};
    struct nvsp_message m = {.type = NVSP_SEND_RNDIS_PACKET};
    host_put(PACKET_TRANSFER_PAGES, 0, 9, extra, 16, &m, 40);
    fake_run(0);
    CHECK(fake_counter("rx_pinned") == 0);
    client.frames = 0;
}
CHILD_TEST(test_scarce_counts_sections)

// A client that keeps all it may for ever, and a host with batches of every size: half of the sections
// stay with the host, the batch on its way included.
static void child_test_half_stays_with_the_host(void)
{
    uint8_t a[64] = {0};
    uint32_t ranges[2 * 60];
    unsigned out = 0, n = 0;

    config.receive_buffer = 364 << 10;
    client.copy = true;
    start_up();
    unsigned half = nic_info(client.nic)->rx_sections / 2;
    for (unsigned packet = 0; packet < 200; packet++) {
        unsigned count = 1 + packet * 7 % 60;
        for (unsigned i = 0; i < count; i++) {
            ranges[2 * i] = i * HOST_SECTION;
            ranges[2 * i + 1] = host_frame(i, a, sizeof(a), 0);
        }
        n = host.completion_count;
        host_transfer(packet + 1, ranges, count);
        fake_run(0);
        out += host.completion_count == n ? count : 0; // not given back
        CHECK(out < half && fake_counter("rx_pinned") == out);
    }
    CHECK(out > half / 2 && client.frames > 0 && fake_counter("rx_pinned_peak") < half + 60);
}
CHILD_TEST(test_half_stays_with_the_host)

// More packets in the ring than one turn takes, with a peer that waits for room.
static void child_test_many(void)
{
    uint8_t a[64] = {0};

    start_up();
    client.release = true;
    unsigned completions = host.completion_count;
    unsigned signals = host.signals;
    for (unsigned i = 0; i < 200; i++) {
        uint32_t range[2] = {0, host_frame(0, a, sizeof(a), 0)};
        host_transfer(1000 + i, range, 1);
    }
    fake_run(0);
    CHECK(client.frames == 200 && host.completion_count == completions + 200);
    for (unsigned i = 0; i < 200; i++)
        CHECK(host.completions[completions + i] == 1000 + i);
    CHECK(host.signals - signals <= 200 / RX_BUDGET + 1); // batched
    CHECK(host.bad == 0);
}
CHILD_TEST(test_many)

// Each of these is answered (status 2 or nothing to answer), counted, and followed by a good frame.
static void child_test_malformed_packets(void)
{
    uint8_t a[64] = {0};
    struct nvsp_message good = {.type = NVSP_SEND_RNDIS_PACKET}, bad = {.type = NVSP_INIT};
    uint32_t end = config.receive_buffer;

    start_up();
    client.release = true;
    uint32_t len = host_frame(0, a, sizeof(a), 0);
    const uint32_t ranges[][2] = {
        {end, 1},
        {end - 1, 2},
        {0xffffffff, 1},
        {0xfffffff8, 16},
        {8, 0xffffffff},
        {0, HOST_SECTION + 1},
        {end, 0} /* no room for a header */,
        {0, 7},
        {0, len - 1},
    };
    unsigned n = host.completion_count;
    for (unsigned i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        host_transfer(100 + i, ranges[i], 1);
        fake_run(0);
        CHECK(client.frames == 0);
        CHECK(host.completions[n] == 100 + i && host.completion_status[n] == 2);
        CHECK(host.completion_count == ++n);
    }
    // Wrong set, no ranges, more ranges than the header holds, header too short, wrong NVSP type.
    const uint32_t extras[][4] = {{0xbeef, 1, len, 0},          {0xcafe, 0, len, 0},
                                  {0xcafe, 2, len, 0},          {0xcafe, 0xffffffff, len, 0},
                                  {0xcafe, 0x20000001, len, 0}, {0xcafe, 1, len, 0}};
    for (unsigned i = 0; i < 6; i++) {
        host_put(PACKET_TRANSFER_PAGES, 0, 200 + i, extras[i], 16, i == 5 ? &bad : &good, 40);
        fake_run(0);
        CHECK(client.frames == 0);
        CHECK(host.completions[n] == 200 + i && host.completion_status[n] == 2);
        CHECK(host.completion_count == ++n);
    }
    host_put(PACKET_TRANSFER_PAGES, 0, 300, NULL, 0, &good, 40);
    host_put(PACKET_TRANSFER_PAGES, 0, 301, extras[5], 16, NULL, 0);
    host_put(0xd, 0, 302, NULL, 0, &good, 40); // no such packet
    fake_run(0);
    CHECK(client.frames == 0 && host.completion_count == n + 2);
    const uint32_t ok[2] = {0, len};
    host_transfer(400, ok, 1);
    fake_run(0);
    CHECK(client.frames == 1 && client.detached == 0 && host.bad == 0);
}
CHILD_TEST(test_malformed_packets)

static void child_test_vlan_is_not_ours(void)
{
    uint8_t a[64] = {0};
    uint32_t ppi[4] = {16, PPI_VLAN, 12, 5 << 4};

    start_up();
    client.release = true;
    uint32_t range[2] = {0, host_frame(0, a, sizeof(a), 0)};
    memcpy(host_receive_buffer() + 44, ppi, sizeof(ppi));
    host_transfer(1, range, 1);
    fake_run(0);
    CHECK(client.frames == 0 && fake_counter("vlan") == 1);
}
CHILD_TEST(test_vlan_is_not_ours)

// Unasked messages

static void child_test_indications(void)
{
    start_up();
    host_indicate(RNDIS_INDICATE, RNDIS_STATUS_MEDIA_DISCONNECT, 12, 0);
    CHECK(client.links == 2 && !nic_info(client.nic)->link_up);
    host_indicate(RNDIS_INDICATE, RNDIS_STATUS_MEDIA_DISCONNECT, 12, 0);
    CHECK(client.links == 2);
    host_indicate(RNDIS_INDICATE, RNDIS_STATUS_MEDIA_CONNECT, 12, 0);
    CHECK(client.links == 3 && nic_info(client.nic)->link_up);
    host_indicate(RNDIS_INDICATE, RNDIS_STATUS_NETWORK_CHANGE, 12, 0);
    CHECK(client.links == 5 && nic_info(client.nic)->link_up);
    host_indicate_at(0, RNDIS_INDICATE, RNDIS_STATUS_MEDIA_DISCONNECT, 12,
                     0); // too short to be seen
    host_indicate_at(1, RNDIS_INDICATE, RNDIS_STATUS_MEDIA_CONNECT, 12, 0);
    fake_run(0);
    CHECK(client.links == 7 && nic_info(client.nic)->link_up);
    host_indicate(RNDIS_INDICATE, RNDIS_STATUS_LINK_SPEED_CHANGE, 12, 10000000);
    CHECK(nic_info(client.nic)->speed_bps == 1000000000);
    static const uint32_t bad[] = {0, 11, 13, 17, 0x7fffffff, 0xffffffff};
    for (unsigned i = 0; i < 6; i++)
        host_indicate(RNDIS_INDICATE, RNDIS_STATUS_LINK_SPEED_CHANGE, bad[i], 5);
    CHECK(nic_info(client.nic)->speed_bps == 1000000000);
    host_indicate(RNDIS_KEEPALIVE, 77, 0, 0); // the id is where the status is
    CHECK(host.keepalive_replies == 1);
    host_indicate(RNDIS_KEEPALIVE, 78, 0, 0);
    CHECK(host.keepalive_replies == 2);
    host_indicate(RNDIS_QUERY | RNDIS_COMPLETE, 1, 0, 0); // nobody asked
    host_indicate(0x12345678, 1, 0, 0);
    CHECK(client.detached == 0 && host.bad == 0);
}
CHILD_TEST(test_indications)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_receive_by_reference),
        cmocka_unit_test(test_look),
        cmocka_unit_test(test_scarce),
        cmocka_unit_test(test_scarce_counts_sections),
        cmocka_unit_test(test_half_stays_with_the_host),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_malformed_packets),
        cmocka_unit_test(test_vlan_is_not_ours),
        cmocka_unit_test(test_indications),
    };
    return cmocka_run_group_tests_name("netvsc_receive", tests, NULL, NULL);
}
