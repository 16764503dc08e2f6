// SPDX-License-Identifier: BSD-2-Clause
// The short cut for the frames of a connection that sends in bulk (sender.c): what lwIP's IP and Ethernet
// layers put before the last one's data serves for the next ones, with what differs filled in. It is
// forgotten after a moment, so that lwIP goes on to look after routes and neighbours.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "drivers/netvsc/netvsc.h"
#include "lwip/netif.h"
#include "lwip/pbuf.h"
#include "lwip/tcp.h"

struct tx_offload;

struct express { // zeros: nothing is known
    const struct netif *netif;
    uint64_t until;           // it serves
    uint32_t ip_sum, tcp_sum; // of the headers, without what differs
    uint16_t mss_most;        // payload that the path takes in one packet
    uint16_t id;              // IPv4's, of the next frame
    uint8_t tcp, len;         // where TCP's header begins, and ends
    uint8_t csum;             // as in struct nic_tx
    // The frame's first bytes; IP's header and what follows are aligned to 4.
    struct {
        _Alignas(4) uint8_t align[2];
        uint8_t bytes[NIC_TX_HEAD_BYTES];
    } headers;
};

// Fills in *x from the frame that the interface makes of `p`, a segment with all headers in the first
// pbuf, if it sends it before express_learn() is called again. p NULL: no more.
void express_learn(struct express *x, const struct tcp_pcb *pcb, const struct pbuf *p);

// For tx.c: `p` is an Ethernet frame that was given to the NIC.
void express_frame_out(struct netif *netif, const struct pbuf *p, const struct tx_offload *offload);

// True if frames can go this way now, in segments of `mss` bytes.
bool express_serves(const struct express *x, const struct netif *netif, uint16_t mss, uint64_t now);

// Sends a segment like frame_build() and frame_send(); longer than `mss` only if the NIC cuts. False:
// the NIC has no room.
bool express_send(struct express *x, const struct tcp_pcb *pcb, uint16_t mss, uint32_t seq,
                  const struct nic_piece *data, unsigned count, bool last);
