/*
 * Channels: offered, opened, moved to another processor, closed, rescinded,
 * released.  Used by vmbus-message.c with the guest's messages, by devices and
 * by hot plug, in the main loop's thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "hw/core/cpu.h"
#include "hw/hyperv/hyperv.h"
#include "hw/hyperv/hyperv-host.h"
#include "vmbus-internal.h"

/* Signal again after this time, for guests that were not ready at OPEN. */
#define UNSTICK_MS 100

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

static void channel_work(VMBusChannel *chan, bool unlocked)
{
    bool more;

    if (!vmbus_channel_usable(chan) || !vmbus_ring_wake(chan)) {
        return;
    }
    if (unlocked) {
        qemu_mutex_unlock_iothread();
    }
    more = VMBUS_DEVICE_GET_CLASS(chan->dev)->channel_work(chan);
    if (unlocked) {
        qemu_mutex_lock_iothread();
    }
    if (chan->dev->take_back_due) {
        vmbus_device_take_back(chan->dev);
    } else if (more) {
        vmbus_channel_kick(chan);
    }
}

/* A bottom half, which may run while a device waits for its own work. */
void vmbus_channel_work(void *opaque)
{
    channel_work(opaque, false);
}

static void channel_signalled(EventNotifier *notifier)
{
    VMBusChannel *chan = container_of(notifier, VMBusChannel, notifier);

    if (event_notifier_test_and_clear(notifier)) {
        chan->signals_from_guest++;
        channel_work(chan, VMBUS_DEVICE_GET_CLASS(chan->dev)->works_unlocked);
    }
}

void vmbus_channel_unstick(void *opaque)
{
    VMBusChannel *chan = opaque;

    if (vmbus_channel_usable(chan) && !vmbus_ring_out_empty(chan)) {
        vmbus_channel_signal_guest(chan);
    }
}

bool vmbus_vp_valid(uint32_t vp)
{
    return vp < INT_MAX && qemu_get_cpu(vp);
}

/* Create the way for the channel's interrupts; false if @vp is no processor. */
static bool channel_route(VMBusChannel *chan, uint32_t vp)
{
    HvSintRoute *route = NULL;

    if (vp != VMBUS_VP_NONE) {
        if (!vmbus_vp_valid(vp)) {
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

void vmbus_channel_close(VMBusChannel *chan)
{
    unsigned i;

    if (!chan->open) {
        return;
    }
    /* a primary takes its subchannels with it */
    for (i = 1; !chan->index && i < chan->dev->num_channels; i++) {
        VMBusChannel *sub = &chan->dev->channels[i];

        sub->want_offer = false;
        vmbus_channel_rescind(sub);
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

void vmbus_handle_open(VMBus *bus, const void *data, uint32_t bytes)
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

void vmbus_handle_close(VMBus *bus, const void *data, uint32_t bytes)
{
    const VMBusMsgRelid *msg = data;
    bool known;
    VMBusChannel *chan = channel_find(bus, msg->relid, &known);

    if (!known || (chan && !chan->open)) {
        hyperv_violation("close-not-open", "relid %u", msg->relid);
    } else if (chan) {
        vmbus_channel_close(chan);
    }
}

void vmbus_handle_modify(VMBus *bus, const void *data, uint32_t bytes)
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
    VMBus *bus = vmbus_channel_bus(chan);
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

void vmbus_device_offer(VMBusDevice *dev)
{
    if (dev->num_channels && !dev->unplugging &&
        dev->channels[0].offer == VMBUS_OFFER_NONE) {
        channel_send_offer(&dev->channels[0]);
    }
}

void vmbus_handle_request_offers(VMBus *bus, const void *data, uint32_t bytes)
{
    VMBusMsgHeader end = { .type = VMBUS_MSG_ALL_OFFERS_DELIVERED };
    BusChild *kid;

    if (bus->offers_requested) {
        hyperv_violation("request-offers-twice", "ignored");
        return;
    }
    bus->offers_requested = true;
    QTAILQ_FOREACH_REVERSE(kid, &BUS(bus)->children, sibling) {
        vmbus_device_offer(VMBUS_DEVICE(kid->child));
    }
    vmbus_send(bus, &end, sizeof(end));
}

/* Withdraw the offer, closing the channel; waits for RELID_RELEASED. */
void vmbus_channel_rescind(VMBusChannel *chan)
{
    VMBusMsgRelid msg = {
        .header.type = VMBUS_MSG_RESCIND,
        .relid = chan->relid,
    };

    if (chan->offer != VMBUS_OFFER_OFFERED) {
        return;
    }
    vmbus_channel_close(chan);
    chan->offer = VMBUS_OFFER_RESCINDED;
    vmbus_send(vmbus_channel_bus(chan), &msg, sizeof(msg));
}

void vmbus_channel_free_relid(VMBusChannel *chan, VMBusOfferState state)
{
    VMBus *bus = vmbus_channel_bus(chan);

    vmbus_gpadls_free(bus, chan->relid, false);
    bus->relids[chan->relid] = NULL;
    chan->relid = 0;
    chan->offer = state;
}

void vmbus_handle_relid_released(VMBus *bus, const void *data, uint32_t bytes)
{
    const VMBusMsgRelid *msg = data;
    bool known;
    VMBusChannel *chan = channel_find(bus, msg->relid, &known);

    if (!known || (chan && chan->open)) {
        hyperv_violation("relid-released-unexpected", "relid %u", msg->relid);
        return;
    }
    if (chan) {
        vmbus_channel_free_relid(chan, VMBUS_OFFER_RELEASED);
        return;
    }
    chan = bus->relids[msg->relid];
    vmbus_channel_free_relid(chan, VMBUS_OFFER_NONE);
    if (chan->dev->unplugging) {
        vmbus_unplug_done(chan->dev);
    } else if (chan->want_offer) {
        channel_send_offer(chan);
    }
}
