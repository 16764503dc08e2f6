// SPDX-License-Identifier: BSD-2-Clause
// Loss recovery and congestion control over simulated paths (fake_path.c), and what single
// acknowledgements do.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/time.h"
#include "tests/unit/fake_path.h"

#define MBIT (1000000u / 8)

static double mbit(const struct flow *flow, unsigned seconds)
{
    return (double)flow->received * 8 / 1e6 / seconds;
}

static double dropped_percent(const struct flow *flow)
{
    return 100.0 * (double)flow->dropped / (double)(flow->sent + 1);
}

// One flow for `seconds`; returns what it did.
static struct flow run(struct path path, bool reno, unsigned seconds)
{
    struct flow flow = {.reno = reno};
    path.delay = path.delay ? path.delay : 5 * TIME_MS;
    path_run(&path, &flow, 1, seconds * TIME_S);
    recovery_free(&flow.recovery);
    return flow;
}

static void test_fills_the_path(void **state)
{
    (void)state;
    struct flow flow = run((struct path){.rate = 100 * MBIT, .queue = 500000}, false, 5);
    assert_true(mbit(&flow, 5) > 95);
    assert_true(flow.recovery.resent_segments <= flow.dropped + 5);
    assert_int_equal(flow.recovery.timeouts, 0);
    // The queue is nearly empty for most of the time: no standing one.
    assert_true(flow.recovery.srtt < 14 * TIME_MS);
    flow = run((struct path){.rate = 100 * MBIT, .queue = 150000}, true, 5);
    assert_true(mbit(&flow, 5) > 90);
}

static void test_loss_alone_is_no_reason(void **state)
{
    (void)state;
    const struct path path = {.rate = 500 * MBIT, .queue = 1 << 20};
    for (unsigned loss = 1000; loss <= 10000; loss *= 10) {
        struct path bad = path;
        bad.loss = loss;
        struct flow bbr = run(bad, false, 5), reno = run(bad, true, 5);
        assert_true(mbit(&bbr, 5) > 350);
        assert_true(mbit(&bbr, 5) > 5 * mbit(&reno, 5));
        // What was lost was sent once more, and hardly anything else.
        assert_true(bbr.recovery.resent_segments < bbr.dropped * 102 / 100 + 10);
        assert_int_equal(bbr.recovery.timeouts, 0);
    }
}

static void test_too_much_loss_is(void **state)
{
    (void)state;
    // A queue of a tenth of what the path holds.
    struct flow flow = run((struct path){.rate = 100 * MBIT, .queue = 13000}, false, 10);
    assert_true(mbit(&flow, 10) > 80);
    assert_true(dropped_percent(&flow) < 3);
    // Hopeless: it slows down.
    flow = run((struct path){.rate = 500 * MBIT, .queue = 1 << 20, .loss = 100000}, false, 5);
    assert_true(mbit(&flow, 5) < 50);
    assert_true(flow.received > 0);
}

static void test_shares(void **state)
{
    (void)state;
    struct flow flows[4] = {{.starts = 0}};
    const struct path path = {.rate = 100 * MBIT, .delay = 5 * TIME_MS, .queue = 64000};
    path_run(&path, flows, 4, 10 * TIME_S);
    double sum = 0;
    for (unsigned i = 0; i < 4; i++) {
        sum += mbit(&flows[i], 10);
        assert_in_range((unsigned)mbit(&flows[i], 10), 12, 50);
        assert_true(dropped_percent(&flows[i]) < 4);
        recovery_free(&flows[i].recovery);
    }
    assert_true(sum > 90);
}

// Processors that wait for each other: a short round trip was seen once, all others take long. That the
// path itself holds little must not keep them down to that.
// A pause of ten minutes in which the clock ran on: one time-out, and it goes on as before.
static void test_pause(void **state)
{
    (void)state;
    struct path path = {
        .rate = 100 * MBIT, .queue = 500000, .leap = 600 * TIME_S, .leap_at = TIME_S};
    for (unsigned reno = 0; reno < 2; reno++) {
        for (unsigned loses = 0; loses < 2; loses++) {
            path.leap_loses = loses;
            struct flow flow = run(path, reno, 4);
            assert_true(mbit(&flow, 4) > (loses ? 70 : 85));
            assert_true(flow.recovery.srtt < 100 * TIME_MS);
            assert_int_equal(flow.recovery.timeouts, 1);
        }
    }
}

static void test_long_naps(void **state)
{
    (void)state;
    for (unsigned delay = 200; delay <= 5000; delay += 200) {
        struct path path = {.rate = 10000 * MBIT, .delay = delay * TIME_US};
        path.nap = 10 * TIME_MS + 6 * path.delay;
        struct flow flow = run(path, false, 5);
        assert_true(mbit(&flow, 5) > 50);
    }
}

static void test_beside_reno(void **state)
{
    (void)state;
    struct flow flows[2] = {{.reno = true}, {.starts = TIME_S}};
    const struct path path = {.rate = 100 * MBIT, .delay = 5 * TIME_MS, .queue = 200000};
    path_run(&path, flows, 2, 20 * TIME_S);
    assert_true(mbit(&flows[0], 20) > 10); // less than a fair share, but it lives
    assert_true(mbit(&flows[0], 20) + mbit(&flows[1], 20) > 90);
    recovery_free(&flows[0].recovery);
    recovery_free(&flows[1].recovery);
}

static void test_reordering(void **state)
{
    (void)state;
    struct flow flow = run((struct path){.rate = 500 * MBIT, .reorder = 10000}, false, 5);
    assert_true(mbit(&flow, 5) > 450);
    assert_true(flow.recovery.reordering);
    assert_true(flow.recovery.resent_segments < flow.sent / 1000);
}

static void test_lost_acknowledgements_and_duplicates(void **state)
{
    (void)state;
    struct flow flow = run((struct path){.rate = 200 * MBIT,
                                         .queue = 1 << 20,
                                         .loss = 1000,
                                         .ack_loss = 100000,
                                         .duplicate = 10000},
                           false, 5);
    assert_true(mbit(&flow, 5) > 170);
    assert_true(flow.recovery.resent_segments < flow.sent / 100);
}

static void test_without_sack(void **state)
{
    (void)state;
    struct flow flow =
        run((struct path){.rate = 100 * MBIT, .queue = 1 << 20, .loss = 1000, .no_sack = true},
            false, 10);
    assert_true(mbit(&flow, 10) > 20);
    assert_true(flow.recovery.congestion.is_reno);
    assert_true(flow.recovery.resent_segments < flow.sent / 20);
}

static void test_small_window(void **state)
{
    (void)state;
    struct flow flow = run((struct path){.window = 20000, .loss = 1000}, false, 5);
    assert_true(mbit(&flow, 5) > 8); // 20,000 bytes a round trip are 16 Mbit/s
}

// ---- By hand ----

static const struct offer plenty = {
    .unsent = 1 << 20, .window = 1 << 20, .crumb = 1, .frame = 10 * PATH_MSS};

// Sends all that may go; returns the bytes.
static uint32_t send_all(struct recovery *r, const struct offer *offer, uint64_t now)
{
    uint32_t sum = 0;
    for (struct piece piece; (piece = recovery_next(r, offer, now)).len; sum += piece.len)
        recovery_sent(r, &piece, now);
    return sum;
}

static void test_hole_in_a_frame(void **state)
{
    (void)state;
    struct recovery r;
    uint64_t now = TIME_S;
    recovery_init(&r, 0, PATH_MSS, true, false, now);
    assert_int_equal(send_all(&r, &plenty, now), 10 * PATH_MSS);
    now += 10 * TIME_MS;
    // The second of ten is missing; four behind it are there.
    struct acknowledgement a = {.ack = PATH_MSS, .blocks = 1};
    a.sacked[0].left = 2 * PATH_MSS;
    a.sacked[0].right = 6 * PATH_MSS;
    recovery_ack(&r, &a, now);
    assert_int_equal(r.board.lost, PATH_MSS);
    struct piece piece = recovery_next(&r, &plenty, now);
    assert_true(piece.again);
    assert_int_equal(piece.seq, PATH_MSS);
    assert_int_equal(piece.len, PATH_MSS); // no more than what is lost
    recovery_free(&r);
}

// What was sent at once is noted once, however many frames it took, until a part of it is missing.
static void test_burst_of_small_frames(void **state)
{
    (void)state;
    struct recovery r;
    struct offer offer = plenty;
    uint64_t now = TIME_S;
    offer.frame = PATH_MSS;
    recovery_init(&r, 0, PATH_MSS, true, false, now);
    assert_int_equal(send_all(&r, &offer, now), 10 * PATH_MSS);
    assert_int_equal(r.board.count, 1);
    recovery_ack(&r, &(struct acknowledgement){.ack = 2 * PATH_MSS}, now + 10 * TIME_MS);
    assert_int_equal(r.srtt, 10 * TIME_MS);
    assert_true(send_all(&r, &offer, now + 10 * TIME_MS) >= 2 * PATH_MSS);
    assert_int_equal(r.board.count, 2);
    // The fourth is missing, the fifth to eighth are there: only that one is lost.
    struct acknowledgement a = {.ack = 3 * PATH_MSS, .blocks = 1};
    a.sacked[0].left = 4 * PATH_MSS;
    a.sacked[0].right = 8 * PATH_MSS;
    recovery_ack(&r, &a, now + 11 * TIME_MS);
    assert_int_equal(r.board.lost, PATH_MSS);
    assert_int_equal(scoreboard_first_lost(&r.board)->seq, 3 * PATH_MSS);
    recovery_free(&r);
}

static void test_end_arrives_first(void **state)
{
    (void)state;
    struct recovery r;
    recovery_init(&r, 0, PATH_MSS, true, false, TIME_S);
    assert_int_equal(send_all(&r, &plenty, TIME_S), 10 * PATH_MSS);
    // All but the first segment are there, and the FIN behind them, which counts one.
    struct acknowledgement a = {.ack = 0, .blocks = 1};
    a.sacked[0].left = PATH_MSS;
    a.sacked[0].right = 10 * PATH_MSS + 1;
    recovery_ack(&r, &a, TIME_S + 10 * TIME_MS);
    assert_int_equal(r.board.sacked, 9 * PATH_MSS);
    assert_int_equal(r.board.lost, PATH_MSS);
    recovery_free(&r);
}

static void test_last_segment_lost(void **state)
{
    (void)state;
    struct recovery r;
    struct offer offer = {.unsent = 3 * PATH_MSS, .window = 1 << 20, .frame = PATH_MSS, .crumb = 1};
    uint64_t now = TIME_S;
    recovery_init(&r, 0, PATH_MSS, true, false, now);
    assert_int_equal(send_all(&r, &offer, now), 10 * PATH_MSS);
    offer.unsent = 0;
    now += 10 * TIME_MS;
    recovery_ack(&r, &(struct acknowledgement){.ack = 9 * PATH_MSS}, now);
    assert_int_equal(send_all(&r, &offer, now), 0);
    // Long before the time-out.
    uint64_t due = recovery_deadline(&r);
    assert_in_range(due - now, 10 * TIME_MS, 100 * TIME_MS);
    assert_true(recovery_timer(&r, due));
    assert_int_equal(send_all(&r, &offer, due), PATH_MSS);
    assert_int_equal(r.probes, 1);
    assert_int_equal(r.timeouts, 0);
    recovery_ack(&r, &(struct acknowledgement){.ack = 10 * PATH_MSS}, due + 10 * TIME_MS);
    assert_int_equal(recovery_deadline(&r), UINT64_MAX);
    recovery_free(&r);
}

static void test_time_outs(void **state)
{
    (void)state;
    struct recovery r;
    uint64_t now = TIME_S, last = 0;
    recovery_init(&r, 0, PATH_MSS, true, false, now);
    send_all(&r, &plenty, now);
    for (unsigned i = 0; i < 6; i++) { // each waits twice as long, and sends one segment
        uint64_t due = recovery_deadline(&r);
        assert_true(due - now >= TIME_S && due - now >= 2 * last);
        last = due - now;
        now = due;
        assert_true(recovery_timer(&r, now));
        assert_int_equal(send_all(&r, &plenty, now), PATH_MSS);
    }
    assert_int_equal(r.backoff, 6);
    // The first answer ends that.
    recovery_ack(&r, &(struct acknowledgement){.ack = PATH_MSS}, now + TIME_MS);
    assert_int_equal(r.backoff, 0);
    assert_true(send_all(&r, &plenty, now + TIME_MS) >= PATH_MSS);
    recovery_free(&r);
}

static void test_thrown_away(void **state)
{
    (void)state;
    struct recovery r;
    uint64_t now = TIME_S;
    recovery_init(&r, 0, PATH_MSS, true, false, now);
    send_all(&r, &plenty, now);
    now += TIME_MS;
    struct acknowledgement a = {.ack = 0, .blocks = 1};
    a.sacked[0].left = PATH_MSS;
    a.sacked[0].right = 10 * PATH_MSS;
    recovery_ack(&r, &a, now);
    // It takes the first segment, but has forgotten the others.
    recovery_ack(&r, &(struct acknowledgement){.ack = PATH_MSS}, now + TIME_MS);
    now = recovery_deadline(&r) == UINT64_MAX ? now + TIME_S : recovery_deadline(&r);
    send_all(&r, &(struct offer){.window = 1 << 20, .frame = PATH_MSS, .crumb = 1}, now);
    for (unsigned i = 0; i < 100 && r.board.una != 10 * PATH_MSS; i++) {
        if (recovery_deadline(&r) != UINT64_MAX)
            now = recovery_deadline(&r);
        recovery_timer(&r, now);
        struct offer offer = {.window = 1 << 20, .frame = PATH_MSS, .crumb = 1};
        struct piece piece = recovery_next(&r, &offer, now);
        if (!piece.len)
            continue;
        recovery_sent(&r, &piece, now);
        if (piece.seq == r.board.una)
            recovery_ack(&r, &(struct acknowledgement){.ack = r.board.una + piece.len}, now + 1);
    }
    assert_int_equal(r.board.una, 10 * PATH_MSS);
    recovery_free(&r);
}

static void test_path_became_narrower(void **state)
{
    (void)state;
    const uint32_t narrow = PATH_MSS - 200;
    struct recovery r;
    uint64_t now = TIME_S;
    recovery_init(&r, 0, PATH_MSS, true, false, now);
    assert_int_equal(send_all(&r, &plenty, now), 10 * PATH_MSS);
    uint32_t cwnd = r.congestion.cwnd;
    now += TIME_MS;
    recovery_too_long(&r);
    r.mss = r.congestion.mss = narrow;
    // All of it goes out again at once, in segments that fit; the path is not fuller than before.
    const struct offer offer = {.window = 1 << 20, .frame = narrow, .crumb = 1};
    struct piece piece = recovery_next(&r, &offer, now);
    assert_true(piece.again && piece.seq == 0 && piece.len <= narrow);
    assert_int_equal(send_all(&r, &offer, now), 10 * PATH_MSS);
    assert_int_equal(r.congestion.cwnd, cwnd);
    recovery_ack(&r, &(struct acknowledgement){.ack = 10 * PATH_MSS}, now + TIME_MS);
    assert_true(r.congestion.cwnd >= cwnd);
    assert_false(r.recovering);
    assert_int_equal(r.timeouts, 0);
    recovery_free(&r);
}

static void test_nonsense_blocks(void **state)
{
    (void)state;
    static const uint32_t edges[][2] = {{5, 5},
                                        {9000, 3000},
                                        {0, 0x80000000},
                                        {0xfffffff0, 10},
                                        {10 * PATH_MSS, 20 * PATH_MSS},
                                        {0x7fffffff, 0x7ffffffe}};
    struct recovery r;
    recovery_init(&r, 0, PATH_MSS, true, false, TIME_S);
    send_all(&r, &plenty, TIME_S);
    for (unsigned i = 0; i < sizeof(edges) / sizeof(edges[0]); i++) {
        struct acknowledgement a = {.ack = 0, .blocks = 1};
        a.sacked[0].left = edges[i][0];
        a.sacked[0].right = edges[i][1];
        recovery_ack(&r, &a, TIME_S + TIME_MS);
        assert_int_equal(r.board.sacked, i < 3 ? 0 : 10);
    }
    recovery_free(&r);
}

static void test_frames_and_windows(void **state)
{
    (void)state;
    struct recovery r;
    struct offer offer = plenty;
    recovery_init(&r, 0, PATH_MSS, true, false, TIME_S);
    // A quarter of the window for sending, in whole segments.
    assert_int_equal(recovery_next(&r, &offer, TIME_S).len, 2 * PATH_MSS);
    offer.frame = PATH_MSS;
    assert_int_equal(recovery_next(&r, &offer, TIME_S).len, PATH_MSS);
    // A window of less than a segment: not unless it is worth it.
    offer.window = 1000;
    offer.crumb = 1001;
    struct piece piece = recovery_next(&r, &offer, TIME_S);
    assert_true(piece.len == 0 && piece.window);
    offer.crumb = 1000;
    assert_int_equal(recovery_next(&r, &offer, TIME_S).len, 1000);
    offer.window = 0;
    piece = recovery_next(&r, &offer, TIME_S);
    assert_true(piece.len == 0 && piece.window);
    // The last bytes wait for what is under way (Nagle), but not alone nor if told.
    offer = plenty;
    offer.unsent = 100;
    piece = recovery_next(&r, &offer, TIME_S);
    assert_int_equal(piece.len, 100);
    recovery_sent(&r, &piece, TIME_S);
    assert_int_equal(recovery_next(&r, &offer, TIME_S).len, 0);
    offer.small = true;
    assert_int_equal(recovery_next(&r, &offer, TIME_S).len, 100);
    recovery_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fills_the_path),
        cmocka_unit_test(test_loss_alone_is_no_reason),
        cmocka_unit_test(test_too_much_loss_is),
        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_pause),
        cmocka_unit_test(test_long_naps),
        cmocka_unit_test(test_beside_reno),
        cmocka_unit_test(test_reordering),
        cmocka_unit_test(test_lost_acknowledgements_and_duplicates),
        cmocka_unit_test(test_without_sack),
        cmocka_unit_test(test_small_window),
        cmocka_unit_test(test_hole_in_a_frame),
        cmocka_unit_test(test_burst_of_small_frames),
        cmocka_unit_test(test_end_arrives_first),
        cmocka_unit_test(test_last_segment_lost),
        cmocka_unit_test(test_time_outs),
        cmocka_unit_test(test_thrown_away),
        cmocka_unit_test(test_path_became_narrower),
        cmocka_unit_test(test_nonsense_blocks),
        cmocka_unit_test(test_frames_and_windows),
    };
    return cmocka_run_group_tests_name("recovery", tests, NULL, NULL);
}
