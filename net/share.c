// SPDX-License-Identifier: BSD-2-Clause
// What the cores tell each other about an interface. Addresses are core 0's: it sends them to the
// others, again until each has them. Neighbours are learned where an ARP packet arrives (as a rule core
// 0: such frames have no flow to be hashed) and told to the others. Messages name an interface by its NIC; a core that has none ignores them.
#include <string.h>

#include "kernel/core.h"
#include "kernel/message.h"
#include "lwip/etharp.h"
#include "lwip/prot/iana.h"
#include "lwip/timeouts.h"
#include "net/interface.h"
#include "netif/ethernet.h"

#define RETRY 10 // ms, when there was no room for a message

// Of each NIC, by index. Written when an interface comes or goes.
static struct shared {
    uint64_t cores;               // that have an interface; atomic
    const struct interface *main; // core 0's
} shared[NIC_MAX];

struct addresses {
    const struct nic *nic;
    uint32_t address, mask, gateway;
    uint16_t mtu;
};

struct neighbour {
    const struct nic *nic;
    uint32_t address, target; // target: whom it spoke to
    uint8_t mac[6];
};

uint64_t share_cores(const struct interface *interface)
{
    return __atomic_load_n(&shared[interface->index].cores, __ATOMIC_ACQUIRE);
}

// ---- Addresses ----

static struct addresses addresses_of(const struct interface *interface)
{
    const struct netif *netif = &interface->netif;
    return (struct addresses){.nic = interface->nic,
                              .address = netif_ip4_addr(netif)->addr,
                              .mask = netif_ip4_netmask(netif)->addr,
                              .gateway = netif_ip4_gw(netif)->addr,
                              .mtu = interface->mtu};
}

static void set_addresses(struct interface *interface, const struct addresses *from)
{
    ip4_addr_t address = {from->address}, mask = {from->mask}, gateway = {from->gateway};
    interface_set_mtu(interface, from->mtu);
    netif_set_addr(&interface->netif, &address, &mask, &gateway);
}

static void take_addresses(const void *data)
{
    const struct addresses *addresses = data;
    struct interface *interface = interface_of(addresses->nic);
    if (interface)
        set_addresses(interface, addresses);
}

static void tell_addresses(void *arg)
{
    struct interface *interface = arg;
    struct addresses addresses = addresses_of(interface);
    for (unsigned core = 1; core < core_count(); core++) {
        uint64_t bit = 1ull << core;
        if ((interface->untold & bit) &&
            message_post(core, take_addresses, &addresses, sizeof(addresses)))
            interface->untold &= ~bit;
    }
    if (interface->untold)
        sys_timeout(RETRY, tell_addresses, interface);
}

void share_addresses(struct interface *interface)
{
    uint64_t all = core_count() == 64 ? UINT64_MAX : (1ull << core_count()) - 1;
    sys_untimeout(tell_addresses, interface);
    interface->untold = nic_info(interface->nic)->channels > 1 ? all & ~1ull : 0;
    tell_addresses(interface);
}

void share_join(struct interface *interface)
{
    struct shared *s = &shared[interface->index];
    if (core_id() == 0) {
        s->main = interface;
    } else if (s->main) { // else core 0 had no memory for it
        // Should core 0 change them meanwhile, its message comes after this.
        struct addresses addresses = addresses_of(s->main);
        set_addresses(interface, &addresses);
    }
    __atomic_fetch_or(&s->cores, 1ull << core_id(), __ATOMIC_RELEASE);
}

void share_leave(struct interface *interface)
{
    struct shared *s = &shared[interface->index];
    __atomic_fetch_and(&s->cores, ~(1ull << core_id()), __ATOMIC_RELEASE);
    if (core_id() == 0)
        s->main = NULL;
    sys_untimeout(tell_addresses, interface);
}

// ---- Neighbours ----

// As an answer whatever it was, so that lwIP only learns from it.
static void take_neighbour(const void *data)
{
    const struct neighbour *neighbour = data;
    struct interface *interface = interface_of(neighbour->nic);
    struct pbuf *p = interface ? pbuf_alloc(PBUF_RAW, SIZEOF_ETHARP_HDR, PBUF_RAM) : NULL;
    if (!p)
        return;
    struct etharp_hdr *arp = p->payload;
    *arp = (struct etharp_hdr){.hwtype = PP_HTONS(LWIP_IANA_HWTYPE_ETHERNET),
                               .proto = PP_HTONS(ETHTYPE_IP),
                               .hwlen = ETH_HWADDR_LEN,
                               .protolen = sizeof(ip4_addr_t),
                               .opcode = PP_HTONS(ARP_REPLY)};
    memcpy(&arp->shwaddr, neighbour->mac, sizeof(neighbour->mac));
    memcpy(&arp->sipaddr, &neighbour->address, sizeof(neighbour->address));
    memcpy(&arp->dipaddr, &neighbour->target, sizeof(neighbour->target));
    etharp_input(p, &interface->netif);
}

// Of what passes on the wire only this is for us: answers, questions for our address, and changes that
// a host makes known to all.
static bool concerns_us(const struct etharp_hdr *arp, const struct netif *netif)
{
    return arp->opcode == PP_HTONS(ARP_REPLY) ||
           !memcmp(&arp->dipaddr, netif_ip4_addr(netif), sizeof(arp->dipaddr)) ||
           !memcmp(&arp->dipaddr, &arp->sipaddr, sizeof(arp->dipaddr));
}

static void share_neighbour(struct interface *interface, const struct etharp_hdr *arp)
{
    uint64_t others = share_cores(interface) & ~(1ull << core_id());
    if (!others || arp->hwtype != PP_HTONS(LWIP_IANA_HWTYPE_ETHERNET) ||
        arp->proto != PP_HTONS(ETHTYPE_IP) || arp->hwlen != ETH_HWADDR_LEN ||
        arp->protolen != sizeof(ip4_addr_t) || !concerns_us(arp, &interface->netif))
        return;
    struct neighbour neighbour = {.nic = interface->nic};
    memcpy(&neighbour.address, &arp->sipaddr, sizeof(neighbour.address));
    memcpy(&neighbour.target, &arp->dipaddr, sizeof(neighbour.target));
    memcpy(neighbour.mac, &arp->shwaddr, sizeof(neighbour.mac));
    for (; others; others &= others - 1) {
        unsigned core = (unsigned)__builtin_ctzll(others);
        bool posted = message_post(core, take_neighbour, &neighbour, sizeof(neighbour));
        *(posted ? &interface->arp_shared : &interface->arp_not_shared) += 1;
    }
}

err_t share_input(struct pbuf *p, struct netif *netif)
{
    const struct eth_hdr *eth = p->payload;
    if (p->len >= SIZEOF_ETH_HDR + SIZEOF_ETHARP_HDR && eth->type == PP_HTONS(ETHTYPE_ARP))
        share_neighbour(netif->state,
                        (const struct etharp_hdr *)((const char *)eth + SIZEOF_ETH_HDR));
    return ethernet_input(p, netif);
}
