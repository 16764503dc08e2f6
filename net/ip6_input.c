// SPDX-License-Identifier: BSD-2-Clause
// IPv6 packets on their way into lwIP, which calls this first for each (net/hooks.h). What is neither
// plain TCP nor UDP is looked at closely, and fragments are put together here, so that a datagram is
// judged as a whole and lwIP never meets a fragment. What belongs to another core goes there: flows to
// their owners, neighbour discovery and multicast listeners to core 0. Any core.
#include "net/ip6_input.h"

#include <string.h>

#include "kernel/config.h"
#include "kernel/console.h"
#include "kernel/core.h"
#include "kernel/log.h"
#include "kernel/time.h"
#include "lwip/icmp6.h"
#include "lwip/inet_chksum.h"
#include "lwip/ip6.h"
#include "lwip/ip6_frag.h"
#include "lwip/nd6.h"
#include "lwip/priv/nd6_priv.h"
#include "lwip/priv/tcp_priv.h"
#include "lwip/prot/icmp6.h"
#include "lwip/prot/nd6.h"
#include "lwip/stats.h"
#include "net/flow.h"
#include "net/front.h"
#include "net/hooks.h"
#include "net/interface.h"
#include "net/ip6_check.h"
#include "net/link.h"
#include "net/share6.h"
#include "net/stack.h"

static PERCORE bool whole; // the next packet was checked already
static PERCORE unsigned refused, conflicts, too_big, reassembled;

// Also what was useful and has done its work.
static void drop(struct pbuf *p, unsigned *counter)
{
    (*counter)++;
    pbuf_free(p);
}

// Of a packet that ends where its IPv6 header says.
static bool icmp_is_intact(struct pbuf *p, u16_t offset)
{
    const struct ip6_hdr *ip = p->payload;
    u16_t len = (u16_t)(IP6_HLEN + IP6H_PLEN(ip) - offset);
    ip6_addr_t source, target;
    ip6_addr_copy_from_packed(source, ip->src);
    ip6_addr_copy_from_packed(target, ip->dest);
    pbuf_realloc(p, (u16_t)(offset + len)); // the link may have padded it
    pbuf_remove_header(p, offset);
    bool intact = ip6_chksum_pseudo(p, IP6_NEXTH_ICMP6, len, &source, &target) == 0;
    pbuf_add_header_force(p, offset);
    return intact;
}

static bool is_mine(struct netif *netif, const ip6_addr_p_t *packed)
{
    ip6_addr_t address;
    ip6_addr_copy_from_packed(address, *packed);
    ip6_addr_assign_zone(&address, IP6_UNICAST, netif);
    s8_t index = netif_get_ip6_addr_match(netif, &address);
    return index >= 0 && ip6_addr_isvalid(netif_ip6_addr_state(netif, index));
}

// ---- Other cores ----

// True: it was another core's, who has it now.
static bool is_other_cores(struct pbuf *p, struct netif *netif, const struct ip6_found *found)
{
    struct interface *interface = netif->state;
    const struct ip6_hdr *ip = p->payload;
    const uint8_t *next = (const uint8_t *)p->payload + found->offset;
    if (!interface->flows.spread)
        return false;
    if (found->protocol == IP6_NEXTH_ICMP6 && core_id() != 0 && next[0] >= ICMP6_TYPE_MLQ &&
        next[0] <= ICMP6_TYPE_RD) {
        flow_hand_over(interface, 0, p);
        return true;
    }
    if ((found->protocol != IP6_NEXTH_TCP && found->protocol != IP6_NEXTH_UDP) ||
        p->len < found->offset + 4)
        return false;
    struct nic_flow flow = {.ip6 = true, .protocol = found->protocol};
    memcpy(flow.src, &ip->src, sizeof(flow.src));
    memcpy(flow.dst, &ip->dest, sizeof(flow.dst));
    memcpy(&flow.src_port, next, sizeof(flow.src_port));
    memcpy(&flow.dst_port, next + 2, sizeof(flow.dst_port));
    return flow_elsewhere(interface, p, &flow);
}

// ---- Packet too big ----

// True if a connection of this core did send the segment that an ICMP message tells of.
static bool was_sent(struct netif *netif, const struct ip6_hdr *ip, const struct tcp_hdr *tcp)
{
    ip6_addr_t local, remote;
    ip6_addr_copy_from_packed(local, ip->src);
    ip6_addr_copy_from_packed(remote, ip->dest);
    ip6_addr_assign_zone(&local, IP6_UNICAST, netif);
    ip6_addr_assign_zone(&remote, IP6_UNICAST, netif);
    u32_t seqno = lwip_ntohl(tcp->seqno);
    for (struct tcp_pcb *pcb = tcp_active_pcbs; pcb; pcb = pcb->next)
        if (IP_IS_V6(&pcb->remote_ip) && pcb->netif_idx == netif_get_index(netif) &&
            pcb->local_port == lwip_ntohs(tcp->src) && pcb->remote_port == lwip_ntohs(tcp->dest) &&
            ip6_addr_eq(ip_2_ip6(&pcb->local_ip), &local) &&
            ip6_addr_eq(ip_2_ip6(&pcb->remote_ip), &remote))
            return TCP_SEQ_BETWEEN(seqno, pcb->lastack, pcb->snd_nxt);
    return false;
}

void ip6_path_is_narrower(const ip6_addr_t *destination, u16_t mtu)
{
    for (unsigned i = 0; i < LWIP_ND6_NUM_DESTINATIONS; i++)
        if (ip6_addr_eq(&destination_cache[i].destination_addr, destination) &&
            destination_cache[i].pmtu > mtu)
            destination_cache[i].pmtu = mtu;
    for (struct tcp_pcb *pcb = tcp_active_pcbs; pcb; pcb = pcb->next)
        if (IP_IS_V6(&pcb->remote_ip) && ip6_addr_eq(ip_2_ip6(&pcb->remote_ip), destination))
            stack_lower_mss(pcb, (u16_t)(mtu - IP6_HLEN - TCP_HLEN), true);
}

// True: it went to the flow's owner.
static bool is_elsewhere(struct pbuf *p, struct netif *netif, const struct ip6_hdr *about)
{
    const struct tcp_hdr *tcp = (const void *)(about + 1);
    struct nic_flow flow = {
        .ip6 = true, .protocol = IP6H_NEXTH(about), .src_port = tcp->dest, .dst_port = tcp->src};
    memcpy(flow.src, &about->dest, sizeof(flow.src));
    memcpy(flow.dst, &about->src, sizeof(flow.dst));
    return flow_elsewhere(netif->state, p, &flow);
}

// A sound "packet too big", its ICMPv6 header at `offset`: believed if it is intact, news, and about a
// packet that we sent. Takes p.
static void take_too_big(struct pbuf *p, struct netif *netif, u16_t offset)
{
    const struct ip6_hdr *ip = p->payload;
    const struct icmp6_hdr *icmp = (const void *)((const char *)p->payload + offset);
    const struct ip6_hdr *about = (const void *)(icmp + 1);
    const struct tcp_hdr *tcp = (const void *)(about + 1);
    u32_t mtu = lwip_ntohl(icmp->data);
    ip6_addr_t destination;
    ip6_addr_copy_from_packed(destination, about->dest);
    ip6_addr_assign_zone(&destination, IP6_UNKNOWN, netif);
    bool flow = IP6H_NEXTH(about) == IP6_NEXTH_TCP || IP6H_NEXTH(about) == IP6_NEXTH_UDP;
    bool ours = is_mine(netif, &ip->dest) && is_mine(netif, &about->src) &&
                (!flow || p->len >= offset + sizeof(*icmp) + IP6_HLEN + 8);
    if (ours && flow && is_elsewhere(p, netif, about))
        return;
    if (!ours || !icmp_is_intact(p, offset) ||
        (IP6H_NEXTH(about) == IP6_NEXTH_TCP && !was_sent(netif, about, tcp)) ||
        mtu >= nd6_get_destination_mtu(&destination, netif)) {
        drop(p, &refused);
        return;
    }
    ip6_path_is_narrower(&destination, (u16_t)mtu);
    share6_path(netif->state, (const uint8_t *)&about->dest, (u16_t)mtu);
    drop(p, &too_big);
}

// ---- Fragments ----

// As ip6_input() calls it. Takes p; NULL: there is more to come, or it was dropped.
static struct pbuf *reassemble(struct pbuf *p, struct netif *netif, u16_t offset)
{
    struct ip6_hdr *ip = p->payload;
    pbuf_realloc(p, (u16_t)(IP6_HLEN + IP6H_PLEN(ip)));
    ip_addr_copy_from_ip6_packed(ip_data.current_iphdr_src, ip->src);
    ip_addr_copy_from_ip6_packed(ip_data.current_iphdr_dest, ip->dest);
    ip6_addr_assign_zone(ip_2_ip6(&ip_data.current_iphdr_src), IP6_UNICAST, netif);
    ip6_addr_assign_zone(ip_2_ip6(&ip_data.current_iphdr_dest), IP6_UNICAST, netif);
    ip_data.current_ip6_header = ip;
    ip_data.current_netif = ip_data.current_input_netif = netif;
    ip_data.current_ip_header_tot_len = (u16_t)(offset + IP6_FRAG_HLEN);
    pbuf_remove_header(p, offset);
    p = ip6_reass(p);
    ip_data.current_ip6_header = NULL;
    ip_data.current_netif = ip_data.current_input_netif = NULL;
    if (p) { // ip6_reass() writes a length that lacks a fragment header
        ip = p->payload;
        IP6H_PLEN_SET(ip, (u16_t)(p->tot_len - IP6_HLEN));
    }
    return p;
}

static void take_fragment(struct pbuf *p, struct netif *netif, u16_t offset)
{
    const struct ip6_hdr *ip = p->payload;
    // lwIP keeps note of a datagram whose first fragment alone is more than it may keep, and stumbles.
    if (pbuf_clen(p) > IP_REASS_MAX_PBUFS / 8 || !is_mine(netif, &ip->dest)) {
        drop(p, &refused);
        return;
    }
    p = reassemble(p, netif, offset);
    if (!p)
        return;
    struct ip6_found found = ip6_check(p->payload, p->len, p->tot_len, true);
    if (found.verdict != IP6_GOOD) {
        drop(p, &refused);
        return;
    }
    reassembled++;
    interface_select_checks(netif->state, 0); // the host saw fragments only
    if (!is_other_cores(p, netif, &found))
        ip6_input_checked(p, netif);
}

// ---- Neighbours and routers ----

// Another host announces one of our addresses. While we ask whether it is free lwIP has to know; later
// it would give up an address that is in use, on anybody's word.
static bool is_conflict(const struct pbuf *p, struct netif *netif, u16_t offset)
{
    const char *target = (const char *)p->payload + offset + 8;
    return is_mine(netif, (const ip6_addr_p_t *)target) && !link_asked6(netif->state);
}

static void share_router(struct interface *interface, const uint8_t *ip, const uint8_t *icmp,
                         const uint8_t *end)
{
    struct router6 router = {.nic = interface->nic, .lifetime = (uint16_t)(icmp[6] << 8 | icmp[7])};
    memcpy(router.router, ip + 16, sizeof(router.router));
    unsigned prefixes = 0; // of more than there is room for the others are never heard of
    for (const uint8_t *at = icmp + 16; at < end; at += at[1] * 8) {
        if (at[0] == ND6_OPTION_TYPE_SOURCE_LLADDR)
            memcpy(router.mac, at + 2, sizeof(router.mac));
        if (at[0] == ND6_OPTION_TYPE_MTU && !at[4] && !at[5])
            router.mtu = (uint16_t)(at[6] << 8 | at[7]);
        if (at[0] == ND6_OPTION_TYPE_RDNSS)
            router_dns_take(&interface->settings.router_dns, at, at[1] * 8u, time_now());
    }
    for (const uint8_t *at = icmp + 16; at < end; at += at[1] * 8) {
        if (at[0] != ND6_OPTION_TYPE_PREFIX_INFO || at[2] != 64 ||
            !(at[3] & ND6_PREFIX_FLAG_ON_LINK))
            continue;
        struct router6 with = router;
        with.has_prefix = true;
        memcpy(with.prefix, at + 16, sizeof(with.prefix));
        with.valid = (uint32_t)at[4] << 24 | (uint32_t)at[5] << 16 | (uint32_t)at[6] << 8 | at[7];
        share6_router(interface, &with);
        if (++prefixes == SHARED_ROUTERS)
            break;
    }
    if (!prefixes)
        share6_router(interface, &router);
}

// Core 0: lets the other cores know what a sound message says. lwIP will check it once more.
static void share(struct pbuf *p, struct netif *netif, u16_t offset)
{
    if (!icmp_is_intact(p, offset))
        return;
    const uint8_t *ip = p->payload, *icmp = ip + offset, *end = ip + p->len;
    static const uint8_t none[16];
    bool option = end - icmp >= 32, to_us = ip[24] != 0xff;
    switch (icmp[0]) {
    case ICMP6_TYPE_NA:
        if (option)
            share6_neighbor(netif->state, icmp + 8, icmp + 26, icmp[4], to_us);
        break;
    case ICMP6_TYPE_NS:
        if (option && memcmp(ip + 8, none, sizeof(none)) != 0 &&
            is_mine(netif, (const ip6_addr_p_t *)(icmp + 8)))
            share6_neighbor(netif->state, ip + 8, icmp + 26, ND6_FLAG_OVERRIDE, true);
        break;
    case ICMP6_TYPE_RA:
        share_router(netif->state, ip, icmp, end);
        break;
    default:
        break;
    }
}

// ---- All packets ----

static void bring_connection(const struct pbuf *p, uint32_t offset)
{
    const struct ip6_hdr *ip = p->payload;
    u16_t ports[2];
    if (p->len < offset + sizeof(ports))
        return;
    memcpy(ports, (const char *)ip + offset, sizeof(ports));
    uint32_t source[4];
    memcpy(source, &ip->src, sizeof(source));
    front_bring(source, 4, ports[0], ports[1]);
}

int net_ip6_input(struct pbuf *p, struct netif *netif)
{
    const struct ip6_hdr *ip = p->payload;
    if (whole) {
        whole = false;
        return 0;
    }
    struct interface *interface = netif->state;
    if (interface->settings.config.ip6 == CONFIG_IP6_OFF || p->len < IP6_HLEN) {
        drop(p, &refused);
        return 1;
    }
    if (!ip6_addr_ismulticast(&ip->dest) && !is_mine(netif, &ip->dest)) {
        interface->rx_not_mine++; // lwIP would take what is for another NIC's address
        pbuf_free(p);
        return 1;
    }
    struct ip6_found found = {IP6_GOOD, IP6H_NEXTH(ip), IP6_HLEN};
    if (found.protocol != IP6_NEXTH_TCP && found.protocol != IP6_NEXTH_UDP)
        found = ip6_check(p->payload, p->len, p->tot_len, false); // of those lwIP checks enough
    if (found.verdict == IP6_BAD) {
        drop(p, &refused);
        return 1;
    }
    if (found.verdict == IP6_FRAGMENT) {
        take_fragment(p, netif, found.offset);
        return 1;
    }
    if (found.verdict == IP6_TOO_BIG) {
        take_too_big(p, netif, found.offset);
        return 1;
    }
    if (is_other_cores(p, netif, &found))
        return 1;
    if (found.verdict == IP6_NEIGHBOR && is_conflict(p, netif, found.offset)) {
        drop(p, &conflicts);
        return 1;
    }
    if (found.protocol == IP6_NEXTH_ICMP6)
        share(p, netif, found.offset);
    if (found.protocol == IP6_NEXTH_TCP)
        bring_connection(p, found.offset);
    return 0;
}

void ip6_input_checked(struct pbuf *p, struct netif *netif)
{
    whole = true;
    ip6_input(p, netif);
    whole = false;
}

// ---- Statistics ----

static unsigned total(const unsigned *counter)
{
    unsigned sum = 0;
    for (unsigned core = 0; core < core_count(); core++)
        sum += *(const unsigned *)core_peek(core, counter);
    return sum;
}

static void write_stats(void)
{
    unsigned in = 0, out = 0, by_lwip = 0;
    for (unsigned core = 0; core < core_count(); core++) {
        const struct stats_ *stats = core_peek(core, &lwip_stats);
        in += (unsigned)stats->ip6.recv;
        out += (unsigned)stats->ip6.xmit;
        by_lwip += (unsigned)(stats->ip6.drop + stats->icmp6.drop + stats->nd6.drop);
    }
    stats_print("{\"in\":%u,\"out\":%u,\"dropped\":%u,\"refused\":%u,\"conflicts\":%u,"
                "\"too_big\":%u,\"reassembled\":%u}",
                in, out, by_lwip, total(&refused), total(&conflicts), total(&too_big),
                total(&reassembled));
}

static struct stats_source ip6_stats = {.name = "ip6", .write = write_stats};

void ip6_input_start(void)
{
    stats_add(&ip6_stats);
}
