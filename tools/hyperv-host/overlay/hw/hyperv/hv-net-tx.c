/*
 * The synthetic NIC's transmit path: RNDIS packets of the guest, in send
 * sections or in the guest's own pages, are checked and handed to the wire or,
 * control messages, to hv-net-rndis.c.  Called by the channel worker.
 *
 * While the backend is busy a channel's packets wait in its queue.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/hyperv/hyperv-host.h"
#include "net/eth.h"
#include "standard-headers/linux/virtio_net.h"
#include "hv-net.h"

/* As much of a frame as is copied when something in it has to change: up to
 * the end of a transport header at the highest offset there can be. */
#define TX_HEADER_COPY      (1023 + 60)

static void complete_rndis(VMBusChannel *chan, uint64_t transaction_id,
                           bool ok)
{
    NvspMessage msg = {
        .type = NVSP_RNDIS_PACKET_COMPLETE,
        .complete.status = ok ? NVSP_STATUS_SUCCESS : NVSP_STATUS_FAILURE,
    };

    hv_net_complete(chan, transaction_id, &msg);
}

/* One RNDIS message of a packet, checked. */
typedef struct TxFrame {
    uint32_t backend;
    uint32_t off;               /* of the frame in the packet's memory */
    uint32_t bytes;
    bool has_csum;
    bool has_vlan;
    bool has_lso;
    uint32_t csum;
    uint32_t vlan;
    uint32_t lso;
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
        if (head.type == RNDIS_PPI_CHECKSUM || head.type == RNDIS_PPI_VLAN ||
            head.type == RNDIS_PPI_LSO) {
            if (head.bytes - head.offset < 4) {
                return tx_bad("rndis-ppi", "no room for the value");
            }
            value = ldl_le_p(ppi + head.offset);
            if (head.type == RNDIS_PPI_CHECKSUM) {
                frame->has_csum = true;
                frame->csum = value;
            } else if (head.type == RNDIS_PPI_LSO) {
                frame->has_lso = true;
                frame->lso = value;
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

/* Is what the checksum information asks for switched on? */
static bool tx_csum_on(const HvNetOffload *offload, uint32_t csum)
{
    uint8_t on = HV_NET_CSUM_TX;

    if (csum & TX_CSUM_TCP) {
        on &= csum & TX_CSUM_IPV4 ? offload->tcp_v4 : offload->tcp_v6;
    } else if (csum & TX_CSUM_UDP) {
        on &= csum & TX_CSUM_IPV4 ? offload->udp_v4 : offload->udp_v6;
    }
    if ((csum & TX_CSUM_IPV4) && (csum & TX_CSUM_IP_HEADER)) {
        on &= offload->ipv4_header;
    }
    return on;
}

/* Put the transport header's place into frame->csum's offset field. */
static bool tx_check_csum(HvNet *s, TxFrame *frame)
{
    uint32_t csum = frame->csum, offset = TX_CSUM_OFFSET(csum);
    uint32_t least = ETH_HLEN + (csum & TX_CSUM_IPV4 ? 20 : 40);
    uint32_t field = csum & TX_CSUM_TCP ? 16 : 6;

    if (!tx_csum_on(&s->session.offload, csum)) {
        return tx_bad("rndis-csum-off", "not switched on");
    }
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

static bool tx_check_lso(HvNet *s, const TxMemory *memory,
                         const TxFrame *frame)
{
    uint32_t lso = frame->lso;
    uint8_t head[TX_HEADER_COPY];
    const char *rule;

    if (!(lso & TX_LSO_VERSION_2)) {
        return tx_bad("rndis-lso-version", "not version 2");
    }
    if (!(lso & TX_LSO_IPV6 ? s->session.offload.lso_v6
                            : s->session.offload.lso_v4)) {
        return tx_bad("rndis-lso-off", "not switched on");
    }
    if (frame->has_csum) {
        return tx_bad("rndis-lso-and-csum", "checksum information, too");
    }
    if (frame->bytes > HV_NET_LSO_MAX) {
        return tx_bad("rndis-lso-size", "above the maximum");
    }
    rule = hv_net_lso_check(head, iov_to_buf(memory->iov, memory->count,
                                             frame->off, head,
                                             MIN(sizeof(head), frame->bytes)),
                            frame->bytes, lso, s->session.mtu);
    return !rule || tx_bad(rule, "large send");
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
    if (frame->bytes < ETH_HLEN ||
        (!frame->has_lso && frame->bytes > s->session.mtu + 4)) {
        return tx_bad("rndis-frame-length", "outside 14 to MTU");
    }
    if (frame->has_lso) {
        return tx_check_lso(s, memory, frame);
    }
    return !frame->has_csum || tx_check_csum(s, frame);
}

/* Put the tag, if there is one, into the copied headers; returns its size. */
static uint32_t tx_tag(const TxFrame *frame, uint8_t *head, uint32_t bytes)
{
    uint16_t tci = (frame->vlan & 7) << 13 | (frame->vlan >> 3 & 1) << 12 |
                   (frame->vlan >> 4 & 0xfff);

    if (!frame->has_vlan) {
        return 0;
    }
    memmove(head + 16, head + 12, bytes - 12);
    stw_be_p(head + 12, ETH_P_VLAN);
    stw_be_p(head + 14, tci);
    return 4;
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
    *head_bytes = copied + tx_tag(frame, head, copied);
    return copied;
}

static void tx_sent(NetClientState *nc, ssize_t ret)
{
    HvNet *s = qemu_get_nic_opaque(nc);
    uint32_t i;

    /* the wire may have held up others than this one */
    for (i = 0; i < s->backends; i++) {
        s->backend[i].tx_blocked = false;
    }
    for (i = 0; i < s->queues; i++) {
        if (vmbus_channel_usable(hv_net_channel(s, i))) {
            vmbus_channel_kick(hv_net_channel(s, i));
        }
    }
}

/* Hand a frame in the backend's form to the wire, which takes it over. */
static void tx_send(HvNet *s, uint32_t backend, const struct iovec *iov,
                    int count)
{
    s->backend[backend].tx_frames++;
    if (!hv_net_wire_send(s, qemu_get_subqueue(s->nic, backend), iov, count,
                          tx_sent)) {
        s->backend[backend].tx_blocked = true;
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

    s->tx_csum += offload;
    tx_send(s, frame->backend, iov, count);
}

/* A large frame for a backend that does not know such: cut it up. */
static void tx_cut(HvNet *s, uint32_t backend, const HvNetGso *at,
                   const struct virtio_net_hdr *vnet, const uint8_t *head,
                   const struct iovec *body, int body_count)
{
    uint8_t frame[HV_NET_MTU_MAX + 4];
    uint32_t i;

    for (i = 0; i < at->pieces; i++) {
        struct virtio_net_hdr piece = *vnet;
        struct iovec iov = { frame, at->payload };
        uint16_t csum;

        memcpy(frame, head, at->payload);
        iov.iov_len += iov_to_buf(body, body_count, i * at->mss,
                                  frame + at->payload, at->mss);
        hv_net_gso_cut(at, &piece, frame, iov.iov_len, i, 1);
        csum = hv_net_csum_finish(hv_net_csum_add(0, frame + at->tcp,
                                                  iov.iov_len - at->tcp));
        stw_he_p(frame + at->tcp + vnet->csum_offset, csum);
        tx_send(s, backend, &iov, 1);
    }
}

/*
 * A large frame that has been checked.  The guest may have changed it since:
 * then it makes no sense any more and is dropped.
 */
static void tx_large_frame(HvNet *s, const TxMemory *memory,
                           const TxFrame *frame)
{
    struct iovec iov[HV_NET_TX_IOV + 2];
    struct virtio_net_hdr vnet;
    uint8_t head[TX_HEADER_COPY + 4];
    uint32_t copied = MIN(frame->bytes, TX_HEADER_COPY), tag;
    HvNetGso at = { 0 };
    int count;

    iov_to_buf(memory->iov, memory->count, frame->off, head, copied);
    hv_net_lso_fill(head, frame->bytes, frame->lso, &vnet);
    tag = tx_tag(frame, head, copied);
    vnet.csum_start += tag;
    vnet.hdr_len += tag;
    at.bytes = frame->bytes + tag;
    if (!hv_net_gso_layout(&at, &vnet, head, copied + tag) ||
        at.tcp != vnet.csum_start || at.payload != vnet.hdr_len ||
        at.payload + at.mss > s->session.mtu + tag) {
        s->tx_errors++;
        return;
    }
    s->tx_large++;
    s->tx_large_segments += at.pieces;
    s->tx_large_peak = MAX(s->tx_large_peak, frame->bytes);
    iov[0] = (struct iovec) { &vnet, sizeof(vnet) };
    iov[1] = (struct iovec) { head, at.payload };
    count = 2 + iov_copy(iov + 2, ARRAY_SIZE(iov) - 2, memory->iov,
                         memory->count, frame->off + at.payload - tag,
                         at.bytes - at.payload);
    if (s->vnet) {
        tx_send(s, frame->backend, iov, count);
    } else {
        tx_cut(s, frame->backend, &at, &vnet, head, iov + 2, count - 2);
    }
}

/* All or nothing: the messages are checked before the first is sent. */
static bool tx_packets(HvNet *s, const TxMemory *memory,
                       const VMBusChannel *chan)
{
    HvNetQueue *q = hv_net_queue_of(s, chan);
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
        frames[i].backend = chan->index % s->backends;
        q->tx_packets++;
        q->tx_bytes += frames[i].bytes;
        s->tx_packets++;
        s->tx_bytes += frames[i].bytes;
        if (frames[i].has_lso) {
            tx_large_frame(s, memory, &frames[i]);
        } else {
            tx_frame(s, memory, &frames[i]);
        }
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
            ok = tx_packets(s, &memory, chan);
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

void hv_net_tx_clear(HvNetQueue *q)
{
    HvNetTxPending *item;

    while ((item = QSIMPLEQ_FIRST(&q->tx_pending))) {
        QSIMPLEQ_REMOVE_HEAD(&q->tx_pending, link);
        g_free(item);
    }
    q->tx_pending_count = 0;
}
void hv_net_tx_packet(HvNet *s, VMBusChannel *chan, const VMBusPacket *pkt)
{
    if (!hv_net_session_complete(s)) {
        vmbus_channel_fail(chan, s->session.nvsp ? "nvsp-order"
                                                 : "nvsp-first-message",
                           "RNDIS packet");
    } else if (pkt->payload_bytes < 16) {
        vmbus_channel_fail(chan, "nvsp-type", "RNDIS packet of %u bytes",
                           pkt->payload_bytes);
    } else if (!pkt->want_completion) {
        hyperv_violation("nvsp-completion-not-requested", "RNDIS packet");
        s->tx_errors++;
    } else if (hv_net_backend_of(s, chan)->tx_blocked ||
               hv_net_queue_of(s, chan)->tx_pending_count) {
        tx_queue(hv_net_queue_of(s, chan), pkt);
    } else {
        tx_handle(s, chan, pkt);
    }
}

void hv_net_tx_run(HvNet *s, VMBusChannel *chan)
{
    HvNetQueue *q = hv_net_queue_of(s, chan);
    HvNetTxPending *item;

    while (!hv_net_backend_of(s, chan)->tx_blocked &&
           (item = QSIMPLEQ_FIRST(&q->tx_pending)) &&
           hv_net_completion_room(chan)) {
        QSIMPLEQ_REMOVE_HEAD(&q->tx_pending, link);
        q->tx_pending_count--;
        tx_handle(s, chan, &item->packet);
        g_free(item);
        if (!vmbus_channel_usable(chan)) {
            return;
        }
    }
}
