// SPDX-License-Identifier: BSD-2-Clause
// Reads and checks the parameters of a test, by the same limits as the stock server.
#include "net/services/iperf3/params.h"

#include "net/services/iperf3/json.h"

#define MAX_TIME 86400
#define MAX_OMIT 600
#define MAX_MSS 32767
#define MAX_WINDOW (512u << 20)
#define MAX_BLOCK (1u << 20)
#define MIN_DATAGRAM 16
#define MAX_DATAGRAM 65507

struct limit {
    const char *name;
    uint32_t min, max;
    enum iperf3_error error;
};

// A member that may be missing; *out is left alone then.
static enum iperf3_error get(const struct json_document *doc, const struct limit *limit,
                             uint32_t *out)
{
    int value = json_member(doc, 0, limit->name);
    if (value < 0)
        return IPERF3_OK;
    uint64_t n;
    if (!json_number(doc, value, &n) || n < limit->min || n > limit->max)
        return limit->error;
    *out = (uint32_t)n;
    return IPERF3_OK;
}

static enum iperf3_error get_numbers(const struct json_document *doc, struct iperf3_params *out)
{
    const struct {
        struct limit limit;
        uint32_t *to;
    } numbers[] = {
        {{"parallel", 1, IPERF3_MAX_STREAMS, IPERF3_BAD_STREAMS}, &out->streams},
        {{"time", 0, MAX_TIME, IPERF3_BAD_DURATION}, &out->time},
        {{"omit", 0, MAX_OMIT, IPERF3_BAD_OMIT}, &out->omit},
        {{"MSS", 0, MAX_MSS, IPERF3_BAD_MSS}, &out->mss},
        {{"window", 0, MAX_WINDOW, IPERF3_BAD_BUFFER_SIZE}, &out->window},
        {{"len", 0, MAX_BLOCK, IPERF3_BAD_BLOCK_SIZE}, &out->block},
    };
    for (unsigned i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        enum iperf3_error error = get(doc, &numbers[i].limit, numbers[i].to);
        if (error)
            return error;
    }
    return IPERF3_OK;
}

enum iperf3_error iperf3_params_parse(const char *text, size_t len, struct iperf3_params *out)
{
    struct json_token tokens[IPERF3_MAX_PARAM_TOKENS];
    struct json_document doc;
    *out = (struct iperf3_params){.streams = 1};
    if (len > IPERF3_MAX_PARAMS || !json_parse(&doc, text, len, tokens, IPERF3_MAX_PARAM_TOKENS))
        return IPERF3_BAD_PARAMS;
    if (json_is_true(&doc, json_member(&doc, 0, "sctp")))
        return IPERF3_NO_SCTP;
    out->reverse = json_is_true(&doc, json_member(&doc, 0, "reverse"));
    out->bidir = json_is_true(&doc, json_member(&doc, 0, "bidirectional"));
    out->nodelay = json_is_true(&doc, json_member(&doc, 0, "nodelay"));
    if (out->reverse && out->bidir)
        return IPERF3_REVERSE_AND_BIDIR;
    uint64_t wanted = 0, wide = 0;
    out->udp = json_is_true(&doc, json_member(&doc, 0, "udp"));
    out->counters64 = json_number(&doc, json_member(&doc, 0, "udp_counters_64bit"), &wide) && wide;
    out->server_output =
        json_number(&doc, json_member(&doc, 0, "get_server_output"), &wanted) && wanted;
    int rate = json_member(&doc, 0, "bandwidth");
    if (rate >= 0 && !json_number(&doc, rate, &out->rate))
        return IPERF3_BAD_PARAMS;
    json_string(&doc, json_member(&doc, 0, "client_version"), out->client, sizeof(out->client));
    enum iperf3_error error = get_numbers(&doc, out);
    // By TCP, ours are as large as they can be.
    if (!error && out->udp && (out->block < MIN_DATAGRAM || out->block > MAX_DATAGRAM))
        return IPERF3_BAD_DATAGRAM_SIZE;
    return error;
}
