/*
 * Large TCP frames of the synthetic NIC: the rules for those that the guest
 * sends (LSO), and how a large frame becomes several smaller ones.  Called by
 * hv-net-tx.c, hv-net-rx.c and hv-net-wire.c in the main loop, always on
 * private copies.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "net/eth.h"
#include "hv-net.h"

#define TCP_SEQ             4
#define TCP_OFFSET          12
#define TCP_FLAGS           13
#define TCP_CSUM            16
#define TCP_FLAG_FIN        0x01
#define TCP_FLAG_SYN        0x02
#define TCP_FLAG_RST        0x04
#define TCP_FLAG_PSH        0x08
#define TCP_FLAG_URG        0x20
#define TCP_FLAG_CWR        0x80

/*
 * Cutting
 */

bool hv_net_gso_layout(HvNetGso *at, const struct virtio_net_hdr *vnet,
                       const uint8_t *data, uint32_t left)
{
    uint8_t type = vnet->gso_type & ~VIRTIO_NET_HDR_GSO_ECN;
    uint32_t ip = at->skip + ETH_HLEN, tcp, payload;
    bool ipv6 = type == VIRTIO_NET_HDR_GSO_TCPV6;

    if ((type != VIRTIO_NET_HDR_GSO_TCPV4 && !ipv6) || !vnet->gso_size ||
        left < ip + 4) {
        return false;
    }
    if (lduw_be_p(data + ip - 2) == ETH_P_VLAN) {
        ip += 4;
    }
    if (left < ip + 40) {
        return false;
    }
    tcp = ip + (ipv6 ? 40 : (data[ip] & 0xf) * 4);
    if (ipv6 && (vnet->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)) {
        /* after extension headers */
        tcp = MAX(tcp, at->skip + vnet->csum_start);
    }
    if (data[ip] >> 4 != (ipv6 ? 6 : 4) || tcp < ip + 20 ||
        left < tcp + sizeof(struct tcp_header)) {
        return false;
    }
    payload = tcp + (data[tcp + TCP_OFFSET] >> 4) * 4;
    if (payload < tcp + sizeof(struct tcp_header) || payload > left ||
        payload >= at->bytes) {
        return false;
    }
    at->pieces = DIV_ROUND_UP(at->bytes - payload, vnet->gso_size);
    at->ip = ip;
    at->tcp = tcp;
    at->payload = payload;
    at->mss = vnet->gso_size;
    at->ipv6 = ipv6;
    return true;
}

void hv_net_gso_cut(const HvNetGso *at, struct virtio_net_hdr *vnet,
                    uint8_t *data, uint32_t bytes, uint32_t first,
                    uint32_t count)
{
    uint8_t *ip = data + at->ip, *tcp = data + at->tcp;
    uint32_t ip_bytes = at->tcp - at->ip;

    if (at->ipv6) {
        stw_be_p(ip + 4, bytes - at->ip - 40);
    } else {
        stw_be_p(ip + 2, bytes - at->ip);
        stw_be_p(ip + 4, lduw_be_p(ip + 4) + first);
        stw_he_p(ip + 10, 0);
        stw_he_p(ip + 10, hv_net_csum_finish(hv_net_csum_add(0, ip,
                                                             ip_bytes)));
    }
    stl_be_p(tcp + TCP_SEQ, ldl_be_p(tcp + TCP_SEQ) + first * at->mss);
    if (first) {
        tcp[TCP_FLAGS] &= ~TCP_FLAG_CWR;
    }
    if (first + count < at->pieces) {
        tcp[TCP_FLAGS] &= ~(TCP_FLAG_FIN | TCP_FLAG_PSH);
    }
    if (vnet->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) {
        /* the pseudo header's sum, which has the length in it */
        uint32_t sum = lduw_be_p(tcp + TCP_CSUM);

        sum += (uint16_t)~(at->bytes - at->tcp) + (bytes - at->tcp);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        stw_be_p(tcp + TCP_CSUM, sum);
    }
    if (count == 1) {
        vnet->gso_type = VIRTIO_NET_HDR_GSO_NONE;
        vnet->gso_size = 0;
    }
}

/*
 * Large sends
 */

/* What the guest has to leave in the checksum field: no length in it. */
static bool pseudo_sum_right(const uint8_t *addresses, uint32_t bytes,
                             const uint8_t *field)
{
    static const uint8_t proto[2] = { 0, IP_PROTO_TCP };
    uint64_t sum = hv_net_csum_add(hv_net_csum_add(0, addresses, bytes),
                                   proto, sizeof(proto));

    /* equal as ones' complement numbers: 0 and 0xffff are the same */
    return !hv_net_csum_finish(sum + (uint16_t)~lduw_he_p(field));
}

/* NULL, or the rule that the IPv4 header breaks; TCP has to follow. */
static const char *check_ipv4(const uint8_t *ip, uint32_t ip_bytes)
{
    if (ip[0] >> 4 != 4 || (ip[0] & 0xf) * 4 != ip_bytes ||
        ip[9] != IP_PROTO_TCP || (lduw_be_p(ip + 6) & 0x3fff)) {
        return "rndis-lso-header";
    }
    if (lduw_be_p(ip + 2)) {
        return "rndis-lso-length";
    }
    if (lduw_be_p(ip + 10)) {
        return "rndis-lso-csum";
    }
    return NULL;
}

static const char *check_ipv6(const uint8_t *ip, uint32_t ip_bytes)
{
    uint8_t next = ip[6];
    uint32_t off = sizeof(struct ip6_header);

    while (next == IP6_HOP_BY_HOP || next == IP6_ROUTING ||
           next == IP6_DESTINATON) {
        if (off + 8 > ip_bytes) {
            return "rndis-lso-header";
        }
        next = ip[off];
        off += 8 * (1 + ip[off + 1]);
    }
    if (ip[0] >> 4 != 6 || next != IP_PROTO_TCP || off != ip_bytes) {
        return "rndis-lso-header";
    }
    return lduw_be_p(ip + 4) ? "rndis-lso-length" : NULL;
}

const char *hv_net_lso_check(const uint8_t *head, uint32_t head_bytes,
                             uint32_t bytes, uint32_t lso, uint32_t mtu)
{
    bool ipv6 = lso & TX_LSO_IPV6;
    uint32_t tcp = TX_LSO_OFFSET(lso), mss = TX_LSO_MSS(lso), payload;
    const uint8_t *ip = head + ETH_HLEN, *addresses = ip + (ipv6 ? 8 : 12);
    const char *rule;

    if (tcp < ETH_HLEN + (ipv6 ? 40 : 20) ||
        tcp + sizeof(struct tcp_header) > head_bytes ||
        lduw_be_p(head + 12) != (ipv6 ? ETH_P_IPV6 : ETH_P_IP)) {
        return "rndis-lso-header";
    }
    rule = ipv6 ? check_ipv6(ip, tcp - ETH_HLEN)
                : check_ipv4(ip, tcp - ETH_HLEN);
    if (rule) {
        return rule;
    }
    payload = tcp + (head[tcp + TCP_OFFSET] >> 4) * 4;
    if (payload < tcp + sizeof(struct tcp_header) || payload > head_bytes) {
        return "rndis-lso-header";
    }
    if (head[tcp + TCP_FLAGS] & (TCP_FLAG_SYN | TCP_FLAG_RST | TCP_FLAG_URG)) {
        return "rndis-lso-flags";
    }
    if (!mss || payload + mss > mtu) {
        return "rndis-lso-mss";
    }
    if (bytes - payload <= mss || bytes - ETH_HLEN > UINT16_MAX) {
        return "rndis-lso-segments";
    }
    return pseudo_sum_right(addresses, ipv6 ? 32 : 8, head + tcp + TCP_CSUM)
           ? NULL : "rndis-lso-csum";
}

void hv_net_lso_fill(uint8_t *head, uint32_t bytes, uint32_t lso,
                     struct virtio_net_hdr *vnet)
{
    bool ipv6 = lso & TX_LSO_IPV6;
    uint32_t tcp = TX_LSO_OFFSET(lso), sum;
    uint8_t *ip = head + ETH_HLEN;

    if (ipv6) {
        stw_be_p(ip + 4, bytes - ETH_HLEN - sizeof(struct ip6_header));
    } else {
        stw_be_p(ip + 2, bytes - ETH_HLEN);
        stw_he_p(ip + 10, 0);
        stw_he_p(ip + 10, hv_net_csum_finish(hv_net_csum_add(
                              0, ip, tcp - ETH_HLEN)));
    }
    sum = lduw_be_p(head + tcp + TCP_CSUM) + bytes - tcp;
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    stw_be_p(head + tcp + TCP_CSUM, sum);
    *vnet = (struct virtio_net_hdr) {
        .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
        .gso_type = ipv6 ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_TCPV4,
        .hdr_len = tcp + (head[tcp + TCP_OFFSET] >> 4) * 4,
        .gso_size = TX_LSO_MSS(lso),
        .csum_start = tcp,
        .csum_offset = TCP_CSUM,
    };
    if (head[tcp + TCP_FLAGS] & TCP_FLAG_CWR) {
        vnet->gso_type |= VIRTIO_NET_HDR_GSO_ECN;
    }
}
