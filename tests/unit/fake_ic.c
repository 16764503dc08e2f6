// SPDX-License-Identifier: BSD-2-Clause
// See fake_ic.h.
#include "fake_ic.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/time.h"
#include "kernel/utc.h"

struct fake_ic host = {.now = 1000 * TIME_S, .state = IC_STATE_HEALTHY};

// What is below and above the services.

static struct vmbus_driver *drivers[8];
static unsigned driver_count;

static void happened(const char *what)
{
    host.order[host.orders++ % 8] = what;
}

void vmbus_register_driver(struct vmbus_driver *driver)
{
    drivers[driver_count++] = driver;
}

int channel_open(struct channel *c, struct vmbus_device *device, unsigned core, uint32_t bytes,
                 const struct channel_ops *ops, void *ctx)
{
    if (host.open_fails)
        return -EIO;
    *c = (struct channel){.device = device, .core = core, .ops = ops, .ctx = ctx};
    char *memory = aligned_alloc(PAGE_SIZE, 2 * bytes);
    ring_out_init(&c->out, memory, bytes);
    ring_in_init(&c->in, memory + bytes, bytes);
    ring_in_init(&host.in, memory, bytes);
    ring_out_init(&host.out, memory + bytes, bytes);
    c->state = CHANNEL_OPEN;
    host.channel = c;
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
    host.failed++;
}

void *page_alloc(size_t count)
{
    host.pages += count;
    return aligned_alloc(PAGE_SIZE, count * PAGE_SIZE);
}

void page_free(void *memory, size_t count)
{
    host.pages -= count;
    free(memory);
}

void *heap_alloc(size_t size)
{
    host.objects++;
    return malloc(size);
}

void heap_free(void *object)
{
    host.objects--;
    free(object);
}

uint64_t time_now(void)
{
    return host.now;
}

int fiber_spawn(const char *name, void (*fn)(void *arg), void *arg)
{
    (void)name, (void)arg;
    if (host.fibers_fail)
        return -ENOMEM;
    host.fiber = fn;
    return 0;
}

void fiber_sleep(uint64_t duration)
{
    host.now += duration;
}

int device_wait(struct vmbus_device *device, struct event *event, uint64_t timeout)
{
    (void)device, (void)event;
    host.now += timeout;
    return host.rescinded ? -ENODEV : -ETIMEDOUT;
}

bool utc_take(uint64_t utc, uint64_t at, bool sync)
{
    host.taken.utc = utc, host.taken.at = at, host.taken.sync = sync;
    happened("time");
    return at <= host.now;
}

void power_end(enum power_end end, bool forced, uint64_t within)
{
    host.ended.end = end, host.ended.forced = forced, host.ended.within = within;
    happened("end");
}

// The client.

static enum ic_state state_now(void)
{
    return host.state;
}

static void addresses(enum ic_family family, char *out, size_t size)
{
    snprintf(out, size, "%s", family == IC_IP4 ? "10.0.0.5;10.1.0.5" : "fe80::1");
}

static bool ip_info(const char *adapter, struct ic_ip_info *out)
{
    if (strcmp(adapter, "00:15:5D:44:4C:00") != 0)
        return false;
    *out = host.nic;
    return true;
}

static int set_ip_info(const char *adapter, const struct ic_ip_info *in)
{
    host.configured = *in;
    return strncmp(adapter, "{4e494300", 9) == 0 ? host.configure_result : -ENODEV;
}

const struct ic_client fake_ic_client = {
    .state = state_now, .addresses = addresses, .ip_info = ip_info, .set_ip_info = set_ip_info};

// The host.

static struct vmbus_device device;
static struct ic_service *service;

void come(struct ic_service *s)
{
    service = s;
    device = (struct vmbus_device){.driver = &s->driver, .class_id = s->driver.class_id};
    assert_int_equal(s->driver.probe(&device), 0);
    host.orders = 0;
}

void go(void)
{
    service->driver.remove(&device);
    assert_int_equal(host.pages, 0);
}

void turn(void)
{
    while (host.channel->state == CHANNEL_OPEN && host.channel->ops->poll(host.channel->ctx))
        ;
}

void put(uint16_t type, const void *payload, uint32_t size)
{
    struct packet_descriptor d = {.type = type, .transaction_id = 77};
    struct ring_vec vec = {payload, size};

    assert_true(ring_out_put(&host.out, &d, sizeof(d), &vec, 1));
    ring_out_publish(&host.out);
}

void take_reply(void)
{
    struct ring_packet p;

    host.reply_size = 0;
    if (!ring_in_next(&host.in, &p))
        return;
    assert_int_equal(p.type, PACKET_INBAND);
    assert_int_equal(p.flags, 0);
    assert_in_range(p.payload_len, sizeof(host.reply.header), sizeof(host.reply));
    ring_copy_out(&host.in, &p, p.header_len, &host.reply, p.payload_len);
    host.reply_size = p.payload_len;
    ring_in_release(&host.in);
}

void prepare(uint16_t type, const void *body, uint32_t size)
{
    host.message.header = (struct ic_header){.pipe_type = 1,
                                             .pipe_length = 20 + size,
                                             .framework = {3, 0},
                                             .type = type,
                                             .message = {3, 0},
                                             .body_size = (uint16_t)size,
                                             .status = 0x1234,
                                             .transaction = 200,
                                             .flags = IC_TRANSACTION | IC_REQUEST};
    if (body)
        memcpy(host.message.body, body, size);
}

void send_message(uint32_t size)
{
    put(PACKET_INBAND, &host.message, sizeof(host.message.header) + size);
    turn();
    take_reply();
}

// Asks, and checks what all answers have in common. Returns the status.
uint32_t ask(uint16_t type, const void *body, uint32_t size)
{
    prepare(type, body, size);
    send_message(size);
    assert_in_range(host.reply_size, 28 + size, (28 + size + 7) & ~7u); // padded on the ring
    assert_int_equal(host.reply.header.type, type);
    assert_int_equal(host.reply.header.flags, IC_TRANSACTION | IC_RESPONSE);
    assert_int_equal(host.reply.header.transaction, 200);
    return host.reply.header.status;
}

bool negotiate(const struct ic_version *frameworks, unsigned framework_count,
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
    assert_int_equal(host.reply.header.body_size, 16);
    memcpy(&head, host.reply.body, sizeof(head));
    if (head.framework_count == 0) {
        assert_int_equal(head.message_count, 0);
        return false;
    }
    assert_int_equal(head.framework_count, 1);
    assert_int_equal(head.message_count, 1);
    return true;
}

struct ic_version answered(unsigned i)
{
    struct ic_version v;

    memcpy(&v, host.reply.body + 8 + 4 * i, 4);
    return v;
}

const struct ic_version both[2] = {{1, 0}, {3, 0}};

void ready(struct ic_service *s, uint16_t major)
{
    struct ic_version v = {major, 0};

    come(s);
    assert_true(negotiate(both, 2, &v, 1));
    assert_int_equal(answered(1).major, major);
    host.orders = 0;
}
