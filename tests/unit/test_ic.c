// SPDX-License-Identifier: BSD-2-Clause
// The integration services: the host's side of each ring is played here, VMBus below them is replaced.
// The frame of messages and what of it is wrong, versions, each service's answers, a host that does not
// read.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "drivers/ic/ic.h"
#include "drivers/ic/kvp.h"
#include "drivers/ic/service.h"
#include "drivers/ic/utf16.h"
#include "kernel/alloc.h"
#include "kernel/log.h"
#include "kernel/power.h"
#include "kernel/time.h"
#include "kernel/utc.h"

// What is below and above the services.

static struct vmbus_driver *drivers[8];
static unsigned driver_count;
static struct ring_in host_in;   // what the guest says
static struct ring_out host_out; // what the host says
static struct channel *channel;
static bool open_fails;
static unsigned failed; // channels
static size_t pages, objects;
static const char *order[8]; // what happened, in this order
static unsigned orders;

static void happened(const char *what)
{
    order[orders++ % 8] = what;
}

void vmbus_register_driver(struct vmbus_driver *driver)
{
    drivers[driver_count++] = driver;
}

int channel_open(struct channel *c, struct vmbus_device *device, unsigned core, uint32_t bytes,
                 const struct channel_ops *ops, void *ctx)
{
    if (open_fails)
        return -EIO;
    *c = (struct channel){.device = device, .core = core, .ops = ops, .ctx = ctx};
    char *memory = aligned_alloc(PAGE_SIZE, 2 * bytes);
    ring_out_init(&c->out, memory, bytes);
    ring_in_init(&c->in, memory + bytes, bytes);
    ring_in_init(&host_in, memory, bytes);
    ring_out_init(&host_out, memory + bytes, bytes);
    c->state = CHANNEL_OPEN;
    channel = c;
    return 0;
}

int channel_close(struct channel *c)
{
    free(c->out.header);
    c->state = CHANNEL_CLOSED;
    return 0;
}

void channel_publish(struct channel *c)
{
    if (ring_out_publish(&c->out))
        happened("signal");
}

void channel_release(struct channel *c)
{
    ring_in_release(&c->in);
}

void channel_fail(struct channel *c, const char *why)
{
    (void)why;
    c->state = CHANNEL_DEAD;
    failed++;
}

void *page_alloc(size_t count)
{
    pages += count;
    return aligned_alloc(PAGE_SIZE, count * PAGE_SIZE);
}

void page_free(void *memory, size_t count)
{
    pages -= count;
    free(memory);
}

void *heap_alloc(size_t size)
{
    objects++;
    return malloc(size);
}

void heap_free(void *object)
{
    objects--;
    free(object);
}

static uint64_t now = 1000 * TIME_S;

uint64_t time_now(void)
{
    return now;
}

static void (*fiber)(void *arg);
static bool fibers_fail, rescinded;

int fiber_spawn(const char *name, void (*fn)(void *arg), void *arg)
{
    (void)name, (void)arg;
    if (fibers_fail)
        return -ENOMEM;
    fiber = fn;
    return 0;
}

void fiber_sleep(uint64_t duration)
{
    now += duration;
}

int device_wait(struct vmbus_device *device, struct event *event, uint64_t timeout)
{
    (void)device, (void)event;
    now += timeout;
    return rescinded ? -ENODEV : -ETIMEDOUT;
}

static struct {
    uint64_t utc, at;
    bool sync;
} taken;

bool utc_take(uint64_t utc, uint64_t at, bool sync)
{
    taken.utc = utc, taken.at = at, taken.sync = sync;
    happened("time");
    return at <= now;
}

static struct {
    enum power_end end;
    bool forced;
    uint64_t within;
} ended;

void power_end(enum power_end end, bool forced, uint64_t within)
{
    ended.end = end, ended.forced = forced, ended.within = within;
    happened("end");
}

// The client.

static enum ic_state the_state = IC_STATE_HEALTHY;
static struct ic_ip_info nic, configured;
static int configure_result;

static enum ic_state state_now(void)
{
    return the_state;
}

static void addresses(enum ic_family family, char *out, size_t size)
{
    snprintf(out, size, "%s", family == IC_IP4 ? "10.0.0.5;10.1.0.5" : "fe80::1");
}

static bool ip_info(const char *adapter, struct ic_ip_info *out)
{
    if (strcmp(adapter, "00:15:5D:44:4C:00") != 0)
        return false;
    *out = nic;
    return true;
}

static int set_ip_info(const char *adapter, const struct ic_ip_info *in)
{
    configured = *in;
    return strncmp(adapter, "{4e494300", 9) == 0 ? configure_result : -ENODEV;
}

static const struct ic_client client = {
    .state = state_now, .addresses = addresses, .ip_info = ip_info, .set_ip_info = set_ip_info};

// The host.

static struct ic_service *const services[] = {&ic_shutdown_service, &ic_heartbeat_service,
                                              &ic_timesync_service, &ic_kvp_service};
static struct vmbus_device device;
static struct ic_service *service;

static void come(struct ic_service *s)
{
    service = s;
    device = (struct vmbus_device){.driver = &s->driver, .class_id = s->driver.class_id};
    assert_int_equal(s->driver.probe(&device), 0);
    orders = 0;
}

static void go(void)
{
    service->driver.remove(&device);
    assert_int_equal(pages, 0);
}

static void turn(void)
{
    while (channel->state == CHANNEL_OPEN && channel->ops->poll(channel->ctx))
        ;
}

static void put(uint16_t type, const void *payload, uint32_t size)
{
    struct packet_descriptor d = {.type = type, .transaction_id = 77};
    struct ring_vec vec = {payload, size};

    assert_true(ring_out_put(&host_out, &d, sizeof(d), &vec, 1));
    ring_out_publish(&host_out);
}

static struct { // the last answer
    struct ic_header header;
    uint8_t body[3 * PAGE_SIZE];
} reply;
static uint32_t reply_size; // 0: there is none

static void take_reply(void)
{
    struct ring_packet p;

    reply_size = 0;
    if (!ring_in_next(&host_in, &p))
        return;
    assert_int_equal(p.type, PACKET_INBAND);
    assert_int_equal(p.flags, 0);
    assert_in_range(p.payload_len, sizeof(reply.header), sizeof(reply));
    ring_copy_out(&host_in, &p, p.header_len, &reply, p.payload_len);
    reply_size = p.payload_len;
    ring_in_release(&host_in);
}

static struct {
    struct ic_header header;
    uint8_t body[3 * PAGE_SIZE];
} message;

static void prepare(uint16_t type, const void *body, uint32_t size)
{
    message.header = (struct ic_header){.pipe_type = 1,
                                        .pipe_length = 20 + size,
                                        .framework = {3, 0},
                                        .type = type,
                                        .message = {3, 0},
                                        .body_size = (uint16_t)size,
                                        .status = 0x1234,
                                        .transaction = 200,
                                        .flags = IC_TRANSACTION | IC_REQUEST};
    if (body)
        memcpy(message.body, body, size);
}

static void send_message(uint32_t size)
{
    put(PACKET_INBAND, &message, sizeof(message.header) + size);
    turn();
    take_reply();
}

// Asks, and checks what all answers have in common. Returns the status.
static uint32_t ask(uint16_t type, const void *body, uint32_t size)
{
    prepare(type, body, size);
    send_message(size);
    assert_in_range(reply_size, 28 + size, (28 + size + 7) & ~7u); // padded on the ring
    assert_int_equal(reply.header.type, type);
    assert_int_equal(reply.header.flags, IC_TRANSACTION | IC_RESPONSE);
    assert_int_equal(reply.header.transaction, 200);
    return reply.header.status;
}

static bool negotiate(const struct ic_version *frameworks, unsigned framework_count,
                      const struct ic_version *versions, unsigned count)
{
    struct {
        struct ic_negotiate head;
        struct ic_version versions[64];
    } n = {
        .head = {.framework_count = (uint16_t)framework_count, .message_count = (uint16_t)count}};
    struct ic_negotiate head;

    memcpy(n.versions, frameworks, framework_count * 4);
    memcpy(n.versions + framework_count, versions, count * 4);
    assert_int_equal(ask(IC_NEGOTIATE, &n, 8 + 4 * (framework_count + count)), IC_OK);
    assert_int_equal(reply.header.body_size, 16);
    memcpy(&head, reply.body, sizeof(head));
    if (head.framework_count == 0) {
        assert_int_equal(head.message_count, 0);
        return false;
    }
    assert_int_equal(head.framework_count, 1);
    assert_int_equal(head.message_count, 1);
    return true;
}

static struct ic_version answered(unsigned i)
{
    struct ic_version v;

    memcpy(&v, reply.body + 8 + 4 * i, 4);
    return v;
}

static const struct ic_version both[] = {{1, 0}, {3, 0}};

static void ready(struct ic_service *s, uint16_t major)
{
    struct ic_version v = {major, 0};

    come(s);
    assert_true(negotiate(both, 2, &v, 1));
    assert_int_equal(answered(1).major, major);
    orders = 0;
}

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
        assert_memory_equal(reply.body + 12, &best[i], 4);
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
    assert_int_equal(reply.body[0], 1);
    assert_int_equal(ask(IC_NEGOTIATE, body, 16), IC_OK); // the last version lies outside
    assert_int_equal(reply.body[0], 0);
    assert_int_equal(ask(IC_NEGOTIATE, body, 4), IC_OK);
    assert_int_equal(reply.body[0], 0);
    body[0] = 101;
    assert_int_equal(ask(IC_NEGOTIATE, body, 1000), IC_OK);
    assert_int_equal(reply.body[0], 0);
    body[1] = 0xff, body[3] = 0xff;
    assert_int_equal(ask(IC_NEGOTIATE, body, 1000), IC_OK);
    assert_int_equal(reply.body[0], 0);
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
    message.header.pipe_length = 41; // 36 are there, and 4 to fill up
    send_message(sizeof(h));
    assert_int_equal(reply_size, 0);
    prepare(IC_HEARTBEAT, &h, sizeof(h));
    message.header.body_size = 25;
    send_message(sizeof(h) + 4);
    assert_int_equal(reply_size, 0);
    prepare(IC_HEARTBEAT, &h, sizeof(h));
    message.header.flags = IC_RESPONSE;
    send_message(sizeof(h));
    assert_int_equal(reply_size, 0);
    put(PACKET_INBAND, &message, 24); // shorter than a header
    put(PACKET_COMPLETION, &message, 48);
    turn();
    take_reply();
    assert_int_equal(reply_size, 0);
    assert_int_equal(ic_heartbeat_service.bad, bad + 5);
    assert_int_equal(ask(IC_HEARTBEAT, &h, sizeof(h)), IC_OK);
    go();
}

// The longest that the ring takes: its answer, of the same length, fits too.
static void test_full_ring(void **state)
{
    struct ic_heartbeat h = {.sequence = 1};
    uint32_t most = host_out.size - 2 * PACKET_TRAILER - sizeof(struct packet_descriptor) -
                    sizeof(message.header);

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
    failed = 0;
    atomic_store(&host_out.header->write_index, 13);
    turn();
    assert_int_equal(failed, 1);
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
        put(PACKET_INBAND, &message, sizeof(message.header) + sizeof(body));
        turn();
    }
    for (; asked < 7; asked++)
        put(PACKET_INBAND, &message, sizeof(message.header) + sizeof(body));
    turn();
    assert_int_equal(ic_kvp_service.requests, requests + 5); // 4 on the ring, one in hand
    assert_int_not_equal(atomic_load(&host_in.header->pending_send_size), 0);
    for (take_reply(); reply_size; take_reply(), got++)
        turn();
    assert_int_equal(got, asked);
    assert_int_equal(atomic_load(&host_in.header->pending_send_size), 0);
    go();
}

static void test_one_of_each(void **state)
{
    struct vmbus_device second = {.driver = &ic_kvp_service.driver};

    (void)state;
    come(&ic_kvp_service);
    assert_int_equal(ic_kvp_service.driver.probe(&second), -ENOSPC);
    go();
    open_fails = true;
    assert_int_equal(ic_kvp_service.driver.probe(&second), -EIO);
    open_fails = false;
    rescinded = true;
    assert_int_equal(ic_kvp_service.driver.probe(&second), -ENODEV);
    rescinded = false;
    assert_int_equal(pages, 0);
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
        the_state = IC_STATE_CRITICAL;
        assert_int_equal(ask(IC_HEARTBEAT, &h, sizeof(h)), IC_OK);
        struct ic_heartbeat r;
        memcpy(&r, reply.body, sizeof(r));
        assert_int_equal(r.sequence, 0);
        assert_int_equal(r.state, IC_STATE_CRITICAL);
        the_state = IC_STATE_HEALTHY;
        assert_int_equal(ask(IC_HEARTBEAT, old, sizeof(old)), IC_OK);
        assert_int_equal(reply.body[0], 8);
        assert_int_equal(reply.body[8], IC_STATE_HEALTHY);
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
    t.reference = now - 3;
    t.flags = IC_TIME_SYNC;
    assert_int_equal(ask(IC_TIMESYNC, &t, sizeof(t)), IC_OK);
    assert_int_equal(taken.utc, 5);
    assert_int_equal(taken.at, now - 3);
    assert_true(taken.sync);
    t.flags = IC_TIME_SAMPLE;
    assert_int_equal(ask(IC_TIMESYNC, &t, sizeof(t)), IC_OK);
    assert_false(taken.sync);
    orders = 0;
    t.flags = 0;
    assert_int_equal(ask(IC_TIMESYNC, &t, sizeof(t)), IC_OK);
    t.flags = IC_TIME_SYNC;
    assert_int_equal(ask(IC_TIMESYNC, &t, 12), IC_INVALID);
    t.host_time = IC_UNIX_EPOCH - 1;
    assert_int_equal(ask(IC_TIMESYNC, &t, sizeof(t)), IC_INVALID);
    for (unsigned i = 0; i < orders; i++)
        assert_string_equal(order[i], "signal");            // the clock heard of none of the three
    t.host_time = IC_UNIX_EPOCH + 5, t.reference = now + 1; // the clock refuses it
    assert_int_equal(ask(IC_TIMESYNC, &t, sizeof(t)), IC_INVALID);
    go();
    for (uint16_t major = 1; major <= 3; major += 2) {
        ready(&ic_timesync_service, major);
        assert_int_equal(ask(IC_TIMESYNC, &old, sizeof(old)), IC_OK);
        assert_int_equal(taken.utc, 9);
        assert_int_equal(taken.at, now);
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
            orders = 0;
            assert_int_equal(ask(IC_SHUTDOWN, &s, sizeof(s)), IC_OK);
            assert_int_equal(orders, 1);
            assert_string_equal(order[0], "signal"); // the answer first
            uint64_t then = now;
            fiber(NULL);
            assert_int_equal(now, then); // it is read
            assert_int_equal(orders, 2);
            assert_string_equal(order[1], "end");
            assert_int_equal(ended.end, s.flags < 2 ? POWER_OFF : POWER_RESTART);
            assert_int_equal(ended.forced, s.flags & 1);
            assert_int_equal(ended.within, 30 * TIME_S);
        }
        for (s.flags = 4; s.flags < 7; s.flags++) {
            orders = 0;
            assert_int_equal(ask(IC_SHUTDOWN, &s, sizeof(s)), IC_FAIL);
            assert_int_equal(orders, 1);
        }
        s.flags = 0;
        orders = 0;
        assert_int_equal(ask(IC_SHUTDOWN, &s, 4), IC_INVALID);
        assert_int_equal(orders, 1);
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
        put(PACKET_INBAND, &message, sizeof(message.header) + sizeof(s));
        turn();
        orders = 0;
        if (gone)
            go();
        uint64_t then = now;
        fiber(NULL);
        assert_in_range(now - then, gone ? 0 : 200 * TIME_MS, gone ? 0 : 201 * TIME_MS);
        assert_int_equal(orders, 1);
        if (!gone)
            go();
    }
    come(&ic_shutdown_service);
    assert_true(negotiate(both, 2, &version, 1));
    fibers_fail = true;
    orders = 0;
    assert_int_equal(ask(IC_SHUTDOWN, &s, sizeof(s)), IC_OK);
    assert_string_equal(order[1], "end");
    fibers_fail = false;
    go();
}

// Key-value pairs.

static struct kvp_enumerate kvp; // the largest: all but those of IP have its size

static uint32_t ask_kvp(unsigned operation, unsigned pool)
{
    kvp.header = (struct kvp_header){.operation = (uint8_t)operation, .pool = (uint8_t)pool};
    uint32_t status = ask(IC_KVP, &kvp, sizeof(kvp));
    memcpy(&kvp, reply.body, sizeof(kvp));
    return status;
}

// The body of get and set begins where that of enumerate has its index.
static struct kvp_exchange *pair(void)
{
    return (struct kvp_exchange *)&kvp;
}

static void set_key(const char *key)
{
    struct kvp_exchange *e = pair();

    memset(&e->data, 0, sizeof(e->data));
    e->data.key_size = (uint32_t)utf16_from_ascii(e->data.key, KVP_KEY_BYTES, key);
}

static uint32_t set_pair(unsigned pool, const char *key, const char *value)
{
    struct kvp_exchange *e = pair();

    set_key(key);
    e->data.type = KVP_STRING;
    e->data.value_size = (uint32_t)utf16_from_ascii(e->data.value, KVP_VALUE_BYTES, value);
    return ask_kvp(KVP_SET, pool);
}

static const char *text_of(const uint8_t *field, size_t size)
{
    static char text[KVP_VALUE_BYTES];

    assert_true(utf16_to_ascii(field, size, text, sizeof(text)));
    assert_int_equal(utf16_size(field, size), size);
    return text;
}

static uint32_t get_pair(unsigned pool, const char *key, const char *expected)
{
    set_key(key);
    uint32_t status = ask_kvp(KVP_GET, pool);
    if (status == IC_OK) {
        assert_int_equal(pair()->data.type, KVP_STRING);
        assert_string_equal(text_of(pair()->data.value, pair()->data.value_size), expected);
    }
    return status;
}

static void delete_pair(unsigned pool, const char *key, uint32_t expected)
{
    struct kvp_delete *d = (struct kvp_delete *)&kvp;

    d->key_size = (uint32_t)utf16_from_ascii(d->key, sizeof(d->key), key);
    assert_int_equal(ask_kvp(KVP_DELETE, pool), expected);
}

static void test_pools(void **state)
{
    unsigned entries, bytes;

    (void)state;
    ready(&ic_kvp_service, 4);
    assert_int_equal(get_pair(KVP_EXTERNAL, "color", ""), IC_NO_MORE);
    assert_int_equal(set_pair(KVP_EXTERNAL, "color", "red"), IC_OK);
    assert_int_equal(set_pair(KVP_AUTO_EXTERNAL, "color", "green"), IC_OK);
    assert_int_equal(set_pair(KVP_EXTERNAL, "size", ""), IC_OK);
    assert_int_equal(set_pair(KVP_EXTERNAL, "color", "dark blue"), IC_OK); // replaces
    assert_int_equal(get_pair(KVP_EXTERNAL, "color", "dark blue"), IC_OK);
    assert_int_equal(get_pair(KVP_AUTO_EXTERNAL, "color", "green"), IC_OK);
    assert_int_equal(get_pair(KVP_EXTERNAL, "colo", ""), IC_NO_MORE);
    assert_int_equal(set_pair(KVP_GUEST, "color", "red"), IC_FAIL);
    assert_int_equal(set_pair(KVP_AUTO, "OSName", "Linux"), IC_FAIL);
    assert_int_equal(set_pair(KVP_POOLS, "color", "red"), IC_INVALID);
    kvp.index = 0;
    assert_int_equal(ask_kvp(KVP_ENUMERATE, KVP_EXTERNAL), IC_OK);
    assert_string_equal(text_of(kvp.data.key, kvp.data.key_size), "color");
    assert_string_equal(text_of(kvp.data.value, kvp.data.value_size), "dark blue");
    kvp.index = 1;
    assert_int_equal(ask_kvp(KVP_ENUMERATE, KVP_EXTERNAL), IC_OK);
    assert_string_equal(text_of(kvp.data.key, kvp.data.key_size), "size");
    kvp.index = 2;
    assert_int_equal(ask_kvp(KVP_ENUMERATE, KVP_EXTERNAL), IC_NO_MORE);
    kvp.index = UINT32_MAX;
    assert_int_equal(ask_kvp(KVP_ENUMERATE, KVP_EXTERNAL), IC_NO_MORE);
    kvp.index = 0;
    assert_int_equal(ask_kvp(KVP_ENUMERATE, KVP_GUEST), IC_NO_MORE);
    delete_pair(KVP_EXTERNAL, "size", IC_OK);
    delete_pair(KVP_EXTERNAL, "size", IC_NO_MORE);
    delete_pair(KVP_AUTO, "OSName", IC_FAIL);
    delete_pair(KVP_EXTERNAL, "", IC_INVALID);
    delete_pair(KVP_EXTERNAL, "color", IC_OK);
    delete_pair(KVP_AUTO_EXTERNAL, "color", IC_OK);
    kvp_pool_sizes(&entries, &bytes);
    assert_int_equal(entries, 0);
    assert_int_equal(bytes, 0);
    assert_int_equal(objects, 0);
    go();
}

// Numbers are kept as they come; what a pair says about its own size is not believed.
static void test_odd_pairs(void **state)
{
    struct kvp_exchange *e = pair();
    uint64_t number = 0x1122334455667788;

    (void)state;
    ready(&ic_kvp_service, 4);
    set_key("n");
    e->data.type = KVP_QWORD;
    memcpy(e->data.value, &number, 8);
    e->data.value_size = UINT32_MAX;
    assert_int_equal(ask_kvp(KVP_SET, KVP_EXTERNAL), IC_OK);
    set_key("n");
    assert_int_equal(ask_kvp(KVP_GET, KVP_EXTERNAL), IC_OK);
    assert_int_equal(e->data.type, KVP_QWORD);
    assert_int_equal(e->data.value_size, 8);
    assert_memory_equal(e->data.value, &number, 8);
    delete_pair(KVP_EXTERNAL, "n", IC_OK);

    static const uint32_t sizes[] = {2049, 2050, 5, UINT32_MAX};
    for (unsigned i = 0; i < 4; i++) {
        set_key("k");
        e->data.type = KVP_STRING;
        e->data.value_size = sizes[i];
        assert_int_equal(ask_kvp(KVP_SET, KVP_EXTERNAL), IC_INVALID);
    }
    set_key("k");
    e->data.type = 3;
    assert_int_equal(ask_kvp(KVP_SET, KVP_EXTERNAL), IC_INVALID);
    set_key("k");
    e->data.type = KVP_STRING;
    memset(e->data.key, 'x', KVP_KEY_BYTES); // no end
    e->data.key_size = UINT32_MAX;
    assert_int_equal(ask_kvp(KVP_SET, KVP_EXTERNAL), IC_INVALID);
    e->data.key_size = 0;
    assert_int_equal(ask_kvp(KVP_GET, KVP_EXTERNAL), IC_INVALID);
    assert_int_equal(ask_kvp(6, KVP_EXTERNAL), IC_FAIL);
    kvp.header.operation = KVP_GET;
    assert_int_equal(ask(IC_KVP, &kvp, 100), IC_INVALID);
    assert_int_equal(ask(IC_KVP, &kvp, 0), IC_INVALID);
    assert_int_equal(objects, 0);
    go();
}

static void test_pools_are_bounded(void **state)
{
    unsigned count = 0, entries, bytes;
    char key[16], value[1024];

    (void)state;
    memset(value, 'v', 1000);
    value[1000] = '\0';
    ready(&ic_kvp_service, 4);
    do
        snprintf(key, sizeof(key), "key %u", count++);
    while (set_pair(count % 2 ? KVP_EXTERNAL : KVP_AUTO_EXTERNAL, key, value) == IC_OK);
    assert_in_range(count, 50, 66);
    assert_int_equal(reply.header.status, IC_FULL);
    kvp_pool_sizes(&entries, &bytes);
    assert_int_equal(entries, count - 1);
    assert_true(bytes <= KVP_POOL_BYTES);
    value[999] = 'w'; // what is there can still be changed
    value[1000] = '\0';
    assert_int_equal(set_pair(KVP_EXTERNAL, "key 0", value), IC_OK);
    assert_int_equal(get_pair(KVP_EXTERNAL, "key 0", value), IC_OK);
    for (unsigned i = 0; i + 1 < count; i++) {
        snprintf(key, sizeof(key), "key %u", i);
        delete_pair(i % 2 ? KVP_AUTO_EXTERNAL : KVP_EXTERNAL, key, IC_OK);
    }
    assert_int_equal(objects, 0);
    go();
}

static void test_about_ourselves(void **state)
{
    unsigned names = 0;

    (void)state;
    ready(&ic_kvp_service, 4);
    assert_int_equal(get_pair(KVP_AUTO, "OSName", "Dunlin"), IC_OK);
    assert_int_equal(get_pair(KVP_AUTO, "NetworkAddressIPv4", "10.0.0.5;10.1.0.5"), IC_OK);
    assert_int_equal(get_pair(KVP_AUTO, "NetworkAddressIPv6", "fe80::1"), IC_OK);
    assert_int_equal(get_pair(KVP_AUTO, "Nothing", ""), IC_NO_MORE);
    for (kvp.index = 0; ask_kvp(KVP_ENUMERATE, KVP_AUTO) == IC_OK; kvp.index = ++names) {
        text_of(kvp.data.key, kvp.data.key_size);
        text_of(kvp.data.value, kvp.data.value_size);
    }
    assert_int_equal(reply.header.status, IC_NO_MORE);
    assert_int_equal(names, 10);
    go();
}

// The configuration of a NIC.

static struct kvp_ip ip;

static uint32_t ask_ip(unsigned operation, const char *adapter)
{
    ip.operation = (uint8_t)operation;
    utf16_from_ascii((uint8_t *)&ip + offsetof(struct kvp_ip, adapter), sizeof(ip.adapter),
                     adapter);
    uint32_t status = ask(IC_KVP, &ip, sizeof(ip));
    memcpy(&ip, reply.body, sizeof(ip));
    return status;
}

static void check_list(size_t at, size_t size, const char *expected)
{
    char text[1024];

    assert_true(utf16_to_ascii((uint8_t *)&ip + at, size, text, sizeof(text)));
    assert_string_equal(text, expected);
}

static void test_get_ip(void **state)
{
    (void)state;
    ready(&ic_kvp_service, 4);
    nic = (struct ic_ip_info){.families = IC_IP4 | IC_IP6,
                              .dhcp = true,
                              .addresses = "10.0.0.5;fe80::1",
                              .subnets = "255.255.255.0;/64",
                              .gateways = "10.0.0.1",
                              .dns = "10.0.0.2;10.0.0.3"};
    assert_int_equal(ask_ip(KVP_GET_IP, "00:15:5D:44:4C:00"), IC_OK);
    assert_int_equal(ip.families, 3);
    assert_int_equal(ip.dhcp, 1);
    check_list(offsetof(struct kvp_ip, addresses), sizeof(ip.addresses), "10.0.0.5;fe80::1");
    check_list(offsetof(struct kvp_ip, subnets), sizeof(ip.subnets), "255.255.255.0;/64");
    check_list(offsetof(struct kvp_ip, gateways), sizeof(ip.gateways), "10.0.0.1");
    check_list(offsetof(struct kvp_ip, dns), sizeof(ip.dns), "10.0.0.2;10.0.0.3");
    assert_int_equal(ask_ip(KVP_GET_IP, "00:15:5D:44:4C:01"), IC_NO_ADAPTER);
    assert_int_equal(ask(IC_KVP, &ip, 7000), IC_INVALID);
    go();
}

static void put_list(size_t at, size_t size, const char *text)
{
    utf16_from_ascii((uint8_t *)&ip + at, size, text);
}

static void test_set_ip(void **state)
{
    static const char guid[] = "{4e494300-6876-4e45-9401-00155d444c00}";

    (void)state;
    ready(&ic_kvp_service, 4);
    memset(&ip, 0, sizeof(ip));
    ip.families = IC_IP4;
    put_list(offsetof(struct kvp_ip, addresses), sizeof(ip.addresses), "192.0.2.7");
    put_list(offsetof(struct kvp_ip, subnets), sizeof(ip.subnets), "255.255.0.0");
    put_list(offsetof(struct kvp_ip, gateways), sizeof(ip.gateways), "192.0.2.1");
    put_list(offsetof(struct kvp_ip, dns), sizeof(ip.dns), "");
    assert_int_equal(ask_ip(KVP_SET_IP, guid), IC_OK);
    assert_false(configured.dhcp);
    assert_int_equal(configured.families, IC_IP4);
    assert_string_equal(configured.addresses, "192.0.2.7");
    assert_string_equal(configured.subnets, "255.255.0.0");
    assert_string_equal(configured.gateways, "192.0.2.1");
    assert_string_equal(configured.dns, "");
    assert_int_equal(ask_ip(KVP_SET_IP, "{00000000-0000-0000-0000-000000000000}"), IC_NO_ADAPTER);
    configure_result = -EINVAL;
    assert_int_equal(ask_ip(KVP_SET_IP, guid), IC_INVALID);
    configure_result = 0;
    memset((uint8_t *)&ip + offsetof(struct kvp_ip, dns), 'x', sizeof(ip.dns)); // no end, not ASCII
    assert_int_equal(ask_ip(KVP_SET_IP, guid), IC_INVALID);
    go();
}

static void test_utf16(void **state)
{
    uint8_t field[8];
    char text[8];

    (void)state;
    assert_int_equal(utf16_from_ascii(field, 8, "abcdef"), 8); // cut off
    assert_true(utf16_to_ascii(field, 8, text, sizeof(text)));
    assert_string_equal(text, "abc");
    assert_false(utf16_to_ascii(field, 8, text, 3));
    assert_false(utf16_to_ascii(field, 6, text, sizeof(text))); // its end lies outside
    assert_int_equal(utf16_size(field, 7), 0);
    field[1] = 1; // no ASCII
    assert_false(utf16_to_ascii(field, 8, text, sizeof(text)));
    assert_int_equal(utf16_from_ascii(field, 2, "x"), 2);
    assert_int_equal(utf16_size(field, 2), 2);
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
        cmocka_unit_test(test_pools),
        cmocka_unit_test(test_odd_pairs),
        cmocka_unit_test(test_pools_are_bounded),
        cmocka_unit_test(test_about_ourselves),
        cmocka_unit_test(test_get_ip),
        cmocka_unit_test(test_set_ip),
        cmocka_unit_test(test_utf16),
    };

    ic_start(&client);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
