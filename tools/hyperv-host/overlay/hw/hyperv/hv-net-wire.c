/*
 * The wire of the synthetic NIC: delay, rate, loss, reordering and duplication,
 * each direction for itself, set by properties at any time.
 *
 * Frames pass here between the device (hv-net.c) and its backend, in the
 * backend's form: with a vnet header if it has one.  The unit of everything
 * random is the piece, a frame of at most MTU as a real wire would see it; a
 * large (GSO) frame is so many pieces and is cut where one of them has a fate
 * of its own.  The fate of the n-th piece depends on nothing but the seed and
 * n.  A wire that is off hands frames straight on.
 *
 * Everything runs in the main loop's thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/iov.h"
#include "qapi/error.h"
#include "qapi/qmp/qdict.h"
#include "qapi/visitor.h"
#include "hv-net.h"

/* A frame of more pieces counts as one: nobody has so small an MSS. */
#define WIRE_PIECES_MAX     512
/* A reordered piece lets this many pass, as long as they come soon enough. */
#define WIRE_OVERTAKEN_BY   3
#define WIRE_HOLD_NS        (10 * SCALE_MS)

#define WIRE_QUEUE_KIB      (64 * 1024)

/* Fates of a piece; 0: none of them. */
#define WIRE_LOST           1u
#define WIRE_DUPLICATED     2u
#define WIRE_REORDERED      4u

struct HvNetWireItem {
    QSIMPLEQ_ENTRY(HvNetWireItem) link;
    NetClientState *nc;
    int64_t due;                /* ns */
    uint32_t pieces;
    int32_t overtakers;         /* still to come, if held */
    uint32_t line_bytes;        /* of Ethernet, each piece with its headers */
    uint32_t bytes;             /* of data */
    uint8_t data[];
};

/*
 * Large frames
 */

/* @head: as much of the frame as has headers; @bytes: of all of it. */
static HvNetGso layout_frame(HvNet *s, const uint8_t *head,
                             uint32_t head_bytes, uint32_t bytes)
{
    const struct virtio_net_hdr *vnet = (const struct virtio_net_hdr *)head;
    HvNetGso at = {
        .bytes = bytes,
        .skip = s->vnet ? sizeof(*vnet) : 0,
    };

    if (!at.skip || head_bytes < at.skip ||
        !hv_net_gso_layout(&at, vnet, head, head_bytes) ||
        at.pieces > WIRE_PIECES_MAX) {
        at.pieces = 1;
    }
    return at;
}

/* @count pieces of a frame from @first on, as a frame of their own. */
static HvNetWireItem *item_new(const HvNetGso *at, NetClientState *nc,
                               const struct iovec *iov, int iov_count,
                               uint32_t first, uint32_t count)
{
    bool whole = count == at->pieces;
    uint32_t from = whole ? 0 : at->payload + first * at->mss;
    uint32_t body = whole ? at->bytes : MIN(count * at->mss, at->bytes - from);
    uint32_t head = whole ? 0 : at->payload;
    HvNetWireItem *item = g_malloc(sizeof(*item) + head + body);

    memset(item, 0, sizeof(*item));
    item->nc = nc;
    item->pieces = count;
    item->bytes = head + body;
    item->line_bytes = item->bytes - at->skip +
                       (count - 1) * (at->payload - at->skip);
    iov_to_buf(iov, iov_count, 0, item->data, head);
    iov_to_buf(iov, iov_count, from, item->data + head, body);
    if (!whole) {
        hv_net_gso_cut(at, (struct virtio_net_hdr *)item->data, item->data,
                       item->bytes, first, count);
    }
    return item;
}

/*
 * The queue
 */

static int64_t wire_now(void)
{
    /* stands still while the machine is stopped */
    return qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL);
}

static int64_t line_time(const HvNetWireSide *side, const HvNetWireItem *item)
{
    return side->rate_kbit
           ? item->line_bytes * UINT64_C(8000000) / side->rate_kbit : 0;
}

static void queue_append(HvNetWireSide *side, HvNetWireItem *item)
{
    item->due = side->last_due = MAX(item->due, side->last_due);
    QSIMPLEQ_INSERT_TAIL(&side->queue, item, link);
}

/* Held pieces that have been overtaken, or for which nobody came. */
static void release_held(HvNetWireSide *side, int64_t now)
{
    HvNetWireItem *item;

    while ((item = QSIMPLEQ_FIRST(&side->held)) &&
           (item->overtakers <= 0 || item->due + WIRE_HOLD_NS <= now)) {
        QSIMPLEQ_REMOVE_HEAD(&side->held, link);
        queue_append(side, item);
    }
}

static void wire_sent(NetClientState *nc, ssize_t ret);

/* Sets side->blocked if the receiver is busy. */
static void deliver(HvNet *s, HvNetWireSide *side, HvNetWireItem *item)
{
    struct iovec iov = { item->data, item->bytes };

    if (side == &s->wire.from_guest) {
        /* taken over, even if it says "later" */
        side->blocked = !qemu_sendv_packet_async(item->nc, &iov, 1, wire_sent);
    } else if (!hv_net_receive_iov(item->nc, &iov, 1)) {
        side->blocked = true;
        QSIMPLEQ_INSERT_HEAD(&side->queue, item, link);
        return;
    }
    side->queued_bytes -= item->bytes;
    side->queued_frames--;
    g_free(item);
}

/* Deliver what is due and set the timer for what is not. */
static void wire_run(HvNet *s, HvNetWireSide *side)
{
    int64_t now = wire_now(), next = INT64_MAX;
    HvNetWireItem *item;

    if (!side->timer) {
        return;     /* the device goes, and takes back what it has sent */
    }
    release_held(side, now);
    while (!side->blocked && (item = QSIMPLEQ_FIRST(&side->queue)) &&
           item->due <= now) {
        QSIMPLEQ_REMOVE_HEAD(&side->queue, link);
        deliver(s, side, item);
    }
    if (side->blocked) {
        timer_del(side->timer);
        return;
    }
    item = QSIMPLEQ_FIRST(&side->queue);
    if (item) {
        next = item->due;
    }
    item = QSIMPLEQ_FIRST(&side->held);
    if (item) {
        next = MIN(next, item->due + WIRE_HOLD_NS);
    }
    if (next == INT64_MAX) {
        timer_del(side->timer);
    } else {
        timer_mod_ns(side->timer, next);
    }
}

static void to_guest_timer(void *opaque)
{
    HvNet *s = opaque;

    wire_run(s, &s->wire.to_guest);
}

static void from_guest_timer(void *opaque)
{
    HvNet *s = opaque;

    wire_run(s, &s->wire.from_guest);
}

static void wire_sent(NetClientState *nc, ssize_t ret)
{
    HvNet *s = qemu_get_nic_opaque(nc);

    s->wire.from_guest.blocked = false;
    wire_run(s, &s->wire.from_guest);
    if (!s->wire.from_guest.blocked) {
        s->wire.sent(nc, ret);
    }
}

void hv_net_wire_resume(HvNet *s)
{
    if (s->wire.to_guest.blocked) {
        s->wire.to_guest.blocked = false;
        wire_run(s, &s->wire.to_guest);
    }
}

/*
 * Frames come in
 */

/* The splitmix64 generator's n-th number: any of them without the others. */
static uint64_t random_number(uint64_t seed, uint64_t n)
{
    uint64_t z = seed + (n + 1) * 0x9e3779b97f4a7c15ull;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static bool happens(uint32_t random, uint64_t ppm)
{
    return (uint64_t)random * 1000000 >> 32 < ppm;
}

static uint8_t piece_fate(HvNet *s, HvNetWireSide *side)
{
    bool from_guest = side == &s->wire.from_guest;
    uint64_t n = side->next_piece++ * 4 + from_guest * 2;
    uint64_t first = random_number(s->wire.seed, n);
    uint64_t second = random_number(s->wire.seed, n + 1);
    uint8_t fate = 0;

    side->pieces++;
    if (happens(first, side->loss_ppm)) {
        side->lost++;
        return WIRE_LOST;
    }
    if (happens(first >> 32, side->duplicate_ppm)) {
        side->duplicated++;
        fate |= WIRE_DUPLICATED;
    }
    if (happens(second, side->reorder_ppm)) {
        side->reordered++;
        fate |= WIRE_REORDERED;
    }
    return fate;
}

static void wire_put(HvNetWireSide *side, HvNetWireItem *item, bool hold)
{
    HvNetWireItem *other;
    int64_t start = MAX(wire_now(), side->free_at);

    if (side->queued_bytes + item->bytes > side->queue_kib * KiB) {
        side->overflowed += item->pieces;
        g_free(item);
        return;
    }
    side->queued_frames++;
    side->queued_bytes += item->bytes;
    side->peak_bytes = MAX(side->peak_bytes, side->queued_bytes);
    side->free_at = start + line_time(side, item);
    item->due = side->free_at + side->delay_us * SCALE_US;
    if (hold) {
        item->overtakers = WIRE_OVERTAKEN_BY;
        QSIMPLEQ_INSERT_TAIL(&side->held, item, link);
        return;
    }
    queue_append(side, item);
    QSIMPLEQ_FOREACH(other, &side->held, link) {
        other->overtakers -= item->pieces;
    }
}

static void wire_put_frame(HvNet *s, HvNetWireSide *side, NetClientState *nc,
                           const struct iovec *iov, int iov_count)
{
    uint8_t head[512], fate[WIRE_PIECES_MAX];
    size_t head_bytes = iov_to_buf(iov, iov_count, 0, head, sizeof(head));
    HvNetGso at = layout_frame(s, head, head_bytes, iov_size(iov, iov_count));
    uint32_t i, n;

    side->frames++;
    for (i = 0; i < at.pieces; i++) {
        fate[i] = piece_fate(s, side);
    }
    for (i = 0; i < at.pieces; i += n) {
        for (n = 1; !fate[i] && i + n < at.pieces && !fate[i + n]; ) {
            n++;
        }
        if (i == 0 && n < at.pieces) {
            side->cut++;
        }
        if (fate[i] & WIRE_LOST) {
            continue;
        }
        wire_put(side, item_new(&at, nc, iov, iov_count, i, n),
                 fate[i] & WIRE_REORDERED);
        if (fate[i] & WIRE_DUPLICATED) {
            wire_put(side, item_new(&at, nc, iov, iov_count, i, n), false);
        }
    }
}

/* Frames that are still on a wire that has been switched off stay ahead. */
static bool passes_through(const HvNetWireSide *side)
{
    return likely(!side->on) && !side->queued_frames && !side->blocked;
}

ssize_t hv_net_wire_send(HvNet *s, NetClientState *nc, const struct iovec *iov,
                         int count, NetPacketSent *sent)
{
    HvNetWireSide *side = &s->wire.from_guest;

    if (passes_through(side)) {
        return qemu_sendv_packet_async(nc, iov, count, sent);
    }
    s->wire.sent = sent;
    wire_put_frame(s, side, nc, iov, count);
    wire_run(s, side);
    return side->blocked ? 0 : iov_size(iov, count);
}

ssize_t hv_net_wire_receive_iov(NetClientState *nc, const struct iovec *iov,
                                int count)
{
    HvNet *s = qemu_get_nic_opaque(nc);
    HvNetWireSide *side = &s->wire.to_guest;

    if (passes_through(side)) {
        return hv_net_receive_iov(nc, iov, count);
    }
    if (side->blocked) {
        return 0;   /* hv_net_wire_resume comes before the backend's flush */
    }
    wire_put_frame(s, side, nc, iov, count);
    wire_run(s, side);
    return iov_size(iov, count);
}

/*
 * Properties, counters, life
 */

typedef struct WireProperty {
    const char *name;
    size_t offset;              /* in a side */
    uint64_t min, max, initial;
    const char *text;
} WireProperty;

#define WIRE_SIDE(direction, side)                                           \
    { direction "-delay-us", offsetof(HvNet, wire.side.delay_us),            \
      0, 10 * 1000 * 1000, 0, "delay in microseconds" },                     \
    { direction "-rate-kbit", offsetof(HvNet, wire.side.rate_kbit),          \
      0, 400 * 1000 * 1000, 0, "rate in kbit/s, 0 for no limit" },           \
    { direction "-loss-ppm", offsetof(HvNet, wire.side.loss_ppm),            \
      0, 1000000, 0, "lost pieces per million" },                            \
    { direction "-reorder-ppm", offsetof(HvNet, wire.side.reorder_ppm),      \
      0, 1000000, 0, "overtaken pieces per million" },                       \
    { direction "-duplicate-ppm", offsetof(HvNet, wire.side.duplicate_ppm),  \
      0, 1000000, 0, "duplicated pieces per million" },                      \
    { direction "-queue-kib", offsetof(HvNet, wire.side.queue_kib),          \
      64, 1024 * 1024, WIRE_QUEUE_KIB, "KiB on the wire and waiting for it" }

static const WireProperty wire_properties[] = {
    WIRE_SIDE("to-guest", to_guest),
    WIRE_SIDE("from-guest", from_guest),
    { "wire-seed", offsetof(HvNet, wire.seed), 0, INT64_MAX, 1,
      "decides the fate of each piece; setting it starts again" },
};

static uint64_t *property_field(Object *obj, const WireProperty *property)
{
    return (uint64_t *)((uint8_t *)HV_NET(obj) + property->offset);
}

static void property_get(Object *obj, Visitor *v, const char *name,
                         void *opaque, Error **errp)
{
    visit_type_uint64(v, name, property_field(obj, opaque), errp);
}

/* Frames that are on the wire need not wait longer than new ones would. */
static void side_update(HvNet *s, HvNetWireSide *side)
{
    int64_t at = wire_now();
    HvNetWireItem *item;

    side->on = side->delay_us || side->rate_kbit || side->loss_ppm ||
               side->reorder_ppm || side->duplicate_ppm;
    if (!side->timer) {
        return;     /* not realized */
    }
    side->last_due = 0;
    QSIMPLEQ_FOREACH(item, &side->queue, link) {
        at += line_time(side, item);
        item->due = MIN(item->due, at + (int64_t)side->delay_us * SCALE_US);
        side->last_due = item->due;
    }
    QSIMPLEQ_FOREACH(item, &side->held, link) {
        at += line_time(side, item);
        item->due = MIN(item->due, at + (int64_t)side->delay_us * SCALE_US);
    }
    side->free_at = MIN(side->free_at, at);
    wire_run(s, side);
}

static void property_set(Object *obj, Visitor *v, const char *name,
                         void *opaque, Error **errp)
{
    const WireProperty *property = opaque;
    HvNet *s = HV_NET(obj);
    uint64_t value, *field = property_field(obj, property);

    if (!visit_type_uint64(v, name, &value, errp)) {
        return;
    }
    if (value < property->min || value > property->max) {
        error_setg(errp, "%s has to be %" PRIu64 " to %" PRIu64, name,
                   property->min, property->max);
        return;
    }
    *field = value;
    if (field == &s->wire.seed) {
        s->wire.to_guest.next_piece = 0;
        s->wire.from_guest.next_piece = 0;
    }
    side_update(s, &s->wire.to_guest);
    side_update(s, &s->wire.from_guest);
}

void hv_net_wire_class_init(ObjectClass *klass)
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(wire_properties); i++) {
        const WireProperty *property = &wire_properties[i];
        ObjectProperty *made =
            object_class_property_add(klass, property->name, "uint64",
                                      property_get, property_set, NULL,
                                      (void *)property);

        object_class_property_set_description(klass, property->name,
                                              property->text);
        object_property_set_default_uint(made, property->initial);
    }
}

static void side_realize(HvNet *s, HvNetWireSide *side, QEMUTimerCB *timer)
{
    QSIMPLEQ_INIT(&side->queue);
    QSIMPLEQ_INIT(&side->held);
    side->timer = timer_new_ns(QEMU_CLOCK_VIRTUAL, timer, s);
}

void hv_net_wire_realize(HvNet *s)
{
    side_realize(s, &s->wire.to_guest, to_guest_timer);
    side_realize(s, &s->wire.from_guest, from_guest_timer);
}

static void side_unrealize(HvNetWireSide *side)
{
    HvNetWireItem *item;

    QSIMPLEQ_CONCAT(&side->queue, &side->held);
    while ((item = QSIMPLEQ_FIRST(&side->queue))) {
        QSIMPLEQ_REMOVE_HEAD(&side->queue, link);
        g_free(item);
    }
    side->queued_frames = 0;
    side->queued_bytes = 0;
    timer_free(side->timer);
    side->timer = NULL;
}

void hv_net_wire_unrealize(HvNet *s)
{
    side_unrealize(&s->wire.to_guest);
    side_unrealize(&s->wire.from_guest);
}

static QDict *side_stats(const HvNetWireSide *side)
{
    QDict *out = qdict_new();

    qdict_put_int(out, "frames", side->frames);
    qdict_put_int(out, "pieces", side->pieces);
    qdict_put_int(out, "lost", side->lost);
    qdict_put_int(out, "reordered", side->reordered);
    qdict_put_int(out, "duplicated", side->duplicated);
    qdict_put_int(out, "overflowed", side->overflowed);
    qdict_put_int(out, "cut", side->cut);
    qdict_put_int(out, "queued_frames", side->queued_frames);
    qdict_put_int(out, "queued_bytes", side->queued_bytes);
    qdict_put_int(out, "queued_bytes_peak", side->peak_bytes);
    return out;
}

void hv_net_wire_stats(HvNet *s, QDict *out)
{
    QDict *wire = qdict_new();

    qdict_put(wire, "to_guest", side_stats(&s->wire.to_guest));
    qdict_put(wire, "from_guest", side_stats(&s->wire.from_guest));
    qdict_put(out, "wire", wire);
}
