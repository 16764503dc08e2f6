// SPDX-License-Identifier: BSD-2-Clause
// See settings.h. Core 0 has DHCP and the say about addresses; the other cores get addresses and MTU from
// it (share.c, share6.c).
#include "net/settings.h"

#include <errno.h>
#include <string.h>

#include "kernel/core.h"
#include "kernel/log.h"
#include "lwip/dhcp.h"
#include "lwip/prot/dhcp.h"
#include "net/address6.h"
#include "net/hooks.h"
#include "net/interface.h"
#include "net/stack.h"

#define MTU_LEAST 576 // no DHCP server makes packets shorter

static PERCORE netif_ext_callback_t callback;

static const char *name_of(const struct interface *interface)
{
    return nic_info(interface->nic)->name;
}

// ---- The MTU ----

static void update_mtu(struct interface *interface)
{
    const struct settings *s = &interface->settings;
    uint16_t most = LWIP_MIN(nic_info(interface->nic)->mtu, s->config.mtu), mtu = most;
    if (s->dhcp_mtu)
        mtu = LWIP_MIN(mtu, s->dhcp_mtu);
    if (s->dhcp_mtu > most)
        log_info("net: %s: DHCP says MTU %u, dunlin.conf and the host say %u", name_of(interface),
                 s->dhcp_mtu, most);
    if (mtu == interface->mtu)
        return;
    log_info("net: %s: MTU %u", name_of(interface), mtu);
    interface_set_mtu(interface, mtu);
    share_addresses(interface);
}

// ---- DHCP ----

static void take_mtu(struct interface *interface, const struct pbuf *p, u16_t at, u8_t len)
{
    uint16_t mtu;
    if (len != sizeof(mtu) || pbuf_copy_partial(p, &mtu, sizeof(mtu), at) != sizeof(mtu))
        return;
    mtu = lwip_ntohs(mtu);
    if (mtu < MTU_LEAST || mtu == interface->settings.dhcp_mtu)
        return;
    interface->settings.dhcp_mtu = mtu;
    update_mtu(interface);
}

static void take_dns(struct settings *s, const struct pbuf *p, u16_t at, u8_t len)
{
    u16_t bytes = (u16_t)LWIP_MIN(len / 4 * 4, sizeof(s->dhcp_dns));
    if (bytes && pbuf_copy_partial(p, s->dhcp_dns, bytes, at) == bytes)
        s->dhcp_dns_count = bytes / 4u;
}

void net_dhcp_option(struct netif *netif, u8_t state, u8_t message, u8_t option, u8_t len,
                     const struct pbuf *p, u16_t at)
{
    struct interface *interface = netif->state;
    bool asked = state == DHCP_STATE_REQUESTING || state == DHCP_STATE_REBOOTING ||
                 state == DHCP_STATE_RENEWING || state == DHCP_STATE_REBINDING;
    // 0: the option that says what kind of message it is comes later.
    if (!asked || (message && message != DHCP_ACK))
        return;
    if (option == DHCP_OPTION_MTU)
        take_mtu(interface, p, at, len);
    else if (option == DHCP_OPTION_DNS_SERVER)
        take_dns(&interface->settings, p, at, len);
}

// The lease is lost, and what came with it.
static void forget_lease(struct interface *interface)
{
    interface->settings.dhcp_dns_count = 0;
    interface->settings.dhcp_mtu = 0;
    update_mtu(interface);
}

static int start_dhcp(struct interface *interface)
{
    if (dhcp_start(&interface->netif) == ERR_OK)
        return 0;
    log_error("net: %s: no memory for DHCP", name_of(interface));
    return -ENOMEM;
}

static void stop_dhcp(struct interface *interface)
{
    dhcp_release_and_stop(&interface->netif);
    dhcp_cleanup(&interface->netif);
}

// ---- Addresses ----

// Core 0's addresses are everyone's.
static void addresses_changed(struct netif *netif, netif_nsc_reason_t reason,
                              const netif_ext_callback_args_t *args)
{
    struct interface *interface = netif->state;
    (void)args;
    if (core_id() != 0 || !(reason & LWIP_NSC_IPV4_SETTINGS_CHANGED) || !netif_is_up(netif))
        return;
    share_addresses(interface);
    if (ip4_addr_isany_val(*netif_ip4_addr(netif))) {
        forget_lease(interface);
        return;
    }
    char address[IP4ADDR_STRLEN_MAX], gateway[IP4ADDR_STRLEN_MAX];
    ip4addr_ntoa_r(netif_ip4_addr(netif), address, sizeof(address));
    ip4addr_ntoa_r(netif_ip4_gw(netif), gateway, sizeof(gateway));
    uint32_t mask = lwip_ntohl(netif_ip4_netmask(netif)->addr);
    log_info("net: %s: address %s/%d, gateway %s", name_of(interface), address,
             __builtin_popcount(mask), gateway);
    stack_address_up(netif_ip_addr4(netif));
}

static void set_addresses(struct interface *interface)
{
    const struct nic_config *c = &interface->settings.config;
    ip4_addr_t address = {c->address}, mask = {c->netmask}, gateway = {c->gateway};
    netif_set_addr(&interface->netif, &address, &mask, &gateway);
}

// The addresses of [net] are for one NIC at a time: the first that comes when no other has them.
static bool main_is_free(void)
{
    const struct interface *i = interface_first();
    while (i && !i->settings.main)
        i = i->next;
    return !i;
}

void settings_init(void)
{
    netif_add_ext_callback(&callback, addresses_changed);
}

void settings_read(struct interface *interface)
{
    const struct nic_info *info = nic_info(interface->nic);
    struct settings *s = &interface->settings;
    bool first = core_id() == 0 && main_is_free();
    s->main = config_of_nic(&config, info->mac, first, &s->config);
    interface->mtu = LWIP_MIN(info->mtu, s->config.mtu);
}

void settings_apply(struct interface *interface)
{
    address6_start(&interface->netif);
    if (interface->settings.config.dhcp)
        start_dhcp(interface);
    else
        set_addresses(interface);
}

void settings_drop(struct interface *interface)
{
    struct netif *netif = &interface->netif;
    struct dhcp *dhcp = netif_dhcp_data(netif);
    // lwIP would speak to a DHCP server that cannot be reached, and abort what other NICs with the same
    // address have.
    if (dhcp && dhcp_supplied_address(netif))
        dhcp->state = DHCP_STATE_INIT;
    stop_dhcp(interface);
    ip4_addr_set_zero(ip_2_ip4(&netif->ip_addr));
    for (unsigned i = 0; i < LWIP_IPV6_NUM_ADDRESSES; i++)
        netif->ip6_addr_state[i] = IP6_ADDR_INVALID;
}

// ---- By the host's wish ----

static bool is_netmask(uint32_t mask)
{
    uint32_t zeros = ~lwip_ntohl(mask);
    return mask && zeros >= 3 && !(zeros & (zeros + 1));
}

// What is wrong with it, NULL: nothing.
static const char *find_fault4(const struct net_nic_settings *wanted)
{
    uint32_t address = wanted->address, netmask = wanted->netmask, gateway = wanted->gateway;
    if (wanted->dhcp || !address)
        return NULL;
    if (!config_is_host(address) || !is_netmask(netmask))
        return "no host's address, or no netmask";
    if (!config_is_host_of(address, netmask))
        return "the first or the last address of the subnet";
    if (gateway && (gateway == address || !config_is_host(gateway)))
        return "the gateway is no other host's address";
    if (gateway && !((gateway ^ address) & netmask) && !config_is_host_of(gateway, netmask))
        return "the gateway is the first or the last address of the subnet";
    return NULL;
}

static const char *find_fault6(const struct interface *interface,
                               const struct net_nic_settings *wanted)
{
    static const uint8_t none[16];
    bool gateway6 = memcmp(wanted->gateway6, none, sizeof(none)) != 0;
    if (wanted->count6 > NET_STATIC6)
        return "too many IPv6 addresses";
    for (unsigned i = 0; i < wanted->count6; i++)
        if (!config_is_host6(wanted->address6[i], true))
            return "no host's IPv6 address, or one of the link only";
    if (gateway6 && !config_is_host6(wanted->gateway6, false))
        return "the IPv6 gateway is no host's address";
    if (!wanted->count6 && !gateway6)
        return NULL;
    if (interface->settings.config.ip6 == CONFIG_IP6_OFF)
        return "IPv6 is off";
    return interface->mtu < IP6_MIN_MTU_LENGTH ? "the MTU is less than IPv6's 1280" : NULL;
}

static const char *find_fault(const struct interface *interface,
                              const struct net_nic_settings *wanted)
{
    const char *fault = find_fault4(wanted);
    if (!fault && wanted->dns_count > NET_DNS)
        fault = "too many DNS servers";
    return fault || wanted->keep6 ? fault : find_fault6(interface, wanted);
}

static int configure4(struct interface *interface, const struct net_nic_settings *wanted)
{
    struct nic_config *c = &interface->settings.config;
    bool had_dhcp = c->dhcp;
    c->dhcp = wanted->dhcp;
    c->address = wanted->dhcp ? 0 : wanted->address;
    c->netmask = c->address ? wanted->netmask : 0;
    c->gateway = c->address ? wanted->gateway : 0;
    if (c->dhcp && had_dhcp)
        return 0;
    if (had_dhcp)
        stop_dhcp(interface);
    set_addresses(interface);
    return c->dhcp ? start_dhcp(interface) : 0;
}

// Then no other NIC may get it.
static bool has_address_of_net(struct interface *interface)
{
    const struct nic_config *net = &config.net;
    if (!net->dhcp && interface->settings.config.address == net->address)
        return true;
    ip6_addr_t address = {0};
    memcpy(address.addr, net->address6, sizeof(address.addr));
    return net->ip6 == CONFIG_IP6_STATIC &&
           netif_get_ip6_addr_match(&interface->netif, &address) >= 0;
}

int net_configure(const uint8_t instance[16], const struct net_nic_settings *wanted)
{
    struct interface *interface = interface_first();
    while (interface && memcmp(nic_info(interface->nic)->instance, instance, 16) != 0)
        interface = interface->next;
    if (!interface)
        return -ENODEV;
    const char *fault = find_fault(interface, wanted);
    if (fault) {
        log_warn("net: %s: what the host configures is refused: %s", name_of(interface), fault);
        return -EINVAL;
    }
    struct settings *s = &interface->settings;
    log_info("net: %s: configured by the host", name_of(interface));
    s->dns_count = wanted->dns_count;
    memcpy(s->dns, wanted->dns, sizeof(s->dns));
    if (!wanted->keep6 && s->config.ip6 != CONFIG_IP6_OFF) {
        memcpy(s->config.gateway6, wanted->gateway6, sizeof(s->config.gateway6));
        address6_by_hand(interface, wanted->address6, wanted->count6);
    }
    int error = configure4(interface, wanted);
    s->main = s->main && has_address_of_net(interface);
    return error;
}
