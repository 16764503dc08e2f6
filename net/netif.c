// SPDX-License-Identifier: BSD-2-Clause
// The NIC driver's client: interfaces of lwIP come and go with the NICs, and with their link. Frames
// pass through rx.c and tx.c. Runs on the core of the NIC's channel.
#include <string.h>

#include "kernel/alloc.h"
#include "kernel/config.h"
#include "kernel/console.h"
#include "kernel/core.h"
#include "kernel/log.h"
#include "lwip/dhcp.h"
#include "lwip/etharp.h"
#include "lwip/ip4_frag.h"
#include "net/interface.h"
#include "net/stack.h"
#include "netif/ethernet.h"

static PERCORE struct interface *interfaces;

static void address_changed(struct netif *netif)
{
    const struct interface *interface = netif->state;
    if (!netif_is_up(netif) || ip4_addr_isany_val(*netif_ip4_addr(netif)))
        return;
    char address[IP4ADDR_STRLEN_MAX], gateway[IP4ADDR_STRLEN_MAX];
    ip4addr_ntoa_r(netif_ip4_addr(netif), address, sizeof(address));
    ip4addr_ntoa_r(netif_ip4_gw(netif), gateway, sizeof(gateway));
    uint32_t mask = lwip_ntohl(netif_ip4_netmask(netif)->addr);
    log_info("net: %s: address %s/%d, gateway %s", nic_info(interface->nic)->name, address,
             __builtin_popcount(mask), gateway);
    stack_address_up(netif);
}

static err_t netif_setup(struct netif *netif)
{
    struct interface *interface = netif->state;
    const struct nic_info *info = nic_info(interface->nic);
    netif->name[0] = 'e';
    netif->name[1] = 'n';
    netif->hostname = "dunlin";
    netif->mtu = info->mtu;
    netif->hwaddr_len = sizeof(info->mac);
    memcpy(netif->hwaddr, info->mac, sizeof(info->mac));
    netif->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET;
    netif->output = interface_output;
    netif->linkoutput = interface_transmit;
    interface->checksums = NETIF_CHECKSUM_GEN_IP | NETIF_CHECKSUM_GEN_UDP | NETIF_CHECKSUM_GEN_ICMP;
    if ((info->tx_csum & (NIC_TX_IP4 | NIC_TX_TCP)) != (NIC_TX_IP4 | NIC_TX_TCP))
        interface->checksums |= NETIF_CHECKSUM_GEN_TCP;
    interface_select_checks(interface, 0);
    netif_set_status_callback(netif, address_changed);
    return ERR_OK;
}

static void netif_link(struct nic *nic)
{
    struct interface *interface = nic_client_data(nic);
    if (!interface)
        return;
    bool up = nic_info(nic)->link_up;
    log_info("net: %s: link %s", nic_info(nic)->name, up ? "up" : "down");
    if (up)
        netif_set_link_up(&interface->netif);
    else
        netif_set_link_down(&interface->netif);
}

static void netif_attach(struct nic *nic)
{
    struct interface *interface = net_calloc(1, sizeof(*interface));
    if (!interface) {
        log_error("net: %s: no memory, not used", nic_info(nic)->name);
        return;
    }
    interface->nic = nic;
    nic_set_client_data(nic, interface);
    // A static address is for the first NIC; there is no way to say which others are meant.
    bool dhcp = config.dhcp || interfaces;
    ip4_addr_t address = {dhcp ? 0 : config.address}, mask = {dhcp ? 0 : config.netmask},
               gateway = {dhcp ? 0 : config.gateway};
    netif_add(&interface->netif, &address, &mask, &gateway, interface, netif_setup, ethernet_input);
    interface->next = interfaces;
    interfaces = interface;
    if (!netif_default)
        netif_set_default(&interface->netif);
    netif_set_up(&interface->netif);
    if (dhcp && dhcp_start(&interface->netif) != ERR_OK)
        log_error("net: %s: no memory for DHCP", nic_info(nic)->name);
    if (nic_info(nic)->link_up)
        netif_link(nic);
}

static void netif_detach(struct nic *nic)
{
    struct interface *interface = nic_client_data(nic);
    if (!interface)
        return;
    struct interface **link = &interfaces;
    while (*link != interface)
        link = &(*link)->next;
    *link = interface->next;
    dhcp_stop(&interface->netif);
    dhcp_cleanup(&interface->netif);
    netif_remove(&interface->netif); // aborts the connections that use its address
    if (!netif_default && interfaces)
        netif_set_default(&interfaces->netif);
    interface_drop_queue(interface);
    // What is left on loan waits in the reassembly of fragments: let all of it grow too old.
    for (int age = 0; age <= IP_REASS_MAXAGE; age++)
        ip_reass_tmr();
    nic_set_client_data(nic, NULL);
    if (interface->rx_on_loan || interface->tx_in_flight) {
        // Something still refers to it: lose its memory rather than the machine.
        log_error("net: %s: detached with %u received and %u sent frames in use",
                  nic_info(nic)->name, interface->rx_on_loan, interface->tx_in_flight);
        return;
    }
    heap_free(interface);
}

const struct nic_client netif_nic_client = {
    .attach = netif_attach,
    .detach = netif_detach,
    .link = netif_link,
    .receive = interface_receive,
    .batch_end = interface_batch_end,
    .tx_done = interface_tx_done,
    .tx_ready = interface_tx_ready,
};

// ---- Statistics ----

static void write_stats(void)
{
    stats_print("{");
    for (const struct interface *i = interfaces; i; i = i->next) {
        stats_print("%s\"%s\":{\"rx_frames\":%llu,\"rx_segments\":%llu,\"rx_bytes\":%llu,\"rx_"
                    "copied\":%llu,"
                    "\"rx_on_loan\":%u,\"rx_bad_checksum\":%llu,\"rx_bad_length\":%llu,"
                    "\"rx_no_memory\":%llu,",
                    i == interfaces ? "" : ",", nic_info(i->nic)->name,
                    (unsigned long long)i->rx_frames, (unsigned long long)i->rx_segments,
                    (unsigned long long)i->rx_bytes, (unsigned long long)i->rx_copied,
                    i->rx_on_loan, (unsigned long long)i->rx_bad_checksum,
                    (unsigned long long)i->rx_bad_length, (unsigned long long)i->rx_no_memory);
        stats_print("\"tx_frames\":%llu,\"tx_bytes\":%llu,\"tx_held\":%llu,\"tx_in_flight\":%u,"
                    "\"tx_queued\":%llu,\"tx_refused\":%llu,\"tx_coalesced\":%llu,"
                    "\"tx_no_memory\":%llu,\"tx_large\":%llu,\"tx_too_long\":%llu}",
                    (unsigned long long)i->tx_frames, (unsigned long long)i->tx_bytes,
                    (unsigned long long)i->tx_held, i->tx_in_flight,
                    (unsigned long long)i->tx_queued, (unsigned long long)i->tx_refused,
                    (unsigned long long)i->tx_coalesced, (unsigned long long)i->tx_no_memory,
                    (unsigned long long)i->tx_large, (unsigned long long)i->tx_too_long);
    }
    stats_print("}");
}

static struct stats_source netif_stats = {.name = "net", .write = write_stats};

void netif_start(void)
{
    stats_add(&netif_stats);
}
