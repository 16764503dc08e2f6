// SPDX-License-Identifier: BSD-2-Clause
// Ring arithmetic, barriers and the decision whether to signal. Called by channel.c and by drivers of
// devices, on the channel's core only. See ring.h for what is shared with whom.
//
// The rule behind every full barrier here: each side first publishes its own index (or flag) and only
// then looks at the other's. Whoever comes second sees the first, so no wake-up is lost.
#include "drivers/vmbus/ring.h"

static bool index_valid(uint32_t index, uint32_t size)
{
    return index < size && (index & 7) == 0;
}

static uint32_t used_bytes(uint32_t write, uint32_t read, uint32_t size)
{
    return write >= read ? write - read : size - (read - write);
}

static void header_init(struct ring_header *header)
{
    memset(header, 0, sizeof(*header));
    atomic_store_explicit(&header->features, RING_FEATURE_PENDING_SEND_SIZE, memory_order_release);
}

void ring_out_init(struct ring_out *ring, void *pages, uint32_t bytes)
{
    header_init(pages);
    *ring = (struct ring_out){
        .header = pages,
        .data = (uint8_t *)pages + VMBUS_PAGE_SIZE,
        .size = bytes - VMBUS_PAGE_SIZE,
    };
}

void ring_in_init(struct ring_in *ring, void *pages, uint32_t bytes)
{
    header_init(pages);
    *ring = (struct ring_in){
        .header = pages,
        .data = (uint8_t *)pages + VMBUS_PAGE_SIZE,
        .size = bytes - VMBUS_PAGE_SIZE,
    };
}

// True if the host's read index could be read and makes sense: it may only move through what has
// been published.
static bool refresh_read(struct ring_out *ring)
{
    uint32_t read = atomic_load_explicit(&ring->header->read_index, memory_order_acquire);

    if (!index_valid(read, ring->size) || used_bytes(ring->published, read, ring->size) >
                                              used_bytes(ring->published, ring->read, ring->size))
        ring->dead = true;
    else
        ring->read = read;
    return !ring->dead;
}

uint32_t ring_out_free(struct ring_out *ring, uint32_t need)
{
    if (ring->dead)
        return 0;
    uint32_t free = ring->size - used_bytes(ring->write, ring->read, ring->size);
    if (free > need)
        return free;
    if (!refresh_read(ring))
        return 0;
    return ring->size - used_bytes(ring->write, ring->read, ring->size);
}

static void put_bytes(struct ring_out *ring, const void *src, uint32_t len)
{
    uint32_t first = ring->size - ring->write;

    if (len < first) {
        memcpy(ring->data + ring->write, src, len);
        ring->write += len;
        return;
    }
    memcpy(ring->data + ring->write, src, first);
    memcpy(ring->data, (const uint8_t *)src + first, len - first);
    ring->write = len - first;
}

bool ring_out_put(struct ring_out *ring, struct packet_descriptor *header, uint32_t header_len,
                  const struct ring_vec *payload, unsigned count)
{
    static const uint8_t zeros[8];
    uint32_t payload_len = 0;
    uint32_t start = ring->write;

    for (unsigned i = 0; i < count; i++)
        payload_len += payload[i].len;
    uint32_t need = ring_packet_bytes(header_len, payload_len);
    if (ring_out_free(ring, need) <= need)
        return false;

    header->header_qwords = (uint16_t)(header_len / 8);
    header->total_qwords = (uint16_t)((need - PACKET_TRAILER) / 8);
    put_bytes(ring, header, header_len);
    for (unsigned i = 0; i < count; i++)
        put_bytes(ring, payload[i].data, payload[i].len);
    if (payload_len & 7)
        put_bytes(ring, zeros, 8 - (payload_len & 7));
    // What is written is a multiple of 8, and so is the ring.
    uint64_t trailer = (uint64_t)start << 32;
    memcpy(ring->data + ring->write, &trailer, sizeof(trailer));
    ring->write += (uint32_t)sizeof(trailer);
    if (ring->write == ring->size)
        ring->write = 0;
    return true;
}

bool ring_out_publish(struct ring_out *ring)
{
    uint32_t before = ring->published;

    if (ring->write == before || ring->dead)
        return false;
    ring->published = ring->write;
    atomic_store_explicit(&ring->header->write_index, ring->write, memory_order_release);
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&ring->header->interrupt_mask, memory_order_relaxed))
        return false;
    // Only a ring that was empty needs a signal: else the host is awake and will come this far.
    return atomic_load_explicit(&ring->header->read_index, memory_order_relaxed) == before;
}

bool ring_out_want_room(struct ring_out *ring, uint32_t bytes)
{
    if (ring->dead)
        return false;
    ring->room_wanted = true;
    atomic_store_explicit(&ring->header->pending_send_size, bytes, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
    if (!refresh_read(ring) ||
        ring->size - used_bytes(ring->write, ring->read, ring->size) <= bytes)
        return false;
    ring_out_cancel_room(ring);
    return true;
}

void ring_out_cancel_room(struct ring_out *ring)
{
    ring->room_wanted = false;
    atomic_store_explicit(&ring->header->pending_send_size, 0, memory_order_relaxed);
}

// True if the host's write index makes sense: it may only move into what is free.
static bool refresh_write(struct ring_in *ring)
{
    uint32_t write = atomic_load_explicit(&ring->header->write_index, memory_order_acquire);

    if (!index_valid(write, ring->size) || used_bytes(write, ring->published, ring->size) <
                                               used_bytes(ring->write, ring->published, ring->size))
        ring->dead = true;
    else
        ring->write = write;
    return !ring->dead;
}

void ring_copy_wrapped(const struct ring_in *ring, uint32_t position, void *dst, uint32_t len)
{
    uint32_t first = ring->size - position;

    copy_from_shared(dst, ring->data + position, first);
    copy_from_shared((uint8_t *)dst + first, ring->data, len - first);
}

bool ring_in_next(struct ring_in *ring, struct ring_packet *packet)
{
    struct packet_descriptor d;

    if (ring->dead ||
        (ring->read == ring->write && (!refresh_write(ring) || ring->read == ring->write)))
        return false;
    uint32_t available = used_bytes(ring->write, ring->read, ring->size);
    if (available < sizeof(d) + PACKET_TRAILER) {
        ring->dead = true;
        return false;
    }
    ring_copy_at(ring, ring->read, &d, sizeof(d));
    uint32_t header_len = d.header_qwords * 8u;
    uint32_t total_len = d.total_qwords * 8u;
    if (header_len < sizeof(d) || total_len < header_len ||
        total_len > available - PACKET_TRAILER) {
        ring->dead = true;
        return false;
    }
    *packet = (struct ring_packet){
        .type = d.type,
        .flags = d.flags,
        .header_len = header_len,
        .payload_len = total_len - header_len,
        .transaction_id = d.transaction_id,
        .position = ring->read,
    };
    ring->read += total_len + PACKET_TRAILER;
    if (ring->read >= ring->size)
        ring->read -= ring->size;
    return true;
}

bool ring_in_release(struct ring_in *ring)
{
    uint32_t before = ring->published;

    if (ring->read == before || ring->dead)
        return false;
    ring->published = ring->read;
    atomic_store_explicit(&ring->header->read_index, ring->read, memory_order_release);
    atomic_thread_fence(memory_order_seq_cst);
    if (!(atomic_load_explicit(&ring->header->features, memory_order_relaxed) &
          RING_FEATURE_PENDING_SEND_SIZE))
        return false;
    uint32_t pending = atomic_load_explicit(&ring->header->pending_send_size, memory_order_relaxed);
    if (pending == 0)
        return false;
    // The host may have written meanwhile: count with what it has now. A value that makes no sense
    // here is caught by the next ring_in_next().
    uint32_t write = atomic_load_explicit(&ring->header->write_index, memory_order_relaxed);
    if (!index_valid(write, ring->size))
        return false;
    uint32_t freed = used_bytes(ring->read, before, ring->size);
    uint32_t free = ring->size - used_bytes(write, ring->read, ring->size);
    // Signal on the crossing. Bits 0-2 are slack in both readings of the rule (< or <=).
    pending &= ~7u;
    return free >= pending && (freed >= free || free - freed <= pending);
}

void ring_in_mask(struct ring_in *ring)
{
    atomic_store_explicit(&ring->header->interrupt_mask, 1, memory_order_relaxed);
}

bool ring_in_unmask(struct ring_in *ring)
{
    if (ring->dead)
        return false;
    atomic_store_explicit(&ring->header->interrupt_mask, 0, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
    if (!refresh_write(ring))
        return true; // the poller has to find the ring dead
    if (ring->write == ring->read)
        return false;
    ring_in_mask(ring);
    return true;
}
