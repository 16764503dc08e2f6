/*
 * What the synthetic NIC offers to do for the guest (checksums, large sends,
 * coalesced receives), what of it the guest has switched on, and how that is
 * said in NDIS structures.  Called by hv-net-rndis.c with a control message
 * that has been copied out of guest memory.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hv-net.h"

/* Everything that this guest could switch on. */
static HvNetOffload offered(HvNet *s)
{
    uint8_t v4 = (s->csum_tx4 ? HV_NET_CSUM_TX : 0) |
                 (s->csum_rx4 ? HV_NET_CSUM_RX : 0);
    uint8_t v6 = (s->csum_tx6 ? HV_NET_CSUM_TX : 0) |
                 (s->csum_rx6 ? HV_NET_CSUM_RX : 0);
    bool rsc = s->rsc && s->session.nvsp >= NVSP_VERSION_6_1 &&
               (s->session.capabilities & NVSP_CAP_RSC);

    if (!s->csum) {
        v4 = v6 = 0;
    }
    return (HvNetOffload) {
        .ipv4_header = v4,
        .tcp_v4 = v4,
        .udp_v4 = v4,
        .tcp_v6 = v6,
        .udp_v6 = v6,
        .lso_v4 = s->lso && s->lso4,
        .lso_v6 = s->lso && s->lso6,
        .rsc_v4 = rsc,
        .rsc_v6 = rsc,
    };
}

void hv_net_offload_defaults(HvNet *s)
{
    /* a guest that never asks gets everything it cannot be surprised by */
    s->session.offload = offered(s);
    s->session.offload.rsc_v4 = false;
    s->session.offload.rsc_v6 = false;
}

/*
 * NDIS structures
 */

static uint32_t csum_flags(uint8_t which, uint8_t header, uint8_t tcp,
                           uint8_t udp)
{
    uint32_t flags = 0;

    if (header & which) {
        flags |= NDIS_CSUM_IP_HEADER;
    }
    if (tcp & which) {
        flags |= NDIS_CSUM_TCP | NDIS_CSUM_TCP_OPTIONS | NDIS_CSUM_IP_OPTIONS;
    }
    if (udp & which) {
        flags |= NDIS_CSUM_UDP | NDIS_CSUM_IP_OPTIONS;
    }
    return flags;
}

static uint32_t encapsulation(bool offered)
{
    return offered ? NDIS_ENCAPSULATION_802_3 : 0;
}

/* Size of the structure by revision, the newest this session knows. */
static uint32_t offload_bytes(HvNet *s, uint8_t *revision)
{
    if (s->session.nvsp >= NVSP_VERSION_5) {
        *revision = 3;
        return NDIS_OFFLOAD_REV3_BYTES;
    }
    if (s->session.nvsp >= NVSP_VERSION_4) {
        *revision = 2;
        return NDIS_OFFLOAD_REV2_BYTES;
    }
    *revision = 1;
    return NDIS_OFFLOAD_REV1_BYTES;
}

static uint32_t offload_fill(HvNet *s, const HvNetOffload *from,
                             NdisOffload *to)
{
    uint32_t bytes;

    memset(to, 0, sizeof(*to));
    to->header.type = NDIS_TYPE_OFFLOAD;
    bytes = offload_bytes(s, &to->header.revision);
    to->header.bytes = bytes;

    to->csum.v4_tx = csum_flags(HV_NET_CSUM_TX, from->ipv4_header,
                                from->tcp_v4, from->udp_v4);
    to->csum.v4_rx = csum_flags(HV_NET_CSUM_RX, from->ipv4_header,
                                from->tcp_v4, from->udp_v4);
    to->csum.v6_tx = csum_flags(HV_NET_CSUM_TX, 0, from->tcp_v6,
                                from->udp_v6);
    to->csum.v6_rx = csum_flags(HV_NET_CSUM_RX, 0, from->tcp_v6,
                                from->udp_v6);
    to->csum.v4_tx_encapsulation = encapsulation(to->csum.v4_tx);
    to->csum.v4_rx_encapsulation = encapsulation(to->csum.v4_rx);
    to->csum.v6_tx_encapsulation = encapsulation(to->csum.v6_tx);
    to->csum.v6_rx_encapsulation = encapsulation(to->csum.v6_rx);
    if (from->lso_v4) {
        to->lso_v2.v4_encapsulation = NDIS_ENCAPSULATION_802_3;
        to->lso_v2.v4_max_bytes = HV_NET_LSO_MAX;
        to->lso_v2.v4_min_segments = HV_NET_LSO_SEGMENTS;
    }
    if (from->lso_v6) {
        to->lso_v2.v6_encapsulation = NDIS_ENCAPSULATION_802_3;
        to->lso_v2.v6_max_bytes = HV_NET_LSO_MAX;
        to->lso_v2.v6_min_segments = HV_NET_LSO_SEGMENTS;
        to->lso_v2.v6_options = NDIS_LSO_IPV6_EXTENSIONS |
                                NDIS_LSO_TCP_OPTIONS;
    }
    to->rsc_v4 = from->rsc_v4;
    to->rsc_v6 = from->rsc_v6;
    return bytes;
}

/*
 * The guest says how much it understands in the query's header; the answer
 * must not be longer.
 */
uint32_t hv_net_offload_capabilities(HvNet *s, const uint8_t *info,
                                     uint32_t info_bytes, void *out)
{
    HvNetOffload all = offered(s);
    NdisOffload caps;
    NdisObjectHeader asked;
    uint32_t bytes = offload_fill(s, &all, &caps);

    if (info_bytes >= sizeof(asked)) {
        memcpy(&asked, info, sizeof(asked));
        if (asked.bytes < bytes && asked.bytes >= NDIS_OFFLOAD_REV1_BYTES) {
            bytes = asked.bytes >= NDIS_OFFLOAD_REV2_BYTES ?
                    NDIS_OFFLOAD_REV2_BYTES : NDIS_OFFLOAD_REV1_BYTES;
            caps.header.revision = bytes == NDIS_OFFLOAD_REV2_BYTES ? 2 : 1;
            caps.header.bytes = bytes;
        }
    }
    memcpy(out, &caps, bytes);
    return bytes;
}

uint32_t hv_net_offload_current(HvNet *s, void *out)
{
    NdisOffload current;
    uint32_t bytes = offload_fill(s, &s->session.offload, &current);

    memcpy(out, &current, bytes);
    return bytes;
}

/*
 * Settings
 */

/* Apply a checksum setting; of both directions as much as there is. */
static uint32_t set_csum(uint8_t code, uint8_t offered, uint8_t *to)
{
    static const uint8_t meaning[] = {
        [NDIS_PARAM_OFF] = 0,
        [NDIS_PARAM_TX] = HV_NET_CSUM_TX,
        [NDIS_PARAM_RX] = HV_NET_CSUM_RX,
        [NDIS_PARAM_BOTH] = HV_NET_CSUM_TX | HV_NET_CSUM_RX,
    };

    if (code == NDIS_PARAM_NO_CHANGE) {
        return RNDIS_STATUS_SUCCESS;
    }
    if (code > NDIS_PARAM_BOTH ||
        (meaning[code] && !(meaning[code] & offered))) {
        return RNDIS_STATUS_INVALID_DATA;
    }
    *to = meaning[code] & offered;
    return RNDIS_STATUS_SUCCESS;
}

static uint32_t set_switch(uint8_t code, bool offered, bool *to)
{
    switch (code) {
    case NDIS_PARAM_NO_CHANGE:
        return RNDIS_STATUS_SUCCESS;
    case NDIS_PARAM_OFF:
        *to = false;
        return RNDIS_STATUS_SUCCESS;
    case NDIS_PARAM_ON:
        *to = offered;
        return offered ? RNDIS_STATUS_SUCCESS : RNDIS_STATUS_NOT_SUPPORTED;
    default:
        return RNDIS_STATUS_INVALID_DATA;
    }
}

static uint32_t set_all(const NdisOffloadParameters *p,
                        const HvNetOffload *have, HvNetOffload *to)
{
    const struct {
        uint8_t code, offered, *to;
    } csum[] = {
        { p->ipv4_header, have->ipv4_header, &to->ipv4_header },
        { p->tcp_v4, have->tcp_v4, &to->tcp_v4 },
        { p->udp_v4, have->udp_v4, &to->udp_v4 },
        { p->tcp_v6, have->tcp_v6, &to->tcp_v6 },
        { p->udp_v6, have->udp_v6, &to->udp_v6 },
    };
    bool none = false;
    const struct {
        uint8_t code;
        bool offered, *to;
    } switches[] = {
        { p->lso_v1, false, &none },
        { p->lso_v2_v4, have->lso_v4, &to->lso_v4 },
        { p->lso_v2_v6, have->lso_v6, &to->lso_v6 },
        { p->rsc_v4, have->rsc_v4, &to->rsc_v4 },
        { p->rsc_v6, have->rsc_v6, &to->rsc_v6 },
    };
    uint32_t status;
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(switches); i++) {
        status = set_switch(switches[i].code, switches[i].offered,
                            switches[i].to);
        if (status) {
            return status;
        }
    }
    for (i = 0; i < ARRAY_SIZE(csum); i++) {
        status = set_csum(csum[i].code, csum[i].offered, csum[i].to);
        if (status) {
            return status;
        }
    }
    return RNDIS_STATUS_SUCCESS;
}

/* All or nothing: the old settings stay if anything is wrong. */
uint32_t hv_net_offload_set(HvNet *s, const uint8_t *info, uint32_t bytes)
{
    NdisOffloadParameters p = { 0 };
    HvNetOffload have = offered(s), offload = s->session.offload;
    NdisOffload current;
    uint32_t status, current_bytes;

    memcpy(&p, info, MIN(bytes, sizeof(p)));
    if (bytes < sizeof(p.header) || p.header.type != NDIS_TYPE_DEFAULT ||
        p.header.revision < 1 || p.header.bytes < NDIS_OFFLOAD_PARAMETERS_MIN ||
        p.header.bytes > bytes) {
        return RNDIS_STATUS_INVALID_DATA;
    }
    if (p.header.bytes < sizeof(p)) {
        memset((uint8_t *)&p + p.header.bytes, 0, sizeof(p) - p.header.bytes);
    }
    status = set_all(&p, &have, &offload);
    if (status) {
        return status;
    }
    s->session.offload = offload;
    current_bytes = offload_fill(s, &offload, &current);
    hv_net_indicate(s, RNDIS_INDICATE_OFFLOAD, &current, current_bytes);
    return RNDIS_STATUS_SUCCESS;
}
