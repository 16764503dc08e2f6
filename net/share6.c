// SPDX-License-Identifier: BSD-2-Clause
// See share6.h. lwIP has no way to be told of neighbours and routers but packets, so the other cores
// make one of each message and give it to their lwIP. Addresses and routers are told again until each
// core knows; what is lost of neighbours and paths will be asked for, or said, again.
#include "net/share6.h"

#include <string.h>

#include "kernel/core.h"
#include "kernel/message.h"
#include "kernel/time.h"
#include "lwip/ip6.h"
#include "lwip/nd6.h"
#include "lwip/netif.h"
#include "lwip/priv/nd6_priv.h" // ND6_HOPLIM
#include "lwip/prot/icmp6.h"
#include "lwip/prot/nd6.h"
#include "lwip/timeouts.h"
#include "net/interface.h"
#include "net/ip6_input.h"

#define RETRY 10 // ms, when there was no room for a message

struct address6 {
    const struct nic *nic;
    uint8_t address[16], gateway[16]; // gateway: of the settings
    uint8_t index, state;             // state: IP6_ADDR_PREFERRED, _DEPRECATED or _INVALID
    bool by_hand;
};

struct neighbor6 {
    const struct nic *nic;
    uint8_t address[16], mac[6], flags;
    bool to_us;
};

struct path6 {
    const struct nic *nic;
    uint8_t destination[16];
    uint16_t mtu;
};

struct question {
    const struct nic *nic;
    unsigned core;
};

_Static_assert(sizeof(struct router6) <= MESSAGE_BYTES && sizeof(struct address6) <= MESSAGE_BYTES,
               "they travel as messages");

static void read_address(ip6_addr_t *out, const uint8_t bytes[16], struct netif *netif)
{
    memcpy(out->addr, bytes, sizeof(out->addr));
    ip6_addr_clear_zone(out);
    ip6_addr_assign_zone(out, IP6_UNKNOWN, netif);
}

// ---- What the other cores do with a message ----

static void take_address(const void *data)
{
    const struct address6 *from = data;
    struct interface *interface = interface_of(from->nic);
    if (!interface)
        return;
    struct netif *netif = &interface->netif;
    s8_t i = (s8_t)from->index;
    ip6_addr_t address;
    read_address(&address, from->address, netif);
    if (memcmp(interface->settings.config.gateway6, from->gateway, sizeof(from->gateway)) != 0)
        nd6_clear_destination_cache();
    memcpy(interface->settings.config.gateway6, from->gateway, sizeof(from->gateway));
    if (!ip6_addr_eq(&address, netif_ip6_addr(netif, i)))
        netif_ip6_addr_set_state(netif, i, IP6_ADDR_INVALID);
    netif_ip6_addr_set(netif, i, &address);
    // Core 0 watches how long it lives. One that was set by hand has a subnet of its own.
    u32_t life = from->by_hand ? IP6_ADDR_LIFE_STATIC : IP6_ADDR_LIFE_INFINITE;
    netif_ip6_addr_set_valid_life(netif, i, life);
    netif_ip6_addr_set_pref_life(netif, i, life);
    netif_ip6_addr_set_state(netif, i, from->state);
}

static const uint8_t all_nodes[16] = {0xff, 0x02, [15] = 1};

// A packet of neighbour discovery, ICMPv6 header at [40], as if it had arrived.
static void inject(struct interface *interface, uint8_t *packet, unsigned bytes)
{
    struct ip6_hdr *ip = (struct ip6_hdr *)packet;
    IP6H_VTCFL_SET(ip, 6, 0, 0);
    IP6H_PLEN_SET(ip, (u16_t)(bytes - IP6_HLEN));
    IP6H_NEXTH_SET(ip, IP6_NEXTH_ICMP6);
    IP6H_HOPLIM_SET(ip, ND6_HOPLIM);
    struct pbuf *p = pbuf_alloc(PBUF_RAW, (u16_t)bytes, PBUF_RAM);
    if (!p)
        return;
    memcpy(p->payload, packet, bytes);
    // Core 0 has checked the original; this has no checksum.
    NETIF_SET_CHECKSUM_CTRL(&interface->netif, interface->checksums);
    ip6_input_checked(p, &interface->netif);
}

static void take_neighbor(const void *data)
{
    const struct neighbor6 *from = data;
    struct interface *interface = interface_of(from->nic);
    if (!interface)
        return;
    struct {
        uint8_t ip[IP6_HLEN];
        struct na_header advertisement;
        uint8_t option[8];
    } packet = {.advertisement = {.type = ICMP6_TYPE_NA, .flags = from->flags},
                .option = {ND6_OPTION_TYPE_TARGET_LLADDR, 1}};
    memcpy(packet.ip + 8, from->address, 16);
    const ip_addr_t *to = ip_netif_get_local_ip(&interface->netif, IP6_ADDR_ANY);
    if (!to)
        return;
    memcpy(packet.ip + 24, from->to_us ? (const void *)ip_2_ip6(to)->addr : all_nodes, 16);
    memcpy(&packet.advertisement.target_address, from->address, 16);
    memcpy(packet.option + 2, from->mac, 6);
    inject(interface, (uint8_t *)&packet, sizeof(packet));
}

static void take_router(const void *data)
{
    const struct router6 *from = data;
    struct interface *interface = interface_of(from->nic);
    if (!interface)
        return;
    uint8_t packet[IP6_HLEN + sizeof(struct ra_header) + 8 + 8 + 32] = {0};
    uint8_t *at = packet + IP6_HLEN;
    memcpy(packet + 8, "\xfe\x80", 2);
    memcpy(packet + 16, from->router, 8);
    memcpy(packet + 24, all_nodes, 16);
    const struct ra_header header = {.type = ICMP6_TYPE_RA,
                                     .router_lifetime = lwip_htons(from->lifetime)};
    memcpy(at, &header, sizeof(header));
    at += sizeof(header);
    if (memcmp(from->mac, "\0\0\0\0\0\0", 6) != 0) {
        at[0] = ND6_OPTION_TYPE_SOURCE_LLADDR;
        at[1] = 1;
        memcpy(at + 2, from->mac, 6);
        at += 8;
    }
    if (from->mtu) {
        at[0] = ND6_OPTION_TYPE_MTU;
        at[1] = 1;
        at[6] = (uint8_t)(from->mtu >> 8);
        at[7] = (uint8_t)from->mtu;
        at += 8;
    }
    struct prefix_option prefix = {.type = ND6_OPTION_TYPE_PREFIX_INFO,
                                   .length = 4,
                                   .prefix_length = 64,
                                   .flags = ND6_PREFIX_FLAG_ON_LINK,
                                   .valid_lifetime = lwip_htonl(from->valid)};
    if (from->has_prefix) {
        memcpy(&prefix.prefix, from->prefix, 8);
        memcpy(at, &prefix, sizeof(prefix));
        at += sizeof(prefix);
    }
    inject(interface, packet, (unsigned)(at - packet));
}

static void take_path(const void *data)
{
    const struct path6 *from = data;
    struct interface *interface = interface_of(from->nic);
    if (!interface)
        return;
    ip6_addr_t destination;
    read_address(&destination, from->destination, &interface->netif);
    ip6_path_is_narrower(&destination, from->mtu);
}

// ---- Telling ----

static void tell(void *arg);

static bool post_addresses(const struct interface *interface, unsigned core)
{
    const struct netif *netif = &interface->netif;
    bool posted = true;
    for (unsigned i = 0; i < LWIP_IPV6_NUM_ADDRESSES; i++) {
        u8_t state = netif_ip6_addr_state(netif, i);
        struct address6 message = {.nic = interface->nic,
                                   .index = (uint8_t)i,
                                   .state = ip6_addr_isvalid(state) ? state : IP6_ADDR_INVALID,
                                   .by_hand = netif_ip6_addr_isstatic(netif, i)};
        memcpy(message.gateway, interface->settings.config.gateway6, sizeof(message.gateway));
        memcpy(message.address, netif_ip6_addr(netif, i)->addr, 16);
        posted &= message_post(core, take_address, &message, sizeof(message));
    }
    return posted;
}

// What it said, less the time since then.
static bool post_router(const struct interface *interface, unsigned index, unsigned core)
{
    struct router6 message = interface->shared6.routers[index].router;
    uint64_t seconds = (time_now() - interface->shared6.routers[index].when) / TIME_S;
    message.lifetime = (uint16_t)(message.lifetime - LWIP_MIN(message.lifetime, seconds));
    if (message.valid != UINT32_MAX)
        message.valid = (uint32_t)(message.valid - LWIP_MIN(message.valid, seconds));
    return message_post(core, take_router, &message, sizeof(message));
}

// Core 0. Tells every core what it does not know, and comes back if there was no room.
static void tell(void *arg)
{
    struct interface *interface = arg;
    struct shared6 *s = &interface->shared6;
    uint64_t left = 0;
    for (unsigned core = 1; core < core_count(); core++) {
        uint64_t bit = 1ull << core;
        if ((s->untold & bit) && post_addresses(interface, core))
            s->untold &= ~bit;
        left |= s->untold & bit;
        for (unsigned i = 0; i < SHARED_ROUTERS; i++) {
            if ((s->routers[i].untold & bit) && post_router(interface, i, core))
                s->routers[i].untold &= ~bit;
            left |= s->routers[i].untold & bit;
        }
    }
    sys_untimeout(tell, interface);
    if (left)
        sys_timeout(RETRY, tell, interface);
}

static void answer(const void *data)
{
    const struct question *question = data;
    struct interface *interface = interface_of(question->nic);
    if (!interface)
        return;
    struct shared6 *s = &interface->shared6;
    s->untold |= 1ull << question->core;
    for (unsigned i = 0; i < SHARED_ROUTERS; i++)
        if (s->routers[i].router.nic)
            s->routers[i].untold |= 1ull << question->core;
    tell(interface);
}

static void ask(void *arg)
{
    struct interface *interface = arg;
    struct question question = {.nic = interface->nic, .core = core_id()};
    if (!message_post(0, answer, &question, sizeof(question)))
        sys_timeout(RETRY, ask, interface);
}

void share6_join(struct interface *interface)
{
    if (core_id() != 0)
        ask(interface);
}

void share6_leave(struct interface *interface)
{
    sys_untimeout(tell, interface);
    sys_untimeout(ask, interface);
}

static uint64_t others(const struct interface *interface)
{
    return share_cores(interface) & ~(1ull << core_id());
}

void share6_addresses(struct interface *interface)
{
    interface->shared6.untold = others(interface);
    tell(interface);
}

void share6_neighbor(struct interface *interface, const uint8_t address[16], const uint8_t mac[6],
                     uint8_t flags, bool to_us)
{
    struct neighbor6 message = {.nic = interface->nic, .flags = flags, .to_us = to_us};
    memcpy(message.address, address, sizeof(message.address));
    memcpy(message.mac, mac, sizeof(message.mac));
    for (uint64_t left = others(interface); left; left &= left - 1) {
        unsigned core = (unsigned)__builtin_ctzll(left);
        bool posted = message_post(core, take_neighbor, &message, sizeof(message));
        *(posted ? &interface->arp_shared : &interface->arp_not_shared) += 1;
    }
}

// The place of what the same router said before of the same prefix, or a free one, or the oldest.
static unsigned router_place(const struct shared6 *s, const struct router6 *router)
{
    unsigned best = 0;
    for (unsigned i = 0; i < SHARED_ROUTERS; i++) {
        const struct router6 *known = &s->routers[i].router;
        if (known->nic && !memcmp(known->router, router->router, sizeof(router->router)) &&
            known->has_prefix == router->has_prefix &&
            !memcmp(known->prefix, router->prefix, sizeof(router->prefix)))
            return i;
        if (s->routers[best].router.nic &&
            (!known->nic || s->routers[i].when < s->routers[best].when))
            best = i;
    }
    return best;
}

void share6_router(struct interface *interface, const struct router6 *router)
{
    struct shared6 *s = &interface->shared6;
    unsigned i = router_place(s, router);
    s->routers[i].router = *router;
    s->routers[i].when = time_now();
    s->routers[i].untold = others(interface);
    tell(interface);
}

void share6_path(struct interface *interface, const uint8_t destination[16], uint16_t mtu)
{
    struct path6 message = {.nic = interface->nic, .mtu = mtu};
    memcpy(message.destination, destination, sizeof(message.destination));
    for (uint64_t left = others(interface); left; left &= left - 1)
        message_post((unsigned)__builtin_ctzll(left), take_path, &message, sizeof(message));
}
