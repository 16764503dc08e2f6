// SPDX-License-Identifier: BSD-2-Clause
// Large frames of netvsc against the scripted host: how large send and receive coalescing are agreed
// on, what the host gets to cut, and what it may send as fragments. Each test is a process of its own.
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

#include "drivers/netvsc/netvsc.h"
#include "drivers/netvsc/nvsp.h"
#include "drivers/netvsc/rndis.h"
#include "drivers/vmbus/vmbus.h"
#include "fake_host.h"
#include "fake_kernel.h"
#include "kernel/config.h"
#include "kernel/time.h"

#define ETHERNET 14
#define RNDIS_BYTES 60 // header and one PPI

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                             \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

// The client: counts, keeps a copy of the last frame.

static struct {
    struct nic *nic;
    unsigned frames, done;
    struct nic_frame last; // its pieces are gone
    uint8_t bytes[65536];
} client;

static void on_attach(struct nic *nic)
{
    client.nic = nic;
}

static void on_nothing(struct nic *nic)
{
    CHECK(nic == client.nic);
}

static void on_receive(struct nic *nic, const struct nic_frame *frame)
{
    uint32_t len = 0;

    client.last = *frame;
    for (unsigned i = 0; i < frame->count; i++) {
        CHECK(nic_rx_len(frame->pieces[i]) <= sizeof(client.bytes) - len);
        memcpy(client.bytes + len, nic_rx_data(frame->pieces[i]), nic_rx_len(frame->pieces[i]));
        len += nic_rx_len(frame->pieces[i]);
    }
    CHECK(len == frame->len && len >= ETHERNET);
    client.frames++;
    nic_rx_release(nic, frame->token);
}

static void on_tx_done(struct nic *nic, void *ctx)
{
    CHECK(nic == client.nic && ctx == &client);
    client.done++;
}

static const struct nic_client the_client = {
    .attach = on_attach,
    .detach = on_nothing,
    .link = on_nothing,
    .receive = on_receive,
    .batch_end = on_nothing,
    .tx_done = on_tx_done,
    .tx_ready = on_nothing,
};

static void start_up(void)
{
    host_offers_all();
    vmbus_start_core();
    netvsc_start(&the_client);
    vmbus_start();
    fake_run(200 * TIME_S);
    CHECK(client.nic && host.bad == 0);
}

#define CHILD_TEST(name)                                                                           \
    static void name(void **state)                                                                 \
    {                                                                                              \
        int status;                                                                                \
                                                                                                   \
        (void)state;                                                                               \
        fflush(NULL);                                                                              \
        pid_t child = fork();                                                                      \
        if (child == 0) {                                                                          \
            alarm(60);                                                                             \
            child_##name();                                                                        \
            _exit(0);                                                                              \
        }                                                                                          \
        waitpid(child, &status, 0);                                                                \
        assert_int_equal(status, 0);                                                               \
    }

static uint32_t word(const void *p, uint32_t offset)
{
    uint32_t v;
    memcpy(&v, (const uint8_t *)p + offset, 4);
    return v;
}

// ---- What is agreed on ----

static void child_test_all_on(void)
{
    start_up();
    const struct nic_info *info = nic_info(client.nic);
    CHECK(host.capabilities & NVSP_CAPABILITY_RSC);
    CHECK(host.parameters.lso_ip4 == NDIS_OFFLOAD_ON && host.parameters.lso_ip6 == NDIS_OFFLOAD_ON);
    CHECK(host.parameters.rsc_ip4 == NDIS_OFFLOAD_ON && host.parameters.rsc_ip6 == NDIS_OFFLOAD_ON);
    CHECK(host.parameters.tcp4 == NDIS_CSUM_BOTH_ON && host.parameters.tcp6 == NDIS_CSUM_BOTH_ON);
    CHECK(info->tx_large == (NIC_TX_IP4 | NIC_TX_IP6) && info->tx_large_max == HOST_LSO_MAX);
    CHECK(info->rx_coalesced);
}
CHILD_TEST(test_all_on)

static void child_test_lso_off(void)
{
    config.net.lso = false;
    start_up();
    const struct nic_info *info = nic_info(client.nic);
    CHECK(host.parameters.lso_ip4 == NDIS_OFFLOAD_OFF &&
          host.parameters.lso_ip6 == NDIS_OFFLOAD_OFF);
    CHECK(host.parameters.tcp4 == NDIS_CSUM_BOTH_ON && info->rx_coalesced);
    CHECK(!info->tx_large && !info->tx_large_max);
}
CHILD_TEST(test_lso_off)

static void child_test_rsc_off(void)
{
    config.net.rsc = config.rsc = false;
    start_up();
    const struct nic_info *info = nic_info(client.nic);
    CHECK(!(host.capabilities & NVSP_CAPABILITY_RSC));
    CHECK(host.parameters.rsc_ip4 == NDIS_OFFLOAD_OFF &&
          host.parameters.rsc_ip6 == NDIS_OFFLOAD_OFF);
    CHECK(info->tx_large && !info->rx_coalesced);
}
CHILD_TEST(test_rsc_off)

static void child_test_checksum_off(void)
{
    config.net.checksum = false;
    start_up();
    const struct nic_info *info = nic_info(client.nic);
    CHECK(host.parameters.tcp4 == NDIS_CSUM_OFF && host.parameters.udp6 == NDIS_CSUM_OFF);
    CHECK(host.parameters.lso_ip4 == NDIS_OFFLOAD_OFF &&
          host.parameters.rsc_ip6 == NDIS_OFFLOAD_OFF);
    CHECK(!info->tx_csum && !info->tx_large && !info->rx_coalesced);
}
CHILD_TEST(test_checksum_off)

// Only this NIC's: the claim is made before it is known which NIC it is.
static void child_test_own_offloads(void)
{
    config.nics[0] = (struct config_nic){
        .mac = {0, 0x15, 0x5d, 1, 2, 3},
        .named = 1u << KEY_LSO | 1u << KEY_RSC,
    };
    config.nics[1] = (struct config_nic){
        .mac = {0, 0x15, 0x5d, 1, 2, 4},
        .named = 1u << KEY_CHECKSUM,
    };
    config.nic_count = 2;
    start_up();
    const struct nic_info *info = nic_info(client.nic);
    CHECK(host.capabilities & NVSP_CAPABILITY_RSC);
    CHECK(host.parameters.lso_ip4 == NDIS_OFFLOAD_OFF);
    CHECK(host.parameters.rsc_ip4 == NDIS_OFFLOAD_OFF);
    CHECK(host.parameters.rsc_ip6 == NDIS_OFFLOAD_OFF);
    CHECK(host.parameters.tcp4 == NDIS_CSUM_BOTH_ON && info->tx_csum);
    CHECK(!info->tx_large && !info->tx_large_max && !info->rx_coalesced);
}
CHILD_TEST(test_own_offloads)

static void child_test_old_host(void)
{
    host.max_nvsp = NVSP_VERSION_6;
    start_up();
    CHECK(!(host.capabilities & NVSP_CAPABILITY_RSC));
    CHECK(host.parameters.rsc_ip4 == NDIS_OFFLOAD_OFF && !nic_info(client.nic)->rx_coalesced);
    CHECK(nic_info(client.nic)->tx_large == (NIC_TX_IP4 | NIC_TX_IP6));
}
CHILD_TEST(test_old_host)

// ---- Large send ----

static uint8_t frame[65536] __attribute__((aligned(4096)));

// A TCP segment; the header's lengths and checksums are anything. Returns the headers' bytes.
static uint32_t make_frame(uint32_t len, bool ip6)
{
    uint32_t transport = ETHERNET + (ip6 ? 40 : 20);

    for (uint32_t i = 0; i < len; i++)
        frame[i] = (uint8_t)(i * 7 + (i >> 8));
    frame[ETHERNET] = ip6 ? 0x60 : 0x45;
    frame[transport + 12] = 0x80; // 32 bytes
    return transport + 32;
}

static enum nic_tx_result send_large(const struct nic_piece *pieces, unsigned count, uint32_t len,
                                     bool ip6, uint16_t mss)
{
    struct nic_tx tx = {.pieces = pieces,
                        .count = count,
                        .len = len,
                        .csum = NIC_TX_TCP | (ip6 ? NIC_TX_IP6 : NIC_TX_IP4),
                        .transport_offset = ETHERNET + (ip6 ? 40 : 20),
                        .mss = mss,
                        .done_ctx = &client};
    enum nic_tx_result r = nic_send(client.nic, &tx);

    nic_flush(client.nic);
    return r;
}

// Puts together what the ranges of a packet describe.
static uint32_t gather(const struct host_packet *p, uint8_t *to, uint32_t *first)
{
    uint32_t at = 24, len = 0, count = word(p->bytes, 20);

    CHECK(p->type == PACKET_GPA_DIRECT && count <= 34);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t bytes = word(p->bytes, at), offset = word(p->bytes, at + 4);
        CHECK(offset < 4096 && bytes > 0);
        at += 8;
        for (uint32_t left = bytes; left; at += 8) {
            uint64_t pfn;
            uint32_t run = 4096 - offset < left ? 4096 - offset : left;
            memcpy(&pfn, p->bytes + at, 8);
            memcpy(to + len, (uint8_t *)(uintptr_t)(pfn << 12) + offset, run);
            len += run;
            left -= run;
            offset = 0;
        }
        if (i == 0)
            *first = len;
    }
    CHECK(at == p->header_len);
    return len;
}

static uint16_t pseudo_sum(const uint8_t *addresses, uint32_t len)
{
    uint32_t sum = 6;
    for (uint32_t i = 0; i < len; i += 2)
        sum += (uint32_t)addresses[i] << 8 | addresses[i + 1];
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

// The RNDIS message of a large frame: header, one PPI, headers as the host wants them, the rest as it
// was. `original` is what was sent.
static void check_message(const uint8_t *m, const uint8_t *original, uint32_t len, bool ip6,
                          uint16_t mss)
{
    static uint8_t expected[65536];
    uint32_t transport = ETHERNET + (ip6 ? 40 : 20);
    uint16_t sum =
        ip6 ? pseudo_sum(original + ETHERNET + 8, 32) : pseudo_sum(original + ETHERNET + 12, 8);

    CHECK(word(m, 0) == RNDIS_PACKET && word(m, 4) == RNDIS_BYTES + len);
    CHECK(word(m, 8) == 36 + 16 && word(m, 12) == len);
    CHECK(word(m, 28) == 36 && word(m, 32) == 16);
    CHECK(word(m, 44) == 16 && word(m, 48) == PPI_LSO && word(m, 52) == 12);
    CHECK(word(m, 56) == (mss | transport << 20 | 1u << 30 | (ip6 ? 1u << 31 : 0)));
    memcpy(expected, original, len);
    expected[transport + 16] = (uint8_t)(sum >> 8);
    expected[transport + 17] = (uint8_t)sum;
    if (ip6) {
        memset(expected + ETHERNET + 4, 0, 2);
    } else {
        memset(expected + ETHERNET + 2, 0, 2);
        memset(expected + ETHERNET + 10, 0, 2);
    }
    CHECK(memcmp(m + RNDIS_BYTES, expected, len) == 0);
}

static void check_held(uint32_t len, bool ip6, unsigned cut)
{
    static uint8_t before[65536], message[70000];
    uint32_t first;

    start_up();
    host.hold = true;
    uint32_t headers = make_frame(len, ip6);
    memcpy(before, frame, len);
    // Headers apart, then the payload in two; or all in one piece.
    struct nic_piece pieces[3] = {
        {frame, headers}, {frame + headers, cut}, {frame + headers + cut, len - headers - cut}};
    struct nic_piece whole = {frame, len};
    CHECK(send_large(cut ? pieces : &whole, cut ? 3 : 1, len, ip6, 1448) == NIC_TX_HELD);
    CHECK(memcmp(frame, before, len) == 0); // the caller's memory is as it was
    CHECK(host.packet_count == 1);
    CHECK(gather(&host.packets[0], message, &first) == RNDIS_BYTES + len);
    CHECK(first >= RNDIS_BYTES + headers - 12);
    check_message(message, before, len, ip6, 1448);
    host_complete(host.packets[0].transaction_id, NVSP_STATUS_SUCCESS);
    fake_run(0);
    CHECK(client.done == 1 && fake_counter("tx_large") == 1);
}

static void child_test_large_ip4(void)
{
    check_held(HOST_LSO_MAX, false, 30001);
}
CHILD_TEST(test_large_ip4)

static void child_test_large_ip6(void)
{
    check_held(HOST_LSO_MAX, true, 1);
}
CHILD_TEST(test_large_ip6)

static void child_test_large_in_one_piece(void)
{
    check_held(20000, false, 0);
}
CHILD_TEST(test_large_in_one_piece)

static void child_test_large_in_many_pieces(void)
{
    static uint8_t message[70000];
    struct nic_piece pieces[NIC_TX_PIECES];
    uint32_t first;

    start_up();
    host.hold = true;
    make_frame(HOST_LSO_MAX, false);
    uint32_t at = 0;
    for (unsigned i = 0; i < NIC_TX_PIECES; i++) {
        uint32_t len = i == NIC_TX_PIECES - 1 ? HOST_LSO_MAX - at : i < 3 ? 20 : 2100;
        pieces[i] = (struct nic_piece){frame + at, len};
        at += len;
    }
    CHECK(send_large(pieces, NIC_TX_PIECES, HOST_LSO_MAX, false, 536) == NIC_TX_HELD);
    CHECK(gather(&host.packets[0], message, &first) == RNDIS_BYTES + HOST_LSO_MAX);
    check_message(message, frame, HOST_LSO_MAX, false, 536);
}
CHILD_TEST(test_large_in_many_pieces)

static void child_test_large_but_small(void)
{
    start_up();
    uint32_t headers = make_frame(400, false);
    struct nic_piece pieces[2] = {{frame, headers}, {frame + headers, 400 - headers}};
    CHECK(send_large(pieces, 2, 400, false, 88) == NIC_TX_COPIED);
    CHECK(host.packet_count == 1 && host.packets[0].type == PACKET_INBAND);
    uint32_t section = word(host.packets[0].bytes, 24);
    check_message(host_send_buffer() + section * HOST_SEND_SECTION, frame, 400, false, 88);
}
CHILD_TEST(test_large_but_small)

// ---- Coalesced frames ----

#define FIRST (RNDIS_FRAGMENT | RNDIS_FRAGMENT_FIRST)
#define LAST (RNDIS_FRAGMENT | RNDIS_FRAGMENT_LAST)
#define MIDDLE RNDIS_FRAGMENT
#define ALONE 0

static uint32_t ranges[2 * 600];
static unsigned range_count;

// Adds a range with `len` bytes of the frame from `at` to the next packet.
static void fragment(uint32_t section, uint8_t flags, uint32_t at, uint32_t len, uint32_t csum)
{
    struct rndis_packet p = {
        .header = {.type = RNDIS_PACKET, .length = HOST_SECTION},
        .data_offset = 36 + 48,
        .data_length = len,
        .ppi_offset = 36,
        .ppi_length = 48,
    };
    uint32_t ppis[12] = {16, PPI_PACKET_ID, 12, 1 | (uint32_t)flags << 8,
                         16, PPI_CHECKSUM,  12, csum,
                         16, PPI_HASH,      12, 0x1000 + section};
    uint8_t *to = host_receive_buffer() + section * HOST_SECTION;

    if ((flags & FIRST) == RNDIS_FRAGMENT && !csum)
        p.ppi_length = 16; // as hosts do: whatever else there is to say is with the first one
    memcpy(to, &p, sizeof(p));
    memcpy(to + 44, ppis, sizeof(ppis));
    memcpy(to + 92, frame + at, len);
    ranges[2 * range_count] = section * HOST_SECTION;
    ranges[2 * range_count + 1] = HOST_SECTION;
    range_count++;
}

static void deliver(void)
{
    static uint64_t id = 100;
    unsigned before = host.completion_count;

    host_transfer(++id, ranges, range_count);
    fake_run(0);
    // Once, whatever was in it.
    CHECK(host.completion_count == before + 1 && host.completions[before] == id);
    range_count = 0;
}

static uint32_t last_status(void)
{
    return host.completion_status[host.completion_count - 1];
}

static void child_test_coalesced(void)
{
    start_up();
    make_frame(5000, false);
    fragment(3, FIRST, 0, 1514, PPI_RX_TCP_OK | PPI_RX_IP_OK);
    fragment(9, MIDDLE, 1514, 1448, 0);
    fragment(4, LAST, 2962, 1, PPI_RX_TCP_FAILED);
    fragment(5, ALONE, 0, 60, 0); // and another behind
    deliver();
    CHECK(last_status() == NVSP_STATUS_SUCCESS && client.frames == 2);
    CHECK(client.last.len == 60 && client.last.segments == 1 && client.last.hash == 0x1005);
    fragment(3, FIRST, 0, 1514, PPI_RX_TCP_OK | PPI_RX_IP_OK);
    fragment(9, MIDDLE, 1514, 1448, 0);
    fragment(4, LAST, 2962, 1, PPI_RX_TCP_FAILED);
    deliver();
    CHECK(client.frames == 3 && client.last.len == 2963 && memcmp(client.bytes, frame, 2963) == 0);
    CHECK(client.last.count == 3 && client.last.segments == 3 && client.last.hash == 0x1003);
    CHECK(client.last.csum == (NIC_CSUM_L4_OK | NIC_CSUM_IP_OK));
    fragment(3, FIRST | LAST, 0, 100, 0); // one alone
    deliver();
    CHECK(client.frames == 4 && client.last.len == 100 && client.last.segments == 1);
    CHECK(fake_counter("rx_coalesced") == 2 && fake_counter("rsc") == 0);
}
CHILD_TEST(test_coalesced)

static void child_test_without_first(void)
{
    start_up();
    make_frame(5000, false);
    fragment(0, MIDDLE, 0, 1000, 0);
    fragment(1, LAST, 1000, 1000, 0);
    fragment(2, ALONE, 0, 100, 0);
    deliver();
    CHECK(last_status() == NVSP_STATUS_FAILURE && fake_counter("rsc") == 2);
    CHECK(client.frames == 1 && client.last.len == 100);
}
CHILD_TEST(test_without_first)

static void child_test_without_last(void)
{
    start_up();
    make_frame(5000, false);
    fragment(0, FIRST, 0, 1000, 0);
    fragment(1, MIDDLE, 1000, 1000, 0);
    deliver();
    CHECK(last_status() == NVSP_STATUS_FAILURE && fake_counter("rsc") == 1 && client.frames == 0);
    // What the next packet begins with is not the rest.
    fragment(2, LAST, 2000, 1000, 0);
    deliver();
    CHECK(fake_counter("rsc") == 2 && client.frames == 0);
    // Ended by another frame, by another first one, by one that is malformed, by a control message.
    fragment(0, FIRST, 0, 1000, 0);
    fragment(1, ALONE, 0, 200, 0);
    fragment(2, LAST, 0, 1000, 0);
    deliver();
    CHECK(fake_counter("rsc") == 4 && client.frames == 1 && client.last.len == 200);
    fragment(0, FIRST, 0, 1000, 0);
    fragment(1, FIRST, 0, 300, 0);
    fragment(2, LAST, 300, 300, 0);
    deliver();
    CHECK(fake_counter("rsc") == 5 && client.frames == 2 && client.last.len == 600);
    fragment(0, FIRST, 0, 1000, 0);
    fragment(1, MIDDLE, 1000, 0, 0); // empty
    fragment(2, LAST, 1000, 1000, 0);
    deliver();
    CHECK(fake_counter("rsc") == 7 && fake_counter("data") == 1 && client.frames == 2);
    fragment(0, FIRST, 0, 1000, 0);
    fragment(1, MIDDLE, 1000, 100, 0);
    uint32_t keepalive[3] = {RNDIS_KEEPALIVE, 12, 77};
    memcpy(host_receive_buffer() + HOST_SECTION, keepalive, sizeof(keepalive));
    fragment(2, LAST, 1100, 1000, 0);
    deliver();
    CHECK(fake_counter("rsc") == 9 && client.frames == 2);
    fragment(0, FIRST, 0, 1000, 0);
    ranges[2 * range_count] = 0x7fffffff; // outside
    ranges[2 * range_count++ + 1] = HOST_SECTION;
    fragment(2, LAST, 1100, 1000, 0);
    deliver();
    CHECK(fake_counter("rsc") == 11 && fake_counter("range") == 1 && client.frames == 2);
}
CHILD_TEST(test_without_last)

// Among fragments that are all alike one that is not.
static void child_test_all_but_one_alike(void)
{
    static const uint32_t wrong[][2] = {
        {0, RNDIS_INDICATE},
        {4, HOST_SECTION + 1},
        {4, 1000},
        {8, HOST_SECTION},
        {8, ~0u},
        {12, 0},
        {12, HOST_SECTION},
        {28, HOST_SECTION},
        {32, 8},
        {44, 8},
        {48, PPI_HASH},
        {52, 16},
        {56, 1 | FIRST << 8},
        {56, 1},
    };
    uint64_t frames = 0;

    start_up();
    make_frame(20000, false);
    for (unsigned i = 0; i <= sizeof(wrong) / sizeof(wrong[0]); i++) {
        bool good = i == sizeof(wrong) / sizeof(wrong[0]);

        fragment(0, FIRST, 0, 1000, PPI_RX_TCP_OK);
        for (unsigned n = 1; n < 19; n++)
            fragment(20 - n, MIDDLE, n * 1000, 1000, 0);
        fragment(20, LAST, 19000, 1000, 0);
        if (!good)
            memcpy(host_receive_buffer() + 9 * HOST_SECTION + wrong[i][0], &wrong[i][1], 4);
        deliver();
        CHECK(last_status() == (good ? NVSP_STATUS_SUCCESS : NVSP_STATUS_FAILURE));
        // What is not a fragment is a frame, and what begins one ends what there was.
        frames += good || (wrong[i][0] == 48 || wrong[i][0] == 56);
        CHECK(client.frames == frames);
    }
    CHECK(client.last.len == 20000 && memcmp(client.bytes, frame, 20000) == 0);
    // And the ranges themselves.
    for (unsigned i = 0; i < 4; i++) {
        uint32_t *range = &ranges[2 * 9];

        fragment(0, FIRST, 0, 1000, 0);
        for (unsigned n = 1; n < 19; n++)
            fragment(20 - n, MIDDLE, n * 1000, 1000, 0);
        fragment(20, LAST, 19000, 1000, 0);
        range[i & 1] = i < 2 ? 0x7fffffff : 8;
        deliver();
        CHECK(last_status() == NVSP_STATUS_FAILURE && client.frames == frames);
    }
}
CHILD_TEST(test_all_but_one_alike)

static void child_test_first_without_ethernet(void)
{
    start_up();
    make_frame(5000, false);
    fragment(0, FIRST, 0, 13, 0);
    fragment(1, LAST, 13, 1000, 0);
    deliver();
    CHECK(client.frames == 0 && fake_counter("data") == 1 && fake_counter("rsc") == 1);
}
CHILD_TEST(test_first_without_ethernet)

// One frame of `count` fragments; all but the ends share a section.
static void many_fragments(unsigned count)
{
    fragment(0, FIRST, 0, 14, 0);
    for (unsigned i = 1; i < count - 1; i++)
        fragment(1, MIDDLE, 0, 14, 0);
    fragment(2, LAST, 0, 14, 0);
    deliver();
}

static void child_test_as_many_as_allowed(void)
{
    start_up();
    make_frame(65535, false);
    many_fragments(NIC_RX_PIECES);
    CHECK(client.frames == 1 && client.last.count == NIC_RX_PIECES && fake_counter("rsc") == 0);
    CHECK(client.last.len == NIC_RX_PIECES * 14);
    many_fragments(NIC_RX_PIECES + 1);
    CHECK(client.frames == 1 && fake_counter("rsc") == 1);
}
CHILD_TEST(test_as_many_as_allowed)

static void child_test_too_long(void)
{
    start_up();
    make_frame(65535, false);
    // 45 * 1456 + 15 = 65535
    fragment(0, FIRST, 0, 1456, 0);
    for (unsigned i = 1; i < 45; i++)
        fragment(i, MIDDLE, i * 1456, 1456, 0);
    fragment(45, LAST, 45 * 1456, 15, 0);
    deliver();
    CHECK(client.frames == 1 && client.last.len == 65535);
    CHECK(memcmp(client.bytes, frame, 65535) == 0);
    fragment(0, FIRST, 0, 1456, 0);
    for (unsigned i = 1; i < 45; i++)
        fragment(i, MIDDLE, 0, 1456, 0);
    fragment(45, LAST, 0, 16, 0);
    deliver();
    CHECK(client.frames == 1 && fake_counter("rsc") == 1 && last_status() == NVSP_STATUS_FAILURE);
}
CHILD_TEST(test_too_long)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_on),
        cmocka_unit_test(test_lso_off),
        cmocka_unit_test(test_rsc_off),
        cmocka_unit_test(test_checksum_off),
        cmocka_unit_test(test_own_offloads),
        cmocka_unit_test(test_old_host),
        cmocka_unit_test(test_large_ip4),
        cmocka_unit_test(test_large_ip6),
        cmocka_unit_test(test_large_in_one_piece),
        cmocka_unit_test(test_large_in_many_pieces),
        cmocka_unit_test(test_large_but_small),
        cmocka_unit_test(test_coalesced),
        cmocka_unit_test(test_without_first),
        cmocka_unit_test(test_without_last),
        cmocka_unit_test(test_all_but_one_alike),
        cmocka_unit_test(test_first_without_ethernet),
        cmocka_unit_test(test_as_many_as_allowed),
        cmocka_unit_test(test_too_long),
    };
    return cmocka_run_group_tests_name("netvsc_large", tests, NULL, NULL);
}
