// SPDX-License-Identifier: BSD-2-Clause
// Has lwIP find a segment's connection at once: it searches a list, which takes longer than all the rest
// where there are many. Any core, for its own connections.
#pragma once

#include <stdint.h>

struct tcp_pcb;

// Once on each core, before there are connections.
void front_start(void);

// A segment is about to go to lwIP: its source address, of one word or four, and the ports, all as they
// lie in it. Its connection, if it is known, becomes the first of lwIP's list.
void front_bring(const uint32_t *remote, unsigned words, uint16_t remote_port, uint16_t local_port);

// lwIP has found the connection, which has both addresses: it will be known.
void front_learn(struct tcp_pcb *pcb);
