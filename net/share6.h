// SPDX-License-Identifier: BSD-2-Clause
// IPv6 of all cores. Core 0 has the addresses, asks whether they are free, and hears the neighbours and
// routers: their messages go to it wherever they arrive. What it learns it tells the others here.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define SHARED_ROUTERS 8

struct interface;
struct nic;

// What a router advertisement says that matters to a core that has its addresses from core 0: one
// prefix of it, or none.
struct router6 {
    const struct nic *nic; // only compared
    uint8_t router[8];     // second half of its address; the first is fe80::
    uint8_t prefix[8];     // on the link,
    uint32_t valid;        // for so many seconds
    uint16_t lifetime;     // seconds as a default router
    uint16_t mtu;          // 0: none was said
    uint8_t mac[6];        // all zero: none was said
    bool has_prefix;
};

struct shared6 {     // part of struct interface; core 0's
    uint64_t untold; // a bit for each core that does not know the addresses yet
    struct {
        struct router6 router;
        uint64_t when, untold;
    } routers[SHARED_ROUTERS]; // nic NULL: not in use
};

// An interface is there, or goes, on the calling core.
void share6_join(struct interface *interface);
void share6_leave(struct interface *interface);

// Its addresses changed. Core 0.
void share6_addresses(struct interface *interface);

// What a neighbour's advertisement (flags as in it) or solicitation says, for cores that wait for it or
// know it already. to_us: not to all nodes. Core 0.
void share6_neighbor(struct interface *interface, const uint8_t address[16], const uint8_t mac[6],
                     uint8_t flags, bool to_us);

// What a router's advertisement says. Core 0.
void share6_router(struct interface *interface, const struct router6 *router);

// The path to an address takes packets of `mtu` bytes at most. Any core.
void share6_path(struct interface *interface, const uint8_t destination[16], uint16_t mtu);
