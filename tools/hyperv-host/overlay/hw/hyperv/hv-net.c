/*
 * hv-net: the synthetic NIC of Hyper-V, with any -netdev behind it.
 *
 * This file has the device, the NVSP negotiation and the packet paths.  The
 * channel worker (work) takes the guest's packets: negotiation, RNDIS in send
 * sections or in the guest's own pages, completions of received frames.
 * Frames from the backend come through receive_iov and are put into sections
 * of the guest's receive buffer.  Neither drops a frame because the other
 * side is busy: both stop and are resumed.
 *
 * Everything runs in the main loop under the BQL.  The session belongs to the
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
#include "qemu/units.h"
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
/* RX leaves this much of the ring to completions of the worker. */
#define RX_RING_RESERVE     256
/* As much of a frame as is copied when something in it has to change: up to
 * the checksum of a transport header at the highest offset there can be. */
#define TX_HEADER_COPY      (1023 + 18)

#define COMPLETION_ROOM \
    vmbus_packet_room(sizeof(VMBusPacketDesc), sizeof(NvspMessage))
#define XFER_ROOM \
    vmbus_packet_room(sizeof(VMBusXferPages), sizeof(NvspMessage))

bool hv_net_link_down(HvNet *s)
{
    return qemu_get_queue(s->nic)->link_down;
}

/*
 * Packets to the guest
 */

/* The room has been checked. */
static void complete(VMBusChannel *chan, uint64_t transaction_id,
                     const NvspMessage *msg)
{
    VMBusPacketDesc desc = {
        .type = VMBUS_PACKET_COMPLETION,
        .transaction_id = transaction_id,
    };

    vmbus_ring_put(chan, &desc, sizeof(desc), msg, sizeof(*msg));
}

static void complete_rndis(VMBusChannel *chan, uint64_t transaction_id,
                           bool ok)
{
    NvspMessage msg = {
        .type = NVSP_RNDIS_PACKET_COMPLETE,
        .complete.status = ok ? NVSP_STATUS_SUCCESS : NVSP_STATUS_FAILURE,
    };

    complete(chan, transaction_id, &msg);
}

static HvNetQueue *queue_of(HvNet *s, const VMBusChannel *chan)
{
    return &s->queue[chan->index];
}

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
    HvNetQueue *q = queue_of(s, chan);

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
    HvNetQueue *q = queue_of(s, chan);
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
    queue_of(s, chan)->outstanding--;
    section_free(s, id);
    return NULL;
}

/* A subchannel is gone, and with it the completions it would have brought. */
static void sections_reclaim(HvNet *s, VMBusChannel *chan)
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
static void sections_share_out(HvNet *s)
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

static void sections_create(HvNet *s)
{
    uint32_t count = s->session.section_count, i;

    s->session.section_busy = bitmap_new(count);
    s->session.section_channel = g_new0(uint8_t, count);
    s->session.section_next = g_new0(uint32_t, count);
    sections_share_out(s);
    for (i = HV_NET_CONTROL_SECTIONS; i-- > 0; ) {
        section_free(s, i);
    }
}

/* The guest gets its buffers back; frames wait from here on. */
static void buffers_release(HvNet *s)
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
static void replies_send(HvNet *s)
{
    VMBusChannel *chan = hv_net_primary(s);
    HvNetReply *reply;

    while (s->session.recv_gpadl && s->session.free_control_count &&
           (reply = QSIMPLEQ_FIRST(&s->replies))) {
        uint32_t section;

        if (!vmbus_ring_has_room(chan, XFER_ROOM + RX_RING_RESERVE) &&
            vmbus_ring_wait_room(chan, XFER_ROOM + RX_RING_RESERVE)) {
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
static void rx_stall(HvNet *s, const VMBusChannel *chan)
{
    s->rx_stalled = true;
    s->rx_stalled_on = chan->index;
}

/* Ask for the frames that wait, if it is @chan that they waited for. */
static void rx_resume(HvNet *s, const VMBusChannel *chan)
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

static bool hv_net_can_receive(NetClientState *nc)
{
    HvNet *s = qemu_get_nic_opaque(nc);

    if (rx_ready(s)) {
        return true;
    }
    rx_stall(s, hv_net_primary(s));
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
    HvNetQueue *q = queue_of(s, chan);

    if (q->free_section == HV_NET_NO_SECTION) {
        s->rx_stalls_section++;
    } else if (!vmbus_ring_has_room(chan, XFER_ROOM + RX_RING_RESERVE) &&
               vmbus_ring_wait_room(chan, XFER_ROOM + RX_RING_RESERVE)) {
        s->rx_stalls_ring++;
    } else {
        return true;
    }
    q->rx_stalls++;
    rx_stall(s, chan);
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
        rx_stall(s, hv_net_primary(s));
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
    queue_of(s, chan)->rx_packets++;
    queue_of(s, chan)->rx_bytes += bytes;
    return iov_size(iov, count);
}

/*
 * Transmit: guest to backend
 */

/* One RNDIS message of a packet, checked. */
typedef struct TxFrame {
    uint32_t off;               /* of the frame in the packet's memory */
    uint32_t bytes;
    bool has_csum;
    bool has_vlan;
    uint32_t csum;
    uint32_t vlan;
} TxFrame;

/* Memory of a packet: the send section first, then the GPA ranges. */
typedef struct TxMemory {
    struct iovec iov[HV_NET_TX_IOV];
    int count;
    uint32_t bytes;
    uint32_t first;             /* bytes of the first range */
} TxMemory;

static bool tx_bad(const char *rule, const char *what)
{
    hyperv_violation(rule, "%s", what);
    return false;
}

static bool tx_parse_ppi(const uint8_t *ppi, uint32_t left, TxFrame *frame)
{
    while (left) {
        RndisPpi head;
        uint32_t value;

        if (left < sizeof(head)) {
            return tx_bad("rndis-ppi", "shorter than its header");
        }
        memcpy(&head, ppi, sizeof(head));
        if (head.bytes < sizeof(head) || head.bytes > left ||
            head.bytes % 4 || head.offset < sizeof(head) ||
            head.offset > head.bytes) {
            return tx_bad("rndis-ppi", "size or offset");
        }
        if (head.type == RNDIS_PPI_LSO) {
            return tx_bad("rndis-lso-not-offered", "LSO packet");
        }
        if (head.type == RNDIS_PPI_CHECKSUM || head.type == RNDIS_PPI_VLAN) {
            if (head.bytes - head.offset < 4) {
                return tx_bad("rndis-ppi", "no room for the value");
            }
            value = ldl_le_p(ppi + head.offset);
            if (head.type == RNDIS_PPI_CHECKSUM) {
                frame->has_csum = true;
                frame->csum = value;
            } else {
                frame->has_vlan = true;
                frame->vlan = value;
            }
        }
        ppi += head.bytes;
        left -= head.bytes;
    }
    return true;
}

/* Put the transport header's place into frame->csum's offset field. */
static bool tx_check_csum(TxFrame *frame)
{
    uint32_t csum = frame->csum, offset = TX_CSUM_OFFSET(csum);
    uint32_t least = ETH_HLEN + (csum & TX_CSUM_IPV4 ? 20 : 40);
    uint32_t field = csum & TX_CSUM_TCP ? 16 : 6;

    if (!(csum & (TX_CSUM_TCP | TX_CSUM_UDP))) {
        return true;
    }
    if (!offset) {
        offset = least;
    }
    if (offset < least || offset + field + 2 > frame->bytes) {
        return tx_bad("rndis-csum-offset", "transport header");
    }
    frame->csum = (csum & 0xffff) | offset << 16;
    return true;
}

/*
 * Check the PACKET message at @off, of @left bytes at most.  Its header and
 * PPIs have to be in the first range.
 */
static bool tx_parse_message(HvNet *s, const TxMemory *memory, uint32_t off,
                             uint32_t left, TxFrame *frame, uint32_t *bytes)
{
    RndisPacket msg;
    uint8_t ppi[512];
    uint32_t area;

    if (left < sizeof(msg) || off + sizeof(msg) > memory->first) {
        return tx_bad("rndis-header", "not in the first range");
    }
    iov_to_buf(memory->iov, memory->count, off, &msg, sizeof(msg));
    if (msg.header.type != RNDIS_PACKET) {
        return tx_bad("rndis-mixed-messages", "no PACKET after a PACKET");
    }
    if (msg.header.bytes < sizeof(msg) || msg.header.bytes > left) {
        return tx_bad("rndis-message-length", "message");
    }
    *bytes = msg.header.bytes;
    area = msg.header.bytes - RNDIS_OFFSET_BASE;
    if (msg.oob_offset || msg.oob_bytes || msg.oob_count || msg.vc_handle) {
        return tx_bad("rndis-oob", "OOB or VC fields not zero");
    }
    if (!msg.data_bytes || msg.data_offset > area ||
        msg.data_bytes > area - msg.data_offset) {
        return tx_bad("rndis-data-range", "data");
    }
    *frame = (TxFrame) {
        .off = off + RNDIS_OFFSET_BASE + msg.data_offset,
        .bytes = msg.data_bytes,
    };
    if (msg.ppi_bytes) {
        if (msg.ppi_offset > area || msg.ppi_bytes > area - msg.ppi_offset ||
            msg.ppi_bytes > sizeof(ppi) ||
            off + RNDIS_OFFSET_BASE + msg.ppi_offset + msg.ppi_bytes >
            memory->first) {
            return tx_bad("rndis-ppi", "range");
        }
        iov_to_buf(memory->iov, memory->count,
                   off + RNDIS_OFFSET_BASE + msg.ppi_offset, ppi,
                   msg.ppi_bytes);
        if (!tx_parse_ppi(ppi, msg.ppi_bytes, frame)) {
            return false;
        }
    }
    if (frame->bytes < ETH_HLEN || frame->bytes > s->session.mtu + 4) {
        return tx_bad("rndis-frame-length", "outside 14 to MTU");
    }
    return !frame->has_csum || tx_check_csum(frame);
}

/*
 * Copy the first bytes of the frame to @head and change what has to be
 * changed there: VLAN tag, checksums the backend does not do.  Returns the
 * bytes of the frame that @head replaces; *@head_bytes is its size.
 */
static uint32_t tx_rewrite(HvNet *s, const TxMemory *memory,
                           const TxFrame *frame, uint8_t *head,
                           uint32_t *head_bytes)
{
    uint32_t offset = TX_CSUM_OFFSET(frame->csum);
    uint32_t field = offset + (frame->csum & TX_CSUM_TCP ? 16 : 6);
    uint32_t copied = MIN(frame->bytes, MAX(ETH_HLEN + 60, field + 2));

    iov_to_buf(memory->iov, memory->count, frame->off, head, copied);
    if (frame->has_csum && (frame->csum & TX_CSUM_IPV4) &&
        (frame->csum & TX_CSUM_IP_HEADER) && copied >= ETH_HLEN + 20) {
        uint32_t ip_bytes = (head[ETH_HLEN] & 0xf) * 4;

        if (ip_bytes >= 20 && ETH_HLEN + ip_bytes <= copied) {
            stw_he_p(head + ETH_HLEN + 10, 0);
            stw_he_p(head + ETH_HLEN + 10, hv_net_csum_finish(
                         hv_net_csum_add(0, head + ETH_HLEN, ip_bytes)));
        }
    }
    if (frame->has_csum && (frame->csum & (TX_CSUM_TCP | TX_CSUM_UDP)) &&
        !s->vnet) {
        uint64_t sum = hv_net_csum_add_iov(0, memory->iov, memory->count,
                                           frame->off + offset,
                                           frame->bytes - offset);
        uint16_t csum = hv_net_csum_finish(sum);

        stw_he_p(head + field, csum ? csum : 0xffff);
    }
    *head_bytes = copied;
    if (frame->has_vlan) {
        uint16_t tci = (frame->vlan & 7) << 13 | (frame->vlan >> 3 & 1) << 12 |
                       (frame->vlan >> 4 & 0xfff);

        memmove(head + 16, head + 12, copied - 12);
        stw_be_p(head + 12, ETH_P_VLAN);
        stw_be_p(head + 14, tci);
        *head_bytes += 4;
    }
    return copied;
}

static void tx_sent(NetClientState *nc, ssize_t ret)
{
    HvNet *s = qemu_get_nic_opaque(nc);

    uint32_t i;

    s->tx_blocked = false;
    for (i = 0; i < s->queues; i++) {
        if (vmbus_channel_usable(hv_net_channel(s, i))) {
            vmbus_channel_kick(hv_net_channel(s, i));
        }
    }
}

static void tx_frame(HvNet *s, const TxMemory *memory, const TxFrame *frame)
{
    struct iovec iov[HV_NET_TX_IOV + 2];
    struct virtio_net_hdr vnet = { 0 };
    uint8_t head[TX_HEADER_COPY + 4];
    uint32_t skip = 0, head_bytes = 0;
    bool offload = frame->has_csum &&
                   (frame->csum & (TX_CSUM_TCP | TX_CSUM_UDP));
    int count = 0;

    if (frame->has_vlan || (offload && !s->vnet) ||
        (frame->has_csum && (frame->csum & TX_CSUM_IP_HEADER))) {
        skip = tx_rewrite(s, memory, frame, head, &head_bytes);
    }
    if (s->vnet) {
        if (offload) {
            vnet.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
            vnet.csum_start = TX_CSUM_OFFSET(frame->csum) + head_bytes - skip;
            vnet.csum_offset = frame->csum & TX_CSUM_TCP ? 16 : 6;
        }
        iov[count++] = (struct iovec) { &vnet, sizeof(vnet) };
    }
    if (head_bytes) {
        iov[count++] = (struct iovec) { head, head_bytes };
    }
    count += iov_copy(iov + count, ARRAY_SIZE(iov) - count, memory->iov,
                      memory->count, frame->off + skip, frame->bytes - skip);

    s->tx_packets++;
    s->tx_bytes += frame->bytes;
    s->tx_csum += offload;
    if (!hv_net_wire_send(s, qemu_get_queue(s->nic), iov, count, tx_sent)) {
        s->tx_blocked = true;   /* the frame itself has been taken over */
    }
}

/* All or nothing: the messages are checked before the first is sent. */
static bool tx_packets(HvNet *s, const TxMemory *memory, HvNetQueue *q)
{
    TxFrame frames[HV_NET_MAX_MESSAGES];
    uint32_t off = 0, bytes;
    unsigned count = 0, i;

    if (s->session.rndis != HV_NET_RNDIS_INITIALIZED) {
        return tx_bad("rndis-not-initialized", "data packet");
    }
    while (off < memory->bytes) {
        if (count == HV_NET_MAX_MESSAGES) {
            return tx_bad("rndis-too-many-messages", "in one packet");
        }
        if (!tx_parse_message(s, memory, off, memory->bytes - off,
                              &frames[count], &bytes)) {
            return false;
        }
        count++;
        off += bytes;
    }
    for (i = 0; i < count; i++) {
        q->tx_packets++;
        q->tx_bytes += frames[i].bytes;
        tx_frame(s, memory, &frames[i]);
    }
    return true;
}

/*
 * Collect the memory of an RNDIS packet.  Returns false if the packet has to
 * be completed as failed; the channel may have been failed instead.
 */
static bool tx_gather(HvNet *s, VMBusChannel *chan, const VMBusPacket *pkt,
                      const NvspMessage *msg, TxMemory *memory)
{
    const uint8_t *pos = pkt->header;
    uint32_t left = pkt->header_bytes;
    VMBusGpaDirect ranges = { 0 };

    memory->count = 0;
    memory->first = 0;
    if (msg->rndis.section != NVSP_NO_SECTION) {
        uint64_t off = (uint64_t)msg->rndis.section * HV_NET_SEND_SECTION;

        if (!s->session.send_gpadl ||
            off + msg->rndis.section_bytes >
            vmbus_gpadl_bytes(s->session.send_gpadl)) {
            vmbus_channel_fail(chan, "nvsp-send-section",
                               "section %u, %u bytes", msg->rndis.section,
                               msg->rndis.section_bytes);
            return false;
        }
        memory->count = vmbus_gpadl_iov(s->session.send_gpadl, off,
                                        msg->rndis.section_bytes, memory->iov,
                                        0, HV_NET_TX_IOV);
        memory->first = msg->rndis.section_bytes;
    }
    if (pkt->type == VMBUS_PACKET_GPA_DIRECT) {
        memcpy(&ranges, pos, sizeof(ranges));
        pos += sizeof(ranges);
        left -= sizeof(ranges);
        if (!ranges.range_count) {
            vmbus_channel_fail(chan, "ring-gpa-direct", "no range");
            return false;
        }
    }
    while (ranges.range_count--) {
        int count = vmbus_gpa_range_iov(&pos, &left, memory->iov,
                                        memory->count, HV_NET_TX_IOV);

        if (count == -1) {
            vmbus_channel_fail(chan, "ring-gpa-range", "malformed");
            return false;
        }
        if (count < 0) {
            return tx_bad("rndis-gpa-range", count == -2 ? "not guest RAM"
                                                         : "too many pages");
        }
        memory->count = count;
        if (!memory->first) {
            memory->first = iov_size(memory->iov, count);
        }
    }
    memory->bytes = iov_size(memory->iov, memory->count);
    return true;
}

static bool tx_control(HvNet *s, const TxMemory *memory)
{
    if (memory->bytes > HV_NET_CONTROL_MESSAGE_MAX) {
        return tx_bad("rndis-control", "too long");
    }
    if (s->replies_bytes > HV_NET_CONTROL_QUEUE_BYTES) {
        return tx_bad("rndis-control-flood", "answers are not taken");
    }
    iov_to_buf(memory->iov, memory->count, 0, s->scratch, memory->bytes);
    return hv_net_control(s, s->scratch, memory->bytes) ||
           tx_bad("rndis-control", "malformed or out of order");
}

/* Do what an RNDIS packet says and complete it. */
static void tx_handle(HvNet *s, VMBusChannel *chan, const VMBusPacket *pkt)
{
    NvspMessage msg;
    TxMemory memory;
    RndisHeader header = { 0 };
    bool ok = false;

    memcpy(&msg, pkt->payload, MIN(sizeof(msg), pkt->payload_bytes));
    if (tx_gather(s, chan, pkt, &msg, &memory)) {
        iov_to_buf(memory.iov, memory.count, 0, &header, sizeof(header));
        if (header.type == RNDIS_PACKET) {
            ok = tx_packets(s, &memory, queue_of(s, chan));
        } else if (!chan->index) {
            ok = tx_control(s, &memory);
        } else {
            tx_bad("rndis-control-on-subchannel", "refused");
        }
    }
    if (!vmbus_channel_usable(chan)) {
        return;
    }
    if (!ok) {
        s->tx_errors++;
    }
    complete_rndis(chan, pkt->transaction_id, ok);
}

static void tx_queue(HvNetQueue *q, const VMBusPacket *pkt)
{
    HvNetTxPending *item = g_malloc(sizeof(*item) + pkt->header_bytes +
                                    pkt->payload_bytes);

    item->packet = *pkt;
    memcpy(item->data, pkt->header, pkt->header_bytes);
    memcpy(item->data + pkt->header_bytes, pkt->payload, pkt->payload_bytes);
    item->packet.header = item->data;
    item->packet.payload = item->data + pkt->header_bytes;
    QSIMPLEQ_INSERT_TAIL(&q->tx_pending, item, link);
    q->tx_pending_count++;
}

static void tx_queue_clear(HvNetQueue *q)
{
    HvNetTxPending *item;

    while ((item = QSIMPLEQ_FIRST(&q->tx_pending))) {
        QSIMPLEQ_REMOVE_HEAD(&q->tx_pending, link);
        g_free(item);
    }
    q->tx_pending_count = 0;
}

/*
 * NVSP
 */

static bool nvsp_version_known(HvNet *s, uint32_t version)
{
    switch (version) {
    case NVSP_VERSION_1:
    case NVSP_VERSION_2:
    case NVSP_VERSION_4:
    case NVSP_VERSION_5:
    case NVSP_VERSION_6:
    case NVSP_VERSION_6_1:
        return version <= s->max_nvsp;
    default:
        return false;
    }
}

static void nvsp_init(HvNet *s, VMBusChannel *chan, const NvspMessage *msg,
                      NvspMessage *reply)
{
    bool known = nvsp_version_known(s, msg->init.version);

    if (s->session.nvsp) {
        vmbus_channel_fail(chan, "nvsp-order", "INIT twice");
        return;
    }
    reply->type = NVSP_INIT_COMPLETE;
    reply->init_complete.version = 0xffffffff;
    reply->init_complete.max_mdl_chain = 34;
    if (!known) {
        reply->init_complete.status = NVSP_STATUS_NONE;
        return;
    }
    if (msg->init.version == NVSP_VERSION_1) {
        reply->init_complete.version = NVSP_VERSION_1;
    }
    reply->init_complete.status = NVSP_STATUS_SUCCESS;
    s->session.nvsp = msg->init.version;
    s->session.mtu = HV_NET_MTU_DEFAULT;
}

static void nvsp_ndis_config(HvNet *s, VMBusChannel *chan,
                             const NvspMessage *msg)
{
    uint32_t mtu = msg->ndis_config.mtu;

    if (s->session.ndis_config_set) {
        vmbus_channel_fail(chan, "nvsp-order", "NDIS_CONFIG twice");
        return;
    }
    s->session.ndis_config_set = true;
    s->session.capabilities = msg->ndis_config.capabilities;
    s->session.mtu = mtu >= HV_NET_MTU_DEFAULT && mtu <= s->max_mtu
                     ? mtu : HV_NET_MTU_DEFAULT;
}

static void nvsp_ndis_version(HvNet *s, VMBusChannel *chan,
                              const NvspMessage *msg)
{
    if (s->session.ndis_version_set) {
        vmbus_channel_fail(chan, "nvsp-order", "NDIS_VER twice");
        return;
    }
    s->session.ndis_version_set = true;
    s->session.ndis_minor = msg->ndis_version.minor;
}

/* The GPADL of a buffer, or NULL after failing the channel. */
static VMBusGpadl *nvsp_buffer(VMBusChannel *chan, uint32_t id)
{
    VMBusGpadl *gpadl = vmbus_gpadl_get(chan, id);

    if (!gpadl || !vmbus_gpadl_aligned(gpadl)) {
        vmbus_gpadl_put(gpadl);
        vmbus_channel_fail(chan, "nvsp-buffer-gpadl", "gpadl 0x%x", id);
        return NULL;
    }
    return gpadl;
}

static void nvsp_recv_buf(HvNet *s, VMBusChannel *chan, const NvspMessage *msg,
                          NvspMessage *reply)
{
    VMBusGpadl *gpadl;
    uint32_t section = HV_NET_RX_DATA_OFFSET + s->session.mtu + HV_NET_RX_TAIL;

    if (s->session.recv_gpadl) {
        vmbus_channel_fail(chan, "nvsp-order", "SEND_RECV_BUF twice");
        return;
    }
    if (s->session.nvsp >= NVSP_VERSION_2 && !s->session.ndis_config_set) {
        vmbus_channel_fail(chan, "nvsp-order",
                           "SEND_RECV_BUF before NDIS_CONFIG");
        return;
    }
    gpadl = nvsp_buffer(chan, msg->buffer.gpadl);
    if (!gpadl) {
        return;
    }
    if (vmbus_gpadl_bytes(gpadl) / section <= HV_NET_CONTROL_SECTIONS) {
        vmbus_gpadl_put(gpadl);
        vmbus_channel_fail(chan, "nvsp-recv-buf-small", "%u bytes",
                           vmbus_gpadl_bytes(gpadl));
        return;
    }
    s->session.recv_gpadl = gpadl;
    s->session.recv_id = msg->buffer.id;
    s->session.section_bytes = section;
    s->session.section_count = vmbus_gpadl_bytes(gpadl) / section;
    sections_create(s);

    reply->type = NVSP_SEND_RECV_BUF_COMPLETE;
    reply->recv_buf_complete.status = NVSP_STATUS_SUCCESS;
    reply->recv_buf_complete.section_count = 1;
    reply->recv_buf_complete.section_bytes = section;
    reply->recv_buf_complete.sections = s->session.section_count;
    reply->recv_buf_complete.end_offset = section * s->session.section_count;
}

static void nvsp_send_buf(HvNet *s, VMBusChannel *chan, const NvspMessage *msg,
                          NvspMessage *reply)
{
    if (s->session.send_gpadl) {
        vmbus_channel_fail(chan, "nvsp-order", "SEND_SEND_BUF twice");
        return;
    }
    s->session.send_gpadl = nvsp_buffer(chan, msg->buffer.gpadl);
    if (!s->session.send_gpadl) {
        return;
    }
    s->session.send_id = msg->buffer.id;
    reply->type = NVSP_SEND_SEND_BUF_COMPLETE;
    reply->send_buf_complete.status = NVSP_STATUS_SUCCESS;
    reply->send_buf_complete.section_bytes = HV_NET_SEND_SECTION;
}

/*
 * Real hosts end their worker here: nothing later on any channel is
 * answered, and both buffers are the guest's again.
 */
static void nvsp_revoke(HvNet *s)
{
    uint32_t i;

    for (i = 0; i < s->queues; i++) {
        VMBusChannel *chan = hv_net_channel(s, i);

        if (vmbus_channel_usable(chan)) {
            vmbus_ring_release(chan);
            vmbus_ring_commit(chan);
            vmbus_channel_stop(chan);
        }
        tx_queue_clear(&s->queue[i]);
    }
    hv_net_replies_clear(s);
    buffers_release(s);
}

/* A refused request is not repeated, so say why. */
static bool subchannels_grantable(HvNet *s, const NvspMessage *msg)
{
    uint32_t data = s->session.section_count - HV_NET_CONTROL_SECTIONS;

    if (msg->subchannel.operation != NVSP_SUBCHANNEL_ALLOCATE ||
        msg->subchannel.count >= s->queues) {
        hyperv_violation("nvsp-subchannels", "operation %u, %u subchannels, "
                         "there are %u", msg->subchannel.operation,
                         msg->subchannel.count, s->queues - 1);
        return false;
    }
    if (s->session.subchannels_requested) {
        hyperv_violation("nvsp-subchannels-twice", "%u, had %u",
                         msg->subchannel.count, s->session.subchannels);
        return false;
    }
    if (msg->subchannel.count >= data) {
        hyperv_violation("nvsp-subchannels-sections",
                         "%u subchannels, %u sections",
                         msg->subchannel.count, data);
        return false;
    }
    return true;
}

static void nvsp_subchannel(HvNet *s, const NvspMessage *msg,
                            NvspMessage *reply)
{
    uint32_t i;

    reply->type = NVSP_SUBCHANNEL;
    if (!subchannels_grantable(s, msg)) {
        reply->subchannel.operation = NVSP_STATUS_FAILURE;
        return;
    }
    s->session.subchannels_requested = true;
    s->session.subchannels = msg->subchannel.count;
    s->session.send_table_due = msg->subchannel.count > 0;
    sections_share_out(s);
    for (i = 1; i <= msg->subchannel.count; i++) {
        vmbus_channel_offer(hv_net_channel(s, i));
    }
    reply->subchannel.operation = NVSP_STATUS_SUCCESS;
    reply->subchannel.count = msg->subchannel.count;
}

/*
 * Which channel to send on, by hash: told once all subchannels are open.
 * Hosts that speak NVSP 6 at most may put the table behind a message of the
 * newer length, and give the offset of one of the older.
 */
static void send_table(HvNet *s)
{
    bool old = s->old_send_table && s->session.nvsp <= NVSP_VERSION_6;
    uint32_t offset = old ? sizeof(NvspMessage) : 12, i;
    uint8_t msg[sizeof(NvspMessage) + 4 * HV_NET_SEND_TABLE] = { 0 };
    VMBusChannel *chan = hv_net_primary(s);
    VMBusPacketDesc desc = { .type = VMBUS_PACKET_INBAND };
    uint32_t room = vmbus_packet_room(sizeof(desc), sizeof(msg)) +
                    RX_RING_RESERVE;

    if (!s->session.send_table_due) {
        return;
    }
    for (i = 1; i <= s->session.subchannels; i++) {
        if (!hv_net_channel(s, i)->open) {
            return;
        }
    }
    if (!vmbus_ring_has_room(chan, room) && vmbus_ring_wait_room(chan, room)) {
        return;
    }
    stl_le_p(msg, NVSP_SEND_INDIRECTION_TABLE);
    stl_le_p(msg + 4, HV_NET_SEND_TABLE);
    stl_le_p(msg + 8, old ? NVSP_OLD_MESSAGE_BYTES : offset);
    for (i = 0; i < HV_NET_SEND_TABLE; i++) {
        stl_le_p(msg + offset + 4 * i, i % (1 + s->session.subchannels));
    }
    vmbus_ring_put(chan, &desc, sizeof(desc), msg,
                   offset + 4 * HV_NET_SEND_TABLE);
    s->session.send_table_due = false;
}

/* What the message must have, and from which version on there is such one. */
static bool nvsp_valid(HvNet *s, uint32_t type, uint32_t bytes)
{
    uint32_t least, version = NVSP_VERSION_1;

    switch (type) {
    case NVSP_INIT:
    case NVSP_SEND_NDIS_VERSION:
        least = 12;
        break;
    case NVSP_SEND_RECV_BUF:
    case NVSP_SEND_SEND_BUF:
        least = 10;
        break;
    case NVSP_REVOKE_RECV_BUF:
    case NVSP_REVOKE_SEND_BUF:
        least = 6;
        break;
    case NVSP_SEND_NDIS_CONFIG:
        least = 20;
        version = NVSP_VERSION_2;
        break;
    case NVSP_SWITCH_DATA_PATH:
        least = 8;
        version = NVSP_VERSION_4;
        break;
    case NVSP_OID_QUERY_EX:
    case NVSP_SUBCHANNEL:
        least = 12;
        version = NVSP_VERSION_5;
        break;
    default:
        return false;
    }
    return bytes >= least && (type == NVSP_INIT || s->session.nvsp >= version);
}

/* RNDIS and subchannels need versions, configuration and receive buffer. */
static bool nvsp_session_complete(HvNet *s)
{
    return s->session.nvsp && s->session.ndis_version_set &&
           (s->session.ndis_config_set ||
            s->session.nvsp < NVSP_VERSION_2) && s->session.recv_gpadl;
}

static void nvsp_handle(HvNet *s, VMBusChannel *chan, const VMBusPacket *pkt)
{
    NvspMessage msg = { 0 }, reply = { 0 };
    VMBusPacketDesc desc = {
        .type = VMBUS_PACKET_COMPLETION,
        .transaction_id = pkt->transaction_id,
    };

    memcpy(&msg, pkt->payload, MIN(sizeof(msg), pkt->payload_bytes));
    if (!s->session.nvsp && msg.type != NVSP_INIT) {
        vmbus_channel_fail(chan, "nvsp-first-message", "type %u", msg.type);
        return;
    }
    if (chan->index && msg.type != NVSP_OID_QUERY_EX) {
        vmbus_channel_fail(chan, "nvsp-on-subchannel", "type %u", msg.type);
        return;
    }
    if (!nvsp_valid(s, msg.type, pkt->payload_bytes)) {
        vmbus_channel_fail(chan, "nvsp-type", "type %u, %u bytes", msg.type,
                           pkt->payload_bytes);
        return;
    }
    switch (msg.type) {
    case NVSP_INIT:
        nvsp_init(s, chan, &msg, &reply);
        break;
    case NVSP_SEND_NDIS_CONFIG:
        nvsp_ndis_config(s, chan, &msg);
        break;
    case NVSP_SEND_NDIS_VERSION:
        nvsp_ndis_version(s, chan, &msg);
        break;
    case NVSP_SEND_RECV_BUF:
        nvsp_recv_buf(s, chan, &msg, &reply);
        break;
    case NVSP_SEND_SEND_BUF:
        nvsp_send_buf(s, chan, &msg, &reply);
        break;
    case NVSP_REVOKE_RECV_BUF:
    case NVSP_REVOKE_SEND_BUF:
        nvsp_revoke(s);
        return;
    case NVSP_SUBCHANNEL:
        if (!nvsp_session_complete(s)) {
            vmbus_channel_fail(chan, "nvsp-order", "SUBCHANNEL too early");
            return;
        }
        nvsp_subchannel(s, &msg, &reply);
        break;
    case NVSP_OID_QUERY_EX:
        reply.type = NVSP_OID_QUERY_EX_COMPLETE;
        reply.oid_query_ex_complete.status = NVSP_STATUS_UNSUPPORTED;
        break;
    case NVSP_SWITCH_DATA_PATH:
        /* there is only the synthetic path; answered without payload */
        if (msg.data_path.path) {
            hyperv_violation("nvsp-data-path", "no VF to switch to");
        }
        if (pkt->want_completion) {
            vmbus_ring_put(chan, &desc, sizeof(desc), NULL, 0);
        }
        return;
    }
    if (!vmbus_channel_usable(chan)) {
        return;
    }
    if (pkt->want_completion) {
        complete(chan, pkt->transaction_id, &reply);
    } else if (reply.type) {
        hyperv_violation("nvsp-completion-not-requested", "type %u", msg.type);
    }
}

static void nvsp_rndis(HvNet *s, VMBusChannel *chan, const VMBusPacket *pkt)
{
    if (!nvsp_session_complete(s)) {
        vmbus_channel_fail(chan, s->session.nvsp ? "nvsp-order"
                                                 : "nvsp-first-message",
                           "RNDIS packet");
    } else if (pkt->payload_bytes < 16) {
        vmbus_channel_fail(chan, "nvsp-type", "RNDIS packet of %u bytes",
                           pkt->payload_bytes);
    } else if (!pkt->want_completion) {
        hyperv_violation("nvsp-completion-not-requested", "RNDIS packet");
        s->tx_errors++;
    } else if (s->tx_blocked || queue_of(s, chan)->tx_pending_count) {
        tx_queue(queue_of(s, chan), pkt);
    } else {
        tx_handle(s, chan, pkt);
    }
}

/* The guest is done with what an announcement gave it. */
static void rx_completion(HvNet *s, VMBusChannel *chan, const VMBusPacket *pkt)
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

static void packet_handle(HvNet *s, VMBusChannel *chan, const VMBusPacket *pkt)
{
    if (pkt->type == VMBUS_PACKET_COMPLETION) {
        rx_completion(s, chan, pkt);
    } else if (pkt->payload_bytes < 4) {
        vmbus_channel_fail(chan, "nvsp-type", "no message");
    } else if (ldl_le_p(pkt->payload) == NVSP_RNDIS_PACKET) {
        nvsp_rndis(s, chan, pkt);
    } else {
        nvsp_handle(s, chan, pkt);
    }
}

/*
 * The channel worker
 */

/* Room for one completion; if not, the worker is called again when there is. */
static bool completion_room(VMBusChannel *chan)
{
    return vmbus_ring_has_room(chan, COMPLETION_ROOM) ||
           !vmbus_ring_wait_room(chan, COMPLETION_ROOM);
}

static void tx_queue_run(HvNet *s, VMBusChannel *chan)
{
    HvNetQueue *q = queue_of(s, chan);
    HvNetTxPending *item;

    while (!s->tx_blocked && (item = QSIMPLEQ_FIRST(&q->tx_pending)) &&
           completion_room(chan)) {
        QSIMPLEQ_REMOVE_HEAD(&q->tx_pending, link);
        q->tx_pending_count--;
        tx_handle(s, chan, &item->packet);
        g_free(item);
        if (!vmbus_channel_usable(chan)) {
            return;
        }
    }
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
        if (queue_of(s, chan)->tx_pending_count >= HV_NET_TX_QUEUE ||
            !completion_room(chan)) {
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
        if (!vmbus_channel_usable(chan)) {
            return false;
        }
    }
    return true;
}

static bool hv_net_work(VMBusChannel *chan)
{
    HvNet *s = HV_NET(chan->dev);
    bool more;

    tx_queue_run(s, chan);
    more = vmbus_channel_usable(chan) && drain(s, chan);
    if (!vmbus_channel_usable(chan)) {
        if (chan->index) {
            vmbus_channel_kick(hv_net_primary(s));  /* frames may wait */
        }
        return false;
    }
    if (!chan->index) {
        replies_send(s);
        send_table(s);
    }
    vmbus_ring_commit(chan);
    vmbus_ring_release(chan);
    rx_resume(s, chan);
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

    tx_queue_clear(queue_of(s, chan));
    if (chan->index) {
        sections_reclaim(s, chan);
        if (s->rx_stalled && s->rx_stalled_on == chan->index) {
            rx_stall(s, hv_net_primary(s));
        }
        vmbus_channel_kick(hv_net_primary(s));
        return;
    }
    hv_net_replies_clear(s);
    buffers_release(s);
    timer_del(s->link_timer);
    memset(&s->session, 0, sizeof(s->session));
}

static void hv_net_link_status_changed(NetClientState *nc)
{
    HvNet *s = qemu_get_nic_opaque(nc);

    if (VMBUS_DEVICE(s)->channels) {
        hv_net_link_update(s);
    }
}

static void link_timer(void *opaque)
{
    hv_net_link_update(opaque);
}

static NetClientInfo hv_net_client = {
    .type = NET_CLIENT_DRIVER_NIC,
    .size = sizeof(NICState),
    .can_receive = hv_net_can_receive,
    .receive_iov = hv_net_wire_receive_iov,
    .link_status_changed = hv_net_link_status_changed,
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
        qdict_put_int(item, "rx_sections_outstanding", q->outstanding);
        qdict_put_int(item, "rx_sections_peak", q->sections_peak);
        pending += q->tx_pending_count;
        q++;
    }
    return pending;
}

static void hv_net_stats(QDict *out, void *opaque)
{
    HvNet *s = opaque;
    uint32_t pending;

    vmbus_device_stats(VMBUS_DEVICE(s), out);
    pending = queue_stats(s, out);
    qdict_put_int(out, "tx_packets", s->tx_packets);
    qdict_put_int(out, "tx_bytes", s->tx_bytes);
    qdict_put_int(out, "tx_errors", s->tx_errors);
    qdict_put_int(out, "tx_csum_offloaded", s->tx_csum);
    qdict_put_int(out, "tx_pending", pending);
    qdict_put_int(out, "rx_packets", s->rx_packets);
    qdict_put_int(out, "rx_bytes", s->rx_bytes);
    qdict_put_int(out, "rx_dropped", s->rx_dropped);
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
    NetClientState *peer = qemu_get_queue(s->nic)->peer;

    s->vnet = peer && qemu_has_vnet_hdr(peer) &&
              qemu_has_vnet_hdr_len(peer, sizeof(struct virtio_net_hdr));
    if (s->vnet) {
        qemu_set_vnet_hdr_len(peer, sizeof(struct virtio_net_hdr));
        qemu_using_vnet_hdr(peer, true);
        qemu_set_offload(peer, s->csum, 0, 0, 0, 0);
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
    QSIMPLEQ_INIT(&s->replies);
    s->queue = g_new0(HvNetQueue, s->queues);
    for (i = 0; i < s->queues; i++) {
        QSIMPLEQ_INIT(&s->queue[i].tx_pending);
        s->queue[i].free_section = HV_NET_NO_SECTION;
    }
    hv_net_wire_realize(s);
    qemu_macaddr_default_if_unset(&s->conf.macaddr);
    instance_from_mac(vdev, &s->conf.macaddr);
    vdev->num_channels = s->queues;
    s->scratch = g_malloc(HV_NET_FRAME_MAX);
    s->link_timer = timer_new_ms(QEMU_CLOCK_REALTIME, link_timer, s);
    s->nic = qemu_new_nic(&hv_net_client, &s->conf, TYPE_HV_NET, dev->id,
                          &dev->mem_reentrancy_guard, s);
    qemu_get_queue(s->nic)->do_not_pad = true;
    qemu_format_nic_info_str(qemu_get_queue(s->nic), s->conf.macaddr.a);
    backend_prepare(s);
    s->stats_name = g_strdup(dev->id ? dev->id
                                     : qemu_get_queue(s->nic)->name);
    hyperv_stats_register(s->stats_name, hv_net_stats, s);
}

static void hv_net_unrealize(VMBusDevice *vdev)
{
    HvNet *s = HV_NET(vdev);

    hyperv_stats_unregister(s->stats_name);
    g_free(s->stats_name);
    hv_net_wire_unrealize(s);
    qemu_purge_queued_packets(qemu_get_queue(s->nic));
    qemu_del_nic(s->nic);
    timer_free(s->link_timer);
    g_free(s->scratch);
    g_free(s->queue);
}

static Property hv_net_props[] = {
    DEFINE_NIC_PROPERTIES(HvNet, conf),
    DEFINE_PROP_UINT32("max-nvsp", HvNet, max_nvsp, NVSP_VERSION_6_1),
    DEFINE_PROP_UINT32("max-mtu", HvNet, max_mtu, HV_NET_MTU_MAX),
    DEFINE_PROP_UINT32("link-speed", HvNet, link_speed, 10000),
    DEFINE_PROP_BOOL("csum", HvNet, csum, true),
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
