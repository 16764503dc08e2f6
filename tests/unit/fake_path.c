// SPDX-License-Identifier: BSD-2-Clause
// See fake_path.h.
#include "tests/unit/fake_path.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/alloc.h"
#include "kernel/time.h"
#include "net/memory.h"

#define WINDOW_SEGMENTS 16384u // that a receiver can hold out of order
#define EVENTS 65536u
#define REORDER_DELAY (3 * TIME_MS)
#define DELAYED_ACK (40 * TIME_MS)
#define FIRST_FLIGHT (10 * PATH_MSS) // is acknowledged when it arrives, naps or not

struct event {
    uint64_t at, order;
    unsigned flow;
    bool is_ack;
    uint32_t segment;         // data
    struct acknowledgement a; // ack
};

struct receiver {
    uint32_t next; // segment
    bool have[WINDOW_SEGMENTS];
    unsigned held; // segments not acknowledged
    uint64_t ack_at;
    uint32_t highest;
    uint32_t recent[SACK_BLOCKS - 1]; // segments, the latest first: their blocks are told
};

static struct {
    const struct path *path;
    struct flow *flows;
    struct receiver receivers[PATH_FLOWS];
    struct event *heap;
    unsigned events;
    uint64_t order, now, busy_until, ask_at[PATH_FLOWS];
    uint64_t random;
} sim;

void *net_alloc(size_t size)
{
    return malloc(size);
}

void heap_free(void *object)
{
    free(object);
}

_Noreturn void panic(const char *format, ...)
{
    (void)format;
    abort();
}

static bool chance(unsigned per_million)
{
    sim.random = sim.random * 6364136223846793005u + 1442695040888963407u;
    return (sim.random >> 33) % 1000000 < per_million;
}

// ---- Events ----

static bool before(const struct event *a, const struct event *b)
{
    return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void push(struct event event)
{
    assert(sim.events < EVENTS);
    event.order = sim.order++;
    unsigned at = sim.events++;
    for (; at && before(&event, &sim.heap[(at - 1) / 2]); at = (at - 1) / 2)
        sim.heap[at] = sim.heap[(at - 1) / 2];
    sim.heap[at] = event;
}

static struct event pop(void)
{
    struct event top = sim.heap[0], last = sim.heap[--sim.events];
    unsigned at = 0;
    for (;;) {
        unsigned child = 2 * at + 1;
        if (child >= sim.events)
            break;
        if (child + 1 < sim.events && before(&sim.heap[child + 1], &sim.heap[child]))
            child++;
        if (!before(&sim.heap[child], &last))
            break;
        sim.heap[at] = sim.heap[child];
        at = child;
    }
    sim.heap[at] = last;
    return top;
}

// ---- The wire ----

static void wire(unsigned flow, uint32_t segment)
{
    const struct path *path = sim.path;
    uint64_t start = sim.busy_until > sim.now ? sim.busy_until : sim.now;
    sim.flows[flow].sent++;
    if (path->rate && path->queue && (start - sim.now) * path->rate / TIME_S > path->queue) {
        sim.flows[flow].dropped++;
        return;
    }
    if (path->rate)
        sim.busy_until = start + PATH_MSS * TIME_S / path->rate;
    if (chance(path->loss)) {
        sim.flows[flow].dropped++;
        return;
    }
    uint64_t arrives = (path->rate ? sim.busy_until : sim.now) + path->delay;
    if (chance(path->reorder))
        arrives += REORDER_DELAY;
    push((struct event){.at = arrives, .flow = flow, .segment = segment});
    if (chance(path->duplicate))
        push((struct event){.at = arrives, .flow = flow, .segment = segment});
}

static void send(unsigned number)
{
    struct flow *flow = &sim.flows[number];
    struct offer offer = {.unsent = 1u << 30,
                          .window = sim.path->window ? sim.path->window : 8u << 20,
                          .crumb = 1,
                          .frame = 44 * PATH_MSS};
    for (;;) {
        struct piece piece = recovery_next(&flow->recovery, &offer, sim.now);
        sim.ask_at[number] = piece.at;
        if (!piece.len)
            return;
        assert(piece.len % PATH_MSS == 0);
        recovery_sent(&flow->recovery, &piece, sim.now);
        for (uint32_t at = 0; at < piece.len; at += PATH_MSS)
            wire(number, (piece.seq + at) / PATH_MSS);
    }
}

// ---- The receiver ----

static void add_block(const struct receiver *r, uint32_t segment, struct acknowledgement *a)
{
    uint32_t left = segment, right = segment;
    if (segment <= r->next || !r->have[segment % WINDOW_SEGMENTS])
        return;
    while (left - 1 > r->next && r->have[(left - 1) % WINDOW_SEGMENTS])
        left--;
    while (right <= r->highest && r->have[right % WINDOW_SEGMENTS])
        right++;
    for (unsigned i = 0; i < a->blocks; i++)
        if (a->sacked[i].left == left * PATH_MSS)
            return;
    a->sacked[a->blocks].left = left * PATH_MSS;
    a->sacked[a->blocks++].right = right * PATH_MSS;
}

static void acknowledge(unsigned flow, uint32_t duplicate)
{
    struct receiver *r = &sim.receivers[flow];
    struct event event = {.at = sim.now + sim.path->delay, .flow = flow, .is_ack = true};
    if (sim.path->nap && sim.flows[flow].received > FIRST_FLIGHT)
        event.at += sim.path->nap - event.at % sim.path->nap;
    event.a.ack = r->next * PATH_MSS;
    event.a.duplicate = r->held == 0;
    if (!sim.path->no_sack && duplicate != UINT32_MAX) {
        event.a.sacked[0].left = duplicate * PATH_MSS;
        event.a.sacked[0].right = (duplicate + 1) * PATH_MSS;
        event.a.blocks = 1;
    }
    if (!sim.path->no_sack)
        for (unsigned i = 0; i < SACK_BLOCKS - 1; i++)
            add_block(r, r->recent[i], &event.a);
    r->held = 0;
    r->ack_at = UINT64_MAX;
    if (!chance(sim.path->ack_loss))
        push(event);
}

static void arrive(unsigned flow, uint32_t segment)
{
    struct receiver *r = &sim.receivers[flow];
    if (segment < r->next || (segment > r->next && r->have[segment % WINDOW_SEGMENTS])) {
        acknowledge(flow, segment);
        return;
    }
    assert(segment - r->next < WINDOW_SEGMENTS);
    bool hole = r->highest > r->next;
    r->have[segment % WINDOW_SEGMENTS] = true;
    if (segment > r->highest)
        r->highest = segment;
    if (segment != r->next) {
        memmove(r->recent + 1, r->recent, sizeof(r->recent) - sizeof(r->recent[0]));
        r->recent[0] = segment;
        acknowledge(flow, UINT32_MAX);
        return;
    }
    while (r->have[r->next % WINDOW_SEGMENTS]) {
        r->have[r->next % WINDOW_SEGMENTS] = false;
        r->next++;
        r->held++;
        sim.flows[flow].received += PATH_MSS;
    }
    if (hole || r->held >= 2)
        acknowledge(flow, UINT32_MAX);
    else
        r->ack_at = sim.now + DELAYED_ACK;
}

// ---- Time ----

static uint64_t next_time(unsigned count)
{
    uint64_t at = sim.events ? sim.heap[0].at : UINT64_MAX;
    for (unsigned i = 0; i < count; i++) {
        const uint64_t times[] = {recovery_deadline(&sim.flows[i].recovery), sim.ask_at[i],
                                  sim.receivers[i].ack_at};
        for (unsigned t = 0; t < 3; t++)
            at = times[t] < at ? times[t] : at;
    }
    return at;
}

static void step(unsigned count)
{
    if (sim.events && sim.heap[0].at <= sim.now) {
        struct event event = pop();
        if (event.is_ack) {
            recovery_ack(&sim.flows[event.flow].recovery, &event.a, sim.now);
            send(event.flow);
        } else {
            arrive(event.flow, event.segment);
        }
        return;
    }
    for (unsigned i = 0; i < count; i++) {
        if (sim.receivers[i].ack_at <= sim.now)
            acknowledge(i, UINT32_MAX);
        if (recovery_timer(&sim.flows[i].recovery, sim.now) || sim.ask_at[i] <= sim.now)
            send(i);
    }
}

// The world stands still, only the clock goes on: what the sender waits for is late.
static void leap(unsigned count)
{
    uint64_t by = sim.path->leap;
    sim.now += by;
    sim.busy_until += by;
    if (sim.path->leap_loses)
        sim.events = 0;
    for (unsigned i = 0; i < sim.events; i++)
        sim.heap[i].at += by;
    for (unsigned i = 0; i < count; i++)
        if (sim.receivers[i].ack_at != UINT64_MAX)
            sim.receivers[i].ack_at += by;
}

void path_run(const struct path *path, struct flow *flows, unsigned count, uint64_t duration)
{
    memset(&sim, 0, sizeof(sim));
    sim.path = path;
    sim.flows = flows;
    sim.now = TIME_S;
    sim.random = 12345;
    sim.heap = malloc(EVENTS * sizeof(*sim.heap));
    for (unsigned i = 0; i < count; i++) {
        recovery_init(&flows[i].recovery, 0, PATH_MSS, !path->no_sack, flows[i].reno, sim.now);
        sim.receivers[i].ack_at = UINT64_MAX;
        sim.ask_at[i] = sim.now + flows[i].starts;
    }
    uint64_t end = sim.now + duration, leap_at = path->leap ? sim.now + path->leap_at : UINT64_MAX;
    for (uint64_t at; (at = next_time(count)) < end;) {
        if (at >= leap_at) {
            leap_at = UINT64_MAX;
            leap(count);
            end += path->leap;
            continue;
        }
        sim.now = at > sim.now ? at : sim.now;
        step(count);
    }
    free(sim.heap);
}
