/*
 * hv-net: the synthetic NIC of Hyper-V, with any -netdev behind it.
 *
 * This file has the device and the channel worker, which takes the guest's
 * packets: negotiation (hv-net-nvsp.c), RNDIS (hv-net-tx.c), completions of
 * received frames (hv-net-rx.c).  Neither path drops a frame because the
 * other side is busy: both stop and are resumed.
 *
 * Everything runs in the main loop's thread.  The session belongs to the
 * primary channel and ends with it.  Subchannels, offered when the guest asks
 * for them, carry frames only: each has its own share of the receive sections
 * and its own queue of packets that wait for the backend.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qapi/error.h"
#include "qapi/qmp/qlist.h"
#include "hw/hyperv/hyperv-host.h"
#include "hw/qdev-properties.h"
#include "hw/qdev-properties-system.h"
#include "migration/vmstate.h"
#include "net/eth.h"
#include "standard-headers/linux/virtio_net.h"
#include "hv-net.h"

#define WORK_BUDGET         256
#define COMPLETION_ROOM \
    vmbus_packet_room(sizeof(VMBusPacketDesc), sizeof(NvspMessage))

bool hv_net_link_down(HvNet *s)
{
    return qemu_get_queue(s->nic)->link_down;
}

void hv_net_complete(VMBusChannel *chan, uint64_t transaction_id,
                     const NvspMessage *msg)
{
    VMBusPacketDesc desc = {
        .type = VMBUS_PACKET_COMPLETION,
        .transaction_id = transaction_id,
    };

    vmbus_ring_put(chan, &desc, sizeof(desc), msg, sizeof(*msg));
}

static void packet_handle(HvNet *s, VMBusChannel *chan, const VMBusPacket *pkt)
{
    if (!vmbus_device_message(VMBUS_DEVICE(s))) {
        return;
    }
    if (pkt->type == VMBUS_PACKET_COMPLETION) {
        hv_net_rx_completion(s, chan, pkt);
    } else if (pkt->payload_bytes < 4) {
        vmbus_channel_fail(chan, "nvsp-type", "no message");
    } else if (ldl_le_p(pkt->payload) == NVSP_RNDIS_PACKET) {
        hv_net_tx_packet(s, chan, pkt);
    } else {
        hv_net_nvsp_handle(s, chan, pkt);
    }
}

/*
 * The channel worker
 */

/* Room for one completion; if not, the worker is called again when there is. */
bool hv_net_completion_room(VMBusChannel *chan)
{
    return vmbus_ring_has_room(chan, COMPLETION_ROOM) ||
           !vmbus_ring_wait_room(chan, COMPLETION_ROOM);
}

/*
 * Take packets until the ring is empty, somebody else is busy or it is time
 * to let others run.  Returns true in the last case.
 */
static bool drain(HvNet *s, VMBusChannel *chan)
{
    VMBusPacket pkt;
    unsigned i;

    for (i = 0; i < WORK_BUDGET; i++) {
        if (hv_net_queue_of(s, chan)->tx_pending_count >= HV_NET_TX_QUEUE ||
            !hv_net_completion_room(chan)) {
            return false;
        }
        if (!vmbus_ring_next(chan, &pkt)) {
            if (!vmbus_channel_usable(chan)) {
                return false;
            }
            vmbus_ring_commit(chan);
            vmbus_ring_release(chan);
            if (vmbus_ring_sleep(chan)) {
                return false;
            }
            continue;
        }
        packet_handle(s, chan, &pkt);
        if (!vmbus_channel_usable(chan) || VMBUS_DEVICE(s)->take_back_due) {
            return false;
        }
    }
    return true;
}

static bool hv_net_work(VMBusChannel *chan)
{
    HvNet *s = HV_NET(chan->dev);
    bool more;

    if (s->paused || !s->nic) {
        return false;
    }
    hv_net_tx_run(s, chan);
    more = vmbus_channel_usable(chan) && drain(s, chan);
    if (!vmbus_channel_usable(chan)) {
        if (chan->index) {
            vmbus_channel_kick(hv_net_primary(s));  /* frames may wait */
        }
        return false;
    }
    if (!chan->index) {
        hv_net_replies_send(s);
        hv_net_send_table(s);
    }
    hv_net_batch_flush(s, chan);
    vmbus_ring_commit(chan);
    vmbus_ring_release(chan);
    hv_net_rx_resume(s, chan);
    return more;
}

/*
 * The device
 */

static int hv_net_open_channel(VMBusChannel *chan)
{
    HvNet *s = HV_NET(chan->dev);

    if (chan->index) {
        vmbus_channel_kick(hv_net_primary(s));  /* the last one? */
        return 0;
    }
    memset(&s->session, 0, sizeof(s->session));
    s->session.mac = s->conf.macaddr;
    hv_net_offload_defaults(s);
    return 0;
}

static void hv_net_close_channel(VMBusChannel *chan)
{
    HvNet *s = HV_NET(chan->dev);

    hv_net_tx_clear(hv_net_queue_of(s, chan));
    if (chan->index) {
        hv_net_sections_reclaim(s, chan);
        hv_net_rx_stall_elsewhere(s, chan);
        vmbus_channel_kick(hv_net_primary(s));
        return;
    }
    hv_net_replies_clear(s);
    hv_net_buffers_release(s);
    timer_del(s->link_timer);
    memset(&s->session, 0, sizeof(s->session));
}

static void hv_net_link_status_changed(NetClientState *nc)
{
    HvNet *s = qemu_get_nic_opaque(nc);

    uint32_t i;

    if (!VMBUS_DEVICE(s)->channels) {
        return;
    }
    for (i = 0; s->nic->peer_deleted && i < s->backends; i++) {
        /* nobody is there any more to send to, whatever set_link says */
        qemu_get_subqueue(s->nic, i)->link_down = true;
    }
    if (hv_net_link_down(s)) {
        /* also because the backend goes, which will not come for them */
        for (i = 0; i < s->backends; i++) {
            qemu_purge_queued_packets(qemu_get_subqueue(s->nic, i));
        }
    }
    hv_net_link_update(s);
}

static void link_timer(void *opaque)
{
    hv_net_link_update(opaque);
}

/* Of QEMU's end, when devices stay but what is behind them goes; also of ours. */
static void hv_net_cleanup(NetClientState *nc)
{
    HvNet *s = qemu_get_nic_opaque(nc);

    s->nic = NULL;      /* the guest's last signals may still be waiting */
}

static NetClientInfo hv_net_client = {
    .type = NET_CLIENT_DRIVER_NIC,
    .size = sizeof(NICState),
    .can_receive = hv_net_can_receive,
    .receive_iov = hv_net_wire_receive_iov,
    .receive_burst = hv_net_receive_burst,
    .link_status_changed = hv_net_link_status_changed,
    .cleanup = hv_net_cleanup,
};

/* Add to each channel's counters; returns how many packets wait to be sent. */
static uint32_t queue_stats(HvNet *s, QDict *out)
{
    const QListEntry *entry;
    HvNetQueue *q = s->queue;
    uint32_t pending = 0;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(out, "channels"), entry) {
        QDict *item = qobject_to(QDict, qlist_entry_obj(entry));

        qdict_put_int(item, "tx_packets", q->tx_packets);
        qdict_put_int(item, "tx_bytes", q->tx_bytes);
        qdict_put_int(item, "tx_pending", q->tx_pending_count);
        qdict_put_int(item, "rx_packets", q->rx_packets);
        qdict_put_int(item, "rx_bytes", q->rx_bytes);
        qdict_put_int(item, "rx_stalls", q->rx_stalls);
        qdict_put_int(item, "rx_batches", q->rx_batches);
        qdict_put_int(item, "rx_sections_outstanding", q->outstanding);
        qdict_put_int(item, "rx_sections_peak", q->sections_peak);
        pending += q->tx_pending_count;
        q++;
    }
    return pending;
}

static void backend_stats(HvNet *s, QDict *out)
{
    QList *list = qlist_new();
    uint32_t i;

    for (i = 0; i < s->backends; i++) {
        QDict *item = qdict_new();

        qdict_put_int(item, "tx_frames", s->backend[i].tx_frames);
        qdict_put_int(item, "rx_frames", s->backend[i].rx_frames);
        qlist_append(list, item);
    }
    qdict_put(out, "backend_queues", list);
}

static void hv_net_stats(QDict *out, void *opaque)
{
    HvNet *s = opaque;
    g_autofree char *mac =
        g_strdup_printf("%02x:%02x:%02x:%02x:%02x:%02x",
                        MAC_ARG(s->conf.macaddr.a));
    uint32_t pending;

    vmbus_device_stats(VMBUS_DEVICE(s), out);
    pending = queue_stats(s, out);
    backend_stats(s, out);
    qdict_put_int(out, "tx_packets", s->tx_packets);
    qdict_put_int(out, "tx_bytes", s->tx_bytes);
    qdict_put_int(out, "tx_errors", s->tx_errors);
    qdict_put_int(out, "tx_csum_offloaded", s->tx_csum);
    qdict_put_int(out, "tx_large", s->tx_large);
    qdict_put_int(out, "tx_large_segments", s->tx_large_segments);
    qdict_put_int(out, "tx_large_peak", s->tx_large_peak);
    qdict_put_int(out, "tx_pending", pending);
    qdict_put_int(out, "rx_packets", s->rx_packets);
    qdict_put_int(out, "rx_bytes", s->rx_bytes);
    qdict_put_int(out, "rx_dropped", s->rx_dropped);
    qdict_put_int(out, "rx_filtered", s->rx_filtered);
    qdict_put_int(out, "rx_coalesced", s->rx_coalesced);
    qdict_put_int(out, "rx_coalesced_segments", s->rx_coalesced_segments);
    qdict_put_int(out, "rx_coalesced_peak", s->rx_coalesced_peak);
    qdict_put_int(out, "rx_cut", s->rx_cut);
    qdict_put_int(out, "rx_stalls", s->rx_stalls_ring + s->rx_stalls_section);
    qdict_put_int(out, "rx_stalls_ring", s->rx_stalls_ring);
    qdict_put_int(out, "rx_stalls_section", s->rx_stalls_section);
    qdict_put_int(out, "rx_sections", s->session.section_count);
    qdict_put_int(out, "rx_sections_outstanding", s->session.outstanding);
    qdict_put_int(out, "rx_sections_peak", s->rx_sections_peak);
    qdict_put_int(out, "nvsp_version", s->session.nvsp);
    qdict_put_int(out, "mtu", s->session.mtu);
    qdict_put_int(out, "packet_filter", s->session.packet_filter);
    qdict_put_bool(out, "link_up", !hv_net_link_down(s));
    qdict_put_int(out, "link_speed", s->link_speed);
    qdict_put_bool(out, "paused", s->paused);
    qdict_put_str(out, "mac", mac);
    qdict_put_int(out, "subchannels", s->session.subchannels);
    qdict_put_int(out, "rss_hash",
                  s->session.rss.enabled ? s->session.rss.hash : 0);
    hv_net_wire_stats(s, out);
}

/* The instance id is made of the MAC address: stable across restarts. */
static void instance_from_mac(VMBusDevice *dev, const MACAddr *mac)
{
    static const uint8_t pattern[] = {
        0x4e, 0x49, 0x43, 0x00, 0x68, 0x76, 0x4e, 0x45, 0x94, 0x01,
    };

    memcpy(dev->instance_id.data, pattern, sizeof(pattern));
    memcpy(dev->instance_id.data + sizeof(pattern), mac->a, sizeof(mac->a));
}

static void backend_prepare(HvNet *s)
{
    uint32_t i;

    s->vnet = true;
    for (i = 0; i < s->backends; i++) {
        NetClientState *peer = qemu_get_subqueue(s->nic, i)->peer;

        qemu_get_subqueue(s->nic, i)->do_not_pad = true;
        s->vnet &= peer && qemu_has_vnet_hdr(peer) &&
                   qemu_has_vnet_hdr_len(peer, sizeof(struct virtio_net_hdr));
    }
    for (i = 0; s->vnet && i < s->backends; i++) {
        NetClientState *peer = qemu_get_subqueue(s->nic, i)->peer;

        qemu_set_vnet_hdr_len(peer, sizeof(struct virtio_net_hdr));
        qemu_using_vnet_hdr(peer, true);
        /* whatever the guest takes: finishing and cutting is cheaper here */
        qemu_set_offload(peer, true, true, true, false, false);
    }
}

static void hv_net_realize(VMBusDevice *vdev, Error **errp)
{
    HvNet *s = HV_NET(vdev);
    DeviceState *dev = DEVICE(vdev);
    uint32_t i;

    if (s->max_mtu < HV_NET_MTU_DEFAULT || s->max_mtu > HV_NET_MTU_MAX) {
        error_setg(errp, "max-mtu has to be %u to %u", HV_NET_MTU_DEFAULT,
                   HV_NET_MTU_MAX);
        return;
    }
    if (!s->queues || s->queues > HV_NET_QUEUES_MAX) {
        error_setg(errp, "queues has to be 1 to %u", HV_NET_QUEUES_MAX);
        return;
    }
    if (!s->batch_ranges || s->batch_ranges > HV_NET_BATCH_RANGES) {
        error_setg(errp, "batch-ranges has to be 1 to %u",
                   HV_NET_BATCH_RANGES);
        return;
    }
    QSIMPLEQ_INIT(&s->replies);
    s->queue = g_new0(HvNetQueue, s->queues);
    for (i = 0; i < s->queues; i++) {
        QSIMPLEQ_INIT(&s->queue[i].tx_pending);
        s->queue[i].free_section = HV_NET_NO_SECTION;
        s->queue[i].batch_first = HV_NET_NO_SECTION;
    }
    hv_net_wire_realize(s);
    qemu_macaddr_default_if_unset(&s->conf.macaddr);
    if (qemu_uuid_is_null(&vdev->instance_id)) {
        instance_from_mac(vdev, &s->conf.macaddr);
    }
    vdev->num_channels = s->queues;
    s->backends = MAX(1, s->conf.peers.queues);
    s->backend = g_new0(HvNetBackend, s->backends);
    s->scratch = g_malloc(HV_NET_FRAME_MAX);
    s->link_timer = timer_new_ms(QEMU_CLOCK_REALTIME, link_timer, s);
    s->rx_flush = qemu_bh_new_guarded(hv_net_rx_flush, s,
                                      &dev->mem_reentrancy_guard);
    s->nic = qemu_new_nic(&hv_net_client, &s->conf, TYPE_HV_NET, dev->id,
                          &dev->mem_reentrancy_guard, s);
    qemu_format_nic_info_str(qemu_get_queue(s->nic), s->conf.macaddr.a);
    backend_prepare(s);
    s->stats_name = g_strdup(dev->id ? dev->id
                                     : qemu_get_queue(s->nic)->name);
    hyperv_stats_register(s->stats_name, hv_net_stats, s);
}

static void hv_net_unrealize(VMBusDevice *vdev)
{
    HvNet *s = HV_NET(vdev);
    uint32_t i;

    hyperv_stats_unregister(s->stats_name);
    g_free(s->stats_name);
    hv_net_wire_unrealize(s);
    for (i = 0; i < s->backends; i++) {
        qemu_purge_queued_packets(qemu_get_subqueue(s->nic, i));
    }
    qemu_del_nic(s->nic);
    qemu_bh_delete(s->rx_flush);
    timer_free(s->link_timer);
    g_free(s->scratch);
    g_free(s->backend);
    g_free(s->queue);
}

static Property hv_net_props[] = {
    DEFINE_NIC_PROPERTIES(HvNet, conf),
    DEFINE_PROP_UINT32("max-nvsp", HvNet, max_nvsp, NVSP_VERSION_6_1),
    DEFINE_PROP_UINT32("max-mtu", HvNet, max_mtu, HV_NET_MTU_MAX),
    DEFINE_PROP_UUID_NODEFAULT("instance", HvNet, parent_obj.instance_id),
    DEFINE_PROP_BOOL("csum", HvNet, csum, true),
    DEFINE_PROP_BOOL("csum-tx4", HvNet, csum_tx4, true),
    DEFINE_PROP_BOOL("csum-tx6", HvNet, csum_tx6, true),
    DEFINE_PROP_BOOL("csum-rx4", HvNet, csum_rx4, true),
    DEFINE_PROP_BOOL("csum-rx6", HvNet, csum_rx6, true),
    DEFINE_PROP_BOOL("rsc", HvNet, rsc, true),
    DEFINE_PROP_BOOL("filter", HvNet, filter, true),
    DEFINE_PROP_UINT32("batch-ranges", HvNet, batch_ranges,
                       HV_NET_BATCH_RANGES),
    DEFINE_PROP_BOOL("lso", HvNet, lso, true),
    DEFINE_PROP_BOOL("lso4", HvNet, lso4, true),
    DEFINE_PROP_BOOL("lso6", HvNet, lso6, true),
    DEFINE_PROP_UINT32("queues", HvNet, queues, 1),
    DEFINE_PROP_BOOL("rss-udp", HvNet, rss_udp, true),
    DEFINE_PROP_BOOL("old-send-table", HvNet, old_send_table, false),
    DEFINE_PROP_END_OF_LIST()
};

static const VMStateDescription hv_net_vmstate = {
    .name = TYPE_HV_NET,
    .unmigratable = 1,
};

static void hv_net_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    VMBusDeviceClass *vdc = VMBUS_DEVICE_CLASS(klass);

    dc->desc = "Hyper-V synthetic network adapter";
    dc->vmsd = &hv_net_vmstate;
    set_bit(DEVICE_CATEGORY_NETWORK, dc->categories);
    device_class_set_props(dc, hv_net_props);
    hv_net_wire_class_init(klass);
    hv_net_admin_class_init(klass);
    if (qemu_uuid_parse("f8615163-df3e-46c5-913f-f2d2f965ed0e",
                        &vdc->class_id)) {
        g_assert_not_reached();
    }
    vdc->offer_flags = VMBUS_OFFER_ENUMERATE_INTERFACE;
    vdc->realize = hv_net_realize;
    vdc->unrealize = hv_net_unrealize;
    vdc->open_channel = hv_net_open_channel;
    vdc->close_channel = hv_net_close_channel;
    vdc->channel_work = hv_net_work;
    vdc->works_unlocked = true;
}

static const TypeInfo hv_net_type = {
    .name = TYPE_HV_NET,
    .parent = TYPE_VMBUS_DEVICE,
    .instance_size = sizeof(HvNet),
    .class_init = hv_net_class_init,
};

static void hv_net_register(void)
{
    type_register_static(&hv_net_type);
}

type_init(hv_net_register)
