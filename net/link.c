// SPDX-License-Identifier: BSD-2-Clause
// See link.h. lwIP does DHCP's INIT-REBOOT, the gratuitous ARP and the question for routers when a link
// comes up; the rest is here: forgetting neighbours, asking for duplicates, and all of it after a pause.
#include "net/link.h"

#include "kernel/core.h"
#include "kernel/log.h"
#include "kernel/message.h"
#include "kernel/time.h"
#include "lwip/dhcp.h"
#include "lwip/etharp.h"
#include "lwip/icmp6.h"
#include "lwip/inet_chksum.h"
#include "lwip/ip6.h"
#include "lwip/priv/nd6_priv.h"
#include "lwip/prot/nd6.h"
#include "net/interface.h"
#include "net/net.h"

#define ANSWER_TIME TIME_S // for a host with the same address to say so (RFC 4862)

// ---- Neighbours ----

// They may have become others: of IPv4 all are asked for again, of IPv6 those that are used are asked
// whether they are still there.
static void doubt_neighbours(struct netif *netif)
{
    etharp_cleanup_netif(netif);
    for (unsigned i = 0; i < LWIP_ND6_NUM_NEIGHBORS; i++) {
        if (neighbor_cache[i].netif != netif || neighbor_cache[i].state != ND6_REACHABLE)
            continue;
        neighbor_cache[i].state = ND6_STALE;
        neighbor_cache[i].counter.stale_time = 0;
    }
}

// ---- Duplicates of IPv6 addresses ----

// The question of duplicate address detection, about an address that stays in use meanwhile.
static void ask_for_duplicate(struct netif *netif, const ip6_addr_t *address)
{
    struct pbuf *p = pbuf_alloc(PBUF_IP, sizeof(struct ns_header), PBUF_RAM);
    ip6_addr_t group;
    if (!p)
        return;
    struct ns_header *question = p->payload;
    *question = (struct ns_header){.type = ICMP6_TYPE_NS};
    ip6_addr_copy_to_packed(question->target_address, *address);
    ip6_addr_set_solicitednode(&group, address->addr[3]);
    ip6_addr_assign_zone(&group, IP6_MULTICAST, netif);
    IF__NETIF_CHECKSUM_ENABLED(netif, NETIF_CHECKSUM_GEN_ICMP6)
    {
        question->chksum = ip6_chksum_pseudo(p, IP6_NEXTH_ICMP6, p->len, IP6_ADDR_ANY6, &group);
    }
    ip6_output_if_src(p, IP6_ADDR_ANY6, &group, ND6_HOPLIM, 0, IP6_NEXTH_ICMP6, netif);
    pbuf_free(p);
}

static void ask_for_duplicates(struct interface *interface)
{
    struct netif *netif = &interface->netif;
    interface->asked6 = time_now();
    for (unsigned i = 0; i < LWIP_IPV6_NUM_ADDRESSES; i++)
        if (ip6_addr_isvalid(netif_ip6_addr_state(netif, i)))
            ask_for_duplicate(netif, netif_ip6_addr(netif, i));
}

bool link_asked6(struct interface *interface)
{
    return interface->asked6 && time_now() - interface->asked6 < ANSWER_TIME;
}

// ---- Up and down ----

void link_changed(struct interface *interface, bool up)
{
    struct netif *netif = &interface->netif;
    if (core_id() == 0)
        log_info("net: %s: link %s", nic_info(interface->nic)->name, up ? "up" : "down");
    if (!up) {
        netif_set_link_down(netif);
        return;
    }
    doubt_neighbours(netif);
    netif_set_link_up(netif);
    if (core_id() == 0)
        ask_for_duplicates(interface);
    else
        netif->rs_count = 0; // core 0 asks for routers
}

// ---- Time that passed unseen ----

// lwIP counts a lease's minutes itself. One that ran out meanwhile is not given up before the server was
// asked: the next minute ends it.
static void age_lease(struct dhcp *dhcp, uint64_t missed)
{
    uint64_t minutes = missed / (DHCP_COARSE_TIMER_SECS * TIME_S),
             used = dhcp->lease_used + minutes;
    if (dhcp->t0_timeout && used >= dhcp->t0_timeout)
        used = dhcp->t0_timeout - 1;
    dhcp->lease_used = (dhcp_timeout_t)LWIP_MIN(used, UINT16_MAX);
}

static void doubt_all(const void *data)
{
    (void)data;
    for (struct interface *i = interface_first(); i; i = i->next)
        doubt_neighbours(&i->netif);
}

void net_revalidate(uint64_t missed, bool clock_ran)
{
    for (unsigned core = 1; core < core_count(); core++)
        message_post(core, doubt_all, NULL, 0); // else it finds out for itself
    for (struct interface *i = interface_first(); i; i = i->next) {
        struct dhcp *dhcp = netif_dhcp_data(&i->netif);
        if (dhcp)
            age_lease(dhcp, missed);
        if (!clock_ran) // these go by it
            router_dns_age(&i->settings.router_dns, missed);
        if (!netif_is_link_up(&i->netif))
            continue;
        // As far as lwIP is concerned, the cable was out for no time.
        netif_set_link_down(&i->netif);
        doubt_neighbours(&i->netif);
        netif_set_link_up(&i->netif);
        ask_for_duplicates(i);
    }
}
