// SPDX-License-Identifier: BSD-2-Clause
// Inside net/: what stack.c, netif.c and the services share. One instance of everything per core.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "drivers/netvsc/netvsc.h"
#include "lwip/tcp.h"
#include "net/memory.h"

// The NIC driver's client (netif.c).
extern const struct nic_client netif_nic_client;

// Brings the interfaces' part of the statistics into being. Core 0, from net_start().
void netif_start(void);

// The size that holds any address and port as text.
#define STACK_NAME_BYTES 56

// "10.0.0.1" or "2001:db8::1". Any core.
void stack_address(char text[STACK_NAME_BYTES], const ip_addr_t *address);

// "10.0.0.1:80" or "[2001:db8::1]:80". Any core.
void stack_name(char name[STACK_NAME_BYTES], const ip_addr_t *address, uint16_t port);

// An interface got an address that others can reach: with the first IPv4 and the first IPv6 one the
// services announce themselves. Core 0, from netif.c and address6.c.
void stack_address_up(const ip_addr_t *address);

// Memory was short when this core last looked: connections are refused.
bool stack_memory_short(void);

// Watches for pauses of the machine (manage.c). Core 0: from net_start(), and before lwIP's timers run.
void manage_start(void);
void manage_timers(void);

// Takes part in the machine's orderly end (drain.c). Core 0, from net_start().
void drain_start(void);

// The console's `connect` command (connect.c). Core 0, from net_start().
void connect_start(void);

// Opens a connection from a source port that others cannot guess (RFC 6056). To be used instead of
// tcp_connect(), on a pcb that is not bound; as that, returns before there is a connection. ERR_USE:
// no port is free.
err_t stack_tcp_connect(struct tcp_pcb *pcb, const ip_addr_t *remote, u16_t remote_port,
                        tcp_connected_fn connected);

// What a connection received may lie in many pieces that lwIP takes for one pbuf (loan.c). So data of
// TCP is read by these alone: no payload may be touched otherwise, nor pbuf_copy_partial() and the like be
// used. A reader goes through a chain once.
struct stack_reader {
    const struct pbuf *part;
    uint32_t done;          // bytes of the part
    uint32_t piece, passed; // of a part in pieces: the piece that is read, bytes before it
};
void stack_read_from(struct stack_reader *reader, const struct pbuf *p);
// The next stretch and its length (1 or more), NULL at the end. Good until the chain is freed; the host
// may change it.
const uint8_t *stack_read(struct stack_reader *reader, u16_t *len);
// Copies all of it: p->tot_len bytes.
void stack_copy_received(void *to, const struct pbuf *p);
// Frees it, as pbuf_free() does, but in one step where it can be. The core that received it.
void stack_free_received(struct pbuf *p);

// The least MSS of a connection, whatever the peer asks for, and of large send (Linux's own least): a
// smaller one would let a peer make the host send thousands of frames for one of ours.
#define STACK_MSS_LEAST 88u

// narrow.c: a path or link is too narrow for a connection's segments: they have at most `mss` bytes
// (STACK_MSS_LEAST at least) from now on, also those that wait in lwIP's queues; at once, or as soon as
// nothing reads from them. lost: what was longer did not arrive, and is sent again. The connection's core.
void stack_lower_mss(struct tcp_pcb *pcb, uint16_t mss, bool lost);

// Once on each core, before there are connections.
void stack_narrow_start(void);

// How many segments of a connection were sent more than once. The connection's core.
uint32_t stack_tcp_retransmits(const struct tcp_pcb *pcb);
