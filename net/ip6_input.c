// SPDX-License-Identifier: BSD-2-Clause
// IPv6 packets on their way into lwIP, which calls this first for each (net/hooks.h). What is neither
// plain TCP nor UDP is looked at closely, and fragments are put together here, so that a datagram is
// judged as a whole and lwIP never meets a fragment. Any core.
#include "kernel/config.h"
#include "kernel/console.h"
#include "kernel/core.h"
#include "kernel/log.h"
#include "lwip/icmp6.h"
#include "lwip/inet_chksum.h"
#include "lwip/ip6.h"
#include "lwip/ip6_frag.h"
#include "lwip/nd6.h"
#include "lwip/priv/tcp_priv.h"
#include "lwip/stats.h"
#include "net/hooks.h"
#include "net/interface.h"
#include "net/ip6_check.h"

static PERCORE bool whole; // the next packet was checked already
static PERCORE unsigned refused, conflicts, too_big, reassembled;

static void drop(struct pbuf *p, unsigned *counter)
{
    (*counter)++;
    pbuf_free(p);
}

static bool is_mine(struct netif *netif, const ip6_addr_p_t *packed)
{
    ip6_addr_t address;
    ip6_addr_copy_from_packed(address, *packed);
    ip6_addr_assign_zone(&address, IP6_UNICAST, netif);
    int index = netif_get_ip6_addr_match(netif, &address);
    return index >= 0 && ip6_addr_isvalid(netif_ip6_addr_state(netif, index));
}

// ---- Packet too big ----

// lwIP's connection that a TCP header in an ICMP message tells of, if it really sent that segment.
static struct tcp_pcb *find_sender(struct netif *netif, const struct ip6_hdr *ip,
                                   const struct tcp_hdr *tcp)
{
    ip6_addr_t local, remote;
    ip6_addr_copy_from_packed(local, ip->src);
    ip6_addr_copy_from_packed(remote, ip->dest);
    ip6_addr_assign_zone(&local, IP6_UNICAST, netif);
    ip6_addr_assign_zone(&remote, IP6_UNICAST, netif);
    u32_t seqno = lwip_ntohl(tcp->seqno);
    for (struct tcp_pcb *pcb = tcp_active_pcbs; pcb; pcb = pcb->next)
        if (IP_IS_V6(&pcb->remote_ip) && pcb->local_port == lwip_ntohs(tcp->src) &&
            pcb->remote_port == lwip_ntohs(tcp->dest) &&
            ip6_addr_eq(ip_2_ip6(&pcb->local_ip), &local) &&
            ip6_addr_eq(ip_2_ip6(&pcb->remote_ip), &remote))
            return TCP_SEQ_BETWEEN(seqno, pcb->lastack, pcb->snd_nxt) ? pcb : NULL;
    return NULL;
}

// New segments become small enough at once, unless lwIP might still append to a larger one: then this
// connection goes on in fragments.
static void lower_mss(struct tcp_pcb *pcb, u16_t mss)
{
    const struct tcp_seg *last = pcb->unsent;
    while (last && last->next)
        last = last->next;
    if (pcb->mss > mss && (!last || last->len + LWIP_TCP_OPT_LEN_TS_OUT <= mss))
        pcb->mss = mss;
}

// The message, its ICMPv6 header at `offset`, is about a packet that we sent, and news.
static bool believable(struct pbuf *p, struct netif *netif, u16_t offset)
{
    const struct ip6_hdr *ip = p->payload;
    const struct icmp6_hdr *icmp = (const void *)((const char *)p->payload + offset);
    const struct ip6_hdr *about = (const void *)(icmp + 1);
    u32_t mtu = lwip_ntohl(icmp->data);
    ip6_addr_t source, target, destination;
    ip6_addr_copy_from_packed(source, ip->src);
    ip6_addr_copy_from_packed(target, ip->dest);
    ip6_addr_copy_from_packed(destination, about->dest);
    ip6_addr_assign_zone(&destination, IP6_UNKNOWN, netif);
    if (!is_mine(netif, &ip->dest) || !is_mine(netif, &about->src) ||
        mtu >= nd6_get_destination_mtu(&destination, netif))
        return false;
    u16_t len = (u16_t)(IP6_HLEN + IP6H_PLEN(ip) - offset);
    pbuf_realloc(p, (u16_t)(offset + len)); // the link may have padded it
    pbuf_remove_header(p, offset);
    bool intact = ip6_chksum_pseudo(p, IP6_NEXTH_ICMP6, len, &source, &target) == 0;
    pbuf_add_header_force(p, offset);
    if (!intact || IP6H_NEXTH(about) != IP6_NEXTH_TCP)
        return intact;
    if (len < sizeof(*icmp) + IP6_HLEN + 8)
        return false;
    struct tcp_pcb *pcb = find_sender(netif, about, (const void *)(about + 1));
    if (pcb)
        lower_mss(pcb, (u16_t)(mtu - IP6_HLEN - TCP_HLEN));
    return pcb;
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
    if (p->len < p->tot_len || !is_mine(netif, &ip->dest)) {
        drop(p, &refused);
        return;
    }
    p = reassemble(p, netif, offset);
    if (!p)
        return;
    if (ip6_check(p->payload, p->len, p->tot_len, true).verdict != IP6_GOOD) {
        drop(p, &refused);
        return;
    }
    reassembled++;
    interface_select_checks(netif->state, 0); // the host saw fragments only
    whole = true;
    ip6_input(p, netif);
    whole = false;
}

// ---- All packets ----

// Another host announces one of our addresses. While we ask whether it is free lwIP has to know; later
// it would give up an address that is in use, on anybody's word.
static bool is_conflict(const struct pbuf *p, struct netif *netif, u16_t offset)
{
    const char *target = (const char *)p->payload + offset + 8;
    return is_mine(netif, (const ip6_addr_p_t *)target);
}

int net_ip6_input(struct pbuf *p, struct netif *netif)
{
    const struct ip6_hdr *ip = p->payload;
    bool checked = whole;
    whole = false;
    if (config.ip6 == CONFIG_IP6_OFF || p->len < IP6_HLEN) {
        drop(p, &refused);
        return 1;
    }
    if (checked || IP6H_NEXTH(ip) == IP6_NEXTH_TCP || IP6H_NEXTH(ip) == IP6_NEXTH_UDP)
        return 0; // lwIP checks what is left
    struct ip6_found found = ip6_check(p->payload, p->len, p->tot_len, false);
    switch (found.verdict) {
    case IP6_GOOD:
        return 0;
    case IP6_FRAGMENT:
        take_fragment(p, netif, found.offset);
        return 1;
    case IP6_NEIGHBOR:
        if (!is_conflict(p, netif, found.offset))
            return 0;
        drop(p, &conflicts);
        return 1;
    case IP6_TOO_BIG:
        if (believable(p, netif, found.offset)) {
            too_big++;
            return 0;
        }
        break;
    case IP6_BAD:
        break;
    }
    drop(p, &refused);
    return 1;
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
