// SPDX-License-Identifier: BSD-2-Clause
// A simulated path with one bottleneck and flows over it: net/recovery.c sends without end, a receiver
// acknowledges. Time is simulated, so all of it repeats exactly.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "net/recovery.h"

#define PATH_MSS 1448u
#define PATH_FLOWS 8

struct path {
    uint64_t rate;    // bytes a second, 0: no limit
    uint64_t delay;   // one way, time_now() units
    uint32_t queue;   // bytes that wait for the bottleneck, 0: no limit
    unsigned loss;    // segments in a million,
    unsigned reorder; // that are late by some others
    unsigned duplicate;
    unsigned ack_loss;
    uint64_t nap;  // acknowledgements come only at whole multiples of it, 0: at once
    uint64_t leap; // at time leap_at the machines stand still for so long, but not their clock,
    uint64_t leap_at;
    bool leap_loses; // and what was under way is lost
    uint32_t window; // of the receivers, bytes; 0: large
    bool no_sack;
};

struct flow {
    struct recovery recovery;
    bool reno;
    uint64_t starts;
    uint64_t received;      // bytes, in order
    uint64_t sent, dropped; // segments
};

// Runs `count` flows from time 0 for so long. The flows' recoveries are left for the caller to look at
// and to free.
void path_run(const struct path *path, struct flow *flows, unsigned count, uint64_t duration);
