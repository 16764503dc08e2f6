/*
 * The wire of the synthetic NIC: what hv-net-wire.c and the device share.
 * Everything runs in the main loop's thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_HYPERV_HV_NET_WIRE_H
#define HW_HYPERV_HV_NET_WIRE_H

#include "net/net.h"
#include "qemu/queue.h"
#include "qemu/timer.h"

typedef struct HvNetWireItem HvNetWireItem;
typedef QSIMPLEQ_HEAD(, HvNetWireItem) HvNetWireQueue;

/* One direction.  All zero, but for the queue's limit, is a perfect wire. */
typedef struct HvNetWireSide {
    /* properties */
    uint64_t delay_us;
    uint64_t rate_kbit;         /* 0: no limit */
    uint64_t loss_ppm;          /* of pieces, as the next two */
    uint64_t reorder_ppm;
    uint64_t duplicate_ppm;
    uint64_t queue_kib;

    bool on;                    /* one of the above asks for something */
    bool blocked;               /* the receiver takes no frame just now */
    QEMUTimer *timer;
    HvNetWireQueue queue;       /* by due time */
    HvNetWireQueue held;        /* to be overtaken */
    uint64_t queued_bytes;      /* in both */
    uint64_t queued_frames;
    int64_t free_at;            /* when the last bit so far has left, ns */
    int64_t last_due;
    uint64_t next_piece;        /* its number decides its fate */

    uint64_t frames;
    uint64_t pieces;
    uint64_t lost;              /* pieces, as the next three */
    uint64_t reordered;
    uint64_t duplicated;
    uint64_t overflowed;
    uint64_t cut;               /* large frames that did not stay whole */
    uint64_t peak_bytes;
} HvNetWireSide;

typedef struct HvNetWire {
    HvNetWireSide to_guest;
    HvNetWireSide from_guest;
    uint64_t seed;
    NetPacketSent *sent;
} HvNetWire;

struct HvNet;

void hv_net_wire_class_init(ObjectClass *klass);
void hv_net_wire_realize(struct HvNet *s);
void hv_net_wire_unrealize(struct HvNet *s);

/* As qemu_sendv_packet_async; @sent is the same in every call. */
ssize_t hv_net_wire_send(struct HvNet *s, NetClientState *nc,
                         const struct iovec *iov, int count,
                         NetPacketSent *sent);
/* The NIC's receive_iov: hands on to hv_net_receive_iov, now or later. */
ssize_t hv_net_wire_receive_iov(NetClientState *nc, const struct iovec *iov,
                                int count);
/* hv_net_receive_iov, which has said "later", may take frames again. */
void hv_net_wire_resume(struct HvNet *s);
void hv_net_wire_stats(struct HvNet *s, QDict *out);

#endif
