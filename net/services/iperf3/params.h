// SPDX-License-Identifier: BSD-2-Clause
// What an iperf3 client asks for: the JSON object it sends after the cookie. Pure functions, also
// used by the unit tests and the fuzzer.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define IPERF3_MAX_STREAMS 128
#define IPERF3_MAX_PARAMS 8192 // bytes of JSON, as the stock server has it
#define IPERF3_MAX_PARAM_TOKENS 160

// Error numbers that go to the client; iperf3's own, so that it can say what they mean.
enum iperf3_error {
    IPERF3_OK = 0,
    IPERF3_BAD_DURATION = 5,
    IPERF3_BAD_STREAMS = 6,
    IPERF3_BAD_BLOCK_SIZE = 7,
    IPERF3_BAD_BUFFER_SIZE = 8,
    IPERF3_BAD_MSS = 10,
    IPERF3_BAD_OMIT = 12,
    IPERF3_BAD_DATAGRAM_SIZE = 24,
    IPERF3_NO_SCTP = 18,
    IPERF3_REVERSE_AND_BIDIR = 25,
    IPERF3_UNKNOWN_MESSAGE = 110,
    IPERF3_BAD_PARAMS = 114,
    IPERF3_BAD_RESULTS = 117,
    IPERF3_NO_MESSAGE = 144,
    IPERF3_TOO_LONG = 160,
    IPERF3_NO_STREAM = 200,
};

struct iperf3_params {
    bool reverse; // we send
    bool bidir;   // both send
    bool nodelay;
    bool udp, counters64; // datagrams, with numbers of 64 bits
    bool server_output;   // the client wants our own words, too
    uint32_t streams;     // 1..IPERF3_MAX_STREAMS, each way
    uint32_t time, omit;  // seconds; time 0: ends by bytes or blocks
    uint32_t mss;         // 0: not given
    uint32_t window;      // bytes, 0: not given
    uint32_t block;       // bytes of a datagram
    uint64_t rate;        // bit/s for each stream that we send, 0: no limit
    char client[16];      // version
};

// IPERF3_OK, or what to tell the client. *out is set in any case.
enum iperf3_error iperf3_params_parse(const char *text, size_t len, struct iperf3_params *out);
