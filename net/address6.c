// SPDX-License-Identifier: BSD-2-Clause
// See address6.h. Addresses are stateless: lwIP makes them from router advertisements, asks whether
// somebody has them, and lets them expire; no DHCPv6. Called by netif.c and by lwIP.
#include "net/address6.h"

#include <string.h>

#include "kernel/core.h"
#include "kernel/log.h"
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
    if (!memcmp(interface->settings.gateway6, none, sizeof(none)))
        return NULL;
    read_address(&gateway, interface->settings.gateway6);
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
    const struct nic_config *settings = &interface->settings;
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
