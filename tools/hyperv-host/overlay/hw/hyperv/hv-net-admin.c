/*
 * What an administrator does to a living NIC: another speed of its link,
 * another network behind it, a pause.  Properties, set over QMP at any time
 * (the first also on the command line); the link itself is QEMU's set_link.
 *
 * Everything runs in the main loop under the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "hv-net.h"

#define LINK_SPEED_DEFAULT  10000u
#define LINK_SPEED_MAX      1000000u

static bool guest_listens(HvNet *s)
{
    return VMBUS_DEVICE(s)->channels &&
           vmbus_channel_usable(hv_net_primary(s)) &&
           s->session.rndis == HV_NET_RNDIS_INITIALIZED;
}

/*
 * Speed
 */

uint32_t hv_net_link_speed_rndis(const HvNet *s)
{
    return MIN((uint64_t)s->link_speed * 10000, UINT32_MAX);
}

static void link_speed_get(Object *obj, Visitor *v, const char *name,
                           void *opaque, Error **errp)
{
    visit_type_uint32(v, name, &HV_NET(obj)->link_speed, errp);
}

static void link_speed_set(Object *obj, Visitor *v, const char *name,
                           void *opaque, Error **errp)
{
    HvNet *s = HV_NET(obj);
    uint32_t value, told;

    if (!visit_type_uint32(v, name, &value, errp)) {
        return;
    }
    if (!value || value > LINK_SPEED_MAX) {
        error_setg(errp, "link-speed has to be 1 to %u Mbit/s",
                   LINK_SPEED_MAX);
        return;
    }
    if (s->link_speed == value) {
        return;
    }
    s->link_speed = value;
    /* only guests that have asked for it are told */
    if (guest_listens(s) && (s->session.capabilities & NVSP_CAP_TEAMING)) {
        stl_le_p(&told, hv_net_link_speed_rndis(s));
        hv_net_indicate(s, RNDIS_INDICATE_LINK_SPEED, &told, sizeof(told));
    }
}

/*
 * Network
 */

static void network_change_set(Object *obj, bool value, Error **errp)
{
    HvNet *s = HV_NET(obj);

    if (!guest_listens(s)) {
        error_setg(errp, "the guest has not brought this NIC up");
    } else if (value) {
        hv_net_indicate(s, RNDIS_INDICATE_NETWORK, NULL, 0);
    }
}

/*
 * Pause
 */

static bool paused_get(Object *obj, Error **errp)
{
    return HV_NET(obj)->paused;
}

static void paused_set(Object *obj, bool value, Error **errp)
{
    HvNet *s = HV_NET(obj);
    uint32_t i;

    s->paused = value;
    if (value || !VMBUS_DEVICE(s)->channels) {
        return;
    }
    for (i = 0; i < s->queues; i++) {
        if (vmbus_channel_usable(hv_net_channel(s, i))) {
            vmbus_channel_kick(hv_net_channel(s, i));
        }
    }
}

void hv_net_admin_class_init(ObjectClass *klass)
{
    ObjectProperty *speed =
        object_class_property_add(klass, "link-speed", "uint32",
                                  link_speed_get, link_speed_set, NULL, NULL);

    object_property_set_default_uint(speed, LINK_SPEED_DEFAULT);
    object_class_property_set_description(klass, "link-speed", "in Mbit/s");
    object_class_property_add_bool(klass, "network-change", NULL,
                                   network_change_set);
    object_class_property_set_description(klass, "network-change",
                                          "on: the guest is told of one");
    object_class_property_add_bool(klass, "paused", paused_get, paused_set);
    object_class_property_set_description(klass, "paused",
                                          "on: neither sends nor receives");
}
