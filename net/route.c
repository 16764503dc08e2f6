// SPDX-License-Identifier: BSD-2-Clause
// See route.h. lwIP asks net_ip4_route() and net_ip6_route() about packets of nobody's connection (a
// connection knows its interface from its first segment on): answers to echo requests, refusals, errors.
#include "net/route.h"

#include "lwip/ip.h"
#include "lwip/netif.h"
#include "lwip/priv/nd6_priv.h"
#include "net/hooks.h"
#include "net/interface.h"

static bool is_up(const struct netif *netif)
{
    return netif_is_up(netif) && netif_is_link_up(netif);
}

// Which of two interfaces that lead there.
static struct interface *better(struct interface *a, struct interface *b)
{
    if (!a)
        return b;
    if (a->settings.config.metric != b->settings.config.metric)
        return a->settings.config.metric < b->settings.config.metric ? a : b;
    return a->index < b->index ? a : b;
}

static struct netif *netif_of(struct interface *interface)
{
    return interface ? &interface->netif : NULL;
}

// ---- IPv4 ----

static struct netif *route_to4(const ip4_addr_t *destination)
{
    struct interface *near = NULL, *far = NULL;
    for (struct interface *i = interface_first(); i; i = i->next) {
        const struct netif *netif = &i->netif;
        if (!is_up(netif) || ip4_addr_isany_val(*netif_ip4_addr(netif)))
            continue;
        if (ip4_addr_net_eq(destination, netif_ip4_addr(netif), netif_ip4_netmask(netif)))
            near = better(near, i);
        else if (!ip4_addr_isany_val(*netif_ip4_gw(netif)))
            far = better(far, i);
    }
    return netif_of(near ? near : far);
}

struct netif *net_ip4_route(const ip4_addr_t *source, const ip4_addr_t *destination)
{
    struct netif *input = ip_current_input_netif();
    if (!source || ip4_addr_isany(source))
        return route_to4(destination);
    if (input && ip4_addr_eq(source, netif_ip4_addr(input)))
        return input;
    struct interface *owner = NULL;
    for (struct interface *i = interface_first(); i; i = i->next)
        if (is_up(&i->netif) && ip4_addr_eq(source, netif_ip4_addr(&i->netif)))
            owner = better(owner, i);
    return netif_of(owner);
}

// ---- IPv6 ----

static bool is_link6(const struct netif *netif, const ip6_addr_t *destination)
{
    for (unsigned i = 0; i < LWIP_ND6_NUM_PREFIXES; i++)
        if (prefix_list[i].netif == netif && prefix_list[i].invalidation_timer > 0 &&
            ip6_addr_net_eq(destination, &prefix_list[i].prefix))
            return true;
    for (unsigned i = 0; i < LWIP_IPV6_NUM_ADDRESSES; i++)
        if (ip6_addr_isvalid(netif_ip6_addr_state(netif, i)) && netif_ip6_addr_isstatic(netif, i) &&
            ip6_addr_net_eq(destination, netif_ip6_addr(netif, i)))
            return true;
    return false;
}

static bool has_gateway6(struct netif *netif, const ip6_addr_t *destination)
{
    for (unsigned i = 0; i < LWIP_ND6_NUM_ROUTERS; i++)
        if (default_router_list[i].neighbor_entry &&
            default_router_list[i].neighbor_entry->netif == netif)
            return true;
    return net_ip6_gateway(netif, destination);
}

static bool has_address6(const struct netif *netif, bool link_local)
{
    for (unsigned i = 0; i < LWIP_IPV6_NUM_ADDRESSES; i++)
        if (ip6_addr_isvalid(netif_ip6_addr_state(netif, i)) &&
            !ip6_addr_islinklocal(netif_ip6_addr(netif, i)) == !link_local)
            return true;
    return false;
}

static struct netif *route_to6(const ip6_addr_t *destination)
{
    bool link_local = ip6_addr_islinklocal(destination);
    struct interface *near = NULL, *far = NULL;
    for (struct interface *i = interface_first(); i; i = i->next) {
        if (!is_up(&i->netif) || !has_address6(&i->netif, link_local))
            continue;
        if (link_local ? ip6_addr_lacks_zone(destination, IP6_UNICAST) ||
                             ip6_addr_test_zone(destination, &i->netif)
                       : is_link6(&i->netif, destination))
            near = better(near, i);
        else if (!link_local && has_gateway6(&i->netif, destination))
            far = better(far, i);
    }
    return netif_of(near ? near : far);
}

struct netif *net_ip6_route(const ip6_addr_t *source, const ip6_addr_t *destination)
{
    struct netif *input = ip_current_input_netif();
    if (ip6_addr_isany(source))
        return route_to6(destination);
    if (input && netif_get_ip6_addr_match(input, source) >= 0)
        return input;
    struct interface *owner = NULL;
    for (struct interface *i = interface_first(); i; i = i->next)
        if (is_up(&i->netif) && netif_get_ip6_addr_match(&i->netif, source) >= 0)
            owner = better(owner, i);
    return netif_of(owner);
}

// Where lwIP has its way to an address, or NULL.
static struct nd6_destination_cache_entry *find_way6(const struct netif *netif,
                                                     const ip6_addr_t *destination)
{
    unsigned hint = netif->hints ? netif->hints->addr_hint : LWIP_ND6_NUM_DESTINATIONS;
    if (hint < LWIP_ND6_NUM_DESTINATIONS &&
        ip6_addr_eq(&destination_cache[hint].destination_addr, destination))
        return &destination_cache[hint];
    for (unsigned i = 0; i < LWIP_ND6_NUM_DESTINATIONS; i++)
        if (ip6_addr_eq(&destination_cache[i].destination_addr, destination))
            return &destination_cache[i];
    return NULL;
}

void route_forget_other6(const struct netif *netif, const ip6_addr_t *destination)
{
    if (!interface_first()->next || ip6_addr_has_zone(destination))
        return;
    struct nd6_destination_cache_entry *way = find_way6(netif, destination);
    const struct nd6_neighbor_cache_entry *hop =
        way ? &neighbor_cache[way->cached_neighbor_idx] : NULL;
    if (hop && hop->netif != netif && ip6_addr_eq(&hop->next_hop_address, &way->next_hop_addr))
        ip6_addr_set_any(&way->destination_addr);
}

struct netif *route_to(const ip_addr_t *destination)
{
    return IP_IS_V6(destination) ? route_to6(ip_2_ip6(destination))
                                 : route_to4(ip_2_ip4(destination));
}
