// SPDX-License-Identifier: BSD-2-Clause
// The network stack as the rest of the machine sees it: kernel/main.c starts it, whoever speaks with the
// host about addresses asks for them and sets them here.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "drivers/ic/ic.h"

// Starts the stacks of all cores: lwIP, services and, on core 0, netvsc's client and DHCP. Core 0,
// before vmbus_start().
// When an address is there it announces "ready: iperf3 on <ip> port <port>", once for IPv4 and once
// for IPv6.
void net_start(void);

#define NET_DNS 6        // servers that are remembered for a NIC
#define NET_ADDRESSES6 4 // IPv6 addresses of a NIC
#define NET_STATIC6 3    // that can be given to it: one is of the link

struct net_address {
    bool ip6;
    uint8_t bytes[16]; // IPv4: the first four
};

struct net_nic_report {
    uint8_t instance[16]; // the VMBus device's, as on the wire
    uint8_t mac[6];
    char name[8]; // "nic0"
    bool up;      // its link
    bool dhcp;    // the IPv4 address comes from DHCP, if there is one yet
    uint16_t mtu;
    uint32_t address, netmask, gateway; // network byte order, 0: none
    unsigned count6;
    struct {
        uint8_t bytes[16];
        uint8_t prefix;         // bits
    } address6[NET_ADDRESSES6]; // that can be used now
    uint8_t gateway6[16];       // all zero: none
    unsigned dns_count;
    struct net_address dns[NET_DNS]; // as DHCP, routers or net_configure() said
};

// What there is of all NICs, in the order of their names; at most `max`. Returns how many. Core 0, from its
// loop or a fiber.
unsigned net_report(struct net_nic_report *out, unsigned max);

struct net_nic_settings {
    bool dhcp;                          // IPv4 from DHCP, else
    uint32_t address, netmask, gateway; // network byte order; address 0: no IPv4; gateway 0: none
    bool keep6;                         // IPv6 stays as it is, the next three are not looked at
    unsigned count6;                    // IPv6 addresses by hand, beside what routers announce
    uint8_t address6[NET_STATIC6][16];  // with a prefix of 64 bits
    uint8_t gateway6[16];               // all zero: what routers announce
    unsigned dns_count; // only told again by net_report(): nothing here resolves names
    struct net_address dns[NET_DNS];
};

// Gives the NIC other addresses, on all cores, until it goes; what was set here before and is not named
// is taken away. Connections of addresses that go are reset. Nothing is changed on an error. Core 0, from
// its loop or a fiber. 0, or -ENODEV (no such NIC), -EINVAL (no addresses of hosts, or the netmask is none
// of 1 to 30 bits), -EOPNOTSUPP (IPv6 for a NIC that has it switched off), -ENOMEM.
int net_configure(const uint8_t instance[16], const struct net_nic_settings *settings);

// The machine was stopped for a while, or is somewhere else now: all NICs make sure that their addresses
// are still good (DHCP's INIT-REBOOT, gratuitous ARP, IPv6 routers and duplicates), without giving them up
// meanwhile. missed: for how long lwIP's timers did not run, in units of time_now(), whose clock ran on or
// stood still meanwhile; leases grow older by that. Core 0, from its loop or a fiber.
void net_revalidate(uint64_t missed, bool clock_ran);

// What the host's management asks of the stack (manage.c). After net_start().
extern const struct ic_client net_ic_client;
