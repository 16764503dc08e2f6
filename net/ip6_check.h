// SPDX-License-Identifier: BSD-2-Clause
// What an IPv6 packet is, judged by its bytes alone, before lwIP reads it: lwIP believes too much of
// neighbour discovery's messages and of fragments. Called by ip6_input.c; knows nothing of lwIP.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum ip6_verdict {
    IP6_BAD,  // to be dropped: malformed, or what nobody honest sends to us, or not taken at all
    IP6_GOOD, // for lwIP
    IP6_FRAGMENT, // a sound fragment, its header at `offset`
    IP6_NEIGHBOR, // a sound neighbour advertisement, ICMPv6 header at `offset`
    IP6_TOO_BIG,  // a sound "packet too big" with an IPv6 header in it, ICMPv6 header at `offset`
};

struct ip6_found {
    enum ip6_verdict verdict;
    uint8_t protocol; // what the last header announces
    uint16_t offset;  // of what comes behind all extension headers, or of the fragment header
};

// Of the packet, which begins with its IPv6 header and is `len` bytes long, the first `have` are at
// `packet`. reassembled: it came in fragments.
struct ip6_found ip6_check(const uint8_t *packet, size_t have, size_t len, bool reassembled);
