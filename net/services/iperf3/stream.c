// SPDX-License-Identifier: BSD-2-Clause
// The data of an iperf3 test. What arrives is counted and released, nothing is copied; what is sent
// refers to one constant buffer. Called from lwIP's callbacks and timers.
#include <errno.h>

#include "kernel/alloc.h"
#include "kernel/core.h"
#include "kernel/random.h"
#include "net/sender.h"
#include "net/services/iperf3/server.h"
#include "net/stack.h"

#define BUFFER_BYTES 65536u
#define PORTIONS 250 // a second, at a limited rate: each acknowledgement would bring a few bytes

static const uint8_t *buffer; // read by all cores

// Bytes that cannot be compressed; which they are is no secret, so only the seed is of the good ones,
// which take fifty times as long.
static void fill(uint64_t *words, unsigned count)
{
    uint64_t seed;
    random_bytes(&seed, sizeof(seed));
    for (unsigned i = 0; i < count; i++) { // splitmix64
        uint64_t z = seed += 0x9e3779b97f4a7c15;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
        z = (z ^ z >> 27) * 0x94d049bb133111eb;
        words[i] = z ^ z >> 31;
    }
}

int stream_init(void)
{
    if (buffer)
        return 0; // by core 0, which starts first
    void *pages = page_alloc(BUFFER_BYTES / PAGE_SIZE);
    if (!pages)
        return -ENOMEM;
    fill(pages, BUFFER_BYTES / sizeof(uint64_t));
    buffer = pages;
    return 0;
}

const uint8_t *stream_buffer(void)
{
    return buffer;
}

// Makes the connection what the test's parameters say.
static void prepare(struct connection *c)
{
    const struct iperf3_params *params = &c->run->params;
    if (params->nodelay)
        tcp_nagle_disable(c->pcb);
    if (params->mss && params->mss < c->pcb->mss)
        c->pcb->mss = (u16_t)LWIP_MIN(LWIP_MAX(params->mss, STACK_MSS_LEAST), c->pcb->mss);
    // The window that was offered stands; it becomes smaller as its first bytes are not given back.
    uint32_t window = LWIP_MAX(params->window, 2u * c->pcb->mss);
    if (params->window && window < c->pcb->rcv_wnd)
        c->withhold = c->pcb->rcv_wnd - window;
}

void stream_measure(struct connection *c, uint64_t now)
{
    const struct run *run = c->run;
    if (c->measuring || now < run->started + run->params.omit * TIME_S)
        return;
    c->measuring = true;
    if (!run->params.omit)
        return;
    run_set(&c->slot->omitted, run_get(&c->slot->bytes));
    if (c->sender && c->pcb)
        atomic_store_explicit(&c->slot->retransmits_omitted, stack_tcp_retransmits(c->pcb),
                              memory_order_relaxed);
}

static void count(struct connection *c, uint64_t bytes)
{
    uint64_t now = time_now();
    if (!c->measuring && run_phase(c->run) == RUN_GO)
        stream_measure(c, now);
    run_set(&c->slot->bytes, run_get(&c->slot->bytes) + bytes);
    run_set(&c->slot->last_byte, now);
}

// That it goes may be known here a moment later than to the client.
static void count_received(struct connection *c, uint64_t bytes)
{
    if (run_phase(c->run) >= RUN_GO && !c->slot->sender)
        count(c, bytes);
}

void stream_begin(struct connection *c)
{
    if (c->pcb)
        prepare(c);
    if (c->early)
        count_received(c, c->early);
}

void stream_receive(struct connection *c, struct pbuf *p)
{
    count_received(c, p->tot_len);
    u16_t kept = (u16_t)LWIP_MIN(c->withhold, p->tot_len);
    c->withhold -= kept;
    tcp_recved(c->pcb, p->tot_len - kept);
    stack_free_received(p);
}

void stream_sent(struct connection *c, uint32_t bytes)
{
    count(c, bytes);
    if (run_phase(c->run) == RUN_GO)
        stream_send(c);
}

void stream_stop(struct connection *c)
{
    // All that was sent, or the client would tell of more than we do: it reads on while this ends.
    uint32_t bytes = sender_stop(c->pcb);
    if (bytes && run_phase(c->run) >= RUN_GO)
        count(c, bytes);
    c->sender = false;
}

// How many bytes more than now the stream may have under way or waiting.
static uint64_t queue_room(const struct connection *c)
{
    uint32_t window = c->run->params.window;
    uint64_t room = sender_room(c->pcb), queued = c->written - run_get(&c->slot->bytes);
    if (!window)
        return room;
    return queued < window ? LWIP_MIN(room, window - queued) : 0;
}

uint64_t stream_rate_allows(const struct run *run, uint64_t sent)
{
    if (!run->params.rate)
        return UINT64_MAX;
    uint64_t microseconds = (time_now() - run->started) / TIME_US;
    uint64_t allowed;
    if (__builtin_mul_overflow(run->params.rate / 8, microseconds, &allowed))
        return UINT64_MAX;
    allowed /= 1000000;
    return allowed > sent ? allowed - sent : 0;
}

// The sender's clock ends a timed test as well: what it would still send until the client's word
// arrives the client would not count.
bool stream_time_is_over(const struct run *run)
{
    uint64_t seconds = (uint64_t)run->params.time + run->params.omit;
    return run->params.time && time_now() - run->started >= seconds * TIME_S;
}

void stream_send(struct connection *c)
{
    if (stream_time_is_over(c->run))
        return;
    uint64_t room = queue_room(c), due = stream_rate_allows(c->run, c->written);
    if (due < LWIP_MIN(c->run->params.rate / 8 / PORTIONS, BUFFER_BYTES))
        return;
    room = LWIP_MIN(room, due);
    while (room) {
        uint32_t at = c->written % BUFFER_BYTES;
        uint32_t n = (uint32_t)LWIP_MIN(room, BUFFER_BYTES - at);
        if (!sender_write(c->pcb, buffer + at, n))
            break; // acknowledgements or the timer bring us back
        c->written += n;
        room -= n;
    }
}
