// SPDX-License-Identifier: BSD-2-Clause
// The network stack as the kernel's main() sees it.
#pragma once

// Starts the stack on core 0: lwIP, netvsc's client, DHCP, services. Call before vmbus_start().
// When the first address is there it announces "ready: iperf3 on <ip> port <port>".
void net_start(void);
