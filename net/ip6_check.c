// SPDX-License-Identifier: BSD-2-Clause
// See ip6_check.h. The rules are those of RFC 8200 (headers, fragments), 4861 (neighbour discovery),
// 2710 (multicast listeners), 6980 (no discovery in fragments) and 8201 (path MTU), as far as lwIP
// does not check them itself.
#include "net/ip6_check.h"

#include <string.h>

#define HEADER 40
#define FRAGMENT_HEADER 8
#define MTU_MIN 1280
#define HOPS_LOCAL 255              // a packet that no router has forwarded
#define REACHABLE_TIME_MAX 3600000u // ms

// lwIP must be able to put a datagram together in a pbuf of 65535 bytes at most, with its header and
// what stood before the fragment header.
#define BEFORE_FRAGMENT_MAX (HEADER + 64)
#define FRAGMENT_END_MAX (UINT16_MAX - BEFORE_FRAGMENT_MAX)

enum next_header {
    NEXT_HOP_BY_HOP = 0,
    NEXT_TCP = 6,
    NEXT_UDP = 17,
    NEXT_FRAGMENT = 44,
    NEXT_ICMP6 = 58,
    NEXT_NONE = 59,
    NEXT_DESTINATION = 60,
};

enum icmp6_type {
    ICMP6_TOO_BIG = 2,
    ICMP6_LISTENER_QUERY = 130,
    ICMP6_LISTENER_DONE = 132,
    ICMP6_ROUTER_ADVERTISEMENT = 134,
    ICMP6_NEIGHBOR_SOLICITATION = 135,
    ICMP6_NEIGHBOR_ADVERTISEMENT = 136,
    ICMP6_REDIRECT = 137,
};

enum nd_option { ND_SOURCE_ADDRESS = 1, ND_TARGET_ADDRESS = 2, ND_PREFIX = 3 };

static uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static bool is_any(const uint8_t *address)
{
    static const uint8_t any[16];
    return !memcmp(address, any, sizeof(any));
}

static bool is_link_local(const uint8_t *address)
{
    return address[0] == 0xfe && (address[1] & 0xc0) == 0x80;
}

// Neither multicast nor unspecified nor loopback.
static bool is_unicast(const uint8_t *address)
{
    static const uint8_t first[15];
    return address[0] != 0xff && (memcmp(address, first, sizeof(first)) != 0 || address[15] > 1);
}

// The options of a hop-by-hop or destination header: each within it.
static bool options_fit(const uint8_t *options, size_t len)
{
    for (size_t at = 0; at < len;) {
        if (options[at] == 0) { // a single byte of padding
            at++;
            continue;
        }
        if (len - at < 2 || options[at + 1] > len - at - 2)
            return false;
        at += 2u + options[at + 1];
    }
    return true;
}

// ---- Neighbour discovery ----

static bool nd_options_fit(const uint8_t *option, size_t len)
{
    while (len) {
        size_t bytes = len < 2 ? 0 : option[1] * 8u;
        if (!bytes || bytes > len)
            return false;
        option += bytes;
        len -= bytes;
    }
    return true;
}

// lwIP takes the first option for the link-layer address, whatever it is.
static bool begins_with_address(const uint8_t *option, size_t len, enum nd_option type)
{
    return len && option[0] == type && option[1] == 1 && !(option[2] & 1);
}

static bool solicitation_sound(const uint8_t *ip, const uint8_t *icmp, size_t len)
{
    if (len < 24 || !is_unicast(icmp + 8) || !nd_options_fit(icmp + 24, len - 24))
        return false;
    return is_any(ip + 8) || begins_with_address(icmp + 24, len - 24, ND_SOURCE_ADDRESS);
}

static bool advertisement_sound(const uint8_t *ip, const uint8_t *icmp, size_t len)
{
    if (len < 24 || !is_unicast(icmp + 8) || !nd_options_fit(icmp + 24, len - 24))
        return false;
    bool multicast = ip[24] == 0xff, solicited = icmp[4] & 0x40;
    if (multicast && solicited)
        return false;
    return len == 24 || begins_with_address(icmp + 24, len - 24, ND_TARGET_ADDRESS);
}

static bool router_sound(const uint8_t *ip, const uint8_t *icmp, size_t len)
{
    if (len < 16 || !is_link_local(ip + 8) || !nd_options_fit(icmp + 16, len - 16) ||
        get32(icmp + 8) > REACHABLE_TIME_MAX)
        return false;
    for (size_t at = 16; at < len; at += icmp[at + 1] * 8u) {
        if (icmp[at] == ND_PREFIX && (icmp[at + 1] != 4 || !is_unicast(icmp + at + 16)))
            return false;
        if (icmp[at] == ND_SOURCE_ADDRESS && (icmp[at + 1] != 1 || (icmp[at + 2] & 1)))
            return false;
    }
    return true;
}

// ---- ICMPv6 ----

// Types that are taken only in one piece.
static bool is_control(uint8_t type)
{
    return type == ICMP6_TOO_BIG || (type >= ICMP6_LISTENER_QUERY && type <= ICMP6_REDIRECT);
}

static enum ip6_verdict check_icmp6(const uint8_t *ip, const uint8_t *icmp, size_t have, size_t len,
                                    bool fragmented)
{
    if (have < 8)
        return IP6_BAD;
    if (!is_control(icmp[0]))
        return IP6_GOOD;
    if (fragmented || have < len || icmp[1] != 0)
        return IP6_BAD;
    bool sound = false;
    switch (icmp[0]) {
    case ICMP6_TOO_BIG:
        return len >= 8 + HEADER && icmp[8] >> 4 == 6 && get32(icmp + 4) >= MTU_MIN ? IP6_TOO_BIG
                                                                                    : IP6_BAD;
    case ICMP6_ROUTER_ADVERTISEMENT:
        sound = ip[7] == HOPS_LOCAL && router_sound(ip, icmp, len);
        break;
    case ICMP6_NEIGHBOR_SOLICITATION:
        sound = ip[7] == HOPS_LOCAL && solicitation_sound(ip, icmp, len);
        break;
    case ICMP6_NEIGHBOR_ADVERTISEMENT:
        return ip[7] == HOPS_LOCAL && advertisement_sound(ip, icmp, len) ? IP6_NEIGHBOR : IP6_BAD;
    default:
        // Multicast listeners: within the link only. Redirects are not followed, and solicitations of
        // routers are not for us.
        sound = icmp[0] <= ICMP6_LISTENER_DONE && ip[7] == 1 && is_link_local(ip + 8);
        break;
    }
    return sound ? IP6_GOOD : IP6_BAD;
}

// ---- Headers ----

static bool fragment_sound(const uint8_t *packet, size_t at, size_t end)
{
    if (end - at <= FRAGMENT_HEADER || at > BEFORE_FRAGMENT_MAX)
        return false;
    size_t payload = end - at - FRAGMENT_HEADER;
    uint16_t word = get16(packet + at + 2);
    bool more = word & 1;
    if (more && (end - HEADER) % 8)
        return false;
    return (word & 0xfff8u) + payload <= FRAGMENT_END_MAX;
}

struct ip6_found ip6_check(const uint8_t *packet, size_t have, size_t len, bool reassembled)
{
    struct ip6_found found = {.verdict = IP6_BAD, .offset = HEADER};
    if (have < HEADER || packet[0] >> 4 != 6)
        return found;
    size_t at = HEADER, end = HEADER + get16(packet + 4);
    if (end > len)
        return found;
    have = have < end ? have : end;
    uint8_t next = packet[6];
    bool first = true, fragmented = reassembled;
    while (next == NEXT_HOP_BY_HOP || next == NEXT_DESTINATION || next == NEXT_FRAGMENT) {
        if (have - at < 8 || (next == NEXT_HOP_BY_HOP && !first))
            return found;
        size_t bytes = next == NEXT_FRAGMENT ? FRAGMENT_HEADER : 8u * (1u + packet[at + 1]);
        if (bytes > have - at)
            return found;
        if (next == NEXT_FRAGMENT) {
            if (fragmented)
                return found;
            fragmented = true;
            if (get16(packet + at + 2) & 0xfff9u) {
                found.verdict = fragment_sound(packet, at, end) ? IP6_FRAGMENT : IP6_BAD;
                found.offset = (uint16_t)at;
                return found;
            }
        } else if (!options_fit(packet + at + 2, bytes - 2)) {
            return found;
        }
        next = packet[at];
        at += bytes;
        first = false;
    }
    found.protocol = next;
    found.offset = (uint16_t)at;
    if (next == NEXT_ICMP6)
        found.verdict = check_icmp6(packet, packet + at, have - at, end - at, fragmented);
    else if (next == NEXT_TCP || next == NEXT_UDP || next == NEXT_NONE)
        found.verdict = IP6_GOOD;
    return found;
}
