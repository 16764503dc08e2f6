// SPDX-License-Identifier: BSD-2-Clause
// See scoreboard.h. The list is short: one range for what was sent at the same time, and two for
// each hole, so it is walked.
#include "net/scoreboard.h"

#include <stddef.h>

#include "kernel/alloc.h"
#include "net/memory.h"

#define RANGES_MAX 4096 // more holes than this are not remembered

void scoreboard_init(struct scoreboard *s, uint32_t seq)
{
    *s = (struct scoreboard){.una = seq, .nxt = seq};
}

static void free_list(struct range *range)
{
    while (range) {
        struct range *next = range->next;
        heap_free(range);
        range = next;
    }
}

void scoreboard_free(struct scoreboard *s)
{
    free_list(s->first);
    free_list(s->spare);
    scoreboard_init(s, s->nxt);
}

bool scoreboard_prepare(struct scoreboard *s)
{
    if (s->spare)
        return true;
    if (s->count >= RANGES_MAX)
        return false;
    struct range *range = net_alloc(sizeof(*range));
    if (!range)
        return false;
    range->next = NULL;
    s->spare = range;
    return true;
}

// There is one: the caller has asked scoreboard_prepare().
static struct range *take_spare(struct scoreboard *s)
{
    struct range *range = s->spare;
    s->spare = range->next;
    s->count++;
    return range;
}

static void give_back(struct scoreboard *s, struct range *range)
{
    s->count--;
    if (s->spare) {
        heap_free(range);
        return;
    }
    range->next = NULL;
    s->spare = range;
}

static uint32_t *counter(struct scoreboard *s, enum range_state state)
{
    return state == RANGE_SENT ? &s->sent : state == RANGE_SACKED ? &s->sacked : &s->lost;
}

static void set_state(struct scoreboard *s, struct range *range, enum range_state state)
{
    *counter(s, range->state) -= range->end - range->seq;
    *counter(s, state) += range->end - range->seq;
    range->state = state;
}

struct range *scoreboard_sent(struct scoreboard *s, uint32_t len)
{
    struct range *range = take_spare(s);
    *range = (struct range){.seq = s->nxt, .end = s->nxt + len, .state = RANGE_SENT};
    if (s->last)
        s->last->next = range;
    else
        s->first = range;
    s->last = range;
    s->nxt += len;
    s->sent += len;
    return range;
}

void scoreboard_extend(struct scoreboard *s, uint32_t len)
{
    s->last->end += len;
    s->nxt += len;
    s->sent += len;
}

// Cuts a range in two at `seq`, which lies inside. Needs a spare.
static void split(struct scoreboard *s, struct range *range, uint32_t seq)
{
    struct range *rest = take_spare(s);
    *rest = *range;
    rest->seq = range->end = seq;
    range->next = rest;
    if (s->last == range)
        s->last = rest;
}

struct range *scoreboard_resent(struct scoreboard *s, struct range *range, uint32_t len)
{
    if (len < range->end - range->seq)
        split(s, range, range->seq + len);
    set_state(s, range, RANGE_SENT);
    range->resent = true;
    return range;
}

// What [seq, end) of a range, which was not counted yet, tells.
static void note_delivery(const struct range *range, uint32_t bytes, struct delivery *out)
{
    out->bytes += bytes;
    if (!out->found || range->sent_at > out->newest.sent_at ||
        (range->sent_at == out->newest.sent_at && seq_before(out->newest.end, range->end)))
        out->newest = *range;
    out->found = true;
    if (range->resent)
        return;
    if (!out->first_try_at || seq_before(range->seq, out->lowest))
        out->lowest = range->seq;
    if (range->sent_at > out->first_try_at)
        out->first_try_at = range->sent_at;
}

void scoreboard_ack(struct scoreboard *s, uint32_t ack, struct delivery *out)
{
    while (s->first && seq_before(s->first->seq, ack)) {
        struct range *range = s->first;
        uint32_t end = seq_before(ack, range->end) ? ack : range->end;
        uint32_t bytes = end - range->seq;
        if (range->state != RANGE_SACKED) {
            struct range part = *range;
            part.end = end;
            note_delivery(&part, bytes, out);
        }
        *counter(s, range->state) -= bytes;
        range->seq = end;
        if (range->seq != range->end)
            break;
        s->first = range->next;
        if (!s->first)
            s->last = NULL;
        give_back(s, range);
    }
    out->acked += ack - s->una;
    s->una = ack;
}

// Puts `range` and what follows it together where both are sacked: holes are what is of interest.
static void merge_sacked(struct scoreboard *s, struct range *range)
{
    while (range->state == RANGE_SACKED && range->next && range->next->state == RANGE_SACKED) {
        struct range *next = range->next;
        range->end = next->end;
        range->next = next->next;
        if (s->last == next)
            s->last = range;
        give_back(s, next);
    }
}

void scoreboard_sack(struct scoreboard *s, uint32_t left, uint32_t right, struct delivery *out)
{
    if (seq_before(left, s->una))
        left = s->una;
    struct range *before = NULL;
    for (struct range *range = s->first; range && seq_before(range->seq, right);
         range = range->next) {
        if (range->state != RANGE_SACKED && seq_before(left, range->end)) {
            if (seq_before(range->seq, left)) {
                if (!scoreboard_prepare(s))
                    return; // it will be sent again, for nothing
                split(s, range, left);
                before = range;
                continue;
            }
            if (seq_before(right, range->end)) {
                if (!scoreboard_prepare(s))
                    return;
                split(s, range, right);
            }
            note_delivery(range, range->end - range->seq, out);
            set_state(s, range, RANGE_SACKED);
        }
        if (range->state == RANGE_SACKED) {
            merge_sacked(s, range);
            if (before && before->state == RANGE_SACKED) {
                merge_sacked(s, before);
                range = before;
            }
        }
        before = range;
    }
}

void scoreboard_lose(struct scoreboard *s, struct range *range)
{
    if (range->state == RANGE_SENT)
        set_state(s, range, RANGE_LOST);
}

void scoreboard_lose_first(struct scoreboard *s, uint32_t len)
{
    struct range *range = s->first;
    if (!range || range->state != RANGE_SENT)
        return;
    if (len < range->end - range->seq && scoreboard_prepare(s))
        split(s, range, range->seq + len);
    scoreboard_lose(s, range);
}

void scoreboard_lose_last(struct scoreboard *s, uint32_t len)
{
    struct range *last = NULL;
    for (struct range *range = s->first; range; range = range->next)
        if (range->state == RANGE_SENT)
            last = range;
    if (!last)
        return;
    if (len < last->end - last->seq && scoreboard_prepare(s)) {
        split(s, last, last->end - len);
        last = last->next;
    }
    scoreboard_lose(s, last);
}

void scoreboard_lose_all(struct scoreboard *s, bool sacked)
{
    for (struct range *range = s->first; range; range = range->next)
        if (range->state == RANGE_SENT || (sacked && range->state == RANGE_SACKED))
            set_state(s, range, RANGE_LOST);
}

struct range *scoreboard_first_lost(const struct scoreboard *s)
{
    if (!s->lost)
        return NULL;
    struct range *range = s->first;
    while (range->state != RANGE_LOST)
        range = range->next;
    return range;
}
