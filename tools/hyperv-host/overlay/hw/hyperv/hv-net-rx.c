/*
 * The synthetic NIC's receive path: frames of the backend are put into
 * sections of the guest's receive buffer.  Called by hv-net-wire.c with
 * frames, by the channel worker when the guest has given sections or room in
 * its ring back.
 *
 * A frame is never dropped because the guest is busy: the backend, or the
 * wire, keeps it and is asked again.  Frames that come together are announced
 * together.  A large frame takes several sections of one packet (RSC), or is
 * cut up if the guest does not want such; all of it or nothing, unless all of
 * it would never fit.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "hw/hyperv/hyperv-host.h"
#include "net/eth.h"
#include "hv-net.h"

#define PPI_ROOM            (4 * (sizeof(RndisPpi) + 4))
/* More than Ethernet, IPv6 with extensions and TCP with options need. */
#define GSO_HEADERS_MAX     512

static bool rx_ready(HvNet *s)
{
    return !s->paused && vmbus_channel_usable(hv_net_primary(s)) &&
           s->session.rndis == HV_NET_RNDIS_INITIALIZED &&
           s->session.packet_filter && s->session.recv_gpadl;
}

/*
 * Waiting
 */

/* Frames of this backend wait; the worker of @chan asks for them again. */
static void stall(HvNetBackend *backend, uint32_t channel)
{
    backend->rx_stalled = true;
    backend->rx_stalled_on = channel;
}

void hv_net_rx_stall_all(HvNet *s)
{
    uint32_t i;

    for (i = 0; i < s->backends; i++) {
        stall(&s->backend[i], 0);
    }
}

void hv_net_rx_stall_elsewhere(HvNet *s, const VMBusChannel *chan)
{
    uint32_t i;

    for (i = 0; i < s->backends; i++) {
        if (s->backend[i].rx_stalled &&
            s->backend[i].rx_stalled_on == chan->index) {
            stall(&s->backend[i], 0);
        }
    }
}

void hv_net_rx_resume(HvNet *s, const VMBusChannel *chan)
{
    bool any = false;
    uint32_t i;

    if (!rx_ready(s)) {
        return;
    }
    for (i = 0; i < s->backends; i++) {
        HvNetBackend *backend = &s->backend[i];

        if (backend->rx_stalled &&
            (backend->rx_stalled_on == chan->index ||
             !vmbus_channel_usable(hv_net_channel(
                                       s, backend->rx_stalled_on)))) {
            backend->rx_stalled = false;
            any = true;
        }
    }
    if (!any) {
        return;
    }
    hv_net_wire_resume(s);
    for (i = 0; i < s->backends; i++) {
        /* also those that a stalled wire has held up */
        if (!s->backend[i].rx_stalled) {
            qemu_flush_queued_packets(qemu_get_subqueue(s->nic, i));
        }
    }
}

bool hv_net_can_receive(NetClientState *nc)
{
    HvNet *s = qemu_get_nic_opaque(nc);

    if (rx_ready(s)) {
        return true;
    }
    stall(&s->backend[nc->queue_index], 0);
    return false;
}

/* What there was to read has been read: tell the guest. */
void hv_net_rx_flush(void *opaque)
{
    HvNet *s = opaque;
    uint32_t i;

    s->rx_flush_due = false;
    if (s->paused) {
        return;     /* the workers do it later */
    }
    for (i = 0; i < s->queues; i++) {
        hv_net_batch_flush(s, hv_net_channel(s, i));
    }
}

/*
 * Copying frames takes long, and what it needs belongs to the main loop's
 * thread: without the lock the guest's processors can meanwhile take
 * interrupts, and halt.
 */
void hv_net_receive_burst(NetClientState *nc, bool begins)
{
    HvNet *s = qemu_get_nic_opaque(nc);

    if (begins) {
        qemu_mutex_unlock_iothread();
        /* frames of other queues may be for the same channels */
        s->rx_burst = s->backends == 1;
        return;
    }
    if (s->rx_burst) {
        s->rx_burst = false;
        hv_net_rx_flush(s);
    }
    qemu_mutex_lock_iothread();
}

/*
 * Frames
 */

/* A frame on its way to the guest. */
typedef struct RxFrame {
    uint8_t *data;              /* private if it has to be changed */
    uint32_t bytes;
    bool trusted;               /* TCP/UDP checksum known to be right */
    bool partial;               /* large: only the pseudo header's sum is in */
    bool has_vlan;
    uint16_t vlan;
    bool has_hash;
    uint32_t hash;
    struct virtio_net_hdr vnet;
    /* the rest only if it is large */
    bool large;
    HvNetGso gso;
    uint32_t together;          /* so many pieces in one section */
    uint32_t sections;
} RxFrame;

/* The backend left the checksum to us: the field has the pseudo header's
 * sum. */
static bool complete_csum(uint8_t *frame, uint32_t bytes,
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

/* The guest's filter, as a switch with a strict port would apply it. */
static bool passes_filter(HvNet *s, const uint8_t *address)
{
    uint32_t filter = s->session.packet_filter, i;

    if (!s->filter || (filter & NDIS_FILTER_PROMISCUOUS)) {
        return true;
    }
    if (is_broadcast_ether_addr(address)) {
        return filter & NDIS_FILTER_BROADCAST;
    }
    if (!is_multicast_ether_addr(address)) {
        return (filter & NDIS_FILTER_DIRECTED) &&
               !memcmp(address, s->session.mac.a, ETH_ALEN);
    }
    for (i = 0; (filter & NDIS_FILTER_MULTICAST) &&
                i < s->session.multicast_count; i++) {
        if (!memcmp(address, s->session.multicast[i].a, ETH_ALEN)) {
            return true;
        }
    }
    return filter & NDIS_FILTER_ALL_MULTICAST;
}

/* Take the tag out of the private copy. */
static void untag(RxFrame *frame)
{
    frame->has_vlan = true;
    frame->vlan = lduw_be_p(frame->data + 14);
    memmove(frame->data + 4, frame->data, 12);
    frame->data += 4;
    frame->bytes -= 4;
    frame->vnet.csum_start -= 4;
}

/* The frame in memory of our own. */
static void make_private(HvNet *s, RxFrame *frame)
{
    if (frame->data < s->scratch ||
        frame->data >= s->scratch + HV_NET_FRAME_MAX) {
        memcpy(s->scratch, frame->data, frame->bytes);
        frame->data = s->scratch;
    }
}

/* With a tiny MSS several pieces share a section, which holds up to an MTU. */
static bool prepare_large(HvNet *s, RxFrame *frame)
{
    HvNetGso *at = &frame->gso;

    at->bytes = frame->bytes;
    if (!hv_net_gso_layout(at, &frame->vnet, frame->data, frame->bytes) ||
        at->payload + at->mss > s->session.mtu) {
        return false;
    }
    if (!frame->partial || at->payload > GSO_HEADERS_MAX) {
        return false;   /* not as vnet headers have to be */
    }
    frame->together = 1;
    if (at->pieces > HV_NET_RANGES_MAX) {
        frame->together = (s->session.mtu - at->payload) / at->mss;
    }
    frame->sections = DIV_ROUND_UP(at->pieces, frame->together);
    return true;
}

/*
 * Bring one frame of the backend into the form the guest gets, in scratch or
 * in place.  False if it cannot be delivered at all.
 */
static bool prepare(HvNet *s, const struct iovec *iov, int count,
                    RxFrame *frame)
{
    size_t skip = s->vnet ? sizeof(frame->vnet) : 0;
    size_t total = iov_size(iov, count);
    bool open_csum, tagged;

    if (total < skip + ETH_HLEN || total - skip > HV_NET_FRAME_MAX) {
        return false;
    }
    iov_to_buf(iov, count, 0, &frame->vnet, skip);
    frame->bytes = total - skip;
    frame->large = frame->vnet.gso_type != VIRTIO_NET_HDR_GSO_NONE;
    frame->trusted = frame->vnet.flags & VIRTIO_NET_HDR_F_DATA_VALID;
    open_csum = frame->vnet.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM;

    frame->data = (uint8_t *)iov[0].iov_base + skip;
    tagged = iov[0].iov_len >= skip + ETH_HLEN &&
             lduw_be_p(frame->data + 12) == ETH_P_VLAN;
    /* a large one is only read, unless its checksum has to be completed */
    if (count > 1 || tagged || (open_csum && !frame->large)) {
        iov_to_buf(iov, count, skip, s->scratch, frame->bytes);
        frame->data = s->scratch;
        tagged = lduw_be_p(frame->data + 12) == ETH_P_VLAN;
    }
    if (tagged && frame->bytes >= ETH_HLEN + 4 &&
        (s->session.capabilities & NVSP_CAP_VLAN)) {
        untag(frame);
    }
    if (frame->large) {
        frame->partial = open_csum;
        frame->trusted = true;
        return prepare_large(s, frame);
    }
    if (open_csum) {
        if (!complete_csum(frame->data, frame->bytes, &frame->vnet)) {
            return false;
        }
        frame->trusted = true;
    }
    return frame->bytes <= s->session.mtu;
}

/*
 * The channel for a frame: the table's choice, or the primary as long as that
 * one is not there.
 */
static VMBusChannel *choose_channel(HvNet *s, const RxFrame *frame)
{
    const HvNetRss *rss = &s->session.rss;
    VMBusChannel *chan;

    if (!frame->has_hash) {
        return hv_net_primary(s);
    }
    chan = hv_net_channel(s, rss->table[frame->hash % rss->entries]);
    return vmbus_channel_usable(chan) ? chan : hv_net_primary(s);
}

/* Room for @count more sections on @chan?  If not, its worker asks again. */
static bool room(HvNet *s, HvNetBackend *backend, VMBusChannel *chan,
                 uint32_t count)
{
    if (hv_net_batch_room(s, chan, count)) {
        return true;
    }
    stall(backend, chan->index);
    if (!vmbus_channel_usable(chan)) {
        vmbus_channel_kick(hv_net_primary(s));  /* it has just been failed */
    }
    return false;
}

/*
 * Into the sections
 */

static uint32_t put_ppi(uint8_t *at, uint32_t type, uint32_t value)
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

/* What is known of a frame, in its only or its first section. */
static uint32_t put_frame_ppis(uint8_t *at, const RxFrame *frame,
                               uint32_t csum)
{
    uint32_t bytes = 0;

    if (csum) {
        bytes += put_ppi(at, RNDIS_PPI_CHECKSUM, csum);
    }
    if (frame->has_vlan) {
        /* the tag on the wire: priority, CFI, id; in the PPI upside down */
        bytes += put_ppi(at + bytes, RNDIS_PPI_VLAN,
                         frame->vlan >> 13 | (frame->vlan >> 12 & 1) << 3 |
                         (frame->vlan & 0xfff) << 4);
    }
    if (frame->has_hash) {
        bytes += put_ppi(at + bytes, RNDIS_PPI_HASH, frame->hash);
    }
    return bytes;
}

/*
 * Write an RNDIS message with @data, and @more of it, into the next section
 * of @chan's batch.  @head has room for the header, and @ppi_bytes of
 * information behind that.
 */
static void fill_section(HvNet *s, VMBusChannel *chan, uint8_t *head,
                         uint32_t ppi_bytes, const uint8_t *data,
                         uint32_t bytes, const uint8_t *more,
                         uint32_t more_bytes)
{
    uint32_t base = hv_net_batch_add(s, chan) * s->session.section_bytes;
    RndisPacket *msg = (RndisPacket *)head;

    *msg = (RndisPacket) {
        .header.type = RNDIS_PACKET,
        /* all of the section, as Windows hosts say; the frame is data_bytes */
        .header.bytes = s->session.section_bytes,
        .data_offset = HV_NET_RX_DATA_OFFSET - RNDIS_OFFSET_BASE,
        .data_bytes = bytes + more_bytes,
        .ppi_offset = ppi_bytes ? sizeof(*msg) - RNDIS_OFFSET_BASE : 0,
        .ppi_bytes = ppi_bytes,
    };
    vmbus_gpadl_write(s->session.recv_gpadl, base, head,
                      sizeof(*msg) + ppi_bytes);
    vmbus_gpadl_write(s->session.recv_gpadl, base + HV_NET_RX_DATA_OFFSET,
                      data, bytes);
    vmbus_gpadl_write(s->session.recv_gpadl,
                      base + HV_NET_RX_DATA_OFFSET + bytes, more, more_bytes);
}

static void count_frame(HvNet *s, VMBusChannel *chan, uint32_t bytes)
{
    HvNetQueue *q = hv_net_queue_of(s, chan);

    s->rx_packets++;
    s->rx_bytes += bytes;
    q->rx_packets++;
    q->rx_bytes += bytes;
}

static void put_frame(HvNet *s, VMBusChannel *chan, const RxFrame *frame)
{
    uint8_t head[sizeof(RndisPacket) + PPI_ROOM] QEMU_ALIGNED(4);
    uint32_t csum = hv_net_csum_verify(&s->session.offload, frame->data,
                                       frame->bytes, frame->trusted);

    fill_section(s, chan, head,
                 put_frame_ppis(head + sizeof(RndisPacket), frame, csum),
                 frame->data, frame->bytes, NULL, 0);
    count_frame(s, chan, frame->bytes);
}

/* What goes into one section of a large frame, as a frame of its own. */
static void put_piece(HvNet *s, VMBusChannel *chan, const RxFrame *frame,
                      uint32_t index)
{
    uint8_t head[sizeof(RndisPacket) + PPI_ROOM] QEMU_ALIGNED(4);
    uint8_t headers[GSO_HEADERS_MAX];
    const HvNetGso *at = &frame->gso;
    struct virtio_net_hdr vnet = frame->vnet;
    uint32_t step = frame->together * at->mss;
    uint32_t from = at->payload + index * step;
    uint32_t body = MIN(step, at->bytes - from);
    uint32_t csum;
    uint64_t sum;

    memcpy(headers, frame->data, at->payload);
    hv_net_gso_cut(at, &vnet, headers, at->payload + body,
                   index * frame->together, frame->together);
    sum = hv_net_csum_add(0, headers + at->tcp, at->payload - at->tcp);
    sum = hv_net_csum_add(sum, frame->data + from, body);
    stw_he_p(headers + at->tcp + offsetof(struct tcp_header, th_sum),
             hv_net_csum_finish(sum));
    /* it is right, so nobody looks beyond the headers */
    csum = hv_net_csum_verify(&s->session.offload, headers,
                              at->payload + body, true);
    fill_section(s, chan, head,
                 put_frame_ppis(head + sizeof(RndisPacket), frame, csum),
                 headers, at->payload, frame->data + from, body);
    count_frame(s, chan, at->payload + body);
}

/* A large frame as RSC shows it: the headers and each segment's payload. */
static void put_coalesced(HvNet *s, VMBusChannel *chan, const RxFrame *frame)
{
    const HvNetGso *at = &frame->gso;
    uint8_t head[sizeof(RndisPacket) + PPI_ROOM] QEMU_ALIGNED(4);
    uint32_t i, from = 0, step = frame->together * at->mss, csum;

    csum = hv_net_csum_verify(&s->session.offload, frame->data, frame->bytes,
                              frame->trusted);
    if (frame->partial && (csum & RX_CSUM_TCP_OK)) {
        csum |= RX_CSUM_TCP_VALUE_INVALID;
    }
    for (i = 0; i < frame->sections; i++) {
        uint32_t bytes = MIN(step + (i ? 0 : at->payload),
                             frame->bytes - from);
        uint32_t flags = RNDIS_FRAGMENT, ppi;

        if (i == 0) {
            flags |= RNDIS_FRAGMENT_FIRST;
        }
        if (i == frame->sections - 1) {
            flags |= RNDIS_FRAGMENT_LAST;
        }
        ppi = put_ppi(head + sizeof(RndisPacket), RNDIS_PPI_PACKET_ID,
                      RNDIS_PACKET_ID_VERSION | flags << 8);
        if (i == 0) {
            ppi += put_frame_ppis(head + sizeof(RndisPacket) + ppi, frame,
                                  csum);
        }
        fill_section(s, chan, head, ppi, frame->data + from, bytes, NULL, 0);
        from += bytes;
    }
    count_frame(s, chan, frame->bytes);
    s->rx_coalesced++;
    s->rx_coalesced_segments += frame->sections;
    s->rx_coalesced_peak = MAX(s->rx_coalesced_peak, frame->bytes);
}

/* May the guest be given this large frame as a whole? */
static bool may_coalesce(HvNet *s, const RxFrame *frame)
{
    const HvNetOffload *on = &s->session.offload;

    return (frame->gso.ipv6 ? on->rsc_v6 : on->rsc_v4) &&
           frame->sections > 1 && frame->bytes <= UINT16_MAX;
}

/*
 * A large frame as a guest without RSC gets it.  False: later.  If the
 * channel can never have room for all of it, what there is room for now.
 */
static bool deliver_pieces(HvNet *s, HvNetBackend *backend, VMBusChannel *chan,
                           const RxFrame *frame)
{
    bool suffice = hv_net_sections_suffice(s, chan, frame->sections);
    uint32_t i;

    if (!room(s, backend, chan, suffice ? frame->sections : 1)) {
        return false;
    }
    for (i = 0; i < frame->sections; i++) {
        if (!suffice && !hv_net_batch_room(s, chan, 1)) {
            s->rx_dropped++;
            break;
        }
        put_piece(s, chan, frame, i);
    }
    s->rx_cut++;
    return true;
}

/* False: later. */
static bool deliver(HvNet *s, HvNetBackend *backend, VMBusChannel *chan,
                    RxFrame *frame)
{
    const HvNetOffload *on = &s->session.offload;

    if (!frame->large) {
        if (!room(s, backend, chan, 1)) {
            return false;
        }
        put_frame(s, chan, frame);
        return true;
    }
    if (!may_coalesce(s, frame) ||
        !hv_net_sections_suffice(s, chan, frame->sections)) {
        return deliver_pieces(s, backend, chan, frame);
    }
    if (!room(s, backend, chan, frame->sections)) {
        return false;
    }
    if (!((frame->gso.ipv6 ? on->tcp_v6 : on->tcp_v4) & HV_NET_CSUM_RX)) {
        make_private(s, frame);
        complete_csum(frame->data, frame->bytes, &frame->vnet);
        frame->partial = false;
    }
    put_coalesced(s, chan, frame);
    return true;
}

ssize_t hv_net_receive_iov(NetClientState *nc, const struct iovec *iov,
                           int count)
{
    HvNet *s = qemu_get_nic_opaque(nc);
    VMBusChannel *chan;
    RxFrame frame = { 0 };

    if (!rx_ready(s)) {
        stall(&s->backend[nc->queue_index], 0);
        return 0;
    }
    if (!prepare(s, iov, count, &frame)) {
        s->rx_dropped++;
        return iov_size(iov, count);
    }
    if (!passes_filter(s, frame.data)) {
        s->rx_filtered++;
        return iov_size(iov, count);
    }
    frame.has_hash = hv_net_rss_hash(&s->session.rss, frame.data, frame.bytes,
                                     &frame.hash);
    chan = choose_channel(s, &frame);
    if (!deliver(s, &s->backend[nc->queue_index], chan, &frame)) {
        return 0;
    }
    s->backend[nc->queue_index].rx_frames++;
    if (hv_net_queue_of(s, chan)->batch_count >= s->batch_ranges) {
        hv_net_batch_flush(s, chan);
    } else if (!s->rx_burst && !s->rx_flush_due) {
        s->rx_flush_due = true;     /* scheduling it costs a system call */
        qemu_bh_schedule(s->rx_flush);
    }
    return iov_size(iov, count);
}
