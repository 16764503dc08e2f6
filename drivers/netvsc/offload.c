// SPDX-License-Identifier: BSD-2-Clause
// Which offloads are used: what the host can do, less what the configuration forbids. Called by
// netvsc.c while a NIC comes up, in the device's fiber, before it has frames.
#include <errno.h>

#include "drivers/netvsc/nic.h"
#include "kernel/config.h"
#include "kernel/log.h"

static uint8_t csum_setting(bool tx, bool rx)
{
    if (tx)
        return rx ? NDIS_CSUM_BOTH_ON : NDIS_CSUM_TX_ON;
    return rx ? NDIS_CSUM_RX_ON : NDIS_CSUM_OFF;
}

static uint8_t on_off(bool on)
{
    return on ? NDIS_OFFLOAD_ON : NDIS_OFFLOAD_OFF;
}

static int query(struct nic *nic, struct rndis_offloads *out)
{
    struct ndis_offload ask = {.header.type = NDIS_OBJECT_OFFLOAD};
    struct ndis_offload answer;
    uint32_t length;

    if (nic->nvsp_version >= NVSP_VERSION_5) {
        ask.header.revision = 3;
        ask.header.size = sizeof(ask);
    } else if (nic->nvsp_version >= NVSP_VERSION_4) {
        ask.header.revision = 2;
        ask.header.size = NDIS_OFFLOAD_BYTES_REV2;
    } else {
        ask.header.revision = 1;
        ask.header.size = NDIS_OFFLOAD_BYTES_REV1;
    }
    int r = rndis_query(nic, OID_OFFLOAD_CAPABILITIES, &ask, ask.header.size, &answer,
                        sizeof(answer), &length);
    if (r)
        return r;
    return rndis_offload_check(&answer, length, out) ? 0 : -EPROTO;
}

// Takes out what is not to be used.
static void restrict_offloads(const struct nic *nic, struct rndis_offloads *o)
{
    struct nic_config mine;

    config_of_nic(&config, nic->info.mac, false, &mine);
    if (nic->nvsp_version <= NVSP_VERSION_4) // there is no setting for UDP
        o->tx_csum &= (uint8_t)~NIC_TX_UDP;
    if (!mine.checksum) {
        o->tx_csum = 0;
        o->rx_csum = 0;
    }
    // A frame that is cut or put together has no checksum that anybody but the host could vouch for.
    if (!mine.lso || !mine.checksum || o->tx_large_max < nic->info.mtu + 14u)
        o->tx_large = 0;
    if (!mine.rsc || !mine.checksum || nic->nvsp_version < NVSP_VERSION_6_1)
        o->rx_coalesce = false;
}

static int set(struct nic *nic, const struct rndis_offloads *o)
{
    bool old = nic->nvsp_version <= NVSP_VERSION_4; // no UDP setting, shorter structure
    uint32_t length =
        old ? NDIS_OFFLOAD_PARAMETERS_BYTES_OLD : (uint32_t)sizeof(struct ndis_offload_parameters);
    bool tcp4 = o->tx_csum & NIC_TX_TCP, udp4 = o->tx_csum & NIC_TX_UDP;
    bool ip6 = o->tx_csum & NIC_TX_IP6;
    uint32_t rx4 = o->rx_csum, rx6 = o->rx_csum >> 16;
    struct ndis_offload_parameters p = {
        .header = {.type = NDIS_OBJECT_DEFAULT, .revision = 3, .size = (uint16_t)length},
        .ip4_header = NDIS_CSUM_OFF, // twenty bytes: cheaper to do than to ask for
        .tcp4 = csum_setting(tcp4, rx4 & NDIS_CSUM_TCP),
        .udp4 = old ? NDIS_CSUM_NO_CHANGE : csum_setting(udp4, rx4 & NDIS_CSUM_UDP),
        .tcp6 = csum_setting(ip6 && tcp4, rx6 & NDIS_CSUM_TCP),
        .udp6 = old ? NDIS_CSUM_NO_CHANGE : csum_setting(ip6 && udp4, rx6 & NDIS_CSUM_UDP),
        .lso_ip4 = on_off(o->tx_large & NIC_TX_IP4),
        .lso_ip6 = on_off(o->tx_large & NIC_TX_IP6),
        .rsc_ip4 = on_off(o->rx_coalesce),
        .rsc_ip6 = on_off(o->rx_coalesce),
    };

    return rndis_set(nic, OID_OFFLOAD_PARAMETERS, &p, length);
}

int rndis_negotiate_offloads(struct nic *nic)
{
    struct rndis_offloads offloads;
    int r = query(nic, &offloads);

    if (r == -EOPNOTSUPP)
        return 0; // a host without offloads
    if (r)
        return r;
    restrict_offloads(nic, &offloads);
    r = set(nic, &offloads);
    if (r == -EOPNOTSUPP) {
        log_warn("%s: host refuses its own offloads", nic->info.name);
        return 0;
    }
    if (r)
        return r;
    nic->info.tx_csum = offloads.tx_csum;
    nic->info.tx_large = offloads.tx_large;
    nic->info.tx_large_max = offloads.tx_large ? offloads.tx_large_max : 0;
    nic->info.rx_coalesced = offloads.rx_coalesce;
    return 0;
}
