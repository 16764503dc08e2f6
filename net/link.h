// SPDX-License-Identifier: BSD-2-Clause
// The cable of a NIC. A short time without it changes nothing; when it is back it may lead somewhere
// else, so what is known of the network is asked for again, and used until there is an answer.
#pragma once

#include <stdbool.h>

struct interface;

// The link is up, or down. Every core.
void link_changed(struct interface *interface, bool up);

// Somebody announces an IPv6 address that we have. True: lwIP's neighbour discovery should
// know, because we have just asked. Core 0.
bool link_asked6(struct interface *interface);
