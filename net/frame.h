// SPDX-License-Identifier: BSD-2-Clause
// A TCP segment of sender.c: headers in memory of its own, data by reference. Each transmission has
// its own, so one that a NIC still holds stands in nobody's way.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "drivers/netvsc/netvsc.h"
#include "lwip/netif.h"
#include "lwip/pbuf.h"
#include "lwip/tcp.h"

#define FRAME_PIECES 4

struct tcp_hdr;

// A segment from `seq` with data in `count` pieces, at most FRAME_PIECES and together what fits into
// an IP packet. `last`: nothing follows for now. NULL: no memory.
struct pbuf *frame_build(const struct tcp_pcb *pcb, const struct netif *netif, uint32_t seq,
                         const struct nic_piece *data, unsigned count, bool last);

// Sends it; the caller's reference stays. It may be larger than what the wire takes if the NIC cuts.
err_t frame_send(struct tcp_pcb *pcb, struct netif *netif, struct pbuf *p);

// The TCP header of such a segment: `len` bytes, with the timestamp if that is more than TCP_HLEN. Its
// checksum is left 0.
void frame_write_header(const struct tcp_pcb *pcb, struct tcp_hdr *header, unsigned len,
                        uint32_t seq, bool last);
