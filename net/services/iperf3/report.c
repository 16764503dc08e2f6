// SPDX-License-Identifier: BSD-2-Clause
// What a test has come to: the results that the client gets and the lines of the log. Called by test.c
// when the last byte is counted.
#include <string.h>

#include "kernel/alloc.h"
#include "kernel/core.h"
#include "net/services/iperf3/client_log.h"
#include "net/services/iperf3/results.h"
#include "net/services/iperf3/test.h"

#include <stb_sprintf.h>

#define CORES_IN_A_LINE 8
#define WORDS 384 // as iperf3_results_size() expects

struct totals {
    unsigned streams;
    uint64_t bytes, microseconds;
    uint64_t packets, errors; // UDP
};

static void add_result(const struct test *test, const struct run_stream *s,
                       struct iperf3_stream_result *out)
{
    uint64_t last = run_get(&s->last_byte);
    uint64_t end = s->sender ? test->ended : LWIP_MAX(test->ended, last);
    // A test that ended within the seconds to omit counts from its beginning.
    bool omits = test->measured != test->run->started;
    *out = (struct iperf3_stream_result){
        .id = s->id,
        .sender = s->sender,
        .bytes = run_get(&s->bytes) - (omits ? run_get(&s->omitted) : 0),
        .retransmits = s->retransmits - (omits ? s->retransmits_omitted : 0),
        .packets = run_get(&s->packets),
        .errors = run_get(&s->errors),
        .packets_omitted = omits ? run_get(&s->packets_omitted) : 0,
        .errors_omitted = omits ? run_get(&s->errors_omitted) : 0,
        .jitter = run_get(&s->jitter),
        .microseconds = (end - test->measured) / TIME_US,
    };
}

static void add_total(struct totals *total, const struct iperf3_stream_result *result)
{
    total->streams++;
    total->bytes += result->bytes;
    total->packets += result->packets - result->packets_omitted;
    total->errors += result->errors - result->errors_omitted;
    total->microseconds = LWIP_MAX(total->microseconds, result->microseconds);
}

static uint64_t kbits_per_second(const struct totals *t)
{
    return t->microseconds ? t->bytes * 8 * 1000 / t->microseconds : 0;
}

static int describe(char *out, int size, const char *verb, const struct totals *t)
{
    if (!t->streams)
        return 0;
    uint64_t rate = kbits_per_second(t);
    int at = stbsp_snprintf(
        out, size, "%s %llu bytes in %llu.%02u s by %u stream%s = %llu.%03u Mbit/s; ", verb,
        (unsigned long long)t->bytes, (unsigned long long)(t->microseconds / 1000000),
        (unsigned)(t->microseconds / 10000 % 100), t->streams, t->streams == 1 ? "" : "s",
        (unsigned long long)(rate / 1000), (unsigned)(rate % 1000));
    if (t->packets)
        at += stbsp_snprintf(out + at, size - at, "%llu of %llu datagrams lost; ",
                             (unsigned long long)t->errors, (unsigned long long)t->packets);
    return at;
}

// One line, more on large machines, of what each core did.
static void log_cores(const struct test *test, const struct iperf3_stream_result *results)
{
    char line[256];
    int at = 0;
    unsigned in_line = 0;
    for (unsigned core = 0; core < core_count(); core++) {
        struct totals total = {0};
        for (unsigned i = 0; i < test->count; i++)
            if (test_stream(test, i)->core == core)
                add_total(&total, &results[i]);
        if (total.streams) {
            uint64_t rate = kbits_per_second(&total);
            at += stbsp_snprintf(line + at, (int)sizeof(line) - at, "%sc%u %u at %llu.%03u",
                                 in_line++ ? ", " : "", core, total.streams,
                                 (unsigned long long)(rate / 1000), (unsigned)(rate % 1000));
        }
        if (in_line == CORES_IN_A_LINE || (in_line && core == core_count() - 1)) {
            LOG_CLIENT(log_info, "iperf3: streams of each core, Mbit/s: %s", line);
            at = 0;
            in_line = 0;
        }
    }
}

// Our results, as a length and JSON, and the word that the client may show them.
static bool send(const struct test *test, const struct iperf3_stream_result *results,
                 const char *words)
{
    size_t size = iperf3_results_size(test->count) + 5;
    char *text = heap_alloc(size);
    if (!text)
        return false;
    uint64_t took = test->ended - test->run->started;
    struct iperf3_totals totals = {
        .udp = test->run->params.udp,
        .load = took ? (unsigned)(test->busy * 10000 / took) : 0,
        .words = test->run->params.server_output ? words : NULL,
    };
    size_t len = iperf3_results_write(text + 4, size - 5, results, test->count, &totals);
    uint32_t prefix = lwip_htonl((u32_t)len);
    memcpy(text, &prefix, 4);
    text[4 + len] = SAY_DISPLAY_RESULTS;
    bool sent = connection_write(test->control, text, len + 5);
    heap_free(text);
    return sent;
}

bool report_results(struct test *test)
{
    struct iperf3_stream_result *results = heap_alloc(test->count * sizeof(*results));
    if (!results)
        return false;
    struct totals totals[2] = {{0}, {0}};
    for (unsigned i = 0; i < test->count; i++) {
        add_result(test, test_stream(test, i), &results[i]);
        add_total(&totals[results[i].sender], &results[i]);
    }
    char words[WORDS];
    int at = describe(words, sizeof(words), "received", &totals[false]);
    totals[true].packets = 0; // only the client knows what it missed
    at += describe(words + at, (int)sizeof(words) - at, "sent", &totals[true]);
    stbsp_snprintf(words + at, (int)sizeof(words) - at, "the client counts %llu bytes",
                   (unsigned long long)test->client_bytes);
    LOG_CLIENT(log_info, "iperf3: test of %s done: %s", test->control->name, words);
    log_cores(test, results);
    bool sent = send(test, results, words);
    heap_free(results);
    return sent;
}
