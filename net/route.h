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
