// SPDX-License-Identifier: BSD-2-Clause
// See flow.h. A bucket's new owner is told by a message before anything is handed over to it, and
// messages from one core to another stay in order: nothing can arrive there before it knows.
#include "net/flow.h"

#include <string.h>

#include "kernel/core.h"
#include "kernel/message.h"
#include "lwip/ip.h"
#include "lwip/prot/ip.h"
#include "lwip/tcp.h"
#include "net/cross.h"
#include "net/interface.h"
#include "net/steer.h"

#define NO_BUCKET NIC_TABLE_SIZE // the host does not sort such flows

struct gift {
    const struct nic *nic; // only compared
    uint64_t buckets[2];
};

static PERCORE uint32_t serials;
static PERCORE uint8_t bucket_slot; // which of a pcb's extra arguments knows its bucket

void flow_join(struct interface *interface)
{
    struct flows *flows = &interface->flows;
    flows->spread = nic_info(interface->nic)->channels > 1;
    flows->serial = ++serials;
    for (unsigned b = 0; b < NIC_TABLE_SIZE; b++)
        flows->owner[b] = (uint8_t)nic_flow_core(interface->nic, NIC_TABLE_SIZE + b);
    steer_join(interface);
}

// ---- Packets ----

static unsigned hash_bucket(const struct interface *interface, const struct nic_flow *flow)
{
    uint32_t hash = nic_flow_hash(interface->nic, flow);
    return hash ? hash % NIC_TABLE_SIZE : NO_BUCKET;
}

// Hashing takes longer than all the rest; most packets are of the flows that were seen last.
static unsigned bucket_of(struct interface *interface, const struct nic_flow *flow)
{
    uint32_t word;
    memcpy(&word, flow->src + (flow->ip6 ? 12 : 0), sizeof(word));
    word ^= (uint32_t)flow->src_port << 16 ^ flow->dst_port;
    unsigned at = (word * 0x9e3779b1u) >> 26;
    _Static_assert(FLOW_CACHE == 64, "26 bits of 32 are shifted out");
    struct flows *flows = &interface->flows;
    if (memcmp(&flows->cache[at].flow, flow, sizeof(*flow)) != 0) {
        flows->cache[at].flow = *flow;
        flows->cache[at].bucket = (uint8_t)hash_bucket(interface, flow);
    }
    return flows->cache[at].bucket;
}

void flow_hand_over(struct interface *interface, unsigned core, struct pbuf *p)
{
    bool sent = cross_send(interface, core, p);
    *(sent ? &interface->flows.handed_over : &interface->flows.lost) += 1;
    pbuf_free(p);
}

bool flow_elsewhere(struct interface *interface, struct pbuf *p, const struct nic_flow *flow)
{
    if (!interface->flows.spread)
        return false;
    unsigned bucket = bucket_of(interface, flow);
    if (bucket == NO_BUCKET || interface->flows.owner[bucket] == core_id())
        return false;
    flow_hand_over(interface, interface->flows.owner[bucket], p);
    return true;
}

// ---- Connections ----

static void set_address(uint8_t bytes[16], const ip_addr_t *address)
{
    if (IP_IS_V6(address))
        memcpy(bytes, ip_2_ip6(address)->addr, 16);
    else
        memcpy(bytes, &ip_2_ip4(address)->addr, 4);
}

static struct nic_flow flow_of(uint8_t protocol, const ip_addr_t *remote, uint16_t remote_port,
                               const ip_addr_t *local, uint16_t local_port)
{
    struct nic_flow flow = {.ip6 = IP_IS_V6(remote),
                            .protocol = protocol,
                            .src_port = lwip_htons(remote_port),
                            .dst_port = lwip_htons(local_port)};
    set_address(flow.src, remote);
    set_address(flow.dst, local);
    return flow;
}

bool flow_comes_here(struct interface *interface, const ip_addr_t *remote, uint16_t remote_port,
                     const ip_addr_t *local, uint16_t local_port)
{
    if (!interface->flows.spread)
        return true;
    struct nic_flow flow = flow_of(IP_PROTO_TCP, remote, remote_port, local, local_port);
    unsigned bucket = hash_bucket(interface, &flow);
    if (bucket == NO_BUCKET)
        return core_id() == 0;
    return interface->flows.owner[bucket] == core_id();
}

// Something that lives in a bucket of this core. Returns what flow_release() wants: 0 if the NIC sorts
// no such flows.
static uintptr_t hold(struct interface *interface, const struct nic_flow *flow)
{
    unsigned bucket = interface->flows.spread ? bucket_of(interface, flow) : NO_BUCKET;
    if (bucket == NO_BUCKET)
        return 0;
    interface->flows.live[bucket]++;
    steer_opened(interface);
    return (uintptr_t)interface->flows.serial * NIC_TABLE_SIZE + bucket;
}

void flow_release(uintptr_t hold)
{
    if (!hold)
        return;
    struct interface *i = interface_first();
    while (i && i->flows.serial != hold / NIC_TABLE_SIZE)
        i = i->next;
    if (i)
        i->flows.live[hold % NIC_TABLE_SIZE]--;
    steer_closed(i);
}

uintptr_t flow_hold_udp(struct interface *interface, const ip_addr_t *remote, uint16_t remote_port,
                        const ip_addr_t *local, uint16_t local_port)
{
    struct nic_flow flow = flow_of(IP_PROTO_UDP, remote, remote_port, local, local_port);
    return hold(interface, &flow);
}

static void connection_gone(u8_t id, void *data)
{
    (void)id;
    flow_release((uintptr_t)data);
}

static err_t connection_came(u8_t id, struct tcp_pcb_listen *listener, struct tcp_pcb *pcb)
{
    (void)id;
    (void)listener;
    // Two NICs may have the same address, and the same peer: the connection is of this one only.
    tcp_bind_netif(pcb, ip_current_input_netif());
    flow_connected(ip_current_input_netif()->state, pcb);
    return ERR_OK;
}

static const struct tcp_ext_arg_callbacks callbacks = {.destroy = connection_gone,
                                                       .passive_open = connection_came};

void flow_connected(struct interface *interface, struct tcp_pcb *pcb)
{
    struct nic_flow flow =
        flow_of(IP_PROTO_TCP, &pcb->remote_ip, pcb->remote_port, &pcb->local_ip, pcb->local_port);
    uintptr_t mark = hold(interface, &flow);
    if (!mark)
        return;
    tcp_ext_arg_set(pcb, bucket_slot, (void *)mark);
    tcp_ext_arg_set_callbacks(pcb, bucket_slot, &callbacks);
}

void flow_listens(struct tcp_pcb *pcb)
{
    tcp_ext_arg_set_callbacks(pcb, bucket_slot, &callbacks);
}

void flow_start(void)
{
    bucket_slot = tcp_ext_arg_alloc_id();
}

unsigned flow_connections(const struct interface *interface)
{
    unsigned sum = 0;
    for (unsigned b = 0; b < NIC_TABLE_SIZE; b++)
        sum += interface->flows.live[b];
    return sum;
}

// ---- Buckets change hands ----

static bool has(const uint64_t buckets[2], unsigned b)
{
    return buckets[b / 64] >> b % 64 & 1;
}

static void set_owner(struct interface *interface, const uint64_t buckets[2], unsigned core)
{
    for (unsigned b = 0; b < NIC_TABLE_SIZE; b++)
        if (has(buckets, b))
            interface->flows.owner[b] = (uint8_t)core;
}

static void take(const void *data)
{
    const struct gift *gift = data;
    struct interface *interface = interface_of(gift->nic);
    if (interface) { // else it goes, and with it all of its buckets
        set_owner(interface, gift->buckets, core_id());
        steer_taken(interface);
    }
}

bool flow_give(struct interface *interface, unsigned core, const uint64_t buckets[2])
{
    struct gift gift = {.nic = interface->nic, .buckets = {buckets[0], buckets[1]}};
    if (!message_post(core, take, &gift, sizeof(gift)))
        return false;
    set_owner(interface, buckets, core);
    steer_changed(interface);
    return true;
}
