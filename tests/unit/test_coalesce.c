// SPDX-License-Identifier: BSD-2-Clause
// Which received segments are put together, and what comes of it: each rule by an example, then
// random traffic of several connections, of which every byte must arrive once and in order.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "net/coalesce.h"

#define VOUCHED (NIC_CSUM_L4_OK | NIC_CSUM_IP_OK)
#define ACK 0x10
#define PSH 0x08
#define FIN 0x01

struct what {                           // a segment to make
    bool ip6, plain_header;             // without timestamps
    uint8_t flags, tos, csum, protocol; // protocol: 0 for TCP
    bool wrong_ip;                      // a checksum that is not right
    uint16_t port, window;
    uint32_t sequence, acknowledged, time, echo, payload;
    uint32_t padding;  // behind the packet
    uint16_t fragment; // the IPv4 field
    uint32_t option;   // in place of the timestamp's first word
    uint32_t hash;
};

static struct what usual(uint32_t sequence, uint32_t payload)
{
    return (struct what){.flags = ACK,
                         .csum = VOUCHED,
                         .port = 1000,
                         .window = 500,
                         .sequence = sequence,
                         .acknowledged = 77,
                         .time = 11,
                         .echo = 22,
                         .payload = payload};
}

static void put16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
    put16(p, v >> 16);
    put16(p + 2, v);
}

static uint32_t get16(const uint8_t *p)
{
    return (uint32_t)p[0] << 8 | p[1];
}

static uint32_t get32(const uint8_t *p)
{
    return get16(p) << 16 | get16(p + 2);
}

static uint32_t ip_checksum(const uint8_t *header)
{
    uint32_t sum = 0;
    for (unsigned i = 0; i < 20; i += 2)
        sum += get16(header + i);
    sum = (sum & 0xffff) + (sum >> 16);
    return (sum & 0xffff) + (sum >> 16);
}

// The byte of a connection's stream at a sequence number.
static uint8_t byte_at(uint16_t port, uint32_t sequence)
{
    return (uint8_t)(sequence * 31 + (sequence >> 8) + port);
}

static unsigned tcp_at(const uint8_t *frame)
{
    return get16(frame + 12) == 0x0800 ? 34 : 54;
}

// Writes the frame; returns its length.
static uint32_t make(uint8_t *to, const struct what *w)
{
    uint32_t tcp_len = w->plain_header ? 20 : 32;
    uint8_t *ip = to + 14, *tcp = ip + (w->ip6 ? 40 : 20);

    memset(to, 0, 14 + 40 + 32);
    memset(to, 2, 12);
    put16(to + 12, w->ip6 ? 0x86dd : 0x0800);
    if (w->ip6) {
        put32(ip, 6u << 28 | (uint32_t)w->tos << 20);
        put16(ip + 4, tcp_len + w->payload);
        ip[6] = w->protocol ? w->protocol : 6;
        ip[7] = 64;
        memset(ip + 8, 0xfd, 32);
    } else {
        ip[0] = 0x45;
        ip[1] = w->tos;
        put16(ip + 2, 20 + tcp_len + w->payload);
        put16(ip + 6, w->fragment);
        ip[8] = 64;
        ip[9] = w->protocol ? w->protocol : 6;
        put32(ip + 12, 0x0a000001);
        put32(ip + 16, 0x0a000002);
        put16(ip + 10, ~ip_checksum(ip) ^ w->wrong_ip);
    }
    put16(tcp, w->port);
    put16(tcp + 2, 5201);
    put32(tcp + 4, w->sequence);
    put32(tcp + 8, w->acknowledged);
    tcp[12] = (uint8_t)(tcp_len / 4 << 4);
    tcp[13] = w->flags;
    put16(tcp + 14, w->window);
    if (!w->plain_header) {
        put32(tcp + 20, w->option ? w->option : 0x0101080a);
        put32(tcp + 24, w->time);
        put32(tcp + 28, w->echo);
    }
    for (uint32_t i = 0; i < w->payload; i++)
        tcp[tcp_len + i] = byte_at(w->port, w->sequence + i);
    memset(tcp + tcp_len + w->payload, 0xee, w->padding);
    return (uint32_t)(tcp - to) + tcp_len + w->payload + w->padding;
}

// ---- What was delivered ----

#define DELIVERED_MAX 4096

static struct delivered {
    uint32_t len, segments, csum;
    uint8_t *bytes;
} delivered[DELIVERED_MAX];
static unsigned delivered_count, tokens_out, tokens_back;
static bool token_seen[65536];

static void on_deliver(void *ctx, const struct nic_frame *frame, void *const *tokens,
                       unsigned count)
{
    struct delivered *d = &delivered[delivered_count++];
    uint32_t len = 0;

    assert_ptr_equal(ctx, delivered);
    assert_true(delivered_count <= DELIVERED_MAX && count >= 1 && frame->len <= 65535);
    *d = (struct delivered){frame->len, frame->segments, frame->csum, malloc(frame->len)};
    for (unsigned i = 0; i < frame->count; i++) {
        assert_true(nic_rx_len(frame->pieces[i]) <= frame->len - len);
        memcpy(d->bytes + len, nic_rx_data(frame->pieces[i]), nic_rx_len(frame->pieces[i]));
        len += nic_rx_len(frame->pieces[i]);
    }
    assert_int_equal(len, frame->len);
    for (unsigned i = 0; i < count; i++) {
        uintptr_t token = (uintptr_t)tokens[i];
        assert_true(token < 65536 && !token_seen[token]);
        token_seen[token] = true;
        tokens_back++;
    }
}

static struct coalesce c;
static uint8_t *buffers[65536];

static int reset(void **state)
{
    (void)state;
    for (unsigned i = 0; i < delivered_count; i++)
        free(delivered[i].bytes);
    for (unsigned i = 0; i < tokens_out; i++)
        free(buffers[i]);
    delivered_count = tokens_out = tokens_back = 0;
    memset(token_seen, 0, sizeof(token_seen));
    c = (struct coalesce){.deliver = on_deliver, .ctx = delivered};
    return 0;
}

static void give(struct what w)
{
    static uint8_t bytes[66000];
    uint32_t len = make(bytes, &w);
    uint8_t *exact = malloc(len); // so that ASan sees what reads beyond it
    memcpy(exact, bytes, len);
    buffers[tokens_out] = exact;
    struct nic_rx_piece piece = nic_rx_piece(exact, len);
    struct nic_frame frame = {.pieces = &piece,
                              .count = 1,
                              .len = len,
                              .csum = w.csum,
                              .segments = 1,
                              .hash = w.hash,
                              .token = (void *)(uintptr_t)tokens_out++};
    coalesce_receive(&c, &frame);
}

static void flush(void)
{
    coalesce_flush(&c);
    assert_int_equal(tokens_back, tokens_out);
    assert_int_equal(c.used, 0);
}

// A delivered frame is right in itself and has this part of the stream.
static void check_frame(const struct delivered *d, uint32_t sequence, uint32_t payload)
{
    unsigned at = tcp_at(d->bytes);
    const uint8_t *ip = d->bytes + 14, *tcp = d->bytes + at;
    uint32_t header = at + (tcp[12] >> 4) * 4u;

    if (at == 34) {
        assert_int_equal(ip_checksum(ip), 0xffff);
        assert_int_equal(get16(ip + 2), header - 14 + payload);
    } else {
        assert_int_equal(get16(ip + 4), header - 54 + payload);
    }
    assert_int_equal(d->len, header + payload);
    assert_int_equal(get32(tcp + 4), sequence);
    for (uint32_t i = 0; i < payload; i++)
        assert_int_equal(d->bytes[header + i], byte_at((uint16_t)get16(tcp), sequence + i));
}

// ---- The rules ----

static void test_in_a_row(void **state)
{
    struct what last = usual(2900, 1450);

    (void)state;
    give(usual(0, 1450));
    give(usual(1450, 1450));
    assert_int_equal(delivered_count, 0);
    last.acknowledged = 99;
    last.window = 400;
    last.time = 12;
    last.echo = 23;
    give(last);
    flush();
    assert_int_equal(delivered_count, 1);
    check_frame(&delivered[0], 0, 4350);
    assert_int_equal(delivered[0].segments, 3);
    assert_int_equal(delivered[0].csum, VOUCHED);
    const uint8_t *tcp = delivered[0].bytes + 34;
    assert_int_equal(get32(tcp + 8), 99); // the news of the other direction
    assert_int_equal(get16(tcp + 14), 400);
    assert_int_equal(get32(tcp + 28), 23);
    assert_int_equal(get32(tcp + 24), 11); // the time to be echoed is the first one's
    assert_int_equal(c.segments, 3);
    assert_int_equal(c.frames, 1);
}

static void test_ip6(void **state)
{
    struct what a = usual(0xfffffc00, 1428), b = usual(0xfffffc00 + 1428, 1428);

    (void)state;
    a.ip6 = b.ip6 = true;
    a.csum = b.csum = NIC_CSUM_L4_OK; // there is no checksum of IP
    give(a);
    give(b);
    flush();
    assert_int_equal(delivered_count, 1);
    check_frame(&delivered[0], 0xfffffc00, 2856); // the numbers wrap
}

static void test_without_timestamps(void **state)
{
    struct what a = usual(0, 1460), b = usual(1460, 1460), d = usual(2920, 1448);

    (void)state;
    a.plain_header = b.plain_header = true;
    give(a);
    give(b);
    give(d); // with: another length of header
    flush();
    assert_int_equal(delivered_count, 2);
    check_frame(&delivered[0], 0, 2920);
    check_frame(&delivered[1], 2920, 1448);
}

// One alone is delivered as it came, from where it lies.
static void test_alone(void **state)
{
    (void)state;
    give(usual(5, 1450));
    assert_int_equal(delivered_count, 0);
    flush();
    check_frame(&delivered[0], 5, 1450);
    assert_int_equal(delivered[0].segments, 1);
    assert_int_equal(c.frames, 0);
}

static void test_push_and_short_end_it(void **state)
{
    struct what pushed = usual(1450, 1450);

    (void)state;
    pushed.flags |= PSH;
    give(usual(0, 1450));
    give(pushed);
    assert_int_equal(delivered_count, 1);
    check_frame(&delivered[0], 0, 2900);
    assert_int_equal(delivered[0].bytes[34 + 13], ACK | PSH);
    give(usual(2900, 1450));
    give(usual(4350, 10));
    assert_int_equal(delivered_count, 2);
    check_frame(&delivered[1], 2900, 1460);
    // A request of one segment does not wait.
    pushed = usual(4360, 64);
    pushed.flags |= PSH;
    give(pushed);
    assert_int_equal(delivered_count, 3);
    // One that is longer than the first is not put behind it.
    give(usual(4424, 100));
    give(usual(4524, 200));
    assert_int_equal(delivered_count, 4);
    flush();
    assert_int_equal(delivered_count, 5);
}

static struct what acknowledgement(uint32_t acknowledged, uint16_t window)
{
    struct what w = usual(500, 0);
    w.acknowledged = acknowledged;
    w.window = window;
    return w;
}

// Of acknowledgements without data that say more and more the last one stays; none is lost that says
// the same again, nor one with SACK blocks, nor the place of one among data.
static void test_acknowledgements(void **state)
{
    (void)state;
    give(acknowledgement(0xffffff00, 10));
    give(acknowledgement(100, 5));
    give(acknowledgement(300, 8));
    assert_int_equal(delivered_count, 0);
    give(acknowledgement(300, 8)); // a duplicate
    assert_int_equal(delivered_count, 1);
    assert_int_equal(get32(delivered[0].bytes + 34 + 8), 300);
    assert_int_equal(get16(delivered[0].bytes + 34 + 14), 8);
    give(acknowledgement(300, 9)); // another window
    assert_int_equal(delivered_count, 2);
    give(acknowledgement(200, 9)); // late
    assert_int_equal(delivered_count, 3);
    struct what sack = acknowledgement(400, 9);
    sack.option = 0x0101050a;
    give(sack);
    assert_int_equal(delivered_count, 5);
    give(acknowledgement(500, 9));
    struct what data = usual(500, 1000);
    data.acknowledged = 600;
    give(data);
    assert_int_equal(delivered_count, 6);
    give(acknowledgement(700, 9)); // from before the data: no place behind it
    assert_int_equal(delivered_count, 7);
    check_frame(&delivered[6], 500, 1000);
    struct what other = acknowledgement(800, 9);
    other.port++;
    other.hash = 0;
    give(other);
    flush();
    assert_int_equal(delivered_count, 9);
    for (unsigned i = 0; i < delivered_count; i++)
        assert_int_equal(delivered[i].segments, 1);
    for (unsigned i = 0; i < 2 * COALESCE_SEGMENTS; i++)
        give(acknowledgement(1000 + i, 9));
    flush();
    assert_int_equal(delivered_count, 11);
}

static void check_apart(struct what second)
{
    reset(NULL);
    give(usual(0, 1000));
    give(second);
    flush();
    assert_int_equal(delivered_count, 2);
    check_frame(&delivered[0], 0, 1000); // first
    assert_int_equal(delivered[0].segments, 1);
}

static void test_apart(void **state)
{
    struct what w = usual(1001, 1000); // a gap

    (void)state;
    check_apart(w);
    check_apart(usual(999, 1000)); // overlaps
    check_apart(usual(0, 1000));   // again
    w = usual(1000, 1000);
    w.flags |= FIN;
    check_apart(w);
    w = usual(1000, 1000);
    w.flags = ACK | 0x40; // ECE
    check_apart(w);
    w = usual(1000, 1000);
    w.tos = 3; // congestion experienced
    check_apart(w);
    w = usual(1000, 1000);
    w.acknowledged = 76; // older
    check_apart(w);
    w = usual(1000, 1000);
    w.option = 0x0101050a; // SACK
    check_apart(w);
    w = usual(1000, 0); // nothing but an acknowledgement
    check_apart(w);
    w = usual(1000, 900);
    w.padding = 4;
    check_apart(w);
    w = usual(1000, 1000);
    w.csum = 0;
    check_apart(w);
    w.csum = NIC_CSUM_IP_OK;
    check_apart(w);
    w.csum = NIC_CSUM_L4_OK;
    w.wrong_ip = true;
    check_apart(w);
    assert_int_equal(delivered[1].csum, NIC_CSUM_L4_OK);
}

// The checksum of IPv4 needs no host.
static void test_ip_checksum(void **state)
{
    struct what w = usual(0, 1000);

    (void)state;
    w.csum = NIC_CSUM_L4_OK;
    give(w);
    w.sequence = 1000;
    give(w);
    flush();
    assert_int_equal(delivered_count, 1);
    assert_int_equal(delivered[0].csum, VOUCHED);
    w.sequence = 5000;
    w.payload = 0;
    give(w); // also for what is not put together
    assert_int_equal(delivered[1].csum, VOUCHED);
}

// Whose fragment it is only reassembly can tell: it does not wait.
static void test_fragment(void **state)
{
    struct what w = usual(1000, 1000);

    (void)state;
    w.fragment = 0x2000;
    give(usual(0, 1000));
    give(w);
    assert_int_equal(delivered_count, 1);
    check_frame(&delivered[0], 1000, 1000);
    flush();
    check_frame(&delivered[1], 0, 1000);
}

// What is not TCP waits for nothing and stays as it is; its IPv4 header is judged all the same.
static void test_other_protocols(void **state)
{
    (void)state;
    give(usual(0, 1000));
    for (unsigned n = 0; n < 4; n++) {
        struct what w = usual(1000, 20);
        w.protocol = 17;
        w.csum = NIC_CSUM_L4_OK;
        w.ip6 = n & 1;
        w.wrong_ip = n & 2;
        give(w);
        assert_int_equal(delivered_count, n + 1);
        assert_int_equal(delivered[n].csum, NIC_CSUM_L4_OK | (n == 0 ? NIC_CSUM_IP_OK : 0));
        assert_int_equal(delivered[n].len, w.ip6 ? 14 + 40 + 32 + 20 : 14 + 20 + 32 + 20);
        assert_memory_equal(delivered[n].bytes, buffers[tokens_out - 1], delivered[n].len);
    }
    flush();
    check_frame(&delivered[4], 0, 1000);
}

static void test_connections(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 10; i++) {
        for (uint16_t n = 0; n < 4; n++) {
            struct what w = usual(i * 1000, 1000);
            w.port = (uint16_t)(3000 + n);
            w.hash = 1 + n;
            give(w);
        }
    }
    flush();
    assert_int_equal(delivered_count, 4);
    for (unsigned n = 0; n < 4; n++)
        check_frame(&delivered[n], 0, 10000);
}

// Two that share a place are not mixed, also if their numbers would fit.
static void test_same_place(void **state)
{
    struct what other = usual(1000, 1000), version6 = usual(2000, 1000);

    (void)state;
    other.port = 2000;
    other.hash = version6.hash = 16;
    version6.ip6 = true;
    struct what first = usual(0, 1000);
    first.hash = 8;
    give(first);
    give(other);
    give(version6);
    flush();
    assert_int_equal(delivered_count, 3);
    check_frame(&delivered[0], 0, 1000);
    check_frame(&delivered[1], 1000, 1000);
    check_frame(&delivered[2], 2000, 1000);
}

static void test_limits(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 100; i++)
        give(usual(i * 10, 10));
    flush();
    assert_int_equal(delivered_count, 3);
    check_frame(&delivered[0], 0, COALESCE_SEGMENTS * 10);
    reset(NULL);
    for (uint32_t i = 0; i < 10; i++)
        give(usual(i * 8948, 8948));
    flush();
    assert_int_equal(delivered_count, 2);
    check_frame(&delivered[0], 0, 7 * 8948);
}

// What the host put together already goes behind what waits.
static void test_behind_what_waits(void **state)
{
    static uint8_t bytes[3000];
    struct what w = usual(1000, 2000);
    uint32_t len = make(bytes, &w);
    struct nic_rx_piece pieces[2] = {nic_rx_piece(bytes, 1000),
                                     nic_rx_piece(bytes + 1000, len - 1000)};
    struct nic_frame frame = {.pieces = pieces,
                              .count = 2,
                              .len = len,
                              .csum = VOUCHED,
                              .segments = 2,
                              .token = (void *)1};

    (void)state;
    give(usual(0, 1000));
    buffers[tokens_out++] = NULL;
    coalesce_receive(&c, &frame);
    assert_int_equal(delivered_count, 2);
    check_frame(&delivered[0], 0, 1000);
    check_frame(&delivered[1], 1000, 2000);
    assert_int_equal(delivered[1].segments, 2);
    flush();
}

// ---- Anything ----

#define CONNECTIONS 12

static void test_random(void **state)
{
    uint32_t sent[CONNECTIONS] = {0}, arrived[CONNECTIONS] = {0};

    srand(7);
    for (unsigned round = 0; round < 300; round++) {
        reset(state);
        for (unsigned n = (unsigned)rand() % 64; n--;) {
            unsigned i = (unsigned)rand() % CONNECTIONS;
            if (rand() % 3)
                i = i % 3;
            struct what w = usual(sent[i], rand() % 4 ? 500 : (uint32_t)rand() % 900);
            w.port = (uint16_t)(100 + i);
            w.ip6 = i & 1;
            w.plain_header = i & 2;
            w.hash = i & 4 ? i * 3 : 0;
            w.flags |= rand() % 10 ? 0 : PSH;
            w.csum = rand() % 10 ? VOUCHED : (uint8_t)(rand() % VOUCHED);
            w.acknowledged = 1000 + round;
            w.padding = w.payload < 6 ? 6 : 0;
            sent[i] += w.payload;
            give(w);
        }
        flush();
        for (unsigned d = 0; d < delivered_count; d++) {
            const uint8_t *f = delivered[d].bytes, *tcp = f + tcp_at(f);
            unsigned i = get16(tcp) - 100;
            uint32_t header = (uint32_t)(tcp - f) + (tcp[12] >> 4) * 4u;
            uint32_t payload = (tcp_at(f) == 34 ? get16(f + 16) + 14 : get16(f + 18) + 54) - header;
            assert_true(i < CONNECTIONS);
            assert_int_equal(get32(tcp + 4), arrived[i]);
            for (uint32_t b = 0; b < payload; b++)
                assert_int_equal(f[header + b], byte_at((uint16_t)(100 + i), arrived[i] + b));
            arrived[i] += payload;
        }
        assert_memory_equal(sent, arrived, sizeof(sent));
    }
    assert_true(c.frames > 0);
}

// Headers that end early or say what is not so.
static void test_garbage(void **state)
{
    static uint8_t bytes[200];
    struct what w = usual(0, 20);

    srand(3);
    for (unsigned n = 0; n < 40000; n++) {
        if (n % 1000 == 0)
            reset(state);
        w.ip6 = n & 1;
        w.sequence = n * 20;
        uint32_t len = make(bytes, &w);
        for (unsigned changes = (unsigned)rand() % 4; changes--;)
            bytes[12 + rand() % 80] = (uint8_t)rand();
        if (rand() % 2)
            len = 14 + (uint32_t)rand() % (len - 13);
        uint8_t *exact = malloc(len);
        memcpy(exact, bytes, len);
        buffers[tokens_out] = exact;
        struct nic_rx_piece piece = nic_rx_piece(exact, len);
        struct nic_frame frame = {.pieces = &piece,
                                  .count = 1,
                                  .len = len,
                                  .csum = VOUCHED,
                                  .segments = 1,
                                  .token = (void *)(uintptr_t)tokens_out++};
        coalesce_receive(&c, &frame);
        if (rand() % 8 == 0)
            flush();
    }
    flush();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_in_a_row, reset),
        cmocka_unit_test_setup(test_ip6, reset),
        cmocka_unit_test_setup(test_without_timestamps, reset),
        cmocka_unit_test_setup(test_alone, reset),
        cmocka_unit_test_setup(test_acknowledgements, reset),
        cmocka_unit_test_setup(test_push_and_short_end_it, reset),
        cmocka_unit_test_setup(test_apart, reset),
        cmocka_unit_test_setup(test_fragment, reset),
        cmocka_unit_test_setup(test_ip_checksum, reset),
        cmocka_unit_test_setup(test_other_protocols, reset),
        cmocka_unit_test_setup(test_connections, reset),
        cmocka_unit_test_setup(test_same_place, reset),
        cmocka_unit_test_setup(test_limits, reset),
        cmocka_unit_test_setup(test_behind_what_waits, reset),
        cmocka_unit_test_setup(test_random, reset),
        cmocka_unit_test_setup_teardown(test_garbage, reset, reset),
    };
    return cmocka_run_group_tests_name("coalesce", tests, NULL, NULL);
}
