// SPDX-License-Identifier: BSD-2-Clause
// The network stack as the kernel's main() sees it.
#pragma once

#include "drivers/ic/ic.h"

// Starts the stacks of all cores: lwIP, services and, on core 0, netvsc's client and DHCP. Core 0,
// before vmbus_start().
// When an address is there it announces "ready: iperf3 on <ip> port <port>", once for IPv4 and once
// for IPv6.
void net_start(void);

// What the host's management asks of the stack (manage.c). After net_start().
extern const struct ic_client net_ic_client;
