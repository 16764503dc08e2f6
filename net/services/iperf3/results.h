// SPDX-License-Identifier: BSD-2-Clause
// The results that both sides exchange after a test, as JSON. Pure functions but for their memory,
// which comes from the heap of the calling core.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct iperf3_stream_result {
    uint32_t id;
    bool sender;          // we sent
    uint64_t bytes;       // that arrived; those of the omitted seconds are not counted
    uint32_t retransmits; // if we sent, by TCP
    // By UDP; of the received in all, and of these in the seconds to omit:
    uint64_t packets, packets_omitted, errors, errors_omitted;
    uint64_t jitter;       // ns
    uint64_t microseconds; // how long, up to the last byte
};

struct iperf3_totals {
    bool udp;
    unsigned load;     // of the processors, in hundredths of a percent of one
    const char *words; // for the client to show, or NULL; must need no escapes but for newlines
};

#define IPERF3_MAX_RESULTS (128 * 1024) // bytes of JSON from a client

// Room that iperf3_results_write() needs for so many streams.
size_t iperf3_results_size(unsigned streams);

// Writes the results of `count` streams as text into out; returns its length without the final NUL.
size_t iperf3_results_write(char *out, size_t size, const struct iperf3_stream_result *streams,
                            unsigned count, const struct iperf3_totals *totals);

// Calls stream(id, bytes) for each stream that the client reports. False: malformed, or no memory.
bool iperf3_results_read(const char *text, size_t len,
                         void (*stream)(void *ctx, uint64_t id, uint64_t bytes), void *ctx);
