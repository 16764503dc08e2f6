// SPDX-License-Identifier: BSD-2-Clause
// See frame.h.
#include "net/frame.h"

#include "kernel/alloc.h"
#include "lwip/inet_chksum.h"
#include "lwip/ip.h"
#include "lwip/priv/tcp_priv.h"
#include "lwip/stats.h"
#include "lwip/sys.h"
#include "net/interface.h"
#include "net/memory.h"

#define TCP_HEADER_BYTES (TCP_HLEN + LWIP_TCP_OPT_LEN_TS_OUT)

// A chain of pbufs in one object, which goes when the last of them is freed.
struct frame {
    struct pbuf_custom head;
    struct body {
        struct pbuf_custom pbuf;
        struct frame *frame;
    } bodies[FRAME_PIECES];
    unsigned parts; // pbufs that live
    _Alignas(MEM_ALIGNMENT) uint8_t headers[LWIP_MEM_ALIGN_SIZE(PBUF_IP) + TCP_HEADER_BYTES];
};

static void part_freed(struct frame *frame)
{
    if (--frame->parts == 0)
        heap_free(frame);
}

static void head_freed(struct pbuf *p)
{
    part_freed((struct frame *)((char *)p - offsetof(struct frame, head)));
}

static void body_freed(struct pbuf *p)
{
    part_freed(((struct body *)p)->frame);
}

void frame_write_header(const struct tcp_pcb *pcb, struct tcp_hdr *header, unsigned len,
                        uint32_t seq, bool last)
{
    header->src = lwip_htons(pcb->local_port);
    header->dest = lwip_htons(pcb->remote_port);
    header->seqno = lwip_htonl(seq);
    header->ackno = lwip_htonl(pcb->rcv_nxt);
    TCPH_HDRLEN_FLAGS_SET(header, len / 4, TCP_ACK | (last ? TCP_PSH : 0));
    header->wnd = lwip_htons(TCPWND_MIN16(RCV_WND_SCALE(pcb, pcb->rcv_ann_wnd)));
    header->chksum = 0;
    header->urgp = 0;
    if (len == TCP_HLEN)
        return;
    uint32_t *options = (uint32_t *)(void *)(header + 1);
    options[0] = PP_HTONL(0x0101080a); // no operation, twice; timestamps, 10 bytes
    options[1] = lwip_htonl(sys_now());
    options[2] = lwip_htonl(pcb->ts_recent);
}

struct pbuf *frame_build(const struct tcp_pcb *pcb, const struct netif *netif, uint32_t seq,
                         const struct nic_piece *data, unsigned count, bool last)
{
    struct frame *frame = net_alloc(sizeof(*frame));
    if (!frame)
        return NULL;
    u16_t len = pcb->flags & TF_TIMESTAMP ? TCP_HEADER_BYTES : TCP_HLEN;
    frame->parts = 1 + count;
    frame->head.custom_free_function = head_freed;
    struct pbuf *p = pbuf_alloced_custom(PBUF_IP, len, PBUF_RAM, &frame->head, frame->headers,
                                         sizeof(frame->headers));
    for (unsigned i = 0; i < count; i++) {
        struct body *body = &frame->bodies[i];
        body->frame = frame;
        body->pbuf.custom_free_function = body_freed;
        // lwIP does not write what it sends by reference, so it need not be const to it.
        void *bytes = (void *)(uintptr_t)data[i].data;
        u16_t n = (u16_t)data[i].len;
        pbuf_cat(p, pbuf_alloced_custom(PBUF_RAW, n, PBUF_ROM, &body->pbuf, bytes, n));
    }
    struct tcp_hdr *header = p->payload;
    frame_write_header(pcb, header, len, seq, last);
    IF__NETIF_CHECKSUM_ENABLED(netif, NETIF_CHECKSUM_GEN_TCP)
    {
        header->chksum =
            ip_chksum_pseudo(p, IP_PROTO_TCP, p->tot_len, &pcb->local_ip, &pcb->remote_ip);
    }
    return p;
}

err_t frame_send(struct tcp_pcb *pcb, struct netif *netif, struct pbuf *p)
{
    TCP_STATS_INC(tcp.xmit);
    interface_tcp_out(pcb, p->payload, p->tot_len);
    NETIF_SET_HINTS(netif, &pcb->netif_hints);
    err_t error =
        ip_output_if(p, &pcb->local_ip, &pcb->remote_ip, pcb->ttl, pcb->tos, IP_PROTO_TCP, netif);
    NETIF_RESET_HINTS(netif);
    return error;
}
