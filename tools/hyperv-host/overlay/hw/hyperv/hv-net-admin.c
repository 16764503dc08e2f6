/*
 * What an administrator does to a living NIC: another speed of its link,
 * another network behind it, another table of the channels that it is to send
 * on, a pause.  Properties, set over QMP at any time (the first also on the
 * command line); the link itself is QEMU's set_link.
 *
 * Everything runs in the main loop under the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "qemu/cutils.h"
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
 * Send indirection table
 */

static char *send_table_get(Object *obj, Error **errp)
{
    HvNet *s = HV_NET(obj);
    GString *text = g_string_new(NULL);
    uint32_t i;

    for (i = 0; s->session.subchannels && i < HV_NET_SEND_TABLE; i++) {
        g_string_append_printf(text, "%s%u", i ? "," : "",
                               s->session.send_table[i]);
    }
    return g_string_free(text, false);
}

/* Channels, repeated until the table is full. */
static void send_table_set(Object *obj, const char *value, Error **errp)
{
    HvNet *s = HV_NET(obj);
    g_auto(GStrv) words = g_strsplit(value, ",", HV_NET_SEND_TABLE + 1);
    uint32_t count = g_strv_length(words), i;
    unsigned int channel[HV_NET_SEND_TABLE];

    if (!VMBUS_DEVICE(s)->channels || !s->session.subchannels ||
        !vmbus_channel_usable(hv_net_primary(s))) {
        error_setg(errp, "the guest has not asked for channels");
        return;
    }
    if (!count || count > HV_NET_SEND_TABLE) {
        error_setg(errp, "send-table has to have 1 to %u channels",
                   HV_NET_SEND_TABLE);
        return;
    }
    for (i = 0; i < count; i++) {
        if (qemu_strtoui(words[i], NULL, 10, &channel[i]) ||
            channel[i] > s->session.subchannels) {
            error_setg(errp, "channels of send-table have to be 0 to %u",
                       s->session.subchannels);
            return;
        }
    }
    for (i = 0; i < HV_NET_SEND_TABLE; i++) {
        s->session.send_table[i] = channel[i % count];
    }
    s->session.send_table_due = true;
    vmbus_channel_kick(hv_net_primary(s));
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
    object_class_property_add_str(klass, "send-table", send_table_get,
                                  send_table_set);
    object_class_property_set_description(klass, "send-table",
                                          "channels for the guest to send on");
    object_class_property_add_bool(klass, "paused", paused_get, paused_set);
    object_class_property_set_description(klass, "paused",
                                          "on: neither sends nor receives");
}
