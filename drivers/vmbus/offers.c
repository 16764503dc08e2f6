// SPDX-License-Identifier: BSD-2-Clause
// The table of offered devices: matches them to drivers, runs each driver's probe and remove in the
// device's own fiber, so that no device waits for another's, tries again what failed, and gives a
// rescinded offer back (RELID_RELEASED) exactly once, when nothing refers to it any more. Called by
// connection.c with checked messages; core 0 only.
#include <errno.h>
#include <string.h>

#include "drivers/vmbus/channel.h"
#include "drivers/vmbus/connection.h"
#include "drivers/vmbus/device.h"
#include "kernel/alloc.h"
#include "kernel/log.h"
#include "kernel/panic.h"
#include "kernel/time.h"

#define RETRY_FIRST (1 * TIME_S) // after a failure; twice as long each time
#define RETRY_TIMES 5u
#define RETRY_ROOM (10 * TIME_S) // when there was no memory or place, and nothing is known to go
#define LASTED (60 * TIME_S)     // a device that ran so long did not fail in a row

static struct vmbus_driver *drivers;
static struct vmbus_device *devices; // the latest first
static struct vmbus_device *by_relid[VMBUS_MAX_RELID];
// Offers that there was no memory for: their rescind has to be answered, too.
static uint64_t forgotten[VMBUS_MAX_RELID / 64], forgotten_rescinded[VMBUS_MAX_RELID / 64];
static struct event released; // for the control fiber: it has something to do

static void set_state(struct vmbus_device *device, enum device_state to)
{
    static const uint8_t legal[] = {
        [DEVICE_OFFERED] = 1 << DEVICE_OPENING | 1 << DEVICE_RUNNING | 1 << DEVICE_IDLE,
        [DEVICE_OPENING] = 1 << DEVICE_RUNNING | 1 << DEVICE_IDLE,
        [DEVICE_RUNNING] = 1 << DEVICE_CLOSING,
        [DEVICE_CLOSING] = 1 << DEVICE_IDLE,
        [DEVICE_IDLE] = 1 << DEVICE_OFFERED | 1 << DEVICE_GONE,
        [DEVICE_GONE] = 0,
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

static bool device_taken_back(const struct vmbus_device *device)
{
    return device->rescinded || (device->primary && device->primary->rescinded);
}

// Waits for the event, or for what gone() tells.
static int wait_unless(struct vmbus_device *device, bool (*gone)(const struct vmbus_device *device),
                       struct event *event, uint64_t timeout)
{
    struct device_wait wait = {.event = event, .next = device->waits};
    struct device_wait **link = &device->waits;

    if (gone(device))
        return -ENODEV;
    device->waits = &wait;
    int r = event_wait(event, timeout);
    while (*link != &wait)
        link = &(*link)->next;
    *link = wait.next;
    return gone(device) ? -ENODEV : r;
}

int device_wait(struct vmbus_device *device, struct event *event, uint64_t timeout)
{
    return wait_unless(device, device_gone, event, timeout);
}

int device_wait_failed(struct vmbus_device *device, struct event *event, uint64_t timeout)
{
    return wait_unless(device, device_taken_back, event, timeout);
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

static bool same_instance(const struct vmbus_device *a, const struct guid *class_id,
                          const struct guid *instance_id)
{
    return memcmp(&a->class_id, class_id, sizeof(*class_id)) == 0 &&
           memcmp(&a->instance_id, instance_id, sizeof(*instance_id)) == 0;
}

// The living primary of an instance: one that was rescinded is none any more.
static struct vmbus_device *primary_of(const struct vmbus_offer *offer)
{
    for (struct vmbus_device *d = devices; d; d = d->next) {
        if (d->subchannel == 0 && !d->rescinded &&
            same_instance(d, &offer->class_id, &offer->instance_id))
            return d;
    }
    return NULL;
}

// The same instance was offered before, was rescinded, and is still in its driver's hands.
static bool has_predecessor(const struct vmbus_device *device)
{
    for (struct vmbus_device *d = device->next; d; d = d->next) {
        if (d->subchannel == 0 && d->fiber &&
            same_instance(d, &device->class_id, &device->instance_id))
            return true;
    }
    return false;
}

// A device has let go of what it had: others may wait for memory, a place, or for just this one.
static void tell_waiting(void)
{
    for (struct vmbus_device *d = devices; d; d = d->next) {
        if (!d->fiber || (d->state != DEVICE_OFFERED && d->state != DEVICE_IDLE))
            continue;
        d->retry_due = true;
        event_set(&d->changed);
    }
    event_set(&released);
}

// While the driver has the device.
static void device_running(struct vmbus_device *device)
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

// From OFFERED to IDLE. 0 if it ran, even if it failed later, or what probe() says.
static int device_use(struct vmbus_device *device)
{
    while (!device->rescinded && has_predecessor(device))
        event_wait(&device->changed, WAIT_FOREVER);
    set_state(device, DEVICE_OPENING);
    device->failed = device->work_due = device->retry_due = false;
    int r = device->rescinded ? -ENODEV : device->driver->probe(device);
    if (r == 0) {
        uint64_t since = time_now();

        set_state(device, DEVICE_RUNNING);
        device_running(device);
        if (time_now() - since >= LASTED)
            device->tries = 0;
        set_state(device, DEVICE_CLOSING);
        device->driver->remove(device);
        device->driver_data = NULL;
    }
    ASSERT(device->subchannels_wanted == 0);
    set_state(device, DEVICE_IDLE);
    return r;
}

static bool lacks_room(int error)
{
    return error == -ENOMEM || error == -ENOSPC;
}

// Waits until a device that failed, with `error` or while it ran (0), is worth another try. False if
// it never is, or was rescinded.
static bool device_wait_retry(struct vmbus_device *device, int error)
{
    bool room = lacks_room(error);
    uint64_t wait = room ? RETRY_ROOM : RETRY_FIRST << device->tries;
    uint64_t until = time_now() + wait;

    if (device->rescinded)
        return false;
    if (device->leaked || (!room && device->tries >= RETRY_TIMES)) {
        log_error("vmbus: relid %u: %s gives up", device->relid, device->driver->name);
        return false;
    }
    device->retry_due = false;
    while (!device->rescinded && !(room && device->retry_due)) {
        uint64_t now = time_now();
        if (now >= until)
            break;
        event_wait(&device->changed, until - now);
    }
    return !device->rescinded;
}

// The life of one device that has a driver.
static void device_fiber(void *arg)
{
    struct vmbus_device *device = arg;
    const char *name = device->driver->name;

    for (;;) {
        int r = device_use(device);
        if (r && !device->rescinded && device->tries == 0)
            log_warn("vmbus: relid %u: %s does not take the device (%d)", device->relid, name, r);
        if (!lacks_room(r)) // else they would wake each other for ever
            tell_waiting();
        if (!device_wait_retry(device, r))
            break;
        device->tries = lacks_room(r) ? 1 : device->tries + 1;
        log_debug("vmbus: relid %u: %s tries again", device->relid, name);
        set_state(device, DEVICE_OFFERED);
    }
    device->fiber = false;
    tell_waiting();
}

static void device_start(struct vmbus_device *device)
{
    device->fiber = fiber_spawn(device->driver->name, device_fiber, device) == 0;
    if (!device->fiber)
        event_set(&released); // the control fiber tries again
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
    set_state(subchannel, DEVICE_CLOSING);
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

static void bit_set(uint64_t *bits, uint32_t n)
{
    bits[n / 64] |= 1ull << (n % 64);
}

// True if it was set.
static bool bit_clear(uint64_t *bits, uint32_t n)
{
    bool was = bits[n / 64] >> (n % 64) & 1;

    bits[n / 64] &= ~(1ull << (n % 64));
    return was;
}

// Not wanted: subchannels that nobody asked for, and a second primary of a living device, which is a
// host's mistake.
static bool offer_wanted(const struct vmbus_offer *offer, const struct vmbus_device *primary)
{
    uint16_t index = offer->subchannel_index;

    if (index == 0)
        return !primary;
    return primary && index <= primary->subchannels_wanted && !device_gone(primary) &&
           !device_subchannel(primary, index);
}

static void offer_accept(struct vmbus_device *device, struct vmbus_device *primary)
{
    if (device->subchannel) {
        log_debug("vmbus: relid %u offered, subchannel %u of relid %u", device->relid,
                  device->subchannel, primary->relid);
        device->primary = primary;
        set_state(device, DEVICE_RUNNING);
        event_set(&primary->offered);
        return;
    }
    device->driver = driver_for(&device->class_id);
    log_debug("vmbus: relid %u offered, %s", device->relid,
              device->driver ? device->driver->name : "no driver");
    if (device->driver)
        device_start(device);
    else
        set_state(device, DEVICE_IDLE);
}

void vmbus_offer(const struct vmbus_offer *offer)
{
    uint32_t relid = offer->relid;

    vmbus_counters.offers++;
    if (relid == 0 || relid >= VMBUS_MAX_RELID || by_relid[relid]) {
        vmbus_counters.offers_dropped++; // no relid that could be given back
        return;
    }
    struct vmbus_device *primary = primary_of(offer);
    bool wanted = offer_wanted(offer, primary);
    struct vmbus_device *device = device_add(offer);
    if (!device) {
        vmbus_counters.offers_dropped++;
        log_error("vmbus: out of memory for the offer of relid %u", relid);
        bit_set(forgotten, relid);
        return;
    }
    bit_clear(forgotten, relid);
    if (wanted) {
        offer_accept(device, primary);
        return;
    }
    vmbus_counters.offers_dropped++;
    log_warn("vmbus: relid %u: unwanted offer given back", relid);
    device->rescinded = true;
    set_state(device, DEVICE_IDLE);
    event_set(&released);
}

// Of a relid without a device. False if there was no offer.
static bool rescind_forgotten(uint32_t relid)
{
    if (relid >= VMBUS_MAX_RELID || !bit_clear(forgotten, relid))
        return false;
    bit_set(forgotten_rescinded, relid);
    event_set(&released);
    return true;
}

void vmbus_rescind(uint32_t relid)
{
    struct vmbus_device *device = relid < VMBUS_MAX_RELID ? by_relid[relid] : NULL;

    if (!device && rescind_forgotten(relid))
        return;
    if (!device || device->rescinded) {
        vmbus_counters.unexpected_messages++;
        return;
    }
    vmbus_counters.rescinds++;
    log_debug("vmbus: relid %u rescinded", relid);
    device->rescinded = true;
    if (device->channel)
        channel_rescinded(device->channel); // its handler is not run any more
    device_changed(device);
    if (device->primary)
        device_fail(device->primary);
    event_set(&released);
}

static void relid_release(uint32_t relid)
{
    struct vmbus_relid message = {.header.type = VMBUS_RELID_RELEASED, .relid = relid};
    int r = vmbus_post(&message, sizeof(message), NULL);

    if (r)
        log_warn("vmbus: relid %u not released (%d)", relid, r);
    else
        vmbus_counters.released++;
}

static void device_release(struct vmbus_device *device)
{
    uint32_t relid = device->relid;
    struct vmbus_device **link = &devices;

    set_state(device, DEVICE_GONE);
    // Off the tables before the host can offer the relid again.
    while (*link != device)
        link = &(*link)->next;
    *link = device->next;
    by_relid[relid] = NULL;
    heap_free(device);
    relid_release(relid);
}

// What of one device is the control fiber's. True if anything was done, which may have changed the table.
static bool device_look_after(struct vmbus_device *device)
{
    if (device->fiber)
        return false;
    if (device->state == DEVICE_OFFERED && device->rescinded)
        set_state(device, DEVICE_IDLE);
    if (device->state != DEVICE_IDLE || !device->rescinded)
        return false;
    device_release(device);
    return true;
}

static bool look_after_all(void)
{
    for (struct vmbus_device *d = devices; d; d = d->next) {
        if (device_look_after(d))
            return true;
    }
    for (uint32_t word = 0; word < VMBUS_MAX_RELID / 64; word++) {
        if (!forgotten_rescinded[word])
            continue;
        uint32_t relid = word * 64 + (uint32_t)__builtin_ctzll(forgotten_rescinded[word]);
        bit_clear(forgotten_rescinded, relid);
        relid_release(relid);
        return true;
    }
    return false;
}

// Devices whose fiber could not be made get another try. True if that failed again.
static bool start_late(void)
{
    bool failed = false;

    for (struct vmbus_device *d = devices; d; d = d->next) {
        if (d->fiber || d->state != DEVICE_OFFERED)
            continue;
        d->fiber = fiber_spawn(d->driver->name, device_fiber, d) == 0;
        failed |= !d->fiber;
    }
    return failed;
}

_Noreturn void vmbus_offers_run(void)
{
    for (;;) {
        while (look_after_all())
            ;
        event_wait(&released, start_late() ? RETRY_ROOM : WAIT_FOREVER);
    }
}

unsigned vmbus_devices_in(enum device_state state)
{
    unsigned n = 0;

    for (const struct vmbus_device *d = devices; d; d = d->next)
        n += d->state == state;
    return n;
}
