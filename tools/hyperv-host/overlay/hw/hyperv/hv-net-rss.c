/*
 * Receive side scaling of the synthetic NIC: what the guest sets, and the
 * hash that tells which channel a received frame belongs to.  Called by
 * hv-net-rndis.c with a control message that has been copied out of guest
 * memory, and by hv-net.c for each frame.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/hyperv/hyperv-host.h"
#include "net/eth.h"
#include "hv-net.h"

QEMU_BUILD_BUG_ON(HV_NET_RSS_KEY_BYTES != TOEPLITZ_KEY_BYTES);

uint32_t hv_net_rss_capabilities(HvNet *s, void *out)
{
    NdisRssCapabilities caps = {
        .header = { NDIS_TYPE_RSS_CAPABILITIES, 2,
                    NDIS_RSS_CAPABILITIES_BYTES },
        .flags = NDIS_RSS_CAP_TOEPLITZ | NDIS_RSS_CAP_TCP_IPV4 |
                 NDIS_RSS_CAP_TCP_IPV6,
        .interrupt_messages = s->queues,
        .receive_queues = s->queues,
        .table_entries = HV_NET_RSS_TABLE,
    };

    if (s->rss_udp) {
        caps.flags |= NDIS_RSS_CAP_UDP_IPV4 | NDIS_RSS_CAP_UDP_IPV6;
    }
    memcpy(out, &caps, NDIS_RSS_CAPABILITIES_BYTES);
    return NDIS_RSS_CAPABILITIES_BYTES;
}

static uint32_t refused(const char *what, uint32_t value)
{
    hyperv_violation("rndis-rss-parameters", "%s %u", what, value);
    return RNDIS_STATUS_INVALID_DATA;
}

static bool inside(uint32_t offset, uint32_t length, uint32_t bytes)
{
    return offset <= bytes && length <= bytes - offset;
}

static uint32_t set_hash(HvNet *s, HvNetRss *rss, uint32_t hash)
{
    uint32_t offered = NDIS_HASH_IPV4 | NDIS_HASH_TCP_IPV4 | NDIS_HASH_IPV6 |
                       NDIS_HASH_TCP_IPV6;

    if (s->rss_udp) {
        offered |= NDIS_HASH_UDP_IPV4 | NDIS_HASH_UDP_IPV6;
    }
    if ((hash & NDIS_HASH_FUNCTION) != NDIS_HASH_TOEPLITZ) {
        return refused("hash function", hash & NDIS_HASH_FUNCTION);
    }
    if (hash & ~NDIS_HASH_FUNCTION & ~offered) {
        return refused("hash types not offered:",
                       hash & ~NDIS_HASH_FUNCTION & ~offered);
    }
    rss->hash = hash;
    return RNDIS_STATUS_SUCCESS;
}

static uint32_t set_table(HvNet *s, HvNetRss *rss, const uint8_t *table,
                          uint32_t entries)
{
    uint32_t i;

    for (i = 0; i < entries; i++) {
        uint32_t queue = ldl_le_p(table + 4 * i);

        if (queue >= s->queues) {
            return refused("table entry", queue);
        }
        rss->table[i] = queue;
    }
    rss->entries = entries;
    return RNDIS_STATUS_SUCCESS;
}

/* All or nothing: the old settings stay if anything is wrong. */
uint32_t hv_net_rss_set(HvNet *s, const uint8_t *info, uint32_t bytes)
{
    HvNetRss rss = s->session.rss;
    NdisRssParameters p = { 0 };
    uint32_t status;

    memcpy(&p, info, MIN(bytes, sizeof(p)));
    if (bytes < NDIS_RSS_PARAMETERS_MIN ||
        p.header.type != NDIS_TYPE_RSS_PARAMETERS || p.header.revision < 1 ||
        p.header.bytes < NDIS_RSS_PARAMETERS_MIN || p.header.bytes > bytes) {
        return refused("header, bytes", bytes);
    }
    if ((p.flags & NDIS_RSS_DISABLE) ||
        (!p.hash && !(p.flags & NDIS_RSS_HASH_UNCHANGED))) {
        s->session.rss.enabled = false;
        return RNDIS_STATUS_SUCCESS;
    }
    if (!(p.flags & NDIS_RSS_HASH_UNCHANGED)) {
        status = set_hash(s, &rss, p.hash);
        if (status) {
            return status;
        }
    }
    if (!(p.flags & NDIS_RSS_TABLE_UNCHANGED)) {
        if (!p.table_bytes || p.table_bytes % 4 ||
            p.table_bytes > 4 * HV_NET_RSS_TABLE ||
            !inside(p.table_offset, p.table_bytes, bytes)) {
            return refused("table bytes", p.table_bytes);
        }
        status = set_table(s, &rss, info + p.table_offset, p.table_bytes / 4);
        if (status) {
            return status;
        }
    }
    if (!(p.flags & NDIS_RSS_KEY_UNCHANGED)) {
        if (p.key_bytes != HV_NET_RSS_KEY_BYTES ||
            !inside(p.key_offset, p.key_bytes, bytes)) {
            return refused("key bytes", p.key_bytes);
        }
        memcpy(rss.key, info + p.key_offset, sizeof(rss.key));
        rss.key_set = true;
    }
    if (!rss.hash || !rss.entries || !rss.key_set) {
        return refused("unchanged, but never set: flags", p.flags);
    }
    rss.enabled = true;
    s->session.rss = rss;
    return RNDIS_STATUS_SUCCESS;
}

/* Addresses and, if @ports says so, ports, in the order they are hashed. */
static bool hash_input(const HvNetRss *rss, const uint8_t *addresses,
                       uint32_t address_bytes, const uint8_t *ports,
                       bool with_ports, bool without, uint32_t *hash)
{
    uint8_t input[36];
    uint32_t bytes = address_bytes;

    if (!with_ports && !without) {
        return false;
    }
    memcpy(input, addresses, address_bytes);
    if (with_ports) {
        memcpy(input + bytes, ports, 4);
        bytes += 4;
    }
    *hash = toeplitz_hash(rss->key, input, bytes);
    return true;
}

static bool hash_ipv4(const HvNetRss *rss, const uint8_t *ip, uint32_t bytes,
                      uint32_t *hash)
{
    uint32_t header;
    bool ports;

    if (bytes < sizeof(struct ip_header)) {
        return false;
    }
    header = (ip[0] & 0xf) * 4;
    if (ip[0] >> 4 != 4 || header < sizeof(struct ip_header)) {
        return false;
    }
    /* no ports in fragments, not even in the first: all go the same way */
    ports = !(lduw_be_p(ip + 6) & 0x3fff) && bytes >= header + 4 &&
            ((ip[9] == IP_PROTO_TCP && (rss->hash & NDIS_HASH_TCP_IPV4)) ||
             (ip[9] == IP_PROTO_UDP && (rss->hash & NDIS_HASH_UDP_IPV4)));
    return hash_input(rss, ip + 12, 8, ip + header, ports,
                      rss->hash & NDIS_HASH_IPV4, hash);
}

static bool hash_ipv6(const HvNetRss *rss, const uint8_t *ip, uint32_t bytes,
                      uint32_t *hash)
{
    const uint32_t header = sizeof(struct ip6_header);
    bool ports;

    if (bytes < header || ip[0] >> 4 != 6) {
        return false;
    }
    ports = bytes >= header + 4 &&
            ((ip[6] == IP_PROTO_TCP && (rss->hash & NDIS_HASH_TCP_IPV6)) ||
             (ip[6] == IP_PROTO_UDP && (rss->hash & NDIS_HASH_UDP_IPV6)));
    return hash_input(rss, ip + 8, 32, ip + header, ports,
                      rss->hash & NDIS_HASH_IPV6, hash);
}

bool hv_net_rss_hash(const HvNetRss *rss, const uint8_t *frame, uint32_t bytes,
                     uint32_t *hash)
{
    if (!rss->enabled || bytes < ETH_HLEN) {
        return false;
    }
    switch (lduw_be_p(frame + 12)) {
    case ETH_P_IP:
        return hash_ipv4(rss, frame + ETH_HLEN, bytes - ETH_HLEN, hash);
    case ETH_P_IPV6:
        return hash_ipv6(rss, frame + ETH_HLEN, bytes - ETH_HLEN, hash);
    default:
        return false;
    }
}
