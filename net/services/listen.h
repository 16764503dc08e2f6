// SPDX-License-Identifier: BSD-2-Clause
// What services share: opening a port, finding clients that are gone, and counters of the small ones.
// Every function works on the calling core's stack.
#pragma once

#include <stdint.h>

#include "kernel/core.h"
#include "lwip/tcp.h"
#include "lwip/udp.h"

// Opens a TCP port; accept is lwIP's callback. 0, or a negative errno.
int service_listen(uint16_t port, tcp_accept_fn accept);

// Opens a UDP port; *pcb is what to send from. 0, or a negative errno.
int service_listen_udp(uint16_t port, udp_recv_fn receive, struct udp_pcb **pcb);

// When the first segment of a connection to a service came, in time_now() units.
uint64_t service_arrived(const struct tcp_pcb *pcb);

// Lets lwIP find out that a client has vanished: after 25 s without a word.
void service_keepalive(struct tcp_pcb *pcb);

// Closes a connection of which all that was received has been taken. ERR_OK, or ERR_ABRT: there was
// no memory, it was reset instead (what a callback of lwIP then has to return).
err_t service_close(struct tcp_pcb *pcb);

// What the small services count, each core for itself, outside of the window so that the console can
// add it up.
struct service_counters {
    uint64_t connections; // TCP: open now
    uint64_t accepted, refused, bytes;
    uint64_t aborted; // ended by us: their NIC has gone, or nobody answered any more
    uint64_t datagrams, datagram_bytes, dropped; // UDP
} __attribute__((aligned(64)));

// Prints the sum over all cores as a JSON object, for a struct stats_source.
void service_counters_print(const struct service_counters of_core[MAX_CORES]);
