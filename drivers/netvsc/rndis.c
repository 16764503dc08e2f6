// SPDX-License-Identifier: BSD-2-Clause
// Validation of RNDIS messages. Called by rx.c for messages that are still in the receive buffer, which
// the host can write at any time (each field is copied once, then judged), and by control.c for
// private copies of replies. No state.
#include "drivers/netvsc/rndis.h"

#include <stdbool.h>
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

// Walks the per-packet information; ends at the first bad one.
static enum rndis_verdict ppi_check(const uint8_t *area, uint32_t length, struct rndis_frame *out)
{
    while (length) {
        struct rndis_ppi ppi;

        if (length < sizeof(ppi))
            return RNDIS_BAD_PPI;
        copy_from_shared(&ppi, area, sizeof(ppi));
        if (ppi.size < sizeof(ppi) || (ppi.size & 3) || ppi.size > length)
            return RNDIS_BAD_PPI;
        if (ppi.offset < sizeof(ppi) || ppi.offset > ppi.size)
            return RNDIS_BAD_PPI;
        if (ppi.type == PPI_CHECKSUM || ppi.type == PPI_VLAN) {
            uint32_t *value = ppi.type == PPI_CHECKSUM ? &out->csum : &out->vlan;

            if (ppi.size - ppi.offset < sizeof(*value))
                return RNDIS_BAD_PPI;
            copy_from_shared(value, area + ppi.offset, sizeof(*value));
        }
        area += ppi.size;
        length -= ppi.size;
    }
    return RNDIS_OK;
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
        p.data_length < ETHERNET_HEADER)
        return RNDIS_BAD_DATA;
    out->offset = RNDIS_HEADER_BYTES + p.data_offset;
    out->length = p.data_length;
    if (p.ppi_offset == 0 && p.ppi_length == 0)
        return RNDIS_OK;
    if (p.ppi_length == 0)
        return p.ppi_offset <= body ? RNDIS_OK : RNDIS_BAD_PPI;
    if (!inside(p.ppi_offset, p.ppi_length, RNDIS_PACKET_BODY, body))
        return RNDIS_BAD_PPI;
    return ppi_check(message + RNDIS_HEADER_BYTES + p.ppi_offset, p.ppi_length, out);
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

int rndis_offload_check(const void *info, uint32_t length, uint32_t *rx_csum)
{
    struct ndis_offload offload = {0};
    struct ndis_object header;
    uint32_t tcp4 = NDIS_CSUM_TCP | NDIS_CSUM_TCP_OPTIONS;
    int tx = 0;

    if (length < sizeof(header))
        return -1;
    memcpy(&header, info, sizeof(header));
    if (header.type != NDIS_OBJECT_OFFLOAD || header.revision < 1 ||
        header.size < NDIS_OFFLOAD_BYTES_REV1 || header.size > length)
        return -1;
    memcpy(&offload, info, header.size < sizeof(offload) ? header.size : sizeof(offload));
    // TCP only with options: every segment of ours may carry timestamps.
    if (has(offload.ip4_tx, tcp4))
        tx |= NIC_TX_IP4 | NIC_TX_TCP;
    if (has(offload.ip4_tx, NDIS_CSUM_UDP))
        tx |= NIC_TX_IP4 | NIC_TX_UDP;
    // IPv6 only if it can do whatever IPv4 can: the two share the TCP and UDP bits.
    if (tx && has(offload.ip6_tx, (offload.ip4_tx & (tcp4 | NDIS_CSUM_UDP)) | NDIS_CSUM_IP_OPTIONS))
        tx |= NIC_TX_IP6;
    if (rx_csum)
        *rx_csum = (offload.ip4_rx & 0xffff) | offload.ip6_rx << 16;
    return tx;
}
