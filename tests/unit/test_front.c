// SPDX-License-Identifier: BSD-2-Clause
// The order of lwIP's list of connections: whatever comes, goes, or is changed by lwIP itself, a known
// connection becomes the first, the list has the same members after as before, and nothing that is gone
// is touched (each pcb is memory of its own, so the sanitizer sees it).
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lwip/priv/tcp_priv.h"
#include "net/front.h"

#define MOST 300

struct tcp_pcb *tcp_active_pcbs;
static struct tcp_pcb *all[MOST];
static unsigned count;

void net_lwip_assert(const char *message, const char *file, int line)
{
    (void)file;
    (void)line;
    fail_msg("%s", message);
    abort();
}

// Each boot's are others.
void random_bytes(void *out, size_t len)
{
    static unsigned boot;

    srand(++boot);
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)out)[i] = (uint8_t)rand();
}

u8_t tcp_ext_arg_alloc_id(void)
{
    return 2;
}

// ---- What lwIP does ----

static struct tcp_pcb *come(uint32_t remote, uint16_t port)
{
    struct tcp_pcb *pcb = calloc(1, sizeof(*pcb));

    ip_addr_set_ip4_u32(&pcb->remote_ip, remote);
    pcb->remote_port = port;
    pcb->local_port = 7;
    pcb->state = ESTABLISHED;
    pcb->next = tcp_active_pcbs;
    tcp_active_pcbs = all[count++] = pcb;
    return pcb;
}

static void unlink_pcb(struct tcp_pcb *pcb)
{
    struct tcp_pcb **link = &tcp_active_pcbs;

    while (*link != pcb)
        link = &(*link)->next;
    *link = pcb->next;
}

static void go(unsigned i)
{
    struct tcp_pcb *pcb = all[i];

    all[i] = all[--count];
    unlink_pcb(pcb);
    if (pcb->ext_args[2].callbacks)
        pcb->ext_args[2].callbacks->destroy(2, pcb->ext_args[2].data);
    free(pcb);
}

static void bring(uint32_t remote, uint16_t port)
{
    front_bring(&remote, 1, lwip_htons(port), lwip_htons(7));
}

// A segment: asked for before lwIP searches. True if it was the first that lwIP looked at.
static bool segment(struct tcp_pcb *pcb)
{
    bring(ip_2_ip4(&pcb->remote_ip)->addr, pcb->remote_port);
    bool first = tcp_active_pcbs == pcb;
    if (!first) { // lwIP's own way
        unlink_pcb(pcb);
        pcb->next = tcp_active_pcbs;
        tcp_active_pcbs = pcb;
    }
    front_learn(pcb);
    return first;
}

static void check(void)
{
    unsigned seen = 0;

    for (const struct tcp_pcb *pcb = tcp_active_pcbs; pcb; pcb = pcb->next) {
        bool known = false;
        for (unsigned i = 0; i < count; i++)
            known |= all[i] == pcb;
        assert_true(known && ++seen <= count);
    }
    assert_int_equal(seen, count);
}

static void clear(void)
{
    while (count)
        go(0);
}

// ---- Tests ----

static void test_round_robin(void **state)
{
    unsigned first = 0;

    (void)state;
    for (uint16_t i = 0; i < 64; i++)
        come(0x0100000a, (uint16_t)(40000 + i));
    for (unsigned round = 0; round < 10; round++)
        for (unsigned i = 0; i < 64; i++)
            first += segment(all[i]) && round;
    check();
    // Of three that share a pair of places two push each other out.
    assert_true(first > 9 * 64 * 9 / 10);
    clear();
}

static void test_one_that_is_known(void **state)
{
    (void)state;
    for (uint16_t i = 0; i < 10; i++)
        come(0x0100000a, i);
    assert_false(segment(all[3]));
    assert_false(segment(all[7]));
    assert_true(segment(all[3]));
    assert_true(segment(all[3]));
    assert_true(segment(all[7]));
    // In TIME-WAIT it is in another list.
    struct tcp_pcb *pcb = all[3], *other = tcp_active_pcbs;
    unlink_pcb(pcb);
    pcb->state = TIME_WAIT;
    pcb->next = NULL;
    bring(ip_2_ip4(&pcb->remote_ip)->addr, pcb->remote_port);
    assert_ptr_equal(tcp_active_pcbs, other);
    pcb->next = tcp_active_pcbs;
    tcp_active_pcbs = pcb;
    clear();
    bring(0x0100000a, 3); // gone
    assert_null(tcp_active_pcbs);
}

static void test_coming_and_going(void **state)
{
    (void)state;
    srand(44);
    for (unsigned i = 0; i < 200000; i++) {
        unsigned what = (unsigned)rand() % 100;
        if (count == 0 || (what < 5 && count < MOST))
            come((uint32_t)rand(), (uint16_t)rand());
        else if (what < 9)
            go((unsigned)rand() % count);
        else
            segment(all[(unsigned)rand() % count]);
        if (i % 64 == 0)
            check();
    }
    clear();
}

// Which of these connections, that come all at once, are still known when the last has come.
static void find_known(bool known[MOST], bool ip6)
{
    for (uint32_t i = 0, number = 1; i < MOST; i++, number = number * 1664525 + 1013904223) {
        struct tcp_pcb *pcb = come(number, 1);
        uint32_t address[4] = {0, number}; // all else is the same
        if (ip6) {
            IP_SET_TYPE_VAL(pcb->remote_ip, IPADDR_TYPE_V6);
            memcpy(ip_2_ip6(&pcb->remote_ip)->addr, address, sizeof(address));
        }
        front_learn(pcb);
    }
    for (unsigned i = 0; i < MOST; i++)
        known[i] = all[i]->ext_args[2].data != NULL;
    clear();
}

// A peer that found out which ones meet in this boot knows nothing of the next one.
static void test_places_are_secret(void **state)
{
    bool known[2][MOST];
    unsigned differ = 0, found = 0;

    (void)state;
    for (unsigned ip6 = 0; ip6 < 2; ip6++) {
        for (unsigned boot = 0; boot < 2; boot++) {
            front_start();
            find_known(known[boot], ip6);
        }
        for (unsigned i = 0; i < MOST; i++) {
            differ += known[0][i] != known[1][i];
            found += known[0][i];
        }
    }
    assert_true(differ > 30);
    assert_true(found > MOST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_robin),
        cmocka_unit_test(test_one_that_is_known),
        cmocka_unit_test(test_coming_and_going),
        cmocka_unit_test(test_places_are_secret),
    };
    front_start();
    return cmocka_run_group_tests_name("front", tests, NULL, NULL);
}
