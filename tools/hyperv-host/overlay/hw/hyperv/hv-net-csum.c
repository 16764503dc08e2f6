/*
 * Internet checksums for the synthetic NIC.  Called by hv-net.c for each
 * frame in the main loop, on private copies or on memory the guest may change
 * meanwhile: nothing here depends on reading the same byte twice.
 *
 * The sums are kept in the byte order of the packet; folding commutes with
 * swapping, so no byte is ever swapped.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "net/eth.h"
#include "hv-net.h"

/* 2^64 counts as 1, as 2^16 does: what overflows comes in at the other end. */
static uint64_t add_around(uint64_t a, uint64_t b)
{
    a += b;
    return a + (a < b);
}

static uint64_t fold_to_33_bits(uint64_t sum)
{
    return (sum & 0xffffffff) + (sum >> 32);
}

uint64_t hv_net_csum_add(uint64_t sum, const void *buf, size_t bytes)
{
    const uint8_t *p = buf;
    uint64_t a = 0, b = 0;

    for (; bytes >= 32; bytes -= 32, p += 32) {
        a = add_around(add_around(a, ldq_he_p(p)), ldq_he_p(p + 16));
        b = add_around(add_around(b, ldq_he_p(p + 8)), ldq_he_p(p + 24));
    }
    for (; bytes >= 8; bytes -= 8, p += 8) {
        a = add_around(a, ldq_he_p(p));
    }
    a = fold_to_33_bits(a) + fold_to_33_bits(b);
    for (; bytes >= 2; bytes -= 2, p += 2) {
        a += lduw_he_p(p);
    }
    if (bytes) {
        a += *p;    /* the host is little endian */
    }
    return sum + a;     /* far from an overflow */
}

static uint16_t csum_fold(uint64_t sum)
{
    sum = fold_to_33_bits(fold_to_33_bits(sum));
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (sum & 0xffff) + (sum >> 16);
}

uint64_t hv_net_csum_add_iov(uint64_t sum, const struct iovec *iov, int count,
                             size_t off, size_t bytes)
{
    bool odd = false;
    int i;

    for (i = 0; i < count && bytes; i++) {
        size_t run;
        uint16_t part;

        if (off >= iov[i].iov_len) {
            off -= iov[i].iov_len;
            continue;
        }
        run = MIN(bytes, iov[i].iov_len - off);
        part = csum_fold(hv_net_csum_add(0, (uint8_t *)iov[i].iov_base + off,
                                         run));
        sum += odd ? bswap16(part) : part;
        odd ^= run & 1;
        bytes -= run;
        off = 0;
    }
    return sum;
}

uint16_t hv_net_csum_finish(uint64_t sum)
{
    return ~csum_fold(sum);
}

/* The pseudo header's part that is the same for IPv4 and IPv6. */
static uint64_t csum_pseudo(const uint8_t *addresses, size_t bytes,
                            uint8_t proto, uint32_t length)
{
    uint8_t tail[8] = { 0 };

    stl_be_p(tail, length);
    tail[7] = proto;
    return hv_net_csum_add(hv_net_csum_add(0, addresses, bytes), tail,
                           sizeof(tail));
}

static uint32_t verify_transport(uint8_t proto, bool tcp, bool udp,
                                 uint64_t pseudo, const uint8_t *data,
                                 uint32_t bytes, bool trusted)
{
    bool ok;

    if (proto == IP_PROTO_TCP && tcp && bytes >= sizeof(struct tcp_header)) {
        ok = trusted || !hv_net_csum_finish(hv_net_csum_add(pseudo, data,
                                                            bytes));
        return ok ? RX_CSUM_TCP_OK : RX_CSUM_TCP_FAILED;
    }
    if (proto == IP_PROTO_UDP && udp && bytes >= sizeof(struct udp_header)) {
        ok = trusted || !lduw_he_p(data + 6) ||
             !hv_net_csum_finish(hv_net_csum_add(pseudo, data, bytes));
        return ok ? RX_CSUM_UDP_OK : RX_CSUM_UDP_FAILED;
    }
    return 0;
}

static uint32_t verify_ipv4(const HvNetOffload *offload, const uint8_t *ip,
                            uint32_t bytes, bool trusted)
{
    uint32_t header, total, result = 0;

    if (bytes < sizeof(struct ip_header)) {
        return 0;
    }
    header = (ip[0] & 0xf) * 4;
    total = lduw_be_p(ip + 2);
    if (ip[0] >> 4 != 4 || header < sizeof(struct ip_header) ||
        total < header || total > bytes) {
        return 0;
    }
    if (offload->ipv4_header & HV_NET_CSUM_RX) {
        if (hv_net_csum_finish(hv_net_csum_add(0, ip, header))) {
            return RX_CSUM_IP_FAILED;
        }
        result = RX_CSUM_IP_OK;
    }
    if (lduw_be_p(ip + 6) & 0x3fff) {
        return result;  /* a fragment */
    }
    return result |
           verify_transport(ip[9], offload->tcp_v4 & HV_NET_CSUM_RX,
                            offload->udp_v4 & HV_NET_CSUM_RX,
                            csum_pseudo(ip + 12, 8, ip[9], total - header),
                            ip + header, total - header, trusted);
}

static uint32_t verify_ipv6(const HvNetOffload *offload, const uint8_t *ip,
                            uint32_t bytes, bool trusted)
{
    uint32_t length;

    if (bytes < sizeof(struct ip6_header)) {
        return 0;
    }
    length = lduw_be_p(ip + 4);
    if (ip[0] >> 4 != 6 || length > bytes - sizeof(struct ip6_header)) {
        return 0;
    }
    /* extension headers: say nothing, the guest checks */
    return verify_transport(ip[6], offload->tcp_v6 & HV_NET_CSUM_RX,
                            offload->udp_v6 & HV_NET_CSUM_RX,
                            csum_pseudo(ip + 8, 32, ip[6], length),
                            ip + sizeof(struct ip6_header), length, trusted);
}

uint32_t hv_net_csum_verify(const HvNetOffload *offload, const uint8_t *frame,
                            uint32_t bytes, bool trusted)
{
    if (bytes < ETH_HLEN) {
        return 0;
    }
    switch (lduw_be_p(frame + 12)) {
    case ETH_P_IP:
        return verify_ipv4(offload, frame + ETH_HLEN, bytes - ETH_HLEN,
                           trusted);
    case ETH_P_IPV6:
        return verify_ipv6(offload, frame + ETH_HLEN, bytes - ETH_HLEN,
                           trusted);
    default:
        return 0;
    }
}
