// SPDX-License-Identifier: BSD-2-Clause
// Bring-up of VMBus and a NIC against the scripted host: versions, what is agreed on, and a fault at
// each question to the host.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "drivers/netvsc/nic.h"
#include "drivers/vmbus/connection.h"
#include "drivers/vmbus/vmbus.h"
#include "fake_kernel.h"
#include "kernel/config.h"
#include "netvsc_client.h"

static void child_test_bring_up(void)
{
    start_up();
    const struct nic_info *info = nic_info(client.nic);
    static const uint8_t mac[6] = {0, 0x15, 0x5d, 1, 2, 3};

    CHECK(host.version == VMBUS_VERSION_5_3 && host.nvsp == NVSP_VERSION_6_1);
    CHECK(host.offers_requested == 1 && host.opens == 1 && host.ndis_mtu == 1514);
    CHECK(host.filter_sets == 2); // closed, then open
    CHECK(memcmp(info->mac, mac, 6) == 0);
    CHECK(info->mtu == 1500 && info->link_up && info->speed_bps == 10000000000ull);
    CHECK(info->tx_csum == (NIC_TX_IP4 | NIC_TX_TCP | NIC_TX_UDP));
    CHECK(info->rx_sections == config.receive_buffer / HOST_SECTION);
    CHECK(strcmp(info->name, "nic0") == 0);
    // The receive sections of all replies have been given back.
    CHECK(host.completion_count == fake_counter("rx_batches"));
    CHECK(client.links == 1 && client.detached == 0);
}
CHILD_TEST(test_bring_up)

static void child_test_version(void)
{
    host.max_version = want_version;
    host.dedicated = want_version >= VMBUS_VERSION_4_0;
    start_up();
    CHECK(host.version == want_version);
    // Removal differs below 4.0 in when the buffers are taken back.
    host_rescind(HOST_RELID);
    fake_run(LONG);
    CHECK(client.detached == 1 && host.released == 1 && host.bad == 0);
    check_all_freed();
}

// The order in which channels and buffers are given back differs with the version, too.
static void child_test_version_with_channels(void)
{
    host.max_version = want_version;
    host.dedicated = want_version >= VMBUS_VERSION_4_0;
    machine_cores = host.queues = 3;
    client.release = true;
    start_up();
    CHECK(nic_info(client.nic)->channels == 3);
    host.hold = true;
    fake_core(2);
    CHECK(client_send(2000, 0, &client) == NIC_TX_HELD);
    nic_flush(client.nic);
    fake_run(0);
    host_channel(1);
    host_in_header()->write_index = 0x7ffffff8; // the end of the NIC by our own hand
    host_event(HOST_RELID + 1);
    run_until_idle();
    CHECK(client.detached == 1 && host.closes == 3 && host.bad == 0);
    CHECK(host.gpadls_live == 0);
    CHECK(client.done_count == 1 && client.done_core == 2 && client.closes_at_done == 3);
    host_rescind(HOST_RELID);
    fake_run(LONG);
    CHECK(host.released == 3 && host.bad == 0);
    check_all_freed();
}

static void test_vmbus_versions(void **state)
{
    static const uint32_t versions[] = {VMBUS_VERSION_5_3, VMBUS_VERSION_5_2, VMBUS_VERSION_5_1,
                                        VMBUS_VERSION_5_0, VMBUS_VERSION_4_1, VMBUS_VERSION_4_0,
                                        VMBUS_VERSION_3_0, VMBUS_VERSION_2_4};

    (void)state;
    for (unsigned i = 0; i < sizeof(versions) / sizeof(versions[0]); i++) {
        want_version = versions[i];
        in_child(child_test_version);
        in_child(child_test_version_with_channels);
    }
}

static void child_test_nvsp_version(void)
{
    host.max_nvsp = want_version;
    start_up();
    CHECK(host.nvsp == want_version);
    CHECK((host.ndis_mtu != 0) == (want_version >= NVSP_VERSION_2));
    CHECK(!(nic_info(client.nic)->tx_csum & NIC_TX_UDP) == (want_version <= NVSP_VERSION_4));
}

static void test_nvsp_versions(void **state)
{
    static const uint32_t versions[] = {NVSP_VERSION_6_1, NVSP_VERSION_6, NVSP_VERSION_5,
                                        NVSP_VERSION_4,   NVSP_VERSION_2, NVSP_VERSION_1};

    (void)state;
    for (unsigned i = 0; i < sizeof(versions) / sizeof(versions[0]); i++) {
        want_version = versions[i];
        in_child(child_test_nvsp_version);
    }
}

static void child_test_no_version(void)
{
    host.max_version = 0x00010001;
    start();
    CHECK(client.attached == 0 && host.offers_requested == 0 && fake_fibers_live() == 0);
    CHECK(vmbus_version() == 0);
    vmbus_unload();
    CHECK(host.unloads == 0);
}
CHILD_TEST(test_no_version)

static void child_test_host_is_busy(void)
{
    host.busy_posts = 9;
    start_up();
    CHECK(fake_counter("post_retries") == 9);
}
CHILD_TEST(test_host_is_busy)

static void child_test_smaller_mtu(void)
{
    host.mtu = 1400;
    start_up();
    CHECK(nic_info(client.nic)->mtu == 1400);
}
CHILD_TEST(test_smaller_mtu)

// A fault at one question of the bring-up. Whatever it is: the machine lives, the NIC is there at last,
// nothing leaks, and after the rescind that follows the offer is given back once.
static void child_test_fault(void)
{
    host.fault_at = fault_number;
    host.fault = fault_kind;
    start();
    CHECK(host.questions >= fault_number);
    if (host.offers_requested == 0)
        return; // no connection, no device
    if (fault_kind == FAULT_RESCIND)
        check_all_freed();
    CHECK(!client.nic == (fault_kind == FAULT_RESCIND));
    CHECK(host.released == (fault_kind == FAULT_RESCIND ? 1 : 0));
    host_rescind(HOST_RELID);
    fake_run(LONG);
    CHECK(host.released == 1);
    CHECK(client.attached == client.detached);
    CHECK(host.bad == 0);
    CHECK(fake_objects_live() == 1); // the device that no driver wants
    CHECK(fake_fibers_live() == 1);  // the control fiber
    check_all_freed();
}

static void faults(enum fault kind)
{
    int questions = questions_of_a_good_run(1);

    for (int i = 1; i <= questions; i++) {
        fault_number = (unsigned)i;
        fault_kind = kind;
        in_child(child_test_fault);
    }
}

static void test_time_out_at_each_question(void **state)
{
    (void)state;
    faults(FAULT_SILENT);
}

static void test_rescind_at_each_question(void **state)
{
    (void)state;
    faults(FAULT_RESCIND);
}

static void test_refusal_of_each_question(void **state)
{
    (void)state;
    faults(FAULT_REFUSE);
}

static void test_cut_off_answer_to_each_question(void **state)
{
    (void)state;
    faults(FAULT_SHORT);
}

static void test_nvsp_completions(void **state)
{
    struct nvsp_message m = {.type = NVSP_SEND_RECEIVE_BUFFER_COMPLETE};
    static const struct {
        uint32_t status, count, offset, size, sections;
        int ok;
    } cases[] = {
        {1, 1, 0, 1806, 10, 1}, {1, 1, 0, 68, 1, 1},       {0, 1, 0, 1806, 10, 0},
        {2, 1, 0, 1806, 10, 0}, {1, 0, 0, 1806, 10, 0},    {1, 2, 0, 1806, 10, 0},
        {1, 1, 8, 1806, 10, 0}, {1, 1, 0, 67, 10, 0},      {1, 1, 0, 0, 10, 0},
        {1, 1, 0, 1806, 0, 0},  {1, 1, 0, 32768, 3, 0},    {1, 1, 0, 65536, 65536, 0},
        {1, 1, 0, 32768, 2, 1}, {1, 1, 0, 1u << 31, 2, 0},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        m.receive_buffer_complete.status = cases[i].status;
        m.receive_buffer_complete.section_count = cases[i].count;
        m.receive_buffer_complete.offset = cases[i].offset;
        m.receive_buffer_complete.section_size = cases[i].size;
        m.receive_buffer_complete.count = cases[i].sections;
        assert_int_equal(nvsp_check_receive_buffer(&m, 40, 65536) == 0, cases[i].ok);
    }
    m.receive_buffer_complete.section_size = 1806;
    m.receive_buffer_complete.count = 1;
    assert_int_equal(nvsp_check_receive_buffer(&m, 28, 65536), 0);
    assert_true(nvsp_check_receive_buffer(&m, 27, 65536) < 0);
    m.type = NVSP_INIT_COMPLETE;
    assert_true(nvsp_check_receive_buffer(&m, 40, 65536) < 0);

    m = (struct nvsp_message){.type = NVSP_INIT_COMPLETE, .init_complete.status = 1};
    assert_int_equal(nvsp_check_init(&m, 16), 0);
    assert_true(nvsp_check_init(&m, 15) < 0);
    m.init_complete.status = 0;
    assert_true(nvsp_check_init(&m, 40) < 0);

    m = (struct nvsp_message){.type = NVSP_SEND_SEND_BUFFER_COMPLETE,
                              .send_buffer_complete = {.status = 1, .section_size = 68}};
    assert_int_equal(nvsp_check_send_buffer(&m, 12), 0);
    assert_true(nvsp_check_send_buffer(&m, 11) < 0);
    m.send_buffer_complete.section_size = 67;
    assert_true(nvsp_check_send_buffer(&m, 40) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nvsp_completions),
        cmocka_unit_test(test_bring_up),
        cmocka_unit_test(test_vmbus_versions),
        cmocka_unit_test(test_nvsp_versions),
        cmocka_unit_test(test_no_version),
        cmocka_unit_test(test_host_is_busy),
        cmocka_unit_test(test_smaller_mtu),
        cmocka_unit_test(test_time_out_at_each_question),
        cmocka_unit_test(test_rescind_at_each_question),
        cmocka_unit_test(test_refusal_of_each_question),
        cmocka_unit_test(test_cut_off_answer_to_each_question),
    };
    return cmocka_run_group_tests_name("netvsc_start", tests, NULL, NULL);
}
