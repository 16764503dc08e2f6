/*
 * The synthetic NIC's receive path: the sections of the guest's receive
 * buffer, control messages that wait for one, and frames of the backend.
 * Called by hv-net-wire.c with frames, by the channel worker when the guest
 * has given sections or room in its ring back.
 *
 * A frame is never dropped because the guest is busy: the backend, or the
 * wire, keeps it and is asked again.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "hw/hyperv/hyperv-host.h"
#include "net/eth.h"
#include "standard-headers/linux/virtio_net.h"
#include "hv-net.h"

#define XFER_ROOM \
    vmbus_packet_room(sizeof(VMBusXferPages), sizeof(NvspMessage))

/*
 * Announce what has been put into @section of the receive buffer.  The
 * section's number is the transaction id, and 0 is as good as any.
 */
static void announce(HvNet *s, VMBusChannel *chan, uint32_t section,
                     uint32_t bytes, uint32_t channel_type)
{
    VMBusXferPages header = {
        .desc.type = VMBUS_PACKET_XFER_PAGES,
        .desc.flags = VMBUS_PACKET_FLAG_COMPLETION,
        .desc.transaction_id = section,
        .set_id = s->session.recv_id,
        .range_count = 1,
        .range.bytes = bytes,
        .range.offset = section * s->session.section_bytes,
    };
    NvspMessage msg = {
        .type = NVSP_RNDIS_PACKET,
        .rndis.channel = channel_type,
        .rndis.section = NVSP_NO_SECTION,
    };

    vmbus_ring_put(chan, &header.desc, sizeof(header), &msg, sizeof(msg));
}

/*
 * Receive sections
 */

static uint32_t section_take(HvNet *s, VMBusChannel *chan, uint32_t section)
{
    HvNetQueue *q = hv_net_queue_of(s, chan);

    set_bit(section, s->session.section_busy);
    s->session.section_channel[section] = chan->index;
    s->session.outstanding++;
    s->rx_sections_peak = MAX(s->rx_sections_peak, s->session.outstanding);
    q->outstanding++;
    q->sections_peak = MAX(q->sections_peak, q->outstanding);
    return section;
}

static uint32_t section_take_control(HvNet *s)
{
    return section_take(s, hv_net_primary(s), s->session.free_control[
                            --s->session.free_control_count]);
}

/* The caller has seen that there is one. */
static uint32_t section_take_data(HvNet *s, VMBusChannel *chan)
{
    HvNetQueue *q = hv_net_queue_of(s, chan);
    uint32_t section = q->free_section;

    q->free_section = s->session.section_next[section];
    return section_take(s, chan, section);
}

/* Data sections are divided evenly among the channels. */
static HvNetQueue *section_owner(HvNet *s, uint32_t section)
{
    return &s->queue[(section - HV_NET_CONTROL_SECTIONS) %
                     (1 + s->session.subchannels)];
}

static void section_free(HvNet *s, uint32_t section)
{
    if (section < HV_NET_CONTROL_SECTIONS) {
        s->session.free_control[s->session.free_control_count++] = section;
    } else {
        HvNetQueue *q = section_owner(s, section);

        s->session.section_next[section] = q->free_section;
        q->free_section = section;
    }
}

/* The guest is done with @id; returns the rule it has broken or NULL. */
static const char *section_give_back(HvNet *s, VMBusChannel *chan,
                                     uint64_t id)
{
    if (id >= s->session.section_count ||
        !test_bit(id, s->session.section_busy)) {
        return "nvsp-rx-completion";
    }
    if (s->session.section_channel[id] != chan->index) {
        return "nvsp-rx-completion-channel";
    }
    clear_bit(id, s->session.section_busy);
    s->session.outstanding--;
    hv_net_queue_of(s, chan)->outstanding--;
    section_free(s, id);
    return NULL;
}

/* A subchannel is gone, and with it the completions it would have brought. */
void hv_net_sections_reclaim(HvNet *s, VMBusChannel *chan)
{
    uint32_t i;

    for (i = 0; i < s->session.section_count; i++) {
        if (test_bit(i, s->session.section_busy) &&
            s->session.section_channel[i] == chan->index) {
            section_give_back(s, chan, i);
        }
    }
}

/* Give each channel its share of what is free. */
void hv_net_sections_share_out(HvNet *s)
{
    uint32_t i;

    for (i = 0; i < s->queues; i++) {
        s->queue[i].free_section = HV_NET_NO_SECTION;
    }
    /* the lowest numbers first */
    for (i = s->session.section_count; i-- > HV_NET_CONTROL_SECTIONS; ) {
        if (!test_bit(i, s->session.section_busy)) {
            section_free(s, i);
        }
    }
}

void hv_net_sections_create(HvNet *s)
{
    uint32_t count = s->session.section_count, i;

    s->session.section_busy = bitmap_new(count);
    s->session.section_channel = g_new0(uint8_t, count);
    s->session.section_next = g_new0(uint32_t, count);
    hv_net_sections_share_out(s);
    for (i = HV_NET_CONTROL_SECTIONS; i-- > 0; ) {
        section_free(s, i);
    }
}

/* The guest gets its buffers back; frames wait from here on. */
void hv_net_buffers_release(HvNet *s)
{
    uint32_t i;

    vmbus_gpadl_put(s->session.recv_gpadl);
    s->session.recv_gpadl = NULL;
    vmbus_gpadl_put(s->session.send_gpadl);
    s->session.send_gpadl = NULL;
    g_free(s->session.section_busy);
    s->session.section_busy = NULL;
    g_free(s->session.section_channel);
    s->session.section_channel = NULL;
    g_free(s->session.section_next);
    s->session.section_next = NULL;
    s->session.free_control_count = 0;
    s->session.section_count = 0;
    s->session.outstanding = 0;
    for (i = 0; i < s->queues; i++) {
        s->queue[i].free_section = HV_NET_NO_SECTION;
        s->queue[i].outstanding = 0;
    }
}

/* Send queued control messages as far as there are sections and room. */
void hv_net_replies_send(HvNet *s)
{
    VMBusChannel *chan = hv_net_primary(s);
    HvNetReply *reply;

    while (s->session.recv_gpadl && s->session.free_control_count &&
           (reply = QSIMPLEQ_FIRST(&s->replies))) {
        uint32_t section;

        if (!vmbus_ring_has_room(chan, XFER_ROOM + HV_NET_RING_RESERVE) &&
            vmbus_ring_wait_room(chan, XFER_ROOM + HV_NET_RING_RESERVE)) {
            return;
        }
        section = section_take_control(s);
        assert(reply->bytes <= s->session.section_bytes);
        vmbus_gpadl_write(s->session.recv_gpadl,
                          section * s->session.section_bytes, reply->data,
                          reply->bytes);
        announce(s, chan, section, reply->bytes, NVSP_CHANNEL_CONTROL);
        QSIMPLEQ_REMOVE_HEAD(&s->replies, link);
        s->replies_bytes -= reply->bytes;
        g_free(reply);
    }
}

/*
 * Receive: backend to guest
 */

static bool rx_ready(HvNet *s)
{
    return vmbus_channel_usable(hv_net_primary(s)) &&
           s->session.rndis == HV_NET_RNDIS_INITIALIZED &&
           s->session.packet_filter && s->session.recv_gpadl;
}

/* Frames wait; the worker of @chan asks for them again. */
void hv_net_rx_stall(HvNet *s, const VMBusChannel *chan)
{
    s->rx_stalled = true;
    s->rx_stalled_on = chan->index;
}

/* Ask for the frames that wait, if it is @chan that they waited for. */
void hv_net_rx_resume(HvNet *s, const VMBusChannel *chan)
{
    if (!s->rx_stalled || !rx_ready(s)) {
        return;
    }
    if (chan->index == s->rx_stalled_on ||
        !vmbus_channel_usable(hv_net_channel(s, s->rx_stalled_on))) {
        s->rx_stalled = false;
        hv_net_wire_resume(s);
        qemu_flush_queued_packets(qemu_get_queue(s->nic));
    }
}

bool hv_net_can_receive(NetClientState *nc)
{
    HvNet *s = qemu_get_nic_opaque(nc);

    if (rx_ready(s)) {
        return true;
    }
    hv_net_rx_stall(s, hv_net_primary(s));
    return false;
}

/* A frame on its way to the guest. */
typedef struct RxFrame {
    const uint8_t *data;        /* after the addresses if vlan is set */
    uint32_t bytes;
    bool trusted;               /* TCP/UDP checksum known to be right */
    bool has_vlan;
    uint16_t vlan;
    bool has_hash;
    uint32_t hash;
} RxFrame;

/*
 * The backend left the checksum to us: the field has the pseudo header's sum.
 * @frame is private.
 */
static bool rx_complete_csum(uint8_t *frame, uint32_t bytes,
                             const struct virtio_net_hdr *vnet)
{
    uint32_t start = vnet->csum_start, field = start + vnet->csum_offset;
    uint16_t csum;

    if (field + 2 > bytes) {
        return false;
    }
    csum = hv_net_csum_finish(hv_net_csum_add(0, frame + start,
                                              bytes - start));
    stw_he_p(frame + field, csum ? csum : 0xffff);
    return true;
}

static uint32_t rx_ppi(uint8_t *at, uint32_t type, uint32_t value)
{
    RndisPpi ppi = {
        .bytes = sizeof(ppi) + 4,
        .type = type,
        .offset = sizeof(ppi),
    };

    memcpy(at, &ppi, sizeof(ppi));
    stl_le_p(at + sizeof(ppi), value);
    return ppi.bytes;
}

/* Write the frame with its RNDIS header into @section. */
static void rx_fill_section(HvNet *s, uint32_t section, const uint8_t *frame,
                            uint32_t bytes, const RxFrame *info)
{
    uint32_t base = section * s->session.section_bytes;
    uint8_t head[sizeof(RndisPacket) + 3 * (sizeof(RndisPpi) + 4)];
    RndisPacket *msg = (RndisPacket *)head;
    uint32_t csum, off = base + HV_NET_RX_DATA_OFFSET;

    memset(msg, 0, sizeof(*msg));
    msg->header.type = RNDIS_PACKET;
    /* all of the section, as Windows hosts say; the frame is data_bytes */
    msg->header.bytes = s->session.section_bytes;
    msg->data_offset = HV_NET_RX_DATA_OFFSET - RNDIS_OFFSET_BASE;
    msg->data_bytes = bytes;

    csum = hv_net_csum_verify(&s->session.offload, frame, bytes,
                              info->trusted);
    if (csum) {
        msg->ppi_bytes += rx_ppi(head + sizeof(*msg), RNDIS_PPI_CHECKSUM,
                                 csum);
    }
    if (info->has_vlan) {
        /* the tag on the wire: priority, CFI, id; in the PPI upside down */
        msg->ppi_bytes += rx_ppi(head + sizeof(*msg) + msg->ppi_bytes,
                                 RNDIS_PPI_VLAN,
                                 info->vlan >> 13 |
                                 (info->vlan >> 12 & 1) << 3 |
                                 (info->vlan & 0xfff) << 4);
    }
    if (info->has_hash) {
        msg->ppi_bytes += rx_ppi(head + sizeof(*msg) + msg->ppi_bytes,
                                 RNDIS_PPI_HASH, info->hash);
    }
    if (msg->ppi_bytes) {
        msg->ppi_offset = sizeof(*msg) - RNDIS_OFFSET_BASE;
    }
    vmbus_gpadl_write(s->session.recv_gpadl, base, head,
                      sizeof(*msg) + msg->ppi_bytes);
    vmbus_gpadl_write(s->session.recv_gpadl, off, frame, bytes);
}

/*
 * Bring one frame of the backend into the form the guest gets, in scratch or
 * in place.  Returns NULL if it cannot be delivered at all.
 */
static const uint8_t *rx_prepare(HvNet *s, const struct iovec *iov, int count,
                                 uint32_t *bytes, RxFrame *info)
{
    struct virtio_net_hdr vnet = { 0 };
    size_t skip = s->vnet ? sizeof(vnet) : 0;
    size_t total = iov_size(iov, count);
    const uint8_t *frame;
    bool tagged;

    if (total < skip + ETH_HLEN || total - skip > HV_NET_FRAME_MAX) {
        return NULL;
    }
    iov_to_buf(iov, count, 0, &vnet, skip);
    if (vnet.gso_type != VIRTIO_NET_HDR_GSO_NONE) {
        return NULL;    /* never asked for */
    }
    *bytes = total - skip;
    info->trusted = vnet.flags & VIRTIO_NET_HDR_F_DATA_VALID;

    frame = (uint8_t *)iov[0].iov_base + skip;
    tagged = false;
    if (iov[0].iov_len >= skip + ETH_HLEN &&
        lduw_be_p(frame + 12) == ETH_P_VLAN) {
        tagged = true;
    }
    if (count > 1 || tagged || (vnet.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)) {
        iov_to_buf(iov, count, skip, s->scratch, *bytes);
        frame = s->scratch;
    }
    if (vnet.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) {
        if (!rx_complete_csum(s->scratch, *bytes, &vnet)) {
            return NULL;
        }
        info->trusted = true;
    }
    if (frame == s->scratch && lduw_be_p(frame + 12) == ETH_P_VLAN &&
        *bytes >= ETH_HLEN + 4 &&
        (s->session.capabilities & NVSP_CAP_VLAN)) {
        info->has_vlan = true;
        info->vlan = lduw_be_p(frame + 14);
        memmove(s->scratch + 4, s->scratch, 12);
        frame += 4;
        *bytes -= 4;
    }
    return *bytes <= s->session.mtu ? frame : NULL;
}

/*
 * The channel for a frame: the table's choice, or the primary as long as that
 * one is not there.
 */
static VMBusChannel *rx_channel(HvNet *s, const RxFrame *info)
{
    const HvNetRss *rss = &s->session.rss;
    VMBusChannel *chan;

    if (!info->has_hash) {
        return hv_net_primary(s);
    }
    chan = hv_net_channel(s, rss->table[info->hash % rss->entries]);
    return vmbus_channel_usable(chan) ? chan : hv_net_primary(s);
}

/* Room for one more frame on @chan?  If not, its worker will ask again. */
static bool rx_room(HvNet *s, VMBusChannel *chan)
{
    HvNetQueue *q = hv_net_queue_of(s, chan);

    if (q->free_section == HV_NET_NO_SECTION) {
        s->rx_stalls_section++;
    } else if (!vmbus_ring_has_room(chan, XFER_ROOM + HV_NET_RING_RESERVE) &&
               vmbus_ring_wait_room(chan, XFER_ROOM + HV_NET_RING_RESERVE)) {
        s->rx_stalls_ring++;
    } else {
        return true;
    }
    q->rx_stalls++;
    hv_net_rx_stall(s, chan);
    if (!vmbus_channel_usable(chan)) {
        vmbus_channel_kick(hv_net_primary(s));  /* it has just been failed */
    }
    return false;
}

ssize_t hv_net_receive_iov(NetClientState *nc, const struct iovec *iov,
                           int count)
{
    HvNet *s = qemu_get_nic_opaque(nc);
    VMBusChannel *chan;
    RxFrame info = { 0 };
    uint32_t bytes, section;
    const uint8_t *frame;

    if (!rx_ready(s)) {
        hv_net_rx_stall(s, hv_net_primary(s));
        return 0;
    }
    frame = rx_prepare(s, iov, count, &bytes, &info);
    if (!frame) {
        s->rx_dropped++;
        return iov_size(iov, count);
    }
    info.has_hash = hv_net_rss_hash(&s->session.rss, frame, bytes, &info.hash);
    chan = rx_channel(s, &info);
    if (!rx_room(s, chan)) {
        return 0;
    }
    section = section_take_data(s, chan);
    rx_fill_section(s, section, frame, bytes, &info);
    announce(s, chan, section, s->session.section_bytes, NVSP_CHANNEL_DATA);
    vmbus_ring_commit(chan);
    s->rx_packets++;
    s->rx_bytes += bytes;
    hv_net_queue_of(s, chan)->rx_packets++;
    hv_net_queue_of(s, chan)->rx_bytes += bytes;
    return iov_size(iov, count);
}
/* The guest is done with what an announcement gave it. */
void hv_net_rx_completion(HvNet *s, VMBusChannel *chan, const VMBusPacket *pkt)
{
    const char *rule;

    if (pkt->payload_bytes < 8 ||
        ldl_le_p(pkt->payload) != NVSP_RNDIS_PACKET_COMPLETE) {
        vmbus_channel_fail(chan, "nvsp-rx-completion", "%u bytes of payload",
                           pkt->payload_bytes);
        return;
    }
    rule = section_give_back(s, chan, pkt->transaction_id);
    if (rule) {
        vmbus_channel_fail(chan, rule, "id %" PRIu64, pkt->transaction_id);
    }
}
