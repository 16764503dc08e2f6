// SPDX-License-Identifier: BSD-2-Clause
// The cable of a NIC. A short time without it changes nothing; when it is back it may lead somewhere
// else, so what is known of the network is asked for again, and used until there is an answer.
#pragma once

#include <stdbool.h>

struct interface;
struct netif;

// Core 0, once.
void link_start(void);

// The link is up, or down. Every core.
void link_changed(struct interface *interface, bool up);

// Somebody announces an address that we have (index of netif's). True: lwIP's neighbour discovery should
// know, because we have just asked. Core 0.
bool link_asked6(struct interface *interface);
