// SPDX-License-Identifier: BSD-2-Clause
// Whose flow a packet belongs to. The NIC's table sends each of its NIC_TABLE_SIZE buckets of flows to a
// core. Here every bucket has an owner, the core on which its flows live. Only the owner can give a
// bucket away, and only while nothing of its own lives in it; it may do so before the host's table
// says the same: what still arrives by the old one is handed on (cross.h).
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "drivers/netvsc/netvsc.h"
#include "lwip/ip_addr.h"
#include "lwip/pbuf.h"

#define FLOW_CACHE 64

struct interface;
struct netif;
struct tcp_pcb;

struct flows {                     // part of struct interface
    bool spread;                   // other cores have a channel of this NIC, too
    uint32_t serial;               // of the interface, never used again: connections may outlive it
    uint8_t owner[NIC_TABLE_SIZE]; // this core, or the one to which it last knew the bucket to go
    uint32_t live[NIC_TABLE_SIZE]; // how many connections live here
    struct {
        struct nic_flow flow; // all zero: unused
        uint8_t bucket;
    } cache[FLOW_CACHE];
    uint64_t handed_over, taken_over, lost; // packets; lost: could not be handed over
};

// The calling core, once: its connections are counted from now on.
void flow_start(void);

// An interface is there: its buckets belong to whom the host gives them.
void flow_join(struct interface *interface);

// A packet (p begins with the IP header) of this flow arrived. True: it was another core's, who has it
// now; p is freed.
bool flow_elsewhere(struct interface *interface, struct pbuf *p, const struct nic_flow *flow);

// Hands it to a core in any case. Frees p.
void flow_hand_over(struct interface *interface, unsigned core, struct pbuf *p);

// True if what comes back on a connection from here would arrive on this core. Ports in host order.
bool flow_comes_here(struct interface *interface, const ip_addr_t *remote, uint16_t remote_port,
                     const ip_addr_t *local, uint16_t local_port);

// Connections to be counted: an outgoing one; and all that a listening pcb will accept.
void flow_connected(struct interface *interface, struct tcp_pcb *pcb);
void flow_listens(struct tcp_pcb *pcb);

// For a service that remembers something of a UDP flow: keeps it on this core until flow_release() of
// the number that this returns. Ports in host order.
uintptr_t flow_hold_udp(struct interface *interface, const ip_addr_t *remote, uint16_t remote_port,
                        const ip_addr_t *local, uint16_t local_port);
void flow_release(uintptr_t hold);

// Makes another core the owner of these buckets (a bit for each), which must be this core's, without
// anything alive. False: it could not be told, they stay here.
bool flow_give(struct interface *interface, unsigned core, const uint64_t buckets[2]);

// How many connections live on that core. For statistics: may be of another core.
unsigned flow_connections(const struct interface *interface);
