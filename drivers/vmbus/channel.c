// SPDX-License-Identifier: BSD-2-Clause
// Channels: open and close (control path), and each core's VMBus poller: it takes messages and event
// flags from the SynIC when that has interrupted, and runs the handlers of channels that have work.
// While a channel is polled its interrupts are masked; they are unmasked when the core goes to halt.
#include "drivers/vmbus/channel.h"

#include <errno.h>

#include "drivers/hyperv/hyperv.h"
#include "drivers/vmbus/connection.h"
#include "drivers/vmbus/vmbus.h"
#include "kernel/alloc.h"
#include "kernel/core.h"
#include "kernel/log.h"
#include "kernel/loop.h"
#include "kernel/message.h"
#include "kernel/panic.h"
#include "kernel/time.h"

#define MESSAGES_PER_TURN 64
#define SIGNAL_RETRY (1 * TIME_MS)

struct core_bus { // one core's side of VMBus
    struct bus_counters counters;
    struct poller poller;
    bool interrupted;    // the SynIC has something for us
    unsigned flag_words; // that the relids of its channels reach; it looks at no others
    struct channel *channels;
    struct channel *by_relid[VMBUS_MAX_RELID];
};
static PERCORE struct core_bus bus;

const struct bus_counters *vmbus_core_counters(unsigned core)
{
    return core_peek(core, &bus.counters);
}

static void take_messages(void)
{
    struct hv_message message;

    for (unsigned i = 0; i < MESSAGES_PER_TURN; i++) {
        if (!synic_take_message(&message))
            return;
        vmbus_message(&message);
    }
    bus.interrupted = true; // the rest in the next turn
}

static void take_event(uint32_t relid)
{
    struct channel *channel = bus.by_relid[relid];

    bus.counters.events++;
    if (!channel || channel->state != CHANNEL_OPEN) {
        bus.counters.unknown_events++;
        return;
    }
    channel->interrupts++;
    channel->polling = true;
    ring_in_mask(&channel->in);
}

static void take_events(void)
{
    uint64_t flags[HV_EVENT_FLAG_WORDS];

    if (!synic_take_events(flags, bus.flag_words))
        return;
    for (unsigned word = 0; word < bus.flag_words; word++) {
        for (; flags[word]; flags[word] &= flags[word] - 1)
            take_event(word * 64 + (unsigned)__builtin_ctzll(flags[word]));
    }
}

static bool interrupted(void)
{
    if (synic_interrupted())
        bus.interrupted = true;
    return bus.interrupted;
}

static void fail_device(const void *data)
{
    device_fail(*(struct vmbus_device *const *)data);
}

// Core 0 is told that a channel of another core is dead. The device is there when it hears that: before
// it goes its channels are closed, each by a call to its core, which does not overtake this.
static void tell_dead(struct channel *c)
{
    c->untold = !message_post_pointer(0, fail_device, c->device);
}

static void flush(struct channel *c)
{
    if (c->ops->flush)
        c->ops->flush(c->ctx);
    else if (c->signal_at)
        channel_publish(c);
}

static bool core_poll(void *ctx)
{
    bool more = false;
    (void)ctx;

    if (interrupted()) {
        bus.interrupted = false;
        take_events();
        take_messages();
    }
    for (struct channel *c = bus.channels; c; c = c->next) {
        if (c->untold)
            tell_dead(c);
        if (c->state != CHANNEL_OPEN)
            continue;
        if (!c->polling)
            flush(c); // of timers and fibers: others may keep the core from halting
        else if (c->ops->poll(c->ctx))
            more = true;
    }
    return more || bus.interrupted;
}

// What was not polled last interrupts.
static bool core_look(void *ctx)
{
    bool any = interrupted();
    (void)ctx;

    for (const struct channel *c = bus.channels; c && !any; c = c->next)
        any = c->state == CHANNEL_OPEN && c->polling && ring_in_look(&c->in);
    return any;
}

static bool core_arm(void *ctx)
{
    (void)ctx;

    if (interrupted())
        return true;
    for (struct channel *c = bus.channels; c; c = c->next) {
        if (c->untold)
            return true;
        if (c->state != CHANNEL_OPEN)
            continue;
        flush(c);
        if (c->state != CHANNEL_OPEN)
            return true; // it was found dead: its fiber has to run
        if (!c->polling)
            continue;
        if (ring_in_unmask(&c->in))
            return true;
        c->polling = false;
    }
    return false;
}

// When core_poll() has to repeat a signal.
static uint64_t core_deadline(void *ctx)
{
    uint64_t first = UINT64_MAX;
    (void)ctx;

    for (const struct channel *c = bus.channels; c; c = c->next) {
        if (c->state == CHANNEL_OPEN && c->signal_at && c->signal_at < first)
            first = c->signal_at;
    }
    return first;
}

void vmbus_start_core(void)
{
    bus.poller = (struct poller){.name = "vmbus",
                                 .poll = core_poll,
                                 .look = core_look,
                                 .arm = core_arm,
                                 .deadline = core_deadline};
    loop_add(&bus.poller);
}

// What happens to a channel on its own core, by core_call().

static void core_add(void *arg)
{
    struct channel *channel = arg;

    ASSERT(channel->relid < VMBUS_MAX_RELID && !bus.by_relid[channel->relid]);
    bus.by_relid[channel->relid] = channel;
    if (bus.flag_words <= channel->relid / 64)
        bus.flag_words = channel->relid / 64 + 1;
    channel->next = bus.channels;
    bus.channels = channel;
}

static void core_open(void *arg)
{
    struct channel *channel = arg;

    channel->state = channel->device->rescinded ? CHANNEL_DEAD : CHANNEL_OPEN;
    channel->polling = true; // what came while OPENING
}

static void core_remove(void *arg)
{
    struct channel *channel = arg;
    struct channel **link = &bus.channels;

    channel->state = CHANNEL_CLOSED;
    while (*link != channel)
        link = &(*link)->next;
    *link = channel->next;
    bus.by_relid[channel->relid] = NULL;
}

static void post_close(struct channel *channel)
{
    struct vmbus_relid message = {.header.type = VMBUS_CLOSE, .relid = channel->relid};

    if (!channel->device->rescinded)
        vmbus_post(&message, sizeof(message), channel->device);
}

// A subchannel whose primary has failed gets its answer, too: it has to be closed if it was opened.
static int wait_answer(struct vmbus_call *call, struct vmbus_device *device)
{
    uint64_t deadline = time_now() + VMBUS_ANSWER_TIMEOUT;
    int r = 0;

    while (r == 0 && !call->done) {
        uint64_t now = time_now();
        r = device_wait_failed(device, &call->event, deadline > now ? deadline - now : 0);
    }
    return call->done ? 0 : r;
}

static int post_open(struct channel *channel, uint32_t ring_pages)
{
    struct vmbus_device *device = channel->device;
    struct vmbus_open message = {
        .header.type = VMBUS_OPEN,
        .relid = channel->relid,
        .open_id = channel->relid,
        .gpadl = channel->gpadl.handle,
        .target_vp = core_vp_index(channel->core),
        .downstream_page = ring_pages,
    };
    struct vmbus_call call = {
        .answer = VMBUS_OPEN_RESULT, .relid = channel->relid, .id = channel->relid};

    vmbus_call_begin(&call);
    int r = vmbus_post(&message, sizeof(message), device);
    bool posted = r == 0;
    if (posted)
        r = wait_answer(&call, device);
    vmbus_call_end(&call);
    if (posted && r == -ETIMEDOUT) // the host may open it yet
        post_close(channel);
    if (r == 0 && call.result.status != 0) {
        log_error("vmbus: relid %u: open refused, status %#x", channel->relid, call.result.status);
        return -EIO;
    }
    return r;
}

// Gives the rings back: 0 if the host has let go of them.
static int rings_free(struct channel *channel)
{
    uint32_t pages = channel->gpadl.pages;
    int r = gpadl_destroy(channel->device, &channel->gpadl);

    shared_free(channel->gpadl.memory, pages, r != 0);
    return r;
}

// First forgotten here: a rescind that comes meanwhile must not send the core a message about a channel
// whose memory may be gone when it arrives.
static void core_remove_and_forget(struct channel *channel)
{
    channel->device->channel = NULL;
    core_call(channel->core, core_remove, channel);
}

int channel_open(struct channel *channel, struct vmbus_device *device, unsigned core,
                 uint32_t ring_bytes, const struct channel_ops *ops, void *ctx)
{
    uint32_t pages = ring_bytes / PAGE_SIZE;
    uint8_t *memory = shared_alloc(2 * pages);
    bool leaked;

    if (!memory)
        return -ENOMEM;
    *channel = (struct channel){
        .device = device, .core = core, .relid = device->relid, .ops = ops, .ctx = ctx};
    ring_out_init(&channel->out, memory, ring_bytes);
    ring_in_init(&channel->in, memory + ring_bytes, ring_bytes);
    int r = gpadl_create(device, memory, 2 * pages, &channel->gpadl, &leaked);
    if (r) {
        shared_free(memory, 2 * pages, leaked);
        return r;
    }

    // The host may signal as soon as it has opened: everything is in place before it is asked.
    channel->state = CHANNEL_OPENING;
    device->channel = channel;
    core_call(core, core_add, channel);
    r = post_open(channel, pages);
    if (r) {
        core_remove_and_forget(channel);
        rings_free(channel);
        return r;
    }
    core_call(core, core_open, channel);
    return 0;
}

int channel_close(struct channel *channel)
{
    if (channel->state == CHANNEL_CLOSED)
        return 0;
    core_remove_and_forget(channel);
    post_close(channel);
    return rings_free(channel);
}

static void signal_host(struct channel *channel)
{
    if (!channel->device->dedicated)
        vmbus_set_send_bit(channel->relid);
    channel->signals++;
    bus.counters.signals++;
    channel->signal_at = 0;
    uint16_t status = hv_signal_event(channel->device->connection_id);
    if (status == HV_STATUS_SUCCESS)
        return;
    // The host will not look at the ring. Only a lack of memory passes.
    bus.counters.signals_refused++;
    if (status == HV_STATUS_INSUFFICIENT_BUFFERS || status == HV_STATUS_INSUFFICIENT_MEMORY)
        channel->signal_at = time_now() + SIGNAL_RETRY;
}

void channel_publish(struct channel *channel)
{
    if (channel->state != CHANNEL_OPEN)
        return;
    if (ring_out_publish(&channel->out) || (channel->signal_at && time_now() >= channel->signal_at))
        signal_host(channel);
}

void channel_release(struct channel *channel)
{
    if (channel->state == CHANNEL_OPEN && ring_in_release(&channel->in))
        signal_host(channel);
}

void channel_fail(struct channel *channel, const char *why)
{
    if (channel->state != CHANNEL_OPEN)
        return;
    log_error("vmbus: relid %u: %s: channel is dead", channel->relid, why);
    channel->state = CHANNEL_DEAD;
    if (channel->core == 0)
        device_fail(channel->device);
    else
        tell_dead(channel);
}

static void rescinded(const void *data)
{
    struct channel *channel = *(struct channel *const *)data;

    if (channel->state == CHANNEL_OPEN)
        channel->state = CHANNEL_DEAD;
}

void channel_rescinded(struct channel *channel)
{
    // If this core's messages are too many it polls the channel until that is closed: no harm done.
    if (channel->core == 0)
        rescinded(&channel);
    else
        message_post_pointer(channel->core, rescinded, channel);
}
