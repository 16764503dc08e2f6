// SPDX-License-Identifier: BSD-2-Clause
// What the interfaces have, for who has to tell the host (net.h). Core 0.
#include <string.h>

#include "kernel/time.h"
#include "lwip/priv/nd6_priv.h"
#include "net/interface.h"
#include "net/net.h"

static void report6(const struct interface *interface, struct net_nic_report *out)
{
    const struct netif *netif = &interface->netif;
    static const uint8_t none[16];
    for (unsigned i = 0; i < LWIP_IPV6_NUM_ADDRESSES; i++) {
        if (!ip6_addr_isvalid(netif_ip6_addr_state(netif, i)))
            continue;
        memcpy(out->address6[out->count6].bytes, netif_ip6_addr(netif, i)->addr, 16);
        out->address6[out->count6++].prefix = 64;
    }
    memcpy(out->gateway6, interface->settings.config.gateway6, sizeof(out->gateway6));
    for (unsigned i = 0; i < LWIP_ND6_NUM_ROUTERS; i++) {
        const struct nd6_neighbor_cache_entry *router = default_router_list[i].neighbor_entry;
        if (!router || router->netif != netif || memcmp(out->gateway6, none, sizeof(none)) != 0)
            continue;
        memcpy(out->gateway6, router->next_hop_address.addr, sizeof(out->gateway6));
    }
}

static void add_dns(struct net_nic_report *out, bool ip6, const void *bytes)
{
    if (out->dns_count == NET_DNS)
        return;
    struct net_address *dns = &out->dns[out->dns_count++];
    dns->ip6 = ip6;
    memcpy(dns->bytes, bytes, ip6 ? 16 : 4);
}

static void report_dns(const struct settings *s, struct net_nic_report *out)
{
    for (unsigned i = 0; i < s->dns_count; i++)
        add_dns(out, s->dns[i].ip6, s->dns[i].bytes);
    for (unsigned i = 0; i < s->dhcp_dns_count && s->config.dhcp; i++)
        add_dns(out, false, &s->dhcp_dns[i]);
    for (unsigned i = 0; i < ROUTER_DNS; i++)
        if (s->router_dns.servers[i].until > time_now())
            add_dns(out, true, s->router_dns.servers[i].address);
}

static void report(const struct interface *interface, struct net_nic_report *out)
{
    const struct nic_info *info = nic_info(interface->nic);
    const struct netif *netif = &interface->netif;
    *out = (struct net_nic_report){.up = netif_is_link_up(netif),
                                   .dhcp = interface->settings.config.dhcp,
                                   .mtu = interface->mtu,
                                   .address = netif_ip4_addr(netif)->addr,
                                   .netmask = netif_ip4_netmask(netif)->addr,
                                   .gateway = netif_ip4_gw(netif)->addr};
    memcpy(out->instance, info->instance, sizeof(out->instance));
    memcpy(out->mac, info->mac, sizeof(out->mac));
    memcpy(out->name, info->name, LWIP_MIN(strlen(info->name), sizeof(out->name) - 1));
    report6(interface, out);
    report_dns(&interface->settings, out);
}

unsigned net_report(struct net_nic_report *out, unsigned max)
{
    unsigned count = 0;
    for (unsigned index = 0; index < NIC_MAX && count < max; index++)
        for (const struct interface *i = interface_first(); i; i = i->next)
            if (i->index == index)
                report(i, &out[count++]);
    return count;
}
