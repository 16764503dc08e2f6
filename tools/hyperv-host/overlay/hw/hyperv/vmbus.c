/*
 * VMBus, host side: the connection, hot plug of its devices, and the bridge
 * device that makes the machine have one.  What else there is: vmbus-message.c
 * (messages), vmbus-gpadl.c (shared memory), vmbus-channel.c (offers, channels)
 * and vmbus-ring.c (rings).
 *
 * Everything runs in the main loop's thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qapi/error.h"
#include "qapi/qmp/qlist.h"
#include "hw/hotplug.h"
#include "hw/hyperv/hyperv.h"
#include "hw/hyperv/hyperv-host.h"
#include "hw/hyperv/vmbus-bridge.h"
#include "hw/qdev-properties.h"
#include "migration/vmstate.h"
#include "vmbus-internal.h"

VMBus *vmbus_device_bus(VMBusDevice *dev)
{
    return VMBUS(qdev_get_parent_bus(DEVICE(dev)));
}

/*
 * Connection
 */

static void vmbus_connection_messages(VMBus *bus, bool on)
{
    if (bus->version >= VMBUS_VERSION_5_0) {
        hyperv_set_msg_handler(VMBUS_CONN_NEGOTIATED,
                               on ? vmbus_message_arrived : NULL, bus);
    }
}

/* Close and forget everything of the connection; the port stays. */
static void vmbus_disconnect(VMBus *bus)
{
    BusChild *kid, *next;
    unsigned i;

    vmbus_outbound_clear(bus);
    if (bus->port && bus->port->busy) {
        /* the message on its way is of the past: nobody waits for it */
        vmbus_port_drop(bus);
    }
    for (i = 1; i <= VMBUS_MAX_RELID; i++) {
        if (bus->relids[i] && !bus->relids[i]->index) {
            vmbus_channel_close(bus->relids[i]);
        }
    }
    for (i = 1; i <= VMBUS_MAX_RELID; i++) {
        VMBusChannel *chan = bus->relids[i];

        if (chan) {
            vmbus_channel_close(chan);
            vmbus_channel_free_relid(chan, VMBUS_OFFER_NONE);
        }
    }
    vmbus_gpadls_free(bus, 0, true);
    vmbus_outbound_clear(bus);    /* rescinds of subchannels, late TORNDOWNs */
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

void vmbus_handle_initiate_contact(VMBus *bus,
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
    vmbus_port_drop(bus);

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
    if (!vmbus_vp_valid(vp)) {
        hyperv_violation("contact-target-vp", "vp %u", vp);
        response.connection_state = VMBUS_CONNECT_FAILED;
        vp = 0;
    } else if (!monitor_pages_valid(msg)) {
        hyperv_violation("contact-monitor-pages", "0x%" PRIx64 ", 0x%" PRIx64,
                         msg->monitor_page_to_guest, msg->monitor_page_to_host);
        response.connection_state = VMBUS_CONNECT_FAILED;
    }
    if (sint < HV_SINT_COUNT) {
        vmbus_port_create(bus, vp, sint);
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

void vmbus_handle_unload(VMBus *bus, const void *data, uint32_t bytes)
{
    VMBusMsgHeader response = { .type = VMBUS_MSG_UNLOAD_RESPONSE };

    vmbus_disconnect(bus);
    vmbus_send(bus, &response, sizeof(response));
}

/* There are no reserved channels: nothing to open, nothing to close. */
void vmbus_handle_reserved(VMBus *bus, const void *data, uint32_t bytes)
{
    const VMBusMsgHeader *msg = data;

    hyperv_violation("reserved-channel", "message type %u refused", msg->type);
}

void vmbus_handle_tl_connect(VMBus *bus, const void *data, uint32_t bytes)
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
 * Hot plug
 */

static void vmbus_plug(HotplugHandler *handler, DeviceState *dev, Error **errp)
{
    VMBus *bus = VMBUS(handler);

    if (bus->offers_requested) {
        vmbus_device_offer(VMBUS_DEVICE(dev));
    }
}

static void unplug_finish(void *opaque)
{
    DeviceState *dev = opaque;

    hotplug_handler_unplug(qdev_get_hotplug_handler(dev), dev, &error_abort);
    object_unparent(OBJECT(dev));
}

/* Remove the device if the guest has let go of all of its channels. */
void vmbus_unplug_done(VMBusDevice *dev)
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
void vmbus_device_take_back(VMBusDevice *dev)
{
    unsigned i;

    dev->take_back_due = false;
    if (dev->unplugging) {
        return;
    }
    dev->unplugging = true;
    for (i = dev->num_channels; i-- > 0; ) {
        dev->channels[i].want_offer = false;
        vmbus_channel_rescind(&dev->channels[i]);
    }
    vmbus_unplug_done(dev);
}

/* A bottom half: the other device may be anywhere in its work now. */
static void take_back_other(void *opaque)
{
    VMBusDevice *dev = opaque;
    BusState *bus = qdev_get_parent_bus(DEVICE(dev));
    DeviceState *other = bus ? qdev_find_recursive(bus, dev->rescind_whom)
                             : NULL;

    if (other) {
        vmbus_device_take_back(VMBUS_DEVICE(other));
    }
    object_unref(OBJECT(dev));
}

bool vmbus_device_message(VMBusDevice *dev)
{
    if (dev->unplugging) {
        return true;    /* what is left to say about a lost offer */
    }
    dev->guest_messages++;
    if (dev->rescind_whom) {
        if (dev->guest_messages == dev->rescind_after) {
            object_ref(OBJECT(dev));
            aio_bh_schedule_oneshot(qemu_get_aio_context(), take_back_other,
                                    dev);
        }
        return true;
    }
    if (dev->guest_messages == dev->rescind_before) {
        dev->take_back_due = true;
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
    vmbus_device_take_back(VMBUS_DEVICE(dev));
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
        chan->work_bh = qemu_bh_new(vmbus_channel_work, chan);
        chan->unstick_timer = timer_new_ms(QEMU_CLOCK_REALTIME,
                                           vmbus_channel_unstick, chan);
    }
}

static void vmbus_device_unrealize(DeviceState *dev)
{
    VMBusDevice *vdev = VMBUS_DEVICE(dev);
    VMBusDeviceClass *vdc = VMBUS_DEVICE_GET_CLASS(dev);
    unsigned i;

    for (i = vdev->num_channels; i-- > 0; ) {
        VMBusChannel *chan = &vdev->channels[i];

        vmbus_channel_close(chan);
        if (chan->relid) {
            vmbus_channel_free_relid(chan, VMBUS_OFFER_NONE);
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
    DEFINE_PROP_STRING("rescind-whom", VMBusDevice, rescind_whom),
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
    bus->bh = qemu_bh_new(vmbus_messages_bh, bus);
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
    vmbus_port_drop(bus);
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
