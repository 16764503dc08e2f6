/*
 * The sections of the guest's receive buffer: who has which, what has been
 * put into them, and the transfer-page packets that tell the guest of it.
 * Called by hv-net-rx.c with frames and by the channel worker.
 *
 * A section is free (in its queue's list), in the batch of a channel, or out
 * with the guest.  A batch becomes one packet, whose id is the number of its
 * first section; the guest's completion gives back all of them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "hw/hyperv/hyperv-host.h"
#include "hv-net.h"

#define XFER_HEADER_BYTES(ranges) \
    (offsetof(VMBusXferPages, range) + (ranges) * sizeof(VMBusXferRange))

static uint32_t xfer_room(uint32_t ranges)
{
    return vmbus_packet_room(XFER_HEADER_BYTES(ranges), sizeof(NvspMessage));
}

/*
 * Announce @count sections, from @first on as they are linked, of which the
 * guest is told that @bytes are used.  The room has been checked.
 */
static void announce(HvNet *s, VMBusChannel *chan, uint32_t first,
                     uint32_t count, uint32_t bytes, uint32_t channel_type)
{
    union {
        VMBusXferPages header;
        uint8_t space[XFER_HEADER_BYTES(HV_NET_RANGES_MAX)];
    } u;
    VMBusXferRange *ranges = &u.header.range;
    NvspMessage msg = {
        .type = NVSP_RNDIS_PACKET,
        .rndis.channel = channel_type,
        .rndis.section = NVSP_NO_SECTION,
    };
    uint32_t i, section = first;

    assert(count <= HV_NET_RANGES_MAX);
    u.header = (VMBusXferPages) {
        .desc.type = VMBUS_PACKET_XFER_PAGES,
        .desc.flags = VMBUS_PACKET_FLAG_COMPLETION,
        .desc.transaction_id = first,
        .set_id = s->session.recv_id,
        .range_count = count,
    };
    for (i = 0; i < count; i++) {
        ranges[i].bytes = bytes;
        ranges[i].offset = section * s->session.section_bytes;
        section = s->session.section_next[section];
    }
    set_bit(first, s->session.section_announced);
    vmbus_ring_put(chan, &u.header.desc, XFER_HEADER_BYTES(count), &msg,
                   sizeof(msg));
}

/*
 * Taking and giving back
 */

static void section_take(HvNet *s, VMBusChannel *chan, uint32_t section)
{
    HvNetQueue *q = hv_net_queue_of(s, chan);

    set_bit(section, s->session.section_busy);
    s->session.section_channel[section] = chan->index;
    s->session.section_next[section] = HV_NET_NO_SECTION;
    s->session.outstanding++;
    s->rx_sections_peak = MAX(s->rx_sections_peak, s->session.outstanding);
    q->outstanding++;
    q->sections_peak = MAX(q->sections_peak, q->outstanding);
}

/* Data sections are divided evenly among the channels. */
static HvNetQueue *section_owner(HvNet *s, uint32_t section)
{
    return &s->queue[(section - HV_NET_CONTROL_SECTIONS) %
                     (1 + s->session.subchannels)];
}

static void section_free(HvNet *s, uint32_t section)
{
    if (section < HV_NET_CONTROL_SECTIONS) {
        s->session.free_control[s->session.free_control_count++] = section;
    } else {
        HvNetQueue *q = section_owner(s, section);

        s->session.section_next[section] = q->free_section;
        q->free_section = section;
        q->free_count++;
    }
}

static void section_give_back(HvNet *s, uint32_t section)
{
    clear_bit(section, s->session.section_busy);
    clear_bit(section, s->session.section_announced);
    s->session.outstanding--;
    s->queue[s->session.section_channel[section]].outstanding--;
    section_free(s, section);
}

/* The guest is done with packet @id; returns the rule it breaks or NULL. */
static const char *packet_give_back(HvNet *s, VMBusChannel *chan, uint64_t id)
{
    uint32_t section, next;

    if (id >= s->session.section_count ||
        !test_bit(id, s->session.section_announced)) {
        return "nvsp-rx-completion";
    }
    if (s->session.section_channel[id] != chan->index) {
        return "nvsp-rx-completion-channel";
    }
    for (section = id; section != HV_NET_NO_SECTION; section = next) {
        next = s->session.section_next[section];
        section_give_back(s, section);
    }
    return NULL;
}

void hv_net_rx_completion(HvNet *s, VMBusChannel *chan, const VMBusPacket *pkt)
{
    const char *rule;

    if (pkt->payload_bytes < 8 ||
        ldl_le_p(pkt->payload) != NVSP_RNDIS_PACKET_COMPLETE) {
        vmbus_channel_fail(chan, "nvsp-rx-completion", "%u bytes of payload",
                           pkt->payload_bytes);
        return;
    }
    rule = packet_give_back(s, chan, pkt->transaction_id);
    if (rule) {
        vmbus_channel_fail(chan, rule, "id %" PRIu64, pkt->transaction_id);
    }
}

/*
 * Batches
 */

static void batch_clear(HvNetQueue *q)
{
    q->batch_first = HV_NET_NO_SECTION;
    q->batch_last = HV_NET_NO_SECTION;
    q->batch_count = 0;
}

/* As many ranges as a packet may have: no more than half of a small ring. */
static uint32_t ranges_max(const VMBusChannel *chan)
{
    uint32_t room = (chan->out.size / 2 - HV_NET_RING_RESERVE - xfer_room(0)) /
                    sizeof(VMBusXferRange);

    return MIN(room, HV_NET_RANGES_MAX);
}

bool hv_net_sections_suffice(HvNet *s, VMBusChannel *chan, uint32_t count)
{
    return count <= ranges_max(chan) &&
           count <= (s->session.section_count - HV_NET_CONTROL_SECTIONS) /
                    (1 + s->session.subchannels);
}

static bool ring_room(VMBusChannel *chan, uint32_t ranges)
{
    uint32_t room = xfer_room(ranges) + HV_NET_RING_RESERVE;

    return vmbus_ring_has_room(chan, room) || !vmbus_ring_wait_room(chan, room);
}

bool hv_net_batch_flush(HvNet *s, VMBusChannel *chan)
{
    HvNetQueue *q = hv_net_queue_of(s, chan);

    if (!q->batch_count) {
        return true;
    }
    if (!vmbus_channel_usable(chan) || !ring_room(chan, q->batch_count)) {
        return false;
    }
    announce(s, chan, q->batch_first, q->batch_count,
             s->session.section_bytes, NVSP_CHANNEL_DATA);
    q->rx_batches++;
    batch_clear(q);
    vmbus_ring_commit(chan);
    return true;
}

bool hv_net_batch_room(HvNet *s, VMBusChannel *chan, uint32_t count)
{
    HvNetQueue *q = hv_net_queue_of(s, chan);

    if (q->free_count < count) {
        s->rx_stalls_section++;
    } else if ((q->batch_count &&
                q->batch_count + count > MIN(s->batch_ranges,
                                             ranges_max(chan)) &&
                !hv_net_batch_flush(s, chan)) ||
               !ring_room(chan, q->batch_count + count)) {
        s->rx_stalls_ring++;
    } else {
        return true;
    }
    q->rx_stalls++;
    hv_net_batch_flush(s, chan);    /* the guest frees what it knows of */
    return false;
}

uint32_t hv_net_batch_add(HvNet *s, VMBusChannel *chan)
{
    HvNetQueue *q = hv_net_queue_of(s, chan);
    uint32_t section = q->free_section;

    q->free_section = s->session.section_next[section];
    q->free_count--;
    section_take(s, chan, section);
    if (q->batch_count++) {
        s->session.section_next[q->batch_last] = section;
    } else {
        q->batch_first = section;
    }
    q->batch_last = section;
    return section;
}

/*
 * Control messages
 */

void hv_net_replies_send(HvNet *s)
{
    VMBusChannel *chan = hv_net_primary(s);
    HvNetReply *reply;

    while (s->session.recv_gpadl && s->session.free_control_count &&
           (reply = QSIMPLEQ_FIRST(&s->replies))) {
        uint32_t section;

        if (!ring_room(chan, 1)) {
            return;
        }
        section = s->session.free_control[--s->session.free_control_count];
        section_take(s, chan, section);
        assert(reply->bytes <= s->session.section_bytes);
        vmbus_gpadl_write(s->session.recv_gpadl,
                          section * s->session.section_bytes, reply->data,
                          reply->bytes);
        announce(s, chan, section, 1, reply->bytes, NVSP_CHANNEL_CONTROL);
        QSIMPLEQ_REMOVE_HEAD(&s->replies, link);
        s->replies_bytes -= reply->bytes;
        g_free(reply);
    }
}

/*
 * Life
 */

void hv_net_sections_share_out(HvNet *s)
{
    uint32_t i;

    for (i = 0; i < s->queues; i++) {
        s->queue[i].free_section = HV_NET_NO_SECTION;
        s->queue[i].free_count = 0;
    }
    /* the lowest numbers first */
    for (i = s->session.section_count; i-- > HV_NET_CONTROL_SECTIONS; ) {
        if (!test_bit(i, s->session.section_busy)) {
            section_free(s, i);
        }
    }
}

void hv_net_sections_create(HvNet *s)
{
    uint32_t count = s->session.section_count, i;

    s->session.section_busy = bitmap_new(count);
    s->session.section_announced = bitmap_new(count);
    s->session.section_channel = g_new0(uint8_t, count);
    s->session.section_next = g_new0(uint32_t, count);
    hv_net_sections_share_out(s);
    for (i = HV_NET_CONTROL_SECTIONS; i-- > 0; ) {
        section_free(s, i);
    }
}

void hv_net_sections_reclaim(HvNet *s, VMBusChannel *chan)
{
    uint32_t i;

    batch_clear(hv_net_queue_of(s, chan));
    for (i = 0; i < s->session.section_count; i++) {
        if (test_bit(i, s->session.section_busy) &&
            s->session.section_channel[i] == chan->index) {
            section_give_back(s, i);
        }
    }
}

void hv_net_buffers_release(HvNet *s)
{
    uint32_t i;

    vmbus_gpadl_put(s->session.recv_gpadl);
    s->session.recv_gpadl = NULL;
    vmbus_gpadl_put(s->session.send_gpadl);
    s->session.send_gpadl = NULL;
    g_free(s->session.section_busy);
    s->session.section_busy = NULL;
    g_free(s->session.section_announced);
    s->session.section_announced = NULL;
    g_free(s->session.section_channel);
    s->session.section_channel = NULL;
    g_free(s->session.section_next);
    s->session.section_next = NULL;
    s->session.free_control_count = 0;
    s->session.section_count = 0;
    s->session.outstanding = 0;
    for (i = 0; i < s->queues; i++) {
        s->queue[i].free_section = HV_NET_NO_SECTION;
        s->queue[i].free_count = 0;
        s->queue[i].outstanding = 0;
        batch_clear(&s->queue[i]);
    }
}
