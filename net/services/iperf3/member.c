// SPDX-License-Identifier: BSD-2-Clause
// The streams of a test that live on one core. They follow the phases of the run, which the home core
// sets: it pokes this core at each. All but the last poke may be lost, for the tick looks, too; the
// last is certain and comes once, so that after it nobody here refers to the run any more.
#include "kernel/core.h"
#include "kernel/message.h"
#include "lwip/tcp.h"
#include "net/services/iperf3/server.h"
#include "net/stack.h"

#define TICK 100     // ms
#define TICK_PACED 2 // ms, while we send at a rate that the client limits

static PERCORE struct run *member; // NULL: no streams here

struct poke {
    struct run *run;
    enum run_phase phase;
};

static void on_left(const void *data)
{
    (void)data;
    connections_attend();
}

static void leave(struct run *run)
{
    unsigned home = run->home; // whose core may free it once the last has left
    atomic_fetch_or(&run->left, 1ull << core_id());
    // If this is lost the home core's tick finds it.
    message_post(home, on_left, NULL, 0);
}

void member_stream_gone(struct connection *c)
{
    if (!c->slot)
        return;
    if (c->sender && c->pcb) {
        atomic_store_explicit(&c->slot->retransmits, stack_tcp_retransmits(c->pcb),
                              memory_order_relaxed);
        stream_stop(c);
    }
    atomic_store_explicit(&c->slot->gone, true, memory_order_release);
}

static void go(struct connection *c)
{
    c->going = true;
    c->sender = c->slot->sender;
    if (!c->sender || !c->pcb || run_phase(c->run) != RUN_GO)
        return;
    stream_send(c);
    tcp_output(c->pcb);
}

static void end(struct connection *c)
{
    // The client may sit in a blocking read until a stream it receives on ends.
    if (c->sender) {
        member_stream_gone(c);
        connection_close(c, CLOSE_GENTLY);
    }
    atomic_store_explicit(&c->slot->ended, true, memory_order_release);
}

static void let_go(struct connection *c, enum run_phase phase)
{
    connection_linger(c);
    if (phase == RUN_ABORTED)
        connection_close(c, CLOSE_HARD);
    c->run = NULL;
    c->slot = NULL;
}

static void follow(enum run_phase phase)
{
    udp_follow(phase);
    for (struct connection *c = connections_first(); c; c = c->next) {
        if (!c->run)
            continue;
        if (phase >= RUN_GO && !c->going)
            go(c);
        if (phase >= RUN_ENDED && !c->slot->ended)
            end(c);
        if (phase >= RUN_OVER)
            let_go(c, phase);
    }
}

static void on_poke(const void *data)
{
    const struct poke *poke = data;
    if (member == poke->run)
        follow(poke->phase);
    if (poke->phase < RUN_OVER)
        return;
    if (member == poke->run)
        member = NULL;
    leave(poke->run); // also if the answer that would have made us a member was lost
}

bool member_poke(unsigned core, struct run *run)
{
    struct poke poke = {run, run_phase(run)};
    return message_post(core, on_poke, &poke, sizeof(poke));
}

void member_enter(struct run *run)
{
    member = run;
    enum run_phase phase = run_phase(run);
    follow(phase < RUN_OVER ? phase : RUN_ENDED); // the end comes by a poke
    connections_tick_now();
}

void member_join(struct run *run, struct run_stream *slot, struct connection *c)
{
    c->run = run;
    c->slot = slot;
    connection_busy(c, CONNECTION_STREAM);
    stream_begin(c);
    if (!c->pcb)
        member_stream_gone(c);
    member_enter(run);
}

uint32_t member_tick(uint64_t now)
{
    if (!member)
        return UINT32_MAX;
    enum run_phase phase = run_phase(member);
    follow(phase < RUN_OVER ? phase : RUN_ENDED);
    bool sending = false;
    for (struct connection *c = connections_first(); c && phase == RUN_GO; c = c->next) {
        if (!c->run || !c->pcb || c->closing)
            continue;
        stream_measure(c, now);
        if (!c->sender)
            continue;
        sending = true;
        atomic_store_explicit(&c->slot->retransmits, stack_tcp_retransmits(c->pcb),
                              memory_order_relaxed);
        stream_send(c);
        tcp_output(c->pcb);
    }
    return sending && member->params.rate ? TICK_PACED : TICK;
}
