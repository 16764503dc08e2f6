// SPDX-License-Identifier: BSD-2-Clause
// The two rings of a channel. `ring_out` is written by the guest, `ring_in` by the host; each has one
// user, the core of its channel. The other side may write anything at any time into the shared pages:
// indices are read once and checked, packets are copied out before they are looked at, and our own
// index lives in private memory. Nothing here allocates, waits or makes hypercalls.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "drivers/vmbus/vmbus_proto.h"

struct ring_out {
    struct ring_header *header; // shared
    uint8_t *data;              // shared
    uint32_t size;              // of data
    uint32_t write;             // next byte to write, private
    uint32_t published;         // the write index that the host has been shown
    uint32_t read;              // the host's read index as last seen (checked)
    bool room_wanted;           // the host was asked to tell when there is room
    bool dead;                  // the host showed an impossible index: do not use any more
};

struct ring_in {
    struct ring_header *header; // shared
    const uint8_t *data;        // shared
    uint32_t size;
    uint32_t read;      // next byte to read, private
    uint32_t published; // the read index that the host has been shown
    uint32_t write;     // the host's write index as last seen (checked)
    bool dead;
};

struct ring_vec { // a piece of a packet to write
    const void *data;
    uint32_t len;
};

struct ring_packet { // a packet being read; all of it checked to lie inside the ring
    uint16_t type;
    uint16_t flags;
    uint32_t header_len;  // with the descriptor, >= 16
    uint32_t payload_len; // padded to 8
    uint64_t transaction_id;
    uint32_t position; // where it starts in the ring
};

// A copy of memory that the host can write. The barrier keeps the compiler from looking at the
// source again when the copy is used.
static inline __attribute__((always_inline)) void copy_from_shared(void *dst, const void *src,
                                                                   size_t len)
{
    memcpy(dst, src, len);
    __asm__ volatile("" ::: "memory");
}

// Bytes that a packet takes on the ring. header_len includes the descriptor and is a multiple of 8.
static inline uint32_t ring_packet_bytes(uint32_t header_len, uint32_t payload_len)
{
    return header_len + ((payload_len + 7) & ~7u) + PACKET_TRAILER;
}

// `pages` starts with the header page; bytes is header and data, a multiple of the page size and at
// least two pages. Clears the header and says that pending_send_size is understood.
void ring_out_init(struct ring_out *ring, void *pages, uint32_t bytes);
void ring_in_init(struct ring_in *ring, void *pages, uint32_t bytes);

// Free bytes. Looks at the host's index only if `need` does not fit what was seen before. A packet of
// n bytes (ring_packet_bytes) fits if n < the result. 0 on a dead ring.
uint32_t ring_out_free(struct ring_out *ring, uint32_t need);

// Writes a packet; false if it does not fit (nothing is written). The header (descriptor and what
// belongs to it) comes first: `header` holds header_len bytes, its lengths are filled in here; the
// payload is the concatenation of `count` pieces. The host sees it after ring_out_publish().
bool ring_out_put(struct ring_out *ring, struct packet_descriptor *header, uint32_t header_len,
                  const struct ring_vec *payload, unsigned count);

// Shows the host all that was put. True if it has to be signalled.
bool ring_out_publish(struct ring_out *ring);

// Asks for a signal when `bytes` are free. True if they are free already (then nothing is asked).
bool ring_out_want_room(struct ring_out *ring, uint32_t bytes);
void ring_out_cancel_room(struct ring_out *ring);

// The next packet, if any. Its bytes stay in the ring until ring_in_release(). False if there is none
// or if the ring is dead (see ->dead).
bool ring_in_next(struct ring_in *ring, struct ring_packet *packet);

// True if the host has written something since; what it is, ring_in_next() tells.
static inline bool ring_in_look(const struct ring_in *ring)
{
    return atomic_load_explicit(&ring->header->write_index, memory_order_relaxed) != ring->read;
}

// Copies what goes round the end of the ring. From ring_copy_at().
void ring_copy_wrapped(const struct ring_in *ring, uint32_t position, void *dst, uint32_t len);

static inline void ring_copy_at(const struct ring_in *ring, uint32_t position, void *dst,
                                uint32_t len)
{
    if (len <= ring->size - position)
        copy_from_shared(dst, ring->data + position, len);
    else
        ring_copy_wrapped(ring, position, dst, len);
}

// Copies [offset, offset+len) of the packet (header included) to private memory. The caller keeps
// inside header_len + payload_len. Inline: most are a few bytes, known when compiled.
static inline void ring_copy_out(const struct ring_in *ring, const struct ring_packet *packet,
                                 uint32_t offset, void *dst, uint32_t len)
{
    uint32_t position = packet->position + offset;

    ring_copy_at(ring, position < ring->size ? position : position - ring->size, dst, len);
}

// [offset, offset+len) of the packet where it lies in the ring, or NULL if it goes round the end. The
// host may write it: each byte is to be read once.
static inline const void *ring_look_at(const struct ring_in *ring, const struct ring_packet *packet,
                                       uint32_t offset, uint32_t len)
{
    uint32_t position = packet->position + offset;

    position = position < ring->size ? position : position - ring->size;
    return len <= ring->size - position ? ring->data + position : NULL;
}

// Gives everything read so far back to the host. True if it waits for room and must be signalled.
bool ring_in_release(struct ring_in *ring);

// No interrupts while polling.
void ring_in_mask(struct ring_in *ring);

// Interrupts again. True if there is something to read after all (then they are masked again).
bool ring_in_unmask(struct ring_in *ring);
