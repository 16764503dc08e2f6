/*
 * What the parts of VMBus share: vmbus.c (connection, hot plug, the bridge),
 * vmbus-message.c, vmbus-gpadl.c and vmbus-channel.c.  Devices see vmbus.h.
 *
 * Everything runs in the main loop's thread, unless it says otherwise.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_HYPERV_VMBUS_INTERNAL_H
#define HW_HYPERV_VMBUS_INTERNAL_H

#include "hw/hyperv/hyperv.h"
#include "hw/hyperv/vmbus.h"

#define INBOUND_DEPTH 64

typedef struct VMBusInbound {
    uint32_t connection_id;
    uint32_t bytes;
    uint8_t payload[HV_MESSAGE_PAYLOAD_SIZE];
} VMBusInbound;

typedef struct VMBusOutbound {
    QSIMPLEQ_ENTRY(VMBusOutbound) link;
    uint32_t bytes;
    uint8_t payload[HV_MESSAGE_PAYLOAD_SIZE];
} VMBusOutbound;

/*
 * Where the guest wants its messages.  Outlives the connection while a
 * message is on its way (busy).
 */
typedef struct VMBusPort {
    VMBus *bus;
    HvSintRoute *route;
    bool busy;
    bool dead;
} VMBusPort;

typedef enum VMBusGpadlState {
    VMBUS_GPADL_FILLING,    /* waiting for BODY messages */
    VMBUS_GPADL_READY,
    VMBUS_GPADL_TEARDOWN,   /* TORNDOWN is sent when the last user lets go */
} VMBusGpadlState;

struct VMBusGpadl {
    QTAILQ_ENTRY(VMBusGpadl) link;
    VMBus *bus;
    uint32_t id;
    uint32_t relid;
    VMBusGpadlState state;
    unsigned users;

    /* as the guest sent it: ranges of a VMBusGpaRange and page numbers */
    uint64_t *words;
    uint32_t words_total;
    uint32_t words_seen;
    uint32_t range_count;

    /* the first range; pages has host addresses */
    uint32_t bytes;
    uint32_t offset;
    uint32_t page_count;
    uint8_t **pages;
    uint8_t *linear;        /* not NULL: the pages follow one another */
};

struct VMBus {
    BusState parent_obj;

    uint32_t max_version;

    QemuMutex inbound_lock; /* protects inbound, inbound_head/count */
    VMBusInbound inbound[INBOUND_DEPTH];
    unsigned inbound_head;
    unsigned inbound_count;

    QEMUBH *bh;
    VMBusPort *port;
    QSIMPLEQ_HEAD(, VMBusOutbound) outbound;

    bool connected;
    uint32_t version;
    bool offers_requested;
    VMBusChannel *relids[VMBUS_MAX_RELID + 1];
    QTAILQ_HEAD(, VMBusGpadl) gpadls;
    unsigned gpadl_count;
};

static inline VMBus *vmbus_channel_bus(VMBusChannel *chan)
{
    return vmbus_device_bus(chan->dev);
}

/* vmbus-message.c */

/* The guest's messages come from here on its processors, without the BQL. */
uint16_t vmbus_message_arrived(const struct hyperv_post_message_input *input,
                               void *data);
/* Handle them, and send what waits. */
void vmbus_messages_bh(void *opaque);
/* Queue a message to the guest; dropped if it has told of no way for them. */
void vmbus_send(VMBus *bus, const void *data, uint32_t bytes);
void vmbus_outbound_clear(VMBus *bus);
/* Have messages delivered to @sint of @vp. */
void vmbus_port_create(VMBus *bus, uint32_t vp, uint32_t sint);
/* Forget that, and what has not been delivered. */
void vmbus_port_drop(VMBus *bus);

/* vmbus-gpadl.c */

VMBusGpadl *vmbus_gpadl_find_filling(VMBus *bus, uint32_t id);
/* Free those of @relid, or @all; nobody uses them any more. */
void vmbus_gpadls_free(VMBus *bus, uint32_t relid, bool all);
void vmbus_handle_gpadl_header(VMBus *bus, const void *data, uint32_t bytes);
void vmbus_handle_gpadl_body(VMBus *bus, const void *data, uint32_t bytes);
void vmbus_handle_gpadl_teardown(VMBus *bus, const void *data,
                                 uint32_t bytes);

/* vmbus-channel.c */

bool vmbus_vp_valid(uint32_t vp);
/* Bottom half and timer of a channel. */
void vmbus_channel_work(void *opaque);
void vmbus_channel_unstick(void *opaque);
/* Offer a device's primary channel, if that has not been done. */
void vmbus_device_offer(VMBusDevice *dev);
/* Fine if it is not open.  A primary takes its subchannels with it. */
void vmbus_channel_close(VMBusChannel *chan);
/* Withdraw the offer, closing the channel; waits for RELID_RELEASED. */
void vmbus_channel_rescind(VMBusChannel *chan);
void vmbus_channel_free_relid(VMBusChannel *chan, VMBusOfferState state);
void vmbus_handle_open(VMBus *bus, const void *data, uint32_t bytes);
void vmbus_handle_close(VMBus *bus, const void *data, uint32_t bytes);
void vmbus_handle_modify(VMBus *bus, const void *data, uint32_t bytes);
void vmbus_handle_request_offers(VMBus *bus, const void *data,
                                 uint32_t bytes);
void vmbus_handle_relid_released(VMBus *bus, const void *data,
                                 uint32_t bytes);

/* vmbus.c */

void vmbus_handle_initiate_contact(VMBus *bus,
                                   const VMBusMsgInitiateContact *msg,
                                   uint32_t connection_id);
void vmbus_handle_unload(VMBus *bus, const void *data, uint32_t bytes);
void vmbus_handle_reserved(VMBus *bus, const void *data, uint32_t bytes);
void vmbus_handle_tl_connect(VMBus *bus, const void *data, uint32_t bytes);
/* The host wants the device back: rescind its channels. */
void vmbus_device_take_back(VMBusDevice *dev);
/* Remove the device if the guest has let go of all of its channels. */
void vmbus_unplug_done(VMBusDevice *dev);

#endif
