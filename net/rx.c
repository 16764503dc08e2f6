// SPDX-License-Identifier: BSD-2-Clause
// From a NIC to lwIP. Received frames are lent to lwIP: their headers are copied, because the host may
// still write the receive buffer and lwIP reads headers more than once; the payload stays where it is
// and goes back when lwIP frees it. Runs on the core of the NIC's channel.
#include <string.h>

#include "kernel/alloc.h"
#include "lwip/prot/ethernet.h"
#include "net/interface.h"
#include "net/stack.h"

// Headers that are read in place: Ethernet, IPv4 and TCP, each as long as it can be.
#define HEADER_BYTES (14 + 60 + 60)
// Up to this length a frame is copied whole: cheaper than lending, and its section is free at once.
#define COPY_BYTES 256

// A received frame on loan. `head` holds its headers, `body` refers to the rest; they are chained
// and freed one by one. The receive buffer's token goes back with the body.
struct rx_frame {
    struct pbuf_custom head;
    struct pbuf_custom body;
    struct interface *interface;
    void *token;
    unsigned parts; // of the two pbufs, how many live
    uint8_t header[HEADER_BYTES];
};

static void rx_part_freed(struct rx_frame *frame)
{
    if (--frame->parts == 0)
        heap_free(frame);
}

static void rx_head_freed(struct pbuf *p)
{
    rx_part_freed((struct rx_frame *)((char *)p - offsetof(struct rx_frame, head)));
}

static void rx_body_freed(struct pbuf *p)
{
    struct rx_frame *frame = (struct rx_frame *)((char *)p - offsetof(struct rx_frame, body));
    frame->interface->rx_on_loan--;
    nic_rx_release(frame->interface->nic, frame->token);
    rx_part_freed(frame);
}

// The frame in memory of its own; its section is given back by the caller. NULL: no memory.
static struct pbuf *rx_copy(struct interface *interface, const struct nic_frame *in)
{
    struct pbuf *p = pbuf_alloc(PBUF_RAW, (u16_t)in->len, PBUF_RAM);
    if (p) {
        memcpy(p->payload, in->pieces[0].data, in->len);
        interface->rx_copied++;
    }
    return p;
}

// The frame with private headers and a payload that stays where it is. NULL: no memory.
static struct pbuf *rx_lend(struct interface *interface, const struct nic_frame *in)
{
    struct rx_frame *frame = net_alloc(sizeof(*frame));
    if (!frame)
        return NULL;
    frame->interface = interface;
    frame->token = in->token;
    frame->parts = 2;
    frame->head.custom_free_function = rx_head_freed;
    frame->body.custom_free_function = rx_body_freed;
    const uint8_t *data = in->pieces[0].data;
    memcpy(frame->header, data, HEADER_BYTES);
    struct pbuf *head = pbuf_alloced_custom(PBUF_RAW, HEADER_BYTES, PBUF_REF, &frame->head,
                                            frame->header, HEADER_BYTES);
    u16_t rest = (u16_t)(in->len - HEADER_BYTES);
    // lwIP does not write a received payload, so the receive buffer need not be const to it.
    struct pbuf *body = pbuf_alloced_custom(PBUF_RAW, rest, PBUF_REF, &frame->body,
                                            (void *)(uintptr_t)(data + HEADER_BYTES), rest);
    pbuf_cat(head, body);
    interface->rx_on_loan++;
    return head;
}

// lwIP checks what the host did not vouch for.
void interface_select_checks(struct interface *interface, uint8_t csum)
{
    uint16_t checks = NETIF_CHECKSUM_CHECK_ICMP;
    if (!(csum & NIC_CSUM_IP_OK))
        checks |= NETIF_CHECKSUM_CHECK_IP;
    if (!(csum & NIC_CSUM_L4_OK))
        checks |= NETIF_CHECKSUM_CHECK_TCP | NETIF_CHECKSUM_CHECK_UDP;
    NETIF_SET_CHECKSUM_CTRL(&interface->netif, interface->checksums | checks);
}

void interface_receive(struct nic *nic, const struct nic_frame *in)
{
    struct interface *interface = nic_client_data(nic);
    if (!interface) { // there was no memory to attach it
        nic_rx_release(nic, in->token);
        return;
    }
    if (in->len < SIZEOF_ETH_HDR || in->len > UINT16_MAX || (in->csum & NIC_CSUM_BAD)) {
        *(in->csum & NIC_CSUM_BAD ? &interface->rx_bad_checksum : &interface->rx_bad_length) += 1;
        nic_rx_release(nic, in->token);
        return;
    }
    interface->rx_frames++;
    interface->rx_bytes += in->len;
    bool copy = in->len <= COPY_BYTES || nic_rx_scarce(nic);
    struct pbuf *p = copy ? rx_copy(interface, in) : rx_lend(interface, in);
    if (copy || !p)
        nic_rx_release(nic, in->token);
    if (!p) {
        interface->rx_no_memory++;
        return;
    }
    interface_select_checks(interface, in->csum);
    if (interface->netif.input(p, &interface->netif) != ERR_OK)
        pbuf_free(p);
}

void interface_batch_end(struct nic *nic)
{
    nic_flush(nic);
}
