// SPDX-License-Identifier: BSD-2-Clause
// See loan.h. A frame on loan is a chain of two pbufs: `header`, which is private because the host may
// still write the receive buffer and lwIP reads headers more than once; and the rest. If the rest lies
// in several pieces it is one pbuf all the same: what lwIP does with data of TCP, to cut, to chain and
// to count it, needs no look at it, and a pbuf for each of 45 pieces would cost more than all else. Such
// a pbuf is `folded`: its payload is no memory but tells how far from the beginning of the rest it
// is, and stack_read() finds the pieces for those who want to read. Only TCP whose checksum needs no look
// is folded, and no fragments of IP.
#include "net/loan.h"

#include <string.h>

#include "kernel/alloc.h"
#include "lwip/prot/ethernet.h"
#include "lwip/prot/ip.h"
#include "lwip/prot/ip4.h"
#include "lwip/prot/ip6.h"
#include "net/interface.h"
#include "net/stack.h"

// Where folded payloads are: nowhere. A processor refuses such an address, so whoever reads where
// nothing is to be read does not get wrong bytes.
#define FOLDED UINT64_C(0x8000000000000000)

struct loan_part {
    struct pbuf_custom pbuf;
    struct loan *loan;
};

// lwIP frees the parts one by one; the tokens go back with the last.
struct loan {
    struct interface *interface;
    unsigned live;        // parts that are not free yet
    uint32_t rest;        // bytes behind the header
    void *const *tokens;  // behind the pieces
    unsigned token_count; // 1 or more
    unsigned piece_count; // of the rest if it is folded, else 0
    struct loan_part header_part, rest_part;
    uint8_t header[LOAN_HEADER];
    struct nic_rx_piece pieces[];
};

static void give_back(struct loan *loan)
{
    loan->interface->rx_on_loan--;
    for (unsigned i = 0; i < loan->token_count; i++)
        nic_rx_release(loan->interface->nic, loan->tokens[i]);
    heap_free(loan);
}

static void part_freed(struct pbuf *p)
{
    struct loan *loan = ((struct loan_part *)p)->loan;
    if (--loan->live == 0)
        give_back(loan);
}

static bool is_loan(const struct pbuf *p)
{
    return (p->flags & PBUF_FLAG_IS_CUSTOM) &&
           ((const struct pbuf_custom *)p)->custom_free_function == part_freed;
}

void stack_free_received(struct pbuf *p)
{
    struct loan_part *part = (struct loan_part *)p;
    if (p->ref == 1 && is_loan(p) && part == &part->loan->header_part) {
        // The whole loan, as it was made but for headers taken off its front, and nothing behind it.
        struct loan *loan = part->loan;
        const struct pbuf *rest = &loan->rest_part.pbuf.pbuf;
        if (p->next == rest && rest->ref == 1 && !rest->next && p->tot_len == p->len + loan->rest) {
            give_back(loan);
            return;
        }
    }
    pbuf_free(p);
}

// ---- Reading ----

void stack_read_from(struct stack_reader *reader, const struct pbuf *p)
{
    *reader = (struct stack_reader){.part = p};
}

// The next stretch of a folded part, which the reader has not finished.
static const uint8_t *read_folded(struct stack_reader *reader, const struct loan *loan, u16_t *len)
{
    const struct pbuf *p = reader->part;
    uint32_t at = (uint32_t)((uint64_t)p->payload - FOLDED) + reader->done;
    while (at - reader->passed >= nic_rx_len(loan->pieces[reader->piece]))
        reader->passed += nic_rx_len(loan->pieces[reader->piece++]);
    struct nic_rx_piece piece = loan->pieces[reader->piece];
    uint32_t skip = at - reader->passed;
    *len = (u16_t)LWIP_MIN(nic_rx_len(piece) - skip, (uint32_t)p->len - reader->done);
    reader->done += *len;
    return nic_rx_data(piece) + skip;
}

const uint8_t *stack_read(struct stack_reader *reader, u16_t *len)
{
    while (reader->part && reader->done == reader->part->len)
        *reader = (struct stack_reader){.part = reader->part->next};
    const struct pbuf *p = reader->part;
    if (!p)
        return NULL;
    if (is_loan(p)) {
        const struct loan_part *part = (const struct loan_part *)p;
        if (part == &part->loan->rest_part && part->loan->piece_count)
            return read_folded(reader, part->loan, len);
    }
    reader->done = *len = p->len;
    return p->payload;
}

void stack_copy_received(void *to, const struct pbuf *p)
{
    struct stack_reader reader;
    const uint8_t *data;
    char *at = to;
    u16_t len;
    stack_read_from(&reader, p);
    while ((data = stack_read(&reader, &len))) {
        memcpy(at, data, len);
        at += len;
    }
}

// ---- Making ----

// By the private headers: TCP, directly behind an IP header that is whole.
static bool is_plain_tcp(const uint8_t *header)
{
    struct ip_hdr ip4;
    if (header[12] == 0x86 && header[13] == 0xdd)
        return header[SIZEOF_ETH_HDR + 6] == IP6_NEXTH_TCP;
    memcpy(&ip4, header + SIZEOF_ETH_HDR, sizeof(ip4));
    return header[12] == 0x08 && header[13] == 0x00 && IPH_PROTO(&ip4) == IP_PROTO_TCP;
}

// Fragments: they may have to wait for others while the NIC goes. Of IPv6 also neighbour discovery and
// the like: lwIP and ip6_input.c read, and write, more of them than a header. Judged by the private
// headers, or the host could change what it is after it was judged.
static bool has_to_be_copied(const uint8_t *header)
{
    struct ip_hdr ip4;
    uint8_t next = header[SIZEOF_ETH_HDR + 6];
    if (header[12] == 0x86 && header[13] == 0xdd)
        return next != IP6_NEXTH_TCP && next != IP6_NEXTH_UDP;
    memcpy(&ip4, header + SIZEOF_ETH_HDR, sizeof(ip4));
    return header[12] == 0x08 && header[13] == 0x00 &&
           (IPH_OFFSET(&ip4) & PP_HTONS(IP_MF | IP_OFFMASK));
}

// Copies the headers; returns the first piece with more, and in *used how much of it they took.
static const struct nic_rx_piece *copy_header(struct loan *loan, const struct nic_frame *in,
                                              uint32_t *used)
{
    const struct nic_rx_piece *piece = in->pieces;
    uint32_t done = 0;
    for (;; piece++) { // most often all is in the first piece
        uint32_t len = LWIP_MIN(nic_rx_len(*piece), LOAN_HEADER - done);
        memcpy(loan->header + done, nic_rx_data(*piece), len);
        done += len;
        if (len < nic_rx_len(*piece)) {
            *used = len;
            return piece;
        }
    }
}

static void make_part(struct loan *loan, struct loan_part *part, const void *data, uint32_t len,
                      uint32_t all)
{
    // lwIP does not write a received payload, so the receive buffer need not be const to it.
    part->pbuf.pbuf = (struct pbuf){.payload = (void *)(uintptr_t)data,
                                    .tot_len = (u16_t)all,
                                    .len = (u16_t)len,
                                    .type_internal = PBUF_REF,
                                    .flags = PBUF_FLAG_IS_CUSTOM,
                                    .ref = 1};
    part->pbuf.custom_free_function = part_freed;
    part->loan = loan;
}

struct pbuf *loan_frame(struct interface *interface, const struct nic_frame *in,
                        void *const *tokens, unsigned count)
{
    uint32_t used;
    struct loan *loan =
        net_alloc(sizeof(*loan) + in->count * sizeof(loan->pieces[0]) + count * sizeof(*tokens));
    if (!loan)
        return NULL;
    const struct nic_rx_piece *first = copy_header(loan, in, &used);
    unsigned pieces = in->count - (unsigned)(first - in->pieces);
    bool folded = pieces > 1;
    if (has_to_be_copied(loan->header) ||
        (folded && (!(in->csum & NIC_CSUM_L4_OK) || !is_plain_tcp(loan->header)))) {
        heap_free(loan);
        return NULL;
    }
    loan->interface = interface;
    loan->live = 2;
    loan->rest = in->len - LOAN_HEADER;
    loan->tokens = memcpy(&loan->pieces[in->count], tokens, count * sizeof(*tokens));
    loan->token_count = count;
    const uint8_t *rest = nic_rx_data(*first) + used;
    loan->piece_count = 0;
    if (folded) {
        memcpy(loan->pieces, first, pieces * sizeof(*first));
        loan->pieces[0] = nic_rx_piece(rest, nic_rx_len(*first) - used);
        loan->piece_count = pieces;
        rest = (const uint8_t *)FOLDED;
    }
    make_part(loan, &loan->header_part, loan->header, LOAN_HEADER, in->len);
    make_part(loan, &loan->rest_part, rest, loan->rest, loan->rest);
    loan->header_part.pbuf.pbuf.next = &loan->rest_part.pbuf.pbuf;
    interface->rx_on_loan++;
    return &loan->header_part.pbuf.pbuf;
}
