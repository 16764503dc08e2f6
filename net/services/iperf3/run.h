// SPDX-License-Identifier: BSD-2-Clause
// What the cores share of a test: one block of pages. The test's home core (where its control
// connection lives) makes and frees it; each stream's core counts in the stream's own cache line. The
// phase only ever grows; a message to the other cores says "look at it", and if that is lost they
// look by themselves when their tick comes.
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "net/services/iperf3/params.h"

enum run_phase {
    RUN_WAIT,    // streams connect
    RUN_GO,      // data flows
    RUN_ENDED,   // the client said so: what we send ends, what it sent is still taken
    RUN_OVER,    // let go of everything
    RUN_ABORTED, // the same, and the streams are reset
};

struct run_stream {
    // Written by the stream's core only.
    _Atomic uint64_t bytes;     // received; acknowledged by the client, in the end sent
    _Atomic uint64_t omitted;   // of these, in the seconds that do not count
    _Atomic uint64_t last_byte; // when one last came or was acknowledged
    _Atomic uint32_t retransmits, retransmits_omitted; // TCP
    _Atomic uint64_t packets, packets_omitted;         // UDP: sent, or the highest number received
    _Atomic uint64_t errors, errors_omitted;           // of the received: missing so far
    _Atomic uint64_t jitter;                           // ns
    _Atomic bool ended;                                // RUN_ENDED was seen: what we sent is final
    _Atomic bool gone;                                 // nothing more will come
    // Written by the home core before RUN_GO.
    bool sender;     // we send
    uint8_t core;    // where the stream lives
    uint16_t id;     // in the results
    uint16_t ticket; // see join.c
    uint64_t arrived;
} __attribute__((aligned(64)));
_Static_assert(sizeof(struct run_stream) == 128, "no line is written by two cores");

struct run {
    // Constant before any other core knows of it.
    struct iperf3_params params;
    unsigned home;
    unsigned wanted; // streams
    // Written by the home core.
    _Atomic uint32_t phase;
    uint64_t started;                                   // from RUN_GO on
    _Atomic uint64_t left __attribute__((aligned(64))); // bit: that core has let go of everything
    struct run_stream streams[2 * IPERF3_MAX_STREAMS];
};

static inline enum run_phase run_phase(const struct run *run)
{
    return (enum run_phase)atomic_load_explicit(&run->phase, memory_order_acquire);
}

// Where there is one writer, a counter needs no locked instruction.
static inline uint64_t run_get(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static inline void run_set(_Atomic uint64_t *counter, uint64_t value)
{
    atomic_store_explicit(counter, value, memory_order_relaxed);
}
