// SPDX-License-Identifier: BSD-2-Clause
// The iperf3 server: accepts clients, runs one test at a time, refuses the others. Speaks the
// protocol of the stock iperf3 from 3.1 on, TCP only. Everything happens on one core, in lwIP's
// callbacks, in the tick and in poll(); only poll() closes connections and frees a test, so that no
// callback loses what it works on.
//
// A connection begins with a cookie. The first that comes while there is no test becomes the test's
// control connection; those with the test's cookie, while it waits for them, become its streams; all
// others get ACCESS_DENIED. What the control connection then says and hears is in feed_control().
#include <string.h>

#include "kernel/alloc.h"
#include "kernel/config.h"
#include "kernel/core.h"
#include "kernel/log.h"
#include "lwip/timeouts.h"
#include "net/services/iperf3/results.h"
#include "net/services/iperf3/server.h"
#include "net/services/listen.h"
#include "net/services/service.h"
#include "net/stack.h"

#include <stb_sprintf.h>

// How long a client may take.
#define COOKIE_TIME (10 * TIME_S)   // from connecting to the whole cookie
#define PARAMS_TIME (10 * TIME_S)   // for its parameters
#define STREAMS_TIME (60 * TIME_S)  // for all of its streams to connect
#define GRACE_TIME (40 * TIME_S)    // beyond the test's length until it says TEST_END
#define SILENCE_TIME (120 * TIME_S) // without a byte on any stream while the test runs
#define RESULTS_TIME (30 * TIME_S)  // for its results
#define DISPLAY_TIME (10 * TIME_S)  // for IPERF_DONE
#define LINGER_TIME (2 * TIME_S)    // for closing its side when all is said

// What the client says it sent is waited for: so long in all, so long without any progress.
#define DRAIN_TIME (5 * TIME_S) // newer clients wait 10 s for our results
#define DRAIN_QUIET (1 * TIME_S)
#define DRAIN_QUIET_OMIT (100 * TIME_MS) // the client's count leaves out its own first seconds

#define TICK 100      // ms, while there is any connection
#define TICK_DRAIN 10 // ms, at the end of a test
#define TICK_PACED 2  // ms, while we send at a rate that the client limits

// Connections that have not shown their cookie, or linger. Of more the oldest are reset.
#define MAX_IDLE_CONNECTIONS 64

// Lines that clients can cause: so many at once, and one more each interval. The rest is counted.
#define LOG_BURST 50
#define LOG_INTERVAL (50 * TIME_MS)

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

static PERCORE struct connection *connections;
static PERCORE unsigned idle_connections;
static PERCORE struct test *test; // NULL: the server is free
static PERCORE bool attention;    // poll() has something to close or to free
static PERCORE bool ticking;
static PERCORE uint64_t log_filled; // when the allowance below was last added to
static PERCORE unsigned log_allowance, log_left_out;

static void tick(void *arg);

// ---- Log ----

// True if a line that a client caused may be logged; consoles are slow and must not be flooded.
static bool may_log(void)
{
    uint64_t intervals = (time_now() - log_filled) / LOG_INTERVAL;
    if (intervals) {
        log_filled += intervals * LOG_INTERVAL;
        log_allowance = (unsigned)LWIP_MIN(log_allowance + intervals, LOG_BURST);
    }
    if (!log_allowance) {
        log_left_out++;
        return false;
    }
    log_allowance--;
    if (log_left_out)
        log_warn("iperf3: %u lines left out", log_left_out);
    log_left_out = 0;
    return true;
}

#define LOG_CLIENT(log, ...)                                                                       \
    do {                                                                                           \
        if (may_log())                                                                             \
            log(__VA_ARGS__);                                                                      \
    } while (0)

// ---- Connections ----

static void close_later(struct connection *c, enum closing how)
{
    if (c->closing < how)
        c->closing = how;
    attention = true;
}

static void linger(struct connection *c)
{
    if (c->role != CONNECTION_LINGER && c->role != CONNECTION_NEW)
        idle_connections++;
    c->role = CONNECTION_LINGER;
    c->deadline = time_now() + LINGER_TIME;
    if (c->fin)
        close_later(c, CLOSE_GENTLY);
}

// Stops lwIP from calling back.
static struct tcp_pcb *forsake(struct connection *c)
{
    struct tcp_pcb *pcb = c->pcb;
    c->pcb = NULL;
    tcp_arg(pcb, NULL);
    tcp_recv(pcb, NULL);
    tcp_sent(pcb, NULL);
    tcp_err(pcb, NULL);
    return pcb;
}

static void close_now(struct connection *c)
{
    if (!c->pcb)
        return;
    if (c->role == CONNECTION_STREAM && c->sender)
        c->retransmits = stack_tcp_retransmits(c->pcb);
    struct tcp_pcb *pcb = forsake(c);
    // Everything received was taken; lwIP, finding the window that a client chose by -w, would
    // think otherwise and reset the connection.
    pcb->rcv_wnd = TCP_WND_MAX(pcb);
    if (c->closing == CLOSE_HARD || tcp_close(pcb) != ERR_OK)
        tcp_abort(pcb);
}

static bool write_out(struct connection *c, const void *data, size_t len)
{
    if (!c->pcb || tcp_write(c->pcb, data, (u16_t)len, TCP_WRITE_FLAG_COPY) != ERR_OK)
        return false;
    tcp_output(c->pcb);
    return true;
}

static bool say(struct connection *c, int8_t what)
{
    return write_out(c, &what, 1);
}

// ---- The test ----

static void enter(enum test_state state)
{
    test->state = state;
    test->began = time_now();
}

// Ends the test with nothing more to say to the client than was said.
static void test_end(void)
{
    enter(TEST_OVER);
    attention = true;
}

// The client broke something or vanished: everything of the test goes at once.
static void test_abort(const char *why)
{
    LOG_CLIENT(log_warn, "iperf3: test of %s given up: %s", test->control->name, why);
    for (unsigned i = 0; i < test->stream_count; i++)
        close_later(test->streams[i], CLOSE_HARD);
    close_later(test->control, CLOSE_HARD);
    test_end();
}

// Tells the client why, then ends the test.
static void test_refuse(enum iperf3_error error, const char *why)
{
    LOG_CLIENT(log_warn, "iperf3: %s refused: %s", test->control->name, why);
    const uint32_t numbers[2] = {lwip_htonl(error), 0}; // iperf3's own number, then an errno
    uint8_t message[9] = {(uint8_t)SAY_SERVER_ERROR};
    memcpy(message + 1, numbers, sizeof(numbers));
    if (write_out(test->control, message, sizeof(message)))
        linger(test->control);
    else
        close_later(test->control, CLOSE_HARD);
    for (unsigned i = 0; i < test->stream_count; i++)
        close_later(test->streams[i], CLOSE_HARD);
    test_end();
}

static void test_begin(struct connection *control)
{
    test = heap_alloc(sizeof(*test));
    if (!test) {
        log_error("iperf3: no memory for a test");
        close_later(control, CLOSE_HARD);
        return;
    }
    memset(test, 0, sizeof(*test));
    test->control = control;
    memcpy(test->cookie, control->cookie, IPERF3_COOKIE);
    idle_connections--;
    control->role = CONNECTION_CONTROL;
    tcp_nagle_disable(control->pcb);
    enter(TEST_PARAMS);
    if (!say(control, SAY_PARAM_EXCHANGE))
        test_abort("cannot send");
}

// Frees the test. Its connections stay, those that linger; streams without a pcb go with it.
static void test_free(void)
{
    for (unsigned i = 0; i < test->stream_count; i++)
        if (test->streams[i]->role == CONNECTION_STREAM)
            linger(test->streams[i]);
    if (test->control->role == CONNECTION_CONTROL)
        linger(test->control);
    heap_free(test->message);
    heap_free(test);
    test = NULL;
}

static void stream_connected(struct connection *c)
{
    idle_connections--;
    stream_add(test, c);
    if (test->stream_count < test->streams_wanted)
        return;
    static const int8_t start[2] = {SAY_TEST_START, SAY_TEST_RUNNING};
    if (!write_out(test->control, start, sizeof(start))) {
        test_abort("cannot send");
        return;
    }
    enter(TEST_RUNNING);
    test->started = test->measured = test->second = test->moved = test->began;
    test->omitting = test->params.omit > 0;
    for (unsigned i = 0; i < test->stream_count; i++) {
        if (!test->streams[i]->sender || !test->streams[i]->pcb)
            continue;
        stream_send(test, test->streams[i]);
        tcp_output(test->streams[i]->pcb);
    }
}

static void log_params(void)
{
    const struct iperf3_params *p = &test->params;
    LOG_CLIENT(log_info, "iperf3: test of %s, iperf %s: %s, %u stream%s, %u s%s",
               test->control->name, p->client[0] ? p->client : "(no version)",
               p->bidir     ? "both ways"
               : p->reverse ? "we send"
                            : "we receive",
               p->streams, p->streams == 1 ? "" : "s", p->time,
               p->omit ? ", the first seconds omitted" : "");
}

static const char *explain(enum iperf3_error error)
{
    switch (error) {
    case IPERF3_NOT_IMPLEMENTED:
        return "UDP tests are not supported, only TCP";
    case IPERF3_NO_SCTP:
        return "SCTP tests are not supported, only TCP";
    case IPERF3_BAD_PARAMS:
        return "its parameters make no sense";
    default:
        return "a parameter is beyond its limits";
    }
}

static void params_received(void)
{
    enum iperf3_error error =
        iperf3_params_parse(test->message, test->message_bytes, &test->params);
    // What came from the client and goes to the log is made harmless first.
    for (char *c = test->params.client; *c; c++)
        if (*c < 0x20 || *c > 0x7e)
            *c = '?';
    if (error) {
        test_refuse(error, explain(error));
        return;
    }
    test->streams_wanted = test->params.streams * (test->params.bidir ? 2 : 1);
    log_params();
    enter(TEST_STREAMS);
    if (!say(test->control, SAY_CREATE_STREAMS))
        test_abort("cannot send");
}

static void test_ended_by_client(void)
{
    for (unsigned i = 0; i < test->stream_count; i++) {
        struct connection *c = test->streams[i];
        if (!c->sender)
            continue;
        // The client may sit in a blocking read until a stream it receives on ends.
        if (c->pcb)
            c->retransmits = stack_tcp_retransmits(c->pcb);
        close_later(c, CLOSE_GENTLY);
    }
    enter(TEST_RESULTS);
    test->ended = test->began;
    if (!say(test->control, SAY_EXCHANGE_RESULTS))
        test_abort("cannot send");
}

static void note_promise(void *ctx, uint64_t id, uint64_t bytes)
{
    (void)ctx;
    test->client_bytes += bytes;
    for (unsigned i = 0; i < test->stream_count; i++)
        if (test->streams[i]->id == id && !test->params.omit)
            test->streams[i]->promised = bytes;
}

static void results_received(void)
{
    if (!iperf3_results_read(test->message, test->message_bytes, note_promise, NULL)) {
        test_refuse(IPERF3_BAD_RESULTS, "its results make no sense");
        return;
    }
    enter(TEST_DRAIN);
    sys_untimeout(tick, NULL);
    sys_timeout(0, tick, NULL);
}

// ---- The end of a test ----

struct totals {
    unsigned streams;
    uint64_t bytes, microseconds;
};

static void add_result(const struct connection *c, struct iperf3_stream_result *out,
                       struct totals totals[2])
{
    uint64_t end = c->sender ? test->ended : LWIP_MAX(test->ended, c->last_byte);
    *out = (struct iperf3_stream_result){
        .id = c->id,
        .sender = c->sender,
        .bytes = c->bytes - c->omitted,
        .retransmits = c->retransmits - c->retransmits_omitted,
        .microseconds = (end - test->measured) / TIME_US,
    };
    struct totals *total = &totals[c->sender];
    total->streams++;
    total->bytes += out->bytes;
    total->microseconds = LWIP_MAX(total->microseconds, out->microseconds);
}

static int describe(char *out, int size, const char *verb, const struct totals *t)
{
    if (!t->streams)
        return 0;
    uint64_t bits_per_ms = t->microseconds ? t->bytes * 8 * 1000 / t->microseconds : 0;
    return stbsp_snprintf(
        out, size, "%s %llu bytes in %llu.%02u s by %u stream%s = %llu.%03u Mbit/s; ", verb,
        (unsigned long long)t->bytes, (unsigned long long)(t->microseconds / 1000000),
        (unsigned)(t->microseconds / 10000 % 100), t->streams, t->streams == 1 ? "" : "s",
        (unsigned long long)(bits_per_ms / 1000), (unsigned)(bits_per_ms % 1000));
}

// Sends our results, as a length and JSON, and says that the client may show them.
static bool send_results(const struct iperf3_stream_result *results, const char *words)
{
    size_t size = iperf3_results_size(test->stream_count) + 5;
    char *text = heap_alloc(size);
    if (!text)
        return false;
    size_t len = iperf3_results_write(text + 4, size - 5, results, test->stream_count,
                                      test->params.server_output ? words : NULL);
    uint32_t prefix = lwip_htonl((u32_t)len);
    memcpy(text, &prefix, 4);
    text[4 + len] = SAY_DISPLAY_RESULTS;
    bool sent = len + 5 <= UINT16_MAX && write_out(test->control, text, len + 5);
    heap_free(text);
    return sent;
}

static void finish(void)
{
    struct iperf3_stream_result *results = heap_alloc(test->stream_count * sizeof(*results));
    if (!results) {
        test_abort("no memory for results");
        return;
    }
    struct totals totals[2] = {{0}, {0}};
    for (unsigned i = 0; i < test->stream_count; i++)
        add_result(test->streams[i], &results[i], totals);
    char words[256];
    int at = describe(words, sizeof(words), "received", &totals[false]);
    at += describe(words + at, (int)sizeof(words) - at, "sent", &totals[true]);
    stbsp_snprintf(words + at, (int)sizeof(words) - at, "the client counts %llu bytes",
                   (unsigned long long)test->client_bytes);
    LOG_CLIENT(log_info, "iperf3: test of %s done: %s", test->control->name, words);
    if (send_results(results, words))
        enter(TEST_DISPLAY);
    else
        test_abort("cannot send results");
    heap_free(results);
}

// True when nothing more is to be expected on the streams that we receive on.
static bool drained(uint64_t now)
{
    uint64_t quiet = test->params.omit ? DRAIN_QUIET_OMIT : DRAIN_QUIET;
    if (now - test->began > DRAIN_TIME)
        return true;
    if (now - test->moved > quiet && now - test->began > quiet)
        return true;
    for (unsigned i = 0; i < test->stream_count; i++) {
        const struct connection *c = test->streams[i];
        if (!c->sender && c->pcb && !c->fin && c->bytes < c->promised)
            return false;
    }
    return true;
}

// ---- What the control connection says ----

static const char *const refusal_of_length = "a message of an impossible length";

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
            test_refuse(IPERF3_BAD_PARAMS, refusal_of_length);
            return false;
        }
        test->message = heap_alloc(test->message_bytes);
        if (!test->message) {
            test_abort("no memory for its message");
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
        test_ended_by_client();
    else if (said == SAY_IPERF_DONE && test->state == TEST_DISPLAY)
        test_end();
    else if (said == SAY_CLIENT_TERMINATE)
        test_abort("the client was interrupted");
    else
        test_refuse(IPERF3_UNKNOWN_MESSAGE, "a message that does not fit");
}

// Bytes of the control connection, in order, however they are cut.
static void feed_control(const uint8_t *data, size_t len)
{
    while (len && test && test->state != TEST_OVER) {
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

// ---- New connections ----

static void cookie_complete(struct connection *c)
{
    // The last one's end and this cookie may have come in one batch, before the poll between them.
    if (test && test->state == TEST_OVER)
        test_free();
    if (!test) {
        test_begin(c);
        return;
    }
    if (test->state == TEST_STREAMS && !memcmp(c->cookie, test->cookie, IPERF3_COOKIE)) {
        stream_connected(c);
        return;
    }
    LOG_CLIENT(log_info, "iperf3: %s denied: a test is running", c->name);
    if (say(c, SAY_ACCESS_DENIED))
        linger(c);
    else
        close_later(c, CLOSE_HARD);
}

// Takes bytes of the cookie; returns how many.
static size_t feed_cookie(struct connection *c, const uint8_t *data, size_t len)
{
    size_t taken = 0;
    while (taken < len && c->cookie_bytes < IPERF3_COOKIE) {
        uint8_t byte = data[taken++];
        bool last = c->cookie_bytes == IPERF3_COOKIE - 1;
        if (last ? byte != 0 : byte < 0x20 || byte > 0x7e) {
            LOG_CLIENT(log_warn, "iperf3: garbage from %s dropped", c->name);
            close_later(c, CLOSE_HARD);
            return len;
        }
        c->cookie[c->cookie_bytes++] = byte;
    }
    if (c->cookie_bytes == IPERF3_COOKIE)
        cookie_complete(c);
    return taken;
}

// ---- lwIP's callbacks ----

static void received_fin(struct connection *c)
{
    c->fin = true;
    if (c->role == CONNECTION_CONTROL) {
        if (test->state == TEST_DISPLAY)
            test_end();
        else if (test->state != TEST_OVER)
            test_abort("the client closed the control connection");
        return;
    }
    // A stream that the client ended early keeps its counts until the test is over.
    close_later(c, CLOSE_GENTLY);
}

static err_t on_receive(void *arg, struct tcp_pcb *pcb, struct pbuf *p, err_t error)
{
    struct connection *c = arg;
    (void)error;
    if (!p) {
        received_fin(c);
        return ERR_OK;
    }
    if (c->role == CONNECTION_STREAM && test) {
        stream_receive(test, c, p);
        return ERR_OK;
    }
    for (const struct pbuf *part = p; part; part = part->next) {
        const uint8_t *data = part->payload;
        size_t len = part->len, taken = 0;
        if (c->role == CONNECTION_NEW && !c->closing)
            taken = feed_cookie(c, data, len);
        if (c->role == CONNECTION_CONTROL && taken < len)
            feed_control(data + taken, len - taken);
    }
    tcp_recved(pcb, p->tot_len);
    pbuf_free(p);
    return ERR_OK;
}

static err_t on_sent(void *arg, struct tcp_pcb *pcb, u16_t bytes)
{
    struct connection *c = arg;
    (void)pcb;
    if (c->role == CONNECTION_STREAM && c->sender && test)
        stream_sent(test, c, bytes);
    return ERR_OK;
}

// The connection is gone: reset, timed out, or its interface was removed.
static void on_error(void *arg, err_t error)
{
    struct connection *c = arg;
    (void)error;
    c->pcb = NULL; // lwIP has freed it
    if (c->role == CONNECTION_CONTROL && test->state != TEST_OVER) {
        if (test->state == TEST_DISPLAY)
            test_end();
        else
            test_abort("the control connection was lost");
    }
    c->retransmits = LWIP_MAX(c->retransmits, c->retransmits_omitted);
    attention = true;
}

// There are too many: the one that has been silent for the longest makes room. False: all linger.
static bool drop_oldest(void)
{
    struct connection *oldest = NULL;
    for (struct connection *c = connections; c; c = c->next)
        if (c->role == CONNECTION_NEW && !c->closing)
            oldest = c; // new ones are put in front
    if (oldest)
        close_later(oldest, CLOSE_HARD);
    return oldest;
}

static err_t on_accept(void *arg, struct tcp_pcb *pcb, err_t error)
{
    (void)arg;
    if (error != ERR_OK || !pcb)
        return ERR_VAL;
    // The streams that a test waits for have their own allowance.
    unsigned limit =
        MAX_IDLE_CONNECTIONS + (test && test->state == TEST_STREAMS ? 2 * IPERF3_MAX_STREAMS : 0);
    struct connection *c = NULL;
    if (idle_connections < limit || drop_oldest())
        c = net_calloc(1, sizeof(*c));
    if (!c)
        return ERR_MEM; // lwIP resets it
    c->pcb = pcb;
    stack_name(c->name, &pcb->remote_ip, pcb->remote_port);
    c->deadline = time_now() + COOKIE_TIME;
    c->next = connections;
    connections = c;
    idle_connections++;
    tcp_arg(pcb, c);
    tcp_recv(pcb, on_receive);
    tcp_sent(pcb, on_sent);
    tcp_err(pcb, on_error);
    service_keepalive(pcb);
    if (!ticking) {
        ticking = true;
        sys_timeout(TICK, tick, NULL);
    }
    return ERR_OK;
}

// ---- Time ----

// The seconds to leave out are over: counting begins anew.
static void begin_measuring(uint64_t now)
{
    test->omitting = false;
    test->measured = test->second = now;
    test->second_bytes = 0;
    for (unsigned i = 0; i < test->stream_count; i++) {
        struct connection *c = test->streams[i];
        c->omitted = c->bytes;
        if (c->sender && c->pcb)
            c->retransmits_omitted = stack_tcp_retransmits(c->pcb);
        test->second_bytes += c->bytes;
    }
}

static void report_second(uint64_t now)
{
    uint64_t bytes = 0;
    for (unsigned i = 0; i < test->stream_count; i++)
        bytes += test->streams[i]->bytes;
    uint64_t milliseconds = (now - test->second) / TIME_MS;
    log_debug("iperf3: %llu bytes in %llu ms", (unsigned long long)(bytes - test->second_bytes),
              (unsigned long long)milliseconds);
    test->second = now;
    test->second_bytes = bytes;
}

static void tick_running(uint64_t now)
{
    const struct iperf3_params *params = &test->params;
    if (test->omitting && now - test->started >= params->omit * TIME_S)
        begin_measuring(now);
    if (now - test->second >= TIME_S)
        report_second(now);
    for (unsigned i = 0; i < test->stream_count; i++) {
        struct connection *c = test->streams[i];
        if (!c->sender || !c->pcb || c->closing)
            continue;
        stream_send(test, c);
        tcp_output(c->pcb);
    }
    if (params->time && now - test->started > (params->time + params->omit) * TIME_S + GRACE_TIME)
        test_refuse(IPERF3_TOO_LONG, "the test should have ended long ago");
    else if (now - test->moved > SILENCE_TIME)
        test_refuse(IPERF3_NO_MESSAGE, "no data for a long time");
}

static void tick_test(uint64_t now)
{
    uint64_t in_state = now - test->began;
    switch (test->state) {
    case TEST_PARAMS:
        if (in_state > PARAMS_TIME)
            test_abort("no parameters came");
        break;
    case TEST_STREAMS:
        if (in_state > STREAMS_TIME)
            test_refuse(IPERF3_NO_STREAM, "not all of its streams connected");
        break;
    case TEST_RUNNING:
        tick_running(now);
        break;
    case TEST_RESULTS:
        if (in_state > RESULTS_TIME)
            test_abort("no results came");
        break;
    case TEST_DRAIN:
        if (drained(now))
            finish();
        break;
    case TEST_DISPLAY:
        if (in_state > DISPLAY_TIME)
            test_abort("the client did not say that it is done");
        break;
    case TEST_OVER:
        break;
    }
}

static u32_t tick_interval(void)
{
    if (test && test->state == TEST_DRAIN)
        return TICK_DRAIN;
    if (test && test->state == TEST_RUNNING && test->omitting) {
        uint64_t end = test->started + test->params.omit * TIME_S, now = time_now();
        return end > now ? (u32_t)LWIP_MIN(TICK, (end - now) / TIME_MS + 1) : 1;
    }
    if (test && test->state == TEST_RUNNING && test->params.rate &&
        (test->params.reverse || test->params.bidir))
        return TICK_PACED;
    return TICK;
}

static void tick(void *arg)
{
    (void)arg;
    uint64_t now = time_now();
    if (test)
        tick_test(now);
    for (struct connection *c = connections; c; c = c->next) {
        if ((c->role == CONNECTION_NEW || c->role == CONNECTION_LINGER) && now > c->deadline)
            close_later(c, c->role == CONNECTION_NEW ? CLOSE_HARD : CLOSE_GENTLY);
    }
    ticking = connections || test;
    if (ticking)
        sys_timeout(tick_interval(), tick, NULL);
}

// ---- The service ----

static bool iperf3_poll(void)
{
    if (!attention)
        return false;
    attention = false;
    if (test && test->state == TEST_OVER)
        test_free();
    struct connection **link = &connections;
    while (*link) {
        struct connection *c = *link;
        if (c->closing)
            close_now(c);
        // Those of a running test are kept for their counts.
        if (!c->pcb && (c->role == CONNECTION_NEW || c->role == CONNECTION_LINGER)) {
            idle_connections--;
            *link = c->next;
            heap_free(c);
        } else {
            link = &c->next;
        }
    }
    return true;
}

static int iperf3_start(struct service *service)
{
    service->port = config.iperf3_port;
    int error = stream_init();
    if (error)
        return error;
    return service_listen(service->port, on_accept);
}

struct service iperf3_service = {.name = "iperf3", .start = iperf3_start, .poll = iperf3_poll};
