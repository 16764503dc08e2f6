// SPDX-License-Identifier: BSD-2-Clause
// The streams of a UDP test that live on one core. A client opens one by a datagram that says only
// this, and waits for an answer; all the others begin with the time and a number, by which the side
// that receives finds what was lost, what came late, and how unevenly. There is no cookie: while a test
// waits for UDP streams whoever sends such a datagram gets one, as with the stock server.
#include <string.h>

#include "kernel/alloc.h"
#include "kernel/core.h"
#include "lwip/udp.h"
#include "net/flow.h"
#include "net/services/iperf3/server.h"
#include "net/services/listen.h"
#include "net/stack.h"

#define HELLO 0x36373839u // of clients since 3.11; the answer is the same backwards
#define HELLO_ANSWER 0x39383736u
#define OLD_HELLO_ANSWER 987654321u
#define HELLO_BYTES 4

#define ASK_TIME (2 * TIME_S)       // to be told whether there is a stream
#define MAX_ASKING 8                // clients open their streams one after the other
#define TICK 100                    // ms
#define TICK_PACED 2                // ms, while we send at a rate
#define BURST 32                    // datagrams of one stream in a turn
#define BURST_PACED 1024            // after a tick
#define JITTER_MAX 1000000000000ull // ns

struct udp_stream {
    struct udp_stream *next;
    ip_addr_t remote, local;
    uint16_t port;
    uint8_t netif;   // its index
    uintptr_t hold;  // of the flow, so that it stays on this core
    uint16_t ticket; // see join.c
    uint64_t arrived;
    uint32_t hello;
    struct run *run; // NULL: not known yet
    struct run_stream *slot;
    bool going, measuring;
    uint64_t number;   // the highest sent or received
    uint64_t transit;  // of the last one, ns by clocks that differ; only differences count
    uint64_t jitter16; // ns, times 16
};

struct datagram_header {
    uint32_t seconds, microseconds;
    uint32_t number[2]; // the second only with 64 bit counters
};

static PERCORE struct udp_pcb *pcb;
static PERCORE struct udp_stream *streams;
static PERCORE unsigned eager; // streams that send as fast as they can
static PERCORE unsigned asking;

static size_t header_bytes(const struct run *run)
{
    return run->params.counters64 ? 16 : 12;
}

static struct netif *netif_of(const struct udp_stream *u)
{
    return netif_get_by_index(u->netif); // NULL: the NIC is gone
}

// ---- Streams come and go ----

static struct udp_stream *find(const ip_addr_t *remote, uint16_t port)
{
    for (struct udp_stream *u = streams; u; u = u->next)
        if (u->port == port && u->netif == netif_get_index(ip_current_input_netif()) &&
            ip_addr_eq(&u->remote, remote))
            return u;
    return NULL;
}

static void drop(struct udp_stream *u)
{
    struct udp_stream **link = &streams;
    while (*link != u)
        link = &(*link)->next;
    *link = u->next;
    flow_release(u->hold);
    heap_free(u);
}

static void answer_hello(const struct udp_stream *u)
{
    uint32_t answer = u->hello == HELLO ? HELLO_ANSWER : OLD_HELLO_ANSWER;
    struct netif *netif = netif_of(u);
    struct pbuf *p = pbuf_alloc(PBUF_TRANSPORT, HELLO_BYTES, PBUF_RAM);
    if (p && netif && pbuf_take(p, &answer, HELLO_BYTES) == ERR_OK)
        udp_sendto_if_src(pcb, p, &u->remote, u->port, netif, &u->local);
    if (p)
        pbuf_free(p);
}

static void hello(struct pbuf *p, const ip_addr_t *remote, uint16_t port)
{
    if (gate_state() != GATE_UDP_STREAMS || p->tot_len != HELLO_BYTES || asking == MAX_ASKING)
        return;
    struct udp_stream *u = net_calloc(1, sizeof(*u));
    if (!u)
        return;
    u->remote = *remote;
    u->local = *ip_current_dest_addr();
    u->port = port;
    u->netif = netif_get_index(ip_current_input_netif());
    u->hold =
        flow_hold_udp(ip_current_input_netif()->state, remote, port, &u->local, pcb->local_port);
    u->arrived = time_now();
    u->ticket = join_ticket();
    pbuf_copy_partial(p, &u->hello, HELLO_BYTES, 0);
    u->next = streams;
    streams = u;
    asking++;
    join_ask(NULL, u->ticket, u->arrived);
    connections_tick_now();
}

void udp_answered(uint16_t ticket, struct run *run, struct run_stream *slot)
{
    struct udp_stream *u = streams;
    while (u && (u->run || u->ticket != ticket))
        u = u->next;
    if (!u)
        return; // the same question was answered before
    asking--;
    if (!run) {
        drop(u);
        return;
    }
    u->run = run;
    u->slot = slot;
    answer_hello(u);
    member_enter(run);
}

// ---- Receive ----

static void measure(struct udp_stream *u, uint64_t now)
{
    const struct run *run = u->run;
    if (u->measuring || now < run->started + run->params.omit * TIME_S)
        return;
    u->measuring = true;
    if (!run->params.omit)
        return;
    run_set(&u->slot->omitted, run_get(&u->slot->bytes));
    run_set(&u->slot->packets_omitted, run_get(&u->slot->packets));
    run_set(&u->slot->errors_omitted, run_get(&u->slot->errors));
    u->jitter16 = 0;
}

// As the stock server counts: a gap is a loss, one that comes late makes good for one.
static void count_number(struct udp_stream *u, uint64_t number)
{
    uint64_t errors = run_get(&u->slot->errors);
    if (number > u->number) {
        run_set(&u->slot->errors, errors + (number - 1 - u->number));
        u->number = number;
        run_set(&u->slot->packets, number);
        return;
    }
    if (errors)
        run_set(&u->slot->errors, errors - 1);
}

// RFC 1889: the mean difference of the times under way, each new one counting for a sixteenth.
static void count_jitter(struct udp_stream *u, uint64_t transit, bool first)
{
    uint64_t difference = first ? 0 : transit - u->transit;
    if (difference >> 63)
        difference = -difference;
    difference = LWIP_MIN(difference, JITTER_MAX);
    u->transit = transit;
    u->jitter16 += difference - u->jitter16 / 16;
    run_set(&u->slot->jitter, u->jitter16 / 16);
}

static void receive(struct udp_stream *u, struct pbuf *p)
{
    struct datagram_header header = {0};
    enum run_phase phase = run_phase(u->run);
    size_t size = header_bytes(u->run);
    if (phase < RUN_GO || phase >= RUN_OVER || u->slot->sender ||
        pbuf_copy_partial(p, &header, (u16_t)size, 0) != size)
        return;
    uint64_t now = time_now(), bytes = run_get(&u->slot->bytes);
    uint64_t number = lwip_ntohl(header.number[0]);
    if (u->run->params.counters64)
        number = number << 32 | lwip_ntohl(header.number[1]);
    if (phase == RUN_GO)
        measure(u, now);
    uint64_t sent =
        lwip_ntohl(header.seconds) * 1000000000ull + lwip_ntohl(header.microseconds) * 1000ull;
    count_jitter(u, now * 100 - sent, bytes == 0);
    count_number(u, number);
    run_set(&u->slot->bytes, bytes + p->tot_len);
    run_set(&u->slot->last_byte, now);
}

static void on_datagram(void *arg, struct udp_pcb *listener, struct pbuf *p,
                        const ip_addr_t *remote, u16_t port)
{
    (void)arg;
    (void)listener;
    struct udp_stream *u = find(remote, port);
    if (!u)
        hello(p, remote, port);
    else if (u->run && run_phase(u->run) == RUN_WAIT)
        answer_hello(u); // the answer was lost
    else if (u->run)
        receive(u, p);
    pbuf_free(p);
}

// ---- Send ----

// One datagram with this number. False: it did not go.
static bool send_one(const struct udp_stream *u, struct netif *netif, uint64_t number)
{
    size_t size = header_bytes(u->run);
    uint64_t now = time_now();
    bool wide = u->run->params.counters64;
    const struct datagram_header header = {
        lwip_htonl((u32_t)(now / TIME_S)),
        lwip_htonl((u32_t)(now % TIME_S / TIME_US)),
        {lwip_htonl((u32_t)(wide ? number >> 32 : number)), lwip_htonl((u32_t)number)}};
    struct pbuf *p = pbuf_alloc(PBUF_TRANSPORT, (u16_t)size, PBUF_RAM);
    struct pbuf *body = pbuf_alloc(PBUF_RAW, (u16_t)(u->run->params.block - size), PBUF_ROM);
    bool sent = false;
    if (p && body) {
        body->payload = (void *)(uintptr_t)stream_buffer(); // is only read
        pbuf_take(p, &header, (u16_t)size);
        pbuf_cat(p, body);
        body = NULL;
        sent = udp_sendto_if_src(pcb, p, &u->remote, u->port, netif, &u->local) == ERR_OK;
    }
    if (p)
        pbuf_free(p);
    if (body)
        pbuf_free(body);
    return sent;
}

// As many datagrams as the rate allows now, and the NIC takes. True: there may be more to send.
static bool send(struct udp_stream *u, unsigned burst)
{
    struct netif *netif = netif_of(u);
    uint64_t bytes = run_get(&u->slot->bytes);
    if (!netif || stream_time_is_over(u->run))
        return false;
    measure(u, time_now());
    uint64_t allowed = stream_rate_allows(u->run, bytes);
    unsigned count = 0;
    while (allowed >= u->run->params.block && count < burst && send_one(u, netif, u->number + 1)) {
        u->number++;
        bytes += u->run->params.block;
        allowed -= u->run->params.block;
        count++;
    }
    if (count) {
        run_set(&u->slot->packets, u->number);
        run_set(&u->slot->bytes, bytes);
        run_set(&u->slot->last_byte, time_now());
    }
    return count == burst;
}

bool udp_poll(void)
{
    bool more = false;
    for (struct udp_stream *u = eager ? streams : NULL; u; u = u->next)
        if (u->going && u->slot->sender && run_phase(u->run) == RUN_GO)
            more |= send(u, BURST);
    return more;
}

// ---- The phases of the test, and time ----

void udp_follow(enum run_phase phase)
{
    struct udp_stream *next;
    for (struct udp_stream *u = streams; u; u = next) {
        next = u->next;
        if (!u->run)
            continue;
        bool eager_one = u->slot->sender && !u->run->params.rate;
        if (phase >= RUN_GO && !u->going) {
            u->going = true;
            eager += eager_one;
        }
        if (phase >= RUN_ENDED && !u->slot->ended) {
            eager -= eager_one;
            atomic_store_explicit(&u->slot->ended, true, memory_order_release);
        }
        if (phase >= RUN_OVER)
            drop(u);
    }
}

uint32_t udp_tick(uint64_t now)
{
    uint32_t interval = streams ? TICK : UINT32_MAX;
    struct udp_stream *next;
    for (struct udp_stream *u = streams; u; u = next) {
        next = u->next;
        if (!u->run && now - u->arrived > ASK_TIME) {
            asking--;
            drop(u);
        } else if (!u->run) {
            join_ask(NULL, u->ticket, u->arrived);
        } else if (run_phase(u->run) == RUN_GO) {
            measure(u, now);
            if (u->slot->sender && u->run->params.rate) {
                send(u, BURST_PACED);
                interval = TICK_PACED;
            }
        }
    }
    return interval;
}

int udp_start(uint16_t port)
{
    return service_listen_udp(port, on_datagram, &pcb);
}
