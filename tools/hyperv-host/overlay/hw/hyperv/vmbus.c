/*
 * VMBus, host side: connection, offers, GPADLs, channels, and the bridge
 * device that makes the machine have one.
 *
 * The guest's messages arrive on its processors' threads without the BQL;
 * they are copied into a bounded queue and handled in order in the main loop.
 * Answers go through an outgoing queue, one in the guest's message slot at a
 * time; while any of them waits no further message of the guest is looked at.
 * Everything but vmbus_message_arrived() runs in the main loop under the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qemu/rcu.h"
#include "qapi/error.h"
#include "qapi/qmp/qlist.h"
#include "exec/address-spaces.h"
#include "exec/memory.h"
#include "hw/core/cpu.h"
#include "hw/hotplug.h"
#include "hw/hyperv/hyperv.h"
#include "hw/hyperv/hyperv-host.h"
#include "hw/hyperv/vmbus.h"
#include "hw/hyperv/vmbus-bridge.h"
#include "hw/qdev-properties.h"
#include "migration/vmstate.h"

#define INBOUND_DEPTH 64
#define MAX_GPADLS 1024
/* Signal again after this time, for guests that were not ready at OPEN. */
#define UNSTICK_MS 100

typedef struct VMBusInbound {
    uint32_t connection_id;
    uint32_t bytes;
    uint8_t payload[HV_MESSAGE_PAYLOAD_SIZE];
} VMBusInbound;

typedef struct VMBusOutbound {
    QSIMPLEQ_ENTRY(VMBusOutbound) link;
    uint32_t bytes;
    uint8_t payload[HV_MESSAGE_PAYLOAD_SIZE];
} VMBusOutbound;

/*
 * Where the guest wants its messages.  Outlives the connection while a
 * message is on its way (busy).
 */
typedef struct VMBusPort {
    VMBus *bus;
    HvSintRoute *route;
    bool busy;
    bool dead;
} VMBusPort;

typedef enum VMBusGpadlState {
    VMBUS_GPADL_FILLING,    /* waiting for BODY messages */
    VMBUS_GPADL_READY,
    VMBUS_GPADL_TEARDOWN,   /* TORNDOWN is sent when the last user lets go */
} VMBusGpadlState;

struct VMBusGpadl {
    QTAILQ_ENTRY(VMBusGpadl) link;
    VMBus *bus;
    uint32_t id;
    uint32_t relid;
    VMBusGpadlState state;
    unsigned users;

    /* as the guest sent it: ranges of a VMBusGpaRange and page numbers */
    uint64_t *words;
    uint32_t words_total;
    uint32_t words_seen;
    uint32_t range_count;

    /* the first range; pages has host addresses */
    uint32_t bytes;
    uint32_t offset;
    uint32_t page_count;
    uint8_t **pages;
    uint8_t *linear;        /* not NULL: the pages follow one another */
};

struct VMBus {
    BusState parent_obj;

    uint32_t max_version;

    QemuMutex inbound_lock; /* protects inbound, inbound_head/count */
    VMBusInbound inbound[INBOUND_DEPTH];
    unsigned inbound_head;
    unsigned inbound_count;

    QEMUBH *bh;
    VMBusPort *port;
    QSIMPLEQ_HEAD(, VMBusOutbound) outbound;

    bool connected;
    uint32_t version;
    bool offers_requested;
    VMBusChannel *relids[VMBUS_MAX_RELID + 1];
    QTAILQ_HEAD(, VMBusGpadl) gpadls;
    unsigned gpadl_count;
};

static void device_take_back(VMBusDevice *dev);
static void vmbus_unplug_done(VMBusDevice *dev);

VMBus *vmbus_device_bus(VMBusDevice *dev)
{
    return VMBUS(qdev_get_parent_bus(DEVICE(dev)));
}

static VMBus *channel_bus(VMBusChannel *chan)
{
    return vmbus_device_bus(chan->dev);
}

/*
 * Messages to the guest
 */

static void port_free(VMBusPort *port)
{
    hyperv_sint_route_unref(port->route);
    g_free(port);
}

static void outbound_clear(VMBus *bus)
{
    VMBusOutbound *msg;

    while ((msg = QSIMPLEQ_FIRST(&bus->outbound))) {
        QSIMPLEQ_REMOVE_HEAD(&bus->outbound, link);
        g_free(msg);
    }
}

/* Forget the port and what has not been delivered through it. */
static void port_drop(VMBus *bus)
{
    VMBusPort *port = bus->port;

    outbound_clear(bus);
    bus->port = NULL;
    if (!port) {
        return;
    }
    if (port->busy) {
        port->dead = true;      /* freed by port_posted */
    } else {
        port_free(port);
    }
}

/* The message at the head was put into the slot, or has to be tried again. */
static void port_posted(void *opaque, int status)
{
    VMBusPort *port = opaque;
    VMBus *bus = port->bus;

    port->busy = false;
    if (port->dead) {
        port_free(port);
        return;
    }
    if (status != -EAGAIN) {
        /*
         * Delivered, or the guest has switched its message page off: then
         * there is nobody to tell.
         */
        VMBusOutbound *msg = QSIMPLEQ_FIRST(&bus->outbound);

        QSIMPLEQ_REMOVE_HEAD(&bus->outbound, link);
        g_free(msg);
    }
    /* the route takes the next message only after this callback */
    qemu_bh_schedule(bus->bh);
}

static void port_create(VMBus *bus, uint32_t vp, uint32_t sint)
{
    VMBusPort *port = g_new0(VMBusPort, 1);

    port->bus = bus;
    port->route = hyperv_sint_route_new(vp, sint, port_posted, port);
    if (!port->route) {
        g_free(port);
        return;
    }
    bus->port = port;
}

static void vmbus_send(VMBus *bus, const void *data, uint32_t bytes)
{
    VMBusOutbound *msg;

    if (!bus->port) {
        return;
    }
    assert(bytes <= sizeof(msg->payload));
    msg = g_new0(VMBusOutbound, 1);
    msg->bytes = bytes;
    memcpy(msg->payload, data, bytes);
    QSIMPLEQ_INSERT_TAIL(&bus->outbound, msg, link);
    qemu_bh_schedule(bus->bh);
}

static void outbound_pump(VMBus *bus)
{
    VMBusOutbound *msg = QSIMPLEQ_FIRST(&bus->outbound);
    struct hyperv_message hv_msg = {
        .header.message_type = HV_MESSAGE_VMBUS,
    };

    if (!msg || !bus->port || bus->port->busy) {
        return;
    }
    hv_msg.header.payload_size = msg->bytes;
    memcpy(hv_msg.payload, msg->payload, msg->bytes);
    bus->port->busy = true;
    if (hyperv_post_msg(bus->port->route, &hv_msg) < 0) {
        /* the route is still finishing the previous one */
        bus->port->busy = false;
        qemu_bh_schedule(bus->bh);
    }
}

/*
 * GPADLs
 */

static VMBusGpadl *gpadl_find(VMBus *bus, uint32_t relid, uint32_t id)
{
    VMBusGpadl *gpadl;

    QTAILQ_FOREACH(gpadl, &bus->gpadls, link) {
        if (gpadl->id == id && gpadl->relid == relid) {
            return gpadl;
        }
    }
    return NULL;
}

static VMBusGpadl *gpadl_find_filling(VMBus *bus, uint32_t id)
{
    VMBusGpadl *gpadl;

    QTAILQ_FOREACH(gpadl, &bus->gpadls, link) {
        if (gpadl->id == id && gpadl->state == VMBUS_GPADL_FILLING) {
            return gpadl;
        }
    }
    return NULL;
}

static void gpadl_free(VMBusGpadl *gpadl)
{
    assert(!gpadl->users);
    QTAILQ_REMOVE(&gpadl->bus->gpadls, gpadl, link);
    gpadl->bus->gpadl_count--;
    g_free(gpadl->words);
    g_free(gpadl->pages);
    g_free(gpadl);
}

static void gpadl_torndown(VMBusGpadl *gpadl)
{
    VMBusMsgGpadlTorndown msg = {
        .header.type = VMBUS_MSG_GPADL_TORNDOWN,
        .gpadl = gpadl->id,
    };

    vmbus_send(gpadl->bus, &msg, sizeof(msg));
    gpadl_free(gpadl);
}

VMBusGpadl *vmbus_gpadl_get(VMBusChannel *chan, uint32_t id)
{
    VMBusGpadl *gpadl = gpadl_find(channel_bus(chan), chan->relid, id);

    if (!gpadl || gpadl->state != VMBUS_GPADL_READY || !gpadl->pages) {
        return NULL;
    }
    gpadl->users++;
    return gpadl;
}

void vmbus_gpadl_put(VMBusGpadl *gpadl)
{
    if (!gpadl) {
        return;
    }
    assert(gpadl->users);
    if (!--gpadl->users && gpadl->state == VMBUS_GPADL_TEARDOWN) {
        gpadl_torndown(gpadl);
    }
}

uint32_t vmbus_gpadl_bytes(const VMBusGpadl *gpadl)
{
    return gpadl->bytes;
}

bool vmbus_gpadl_aligned(const VMBusGpadl *gpadl)
{
    return gpadl->range_count == 1 && !gpadl->offset;
}

uint8_t *vmbus_gpadl_ptr(const VMBusGpadl *gpadl, uint32_t off, uint32_t *run)
{
    uint32_t in_page;

    assert(off < gpadl->bytes);
    if (gpadl->linear) {
        *run = gpadl->bytes - off;
        return gpadl->linear + gpadl->offset + off;
    }
    off += gpadl->offset;
    in_page = off & (VMBUS_PAGE_SIZE - 1);
    *run = MIN(VMBUS_PAGE_SIZE - in_page,
               gpadl->bytes + gpadl->offset - off);
    return gpadl->pages[off >> VMBUS_PAGE_BITS] + in_page;
}

void vmbus_gpadl_read(const VMBusGpadl *gpadl, uint32_t off, void *buf,
                      uint32_t bytes)
{
    uint32_t run;

    while (bytes) {
        const uint8_t *src = vmbus_gpadl_ptr(gpadl, off, &run);

        run = MIN(run, bytes);
        memcpy(buf, src, run);
        buf = (uint8_t *)buf + run;
        off += run;
        bytes -= run;
    }
}

void vmbus_gpadl_write(const VMBusGpadl *gpadl, uint32_t off, const void *buf,
                       uint32_t bytes)
{
    uint32_t run;

    while (bytes) {
        uint8_t *dst = vmbus_gpadl_ptr(gpadl, off, &run);

        run = MIN(run, bytes);
        memcpy(dst, buf, run);
        buf = (const uint8_t *)buf + run;
        off += run;
        bytes -= run;
    }
}

static int iov_append(struct iovec *iov, int count, int max, uint8_t *ptr,
                      uint32_t bytes)
{
    if (count && (uint8_t *)iov[count - 1].iov_base +
                 iov[count - 1].iov_len == ptr) {
        iov[count - 1].iov_len += bytes;
        return count;
    }
    if (count == max) {
        return -1;
    }
    iov[count].iov_base = ptr;
    iov[count].iov_len = bytes;
    return count + 1;
}

int vmbus_gpadl_iov(const VMBusGpadl *gpadl, uint32_t off, uint32_t bytes,
                    struct iovec *iov, int count, int max)
{
    uint32_t run;

    while (bytes && count >= 0) {
        uint8_t *ptr = vmbus_gpadl_ptr(gpadl, off, &run);

        run = MIN(run, bytes);
        count = iov_append(iov, count, max, ptr, run);
        off += run;
        bytes -= run;
    }
    return count;
}

/* The host address of guest RAM at @gpa, NULL if there is none. */
static uint8_t *guest_ram(hwaddr gpa, hwaddr bytes)
{
    MemoryRegion *mr;
    hwaddr offset, run = bytes;

    RCU_READ_LOCK_GUARD();
    mr = address_space_translate(&address_space_memory, gpa, &offset, &run,
                                 true, MEMTXATTRS_UNSPECIFIED);
    if (run < bytes || !memory_access_is_direct(mr, true)) {
        return NULL;
    }
    return qemu_map_ram_ptr(mr->ram_block, offset);
}

/*
 * The number of page numbers that @range needs, 0 if it is malformed.
 */
static uint64_t gpa_range_pages(const VMBusGpaRange *range)
{
    if (!range->bytes || range->offset >= VMBUS_PAGE_SIZE) {
        return 0;
    }
    return DIV_ROUND_UP((uint64_t)range->offset + range->bytes,
                        VMBUS_PAGE_SIZE);
}

int vmbus_gpa_range_iov(const uint8_t **pos, uint32_t *left,
                        struct iovec *iov, int count, int max)
{
    VMBusGpaRange range;
    uint64_t pages, i;
    const uint8_t *pfns = *pos + sizeof(range);

    if (*left < sizeof(range)) {
        return -1;
    }
    memcpy(&range, *pos, sizeof(range));
    pages = gpa_range_pages(&range);
    if (!pages || pages > (*left - sizeof(range)) / 8) {
        return -1;
    }
    for (i = 0; i < pages; i++) {
        uint64_t pfn = ldq_le_p(pfns + i * 8);
        uint32_t bytes = MIN(range.bytes, VMBUS_PAGE_SIZE - range.offset);
        uint8_t *ptr;

        if (pfn > (UINT64_MAX >> VMBUS_PAGE_BITS)) {
            return -2;
        }
        ptr = guest_ram((pfn << VMBUS_PAGE_BITS) + range.offset, bytes);
        if (!ptr) {
            return -2;
        }
        count = iov_append(iov, count, max, ptr, bytes);
        if (count < 0) {
            return -3;
        }
        range.bytes -= bytes;
        range.offset = 0;
    }
    *pos += sizeof(range) + pages * 8;
    *left -= sizeof(range) + pages * 8;
    return count;
}

static bool gpadl_map(VMBusGpadl *gpadl)
{
    const uint64_t *pfns = gpadl->words + 1;
    uint32_t i;

    gpadl->pages = g_new(uint8_t *, gpadl->page_count);
    for (i = 0; i < gpadl->page_count; i++) {
        if (pfns[i] > (UINT64_MAX >> VMBUS_PAGE_BITS)) {
            return false;
        }
        gpadl->pages[i] = guest_ram(pfns[i] << VMBUS_PAGE_BITS,
                                    VMBUS_PAGE_SIZE);
        if (!gpadl->pages[i]) {
            return false;
        }
    }
    gpadl->linear = gpadl->pages[0];
    for (i = 1; i < gpadl->page_count; i++) {
        if (gpadl->pages[i] != gpadl->linear + (size_t)i * VMBUS_PAGE_SIZE) {
            gpadl->linear = NULL;
            break;
        }
    }
    return true;
}

/* All words are there: check the ranges, map the pages if there is one. */
static bool gpadl_complete(VMBusGpadl *gpadl)
{
    uint32_t i, pos = 0;

    for (i = 0; i < gpadl->range_count; i++) {
        VMBusGpaRange range;
        uint64_t pages;

        if (pos == gpadl->words_total) {
            return false;
        }
        memcpy(&range, &gpadl->words[pos], sizeof(range));
        pages = gpa_range_pages(&range);
        if (!pages || pages > gpadl->words_total - pos - 1) {
            return false;
        }
        if (!i) {
            gpadl->bytes = range.bytes;
            gpadl->offset = range.offset;
            gpadl->page_count = pages;
        }
        pos += 1 + pages;
    }
    if (gpadl->range_count == 1 && !gpadl_map(gpadl)) {
        return false;
    }
    g_free(gpadl->words);
    gpadl->words = NULL;
    gpadl->state = VMBUS_GPADL_READY;
    return true;
}

static void gpadl_created(VMBus *bus, uint32_t relid, uint32_t id,
                          uint32_t status)
{
    VMBusMsgGpadlCreated msg = {
        .header.type = VMBUS_MSG_GPADL_CREATED,
        .relid = relid,
        .gpadl = id,
        .status = status,
    };

    vmbus_send(bus, &msg, sizeof(msg));
}

/* Take over page numbers from a message; answer when it was the last one. */
static void gpadl_fill(VMBusGpadl *gpadl, const uint8_t *words, uint32_t bytes)
{
    uint32_t count = MIN(bytes / 8, gpadl->words_total - gpadl->words_seen);
    uint32_t status = VMBUS_STATUS_OK;

    memcpy(gpadl->words + gpadl->words_seen, words, count * 8);
    gpadl->words_seen += count;
    if (gpadl->words_seen < gpadl->words_total) {
        return;
    }
    if (!gpadl_complete(gpadl)) {
        hyperv_violation("gpadl-range", "relid %u, gpadl 0x%x", gpadl->relid,
                         gpadl->id);
        status = VMBUS_STATUS_FAILED;
    }
    gpadl_created(gpadl->bus, gpadl->relid, gpadl->id, status);
    if (status) {
        gpadl_free(gpadl);
    }
}

static void handle_gpadl_header(VMBus *bus, const void *data, uint32_t bytes)
{
    const VMBusMsgGpadlHeader *msg = data;
    VMBusGpadl *gpadl;
    const char *why = NULL;

    if (msg->relid > VMBUS_MAX_RELID || !bus->relids[msg->relid]) {
        why = "gpadl-unknown-relid";
    } else if (gpadl_find(bus, msg->relid, msg->gpadl) ||
               gpadl_find_filling(bus, msg->gpadl)) {
        why = "gpadl-duplicate-id";
    } else if (!msg->range_count || msg->range_buffer_bytes % 8 ||
               msg->range_buffer_bytes < 16 || bus->gpadl_count == MAX_GPADLS) {
        why = "gpadl-range";
    }
    if (why) {
        hyperv_violation(why, "relid %u, gpadl 0x%x, %u ranges in %u bytes",
                         msg->relid, msg->gpadl, msg->range_count,
                         msg->range_buffer_bytes);
        gpadl_created(bus, msg->relid, msg->gpadl, VMBUS_STATUS_FAILED);
        return;
    }

    gpadl = g_new0(VMBusGpadl, 1);
    gpadl->bus = bus;
    gpadl->id = msg->gpadl;
    gpadl->relid = msg->relid;
    gpadl->range_count = msg->range_count;
    gpadl->words_total = msg->range_buffer_bytes / 8;
    gpadl->words = g_new0(uint64_t, gpadl->words_total);
    QTAILQ_INSERT_TAIL(&bus->gpadls, gpadl, link);
    bus->gpadl_count++;
    gpadl_fill(gpadl, (const uint8_t *)(msg + 1), bytes - sizeof(*msg));
}

static void handle_gpadl_body(VMBus *bus, const void *data, uint32_t bytes)
{
    const VMBusMsgGpadlBody *msg = data;
    VMBusGpadl *gpadl = gpadl_find_filling(bus, msg->gpadl);

    if (!gpadl) {
        hyperv_violation("gpadl-body-unexpected", "gpadl 0x%x", msg->gpadl);
        return;
    }
    gpadl_fill(gpadl, (const uint8_t *)(msg + 1), bytes - sizeof(*msg));
}

static void handle_gpadl_teardown(VMBus *bus, const void *data, uint32_t bytes)
{
    const VMBusMsgGpadlTeardown *msg = data;
    VMBusGpadl *gpadl = gpadl_find(bus, msg->relid, msg->gpadl);

    if (!gpadl || gpadl->state != VMBUS_GPADL_READY) {
        hyperv_violation("gpadl-teardown-unexpected", "relid %u, gpadl 0x%x",
                         msg->relid, msg->gpadl);
        return;
    }
    if (gpadl->users) {
        gpadl->state = VMBUS_GPADL_TEARDOWN;
    } else {
        gpadl_torndown(gpadl);
    }
}

static void gpadls_free(VMBus *bus, uint32_t relid, bool all)
{
    VMBusGpadl *gpadl, *next;

    QTAILQ_FOREACH_SAFE(gpadl, &bus->gpadls, link, next) {
        if (all || gpadl->relid == relid) {
            gpadl_free(gpadl);
        }
    }
}

/*
 * Channels
 */

void vmbus_channel_signal_guest(VMBusChannel *chan)
{
    if (chan->route) {
        chan->signals_to_guest++;
        hyperv_set_event_flag(chan->route, chan->relid);
    }
}

void vmbus_channel_kick(VMBusChannel *chan)
{
    qemu_bh_schedule(chan->work_bh);
}

void vmbus_channel_stop(VMBusChannel *chan)
{
    chan->broken = true;
}

void vmbus_channel_fail(VMBusChannel *chan, const char *rule,
                        const char *fmt, ...)
{
    g_autofree char *detail = NULL;
    va_list ap;

    va_start(ap, fmt);
    detail = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    hyperv_violation(rule, "relid %u: %s", chan->relid, detail);
    vmbus_channel_stop(chan);
}

static void channel_work(void *opaque)
{
    VMBusChannel *chan = opaque;
    bool more;

    if (!vmbus_channel_usable(chan) || !vmbus_ring_wake(chan)) {
        return;
    }
    more = VMBUS_DEVICE_GET_CLASS(chan->dev)->channel_work(chan);
    if (chan->dev->take_back_due) {
        device_take_back(chan->dev);
    } else if (more) {
        vmbus_channel_kick(chan);
    }
}

static void channel_signalled(EventNotifier *notifier)
{
    VMBusChannel *chan = container_of(notifier, VMBusChannel, notifier);

    if (event_notifier_test_and_clear(notifier)) {
        chan->signals_from_guest++;
        channel_work(chan);
    }
}

static void channel_unstick(void *opaque)
{
    VMBusChannel *chan = opaque;

    if (vmbus_channel_usable(chan) && !vmbus_ring_out_empty(chan)) {
        vmbus_channel_signal_guest(chan);
    }
}

static bool vp_valid(uint32_t vp)
{
    return vp < INT_MAX && qemu_get_cpu(vp);
}

/* Create the way for the channel's interrupts; false if @vp is no processor. */
static bool channel_route(VMBusChannel *chan, uint32_t vp)
{
    HvSintRoute *route = NULL;

    if (vp != VMBUS_VP_NONE) {
        if (!vp_valid(vp)) {
            return false;
        }
        route = hyperv_sint_route_new(vp, VMBUS_SINT, NULL, NULL);
        if (!route) {
            return false;
        }
    }
    if (chan->route) {
        hyperv_sint_route_unref(chan->route);
    }
    chan->route = route;
    chan->target_vp = vp;
    return true;
}

static void channel_unroute(VMBusChannel *chan)
{
    if (chan->route) {
        hyperv_sint_route_unref(chan->route);
        chan->route = NULL;
    }
}

/* The steps of opening, undone in reverse order if one fails. */
static bool channel_do_open(VMBusChannel *chan, const VMBusMsgOpen *msg)
{
    VMBusDeviceClass *vdc = VMBUS_DEVICE_GET_CLASS(chan->dev);

    chan->ring_gpadl = vmbus_gpadl_get(chan, msg->gpadl);
    if (!chan->ring_gpadl) {
        hyperv_violation("open-ring-gpadl", "relid %u, gpadl 0x%x",
                         chan->relid, msg->gpadl);
        return false;
    }
    if (!vmbus_ring_open(chan, msg->downstream_page)) {
        goto put_gpadl;
    }
    if (!channel_route(chan, msg->target_vp)) {
        hyperv_violation("open-target-vp", "relid %u, vp %u", chan->relid,
                         msg->target_vp);
        goto close_ring;
    }
    if (event_notifier_init(&chan->notifier, 0)) {
        goto unroute;
    }
    event_notifier_set_handler(&chan->notifier, channel_signalled);
    if (hyperv_set_event_flag_handler(chan->connection_id, &chan->notifier)) {
        goto remove_notifier;
    }
    chan->broken = false;
    chan->open = true;
    if (vdc->open_channel(chan)) {
        goto close;
    }
    return true;

close:
    chan->open = false;
    hyperv_set_event_flag_handler(chan->connection_id, NULL);
remove_notifier:
    event_notifier_set_handler(&chan->notifier, NULL);
    event_notifier_cleanup(&chan->notifier);
unroute:
    channel_unroute(chan);
close_ring:
    vmbus_ring_close(chan);
put_gpadl:
    vmbus_gpadl_put(chan->ring_gpadl);
    chan->ring_gpadl = NULL;
    return false;
}

static void channel_rescind(VMBusChannel *chan);

static void channel_close(VMBusChannel *chan)
{
    unsigned i;

    if (!chan->open) {
        return;
    }
    /* a primary takes its subchannels with it */
    for (i = 1; !chan->index && i < chan->dev->num_channels; i++) {
        VMBusChannel *sub = &chan->dev->channels[i];

        sub->want_offer = false;
        channel_rescind(sub);
        if (sub->offer == VMBUS_OFFER_RELEASED) {
            sub->offer = VMBUS_OFFER_NONE;  /* may be asked for again */
        }
    }
    VMBUS_DEVICE_GET_CLASS(chan->dev)->close_channel(chan);
    chan->open = false;
    hyperv_set_event_flag_handler(chan->connection_id, NULL);
    event_notifier_set_handler(&chan->notifier, NULL);
    event_notifier_cleanup(&chan->notifier);
    qemu_bh_cancel(chan->work_bh);
    timer_del(chan->unstick_timer);
    channel_unroute(chan);
    vmbus_ring_close(chan);
    vmbus_gpadl_put(chan->ring_gpadl);
    chan->ring_gpadl = NULL;
}

/*
 * The channel of @relid if the guest may still speak of it.  NULL otherwise;
 * *@known tells whether there is an offer (which has been rescinded) at all.
 */
static VMBusChannel *channel_find(VMBus *bus, uint32_t relid, bool *known)
{
    VMBusChannel *chan = relid <= VMBUS_MAX_RELID ? bus->relids[relid] : NULL;

    *known = chan != NULL;
    return chan && chan->offer == VMBUS_OFFER_OFFERED ? chan : NULL;
}

static void handle_open(VMBus *bus, const void *data, uint32_t bytes)
{
    const VMBusMsgOpen *msg = data;
    VMBusMsgOpenResult result = {
        .header.type = VMBUS_MSG_OPEN_RESULT,
        .relid = msg->relid,
        .open_id = msg->open_id,
    };
    bool known;
    VMBusChannel *chan = channel_find(bus, msg->relid, &known);

    if (!chan || chan->open) {
        if (!known) {
            hyperv_violation("open-unknown-relid", "relid %u", msg->relid);
        } else if (chan) {
            hyperv_violation("open-twice", "relid %u", msg->relid);
        }
        return;
    }
    result.status = channel_do_open(chan, msg) ? VMBUS_STATUS_OK
                                               : VMBUS_STATUS_FAILED;
    vmbus_send(bus, &result, sizeof(result));
    if (chan->open) {
        timer_mod(chan->unstick_timer,
                  qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + UNSTICK_MS);
        vmbus_channel_kick(chan);
    }
}

static void handle_close(VMBus *bus, const void *data, uint32_t bytes)
{
    const VMBusMsgRelid *msg = data;
    bool known;
    VMBusChannel *chan = channel_find(bus, msg->relid, &known);

    if (!known || (chan && !chan->open)) {
        hyperv_violation("close-not-open", "relid %u", msg->relid);
    } else if (chan) {
        channel_close(chan);
    }
}

static void handle_modify(VMBus *bus, const void *data, uint32_t bytes)
{
    const VMBusMsgModify *msg = data;
    VMBusMsgModifyResponse response = {
        .header.type = VMBUS_MSG_MODIFY_RESPONSE,
        .relid = msg->relid,
    };
    bool known;
    VMBusChannel *chan = channel_find(bus, msg->relid, &known);

    if (!chan || !chan->open || !chan->route ||
        msg->target_vp == VMBUS_VP_NONE ||
        !channel_route(chan, msg->target_vp)) {
        if (!known || chan) {
            hyperv_violation("modify-channel", "relid %u, vp %u", msg->relid,
                             msg->target_vp);
        }
        response.status = VMBUS_STATUS_FAILED;
    } else {
        /* a signal may have gone to the old processor in vain */
        vmbus_channel_signal_guest(chan);
    }
    if (bus->version >= VMBUS_VERSION_5_3) {
        vmbus_send(bus, &response, sizeof(response));
    }
}

/*
 * Offers
 */

/* GUIDs travel with their first three groups in little endian. */
static void guid_to_wire(uint8_t *wire, const QemuUUID *uuid)
{
    QemuUUID swapped = qemu_uuid_bswap(*uuid);

    memcpy(wire, &swapped, sizeof(swapped));
}

static void channel_send_offer(VMBusChannel *chan)
{
    VMBus *bus = channel_bus(chan);
    VMBusDeviceClass *vdc = VMBUS_DEVICE_GET_CLASS(chan->dev);
    VMBusMsgOffer msg = {
        .header.type = VMBUS_MSG_OFFER,
        .flags = vdc->offer_flags,
        .subchannel_index = chan->index,
        .monitor_id = 0xff,
        .is_dedicated = 1,
    };
    uint32_t relid = 1;

    while (relid <= VMBUS_MAX_RELID && bus->relids[relid]) {
        relid++;
    }
    if (relid > VMBUS_MAX_RELID) {
        warn_report("hyperv-host: no relid left for %s",
                    object_get_typename(OBJECT(chan->dev)));
        return;
    }
    bus->relids[relid] = chan;
    chan->relid = relid;
    chan->connection_id = relid | VMBUS_SINT << 12;
    chan->offer = VMBUS_OFFER_OFFERED;

    guid_to_wire(msg.class_id, &vdc->class_id);
    guid_to_wire(msg.instance_id, &chan->dev->instance_id);
    stl_le_p(msg.user_data, vdc->offer_pipe_mode);
    msg.relid = relid;
    msg.connection_id = chan->connection_id;
    vmbus_send(bus, &msg, sizeof(msg));
}

void vmbus_channel_offer(VMBusChannel *chan)
{
    chan->want_offer = true;
    if (chan->offer == VMBUS_OFFER_NONE) {
        channel_send_offer(chan);
    }
}

static void device_offer(VMBusDevice *dev)
{
    if (dev->num_channels && !dev->unplugging &&
        dev->channels[0].offer == VMBUS_OFFER_NONE) {
        channel_send_offer(&dev->channels[0]);
    }
}

static void handle_request_offers(VMBus *bus, const void *data, uint32_t bytes)
{
    VMBusMsgHeader end = { .type = VMBUS_MSG_ALL_OFFERS_DELIVERED };
    BusChild *kid;

    if (bus->offers_requested) {
        hyperv_violation("request-offers-twice", "ignored");
        return;
    }
    bus->offers_requested = true;
    QTAILQ_FOREACH_REVERSE(kid, &BUS(bus)->children, sibling) {
        device_offer(VMBUS_DEVICE(kid->child));
    }
    vmbus_send(bus, &end, sizeof(end));
}

/* Withdraw the offer, closing the channel; waits for RELID_RELEASED. */
static void channel_rescind(VMBusChannel *chan)
{
    VMBusMsgRelid msg = {
        .header.type = VMBUS_MSG_RESCIND,
        .relid = chan->relid,
    };

    if (chan->offer != VMBUS_OFFER_OFFERED) {
        return;
    }
    channel_close(chan);
    chan->offer = VMBUS_OFFER_RESCINDED;
    vmbus_send(channel_bus(chan), &msg, sizeof(msg));
}

static void channel_free_relid(VMBusChannel *chan, VMBusOfferState state)
{
    VMBus *bus = channel_bus(chan);

    gpadls_free(bus, chan->relid, false);
    bus->relids[chan->relid] = NULL;
    chan->relid = 0;
    chan->offer = state;
}

static void handle_relid_released(VMBus *bus, const void *data, uint32_t bytes)
{
    const VMBusMsgRelid *msg = data;
    bool known;
    VMBusChannel *chan = channel_find(bus, msg->relid, &known);

    if (!known || (chan && chan->open)) {
        hyperv_violation("relid-released-unexpected", "relid %u", msg->relid);
        return;
    }
    if (chan) {
        channel_free_relid(chan, VMBUS_OFFER_RELEASED);
        return;
    }
    chan = bus->relids[msg->relid];
    channel_free_relid(chan, VMBUS_OFFER_NONE);
    if (chan->dev->unplugging) {
        vmbus_unplug_done(chan->dev);
    } else if (chan->want_offer) {
        channel_send_offer(chan);
    }
}

/*
 * Connection
 */

static void vmbus_connection_messages(VMBus *bus, bool on);

/* Close and forget everything of the connection; the port stays. */
static void vmbus_disconnect(VMBus *bus)
{
    BusChild *kid, *next;
    unsigned i;

    outbound_clear(bus);
    if (bus->port && bus->port->busy) {
        /* the message on its way is of the past: nobody waits for it */
        port_drop(bus);
    }
    for (i = 1; i <= VMBUS_MAX_RELID; i++) {
        if (bus->relids[i] && !bus->relids[i]->index) {
            channel_close(bus->relids[i]);
        }
    }
    for (i = 1; i <= VMBUS_MAX_RELID; i++) {
        VMBusChannel *chan = bus->relids[i];

        if (chan) {
            channel_close(chan);
            channel_free_relid(chan, VMBUS_OFFER_NONE);
        }
    }
    gpadls_free(bus, 0, true);
    outbound_clear(bus);    /* rescinds of subchannels, late TORNDOWNs */
    bus->offers_requested = false;
    if (bus->connected) {
        vmbus_connection_messages(bus, false);
    }
    bus->connected = false;
    bus->version = 0;
    QTAILQ_FOREACH_SAFE(kid, &BUS(bus)->children, sibling, next) {
        VMBusDevice *dev = VMBUS_DEVICE(kid->child);

        for (i = 0; i < dev->num_channels; i++) {
            dev->channels[i].offer = VMBUS_OFFER_NONE;
            dev->channels[i].want_offer = false;
        }
        if (dev->unplugging) {
            vmbus_unplug_done(dev);
        }
    }
}

static bool version_known(const VMBus *bus, uint32_t version)
{
    static const uint32_t known[] = {
        VMBUS_VERSION_2_4, VMBUS_VERSION_3_0, VMBUS_VERSION_4_0,
        VMBUS_VERSION_4_1, VMBUS_VERSION_5_0, VMBUS_VERSION_5_1,
        VMBUS_VERSION_5_2, VMBUS_VERSION_5_3,
    };
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(known); i++) {
        if (known[i] == version) {
            return version <= bus->max_version;
        }
    }
    return false;
}

static bool monitor_pages_valid(const VMBusMsgInitiateContact *msg)
{
    uint64_t both = msg->monitor_page_to_guest | msg->monitor_page_to_host;

    return !msg->monitor_page_to_guest == !msg->monitor_page_to_host &&
           !(both & (VMBUS_PAGE_SIZE - 1));
}

static void handle_initiate_contact(VMBus *bus,
                                    const VMBusMsgInitiateContact *msg,
                                    uint32_t connection_id)
{
    VMBusMsgVersionResponse response = {
        .header.type = VMBUS_MSG_VERSION_RESPONSE,
    };
    bool modern = msg->version >= VMBUS_VERSION_5_0;
    uint32_t vp = msg->version >= VMBUS_VERSION_3_0 ? msg->target_vp : 0;
    uint32_t sint = VMBUS_SINT;

    vmbus_disconnect(bus);
    port_drop(bus);

    response.supported = version_known(bus, msg->version);
    if (modern && connection_id != VMBUS_CONN_CONTACT) {
        if (response.supported) {
            hyperv_violation("contact-connection-id",
                             "version 0x%x on connection id %u", msg->version,
                             connection_id);
        }
        response.supported = 0;
    } else if (modern && (msg->sint != VMBUS_SINT || msg->vtl)) {
        hyperv_violation("contact-target", "sint %u, vtl %u", msg->sint,
                         msg->vtl);
        response.supported = 0;
        sint = msg->sint;
    }
    if (!vp_valid(vp)) {
        hyperv_violation("contact-target-vp", "vp %u", vp);
        response.connection_state = VMBUS_CONNECT_FAILED;
        vp = 0;
    } else if (!monitor_pages_valid(msg)) {
        hyperv_violation("contact-monitor-pages", "0x%" PRIx64 ", 0x%" PRIx64,
                         msg->monitor_page_to_guest, msg->monitor_page_to_host);
        response.connection_state = VMBUS_CONNECT_FAILED;
    }
    if (sint < HV_SINT_COUNT) {
        port_create(bus, vp, sint);
    }
    if (response.supported) {
        response.selected = modern ? VMBUS_CONN_NEGOTIATED : msg->version;
        if (!response.connection_state) {
            bus->connected = true;
            bus->version = msg->version;
            vmbus_connection_messages(bus, true);
        }
    }
    vmbus_send(bus, &response, sizeof(response));
}

static void handle_unload(VMBus *bus, const void *data, uint32_t bytes)
{
    VMBusMsgHeader response = { .type = VMBUS_MSG_UNLOAD_RESPONSE };

    vmbus_disconnect(bus);
    vmbus_send(bus, &response, sizeof(response));
}

/* There are no reserved channels: nothing to open, nothing to close. */
static void handle_reserved(VMBus *bus, const void *data, uint32_t bytes)
{
    const VMBusMsgHeader *msg = data;

    hyperv_violation("reserved-channel", "message type %u refused", msg->type);
}

static void handle_tl_connect(VMBus *bus, const void *data, uint32_t bytes)
{
    const VMBusMsgTlConnect *msg = data;
    VMBusMsgTlConnectResult result = {
        .header.type = VMBUS_MSG_TL_CONNECT_RESULT,
        .status = VMBUS_STATUS_REFUSED,
    };

    memcpy(result.endpoint, msg->endpoint, sizeof(result.endpoint));
    memcpy(result.service, msg->service, sizeof(result.service));
    if (bus->version >= VMBUS_VERSION_4_1) {
        vmbus_send(bus, &result, sizeof(result));
    }
}

/*
 * What a guest may send, how long it is at least, and since which version.
 * INITIATE_CONTACT needs no connection and is handled apart.
 */
static const struct {
    uint32_t min_version;
    uint32_t min_bytes;
    void (*handle)(VMBus *bus, const void *msg, uint32_t bytes);
} messages[] = {
    [VMBUS_MSG_REQUEST_OFFERS] = {
        VMBUS_VERSION_2_4, sizeof(VMBusMsgHeader), handle_request_offers },
    [VMBUS_MSG_OPEN] = {
        VMBUS_VERSION_2_4, sizeof(VMBusMsgOpen), handle_open },
    [VMBUS_MSG_CLOSE] = {
        VMBUS_VERSION_2_4, sizeof(VMBusMsgRelid), handle_close },
    [VMBUS_MSG_GPADL_HEADER] = {
        VMBUS_VERSION_2_4, sizeof(VMBusMsgGpadlHeader), handle_gpadl_header },
    [VMBUS_MSG_GPADL_BODY] = {
        VMBUS_VERSION_2_4, sizeof(VMBusMsgGpadlBody), handle_gpadl_body },
    [VMBUS_MSG_GPADL_TEARDOWN] = {
        VMBUS_VERSION_2_4, sizeof(VMBusMsgGpadlTeardown),
        handle_gpadl_teardown },
    [VMBUS_MSG_RELID_RELEASED] = {
        VMBUS_VERSION_2_4, sizeof(VMBusMsgRelid), handle_relid_released },
    [VMBUS_MSG_UNLOAD] = {
        VMBUS_VERSION_3_0, sizeof(VMBusMsgHeader), handle_unload },
    [VMBUS_MSG_OPEN_RESERVED] = {
        VMBUS_VERSION_4_0, 28, handle_reserved },
    [VMBUS_MSG_CLOSE_RESERVED] = {
        VMBUS_VERSION_2_4, 20, handle_reserved },
    [VMBUS_MSG_TL_CONNECT] = {
        VMBUS_VERSION_4_0, sizeof(VMBusMsgTlConnect), handle_tl_connect },
    [VMBUS_MSG_MODIFY] = {
        VMBUS_VERSION_4_1, sizeof(VMBusMsgModify), handle_modify },
};

static bool message_is_for_guest(uint32_t type)
{
    switch (type) {
    case VMBUS_MSG_OFFER:
    case VMBUS_MSG_RESCIND:
    case VMBUS_MSG_ALL_OFFERS_DELIVERED:
    case VMBUS_MSG_OPEN_RESULT:
    case VMBUS_MSG_GPADL_CREATED:
    case VMBUS_MSG_GPADL_TORNDOWN:
    case VMBUS_MSG_VERSION_RESPONSE:
    case VMBUS_MSG_UNLOAD_RESPONSE:
    case VMBUS_MSG_CLOSE_RESERVED_RESPONSE:
    case VMBUS_MSG_TL_CONNECT_RESULT:
    case VMBUS_MSG_MODIFY_RESPONSE:
    case VMBUS_MSG_MODIFY_CONNECTION_RESPONSE:
    case VMBUS_MSG_PAUSE_RESPONSE:
        return true;
    default:
        return false;
    }
}

/*
 * The device that a message is about; NULL also for all but the last of the
 * messages that carry a GPADL's page numbers on.
 */
static VMBusDevice *message_device(VMBus *bus, const VMBusInbound *msg)
{
    const VMBusMsgRelid *about = (const VMBusMsgRelid *)msg->payload;
    const VMBusMsgGpadlBody *body = (const VMBusMsgGpadlBody *)msg->payload;
    uint32_t relid = 0;
    VMBusGpadl *gpadl;

    switch (about->header.type) {
    case VMBUS_MSG_OPEN:
    case VMBUS_MSG_CLOSE:
    case VMBUS_MSG_GPADL_HEADER:
    case VMBUS_MSG_GPADL_TEARDOWN:
    case VMBUS_MSG_RELID_RELEASED:
    case VMBUS_MSG_MODIFY:
        relid = about->relid;
        break;
    case VMBUS_MSG_GPADL_BODY:
        gpadl = gpadl_find_filling(bus, body->gpadl);
        if (gpadl && (msg->bytes - sizeof(*body)) / 8 >=
                     gpadl->words_total - gpadl->words_seen) {
            relid = gpadl->relid;
        }
        break;
    default:
        break;
    }
    return relid && relid <= VMBUS_MAX_RELID && bus->relids[relid]
           ? bus->relids[relid]->dev : NULL;
}

static void message_handle(VMBus *bus, const VMBusInbound *msg)
{
    const VMBusMsgHeader *header = (const VMBusMsgHeader *)msg->payload;
    uint32_t type = header->type;
    VMBusDevice *dev;

    if (msg->bytes < sizeof(*header)) {
        hyperv_violation("message-too-short", "%u bytes", msg->bytes);
        return;
    }
    if (type == VMBUS_MSG_INITIATE_CONTACT) {
        if (msg->bytes < sizeof(VMBusMsgInitiateContact)) {
            hyperv_violation("message-too-short", "type %u, %u bytes", type,
                             msg->bytes);
            return;
        }
        handle_initiate_contact(bus, (const void *)msg->payload,
                                msg->connection_id);
        return;
    }
    if (message_is_for_guest(type)) {
        hyperv_violation("message-direction", "type %u", type);
        return;
    }
    if (type >= ARRAY_SIZE(messages) || !messages[type].handle) {
        hyperv_violation("message-type", "type %u", type);
        return;
    }
    if (!bus->connected && type != VMBUS_MSG_CLOSE_RESERVED) {
        hyperv_violation("message-disconnected", "type %u", type);
        return;
    }
    if (bus->connected && bus->version < messages[type].min_version) {
        hyperv_violation("message-version", "type %u at version 0x%x", type,
                         bus->version);
        return;
    }
    if (bus->version >= VMBUS_VERSION_5_0 &&
        msg->connection_id != VMBUS_CONN_NEGOTIATED) {
        hyperv_violation("message-connection-id",
                         "type %u on id %u instead of %u", type,
                         msg->connection_id, VMBUS_CONN_NEGOTIATED);
        return;
    }
    if (msg->bytes < messages[type].min_bytes) {
        hyperv_violation("message-too-short", "type %u, %u bytes", type,
                         msg->bytes);
        return;
    }
    dev = message_device(bus, msg);
    if (dev) {
        vmbus_device_message(dev);  /* if too late, it is about no offer */
    }
    messages[type].handle(bus, msg->payload, msg->bytes);
    if (dev && dev->take_back_due) {
        device_take_back(dev);
    }
}

/* HvPostMessage; on the guest processor's thread, without the BQL. */
static uint16_t vmbus_message_arrived(
    const struct hyperv_post_message_input *input, void *data)
{
    VMBus *bus = data;
    VMBusInbound *msg;
    uint32_t bytes = qatomic_read(&input->payload_size);

    if (input->message_type != HV_MESSAGE_VMBUS ||
        bytes > sizeof(msg->payload)) {
        hyperv_violation("message-envelope", "type 0x%x, %u bytes",
                         input->message_type, bytes);
        return HV_STATUS_INVALID_PARAMETER;
    }
    WITH_QEMU_LOCK_GUARD(&bus->inbound_lock) {
        if (bus->inbound_count == INBOUND_DEPTH) {
            return HV_STATUS_INSUFFICIENT_BUFFERS;
        }
        msg = &bus->inbound[(bus->inbound_head + bus->inbound_count) %
                            INBOUND_DEPTH];
        msg->connection_id = input->connection_id & HV_CONNECTION_ID_MASK;
        msg->bytes = bytes;
        memset(msg->payload, 0, sizeof(msg->payload));
        memcpy(msg->payload, input->payload, bytes);
        bus->inbound_count++;
    }
    qemu_bh_schedule(bus->bh);
    return HV_STATUS_SUCCESS;
}

static bool inbound_pop(VMBus *bus, VMBusInbound *msg)
{
    QEMU_LOCK_GUARD(&bus->inbound_lock);
    if (!bus->inbound_count) {
        return false;
    }
    *msg = bus->inbound[bus->inbound_head];
    bus->inbound_head = (bus->inbound_head + 1) % INBOUND_DEPTH;
    bus->inbound_count--;
    return true;
}

static void vmbus_bh(void *opaque)
{
    VMBus *bus = opaque;
    VMBusInbound msg;

    outbound_pump(bus);
    while (QSIMPLEQ_EMPTY(&bus->outbound) && inbound_pop(bus, &msg)) {
        message_handle(bus, &msg);
    }
}

static void vmbus_connection_messages(VMBus *bus, bool on)
{
    if (bus->version >= VMBUS_VERSION_5_0) {
        hyperv_set_msg_handler(VMBUS_CONN_NEGOTIATED,
                               on ? vmbus_message_arrived : NULL, bus);
    }
}

/*
 * Hot plug
 */

static void vmbus_plug(HotplugHandler *handler, DeviceState *dev, Error **errp)
{
    VMBus *bus = VMBUS(handler);

    if (bus->offers_requested) {
        device_offer(VMBUS_DEVICE(dev));
    }
}

static void unplug_finish(void *opaque)
{
    DeviceState *dev = opaque;

    hotplug_handler_unplug(qdev_get_hotplug_handler(dev), dev, &error_abort);
    object_unparent(OBJECT(dev));
}

/* Remove the device if the guest has let go of all of its channels. */
static void vmbus_unplug_done(VMBusDevice *dev)
{
    unsigned i;

    for (i = 0; i < dev->num_channels; i++) {
        if (dev->channels[i].offer == VMBUS_OFFER_RESCINDED) {
            return;
        }
    }
    if (!dev->removing) {
        dev->removing = true;
        aio_bh_schedule_oneshot(qemu_get_aio_context(), unplug_finish, dev);
    }
}

/* Subchannels first; the guest answers by releasing each relid. */
static void device_take_back(VMBusDevice *dev)
{
    unsigned i;

    dev->take_back_due = false;
    if (dev->unplugging) {
        return;
    }
    dev->unplugging = true;
    for (i = dev->num_channels; i-- > 0; ) {
        dev->channels[i].want_offer = false;
        channel_rescind(&dev->channels[i]);
    }
    vmbus_unplug_done(dev);
}

bool vmbus_device_message(VMBusDevice *dev)
{
    if (dev->unplugging) {
        return true;    /* what is left to say about a lost offer */
    }
    dev->guest_messages++;
    if (dev->guest_messages == dev->rescind_before) {
        device_take_back(dev);
        return false;
    }
    if (dev->guest_messages == dev->rescind_after) {
        dev->take_back_due = true;
    }
    return true;
}

static void vmbus_unplug_request(HotplugHandler *handler, DeviceState *dev,
                                 Error **errp)
{
    device_take_back(VMBUS_DEVICE(dev));
}

static void vmbus_unplug(HotplugHandler *handler, DeviceState *dev,
                         Error **errp)
{
    qdev_unrealize(dev);
}

/*
 * Devices
 */

void vmbus_device_stats(VMBusDevice *dev, QDict *out)
{
    QList *list = qlist_new();
    unsigned i;

    for (i = 0; i < dev->num_channels; i++) {
        VMBusChannel *chan = &dev->channels[i];
        QDict *item = qdict_new();

        qdict_put_int(item, "relid", chan->relid);
        qdict_put_bool(item, "open", chan->open);
        qdict_put_bool(item, "broken", chan->open && chan->broken);
        qdict_put_int(item, "target_vp",
                      chan->open ? (int64_t)chan->target_vp : -1);
        qdict_put_int(item, "ring_from_guest", chan->open ? chan->in.size : 0);
        qdict_put_int(item, "ring_to_guest", chan->open ? chan->out.size : 0);
        qdict_put_int(item, "signals_from_guest", chan->signals_from_guest);
        qdict_put_int(item, "signals_to_guest", chan->signals_to_guest);
        qlist_append(list, item);
    }
    qdict_put(out, "channels", list);
    qdict_put_int(out, "guest_messages", dev->guest_messages);
    qdict_put_bool(out, "leaving", dev->unplugging);
}

/* What a guest knows a device by must not come twice at a time. */
static bool instance_is_unique(VMBusDevice *dev)
{
    BusChild *kid;

    QTAILQ_FOREACH(kid, &qdev_get_parent_bus(DEVICE(dev))->children, sibling) {
        VMBusDevice *other = VMBUS_DEVICE(kid->child);

        if (other != dev && DEVICE(other)->realized &&
            qemu_uuid_is_equal(&other->instance_id, &dev->instance_id)) {
            return false;
        }
    }
    return true;
}

static void vmbus_device_realize(DeviceState *dev, Error **errp)
{
    VMBusDevice *vdev = VMBUS_DEVICE(dev);
    VMBusDeviceClass *vdc = VMBUS_DEVICE_GET_CLASS(dev);
    Error *err = NULL;
    unsigned i;

    vdc->realize(vdev, &err);
    if (err) {
        error_propagate(errp, err);
        return;
    }
    if (!instance_is_unique(vdev)) {
        vdc->unrealize(vdev);
        error_setg(errp, "there is a device of this instance id (for NICs it "
                   "is made of the MAC address), or the guest has not let go "
                   "of it");
        return;
    }
    assert(vdev->num_channels);
    vdev->channels = g_new0(VMBusChannel, vdev->num_channels);
    for (i = 0; i < vdev->num_channels; i++) {
        VMBusChannel *chan = &vdev->channels[i];

        chan->dev = vdev;
        chan->index = i;
        chan->work_bh = qemu_bh_new(channel_work, chan);
        chan->unstick_timer = timer_new_ms(QEMU_CLOCK_REALTIME,
                                           channel_unstick, chan);
    }
}

static void vmbus_device_unrealize(DeviceState *dev)
{
    VMBusDevice *vdev = VMBUS_DEVICE(dev);
    VMBusDeviceClass *vdc = VMBUS_DEVICE_GET_CLASS(dev);
    unsigned i;

    for (i = vdev->num_channels; i-- > 0; ) {
        VMBusChannel *chan = &vdev->channels[i];

        channel_close(chan);
        if (chan->relid) {
            channel_free_relid(chan, VMBUS_OFFER_NONE);
        }
        qemu_bh_delete(chan->work_bh);
        timer_free(chan->unstick_timer);
    }
    vdc->unrealize(vdev);
    g_free(vdev->channels);
    vdev->channels = NULL;
    vdev->num_channels = 0;
}

static Property vmbus_device_props[] = {
    DEFINE_PROP_UINT64("rescind-after", VMBusDevice, rescind_after, 0),
    DEFINE_PROP_UINT64("rescind-before", VMBusDevice, rescind_before, 0),
    DEFINE_PROP_END_OF_LIST()
};

static void vmbus_device_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);

    device_class_set_props(dc, vmbus_device_props);

    dc->bus_type = TYPE_VMBUS;
    dc->realize = vmbus_device_realize;
    dc->unrealize = vmbus_device_unrealize;
}

/*
 * The bus and the bridge
 */

static void vmbus_init(Object *obj)
{
    VMBus *bus = VMBUS(obj);

    qemu_mutex_init(&bus->inbound_lock);
    QSIMPLEQ_INIT(&bus->outbound);
    QTAILQ_INIT(&bus->gpadls);
    bus->bh = qemu_bh_new(vmbus_bh, bus);
}

static void vmbus_realize(BusState *qbus, Error **errp)
{
    VMBus *bus = VMBUS(qbus);

    qbus_set_bus_hotplug_handler(qbus);
    hyperv_set_msg_handler(VMBUS_CONN_MESSAGE, vmbus_message_arrived, bus);
    if (bus->max_version >= VMBUS_VERSION_5_0) {
        hyperv_set_msg_handler(VMBUS_CONN_CONTACT, vmbus_message_arrived, bus);
    }
}

static void vmbus_class_init(ObjectClass *klass, void *data)
{
    BusClass *bc = BUS_CLASS(klass);
    HotplugHandlerClass *hc = HOTPLUG_HANDLER_CLASS(klass);

    bc->realize = vmbus_realize;
    hc->plug = vmbus_plug;
    hc->unplug_request = vmbus_unplug_request;
    hc->unplug = vmbus_unplug;
}

static void vmbus_bridge_realize(DeviceState *dev, Error **errp)
{
    VMBusBridge *bridge = VMBUS_BRIDGE(dev);

    if (!hyperv_is_synic_enabled()) {
        error_setg(errp, "a VMBus needs -cpu ...,hyperv=on");
        return;
    }
    bridge->bus = VMBUS(qbus_new(TYPE_VMBUS, dev, "vmbus"));
    bridge->bus->max_version = bridge->max_version;
    qbus_realize(BUS(bridge->bus), errp);
}

static void vmbus_bridge_reset(DeviceState *dev)
{
    VMBus *bus = VMBUS_BRIDGE(dev)->bus;

    vmbus_disconnect(bus);
    port_drop(bus);
    QEMU_LOCK_GUARD(&bus->inbound_lock);
    bus->inbound_count = 0;
}

static Property vmbus_bridge_props[] = {
    DEFINE_PROP_UINT8("irq", VMBusBridge, irq, 7),
    DEFINE_PROP_UINT32("max-version", VMBusBridge, max_version,
                       VMBUS_VERSION_5_3),
    DEFINE_PROP_END_OF_LIST()
};

static const VMStateDescription vmbus_bridge_vmstate = {
    .name = TYPE_VMBUS_BRIDGE,
    .unmigratable = 1,
};

static void vmbus_bridge_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);

    dc->realize = vmbus_bridge_realize;
    dc->reset = vmbus_bridge_reset;
    dc->vmsd = &vmbus_bridge_vmstate;
    dc->hotpluggable = false;
    /* pc_q35.c allows it as a dynamic sysbus device */
    dc->user_creatable = true;
    dc->desc = "Hyper-V VMBus";
    set_bit(DEVICE_CATEGORY_BRIDGE, dc->categories);
    device_class_set_props(dc, vmbus_bridge_props);
}

static const TypeInfo vmbus_types[] = {
    {
        .name = TYPE_VMBUS,
        .parent = TYPE_BUS,
        .instance_size = sizeof(VMBus),
        .instance_init = vmbus_init,
        .class_init = vmbus_class_init,
        .interfaces = (InterfaceInfo[]) {
            { TYPE_HOTPLUG_HANDLER },
            { }
        },
    }, {
        .name = TYPE_VMBUS_DEVICE,
        .parent = TYPE_DEVICE,
        .abstract = true,
        .instance_size = sizeof(VMBusDevice),
        .class_size = sizeof(VMBusDeviceClass),
        .class_init = vmbus_device_class_init,
    }, {
        .name = TYPE_VMBUS_BRIDGE,
        .parent = TYPE_SYS_BUS_DEVICE,
        .instance_size = sizeof(VMBusBridge),
        .class_init = vmbus_bridge_class_init,
    },
};

DEFINE_TYPES(vmbus_types)
