// SPDX-License-Identifier: BSD-2-Clause
// The data of an iperf3 test. What arrives is counted and released, nothing is copied; what is sent
// refers to one constant buffer. Called by server.c from lwIP's callbacks and timers.
#include <errno.h>

#include "kernel/alloc.h"
#include "kernel/core.h"
#include "kernel/random.h"
#include "net/sender.h"
#include "net/services/iperf3/server.h"

#define BUFFER_BYTES 65536u
#define MSS_MIN 88u // Linux's, for -M

static PERCORE const uint8_t *buffer;

int stream_init(void)
{
    uint8_t *pages = page_alloc(BUFFER_BYTES / PAGE_SIZE);
    if (!pages)
        return -ENOMEM;
    random_bytes(pages, BUFFER_BYTES);
    buffer = pages;
    return 0;
}

void stream_add(struct test *test, struct connection *c)
{
    const struct iperf3_params *params = &test->params;
    unsigned number = test->stream_count;
    test->streams[test->stream_count++] = c;
    c->role = CONNECTION_STREAM;
    c->id = number == 0 ? 1 : number + 2; // the stock server counts so: 1, 3, 4, 5...
    // With --bidir the client first connects the streams it sends on.
    c->sender = params->reverse || (params->bidir && number >= params->streams);
    c->promised = UINT64_MAX;
    if (params->nodelay)
        tcp_nagle_disable(c->pcb);
    if (params->mss && params->mss < c->pcb->mss)
        c->pcb->mss = (u16_t)LWIP_MIN(LWIP_MAX(params->mss, MSS_MIN), c->pcb->mss);
    // The window that was offered stands; it becomes smaller as its first bytes are not given back.
    uint32_t window = LWIP_MAX(params->window, 2u * c->pcb->mss);
    if (params->window && window < c->pcb->rcv_wnd)
        c->withhold = c->pcb->rcv_wnd - window;
}

void stream_receive(struct test *test, struct connection *c, struct pbuf *p)
{
    if (test->state >= TEST_RUNNING && !c->sender) {
        c->bytes += p->tot_len;
        c->last_byte = test->moved = time_now();
    }
    u16_t kept = (u16_t)LWIP_MIN(c->withhold, p->tot_len);
    c->withhold -= kept;
    tcp_recved(c->pcb, p->tot_len - kept);
    pbuf_free(p);
}

void stream_sent(struct test *test, struct connection *c, uint32_t bytes)
{
    c->bytes += bytes;
    c->last_byte = test->moved = time_now();
    if (test->state == TEST_RUNNING)
        stream_send(test, c);
}

// How many bytes more than now the stream may have under way or waiting.
static uint64_t queue_room(const struct test *test, const struct connection *c)
{
    uint64_t room = sender_room(c->pcb), queued = c->written - c->bytes;
    if (!test->params.window)
        return room;
    return queued < test->params.window ? LWIP_MIN(room, test->params.window - queued) : 0;
}

// How many bytes the client's limit on the rate allows now.
static uint64_t rate_allows(const struct test *test, const struct connection *c)
{
    if (!test->params.rate)
        return UINT64_MAX;
    uint64_t microseconds = (time_now() - test->started) / TIME_US;
    uint64_t allowed;
    if (__builtin_mul_overflow(test->params.rate / 8, microseconds, &allowed))
        return UINT64_MAX;
    allowed /= 1000000;
    return allowed > c->written ? allowed - c->written : 0;
}

// The sender's clock ends a timed test as well: what it would still send until the client's word
// arrives the client would not count.
static bool time_is_over(const struct test *test)
{
    uint64_t seconds = (uint64_t)test->params.time + test->params.omit;
    return test->params.time && time_now() - test->started >= seconds * TIME_S;
}

void stream_send(struct test *test, struct connection *c)
{
    if (time_is_over(test))
        return;
    uint64_t room = LWIP_MIN(queue_room(test, c), rate_allows(test, c));
    while (room) {
        uint32_t at = c->written % BUFFER_BYTES;
        uint32_t n = (uint32_t)LWIP_MIN(room, BUFFER_BYTES - at);
        if (!sender_write(c->pcb, buffer + at, n))
            break; // acknowledgements or the timer bring us back
        c->written += n;
        room -= n;
    }
}
