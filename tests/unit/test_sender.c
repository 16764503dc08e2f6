// SPDX-License-Identifier: BSD-2-Clause
// The senders of a core take turns (net/sender.c): each sends what it has, however the others come and go
// in the callbacks of a turn. lwIP, the NIC and the ways to it are replaced; a round that never ends is
// ended by a signal.
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernel/alloc.h"
#include "kernel/config.h"
#include "kernel/core.h"
#include "kernel/time.h"
#include "lwip/ip.h"
#include "lwip/priv/tcp_priv.h"
#include "net/express.h"
#include "net/frame.h"
#include "net/interface.h"
#include "net/memory.h"
#include "net/options.h"
#include "net/sender.h"

#define MSS 1448u
#define ISN 1000u

struct config config;
static uint64_t now = 1000 * TIME_S;
static struct netif netif;
static uint32_t sent[2]; // bytes, of each connection
static struct tcp_pcb *pcbs[2];

// ---- What is around it ----

uint64_t time_now(void)
{
    return now;
}

unsigned core_id(void)
{
    return 0;
}

unsigned core_count(void)
{
    return 1;
}

const void *core_peek(unsigned core, const void *mine)
{
    (void)core;
    return mine;
}

void *net_alloc(size_t size)
{
    return malloc(size);
}

void heap_free(void *object)
{
    free(object);
}

u8_t tcp_ext_arg_alloc_id(void)
{
    return 1;
}

void tcp_abort(struct tcp_pcb *pcb)
{
    if (pcb->ext_args[1].callbacks)
        pcb->ext_args[1].callbacks->destroy(1, pcb->ext_args[1].data);
    for (unsigned i = 0; i < 2; i++)
        if (pcbs[i] == pcb)
            pcbs[i] = NULL;
    free(pcb);
}

err_t tcp_keepalive(struct tcp_pcb *pcb)
{
    (void)pcb;
    return ERR_OK;
}

struct netif *netif_get_by_index(u8_t index)
{
    (void)index;
    return &netif;
}

struct netif *ip6_route(const ip6_addr_t *source, const ip6_addr_t *destination)
{
    (void)source, (void)destination;
    return &netif;
}

struct netif *ip4_route_src(const ip4_addr_t *source, const ip4_addr_t *destination)
{
    (void)source, (void)destination;
    return &netif;
}

bool interface_has_enough(const struct netif *n)
{
    (void)n;
    return false;
}

uint32_t interface_large_max(const struct netif *n, bool ip6)
{
    (void)n, (void)ip6;
    return 0;
}

void express_learn(struct express *x, const struct tcp_pcb *pcb, const struct pbuf *p)
{
    (void)x, (void)pcb, (void)p;
}

bool express_serves(const struct express *x, const struct netif *n, uint16_t mss, uint64_t at)
{
    (void)x, (void)n, (void)mss, (void)at;
    return true;
}

bool express_send(struct express *x, const struct tcp_pcb *pcb, uint16_t mss, uint32_t seq,
                  const struct nic_piece *data, unsigned count, bool last)
{
    (void)x, (void)mss, (void)seq, (void)last;
    for (unsigned i = 0; i < count; i++)
        sent[pcb == pcbs[1]] += data[i].len;
    return true;
}

struct pbuf *frame_build(const struct tcp_pcb *pcb, const struct netif *n, uint32_t seq,
                         const struct nic_piece *data, unsigned count, bool last)
{
    (void)pcb, (void)n, (void)seq, (void)data, (void)count, (void)last;
    return NULL;
}

err_t frame_send(struct tcp_pcb *pcb, struct netif *n, struct pbuf *p)
{
    (void)pcb, (void)n, (void)p;
    return ERR_OK;
}

u8_t pbuf_free(struct pbuf *p)
{
    (void)p;
    return 0;
}

uint8_t *tcp_options_byte(const struct tcp_options *options, unsigned at)
{
    return options->first + at;
}

bool tcp_options_next(const struct tcp_options *options, struct tcp_option *option)
{
    (void)options, (void)option;
    return false;
}

// ---- The connections ----

static err_t end_the_other(void *arg, struct tcp_pcb *pcb, u16_t bytes)
{
    (void)arg, (void)bytes;
    struct tcp_pcb *other = pcbs[pcb == pcbs[0]];
    if (other)
        tcp_abort(other);
    return ERR_OK;
}

static void come(unsigned i)
{
    static const uint8_t data[10 * MSS];
    struct tcp_pcb *pcb = calloc(1, sizeof(*pcb));
    pcb->state = ESTABLISHED;
    pcb->netif_idx = 1;
    pcb->mss = MSS;
    pcb->flags = TF_SACK;
    pcb->lastack = pcb->snd_nxt = pcb->snd_lbb = ISN;
    pcb->snd_wnd = pcb->snd_wnd_max = 1 << 20;
    pcb->sent = end_the_other;
    pcbs[i] = pcb;
    sent[i] = 0;
    assert_true(sender_write(pcb, data, sizeof(data)));
}

static void acknowledge(struct tcp_pcb *pcb, uint32_t bytes)
{
    struct tcp_hdr header = {.ackno = ISN + bytes, .wnd = 1000};
    struct tcp_options options = {0};
    TCPH_HDRLEN_FLAGS_SET(&header, 5, TCP_ACK);
    sender_segment_in(pcb, &header, 0, &options);
}

// Of two that have something to send, one's callback ends the other, which may have been looked after
// before.
static void test_one_ends_the_other(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        come(0);
        come(1);
        alarm(10);
        sender_poll();
        assert_int_equal(sent[0], 10 * MSS);
        assert_int_equal(sent[1], 10 * MSS);
        static const uint8_t more[5 * MSS];
        for (unsigned k = 0; k < 2; k++)
            assert_true(sender_write(pcbs[k], more, sizeof(more)));
        now += 20 * TIME_MS;
        acknowledge(pcbs[i], 10 * MSS);
        sender_poll();
        alarm(0);
        assert_null(pcbs[!i]);
        assert_int_equal(sent[i], 15 * MSS);
        tcp_abort(pcbs[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_one_ends_the_other)};
    sender_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
