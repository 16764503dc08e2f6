// SPDX-License-Identifier: BSD-2-Clause
// An iperf3 test, on the core of its control connection: what the client says there and hears, when
// its streams begin and end, on whatever cores they are, and how long it may take over each step.
#include "net/services/iperf3/test.h"

#include <string.h>

#include "kernel/alloc.h"
#include "kernel/core.h"
#include "net/services/iperf3/client_log.h"
#include "net/services/iperf3/results.h"

// How long a client may take.
#define PARAMS_TIME (10 * TIME_S)   // for its parameters
#define STREAMS_TIME (60 * TIME_S)  // for all of its streams to connect
#define GRACE_TIME (40 * TIME_S)    // beyond the test's length until it says TEST_END
#define SILENCE_TIME (120 * TIME_S) // without a byte on any stream while the test runs
#define PAUSE_TIME (10 * TIME_S) // between two ticks: the machine was paused and could hear nothing
#define RESULTS_TIME (30 * TIME_S) // for its results
#define DISPLAY_TIME (10 * TIME_S) // for IPERF_DONE

// What the client says it sent is waited for: so long in all, so long without any progress.
#define DRAIN_TIME (5 * TIME_S)          // newer clients wait 10 s for our results
#define DRAIN_QUIET (2 * TIME_S)         // a lost segment may wait so long to be sent again
#define DRAIN_QUIET_OMIT (100 * TIME_MS) // the client's count leaves out its own first seconds

#define TICK 100      // ms
#define TICK_DRAIN 10 // ms, at the end of a test

#define RUN_PAGES ((sizeof(struct run) + PAGE_SIZE - 1) / PAGE_SIZE)

static PERCORE struct test *test; // NULL: it is not this core that has one

static void enter(enum test_state state)
{
    test->state = state;
    test->began = time_now();
}

// ---- The end ----

// Ends the test with nothing more to say to the client than was said.
static void end(enum run_phase how)
{
    enter(TEST_OVER);
    gate_set(GATE_CLOSING);
    if (test->run)
        atomic_store_explicit(&test->run->phase, how, memory_order_release);
    test->to_be_told = test->members;
    connections_attend();
}

// The client broke something or vanished: everything of the test goes at once.
static void give_up(const char *why)
{
    LOG_CLIENT(log_warn, "iperf3: test of %s given up: %s", test->control->name, why);
    connection_close(test->control, CLOSE_HARD);
    end(RUN_ABORTED);
}

// Tells the client why, then ends the test.
static void refuse(enum iperf3_error error, const char *why)
{
    LOG_CLIENT(log_warn, "iperf3: %s refused: %s", test->control->name, why);
    const uint32_t numbers[2] = {lwip_htonl(error), 0}; // iperf3's own number, then an errno
    uint8_t message[9] = {(uint8_t)SAY_SERVER_ERROR};
    memcpy(message + 1, numbers, sizeof(numbers));
    bool said = connection_write(test->control, message, sizeof(message));
    connection_linger(test->control);
    if (!said)
        connection_close(test->control, CLOSE_HARD);
    test->control = NULL;
    end(RUN_ABORTED);
}

// Pokes every core in the set; returns those that could not be.
static uint64_t poke(uint64_t set)
{
    uint64_t failed = 0;
    for (; set; set &= set - 1) {
        unsigned core = (unsigned)__builtin_ctzll(set);
        if (!member_poke(core, test->run))
            failed |= 1ull << core;
    }
    return failed;
}

void test_poll(void)
{
    if (!test || test->state != TEST_OVER)
        return;
    test->to_be_told = poke(test->to_be_told);
    if (test->members && atomic_load(&test->run->left) != test->members)
        return; // they say when they have let go; the tick looks as well
    if (test->run)
        page_free(test->run, RUN_PAGES);
    if (test->control)
        connection_linger(test->control);
    heap_free(test->message);
    heap_free(test);
    test = NULL;
    gate_set(GATE_FREE);
    connections_tick_now(); // somebody may be waiting for this
}

// ---- The beginning ----

void test_begin(struct connection *control)
{
    test = heap_alloc(sizeof(*test));
    if (!test) {
        log_error("iperf3: no memory for a test");
        connection_close(control, CLOSE_HARD);
        gate_set(GATE_FREE);
        return;
    }
    memset(test, 0, sizeof(*test));
    test->control = control;
    memcpy(test->cookie, control->cookie, IPERF3_COOKIE);
    connection_busy(control, CONNECTION_CONTROL);
    tcp_nagle_disable(control->pcb);
    enter(TEST_PARAMS);
    if (!connection_say(control, SAY_PARAM_EXCHANGE))
        give_up("cannot send");
    connections_tick_now();
}

static void log_params(const struct iperf3_params *p)
{
    LOG_CLIENT(log_info, "iperf3: test of %s, iperf %s: %s%s, %u stream%s, %u s%s",
               test->control->name, p->client[0] ? p->client : "(no version)",
               p->udp ? "UDP, " : "",
               p->bidir     ? "both ways"
               : p->reverse ? "we send"
                            : "we receive",
               p->streams, p->streams == 1 ? "" : "s", p->time,
               p->omit ? ", the first seconds omitted" : "");
}

static const char *explain(enum iperf3_error error)
{
    switch (error) {
    case IPERF3_NO_SCTP:
        return "SCTP tests are not supported, only TCP and UDP";
    case IPERF3_BAD_PARAMS:
        return "its parameters make no sense";
    default:
        return "a parameter is beyond its limits";
    }
}

static void params_received(void)
{
    struct iperf3_params params;
    enum iperf3_error error = iperf3_params_parse(test->message, test->message_bytes, &params);
    // What came from the client and goes to the log is made harmless first.
    for (char *c = params.client; *c; c++)
        if (*c < 0x20 || *c > 0x7e)
            *c = '?';
    if (error) {
        refuse(error, explain(error));
        return;
    }
    test->run = page_alloc(RUN_PAGES);
    if (!test->run) {
        give_up("no memory for its streams");
        return;
    }
    test->run->params = params;
    test->run->home = core_id();
    test->run->wanted = params.streams * (params.bidir ? 2 : 1);
    log_params(&params);
    enter(TEST_STREAMS);
    gate_set(params.udp ? GATE_UDP_STREAMS : GATE_STREAMS);
    if (!connection_say(test->control, SAY_CREATE_STREAMS))
        give_up("cannot send");
}

// ---- Streams ----

// Numbers the streams as the client does.
static void number_streams(void)
{
    const struct iperf3_params *params = &test->run->params;
    for (unsigned i = 0; i < test->count; i++) {
        struct run_stream *s = &test->run->streams[i];
        unsigned number = 0;
        for (unsigned j = 0; j < test->count; j++) {
            uint64_t other = test->run->streams[j].arrived;
            number += other < s->arrived || (other == s->arrived && j < i);
        }
        test->order[number] = (uint8_t)i;
        test->promised[number] = UINT64_MAX;
        s->id = (uint16_t)(number == 0 ? 1 : number + 2); // the stock server's: 1, 3, 4, 5...
        // With --bidir the client first connects the streams it sends on.
        s->sender = params->reverse || (params->bidir && number >= params->streams);
    }
}

static void streams_complete(void)
{
    number_streams();
    gate_set(GATE_BUSY);
    enter(TEST_RUNNING);
    test->run->started = test->measured = test->second = test->began;
    test->busy = core_busy_time();
    atomic_store_explicit(&test->run->phase, RUN_GO, memory_order_release);
    poke(test->members);
    static const int8_t start[2] = {SAY_TEST_START, SAY_TEST_RUNNING};
    if (!connection_write(test->control, start, sizeof(start)))
        give_up("cannot send");
}

struct run_stream *test_join(unsigned core, uint16_t ticket, uint64_t arrived, const char *cookie,
                             struct run **run)
{
    if (!test || !test->run || test->state == TEST_OVER || !cookie[0] != test->run->params.udp ||
        (cookie[0] && memcmp(cookie, test->cookie, IPERF3_COOKIE - 1) != 0))
        return NULL;
    *run = test->run;
    for (unsigned i = 0; i < test->count; i++)
        if (test->run->streams[i].core == core && test->run->streams[i].ticket == ticket)
            return &test->run->streams[i]; // asked before, and the answer was lost
    *run = NULL;
    if (test->state != TEST_STREAMS)
        return NULL;
    *run = test->run;
    struct run_stream *s = &test->run->streams[test->count++];
    s->core = (uint8_t)core;
    s->ticket = ticket;
    s->arrived = arrived;
    test->members |= 1ull << core;
    if (test->count == test->run->wanted)
        streams_complete();
    return s;
}

static void ended_by_client(void)
{
    enter(TEST_RESULTS);
    test->ended = test->began;
    test->busy = core_busy_time() - test->busy;
    uint64_t omit_end = test->run->started + test->run->params.omit * TIME_S;
    if (test->ended > omit_end)
        test->measured = omit_end;
    atomic_store_explicit(&test->run->phase, RUN_ENDED, memory_order_release);
    poke(test->members);
    if (!connection_say(test->control, SAY_EXCHANGE_RESULTS))
        give_up("cannot send");
}

// ---- Results ----

static void note_promise(void *ctx, uint64_t id, uint64_t bytes)
{
    (void)ctx;
    test->client_bytes += bytes;
    for (unsigned i = 0; i < test->count; i++)
        if (test_stream(test, i)->id == id && !test->run->params.omit && !test->run->params.udp)
            test->promised[i] = bytes;
}

static void results_received(void)
{
    if (!iperf3_results_read(test->message, test->message_bytes, note_promise, NULL)) {
        refuse(IPERF3_BAD_RESULTS, "its results make no sense");
        return;
    }
    enter(TEST_DRAIN);
    connections_tick_now();
}

// When a byte last came or went.
static uint64_t last_moved(void)
{
    uint64_t last = test->run->started;
    for (unsigned i = 0; i < test->count; i++)
        last = LWIP_MAX(last, run_get(&test->run->streams[i].last_byte));
    return last;
}

// True when nothing more is to be expected on any stream.
static bool drained(uint64_t now)
{
    uint64_t quiet = test->run->params.omit ? DRAIN_QUIET_OMIT : DRAIN_QUIET;
    if (now - test->began > DRAIN_TIME)
        return true;
    bool silent = now - test->began > quiet && now > last_moved() + quiet;
    for (unsigned i = 0; i < test->count; i++) {
        const struct run_stream *s = test_stream(test, i);
        bool gone = atomic_load_explicit(&s->gone, memory_order_acquire);
        if (!gone && !atomic_load_explicit(&s->ended, memory_order_acquire))
            return false;
        if (!gone && !s->sender && !silent && !test->run->params.udp &&
            run_get(&s->bytes) < test->promised[i])
            return false;
    }
    return true;
}

static void finish(void)
{
    if (!report_results(test)) {
        give_up("cannot send results");
        return;
    }
    enter(TEST_DISPLAY);
    // The client's last word may come later than another client's first one to another core.
    gate_set(GATE_CLOSING);
}

// ---- What the control connection says ----

// Takes bytes of a message with a length in front; *len is what was taken. True: it is complete.
static bool feed_message(const uint8_t *data, size_t *len, uint32_t max)
{
    size_t have = *len, taken = 0;
    while (test->length_have < 4 && taken < have)
        test->length[test->length_have++] = data[taken++];
    *len = taken;
    if (test->length_have < 4)
        return false;
    if (!test->message) {
        uint32_t length;
        memcpy(&length, test->length, 4);
        test->message_bytes = lwip_ntohl(length);
        test->message_have = 0;
        if (test->message_bytes == 0 || test->message_bytes > max) {
            refuse(IPERF3_BAD_PARAMS, "a message of an impossible length");
            return false;
        }
        test->message = heap_alloc(test->message_bytes);
        if (!test->message) {
            give_up("no memory for its message");
            return false;
        }
    }
    size_t n = LWIP_MIN(have - taken, test->message_bytes - test->message_have);
    memcpy(test->message + test->message_have, data + taken, n);
    test->message_have += (uint32_t)n;
    *len = taken + n;
    return test->message_have == test->message_bytes;
}

static void message_done(void)
{
    heap_free(test->message);
    test->message = NULL;
    test->length_have = 0;
}

static void feed_state(int8_t said)
{
    if (said == SAY_TEST_END && test->state == TEST_RUNNING)
        ended_by_client();
    else if (said == SAY_IPERF_DONE && test->state == TEST_DISPLAY)
        end(RUN_OVER);
    else if (said == SAY_CLIENT_TERMINATE)
        give_up("the client was interrupted");
    else
        refuse(IPERF3_UNKNOWN_MESSAGE, "a message that does not fit");
}

void test_feed(const uint8_t *data, size_t len)
{
    while (len && test->state != TEST_OVER) {
        size_t n = len;
        if (test->state == TEST_PARAMS) {
            if (feed_message(data, &n, IPERF3_MAX_PARAMS)) {
                params_received();
                message_done();
            }
        } else if (test->state == TEST_RESULTS) {
            if (feed_message(data, &n, IPERF3_MAX_RESULTS)) {
                results_received();
                message_done();
            }
        } else {
            n = 1;
            feed_state((int8_t)*data);
        }
        data += n;
        len -= n;
    }
}

void test_control_gone(bool closed_by_client)
{
    if (test->state == TEST_DISPLAY)
        end(RUN_OVER);
    else if (test->state != TEST_OVER)
        give_up(closed_by_client ? "the client closed the control connection"
                                 : "the control connection was lost");
}

// ---- Time ----

static void report_second(uint64_t now)
{
    uint64_t bytes = 0;
    for (unsigned i = 0; i < test->count; i++)
        bytes += run_get(&test->run->streams[i].bytes);
    log_debug("iperf3: %llu bytes in %llu ms", (unsigned long long)(bytes - test->second_bytes),
              (unsigned long long)((now - test->second) / TIME_MS));
    test->second = now;
    test->second_bytes = bytes;
}

static void tick_running(uint64_t now)
{
    const struct iperf3_params *params = &test->run->params;
    uint64_t length = (params->time + params->omit) * TIME_S;
    if (now - test->second >= TIME_S)
        report_second(now);
    if (params->time && now > LWIP_MAX(test->run->started + length, test->woke) + GRACE_TIME)
        refuse(IPERF3_TOO_LONG, "the test should have ended long ago");
    else if (now > LWIP_MAX(last_moved(), test->woke) + SILENCE_TIME)
        refuse(IPERF3_NO_MESSAGE, "no data for a long time");
}

uint32_t test_tick(uint64_t now)
{
    if (!test)
        return UINT32_MAX;
    if (now - test->ticked > PAUSE_TIME)
        test->woke = now;
    test->ticked = now;
    uint64_t in_state = now - LWIP_MAX(test->began, test->woke);
    switch (test->state) {
    case TEST_PARAMS:
        if (in_state > PARAMS_TIME)
            give_up("no parameters came");
        break;
    case TEST_STREAMS:
        if (in_state > STREAMS_TIME)
            refuse(IPERF3_NO_STREAM, "not all of its streams connected");
        break;
    case TEST_RUNNING:
        tick_running(now);
        break;
    case TEST_RESULTS:
        if (in_state > RESULTS_TIME)
            give_up("no results came");
        break;
    case TEST_DRAIN:
        if (drained(now))
            finish();
        break;
    case TEST_DISPLAY:
        if (in_state > DISPLAY_TIME)
            give_up("the client did not say that it is done");
        break;
    case TEST_OVER:
        connections_attend();
        break;
    }
    return test->state == TEST_DRAIN ? TICK_DRAIN : TICK;
}
