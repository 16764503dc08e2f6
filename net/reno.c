// SPDX-License-Identifier: BSD-2-Clause
// Congestion control as RFC 5681 has it, with byte counting: doubles each round trip up to a
// threshold, then grows by one segment each; halves at a loss.
#include "net/congestion.h"

void reno_init(struct congestion *c)
{
    c->reno = (struct reno){.threshold = UINT32_MAX};
}

void reno_ack(struct congestion *c, const struct ack_sample *s)
{
    struct reno *r = &c->reno;
    if (s->recovered)
        r->after_timeout = false;
    if (!s->cwnd_limited)
        return;
    if (c->cwnd < r->threshold) {
        uint32_t room = r->threshold - c->cwnd;
        c->cwnd += s->bytes < room ? s->bytes : room;
        return;
    }
    r->acked += s->bytes;
    if (r->acked >= c->cwnd) {
        r->acked -= c->cwnd;
        c->cwnd += c->mss;
    }
}

static void halve(struct congestion *c, uint32_t in_flight)
{
    uint32_t half = in_flight / 2;
    c->reno.threshold = half < 2 * c->mss ? 2 * c->mss : half;
    c->reno.acked = 0;
}

void reno_lost(struct congestion *c, uint32_t in_flight)
{
    if (c->reno.after_timeout)
        return;
    halve(c, in_flight);
    c->cwnd = c->reno.threshold;
}

void reno_timeout(struct congestion *c, uint32_t in_flight)
{
    if (!c->reno.after_timeout)
        halve(c, in_flight);
    c->reno.after_timeout = true;
    c->cwnd = c->mss;
}
