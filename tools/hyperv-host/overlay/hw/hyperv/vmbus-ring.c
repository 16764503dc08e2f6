/*
 * VMBus ring buffers, host side: reading the guest->host ring, writing the
 * host->guest ring, and the rules about who signals whom when.
 *
 * Called by VMBus devices from the main loop's thread, while the
 * guest's processors run.  Each shared word is read once per use and checked;
 * packets are copied to private memory before anybody looks at them.
 *
 *   word               written by          read by
 *   in.write_index     guest               host
 *   in.read_index      host                guest
 *   in.interrupt_mask  host                guest, before it signals
 *   in.pending_send    guest, when full    host, after it read
 *   in.features        guest               host
 *   out.*              the mirror image
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/main-loop.h"
#include "hw/hyperv/hyperv-host.h"
#include "hw/hyperv/vmbus.h"

/* How often to look for room if the guest does not tell. */
#define ROOM_POLL_MS 1

static uint32_t ring_used(const VMBusRing *ring, uint32_t write, uint32_t read)
{
    return write >= read ? write - read : ring->size - (read - write);
}

static bool ring_index_valid(const VMBusRing *ring, uint32_t index)
{
    return !(index & 7) && index < ring->size;
}

static uint32_t ring_advance(const VMBusRing *ring, uint32_t index,
                             uint32_t bytes)
{
    index += bytes;
    return index >= ring->size ? index - ring->size : index;
}

static void ring_read(const VMBusChannel *chan, const VMBusRing *ring,
                      uint32_t index, void *buf, uint32_t bytes)
{
    uint32_t first = MIN(bytes, ring->size - index);

    vmbus_gpadl_read(chan->ring_gpadl, ring->base + index, buf, first);
    if (first < bytes) {
        vmbus_gpadl_read(chan->ring_gpadl, ring->base,
                         (uint8_t *)buf + first, bytes - first);
    }
}

static void ring_write(const VMBusChannel *chan, const VMBusRing *ring,
                       uint32_t index, const void *buf, uint32_t bytes)
{
    uint32_t first = MIN(bytes, ring->size - index);

    vmbus_gpadl_write(chan->ring_gpadl, ring->base + index, buf, first);
    if (first < bytes) {
        vmbus_gpadl_write(chan->ring_gpadl, ring->base,
                          (const uint8_t *)buf + first, bytes - first);
    }
}

/*
 * Guests that claim to handle pending_send_size but are known not to, by
 * their OS id: Linux before 3.11, FreeBSD before 1400097.
 */
static bool guest_room_signal_trusted(void)
{
    uint64_t id = hyperv_guest_os_id();
    uint32_t version = extract64(id, 16, 32);

    if (!extract64(id, 63, 1)) {
        return true;
    }
    switch (extract64(id, 56, 7)) {
    case 1:
        return version >= 0x30b00;
    case 2:
        return version >= 1400097;
    default:
        return true;
    }
}

static bool ring_map(VMBusChannel *chan, VMBusRing *ring, uint32_t first_page,
                     uint32_t pages)
{
    uint32_t run;

    ring->header = (VMBusRingHeader *)
        vmbus_gpadl_ptr(chan->ring_gpadl, first_page << VMBUS_PAGE_BITS, &run);
    ring->base = (first_page + 1) << VMBUS_PAGE_BITS;
    ring->size = (pages - 1) << VMBUS_PAGE_BITS;
    return ring_index_valid(ring, qatomic_read(&ring->header->read_index)) &&
           ring_index_valid(ring, qatomic_read(&ring->header->write_index));
}

static void room_poll(void *opaque)
{
    vmbus_channel_kick(opaque);
}

bool vmbus_ring_open(VMBusChannel *chan, uint32_t downstream_page)
{
    uint32_t bytes = vmbus_gpadl_bytes(chan->ring_gpadl);
    uint32_t pages = bytes >> VMBUS_PAGE_BITS;

    if (!vmbus_gpadl_aligned(chan->ring_gpadl) || bytes % VMBUS_PAGE_SIZE ||
        downstream_page < 2 || downstream_page >= pages ||
        pages - downstream_page < 2) {
        hyperv_violation("open-ring-geometry",
                         "relid %u: %u bytes, downstream page %u", chan->relid,
                         bytes, downstream_page);
        return false;
    }
    if (!ring_map(chan, &chan->in, 0, downstream_page) ||
        !ring_map(chan, &chan->out, downstream_page,
                  pages - downstream_page)) {
        hyperv_violation("open-ring-index", "relid %u", chan->relid);
        return false;
    }

    chan->in.index = qatomic_read(&chan->in.header->read_index);
    chan->in.published = chan->in.peer = chan->in.index;
    chan->out.index = qatomic_read(&chan->out.header->write_index);
    chan->out.published = chan->out.index;
    chan->out.peer = qatomic_read(&chan->out.header->read_index);

    chan->peer_signals_room =
        (qatomic_read(&chan->in.header->features) &
         VMBUS_RING_FEATURE_PENDING_SIZE) && guest_room_signal_trusted();
    chan->waiting_room = false;
    qatomic_set(&chan->out.header->pending_send_size, 0);
    qatomic_set(&chan->out.header->features, VMBUS_RING_FEATURE_PENDING_SIZE);
    /* no signals needed until the worker has looked at the ring once */
    qatomic_set(&chan->in.header->interrupt_mask, 1);
    chan->masked = true;

    chan->packet_bytes = MIN(chan->in.size, UINT16_MAX * 8u);
    chan->packet = g_malloc(chan->packet_bytes);
    chan->poll_timer = timer_new_ms(QEMU_CLOCK_REALTIME, room_poll, chan);
    return true;
}

void vmbus_ring_close(VMBusChannel *chan)
{
    if (chan->poll_timer) {
        timer_free(chan->poll_timer);
        chan->poll_timer = NULL;
    }
    g_free(chan->packet);
    chan->packet = NULL;
    chan->in.header = NULL;
    chan->out.header = NULL;
}

bool vmbus_ring_wake(VMBusChannel *chan)
{
    VMBusRingHeader *in = chan->in.header;

    if (!chan->masked) {
        if (qatomic_read(&in->interrupt_mask)) {
            vmbus_channel_fail(chan, "ring-interrupt-mask",
                               "the guest set the mask the host had cleared");
            return false;
        }
        qatomic_set(&in->interrupt_mask, 1);
        chan->masked = true;
    }
    if (chan->waiting_room) {
        qatomic_set(&chan->out.header->pending_send_size, 0);
        chan->waiting_room = false;
    }
    return true;
}

/*
 * Read the guest's write index into in.peer.  Returns the bytes waiting, 0
 * also if the channel has been failed.
 */
static uint32_t ring_in_available(VMBusChannel *chan)
{
    VMBusRing *in = &chan->in;

    if (in->index == in->peer) {
        uint32_t write = qatomic_load_acquire(&in->header->write_index);

        if (!ring_index_valid(in, write)) {
            vmbus_channel_fail(chan, "ring-index", "write index 0x%x of 0x%x",
                               write, in->size);
            return 0;
        }
        in->peer = write;
    }
    return ring_used(in, in->peer, in->index);
}

static bool packet_check(VMBusChannel *chan, const VMBusPacketDesc *desc,
                         uint32_t available)
{
    uint32_t header = desc->header_qwords * 8u;
    uint32_t total = desc->total_qwords * 8u;

    if (header < sizeof(*desc) || total < header ||
        total + VMBUS_PACKET_TRAILER > available ||
        total > chan->packet_bytes) {
        vmbus_channel_fail(chan, "ring-packet-length",
                           "header %u, total %u, available %u", header, total,
                           available);
        return false;
    }
    if (desc->flags & ~VMBUS_PACKET_FLAG_COMPLETION) {
        vmbus_channel_fail(chan, "ring-packet-flags", "0x%x", desc->flags);
        return false;
    }
    switch (desc->type) {
    case VMBUS_PACKET_INBAND:
    case VMBUS_PACKET_COMPLETION:
        return true;
    case VMBUS_PACKET_GPA_DIRECT:
        if (header < sizeof(*desc) + sizeof(VMBusGpaDirect)) {
            vmbus_channel_fail(chan, "ring-gpa-direct", "header %u", header);
            return false;
        }
        return true;
    default:
        vmbus_channel_fail(chan, "ring-packet-type", "%u", desc->type);
        return false;
    }
}

bool vmbus_ring_next(VMBusChannel *chan, VMBusPacket *pkt)
{
    VMBusRing *in = &chan->in;
    VMBusPacketDesc desc;
    uint32_t available, header, total;

    available = ring_in_available(chan);
    if (!available) {
        return false;
    }
    if (available < sizeof(desc) + VMBUS_PACKET_TRAILER) {
        vmbus_channel_fail(chan, "ring-packet-length", "available %u",
                           available);
        return false;
    }
    ring_read(chan, in, in->index, &desc, sizeof(desc));
    if (!packet_check(chan, &desc, available)) {
        return false;
    }

    header = desc.header_qwords * 8u - sizeof(desc);
    total = desc.total_qwords * 8u - sizeof(desc);
    ring_read(chan, in, ring_advance(in, in->index, sizeof(desc)),
              chan->packet, total);
    pkt->type = desc.type;
    pkt->want_completion = desc.flags & VMBUS_PACKET_FLAG_COMPLETION;
    pkt->transaction_id = desc.transaction_id;
    pkt->header = chan->packet;
    pkt->header_bytes = header;
    pkt->payload = chan->packet + header;
    pkt->payload_bytes = total - header;

    in->index = ring_advance(in, in->index, desc.total_qwords * 8u +
                             VMBUS_PACKET_TRAILER);
    return true;
}

void vmbus_ring_release(VMBusChannel *chan)
{
    VMBusRing *in = &chan->in;
    uint32_t freed = ring_used(in, in->index, in->published);
    uint32_t pending, write, free_now;

    if (!freed) {
        return;
    }
    qatomic_store_release(&in->header->read_index, in->index);
    in->published = in->index;
    /* the guest: pending_send_size, barrier, read_index; we mirror it */
    smp_mb();
    if (!(qatomic_read(&in->header->features) &
          VMBUS_RING_FEATURE_PENDING_SIZE)) {
        return;
    }
    /* some guests ask for the ring size less one, which cannot be had */
    pending = qatomic_read(&in->header->pending_send_size) & ~7u;
    if (!pending) {
        return;
    }
    write = qatomic_read(&in->header->write_index);
    if (!ring_index_valid(in, write)) {
        return;     /* found and named when the packet is fetched */
    }
    free_now = in->size - ring_used(in, write, in->index);
    if (free_now - MIN(freed, free_now) <= pending && free_now > pending) {
        vmbus_channel_signal_guest(chan);
    }
}

bool vmbus_ring_sleep(VMBusChannel *chan)
{
    VMBusRingHeader *header = chan->in.header;

    qatomic_set(&header->interrupt_mask, 0);
    /*
     * The guest: write_index, barrier, interrupt_mask.  A packet written
     * before it could see the mask gone is found here instead.
     */
    smp_mb();
    if (qatomic_read(&header->write_index) != chan->in.index) {
        qatomic_set(&header->interrupt_mask, 1);
        return false;
    }
    chan->masked = false;
    return true;
}

static bool ring_out_refresh(VMBusChannel *chan)
{
    uint32_t read = qatomic_load_acquire(&chan->out.header->read_index);

    if (!ring_index_valid(&chan->out, read)) {
        vmbus_channel_fail(chan, "ring-index", "read index 0x%x of 0x%x",
                           read, chan->out.size);
        return false;
    }
    chan->out.peer = read;
    return true;
}

static bool ring_out_fits(const VMBusRing *out, uint32_t bytes)
{
    return out->size - ring_used(out, out->index, out->peer) > bytes;
}

bool vmbus_ring_has_room(VMBusChannel *chan, uint32_t bytes)
{
    return ring_out_fits(&chan->out, bytes) ||
           (ring_out_refresh(chan) && ring_out_fits(&chan->out, bytes));
}

bool vmbus_ring_out_empty(VMBusChannel *chan)
{
    return qatomic_read(&chan->out.header->read_index) == chan->out.published;
}

bool vmbus_ring_wait_room(VMBusChannel *chan, uint32_t bytes)
{
    uint32_t want = MAX(bytes, chan->out.size / 4) & ~7u;

    assert(bytes < chan->out.size);
    if (!chan->peer_signals_room) {
        timer_mod(chan->poll_timer,
                  qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + ROOM_POLL_MS);
        return true;
    }
    qatomic_set(&chan->out.header->pending_send_size, want);
    chan->waiting_room = true;
    /* the guest: read_index, barrier, pending_send_size */
    smp_mb();
    if (vmbus_ring_has_room(chan, bytes)) {
        qatomic_set(&chan->out.header->pending_send_size, 0);
        chan->waiting_room = false;
        return false;
    }
    return true;
}

void vmbus_ring_put(VMBusChannel *chan, VMBusPacketDesc *header,
                    uint32_t header_bytes, const void *payload,
                    uint32_t payload_bytes)
{
    static const uint8_t zeroes[8];
    VMBusRing *out = &chan->out;
    uint32_t padding = ROUND_UP(payload_bytes, 8) - payload_bytes;
    uint64_t trailer = (uint64_t)out->index << 32;
    uint32_t index = out->index;

    header->header_qwords = header_bytes / 8;
    header->total_qwords = (header_bytes + payload_bytes + padding) / 8;

    ring_write(chan, out, index, header, header_bytes);
    index = ring_advance(out, index, header_bytes);
    ring_write(chan, out, index, payload, payload_bytes);
    index = ring_advance(out, index, payload_bytes);
    ring_write(chan, out, index, zeroes, padding);
    index = ring_advance(out, index, padding);
    ring_write(chan, out, index, &trailer, sizeof(trailer));
    out->index = ring_advance(out, index, sizeof(trailer));
}

void vmbus_ring_commit(VMBusChannel *chan)
{
    VMBusRing *out = &chan->out;
    uint32_t old = out->published;

    if (out->index == old) {
        return;
    }
    qatomic_store_release(&out->header->write_index, out->index);
    out->published = out->index;
    /* the guest: interrupt_mask or read_index, barrier, write_index */
    smp_mb();
    if (!qatomic_read(&out->header->interrupt_mask) &&
        qatomic_read(&out->header->read_index) == old) {
        vmbus_channel_signal_guest(chan);
    }
}
