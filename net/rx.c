// SPDX-License-Identifier: BSD-2-Clause
// From a NIC to lwIP. Small frames are copied, others lent (loan.c). On the way coalesce.c makes few
// large ones of many. Runs on the core of the NIC's channel.
#include <string.h>

#include "kernel/alloc.h"
#include "kernel/core.h"
#include "lwip/ip.h"
#include "lwip/prot/ethernet.h"
#include "net/cross.h"
#include "net/interface.h"
#include "net/loan.h"
#include "net/stack.h"

// Up to this length a frame is copied whole: cheaper than lending, and its section is free at once.
#define COPY_BYTES 256
_Static_assert(COPY_BYTES >= LOAN_HEADER, "what is lent has more than headers");

// Frames are copied out of the receive buffer into pbufs of at most so many bytes.
#define COPY_PIECE 8192

static PERCORE unsigned arriving; // frames of the wire in what lwIP is being given

unsigned interface_arriving_segments(void)
{
    return arriving;
}

// The frame in memory of its own; its sections are given back by the caller. NULL: no memory.
static struct pbuf *rx_copy(struct interface *interface, const struct nic_frame *in)
{
    struct pbuf *all = NULL;
    for (uint32_t left = in->len; left;) {
        u16_t len = (u16_t)LWIP_MIN(left, COPY_PIECE);
        struct pbuf *p = pbuf_alloc(PBUF_RAW, len, PBUF_RAM);
        if (!p) {
            if (all)
                pbuf_free(all);
            return NULL;
        }
        left -= len;
        if (all)
            pbuf_cat(all, p);
        else
            all = p;
    }
    u16_t at = 0;
    for (unsigned i = 0; i < in->count; i++) {
        u16_t len = (u16_t)nic_rx_len(in->pieces[i]);
        pbuf_take_at(all, nic_rx_data(in->pieces[i]), len, at);
        at = (u16_t)(at + len);
    }
    interface->rx_copied++;
    return all;
}

// lwIP checks what the host did not vouch for.
void interface_select_checks(struct interface *interface, uint8_t csum)
{
    uint16_t checks = NETIF_CHECKSUM_CHECK_ICMP | NETIF_CHECKSUM_CHECK_ICMP6;
    if (!(csum & NIC_CSUM_IP_OK))
        checks |= NETIF_CHECKSUM_CHECK_IP;
    if (!(csum & NIC_CSUM_L4_OK))
        checks |= NETIF_CHECKSUM_CHECK_TCP | NETIF_CHECKSUM_CHECK_UDP;
    NETIF_SET_CHECKSUM_CTRL(&interface->netif, interface->checksums | checks);
}

// coalesce.c's deliver: a frame, perhaps of several segments, to lwIP.
static void rx_deliver(void *ctx, const struct nic_frame *in, void *const *tokens, unsigned count)
{
    struct interface *interface = ctx;
    bool copy = in->len <= COPY_BYTES || nic_rx_scarce(interface->nic);
    struct pbuf *p = copy ? NULL : loan_frame(interface, in, tokens, count);
    if (!p) {
        p = rx_copy(interface, in);
        for (unsigned i = 0; i < count; i++)
            nic_rx_release(interface->nic, tokens[i]);
    }
    if (!p) {
        interface->rx_no_memory++;
        return;
    }
    interface_select_checks(interface, in->csum);
    arriving = in->segments;
    if (interface->netif.input(p, &interface->netif) != ERR_OK)
        pbuf_free(p);
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
    interface->rx_segments += in->segments;
    interface->rx_bytes += in->len;
    coalesce_receive(&interface->coalesce, in);
}

void interface_start_receiving(struct interface *interface)
{
    interface->coalesce.deliver = rx_deliver;
    interface->coalesce.ctx = interface;
}

void interface_inject(struct interface *interface, struct pbuf *p, uint16_t checks,
                      uint16_t segments)
{
    checks &= NETIF_CHECKSUM_CHECK_IP | NETIF_CHECKSUM_CHECK_TCP | NETIF_CHECKSUM_CHECK_UDP |
              NETIF_CHECKSUM_CHECK_ICMP | NETIF_CHECKSUM_CHECK_ICMP6;
    NETIF_SET_CHECKSUM_CTRL(&interface->netif, interface->checksums | checks);
    arriving = segments;
    if (ip_input(p, &interface->netif) != ERR_OK)
        pbuf_free(p);
}

void interface_batch_end(struct nic *nic)
{
    struct interface *interface = nic_client_data(nic);
    if (interface)
        coalesce_flush(&interface->coalesce);
    ack_batch_end();
    cross_flush();
    nic_flush(nic);
}
