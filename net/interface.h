// SPDX-License-Identifier: BSD-2-Clause
// A NIC as one core's lwIP sees it: what netif.c (it comes and goes), share.c (what core 0 tells the
// others), rx.c and tx.c share. All of it belongs to the core of the NIC's channel; nothing here may be
// called from elsewhere. Its memory is never freed but used again, so that core 0 may look at the
// counters of any core at any time.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "drivers/netvsc/netvsc.h"
#include "lwip/netif.h"
#include "lwip/pbuf.h"
#include "lwip/tcp.h"
#include "net/coalesce.h"
#include "net/flow.h"
#include "net/settings.h"
#include "net/share6.h"

// Frames that wait for room in the NIC's ring. When all are used TCP keeps its segments itself.
#define TX_QUEUE 256

struct tcp_hdr;

struct tx_offload { // as in struct nic_tx
    uint8_t csum;
    uint16_t transport_offset, mss;
};

struct tx_entry {
    struct pbuf *p; // one reference
    struct tx_offload offload;
};

struct interface {
    struct netif netif;
    struct nic *nic;
    struct interface *next;
    unsigned index;           // nic_info.index
    uint16_t mtu;             // of IP packets; netif.mtu is it, too, but for moments (tx.c)
    struct settings settings; // settings.c
    uint64_t asked6;    // core 0: when it asked last whether its IPv6 addresses are still its own
    struct flows flows; // flow.c
    struct shared6 shared6; // share6.c
    uint64_t untold;        // core 0: bit for each core that does not know the addresses yet
    uint16_t checksums;     // NETIF_CHECKSUM_GEN_*: what lwIP fills in itself
    bool refused;           // lwIP was told that the queue is full
    unsigned queue_first, queue_count;
    struct tx_entry queue[TX_QUEUE];

    struct coalesce coalesce;

    uint64_t rx_frames, rx_segments, rx_bytes, rx_copied, rx_bad_checksum, rx_bad_length,
        rx_no_memory, rx_not_mine; // not_mine: to no address of this NIC
    uint64_t tx_frames, tx_bytes, tx_held, tx_queued, tx_refused, tx_coalesced, tx_no_memory;
    uint64_t tx_large, tx_too_long;
    uint64_t tx_unresolved; // IPv6: too many wait for their neighbours' addresses
    unsigned rx_on_loan, tx_in_flight;
    uint32_t tx_in_flight_bytes;
    uint64_t arp_shared, arp_not_shared; // neighbours told to other cores; no room for the message
};

// netif.c: from now on IPv4 packets may be so long, and IPv6's if that is enough for them; the connections
// that there are follow. The calling core.
void interface_set_mtu(struct interface *interface, uint16_t mtu);
// netif.c: the most that the link lets a connection's MSS be; a path may let it be less.
uint16_t interface_link_mss(const struct interface *interface, const struct tcp_pcb *pcb);
// netif.c: the calling core's interface of a NIC, or NULL. The pointer is only compared.
struct interface *interface_of(const struct nic *nic);
// The first of the calling core's, which are linked by `next`, or NULL.
struct interface *interface_first(void);
// A core's interface of a NIC by index, or NULL. For core 0, which may only read what can be of any
// moment: counters, index, flows.owner.
const struct interface *interface_peek(unsigned core, unsigned index);

// share.c: an interface is there, or goes, on the calling core.
void share_join(struct interface *interface);
void share_leave(struct interface *interface);
// The cores that have an interface of this NIC, a bit for each. May change at any time.
uint64_t share_cores(const struct interface *interface);
// Tells the other cores the IPv4 addresses and the MTU, now and, where there is no room for a message, soon. Core 0.
void share_addresses(struct interface *interface);
// netif->input: Ethernet frames from the NIC to lwIP. Neighbours that tell their address by ARP are
// made known to the other cores, because their answers arrive on one core whoever asked.
err_t share_input(struct pbuf *p, struct netif *netif);

// rx.c: nic_client.receive and .batch_end.
void interface_receive(struct nic *nic, const struct nic_frame *frame);
void interface_batch_end(struct nic *nic);
// To be called before the first frame.
void interface_start_receiving(struct interface *interface);
// Has lwIP check what `csum` (enum nic_csum) does not vouch for.
void interface_select_checks(struct interface *interface, uint8_t csum);

// Gives lwIP an IP packet that another core received: with the checks that its frame called for there
// (netif->chksum_flags), for so many frames of the wire. Takes p.
void interface_inject(struct interface *interface, struct pbuf *p, uint16_t checks,
                      uint16_t segments);
// How many frames of the wire the frame stands for that lwIP is looking at.
unsigned interface_arriving_segments(void);

// ack.c: a segment with data that stands for several has arrived, and lwIP is going to take it; and the
// batch that it came with has ended.
void ack_at_batch_end(struct tcp_pcb *pcb);
void ack_batch_end(void);

// tx.c: nic_client.tx_done and .tx_ready.
void interface_tx_done(struct nic *nic, void *done_ctx);
void interface_tx_ready(struct nic *nic);
// lwIP's way out (netif->linkoutput): one Ethernet frame. ERR_MEM: not taken, and TCP is told to go on
// when there is room.
err_t interface_transmit(struct netif *netif, struct pbuf *p);
// lwIP's way to the neighbour (netif->output).
err_t interface_output(struct netif *netif, struct pbuf *p, const ip4_addr_t *address);
// The same for IPv6 (netif->output_ip6).
err_t interface_output6(struct netif *netif, struct pbuf *p, const ip6_addr_t *address);
// To be called at the beginning of each turn of the loop.
void interface_new_turn(void);
// To be called where lwIP has built a TCP segment of `length` bytes with its header, which is about to
// go out: one that is longer than pcb->mss, or than the way takes, will be cut by the NIC.
void interface_tcp_out(const struct tcp_pcb *pcb, const struct tcp_hdr *header, uint32_t length);
// The longest IP packet with a TCP segment larger than the MSS that the NIC cuts; 0: it cuts none.
uint32_t interface_large_max(const struct netif *netif, bool ip6);
// The NIC has so much to do that more would only wait there: who has data in plenty keeps it, and asks
// again in the next turn of the loop.
bool interface_has_enough(const struct netif *netif);
// The payload of a connection's segments with headers of `tcp_header` bytes that the way takes whole.
uint16_t interface_path_mss(struct netif *netif, const struct tcp_pcb *pcb, unsigned tcp_header);
// Gives the NIC a frame whose headers are in its first piece, of NIC_TX_HEAD_BYTES at most, and whose
// other pieces stay as they are for ever; done_ctx is set here. False: there is no room.
bool interface_send_frame(const struct netif *netif, struct nic_tx *tx);
// Forgets the frames that wait for room.
void interface_drop_queue(struct interface *interface);
