// SPDX-License-Identifier: BSD-2-Clause
// Inside the iperf3 service: connections, the test, and the functions of its two halves, server.c
// (who may do what, and when) and stream.c (the data). All of it lives on one core.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "kernel/time.h"
#include "lwip/tcp.h"
#include "net/services/iperf3/params.h"
#include "net/stack.h"

#define IPERF3_COOKIE 37 // 36 characters and a NUL

enum connection_role {
    CONNECTION_NEW,     // sends its cookie
    CONNECTION_CONTROL, // of the test
    CONNECTION_STREAM,  // of the test
    CONNECTION_LINGER,  // nothing more to say: waits for the client to close it
};

enum closing { CLOSE_NO, CLOSE_GENTLY, CLOSE_HARD };

// One connection of a client. It lives as long as its pcb or, as a stream, as long as its test.
struct connection {
    struct connection *next;
    struct tcp_pcb *pcb; // NULL: gone, or left to lwIP
    enum connection_role role;
    enum closing closing; // what the next poll has to do
    bool fin;             // the client closed its side
    uint64_t deadline;    // NEW, LINGER: when patience ends
    uint8_t cookie[IPERF3_COOKIE];
    uint8_t cookie_bytes;
    char name[STACK_NAME_BYTES]; // the client's address and port, for the log

    // Of streams only:
    uint32_t id;
    bool sender;       // we send
    uint64_t bytes;    // received, or acknowledged by the client
    uint64_t omitted;  // of these, in the seconds that do not count
    uint64_t written;  // handed to lwIP
    uint32_t withhold; // of the window: so much is still not to be given back
    uint32_t retransmits, retransmits_omitted;
    uint64_t last_byte; // when one last came or was acknowledged
    uint64_t promised;  // bytes that the client says it sent; UINT64_MAX: unknown
};

enum test_state {
    TEST_PARAMS,  // PARAM_EXCHANGE sent: the client sends its parameters
    TEST_STREAMS, // CREATE_STREAMS sent: its streams connect
    TEST_RUNNING, // data flows
    TEST_RESULTS, // EXCHANGE_RESULTS sent: the client sends its results
    TEST_DRAIN,   // what the client says it sent is still arriving
    TEST_DISPLAY, // our results sent: the client says IPERF_DONE
    TEST_OVER,    // to be freed by the next poll
};

struct test {
    enum test_state state;
    struct connection *control;
    struct iperf3_params params;
    uint8_t cookie[IPERF3_COOKIE];
    struct connection *streams[2 * IPERF3_MAX_STREAMS];
    unsigned stream_count, streams_wanted;

    // A message with a length in front: parameters or results.
    uint32_t message_bytes, message_have;
    uint8_t length[4];
    unsigned length_have;
    char *message;

    uint64_t began;    // the state, see above
    uint64_t started;  // TEST_RUNNING
    uint64_t measured; // since when bytes count
    uint64_t ended;    // TEST_END
    bool omitting;
    uint64_t moved;                // when a byte last came or went
    uint64_t second, second_bytes; // of the progress report
    uint64_t client_bytes;         // what the client says it sent or received
};

// stream.c

// Memory that all streams send from. 0, or -ENOMEM.
int stream_init(void);

// Makes a connection the test's next stream.
void stream_add(struct test *test, struct connection *c);

// A segment's data arrived. Takes p.
void stream_receive(struct test *test, struct connection *c, struct pbuf *p);

// The client acknowledged `bytes`.
void stream_sent(struct test *test, struct connection *c, uint32_t bytes);

// Hands lwIP as much as it should have; at a paced rate this must be called often.
void stream_send(struct test *test, struct connection *c);
