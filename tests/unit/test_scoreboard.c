// SPDX-License-Identifier: BSD-2-Clause
// The ranges that a sender remembers: by hand, and many random ones beside a plain array of bytes.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/alloc.h"
#include "net/memory.h"
#include "net/scoreboard.h"

static unsigned live;
static bool no_memory;

void *net_alloc(size_t size)
{
    if (no_memory)
        return NULL;
    live++;
    return malloc(size);
}

void heap_free(void *object)
{
    live -= object != NULL;
    free(object);
}

_Noreturn void panic(const char *format, ...)
{
    fail_msg("panic: %s", format);
    abort();
}

static void send(struct scoreboard *s, uint32_t len, uint64_t at)
{
    assert_true(scoreboard_prepare(s));
    scoreboard_sent(s, len)->sent_at = at;
}

// Walks the list: in order, without gaps, sums right. Returns how many ranges there are.
static unsigned check(const struct scoreboard *s)
{
    uint32_t sums[3] = {0}, at = s->una;
    unsigned count = 0;
    const struct range *last = NULL;
    for (const struct range *range = s->first; range; range = range->next) {
        assert_int_equal(range->seq, at);
        assert_true(seq_before(range->seq, range->end));
        sums[range->state] += range->end - range->seq;
        at = range->end;
        last = range;
        count++;
    }
    assert_int_equal(at, s->nxt);
    assert_ptr_equal(s->last, last);
    assert_int_equal(s->count, count);
    assert_int_equal(sums[RANGE_SENT], s->sent);
    assert_int_equal(sums[RANGE_SACKED], s->sacked);
    assert_int_equal(sums[RANGE_LOST], s->lost);
    return count;
}

static void test_in_order(void **state)
{
    (void)state;
    struct scoreboard s;
    scoreboard_init(&s, 0xffffff00); // wraps
    send(&s, 1000, 1);
    send(&s, 3000, 2);
    assert_int_equal(check(&s), 2);
    struct delivery d = {0};
    scoreboard_ack(&s, 0xffffff00 + 1500, &d);
    assert_int_equal(check(&s), 1);
    assert_int_equal(d.bytes, 1500);
    assert_int_equal(d.acked, 1500);
    assert_int_equal(d.first_try_at, 2);
    assert_int_equal(d.newest.sent_at, 2);
    assert_int_equal(d.newest.end, 0xffffff00 + 1500);
    assert_int_equal(s.sent, 2500);
    d = (struct delivery){0};
    scoreboard_ack(&s, 0xffffff00 + 4000, &d);
    assert_int_equal(check(&s), 0);
    assert_int_equal(d.bytes, 2500);
    scoreboard_free(&s);
    assert_int_equal(live, 0);
}

static void test_hole_in_a_large_frame(void **state)
{
    (void)state;
    struct scoreboard s;
    struct delivery d = {0};
    scoreboard_init(&s, 1000);
    send(&s, 10000, 5);
    scoreboard_sack(&s, 4000, 5000, &d);
    scoreboard_sack(&s, 4000, 7000, &d);
    scoreboard_sack(&s, 9000, 10000, &d);
    assert_int_equal(check(&s), 5);
    assert_int_equal(d.bytes, 4000);
    assert_int_equal(d.acked, 0);
    assert_int_equal(d.lowest, 4000);
    assert_int_equal(s.sacked, 4000);
    d = (struct delivery){0};
    scoreboard_sack(&s, 7000, 9000, &d); // fills the gap: all one range now
    assert_int_equal(check(&s), 3);
    assert_int_equal(d.bytes, 2000);
    scoreboard_sack(&s, 4000, 10000, &d); // nothing new
    assert_int_equal(d.bytes, 2000);
    scoreboard_lose(&s, s.first);
    assert_int_equal(s.lost, 3000);
    assert_ptr_equal(scoreboard_first_lost(&s), s.first);
    assert_true(scoreboard_prepare(&s));
    struct range *again = scoreboard_resent(&s, s.first, 1000);
    assert_true(again->resent && again->end == 2000);
    assert_int_equal(check(&s), 4);
    assert_int_equal(scoreboard_first_lost(&s)->seq, 2000);
    d = (struct delivery){0};
    scoreboard_ack(&s, 11000, &d);
    assert_int_equal(check(&s), 0);
    assert_int_equal(d.bytes, 4000); // what was sacked does not count twice
    scoreboard_free(&s);
    assert_int_equal(live, 0);
}

static void test_ends(void **state)
{
    (void)state;
    struct scoreboard s;
    scoreboard_init(&s, 0);
    send(&s, 5000, 1);
    scoreboard_lose_last(&s, 1000);
    assert_int_equal(check(&s), 2);
    assert_int_equal(scoreboard_first_lost(&s)->seq, 4000);
    scoreboard_lose_first(&s, 1500);
    assert_int_equal(check(&s), 3);
    assert_int_equal(scoreboard_first_lost(&s)->end, 1500);
    struct delivery d = {0};
    scoreboard_sack(&s, 2000, 3000, &d);
    scoreboard_lose_all(&s, false);
    assert_int_equal(s.sacked, 1000);
    assert_int_equal(s.sent, 0);
    scoreboard_lose_all(&s, true);
    assert_int_equal(s.lost, 5000);
    check(&s);
    scoreboard_free(&s);
    assert_int_equal(live, 0);
}

static void test_without_memory(void **state)
{
    (void)state;
    struct scoreboard s;
    struct delivery d = {0};
    scoreboard_init(&s, 0);
    send(&s, 5000, 1);
    no_memory = true;
    assert_false(scoreboard_prepare(&s));
    scoreboard_sack(&s, 1000, 2000, &d); // cannot be noted: will be sent again
    scoreboard_lose_last(&s, 1000);      // loses more than it should
    assert_int_equal(check(&s), 1);
    assert_int_equal(s.lost, 5000);
    no_memory = false;
    scoreboard_free(&s);
    assert_int_equal(live, 0);
}

#define BYTES 4000u

// What an array says is what the list says.
static void test_random(void **state)
{
    (void)state;
    srand(1);
    for (unsigned round = 0; round < 300; round++) {
        struct scoreboard s;
        uint32_t base = (uint32_t)rand() * 2u;
        enum { NEVER, SENT, SACKED, LOST, ACKED } byte[BYTES] = {NEVER};
        scoreboard_init(&s, base);
        uint32_t una = 0, nxt = 0;
        for (unsigned step = 0; step < 200; step++) {
            uint32_t a = (uint32_t)rand() % BYTES, b = a + (uint32_t)rand() % 300, fresh = 0;
            struct delivery d = {0};
            b = b > BYTES ? BYTES : b;
            switch (rand() % 5) {
            case 0:
                a = 1 + (uint32_t)rand() % 200;
                if (nxt + a > BYTES)
                    break;
                send(&s, a, step);
                for (; a; a--)
                    byte[nxt++] = SENT;
                break;
            case 1:
                if (b > nxt || a >= b)
                    break;
                for (uint32_t i = a < una ? una : a; i < b; i++) {
                    fresh += byte[i] != SACKED;
                    byte[i] = SACKED;
                }
                if (b <= una)
                    break;
                scoreboard_sack(&s, base + a, base + b, &d);
                assert_int_equal(d.bytes, fresh);
                break;
            case 2:
                if (rand() % 4 || a > nxt || a < una)
                    break;
                for (; una < a; una++) {
                    fresh += byte[una] != SACKED;
                    byte[una] = ACKED;
                }
                scoreboard_ack(&s, base + a, &d);
                assert_int_equal(d.bytes, fresh);
                break;
            case 3:
                if (s.first && s.first->state == RANGE_SENT) {
                    for (uint32_t i = una; i < s.first->end - base; i++)
                        byte[i] = LOST;
                    scoreboard_lose(&s, s.first);
                }
                break;
            case 4: {
                struct range *lost = scoreboard_first_lost(&s);
                if (!lost)
                    break;
                uint32_t len = 1 + (uint32_t)rand() % (lost->end - lost->seq);
                for (uint32_t i = lost->seq - base; i < lost->seq - base + len; i++) {
                    assert_int_equal(byte[i], LOST);
                    byte[i] = SENT;
                }
                assert_true(scoreboard_prepare(&s));
                scoreboard_resent(&s, lost, len);
                break;
            }
            }
            check(&s);
            for (const struct range *range = s.first; range; range = range->next)
                for (uint32_t i = range->seq - base; i < range->end - base; i++)
                    assert_int_equal(byte[i], range->state == RANGE_SENT     ? SENT
                                              : range->state == RANGE_SACKED ? SACKED
                                                                             : LOST);
        }
        scoreboard_free(&s);
        assert_int_equal(live, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_in_order), cmocka_unit_test(test_hole_in_a_large_frame),
        cmocka_unit_test(test_ends),     cmocka_unit_test(test_without_memory),
        cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests_name("scoreboard", tests, NULL, NULL);
}
