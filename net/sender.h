// SPDX-License-Identifier: BSD-2-Clause
// For services that send in bulk, instead of tcp_write(): data by reference, frames of up to 64 KiB
// that the NIC cuts, recovery from loss by SACK, pacing. What was written that way goes past lwIP's
// queues; all else of the connection stays lwIP's: how it begins and ends, what is received,
// acknowledgements, windows. The connection's core.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lwip/tcp.h"

struct tcp_hdr;
struct tcp_options;

// Appends `len` bytes, at most sender_room(). They must stay as they are for as long as the machine
// runs, and must not lie in the per-core window. Acknowledged bytes are told by the function given to
// tcp_sent(), from the core's loop; it may write more, close or abort. False: there is no room or no
// memory. tcp_write() must not be used while some of it is not acknowledged. tcp_close() sees to it
// that what is under way arrives; what was not sent by then is dropped.
bool sender_write(struct tcp_pcb *pcb, const void *data, uint32_t len);

// How many bytes it makes sense to write now.
uint32_t sender_room(const struct tcp_pcb *pcb);

// Sends nothing new any more; what is under way will arrive. Returns how many bytes were sent whose
// acknowledgement was not told yet.
uint32_t sender_stop(struct tcp_pcb *pcb);

// How many segments were sent more than once.
uint32_t sender_resent(const struct tcp_pcb *pcb);

// pcb->mss has become smaller, because what was sent did not pass: sends it again at once.
void sender_path_narrower(const struct tcp_pcb *pcb);

// ---- For stack.c ----

// Each core, once, after lwip_init().
void sender_start(void);

// A segment arrived on a connection; its header is in host order.
void sender_segment_in(const struct tcp_pcb *pcb, const struct tcp_hdr *header, uint16_t data_len,
                       const struct tcp_options *options);

// As struct poller's.
bool sender_poll(void);
uint64_t sender_deadline(void);
