// SPDX-License-Identifier: BSD-2-Clause
// What iperf3 clients send as JSON, well formed and not: parameters, results, and our own results.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/config.h"
#include "net/services/iperf3/json.h"
#include "net/services/iperf3/params.h"
#include "net/services/iperf3/results.h"

#define STB_SPRINTF_IMPLEMENTATION
#define STB_SPRINTF_NOFLOAT
#define STB_SPRINTF_NOUNALIGNED
#include <stb_sprintf.h>

struct config config;

void *heap_alloc(size_t size)
{
    return malloc(size);
}

void heap_free(void *object)
{
    free(object);
}

// Parses text that ends exactly where its memory does, so that reading beyond it is noticed.
static enum iperf3_error parse(const char *text, struct iperf3_params *out)
{
    size_t len = strlen(text);
    char *copy = malloc(len ? len : 1);
    memcpy(copy, text, len);
    enum iperf3_error error = iperf3_params_parse(copy, len, out);
    free(copy);
    return error;
}

// What clients of several ages really send.
static void stock_clients(void **state)
{
    (void)state;
    struct iperf3_params p;
    assert_int_equal(parse("{\"tcp\":true,\"omit\":0,\"time\":10,\"parallel\":1,\"len\":131072,"
                           "\"client_version\":\"3.1.3\"}",
                           &p),
                     IPERF3_OK);
    assert_int_equal(p.streams, 1);
    assert_int_equal(p.time, 10);
    assert_false(p.reverse);
    assert_string_equal(p.client, "3.1.3");

    assert_int_equal(
        parse("{\"tcp\":true,\"omit\":2,\"time\":0,\"num\":67108864,\"blockcount\":0,\"MSS\":1400,"
              "\"nodelay\":true,\"parallel\":128,\"reverse\":true,\"window\":262144,"
              "\"len\":131072,\"bandwidth\":1048576,\"pacing_timer\":1000,\"TOS\":16,"
              "\"title\":\"a \\\"title\\\"\",\"get_server_output\":1,\"client_version\":\"3.18\"}",
              &p),
        IPERF3_OK);
    assert_int_equal(p.streams, 128);
    assert_int_equal(p.omit, 2);
    assert_int_equal(p.time, 0);
    assert_int_equal(p.mss, 1400);
    assert_int_equal(p.window, 262144);
    assert_int_equal(p.rate, 1048576);
    assert_true(p.reverse && p.nodelay && p.server_output);
    assert_false(p.bidir);

    assert_int_equal(parse("{\"tcp\":true,\"bidirectional\":true}", &p), IPERF3_OK);
    assert_true(p.bidir);
}

static void limits(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum iperf3_error error;
    } cases[] = {
        {"{\"udp\":true}", IPERF3_BAD_DATAGRAM_SIZE},
        {"{\"udp\":true,\"len\":15}", IPERF3_BAD_DATAGRAM_SIZE},
        {"{\"udp\":true,\"len\":16}", IPERF3_OK},
        {"{\"udp\":true,\"len\":65507}", IPERF3_OK},
        {"{\"udp\":true,\"len\":65508}", IPERF3_BAD_DATAGRAM_SIZE},
        {"{\"udp\":false,\"tcp\":true}", IPERF3_OK},
        {"{\"sctp\":true}", IPERF3_NO_SCTP},
        {"{\"parallel\":0}", IPERF3_BAD_STREAMS},
        {"{\"parallel\":128}", IPERF3_OK},
        {"{\"parallel\":129}", IPERF3_BAD_STREAMS},
        {"{\"parallel\":-1}", IPERF3_BAD_STREAMS},
        {"{\"parallel\":\"8\"}", IPERF3_BAD_STREAMS},
        {"{\"parallel\":[8]}", IPERF3_BAD_STREAMS},
        {"{\"parallel\":null}", IPERF3_BAD_STREAMS},
        {"{\"parallel\":4294967297}", IPERF3_BAD_STREAMS},
        {"{\"parallel\":18446744073709551617}", IPERF3_BAD_STREAMS},
        {"{\"parallel\":99999999999999999999999999999999999999}", IPERF3_BAD_STREAMS},
        {"{\"parallel\":1e300}", IPERF3_BAD_STREAMS},
        {"{\"parallel\":1e-300}", IPERF3_BAD_STREAMS},
        {"{\"time\":86400}", IPERF3_OK},
        {"{\"time\":86401}", IPERF3_BAD_DURATION},
        {"{\"omit\":600}", IPERF3_OK},
        {"{\"omit\":601}", IPERF3_BAD_OMIT},
        {"{\"MSS\":32767}", IPERF3_OK},
        {"{\"MSS\":32768}", IPERF3_BAD_MSS},
        {"{\"window\":536870912}", IPERF3_OK},
        {"{\"window\":536870913}", IPERF3_BAD_BUFFER_SIZE},
        {"{\"len\":1048576}", IPERF3_OK},
        {"{\"len\":1048577}", IPERF3_BAD_BLOCK_SIZE},
        {"{\"bandwidth\":-1}", IPERF3_BAD_PARAMS},
        {"{\"reverse\":true,\"bidirectional\":true}", IPERF3_REVERSE_AND_BIDIR},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct iperf3_params p;
        if (parse(cases[i].text, &p) != cases[i].error)
            fail_msg("%s", cases[i].text);
    }
}

static void malformed(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "",       "{",    "}",       "[]",        "[{}]",         "true",          "\"x\"",
        "{\"a\"", "{]",   "{\"a\":", "{\"a\":[}", "{\"tcp\":tru", "{\"tcp\":true", "{\"a\":1]}",
        "\\",     "\xff",
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct iperf3_params p;
        if (parse(cases[i], &p) != IPERF3_BAD_PARAMS)
            fail_msg("%s", cases[i]);
    }
}

static void too_large(void **state)
{
    (void)state;
    struct iperf3_params p;
    char *text = malloc(IPERF3_MAX_PARAMS + 2);
    memset(text, ' ', IPERF3_MAX_PARAMS + 1);
    memcpy(text, "{\"parallel\":3", 13);
    text[IPERF3_MAX_PARAMS - 1] = '}';
    assert_int_equal(iperf3_params_parse(text, IPERF3_MAX_PARAMS, &p), IPERF3_OK);
    assert_int_equal(p.streams, 3);
    text[IPERF3_MAX_PARAMS] = ' ';
    assert_int_equal(iperf3_params_parse(text, IPERF3_MAX_PARAMS + 1, &p), IPERF3_BAD_PARAMS);

    // More tokens than there is room for, nested and flat.
    for (int i = 0; i < 200; i++)
        memcpy(text + i * 6, "{\"a\":1" + 0, 6);
    assert_int_equal(iperf3_params_parse(text, 1200, &p), IPERF3_BAD_PARAMS);
    text[0] = '{';
    for (int i = 0; i < 200; i++)
        memcpy(text + 1 + i * 6, "\"a\":1,", 6);
    memcpy(text + 1200, "}", 1);
    assert_int_equal(iperf3_params_parse(text, 1201, &p), IPERF3_BAD_PARAMS);
    free(text);
}

// A long version does not run over.
static void long_strings(void **state)
{
    (void)state;
    struct iperf3_params p;
    assert_int_equal(parse("{\"client_version\":\"0123456789abcdefghijklmnop\"}", &p), IPERF3_OK);
    assert_string_equal(p.client, "0123456789abcde");
}

static void mutated(void **state)
{
    (void)state;
    static const char seed[] =
        "{\"tcp\":true,\"omit\":0,\"time\":10,\"num\":1e6,\"parallel\":1,"
        "\"reverse\":true,\"a\":{\"b\":[1,2,{}]},\"client_version\":\"3.12\"}";
    srand(1);
    for (int round = 0; round < 200000; round++) {
        char text[sizeof(seed)];
        memcpy(text, seed, sizeof(seed));
        for (int n = rand() % 6; n >= 0; n--) {
            static const char likely[] = "{}[]\",:\\0e-.t";
            text[(size_t)rand() % (sizeof(seed) - 1)] =
                rand() % 2 ? likely[(size_t)rand() % (sizeof(likely) - 1)] : (char)(rand() | 1);
        }
        struct iperf3_params p;
        if (parse(text, &p) == IPERF3_OK)
            assert_in_range(p.streams, 1, IPERF3_MAX_STREAMS);
    }
}

static uint64_t number(const char *text)
{
    char object[128];
    snprintf(object, sizeof(object), "{\"n\":%s}", text);
    struct json_token tokens[8];
    struct json_document doc;
    uint64_t n = 0;
    assert_true(json_parse(&doc, object, strlen(object), tokens, 8));
    assert_true(json_number(&doc, json_member(&doc, 0, "n"), &n));
    return n;
}

static void numbers(void **state)
{
    (void)state;
    assert_true(number("0") == 0);
    assert_true(number("18446744073709551615") == UINT64_MAX);
    assert_true(number("18446744073709551616") == UINT64_MAX);
    assert_true(number("1e3") == 1000);
    assert_true(number("1.5e3") == 1500);
    assert_true(number("1.2345E+2") == 123);
    assert_true(number("12345e-2") == 123);
    assert_true(number("0.99") == 0);
    assert_true(number("1e15") == 1000000000000000);
    assert_true(number("1e99999999999") == UINT64_MAX);
    assert_true(number("7e-99999999999") == 0);
    assert_true(number("5.") == 5);
}

struct seen {
    unsigned count;
    uint64_t ids, bytes;
};

static void see(void *ctx, uint64_t id, uint64_t bytes)
{
    struct seen *seen = ctx;
    seen->count++;
    seen->ids += id;
    seen->bytes += bytes;
}

// What we write for the most streams, we can read.
static void results(void **state)
{
    (void)state;
    struct iperf3_stream_result streams[2 * IPERF3_MAX_STREAMS];
    for (unsigned i = 0; i < 2 * IPERF3_MAX_STREAMS; i++)
        streams[i] = (struct iperf3_stream_result){.id = UINT32_MAX,
                                                   .sender = i % 2,
                                                   .bytes = UINT64_MAX / 1000,
                                                   .retransmits = INT32_MAX,
                                                   .packets = UINT64_MAX,
                                                   .packets_omitted = UINT64_MAX,
                                                   .errors = UINT64_MAX,
                                                   .errors_omitted = UINT64_MAX,
                                                   .jitter = UINT64_MAX,
                                                   .microseconds = UINT64_MAX};
    size_t size = iperf3_results_size(2 * IPERF3_MAX_STREAMS);
    char *text = malloc(size);
    char words[384];
    memset(words, '\n', sizeof(words) - 1);
    words[sizeof(words) - 1] = 0;
    const struct iperf3_totals totals = {.load = 640099, .words = words};
    size_t len = iperf3_results_write(text, size, streams, 2 * IPERF3_MAX_STREAMS, &totals);
    assert_true(len < size);
    assert_int_equal(len, strlen(text));
    assert_int_equal(text[len - 1], '}');
    assert_non_null(strstr(text, "\"cpu_util_total\":6400.99,"));
    struct seen seen = {0};
    assert_true(iperf3_results_read(text, len, see, &seen));
    assert_int_equal(seen.count, 2 * IPERF3_MAX_STREAMS);
    assert_true(seen.ids == 2ull * IPERF3_MAX_STREAMS * UINT32_MAX);
    free(text);
}

static void bad_results(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "{}",
        "[]",
        "{\"streams\":1}",
        "{\"streams\":[{\"id\":1}]}",
        "{\"streams\":[{\"bytes\":1}]}",
        "{\"streams\":[{\"id\":-1,\"bytes\":1}]}",
        "{\"streams\":[1]}",
        "{\"streams\":[[]]}",
        "{\"streams\":[{\"id\":1,\"bytes\":1},",
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct seen seen = {0};
        if (iperf3_results_read(cases[i], strlen(cases[i]), see, &seen))
            fail_msg("%s", cases[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stock_clients), cmocka_unit_test(limits),
        cmocka_unit_test(malformed),     cmocka_unit_test(too_large),
        cmocka_unit_test(long_strings),  cmocka_unit_test(mutated),
        cmocka_unit_test(numbers),       cmocka_unit_test(results),
        cmocka_unit_test(bad_results),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
