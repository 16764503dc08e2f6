// SPDX-License-Identifier: BSD-2-Clause
// Between a NIC (drivers/netvsc) and lwIP. Received frames are lent to lwIP: their headers are
// copied, because the host may still write the receive buffer and lwIP reads headers more than once;
// the payload stays where it is and goes back when lwIP frees it. Frames for the NIC go out piece by
// piece without being copied here. Runs on the core of the NIC's channel.
#include <string.h>

#include "kernel/alloc.h"
#include "kernel/config.h"
#include "kernel/console.h"
#include "kernel/core.h"
#include "kernel/log.h"
#include "lwip/dhcp.h"
#include "lwip/etharp.h"
#include "lwip/inet_chksum.h"
#include "lwip/ip4_frag.h"
#include "lwip/netif.h"
#include "lwip/pbuf.h"
#include "lwip/priv/tcp_priv.h"
#include "lwip/prot/ethernet.h"
#include "lwip/prot/ip4.h"
#include "lwip/prot/tcp.h"
#include "net/stack.h"
#include "netif/ethernet.h"

// Headers that are read in place: Ethernet, IPv4 and TCP, each as long as it can be.
#define HEADER_BYTES (14 + 60 + 60)
// Up to this length a frame is copied whole: cheaper than lending, and its section is free at once.
#define COPY_BYTES 256
// Frames that wait for room in the NIC's ring. When all are used TCP keeps its segments itself.
#define TX_QUEUE 256

// A received frame on loan. `head` holds its headers, `body` refers to the rest; they are chained
// and freed one by one. The receive buffer's token goes back with the body.
struct rx_frame {
    struct pbuf_custom head;
    struct pbuf_custom body;
    struct interface *interface;
    void *token;
    unsigned parts; // of the two pbufs, how many live
    uint8_t header[HEADER_BYTES];
};

struct tx_entry {
    struct pbuf *p; // one reference
    uint8_t csum;
    uint16_t transport_offset;
};

struct interface {
    struct netif netif;
    struct nic *nic;
    struct interface *next;
    uint16_t checksums; // NETIF_CHECKSUM_GEN_*: what lwIP fills in itself
    bool refused;       // lwIP was told that the queue is full
    unsigned queue_first, queue_count;
    struct tx_entry queue[TX_QUEUE];

    uint64_t rx_frames, rx_bytes, rx_copied, rx_bad_checksum, rx_bad_length, rx_no_memory;
    uint64_t tx_frames, tx_bytes, tx_held, tx_queued, tx_refused, tx_coalesced, tx_no_memory;
    unsigned rx_on_loan, tx_in_flight;
};

static PERCORE struct interface *interfaces;
static PERCORE const struct tcp_pcb *next_turn; // see resume_tcp(); may be gone, only compared

// ---- Receive ----

static void rx_part_freed(struct rx_frame *frame)
{
    if (--frame->parts == 0)
        heap_free(frame);
}

static void rx_head_freed(struct pbuf *p)
{
    rx_part_freed((struct rx_frame *)((char *)p - offsetof(struct rx_frame, head)));
}

static void rx_body_freed(struct pbuf *p)
{
    struct rx_frame *frame = (struct rx_frame *)((char *)p - offsetof(struct rx_frame, body));
    frame->interface->rx_on_loan--;
    nic_rx_release(frame->interface->nic, frame->token);
    rx_part_freed(frame);
}

// The frame in memory of its own; its section is given back by the caller. NULL: no memory.
static struct pbuf *rx_copy(struct interface *interface, const struct nic_frame *in)
{
    struct pbuf *p = pbuf_alloc(PBUF_RAW, (u16_t)in->len, PBUF_RAM);
    if (p) {
        memcpy(p->payload, in->data, in->len);
        interface->rx_copied++;
    }
    return p;
}

// The frame with private headers and a payload that stays where it is. NULL: no memory.
static struct pbuf *rx_lend(struct interface *interface, const struct nic_frame *in)
{
    struct rx_frame *frame = net_alloc(sizeof(*frame));
    if (!frame)
        return NULL;
    frame->interface = interface;
    frame->token = in->token;
    frame->parts = 2;
    frame->head.custom_free_function = rx_head_freed;
    frame->body.custom_free_function = rx_body_freed;
    memcpy(frame->header, in->data, HEADER_BYTES);
    struct pbuf *head = pbuf_alloced_custom(PBUF_RAW, HEADER_BYTES, PBUF_REF, &frame->head,
                                            frame->header, HEADER_BYTES);
    u16_t rest = (u16_t)(in->len - HEADER_BYTES);
    // lwIP does not write a received payload, so the receive buffer need not be const to it.
    struct pbuf *body = pbuf_alloced_custom(PBUF_RAW, rest, PBUF_REF, &frame->body,
                                            (void *)(uintptr_t)(in->data + HEADER_BYTES), rest);
    pbuf_cat(head, body);
    interface->rx_on_loan++;
    return head;
}

// lwIP checks what the host did not vouch for.
static void select_checks(struct interface *interface, uint8_t csum)
{
    uint16_t checks = NETIF_CHECKSUM_CHECK_ICMP;
    if (!(csum & NIC_CSUM_IP_OK))
        checks |= NETIF_CHECKSUM_CHECK_IP;
    if (!(csum & NIC_CSUM_L4_OK))
        checks |= NETIF_CHECKSUM_CHECK_TCP | NETIF_CHECKSUM_CHECK_UDP;
    NETIF_SET_CHECKSUM_CTRL(&interface->netif, interface->checksums | checks);
}

static void netif_receive(struct nic *nic, const struct nic_frame *in)
{
    struct interface *interface = nic_client_data(nic);
    if (!interface) { // there was no memory to attach it
        nic_rx_release(nic, in->token);
        return;
    }
    if (in->len < SIZEOF_ETH_HDR || in->len > UINT16_MAX || (in->csum & NIC_CSUM_BAD)) {
        *(in->csum & NIC_CSUM_BAD ? &interface->rx_bad_checksum : &interface->rx_bad_length) += 1;
        nic_rx_release(nic, in->token);
        return;
    }
    interface->rx_frames++;
    interface->rx_bytes += in->len;
    bool copy = in->len <= COPY_BYTES || nic_rx_scarce(nic);
    struct pbuf *p = copy ? rx_copy(interface, in) : rx_lend(interface, in);
    if (copy || !p)
        nic_rx_release(nic, in->token);
    if (!p) {
        interface->rx_no_memory++;
        return;
    }
    select_checks(interface, in->csum);
    if (interface->netif.input(p, &interface->netif) != ERR_OK)
        pbuf_free(p);
}

static void netif_batch_end(struct nic *nic)
{
    nic_flush(nic);
}

// ---- Transmit ----

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
static err_t netif_transmit(struct netif *netif, struct pbuf *p)
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

static void netif_tx_done(struct nic *nic, void *done_ctx)
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

static void netif_tx_ready(struct nic *nic)
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

// ---- Interfaces come and go ----

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
    netif->output = etharp_output;
    netif->linkoutput = netif_transmit;
    interface->checksums = NETIF_CHECKSUM_GEN_IP | NETIF_CHECKSUM_GEN_UDP | NETIF_CHECKSUM_GEN_ICMP;
    if ((info->tx_csum & (NIC_TX_IP4 | NIC_TX_TCP)) != (NIC_TX_IP4 | NIC_TX_TCP))
        interface->checksums |= NETIF_CHECKSUM_GEN_TCP;
    select_checks(interface, 0);
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

static void drop_queue(struct interface *interface)
{
    for (; interface->queue_count; interface->queue_count--) {
        pbuf_free(interface->queue[interface->queue_first].p);
        interface->queue_first = (interface->queue_first + 1) % TX_QUEUE;
    }
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
    drop_queue(interface);
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
    .receive = netif_receive,
    .batch_end = netif_batch_end,
    .tx_done = netif_tx_done,
    .tx_ready = netif_tx_ready,
};

// ---- Statistics ----

static void write_stats(void)
{
    stats_print("{");
    for (const struct interface *i = interfaces; i; i = i->next) {
        stats_print("%s\"%s\":{\"rx_frames\":%llu,\"rx_bytes\":%llu,\"rx_copied\":%llu,"
                    "\"rx_on_loan\":%u,\"rx_bad_checksum\":%llu,\"rx_bad_length\":%llu,"
                    "\"rx_no_memory\":%llu,",
                    i == interfaces ? "" : ",", nic_info(i->nic)->name,
                    (unsigned long long)i->rx_frames, (unsigned long long)i->rx_bytes,
                    (unsigned long long)i->rx_copied, i->rx_on_loan,
                    (unsigned long long)i->rx_bad_checksum, (unsigned long long)i->rx_bad_length,
                    (unsigned long long)i->rx_no_memory);
        stats_print("\"tx_frames\":%llu,\"tx_bytes\":%llu,\"tx_held\":%llu,\"tx_in_flight\":%u,"
                    "\"tx_queued\":%llu,\"tx_refused\":%llu,\"tx_coalesced\":%llu,"
                    "\"tx_no_memory\":%llu}",
                    (unsigned long long)i->tx_frames, (unsigned long long)i->tx_bytes,
                    (unsigned long long)i->tx_held, i->tx_in_flight,
                    (unsigned long long)i->tx_queued, (unsigned long long)i->tx_refused,
                    (unsigned long long)i->tx_coalesced, (unsigned long long)i->tx_no_memory);
    }
    stats_print("}");
}

static struct stats_source netif_stats = {.name = "net", .write = write_stats};

void netif_start(void)
{
    stats_add(&netif_stats);
}
