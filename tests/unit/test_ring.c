// SPDX-License-Identifier: BSD-2-Clause
// Rings: arithmetic at the wrap and when full, the decisions to signal, what a hostile peer may write,
// and two threads that pass random packets and must not lose a wake-up.
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "drivers/vmbus/ring.h"

#define RING_BYTES 8192u // header page and 4096 bytes of data
#define DATA_BYTES 4096u

static uint8_t pages[RING_BYTES] __attribute__((aligned(4096)));

struct ends { // both ends of one ring
    struct ring_out out;
    struct ring_in in;
    struct ring_header *header;
};

static struct ends make_ring(void)
{
    struct ends e;

    memset(pages, 0xee, sizeof(pages));
    ring_in_init(&e.in, pages, RING_BYTES);
    ring_out_init(&e.out, pages, RING_BYTES);
    e.header = (void *)pages;
    return e;
}

static bool put(struct ring_out *out, uint64_t id, const void *payload, uint32_t len)
{
    struct packet_descriptor d = {.type = PACKET_INBAND, .transaction_id = id};
    struct ring_vec vec = {payload, len};

    return ring_out_put(out, &d, sizeof(d), &vec, 1);
}

static void test_init(void **state)
{
    struct ends e = make_ring();

    (void)state;
    assert_int_equal(e.header->features, 1);
    assert_int_equal(e.header->read_index, 0);
    assert_int_equal(e.header->write_index, 0);
    assert_int_equal(e.header->pending_send_size, 0);
    assert_int_equal(e.header->interrupt_mask, 0);
    assert_int_equal(ring_out_free(&e.out, 0), DATA_BYTES);
}

static void test_layout_on_the_wire(void **state)
{
    struct ends e = make_ring();
    struct packet_descriptor d;
    uint64_t trailer;

    (void)state;
    assert_true(put(&e.out, 7, "abcde", 5));
    ring_out_publish(&e.out);
    memcpy(&d, pages + 4096, sizeof(d));
    assert_int_equal(d.type, PACKET_INBAND);
    assert_int_equal(d.header_qwords, 2);
    assert_int_equal(d.total_qwords, 3);
    assert_int_equal(d.transaction_id, 7);
    assert_memory_equal(pages + 4096 + 16, "abcde\0\0\0", 8);
    assert_int_equal(e.header->write_index, 32);

    assert_true(put(&e.out, 8, "", 0));
    ring_out_publish(&e.out);
    memcpy(&trailer, pages + 4096 + 32 + 16, 8);
    assert_true(trailer == 32ull << 32); // where its packet starts
    assert_int_equal(e.header->write_index, 56);
}

static void test_every_wrap_position(void **state)
{
    (void)state;
    for (uint32_t start = 0; start < DATA_BYTES; start += 8) {
        struct ends e = make_ring();
        uint8_t sent[100], got[104];
        struct ring_packet p;

        e.out.write = e.out.published = e.out.read = start;
        e.in.read = e.in.published = e.in.write = start;
        e.header->write_index = e.header->read_index = start;
        for (unsigned i = 0; i < sizeof(sent); i++)
            sent[i] = (uint8_t)(i + start);
        assert_true(put(&e.out, start + 1, sent, sizeof(sent)));
        ring_out_publish(&e.out);
        assert_true(ring_in_next(&e.in, &p));
        assert_int_equal(p.type, PACKET_INBAND);
        assert_int_equal(p.header_len, 16);
        assert_int_equal(p.payload_len, 104);
        assert_int_equal(p.transaction_id, start + 1);
        ring_copy_out(&e.in, &p, p.header_len, got, 104);
        assert_memory_equal(got, sent, sizeof(sent));
        assert_false(ring_in_next(&e.in, &p));
        assert_false(e.in.dead);
        ring_in_release(&e.in);
        assert_int_equal(e.header->read_index, (start + 128) % DATA_BYTES);
        assert_int_equal(ring_out_free(&e.out, DATA_BYTES - 1), DATA_BYTES);
    }
}

static void test_never_quite_full(void **state)
{
    struct ends e = make_ring();
    static uint8_t big[DATA_BYTES];
    struct ring_packet p;

    (void)state;
    // Exactly all of it would look empty.
    assert_false(put(&e.out, 1, big, DATA_BYTES - 24));
    assert_int_equal(e.out.write, 0);
    assert_true(put(&e.out, 1, big, DATA_BYTES - 32));
    assert_int_equal(ring_out_free(&e.out, 0), 8);
    assert_false(put(&e.out, 2, "", 0));
    ring_out_publish(&e.out);
    assert_true(ring_in_next(&e.in, &p));
    assert_false(put(&e.out, 2, "", 0)); // read but not released
    ring_in_release(&e.in);
    assert_true(put(&e.out, 2, "", 0));
}

static void test_signal_only_when_it_was_empty(void **state)
{
    struct ends e = make_ring();
    struct ring_packet p;

    (void)state;
    assert_false(ring_out_publish(&e.out)); // nothing to show
    put(&e.out, 1, "x", 1);
    put(&e.out, 2, "x", 1);
    assert_true(ring_out_publish(&e.out)); // one signal for the batch
    put(&e.out, 3, "x", 1);
    assert_false(ring_out_publish(&e.out)); // the reader has not caught up
    while (ring_in_next(&e.in, &p))
        ;
    ring_in_release(&e.in);
    put(&e.out, 4, "x", 1);
    assert_true(ring_out_publish(&e.out));
    while (ring_in_next(&e.in, &p))
        ;
    ring_in_release(&e.in);
    ring_in_mask(&e.in);
    put(&e.out, 5, "x", 1);
    assert_false(ring_out_publish(&e.out)); // masked
    assert_true(ring_in_unmask(&e.in));     // but not lost
    assert_int_equal(e.header->interrupt_mask, 1);
    assert_true(ring_in_next(&e.in, &p));
    assert_false(ring_in_unmask(&e.in));
    assert_int_equal(e.header->interrupt_mask, 0);
}

static void test_unpublished_is_invisible(void **state)
{
    struct ends e = make_ring();
    struct ring_packet p;

    (void)state;
    put(&e.out, 1, "x", 1);
    assert_false(ring_in_next(&e.in, &p));
    ring_out_publish(&e.out);
    assert_true(ring_in_next(&e.in, &p));
}

static void test_pending_send_size(void **state)
{
    struct ends e = make_ring();
    static uint8_t block[1000];
    struct ring_packet p;

    (void)state;
    assert_true(ring_out_want_room(&e.out, 100)); // there is
    assert_int_equal(e.header->pending_send_size, 0);
    for (unsigned i = 0; i < 4; i++) // 1024 bytes each but the last
        assert_true(put(&e.out, i + 1, block, i == 3 ? 900 : 1000));
    ring_out_publish(&e.out);
    assert_false(put(&e.out, 9, block, 900));
    assert_false(ring_out_want_room(&e.out, 2000));
    assert_int_equal(e.header->pending_send_size, 2000);

    // The reader signals once, when the free space crosses what is wanted.
    assert_true(ring_in_next(&e.in, &p));
    assert_false(ring_in_release(&e.in));
    assert_true(ring_in_next(&e.in, &p));
    assert_true(ring_in_release(&e.in));
    assert_true(ring_in_next(&e.in, &p));
    assert_false(ring_in_release(&e.in)); // it was enough before
    assert_true(ring_out_want_room(&e.out, 2000));
    assert_int_equal(e.header->pending_send_size, 0);

    // A writer without the feature bit polls.
    assert_false(ring_in_release(&e.in));
    e.header->features = 0;
    e.header->pending_send_size = 3000;
    assert_true(ring_in_next(&e.in, &p));
    assert_false(ring_in_release(&e.in));
}

static void test_pending_may_have_slack_bits(void **state)
{
    struct ends e = make_ring();
    static uint8_t block[2000];
    struct ring_packet p;

    (void)state;
    put(&e.out, 1, block, 2000);
    put(&e.out, 2, block, 2000);
    ring_out_publish(&e.out);
    e.header->pending_send_size = DATA_BYTES - 1; // some hosts ask for all of it
    assert_true(ring_in_next(&e.in, &p));
    assert_false(ring_in_release(&e.in));
    assert_true(ring_in_next(&e.in, &p));
    assert_true(ring_in_release(&e.in));
}

// What the host may write into the index of its ring, with one packet there.
static void check_bad_write_index(uint32_t index)
{
    struct ends e = make_ring();
    struct ring_packet p;

    e.header->write_index = index;
    assert_false(ring_in_next(&e.in, &p));
    assert_true(e.in.dead);
    assert_false(ring_in_next(&e.in, &p));
    assert_false(ring_in_release(&e.in));
    assert_false(ring_in_unmask(&e.in));
}

static void test_bad_write_index(void **state)
{
    (void)state;
    check_bad_write_index(DATA_BYTES);
    check_bad_write_index(4);
    check_bad_write_index(0xfffffff8u);
    check_bad_write_index(16); // less than any packet
}

static void test_write_index_must_not_go_back(void **state)
{
    struct ends e = make_ring();
    struct ring_packet p;

    (void)state;
    put(&e.out, 1, "x", 1);
    put(&e.out, 2, "x", 1);
    ring_out_publish(&e.out);
    assert_true(ring_in_next(&e.in, &p));
    assert_true(ring_in_next(&e.in, &p));
    e.header->write_index = 32;
    assert_false(ring_in_next(&e.in, &p));
    assert_true(e.in.dead);
}

static void test_bad_descriptor(void **state)
{
    static const uint16_t bad[][2] = {{0, 3}, {1, 3},      {3, 2},
                                      {2, 4}, {2, 0xffff}, {0xffff, 0xffff}};

    (void)state;
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct ends e = make_ring();
        struct packet_descriptor *d = (void *)(pages + 4096);
        struct ring_packet p;

        put(&e.out, 1, "x", 1); // 24 bytes and the trailer
        ring_out_publish(&e.out);
        d->header_qwords = bad[i][0];
        d->total_qwords = bad[i][1];
        assert_false(ring_in_next(&e.in, &p));
        assert_true(e.in.dead);
    }
}

static void test_bad_read_index(void **state)
{
    static const uint32_t bad[] = {4, DATA_BYTES, 0xfffffff8u, 64 /* beyond what was shown */};

    (void)state;
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct ends e = make_ring();

        put(&e.out, 1, "x", 1);
        ring_out_publish(&e.out);
        put(&e.out, 2, "x", 1); // not shown
        e.header->read_index = bad[i];
        assert_int_equal(ring_out_free(&e.out, DATA_BYTES), 0);
        assert_true(e.out.dead);
        assert_false(put(&e.out, 3, "x", 1));
        assert_false(ring_out_publish(&e.out));
        assert_false(ring_out_want_room(&e.out, 8));
    }
}

// Two threads. A wake-up that does not come within the limit is a lost one.

#define RANDOM_PACKETS 150000u
#define WAKE_LIMIT 5

struct shared_run {
    struct ends e;
    uint32_t packets;
    uint32_t longest; // payload
    unsigned publish; // one of so many packets, at random
    sem_t to_reader, to_writer;
    unsigned lost;
    uint32_t received, wrong;
    uint64_t signals, room_signals;
};

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static bool wait_signal(sem_t *sem)
{
    struct timespec limit;

    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += WAKE_LIMIT;
    return sem_timedwait(sem, &limit) == 0;
}

// The n-th packet: its length and bytes follow from n.
static uint32_t packet_bytes(const struct shared_run *run, uint32_t n, uint8_t *to)
{
    uint32_t state = n;
    uint32_t len = next_random(&state) % run->longest;

    memset(to, (int)(n * 31 + 7), len);
    return len;
}

static void reader_packet(struct shared_run *run, const struct ring_packet *p)
{
    static uint8_t got[2048], want[2048];
    uint32_t len = packet_bytes(run, run->received, want);

    ring_copy_out(&run->e.in, p, p->header_len, got, p->payload_len);
    if (p->transaction_id != run->received || p->payload_len != ((len + 7) & ~7u) ||
        memcmp(got, want, len) != 0)
        run->wrong++;
    run->received++;
}

static void *reader_thread(void *arg)
{
    struct shared_run *run = arg;
    uint32_t random = 99;
    struct ring_packet p;

    while (run->received < run->packets && !run->e.in.dead) {
        unsigned budget = 1 + next_random(&random) % 8;
        bool more = true;

        while (budget-- && (more = ring_in_next(&run->e.in, &p)))
            reader_packet(run, &p);
        if (ring_in_release(&run->e.in)) {
            run->room_signals++;
            sem_post(&run->to_writer);
        }
        if (more)
            continue;
        if (ring_in_unmask(&run->e.in))
            continue;
        if (run->received < run->packets && !wait_signal(&run->to_reader)) {
            run->lost++;
            break;
        }
        ring_in_mask(&run->e.in);
    }
    return NULL;
}

static bool writer_put(struct shared_run *run, uint32_t n, const uint8_t *bytes, uint32_t len)
{
    while (!put(&run->e.out, n, bytes, len)) {
        if (run->e.out.dead)
            return false;
        if (ring_out_publish(&run->e.out)) {
            run->signals++;
            sem_post(&run->to_reader);
        }
        if (ring_out_want_room(&run->e.out, ring_packet_bytes(16, len)))
            continue;
        if (!wait_signal(&run->to_writer)) {
            run->lost++;
            return false;
        }
    }
    return true;
}

static void two_threads(struct shared_run *run)
{
    uint8_t bytes[2048];
    uint32_t random = 1;
    pthread_t reader;

    run->e = make_ring();
    sem_init(&run->to_reader, 0, 0);
    sem_init(&run->to_writer, 0, 0);
    assert_int_equal(pthread_create(&reader, NULL, reader_thread, run), 0);
    for (uint32_t n = 0; n < run->packets; n++) {
        if (!writer_put(run, n, bytes, packet_bytes(run, n, bytes)))
            break;
        if (next_random(&random) % run->publish == 0 && ring_out_publish(&run->e.out)) {
            run->signals++;
            sem_post(&run->to_reader);
        }
    }
    if (ring_out_publish(&run->e.out))
        sem_post(&run->to_reader);
    pthread_join(reader, NULL);
    assert_int_equal(run->lost, 0);
    assert_false(run->e.in.dead);
    assert_false(run->e.out.dead);
    assert_int_equal(run->wrong, 0);
    assert_int_equal(run->received, run->packets);
}

static void test_two_threads(void **state)
{
    static struct shared_run run = {.packets = RANDOM_PACKETS, .longest = 1500, .publish = 4};

    (void)state;
    two_threads(&run);
    assert_true(run.signals < RANDOM_PACKETS / 2); // signals are the exception
}

// Nearly every packet finds the ring empty and its reader about to sleep.
static void test_two_threads_at_the_edge(void **state)
{
    static struct shared_run run = {.packets = 8 * RANDOM_PACKETS, .longest = 2, .publish = 1};

    (void)state;
    two_threads(&run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_init),
        cmocka_unit_test(test_layout_on_the_wire),
        cmocka_unit_test(test_every_wrap_position),
        cmocka_unit_test(test_never_quite_full),
        cmocka_unit_test(test_signal_only_when_it_was_empty),
        cmocka_unit_test(test_unpublished_is_invisible),
        cmocka_unit_test(test_pending_send_size),
        cmocka_unit_test(test_pending_may_have_slack_bits),
        cmocka_unit_test(test_bad_write_index),
        cmocka_unit_test(test_write_index_must_not_go_back),
        cmocka_unit_test(test_bad_descriptor),
        cmocka_unit_test(test_bad_read_index),
        cmocka_unit_test(test_two_threads),
        cmocka_unit_test(test_two_threads_at_the_edge),
    };
    return cmocka_run_group_tests_name("ring", tests, NULL, NULL);
}
