// SPDX-License-Identifier: BSD-2-Clause
// What a host may send in place of a well-formed RNDIS message, and the lengths that fuzzing finds:
// every message lies at the very end of its own allocation, so that ASan sees one byte too many.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "drivers/netvsc/netvsc.h"
#include "drivers/netvsc/rndis.h"

struct packet { // a message under construction
    struct rndis_packet head;
    uint8_t body[200];
};

static struct packet good(void)
{
    struct packet p = {
        .head = {.header = {.type = RNDIS_PACKET, .length = 44 + 16 + 60},
                 .data_offset = 36 + 16,
                 .data_length = 60,
                 .ppi_offset = 36,
                 .ppi_length = 16},
    };
    uint32_t ppi[4] = {16, PPI_CHECKSUM, 12, PPI_RX_TCP_OK | PPI_RX_IP_OK};

    memcpy(p.body, ppi, sizeof(ppi));
    memset(p.body + 16, 0xab, 60);
    return p;
}

static void set_ppi(struct packet *p, unsigned word, uint32_t value)
{
    memcpy(p->body + word * 4, &value, 4);
}

static enum rndis_verdict check_range(const struct packet *p, uint32_t range,
                                      struct rndis_frame *frame)
{
    uint8_t *message = malloc(range ? range : 1);
    struct rndis_header header;

    memcpy(message, p, range);
    enum rndis_verdict v = rndis_header_check(message, range, &header);
    if (v == RNDIS_OK)
        v = rndis_check(message, header.length, frame);
    free(message);
    return v;
}

static enum rndis_verdict check(const struct packet *p)
{
    struct rndis_frame frame;

    return check_range(p, 44 + 16 + 60, &frame);
}

static void test_good(void **state)
{
    struct packet p = good();
    struct rndis_frame frame;

    (void)state;
    assert_int_equal(check_range(&p, 120, &frame), RNDIS_OK);
    assert_int_equal(frame.offset, 60);
    assert_int_equal(frame.length, 60);
    assert_int_equal(frame.csum, PPI_RX_TCP_OK | PPI_RX_IP_OK);
    assert_int_equal(frame.vlan, 0);
    // Hosts give ranges and messages of a whole section: the frame's length is its own.
    p.head.header.length = 200;
    assert_int_equal(check_range(&p, 220, &frame), RNDIS_OK);
    assert_int_equal(frame.length, 60);
}

static void test_no_ppi(void **state)
{
    struct packet p = good();
    struct rndis_frame frame;

    (void)state;
    p.head.ppi_offset = p.head.ppi_length = 0;
    assert_int_equal(check_range(&p, 120, &frame), RNDIS_OK);
    assert_int_equal(frame.csum, 0);
}

static void test_ppis_in_a_row(void **state)
{
    struct packet p = good();
    struct rndis_frame frame;
    static const uint32_t ppis[] = {16,     PPI_HASH, 12,           0x11, 20,           0x80000001u,
                                    16,     0,        0x22,         16,   PPI_VLAN,     12,
                                    5 << 4, 16,       PPI_CHECKSUM, 12,   PPI_RX_UDP_OK};

    (void)state;
    memcpy(p.body, ppis, sizeof(ppis));
    p.head.ppi_length = sizeof(ppis);
    p.head.data_offset = 36 + sizeof(ppis);
    p.head.header.length = 44 + sizeof(ppis) + 60;
    assert_int_equal(check_range(&p, p.head.header.length, &frame), RNDIS_OK);
    assert_int_equal(frame.csum, PPI_RX_UDP_OK);
    assert_int_equal(frame.hash, 0x11);
    assert_int_equal(PPI_VLAN_ID(frame.vlan), 5);
}

// A fragment after the first may be short; what is not one may not.
static void test_fragments(void **state)
{
    struct packet p = good();
    struct rndis_frame frame;
    uint32_t id = 1 | RNDIS_FRAGMENT << 8;

    (void)state;
    set_ppi(&p, 1, PPI_PACKET_ID);
    set_ppi(&p, 3, id);
    p.head.data_length = 1;
    assert_int_equal(check(&p), RNDIS_OK);
    assert_int_equal(check_range(&p, 120, &frame), RNDIS_OK);
    assert_int_equal(frame.flags, RNDIS_FRAGMENT);
    p.head.data_length = 0;
    assert_int_equal(check(&p), RNDIS_BAD_DATA);
    p.head.data_length = 1;
    set_ppi(&p, 3, id | RNDIS_FRAGMENT_FIRST << 8);
    assert_int_equal(check(&p), RNDIS_BAD_DATA);
    set_ppi(&p, 3, 1 | RNDIS_FRAGMENT_LAST << 8); // no fragment
    assert_int_equal(check(&p), RNDIS_BAD_DATA);
    p.head.data_length = 60;
    assert_int_equal(check_range(&p, 120, &frame), RNDIS_OK);
    assert_int_equal(frame.flags, 0);
}

// A message repeats itself, and does not with another bit in what is judged.
static void repeats(uint8_t *message, const struct rndis_fragment *f)
{
    unsigned at = (unsigned)rand() % 60, judged = 0x798f;

    assert_true(rndis_says(message, f->said));
    message[at] ^= (uint8_t)(1u << rand() % 8);
    // Words of four bytes: the four of out-of-band data, and the two behind the PPIs' place, are not.
    assert_int_equal(rndis_says(message, f->said), !(judged >> at / 4 & 1));
}

// What the quick look at a fragment takes, the thorough one takes as well, and finds the same; but for
// per-packet information that the quick one does not look at.
static void test_quick_and_thorough(void **state)
{
    static const uint32_t interesting[] = {
        0,          1,          8,          12,         16,
        36,         52,         60,         61,         112,
        119,        120,        0x7fffffff, 0x80000000, PPI_PACKET_ID,
        0x00000101, 0x00000501, 0x00000301, ~0u};
    unsigned accepted = 0;

    (void)state;
    srand(43);
    for (unsigned i = 0; i < 200000; i++) {
        struct packet p = good();
        struct rndis_fragment quick;
        struct rndis_frame frame;
        uint32_t range = i & 1 ? 120 : (uint32_t)rand() % 121;

        set_ppi(&p, 1, PPI_PACKET_ID);
        set_ppi(&p, 3, 1 | (RNDIS_FRAGMENT | (i & 2 ? RNDIS_FRAGMENT_LAST : 0)) << 8);
        for (unsigned n = (unsigned)rand() % 3; n--;) {
            uint32_t value = interesting[(unsigned)rand() % (sizeof(interesting) / 4)];
            memcpy((uint8_t *)&p + ((unsigned)rand() % 30) * 4, &value, 4);
        }
        uint8_t *message = malloc(range ? range : 1);
        memcpy(message, &p, range);
        bool taken = rndis_continuation(message, range, &quick);
        if (taken)
            repeats(message, &quick);
        free(message);
        if (!taken)
            continue;
        accepted++;
        enum rndis_verdict verdict = check_range(&p, range, &frame);
        assert_true(quick.offset >= 60 && quick.length > 0 && quick.offset <= range &&
                    quick.length <= range - quick.offset);
        if (p.head.ppi_length > 16 && verdict == RNDIS_BAD_PPI)
            continue;
        assert_int_equal(verdict, RNDIS_OK);
        assert_int_equal(quick.offset, frame.offset);
        assert_int_equal(quick.length, frame.length);
        assert_int_equal(quick.flags, frame.flags);
    }
    assert_true(accepted > 10000);
}

static void test_bad_length(void **state)
{
    struct packet p = good();
    struct rndis_frame frame;
    static const uint32_t bad[] = {0, 7, 8, 43, 121, 0x7fffffff, 0xffffffff};

    (void)state;
    for (uint32_t range = 0; range < 8; range++)
        assert_int_equal(check_range(&p, range, &frame), RNDIS_BAD_LENGTH);
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        p.head.header.length = bad[i];
        assert_int_equal(check(&p), RNDIS_BAD_LENGTH);
    }
}

static void test_bad_data(void **state)
{
    static const uint32_t bad[][2] = {
        {52, 61},         {53, 60},           {112, 14},        {113, 0},
        {0, 60},          {35, 60},           {52, 0},          {52, 13},
        {0xffffffff, 60}, {0xfffffff0, 0x20}, {52, 0xffffffff}, {52, 0xfffffff0},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct packet p = good();
        p.head.data_offset = bad[i][0];
        p.head.data_length = bad[i][1];
        assert_int_equal(check(&p), RNDIS_BAD_DATA);
    }
}

static void test_bad_ppi_area(void **state)
{
    static const uint32_t bad[][2] = {
        {36, 77},         {36, 11},         {36, 4},         {35, 16}, {0, 16},
        {8, 16},          {112, 16},        {113, 12},       {113, 0}, {0xfffffff0, 16},
        {36, 0xffffffff}, {36, 0xfffffff8}, {0xffffffff, 0},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct packet p = good();
        p.head.ppi_offset = bad[i][0];
        p.head.ppi_length = bad[i][1];
        assert_int_equal(check(&p), RNDIS_BAD_PPI);
    }
}

static void test_bad_ppi(void **state)
{
    // size, type, offset of a PPI in an area of 16 bytes
    static const uint32_t bad[][3] = {
        {0, 0, 12},          {4, 0, 12},
        {11, 0, 11},         {13, 0, 12},
        {15, 8, 12},         {20, 0, 12},
        {18, 8, 12},         {0xffffffff, 8, 12},
        {0xfffffffc, 8, 12}, {16, 0, 0},
        {16, 0, 11},         {16, 8, 17},
        {16, 8, 0xffffffff}, {16, 0, 13} /* value cut off */,
        {16, PPI_VLAN, 16},  {12, PPI_CHECKSUM, 12} /* no value, then 4 bytes that are no PPI */,
        {12, 8, 12},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct packet p = good();
        for (unsigned w = 0; w < 3; w++)
            set_ppi(&p, w, bad[i][w]);
        assert_int_equal(check(&p), RNDIS_BAD_PPI);
    }
}

// Whatever the words are: no byte outside is read, and an accepted frame lies inside.
static void test_random_words(void **state)
{
    static const uint32_t interesting[] = {0,   1,   4,          8,          11,         12,
                                           13,  16,  36,         44,         60,         112,
                                           119, 120, 0x7fffffff, 0x80000000, 0xfffffff0, ~0u};
    unsigned accepted = 0;

    (void)state;
    srand(42);
    for (unsigned i = 0; i < 200000; i++) {
        struct packet p = good();
        struct rndis_frame frame;
        uint32_t range = i & 1 ? 120 : (uint32_t)rand() % 121;

        for (unsigned n = 1 + (unsigned)rand() % 3; n--;) {
            uint32_t value = interesting[(unsigned)rand() % (sizeof(interesting) / 4)];
            memcpy((uint8_t *)&p + ((unsigned)rand() % 30) * 4, &value, 4);
        }
        if (check_range(&p, range, &frame) != RNDIS_OK)
            continue;
        accepted++;
        assert_true(frame.offset >= 44 && frame.length >= 14);
        assert_true(frame.offset + frame.length <= range);
    }
    assert_true(accepted > 1000); // the test reaches the accepting path too
}

static const void *info_of(uint32_t length, uint32_t info_length, uint32_t info_offset)
{
    uint8_t *reply = malloc(length);
    struct rndis_query_complete q = {.info_length = info_length, .info_offset = info_offset};
    uint32_t got;

    memcpy(reply, &q, length < sizeof(q) ? length : sizeof(q));
    const void *info = rndis_query_info(reply, length, &got);
    const void *expected = info ? (void *)(intptr_t)((const uint8_t *)info - reply) : NULL;
    free(reply);
    return expected; // the offset of the information
}

static void test_query_info(void **state)
{
    (void)state;
    assert_ptr_equal(info_of(28, 4, 16), (void *)24);
    assert_ptr_equal(info_of(32, 4, 20), (void *)28);
    assert_null(info_of(23, 4, 16));
    assert_null(info_of(24, 4, 16));
    assert_null(info_of(28, 5, 16));
    assert_null(info_of(28, 4, 15));
    assert_null(info_of(28, 4, 0));
    assert_null(info_of(28, 0, 16));
    assert_null(info_of(28, 4, 0xfffffff0));
    assert_null(info_of(28, 0xfffffff8, 16));
}

static struct ndis_offload full_offload(void)
{
    return (struct ndis_offload){
        .header = {.type = NDIS_OBJECT_OFFLOAD, .revision = 3, .size = sizeof(struct ndis_offload)},
        .ip4_tx = NDIS_CSUM_TCP | NDIS_CSUM_TCP_OPTIONS | NDIS_CSUM_UDP,
        .ip6_tx = NDIS_CSUM_TCP | NDIS_CSUM_TCP_OPTIONS | NDIS_CSUM_UDP | NDIS_CSUM_IP_OPTIONS,
        .ip4_rx = NDIS_CSUM_TCP,
    };
}

static uint8_t tx_csum(const struct ndis_offload *o, uint32_t length)
{
    struct rndis_offloads out;

    assert_true(rndis_offload_check(o, length, &out));
    return out.tx_csum;
}

static void test_offloads(void **state)
{
    struct ndis_offload o = full_offload();
    struct rndis_offloads out;

    (void)state;
    assert_true(rndis_offload_check(&o, sizeof(o), &out));
    assert_int_equal(out.tx_csum, NIC_TX_IP4 | NIC_TX_IP6 | NIC_TX_TCP | NIC_TX_UDP);
    assert_int_equal(out.rx_csum, NDIS_CSUM_TCP);
    assert_false(out.rx_coalesce || out.tx_large || out.tx_large_max);
    o.ip6_tx &= ~NDIS_CSUM_IP_OPTIONS;
    assert_int_equal(tx_csum(&o, sizeof(o)), NIC_TX_IP4 | NIC_TX_TCP | NIC_TX_UDP);
    o.ip4_tx = NDIS_CSUM_TCP; // not with options
    assert_int_equal(tx_csum(&o, sizeof(o)), 0);
    o = full_offload();
    o.header.size = NDIS_OFFLOAD_BYTES_REV1; // an older revision
    o.header.revision = 1;
    assert_true(tx_csum(&o, NDIS_OFFLOAD_BYTES_REV1) != 0);
}

static struct rndis_offloads large(uint32_t max4, uint32_t max6, uint32_t segments,
                                   uint32_t options6)
{
    struct ndis_offload o = full_offload();
    struct rndis_offloads out;

    o.lso_ip4_encapsulation = o.lso_ip6_encapsulation = NDIS_LSO_8023;
    o.lso_ip4_max = max4;
    o.lso_ip6_max = max6;
    o.lso_ip4_min_segments = o.lso_ip6_min_segments = segments;
    o.lso_ip6_options = options6;
    o.rsc_ip4 = 1;
    assert_true(rndis_offload_check(&o, sizeof(o), &out));
    assert_false(out.rx_coalesce); // not for IPv6
    return out;
}

static void test_large_offloads(void **state)
{
    struct rndis_offloads o = large(62780, 60000, 2, 5);

    (void)state;
    assert_int_equal(o.tx_large, NIC_TX_IP4 | NIC_TX_IP6);
    assert_int_equal(o.tx_large_max, 60000);
    o = large(62780, 60000, 2, 1); // IPv6 without TCP options
    assert_int_equal(o.tx_large, NIC_TX_IP4);
    assert_int_equal(o.tx_large_max, 62780);
    o = large(62780, 60000, 3, 5); // not for two segments
    assert_int_equal(o.tx_large, 0);
    assert_int_equal(o.tx_large_max, 0);
    o = large(0xffffffff, 0xffffffff, 2, 5);
    assert_int_equal(o.tx_large_max, 65535);
}

static void test_bad_offloads(void **state)
{
    struct ndis_offload o = full_offload();
    struct rndis_offloads out;

    (void)state;
    assert_false(rndis_offload_check(&o, 0, &out));
    assert_false(rndis_offload_check(&o, 3, &out));
    assert_false(rndis_offload_check(&o, sizeof(o) - 1, &out)); // size says more
    o.header.type = NDIS_OBJECT_DEFAULT;
    assert_false(rndis_offload_check(&o, sizeof(o), &out));
    o = full_offload();
    o.header.revision = 0;
    assert_false(rndis_offload_check(&o, sizeof(o), &out));
    o = full_offload();
    o.header.size = NDIS_OFFLOAD_BYTES_REV1 - 1;
    assert_false(rndis_offload_check(&o, sizeof(o), &out));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),          cmocka_unit_test(test_no_ppi),
        cmocka_unit_test(test_ppis_in_a_row), cmocka_unit_test(test_bad_length),
        cmocka_unit_test(test_bad_data),      cmocka_unit_test(test_bad_ppi_area),
        cmocka_unit_test(test_bad_ppi),       cmocka_unit_test(test_random_words),
        cmocka_unit_test(test_query_info),    cmocka_unit_test(test_offloads),
        cmocka_unit_test(test_bad_offloads),  cmocka_unit_test(test_large_offloads),
        cmocka_unit_test(test_fragments),     cmocka_unit_test(test_quick_and_thorough),
    };
    return cmocka_run_group_tests_name("rndis", tests, NULL, NULL);
}
