// SPDX-License-Identifier: BSD-2-Clause
// Congestion control by a model of the path: the highest rate at which bytes arrived lately and the
// shortest round trip give what the path itself holds; twice that may be under way, sent at that
// rate. Loss alone changes nothing, but what loses more than one byte in fifty is cut back. After
// BBR (draft-cardwell-iccrg-bbr-congestion-control): the states of its first version, the bound on
// loss of its later ones.
#include <stddef.h>

#include "kernel/time.h"
#include "net/congestion.h"

// Per cent.
#define STARTUP_GAIN 289 // 2/ln 2: doubles each round trip
#define DRAIN_GAIN 35    // takes away what STARTUP piled up
#define CWND_GAIN 200    // so that delayed and stretched acknowledgements do not stall us
#define GROWTH 125       // what STARTUP has to gain,
#define GROWTH_ROUNDS 3  // in so many round trips

#define SLOT_TIME (10 * TIME_MS) // a slot of the rate's filter is a round trip and at least this
#define RTT_TIME (10 * TIME_S)   // a shortest round trip is looked for again after this,
#define PROBE_RTT_TIME (200 * TIME_MS) // for so long
#define BURST_ROUNDS 5
// At most what arrives in this time at the rate (less, and who begins with little where all wait for
// each other would stay with it),
#define BURST_TIME (100 * TIME_MS)
// or where nothing is paced: the same for all, so that none starves others.
#define BURST_BYTES (512u << 10)

// Below this round trip the acknowledgements' own clock is fine enough: a timer for each frame would
// cost more than the short queue it spares. What makes up so short a round trip is mostly how long
// processors let each other wait, so that what the path holds by it may be next to nothing.
#define PACED_RTT (4 * TIME_MS)
#define QUANTUM_TIME TIME_MS // what is sent at once takes so long at the rate
#define QUANTUM_MAX 65536u

#define LOSS_PERCENT 2            // more than this is too much,
#define LOSS_SEGMENTS 8           // if it is at least so many: fewer may be chance
#define JUDGED_SEGMENTS 400       // judged when so many have arrived, or so many were lost
#define LIMIT_CUT 85              // per cent of what was under way
#define LIMIT_LEAST 70            // per cent of what the path holds
#define CALM_ROUNDS 8             // after so many round trips without a cut,
#define CALM_TIME (200 * TIME_MS) // and so long, the limit is tried in each
#define LIMIT_MOST (1u << 30)     // no limit any more
#define CWND_SEGMENTS 4           // never less

static const unsigned phase_gains[] = {125, 75, 100, 100, 100, 100, 100, 100};
#define PHASES (sizeof(phase_gains) / sizeof(phase_gains[0]))

void bbr_init(struct congestion *c, uint64_t now)
{
    c->bbr = (struct bbr){.limit = UINT32_MAX, .slot_began = now, .burst_began = now};
}

static uint64_t part(uint64_t value, unsigned percent)
{
    return value * percent / 100;
}

// What the path holds; 0: not known.
static uint64_t path_bytes(const struct bbr *b)
{
    return b->bandwidth * b->min_rtt / TIME_S;
}

static bool paced(const struct bbr *b)
{
    return b->min_rtt >= PACED_RTT;
}

static void update_round(struct bbr *b, const struct ack_sample *s)
{
    b->round_start = s->interval && s->prior_delivered >= b->next_round;
    if (b->round_start)
        b->next_round = s->delivered;
}

static void update_bandwidth(struct bbr *b, const struct ack_sample *s)
{
    if (b->round_start && s->now - b->slot_began >= SLOT_TIME) {
        b->slot = (b->slot + 1) % BBR_BW_SLOTS;
        b->slots[b->slot] = 0;
        b->slot_began = s->now;
    }
    // Shorter than any round trip: acknowledgements were held up and came at once.
    if (s->interval && s->interval >= b->min_rtt) {
        uint64_t rate = s->interval_bytes * TIME_S / s->interval;
        if ((!s->app_limited || rate >= b->bandwidth) && rate > b->slots[b->slot])
            b->slots[b->slot] = rate;
    }
    b->bandwidth = 0;
    for (unsigned i = 0; i < BBR_BW_SLOTS; i++)
        if (b->slots[i] > b->bandwidth)
            b->bandwidth = b->slots[i];
}

// How much more than its rate the path delivers at times: so much more must be under way, or it is
// idle before each burst.
static void update_burst(struct congestion *c, const struct ack_sample *s)
{
    struct bbr *b = &c->bbr;
    if (b->round_start && ++b->burst_rounds >= BURST_ROUNDS) {
        b->burst_rounds = 0;
        b->burst_most[1] = b->burst_most[0];
        b->burst_most[0] = 0;
    }
    uint64_t expected = b->bandwidth * (s->now - b->burst_began) / TIME_S;
    if (b->burst_bytes <= expected) {
        b->burst_began = s->now;
        b->burst_bytes = expected = 0;
    }
    b->burst_bytes += s->bytes;
    uint64_t more = b->burst_bytes - expected;
    uint64_t most = paced(b) ? b->bandwidth * BURST_TIME / TIME_S : BURST_BYTES;
    more = more < c->cwnd ? more : c->cwnd;
    more = more < most ? more : most;
    if (more > b->burst_most[0])
        b->burst_most[0] = (uint32_t)more;
}

static void enter_probe_bw(struct bbr *b, uint64_t now)
{
    b->state = BBR_PROBE_BW;
    // Any but the one that drains, so that connections do not probe together.
    b->phase = 2 + (unsigned)(now / TIME_US % (PHASES - 2));
    b->phase_began = now;
}

static void update_phase(struct bbr *b, const struct ack_sample *s)
{
    if (b->state != BBR_PROBE_BW)
        return;
    unsigned gain = phase_gains[b->phase];
    uint64_t path = path_bytes(b);
    bool over = s->now - b->phase_began > b->min_rtt;
    if (gain > 100) // until the path is that full, or is found to be
        over = over && (s->lost || s->in_flight_before >= part(path, gain) || !s->cwnd_limited);
    else if (gain < 100)
        over = over || s->in_flight <= path;
    if (!over)
        return;
    b->phase = (b->phase + 1) % PHASES;
    b->phase_began = s->now;
}

static void check_full(struct bbr *b, const struct ack_sample *s)
{
    if (b->full || !b->round_start || s->app_limited)
        return;
    if (b->bandwidth >= part(b->full_bandwidth, GROWTH)) {
        b->full_bandwidth = b->bandwidth;
        b->full_rounds = 0;
    } else if (++b->full_rounds >= GROWTH_ROUNDS) {
        b->full = true;
    }
}

static void check_drain(struct bbr *b, const struct ack_sample *s)
{
    if (b->state == BBR_STARTUP && b->full)
        b->state = BBR_DRAIN;
    if (b->state == BBR_DRAIN && (!paced(b) || s->in_flight <= path_bytes(b)))
        enter_probe_bw(b, s->now);
}

static uint32_t least_cwnd(const struct congestion *c)
{
    return CWND_SEGMENTS * c->mss;
}

static uint32_t probe_rtt_cwnd(const struct congestion *c)
{
    uint64_t half = path_bytes(&c->bbr) / 2;
    return half > least_cwnd(c) ? (uint32_t)half : least_cwnd(c);
}

static void update_min_rtt(struct congestion *c, const struct ack_sample *s)
{
    struct bbr *b = &c->bbr;
    bool old = b->min_rtt && s->now - b->min_rtt_at > RTT_TIME;
    if (s->rtt && (!b->min_rtt || old || s->rtt <= b->min_rtt)) {
        b->min_rtt = s->rtt;
        b->min_rtt_at = s->now;
    }
    if (old && b->state != BBR_PROBE_RTT) {
        b->state = BBR_PROBE_RTT;
        b->probe_rtt_end = 0;
    }
    if (b->state != BBR_PROBE_RTT)
        return;
    if (!b->probe_rtt_end && s->in_flight <= probe_rtt_cwnd(c)) {
        b->probe_rtt_end = s->now + PROBE_RTT_TIME;
    } else if (b->probe_rtt_end && s->now >= b->probe_rtt_end) {
        b->min_rtt_at = s->now;
        b->state = BBR_STARTUP;
        if (b->full)
            enter_probe_bw(b, s->now);
    }
}

static void begin_judging(struct bbr *b, const struct ack_sample *s)
{
    b->lost = 0;
    b->delivered_then = s->delivered;
    b->in_flight_most = s->in_flight_before;
}

// Less than was under way, but most of what the path holds.
static void cut_limit(struct congestion *c, uint64_t now)
{
    struct bbr *b = &c->bbr;
    uint64_t limit = part(b->in_flight_most, LIMIT_CUT);
    uint64_t least = path_bytes(b);
    if (b->state != BBR_STARTUP)
        least = part(least, LIMIT_LEAST);
    limit = limit > least ? limit : least;
    b->full = true;
    b->limit = limit < least_cwnd(c) ? least_cwnd(c) : (uint32_t)limit;
    b->calm_rounds = 0;
    b->cut_at = now;
    b->step = c->mss;
}

// Some time after it was cut the limit grows, by more each round trip, until there is loss again.
static void raise_limit(struct congestion *c, const struct ack_sample *s)
{
    struct bbr *b = &c->bbr;
    if (b->limit == UINT32_MAX || !s->cwnd_limited || b->calm_rounds <= CALM_ROUNDS ||
        s->now - b->cut_at <= CALM_TIME)
        return;
    b->limit = b->limit + b->step > LIMIT_MOST ? UINT32_MAX : b->limit + b->step;
    b->step = 2 * b->step < b->limit / 4 ? 2 * b->step : b->limit / 4;
}

// Too much loss tells that a queue on the path is too short for what is under way.
static void judge_loss(struct congestion *c, const struct ack_sample *s)
{
    struct bbr *b = &c->bbr;
    b->lost += s->lost;
    if (s->in_flight_before > b->in_flight_most)
        b->in_flight_most = s->in_flight_before;
    if (!b->round_start)
        return;
    uint64_t arrived = s->delivered - b->delivered_then;
    if (b->calm_rounds++ == 0) { // what was lost now was sent before the cut
        begin_judging(b, s);
        return;
    }
    if (b->lost < LOSS_SEGMENTS * c->mss || b->lost * 100 <= LOSS_PERCENT * (arrived + b->lost)) {
        raise_limit(c, s);
        if (arrived < JUDGED_SEGMENTS * c->mss && b->lost < LOSS_SEGMENTS * c->mss)
            return;
    } else {
        cut_limit(c, s->now);
    }
    begin_judging(b, s);
}

static unsigned pacing_gain(const struct bbr *b)
{
    switch (b->state) {
    case BBR_STARTUP:
        return STARTUP_GAIN;
    case BBR_DRAIN:
        return DRAIN_GAIN;
    case BBR_PROBE_BW:
        return phase_gains[b->phase];
    case BBR_PROBE_RTT:
        break;
    }
    return 100;
}

static void set_pacing(struct congestion *c)
{
    struct bbr *b = &c->bbr;
    c->pacing = NOT_PACED;
    c->quantum = QUANTUM_MAX;
    if (!paced(b))
        return;
    // With a piece or two in a round trip, which may be long against the shortest one, the rate would be
    // found to be what it was paced at, for ever; so much all connections may begin with, unpaced.
    uint64_t least = (uint64_t)INITIAL_SEGMENTS * c->mss * TIME_S / b->min_rtt;
    uint64_t rate = b->bandwidth > least ? b->bandwidth : least;
    if (!b->bandwidth)
        rate = c->cwnd * TIME_S / b->min_rtt;
    c->pacing = part(rate, pacing_gain(b));
    c->pacing = part(c->pacing, 99); // a little less, so that a queue does not stay
    uint64_t quantum = rate * QUANTUM_TIME / TIME_S;
    quantum = quantum < 2 * c->mss ? 2 * c->mss : quantum;
    c->quantum = quantum < QUANTUM_MAX ? (uint32_t)quantum : QUANTUM_MAX;
}

static void set_cwnd(struct congestion *c, const struct ack_sample *s)
{
    struct bbr *b = &c->bbr;
    if (b->before_timeout) {
        c->cwnd += s->bytes;
        if (!s->recovered)
            return;
        c->cwnd = c->cwnd > b->before_timeout ? c->cwnd : b->before_timeout;
        b->before_timeout = 0;
    }
    uint32_t burst = b->burst_most[b->burst_most[1] > b->burst_most[0]];
    uint64_t target =
        part(path_bytes(b), b->full ? CWND_GAIN : STARTUP_GAIN) + burst + 3ull * c->quantum;
    uint64_t cwnd = (uint64_t)c->cwnd + s->bytes;
    if (b->bandwidth && cwnd > target)
        cwnd = b->full || c->cwnd > target ? target : cwnd;
    if (b->state == BBR_PROBE_RTT && cwnd > probe_rtt_cwnd(c))
        cwnd = probe_rtt_cwnd(c);
    cwnd = cwnd < b->limit ? cwnd : b->limit;
    c->cwnd = cwnd < least_cwnd(c) ? least_cwnd(c) : (uint32_t)cwnd;
}

void bbr_ack(struct congestion *c, const struct ack_sample *s)
{
    struct bbr *b = &c->bbr;
    update_round(b, s);
    update_bandwidth(b, s);
    update_burst(c, s);
    update_phase(b, s);
    check_full(b, s);
    check_drain(b, s);
    update_min_rtt(c, s);
    judge_loss(c, s);
    set_pacing(c);
    set_cwnd(c, s);
}

void bbr_timeout(struct congestion *c)
{
    if (!c->bbr.before_timeout)
        c->bbr.before_timeout = c->cwnd;
    c->cwnd = c->mss;
}
