// SPDX-License-Identifier: BSD-2-Clause
// What is taken of IPv6 and what is not: each rule broken in one place of a packet that is sound
// otherwise; every truncation and many damages of sound packets under the sanitizers.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "net/ip6_check.h"

#define NONE 0xffff // no byte is changed

struct packet {
    uint8_t bytes[256];
    size_t len;
};

static void append(struct packet *p, const void *bytes, size_t len)
{
    memcpy(p->bytes + p->len, bytes, len);
    p->len += len;
    p->bytes[4] = (uint8_t)((p->len - 40) >> 8);
    p->bytes[5] = (uint8_t)(p->len - 40);
}

#define APPEND(p, ...)                                                                             \
    do {                                                                                           \
        const uint8_t append_bytes[] = {__VA_ARGS__};                                              \
        append(p, append_bytes, sizeof(append_bytes));                                             \
    } while (0)

// From fe80::1 to fe80::2.
static struct packet header(uint8_t next, uint8_t hops)
{
    struct packet p = {.len = 40};
    p.bytes[0] = 0x60;
    p.bytes[6] = next;
    p.bytes[7] = hops;
    p.bytes[8] = p.bytes[24] = 0xfe;
    p.bytes[9] = p.bytes[25] = 0x80;
    p.bytes[23] = 1;
    p.bytes[39] = 2;
    return p;
}

#define TARGET 0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2
#define MAC 2, 0, 0, 0, 0, 1

static struct packet solicitation(void)
{
    struct packet p = header(58, 255);
    APPEND(&p, 135, 0, 0, 0, 0, 0, 0, 0, TARGET, 1, 1, MAC);
    return p;
}

static struct packet advertisement(void)
{
    struct packet p = header(58, 255);
    APPEND(&p, 136, 0, 0, 0, 0x60, 0, 0, 0, TARGET, 2, 1, MAC);
    return p;
}

static struct packet router(void)
{
    struct packet p = header(58, 255);
    APPEND(&p, 134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0x75, 0x30, 0, 0, 0, 0);
    APPEND(&p, 1, 1, MAC);
    APPEND(&p, 3, 4, 64, 0xc0, 0, 0, 14, 16, 0, 0, 7, 8, 0, 0, 0, 0, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0,
           0, 0, 0, 0, 0, 0, 0, 0);
    return p;
}

static struct packet too_big(uint32_t mtu)
{
    struct packet p = header(58, 64), inner = header(6, 64);
    APPEND(&p, 2, 0, 0, 0, 0, 0, (uint8_t)(mtu >> 8), (uint8_t)mtu);
    append(&p, inner.bytes, 40);
    return p;
}

static struct packet query(void)
{
    struct packet p = header(0, 1);
    APPEND(&p, 58, 0, 5, 2, 0, 0, 1, 0); // router alert
    APPEND(&p, 130, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    return p;
}

static struct packet echo(void)
{
    struct packet p = header(58, 64);
    APPEND(&p, 128, 0, 0, 0, 0, 1, 0, 1);
    return p;
}

// A fragment with `bytes` of payload.
static struct packet fragment(uint16_t offset, bool more, unsigned bytes)
{
    struct packet p = header(44, 64);
    uint16_t word = offset | more;
    APPEND(&p, 58, 0, (uint8_t)(word >> 8), (uint8_t)word, 0, 0, 0, 7);
    static const uint8_t payload[64] = {128};
    append(&p, payload, bytes);
    return p;
}

static enum ip6_verdict check(const struct packet *p)
{
    // Exactly sized, so that the sanitizer sees a byte too much.
    uint8_t *exact = malloc(p->len);
    memcpy(exact, p->bytes, p->len);
    enum ip6_verdict verdict = ip6_check(exact, p->len, p->len, false).verdict;
    free(exact);
    return verdict;
}

// The packet with one byte changed.
static enum ip6_verdict check_with(struct packet p, size_t at, uint8_t value)
{
    if (at != NONE)
        p.bytes[at] = value;
    return check(&p);
}

static void test_sound_packets(void **state)
{
    (void)state;
    struct packet p = header(6, 64);
    assert_int_equal(check(&p), IP6_GOOD);
    p = header(17, 64);
    assert_int_equal(check(&p), IP6_GOOD);
    p = header(59, 64);
    assert_int_equal(check(&p), IP6_GOOD);
    p = header(132, 64); // SCTP
    assert_int_equal(check(&p), IP6_BAD);
    assert_int_equal(check_with(solicitation(), NONE, 0), IP6_GOOD);
    assert_int_equal(check_with(advertisement(), NONE, 0), IP6_NEIGHBOR);
    assert_int_equal(check_with(router(), NONE, 0), IP6_GOOD);
    assert_int_equal(check_with(too_big(1280), NONE, 0), IP6_TOO_BIG);
    assert_int_equal(check_with(query(), NONE, 0), IP6_GOOD);
    assert_int_equal(check_with(echo(), NONE, 0), IP6_GOOD);
    // The link has padded it.
    p = echo();
    p.len += 12;
    assert_int_equal(check(&p), IP6_GOOD);
}

static void test_neighbor_discovery(void **state)
{
    (void)state;
    enum { ICMP = 40 };
    const struct {
        struct packet packet;
        size_t at;
        uint8_t value;
    } bad[] = {
        {solicitation(), 7, 254},          // came through a router
        {solicitation(), ICMP + 1, 1},     // code
        {solicitation(), ICMP + 8, 0xff},  // multicast target
        {solicitation(), ICMP + 24, 2},    // not the sender's address
        {solicitation(), ICMP + 25, 0},    // an option of no length
        {solicitation(), ICMP + 25, 2},    // an option beyond the end
        {solicitation(), ICMP + 26, 3},    // a group's MAC
        {solicitation(), 5, 24 + 2},       // half of the option
        {solicitation(), 5, 24},           // no option, though the sender is known
        {solicitation(), 5, 23},           // half of the target
        {advertisement(), 7, 64},          //
        {advertisement(), 24, 0xff},       // solicited, to all
        {advertisement(), ICMP + 24, 1},   //
        {advertisement(), ICMP + 25, 0},   //
        {advertisement(), 5, 24 + 2},      //
        {advertisement(), ICMP + 8, 0xff}, //
        {router(), 7, 64},                 //
        {router(), 8, 0x20},               // not a router of this link
        {router(), ICMP + 8, 1},           // 4.6 hours reachable
        {router(), ICMP + 17, 0},          //
        {router(), ICMP + 17, 2},          //
        {router(), ICMP + 18, 1},          //
        {router(), ICMP + 25, 3},          // a prefix option too short
        {router(), ICMP + 24 + 16, 0xff},  // a prefix of groups
        {router(), ICMP, 137},             // a redirect
        {router(), ICMP, 133},             // a solicitation of routers
        {query(), 7, 2},                   // from beyond the link
        {query(), 8, 0x20},                //
        {too_big(1279), NONE, 0},          //
        {too_big(1280), ICMP + 8, 0x45},   // about an IPv4 packet
        {too_big(1280), 5, 47},            // cut off
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(check_with(bad[i].packet, bad[i].at, bad[i].value), IP6_BAD);
    // Without an option an advertisement says that the neighbour is there; from the unspecified
    // address a solicitation asks whether an address is free.
    assert_int_equal(check_with(advertisement(), 5, 24), IP6_NEIGHBOR);
    struct packet p = solicitation();
    memset(p.bytes + 8, 0, 16);
    assert_int_equal(check_with(p, 5, 24), IP6_GOOD);
}

static void test_headers(void **state)
{
    (void)state;
    assert_int_equal(check_with(echo(), 0, 0x45), IP6_BAD);
    assert_int_equal(check_with(echo(), 5, 9), IP6_BAD);    // longer than the frame
    assert_int_equal(check_with(echo(), 5, 7), IP6_BAD);    // no whole ICMP header
    assert_int_equal(check_with(query(), 41, 9), IP6_BAD);  // longer than the packet
    assert_int_equal(check_with(query(), 43, 5), IP6_BAD);  // an option beyond its header
    assert_int_equal(check_with(query(), 40, 0), IP6_BAD);  // hop-by-hop, not first
    assert_int_equal(check_with(query(), 40, 43), IP6_BAD); // routing
    struct packet p = header(60, 64);
    APPEND(&p, 6, 0, 1, 4, 0, 0, 0, 0);
    struct ip6_found found = ip6_check(p.bytes, p.len, p.len, false);
    assert_int_equal(found.verdict, IP6_GOOD);
    assert_int_equal(found.protocol, 6);
    assert_int_equal(found.offset, 48);
    // Headers that lie only partly in the first piece of memory.
    assert_int_equal(ip6_check(p.bytes, 44, p.len, false).verdict, IP6_BAD);
    p = solicitation();
    assert_int_equal(ip6_check(p.bytes, p.len - 1, p.len, false).verdict, IP6_BAD);
}

static void test_fragments(void **state)
{
    (void)state;
    struct packet p = fragment(0, true, 16);
    struct ip6_found found = ip6_check(p.bytes, p.len, p.len, false);
    assert_int_equal(found.verdict, IP6_FRAGMENT);
    assert_int_equal(found.offset, 40);
    assert_int_equal(check_with(fragment(16, false, 13), NONE, 0), IP6_FRAGMENT);
    assert_int_equal(check_with(fragment(16, true, 13), NONE, 0), IP6_BAD); // not of 8 bytes
    assert_int_equal(check_with(fragment(16, false, 0), NONE, 0), IP6_BAD);
    // So long that, put together, it would not fit in a pbuf with its headers.
    assert_int_equal(check_with(fragment(65416, false, 15), NONE, 0), IP6_FRAGMENT);
    assert_int_equal(check_with(fragment(65416, false, 16), NONE, 0), IP6_BAD);
    // Whole, but with a fragment header: as without, except for neighbour discovery.
    assert_int_equal(check_with(fragment(0, false, 16), NONE, 0), IP6_GOOD);
    assert_int_equal(check_with(fragment(0, false, 16), 48, 134), IP6_BAD);
    // A fragment within what came in fragments.
    p = fragment(0, true, 16);
    assert_int_equal(ip6_check(p.bytes, p.len, p.len, true).verdict, IP6_BAD);
    p = solicitation();
    assert_int_equal(ip6_check(p.bytes, p.len, p.len, true).verdict, IP6_BAD);
    p = echo();
    assert_int_equal(ip6_check(p.bytes, p.len, p.len, true).verdict, IP6_GOOD);
}

static void test_damage(void **state)
{
    (void)state;
    const struct packet packets[] = {solicitation(),       advertisement(), router(),
                                     too_big(1300),        query(),         echo(),
                                     fragment(8, true, 16)};
    srand(1);
    for (size_t i = 0; i < sizeof(packets) / sizeof(packets[0]); i++) {
        for (size_t len = 1; len < packets[i].len; len++) {
            struct packet p = packets[i];
            p.len = len;
            assert_int_equal(check(&p), IP6_BAD);
        }
        for (unsigned round = 0; round < 20000; round++) {
            struct packet p = packets[i];
            for (int n = rand() % 4; n >= 0; n--)
                p.bytes[(size_t)rand() % p.len] = (uint8_t)rand();
            struct ip6_found found = ip6_check(p.bytes, p.len, p.len, rand() % 2);
            assert_true(found.verdict == IP6_BAD || found.offset <= p.len);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sound_packets), cmocka_unit_test(test_neighbor_discovery),
        cmocka_unit_test(test_headers),       cmocka_unit_test(test_fragments),
        cmocka_unit_test(test_damage),
    };
    return cmocka_run_group_tests_name("ip6_check", tests, NULL, NULL);
}
