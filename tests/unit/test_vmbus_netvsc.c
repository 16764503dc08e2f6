// SPDX-License-Identifier: BSD-2-Clause
// VMBus and netvsc together against a scripted host: the whole bring-up, a fault at each of its
// questions, frames both ways, what a hostile host may put on the ring, rescind and unload. The drivers
// keep their state for the life of the machine, so each test is a process of its own.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "drivers/hyperv/hyperv.h"
#include "drivers/netvsc/netvsc.h"
#include "drivers/netvsc/nic.h"
#include "drivers/vmbus/connection.h"
#include "drivers/vmbus/vmbus.h"
#include "fake_host.h"
#include "fake_kernel.h"
#include "kernel/config.h"
#include "kernel/core.h"
#include "kernel/loop.h"
#include "kernel/time.h"

#define LONG (200 * TIME_S)

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: %s (question %u: %s)\n", __FILE__, __LINE__, #cond,            \
                    host.questions, host.question);                                                \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

// The client: counts, keeps what it gets.

static struct {
    struct nic *nic;
    unsigned attached, detached, links, batches, ready; // on core 0
    unsigned on_core[8];                                // frames received
    unsigned attached_cores, detached_cores, linked_cores, done_core;
    unsigned balanced;
    uint8_t wish[NIC_TABLE_SIZE];
    unsigned frames;
    void *tokens[256];
    struct nic_frame last; // its pieces are gone
    const uint8_t *data;   // where it began
    uint8_t bytes[4096];
    void *done[2048];
    unsigned done_count;
    bool release;             // at once
    bool copy;                // when it should: then release at once
    bool send;                // when attached
    void (*table)(void *arg); // the same: in a fiber of its own
    unsigned closes_at_done;
} client;

static enum nic_tx_result send(uint32_t len, uint8_t csum, void *ctx);

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

static void on_attach(struct nic *nic)
{
    client.attached_cores |= 1u << core_id();
    if (core_id() != 0) {
        CHECK(nic == client.nic);
        return;
    }
    CHECK(client.attached_cores == 1 && client.detached_cores == 0);
    client.nic = nic;
    client.attached++;
    if (client.table)
        fiber_spawn("table", client.table, NULL);
    if (client.send)
        CHECK(send(2000, 0, &client) == NIC_TX_HELD);
}

static void on_detach(struct nic *nic)
{
    CHECK(nic == client.nic);
    client.detached_cores |= 1u << core_id();
    if (core_id() != 0)
        return;
    CHECK(client.detached_cores == client.attached_cores);
    for (unsigned i = 0; i < client.frames && !client.release; i++)
        nic_rx_release(nic, client.tokens[i]);
    client.nic = NULL;
    client.detached++;
}

static void on_link(struct nic *nic)
{
    CHECK(nic == client.nic);
    client.linked_cores |= 1u << core_id();
    client.links += core_id() == 0;
}

static void on_receive(struct nic *nic, const struct nic_frame *frame)
{
    client.last = *frame;
    client.data = frame->pieces[0].data;
    CHECK(frame->len <= sizeof(client.bytes));
    CHECK(frame->count == 1 && frame->pieces[0].len == frame->len);
    memcpy(client.bytes, frame->pieces[0].data, frame->len);
    if (client.copy && nic_rx_scarce(nic)) {
        nic_rx_release(nic, frame->token);
        return;
    }
    if (client.release)
        nic_rx_release(nic, frame->token);
    else
        client.tokens[client.frames] = frame->token;
    client.frames++;
    client.on_core[core_id()]++;
}

static void on_batch_end(struct nic *nic)
{
    CHECK(nic == client.nic);
    client.batches++;
}

static void on_tx_done(struct nic *nic, void *ctx)
{
    CHECK(nic == client.nic);
    client.closes_at_done = host.closes;
    client.done_core = core_id();
    client.done[client.done_count++] = ctx;
}

static void on_tx_ready(struct nic *nic)
{
    CHECK(nic == client.nic);
    client.ready++;
}

static void on_balance(struct nic *nic, const uint8_t core_of[NIC_TABLE_SIZE])
{
    CHECK(nic == client.nic && core_id() == 0);
    client.balanced++;
    memcpy(client.wish, core_of, NIC_TABLE_SIZE);
}

static const struct nic_client the_client = {
    .attach = on_attach,
    .detach = on_detach,
    .link = on_link,
    .receive = on_receive,
    .batch_end = on_batch_end,
    .tx_done = on_tx_done,
    .tx_ready = on_tx_ready,
    .balance = on_balance,
};

static size_t pages_before;

static unsigned machine_cores = 1;

static void start(void)
{
    fake_cores(machine_cores);
    netvsc_start(&the_client);
    vmbus_start();
    for (unsigned i = 1; i < machine_cores; i++) {
        fake_core(i);
        vmbus_start_core();
    }
    fake_core(0);
    pages_before = fake_pages_live(); // the three pages of the connection are for ever
    fake_run(LONG);
}

static void start_up(void)
{
    start();
    CHECK(client.attached == 1);
    CHECK(host.filter == RNDIS_FILTER_UP);
    CHECK(host.bad == 0);
}

// Everything that the NIC had is back, but for what the host may still have.
static void check_all_freed(void)
{
    CHECK(fake_pages_live() - fake_counter("leaked_pages") == pages_before);
}

static void in_child(void (*test)(void))
{
    int status;

    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        test();
        _exit(0);
    }
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
}

#define CHILD_TEST(name)                                                                           \
    static void name(void **state)                                                                 \
    {                                                                                              \
        (void)state;                                                                               \
        in_child(child_##name);                                                                    \
    }

// Bring-up

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
    CHECK(client.links == 0 && client.detached == 0);
}
CHILD_TEST(test_bring_up)

static uint32_t want_version;

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
    CHECK(send(2000, 0, &client) == NIC_TX_HELD);
    nic_flush(client.nic);
    fake_run(0);
    host_channel(1);
    host_in_header()->write_index = 0x7ffffff8; // the end of the NIC by our own hand
    host_event(HOST_RELID + 1);
    fake_run(LONG);
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

static unsigned fault_number;
static enum fault fault_kind;

// A fault at one question of the bring-up. Whatever it is: the machine lives, nothing leaks, and after
// the rescind that follows the offer is given back once.
static void child_test_fault(void)
{
    host.fault_at = fault_number;
    host.fault = fault_kind;
    start();
    CHECK(host.questions >= fault_number);
    if (host.offers_requested == 0)
        return; // no connection, no device
    if (fault_kind == FAULT_RESCIND || client.attached == 0)
        check_all_freed();
    if (client.attached) // a fault that a NIC can live with, or the last question
        CHECK(client.detached == (client.nic ? 0 : 1));
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

static int questions_of_a_good_run(void)
{
    int pipes[2], status;
    uint32_t n = 0;

    assert_int_equal(pipe(pipes), 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        start();
        _exit(write(pipes[1], &host.questions, sizeof(host.questions)) < 0);
    }
    assert_int_equal(read(pipes[0], &n, sizeof(n)), sizeof(n));
    waitpid(child, &status, 0);
    close(pipes[0]);
    close(pipes[1]);
    return (int)n;
}

static void faults(enum fault kind)
{
    int questions = questions_of_a_good_run();

    assert_true(questions >= 15);
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

// Receive

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

static void child_test_scarce(void)
{
    uint8_t a[64] = {0};

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

// Send

static uint8_t frame_bytes[65536];

static enum nic_tx_result send(uint32_t len, uint8_t csum, void *ctx)
{
    struct nic_piece pieces[2] = {{frame_bytes, 54}, {frame_bytes + 4000, len - 54}};
    struct nic_tx tx = {
        .pieces = pieces,
        .count = 2,
        .len = len,
        .csum = csum,
        .transport_offset = 34,
        .done_ctx = ctx,
    };

    return nic_send(client.nic, &tx);
}

static uint32_t word(const void *p, unsigned offset)
{
    uint32_t v;
    memcpy(&v, (const uint8_t *)p + offset, 4);
    return v;
}

static void fill_frame(void)
{
    for (unsigned i = 0; i < sizeof(frame_bytes); i++)
        frame_bytes[i] = (uint8_t)(i * 7 + 1);
}

static void child_test_send_copied(void)
{
    start_up();
    fill_frame();
    unsigned signals = host.signals;
    CHECK(send(100, NIC_TX_IP4 | NIC_TX_TCP, NULL) == NIC_TX_COPIED);
    CHECK(send(61, 0, NULL) == NIC_TX_COPIED);
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
    CHECK(send(100, 0, NULL) == NIC_TX_COPIED);
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
        CHECK(send(61, 0, NULL) == NIC_TX_COPIED);
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
    CHECK(send(8000, NIC_TX_IP4 | NIC_TX_TCP, &client) == NIC_TX_HELD);
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
    CHECK(send(100, 0, NULL) == NIC_TX_COPIED); // its id is taken, but the host has not seen it
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
    CHECK(send(2000, 0, &host) == NIC_TX_HELD);
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
        enum nic_tx_result r = send(sent % 3 ? 2000 : 200, 0, &ctx[held]);
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
    CHECK(send(2000, 0, NULL) == NIC_TX_HELD);
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
    CHECK(send(2000, 0, NULL) == NIC_TX_HELD);
    fake_run(0);
    CHECK(host.packet_count == 0 && host.signals == signals + 1);
    CHECK(send(2000, 0, NULL) == NIC_TX_HELD); // the ring is not empty: nothing to tell
    fake_run(LONG);
    CHECK(host.packet_count == 2 && host.signals == signals + 4 && client.done_count == 2);
    CHECK(fake_counter("signals_refused") == 3 && time_now() - began < 100 * TIME_MS);
    host.busy_signals = 1;
    host.busy_status = HV_STATUS_INVALID_CONNECTION_ID;
    signals = host.signals;
    CHECK(send(2000, 0, NULL) == NIC_TX_HELD);
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
    while (send(2000, 0, NULL) != NIC_TX_FULL)
        ;
    CHECK(host_out_header()->pending_send_size != 0);
    host.paused = false;
    host_service();
    CHECK(send(2000, 0, NULL) == NIC_TX_HELD);
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
    while (send(2000, 0, NULL) != NIC_TX_FULL)
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
    CHECK(send(2000, 0, NULL) == NIC_TX_FULL);
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

// Unasked messages

static void indicate(uint32_t type, uint32_t status, uint32_t offset, uint32_t data)
{
    struct {
        struct rndis_indicate head;
        uint32_t data;
    } m = {{.header = {.type = type, .length = sizeof(m)},
            .status = status,
            .buffer_length = 4,
            .buffer_offset = offset},
           data};
    uint32_t range[2] = {0, sizeof(m)};

    memcpy(host_receive_buffer(), &m, sizeof(m));
    host_transfer(9, range, 1);
    fake_run(0);
}

static void child_test_indications(void)
{
    start_up();
    indicate(RNDIS_INDICATE, RNDIS_STATUS_MEDIA_DISCONNECT, 12, 0);
    CHECK(client.links == 1 && !nic_info(client.nic)->link_up);
    indicate(RNDIS_INDICATE, RNDIS_STATUS_MEDIA_DISCONNECT, 12, 0);
    CHECK(client.links == 1);
    indicate(RNDIS_INDICATE, RNDIS_STATUS_MEDIA_CONNECT, 12, 0);
    CHECK(client.links == 2 && nic_info(client.nic)->link_up);
    indicate(RNDIS_INDICATE, RNDIS_STATUS_NETWORK_CHANGE, 12, 0);
    CHECK(client.links == 4 && nic_info(client.nic)->link_up);
    indicate(RNDIS_INDICATE, RNDIS_STATUS_LINK_SPEED_CHANGE, 12, 10000000);
    CHECK(nic_info(client.nic)->speed_bps == 1000000000);
    static const uint32_t bad[] = {0, 11, 13, 17, 0x7fffffff, 0xffffffff};
    for (unsigned i = 0; i < 6; i++)
        indicate(RNDIS_INDICATE, RNDIS_STATUS_LINK_SPEED_CHANGE, bad[i], 5);
    CHECK(nic_info(client.nic)->speed_bps == 1000000000);
    indicate(RNDIS_KEEPALIVE, 77, 0, 0); // the id is where the status is
    CHECK(host.keepalive_replies == 1);
    indicate(RNDIS_KEEPALIVE, 78, 0, 0);
    CHECK(host.keepalive_replies == 2);
    indicate(RNDIS_QUERY | RNDIS_COMPLETE, 1, 0, 0); // nobody asked
    indicate(0x12345678, 1, 0, 0);
    CHECK(client.detached == 0 && host.bad == 0);
}
CHILD_TEST(test_indications)

// Going away

static void child_test_rescind(void)
{
    static unsigned ctx;

    start_up();
    uint8_t a[64] = {0};
    uint32_t range[2] = {0, host_frame(0, a, sizeof(a), 0)};
    host_transfer(1, range, 1);
    host.hold = true;
    CHECK(send(2000, 0, &ctx) == NIC_TX_HELD);
    CHECK(send(100, 0, NULL) == NIC_TX_COPIED);
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
        send(100, 0, NULL);
        send(60000, 0, NULL);
        nic_flush(client.nic);
    }
    fake_run(LONG);
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
    while (send(2000, 0, NULL) != NIC_TX_FULL)
        ;
    corrupt_and_check(&host_out_header()->read_index, 12);
}
CHILD_TEST(test_dead_send_ring)

// The same, but the host never interrupts again: who sends finds out.
static void child_test_dead_send_ring_in_silence(void)
{
    start_up();
    host.paused = true;
    while (send(2000, 0, NULL) != NIC_TX_FULL)
        ;
    host_out_header()->read_index = 12;
    uint64_t interrupts = fake_counter("interrupts");
    CHECK(send(2000, 0, NULL) == NIC_TX_FULL);
    CHECK(send(2000, 0, NULL) == NIC_TX_FULL);
    nic_flush(client.nic);
    fake_turn();
    CHECK(fake_counter("interrupts") == interrupts);
    fake_run(LONG);
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
    CHECK(send(2000, 0, &client) == NIC_TX_HELD);
    fake_run(0);
    CHECK(host.packet_count == 1 && client.done_count == 0);
    unsigned gpadls = host.gpadls_live;
    host_in_header()->write_index = 0x7ffffff8;
    host_event(HOST_RELID);
    fake_run(LONG);
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
    CHECK(send(2000, 0, &client) == NIC_TX_HELD);
    CHECK(send(3000, 0, &client) == NIC_TX_HELD);
    fake_run(0);
    host.fault_at = host.questions + 1;
    host.fault = FAULT_SILENT;
    host_in_header()->write_index = 0x7ffffff8;
    host_event(HOST_RELID);
    fake_run(LONG);
    CHECK(strcmp(host.question, "teardown") == 0);
    CHECK(client.detached == 1 && client.done_count == 0);
    CHECK(fake_counter("leaked_requests") == 2 && fake_counter("leaked_pages") > 0);
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
    start();
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
    fault_number = (unsigned)questions_of_a_good_run();
    want_version = VMBUS_VERSION_5_3;
    in_child(child_test_held_frames_of_a_slow_host);
    want_version = VMBUS_VERSION_3_0; // another order; two versions are refused before
    fault_number += 2;
    in_child(child_test_held_frames_of_a_slow_host);
}

// Many cores

static void start_cores(unsigned count, unsigned queues)
{
    machine_cores = count;
    host.queues = queues;
    client.release = true;
    config.send_buffer = 256 << 10;
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
        CHECK(send(100, 0, NULL) == NIC_TX_COPIED && send(2000, 0, &client) == NIC_TX_HELD);
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
    CHECK(client.attached == 1 && client.detached == 1);
    CHECK(client.attached_cores == client.detached_cores);
    CHECK(host.bad == 0 && fake_fibers_live() == 1);
    CHECK(fake_objects_live() == 1); // the device that no driver wants
    check_all_freed();
    CHECK(fake_counter("leaked_pages") == 0 && fake_counter("leaked_requests") == 0);
}

static void child_test_channels(void)
{
    start_cores(4, 8);
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

    start_cores(4, 4);
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
        {1, 8, 0, 0, NVSP_VERSION_6_1, 256, false, 1},
        {8, 1, 0, 0, NVSP_VERSION_6_1, 256, false, 1},
        {8, 8, 0, 0, NVSP_VERSION_6_1, 256, false, 8},
        {4, 2, 0, 0, NVSP_VERSION_6_1, 256, false, 2},
        {3, 8, 0, 0, NVSP_VERSION_5, 256, false, 3},
        {4, 8, 0, 0, NVSP_VERSION_4, 256, false, 1},
        {4, 4, 1, 0, NVSP_VERSION_6_1, 256, false, 1},
        {4, 4, 2, 0, NVSP_VERSION_6_1, 256, false, 2},
        {4, 4, 3, 0, NVSP_VERSION_6_1, 256, false, 3},
        {4, 4, 0, 1, NVSP_VERSION_6_1, 256, false, 3},
        {4, 4, 0, 3, NVSP_VERSION_6_1, 256, false, 1},
        {4, 4, 0, 0, NVSP_VERSION_6_1, 256, true, 4},
        {8, 8, 0, 0, NVSP_VERSION_6, 64, false, 2}, // 36 receive sections
},
  *channel_count;

static void child_test_channel_count(void)
{
    const struct channel_count *c = channel_count;

    start_cores(c->cores, c->queues);
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
    start_cores(3, 3);
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

static int questions_with_channels(unsigned channels)
{
    int status;

    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        start_cores(channels, channels);
        start();
        _exit((int)host.questions);
    }
    waitpid(child, &status, 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) >= 20);
    return WEXITSTATUS(status);
}

static void test_faults_with_channels(void **state)
{
    static const enum fault kinds[] = {FAULT_SILENT, FAULT_RESCIND, FAULT_REFUSE, FAULT_SHORT};
    int questions = questions_with_channels(3);

    (void)state;
    for (unsigned kind = 0; kind < 4; kind++) {
        for (int i = 1; i <= questions; i++) {
            fault_number = (unsigned)i;
            fault_kind = kinds[kind];
            in_child(child_test_fault_with_channels);
        }
    }
}

// The host takes one subchannel back: that is the end of the NIC.
static void child_test_subchannel_rescind(void)
{
    start_cores(4, 4);
    start_up();
    host_rescind(HOST_RELID + 2);
    fake_run(LONG);
    CHECK(client.detached == 1 && client.detached_cores == 15);
    CHECK(host.closes == 3); // two subchannels and the primary; the host then takes the others back
    CHECK(host.released == 3);
    host_rescind(HOST_RELID);
    fake_run(LONG);
    CHECK(host.released == 4);
    check_gone();
}
CHILD_TEST(test_subchannel_rescind)

static void child_test_dead_subchannel(void)
{
    start_cores(4, 4);
    start_up();
    host.hold = true;
    fake_core(3);
    CHECK(send(2000, 0, &client) == NIC_TX_HELD);
    nic_flush(client.nic);
    fake_core(0);
    fake_run(0);
    CHECK(client.done_count == 0);
    host_channel(3);
    host_in_header()->write_index = 0x7ffffff8;
    host_event(HOST_RELID + 3);
    fake_run(LONG);
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
    start_cores(4, 4);
    start_up();
    indicate(RNDIS_INDICATE, RNDIS_STATUS_MEDIA_DISCONNECT, 12, 0);
    CHECK(client.links == 1 && client.linked_cores == 15);
    host_channel(1); // control messages are for the primary
    indicate(RNDIS_INDICATE, RNDIS_STATUS_MEDIA_CONNECT, 12, 0);
    CHECK(client.links == 1 && !nic_info(client.nic)->link_up);
}
CHILD_TEST(test_link_on_all_cores)

static void child_test_set_table(void)
{
    start_cores(4, 4);
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
    start_cores(4, 4);
    client.table = ask_later;
    host.fault_at = fault_number; // opening the packet filter
    host.fault = FAULT_SILENT;
    if (fault_kind == FAULT_RESCIND)
        fiber_spawn("rescind", rescind_later, NULL);
    start();
    CHECK(table.done == 1 && client.detached == 1 && client.nic == NULL);
    CHECK(table.result == (fault_kind == FAULT_RESCIND ? -ENODEV : 0));
    check_all_freed();
}

static void test_set_table_of_a_nic_that_goes(void **state)
{
    (void)state;
    fault_number = (unsigned)questions_with_channels(4);
    fault_kind = FAULT_RESCIND;
    in_child(child_test_set_table_of_a_nic_that_goes);
    fault_kind = FAULT_SILENT;
    in_child(child_test_set_table_of_a_nic_that_goes);
}

static void child_test_send_table(void)
{
    host.max_nvsp = want_version;
    start_cores(4, 4);
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
    CHECK(send(100, 0, NULL) == NIC_TX_COPIED);
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

// Checks of NVSP completions and of message sizes that need no host.

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
        cmocka_unit_test(test_nvsp_completions),
        cmocka_unit_test(test_message_sizes),
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
        cmocka_unit_test(test_receive_by_reference),
        cmocka_unit_test(test_scarce),
        cmocka_unit_test(test_scarce_counts_sections),
        cmocka_unit_test(test_half_stays_with_the_host),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_malformed_packets),
        cmocka_unit_test(test_vlan_is_not_ours),
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
        cmocka_unit_test(test_indications),
        cmocka_unit_test(test_rescind),
        cmocka_unit_test(test_dead_receive_ring),
        cmocka_unit_test(test_dead_send_ring),
        cmocka_unit_test(test_dead_send_ring_in_silence),
        cmocka_unit_test(test_held_frames_of_a_dead_channel),
        cmocka_unit_test(test_held_frames_are_lost),
        cmocka_unit_test(test_held_frames_of_a_slow_host),
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
        cmocka_unit_test(test_offers),
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_unload),
        cmocka_unit_test(test_unload_old_host),
    };
    return cmocka_run_group_tests_name("vmbus_netvsc", tests, NULL, NULL);
}
