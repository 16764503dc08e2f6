/*
 * The synthetic NIC's control plane: RNDIS messages, OIDs and status
 * indications.  Called by hv-net.c with messages already copied
 * out of guest memory; answers are queued and leave from the channel worker.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/hyperv/hyperv-host.h"
#include "net/eth.h"
#include "hv-net.h"

/* Linux loses link changes that follow each other faster. */
#define LINK_CHANGE_MIN_MS 5000

#define FRIENDLY_NAME "Hyper-V Network Adapter"

/*
 * Replies
 */

static void *reply_new(uint32_t bytes, uint32_t type, HvNetReply **out)
{
    HvNetReply *reply = g_malloc0(sizeof(*reply) + bytes);
    RndisHeader *header = (RndisHeader *)reply->data;

    reply->bytes = bytes;
    header->type = type;
    header->bytes = bytes;
    *out = reply;
    return reply->data;
}

static void reply_send(HvNet *s, HvNetReply *reply)
{
    QSIMPLEQ_INSERT_TAIL(&s->replies, reply, link);
    s->replies_bytes += reply->bytes;
    vmbus_channel_kick(hv_net_primary(s));
}

void hv_net_replies_clear(HvNet *s)
{
    HvNetReply *reply;

    while ((reply = QSIMPLEQ_FIRST(&s->replies))) {
        QSIMPLEQ_REMOVE_HEAD(&s->replies, link);
        g_free(reply);
    }
    s->replies_bytes = 0;
}

static void send_complete(HvNet *s, uint32_t type, uint32_t id,
                          uint32_t status)
{
    HvNetReply *reply;
    RndisComplete *msg = reply_new(sizeof(*msg), type | RNDIS_COMPLETE,
                                   &reply);

    msg->id = id;
    msg->status = status;
    reply_send(s, reply);
}

static void send_query_complete(HvNet *s, uint32_t id, uint32_t status,
                                const void *info, uint32_t bytes)
{
    HvNetReply *reply;
    RndisQueryComplete *msg = reply_new(sizeof(*msg) + bytes,
                                        RNDIS_QUERY | RNDIS_COMPLETE, &reply);

    msg->id = id;
    msg->status = status;
    msg->info_bytes = bytes;
    if (bytes) {
        msg->info_offset = sizeof(*msg) - RNDIS_OFFSET_BASE;
        memcpy(msg + 1, info, bytes);
    }
    reply_send(s, reply);
}

void hv_net_indicate(HvNet *s, uint32_t status, const void *info,
                            uint32_t bytes)
{
    HvNetReply *reply;
    RndisIndicate *msg = reply_new(sizeof(*msg) + bytes, RNDIS_INDICATE,
                                   &reply);

    msg->status = status;
    msg->info_bytes = bytes;
    if (bytes) {
        msg->info_offset = sizeof(*msg) - RNDIS_OFFSET_BASE;
        memcpy(msg + 1, info, bytes);
    }
    reply_send(s, reply);
}

/*
 * Link state
 */

void hv_net_link_update(HvNet *s)
{
    bool down = hv_net_link_down(s);
    int64_t now = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);

    if (s->session.rndis != HV_NET_RNDIS_INITIALIZED ||
        down == s->session.told_link_down) {
        timer_del(s->link_timer);
        return;
    }
    if (s->session.told_link_ms &&
        now < s->session.told_link_ms + LINK_CHANGE_MIN_MS) {
        timer_mod(s->link_timer,
                  s->session.told_link_ms + LINK_CHANGE_MIN_MS);
        return;
    }
    s->session.told_link_down = down;
    s->session.told_link_ms = now;
    hv_net_indicate(s, down ? RNDIS_INDICATE_DISCONNECT
                            : RNDIS_INDICATE_CONNECT, NULL, 0);
}

/*
 * Queries
 */

static const uint32_t supported_oids[] = {
    OID_GEN_SUPPORTED_LIST, OID_GEN_HARDWARE_STATUS, OID_GEN_MEDIA_SUPPORTED,
    OID_GEN_MEDIA_IN_USE, OID_GEN_MAXIMUM_LOOKAHEAD,
    OID_GEN_MAXIMUM_FRAME_SIZE, OID_GEN_LINK_SPEED,
    OID_GEN_TRANSMIT_BUFFER_SPACE, OID_GEN_RECEIVE_BUFFER_SPACE,
    OID_GEN_TRANSMIT_BLOCK_SIZE, OID_GEN_RECEIVE_BLOCK_SIZE,
    OID_GEN_VENDOR_ID, OID_GEN_VENDOR_DESCRIPTION,
    OID_GEN_CURRENT_PACKET_FILTER, OID_GEN_CURRENT_LOOKAHEAD,
    OID_GEN_DRIVER_VERSION, OID_GEN_MAXIMUM_TOTAL_SIZE, OID_GEN_MAC_OPTIONS,
    OID_GEN_MEDIA_CONNECT_STATUS, OID_GEN_MAXIMUM_SEND_PACKETS,
    OID_GEN_VENDOR_DRIVER_VERSION, OID_GEN_FRIENDLY_NAME,
    OID_GEN_MAX_LINK_SPEED, OID_GEN_LINK_STATE, OID_GEN_RNDIS_CONFIG_PARAMETER,
    OID_802_3_PERMANENT_ADDRESS, OID_802_3_CURRENT_ADDRESS,
    OID_802_3_MAXIMUM_LIST_SIZE, OID_802_3_RCV_ERROR_ALIGNMENT,
    OID_802_3_XMIT_ONE_COLLISION, OID_802_3_XMIT_MORE_COLLISIONS,
    OID_OFFLOAD_ENCAPSULATION, OID_TCP_OFFLOAD_CURRENT_CONFIG,
    OID_TCP_OFFLOAD_PARAMETERS, OID_TCP_OFFLOAD_HARDWARE_CAPABILITIES,
    /* only from NDIS 6.30 on: */
    OID_GEN_RECEIVE_SCALE_CAPABILITIES, OID_GEN_RECEIVE_SCALE_PARAMETERS,
};

static bool rss_known(HvNet *s)
{
    return s->session.nvsp >= NVSP_VERSION_5 && s->session.ndis_minor >= 30;
}

/* OIDs whose answer is a number; false if @oid is none of them. */
static bool query_number(HvNet *s, uint32_t oid, uint32_t *value)
{
    switch (oid) {
    case OID_GEN_HARDWARE_STATUS:           /* ready */
    case OID_GEN_MEDIA_SUPPORTED:           /* 802.3 */
    case OID_GEN_MEDIA_IN_USE:
    case OID_802_3_MULTICAST_LIST:
    case OID_802_3_RCV_ERROR_ALIGNMENT:
    case OID_802_3_XMIT_ONE_COLLISION:
    case OID_802_3_XMIT_MORE_COLLISIONS:
        *value = 0;
        return true;
    case OID_GEN_MAXIMUM_FRAME_SIZE:
    case OID_GEN_MAXIMUM_LOOKAHEAD:
    case OID_GEN_CURRENT_LOOKAHEAD:
        *value = s->session.mtu - 14;
        return true;
    case OID_GEN_MAXIMUM_TOTAL_SIZE:
    case OID_GEN_TRANSMIT_BLOCK_SIZE:
    case OID_GEN_RECEIVE_BLOCK_SIZE:
        *value = s->session.mtu;
        return true;
    case OID_GEN_LINK_SPEED:                /* in 100 bit/s */
        *value = hv_net_link_speed_rndis(s);
        return true;
    case OID_GEN_TRANSMIT_BUFFER_SPACE:
    case OID_GEN_RECEIVE_BUFFER_SPACE:
        *value = 256 * KiB;
        return true;
    case OID_GEN_VENDOR_ID:
        *value = 0x155d;
        return true;
    case OID_GEN_VENDOR_DRIVER_VERSION:
        *value = 0x0100;
        return true;
    case OID_GEN_CURRENT_PACKET_FILTER:
        *value = s->session.packet_filter;
        return true;
    case OID_GEN_MAC_OPTIONS:
        *value = 0;
        return true;
    case OID_GEN_MEDIA_CONNECT_STATUS:
        *value = hv_net_link_down(s);
        return true;
    case OID_GEN_MAXIMUM_SEND_PACKETS:
        *value = HV_NET_MAX_MESSAGES;
        return true;
    case OID_802_3_MAXIMUM_LIST_SIZE:
        *value = HV_NET_MULTICAST_MAX;
        return true;
    default:
        return false;
    }
}

static uint32_t fill_friendly_name(uint8_t *out)
{
    static const char name[] = FRIENDLY_NAME;
    unsigned i;

    memset(out, 0, 512);
    for (i = 0; i < sizeof(name); i++) {
        stw_le_p(out + 2 * i, name[i]);
    }
    return 512;
}

static uint32_t fill_link_state(HvNet *s, void *out)
{
    uint64_t bits = (uint64_t)s->link_speed * 1000000;
    NdisLinkState state = {
        .header = { NDIS_TYPE_DEFAULT, 1, sizeof(state) },
        .connect_state = hv_net_link_down(s) ? 2 : 1,
        .duplex = 2,
        .tx_bits_per_second = bits,
        .rx_bits_per_second = bits,
    };

    memcpy(out, &state, sizeof(state));
    return sizeof(state);
}

static uint32_t fill_supported(HvNet *s, uint8_t *out)
{
    unsigned count = ARRAY_SIZE(supported_oids) - 2 * !rss_known(s);

    memcpy(out, supported_oids, count * sizeof(supported_oids[0]));
    return count * sizeof(supported_oids[0]);
}

/* Returns a status; on success @out (of at least 512 bytes) is filled. */
static uint32_t query(HvNet *s, uint32_t oid, const uint8_t *info,
                      uint32_t info_bytes, uint8_t *out, uint32_t *bytes)
{
    uint32_t number;

    if (query_number(s, oid, &number)) {
        stl_le_p(out, number);
        *bytes = 4;
        return RNDIS_STATUS_SUCCESS;
    }
    switch (oid) {
    case OID_GEN_SUPPORTED_LIST:
        *bytes = fill_supported(s, out);
        break;
    case OID_GEN_VENDOR_DESCRIPTION:
        *bytes = sizeof(FRIENDLY_NAME);
        memcpy(out, FRIENDLY_NAME, *bytes);
        break;
    case OID_GEN_DRIVER_VERSION:
        stw_le_p(out, 0x0600 | (s->session.ndis_minor & 0xff));
        *bytes = 2;
        break;
    case OID_GEN_FRIENDLY_NAME:
        *bytes = fill_friendly_name(out);
        break;
    case OID_802_3_PERMANENT_ADDRESS:
        memcpy(out, s->conf.macaddr.a, ETH_ALEN);
        *bytes = ETH_ALEN;
        break;
    case OID_802_3_CURRENT_ADDRESS:
        memcpy(out, s->session.mac.a, ETH_ALEN);
        *bytes = ETH_ALEN;
        break;
    case OID_GEN_LINK_STATE:
        *bytes = fill_link_state(s, out);
        break;
    case OID_GEN_MAX_LINK_SPEED:
        stq_le_p(out, (uint64_t)s->link_speed * 1000000);
        stq_le_p(out + 8, (uint64_t)s->link_speed * 1000000);
        *bytes = 16;
        break;
    case OID_TCP_OFFLOAD_HARDWARE_CAPABILITIES:
        *bytes = hv_net_offload_capabilities(s, info, info_bytes, out);
        break;
    case OID_TCP_OFFLOAD_CURRENT_CONFIG:
        *bytes = hv_net_offload_current(s, out);
        break;
    case OID_OFFLOAD_ENCAPSULATION:
        stl_le_p(out, NDIS_ENCAPSULATION_802_3);
        *bytes = 4;
        break;
    case OID_GEN_RECEIVE_SCALE_CAPABILITIES:
        if (!rss_known(s)) {
            return RNDIS_STATUS_NOT_SUPPORTED;
        }
        *bytes = hv_net_rss_capabilities(s, out);
        break;
    default:
        return RNDIS_STATUS_NOT_SUPPORTED;
    }
    return RNDIS_STATUS_SUCCESS;
}

/*
 * Settings
 */

/* "NetworkAddress" with a value of 12 hexadecimal digits. */
static uint32_t set_config_parameter(HvNet *s, const uint8_t *info,
                                     uint32_t bytes)
{
    static const char wanted[] = "NetworkAddress";
    NdisConfigParameter p;
    uint8_t mac[ETH_ALEN] = { 0 };
    unsigned i;

    if (bytes < sizeof(p)) {
        return RNDIS_STATUS_INVALID_DATA;
    }
    memcpy(&p, info, sizeof(p));
    if (p.name_offset > bytes || p.name_bytes > bytes - p.name_offset ||
        p.value_offset > bytes || p.value_bytes > bytes - p.value_offset ||
        p.name_bytes > 255 || p.value_bytes > 255) {
        return RNDIS_STATUS_INVALID_DATA;
    }
    if (p.name_bytes / 2 < sizeof(wanted) - 1) {
        return RNDIS_STATUS_INVALID_DATA;
    }
    for (i = 0; i < sizeof(wanted) - 1; i++) {
        if (lduw_le_p(info + p.name_offset + 2 * i) != wanted[i]) {
            return RNDIS_STATUS_INVALID_DATA;
        }
    }
    if (p.value_type != 2 || p.value_bytes < 4 * ETH_ALEN) {
        return RNDIS_STATUS_INVALID_DATA;
    }
    for (i = 0; i < 2 * ETH_ALEN; i++) {
        uint16_t c = lduw_le_p(info + p.value_offset + 2 * i);

        if (c > 0x7f || !g_ascii_isxdigit(c)) {
            return RNDIS_STATUS_INVALID_DATA;
        }
        mac[i / 2] = mac[i / 2] << 4 | g_ascii_xdigit_value(c);
    }
    memcpy(s->session.mac.a, mac, sizeof(mac));
    qemu_format_nic_info_str(qemu_get_queue(s->nic), mac);
    return RNDIS_STATUS_SUCCESS;
}

static uint32_t set_multicast(HvNet *s, const uint8_t *info, uint32_t bytes)
{
    if (bytes % ETH_ALEN || bytes > sizeof(s->session.multicast)) {
        return RNDIS_STATUS_INVALID_DATA;
    }
    memcpy(s->session.multicast, info, bytes);
    s->session.multicast_count = bytes / ETH_ALEN;
    return RNDIS_STATUS_SUCCESS;
}

static uint32_t set(HvNet *s, uint32_t oid, const uint8_t *info,
                    uint32_t bytes)
{
    switch (oid) {
    case OID_GEN_CURRENT_PACKET_FILTER:
        if (bytes < 4) {
            return RNDIS_STATUS_INVALID_DATA;
        }
        s->session.packet_filter = ldl_le_p(info);
        hv_net_rx_stall_all(s);     /* frames may have been held back */
        return RNDIS_STATUS_SUCCESS;
    case OID_TCP_OFFLOAD_PARAMETERS:
        return hv_net_offload_set(s, info, bytes);
    case OID_GEN_RECEIVE_SCALE_PARAMETERS:
        return rss_known(s) ? hv_net_rss_set(s, info, bytes)
                            : RNDIS_STATUS_NOT_SUPPORTED;
    case OID_GEN_RNDIS_CONFIG_PARAMETER:
        return set_config_parameter(s, info, bytes);
    case OID_802_3_MULTICAST_LIST:
        return set_multicast(s, info, bytes);
    case OID_OFFLOAD_ENCAPSULATION:
    case OID_GEN_CURRENT_LOOKAHEAD:
    case OID_GEN_PROTOCOL_OPTIONS:
        return RNDIS_STATUS_SUCCESS;
    default:
        return RNDIS_STATUS_NOT_SUPPORTED;
    }
}

/*
 * Messages
 */

static void handle_initialize(HvNet *s, const uint8_t *data)
{
    HvNetReply *reply;
    RndisInitializeComplete *msg;
    RndisInitialize request;

    if (s->session.rndis != HV_NET_RNDIS_NONE) {
        vmbus_channel_fail(hv_net_primary(s), "rndis-initialize-twice",
                           "state %d", s->session.rndis);
        return;
    }
    memcpy(&request, data, sizeof(request));
    msg = reply_new(sizeof(*msg), RNDIS_INITIALIZE | RNDIS_COMPLETE, &reply);
    msg->id = request.id;
    msg->major = 1;
    msg->device_flags = 1;      /* connectionless */
    msg->max_packets = HV_NET_MAX_MESSAGES;
    msg->max_transfer = 0xefffffff;
    msg->alignment_shift = 3;
    if (request.major != 1) {
        msg->status = RNDIS_STATUS_BAD_VERSION;
    } else {
        s->session.rndis = HV_NET_RNDIS_INITIALIZED;
        s->session.told_link_down = hv_net_link_down(s);
    }
    reply_send(s, reply);
}

static bool handle_query(HvNet *s, const uint8_t *data, uint32_t bytes)
{
    RndisRequest request;
    uint8_t out[512];
    uint32_t out_bytes = 0, status, offset;

    memcpy(&request, data, sizeof(request));
    offset = request.info_offset;
    if (request.info_bytes &&
        (offset > bytes - RNDIS_OFFSET_BASE ||
         request.info_bytes > bytes - RNDIS_OFFSET_BASE - offset)) {
        return false;
    }
    status = query(s, request.oid, data + RNDIS_OFFSET_BASE + offset,
                   request.info_bytes, out, &out_bytes);
    send_query_complete(s, request.id, status, out, out_bytes);
    return true;
}

static bool handle_set(HvNet *s, const uint8_t *data, uint32_t bytes)
{
    RndisRequest request;

    memcpy(&request, data, sizeof(request));
    /* the offset is not looked at: the data follows the header */
    if (request.info_bytes > bytes - sizeof(request)) {
        return false;
    }
    if (request.info_bytes &&
        request.info_offset != sizeof(request) - RNDIS_OFFSET_BASE) {
        hyperv_violation("rndis-set-offset", "oid 0x%x, offset %u",
                         request.oid, request.info_offset);
    }
    send_complete(s, RNDIS_SET, request.id,
                  set(s, request.oid, data + sizeof(request),
                      request.info_bytes));
    return true;
}

bool hv_net_control(HvNet *s, const uint8_t *msg, uint32_t bytes)
{
    static const uint8_t min_bytes[] = {
        [RNDIS_INITIALIZE] = sizeof(RndisInitialize),
        [RNDIS_HALT] = 12,
        [RNDIS_QUERY] = sizeof(RndisRequest),
        [RNDIS_SET] = sizeof(RndisRequest),
        [RNDIS_KEEPALIVE] = 12,
    };
    RndisHeader header;

    if (bytes < sizeof(header)) {
        return false;
    }
    memcpy(&header, msg, sizeof(header));
    if (header.type >= ARRAY_SIZE(min_bytes) || !min_bytes[header.type]) {
        vmbus_channel_fail(hv_net_primary(s), "rndis-type", "0x%x",
                           header.type);
        return true;
    }
    if (header.bytes > bytes || header.bytes < min_bytes[header.type]) {
        return false;
    }
    bytes = header.bytes;
    if (header.type != RNDIS_INITIALIZE &&
        s->session.rndis != HV_NET_RNDIS_INITIALIZED) {
        return false;
    }
    switch (header.type) {
    case RNDIS_INITIALIZE:
        handle_initialize(s, msg);
        return true;
    case RNDIS_HALT:
        s->session.rndis = HV_NET_RNDIS_HALTED;
        return true;
    case RNDIS_QUERY:
        return handle_query(s, msg, bytes);
    case RNDIS_SET:
        return handle_set(s, msg, bytes);
    default:
        send_complete(s, RNDIS_KEEPALIVE, ldl_le_p(msg + 8),
                      RNDIS_STATUS_SUCCESS);
        return true;
    }
}
