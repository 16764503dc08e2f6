// SPDX-License-Identifier: BSD-2-Clause
// How much a connection may have under way, and how fast it may send: `bbr` (bbr.c), a model of the
// path's rate and delay after the BBR family, or `reno` (reno.c), the classic answer to loss. Told by
// recovery.c; knows nothing of lwIP. Bytes, time_now() units, bytes a second.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define NOT_PACED UINT64_MAX
#define INITIAL_SEGMENTS 10 // under way in the beginning: RFC 6928

// What an acknowledgement tells.
struct ack_sample {
    uint64_t now;
    uint64_t delivered;        // bytes that have arrived in all
    uint32_t bytes;            // of these, new
    uint32_t lost;             // bytes found lost since the last sample
    uint32_t in_flight;        // bytes under way now,
    uint32_t in_flight_before; // and before this acknowledgement
    uint64_t rtt;              // of what was sent once, 0: not known
    // Over the time from when the newest of what arrived was sent; interval 0: no measurement.
    uint64_t interval;
    uint64_t interval_bytes;
    uint64_t prior_delivered; // `delivered` when that was sent
    bool app_limited;         // then there was nothing else to send
    bool recovered;           // the last of a retransmission after a time-out was acknowledged
    bool cwnd_limited;        // there was more to send than cwnd allowed
};

#define BBR_BW_SLOTS 10

struct bbr {
    enum bbr_state { BBR_STARTUP, BBR_DRAIN, BBR_PROBE_BW, BBR_PROBE_RTT } state;
    uint64_t next_round; // `delivered` that ends this round trip
    bool round_start;

    uint64_t bandwidth; // the highest of the slots: each one round trip, at least BW_SLOT_TIME
    uint64_t slots[BBR_BW_SLOTS];
    unsigned slot;
    uint64_t slot_began;

    uint64_t min_rtt, min_rtt_at; // 0: not known
    uint64_t probe_rtt_end;

    uint64_t full_bandwidth; // of STARTUP
    unsigned full_rounds;
    bool full;

    unsigned phase; // of PROBE_BW
    uint64_t phase_began;

    // What arrives in bursts beyond the rate.
    uint64_t burst_began, burst_bytes;
    uint32_t burst_most[2]; // the most in this and in the last period
    unsigned burst_rounds;

    // Loss: in the rounds since it was last judged.
    uint64_t lost, delivered_then;
    uint32_t in_flight_most;
    uint32_t limit;       // of what may be under way, UINT32_MAX: none
    unsigned calm_rounds; // since it was cut,
    uint64_t cut_at;      // which was then
    uint32_t step;        // by which it grows next

    uint32_t before_timeout; // cwnd, 0: not after a time-out
};

struct reno {
    uint32_t threshold; // of slow start
    uint32_t acked;     // since cwnd last grew
    bool after_timeout;
};

struct congestion {
    bool is_reno;
    uint32_t mss;
    uint32_t cwnd;    // bytes that may be under way
    uint64_t pacing;  // NOT_PACED, or bytes a second
    uint32_t quantum; // bytes that are sent at once
    union {
        struct bbr bbr;
        struct reno reno;
    };
};

void congestion_init(struct congestion *c, bool is_reno, uint32_t mss, uint64_t now);
void congestion_ack(struct congestion *c, const struct ack_sample *s);

// The first loss since all that was under way at the last such call has arrived.
void congestion_lost(struct congestion *c, uint32_t in_flight);

// Nothing came back for a long time: all of it may be lost.
void congestion_timeout(struct congestion *c, uint32_t in_flight);

// bbr.c, reno.c
void bbr_init(struct congestion *c, uint64_t now);
void bbr_ack(struct congestion *c, const struct ack_sample *s);
void bbr_timeout(struct congestion *c);
void reno_init(struct congestion *c);
void reno_ack(struct congestion *c, const struct ack_sample *s);
void reno_lost(struct congestion *c, uint32_t in_flight);
void reno_timeout(struct congestion *c, uint32_t in_flight);
