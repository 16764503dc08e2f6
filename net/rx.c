// SPDX-License-Identifier: BSD-2-Clause
// From a NIC to lwIP. Received frames are lent to lwIP: their headers are copied, because the host may
// still write the receive buffer and lwIP reads headers more than once; the payload stays where it is
// and goes back when lwIP frees it. On the way coalesce.c makes few large ones of many. Runs on the core of the NIC's channel.
#include <string.h>

#include "kernel/alloc.h"
#include "kernel/core.h"
#include "lwip/ip.h"
#include "lwip/prot/ethernet.h"
#include "lwip/prot/ip6.h"
#include "net/cross.h"
#include "net/interface.h"
#include "net/stack.h"

// Headers that are read in place: Ethernet, IPv4 and TCP, each as long as it can be. IPv6 packets with
// other headers before TCP's or UDP's are copied whole.
#define HEADER_BYTES (14 + 60 + 60)
// Up to this length a frame is copied whole: cheaper than lending, and its section is free at once.
#define COPY_BYTES 256

// Frames are copied out of the receive buffer into pbufs of at most so many bytes.
#define COPY_PIECE 8192

struct rx_part { // a stretch of a received frame
    struct pbuf_custom pbuf;
    struct rx_loan *loan;
    void *token; // one of the loan's
};

// A received frame on loan: its first part is `header`, the others refer to the receive buffer. lwIP
// frees them one by one; the tokens go back with the last.
struct rx_loan {
    struct interface *interface;
    unsigned count;  // of parts
    unsigned live;   // that are not free yet
    uint32_t rest;   // bytes in all but the first
    unsigned tokens; // kept in the first parts, in order
    uint8_t header[HEADER_BYTES];
    struct rx_part parts[];
};

static PERCORE unsigned arriving; // frames of the wire in what lwIP is being given

unsigned interface_arriving_segments(void)
{
    return arriving;
}

static void rx_return(struct rx_loan *loan)
{
    loan->interface->rx_on_loan--;
    for (unsigned i = 0; i < loan->tokens; i++)
        nic_rx_release(loan->interface->nic, loan->parts[i].token);
    heap_free(loan);
}

static void rx_part_freed(struct pbuf *p)
{
    struct rx_loan *loan = ((struct rx_part *)p)->loan;
    if (--loan->live == 0)
        rx_return(loan);
}

void stack_free_received(struct pbuf *p)
{
    const struct rx_part *part = (const struct rx_part *)p;
    if (p->ref == 1 && (p->flags & PBUF_FLAG_IS_CUSTOM) &&
        part->pbuf.custom_free_function == rx_part_freed && part == part->loan->parts) {
        // The whole loan, as it was made but for headers taken off its front, and nothing behind it.
        struct rx_loan *loan = part->loan;
        const struct pbuf *last = &loan->parts[loan->count - 1].pbuf.pbuf;
        if (loan->live == loan->count && !last->next && p->tot_len == p->len + loan->rest) {
            rx_return(loan);
            return;
        }
    }
    pbuf_free(p);
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
        pbuf_take_at(all, in->pieces[i].data, (u16_t)in->pieces[i].len, at);
        at = (u16_t)(at + in->pieces[i].len);
    }
    interface->rx_copied++;
    return all;
}

// Refers to `len` bytes; the frame has `left` from there to its end.
static void rx_part_init(struct rx_loan *loan, struct rx_part *part, const void *data, uint32_t len,
                         uint32_t left)
{
    // lwIP does not write a received payload, so the receive buffer need not be const to it.
    part->pbuf.pbuf = (struct pbuf){.next = &(part + 1)->pbuf.pbuf,
                                    .payload = (void *)(uintptr_t)data,
                                    .tot_len = (u16_t)left,
                                    .len = (u16_t)len,
                                    .type_internal = PBUF_REF,
                                    .flags = PBUF_FLAG_IS_CUSTOM,
                                    .ref = 1};
    part->pbuf.custom_free_function = rx_part_freed;
    part->loan = loan;
}

// The frame with private headers and a payload that stays where it is. NULL: no memory.
static struct pbuf *rx_lend(struct interface *interface, const struct nic_frame *in,
                            void *const *tokens, unsigned count)
{
    struct rx_loan *loan = net_alloc(sizeof(*loan) + (in->count + 1) * sizeof(loan->parts[0]));
    if (!loan)
        return NULL;
    loan->interface = interface;
    loan->tokens = count;
    for (unsigned i = 0; i < count; i++)
        loan->parts[i].token = tokens[i];
    struct rx_part *part = loan->parts;
    rx_part_init(loan, part++, loan->header, HEADER_BYTES, in->len);
    const struct nic_piece *piece = in->pieces, *end = piece + in->count;
    uint32_t headers = 0, left = in->len - HEADER_BYTES, used = 0;
    loan->rest = left;
    while (headers < HEADER_BYTES) { // most often all in the first piece
        used = LWIP_MIN(piece->len, HEADER_BYTES - headers);
        memcpy(loan->header + headers, piece->data, used);
        headers += used;
        if (used == piece->len) {
            piece++;
            used = 0;
        }
    }
    for (; piece < end; piece++) {
        uint32_t len = piece->len - used;
        rx_part_init(loan, part++, (const uint8_t *)piece->data + used, len, left);
        left -= len;
        used = 0;
    }
    (part - 1)->pbuf.pbuf.next = NULL;
    loan->live = loan->count = (unsigned)(part - loan->parts);
    interface->rx_on_loan++;
    return &loan->parts[0].pbuf.pbuf;
}

// Neighbour discovery, fragments and the like: lwIP reads, and writes, more of them than a header.
static bool is_control6(const struct nic_frame *in)
{
    const uint8_t *data = in->pieces[0].data;
    if (in->pieces[0].len < SIZEOF_ETH_HDR + IP6_HLEN || data[12] != 0x86 || data[13] != 0xdd)
        return false;
    uint8_t next = data[SIZEOF_ETH_HDR + 6];
    return next != IP6_NEXTH_TCP && next != IP6_NEXTH_UDP;
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
    bool copy = in->len <= COPY_BYTES || nic_rx_scarce(interface->nic) || is_control6(in);
    struct pbuf *p = copy ? rx_copy(interface, in) : rx_lend(interface, in, tokens, count);
    for (unsigned i = 0; i < count && (copy || !p); i++)
        nic_rx_release(interface->nic, tokens[i]);
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
