// SPDX-License-Identifier: BSD-2-Clause
// The integration services: the frame of messages and what of it is wrong, versions, a host that does
// not read; and the answers of heartbeat, time and shutdown. (Key-value pairs: test_kvp.c.)
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "drivers/ic/kvp.h"
#include "fake_ic.h"
#include "kernel/time.h"

static struct ic_service *const services[] = {&ic_shutdown_service, &ic_heartbeat_service,
                                              &ic_timesync_service, &ic_kvp_service};

// The frame.

static void test_versions(void **state)
{
    static const struct ic_version all[] = {{1, 0}, {3, 0}, {3, 1}, {3, 2}, {4, 0}, {5, 0}};
    static const struct ic_version best[] = {{3, 2}, {3, 0}, {4, 0}, {4, 0}};

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        come(services[i]);
        assert_true(negotiate(both, 2, all, 6));
        assert_int_equal(answered(0).major, 3);
        assert_memory_equal(host.reply.body + 12, &best[i], 4);
        assert_true(negotiate(both, 1, all, 1)); // again: an old host
        assert_int_equal(answered(0).major, 1);
        assert_int_equal(answered(1).major, 1);
        assert_false(negotiate(both, 2, all + 5, 1));
        assert_false(negotiate(all + 5, 1, all, 6));
        assert_false(negotiate(both, 0, all, 0));
        // What cannot be used is refused.
        uint8_t body[2580] = {0};
        assert_int_equal(ask(services[i]->type, body, sizeof(body)), IC_FAIL);
        go();
    }
}

static void test_bad_negotiation(void **state)
{
    struct ic_negotiate n = {.framework_count = 2, .message_count = 1};
    uint8_t body[1000] = {0};

    (void)state;
    come(&ic_heartbeat_service);
    memcpy(body, &n, 8);
    memcpy(body + 8, both, 8);
    memcpy(body + 16, both, 4);
    assert_int_equal(ask(IC_NEGOTIATE, body, 20), IC_OK);
    assert_int_equal(host.reply.body[0], 1);
    assert_int_equal(ask(IC_NEGOTIATE, body, 16), IC_OK); // the last version lies outside
    assert_int_equal(host.reply.body[0], 0);
    assert_int_equal(ask(IC_NEGOTIATE, body, 4), IC_OK);
    assert_int_equal(host.reply.body[0], 0);
    body[0] = 101;
    assert_int_equal(ask(IC_NEGOTIATE, body, 1000), IC_OK);
    assert_int_equal(host.reply.body[0], 0);
    body[1] = 0xff, body[3] = 0xff;
    assert_int_equal(ask(IC_NEGOTIATE, body, 1000), IC_OK);
    assert_int_equal(host.reply.body[0], 0);
    go();
}

// Messages without an answer; the next one has one.
static void test_bad_frames(void **state)
{
    struct ic_heartbeat h = {.sequence = 1};

    (void)state;
    ready(&ic_heartbeat_service, 3);
    uint64_t bad = ic_heartbeat_service.bad;
    prepare(IC_HEARTBEAT, &h, sizeof(h));
    host.message.header.pipe_length = 41; // 36 are there, and 4 to fill up
    send_message(sizeof(h));
    assert_int_equal(host.reply_size, 0);
    prepare(IC_HEARTBEAT, &h, sizeof(h));
    host.message.header.body_size = 25;
    send_message(sizeof(h) + 4);
    assert_int_equal(host.reply_size, 0);
    prepare(IC_HEARTBEAT, &h, sizeof(h));
    host.message.header.flags = IC_RESPONSE;
    send_message(sizeof(h));
    assert_int_equal(host.reply_size, 0);
    put(PACKET_INBAND, &host.message, 24); // shorter than a header
    put(PACKET_COMPLETION, &host.message, 48);
    turn();
    take_reply();
    assert_int_equal(host.reply_size, 0);
    assert_int_equal(ic_heartbeat_service.bad, bad + 5);
    assert_int_equal(ask(IC_HEARTBEAT, &h, sizeof(h)), IC_OK);
    go();
}

// The longest that the ring takes: its answer, of the same length, fits too.
static void test_full_ring(void **state)
{
    struct ic_heartbeat h = {.sequence = 1};
    uint32_t most = host.out.size - 2 * PACKET_TRAILER - sizeof(struct packet_descriptor) -
                    sizeof(host.message.header);

    (void)state;
    ready(&ic_heartbeat_service, 3);
    assert_int_equal(ask(IC_HEARTBEAT, NULL, most), IC_OK);
    assert_int_equal(ask(IC_HEARTBEAT, &h, sizeof(h)), IC_OK);
    go();
}

static void test_broken_ring(void **state)
{
    (void)state;
    ready(&ic_heartbeat_service, 3);
    host.failed = 0;
    atomic_store(&host.out.header->write_index, 13);
    turn();
    assert_int_equal(host.failed, 1);
    go();
}

// A host that reads nothing gets no more than one answer worked out, and no message is lost.
static void test_host_does_not_read(void **state)
{
    static uint8_t body[2580];
    struct kvp_header h = {.operation = KVP_ENUMERATE, .pool = KVP_AUTO};
    unsigned asked = 0, got = 0;

    (void)state;
    ready(&ic_kvp_service, 4);
    uint64_t requests = ic_kvp_service.requests;
    memcpy(body, &h, sizeof(h));
    prepare(IC_KVP, body, sizeof(body));
    for (; asked < 4; asked++) {
        put(PACKET_INBAND, &host.message, sizeof(host.message.header) + sizeof(body));
        turn();
    }
    for (; asked < 7; asked++)
        put(PACKET_INBAND, &host.message, sizeof(host.message.header) + sizeof(body));
    turn();
    assert_int_equal(ic_kvp_service.requests, requests + 5); // 4 on the ring, one in hand
    assert_int_not_equal(atomic_load(&host.in.header->pending_send_size), 0);
    for (take_reply(); host.reply_size; take_reply(), got++)
        turn();
    assert_int_equal(got, asked);
    assert_int_equal(atomic_load(&host.in.header->pending_send_size), 0);
    go();
}

static void test_one_of_each(void **state)
{
    struct vmbus_device second = {.driver = &ic_kvp_service.driver};

    (void)state;
    come(&ic_kvp_service);
    assert_int_equal(ic_kvp_service.driver.probe(&second), -ENOSPC);
    go();
    host.open_fails = true;
    assert_int_equal(ic_kvp_service.driver.probe(&second), -EIO);
    host.open_fails = false;
    host.rescinded = true;
    assert_int_equal(ic_kvp_service.driver.probe(&second), -ENODEV);
    host.rescinded = false;
    assert_int_equal(host.pages, 0);
    come(&ic_kvp_service); // nothing of the failure is left
    go();
}

// Heartbeat.

static void test_heartbeat(void **state)
{
    struct ic_heartbeat h = {.sequence = UINT64_MAX, .state = 99};
    uint8_t old[40] = {7};

    (void)state;
    for (uint16_t major = 1; major <= 3; major += 2) {
        ready(&ic_heartbeat_service, major);
        host.state = IC_STATE_CRITICAL;
        assert_int_equal(ask(IC_HEARTBEAT, &h, sizeof(h)), IC_OK);
        struct ic_heartbeat r;
        memcpy(&r, host.reply.body, sizeof(r));
        assert_int_equal(r.sequence, 0);
        assert_int_equal(r.state, IC_STATE_CRITICAL);
        host.state = IC_STATE_HEALTHY;
        assert_int_equal(ask(IC_HEARTBEAT, old, sizeof(old)), IC_OK);
        assert_int_equal(host.reply.body[0], 8);
        assert_int_equal(host.reply.body[8], IC_STATE_HEALTHY);
        assert_int_equal(ask(IC_HEARTBEAT, old, 8), IC_INVALID);
        assert_int_equal(ask(IC_TIMESYNC, old, 40), IC_FAIL); // another's message
        go();
    }
}

// Time.

static void test_time(void **state)
{
    struct ic_timesync t = {.host_time = IC_UNIX_EPOCH + 5};
    struct ic_timesync_old old = {.host_time = IC_UNIX_EPOCH + 9, .flags = IC_TIME_SAMPLE};

    (void)state;
    ready(&ic_timesync_service, 4);
    t.reference = host.now - 3;
    t.flags = IC_TIME_SYNC;
    assert_int_equal(ask(IC_TIMESYNC, &t, sizeof(t)), IC_OK);
    assert_int_equal(host.taken.utc, 5);
    assert_int_equal(host.taken.at, host.now - 3);
    assert_true(host.taken.sync);
    t.flags = IC_TIME_SAMPLE;
    assert_int_equal(ask(IC_TIMESYNC, &t, sizeof(t)), IC_OK);
    assert_false(host.taken.sync);
    host.orders = 0;
    t.flags = 0;
    assert_int_equal(ask(IC_TIMESYNC, &t, sizeof(t)), IC_OK);
    t.flags = IC_TIME_SYNC;
    assert_int_equal(ask(IC_TIMESYNC, &t, 12), IC_INVALID);
    t.host_time = IC_UNIX_EPOCH - 1;
    assert_int_equal(ask(IC_TIMESYNC, &t, sizeof(t)), IC_INVALID);
    for (unsigned i = 0; i < host.orders; i++)
        assert_string_equal(host.order[i], "signal"); // the clock heard of none of the three
    t.host_time = IC_UNIX_EPOCH + 5, t.reference = host.now + 1; // the clock refuses it
    assert_int_equal(ask(IC_TIMESYNC, &t, sizeof(t)), IC_INVALID);
    go();
    for (uint16_t major = 1; major <= 3; major += 2) {
        ready(&ic_timesync_service, major);
        assert_int_equal(ask(IC_TIMESYNC, &old, sizeof(old)), IC_OK);
        assert_int_equal(host.taken.utc, 9);
        assert_int_equal(host.taken.at, host.now);
        assert_int_equal(ask(IC_TIMESYNC, &old, 16), IC_INVALID);
        go();
    }
}

// Shutdown.

static void test_shutdown(void **state)
{
    static const struct ic_version versions[] = {{1, 0}, {3, 0}, {3, 1}, {3, 2}};
    static struct ic_shutdown s = {.reason = 1, .timeout = 30};

    (void)state;
    for (unsigned v = 0; v < 4; v++) {
        come(&ic_shutdown_service);
        assert_true(negotiate(both, 2, versions + v, 1));
        for (s.flags = 0; s.flags < 4; s.flags++) {
            host.orders = 0;
            assert_int_equal(ask(IC_SHUTDOWN, &s, sizeof(s)), IC_OK);
            assert_int_equal(host.orders, 1);
            assert_string_equal(host.order[0], "signal"); // the answer first
            uint64_t then = host.now;
            host.fiber(NULL);
            assert_int_equal(host.now, then); // it is read
            assert_int_equal(host.orders, 2);
            assert_string_equal(host.order[1], "end");
            assert_int_equal(host.ended.end, s.flags < 2 ? POWER_OFF : POWER_RESTART);
            assert_int_equal(host.ended.forced, s.flags & 1);
            assert_int_equal(host.ended.within, 30 * TIME_S);
        }
        for (s.flags = 4; s.flags < 7; s.flags++) {
            host.orders = 0;
            assert_int_equal(ask(IC_SHUTDOWN, &s, sizeof(s)), IC_FAIL);
            assert_int_equal(host.orders, 1);
        }
        s.flags = 0;
        host.orders = 0;
        assert_int_equal(ask(IC_SHUTDOWN, &s, 4), IC_INVALID);
        assert_int_equal(host.orders, 1);
        go();
    }
}

// What is read late, or never, or when the device has gone, is not waited for for ever.
static void test_shutdown_answer_not_read(void **state)
{
    static const struct ic_version version = {3, 2};
    static struct ic_shutdown s;

    (void)state;
    for (unsigned gone = 0; gone < 2; gone++) {
        come(&ic_shutdown_service);
        assert_true(negotiate(both, 2, &version, 1));
        prepare(IC_SHUTDOWN, &s, sizeof(s));
        put(PACKET_INBAND, &host.message, sizeof(host.message.header) + sizeof(s));
        turn();
        host.orders = 0;
        if (gone)
            go();
        uint64_t then = host.now;
        host.fiber(NULL);
        assert_in_range(host.now - then, gone ? 0 : 200 * TIME_MS, gone ? 0 : 201 * TIME_MS);
        assert_int_equal(host.orders, 1);
        if (!gone)
            go();
    }
    come(&ic_shutdown_service);
    assert_true(negotiate(both, 2, &version, 1));
    host.fibers_fail = true;
    host.orders = 0;
    assert_int_equal(ask(IC_SHUTDOWN, &s, sizeof(s)), IC_OK);
    assert_string_equal(host.order[1], "end");
    host.fibers_fail = false;
    go();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_bad_negotiation),
        cmocka_unit_test(test_bad_frames),
        cmocka_unit_test(test_full_ring),
        cmocka_unit_test(test_broken_ring),
        cmocka_unit_test(test_host_does_not_read),
        cmocka_unit_test(test_one_of_each),
        cmocka_unit_test(test_heartbeat),
        cmocka_unit_test(test_time),
        cmocka_unit_test(test_shutdown),
        cmocka_unit_test(test_shutdown_answer_not_read),
    };

    ic_start(&fake_ic_client);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
