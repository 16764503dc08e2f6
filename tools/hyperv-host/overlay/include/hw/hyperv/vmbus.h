/*
 * The VMBus as a VMBus device sees it: channels, rings and shared memory.
 *
 * Everything here runs in the main loop's thread.  The guest's messages
 * and signals are moved there by vmbus.c before anybody else sees them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_HYPERV_VMBUS_H
#define HW_HYPERV_VMBUS_H

#include "hw/qdev-core.h"
#include "hw/hyperv/vmbus-proto.h"
#include "qapi/qmp/qdict.h"
#include "qemu/event_notifier.h"
#include "qemu/iov.h"
#include "qemu/queue.h"
#include "qemu/timer.h"
#include "qemu/uuid.h"
#include "qom/object.h"

#define TYPE_VMBUS_DEVICE "vmbus-dev"
OBJECT_DECLARE_TYPE(VMBusDevice, VMBusDeviceClass, VMBUS_DEVICE)

#define TYPE_VMBUS "vmbus"
OBJECT_DECLARE_SIMPLE_TYPE(VMBus, VMBUS)

#define VMBUS_PAGE_BITS 12
#define VMBUS_PAGE_SIZE (1u << VMBUS_PAGE_BITS)

typedef struct VMBusGpadl VMBusGpadl;
typedef struct VMBusChannel VMBusChannel;

/*
 * The life of an offer.  Legal steps: NONE -> OFFERED -> RESCINDED -> NONE,
 * OFFERED -> RELEASED (the guest gave a living offer back), and from anything
 * to NONE when the guest disconnects.
 */
typedef enum VMBusOfferState {
    VMBUS_OFFER_NONE,           /* the guest does not know this channel */
    VMBUS_OFFER_OFFERED,
    VMBUS_OFFER_RESCINDED,      /* waiting for RELID_RELEASED */
    VMBUS_OFFER_RELEASED,       /* gone until the guest reconnects */
} VMBusOfferState;

/*
 * One half of a channel's ring pair.  The indices here are the host's own
 * copies; the shared ones are read once per use and checked.
 */
typedef struct VMBusRing {
    VMBusRingHeader *header;    /* shared with the guest */
    uint32_t base;              /* where the data starts in the GPADL */
    uint32_t size;              /* of the data, in bytes */
    uint32_t index;             /* next byte to read or to write */
    uint32_t published;         /* last value given to the guest */
    uint32_t peer;              /* the guest's index as last seen */
} VMBusRing;

struct VMBusChannel {
    VMBusDevice *dev;
    uint16_t index;             /* 0: primary, 1..n: subchannels */

    VMBusOfferState offer;
    uint32_t relid;
    uint32_t connection_id;
    bool want_offer;            /* subchannels: the device asked for it */

    bool open;
    bool broken;                /* open, but not served any more */
    uint32_t target_vp;
    struct HvSintRoute *route;  /* NULL: the guest wants no interrupts */
    EventNotifier notifier;     /* the guest's signals */
    QEMUBH *work_bh;
    QEMUTimer *unstick_timer;
    QEMUTimer *poll_timer;      /* for guests that do not signal free space */
    VMBusGpadl *ring_gpadl;
    VMBusRing in;               /* guest to host */
    VMBusRing out;              /* host to guest */
    bool masked;                /* what the host last wrote to in's mask */
    bool waiting_room;          /* pending_send_size of out is set */
    bool peer_signals_room;     /* the guest honours pending_send_size */
    uint8_t *packet;            /* private copy of the packet being handled */
    uint32_t packet_bytes;      /* size of that buffer */

    uint64_t signals_from_guest;
    uint64_t signals_to_guest;
};

struct VMBusDeviceClass {
    DeviceClass parent;

    QemuUUID class_id;
    uint16_t offer_flags;
    uint32_t offer_pipe_mode;   /* the offer's user data, for a named pipe */

    void (*realize)(VMBusDevice *dev, Error **errp);
    void (*unrealize)(VMBusDevice *dev);
    /* The rings are ready.  An error makes the guest's OPEN fail. */
    int (*open_channel)(VMBusChannel *chan);
    /* Give up every GPADL and every use of the rings; cannot fail. */
    void (*close_channel)(VMBusChannel *chan);
    /*
     * Something happened: packets came, room became free, or the device
     * asked for it by vmbus_channel_kick().  Called with the channel open and
     * not broken.  To return true means "call me again soon", to return false
     * that there is nothing to do before the next signal.
     */
    bool (*channel_work)(VMBusChannel *chan);
    /*
     * After a signal of the guest channel_work is called without the BQL: it
     * uses nothing that another thread than the main loop's uses, too.
     */
    bool works_unlocked;
};

struct VMBusDevice {
    DeviceState parent_obj;

    QemuUUID instance_id;
    unsigned num_channels;      /* set by realize, at least 1 */
    VMBusChannel *channels;
    bool unplugging;            /* removal was asked for */
    bool removing;              /* and nothing is in its way any more */

    uint64_t guest_messages;    /* about this device, and on its channels */
    uint64_t rescind_after;     /* take the device back after so many */
    uint64_t rescind_before;    /* or when this one comes, before it counts */
    char *rescind_whom;         /* NULL: itself; else id of another device */
    bool take_back_due;         /* as soon as this message is dealt with */
};

VMBus *vmbus_device_bus(VMBusDevice *dev);

/*
 * A message or packet of the guest for this device is about to be handled.
 * False if it came too late: the device is to be taken back instead, which
 * for a packet is done when channel_work returns (take_back_due).
 */
bool vmbus_device_message(VMBusDevice *dev);

/* Channels */

/* Run the device's worker soon. */
void vmbus_channel_kick(VMBusChannel *chan);

/*
 * The guest broke @rule: name it in the log and stop serving the channel
 * until the guest closes it.
 */
void vmbus_channel_fail(VMBusChannel *chan, const char *rule,
                        const char *fmt, ...) G_GNUC_PRINTF(3, 4);

/* Stop serving the channel without blaming the guest. */
void vmbus_channel_stop(VMBusChannel *chan);

/* Offer subchannel @chan, now or as soon as its last relid is released. */
void vmbus_channel_offer(VMBusChannel *chan);

static inline bool vmbus_channel_usable(const VMBusChannel *chan)
{
    return chan->open && !chan->broken;
}

/* Reading the guest->host ring */

typedef struct VMBusPacket {
    uint16_t type;
    bool want_completion;
    uint64_t transaction_id;
    const uint8_t *header;      /* after the descriptor: GPA ranges */
    uint32_t header_bytes;
    const uint8_t *payload;
    uint32_t payload_bytes;
} VMBusPacket;

/*
 * Fetch the next packet into the channel's private buffer; @pkt points there
 * and is good until the next call.  Returns false if there is none or if the
 * ring is broken (the channel has been failed then).
 */
bool vmbus_ring_next(VMBusChannel *chan, VMBusPacket *pkt);

/* Tell the guest how far we have read, and signal it if it waits for room. */
void vmbus_ring_release(VMBusChannel *chan);

/*
 * Ask for a signal at the next packet.  Returns false if a packet came in
 * meanwhile: then the ring stays masked and the caller has to go on.
 */
bool vmbus_ring_sleep(VMBusChannel *chan);

/* Writing the host->guest ring */

/* Bytes a packet takes on the ring. */
static inline uint32_t vmbus_packet_room(uint32_t header, uint32_t payload)
{
    return header + ROUND_UP(payload, 8) + VMBUS_PACKET_TRAILER;
}

/* True if @bytes (from vmbus_packet_room) fit. */
bool vmbus_ring_has_room(VMBusChannel *chan, uint32_t bytes);

/*
 * Have channel_work called when @bytes have become free.  Returns false if
 * they are free already.
 */
bool vmbus_ring_wait_room(VMBusChannel *chan, uint32_t bytes);

/*
 * Put a packet; the room has been checked.  @header starts with the
 * descriptor, whose lengths are filled in here.
 */
void vmbus_ring_put(VMBusChannel *chan, VMBusPacketDesc *header,
                    uint32_t header_bytes, const void *payload,
                    uint32_t payload_bytes);

/* Show the guest what was put and signal it if need be. */
void vmbus_ring_commit(VMBusChannel *chan);

/* Shared memory */

/* Take a GPADL of this channel into use; NULL if there is no such thing. */
VMBusGpadl *vmbus_gpadl_get(VMBusChannel *chan, uint32_t id);
/* The last put answers a teardown the guest may be waiting for. */
void vmbus_gpadl_put(VMBusGpadl *gpadl);

uint32_t vmbus_gpadl_bytes(const VMBusGpadl *gpadl);
/* One range that starts on a page boundary? */
bool vmbus_gpadl_aligned(const VMBusGpadl *gpadl);
/*
 * The host address of offset @off, and how many bytes follow it there.
 * @off must be inside.
 */
uint8_t *vmbus_gpadl_ptr(const VMBusGpadl *gpadl, uint32_t off, uint32_t *run);
void vmbus_gpadl_read(const VMBusGpadl *gpadl, uint32_t off, void *buf,
                      uint32_t bytes);
void vmbus_gpadl_write(const VMBusGpadl *gpadl, uint32_t off, const void *buf,
                       uint32_t bytes);
/* Append [@off, @off + @bytes) to @iov; returns the new count or -1 if full. */
int vmbus_gpadl_iov(const VMBusGpadl *gpadl, uint32_t off, uint32_t bytes,
                    struct iovec *iov, int count, int max);

/*
 * Append the memory of the GPA range at *@pos (of @left bytes) to @iov and
 * step over it.  Returns the new count; -1 if the range is malformed, -2 if
 * it is not guest RAM, -3 if @iov is full.
 */
int vmbus_gpa_range_iov(const uint8_t **pos, uint32_t *left,
                        struct iovec *iov, int count, int max);

/* Counters of the device's channels, for its part of the statistics. */
void vmbus_device_stats(VMBusDevice *dev, QDict *out);

/* Between vmbus.c and vmbus-ring.c */

bool vmbus_ring_open(VMBusChannel *chan, uint32_t downstream_page);
void vmbus_ring_close(VMBusChannel *chan);
/*
 * The worker starts: mask the guest's signals and forget requests for room.
 * Returns false if the guest touched what it must not (channel failed).
 */
bool vmbus_ring_wake(VMBusChannel *chan);
bool vmbus_ring_out_empty(VMBusChannel *chan);
void vmbus_channel_signal_guest(VMBusChannel *chan);

#endif
