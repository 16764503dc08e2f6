// SPDX-License-Identifier: BSD-2-Clause
// A NIC as one core's lwIP sees it: what netif.c (it comes and goes), rx.c and tx.c share. All of it
// belongs to the core of the NIC's channel; nothing here may be called from elsewhere.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "drivers/netvsc/netvsc.h"
#include "lwip/netif.h"
#include "lwip/pbuf.h"

// Frames that wait for room in the NIC's ring. When all are used TCP keeps its segments itself.
#define TX_QUEUE 256

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

// rx.c: nic_client.receive and .batch_end.
void interface_receive(struct nic *nic, const struct nic_frame *frame);
void interface_batch_end(struct nic *nic);
// Has lwIP check what `csum` (enum nic_csum) does not vouch for.
void interface_select_checks(struct interface *interface, uint8_t csum);

// tx.c: nic_client.tx_done and .tx_ready.
void interface_tx_done(struct nic *nic, void *done_ctx);
void interface_tx_ready(struct nic *nic);
// lwIP's way out (netif->linkoutput): one Ethernet frame. ERR_MEM: not taken, and TCP is told to go on
// when there is room.
err_t interface_transmit(struct netif *netif, struct pbuf *p);
// Forgets the frames that wait for room.
void interface_drop_queue(struct interface *interface);
