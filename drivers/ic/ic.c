// SPDX-License-Identifier: BSD-2-Clause
// What all integration services share: the device, the channel, the frame of a message, the negotiation
// of versions. A message is copied from the ring before it is looked at, answered in place and sent
// back. One message at a time: the next one waits on the ring until the answer has found room.
#include "drivers/ic/ic.h"

#include <errno.h>
#include <string.h>

#include "drivers/ic/service.h"
#include "kernel/alloc.h"
#include "kernel/console.h"
#include "kernel/log.h"
#include "kernel/time.h"

#define RING_BYTES (4 * PAGE_SIZE) // each way, with the header page
#define MESSAGE_BYTES (IC_MESSAGE_PAGES * PAGE_SIZE)
#define FIRST_THE_NICS (300 * TIME_MS) // at boot everything is offered at once

const struct ic_client *ic_client;

static struct ic_service *const services[] = {&ic_shutdown_service, &ic_heartbeat_service,
                                              &ic_timesync_service, &ic_kvp_service};
#define SERVICES (sizeof(services) / sizeof(services[0]))

static const struct ic_version frameworks[IC_VERSIONS] = {{3, 0}, {1, 0}};

// Versions ------------------------------------------------------------------------------------------

// The best of ours that the host offers too.
static bool choose(const struct ic_version *ours, const uint8_t *offered, unsigned count,
                   struct ic_version *out)
{
    for (unsigned i = 0; i < IC_VERSIONS && ours[i].major; i++) {
        for (unsigned j = 0; j < count; j++) {
            if (memcmp(offered + j * sizeof(*ours), &ours[i], sizeof(*ours)) == 0) {
                *out = ours[i];
                return true;
            }
        }
    }
    return false;
}

static bool agree(struct ic_service *s, const uint8_t *body, uint32_t size)
{
    struct ic_negotiate n;

    if (size < sizeof(n))
        return false;
    memcpy(&n, body, sizeof(n));
    uint32_t all = (uint32_t)n.framework_count + n.message_count;
    if (n.framework_count > IC_NEGOTIATE_MAX || n.message_count > IC_NEGOTIATE_MAX ||
        size - sizeof(n) < all * sizeof(struct ic_version))
        return false;
    const uint8_t *versions = body + sizeof(n);
    return choose(frameworks, versions, n.framework_count, &s->framework) &&
           choose(s->versions, versions + n.framework_count * sizeof(struct ic_version),
                  n.message_count, &s->version);
}

// No counts in the answer: nothing that both know.
static void negotiate(struct ic_service *s, struct ic_header *header, uint8_t *body, uint32_t size)
{
    struct {
        struct ic_negotiate head;
        struct ic_version framework, message;
    } reply = {0};

    s->agreed = agree(s, body, size);
    if (s->agreed) {
        reply.head.framework_count = reply.head.message_count = 1;
        reply.framework = s->framework;
        reply.message = s->version;
        log_debug("ic: %s: version %u.%u, framework %u.%u", s->name, s->version.major,
                  s->version.minor, s->framework.major, s->framework.minor);
    } else {
        s->failed++;
        log_warn("ic: %s: the host offers no version that we know", s->name);
    }
    memcpy(body, &reply, size < sizeof(reply) ? size : sizeof(reply));
    header->body_size = IC_NEGOTIATE_REPLY;
}

// Messages ------------------------------------------------------------------------------------------

static uint32_t answer(struct ic_service *s, const struct ic_header *header, uint8_t *body,
                       uint32_t size)
{
    struct ic_message m = {.agreed = s->version, .body = body, .size = size};

    if (!s->agreed || header->type != s->type)
        return IC_FAIL;
    return s->answer(&m);
}

// A whole payload in s->message, already ours. False: not a message that can be answered.
static bool handle(struct ic_service *s, uint32_t payload)
{
    struct ic_header header;
    uint8_t *body = s->message + sizeof(header);
    uint32_t size = payload - sizeof(header);

    memcpy(&header, s->message, sizeof(header));
    if (header.pipe_length > payload - offsetof(struct ic_header, framework) ||
        header.body_size > size || header.flags & IC_RESPONSE)
        return false;
    header.status = IC_OK;
    if (header.type == IC_NEGOTIATE)
        negotiate(s, &header, body, size);
    else
        header.status = answer(s, &header, body, size);
    if (header.status != IC_OK && header.status != IC_NO_MORE)
        s->failed++;
    header.flags = IC_TRANSACTION | IC_RESPONSE;
    memcpy(s->message, &header, sizeof(header));
    s->requests++;
    s->reply_size = payload;
    return true;
}

static void take(struct ic_service *s, const struct ring_packet *packet)
{
    uint32_t size = packet->payload_len;

    if (packet->type != PACKET_INBAND || size < sizeof(struct ic_header) || size > MESSAGE_BYTES) {
        s->bad++;
        return;
    }
    ring_copy_out(&s->channel.in, packet, packet->header_len, s->message, size);
    if (!handle(s, size))
        s->bad++;
}

// True if the answer is on its way, or there was none.
static bool send_reply(struct ic_service *s)
{
    struct packet_descriptor d = {.type = PACKET_INBAND};
    struct ring_vec payload = {s->message, s->reply_size};
    uint32_t need = ring_packet_bytes(sizeof(d), s->reply_size);

    if (s->reply_size == 0)
        return true;
    if (!ring_out_put(&s->channel.out, &d, sizeof(d), &payload, 1) &&
        (!ring_out_want_room(&s->channel.out, need) ||
         !ring_out_put(&s->channel.out, &d, sizeof(d), &payload, 1)))
        return false; // the host tells when there is room
    if (s->channel.out.room_wanted)
        ring_out_cancel_room(&s->channel.out);
    s->reply_size = 0;
    channel_publish(&s->channel);
    if (s->after)
        s->after();
    return true;
}

static bool poll(void *ctx)
{
    struct ic_service *s = ctx;
    struct ring_packet packet;

    if (!send_reply(s)) {
        if (s->channel.out.dead)
            channel_fail(&s->channel, "impossible index on the ring to the host");
        return false;
    }
    if (ring_in_next(&s->channel.in, &packet)) {
        take(s, &packet);
        channel_release(&s->channel);
        return true;
    }
    if (s->channel.in.dead)
        channel_fail(&s->channel, "broken ring from the host");
    return false;
}

bool ic_answer_read(struct ic_service *s)
{
    struct ring_out *ring = &s->channel.out;

    return !s->device || s->channel.state != CHANNEL_OPEN ||
           ring_out_free(ring, ring->size) == ring->size;
}

// Devices -------------------------------------------------------------------------------------------

static struct ic_service *service_of(const struct vmbus_device *device)
{
    for (unsigned i = 0; i < SERVICES; i++) {
        if (device->driver == &services[i]->driver)
            return services[i];
    }
    return NULL;
}

static int probe(struct vmbus_device *device)
{
    static const struct channel_ops ops = {.poll = poll};
    struct ic_service *s = service_of(device);

    if (s->device)
        return -ENOSPC; // there is one of each; tried again when that has gone
    s->device = device;
    int r = device_wait(device, &(struct event){0}, FIRST_THE_NICS);
    if (r == -ENODEV) {
        s->device = NULL;
        return r;
    }
    s->message = page_alloc(IC_MESSAGE_PAGES);
    if (!s->message) {
        s->device = NULL;
        return -ENOMEM;
    }
    s->reply_size = 0;
    s->agreed = false;
    r = channel_open(&s->channel, device, 0, RING_BYTES, &ops, s);
    if (r) {
        page_free(s->message, IC_MESSAGE_PAGES);
        s->device = NULL;
    }
    return r;
}

static void let_go(struct vmbus_device *device)
{
    struct ic_service *s = service_of(device);

    channel_close(&s->channel);
    page_free(s->message, IC_MESSAGE_PAGES);
    s->device = NULL;
    s->agreed = false;
    log_info("ic: %s: removed", s->name);
}

static void write_stats(void)
{
    for (unsigned i = 0; i < SERVICES; i++) {
        const struct ic_service *s = services[i];

        stats_print("%s\"%s\":{\"open\":%s,\"version\":\"%u.%u\",\"requests\":%llu,\"bad\":%llu,"
                    "\"failed\":%llu}",
                    i ? "," : "{", s->name, s->device ? "true" : "false",
                    s->agreed ? s->version.major : 0, s->agreed ? s->version.minor : 0,
                    (unsigned long long)s->requests, (unsigned long long)s->bad,
                    (unsigned long long)s->failed);
    }
    stats_print("}");
}

void ic_start(const struct ic_client *client)
{
    static struct stats_source stats = {.name = "ic", .write = write_stats};

    ic_client = client;
    for (unsigned i = 0; i < SERVICES; i++) {
        struct vmbus_driver *driver = &services[i]->driver;

        driver->name = services[i]->name;
        driver->probe = probe;
        driver->remove = let_go;
        vmbus_register_driver(driver);
    }
    stats_add(&stats);
}
