// SPDX-License-Identifier: BSD-2-Clause
// See express.h.
#include "net/express.h"

#include <string.h>

#include "kernel/core.h"
#include "kernel/time.h"
#include "lwip/def.h"
#include "lwip/prot/ethernet.h"
#include "lwip/prot/ip4.h"
#include "lwip/prot/ip6.h"
#include "lwip/prot/tcp.h"
#include "lwip/stats.h"
#include "net/frame.h"
#include "net/interface.h"
#include "net/sum.h"

#define SERVES (100 * TIME_MS)

static PERCORE struct {
    struct express *express;
    const struct tcp_pcb *pcb;
    const struct pbuf *p; // only compared; NULL: nothing is to be learned
} learning;

static bool is_ip6(const struct express *x)
{
    return x->csum & NIC_TX_IP6;
}

static uint16_t fold(uint32_t sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)((sum & 0xffff) + (sum >> 16));
}

void express_learn(struct express *x, const struct tcp_pcb *pcb, const struct pbuf *p)
{
    learning.express = x;
    learning.pcb = pcb;
    learning.p = p;
}

void express_frame_out(struct netif *netif, const struct pbuf *p, const struct tx_offload *offload)
{
    if (p != learning.p)
        return;
    learning.p = NULL;
    struct express *x = learning.express;
    // Without the NIC's help the data has to be summed up, and that lwIP does.
    if (!(offload->csum & NIC_TX_TCP) || p->len > sizeof(x->headers.bytes))
        return;
    memcpy(x->headers.bytes, p->payload, p->len);
    x->csum = offload->csum;
    x->tcp = (uint8_t)offload->transport_offset;
    x->len = (uint8_t)p->len;
    uint8_t *ip = x->headers.bytes + SIZEOF_ETH_HDR;
    x->tcp_sum = PP_HTONS(IP_PROTO_TCP);
    if (is_ip6(x)) {
        x->tcp_sum += sum_words(ip + offsetof(struct ip6_hdr, src), 32);
    } else {
        struct ip_hdr *header = (struct ip_hdr *)(void *)ip;
        x->id = (uint16_t)(lwip_ntohs(IPH_ID(header)) + 1);
        header->_len = header->_id = header->_chksum = 0;
        x->ip_sum = sum_words(ip, IP_HLEN);
        x->tcp_sum += sum_words(ip + offsetof(struct ip_hdr, src), 8);
    }
    x->mss_most = interface_path_mss(netif, learning.pcb, x->len - x->tcp);
    x->until = time_now() + SERVES;
    x->netif = netif;
}

bool express_serves(const struct express *x, const struct netif *netif, uint16_t mss, uint64_t now)
{
    return now < x->until && x->netif == netif && mss <= x->mss_most;
}

bool express_send(struct express *x, const struct tcp_pcb *pcb, uint16_t mss, uint32_t seq,
                  const struct nic_piece *data, unsigned count, bool last)
{
    struct nic_piece pieces[1 + FRAME_PIECES] = {{x->headers.bytes, x->len}};
    uint32_t payload = 0;
    for (unsigned i = 0; i < count; i++) {
        pieces[1 + i] = data[i];
        payload += data[i].len;
    }
    uint16_t tcp_len = lwip_htons((uint16_t)(x->len - x->tcp + payload));
    struct tcp_hdr *tcp = (struct tcp_hdr *)(void *)(x->headers.bytes + x->tcp);
    frame_write_header(pcb, tcp, x->len - x->tcp, seq, last);
    tcp->chksum = fold(x->tcp_sum + tcp_len);
    if (is_ip6(x)) {
        struct ip6_hdr *ip = (struct ip6_hdr *)(void *)(x->headers.bytes + SIZEOF_ETH_HDR);
        ip->_plen = tcp_len;
    } else {
        struct ip_hdr *ip = (struct ip_hdr *)(void *)(x->headers.bytes + SIZEOF_ETH_HDR);
        ip->_len = lwip_htons((uint16_t)(x->len - SIZEOF_ETH_HDR + payload));
        ip->_id = lwip_htons(x->id++);
        ip->_chksum = (uint16_t)~fold(x->ip_sum + ip->_len + ip->_id);
    }
    struct nic_tx tx = {.pieces = pieces,
                        .count = 1 + count,
                        .len = x->len + payload,
                        .csum = x->csum,
                        .transport_offset = x->tcp,
                        .mss = payload > mss ? mss : 0};
    if (!interface_send_frame(x->netif, &tx))
        return false;
    TCP_STATS_INC(tcp.xmit);
    return true;
}
