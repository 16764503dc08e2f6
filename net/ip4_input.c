// SPDX-License-Identifier: BSD-2-Clause
// IPv4 packets on their way into lwIP, which calls this first for each (net/hooks.h). What belongs to
// another core goes there: so fragments are put together here, because only the whole datagram tells
// its ports; a message about one of our flows goes to the flow's core; DHCP and what is sent to all is
// core 0's. The rest lwIP gets where it arrived. What is malformed is left to lwIP to drop, but for what
// is too short even for that. Any core.
#include <string.h>

#include "kernel/core.h"
#include "lwip/icmp.h"
#include "lwip/inet_chksum.h"
#include "lwip/ip4.h"
#include "lwip/ip4_frag.h"
#include "lwip/netif.h"
#include "lwip/priv/tcp_priv.h"
#include "lwip/prot/iana.h"
#include "lwip/prot/ip4.h"
#include "lwip/prot/tcp.h"
#include "lwip/prot/udp.h"
#include "net/flow.h"
#include "net/front.h"
#include "net/hooks.h"
#include "net/interface.h"
#include "net/stack.h"

#define MSS_MIN 512u // no message makes segments smaller

static u16_t header_of(const struct pbuf *p)
{
    return IPH_HL_BYTES((const struct ip_hdr *)p->payload);
}

// The header is whole and, where the host does not vouch for it, intact.
static bool header_is_good(const struct pbuf *p, const struct netif *netif)
{
    const struct ip_hdr *ip = p->payload;
    u16_t header = header_of(p), length = lwip_ntohs(IPH_LEN(ip));
    if (header < IP_HLEN || header > p->len || length < header || length > p->tot_len)
        return false;
    return !(netif->chksum_flags & NETIF_CHECKSUM_CHECK_IP) || inet_chksum(ip, header) == 0;
}

static bool is_ours(const ip4_addr_p_t *address, const struct netif *netif)
{
    return address->addr == netif_ip4_addr(netif)->addr && address->addr != IPADDR_ANY;
}

static bool is_for_all(const ip4_addr_p_t *packed, const struct netif *netif)
{
    ip4_addr_t address;
    ip4_addr_copy(address, *packed);
    return ip4_addr_isbroadcast(&address, netif) || ip4_addr_ismulticast(&address);
}

// ---- Messages about a flow ----

// lwIP's connection over interface `index` that a message tells of, if it really sent that segment.
static struct tcp_pcb *find_sender(u8_t index, const struct ip_hdr *ip, const struct tcp_hdr *tcp)
{
    u32_t seqno = lwip_ntohl(tcp->seqno);
    for (struct tcp_pcb *pcb = tcp_active_pcbs; pcb; pcb = pcb->next)
        if (pcb->netif_idx == index && pcb->local_port == lwip_ntohs(tcp->src) &&
            pcb->remote_port == lwip_ntohs(tcp->dest) &&
            ip_2_ip4(&pcb->local_ip)->addr == ip->src.addr &&
            ip_2_ip4(&pcb->remote_ip)->addr == ip->dest.addr)
            return TCP_SEQ_BETWEEN(seqno, pcb->lastack, pcb->snd_nxt) ? pcb : NULL;
    return NULL;
}

// "Fragmentation needed".
static void lower_mss(u8_t index, const struct ip_hdr *about, const struct tcp_hdr *tcp, u16_t mtu)
{
    struct tcp_pcb *pcb = find_sender(index, about, tcp);
    if (!pcb)
        return;
    stack_lower_mss(pcb, (u16_t)LWIP_MAX(mtu, MSS_MIN + IP_HLEN + TCP_HLEN) - IP_HLEN - TCP_HLEN,
                    true);
}

static bool icmp_is_intact(struct pbuf *p)
{
    u16_t header = header_of(p);
    pbuf_realloc(p, lwip_ntohs(IPH_LEN((const struct ip_hdr *)p->payload)));
    pbuf_remove_header(p, header);
    bool intact = inet_chksum_pbuf(p) == 0;
    pbuf_add_header_force(p, header);
    return intact;
}

// True: it was another core's.
static bool take_icmp(struct pbuf *p, struct netif *netif)
{
    const struct icmp_hdr *icmp = (const void *)((const char *)p->payload + header_of(p));
    const struct ip_hdr *about = (const void *)((const char *)icmp + 8);
    size_t have = p->len - header_of(p);
    if (have < 8 + IP_HLEN + 8 ||
        (icmp->type != ICMP_DUR && icmp->type != ICMP_TE && icmp->type != ICMP_PP))
        return false;
    u16_t header = IPH_HL_BYTES(about);
    if (header < IP_HLEN || have < 8u + header + 8 || !is_ours(&about->src, netif) ||
        (IPH_OFFSET(about) & PP_HTONS(IP_OFFMASK)) ||
        (IPH_PROTO(about) != IP_PROTO_TCP && IPH_PROTO(about) != IP_PROTO_UDP))
        return false;
    const struct tcp_hdr *tcp = (const void *)((const char *)about + header);
    struct nic_flow flow = {
        .protocol = IPH_PROTO(about), .src_port = tcp->dest, .dst_port = tcp->src};
    memcpy(flow.src, &about->dest, sizeof(about->dest));
    memcpy(flow.dst, &about->src, sizeof(about->src));
    if (flow_elsewhere(netif->state, p, &flow))
        return true;
    if (icmp->type == ICMP_DUR && icmp->code == ICMP_DUR_FRAG && flow.protocol == IP_PROTO_TCP &&
        icmp_is_intact(p)) {
        u16_t mtu;
        memcpy(&mtu, (const char *)icmp + 6, sizeof(mtu));
        lower_mss(netif_get_index(netif), about, tcp, lwip_ntohs(mtu));
    }
    return false;
}

// ---- Fragments ----

static void take_fragment(struct pbuf *p, struct netif *netif)
{
    pbuf_realloc(p, lwip_ntohs(IPH_LEN((const struct ip_hdr *)p->payload)));
    p = ip4_reass(p);
    if (!p)
        return;
    interface_select_checks(netif->state, 0); // the host saw fragments only
    ip4_input(p, netif);
}

// ---- All packets ----

// DHCP answers before there is an address.
static bool is_dhcp(const struct pbuf *p)
{
    const struct ip_hdr *ip = p->payload;
    u16_t header = header_of(p), port;
    if (IPH_PROTO(ip) != IP_PROTO_UDP || p->len < header + UDP_HLEN)
        return false;
    memcpy(&port, (const char *)ip + header + 2, sizeof(port));
    return port == PP_HTONS(LWIP_IANA_PORT_DHCP_CLIENT);
}

// True: it was another core's.
static bool take_datagram(struct pbuf *p, struct netif *netif)
{
    const struct ip_hdr *ip = p->payload;
    u16_t header = header_of(p);
    u16_t ports[2];
    if (p->len < header + sizeof(ports))
        return false;
    memcpy(ports, (const char *)ip + header, sizeof(ports));
    if (IPH_PROTO(ip) == IP_PROTO_UDP &&
        (ports[1] == PP_HTONS(LWIP_IANA_PORT_DHCP_CLIENT) || is_for_all(&ip->dest, netif))) {
        if (core_id() == 0)
            return false;
        flow_hand_over(netif->state, 0, p);
        return true;
    }
    struct nic_flow flow = {.protocol = IPH_PROTO(ip), .src_port = ports[0], .dst_port = ports[1]};
    memcpy(flow.src, &ip->src, sizeof(ip->src));
    memcpy(flow.dst, &ip->dest, sizeof(ip->dest));
    return flow_elsewhere(netif->state, p, &flow);
}

static void bring_connection(const struct pbuf *p)
{
    const struct ip_hdr *ip = p->payload;
    u16_t header = header_of(p), ports[2];
    if (p->len < header + sizeof(ports))
        return;
    memcpy(ports, (const char *)ip + header, sizeof(ports));
    u32_t source = ip->src.addr;
    front_bring(&source, 1, ports[0], ports[1]);
}

int net_ip4_input(struct pbuf *p, struct netif *netif)
{
    const struct ip_hdr *ip = p->payload;
    struct interface *interface = netif->state;
    if (p->len < IP_HLEN) { // lwIP would read on behind it
        pbuf_free(p);
        return 1;
    }
    // lwIP would take what is for another NIC's address.
    if (!is_ours(&ip->dest, netif) && !is_for_all(&ip->dest, netif) && !is_dhcp(p)) {
        interface->rx_not_mine++;
        pbuf_free(p);
        return 1;
    }
    bool icmp = IPH_PROTO(ip) == IP_PROTO_ICMP;
    if (IPH_PROTO(ip) == IP_PROTO_TCP)
        bring_connection(p);
    if ((!interface->flows.spread && !icmp) || !header_is_good(p, netif))
        return 0;
    if (IPH_OFFSET(ip) & PP_HTONS(IP_MF | IP_OFFMASK)) {
        if (!interface->flows.spread ||
            !(is_ours(&ip->dest, netif) || is_for_all(&ip->dest, netif)))
            return 0;
        take_fragment(p, netif);
        return 1;
    }
    if (icmp)
        return take_icmp(p, netif);
    if (IPH_PROTO(ip) == IP_PROTO_TCP || IPH_PROTO(ip) == IP_PROTO_UDP)
        return take_datagram(p, netif);
    return 0;
}
