// SPDX-License-Identifier: BSD-2-Clause
// The machine at the other end of the wire, for the cost program: one that makes frames and
// understands those of the guest. It stands behind the scripted host (tests/unit/fake_host.h).
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define PEER_MSS 1448 // with timestamps
#define PEER_ADDRESS 0x0a000001u
#define GUEST_ADDRESS 0x0a000002u

struct peer { // one TCP connection
    uint16_t port, guest_port;
    uint32_t next, acked; // of what the peer sends
    uint32_t expected;    // of what the guest sends
    uint32_t window;      // the guest's, in bytes
    uint32_t echo;        // the guest's last timestamp
    bool open;
    uint64_t frames, bytes; // of the guest, in order
};

// Lets the guest run, measured: for so long of its time, in units of time_now(), 0: until it waits.
void guest_run(uint64_t duration);

// Nanoseconds that were measured so far.
uint64_t guest_ns(void);

// Connects to a port of the guest.
void peer_connect(struct peer *p, uint16_t guest_port);

// One segment of `len` bytes of payload, in frames of PEER_MSS that the host coalesced if there are
// several; not seen by the guest before guest_run().
void peer_send(struct peer *p, uint32_t len);

// Acknowledges all that came.
void peer_ack(struct peer *p);

// A datagram of `len` bytes to a port of the guest.
void peer_datagram(uint16_t guest_port, uint16_t source_port, uint32_t len);

// Takes what the guest has sent; true if there was anything for the connection. `ack_each`: so many
// frames are acknowledged by one segment, 0: not by this function.
bool peer_take(struct peer *p, unsigned ack_each);

// How many frames of the guest were taken so far, of any kind.
uint64_t peer_frames(void);
