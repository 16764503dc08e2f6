// SPDX-License-Identifier: BSD-2-Clause
// A NIC of several channels on several cores: bring-up and its faults, who gets what, the RSS table, the
// host's wish for sending.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "drivers/netvsc/nic.h"
#include "fake_kernel.h"
#include "kernel/config.h"
#include "kernel/core.h"
#include "kernel/fiber.h"
#include "netvsc_client.h"

static struct {
    uint8_t core_of[NIC_TABLE_SIZE];
    int result;
    unsigned done;
} table;

static void set_table(void *arg)
{
    (void)arg;
    table.result = nic_set_table(client.nic, table.core_of);
    table.done++;
}

// All cores have a channel; each gets what comes by it, and sends by it.
static void check_traffic(unsigned channels)
{
    uint8_t a[64] = {0};

    for (unsigned i = 0; i < channels; i++) {
        uint32_t range[2] = {0, host_frame(0, a, sizeof(a), 0)};
        unsigned frames = client.on_core[i], completions = host.completion_count;
        unsigned packets = host.packet_count;

        host_channel(i);
        host_transfer(70 + i, range, 1);
        fake_run(0);
        CHECK(client.on_core[i] == frames + 1);
        CHECK(host.completion_count == completions + 1);
        CHECK(host.completion_channel[completions % 512] == i);
        CHECK(host.completions[completions % 512] == 70 + i);
        fake_core(i);
        CHECK(client_send(100, 0, NULL) == NIC_TX_COPIED &&
              client_send(2000, 0, &client) == NIC_TX_HELD);
        nic_flush(client.nic);
        fake_run(0);
        CHECK(host.packet_count == packets + 2 && client.done_core == i);
        CHECK(host.packets[packets].channel == i && host.packets[packets + 1].channel == i);
    }
    host_channel(0);
    CHECK(client.frames == channels && client.done_count == channels);
    CHECK(host.bad == 0 && host.wrong_core == 0);
}

static void check_gone(void)
{
    CHECK(client.attached == client.detached && client.attached > 0);
    CHECK(client.attached_cores == client.detached_cores);
    CHECK(host.bad == 0 && fake_fibers_live() == 1);
    CHECK(fake_objects_live() == 1); // the device that no driver wants
    check_all_freed();
    CHECK(fake_counter("leaked_pages") == 0 && fake_counter("leaked_requests") == 0);
}

static void child_test_channels(void)
{
    want_cores(4, 8);
    start_up();
    const struct nic_info *info = nic_info(client.nic);
    CHECK(info->channels == 4 && host.subchannels == 3 && host.opens == 4);
    CHECK(client.attached_cores == 15);
    CHECK(host.rss_disables == 1 && host.rss_sets == 1 && host.rss_hash == 0xd701);
    for (unsigned i = 0; i < 128; i++)
        CHECK(host.rss_table[i] == i % 4 && nic_flow_core(client.nic, 128 + i) == i % 4);
    check_traffic(4);
    host_rescind(HOST_RELID + 2);
    host_rescind(HOST_RELID + 1);
    host_rescind(HOST_RELID + 3);
    host_rescind(HOST_RELID);
    fake_run(LONG);
    CHECK(host.released == 4 && host.closes == 0);
    check_gone();
}
CHILD_TEST(test_channels)

// The hash is what the host computes with the key that it was given.
static void child_test_flow_hash(void)
{
    struct nic_flow tcp = {.protocol = 6,
                           .src = {66, 9, 149, 187},
                           .dst = {161, 142, 100, 80},
                           .src_port = 0xea0a,
                           .dst_port = 0xe606};
    struct toeplitz t;
    uint8_t input[12] = {66, 9, 149, 187, 161, 142, 100, 80, 0x0a, 0xea, 0x06, 0xe6};

    want_cores(4, 4);
    host.no_udp_hash = true;
    start_up();
    CHECK(host.rss_hash == 0x1701 && host.rss_sets == 1);
    toeplitz_prepare(&t, host.rss_key);
    CHECK(nic_flow_hash(client.nic, &tcp) == toeplitz(&t, input, 12));
    tcp.protocol = 17;
    CHECK(nic_flow_hash(client.nic, &tcp) == toeplitz(&t, input, 8));
    tcp.protocol = 0;
    CHECK(nic_flow_hash(client.nic, &tcp) == toeplitz(&t, input, 8));
}
CHILD_TEST(test_flow_hash)

static const struct channel_count {
    unsigned cores, queues, refuse_open, offers_late;
    uint32_t nvsp, receive_kib;
    bool no_rss;
    unsigned channels; // that there will be
} channel_counts[] =
    {
        {1, 8, 0, 0, NVSP_VERSION_6_1, 1024, false, 1},
        {8, 1, 0, 0, NVSP_VERSION_6_1, 1024, false, 1},
        {8, 8, 0, 0, NVSP_VERSION_6_1, 1024, false, 8},
        {4, 2, 0, 0, NVSP_VERSION_6_1, 1024, false, 2},
        {3, 8, 0, 0, NVSP_VERSION_5, 1024, false, 3},
        {4, 8, 0, 0, NVSP_VERSION_4, 1024, false, 1},
        {4, 4, 1, 0, NVSP_VERSION_6_1, 1024, false, 1},
        {4, 4, 2, 0, NVSP_VERSION_6_1, 1024, false, 2},
        {4, 4, 3, 0, NVSP_VERSION_6_1, 1024, false, 3},
        {4, 4, 0, 1, NVSP_VERSION_6_1, 1024, false, 3},
        {4, 4, 0, 3, NVSP_VERSION_6_1, 1024, false, 1},
        {4, 4, 0, 0, NVSP_VERSION_6_1, 1024, true, 4},
        // 16 sections are for control, a channel has 47 for a frame of 64 KiB.
        {8, 8, 0, 0, NVSP_VERSION_6, 256, false, 2}, // 145 sections
        {8, 8, 0, 0, NVSP_VERSION_6, 128, false, 1}, // 72
        {8, 8, 0, 0, NVSP_VERSION_6, 64, false, 1},  // 36: too few even so
},
  *channel_count;

static void child_test_channel_count(void)
{
    const struct channel_count *c = channel_count;

    want_cores(c->cores, c->queues);
    host.refuse_open = c->refuse_open;
    host.offers_late = c->offers_late;
    host.max_nvsp = c->nvsp;
    host.no_rss = c->no_rss;
    config.receive_buffer = c->receive_kib << 10;
    start_up();
    CHECK(nic_info(client.nic)->channels == c->channels);
    CHECK(client.attached_cores == (1u << c->channels) - 1);
    CHECK(host.rss_sets == (c->channels > 1 && !c->no_rss));
    check_traffic(c->channels);
    host_rescind(HOST_RELID);
    fake_run(LONG);
    CHECK(client.detached == 1);
    for (unsigned i = 1; i < HOST_CHANNELS; i++) {
        if (host_offered(i))
            host_rescind(HOST_RELID + i);
    }
    fake_run(LONG);
    check_gone();
}

static void test_channel_count(void **state)
{
    const struct channel_count *end =
        channel_counts + sizeof(channel_counts) / sizeof(channel_counts[0]);

    (void)state;
    for (channel_count = channel_counts; channel_count < end; channel_count++)
        in_child(child_test_channel_count);
}

static void child_test_fault_with_channels(void)
{
    want_cores(3, 3);
    host.fault_at = fault_number;
    host.fault = fault_kind;
    start();
    CHECK(host.questions >= fault_number);
    if (host.offers_requested == 0)
        return;
    host_rescind(HOST_RELID);
    fake_run(LONG);
    for (unsigned i = 1; i < 3; i++) {
        if (host_offered(i))
            host_rescind(HOST_RELID + i);
    }
    fake_run(LONG);
    CHECK(client.attached == client.detached);
    CHECK(client.attached_cores == client.detached_cores);
    CHECK(host.bad == 0 && fake_objects_live() == 1 && fake_fibers_live() == 1);
    check_all_freed();
}

static void test_faults_with_channels(void **state)
{
    static const enum fault kinds[] = {FAULT_SILENT, FAULT_RESCIND, FAULT_REFUSE, FAULT_SHORT};
    int questions = questions_of_a_good_run(3);

    (void)state;
    for (unsigned kind = 0; kind < 4; kind++) {
        for (int i = 1; i <= questions; i++) {
            fault_number = (unsigned)i;
            fault_kind = kinds[kind];
            in_child(child_test_fault_with_channels);
        }
    }
}

// The host takes one subchannel back: that is the end of the NIC, and a new beginning.
static void child_test_subchannel_rescind(void)
{
    want_cores(4, 4);
    start_up();
    host_rescind(HOST_RELID + 2);
    run_until_idle();
    CHECK(client.detached == 1 && client.detached_cores == 15);
    CHECK(host.closes == 3); // two subchannels and the primary; the host then takes the others back
    CHECK(host.released == 3);
    check_all_freed();
    fake_run(LONG);
    CHECK(client.attached == 2 && client.attached_cores == 15 && host.opens == 8);
    host_rescind_all();
    fake_run(LONG);
    CHECK(host.released == 7);
    check_gone();
}
CHILD_TEST(test_subchannel_rescind)

static void child_test_dead_subchannel(void)
{
    want_cores(4, 4);
    start_up();
    host.hold = true;
    fake_core(3);
    CHECK(client_send(2000, 0, &client) == NIC_TX_HELD);
    nic_flush(client.nic);
    fake_core(0);
    fake_run(0);
    CHECK(client.done_count == 0);
    host_channel(3);
    host_in_header()->write_index = 0x7ffffff8;
    host_event(HOST_RELID + 3);
    run_until_idle();
    CHECK(client.detached == 1 && client.detached_cores == 15);
    // The frame came back on its core, when the host had let go of all channels.
    CHECK(client.done_count == 1 && client.done_core == 3 && client.closes_at_done == 4);
    host_rescind(HOST_RELID);
    fake_run(LONG);
    CHECK(host.released == 4);
    check_gone();
}
CHILD_TEST(test_dead_subchannel)

static void child_test_link_on_all_cores(void)
{
    want_cores(4, 4);
    start_up();
    host_indicate(RNDIS_INDICATE, RNDIS_STATUS_MEDIA_DISCONNECT, 12, 0);
    CHECK(client.links == 2 && client.linked_cores == 15);
    host_channel(1); // control messages are for the primary
    host_indicate(RNDIS_INDICATE, RNDIS_STATUS_MEDIA_CONNECT, 12, 0);
    CHECK(client.links == 2 && !nic_info(client.nic)->link_up);
}
CHILD_TEST(test_link_on_all_cores)

static void child_test_set_table(void)
{
    want_cores(4, 4);
    start_up();
    for (unsigned i = 0; i < 128; i++)
        table.core_of[i] = i < 100 ? 3 : 1;
    fiber_spawn("table", set_table, NULL);
    fake_run(LONG);
    CHECK(table.done == 1 && table.result == 0 && host.rss_sets == 2);
    CHECK(host.rss_table[99] == 3 && host.rss_table[100] == 1);
    CHECK(nic_flow_core(client.nic, 99) == 3 && nic_flow_core(client.nic, 100) == 1);
    table.core_of[7] = 4; // there is no such channel
    fiber_spawn("table", set_table, NULL);
    fake_run(LONG);
    CHECK(table.done == 2 && table.result == -EINVAL && host.rss_sets == 2);
    table.core_of[7] = 0;
    host.no_rss = true;
    fiber_spawn("table", set_table, NULL);
    fake_run(LONG);
    CHECK(table.done == 3 && table.result == -EOPNOTSUPP && nic_flow_core(client.nic, 7) == 3);
    // The NIC goes while the host is asked.
    host.fault_at = host.questions + 1;
    host.fault = FAULT_RESCIND;
    fiber_spawn("table", set_table, NULL);
    fake_run(LONG);
    CHECK(table.done == 4 && table.result == -ENODEV && client.detached == 1);
    check_all_freed();
}
CHILD_TEST(test_set_table)

static void ask_later(void *arg)
{
    fiber_sleep(TIME_S);
    set_table(arg);
}

static void rescind_later(void *arg)
{
    (void)arg;
    fiber_sleep(2 * TIME_S);
    host_rescind(HOST_RELID);
}

// The NIC goes while another fiber's question waits for one of the NIC's own to be answered.
static void child_test_set_table_of_a_nic_that_goes(void)
{
    want_cores(4, 4);
    client.table = ask_later;
    host.fault_at = fault_number; // opening the packet filter
    host.fault = FAULT_SILENT;
    if (fault_kind == FAULT_RESCIND)
        fiber_spawn("rescind", rescind_later, NULL);
    if (fault_kind == FAULT_RESCIND)
        start();
    else
        start_in_vain();
    CHECK(table.done == 1 && client.detached == 1 && client.nic == NULL);
    CHECK(table.result == (fault_kind == FAULT_RESCIND ? -ENODEV : 0));
    check_all_freed();
}

static void test_set_table_of_a_nic_that_goes(void **state)
{
    (void)state;
    fault_number = (unsigned)questions_of_a_good_run(4);
    fault_kind = FAULT_RESCIND;
    in_child(child_test_set_table_of_a_nic_that_goes);
    fault_kind = FAULT_SILENT;
    in_child(child_test_set_table_of_a_nic_that_goes);
}

static void child_test_send_table(void)
{
    host.max_nvsp = want_version;
    want_cores(4, 4);
    start_up();
    host_send_table(16, 12, 12, 76);
    fake_run(0);
    CHECK(client.balanced == 1 && fake_counter("send_tables") == 1);
    for (unsigned i = 0; i < 128; i++)
        CHECK(client.wish[i] == (15 - i % 16) % 4);
    memset(client.wish, 9, sizeof(client.wish));
    host_send_table(16, 24, 40, 104); // as old hosts say it
    fake_run(0);
    CHECK(client.balanced == 2);
    CHECK((client.wish[0] == 3) == (want_version <= NVSP_VERSION_6));
    uint64_t unexpected = fake_counter("control_unexpected");
    static const uint32_t bad[][4] = {
        {15, 12, 12, 76},         {17, 12, 12, 76}, {16, 17, 12, 76},
        {16, 12, 12, 72},         {16, 8, 12, 76},  {16, 0xffffffff, 12, 76},
        {16, 0x7ffffffc, 12, 76}, {16, 12, 12, 8},  {16, 12, 12, 4},
    };
    for (unsigned i = 0; i < 9; i++)
        host_send_table(bad[i][0], bad[i][1], bad[i][2], bad[i][3]);
    fake_run(0);
    CHECK(client.balanced == 2 && fake_counter("control_unexpected") == unexpected + 9);
    host_channel(2);
    host_send_table(16, 12, 12, 76); // not by that channel
    fake_run(0);
    CHECK(client.balanced == 2 && client.detached == 0);
}

static void test_send_table(void **state)
{
    (void)state;
    want_version = NVSP_VERSION_6_1;
    in_child(child_test_send_table);
    want_version = NVSP_VERSION_6;
    in_child(child_test_send_table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_channels),
        cmocka_unit_test(test_flow_hash),
        cmocka_unit_test(test_channel_count),
        cmocka_unit_test(test_faults_with_channels),
        cmocka_unit_test(test_subchannel_rescind),
        cmocka_unit_test(test_dead_subchannel),
        cmocka_unit_test(test_link_on_all_cores),
        cmocka_unit_test(test_set_table),
        cmocka_unit_test(test_set_table_of_a_nic_that_goes),
        cmocka_unit_test(test_send_table),
    };
    return cmocka_run_group_tests_name("netvsc_channels", tests, NULL, NULL);
}
