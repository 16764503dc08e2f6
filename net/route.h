// SPDX-License-Identifier: BSD-2-Clause
// By which NIC a packet leaves. What answers leaves by the NIC that it answers on, and an address of ours
// is only spoken from the NIC that has it (the strong host model); who opens a connection asks here.
#pragma once

#include "lwip/ip_addr.h"

struct netif;

// The way to an address for a connection from here: an interface that is up and on its link, else the one
// whose gateway is to be asked; of several the one with the least metric, then the least number. NULL:
// none leads there. Looks at the calling core's interfaces.
struct netif *route_to(const ip_addr_t *destination);

// lwIP remembers one way to each IPv6 destination, by whatever NIC it was found. If that is not this one
// it is forgotten, and found anew. To be called before a packet goes out by `netif`.
void route_forget_other6(const struct netif *netif, const ip6_addr_t *destination);
