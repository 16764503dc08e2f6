// SPDX-License-Identifier: BSD-2-Clause
// An open channel: two rings, bound to one core, whose VMBus poller alone runs the driver's handler and
// touches the rings. Opened and closed from fibers of core 0.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "drivers/vmbus/device.h"
#include "drivers/vmbus/gpadl.h"
#include "drivers/vmbus/ring.h"

// Legal steps: CLOSED -> OPENING -> OPEN -> CLOSED, OPENING -> CLOSED (the host refused),
// OPEN -> DEAD -> CLOSED (a ring is broken or the device was rescinded: not polled any more).
enum channel_state { CHANNEL_CLOSED, CHANNEL_OPENING, CHANNEL_OPEN, CHANNEL_DEAD };

struct channel_ops {
    // A bounded batch of work; true if there is more. Called while the channel is OPEN.
    bool (*poll)(void *ctx);
    // Show the host what is queued: each turn of the loop without poll(), and before the core halts.
    // NULL: whoever puts something publishes it, too.
    void (*flush)(void *ctx);
};

struct channel {
    struct vmbus_device *device;
    enum channel_state state;
    unsigned core;
    uint32_t relid;
    bool polling; // interrupts are masked, the core looks at it every turn
    bool untold;  // it is dead, and core 0 does not know yet
    struct ring_out out;
    struct ring_in in;
    const struct channel_ops *ops;
    void *ctx;
    struct gpadl gpadl; // of both rings
    uint64_t signals, interrupts;
    uint64_t signal_at;   // when to repeat a signal that the host had no memory for; 0: never
    struct channel *next; // of the same core
};

// Opens the channel of a device or a subchannel, with rings of ring_bytes each (header page included,
// multiple of the page size), for core `core`: there its handler runs, maybe before this returns. From
// a fiber of core 0. 0 or negative errno.
int channel_open(struct channel *channel, struct vmbus_device *device, unsigned core,
                 uint32_t ring_bytes, const struct channel_ops *ops, void *ctx);

// Closes it and frees the rings: first its core stops touching them, then the host is told. From a fiber
// of core 0. The handler does not run any more. 0, or a negative errno if the host did not confirm: then
// it may still use all memory that was shared with it through this channel.
int channel_close(struct channel *channel);

// Publishes what was put into the out ring and signals the host if it has to be.
void channel_publish(struct channel *channel);

// Gives back what was read from the in ring and signals the host if it waits for room.
void channel_release(struct channel *channel);

// Stops polling a channel whose ring is broken and tells the device's fiber. `why` is logged. On the
// channel's core, as the two above.
void channel_fail(struct channel *channel, const char *why);

// The poller side, for connection.c.
void channel_rescinded(struct channel *channel); // from the loop of core 0
