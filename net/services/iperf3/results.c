// SPDX-License-Identifier: BSD-2-Clause
// Writes our results and reads the client's. The kernel has no floating point, so seconds are put
// together from whole numbers.
#include "net/services/iperf3/results.h"

#include <stb_sprintf.h>
#include <stdarg.h>

#include "kernel/alloc.h"
#include "kernel/config.h"
#include "net/services/iperf3/json.h"
#include "net/services/iperf3/params.h"

#define STREAM_BYTES 340 // longest text of one stream
#define FRAME_BYTES 896  // all the rest, with up to 384 bytes of words

// A client tells about each way's streams, in up to 12 members each.
#define MAX_TOKENS (IPERF3_MAX_STREAMS * 2 * 25 + 128)

size_t iperf3_results_size(unsigned streams)
{
    return FRAME_BYTES + (size_t)streams * STREAM_BYTES;
}

struct text {
    char *at, *end;
};

static void append(struct text *text, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    text->at += stbsp_vsnprintf(text->at, (int)(text->end - text->at), format, args);
    va_end(args);
}

static void append_stream(struct text *text, const struct iperf3_stream_result *stream, bool udp)
{
    append(
        text, "{\"id\":%u,\"bytes\":%llu,\"retransmits\":%d,\"jitter\":%llu.%09u,", stream->id,
        (unsigned long long)stream->bytes, stream->sender && !udp ? (int)stream->retransmits : -1,
        (unsigned long long)(stream->jitter / 1000000000), (unsigned)(stream->jitter % 1000000000));
    append(text, "\"errors\":%llu,\"omitted_errors\":%llu,", (unsigned long long)stream->errors,
           (unsigned long long)stream->errors_omitted);
    append(text, "\"packets\":%llu,\"omitted_packets\":%llu,\"start_time\":0,",
           (unsigned long long)stream->packets, (unsigned long long)stream->packets_omitted);
    append(text, "\"end_time\":%llu.%06u}", (unsigned long long)(stream->microseconds / 1000000),
           (unsigned)(stream->microseconds % 1000000));
}

static void append_words(struct text *text, const char *words)
{
    append(text, ",\"server_output_text\":\"");
    for (; *words; words++)
        append(text, *words == '\n' ? "\\n" : "%c", *words);
    append(text, "\"");
}

size_t iperf3_results_write(char *out, size_t size, const struct iperf3_stream_result *streams,
                            unsigned count, const struct iperf3_totals *totals)
{
    struct text text = {out, out + size};
    bool sends = false;
    for (unsigned i = 0; i < count; i++)
        sends |= streams[i].sender;
    // All of it is the system's.
    append(&text, "{\"cpu_util_total\":%u.%02u,\"cpu_util_user\":0,\"cpu_util_system\":%u.%02u,",
           totals->load / 100, totals->load % 100, totals->load / 100, totals->load % 100);
    append(&text, "\"sender_has_retransmits\":%d,\"congestion_used\":\"%s\",\"streams\":[",
           sends ? !totals->udp : -1, config.reno ? "reno" : "bbr");
    for (unsigned i = 0; i < count; i++) {
        append_stream(&text, &streams[i], totals->udp);
        append(&text, i + 1 < count ? "," : "]");
    }
    if (totals->words)
        append_words(&text, totals->words);
    append(&text, "}");
    return (size_t)(text.at - out);
}

static bool read_streams(const struct json_document *doc,
                         void (*stream)(void *ctx, uint64_t id, uint64_t bytes), void *ctx)
{
    int streams = json_member(doc, 0, "streams");
    for (int i = json_first(doc, streams); i >= 0; i = json_next(doc, streams, i)) {
        uint64_t id, bytes;
        if (!json_number(doc, json_member(doc, i, "id"), &id) ||
            !json_number(doc, json_member(doc, i, "bytes"), &bytes))
            return false;
        stream(ctx, id, bytes);
    }
    return json_is_array(doc, streams);
}

bool iperf3_results_read(const char *text, size_t len,
                         void (*stream)(void *ctx, uint64_t id, uint64_t bytes), void *ctx)
{
    struct json_token *tokens = heap_alloc(MAX_TOKENS * sizeof(*tokens));
    if (!tokens)
        return false;
    struct json_document doc;
    bool good = json_parse(&doc, text, len, tokens, MAX_TOKENS) && read_streams(&doc, stream, ctx);
    heap_free(tokens);
    return good;
}
