// SPDX-License-Identifier: BSD-2-Clause
// The channels of a NIC beyond the first: one for each core as far as the host has any, all opened and
// closed from the device's fiber on core 0, and what has to be done on every core that has one. With
// fewer channels than cores, or only one, the NIC works on fewer cores.
#include <errno.h>

#include "drivers/netvsc/nic.h"
#include "drivers/vmbus/connection.h"
#include "kernel/log.h"
#include "kernel/message.h"
#include "kernel/min.h"

#define OFFER_TIMEOUT (5 * TIME_S)
#define RESERVED_SECTIONS 16u  // receive sections that hosts keep for control messages
#define CHANNEL_TX_SECTIONS 2u // least send sections that a channel is opened for
#define LARGEST_FRAME 65535u
#define TCP_HEADERS 52u // of a segment, with timestamps: what is left of the MTU is its payload

// Least receive sections of a channel: a frame of 64 KiB, which TCP on the host's side of the wire hands
// over at once, has to fit in segments. What the host has no sections for it drops, each time again.
static uint32_t sections_for_frame(const struct nic *nic)
{
    uint32_t payload = nic->info.mtu > 2 * TCP_HEADERS ? nic->info.mtu - TCP_HEADERS : TCP_HEADERS;

    return LARGEST_FRAME / payload + 2;
}

static uint32_t receive_sections(const struct nic *nic)
{
    uint32_t sections = nic->receive.section_count;

    return sections > RESERVED_SECTIONS ? sections - RESERVED_SECTIONS : 0;
}

// How many channels to have. Negative errno only if the NIC goes.
static int channels_wanted(struct nic *nic)
{
    unsigned wanted = core_count(), queues = 0;

    if (wanted == 1 || nic->nvsp_version < NVSP_VERSION_5)
        return 1;
    int r = rss_query(nic, &queues);
    if (r)
        return r == -ENODEV ? r : 1;
    wanted = min_u32(wanted, queues);
    wanted = min_u32(wanted, receive_sections(nic) / sections_for_frame(nic));
    wanted = min_u32(wanted, nic->send.section_count / CHANNEL_TX_SECTIONS);
    return wanted > 1 ? (int)wanted : 1;
}

static int channel_add(struct nic *nic, unsigned index)
{
    struct vmbus_device *device = device_subchannel(nic->device, index);

    if (!device)
        return -ETIMEDOUT; // not offered
    struct nic_queue *q = queue_new(nic);
    int r = q ? rx_start(q) : -ENOMEM;
    if (r == 0)
        r = queue_open(q, device);
    if (r == 0)
        return 0;
    if (r != -ENODEV)
        log_warn("%s: channel %u not opened (%d)", nic->info.name, index, r);
    if (q)
        queue_free(nic);
    return r;
}

// Asks for n further channels and opens those that the host offers, up to the first one that fails.
static int channels_add(struct nic *nic, unsigned n)
{
    // The offers may come before the answer.
    device_want_subchannels(nic->device, n);
    int r = nvsp_request_subchannels(nic, &n);
    device_want_subchannels(nic->device, r == 0 ? n : 0);
    if (r == 0)
        r = device_wait_subchannels(nic->device, OFFER_TIMEOUT);
    if (r && r != -ENODEV)
        log_warn("%s: not all channels offered (%d)", nic->info.name, r);
    for (unsigned i = 1; i <= n && r != -ENODEV; i++) {
        r = channel_add(nic, i);
        if (r)
            break;
    }
    return r == -ENODEV ? r : 0;
}

// Subchannels that were offered and are not open.
static void leave_unused(struct nic *nic)
{
    device_want_subchannels(nic->device, 0);
    for (unsigned i = 1; i < MAX_CORES; i++) {
        struct vmbus_device *device = device_subchannel(nic->device, i);
        if (device && !device->channel)
            device_leave_subchannel(device);
    }
}

static void deal_sections(struct nic *nic)
{
    uint32_t sections = nic->send.section_count / nic->queue_count;

    for (unsigned i = 0; i < nic->queue_count; i++) {
        struct nic_queue *q = nic->queue[i];
        q->rx.section_share = nic->receive.section_count / nic->queue_count;
        tx_start(q, i * sections, min_u32(sections, TX_SECTIONS_MAX));
    }
}

int channels_open(struct nic *nic)
{
    int r = channels_wanted(nic);

    if (r > 1)
        r = channels_add(nic, (unsigned)r - 1);
    leave_unused(nic);
    if (r < 0)
        return r;
    deal_sections(nic);
    nic->info.channels = nic->queue_count;
    if (receive_sections(nic) / nic->queue_count < sections_for_frame(nic))
        log_warn("%s: the receive buffer is too small for a frame of 64 KiB: TCP will be slow; "
                 "set [netvsc] receive-buffer to %u KiB or more",
                 nic->info.name,
                 (RESERVED_SECTIONS + sections_for_frame(nic)) * nic->receive.section_size / 1024 +
                     4);
    return nic->queue_count > 1 ? rss_start(nic) : 0;
}

void channels_close(struct nic *nic)
{
    for (unsigned i = nic->queue_count; i-- > 0;) {
        if (channel_close(&nic->queue[i]->channel))
            nic->leaked = true;
    }
    leave_unused(nic);
}

// On each core: core 0 first on the way up, last on the way down.

static void attach_here(void *arg)
{
    struct nic_queue *q = arg;

    q->up = true;
    nic_client->attach(q->nic);
}

static void stop_here(void *arg)
{
    struct nic_queue *q = arg;

    q->up = false;
    nic_flush(q->nic);
}

static void detach_here(void *arg)
{
    struct nic_queue *q = arg;

    nic_client->detach(q->nic);
    nic_flush(q->nic);
}

static void link_here(void *arg)
{
    nic_client->link(arg);
}

static void abort_here(void *arg)
{
    tx_abort(arg);
}

void channels_attach(struct nic *nic)
{
    for (unsigned i = 0; i < nic->queue_count; i++)
        core_call(i, attach_here, nic->queue[i]);
}

void channels_stop(struct nic *nic)
{
    for (unsigned i = nic->queue_count; i-- > 0;)
        core_call(i, stop_here, nic->queue[i]);
}

void channels_detach(struct nic *nic)
{
    for (unsigned i = nic->queue_count; i-- > 0;)
        core_call(i, detach_here, nic->queue[i]);
}

void channels_link(struct nic *nic)
{
    for (unsigned i = 0; i < nic->queue_count; i++)
        core_call(i, link_here, nic);
}

void channels_abort(struct nic *nic)
{
    for (unsigned i = nic->queue_count; i-- > 0;)
        core_call(i, abort_here, nic->queue[i]);
}

// What the host has not completed. The queues are stopped: a count can only fall while it is read.
uint32_t channels_outstanding(const struct nic *nic)
{
    uint32_t n = 0;

    for (unsigned i = 0; i < nic->queue_count; i++) {
        const struct nic_queue *q = nic->queue[i];
        if (q->channel.state == CHANNEL_OPEN)
            n += TX_REQUESTS - __atomic_load_n(&q->tx.requests.free_count, __ATOMIC_RELAXED);
    }
    return n;
}

uint32_t channels_held(const struct nic *nic)
{
    uint32_t n = 0;

    for (unsigned i = 0; i < nic->queue_count; i++)
        n += tx_held(nic->queue[i]);
    return n;
}
