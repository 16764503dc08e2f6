// SPDX-License-Identifier: BSD-2-Clause
// What of a connection's outgoing bytes is under way, has arrived or is lost: ranges of sequence
// numbers, kept by recovery.c. Knows nothing of lwIP; times in time_now() units.
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum range_state {
    RANGE_SENT,   // under way
    RANGE_SACKED, // the peer has it out of order
    RANGE_LOST,   // to be sent again
};

// [seq, end). What is noted when it is sent serves to measure the rate when it arrives.
struct range {
    struct range *next;
    uint32_t seq, end;
    enum range_state state;
    bool resent;            // sent more than once
    bool app_limited;       // the connection had nothing else to send
    uint64_t sent_at;       // last
    uint64_t delivered;     // bytes that had arrived in all by then,
    uint64_t delivered_at;  // the last of them at that time,
    uint64_t first_sent_at; // and that one was sent then
};

struct scoreboard {
    struct range *first, *last; // by sequence number, without gaps from una to nxt
    struct range *spare;        // for what must not fail
    unsigned count;
    uint32_t una, nxt;           // first not acknowledged, first never sent
    uint32_t sent, sacked, lost; // bytes in each state
};

// What one acknowledgement has brought.
struct delivery {
    uint32_t bytes;        // newly acknowledged or sacked
    uint32_t acked;        // by how much una moved
    bool found;            // `newest` is set:
    struct range newest;   // of the ranges that arrived, the one sent last
    uint64_t first_try_at; // when the last of those sent only once was sent; 0: there is none
    uint32_t lowest;       // lowest sequence number that arrived at the first try, if there is one
};

static inline bool seq_before(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) < 0;
}

void scoreboard_init(struct scoreboard *s, uint32_t seq);
void scoreboard_free(struct scoreboard *s);

// True: the next scoreboard_sent() or _resent() has the memory it needs.
bool scoreboard_prepare(struct scoreboard *s);

// [nxt, nxt + len) goes out for the first time; the caller fills in the note. Needs _prepare().
struct range *scoreboard_sent(struct scoreboard *s, uint32_t len);

// The same, but the last range, which must be under way, becomes longer; its note holds for both.
void scoreboard_extend(struct scoreboard *s, uint32_t len);

// The first `len` bytes of a range, at most all, go out again. Needs _prepare().
struct range *scoreboard_resent(struct scoreboard *s, struct range *range, uint32_t len);

// All before `ack`, which is in [una, nxt], has arrived. Adds to *out.
void scoreboard_ack(struct scoreboard *s, uint32_t ack, struct delivery *out);

// [left, right) has arrived out of order; what is not under way is ignored. Adds to *out.
void scoreboard_sack(struct scoreboard *s, uint32_t left, uint32_t right, struct delivery *out);

// A range that was under way is lost.
void scoreboard_lose(struct scoreboard *s, struct range *range);

// The first `len` bytes that are not acknowledged are lost, if they are under way.
void scoreboard_lose_first(struct scoreboard *s, uint32_t len);

// The same for the last `len` bytes that are under way.
void scoreboard_lose_last(struct scoreboard *s, uint32_t len);

// All that is under way is lost and, with `sacked`, what the peer had out of order.
void scoreboard_lose_all(struct scoreboard *s, bool sacked);

// The first lost range, NULL: none is.
struct range *scoreboard_first_lost(const struct scoreboard *s);
