// SPDX-License-Identifier: BSD-2-Clause
// From lwIP to a NIC, piece by piece without copying here; what the NIC has no room for waits in a
// queue, and behind that TCP is told to wait. Runs on the core of the NIC's channel.
#include "kernel/core.h"
#include "lwip/def.h"
#include "lwip/priv/tcp_priv.h"
#include "lwip/prot/ethernet.h"
#include "lwip/prot/ip4.h"
#include "lwip/prot/tcp.h"
#include "net/interface.h"

static PERCORE const struct tcp_pcb *next_turn; // see resume_tcp(); may be gone, only compared

// If the NIC is to fill in the TCP checksum, leaves the pseudo header's sum in its place, as the
// host expects it. Returns the NIC_TX_* bits. The headers of all that lwIP builds lie in the first
// pbuf.
static uint8_t request_checksum(const struct interface *interface, struct pbuf *p,
                                uint16_t *transport_offset)
{
    if (interface->checksums & NETIF_CHECKSUM_GEN_TCP)
        return 0;
    const struct eth_hdr *eth = p->payload;
    struct ip_hdr *ip = (struct ip_hdr *)((char *)p->payload + SIZEOF_ETH_HDR);
    if (p->len < SIZEOF_ETH_HDR + IP_HLEN || eth->type != PP_HTONS(ETHTYPE_IP) ||
        IPH_PROTO(ip) != IP_PROTO_TCP || (IPH_OFFSET(ip) & PP_HTONS(IP_MF | IP_OFFMASK)))
        return 0;
    unsigned offset = SIZEOF_ETH_HDR + IPH_HL_BYTES(ip);
    if (p->len < offset + TCP_HLEN)
        return 0;
    struct tcp_hdr *tcp = (struct tcp_hdr *)((char *)p->payload + offset);
    uint32_t source = ip->src.addr, target = ip->dest.addr;
    uint32_t sum = (source & 0xffff) + (source >> 16) + (target & 0xffff) + (target >> 16) +
                   PP_HTONS(IP_PROTO_TCP) + lwip_htons((u16_t)(p->tot_len - offset));
    sum = (sum & 0xffff) + (sum >> 16);
    tcp->chksum = (u16_t)((sum & 0xffff) + (sum >> 16));
    *transport_offset = (uint16_t)offset;
    return NIC_TX_IP4 | NIC_TX_TCP;
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

// Offers one frame to the NIC. False: its ring is full. A frame that is held keeps a reference.
static bool offer(struct interface *interface, struct pbuf *p, uint8_t csum,
                  uint16_t transport_offset)
{
    struct nic_piece pieces[NIC_TX_PIECES];
    struct nic_tx tx = {.pieces = pieces,
                        .count = describe(p, pieces),
                        .len = p->tot_len,
                        .csum = csum,
                        .transport_offset = transport_offset,
                        .done_ctx = p};
    pbuf_ref(p);
    enum nic_tx_result result = nic_send(interface->nic, &tx);
    if (result == NIC_TX_HELD) {
        interface->tx_held++;
        interface->tx_in_flight++;
    } else {
        pbuf_free(p);
    }
    return result != NIC_TX_FULL;
}

static err_t enqueue(struct interface *interface, struct pbuf *p, uint8_t csum,
                     uint16_t transport_offset)
{
    if (interface->queue_count == TX_QUEUE) {
        interface->tx_refused++;
        interface->refused = true;
        return ERR_MEM; // TCP keeps the segment and is told when to go on
    }
    pbuf_ref(p);
    unsigned at = (interface->queue_first + interface->queue_count++) % TX_QUEUE;
    interface->queue[at] = (struct tx_entry){p, csum, transport_offset};
    interface->tx_queued++;
    return ERR_OK;
}

// lwIP's way out: one Ethernet frame.
err_t interface_transmit(struct netif *netif, struct pbuf *p)
{
    struct interface *interface = netif->state;
    struct pbuf *flat = NULL;
    if (pbuf_clen(p) > NIC_TX_PIECES) {
        flat = pbuf_clone(PBUF_RAW, PBUF_RAM, p);
        if (!flat) {
            interface->tx_no_memory++;
            return ERR_MEM;
        }
        interface->tx_coalesced++;
        p = flat;
    }
    uint16_t transport_offset = 0;
    uint8_t csum = request_checksum(interface, p, &transport_offset);
    err_t error = ERR_OK;
    if (interface->queue_count || !offer(interface, p, csum, transport_offset))
        error = enqueue(interface, p, csum, transport_offset);
    if (error == ERR_OK) {
        interface->tx_frames++;
        interface->tx_bytes += p->tot_len;
    }
    if (flat)
        pbuf_free(flat);
    return error;
}

void interface_tx_done(struct nic *nic, void *done_ctx)
{
    struct interface *interface = nic_client_data(nic);
    interface->tx_in_flight--;
    pbuf_free(done_ctx);
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
        if (!offer(interface, entry->p, entry->csum, entry->transport_offset))
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
