// SPDX-License-Identifier: BSD-2-Clause
// The NIC driver's client: interfaces of lwIP come and go with the NICs, and with their link. Each core
// that has a channel of a NIC has an interface of its own; core 0's has DHCP and the say about
// addresses (share.c). Frames pass through rx.c and tx.c.
#include <string.h>

#include "kernel/alloc.h"
#include "kernel/console.h"
#include "kernel/core.h"
#include "kernel/log.h"
#include "lwip/etharp.h"
#include "lwip/priv/nd6_priv.h"
#include "lwip/priv/tcp_priv.h"
#include "net/address6.h"
#include "net/interface.h"
#include "net/link.h"
#include "net/stack.h"
#include "net/steer.h"

static PERCORE struct interface *interfaces;
static PERCORE struct interface *spare; // of NICs that went

struct interface *interface_of(const struct nic *nic)
{
    struct interface *i = interfaces;
    while (i && i->nic != nic)
        i = i->next;
    return i;
}

struct interface *interface_first(void)
{
    return interfaces;
}

const struct interface *interface_peek(unsigned core, unsigned index)
{
    const struct interface *i = *(const struct interface *const *)core_peek(core, &interfaces);
    while (i && i->index != index)
        i = i->next;
    return i;
}

uint16_t interface_link_mss(const struct interface *interface, const struct tcp_pcb *pcb)
{
    return IP_IS_V6(&pcb->remote_ip) ? (u16_t)(interface->netif.mtu6 - IP6_HLEN - TCP_HLEN)
                                     : (u16_t)(interface->mtu - IP_HLEN - TCP_HLEN);
}

static void lower_mss(struct interface *interface)
{
    const struct netif *netif = &interface->netif;
    for (unsigned i = 0; i < LWIP_ND6_NUM_DESTINATIONS; i++) {
        struct nd6_destination_cache_entry *way = &destination_cache[i];
        if (neighbor_cache[way->cached_neighbor_idx].netif == netif)
            way->pmtu = LWIP_MIN(way->pmtu, netif->mtu6);
    }
    for (struct tcp_pcb *pcb = tcp_active_pcbs; pcb; pcb = pcb->next)
        if (pcb->netif_idx == netif_get_index(netif))
            stack_lower_mss(pcb, interface_link_mss(interface, pcb), false);
}

void interface_set_mtu(struct interface *interface, uint16_t mtu)
{
    struct netif *netif = &interface->netif;
    u16_t mtu6 = LWIP_MAX(mtu, IP6_MIN_MTU_LENGTH);
    if (mtu == interface->mtu)
        return;
    // Routers may have asked for less.
    netif->mtu6 = mtu > interface->mtu ? mtu6 : LWIP_MIN(netif->mtu6, mtu6);
    netif->mtu = interface->mtu = mtu;
    lower_mss(interface);
}

static err_t netif_setup(struct netif *netif)
{
    struct interface *interface = netif->state;
    const struct nic_info *info = nic_info(interface->nic);
    netif->name[0] = 'e';
    netif->name[1] = 'n';
    netif->hostname = "dunlin";
    netif->mtu = interface->mtu;
    netif->hwaddr_len = sizeof(info->mac);
    memcpy(netif->hwaddr, info->mac, sizeof(info->mac));
    netif->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET;
    netif->output = interface_output;
    netif->linkoutput = interface_transmit;
    address6_setup(netif);
    interface->checksums = NETIF_CHECKSUM_GEN_IP | NETIF_CHECKSUM_GEN_UDP |
                           NETIF_CHECKSUM_GEN_ICMP | NETIF_CHECKSUM_GEN_ICMP6;
    // lwIP does it for both kinds of IP or for none; what it did in vain is done again.
    const uint8_t offloads = NIC_TX_IP4 | NIC_TX_IP6 | NIC_TX_TCP;
    if ((info->tx_csum & offloads) != offloads)
        interface->checksums |= NETIF_CHECKSUM_GEN_TCP;
    interface_select_checks(interface, 0);
    return ERR_OK;
}

static void netif_link(struct nic *nic)
{
    struct interface *interface = nic_client_data(nic);
    if (interface)
        link_changed(interface, nic_info(nic)->link_up);
}

static struct interface *interface_new(struct nic *nic)
{
    struct interface *interface = spare;
    if (interface)
        spare = interface->next;
    else
        interface = net_alloc(sizeof(*interface));
    if (!interface) {
        log_error("net: %s: no memory, not used", nic_info(nic)->name);
        return NULL;
    }
    memset(interface, 0, sizeof(*interface));
    interface->nic = nic;
    interface->index = nic_info(nic)->index;
    interface_start_receiving(interface);
    return interface;
}

static void netif_attach(struct nic *nic)
{
    struct interface *interface = interface_new(nic);
    if (!interface)
        return;
    nic_set_client_data(nic, interface);
    settings_read(interface);
    netif_add_noaddr(&interface->netif, interface, netif_setup, share_input);
    interface->next = interfaces;
    interfaces = interface;
    netif_set_up(&interface->netif);
    flow_join(interface);
    share_join(interface);
    share6_join(interface);
    if (core_id() == 0)
        settings_apply(interface);
    if (nic_info(nic)->link_up)
        netif_link(nic);
}

static struct tcp_pcb *find_connection(struct tcp_pcb *list, u8_t index)
{
    while (list && list->netif_idx != index)
        list = list->next;
    return list;
}

// Those who have them are told (ERR_ABRT); the peers cannot be.
static void abort_connections(struct interface *interface)
{
    u8_t index = netif_get_index(&interface->netif);
    for (struct tcp_pcb *pcb; (pcb = find_connection(tcp_active_pcbs, index));)
        tcp_abandon(pcb, 0);
    for (struct tcp_pcb *pcb; (pcb = find_connection(tcp_tw_pcbs, index));)
        tcp_abandon(pcb, 0);
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
    share_leave(interface);
    share6_leave(interface);
    abort_connections(interface);
    settings_drop(interface);
    netif_remove(&interface->netif);
    interface_drop_queue(interface);
    nic_set_client_data(nic, NULL);
    if (interface->rx_on_loan || interface->tx_in_flight) {
        // Something still refers to it: lose its memory rather than the machine.
        log_error("net: %s: detached with %u received and %u sent frames in use",
                  nic_info(nic)->name, interface->rx_on_loan, interface->tx_in_flight);
        return;
    }
    interface->next = spare;
    spare = interface;
}

const struct nic_client netif_nic_client = {
    .attach = netif_attach,
    .detach = netif_detach,
    .link = netif_link,
    .balance = steer_wish,
    .receive = interface_receive,
    .batch_end = interface_batch_end,
    .tx_done = interface_tx_done,
    .tx_ready = interface_tx_ready,
};

// ---- Statistics ----

static const struct counter {
    const char *name;
    size_t at;
} counters[] = {
    {"rx_frames", offsetof(struct interface, rx_frames)},
    {"rx_segments", offsetof(struct interface, rx_segments)},
    {"rx_bytes", offsetof(struct interface, rx_bytes)},
    {"rx_merged", offsetof(struct interface, coalesce.segments)},
    {"rx_merged_frames", offsetof(struct interface, coalesce.frames)},
    {"rx_copied", offsetof(struct interface, rx_copied)},
    {"rx_bad_checksum", offsetof(struct interface, rx_bad_checksum)},
    {"rx_bad_length", offsetof(struct interface, rx_bad_length)},
    {"rx_no_memory", offsetof(struct interface, rx_no_memory)},
    {"rx_not_mine", offsetof(struct interface, rx_not_mine)},
    {"tx_frames", offsetof(struct interface, tx_frames)},
    {"tx_bytes", offsetof(struct interface, tx_bytes)},
    {"tx_held", offsetof(struct interface, tx_held)},
    {"tx_queued", offsetof(struct interface, tx_queued)},
    {"tx_refused", offsetof(struct interface, tx_refused)},
    {"tx_coalesced", offsetof(struct interface, tx_coalesced)},
    {"tx_no_memory", offsetof(struct interface, tx_no_memory)},
    {"tx_large", offsetof(struct interface, tx_large)},
    {"tx_too_long", offsetof(struct interface, tx_too_long)},
    {"tx_unresolved", offsetof(struct interface, tx_unresolved)},
    {"handed_over", offsetof(struct interface, flows.handed_over)},
    {"lost", offsetof(struct interface, flows.lost)},
    {"arp_shared", offsetof(struct interface, arp_shared)},
    {"arp_not_shared", offsetof(struct interface, arp_not_shared)},
};

static void write_totals(const struct interface *const *of_core)
{
    for (size_t c = 0; c < sizeof(counters) / sizeof(counters[0]); c++) {
        uint64_t sum = 0;
        for (unsigned core = 0; core < core_count(); core++)
            if (of_core[core])
                sum += *(const uint64_t *)((const char *)of_core[core] + counters[c].at);
        stats_print("\"%s\":%llu,", counters[c].name, (unsigned long long)sum);
    }
    unsigned on_loan = 0, in_flight = 0;
    for (unsigned core = 0; core < core_count(); core++) {
        on_loan += of_core[core] ? of_core[core]->rx_on_loan : 0;
        in_flight += of_core[core] ? of_core[core]->tx_in_flight : 0;
    }
    stats_print("\"rx_on_loan\":%u,\"tx_in_flight\":%u,\"mtu\":%u,", on_loan, in_flight,
                of_core[0]->mtu);
}

static void write_cores(const struct interface *const *of_core)
{
    const char *separator = "";
    stats_print("\"cores\":{");
    for (unsigned core = 0; core < core_count(); core++) {
        const struct interface *i = of_core[core];
        if (!i)
            continue;
        stats_print("%s\"%u\":{\"rx_frames\":%llu,\"rx_bytes\":%llu,\"tx_frames\":%llu,"
                    "\"tx_bytes\":%llu,\"taken_over\":%llu,\"connections\":%u}",
                    separator, core, (unsigned long long)i->rx_frames,
                    (unsigned long long)i->rx_bytes, (unsigned long long)i->tx_frames,
                    (unsigned long long)i->tx_bytes, (unsigned long long)i->flows.taken_over,
                    flow_connections(i));
        separator = ",";
    }
    stats_print("}");
}

static void write_stats(void)
{
    const struct interface *of_core[MAX_CORES] = {NULL};
    const char *separator = "";
    stats_print("{");
    for (unsigned index = 0; index < NIC_MAX; index++) {
        for (unsigned core = 0; core < core_count(); core++)
            of_core[core] = interface_peek(core, index);
        if (!of_core[0])
            continue;
        stats_print("%s\"nic%u\":{", separator, index);
        write_totals(of_core);
        write_cores(of_core);
        stats_print("}");
        separator = ",";
    }
    stats_print("}");
}

static struct stats_source netif_stats = {.name = "net", .write = write_stats};

void netif_start(void)
{
    stats_add(&netif_stats);
}
