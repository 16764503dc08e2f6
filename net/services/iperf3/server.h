// SPDX-License-Identifier: BSD-2-Clause
// Inside the iperf3 service. On every core: connection.c (clients' connections), join.c (which of them
// may do what), member.c and stream.c (the streams that live here). On the core of the control
// connection: test.c and report.c.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "kernel/time.h"
#include "lwip/tcp.h"
#include "net/services/iperf3/run.h"
#include "net/stack.h"

#define IPERF3_COOKIE 37 // 36 characters and a NUL

enum connection_role {
    CONNECTION_NEW,     // sends its cookie
    CONNECTION_WAITS,   // for join.c to find out what it is
    CONNECTION_CONTROL, // of the test
    CONNECTION_STREAM,  // of the test
    CONNECTION_LINGER,  // nothing more to say: waits for the client to close it
};

enum closing { CLOSE_NO, CLOSE_GENTLY, CLOSE_HARD };

// One connection of a client. It lives as long as its pcb.
struct connection {
    struct connection *next;
    struct tcp_pcb *pcb; // NULL: gone, or left to lwIP
    enum connection_role role;
    enum closing closing; // what the next poll has to do
    bool fin;             // the client closed its side
    bool idle;            // counts against the limit of those that do nothing
    uint64_t deadline;    // NEW, WAITS, LINGER: when patience ends
    uint64_t asked;       // WAITS: when the home core was asked; 0: it was not, or has answered
    uint16_t ticket;      // of that question
    uint8_t cookie[IPERF3_COOKIE];
    uint8_t cookie_bytes;
    uint64_t early; // bytes that came while it waited: the client may know before us what it is
    char name[STACK_NAME_BYTES]; // the client's address and port, for the log

    // Of streams only:
    struct run *run; // NULL: let go
    struct run_stream *slot;
    bool sender;       // we send; known from RUN_GO on
    bool going;        // RUN_GO was seen
    bool measuring;    // the seconds to omit are over
    uint64_t written;  // handed to lwIP
    uint32_t withhold; // of the window: so much is still not to be given back
};

// States that go over the control connection, one byte each.
enum {
    SAY_TEST_START = 1,
    SAY_TEST_RUNNING = 2,
    SAY_TEST_END = 4,
    SAY_PARAM_EXCHANGE = 9,
    SAY_CREATE_STREAMS = 10,
    SAY_CLIENT_TERMINATE = 12,
    SAY_EXCHANGE_RESULTS = 13,
    SAY_DISPLAY_RESULTS = 14,
    SAY_IPERF_DONE = 16,
    SAY_ACCESS_DENIED = -1,
    SAY_SERVER_ERROR = -2,
};

// ---- connection.c ----

// Closes at the next poll, so that no callback loses what it works on.
void connection_close(struct connection *c, enum closing how);

// Leaves the connection to the client for a moment, then closes it.
void connection_linger(struct connection *c);

// A connection that has become part of a test does not count as idle any more.
void connection_busy(struct connection *c, enum connection_role role);

// Sends a copy of what has to fit. False: it did not, or not all of it.
bool connection_write(struct connection *c, const void *data, size_t len);
bool connection_say(struct connection *c, int8_t what);

// All connections of this core.
struct connection *connections_first(void);

// Has the next poll close what there is to close.
void connections_attend(void);

// Calls the tick soon, and then as often as is needed.
void connections_tick_now(void);

// ---- join.c ----

enum gate {
    GATE_FREE,    // no test
    GATE_BUSY,    // a test, but no streams are wanted
    GATE_STREAMS, // a test waits for its streams
    GATE_UDP_STREAMS,
    GATE_CLOSING, // a test is as good as over
};

// What there is, on all cores together.
enum gate gate_state(void);

// By the home core: tells the others.
void gate_set(enum gate state);

// Finds out what a connection is whose cookie is complete, and whatever has to follow. Called again
// by the tick for those that still wait.
void join_decide(struct connection *c);

// A new number for a question, not 0.
uint16_t join_ticket(void);

// Asks the home core whether this is a stream of its test; cookie NULL: by UDP. False: not now.
bool join_ask(const uint8_t *cookie, uint16_t ticket, uint64_t arrived);

// ---- member.c ----

// This core has a stream of the run: follows it from now on.
void member_enter(struct run *run);

// A connection of this core becomes a stream; c is NULL if there is none any more.
void member_join(struct run *run, struct run_stream *slot, struct connection *c);

// Has the run's phase looked at on a core. False: that core will only do it at its next tick, if it
// has streams.
bool member_poke(unsigned core, struct run *run);

// With the core's tick; milliseconds until it wants the next one.
uint32_t member_tick(uint64_t now);

// A stream's connection is gone or on its way out.
void member_stream_gone(struct connection *c);

// ---- stream.c ----

// Memory that all streams send from: 64 KiB. 0, or -ENOMEM. Core 0 first.
int stream_init(void);
const uint8_t *stream_buffer(void);

// How many bytes more than `sent` a stream that we send may have sent by now.
uint64_t stream_rate_allows(const struct run *run, uint64_t sent);

// True if a test of a certain length has lasted so long.
bool stream_time_is_over(const struct run *run);

// A connection has become a stream: as the test's parameters say, and with what it has received before.
void stream_begin(struct connection *c);

// A segment's data arrived. Takes p.
void stream_receive(struct connection *c, struct pbuf *p);

// The client acknowledged `bytes`.
void stream_sent(struct connection *c, uint32_t bytes);

// Sends no more on a stream and counts what is still under way.
void stream_stop(struct connection *c);

// Hands the sender as much as it should have; at a paced rate this must be called often.
void stream_send(struct connection *c);

// If the seconds to omit are just over: what was counted so far does not count.
void stream_measure(struct connection *c, uint64_t now);

// ---- udp.c ----

// Opens the port on this core. 0, or a negative errno.
int udp_start(uint16_t port);

// The answer to a question that was not a connection's.
void udp_answered(uint16_t ticket, struct run *run, struct run_stream *slot);

// A new phase of the run that this core has streams of.
void udp_follow(enum run_phase phase);

// With the core's tick; milliseconds until it wants the next one.
uint32_t udp_tick(uint64_t now);

// Every turn. True: there is more to send.
bool udp_poll(void);

// ---- test.c: the home core ----

// A new test; there is none, and the gate is this core's.
void test_begin(struct connection *control);

// A connection of any core says that it is a stream; one by UDP has no cookie, its first byte is 0.
// The slot that it gets, or NULL: it is none.
struct run_stream *test_join(unsigned core, uint16_t ticket, uint64_t arrived, const char *cookie,
                             struct run **run);

// The control connection's bytes, in order, however they are cut; and its end.
void test_feed(const uint8_t *data, size_t len);
void test_control_gone(bool closed_by_client);

// With the core's tick; milliseconds until it wants the next one.
uint32_t test_tick(uint64_t now);

// Frees a test that is over once all cores have let go.
void test_poll(void);
