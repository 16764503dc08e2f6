/*
 * VMBus on the wire: the messages exchanged through the SynIC and the ring
 * buffer layout.  Used by vmbus.c, vmbus-ring.c and by VMBus devices.
 *
 * All numbers are little endian in guest memory; the host is x86-64 only, so
 * the structures are used as they are.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_HYPERV_VMBUS_PROTO_H
#define HW_HYPERV_VMBUS_PROTO_H

#define VMBUS_VERSION(major, minor)     (((major) << 16) | (minor))
#define VMBUS_VERSION_2_4               VMBUS_VERSION(2, 4)
#define VMBUS_VERSION_3_0               VMBUS_VERSION(3, 0)
#define VMBUS_VERSION_4_0               VMBUS_VERSION(4, 0)
#define VMBUS_VERSION_4_1               VMBUS_VERSION(4, 1)
#define VMBUS_VERSION_5_0               VMBUS_VERSION(5, 0)
#define VMBUS_VERSION_5_1               VMBUS_VERSION(5, 1)
#define VMBUS_VERSION_5_2               VMBUS_VERSION(5, 2)
#define VMBUS_VERSION_5_3               VMBUS_VERSION(5, 3)

#define VMBUS_SINT                      2

/*
 * Connection ids for messages.  The last one is what this host tells a 5.0+
 * guest to use; it is neither of the well known ones, so that a guest that
 * does not look at the answer is found out.
 */
#define VMBUS_CONN_MESSAGE              1
#define VMBUS_CONN_CONTACT              4
#define VMBUS_CONN_NEGOTIATED           7

#define VMBUS_MAX_RELID                 2047
#define VMBUS_VP_NONE                   0xffffffffu     /* no interrupts */

#define VMBUS_STATUS_OK                 0u
#define VMBUS_STATUS_FAILED             0x8000ffffu
#define VMBUS_STATUS_REFUSED            0xc0000236u

enum VMBusMessageType {
    VMBUS_MSG_OFFER = 1,
    VMBUS_MSG_RESCIND = 2,
    VMBUS_MSG_REQUEST_OFFERS = 3,
    VMBUS_MSG_ALL_OFFERS_DELIVERED = 4,
    VMBUS_MSG_OPEN = 5,
    VMBUS_MSG_OPEN_RESULT = 6,
    VMBUS_MSG_CLOSE = 7,
    VMBUS_MSG_GPADL_HEADER = 8,
    VMBUS_MSG_GPADL_BODY = 9,
    VMBUS_MSG_GPADL_CREATED = 10,
    VMBUS_MSG_GPADL_TEARDOWN = 11,
    VMBUS_MSG_GPADL_TORNDOWN = 12,
    VMBUS_MSG_RELID_RELEASED = 13,
    VMBUS_MSG_INITIATE_CONTACT = 14,
    VMBUS_MSG_VERSION_RESPONSE = 15,
    VMBUS_MSG_UNLOAD = 16,
    VMBUS_MSG_UNLOAD_RESPONSE = 17,
    VMBUS_MSG_OPEN_RESERVED = 18,
    VMBUS_MSG_CLOSE_RESERVED = 19,
    VMBUS_MSG_CLOSE_RESERVED_RESPONSE = 20,
    VMBUS_MSG_TL_CONNECT = 21,
    VMBUS_MSG_MODIFY = 22,
    VMBUS_MSG_TL_CONNECT_RESULT = 23,
    VMBUS_MSG_MODIFY_RESPONSE = 24,
    VMBUS_MSG_MODIFY_CONNECTION = 25,
    VMBUS_MSG_MODIFY_CONNECTION_RESPONSE = 26,
    VMBUS_MSG_PAUSE = 27,
    VMBUS_MSG_PAUSE_RESPONSE = 28,
    VMBUS_MSG_RESUME = 29,
};

typedef struct VMBusMsgHeader {
    uint32_t type;
    uint32_t padding;
} VMBusMsgHeader;

typedef struct VMBusMsgInitiateContact {
    VMBusMsgHeader header;
    uint32_t version;
    uint32_t target_vp;
    union {
        uint64_t interrupt_page;        /* < 5.0 */
        struct {                        /* >= 5.0 */
            uint8_t sint;
            uint8_t vtl;
            uint8_t padding[2];
            uint32_t features;
        };
    };
    uint64_t monitor_page_to_guest;
    uint64_t monitor_page_to_host;
} VMBusMsgInitiateContact;
QEMU_BUILD_BUG_ON(sizeof(VMBusMsgInitiateContact) != 40);

enum {
    VMBUS_CONNECT_OK = 0,
    VMBUS_CONNECT_LOW_RESOURCES = 1,
    VMBUS_CONNECT_FAILED = 2,
};

typedef struct VMBusMsgVersionResponse {
    VMBusMsgHeader header;
    uint8_t supported;
    uint8_t connection_state;
    uint16_t padding;
    uint32_t selected;  /* version (< 5.0) or message connection id */
} VMBusMsgVersionResponse;
QEMU_BUILD_BUG_ON(sizeof(VMBusMsgVersionResponse) != 16);

#define VMBUS_OFFER_ENUMERATE_INTERFACE 0x1
#define VMBUS_OFFER_NAMED_PIPE          0x10

typedef struct QEMU_PACKED VMBusMsgOffer {
    VMBusMsgHeader header;
    uint8_t class_id[16];
    uint8_t instance_id[16];
    uint8_t reserved[16];
    uint16_t flags;
    uint16_t mmio_mb;
    uint8_t user_data[120];
    uint16_t subchannel_index;
    uint16_t mmio_optional_mb;
    uint32_t relid;
    uint8_t monitor_id;
    uint8_t monitor_allocated;
    uint16_t is_dedicated;
    uint32_t connection_id;
} VMBusMsgOffer;
QEMU_BUILD_BUG_ON(sizeof(VMBusMsgOffer) != 196);

/* RESCIND, CLOSE, RELID_RELEASED */
typedef struct VMBusMsgRelid {
    VMBusMsgHeader header;
    uint32_t relid;
} VMBusMsgRelid;
QEMU_BUILD_BUG_ON(sizeof(VMBusMsgRelid) != 12);

typedef struct VMBusMsgOpen {
    VMBusMsgHeader header;
    uint32_t relid;
    uint32_t open_id;
    uint32_t gpadl;
    uint32_t target_vp;
    uint32_t downstream_page;   /* where the host->guest ring starts */
    uint8_t user_data[120];
} VMBusMsgOpen;
QEMU_BUILD_BUG_ON(sizeof(VMBusMsgOpen) != 148);

typedef struct VMBusMsgOpenResult {
    VMBusMsgHeader header;
    uint32_t relid;
    uint32_t open_id;
    uint32_t status;
} VMBusMsgOpenResult;
QEMU_BUILD_BUG_ON(sizeof(VMBusMsgOpenResult) != 20);

typedef struct VMBusGpaRange {
    uint32_t bytes;
    uint32_t offset;
} VMBusGpaRange;

/* Followed by the range (VMBusGpaRange, then 64 bit page numbers). */
typedef struct VMBusMsgGpadlHeader {
    VMBusMsgHeader header;
    uint32_t relid;
    uint32_t gpadl;
    uint16_t range_buffer_bytes;
    uint16_t range_count;
} VMBusMsgGpadlHeader;
QEMU_BUILD_BUG_ON(sizeof(VMBusMsgGpadlHeader) != 20);

/* Followed by 64 bit page numbers. */
typedef struct VMBusMsgGpadlBody {
    VMBusMsgHeader header;
    uint32_t number;
    uint32_t gpadl;
} VMBusMsgGpadlBody;
QEMU_BUILD_BUG_ON(sizeof(VMBusMsgGpadlBody) != 16);

typedef struct VMBusMsgGpadlCreated {
    VMBusMsgHeader header;
    uint32_t relid;
    uint32_t gpadl;
    uint32_t status;
} VMBusMsgGpadlCreated;
QEMU_BUILD_BUG_ON(sizeof(VMBusMsgGpadlCreated) != 20);

typedef struct VMBusMsgGpadlTeardown {
    VMBusMsgHeader header;
    uint32_t relid;
    uint32_t gpadl;
} VMBusMsgGpadlTeardown;
QEMU_BUILD_BUG_ON(sizeof(VMBusMsgGpadlTeardown) != 16);

typedef struct VMBusMsgGpadlTorndown {
    VMBusMsgHeader header;
    uint32_t gpadl;
} VMBusMsgGpadlTorndown;
QEMU_BUILD_BUG_ON(sizeof(VMBusMsgGpadlTorndown) != 12);

typedef struct VMBusMsgModify {
    VMBusMsgHeader header;
    uint32_t relid;
    uint32_t target_vp;
} VMBusMsgModify;
QEMU_BUILD_BUG_ON(sizeof(VMBusMsgModify) != 16);

typedef struct VMBusMsgModifyResponse {
    VMBusMsgHeader header;
    uint32_t relid;
    uint32_t status;
} VMBusMsgModifyResponse;
QEMU_BUILD_BUG_ON(sizeof(VMBusMsgModifyResponse) != 16);

typedef struct VMBusMsgTlConnect {
    VMBusMsgHeader header;
    uint8_t endpoint[16];
    uint8_t service[16];
} VMBusMsgTlConnect;
QEMU_BUILD_BUG_ON(sizeof(VMBusMsgTlConnect) != 40);

typedef struct VMBusMsgTlConnectResult {
    VMBusMsgHeader header;
    uint8_t endpoint[16];
    uint8_t service[16];
    uint32_t status;
} VMBusMsgTlConnectResult;
QEMU_BUILD_BUG_ON(sizeof(VMBusMsgTlConnectResult) != 44);

/*
 * Rings.  Header page first, then the data pages.
 */
typedef struct VMBusRingHeader {
    uint32_t write_index;
    uint32_t read_index;
    uint32_t interrupt_mask;
    uint32_t pending_send_size;
    uint32_t reserved[12];
    uint32_t features;
} VMBusRingHeader;
QEMU_BUILD_BUG_ON(offsetof(VMBusRingHeader, features) != 64);

#define VMBUS_RING_FEATURE_PENDING_SIZE 1u

enum VMBusPacketType {
    VMBUS_PACKET_INBAND = 6,
    VMBUS_PACKET_XFER_PAGES = 7,
    VMBUS_PACKET_GPA_DIRECT = 9,
    VMBUS_PACKET_COMPLETION = 11,
};

#define VMBUS_PACKET_FLAG_COMPLETION    1u

typedef struct VMBusPacketDesc {
    uint16_t type;
    uint16_t header_qwords;
    uint16_t total_qwords;      /* header and payload, without the trailer */
    uint16_t flags;
    uint64_t transaction_id;
} VMBusPacketDesc;
QEMU_BUILD_BUG_ON(sizeof(VMBusPacketDesc) != 16);

#define VMBUS_PACKET_TRAILER            8u

/* Follows the descriptor of a VMBUS_PACKET_GPA_DIRECT packet. */
typedef struct VMBusGpaDirect {
    uint32_t reserved;
    uint32_t range_count;
} VMBusGpaDirect;

typedef struct VMBusXferRange {
    uint32_t bytes;
    uint32_t offset;
} VMBusXferRange;

/* The header of a VMBUS_PACKET_XFER_PAGES packet with one range. */
typedef struct VMBusXferPages {
    VMBusPacketDesc desc;
    uint16_t set_id;
    uint8_t sender_owns;
    uint8_t reserved;
    uint32_t range_count;
    VMBusXferRange range;
} VMBusXferPages;
QEMU_BUILD_BUG_ON(sizeof(VMBusXferPages) != 32);

#endif
