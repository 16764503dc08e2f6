// SPDX-License-Identifier: BSD-2-Clause
// When a connection may send what: acknowledgements and time in, the next piece to send out. Loss is
// found as RFC 8985 (RACK, tail loss probes) and RFC 6298 (time-outs) have it, or by duplicate
// acknowledgements of a peer without SACK. Called by sender.c; knows nothing of lwIP. Bytes, sequence
// numbers, time_now() units.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "net/congestion.h"
#include "net/scoreboard.h"

#define SACK_BLOCKS 4 // an option has room for no more

struct recovery {
    struct scoreboard board;
    struct congestion congestion;
    uint32_t mss; // payload of a full segment on the wire
    bool sack;    // the peer tells what it has out of order

    uint64_t srtt, rttvar; // 0: no round trip was measured
    uint64_t min_rtt;
    unsigned backoff;    // time-outs in a row
    uint64_t timeout_at; // 0: nothing is under way
    uint64_t probe_at;   // 0: no tail loss probe
    uint64_t reorder_at; // 0: nothing may just be late

    // The segment that was sent last of those that arrived.
    uint64_t rack_sent_at, rack_rtt;
    uint32_t rack_end;
    uint32_t highest;        // end of what arrived
    bool reordering;         // segments overtake each other on this path,
    unsigned reorder_factor; // by up to so many quarters of a round trip

    bool recovering; // until una reaches `recover` the losses are those of one round trip,
    bool timed_out;  // or of a time-out
    uint32_t recover;
    // Of a peer without SACK: duplicate acknowledgements, and what must have arrived for them.
    unsigned duplicates;
    uint32_t presumed;
    bool probing; // a tail loss probe is under way

    // For the samples of the rate.
    uint64_t delivered, delivered_at, first_sent_at;
    uint64_t limited_until; // `delivered` until which there was nothing else to send
    uint32_t lost;          // bytes, not told to the congestion control yet
    bool cwnd_limited;

    uint64_t send_at; // pacing: not before
    uint64_t resent_segments, timeouts, probes, needless;
};

// What the peer's segment says.
struct acknowledgement {
    uint32_t ack;
    bool duplicate; // says nothing new but that something arrived
    unsigned blocks;
    struct {
        uint32_t left, right;
    } sacked[SACK_BLOCKS]; // as received
};

// What there is to send.
struct offer {
    uint32_t unsent; // bytes that were never sent
    uint32_t window; // bytes from una that the peer takes
    uint32_t frame;  // bytes of payload that one frame takes, at least mss
    bool small;      // a last piece shorter than a segment may go although something is under way
    uint32_t crumb; // if so much of the window is left a piece may be shorter than a segment to fit
};

struct piece {
    uint32_t seq, len; // 0: nothing now
    bool again;        // was sent before
    uint64_t at;       // with len 0: ask again then; UINT64_MAX: when something has happened
    bool window;       // with len 0: nothing is under way and the peer's window stops us
};

void recovery_init(struct recovery *r, uint32_t seq, uint32_t mss, bool sack, bool reno,
                   uint64_t now);
void recovery_free(struct recovery *r);

// An acknowledgement of something in [una, nxt] arrived.
void recovery_ack(struct recovery *r, const struct acknowledgement *a, uint64_t now);

// True: a timer was due.
bool recovery_timer(struct recovery *r, uint64_t now);

// What is under way was too long for the path and did not arrive: it goes out again. No sign that the
// path is full.
void recovery_too_long(struct recovery *r);

// When recovery_timer() wants to be called; UINT64_MAX: never.
uint64_t recovery_deadline(const struct recovery *r);

// What to send now. After sending it call recovery_sent() before asking for the next piece.
struct piece recovery_next(struct recovery *r, const struct offer *offer, uint64_t now);
void recovery_sent(struct recovery *r, const struct piece *piece, uint64_t now);

// The retransmission time-out, with its back-off.
uint64_t recovery_timeout(const struct recovery *r);
