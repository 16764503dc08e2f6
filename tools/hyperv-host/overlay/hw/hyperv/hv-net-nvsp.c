/*
 * NVSP, the protocol by which guest and host agree on buffers, versions and
 * subchannels before the synthetic NIC carries anything.  Called by the
 * channel worker with packets that have been copied out of the ring.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/hyperv/hyperv-host.h"
#include "net/eth.h"
#include "hv-net.h"

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
    hv_net_sections_create(s);

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
        hv_net_tx_clear(&s->queue[i]);
    }
    hv_net_replies_clear(s);
    hv_net_buffers_release(s);
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
    for (i = 0; i < HV_NET_SEND_TABLE; i++) {
        s->session.send_table[i] = i % (1 + msg->subchannel.count);
    }
    hv_net_sections_share_out(s);
    for (i = 1; i <= msg->subchannel.count; i++) {
        vmbus_channel_offer(hv_net_channel(s, i));
    }
    reply->subchannel.operation = NVSP_STATUS_SUCCESS;
    reply->subchannel.count = msg->subchannel.count;
}

/*
 * Which channel to send on, by hash: told once all subchannels are open, and
 * whenever an administrator has changed it.
 * Hosts that speak NVSP 6 at most may put the table behind a message of the
 * newer length, and give the offset of one of the older.
 */
void hv_net_send_table(HvNet *s)
{
    bool old = s->old_send_table && s->session.nvsp <= NVSP_VERSION_6;
    uint32_t offset = old ? sizeof(NvspMessage) : 12, i;
    uint8_t msg[sizeof(NvspMessage) + 4 * HV_NET_SEND_TABLE] = { 0 };
    VMBusChannel *chan = hv_net_primary(s);
    VMBusPacketDesc desc = { .type = VMBUS_PACKET_INBAND };
    uint32_t room = vmbus_packet_room(sizeof(desc), sizeof(msg)) +
                    HV_NET_RING_RESERVE;

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
        stl_le_p(msg + offset + 4 * i, s->session.send_table[i]);
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
bool hv_net_session_complete(HvNet *s)
{
    return s->session.nvsp && s->session.ndis_version_set &&
           (s->session.ndis_config_set ||
            s->session.nvsp < NVSP_VERSION_2) && s->session.recv_gpadl;
}

void hv_net_nvsp_handle(HvNet *s, VMBusChannel *chan, const VMBusPacket *pkt)
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
        if (!hv_net_session_complete(s)) {
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
        hv_net_complete(chan, pkt->transaction_id, &reply);
    } else if (reply.type) {
        hyperv_violation("nvsp-completion-not-requested", "type %u", msg.type);
    }
}
