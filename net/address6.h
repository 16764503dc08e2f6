// SPDX-License-Identifier: BSD-2-Clause
// The IPv6 addresses of an interface: one from its MAC for the link, those that routers announce
// prefixes for, or the one that the configuration names. Core 0.
#pragma once

#include <stdint.h>

struct interface;
struct netif;

// Once per core, before there are interfaces.
void address6_init(void);

// For netif_add()'s set-up function: how the interface sends IPv6.
void address6_setup(struct netif *netif);

// Gives an interface that is up the addresses of its settings.
void address6_start(struct netif *netif);

// The interface has these addresses by hand (NET_STATIC6 at most), and no others; those from routers stay
// unless there is no room. Its gateway may have changed, too.
void address6_by_hand(struct interface *interface, const uint8_t addresses[][16], unsigned count);
