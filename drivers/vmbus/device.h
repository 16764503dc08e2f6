// SPDX-License-Identifier: BSD-2-Clause
// Devices that the host offers, and the drivers for them. All of it is core 0's. A driver's functions
// run in the device's own fiber, so they may wait; the packets of other devices keep flowing.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "drivers/vmbus/vmbus_proto.h"
#include "kernel/fiber.h"

// The life of an offered device. Legal steps:
//   OFFERED -> OPENING -> RUNNING -> CLOSING -> IDLE   (a driver took it, later let it go)
//   OFFERED -> IDLE, OPENING -> IDLE                   (no driver or not wanted; its probe failed)
//   OFFERED -> RUNNING -> CLOSING -> IDLE              (a subchannel that the driver asked for)
//   IDLE -> OFFERED                                    (to be tried again, see vmbus_driver)
//   IDLE -> GONE                                       (rescinded and given back; then freed)
enum device_state {
    DEVICE_OFFERED,
    DEVICE_OPENING,
    DEVICE_RUNNING,
    DEVICE_CLOSING,
    DEVICE_IDLE,
    DEVICE_GONE,
};

struct device_wait { // a fiber that waits for something the device should do
    struct event *event;
    struct device_wait *next;
};

struct vmbus_device {
    struct guid class_id;
    struct guid instance_id;
    uint32_t relid;
    uint32_t connection_id;
    bool dedicated;
    enum device_state state;
    bool rescinded; // the host took it back: nothing will be answered any more
    bool failed;    // its ring is broken: the driver has to let go of it
    bool leaked; // the host did not let go of memory of its: not tried again, that would cost more
    const struct vmbus_driver *driver;
    void *driver_data;
    bool fiber;     // it has one; else it has no driver or was given up, or there was no memory
    bool work_due;  // the driver's work() is wanted
    bool retry_due; // something was freed: worth another try
    unsigned tries; // in a row that failed
    struct event changed; // one of these, or what it waits for is gone: for the device's fiber
    struct device_wait *waits;
    struct channel *channel;      // open, or being opened; NULL: none
    struct vmbus_device *primary; // of a subchannel
    uint16_t subchannel;          // its index, 0: this is a primary
    unsigned subchannels_wanted;  // of a primary: offers with indices 1 to this are kept
    struct event offered;         // of a primary: one came
    struct vmbus_device *next;    // all devices
};

struct vmbus_driver {
    const char *name;
    struct guid class_id;
    // Takes the device: 0, or a negative errno with everything undone. After -ENOMEM and -ENOSPC it is
    // called again when another device has gone and from time to time, after other errors a few times, as
    // after a failure of the running device; device->tries tells the tries before.
    int (*probe)(struct vmbus_device *device);
    // What device_work() was called for, while the device is bound; in its fiber. May be NULL.
    void (*work)(struct vmbus_device *device);
    // Lets go of it, after rescind or failure. Must not leave anything that refers to it.
    void (*remove)(struct vmbus_device *device);
    struct vmbus_driver *next;
};

// Core 0, before vmbus_start(). The structure must live for ever.
void vmbus_register_driver(struct vmbus_driver *driver);

// Like event_wait(), but a rescind (or failure) of the device ends the wait: 0, -ETIMEDOUT, -ENODEV.
int device_wait(struct vmbus_device *device, struct event *event, uint64_t timeout);

// The same of one that may have failed: only a rescind ends the wait.
int device_wait_failed(struct vmbus_device *device, struct event *event, uint64_t timeout);

// The device's ring is unusable: its driver's remove() will be called from the device's fiber, and later,
// if it is still offered, probe(); a subchannel's takes the whole device along. From the loop or a fiber
// of core 0.
void device_fail(struct vmbus_device *device);

// Has the driver's work() called soon, once for any number of calls. From the loop of core 0.
void device_work(struct vmbus_device *device);

// Subchannels are devices, too, but in the hands of their primary's driver, which says how many it asks
// the host for, opens a channel on each, and leaves each when that is closed (or never was opened). A
// rescind of one that was not left is a failure of the primary. All from the primary's fiber.
void device_want_subchannels(struct vmbus_device *device, unsigned count);
// Waits until all are offered: 0, -ETIMEDOUT, -ENODEV.
int device_wait_subchannels(struct vmbus_device *device, uint64_t timeout);
struct vmbus_device *device_subchannel(const struct vmbus_device *device,
                                       unsigned index); // or NULL
void device_leave_subchannel(struct vmbus_device *subchannel);
