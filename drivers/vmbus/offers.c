// SPDX-License-Identifier: BSD-2-Clause
// The table of offered devices: matches them to drivers, runs each driver's probe and remove in the
// device's own fiber, and gives a rescinded offer back (RELID_RELEASED) exactly once, when nothing
// refers to it any more. Called by connection.c with checked messages; core 0 only.
#include <errno.h>
#include <string.h>

#include "drivers/vmbus/channel.h"
#include "drivers/vmbus/connection.h"
#include "drivers/vmbus/device.h"
#include "kernel/alloc.h"
#include "kernel/log.h"
#include "kernel/panic.h"
#include "kernel/time.h"

static struct vmbus_driver *drivers;
static struct vmbus_device *devices;
static struct vmbus_device *by_relid[VMBUS_MAX_RELID];
static struct event released; // for the control fiber: some device may be given back

static void set_state(struct vmbus_device *device, enum device_state to)
{
    static const uint8_t legal[] = {
        [DEVICE_OFFERED] = 1 << DEVICE_PROBING | 1 << DEVICE_BOUND | 1 << DEVICE_IDLE,
        [DEVICE_PROBING] = 1 << DEVICE_BOUND | 1 << DEVICE_IDLE,
        [DEVICE_BOUND] = 1 << DEVICE_REMOVING,
        [DEVICE_REMOVING] = 1 << DEVICE_IDLE,
        [DEVICE_IDLE] = 1 << DEVICE_RELEASED,
        [DEVICE_RELEASED] = 0,
    };

    ASSERT(legal[device->state] & 1 << to);
    device->state = to;
}

void vmbus_register_driver(struct vmbus_driver *driver)
{
    driver->next = drivers;
    drivers = driver;
}

static const struct vmbus_driver *driver_for(const struct guid *class_id)
{
    for (const struct vmbus_driver *d = drivers; d; d = d->next) {
        if (memcmp(&d->class_id, class_id, sizeof(*class_id)) == 0)
            return d;
    }
    return NULL;
}

static bool device_gone(const struct vmbus_device *device)
{
    return device->rescinded || device->failed || (device->primary && device_gone(device->primary));
}

int device_wait(struct vmbus_device *device, struct event *event, uint64_t timeout)
{
    struct device_wait wait = {.event = event, .next = device->waits};
    struct device_wait **link = &device->waits;

    if (device_gone(device))
        return -ENODEV;
    device->waits = &wait;
    int r = event_wait(event, timeout);
    while (*link != &wait)
        link = &(*link)->next;
    *link = wait.next;
    return device_gone(device) ? -ENODEV : r;
}

static void end_waits(struct vmbus_device *device)
{
    for (struct device_wait *wait = device->waits; wait; wait = wait->next)
        event_set(wait->event);
}

// Ends every wait of the device, those for its subchannels included, and wakes its fiber.
static void device_changed(struct vmbus_device *device)
{
    end_waits(device);
    for (struct vmbus_device *d = devices; d; d = d->next) {
        if (d->primary == device)
            end_waits(d);
    }
    event_set(&device->changed);
}

void device_fail(struct vmbus_device *device)
{
    if (device->primary)
        device = device->primary;
    device->failed = true;
    device_changed(device);
}

void device_work(struct vmbus_device *device)
{
    device->work_due = true;
    event_set(&device->changed);
}

// While the driver has the device.
static void device_bound(struct vmbus_device *device)
{
    while (!device_gone(device)) {
        if (device->work_due) {
            device->work_due = false;
            device->driver->work(device);
        } else {
            event_wait(&device->changed, WAIT_FOREVER);
        }
    }
}

// The life of one device that has a driver.
static void device_fiber(void *arg)
{
    struct vmbus_device *device = arg;

    set_state(device, DEVICE_PROBING);
    int r = device->rescinded ? -ENODEV : device->driver->probe(device);
    if (r) {
        log_warn("vmbus: relid %u: %s does not take the device (%d)", device->relid,
                 device->driver->name, r);
    } else {
        set_state(device, DEVICE_BOUND);
        device_bound(device);
        set_state(device, DEVICE_REMOVING);
        device->driver->remove(device);
    }
    ASSERT(device->subchannels_wanted == 0);
    set_state(device, DEVICE_IDLE);
    event_set(&released);
}

// The living primary that an offer names.
static struct vmbus_device *primary_of(const struct vmbus_offer *offer)
{
    for (struct vmbus_device *d = devices; d; d = d->next) {
        if (d->subchannel == 0 &&
            memcmp(&d->class_id, &offer->class_id, sizeof(d->class_id)) == 0 &&
            memcmp(&d->instance_id, &offer->instance_id, sizeof(d->instance_id)) == 0)
            return d;
    }
    return NULL;
}

struct vmbus_device *device_subchannel(const struct vmbus_device *device, unsigned index)
{
    for (struct vmbus_device *d = devices; d; d = d->next) {
        if (d->primary == device && d->subchannel == index)
            return d;
    }
    return NULL;
}

void device_want_subchannels(struct vmbus_device *device, unsigned count)
{
    device->subchannels_wanted = count;
}

static bool all_offered(const struct vmbus_device *device)
{
    for (unsigned i = 1; i <= device->subchannels_wanted; i++) {
        if (!device_subchannel(device, i))
            return false;
    }
    return true;
}

int device_wait_subchannels(struct vmbus_device *device, uint64_t timeout)
{
    uint64_t deadline = time_now() + timeout;

    while (!all_offered(device)) {
        uint64_t now = time_now();
        if (now >= deadline)
            return -ETIMEDOUT;
        int r = device_wait(device, &device->offered, deadline - now);
        if (r == -ENODEV)
            return r;
    }
    return 0;
}

void device_leave_subchannel(struct vmbus_device *subchannel)
{
    ASSERT(!subchannel->channel);
    subchannel->primary = NULL;
    set_state(subchannel, DEVICE_REMOVING);
    set_state(subchannel, DEVICE_IDLE);
    event_set(&released);
}

static struct vmbus_device *device_add(const struct vmbus_offer *offer)
{
    struct vmbus_device *device = heap_alloc(sizeof(*device));

    if (!device)
        return NULL;
    *device = (struct vmbus_device){
        .class_id = offer->class_id,
        .instance_id = offer->instance_id,
        .relid = offer->relid,
        .connection_id = offer->connection_id,
        .dedicated = offer->is_dedicated & 1,
        .subchannel = offer->subchannel_index,
        .next = devices,
    };
    devices = device;
    by_relid[device->relid] = device;
    return device;
}

void vmbus_offer(const struct vmbus_offer *offer)
{
    vmbus_counters.offers++;
    if (offer->relid == 0 || offer->relid >= VMBUS_MAX_RELID || by_relid[offer->relid]) {
        vmbus_counters.offers_dropped++; // no relid that could be given back
        return;
    }
    // Subchannels that nobody asked for; a second primary of a living device is a host's mistake.
    struct vmbus_device *primary = primary_of(offer);
    uint16_t index = offer->subchannel_index;
    bool unwanted = index ? !primary || index > primary->subchannels_wanted ||
                                device_gone(primary) || device_subchannel(primary, index)
                          : primary != NULL;
    struct vmbus_device *device = device_add(offer);
    if (!device) {
        vmbus_counters.offers_dropped++;
        log_error("vmbus: out of memory for the offer of relid %u", offer->relid);
        return;
    }
    if (unwanted) {
        vmbus_counters.offers_dropped++;
        log_warn("vmbus: relid %u: unwanted offer given back", device->relid);
        device->rescinded = true;
        set_state(device, DEVICE_IDLE);
        event_set(&released);
        return;
    }
    if (index) {
        log_debug("vmbus: relid %u offered, subchannel %u of relid %u", device->relid, index,
                  primary->relid);
        device->primary = primary;
        set_state(device, DEVICE_BOUND);
        event_set(&primary->offered);
        return;
    }
    device->driver = driver_for(&device->class_id);
    log_debug("vmbus: relid %u offered, %s", device->relid,
              device->driver ? device->driver->name : "no driver");
    if (!device->driver || fiber_spawn(device->driver->name, device_fiber, device) != 0)
        set_state(device, DEVICE_IDLE);
}

void vmbus_rescind(uint32_t relid)
{
    struct vmbus_device *device = relid < VMBUS_MAX_RELID ? by_relid[relid] : NULL;

    if (!device || device->rescinded) {
        vmbus_counters.unexpected_messages++;
        return;
    }
    vmbus_counters.rescinds++;
    log_info("vmbus: relid %u rescinded", relid);
    device->rescinded = true;
    if (device->channel)
        channel_rescinded(device->channel); // its handler is not run any more
    device_changed(device);
    if (device->primary)
        device_fail(device->primary);
    event_set(&released);
}

static struct vmbus_device *next_to_release(void)
{
    for (struct vmbus_device *d = devices; d; d = d->next) {
        if (d->state == DEVICE_IDLE && d->rescinded)
            return d;
    }
    return NULL;
}

static void device_release(struct vmbus_device *device)
{
    struct vmbus_relid message = {.header.type = VMBUS_RELID_RELEASED, .relid = device->relid};
    struct vmbus_device **link = &devices;

    set_state(device, DEVICE_RELEASED);
    // Off the tables before the host can offer the relid again.
    while (*link != device)
        link = &(*link)->next;
    *link = device->next;
    by_relid[device->relid] = NULL;
    heap_free(device);

    int r = vmbus_post(&message, sizeof(message), NULL);
    if (r)
        log_warn("vmbus: relid %u not released (%d)", message.relid, r);
    else
        vmbus_counters.released++;
}

_Noreturn void vmbus_offers_run(void)
{
    for (;;) {
        struct vmbus_device *device = next_to_release();

        if (device)
            device_release(device);
        else
            event_wait(&released, WAIT_FOREVER);
    }
}
