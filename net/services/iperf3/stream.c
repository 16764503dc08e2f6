// SPDX-License-Identifier: BSD-2-Clause
// The data of an iperf3 test. What arrives is counted and released, nothing is copied; what is sent
// refers to one constant buffer. Called by server.c from lwIP's callbacks and timers.
#include <errno.h>

#include "kernel/alloc.h"
#include "kernel/core.h"
#include "kernel/random.h"
#include "lwip/priv/tcp_priv.h"
#include "net/services/iperf3/server.h"
#include "net/stack.h"

#define BUFFER_BYTES 65536 // one tcp_write() takes no more than 65535
// So many bytes may be queued over all streams; each stream has at least QUEUE_MIN.
#define QUEUE_TOTAL (4u << 20)
#define QUEUE_MIN (32u << 10)
#define PIECE_SEGMENTS 512u
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

// How many bytes the stream may have in lwIP's queue.
static uint32_t queue_limit(const struct test *test)
{
    uint32_t limit = QUEUE_TOTAL / test->stream_count;
    limit = LWIP_MAX(limit, QUEUE_MIN);
    if (test->params.window)
        limit = LWIP_MIN(limit, test->params.window);
    return LWIP_MIN(limit, TCP_SND_BUF);
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

// lwIP appends to the last segment that is not sent yet if that has room. When this is one that is to
// be sent again it must not: what follows it is already under way.
static bool retransmission_waits(const struct tcp_pcb *pcb)
{
    const struct tcp_seg *last = pcb->unsent;
    if (!last)
        return false;
    while (last->next)
        last = last->next;
    return lwip_ntohl(last->tcphdr->seqno) + TCP_TCPLEN(last) != pcb->snd_lbb;
}

// Whole segments, and not too many of them, because tcp_write() takes all or nothing.
static uint32_t piece_size(const struct tcp_pcb *pcb)
{
    uint32_t segment = pcb->mss;
    if ((pcb->flags & TF_TIMESTAMP) && segment > 2 * LWIP_TCP_OPT_LEN_TS_OUT)
        segment -= LWIP_TCP_OPT_LEN_TS_OUT;
    return LWIP_MIN((BUFFER_BYTES - 1) / segment, PIECE_SEGMENTS) * segment;
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
    uint32_t limit = queue_limit(test);
    uint64_t queued = c->written - c->bytes;
    uint64_t room = queued < limit ? limit - queued : 0;
    // Large pieces: lwIP walks its queue for each.
    if (room < limit / 4 || time_is_over(test) || retransmission_waits(c->pcb))
        return;
    room = LWIP_MIN(room, rate_allows(test, c));
    uint32_t piece = piece_size(c->pcb);
    while (room) {
        u16_t n = (u16_t)LWIP_MIN(room, piece);
        n = (u16_t)LWIP_MIN(n, tcp_sndbuf(c->pcb));
        // ERR_MEM: the queue has its most segments, or memory is short. Acknowledgements or the
        // timer bring us back.
        if (!n || tcp_write(c->pcb, buffer, n, room > n ? TCP_WRITE_FLAG_MORE : 0) != ERR_OK)
            break;
        c->written += n;
        room -= n;
    }
}
