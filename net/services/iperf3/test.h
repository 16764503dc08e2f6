// SPDX-License-Identifier: BSD-2-Clause
// The test, on its home core: what test.c and report.c share.
#pragma once

#include "net/services/iperf3/server.h"

enum test_state {
    TEST_PARAMS,  // PARAM_EXCHANGE sent: the client sends its parameters
    TEST_STREAMS, // CREATE_STREAMS sent: its streams connect
    TEST_RUNNING, // data flows
    TEST_RESULTS, // EXCHANGE_RESULTS sent: the client sends its results
    TEST_DRAIN,   // what the client says it sent is still arriving
    TEST_DISPLAY, // our results sent: the client says IPERF_DONE
    TEST_OVER,    // to be freed when every core has let go
};

struct test {
    enum test_state state;
    struct connection *control; // NULL: refused, it only lingers
    uint8_t cookie[IPERF3_COOKIE];
    struct run *run;     // NULL: no parameters yet
    unsigned count;      // streams that have joined
    uint64_t members;    // bit: that core has streams
    uint64_t to_be_told; // bit: that core does not know yet that it is over
    // In the order of the client: indices of the run's streams, and the bytes that the client says it
    // sent on each; UINT64_MAX: unknown.
    uint8_t order[2 * IPERF3_MAX_STREAMS];
    uint64_t promised[2 * IPERF3_MAX_STREAMS];

    // A message with a length in front: parameters or results.
    uint32_t message_bytes, message_have;
    uint8_t length[4];
    unsigned length_have;
    char *message;

    uint64_t began;                // the state, see above
    uint64_t measured;             // since when bytes count
    uint64_t ended;                // TEST_END
    uint64_t busy;                 // all cores: at the start, and in the end how long in the test
    uint64_t second, second_bytes; // of the progress report
    uint64_t ticked, woke;         // the last tick; the first one after the machine had stood still
    uint64_t client_bytes;         // what the client says it sent or received
};

// The number'th stream in the client's order.
static inline struct run_stream *test_stream(const struct test *test, unsigned number)
{
    return &test->run->streams[test->order[number]];
}

// Sends our results and logs them. False: no memory, or they cannot be sent.
bool report_results(struct test *test);
