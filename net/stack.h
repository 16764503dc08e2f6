// SPDX-License-Identifier: BSD-2-Clause
// Inside net/: what stack.c, netif.c and the services share. One instance of everything per core.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "drivers/netvsc/netvsc.h"

struct netif;
struct tcp_pcb;

// The NIC driver's client (netif.c).
extern const struct nic_client netif_nic_client;

// Brings the interfaces' part of the statistics into being. Core 0, from net_start().
void netif_start(void);

// An interface got its address: lets the services announce themselves. From netif.c.
void stack_address_up(const struct netif *netif);

// How many segments of a connection were sent more than once. The connection's core.
uint32_t stack_tcp_retransmits(const struct tcp_pcb *pcb);
