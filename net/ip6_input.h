// SPDX-License-Identifier: BSD-2-Clause
// What the other files of IPv6 need of ip6_input.c.
#pragma once

#include "lwip/ip6_addr.h"

struct netif;
struct pbuf;

// Gives lwIP a packet of our own making. Takes p.
void ip6_input_checked(struct pbuf *p, struct netif *netif);

// To this address no packet passes that is longer than `mtu`, 1280 or more. Any core, for itself.
void ip6_path_is_narrower(const ip6_addr_t *destination, u16_t mtu);

// Brings IPv6's part of the statistics into being. Core 0.
void ip6_input_start(void);
