// SPDX-License-Identifier: BSD-2-Clause
// Puts TCP segments that follow each other together, within one batch of received frames, so that lwIP
// sees one large segment in place of many: for hosts that do not do it themselves (RSC). Of
// acknowledgements without data only the last one stays. Used by rx.c, on the core of the NIC's
// channel. Knows frames only, not lwIP.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "drivers/netvsc/netvsc.h"

#define COALESCE_FLOWS 8     // that are put together at a time
#define COALESCE_SEGMENTS 45 // in one frame: 64 KiB at the usual MTU
#define COALESCE_HEADER 96   // Ethernet, IPv4 or IPv6, TCP with timestamps

// Takes a frame: `frame` is as from the driver, but that its memory goes back by `count` tokens in
// place of frame->token, and frame->csum may say more. Its first piece may be gone when the function returns, the others not before
// the tokens are given back.
typedef void coalesce_deliver_fn(void *ctx, const struct nic_frame *frame, void *const *tokens,
                                 unsigned count);

struct coalesce_flow {
    unsigned count;        // segments; 0: unused
    uint32_t len;          // of the frame so far
    uint32_t next;         // sequence number that continues it
    uint32_t acknowledged; // by the last segment
    uint32_t payload;      // of the first segment: one that is shorter is the last
    uint8_t ip;            // 4 or 6
    uint8_t transport;     // where its TCP header begins,
    uint8_t header_len;    // and ends
    struct nic_frame first;
    struct nic_rx_piece first_piece;
    uint8_t header[COALESCE_HEADER];
    struct nic_rx_piece pieces[1 + COALESCE_SEGMENTS]; // header, payloads
    void *tokens[COALESCE_SEGMENTS];
};

struct coalesce { // zeros to begin with
    coalesce_deliver_fn *deliver;
    void *ctx;
    unsigned used;             // flows, a bit for each
    uint64_t segments, frames; // that were put together, and what they made
    struct coalesce_flow flows[COALESCE_FLOWS];
};

// A frame from the driver (at least 14 bytes). It is delivered at once, or when the next ones show that
// it does not grow any more. What belongs to one connection stays in order.
void coalesce_receive(struct coalesce *c, const struct nic_frame *frame);

// Delivers all that waits. To be called at the end of a batch.
void coalesce_flush(struct coalesce *c);
