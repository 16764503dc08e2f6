// SPDX-License-Identifier: BSD-2-Clause
// Validation of RNDIS messages. Called by rx.c for messages that are still in the receive buffer, which
// the host can write at any time (each field is copied once, then judged), and by control.c for
// private copies of replies. No state.
#include "drivers/netvsc/rndis.h"

#include <string.h>

#include "drivers/netvsc/netvsc.h"
#include "drivers/vmbus/ring.h"

#define ETHERNET_HEADER 14u

// True if [offset, offset+length) lies in [low, high).
static bool inside(uint32_t offset, uint32_t length, uint32_t low, uint32_t high)
{
    return offset >= low && offset <= high && length <= high - offset;
}

enum rndis_verdict rndis_header_check(const uint8_t *message, uint32_t range,
                                      struct rndis_header *header)
{
    if (range < sizeof(*header))
        return RNDIS_BAD_LENGTH;
    copy_from_shared(header, message, sizeof(*header));
    if (header->length < sizeof(*header) || header->length > range)
        return RNDIS_BAD_LENGTH;
    return RNDIS_OK;
}

// Where the value of a PPI goes, NULL if it is not of use.
static uint32_t *ppi_value(uint32_t type, struct rndis_frame *out, uint32_t *packet_id)
{
    switch (type) {
    case PPI_CHECKSUM:
        return &out->csum;
    case PPI_VLAN:
        return &out->vlan;
    case PPI_HASH:
        return &out->hash;
    case PPI_PACKET_ID:
        return packet_id;
    default:
        return NULL;
    }
}

// Walks the per-packet information; ends at the first bad one.
static enum rndis_verdict ppi_check(const uint8_t *area, uint32_t length, struct rndis_frame *out)
{
    struct rndis_packet_id id;
    uint32_t packet_id = 0;

    while (length) {
        struct rndis_ppi ppi;

        if (length < sizeof(ppi))
            return RNDIS_BAD_PPI;
        copy_from_shared(&ppi, area, sizeof(ppi));
        if (ppi.size < sizeof(ppi) || (ppi.size & 3) || ppi.size > length)
            return RNDIS_BAD_PPI;
        if (ppi.offset < sizeof(ppi) || ppi.offset > ppi.size)
            return RNDIS_BAD_PPI;
        uint32_t *value = ppi_value(ppi.type, out, &packet_id);
        if (value) {
            if (ppi.size - ppi.offset < sizeof(*value))
                return RNDIS_BAD_PPI;
            copy_from_shared(value, area + ppi.offset, sizeof(*value));
        }
        area += ppi.size;
        length -= ppi.size;
    }
    memcpy(&id, &packet_id, sizeof(id));
    if (id.flags & RNDIS_FRAGMENT)
        out->flags = id.flags;
    return RNDIS_OK;
}

static bool is_continuation(const struct rndis_frame *f)
{
    return (f->flags & RNDIS_FRAGMENT) && !(f->flags & RNDIS_FRAGMENT_FIRST);
}

enum rndis_verdict rndis_check(const uint8_t *message, uint32_t length, struct rndis_frame *out)
{
    struct rndis_packet p;

    if (length < sizeof(p))
        return RNDIS_BAD_LENGTH;
    copy_from_shared(&p, message, sizeof(p));
    uint32_t body = length - RNDIS_HEADER_BYTES; // what offsets may reach

    *out = (struct rndis_frame){0};
    if (!inside(p.data_offset, p.data_length, RNDIS_PACKET_BODY, body) ||
        p.data_length > UINT16_MAX)
        return RNDIS_BAD_DATA;
    out->offset = RNDIS_HEADER_BYTES + p.data_offset;
    out->length = p.data_length;
    enum rndis_verdict verdict = RNDIS_OK;
    if (p.ppi_length == 0)
        verdict = p.ppi_offset <= body ? RNDIS_OK : RNDIS_BAD_PPI;
    else if (!inside(p.ppi_offset, p.ppi_length, RNDIS_PACKET_BODY, body))
        verdict = RNDIS_BAD_PPI;
    else
        verdict = ppi_check(message + RNDIS_HEADER_BYTES + p.ppi_offset, p.ppi_length, out);
    if (verdict == RNDIS_OK && p.data_length < (is_continuation(out) ? 1 : ETHERNET_HEADER))
        verdict = RNDIS_BAD_DATA;
    return verdict;
}

const void *rndis_query_info(const void *reply, uint32_t length, uint32_t *info_length)
{
    struct rndis_query_complete q;

    if (length < sizeof(q))
        return NULL;
    memcpy(&q, reply, sizeof(q));
    if (q.info_length == 0 || !inside(q.info_offset, q.info_length, sizeof(q) - RNDIS_HEADER_BYTES,
                                      length - RNDIS_HEADER_BYTES))
        return NULL;
    *info_length = q.info_length;
    return (const uint8_t *)reply + RNDIS_HEADER_BYTES + q.info_offset;
}

static bool has(uint32_t flags, uint32_t wanted)
{
    return (flags & wanted) == wanted;
}

static void check_large_send(const struct ndis_offload *o, struct rndis_offloads *out)
{
    uint32_t ip6_options = NDIS_LSO_IP6_EXTENSIONS | NDIS_LSO_IP6_TCP_OPTIONS;

    out->tx_large_max = UINT16_MAX;
    if ((out->tx_csum & NIC_TX_TCP) && (o->lso_ip4_encapsulation & NDIS_LSO_8023) &&
        o->lso_ip4_min_segments <= NDIS_LSO_MIN_SEGMENTS) {
        out->tx_large |= NIC_TX_IP4;
        out->tx_large_max = o->lso_ip4_max < UINT16_MAX ? o->lso_ip4_max : UINT16_MAX;
    }
    if ((out->tx_csum & NIC_TX_IP6) && (o->lso_ip6_encapsulation & NDIS_LSO_8023) &&
        o->lso_ip6_min_segments <= NDIS_LSO_MIN_SEGMENTS && has(o->lso_ip6_options, ip6_options)) {
        out->tx_large |= NIC_TX_IP6;
        if (o->lso_ip6_max < out->tx_large_max)
            out->tx_large_max = o->lso_ip6_max;
    }
    if (!out->tx_large)
        out->tx_large_max = 0;
}

bool rndis_offload_check(const void *info, uint32_t length, struct rndis_offloads *out)
{
    struct ndis_offload offload = {0};
    struct ndis_object header;
    uint32_t tcp4 = NDIS_CSUM_TCP | NDIS_CSUM_TCP_OPTIONS;

    *out = (struct rndis_offloads){0};
    if (length < sizeof(header))
        return false;
    memcpy(&header, info, sizeof(header));
    if (header.type != NDIS_OBJECT_OFFLOAD || header.revision < 1 ||
        header.size < NDIS_OFFLOAD_BYTES_REV1 || header.size > length)
        return false;
    memcpy(&offload, info, header.size < sizeof(offload) ? header.size : sizeof(offload));
    // TCP only with options: every segment of ours may carry timestamps.
    if (has(offload.ip4_tx, tcp4))
        out->tx_csum |= NIC_TX_IP4 | NIC_TX_TCP;
    if (has(offload.ip4_tx, NDIS_CSUM_UDP))
        out->tx_csum |= NIC_TX_IP4 | NIC_TX_UDP;
    // IPv6 only if it can do whatever IPv4 can: the two share the TCP and UDP bits.
    if (out->tx_csum &&
        has(offload.ip6_tx, (offload.ip4_tx & (tcp4 | NDIS_CSUM_UDP)) | NDIS_CSUM_IP_OPTIONS))
        out->tx_csum |= NIC_TX_IP6;
    out->rx_csum = (offload.ip4_rx & 0xffff) | offload.ip6_rx << 16;
    check_large_send(&offload, out);
    out->rx_coalesce = offload.rsc_ip4 && offload.rsc_ip6;
    return true;
}

unsigned rndis_rss_check(const void *info, uint32_t length, uint32_t *types)
{
    struct ndis_rss_capabilities c = {.table_entries = NIC_TABLE_SIZE};

    *types = 0;
    if (length < NDIS_RSS_CAPABILITIES_BYTES_OLD)
        return 1;
    memcpy(&c, info, length < sizeof(c) ? length : sizeof(c));
    if (c.header.type != NDIS_OBJECT_RSS_CAPABILITIES || c.header.revision < 1 ||
        c.header.size < NDIS_RSS_CAPABILITIES_BYTES_OLD || c.header.size > length)
        return 1;
    if (c.header.size < NDIS_RSS_CAPABILITIES_BYTES) // some hosts leave the last field out
        c.table_entries = NIC_TABLE_SIZE;
    if (!(c.flags & NDIS_RSS_CAP_TOEPLITZ) || c.table_entries < NIC_TABLE_SIZE)
        return 1;
    if (c.flags & NDIS_RSS_CAP_TCP4)
        *types |= RSS_HASH_IP4 | RSS_HASH_TCP4;
    if (c.flags & NDIS_RSS_CAP_TCP6)
        *types |= RSS_HASH_IP6 | RSS_HASH_TCP6;
    if (*types & RSS_HASH_IP4 && c.flags & NDIS_RSS_CAP_UDP4)
        *types |= RSS_HASH_UDP4;
    if (*types & RSS_HASH_IP6 && c.flags & NDIS_RSS_CAP_UDP6)
        *types |= RSS_HASH_UDP6;
    return *types && c.queues > 1 ? c.queues : 1;
}
