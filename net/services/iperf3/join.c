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

uint16_t join_ticket(void)
{
    tickets++;
    if (!tickets)
        tickets++;
    return tickets;
}

static void on_question(const void *data);

bool join_ask(const uint8_t *cookie, uint16_t ticket, uint64_t arrived)
{
    struct question question = {.core = (uint8_t)core_id(), .ticket = ticket, .arrived = arrived};
    if (cookie)
        memcpy(question.cookie, cookie, COOKIE_TEXT);
    return message_post(atomic_load(&gate) >> 8, on_question, &question, sizeof(question));
}

static bool asked(const struct connection *c)
{
    return c->role == CONNECTION_WAITS && c->asked && time_now() - c->asked < ASK_AGAIN;
}

static void ask(struct connection *c)
{
    unsigned count = 0;
    for (const struct connection *other = connections_first(); other; other = other->next)
        count += asked(other);
    if (asked(c) || count >= MAX_ASKED || !c->pcb)
        return; // an answer or the tick brings us back
    if (!c->ticket)
        c->ticket = join_ticket();
    if (join_ask(c->cookie, c->ticket, service_arrived(c->pcb)))
        c->asked = time_now();
}

void join_decide(struct connection *c)
{
    if (gate_state() == GATE_FREE && !c->ticket && c->pcb && gate_take()) {
        test_begin(c);
        return;
    }
    switch (gate_state()) {
    case GATE_BUSY:
    case GATE_UDP_STREAMS:
        if (c->asked)
            ask(c);
        else
            deny(c);
        break;
    case GATE_STREAMS:
        ask(c);
        break;
    case GATE_FREE: // just now
    case GATE_CLOSING:
        if (!c->ticket)
            connections_tick_now(); // there will be no test, soon
        else if (!asked(c))
            deny(c); // it was to be a stream
        break;
    }
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
    if (!c) { // if it was one, the same question was answered before
        udp_answered(answer->ticket, answer->run, answer->slot);
        return;
    }
    c->asked = 0;
    if (answer->run)
        member_join(answer->run, answer->slot, c);
    else
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
