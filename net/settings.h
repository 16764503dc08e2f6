// SPDX-License-Identifier: BSD-2-Clause
// What the interfaces of a NIC are configured with: dunlin.conf, what DHCP says, what the host asks for.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "kernel/config.h"
#include "net/net.h"
#include "net/router_dns.h"

#define DHCP_DNS 3

struct interface;

struct settings {             // part of struct interface
    struct nic_config config; // what is in force; only core 0's knows the addresses
    // The rest is core 0's.
    bool main;         // it has the addresses of [net]
    uint16_t dhcp_mtu; // option 26; 0: not said
    unsigned dhcp_dns_count, dns_count;
    uint32_t dhcp_dns[DHCP_DNS]; // network byte order
    struct router_dns router_dns;
    struct net_address dns[NET_DNS]; // of net_configure()
};

// Each core, once, before there are interfaces.
void settings_init(void);

// A new interface: what dunlin.conf says, and the MTU. Any core.
void settings_read(struct interface *interface);

// Gives an interface that is up its addresses, or begins to ask for them. Core 0.
void settings_apply(struct interface *interface);

// The interface goes: without a word to anybody, and without a look at other interfaces. Any core.
void settings_drop(struct interface *interface);
