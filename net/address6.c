// SPDX-License-Identifier: BSD-2-Clause
// See address6.h. Addresses are stateless: lwIP makes them from router advertisements, asks whether
// somebody has them, and lets them expire; no DHCPv6. Called by netif.c and by lwIP.
#include "net/address6.h"

#include <string.h>

#include "kernel/core.h"
#include "kernel/log.h"
#include "lwip/nd6.h"
#include "lwip/netif.h"
#include "net/hooks.h"
#include "net/interface.h"
#include "net/stack.h"

static PERCORE netif_ext_callback_t state_callback;
static PERCORE ip6_addr_t gateway; // for net_ip6_gateway()

static void read_address(ip6_addr_t *out, const uint8_t bytes[16])
{
    memcpy(out->addr, bytes, sizeof(out->addr));
    ip6_addr_clear_zone(out);
}

const ip6_addr_t *net_ip6_gateway(struct netif *netif, const ip6_addr_t *destination)
{
    static const uint8_t none[16];
    (void)destination;
    const struct interface *interface = netif->state;
    if (!memcmp(interface->settings.config.gateway6, none, sizeof(none)))
        return NULL;
    read_address(&gateway, interface->settings.config.gateway6);
    ip6_addr_assign_zone(&gateway, IP6_UNICAST, netif);
    return &gateway;
}

static void state_changed(struct netif *netif, netif_nsc_reason_t reason,
                          const netif_ext_callback_args_t *args)
{
    if (!(reason & LWIP_NSC_IPV6_ADDR_STATE_CHANGED) || core_id() != 0)
        return;
    struct interface *interface = netif->state;
    share6_addresses(interface);
    const char *name = nic_info(interface->nic)->name;
    s8_t index = args->ipv6_addr_state_changed.addr_index;
    u8_t before = args->ipv6_addr_state_changed.old_state;
    u8_t now = netif_ip6_addr_state(netif, index);
    const ip_addr_t *address = netif_ip_addr6(netif, index);
    char text[STACK_NAME_BYTES];
    stack_address(text, address);
    if (ip6_addr_isduplicated(now)) {
        log_warn("net: %s: address %s not used: another host has it", name, text);
    } else if (ip6_addr_isvalid(now) && !ip6_addr_isvalid(before)) {
        log_info("net: %s: address %s", name, text);
        if (!ip6_addr_islinklocal(ip_2_ip6(address)))
            stack_address_up(address);
    } else if (ip6_addr_isinvalid(now) && ip6_addr_isvalid(before)) {
        log_info("net: %s: address %s expired", name, text);
    }
}

void address6_init(void)
{
    netif_add_ext_callback(&state_callback, state_changed);
}

void address6_setup(struct netif *netif)
{
    netif->output_ip6 = interface_output6;
    netif_set_ip6_autoconfig_enabled(netif, 0);
    if (core_id() == 0) // the others leave it to tell routers of groups, and to listen to them
        netif->flags |= NETIF_FLAG_MLD6;
}

void address6_start(struct netif *netif)
{
    const struct interface *interface = netif->state;
    const struct nic_config *settings = &interface->settings.config;
    if (settings->ip6 == CONFIG_IP6_OFF)
        return;
    if (netif->mtu < IP6_MIN_MTU_LENGTH) {
        log_warn("net: %s: no IPv6, its packets may be %u bytes long and the MTU is %u",
                 nic_info(interface->nic)->name, IP6_MIN_MTU_LENGTH, netif->mtu);
        return;
    }
    netif_create_ip6_linklocal_address(netif, 1);
    if (settings->ip6 == CONFIG_IP6_AUTO) {
        netif_set_ip6_autoconfig_enabled(netif, 1);
        return;
    }
    ip6_addr_t address;
    read_address(&address, settings->address6);
    netif_add_ip6_address(netif, &address, NULL); // there is room: it is the second one
}

// A place for one more address, if need be that of one that a router announced. Negative: none.
static s8_t make_room(struct netif *netif)
{
    s8_t place = -1;
    for (s8_t i = 1; i < LWIP_IPV6_NUM_ADDRESSES; i++) {
        if (ip6_addr_isinvalid(netif_ip6_addr_state(netif, i)))
            return i;
        if (!netif_ip6_addr_isstatic(netif, i))
            place = i;
    }
    if (place > 0)
        netif_ip6_addr_set_state(netif, place, IP6_ADDR_INVALID);
    return place;
}

static bool is_among(const ip6_addr_t *address, const uint8_t addresses[][16], unsigned count)
{
    while (count && memcmp(addresses[count - 1], address->addr, 16) != 0)
        count--;
    return count;
}

void address6_by_hand(struct interface *interface, const uint8_t addresses[][16], unsigned count)
{
    struct netif *netif = &interface->netif;
    for (s8_t i = 1; i < LWIP_IPV6_NUM_ADDRESSES; i++)
        if (!ip6_addr_isinvalid(netif_ip6_addr_state(netif, i)) &&
            netif_ip6_addr_isstatic(netif, i) &&
            !is_among(netif_ip6_addr(netif, i), addresses, count))
            netif_ip6_addr_set_state(netif, i, IP6_ADDR_INVALID);
    for (unsigned n = 0; n < count; n++) {
        ip6_addr_t address;
        read_address(&address, addresses[n]);
        s8_t i = netif_get_ip6_addr_match(netif, &address);
        if (i < 0 && make_room(netif) > 0 && netif_add_ip6_address(netif, &address, &i) != ERR_OK)
            continue;
        if (i > 0) { // also one that a router had announced
            netif_ip6_addr_set_valid_life(netif, i, IP6_ADDR_LIFE_STATIC);
            netif_ip6_addr_set_pref_life(netif, i, IP6_ADDR_LIFE_STATIC);
        }
    }
    nd6_clear_destination_cache();
    share6_addresses(interface); // the gateway, too
}
