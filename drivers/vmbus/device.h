// SPDX-License-Identifier: BSD-2-Clause
// Devices that the host offers, and the drivers for them. All of it is core 0's. A driver's functions
// run in the device's own fiber, so they may wait; the packets of other devices keep flowing.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "drivers/vmbus/vmbus_proto.h"
#include "kernel/fiber.h"

// The life of an offered device. Legal steps:
//   OFFERED -> PROBING -> BOUND -> REMOVING -> IDLE   (a driver took it, later let it go)
//   OFFERED -> IDLE, PROBING -> IDLE                  (no driver, or its probe failed)
//   IDLE -> RELEASED                                  (rescinded and given back; then freed)
enum device_state {
    DEVICE_OFFERED,
    DEVICE_PROBING,
    DEVICE_BOUND,
    DEVICE_REMOVING,
    DEVICE_IDLE,
    DEVICE_RELEASED,
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
    const struct vmbus_driver *driver;
    void *driver_data;
    struct event changed; // rescinded or failed, for the device's fiber
    struct device_wait *waits;
    struct vmbus_device *next; // all devices
};

struct vmbus_driver {
    const char *name;
    struct guid class_id;
    // Takes the device: 0, or a negative errno with everything undone.
    int (*probe)(struct vmbus_device *device);
    // Lets go of it, after rescind or failure. Must not leave anything that refers to it.
    void (*remove)(struct vmbus_device *device);
    struct vmbus_driver *next;
};

// Core 0, before vmbus_start(). The structure must live for ever.
void vmbus_register_driver(struct vmbus_driver *driver);

// Like event_wait(), but a rescind (or failure) of the device ends the wait: 0, -ETIMEDOUT, -ENODEV.
int device_wait(struct vmbus_device *device, struct event *event, uint64_t timeout);

// The device's ring is unusable: its driver's remove() will be called from the device's fiber.
// From the loop or a fiber of core 0.
void device_fail(struct vmbus_device *device);
