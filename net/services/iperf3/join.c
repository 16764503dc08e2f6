// SPDX-License-Identifier: BSD-2-Clause
// What a connection is whose cookie is complete, on whatever core it arrived. One word that all cores
// see, the gate, says whether there is a test and where its home is; taking it decides who is first.
// The first becomes a control connection. While the test waits for its streams the home core is asked,
// by message, whether the cookie is the test's. All others get ACCESS_DENIED at once.
//
// A question that is not answered (a ring was full) is asked again with the same ticket, so the home
// core knows it. The client counts its streams in the order in which it connects them; it connects
// them one after the other, so their first segments come in this order by the cores' common clock
// although they come to different cores.
#include <stdatomic.h>
#include <string.h>

#include "kernel/core.h"
#include "kernel/message.h"
#include "net/services/iperf3/client_log.h"
#include "net/services/iperf3/server.h"
#include "net/services/listen.h"

#define ASK_AGAIN (100 * TIME_MS)
#define MAX_ASKED 16 // at a time; the ring to the home core is for others, too

#define COOKIE_TEXT (IPERF3_COOKIE - 1)

struct question {
    char cookie[COOKIE_TEXT];
    uint8_t core; // that asks
    uint16_t ticket;
    uint64_t arrived;
};
_Static_assert(sizeof(struct question) <= MESSAGE_BYTES, "is sent as a message");

struct answer {
    struct run *run; // NULL: not a stream of the test
    struct run_stream *slot;
    uint16_t ticket;
};

static _Atomic uint32_t gate; // enum gate, and the home core above its low byte
static PERCORE uint16_t tickets;

enum gate gate_state(void)
{
    return (enum gate)(atomic_load(&gate) & 0xff);
}

static bool gate_take(void)
{
    uint32_t was = GATE_FREE;
    return atomic_compare_exchange_strong(&gate, &was, GATE_BUSY | core_id() << 8);
}

void gate_set(enum gate state)
{
    atomic_store(&gate, state == GATE_FREE ? GATE_FREE : (uint32_t)state | core_id() << 8);
}

static void deny(struct connection *c)
{
    LOG_CLIENT(log_info, "iperf3: %s denied: a test is running", c->name);
    connection_linger(c);
    if (!connection_say(c, SAY_ACCESS_DENIED))
        connection_close(c, CLOSE_HARD);
}

static bool asked(const struct connection *c)
{
    return c->role == CONNECTION_WAITS && c->asked && time_now() - c->asked < ASK_AGAIN;
}

static void on_question(const void *data);

static void ask(struct connection *c, unsigned home)
{
    unsigned count = 0;
    for (const struct connection *other = connections_first(); other; other = other->next)
        count += asked(other);
    if (asked(c) || count >= MAX_ASKED || !c->pcb)
        return; // an answer or the tick brings us back
    if (!c->ticket)
        c->ticket = ++tickets ? tickets : ++tickets;
    struct question question = {
        .core = (uint8_t)core_id(), .ticket = c->ticket, .arrived = service_arrived(c->pcb)};
    memcpy(question.cookie, c->cookie, COOKIE_TEXT);
    if (message_post(home, on_question, &question, sizeof(question)))
        c->asked = time_now();
}

void join_decide(struct connection *c)
{
    uint32_t word = atomic_load(&gate);
    if ((word & 0xff) == GATE_FREE && c->pcb) {
        if (gate_take()) {
            test_begin(c);
            return;
        }
        word = atomic_load(&gate); // another core was faster
    }
    if ((word & 0xff) == GATE_BUSY && !c->asked)
        deny(c);
    else if ((word & 0xff) == GATE_BUSY || (word & 0xff) == GATE_STREAMS)
        ask(c, word >> 8);
    else
        connections_tick_now(); // soon there is no test
}

// ---- On the core that asked ----

static struct connection *find(uint16_t ticket)
{
    for (struct connection *c = connections_first(); c; c = c->next)
        if (c->role == CONNECTION_WAITS && c->asked && c->ticket == ticket)
            return c;
    return NULL;
}

static void on_answer(const void *data)
{
    const struct answer *answer = data;
    struct connection *c = find(answer->ticket);
    if (!c)
        return; // the same question was answered before
    c->asked = 0;
    if (answer->run)
        member_join(answer->run, answer->slot, c);
    else if (gate_state() == GATE_STREAMS || gate_state() == GATE_BUSY)
        deny(c);
    for (c = connections_first(); c; c = c->next)
        if (c->role == CONNECTION_WAITS && !asked(c))
            join_decide(c);
    connections_attend();
}

// ---- On the home core ----

static void on_question(const void *data)
{
    const struct question *question = data;
    struct answer answer = {.ticket = question->ticket};
    answer.slot = test_join(question->core, question->ticket, question->arrived, question->cookie,
                            &answer.run);
    // If this fails the question comes again.
    message_post(question->core, on_answer, &answer, sizeof(answer));
}
