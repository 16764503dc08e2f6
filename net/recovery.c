// SPDX-License-Identifier: BSD-2-Clause
// See recovery.h.
#include "net/recovery.h"

#include "kernel/time.h"

#define TIMEOUT_FIRST TIME_S // RFC 6298; its least is 1 s, that of all others in use is this
#define TIMEOUT_LEAST (200 * TIME_MS)
#define TIMEOUT_MOST (60 * TIME_S)
#define CLOCK_LEAST TIME_MS // a variation below this is not believed

// A tail loss probe goes out after two round trips without an answer; not so soon that a busy peer
// or one that delays its acknowledgement of a single segment is taken for a loss.
#define PROBE_LEAST (10 * TIME_MS)
#define PROBE_DELAYED_ACK (50 * TIME_MS)

#define DUPLICATES 3u   // that tell a loss
#define REORDER_MOST 8u // quarters of a round trip

// So late a timer may be without making us slower: a quarter of a round trip, within these.
#define CREDIT_LEAST TIME_MS
#define CREDIT_MOST (3 * TIME_MS)

void recovery_init(struct recovery *r, uint32_t seq, uint32_t mss, bool sack, bool reno,
                   uint64_t now)
{
    *r = (struct recovery){.mss = mss,
                           .sack = sack,
                           .highest = seq,
                           .delivered_at = now,
                           .first_sent_at = now,
                           .reorder_factor = 1};
    scoreboard_init(&r->board, seq);
    // A peer without SACK tells too little of what arrives, and when, for the model of the path.
    congestion_init(&r->congestion, reno || !sack, mss, now);
}

void recovery_free(struct recovery *r)
{
    scoreboard_free(&r->board);
}

static uint64_t lesser(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t greater(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

// ---- Round trips and timers ----

static void measure_rtt(struct recovery *r, uint64_t rtt)
{
    if (!rtt)
        return;
    if (!r->min_rtt || rtt < r->min_rtt)
        r->min_rtt = rtt;
    if (!r->srtt) {
        r->srtt = rtt;
        r->rttvar = rtt / 2;
        return;
    }
    uint64_t difference = rtt > r->srtt ? rtt - r->srtt : r->srtt - rtt;
    r->rttvar += difference / 4 - r->rttvar / 4;
    r->srtt += rtt / 8 - r->srtt / 8;
}

uint64_t recovery_timeout(const struct recovery *r)
{
    uint64_t timeout = TIMEOUT_FIRST;
    if (r->srtt)
        timeout = greater(r->srtt + greater(CLOCK_LEAST, 4 * r->rttvar), TIMEOUT_LEAST);
    unsigned backoff = r->backoff < 16 ? r->backoff : 16;
    return lesser(timeout << backoff, TIMEOUT_MOST);
}

// What the peer has out of order it may throw away. What is lost but not sent yet needs no timer.
static void arm_timeout(struct recovery *r, uint64_t now)
{
    const struct scoreboard *board = &r->board;
    bool waits = board->sent || (board->sacked && !board->lost);
    r->timeout_at = waits ? now + recovery_timeout(r) : 0;
}

static void arm_probe(struct recovery *r, uint64_t now)
{
    r->probe_at = 0;
    if (!r->board.sent || r->recovering || r->probing || !r->srtt)
        return;
    uint64_t wait = greater(2 * r->srtt, PROBE_LEAST);
    if (r->board.sent <= r->mss)
        wait += PROBE_DELAYED_ACK;
    r->probe_at = now + wait;
}

uint64_t recovery_deadline(const struct recovery *r)
{
    uint64_t at = UINT64_MAX;
    if (r->timeout_at)
        at = r->timeout_at;
    if (r->probe_at)
        at = lesser(at, r->probe_at);
    if (r->reorder_at)
        at = lesser(at, r->reorder_at);
    return at;
}

// ---- Loss ----

// Bytes under way: a peer without SACK tells only how many segments have arrived.
static uint32_t in_flight(const struct recovery *r)
{
    return r->board.sent > r->presumed ? r->board.sent - r->presumed : 0;
}

static void begin_recovery(struct recovery *r, uint32_t in_flight_before)
{
    if (r->recovering)
        return;
    r->recovering = true;
    r->recover = r->board.nxt;
    congestion_lost(&r->congestion, in_flight_before);
}

// How long a segment may be overtaken before it counts as lost.
static uint64_t reorder_window(const struct recovery *r)
{
    if (r->reordering)
        return lesser(r->min_rtt / 4 * r->reorder_factor, r->srtt);
    if (r->recovering || r->board.sacked >= DUPLICATES * r->mss)
        return 0;
    return r->min_rtt / 4;
}

static bool older_than_rack(const struct recovery *r, const struct range *range)
{
    if (range->sent_at != r->rack_sent_at)
        return range->sent_at < r->rack_sent_at;
    return !seq_before(r->rack_end, range->end);
}

// What was sent before something that has arrived and is not there by now is lost.
static void find_lost(struct recovery *r, uint64_t now)
{
    struct scoreboard *board = &r->board;
    r->reorder_at = 0;
    if (!r->sack || !board->first || (!board->sacked && !older_than_rack(r, board->first)))
        return;
    uint64_t patience = r->rack_rtt + reorder_window(r);
    uint32_t in_flight_before = in_flight(r), lost_before = board->lost;
    for (struct range *range = board->first; range; range = range->next) {
        if (range->state != RANGE_SENT)
            continue;
        if (!older_than_rack(r, range)) {
            if (!range->resent)
                break; // all that follows was sent later, or for the last time later
            continue;
        }
        uint64_t due = range->sent_at + patience;
        if (due <= now)
            scoreboard_lose(board, range);
        else if (!r->reorder_at || due < r->reorder_at)
            r->reorder_at = due;
    }
    if (board->lost == lost_before)
        return;
    r->lost += board->lost - lost_before;
    begin_recovery(r, in_flight_before);
}

static void lose_first(struct recovery *r)
{
    uint32_t lost_before = r->board.lost;
    scoreboard_lose_first(&r->board, r->mss);
    r->lost += r->board.lost - lost_before;
}

// RFC 6582, for a peer without SACK.
static void count_duplicates(struct recovery *r, const struct acknowledgement *a, uint32_t acked,
                             uint64_t now)
{
    if (r->sack)
        return;
    if (acked) {
        r->duplicates = 0;
        if (r->recovering && !r->timed_out && seq_before(r->board.una, r->recover))
            lose_first(r); // the next hole
        return;
    }
    // After a time-out they only tell that something was sent again for nothing.
    if (!a->duplicate || !r->board.sent || r->timed_out)
        return;
    r->duplicates++;
    r->presumed += r->mss;
    r->delivered += r->mss;
    r->delivered_at = now;
    if (r->duplicates == DUPLICATES && !r->recovering) {
        begin_recovery(r, r->board.sent);
        lose_first(r);
    }
}

// The peer had that already: it was late, not lost.
static void note_needless(struct recovery *r)
{
    r->needless++;
    if (r->reordering && r->reorder_factor < REORDER_MOST)
        r->reorder_factor++;
    r->reordering = true;
}

static bool tells_duplicate(const struct recovery *r, const struct acknowledgement *a)
{
    if (!a->blocks)
        return false;
    uint32_t left = a->sacked[0].left, right = a->sacked[0].right;
    if (!seq_before(r->board.una, right))
        return true;
    return a->blocks > 1 && !seq_before(left, a->sacked[1].left) &&
           !seq_before(a->sacked[1].right, right);
}

static void take_blocks(struct recovery *r, const struct acknowledgement *a, struct delivery *out)
{
    if (!r->sack)
        return;
    for (unsigned i = 0; i < a->blocks; i++) {
        uint32_t left = a->sacked[i].left, right = a->sacked[i].right;
        if (right == r->board.nxt + 1)
            right--; // the connection's end, which is not ours
        if (seq_before(left, right) && seq_before(r->board.una, right) &&
            !seq_before(r->board.nxt, right))
            scoreboard_sack(&r->board, left, right, out);
    }
    if (tells_duplicate(r, a))
        note_needless(r);
}

// ---- An acknowledgement ----

static void update_rack(struct recovery *r, const struct delivery *d, uint64_t now)
{
    const struct range *newest = &d->newest;
    // One that was sent twice and is there so soon: it is the first that has arrived.
    if (!d->found || (newest->resent && now - newest->sent_at < r->min_rtt))
        return;
    if (newest->sent_at > r->rack_sent_at ||
        (newest->sent_at == r->rack_sent_at && seq_before(r->rack_end, newest->end))) {
        r->rack_sent_at = newest->sent_at;
        r->rack_end = newest->end;
        r->rack_rtt = now - newest->sent_at;
    }
    if (d->first_try_at && seq_before(d->lowest, r->highest))
        r->reordering = true;
    if (seq_before(r->highest, newest->end))
        r->highest = newest->end;
}

// The rate since the newest of what arrived was sent: the slower of what was sent and what arrived
// counts, so that acknowledgements that come together do not look like speed.
static void measure_rate(struct recovery *r, const struct delivery *d, struct ack_sample *s)
{
    if (!d->bytes)
        return;
    uint32_t known = d->bytes < r->presumed ? d->bytes : r->presumed;
    r->presumed -= known;
    s->bytes = d->bytes - known;
    r->delivered += s->bytes;
    r->delivered_at = s->now;
    const struct range *newest = &d->newest;
    r->first_sent_at = newest->sent_at;
    s->interval = greater(newest->sent_at - newest->first_sent_at, s->now - newest->delivered_at);
    s->interval_bytes = r->delivered - newest->delivered;
    s->prior_delivered = newest->delivered;
    s->app_limited = newest->app_limited;
    if (r->limited_until && r->delivered > r->limited_until)
        r->limited_until = 0;
}

static bool end_recovery(struct recovery *r)
{
    if (!r->recovering || seq_before(r->board.una, r->recover))
        return false;
    bool timed_out = r->timed_out;
    r->recovering = r->timed_out = false;
    r->duplicates = r->presumed = 0;
    return timed_out;
}

void recovery_ack(struct recovery *r, const struct acknowledgement *a, uint64_t now)
{
    struct delivery d = {0};
    struct ack_sample s = {.now = now, .in_flight_before = in_flight(r)};
    if (seq_before(r->board.una, a->ack))
        scoreboard_ack(&r->board, a->ack, &d);
    take_blocks(r, a, &d);
    s.rtt = d.first_try_at ? now - d.first_try_at : 0;
    measure_rtt(r, s.rtt);
    measure_rate(r, &d, &s);
    update_rack(r, &d, now);
    count_duplicates(r, a, d.acked, now);
    find_lost(r, now);
    s.recovered = end_recovery(r);
    s.lost = r->lost;
    s.delivered = r->delivered;
    s.in_flight = in_flight(r);
    s.cwnd_limited = r->cwnd_limited;
    r->lost = 0;
    if (!d.bytes && !s.lost)
        return;
    congestion_ack(&r->congestion, &s);
    if (!d.bytes)
        return;
    r->backoff = 0;
    r->probing = false;
    arm_timeout(r, now);
    arm_probe(r, now);
}

// ---- Time ----

static void time_out(struct recovery *r)
{
    struct scoreboard *board = &r->board;
    congestion_timeout(&r->congestion, in_flight(r));
    // If it has the first bytes, and did not acknowledge them, it has thrown away what it had.
    scoreboard_lose_all(board, board->first && board->first->state == RANGE_SACKED);
    r->recovering = r->timed_out = true;
    r->recover = board->nxt;
    r->timeouts++;
    r->backoff++;
    r->duplicates = r->presumed = 0;
    r->timeout_at = r->probe_at = r->reorder_at = 0;
    r->send_at = 0;
}

void recovery_too_long(struct recovery *r)
{
    if (!r->board.sent)
        return;
    scoreboard_lose_all(&r->board, false);
    r->recovering = true;
    r->timed_out = !r->sack; // nor does a partial acknowledgement tell of a hole
    r->recover = r->board.nxt;
    r->duplicates = r->presumed = 0;
    r->probe_at = r->reorder_at = 0;
    r->send_at = 0;
}

bool recovery_timer(struct recovery *r, uint64_t now)
{
    if (recovery_deadline(r) > now)
        return false;
    if (r->timeout_at && r->timeout_at <= now) {
        time_out(r);
    } else if (r->probe_at && r->probe_at <= now) {
        scoreboard_lose_last(&r->board, r->mss);
        r->probes++;
        r->probe_at = 0;
        r->probing = true;
    } else {
        find_lost(r, now);
    }
    return true;
}

// ---- What to send ----

static uint32_t whole_segments(const struct recovery *r, uint32_t bytes)
{
    return bytes < r->mss ? bytes : bytes - bytes % r->mss;
}

// What one frame should hold: no more than a quarter of what may be under way, so that
// acknowledgements keep coming.
static uint32_t frame_bytes(const struct recovery *r, const struct offer *offer)
{
    const struct congestion *c = &r->congestion;
    uint64_t bytes = lesser(offer->frame, lesser(c->quantum, c->cwnd / 4));
    return whole_segments(r, (uint32_t)greater(bytes, r->mss));
}

static uint32_t cwnd_room(const struct recovery *r)
{
    uint32_t under_way = in_flight(r);
    uint32_t room = r->congestion.cwnd > under_way ? r->congestion.cwnd - under_way : 0;
    return r->board.sent || room > r->mss ? room : r->mss;
}

static struct piece nothing(void)
{
    return (struct piece){.at = UINT64_MAX};
}

static struct piece window_stops(const struct recovery *r)
{
    struct piece piece = nothing();
    piece.window = !r->board.sent;
    return piece;
}

// How much of what does not fit into the window should go.
static uint32_t fitting(const struct recovery *r, const struct offer *offer, uint32_t usable)
{
    if (usable >= r->mss)
        return whole_segments(r, usable);
    return usable >= offer->crumb ? usable : 0;
}

static struct piece next_lost(struct recovery *r, const struct offer *offer)
{
    const struct range *lost = scoreboard_first_lost(&r->board);
    uint32_t before = lost->seq - r->board.una;
    uint32_t usable = offer->window > before ? offer->window - before : 0;
    uint32_t want = (uint32_t)lesser(lost->end - lost->seq, frame_bytes(r, offer));
    uint32_t room = cwnd_room(r);
    r->cwnd_limited = room < want;
    if (want > room)
        want = room < r->mss ? 0 : whole_segments(r, room);
    if (!want)
        return nothing();
    // What does not fit into the window was sent when there was a larger one.
    if (want > usable)
        want = fitting(r, offer, usable);
    if (!want)
        return window_stops(r);
    return (struct piece){.seq = lost->seq, .len = want, .again = true};
}

static struct piece next_new(struct recovery *r, const struct offer *offer)
{
    struct scoreboard *board = &r->board;
    uint32_t under_way = board->nxt - board->una;
    uint32_t usable = offer->window > under_way ? offer->window - under_way : 0;
    uint32_t room = cwnd_room(r);
    r->cwnd_limited = false;
    if (!offer->unsent) {
        r->limited_until = r->delivered + in_flight(r) + 1;
        return nothing();
    }
    uint32_t want = (uint32_t)lesser(offer->unsent, frame_bytes(r, offer));
    if (want > r->mss)
        want = whole_segments(r, want);
    if (want < r->mss && under_way && !offer->small)
        return nothing();
    if (want > usable) {
        // Not in crumbs: what is under way will open the window further.
        want = fitting(r, offer, usable);
        if (want < offer->window / 4 && under_way)
            want = 0;
        if (!want)
            return window_stops(r);
    }
    if (want > room) {
        r->cwnd_limited = true;
        return nothing();
    }
    return (struct piece){.seq = board->nxt, .len = want};
}

struct piece recovery_next(struct recovery *r, const struct offer *offer, uint64_t now)
{
    if (!r->board.lost && !offer->unsent)
        return next_new(r, offer);
    if (now < r->send_at) {
        struct piece piece = nothing();
        piece.at = r->send_at;
        return piece;
    }
    if (!scoreboard_prepare(&r->board)) {
        struct piece piece = nothing();
        piece.at = now + TIMEOUT_LEAST; // memory may be there then
        return piece;
    }
    return r->board.lost ? next_lost(r, offer) : next_new(r, offer);
}

static void pace(struct recovery *r, uint32_t len, uint64_t now)
{
    uint64_t rate = r->congestion.pacing;
    if (rate == NOT_PACED || !rate) {
        r->send_at = 0;
        return;
    }
    uint64_t credit = lesser(greater(r->min_rtt / 4, CREDIT_LEAST), CREDIT_MOST);
    uint64_t earliest = now > credit ? now - credit : 0;
    r->send_at = greater(r->send_at, earliest) + len * TIME_S / rate;
}

// The note of what goes out now would be the same as that of what went out before it.
static bool continues_last(const struct recovery *r, uint64_t now)
{
    const struct range *last = r->board.last;
    return last && last->state == RANGE_SENT && !last->resent && last->sent_at == now &&
           last->delivered == r->delivered && last->app_limited == (r->limited_until != 0);
}

static void note(const struct recovery *r, struct range *range, uint64_t now)
{
    range->sent_at = now;
    range->delivered = r->delivered;
    range->delivered_at = r->delivered_at;
    range->first_sent_at = r->first_sent_at;
    range->app_limited = r->limited_until != 0;
}

void recovery_sent(struct recovery *r, const struct piece *piece, uint64_t now)
{
    struct scoreboard *board = &r->board;
    if (!board->sent && !piece->again)
        r->first_sent_at = r->delivered_at = now;
    if (piece->again) {
        note(r, scoreboard_resent(board, scoreboard_first_lost(board), piece->len), now);
        r->resent_segments += (piece->len + r->mss - 1) / r->mss;
    } else if (continues_last(r, now)) {
        scoreboard_extend(board, piece->len);
    } else {
        note(r, scoreboard_sent(board, piece->len), now);
    }
    pace(r, piece->len, now);
    if (!r->timeout_at)
        arm_timeout(r, now);
    arm_probe(r, now);
}
