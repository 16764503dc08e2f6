/*
 * The messages between guest and VMBus.
 *
 * The guest's messages arrive on its processors' threads without the BQL;
 * they are copied into a bounded queue and handled in order in the main loop.
 * Answers go through an outgoing queue, one in the guest's message slot at a
 * time; while any of them waits no further message of the guest is looked at.
 * Everything but vmbus_message_arrived() runs in the main loop's thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "hw/hyperv/hyperv.h"
#include "hw/hyperv/hyperv-host.h"
#include "vmbus-internal.h"

/*
 * Messages to the guest
 */

static void port_free(VMBusPort *port)
{
    hyperv_sint_route_unref(port->route);
    g_free(port);
}

void vmbus_outbound_clear(VMBus *bus)
{
    VMBusOutbound *msg;

    while ((msg = QSIMPLEQ_FIRST(&bus->outbound))) {
        QSIMPLEQ_REMOVE_HEAD(&bus->outbound, link);
        g_free(msg);
    }
}

/* Forget the port and what has not been delivered through it. */
void vmbus_port_drop(VMBus *bus)
{
    VMBusPort *port = bus->port;

    vmbus_outbound_clear(bus);
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

void vmbus_port_create(VMBus *bus, uint32_t vp, uint32_t sint)
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

void vmbus_send(VMBus *bus, const void *data, uint32_t bytes)
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
 * Messages of the guest
 */

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
        VMBUS_VERSION_2_4, sizeof(VMBusMsgHeader),
        vmbus_handle_request_offers },
    [VMBUS_MSG_OPEN] = {
        VMBUS_VERSION_2_4, sizeof(VMBusMsgOpen), vmbus_handle_open },
    [VMBUS_MSG_CLOSE] = {
        VMBUS_VERSION_2_4, sizeof(VMBusMsgRelid), vmbus_handle_close },
    [VMBUS_MSG_GPADL_HEADER] = {
        VMBUS_VERSION_2_4, sizeof(VMBusMsgGpadlHeader),
        vmbus_handle_gpadl_header },
    [VMBUS_MSG_GPADL_BODY] = {
        VMBUS_VERSION_2_4, sizeof(VMBusMsgGpadlBody), vmbus_handle_gpadl_body },
    [VMBUS_MSG_GPADL_TEARDOWN] = {
        VMBUS_VERSION_2_4, sizeof(VMBusMsgGpadlTeardown),
        vmbus_handle_gpadl_teardown },
    [VMBUS_MSG_RELID_RELEASED] = {
        VMBUS_VERSION_2_4, sizeof(VMBusMsgRelid), vmbus_handle_relid_released },
    [VMBUS_MSG_UNLOAD] = {
        VMBUS_VERSION_3_0, sizeof(VMBusMsgHeader), vmbus_handle_unload },
    [VMBUS_MSG_OPEN_RESERVED] = {
        VMBUS_VERSION_4_0, 28, vmbus_handle_reserved },
    [VMBUS_MSG_CLOSE_RESERVED] = {
        VMBUS_VERSION_2_4, 20, vmbus_handle_reserved },
    [VMBUS_MSG_TL_CONNECT] = {
        VMBUS_VERSION_4_0, sizeof(VMBusMsgTlConnect), vmbus_handle_tl_connect },
    [VMBUS_MSG_MODIFY] = {
        VMBUS_VERSION_4_1, sizeof(VMBusMsgModify), vmbus_handle_modify },
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
        gpadl = vmbus_gpadl_find_filling(bus, body->gpadl);
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
        vmbus_handle_initiate_contact(bus, (const void *)msg->payload,
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
    if (dev && !vmbus_device_message(dev)) {
        vmbus_device_take_back(dev);    /* too late: it is about no offer */
    }
    messages[type].handle(bus, msg->payload, msg->bytes);
    if (dev && dev->take_back_due) {
        vmbus_device_take_back(dev);
    }
}

/* HvPostMessage; on the guest processor's thread, without the BQL. */
uint16_t vmbus_message_arrived(
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

void vmbus_messages_bh(void *opaque)
{
    VMBus *bus = opaque;
    VMBusInbound msg;

    outbound_pump(bus);
    while (QSIMPLEQ_EMPTY(&bus->outbound) && inbound_pop(bus, &msg)) {
        message_handle(bus, &msg);
    }
}
