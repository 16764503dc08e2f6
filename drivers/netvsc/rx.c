// SPDX-License-Identifier: BSD-2-Clause
// Receive: packets from the ring, frames from the receive buffer to the client by reference (those that
// the host put together, RSC, as one frame of several pieces), and the
// completions that give their sections back. Called by netvsc.c's handler on the channel's core and by
// the client there. A transfer-page packet becomes one group; its completion is due when the client
// has released the last of its frames.
#include <errno.h>
#include <string.h>

#include "drivers/netvsc/nic.h"
#include "kernel/alloc.h"
#include "kernel/min.h"
#include "kernel/panic.h"

#define RANGES_AT_ONCE 32u

int rx_start(struct nic_queue *q)
{
    uint32_t sections = q->nic->receive.section_count;
    struct nic_rx *rx = &q->rx;

    rx->group_count = sections < RX_GROUPS_MAX ? sections : RX_GROUPS_MAX;
    rx->group_pages =
        (uint32_t)((rx->group_count * sizeof(struct rx_group) + PAGE_SIZE - 1) / PAGE_SIZE);
    rx->groups = page_alloc(rx->group_pages);
    if (!rx->groups)
        return -ENOMEM;
    for (uint32_t i = rx->group_count; i-- > 0;) {
        rx->groups[i].next = rx->free;
        rx->free = &rx->groups[i];
    }
    rx->done_tail = &rx->done;
    rx->section_share = sections;
    return 0;
}

static bool put_completion(struct nic_queue *q, uint64_t transaction_id, uint32_t status)
{
    struct packet_descriptor d = {.type = PACKET_COMPLETION, .transaction_id = transaction_id};
    uint32_t payload[2] = {NVSP_SEND_RNDIS_PACKET_COMPLETE, status};
    struct ring_vec vec = {payload, sizeof(payload)};

    if (!tx_room(q, ring_packet_bytes(sizeof(d), sizeof(payload))))
        return false;
    if (!ring_out_put(&q->channel.out, &d, sizeof(d), &vec, 1))
        return false;
    q->rx.completions++;
    return true;
}

void rx_flush(struct nic_queue *q)
{
    struct nic_rx *rx = &q->rx;

    while (rx->done) {
        struct rx_group *group = rx->done;

        if (!put_completion(q, group->transaction_id, group->status)) {
            rx->completions_blocked++;
            // The host signals when there is room; the handler then comes here again.
            if (q->channel.out.dead ||
                !tx_wait_room(
                    q, ring_packet_bytes(sizeof(struct packet_descriptor), NVSP_COMPLETION_BYTES)))
                return;
            continue;
        }
        rx->done = group->next;
        if (!rx->done)
            rx->done_tail = &rx->done;
        group->next = rx->free;
        rx->free = group;
    }
}

static void group_put(struct nic_queue *q, struct rx_group *group)
{
    ASSERT(group->refs > 0);
    if (--group->refs)
        return;
    q->rx.pinned -= group->ranges;
    group->next = NULL;
    *q->rx.done_tail = group;
    q->rx.done_tail = &group->next;
}

void nic_rx_release(struct nic *nic, void *token)
{
    struct nic_queue *q = queue_here(nic);

    q->rx.held--;
    group_put(q, token);
}

bool nic_rx_scarce(const struct nic *nic)
{
    const struct nic_queue *q = queue_here(nic);

    return q->rx.pinned >= q->rx.section_share / 2;
}

static uint8_t csum_flags(struct nic_rx *rx, uint32_t csum)
{
    uint8_t flags = 0;

    if (csum & PPI_RX_IP_OK)
        flags |= NIC_CSUM_IP_OK;
    if (csum & (PPI_RX_TCP_OK | PPI_RX_UDP_OK))
        flags |= NIC_CSUM_L4_OK;
    if (csum & (PPI_RX_TCP_FAILED | PPI_RX_UDP_FAILED | PPI_RX_IP_FAILED))
        flags = NIC_CSUM_BAD;
    rx->csum_ok += flags & NIC_CSUM_L4_OK ? 1 : 0;
    rx->csum_bad += flags & NIC_CSUM_BAD ? 1 : 0;
    return flags;
}

// A checked frame to the client. `f` is its first part, `len` the length of all.
static bool deliver(struct nic_queue *q, struct rx_group *group, const struct rndis_frame *f,
                    const struct nic_rx_piece *pieces, unsigned count, uint32_t len)
{
    struct nic_rx *rx = &q->rx;

    if (!q->up) {
        rx->dropped[RNDIS_OK]++;
        return false;
    }
    if (PPI_VLAN_ID(f->vlan)) { // another network's frame
        rx->vlan++;
        return false;
    }
    struct nic_frame frame = {
        .pieces = pieces,
        .count = count,
        .len = len,
        .csum = csum_flags(rx, f->csum),
        .segments = (uint16_t)count,
        .hash = f->hash,
        .token = group,
    };
    group->refs++;
    if (++rx->held > rx->held_peak)
        rx->held_peak = rx->held;
    rx->packets++;
    rx->bytes += len;
    rx->coalesced += count > 1;
    nic_client->receive(q->nic, &frame);
    return true;
}

// The fragments that wait for the rest of their frame will not get it.
static void abandon(struct nic_queue *q, struct rx_group *group)
{
    if (q->rx.assembly.count == 0)
        return;
    q->rx.assembly.count = 0;
    q->rx.dropped[RNDIS_BAD_RSC]++;
    group->status = NVSP_STATUS_FAILURE;
}

// The frame that was put together is complete.
static bool complete(struct nic_queue *q, struct rx_group *group)
{
    struct rx_assembly *a = &q->rx.assembly;
    unsigned count = a->count;

    a->count = 0;
    return deliver(q, group, &a->first, a->pieces, count, a->len);
}

// A fragment of a frame that the host put together: all of them lie in ranges of one packet that follow
// each other. True if it was the last and the client got the frame.
static bool add_fragment(struct nic_queue *q, struct rx_group *group, const uint8_t *message,
                         const struct rndis_frame *f)
{
    struct rx_assembly *a = &q->rx.assembly;

    if (f->flags & RNDIS_FRAGMENT_FIRST) {
        abandon(q, group);
        a->first = *f;
        a->len = 0;
    } else if (a->count == 0) {
        q->rx.dropped[RNDIS_BAD_RSC]++;
        group->status = NVSP_STATUS_FAILURE;
        return false;
    }
    if (a->count == NIC_RX_PIECES || f->length > UINT16_MAX - a->len) {
        abandon(q, group);
        return false;
    }
    a->pieces[a->count++] = nic_rx_piece(message + f->offset, f->length);
    a->len += f->length;
    return f->flags & RNDIS_FRAGMENT_LAST ? complete(q, group) : false;
}

// One range of the receive buffer: a frame or a control message. True if the client got a frame.
static bool range_message(struct nic_queue *q, struct rx_group *group, struct transfer_range range)
{
    const struct receive_buffer *buffer = &q->nic->receive;
    struct nic_rx *rx = &q->rx;
    struct rndis_header header;
    struct rndis_frame frame;

    if (range.offset > buffer->bytes || range.bytes > buffer->bytes - range.offset ||
        range.bytes > buffer->section_size) {
        rx->bad_ranges++;
        group->status = NVSP_STATUS_FAILURE;
        abandon(q, group);
        return false;
    }
    const uint8_t *message = buffer->memory + range.offset;
    enum rndis_verdict verdict = rndis_header_check(message, range.bytes, &header);
    if (verdict == RNDIS_OK && header.type != RNDIS_PACKET && q->index != 0)
        verdict = RNDIS_BAD_DATA; // control messages are for the primary channel
    if (verdict == RNDIS_OK && header.type != RNDIS_PACKET) {
        abandon(q, group);
        control_message(q->nic, message, header.length, range.bytes);
        return false;
    }
    if (verdict == RNDIS_OK)
        verdict = rndis_check(message, header.length, &frame);
    if (verdict != RNDIS_OK) {
        rx->dropped[verdict]++;
        group->status = NVSP_STATUS_FAILURE;
        abandon(q, group);
        return false;
    }
    if (frame.flags)
        return add_fragment(q, group, message, &frame);
    abandon(q, group);
    struct nic_rx_piece piece = nic_rx_piece(message + frame.offset, frame.length);
    return deliver(q, group, &frame, &piece, 1, frame.length);
}

// True if the packet's headers make sense; *ranges is then how many ranges it has.
static bool transfer_check(struct nic_queue *q, const struct ring_packet *packet, uint32_t *ranges)
{
    const struct ring_in *ring = &q->channel.in;
    struct transfer_pages_header header;
    uint32_t type;
    uint32_t fixed = sizeof(struct packet_descriptor) + sizeof(header);

    if (packet->header_len < fixed || packet->payload_len < sizeof(type))
        return false;
    ring_copy_out(ring, packet, sizeof(struct packet_descriptor), &header, sizeof(header));
    ring_copy_out(ring, packet, packet->header_len, &type, sizeof(type));
    *ranges = header.range_count;
    return header.set_id == NVSP_RECEIVE_BUFFER_ID && type == NVSP_SEND_RNDIS_PACKET &&
           header.range_count > 0 &&
           header.range_count <= (packet->header_len - fixed) / sizeof(struct transfer_range);
}

// A private copy of a range that the host may write.
static inline struct transfer_range read_range(const struct transfer_range *shared)
{
    struct transfer_range range;

    copy_from_shared(&range, shared, sizeof(range));
    return range;
}

// Where a range of so many bytes lies; beyond all offsets if it has another number of them.
static inline uint64_t range_offset(const struct transfer_range *shared, uint64_t bytes)
{
    uint64_t word; // bytes, then offset
    _Static_assert(sizeof(word) == sizeof(*shared) && offsetof(struct transfer_range, offset) == 4,
                   "one word");

    copy_from_shared(&word, shared, sizeof(word));
    word ^= bytes;
    return word >> 32 | word << 32;
}

// Those of the ranges behind each other, up to `end`, whose messages say what `like` does, in as many
// bytes: adds a piece for each. Returns how many. Most of what a NIC receives comes through here, so it
// is made to need no more than the registers there are.
__attribute__((noinline)) static uint32_t
same_fragments(const struct receive_buffer *buffer, const struct rndis_fragment *like,
               uint64_t bytes, const struct transfer_range *ranges,
               const struct transfer_range *end, struct nic_rx_piece *piece)
{
    const struct rndis_said said = like->said;
    const struct nic_rx_piece *first = piece;
    const uint8_t *memory = buffer->memory;
    uint64_t offset_max = buffer->bytes - buffer->section_size;
    uint64_t from_message =
        nic_rx_piece(memory + like->offset, like->length).word - (uintptr_t)memory;

    for (; ranges < end; ranges++, piece++) {
        uint64_t offset = range_offset(ranges, bytes);
        const uint8_t *message = memory + offset;

        if (offset > offset_max || !rndis_says(message, said))
            break;
        piece->word = from_message + (uintptr_t)message;
    }
    return (uint32_t)(piece - first);
}

// Most fragments differ from another that was found to be in order only in where they lie: adds as many
// of the ranges as do, at most those that there is room for. Returns how many.
static uint32_t take_alike(struct nic_queue *q, const struct transfer_range *ranges, uint32_t count)
{
    struct rx_assembly *a = &q->rx.assembly;

    if (!a->like_bytes)
        return 0;
    count = min_u32(count, NIC_RX_PIECES - a->count);
    count = min_u32(count, (UINT16_MAX - a->len) / a->like.length);
    uint32_t taken = same_fragments(&q->nic->receive, &a->like, a->like_bytes, ranges,
                                    ranges + count, a->pieces + a->count);
    a->count += taken;
    a->len += taken * a->like.length;
    return taken;
}

// Adds the fragment in that range, if it is one in order. *last: it ends the frame; else the next ones
// are compared with it.
static bool take_next(struct nic_queue *q, struct transfer_range range, bool *last)
{
    const struct receive_buffer *buffer = &q->nic->receive;
    struct rx_assembly *a = &q->rx.assembly;
    const uint8_t *message = buffer->memory + range.offset;
    struct rndis_fragment f;

    if (range.bytes > buffer->section_size || range.offset > buffer->bytes - buffer->section_size ||
        !rndis_continuation(message, range.bytes, &f))
        return false;
    if (a->count == NIC_RX_PIECES || f.length > UINT16_MAX - a->len)
        return false;
    a->pieces[a->count++] = nic_rx_piece(message + f.offset, f.length);
    a->len += f.length;
    *last = f.flags & RNDIS_FRAGMENT_LAST;
    if (!*last) {
        a->like = f;
        a->like_bytes = range.bytes;
    }
    return true;
}

// Adds what continues the frame that is being put together: as many of the ranges, which the host may
// write, as are in order, not beyond its last. Returns how many.
static uint32_t take_fragments(struct nic_queue *q, const struct transfer_range *ranges,
                               uint32_t count, bool *last)
{
    uint32_t taken = 0;

    *last = false;
    while (!*last) {
        taken += take_alike(q, ranges + taken, count - taken);
        if (taken == count || !take_next(q, read_range(&ranges[taken]), last))
            break;
        taken++;
    }
    return taken;
}

// Ranges of one packet. True if the client got a frame.
static bool take_ranges(struct nic_queue *q, struct rx_group *group,
                        const struct transfer_range *ranges, uint32_t count)
{
    bool frames = false;

    for (uint32_t i = 0; i < count;) {
        bool last = false;
        uint32_t taken = 0;

        // Most are the next fragment of a frame, and a section's range of it.
        if (q->rx.assembly.count)
            taken = take_fragments(q, ranges + i, count - i, &last);
        if (last)
            frames |= complete(q, group);
        else if (taken == 0)
            frames |= range_message(q, group, read_range(&ranges[i++]));
        i += taken;
    }
    return frames;
}

// All ranges of a packet, where they lie; those that go round the ring's end from a copy, in portions.
static bool all_ranges(struct nic_queue *q, struct rx_group *group,
                       const struct ring_packet *packet, uint32_t count)
{
    const struct ring_in *ring = &q->channel.in;
    uint32_t offset = sizeof(struct packet_descriptor) + sizeof(struct transfer_pages_header);
    const uint32_t size = sizeof(struct transfer_range);
    const struct transfer_range *ranges = ring_look_at(ring, packet, offset, count * size);
    bool frames = false;

    if (ranges)
        return take_ranges(q, group, ranges, count);
    while (count) {
        struct transfer_range copy[RANGES_AT_ONCE];
        uint32_t portion = min_u32(count, RANGES_AT_ONCE);

        ring_copy_out(ring, packet, offset, copy, portion * size);
        frames |= take_ranges(q, group, copy, portion);
        offset += portion * size;
        count -= portion;
    }
    return frames;
}

static bool transfer_packet(struct nic_queue *q, const struct ring_packet *packet)
{
    struct nic_rx *rx = &q->rx;
    struct rx_group *group = rx->free;
    uint32_t ranges;
    bool frames = false;

    if (!group) { // more packets than sections: the host makes them up
        rx->no_group++;
        if (!put_completion(q, packet->transaction_id, NVSP_STATUS_FAILURE))
            rx->bad_packets++;
        return false;
    }
    rx->free = group->next;
    *group = (struct rx_group){
        .transaction_id = packet->transaction_id, .refs = 1, .status = NVSP_STATUS_SUCCESS};
    if (!transfer_check(q, packet, &ranges)) {
        rx->bad_packets++;
        group->status = NVSP_STATUS_FAILURE;
        ranges = 0;
    }
    // One frame that is kept keeps all of them: they are given back by one completion.
    group->ranges = ranges;
    rx->pinned += ranges;
    if (rx->pinned > rx->pinned_peak)
        rx->pinned_peak = rx->pinned;
    if (ranges)
        frames = all_ranges(q, group, packet, ranges);
    abandon(q, group);
    group_put(q, group);
    return frames;
}

// In-band messages of the host, all meant for the primary channel. An answer that is asked for is given.
static void inband_packet(struct nic_queue *q, const struct ring_packet *packet)
{
    struct packet_descriptor d = {.type = PACKET_COMPLETION,
                                  .transaction_id = packet->transaction_id};
    uint8_t message[INBAND_BYTES];
    uint32_t length = packet->payload_len;

    if (q->index == 0 && length <= sizeof(message)) {
        ring_copy_out(&q->channel.in, packet, packet->header_len, message, length);
        control_inband(q->nic, message, length);
    } else {
        q->rx.bad_packets++;
    }
    if ((packet->flags & PACKET_WANTS_COMPLETION) && tx_room(q, ring_packet_bytes(sizeof(d), 0)))
        ring_out_put(&q->channel.out, &d, sizeof(d), NULL, 0);
}

bool rx_poll(struct nic_queue *q, bool *frames)
{
    struct ring_packet packet;

    for (unsigned i = 0; i < RX_BUDGET; i++) {
        if (!ring_in_next(&q->channel.in, &packet))
            return false;
        switch (packet.type) {
        case PACKET_TRANSFER_PAGES:
            q->rx.batches++;
            if (transfer_packet(q, &packet))
                *frames = true;
            break;
        case PACKET_COMPLETION:
            tx_complete(q, &packet);
            break;
        case PACKET_INBAND:
            inband_packet(q, &packet);
            break;
        default:
            q->rx.bad_packets++;
        }
    }
    return true;
}
