// SPDX-License-Identifier: BSD-2-Clause
// From lwIP to a NIC, piece by piece without copying here; what the NIC has no room for waits in a
// queue, and behind that TCP is told to wait. Runs on the core of the NIC's channel.
#include <string.h>

#include "kernel/core.h"
#include "lwip/def.h"
#include "lwip/etharp.h"
#include "lwip/ethip6.h"
#include "lwip/priv/nd6_priv.h"
#include "lwip/priv/tcp_priv.h"
#include "lwip/prot/ethernet.h"
#include "lwip/prot/ip4.h"
#include "lwip/prot/ip6.h"
#include "lwip/prot/tcp.h"
#include "net/express.h"
#include "net/interface.h"
#include "net/route.h"
#include "net/stack.h"
#include "net/sum.h"

// The large segment that lwIP sends now, and the payload of the segments to make of it.
static PERCORE struct {
    const struct tcp_hdr *header; // NULL: what it sends now is not large
    uint16_t mss;
    u16_t *path_mtu, path_mtu_was; // of IPv6: see interface_tcp_out()
} large;

// Sending what waits for a neighbour lwIP may find that the way has changed, recycle that neighbour's
// own entry for the new one, and put the packet in the queue that it is emptying, for ever. So only so
// many packets may be put in queues in one turn of the loop: more than all queues hold.
#define QUEUED_MOST (8 * MEMP_NUM_ND6_QUEUE)

// In the NIC's ring: what it sends within about a millisecond.
#define ENOUGH_BYTES (2u << 20)

static PERCORE unsigned queued;      // in this turn
static PERCORE unsigned transmitted; // frames, ever

static PERCORE const struct tcp_pcb *next_turn; // see resume_tcp(); may be gone, only compared

// Where the TCP header of a frame is, 0 if it has none. *family: NIC_TX_IP4 or NIC_TX_IP6; *sum: of
// the pseudo header's addresses. The headers of all that lwIP builds lie in the first pbuf.
static unsigned find_tcp(const struct pbuf *p, uint8_t *family, uint32_t *sum)
{
    const uint8_t *frame = p->payload;
    const struct eth_hdr *eth = p->payload;
    unsigned offset = 0;
    if (p->len >= SIZEOF_ETH_HDR + IP_HLEN && eth->type == PP_HTONS(ETHTYPE_IP)) {
        const struct ip_hdr *ip = (const struct ip_hdr *)(frame + SIZEOF_ETH_HDR);
        *family = NIC_TX_IP4;
        *sum = sum_words(&ip->src, 8);
        if (IPH_PROTO(ip) == IP_PROTO_TCP && !(IPH_OFFSET(ip) & PP_HTONS(IP_MF | IP_OFFMASK)))
            offset = SIZEOF_ETH_HDR + IPH_HL_BYTES(ip);
    } else if (p->len >= SIZEOF_ETH_HDR + IP6_HLEN && eth->type == PP_HTONS(ETHTYPE_IPV6)) {
        *family = NIC_TX_IP6;
        const struct ip6_hdr *ip = (const struct ip6_hdr *)(frame + SIZEOF_ETH_HDR);
        *sum = sum_words(&ip->src, 32);
        if (IP6H_NEXTH(ip) == IP6_NEXTH_TCP)
            offset = SIZEOF_ETH_HDR + IP6_HLEN;
    }
    return offset && p->len >= offset + TCP_HLEN ? offset : 0;
}

// What the NIC is to do with a frame. If it is to fill in the TCP checksum, leaves the pseudo header's
// sum in its place, as the host expects it. False: the frame is too long for the wire, and it is not
// known how to cut it.
static bool choose_offload(struct interface *interface, struct pbuf *p, struct tx_offload *offload)
{
    const struct nic_info *info = nic_info(interface->nic);
    bool too_long = p->tot_len > info->mtu + SIZEOF_ETH_HDR;
    uint8_t family;
    uint32_t sum;
    unsigned offset = find_tcp(p, &family, &sum);
    *offload = (struct tx_offload){0};
    if (!offset || (info->tx_csum & (family | NIC_TX_TCP)) != (family | NIC_TX_TCP))
        return !too_long;
    struct tcp_hdr *tcp = (struct tcp_hdr *)((char *)p->payload + offset);
    // One that had to wait for its neighbour's address comes when others have passed.
    if (large.header == tcp && (info->tx_large & family) && p->tot_len <= info->tx_large_max)
        offload->mss = large.mss;
    else if (too_long)
        return false;
    sum += PP_HTONS(IP_PROTO_TCP) + lwip_htons((u16_t)(p->tot_len - offset));
    sum = (sum & 0xffff) + (sum >> 16);
    tcp->chksum = (u16_t)((sum & 0xffff) + (sum >> 16));
    offload->csum = family | NIC_TX_TCP;
    offload->transport_offset = (uint16_t)offset;
    return true;
}

static unsigned describe(const struct pbuf *p, struct nic_piece pieces[NIC_TX_PIECES])
{
    unsigned count = 0;
    for (; p; p = p->next) {
        if (!p->len)
            continue;
        if (count == NIC_TX_PIECES)
            return 0;
        pieces[count].data = p->payload;
        pieces[count++].len = p->len;
    }
    return count;
}

static void note_held(struct interface *interface, uint32_t len)
{
    interface->tx_held++;
    interface->tx_in_flight++;
    interface->tx_in_flight_bytes += len;
}

// Offers one frame to the NIC. False: its ring is full. A frame that is held keeps a reference.
static bool offer(struct interface *interface, struct pbuf *p, const struct tx_offload *offload)
{
    struct nic_piece pieces[NIC_TX_PIECES];
    struct nic_tx tx = {.pieces = pieces,
                        .count = describe(p, pieces),
                        .len = p->tot_len,
                        .csum = offload->csum,
                        .transport_offset = offload->transport_offset,
                        .mss = offload->mss,
                        .done_ctx = p};
    pbuf_ref(p);
    enum nic_tx_result result = nic_send(interface->nic, &tx);
    if (result == NIC_TX_HELD)
        note_held(interface, p->tot_len);
    else
        pbuf_free(p);
    return result != NIC_TX_FULL;
}

static err_t enqueue(struct interface *interface, struct pbuf *p, const struct tx_offload *offload)
{
    if (interface->queue_count == TX_QUEUE) {
        interface->tx_refused++;
        interface->refused = true;
        return ERR_MEM; // TCP keeps the segment and is told when to go on
    }
    pbuf_ref(p);
    unsigned at = (interface->queue_first + interface->queue_count++) % TX_QUEUE;
    interface->queue[at] = (struct tx_entry){p, *offload};
    interface->tx_queued++;
    return ERR_OK;
}

err_t interface_transmit(struct netif *netif, struct pbuf *p)
{
    struct interface *interface = netif->state;
    struct tx_offload offload;
    struct pbuf *flat = NULL;
    transmitted++;
    if (!choose_offload(interface, p, &offload)) {
        interface->tx_too_long++;
        return ERR_OK; // lost on the way; TCP sends it again
    }
    if (pbuf_clen(p) > NIC_TX_PIECES) {
        flat = pbuf_clone(PBUF_RAW, PBUF_RAM, p);
        if (!flat) {
            interface->tx_no_memory++;
            return ERR_MEM;
        }
        interface->tx_coalesced++;
        p = flat;
    }
    err_t error = ERR_OK;
    if (interface->queue_count || !offer(interface, p, &offload))
        error = enqueue(interface, p, &offload);
    else
        express_frame_out(netif, p, &offload);
    if (error == ERR_OK) {
        interface->tx_frames++;
        interface->tx_bytes += p->tot_len;
        interface->tx_large += offload.mss != 0;
    }
    if (flat)
        pbuf_free(flat);
    return error;
}

// ---- Large send ----

// What lwIP knows of the path to an IPv6 address, or of the link if it knows none.
static u16_t *path_mtu(struct netif *netif, const struct tcp_pcb *pcb)
{
    const ip6_addr_t *remote = ip_2_ip6(&pcb->remote_ip);
    unsigned hint = pcb->netif_hints.addr_hint; // where it was found the last time
    if (hint < LWIP_ND6_NUM_DESTINATIONS &&
        ip6_addr_eq(&destination_cache[hint].destination_addr, remote))
        return &destination_cache[hint].pmtu;
    for (unsigned i = 0; i < LWIP_ND6_NUM_DESTINATIONS; i++)
        if (ip6_addr_eq(&destination_cache[i].destination_addr, remote))
            return &destination_cache[i].pmtu;
    return &netif->mtu6;
}

// lwIP makes fragments of what is longer than netif->mtu or, for IPv6, the path's. A large segment passes
// with that raised, and so does any of TCP: no NIC fills in a checksum for all of several fragments, and
// what lwIP's IPv6 has made fragments of it cannot send again. It is raised from interface_tcp_out(),
// where lwIP has just built the segment, to interface_output() and interface_output6(), behind the
// decision.
static void restore_path_mtu(void)
{
    if (large.path_mtu)
        *large.path_mtu = large.path_mtu_was;
    large.path_mtu = NULL;
}

void interface_tcp_out(const struct tcp_pcb *pcb, const struct tcp_hdr *header, uint32_t length)
{
    large.header = NULL;
    restore_path_mtu(); // the last one may have failed before it came to interface_output6()
    bool ip6 = pcb && IP_IS_V6(&pcb->remote_ip);
    if (!pcb || pcb->mss < STACK_MSS_LEAST ||
        length <= (ip6 ? IP6_MIN_MTU_LENGTH - IP6_HLEN : STACK_MSS_LEAST + TCP_HLEN))
        return;
    struct netif *netif = pcb->netif_idx == NETIF_NO_INDEX
                              ? ip_route(&pcb->local_ip, &pcb->remote_ip)
                              : netif_get_by_index(pcb->netif_idx);
    if (!netif || netif->linkoutput != interface_transmit)
        return;
    // The way may have become narrower than the connection's segments.
    u16_t *mtu6 = ip6 ? path_mtu(netif, pcb) : NULL;
    uint16_t way =
        ip6 ? (uint16_t)(*mtu6 - IP6_HLEN - TCP_HLEN) : interface_link_mss(netif->state, pcb);
    uint16_t mss = LWIP_MIN(pcb->mss, way);
    if (mss < STACK_MSS_LEAST || length <= (uint32_t)mss + TCP_HLEN)
        return;
    if (ip6) {
        large.path_mtu = mtu6;
        large.path_mtu_was = *mtu6;
        *mtu6 = UINT16_MAX;
    }
    netif->mtu = UINT16_MAX;
    if (!interface_large_max(netif, ip6))
        return; // narrow.c could not cut it yet: what takes it, takes it whole
    large.header = header;
    large.mss = (uint16_t)(mss - (TCPH_HDRLEN_BYTES(header) - TCP_HLEN));
}

uint16_t interface_path_mss(struct netif *netif, const struct tcp_pcb *pcb, unsigned tcp_header)
{
    const struct interface *interface = netif->state;
    unsigned mtu = interface->mtu, headers = IP_HLEN + tcp_header;
    if (IP_IS_V6(&pcb->remote_ip)) {
        mtu = LWIP_MIN(mtu, *path_mtu(netif, pcb));
        headers = IP6_HLEN + tcp_header;
    }
    return (uint16_t)(mtu > headers ? mtu - headers : 0);
}

err_t interface_output(struct netif *netif, struct pbuf *p, const ip4_addr_t *address)
{
    const struct interface *interface = netif->state;
    netif->mtu = interface->mtu;
    return etharp_output(netif, p, address);
}

err_t interface_output6(struct netif *netif, struct pbuf *p, const ip6_addr_t *address)
{
    struct interface *interface = netif->state;
    netif->mtu = interface->mtu;
    restore_path_mtu();
    if (ip6_addr_ismulticast(address))
        return ethip6_output(netif, p, address);
    if (queued == QUEUED_MOST) {
        interface->tx_unresolved++;
        return ERR_RTE;
    }
    route_forget_other6(netif, address);
    unsigned before = transmitted;
    queued++;
    err_t error = ethip6_output(netif, p, address);
    if (transmitted != before)
        queued--; // the frame, or a question for its neighbour: there are no more of those than entries
    return error;
}

void interface_new_turn(void)
{
    queued = 0;
}

uint32_t interface_large_max(const struct netif *netif, bool ip6)
{
    const struct interface *interface = netif->state;
    const struct nic_info *info = nic_info(interface->nic);
    uint8_t needed = (ip6 ? NIC_TX_IP6 : NIC_TX_IP4) | NIC_TX_TCP;
    if ((info->tx_csum & needed) != needed || !(info->tx_large & needed))
        return 0;
    return info->tx_large_max - SIZEOF_ETH_HDR;
}

bool interface_has_enough(const struct netif *netif)
{
    const struct interface *interface = netif->state;
    return interface->queue_count || interface->tx_in_flight_bytes >= ENOUGH_BYTES;
}

// What of a frame without pbufs comes back: its length, marked.
static void *mark_length(uint32_t len)
{
    return (void *)(uintptr_t)(len << 1 | 1);
}

static bool is_marked(const void *done_ctx)
{
    return (uintptr_t)done_ctx & 1;
}

bool interface_send_frame(const struct netif *netif, struct nic_tx *tx)
{
    struct interface *interface = netif->state;
    tx->done_ctx = mark_length(tx->len);
    if (interface->queue_count)
        return false;
    enum nic_tx_result result = nic_send(interface->nic, tx);
    if (result == NIC_TX_FULL)
        return false;
    if (result == NIC_TX_HELD)
        note_held(interface, tx->len);
    interface->tx_frames++;
    interface->tx_bytes += tx->len;
    interface->tx_large += tx->mss != 0;
    return true;
}

void interface_tx_done(struct nic *nic, void *done_ctx)
{
    struct interface *interface = nic_client_data(nic);
    struct pbuf *p = is_marked(done_ctx) ? NULL : done_ctx;
    interface->tx_in_flight--;
    interface->tx_in_flight_bytes -= p ? p->tot_len : (uint32_t)((uintptr_t)done_ctx >> 1);
    if (p)
        pbuf_free(p);
}

// There is room again: lets the connections that were refused send, each in its turn. lwIP's own
// tcp_txnow() begins with the same one each time, and the last of many would never get any room.
static void resume_tcp(struct interface *interface)
{
    struct tcp_pcb *first = tcp_active_pcbs;
    while (first && first != next_turn)
        first = first->next;
    if (!first)
        first = tcp_active_pcbs;
    struct tcp_pcb *pcb = first;
    interface->refused = false;
    while (pcb) {
        struct tcp_pcb *next = pcb->next ? pcb->next : tcp_active_pcbs;
        next_turn = next;
        if (pcb->flags & TF_NAGLEMEMERR)
            tcp_output(pcb);
        if (interface->refused || next == first)
            return;
        pcb = next;
    }
}

void interface_tx_ready(struct nic *nic)
{
    struct interface *interface = nic_client_data(nic);
    while (interface->queue_count) {
        struct tx_entry *entry = &interface->queue[interface->queue_first];
        if (!offer(interface, entry->p, &entry->offload))
            return;
        pbuf_free(entry->p);
        interface->queue_first = (interface->queue_first + 1) % TX_QUEUE;
        interface->queue_count--;
    }
    if (interface->refused)
        resume_tcp(interface);
}

void interface_drop_queue(struct interface *interface)
{
    for (; interface->queue_count; interface->queue_count--) {
        pbuf_free(interface->queue[interface->queue_first].p);
        interface->queue_first = (interface->queue_first + 1) % TX_QUEUE;
    }
}
