// SPDX-License-Identifier: BSD-2-Clause
// Transmit: small frames are copied into a send section, several to a section; large ones go by
// reference, with the RNDIS header and the frame's first bytes in a slot of their own and one range
// for each remaining piece. Called by the client (nic_send) and by netvsc.c's handler, on the channel's
// core only. The order of frames on the ring is the order of the calls.
#include <string.h>

#include "drivers/netvsc/nic.h"
#include "kernel/alloc.h"
#include "kernel/core.h"
#include "kernel/min.h"
#include "kernel/panic.h"

// A packet that names a send section, on the ring.
#define SECTION_PACKET_BYTES                                                                       \
    (sizeof(struct packet_descriptor) + NVSP_MESSAGE_BYTES + PACKET_TRAILER)

#define ETHERNET_HEADER 14u
#define IP4_LENGTH 2 // offsets in the headers
#define IP4_CHECKSUM 10
#define IP4_ADDRESSES 12
#define IP6_LENGTH 4
#define IP6_ADDRESSES 8
#define IP_PROTOCOL_TCP 6u
#define TCP_CHECKSUM 16
#define TCP_HEADER 20u // without options
#define TCP_OFFSET_MAX (ETHERNET_HEADER + 60)

void tx_start(struct nic_queue *q, uint32_t first, uint32_t count)
{
    struct nic_tx_state *tx = &q->tx;

    ASSERT(count <= TX_SECTIONS_MAX && first + count <= UINT16_MAX);
    tx->free_section_count = count;
    for (uint32_t i = 0; i < count; i++)
        tx->free_sections[i] = (uint16_t)(first + i);
}

// Room that the open section will need when it is closed.
static uint32_t promised(const struct nic_queue *q)
{
    return q->tx.open.id ? SECTION_PACKET_BYTES : 0;
}

bool tx_room(struct nic_queue *q, uint32_t ring_bytes)
{
    uint32_t need = ring_bytes + promised(q);

    return ring_out_free(&q->channel.out, need) > need;
}

bool tx_wait_room(struct nic_queue *q, uint32_t ring_bytes)
{
    uint32_t need = ring_bytes + promised(q);
    uint32_t quarter = q->channel.out.size / 4; // fewer wake-ups

    channel_publish(&q->channel); // the host can only make room for what it has seen
    return ring_out_want_room(&q->channel.out, need > quarter ? need : quarter);
}

static struct tx_request *request_of(struct nic_queue *q, uint32_t id)
{
    return &q->tx.request[id];
}

static void put_section_packet(struct nic_queue *q, uint32_t id, uint32_t channel, uint32_t section,
                               uint32_t bytes)
{
    struct packet_descriptor d = {
        .type = PACKET_INBAND, .flags = PACKET_WANTS_COMPLETION, .transaction_id = id};
    struct nvsp_message m = {
        .type = NVSP_SEND_RNDIS_PACKET,
        .rndis = {.channel = channel, .section = section, .section_bytes = bytes},
    };
    struct ring_vec vec = {&m, sizeof(m)};

    // There is room: it was promised when the section was opened. Only a dead ring refuses.
    if (ring_out_put(&q->channel.out, &d, sizeof(d), &vec, 1))
        q->tx.ring_packets++;
}

void tx_close_section(struct nic_queue *q)
{
    struct tx_open open = q->tx.open;

    if (open.id == 0)
        return;
    q->tx.open.id = 0;
    put_section_packet(q, open.id, NVSP_CHANNEL_DATA, open.section, open.bytes);
}

static uint32_t header_bytes(const struct nic_tx *t)
{
    uint32_t ppi = t->csum ? sizeof(struct rndis_ppi) + sizeof(uint32_t) : 0;

    return sizeof(struct rndis_packet) + ppi;
}

// Writes the RNDIS header and the PPI of a frame; the frame follows right after. Returns their size.
static uint32_t write_header(uint8_t *to, const struct nic_tx *t)
{
    uint32_t size = header_bytes(t);
    uint32_t ppi_bytes = size - (uint32_t)sizeof(struct rndis_packet);
    struct rndis_packet p = {
        .header = {.type = RNDIS_PACKET, .length = size + t->len},
        .data_offset = size - RNDIS_HEADER_BYTES,
        .data_length = t->len,
        .ppi_offset = ppi_bytes ? RNDIS_PACKET_BODY : 0,
        .ppi_length = ppi_bytes,
    };

    memcpy(to, &p, sizeof(p));
    if (!ppi_bytes)
        return size;
    // Large send includes the checksum and stands in its place.
    struct rndis_ppi ppi = {.size = ppi_bytes,
                            .type = t->mss ? PPI_LSO : PPI_CHECKSUM,
                            .offset = sizeof(struct rndis_ppi)};
    uint32_t value = t->csum; // enum nic_tx_csum has the bits of the PPI
    if (t->mss)
        value = t->mss | (uint32_t)t->transport_offset << PPI_LSO_TCP_OFFSET_SHIFT |
                PPI_LSO_VERSION_2 | (t->csum & NIC_TX_IP6 ? PPI_LSO_IPV6 : 0);
    else if (t->csum & (NIC_TX_TCP | NIC_TX_UDP))
        value |= (uint32_t)t->transport_offset << PPI_TX_TRANSPORT_SHIFT;
    memcpy(to + sizeof(p), &ppi, sizeof(ppi));
    memcpy(to + sizeof(p) + sizeof(ppi), &value, sizeof(value));
    return size;
}

_Static_assert(NIC_TX_IP4 == PPI_TX_IPV4 && NIC_TX_IP6 == PPI_TX_IPV6 && NIC_TX_TCP == PPI_TX_TCP &&
                   NIC_TX_UDP == PPI_TX_UDP && NIC_TX_IP_HEADER == PPI_TX_IP_HEADER,
               "checksum bits");

// What of a frame has been copied: up to `offset` in piece `index`.
struct tx_place {
    unsigned index;
    uint32_t offset;
};

// Copies the next `len` bytes of the frame.
static void copy_pieces(uint8_t *to, const struct nic_tx *t, struct tx_place *from, uint32_t len)
{
    while (len) {
        const struct nic_piece *piece = &t->pieces[from->index];
        uint32_t n = min_u32(len, piece->len - from->offset);

        memcpy(to, (const uint8_t *)piece->data + from->offset, n);
        to += n;
        len -= n;
        from->offset += n;
        if (from->offset == piece->len)
            *from = (struct tx_place){from->index + 1, 0};
    }
}

static void put_u16(uint8_t *to, uint16_t value)
{
    memcpy(to, &value, sizeof(value));
}

// What a large send wants of the headers, in our copy of them: no lengths, no IPv4 checksum, and the
// pseudo header's sum without a length.
static void prepare_large(uint8_t *frame, const struct nic_tx *t)
{
    uint8_t *ip = frame + ETHERNET_HEADER;
    bool ip6 = t->csum & NIC_TX_IP6;
    const uint8_t *addresses = ip + (ip6 ? IP6_ADDRESSES : IP4_ADDRESSES);
    uint32_t sum = IP_PROTOCOL_TCP << 8; // in network order, as all of it

    for (unsigned i = 0; i < (ip6 ? 32u : 8u); i += 2)
        sum += addresses[i] | (uint32_t)addresses[i + 1] << 8;
    sum = (sum & 0xffff) + (sum >> 16);
    put_u16(frame + t->transport_offset + TCP_CHECKSUM, (uint16_t)((sum & 0xffff) + (sum >> 16)));
    if (ip6) {
        put_u16(ip + IP6_LENGTH, 0);
    } else {
        put_u16(ip + IP4_LENGTH, 0);
        put_u16(ip + IP4_CHECKSUM, 0);
    }
}

// An id for a frame, or 0: the last ones are for questions to the host, which frames must not starve.
static uint32_t take_request(struct nic_tx_state *tx)
{
    return tx->requests.free_count > TX_REQUESTS_CONTROL ? requests_take(&tx->requests) : 0;
}

// An empty section to fill. False if there is none, or no ring room for its packet.
static bool open_section(struct nic_queue *q)
{
    struct nic_tx_state *tx = &q->tx;

    if (tx->free_section_count == 0 || !tx_room(q, SECTION_PACKET_BYTES + TX_RING_RESERVE))
        return false;
    uint32_t id = take_request(tx);
    if (id == 0)
        return false;
    uint16_t section = tx->free_sections[--tx->free_section_count];
    *request_of(q, id) = (struct tx_request){.kind = TX_COPIED, .section = section};
    tx->open = (struct tx_open){.id = id, .section = section};
    return true;
}

// Where the next message of `bytes` goes in the open section, or UINT32_MAX if it does not fit.
static uint32_t place_in_open(const struct nic_queue *q, uint32_t bytes)
{
    const struct send_buffer *buffer = &q->nic->send;
    const struct tx_open *open = &q->tx.open;
    uint32_t at = (open->bytes + buffer->alignment - 1) & ~(buffer->alignment - 1);

    if (open->id == 0 || open->count >= buffer->message_limit || bytes > buffer->section_limit ||
        at > buffer->section_limit - bytes)
        return UINT32_MAX;
    return at;
}

static bool send_copied(struct nic_queue *q, const struct nic_tx *t)
{
    const struct send_buffer *buffer = &q->nic->send;
    struct nic_tx_state *tx = &q->tx;
    uint32_t bytes = header_bytes(t) + t->len;
    uint32_t at = place_in_open(q, bytes);

    if (at == UINT32_MAX) {
        tx_close_section(q);
        if (bytes > buffer->section_limit || !open_section(q))
            return false;
        at = 0;
    }
    uint8_t *section = buffer->memory + (size_t)tx->open.section * buffer->section_size;
    if (at > tx->open.bytes) { // the message before grows to the alignment
        uint32_t length = at - tx->open.last;
        memcpy(section + tx->open.last + offsetof(struct rndis_header, length), &length,
               sizeof(length));
    }
    uint8_t *frame = section + at + write_header(section + at, t);
    copy_pieces(frame, t, &(struct tx_place){0}, t->len);
    if (t->mss)
        prepare_large(frame, t);
    tx->open.last = at;
    tx->open.bytes = at + bytes;
    tx->open.count++;
    tx->copied++;
    return true;
}

// Appends a range with every page that it touches; `to` is aligned to 8. Returns where the next one goes.
static uint8_t *put_range(uint8_t *to, const void *data, uint32_t len)
{
    uint64_t gpa = virt_to_phys(data); // what is contiguous here is so for the host, too
    uint32_t offset = (uint32_t)(gpa & (PAGE_SIZE - 1));
    struct gpa_range range = {.bytes = len, .offset = offset};
    uint64_t *page = (uint64_t *)(void *)(to + sizeof(range));
    uint64_t pfn = gpa >> VMBUS_PAGE_SHIFT, end = (gpa + len + PAGE_SIZE - 1) >> VMBUS_PAGE_SHIFT;

    memcpy(to, &range, sizeof(range));
    while (pfn != end)
        *page++ = pfn++;
    return (uint8_t *)page;
}

static bool put_gpa_direct(struct nic_queue *q, uint32_t id, uint32_t channel, uint8_t *end,
                           uint32_t ranges, uint32_t reserve)
{
    uint8_t *start = (uint8_t *)q->tx.scratch;
    struct packet_descriptor *d = (void *)start;
    struct gpa_direct_header extra = {.range_count = ranges};
    struct nvsp_message m = {
        .type = NVSP_SEND_RNDIS_PACKET,
        .rndis = {.channel = channel, .section = NVSP_NO_SECTION},
    };
    struct ring_vec vec = {&m, sizeof(m)};
    uint32_t header_len = (uint32_t)(end - start);

    *d = (struct packet_descriptor){
        .type = PACKET_GPA_DIRECT, .flags = PACKET_WANTS_COMPLETION, .transaction_id = id};
    memcpy(start + sizeof(*d), &extra, sizeof(extra));
    if (!tx_room(q, ring_packet_bytes(header_len, sizeof(m)) + reserve))
        return false;
    if (!ring_out_put(&q->channel.out, d, header_len, &vec, 1))
        return false;
    q->tx.ring_packets++;
    return true;
}

static uint8_t *first_range(struct nic_queue *q)
{
    return (uint8_t *)q->tx.scratch + sizeof(struct packet_descriptor) +
           sizeof(struct gpa_direct_header);
}

static uint8_t *put_page_range(uint8_t *to, uint64_t gpa, uint32_t len)
{
    struct gpa_range range = {.bytes = len, .offset = (uint32_t)(gpa & (PAGE_SIZE - 1))};
    uint64_t pfn = gpa >> VMBUS_PAGE_SHIFT;

    memcpy(to, &range, sizeof(range));
    memcpy(to + sizeof(range), &pfn, sizeof(pfn));
    return to + sizeof(range) + sizeof(pfn);
}

bool tx_put_control(struct nic_queue *q, uint32_t id, uint64_t gpa, uint32_t length)
{
    uint8_t *end = put_page_range(first_range(q), gpa, length);

    return put_gpa_direct(q, id, NVSP_CHANNEL_CONTROL, end, 1, 0);
}

// True if the packet header of a frame whose pieces from `first` go by reference fits the scratch
// memory: a range for each, and a page number for each page they may touch.
static bool ranges_fit(const struct nic_tx *t, unsigned first)
{
    uint32_t bytes = sizeof(struct packet_descriptor) + sizeof(struct gpa_direct_header) + 16;

    for (unsigned i = first; i < t->count; i++)
        bytes += sizeof(struct gpa_range) + 8 * (t->pieces[i].len / PAGE_SIZE + 2);
    return bytes <= TX_PACKET_BYTES;
}

_Static_assert(TX_SLOT_BYTES >= sizeof(struct rndis_packet) + sizeof(struct rndis_ppi) +
                                    sizeof(uint32_t) + NIC_TX_HEAD_BYTES,
               "the first piece of a frame fits its slot");

// Copies the beginning of a frame to its slot: the headers if the host wants them changed, and then
// pieces that fit as a whole, which saves a range for each. Returns the bytes.
static uint32_t copy_headers(uint8_t *to, uint32_t room, const struct nic_tx *t,
                             struct tx_place *from)
{
    uint32_t used = 0, headers = t->mss ? t->transport_offset + TCP_HEADER : 0;

    if (t->pieces[0].len < headers) {
        copy_pieces(to, t, from, headers);
        used = headers;
    }
    while (from->index < t->count && t->pieces[from->index].len - from->offset <= room - used) {
        uint32_t len = t->pieces[from->index].len - from->offset;

        copy_pieces(to + used, t, from, len);
        used += len;
    }
    if (used < headers) { // the first piece is longer than the room
        copy_pieces(to, t, from, headers);
        used = headers;
    }
    if (t->mss)
        prepare_large(to, t);
    return used;
}

static bool send_held(struct nic_queue *q, const struct nic_tx *t, bool *copied)
{
    struct nic_tx_state *tx = &q->tx;
    uint32_t id = take_request(tx);
    struct tx_place place = {0};

    if (id == 0)
        return false;
    uint8_t *slot = tx->slots + (id - 1) * TX_SLOT_BYTES;
    uint32_t used = write_header(slot, t);
    used += copy_headers(slot + used, TX_SLOT_BYTES - used, t, &place);
    ASSERT(ranges_fit(t, place.index));
    *copied = place.index == t->count;
    uint32_t ranges = 1 + t->count - place.index;
    uint8_t *end = put_page_range(first_range(q), tx->slots_gpa + (id - 1) * TX_SLOT_BYTES, used);
    for (; place.index < t->count; place = (struct tx_place){place.index + 1, 0}) {
        const struct nic_piece *piece = &t->pieces[place.index];

        end =
            put_range(end, (const uint8_t *)piece->data + place.offset, piece->len - place.offset);
    }
    *request_of(q, id) = (struct tx_request){
        .kind = *copied ? TX_COPIED : TX_HELD, .section = UINT16_MAX, .done_ctx = t->done_ctx};
    if (put_gpa_direct(q, id, NVSP_CHANNEL_DATA, end, ranges, TX_RING_RESERVE))
        return true;
    requests_give(&tx->requests, id);
    return false;
}

static void check_frame(const struct nic *nic, const struct nic_tx *t)
{
    ASSERT(t->count >= 1 && t->count <= NIC_TX_PIECES && t->len >= ETHERNET_HEADER &&
           t->len <= 65535);
    if (!t->mss)
        return;
    ASSERT((t->csum & NIC_TX_TCP) && (t->csum & nic->info.tx_large) &&
           t->len <= nic->info.tx_large_max && t->transport_offset <= TCP_OFFSET_MAX &&
           t->len > t->transport_offset + TCP_HEADER);
}

enum nic_tx_result nic_send(struct nic *nic, const struct nic_tx *t)
{
    struct nic_queue *q = queue_here(nic);
    struct nic_tx_state *tx = &q->tx;
    bool copied = true;

    check_frame(nic, t);
    if (!q->up || q->channel.state != CHANNEL_OPEN)
        return NIC_TX_FULL;
    for (;;) {
        if (t->len <= TX_COPY_MAX && send_copied(q, t))
            break;
        tx_close_section(q); // frames stay in order
        if (send_held(q, t, &copied))
            break;
        tx->full++;
        tx->waiting = true;
        // Out of ids or sections: a completion will tell. Out of ring: the host has to.
        if (tx->requests.free_count <= TX_REQUESTS_CONTROL || q->channel.out.dead ||
            !tx_wait_room(q, TX_PACKET_BYTES + TX_RING_RESERVE))
            return NIC_TX_FULL;
    }
    tx->waiting = false;
    tx->packets++;
    tx->bytes += t->len;
    tx->large += t->mss != 0;
    if (!copied)
        tx->held++;
    return copied ? NIC_TX_COPIED : NIC_TX_HELD;
}

void tx_check_ready(struct nic_queue *q)
{
    struct nic_tx_state *tx = &q->tx;
    uint32_t need = TX_PACKET_BYTES + TX_RING_RESERVE;

    if (!tx->waiting || !q->up || q->channel.out.dead)
        return;
    if (tx->requests.free_count < TX_REQUESTS / 8)
        return;
    if (!tx_room(q, need) && !tx_wait_room(q, need))
        return;
    tx->waiting = false;
    nic_client->tx_ready(q->nic);
}

static void request_done(struct nic_queue *q, uint32_t id, const struct nvsp_message *m,
                         uint32_t length)
{
    struct nic_tx_state *tx = &q->tx;
    struct tx_request request = *request_of(q, id);

    switch (request.kind) {
    case TX_CONTROL:
        control_packet_done(q->nic, id, m, length);
        return;
    case TX_KEEPALIVE:
        q->nic->control.keepalive = 0;
        return;
    default:
        break;
    }
    if (length < NVSP_COMPLETION_BYTES || m->type != NVSP_SEND_RNDIS_PACKET_COMPLETE ||
        m->rndis_complete.status != NVSP_STATUS_SUCCESS)
        tx->failed++;
    if (request.kind == TX_COPIED && request.section != UINT16_MAX)
        tx->free_sections[tx->free_section_count++] = request.section;
    if (request.kind == TX_HELD)
        nic_client->tx_done(q->nic, request.done_ctx);
}

void tx_complete(struct nic_queue *q, const struct ring_packet *packet)
{
    struct nvsp_message m = {0};
    uint32_t length = min_u32(packet->payload_len, sizeof(m));
    uint64_t id = packet->transaction_id;

    // The open section's id is in use, but the host has not been given it yet.
    if (id == q->tx.open.id || !requests_give(&q->tx.requests, id)) {
        q->tx.bad_completions++;
        return;
    }
    ring_copy_out(&q->channel.in, packet, packet->header_len, &m, length);
    request_done(q, (uint32_t)id, &m, length);
}

static bool is_held(const struct nic_queue *q, uint32_t id)
{
    return requests_used(&q->tx.requests, id) && q->tx.request[id].kind == TX_HELD;
}

uint32_t tx_held(const struct nic_queue *q)
{
    uint32_t held = 0;

    for (uint32_t id = 1; id <= TX_REQUESTS; id++)
        held += is_held(q, id);
    return held;
}

void tx_abort(struct nic_queue *q)
{
    for (uint32_t id = 1; id <= TX_REQUESTS; id++) {
        struct tx_request *request = request_of(q, id);

        if (!is_held(q, id))
            continue;
        request->kind = TX_COPIED; // a late completion finds nothing to hand back
        request->section = UINT16_MAX;
        nic_client->tx_done(q->nic, request->done_ctx);
    }
}
